//! The journal: turns what the core appends into commit groups, and their completion into tickets.
//!
//! One log carries orders and values in the order in which the core gave them tickets, so that
//! "everything up to ticket t is durable" is a prefix. Invariants: items leave in order of ticket;
//! a group is planned only if its order block has memory of its own; nothing is persisted before
//! every group before it is complete. In memory durability there is no journal.

use crate::config::Config;
use crate::device::{Device, Port};
use crate::gauges::Queue;
use crate::shard::packets::{PLAN, PacketIx, Packets, WRITE};
use chainring_net::pool::Range;
use chainring_net::wire::Refused;
use chainring_ring::core::Core;
use chainring_ring::ids::{Claim, Order};
use chainring_ring::{mark, mutant};
use chainring_storage::{Damage, LogError, LogWriter, Segments, Start, Values, order_block_bytes};
use std::collections::VecDeque;

/// How long an idle log waits for the order of the first value.
const ORDER_WAIT_US: u64 = 50;
/// Ranges of one write, after merging neighbours; the uring takes more.
const RANGES_MAX: usize = 512;

#[derive(Clone, Copy, Debug)]
enum Item {
    Order(Order),
    Value(PacketIx),
}

#[derive(Debug)]
struct Group {
    number: u64,
    segment: u32,
    bytes: u32,
    /// Everything up to here is durable when this group and all before it are.
    ticket: u64,
    /// When its oldest item came.
    since_us: u64,
    block: usize,
    packets: Vec<PacketIx>,
    complete: bool,
}

/// Limits of a journal.
#[derive(Clone, Copy, Debug)]
pub struct JournalLimits {
    /// A group takes values up to this, and one packet more.
    pub group_bytes: u32,
    /// Orders of a group.
    pub group_orders: usize,
    /// Groups written at the same time.
    pub groups_in_flight: usize,
    /// Unit of alignment.
    pub block: u32,
    /// Items that may wait: a window of orders and every packet in memory.
    pub pending: usize,
}

impl JournalLimits {
    /// As configured, for `pending` items that wait.
    pub fn of(config: &Config, pending: usize) -> JournalLimits {
        let limits = &config.limits;
        JournalLimits {
            group_bytes: limits.group_bytes,
            group_orders: limits.group_orders as usize,
            groups_in_flight: limits.groups_in_flight as usize,
            block: config.cluster.block,
            pending,
        }
    }
}

/// The shard's side of the log.
#[derive(Debug)]
pub struct Journal {
    writer: LogWriter,
    limits: JournalLimits,
    pending: VecDeque<(Item, u64)>,
    pending_orders: usize,
    pending_bytes: u64,
    /// Ticket of the last item that left `pending`.
    planned: u64,
    /// What the last block said is delivered.
    claimed: Claim,
    /// Groups being written, in order; entries are recycled through `spare`.
    groups: VecDeque<Group>,
    spare: Vec<Group>,
    blocks: Range,
    orders: Vec<Order>,
    ranges: Vec<Range>,
    asked_segment: u32,
    /// The next group waits for a segment.
    blocked: bool,
    /// No further segment can be had.
    pub full: bool,
    /// Groups completed.
    pub completed: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Ticket to which all is on stable media.
    durable: u64,
    segments: Segments,
}

impl Journal {
    /// Bytes of an order block with the largest number of orders.
    pub fn block_bytes(group_orders: usize, block: u32) -> u32 {
        (order_block_bytes(group_orders, block) as u32).next_multiple_of(4096)
    }

    /// A journal that writes with `writer`, its order blocks in `blocks`.
    pub fn new(
        writer: LogWriter,
        segments: Segments,
        limits: JournalLimits,
        blocks: Range,
    ) -> Journal {
        let each = Journal::block_bytes(limits.group_orders, limits.block);
        assert!(blocks.bytes >= each * (limits.groups_in_flight as u32 + 1));
        let spare = (0..=limits.groups_in_flight)
            .map(|block| Group {
                number: 0,
                segment: 0,
                bytes: 0,
                ticket: 0,
                since_us: 0,
                block,
                packets: Vec::with_capacity(RANGES_MAX),
                complete: false,
            })
            .collect();
        Journal {
            asked_segment: writer.segment(),
            writer,
            pending: VecDeque::with_capacity(limits.pending),
            pending_orders: 0,
            pending_bytes: 0,
            planned: 0,
            claimed: Claim::default(),
            groups: VecDeque::with_capacity(limits.groups_in_flight + 1),
            spare,
            blocks,
            orders: Vec::with_capacity(limits.group_orders),
            ranges: Vec::with_capacity(RANGES_MAX + 1),
            limits,
            blocked: false,
            full: false,
            completed: 0,
            bytes: 0,
            durable: 0,
            segments,
        }
    }

