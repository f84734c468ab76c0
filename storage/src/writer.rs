//! Plans the writes of a log. Does no I/O: the shard submits what is planned and reports back.
//!
//! Invariants: groups are numbered without a gap, never cross a segment, start at multiples of 4096
//! and never overlap. At most `groups_in_flight` groups lie between the durable prefix and the end
//! of the log. Nothing is allocated after construction.

use crate::block::{Fields, ORDERS_PER_GROUP_MAX, Values, encode, order_block_bytes};
use crate::config::{GROUP_ALIGN, LogConfig, PREALLOCATE_MAX, Place, offset_of, segment_of};
use crate::contents::Start;
use crate::error::LogError;
use chainring_ring::ids::{Claim, Order, Session};
use chainring_ring::mark;

/// A write to submit: the order block, then the value frames, one run of bytes, with RWF_DSYNC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a planned group has to be written, or the log poisoned"]
pub struct GroupPlan {
    /// To be given to [`LogWriter::complete`].
    pub group: u64,
    /// File.
    pub segment: u32,
    /// Where in it.
    pub offset: u32,
    /// The order block; the first value follows it.
    pub order_block_bytes: u32,
    /// Order block and values.
    pub bytes: u32,
}

impl GroupPlan {
    /// Where a value frame comes to lie that starts `before` bytes into the values.
    pub fn value_place(&self, before: u32, bytes: u32) -> Place {
        Place::on_disk(self.segment, self.offset + self.order_block_bytes + before, bytes)
    }
}

/// Where a writer begins: what recovery found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    /// Life that writes.
    pub session: Session,
    /// Address of the next group.
    pub at: u64,
    /// Bytes of the segment that `at` lies in.
    pub segment_bytes: u32,
    /// Its number; everything below is settled.
    pub number: u64,
    /// Header checksum of the group before it, or 0.
    pub previous: u128,
}

/// The writer's side of a log.
#[derive(Debug)]
pub struct LogWriter {
    config: LogConfig,
    session: Session,
    segment: u32,
    segment_bytes: u32,
    offset: u32,
    /// Number of the next group.
    next: u64,
    previous: u128,
    /// All groups to here are complete.
    durable: u64,
    /// Groups above `durable` that are complete: bit 0 is `durable + 1`.
    done: u32,
    /// Highest group with orders or values.
    last_filled: u64,
    /// Highest `sealed` in a complete group.
    sealed: u64,
    /// `sealed` of the groups in flight, by number.
    seals: [u64; crate::config::GROUPS_IN_FLIGHT_MAX as usize],
    /// Segments ready, the numbers after `segment`.
    ready: usize,
    poisoned: bool,
}

impl LogWriter {
    pub(crate) fn new(config: LogConfig, resume: Resume) -> LogWriter {
        assert!(resume.number > 0, "0 stands for no group");
        LogWriter {
            config,
            session: resume.session,
            segment: segment_of(resume.at),
            segment_bytes: resume.segment_bytes,
            offset: offset_of(resume.at),
            next: resume.number,
            previous: resume.previous,
            durable: resume.number - 1,
            done: 0,
            last_filled: 0,
            sealed: 0,
            seals: [0; crate::config::GROUPS_IN_FLIGHT_MAX as usize],
            ready: 0,
            poisoned: false,
        }
    }

