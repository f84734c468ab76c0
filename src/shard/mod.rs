//! The shard: the one loop that owns a ring's data path.
//!
//! A turn: take the clock as given, take in events and commands, step the core, carry out its
//! actions, batch, write, send, submit once. Generic over port and device, so that a simulator
//! runs this loop too. Invariants: nothing here allocates, locks or formats between start and end
//! of load (ballot changes, link changes and fetches may); what the core is told is true.

mod actions;
mod batcher;
pub mod checks;
mod commands;
mod deliver;
pub mod direct;
mod events;
mod forward;
mod journal;
pub mod links;
mod outbox;
mod packets;
mod parts;
mod pools;
mod publish;
mod state;
mod times;
mod view;

use crate::config::{Config, Limits};
use crate::device::Machine;
use crate::gauges::Gauges;
use crate::groups::Groups;
use crate::mail::{Command, Notice};
use batcher::{BatchLimits, Batcher};
use chainring_net::mailbox::Receiver;
use chainring_net::pool::{Range, Regions};
use chainring_net::wire::Wait;
use chainring_ring::actions::{ACTIONS_MAX, Actions, Input, STEP_ROOM};
use chainring_ring::core::Core;
use chainring_ring::ids::{Ballot, Durability, NODES_MAX, NodeId, Sequence, Session, ValueId};
use chainring_ring::lanes::lane_packets;
use chainring_ring::layout::Layout;
use chainring_ring::{mark, mutant};
use chainring_storage::{MemoryLog, Superblock};
use checks::Checks;
use direct::Sender;
use forward::Forward;
pub use journal::Journal;
use journal::JournalLimits;
use links::ControlOut;
use outbox::Outbox;
use packets::{Home, PacketIx, Packets};
pub use parts::{Ended, Failure, Room, ShardParts};
use pools::{OwnPool, SidePool};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use times::Times;

/// Microseconds of a tick of the core.
const TICK_US: u64 = 10_000;
/// An idle log is sealed after this.
const SEAL_US: u64 = 1_000;
/// A log idle for so long says how far it is delivered, so that a restart replays to there.
const CLAIM_US: u64 = 100_000;
/// Bytes of the memory log made ready in an idle turn: a tenth of a millisecond.
const TOUCH_BYTES: usize = 256 << 10;
/// Longest wait for an event.
const WAIT_MAX_US: u64 = 10_000;

/// The loop and all that it owns.
pub struct Shard<M: Machine> {
    machine: M,
    core: Core,
    actions: Actions,
    groups: Groups,
    superblock: Superblock,
    durability: Durability,
    sender: Sender,
    packets: Packets,
    own: OwnPool,
    side: SidePool,
    batcher: Batcher,
    journal: Option<Journal>,
    memory: Option<MemoryLog>,
    memory_first: u64,
    /// All pages of the memory log are ready.
    warm: bool,
    control_out: ControlOut,
    outbox: Outbox,
    commands: Receiver<Command<M::Handle>>,
    gauges: Arc<Gauges>,
    /// Packets to forward that the port had no room for.
    backlog: VecDeque<Forward>,
    /// The packet that the core is asked about.
    judged: Option<PacketIx>,
    promise_written: Option<Ballot>,
    session_taken: Option<Session>,
    /// The circle may have changed.
    relink: bool,
    /// Predecessor and successor, as the control thread knows them.
    neighbours: [Option<NodeId>; 2],
    /// The state that was taken last, until the log holds what came to it.
    taken: Option<state::Waiting>,
    /// Catch-up entries that wait for room.
    entries: VecDeque<commands::Entries>,
    /// Where a control frame's body lies while it is read.
    control_body: Vec<u8>,
    last_persisted: u64,
    persist_lag: PersistLag,
    now_us: u64,
    next_tick_us: u64,
    /// All that came was taken in since the last tick, at some moment.
    listened: bool,
    idle_since_us: u64,
    times: Times,
    busy: bool,
    draining: bool,
    drained: bool,
    stop: Option<bool>,
    checks: Checks,
    failure: Option<Failure>,
    bad_bodies: u64,
    bad_frames: u64,
    fetched: u64,
    /// Events and commands taken, ticks that fired.
    inputs: u64,
    turn_us_max: u64,
}

/// Async durability: how far the log may be behind.
#[derive(Clone, Copy, Debug)]
struct PersistLag {
    us: u64,
    bytes: u64,
}