    /// Takes an order; it has the next ticket.
    pub fn push_order(&mut self, order: Order, now_us: u64) {
        assert!(self.pending.len() < self.limits.pending);
        self.pending_orders += 1;
        self.pending.push_back((Item::Order(order), now_us));
    }

    /// Takes a value; it has the next ticket.
    pub fn push_value(&mut self, ix: PacketIx, bytes: u32, now_us: u64) {
        assert!(self.pending.len() < self.limits.pending);
        self.pending_bytes += u64::from(bytes);
        self.pending.push_back((Item::Value(ix), now_us));
    }

    /// Room for further items.
    pub fn room(&self) -> usize {
        self.limits.pending - self.pending.len()
    }

    /// How full it is.
    pub fn queues(&self) -> [Queue; 2] {
        let limits = &self.limits;
        [
            ("log items", self.pending.len(), limits.pending),
            ("groups under way", self.groups.len(), limits.groups_in_flight),
        ]
    }

    /// The segment to ask for, once.
    pub fn segment_to_ask(&mut self) -> Option<u32> {
        let wanted = self.writer.segment_wanted()?;
        if wanted <= self.asked_segment || self.full {
            return None;
        }
        self.asked_segment = wanted;
        Some(wanted)
    }

    /// A segment is ready.
    ///
    /// # Errors
    /// [`LogError::SegmentOrder`] if it is not the next.
    pub fn add_segment(&mut self, number: u32) -> Result<(), LogError> {
        self.blocked = false;
        self.writer.add_segment(number)
    }

    /// The segment being written.
    pub fn segment(&self) -> u32 {
        self.writer.segment()
    }

    /// The highest group known to be complete.
    pub fn sealed(&self) -> u64 {
        self.writer.durable()
    }

    /// True if the next group waits for a segment.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Orders that no group was planned for.
    pub fn pending_orders(&self) -> usize {
        self.pending_orders
    }

    /// Ticket to which all is on stable media.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// From where the log is replayed by whoever has the state that the core has delivered.
    pub fn replay_from(&self, core: &Core, damage: &[Damage]) -> Start {
        let from = self.segments.replay_from(core.delivered(), core.table(), damage);
        from.expect("a log has a segment")
    }

    /// The segments below `first` are freed.
    pub fn freed(&mut self, first: u32) {
        self.segments.forget(first);
    }

    /// What the log says is delivered.
    pub fn claimed(&self) -> Claim {
        self.claimed
    }

    /// Bytes that wait for stable media, and the time the oldest came.
    pub fn behind(&self) -> (u64, Option<u64>) {
        let flying = self.groups.iter().filter(|group| !group.complete);
        let bytes = flying.clone().map(|group| u64::from(group.bytes)).sum::<u64>();
        let oldest = flying.map(|group| group.since_us).next();
        let oldest = oldest.or_else(|| self.pending.front().map(|(_, since)| *since));
        (bytes + self.pending_bytes, oldest)
    }