    /// Plans a group of `orders` and of the values added up in `values`, and writes its first block
    /// over the start of `block`. The caller then writes that block and the value frames, in the
    /// order in which they were added, as one run.
    ///
    /// # Errors
    /// [`LogError::Busy`]: after a completion. [`LogError::NoSegment`]: after
    /// [`LogWriter::add_segment`]. [`LogError::TooLarge`]: never. [`LogError::Poisoned`]: after
    /// recovery. Nothing is planned then.
    ///
    /// # Panics
    /// If `block` is shorter than [`order_block_bytes`] or there is neither an order nor a value.
    pub fn plan<'a, I>(
        &mut self,
        orders: I,
        values: &Values,
        claim: Claim,
        block: &mut [u8],
    ) -> Result<GroupPlan, LogError>
    where
        I: IntoIterator<Item = &'a Order>,
        I::IntoIter: ExactSizeIterator,
    {
        let orders = orders.into_iter();
        assert!(orders.len() + values.count as usize > 0, "an empty group is a seal");
        let plan = self.place(orders.len(), values.bytes)?;
        self.last_filled = plan.group;
        self.write_block(&plan, orders, values, claim, block);
        Ok(plan)
    }

    /// Plans a seal: a group that only says what is complete. `block` as in [`LogWriter::plan`].
    ///
    /// # Errors
    /// As [`LogWriter::plan`].
    pub fn plan_seal(&mut self, claim: Claim, block: &mut [u8]) -> Result<GroupPlan, LogError> {
        let plan = self.place(0, 0)?;
        self.write_block(&plan, [].iter(), &Values::default(), claim, block);
        Ok(plan)
    }

    /// Whether an idle log should write a seal: everything is complete, and something of it is not
    /// known to be so on disk.
    pub fn needs_seal(&self) -> bool {
        self.in_flight() == 0 && self.last_filled > self.sealed && !self.poisoned
    }

    /// Reports that the write of a group is durable; in any order. Returns the group up to which
    /// all are: votes may cover what lies in them.
    ///
    /// # Errors
    /// [`LogError::Poisoned`]: a write before failed, nothing more counts.
    ///
    /// # Panics
    /// If that group is not in flight.
    pub fn complete(&mut self, group: u64) -> Result<u64, LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        assert!(group > self.durable && group < self.next, "group {group} is not in flight");
        let bit = 1 << (group - self.durable - 1);
        assert!(self.done & bit == 0, "group {group} completed twice");
        if bit > 1 {
            mark!(WritesDoneOutOfOrder);
        }
        self.done |= bit;
        // A group's own seal says nothing of the group itself, so it holds out of order too.
        self.sealed = self.sealed.max(self.seals[slot(group)]);
        while self.done & 1 == 1 {
            self.done >>= 1;
            self.durable += 1;
        }
        Ok(self.durable)
    }

    /// A write failed: refuses everything from now on.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Whether a write failed.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// All groups to here are durable: the `sealed` of a superblock written now.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Groups planned but not in the durable prefix.
    pub fn in_flight(&self) -> u32 {
        (self.next - 1 - self.durable) as u32
    }

    /// Largest run of values that fits into a group beside `orders` orders, bytes.
    pub fn values_bytes_max(&self, orders: usize) -> u32 {
        let block = order_block_bytes(orders.min(ORDERS_PER_GROUP_MAX), self.config.block) as u32;
        self.config.group_bytes_max.saturating_sub(block)
    }

    /// What the next group follows, should a segment begin with it.
    pub fn start_of(&self, segment: u32) -> Start {
        let (number, start) = (self.next - 1, self.session.start);
        Start { segment, number, checksum: Some(self.previous), start }
    }

    /// The segment written to now.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// The segment to make next, if fewer are ready than are wanted. The caller remembers what it
    /// has asked for already.
    pub fn segment_wanted(&self) -> Option<u32> {
        let next = self.segment + 1 + self.ready as u32;
        (self.ready < self.config.preallocate).then_some(next)
    }

    /// A segment was made and is durable.
    ///
    /// # Errors
    /// [`LogError::SegmentOrder`] if it is not the next in turn.
    pub fn add_segment(&mut self, number: u32) -> Result<(), LogError> {
        let expected = self.segment + 1 + self.ready as u32;
        if number != expected || self.ready == PREALLOCATE_MAX {
            return Err(LogError::SegmentOrder { given: number, expected });
        }
        self.ready += 1;
        Ok(())
    }

    /// Finds the place of the next group and takes it.
    fn place(&mut self, orders: usize, value_bytes: u32) -> Result<GroupPlan, LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        let (in_flight, limit) = (self.in_flight(), self.config.groups_in_flight);
        if in_flight > 0 {
            mark!(WritesOverlap);
        }
        if in_flight >= limit {
            return Err(LogError::Busy { in_flight, limit });
        }
        let order_block = order_block_bytes(orders, self.config.block) as u32;
        let bytes = u64::from(order_block) + u64::from(value_bytes);
        let limit = self.config.group_bytes_max;
        if bytes > u64::from(limit) || orders > ORDERS_PER_GROUP_MAX {
            return Err(LogError::TooLarge { bytes, limit });
        }
        let bytes = bytes as u32;
        // A segment that lost its end may be shorter than where the log goes on.
        if self.segment_bytes.saturating_sub(self.offset) < bytes {
            if self.ready == 0 {
                mark!(LogLacksSegment);
                return Err(LogError::NoSegment { number: self.segment + 1 });
            }
            mark!(LogRolled);
            self.ready -= 1;
            self.segment += 1;
            self.segment_bytes = self.config.segment_bytes;
            self.offset = GROUP_ALIGN;
        }
        let plan = GroupPlan {
            group: self.next,
            segment: self.segment,
            offset: self.offset,
            order_block_bytes: order_block,
            bytes,
        };
        self.next += 1;
        self.offset += bytes.div_ceil(GROUP_ALIGN) * GROUP_ALIGN;
        assert!(self.offset <= self.segment_bytes, "both are multiples of 4096");
        Ok(plan)
    }

    fn write_block<'a>(
        &mut self,
        plan: &GroupPlan,
        orders: impl ExactSizeIterator<Item = &'a Order>,
        values: &Values,
        claim: Claim,
        block: &mut [u8],
    ) {
        let fields = Fields {
            number: plan.group,
            session: self.session,
            previous: self.previous,
            sealed: self.durable,
            claim,
            values: *values,
        };
        self.seals[slot(plan.group)] = self.durable;
        let block = &mut block[..plan.order_block_bytes as usize];
        self.previous = encode(&self.config, &fields, orders, block);
    }
}