impl PersistLag {
    fn of(limits: &Limits) -> PersistLag {
        PersistLag {
            us: u64::from(limits.async_behind_ms) * 1000,
            bytes: u64::from(limits.async_behind_bytes),
        }
    }
}

/// The control thread begins with the circle of all that are listed; by now it may be another.
fn first_neighbours(config: &Config) -> [Option<NodeId>; 2] {
    let all = Layout::new(config.cluster.nodes.iter().map(|member| member.id));
    let me = config.node.id;
    [all.predecessor(me), all.successor(me)]
}

impl<M: Machine> Shard<M> {
    /// A shard at its start.
    pub fn new(config: &Config, parts: ShardParts<M>) -> Shard<M> {
        let limits = &config.limits;
        let (regions, room) = (parts.machine.regions(), parts.room);
        let durability = config.cluster.durability;
        let journal_limits = JournalLimits::of(config, room.log_items);
        let batch = BatchLimits::of(config);
        let memory_log = if room.sparse { MemoryLog::sparse } else { MemoryLog::new };
        let memory = (durability == Durability::Memory)
            .then(|| memory_log(limits.memory_log_bytes as usize));
        let segments = parts.segments.reserve(config.segments_max());
        let journal =
            parts.log.map(|log| Journal::new(log, segments, journal_limits, regions.blocks));
        let neighbours = first_neighbours(config);
        let mut shard = Shard {
            sender: Sender {
                cluster: config.cluster.id,
                epoch: config.cluster.epoch,
                node: config.node.id,
            },
            machine: parts.machine,
            core: parts.core,
            actions: Actions::new(),
            groups: parts.groups,
            superblock: parts.superblock,
            durability,
            packets: Packets::new(room.packets),
            own: OwnPool::new(regions.own),
            side: SidePool::new(regions.side, config.packet_max()),
            batcher: Batcher::new(batch),
            journal,
            memory,
            memory_first: 0,
            warm: durability != Durability::Memory,
            control_out: ControlOut::default(),
            outbox: Outbox::new(parts.notices, parts.control_waker, room.notices),
            commands: parts.commands,
            gauges: parts.gauges,
            backlog: VecDeque::with_capacity(room.packets),
            judged: None,
            promise_written: None,
            session_taken: None,
            relink: true,
            neighbours,
            taken: None,
            entries: VecDeque::with_capacity(commands::ENTRIES_MAX),
            control_body: Vec::with_capacity(links::CONTROL_MAX as usize),
            last_persisted: 0,
            persist_lag: PersistLag::of(limits),
            now_us: 0,
            next_tick_us: 0,
            listened: false,
            idle_since_us: 0,
            times: Times::new(),
            busy: false,
            draining: false,
            drained: false,
            stop: None,
            checks: Checks::new(),
            failure: None,
            bad_bodies: 0,
            bad_frames: 0,
            fetched: 0,
            inputs: 0,
            turn_us_max: 0,
        };
        assert!(shard.fits(config, room), "too little room: it would stand");
        shard.take_recovered(parts.held);
        shard
    }

    /// Whether `room` is enough for it never to stand still for good: for every packet that may be
    /// undelivered, by lanes and by memory, and for what one turn brings.
    fn fits(&self, config: &Config, room: Room) -> bool {
        let lanes = config.cluster.nodes.len() as u64 * lane_packets(self.core.window().span());
        let Regions { receive, own, side, .. } = self.machine.regions();
        let memory = [receive, own, side].iter().map(|region| u64::from(region.bytes)).sum::<u64>();
        let undelivered = lanes.min(memory / u64::from(config.cluster.block));
        room.packets as u64 > undelivered && room.notices > ACTIONS_MAX && self.has_room()
    }

    /// Undelivered values that recovery found lie in the side pool from the start.
    fn take_recovered(&mut self, held: Vec<(crate::mail::Place, Vec<u8>)>) {
        for (place, frame) in held {
            let header = chainring_ring::header::Header::decode(&frame, u32::MAX)
                .expect("recovery has verified it");
            let id = header.value_id();
            if self.core.lanes().ticket(&id).is_none() {
                continue;
            }
            let range = self.side.take(frame.len() as u32).expect("the side pool holds a window");
            self.machine.bytes_mut(range).copy_from_slice(&frame);
            let ix = self.packets.insert(id, range, Home::Side, 0);
            self.packets.get_mut(ix).place = Some(place);
            self.packets.hold(ix);
        }
    }