    /// True if nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.groups.is_empty()
    }

    /// Whether the log is idle and does not say yet that it is complete.
    pub fn needs_seal(&self) -> bool {
        self.is_idle() && self.writer.needs_seal()
    }

    /// Whether the log is idle and does not say yet how far it is delivered.
    pub fn needs_claim(&self, core: &Core) -> bool {
        let claimed = self.claimed.position;
        self.is_idle() && core.claim_to_log(claimed, self.planned).position > claimed
    }

    /// True if a value waits for its order, so that time alone makes a group due. Whatever else
    /// waits is woken by a write that comes back, or by a segment.
    pub fn is_waiting_for_order(&self) -> bool {
        self.groups.is_empty() && !self.pending.is_empty() && !self.blocked
    }

    /// True if nothing is under way, what waits needs a segment, and none can be had.
    pub fn is_stuck(&self) -> bool {
        self.groups.is_empty() && self.blocked && self.full
    }

    /// Submits what can be submitted. True if it submitted anything.
    ///
    /// # Errors
    /// [`LogError::Poisoned`].
    pub fn submit<M: Port + Device>(
        &mut self,
        machine: &mut M,
        packets: &mut Packets,
        core: &Core,
        now_us: u64,
    ) -> Result<bool, LogError> {
        let mut any = false;
        while self.is_due(now_us) && self.submit_group(machine, packets, core)? {
            any = true;
        }
        Ok(any)
    }

    /// An idle log waits a moment for the order of a first value, so that a lone record costs one
    /// write.
    fn is_due(&self, now_us: u64) -> bool {
        let Some((_, since)) = self.pending.front().filter(|_| !self.blocked) else { return false };
        let lone = self.groups.is_empty() && self.pending_orders == 0;
        !lone || now_us >= since + ORDER_WAIT_US || self.pending.len() > 8
    }

    fn submit_group<M: Port + Device>(
        &mut self,
        machine: &mut M,
        packets: &mut Packets,
        core: &Core,
    ) -> Result<bool, LogError> {
        if self.groups.len() >= self.limits.groups_in_flight {
            return Ok(false);
        }
        let Some(mut group) = self.spare.pop() else { return Ok(false) };
        let values = self.gather(&mut group, machine, packets);
        let block = self.block_range(group.block);
        let items = self.orders.len() + group.packets.len();
        let claim = core.claim_to_log(self.claimed.position, self.planned + items as u64);
        let start = self.writer.start_of(0);
        let planned =
            self.writer.plan(self.orders.iter(), &values, claim, machine.bytes_mut(block));
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                group.packets.clear();
                self.spare.push(group);
                self.blocked = matches!(error, LogError::NoSegment { .. });
                return match error {
                    LogError::Busy { .. } | LogError::NoSegment { .. } => Ok(false),
                    error => Err(error),
                };
            }
        };
        group.since_us = self.pending.front().map_or(0, |(_, since)| *since);
        self.pending.drain(..items);
        self.pending_orders -= self.orders.len();
        self.pending_bytes -= u64::from(values.bytes);
        self.planned += items as u64;
        self.claimed = claim;
        self.segments.begin(Start { segment: plan.segment, ..start });
        self.orders.iter().for_each(|order| self.segments.order(order.instance));
        self.ranges.insert(0, Range { offset: block.offset, bytes: plan.order_block_bytes });
        let mut before = 0;
        for ix in &group.packets {
            let packet = packets.get_mut(*ix);
            self.segments.value(&packet.id);
            let bytes = packet.range.bytes;
            let place = plan.value_place(before, bytes);
            packet.place = Some(crate::mail::Place { at: place.at, bytes: place.bytes });
            before += bytes;
            packets.need(*ix, WRITE);
            packets.done(*ix, PLAN);
        }
        (group.number, group.bytes, group.ticket) = (plan.group, plan.bytes, self.planned);
        group.complete = false;
        group.segment = plan.segment;
        let written = machine.write(plan.group, plan.segment, &self.ranges, u64::from(plan.offset));
        assert_ne!(written, Err(Refused::Full), "fewer groups than writes");
        self.groups.push_back(group);
        self.drop_segments(machine);
        Ok(true)
    }

    /// Collects the next group's orders, packets and ranges from the front of what is pending.
    fn gather<M: Port>(&mut self, group: &mut Group, machine: &M, packets: &Packets) -> Values {
        self.orders.clear();
        self.ranges.clear();
        group.packets.clear();
        let mut values = Values::default();
        for (item, _) in &self.pending {
            match item {
                Item::Order(order) => {
                    if self.orders.len() == self.limits.group_orders {
                        mark!(GroupFullOfOrders);
                        break;
                    }
                    self.orders.push(*order);
                }
                Item::Value(ix) => {
                    let full = values.bytes >= self.limits.group_bytes;
                    if full || group.packets.len() == RANGES_MAX {
                        mark!(GroupFullOfValues);
                        break;
                    }
                    let range = packets.get(*ix).range;
                    values.push(machine.bytes(range));
                    group.packets.push(*ix);
                    match self.ranges.last_mut() {
                        Some(last) if last.end() == range.offset => last.bytes += range.bytes,
                        _ => self.ranges.push(range),
                    }
                }
            }
        }
        values
    }

    /// Writes a seal: what is complete is known to be so after a crash.
    ///
    /// # Errors
    /// [`LogError::Poisoned`].
    pub fn submit_seal<M: Port + Device>(
        &mut self,
        machine: &mut M,
        core: &Core,
    ) -> Result<(), LogError> {
        let claim = core.claim_to_log(self.claimed.position, self.planned);
        let Some(mut group) = self.spare.pop() else { return Ok(()) };
        let block = self.block_range(group.block);
        let start = self.writer.start_of(0);
        let plan = match self.writer.plan_seal(claim, machine.bytes_mut(block)) {
            Ok(plan) => plan,
            Err(error @ (LogError::Busy { .. } | LogError::NoSegment { .. })) => {
                self.spare.push(group);
                self.blocked = matches!(error, LogError::NoSegment { .. });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.claimed = claim;
        self.segments.begin(Start { segment: plan.segment, ..start });
        group.packets.clear();
        (group.number, group.bytes, group.ticket) = (plan.group, plan.bytes, self.planned);
        group.complete = false;
        group.segment = plan.segment;
        let range = Range { offset: block.offset, bytes: plan.order_block_bytes };
        mark!(SealWritten);
        let written = machine.write(plan.group, plan.segment, &[range], u64::from(plan.offset));
        assert_ne!(written, Err(Refused::Full), "fewer groups than writes");
        self.groups.push_back(group);
        self.drop_segments(machine);
        Ok(())
    }

    /// Segments below the oldest that is written to are not needed open.
    fn drop_segments<M: Device>(&self, machine: &mut M) {
        let oldest = self.groups.iter().map(|group| group.segment).min();
        machine.drop_segments(oldest.unwrap_or(0));
    }

    /// A write came back. `freed` gets the side-pool ranges that nobody needs any more. Returns
    /// the ticket up to which all is durable.
    ///
    /// # Errors
    /// [`LogError::Poisoned`] if it failed: nothing that depends on it may be told to anybody.
    pub fn written(
        &mut self,
        number: u64,
        result: Result<u32, i32>,
        packets: &mut Packets,
        mut freed: impl FnMut(Range),
    ) -> Result<Option<u64>, LogError> {
        let group = self.groups.iter_mut().find(|group| group.number == number);
        let group = group.expect("a group that was submitted");
        let passed = match result {
            Ok(_) => mutant!(ShortWriteAccepted),
            Err(_) => mutant!(WriteErrorIgnored),
        };
        if result != Ok(group.bytes) && !passed {
            match result {
                Ok(_) => mark!(WriteCutShort),
                Err(_) => mark!(WriteFailed),
            }
            self.writer.poison();
            let (wrote, errno) = (result.unwrap_or(0), result.err().unwrap_or(0));
            return Err(LogError::Write { group: number, bytes: group.bytes, wrote, errno });
        }
        group.complete = true;
        let group_ticket = group.ticket;
        for ix in group.packets.drain(..) {
            if let Some(range) = packets.done(ix, WRITE) {
                freed(range);
            }
        }
        self.completed += 1;
        self.bytes += u64::from(group.bytes);
        self.writer.complete(number)?;
        let mut ticket = mutant!(PersistedOutOfOrder).then_some(group_ticket);
        while self.groups.front().is_some_and(|group| group.complete) {
            let group = self.groups.pop_front().expect("just seen");
            ticket = Some(group.ticket);
            self.durable = group.ticket;
            self.spare.push(group);
        }
        Ok(ticket)
    }

    fn block_range(&self, block: usize) -> Range {
        let bytes = Journal::block_bytes(self.limits.group_orders, self.limits.block);
        Range { offset: self.blocks.offset + block as u32 * bytes, bytes }
    }
}