fn slot(group: u64) -> usize {
    (group % u64::from(crate::config::GROUPS_IN_FLIGHT_MAX)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::address;

    fn writer() -> LogWriter {
        let config = LogConfig {
            segment_bytes: 132 << 10,
            group_bytes_max: 8 << 10,
            ..LogConfig::new(crate::segment::tests::identity(), 512)
        };
        config.check().unwrap();
        let session = Session::FIRST;
        let at = address(0, GROUP_ALIGN);
        let segment_bytes = config.segment_bytes;
        let resume = Resume { session, at, segment_bytes, number: 1, previous: 0 };
        LogWriter::new(config, resume)
    }

    fn values(bytes: u32) -> Values {
        Values { count: 1, bytes, digest: 1 }
    }

    #[test]
    fn completions_in_any_order_move_the_prefix() {
        let (mut log, mut block) = (writer(), [0; 512]);
        let claim = Claim::default();
        let first = log.plan(&[], &values(512), claim, &mut block).unwrap();
        let second = log.plan(&[], &values(5000 / 512 * 512), claim, &mut block).unwrap();
        assert_eq!((first.offset, first.bytes), (4096, 1024));
        assert_eq!(second.offset, 8192);
        let busy = log.plan(&[], &values(512), claim, &mut block).unwrap_err();
        assert!(matches!(busy, LogError::Busy { in_flight: 2, limit: 2 }));
        assert_eq!(log.complete(second.group).unwrap(), 0);
        assert_eq!(log.complete(first.group).unwrap(), 2);
        assert!(log.needs_seal());
        let seal = log.plan_seal(claim, &mut block).unwrap();
        assert_eq!(seal.offset, 16384);
        assert!(!log.needs_seal());
        log.complete(seal.group).unwrap();
        assert!(!log.needs_seal(), "a seal needs no seal");
    }

    #[test]
    fn a_group_never_crosses_a_segment() {
        let (mut log, mut block) = (writer(), [0; 512]);
        let claim = Claim::default();
        for round in 0..16 {
            let plan = log.plan(&[], &values(7680), claim, &mut block).unwrap();
            assert_eq!((plan.segment, plan.offset), (0, 4096 + round * 8192));
            log.complete(plan.group).unwrap();
        }
        let none = log.plan(&[], &values(512), claim, &mut block).unwrap_err();
        assert!(matches!(none, LogError::NoSegment { number: 1 }));
        assert_eq!(log.segment_wanted(), Some(1));
        assert!(matches!(log.add_segment(2), Err(LogError::SegmentOrder { .. })));
        log.add_segment(1).unwrap();
        assert_eq!(log.segment_wanted(), None);
        let plan = log.plan(&[], &values(512), claim, &mut block).unwrap();
        assert_eq!((plan.segment, plan.offset), (1, 4096));
    }

    #[test]
    fn limits_and_poison() {
        let (mut log, mut block) = (writer(), [0; 512]);
        let large = log.plan(&[], &values(8192), Claim::default(), &mut block).unwrap_err();
        assert!(matches!(large, LogError::TooLarge { bytes: 8704, limit: 8192 }));
        assert_eq!(log.values_bytes_max(0), 8192 - 512);
        let plan = log.plan(&[], &values(512), Claim::default(), &mut block).unwrap();
        log.poison();
        assert!(matches!(log.complete(plan.group), Err(LogError::Poisoned)));
        assert!(matches!(log.plan_seal(Claim::default(), &mut block), Err(LogError::Poisoned)));
        assert!(!log.needs_seal());
    }
}