    /// One turn at the time `now_us` of a clock that never goes back: how long to wait for the
    /// next one, in [`Shard::poll`]; `None` when it is over.
    pub fn turn(&mut self, now_us: u64) -> Option<Wait> {
        self.now_us = now_us;
        self.busy = false;
        self.times.turn(now_us);
        self.take_events();
        self.take_commands();
        self.relink();
        if self.stop.is_some() {
            // Nothing may follow the mark: a record taken now would be told of and not be there.
            self.outbox.flush(&mut self.packets);
            return None;
        }
        self.tick();
        self.propose();
        self.step(Input::Continue);
        self.write();
        self.persist();
        self.send();
        self.batcher.settled(self.core.delivered_everywhere());
        self.give_back();
        self.tell_memory_first();
        self.tell_state();
        self.outbox.flush(&mut self.packets);
        self.touch_memory();
        self.check_drained();
        let over = self.failure.is_some() || self.stop.is_some();
        (!over).then(|| self.wait())
    }

    /// Submits what the turn queued and waits for more; `worked_us` is what the turn took.
    pub fn poll(&mut self, wait: Wait, worked_us: u64) {
        self.turn_us_max = self.turn_us_max.max(worked_us);
        self.machine.poll(wait);
    }

    /// While there is nothing else to do, pages of the memory log are made ready.
    fn touch_memory(&mut self) {
        if let Some(memory) = self.memory.as_mut().filter(|_| !self.busy && !self.warm) {
            self.warm = !memory.touch(TOUCH_BYTES);
            self.busy = true;
        }
    }

    /// Readers learn what the memory log has dropped.
    fn tell_memory_first(&mut self) {
        let first = self.memory.as_ref().map_or(0, MemoryLog::first);
        if first != self.memory_first {
            self.memory_first = first;
            self.outbox.push(Notice::MemoryFirst { at: first });
        }
    }

    fn wait(&self) -> Wait {
        // What waits for the data link has room when a send is done, which wakes.
        if self.busy || self.relink {
            return Wait::No;
        }
        let mut until = self.next_tick_us.saturating_sub(self.now_us).min(WAIT_MAX_US);
        if let Some(journal) = &self.journal {
            if journal.is_waiting_for_order() {
                until = until.min(50);
            } else if journal.needs_seal() && !journal.is_blocked() {
                until = until.min(SEAL_US);
            }
        }
        if !self.outbox.is_empty() {
            until = until.min(1_000);
        }
        Wait::UpTo(Duration::from_micros(until.max(1)))
    }

    fn tick(&mut self) {
        if self.now_us >= self.next_tick_us {
            self.inputs += 1;
            self.next_tick_us = self.now_us + TICK_US;
            if !std::mem::take(&mut self.listened) {
                self.step(Input::Deaf);
            }
            self.step(Input::Tick);
            self.tell_digest();
            self.publish();
        }
    }

    /// True while the loop may take in more: the outbox can hold what a step delivers.
    fn has_room(&self) -> bool {
        let window = self.core.window().span() as usize;
        (self.outbox.room() > 2 * window || mutant!(OutboxOverfilled))
            && self.packets.room() > 2
            && self.journal.as_ref().is_none_or(|journal| journal.room() > 2 * window)
    }

    /// Steps the core and carries out what it says.
    fn step(&mut self, input: Input<'_>) {
        assert!(self.actions.room() >= STEP_ROOM);
        self.core.step(input, &mut self.actions);
        self.machine.stepped(&self.core, &input, self.actions.as_slice());
        self.carry_out();
        if self.core.take_votes_changed() {
            self.control_out.votes_changed();
        }
    }

    /// Fills and proposes own packets.
    fn propose(&mut self) {
        while let Some(id) = self.core.next_own_id() {
            if self.packets.room() < 2 || !self.has_room() {
                return;
            }
            let machine = &mut self.machine;
            let mut memory = |range: Range, fill: &mut dyn FnMut(&mut [u8])| {
                fill(machine.bytes_mut(range));
            };
            if !self.batcher.fill(&self.own, id, &mut memory, self.now_us) {
                return;
            }
            self.seal(id);
            self.busy = true;
        }
    }

    fn seal(&mut self, id: ValueId) {
        let machine = &mut self.machine;
        let sealed = self.batcher.seal(&mut self.own, id, &self.sender, &mut |range, write| {
            write(machine.bytes_mut(range));
        });
        let ix = self.packets.insert(id, sealed.range, Home::Own, u64::from(sealed.behind));
        self.gauges.proposed.add(1);
        self.judge(ix, Input::Value(id));
    }

    /// Asks the core about a packet.
    fn judge(&mut self, ix: PacketIx, input: Input<'_>) {
        assert!(self.judged.is_none());
        self.judged = Some(ix);
        self.step(input);
        assert!(self.judged.is_none(), "the core answers with Keep or Drop");
    }

    /// Submits commit groups, or the last seal of an idle log.
    fn write(&mut self) {
        let (core, machine) = (&self.core, &mut self.machine);
        let Some(journal) = &mut self.journal else { return };
        let submitted = journal.submit(machine, &mut self.packets, core, self.now_us);
        match submitted {
            Ok(true) => self.busy = true,
            Ok(false) => {}
            Err(error) => return self.failure = Some(error.into()),
        }
        if !journal.is_idle() {
            self.idle_since_us = self.now_us;
        }
        let idle_us = if self.draining { u64::MAX } else { self.now_us - self.idle_since_us };
        let seal = idle_us >= SEAL_US && journal.needs_seal();
        let claim = idle_us >= CLAIM_US && journal.needs_claim(core);
        if (seal || claim)
            && let Err(error) = journal.submit_seal(machine, core)
        {
            self.failure = Some(error.into());
        }
        if let Some(number) = journal.segment_to_ask() {
            self.outbox.push(Notice::NeedSegment { number });
        }
    }

    /// Memory durability and, within its bound, async: what is in memory counts as persisted.
    fn persist(&mut self) {
        // What a failed write was to make durable is not: no step may be told otherwise.
        if self.failure.is_some() {
            return;
        }
        let at_once = match (self.durability, &self.journal) {
            (Durability::Memory, _) => true,
            (Durability::Sync, _) if mutant!(VoteBeforeFlush) => true,
            (Durability::Async, Some(journal)) => {
                let (bytes, oldest) = journal.behind();
                let age = oldest.map_or(0, |oldest| self.now_us.saturating_sub(oldest));
                let near = (journal.pending_orders() as u64) < self.core.window().span() / 4;
                let near = near && bytes < self.persist_lag.bytes && age < self.persist_lag.us;
                if !near {
                    mark!(AsyncLogTooFarBehind);
                }
                near
            }
            _ => false,
        };
        if let Some(ballot) = self.promise_written.take() {
            self.step(Input::Promised(ballot));
        }
        if let Some(session) = self.session_taken.take() {
            self.step(Input::Session(session));
        }
        // A step may append: go on until nothing new is there.
        while at_once && self.core.appended() > self.last_persisted && self.has_room() {
            self.last_persisted = self.core.appended();
            self.step(Input::Persisted(self.last_persisted));
        }
    }

    /// Gives memory back, and keeps the receive buffer from filling up.
    fn give_back(&mut self) {
        let receive = self.machine.regions().receive.bytes;
        while self.machine.received_held() > receive / 4 * 3 {
            let Some(ix) = self.packets.oldest_received() else { break };
            let range = self.packets.get(ix).range;
            let Some(to) = self.side.take(range.bytes) else { break };
            self.machine.copy(range, to);
            self.packets.moved(ix, to);
            self.release_received();
        }
        self.release_received();
        if let Some(behind) = self.packets.free_own() {
            self.own.give_back(behind);
        }
    }

    fn release_received(&mut self) {
        if let Some(position) = self.packets.free_received() {
            self.machine.release_received(position);
        }
    }

    /// The outcome, once [`Shard::turn`] was `None`.
    pub fn end(self) -> Ended {
        Ended { clean: self.stop == Some(true), latency: self.times.latency, failure: self.failure }
    }
}

/// Whose lanes are told to a predecessor.
fn lanes_of(core: &Core) -> impl Iterator<Item = (NodeId, Session, Sequence)> {
    (1..=NODES_MAX as u8).map(NodeId).filter_map(|node| {
        let lane = core.lanes().of(node)?;
        (lane.session() != Session::NONE).then(|| (node, lane.session(), lane.next()))
    })
}

#[cfg(all(test, shuttle))]
mod shuttle_tests;
#[cfg(test)]
mod tests;
