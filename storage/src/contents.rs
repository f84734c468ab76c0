//! What the segments of a log hold, in a few numbers each: enough to say from which one on it has
//! to be replayed, and which are of no use any more.
//!
//! Invariants: segments are noted in order, each with the state of the walk where it begins; a
//! segment is done at a position only if every order in it lies below, and none of its values can
//! be delivered any more. Nothing is allocated while there are no more segments than was said.

use crate::config::segment_of;
use crate::superblock::{Damage, DamageState};
use chainring_ring::ids::{Instance, NODES_MAX, NodeId, Sequence, Session, ValueId};
use chainring_ring::mutant;
use chainring_ring::sequences::Sequences;
use std::collections::VecDeque;

/// Where a walk over a log begins, and what it has to know there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The segment, whose first group is the first one of the walk.
    pub segment: u32,
    /// Number of the last group before it.
    pub number: u64,
    /// Header checksum of that group's block; `None` if the first group follows nothing.
    pub checksum: Option<u128>,
    /// Start number of the life that wrote it.
    pub start: u32,
}

impl Start {
    /// The beginning of a log whose lowest segment is `segment`.
    pub fn of_log(segment: u32) -> Start {
        Start { segment, number: 0, checksum: (segment == 0).then_some(0), start: 0 }
    }
}

/// What a segment holds.
#[derive(Clone, Copy, Debug)]
struct Contents {
    start: Start,
    /// One above the highest instance ordered.
    orders: Instance,
    /// Of each origin, the last value; sequences of a session rise, and so do sessions.
    values: [Option<(Session, Sequence)>; NODES_MAX],
}

impl Contents {
    fn is_done(&self, position: Instance, table: &Sequences) -> bool {
        let past = |(index, last): (usize, &Option<(Session, Sequence)>)| {
            last.is_none_or(|(session, sequence)| {
                let origin = NodeId(index as u8 + 1);
                table.is_past(&ValueId { origin, session, sequence })
            })
        };
        let values = self.values.iter().enumerate().all(past);
        self.orders <= position && (values || mutant!(LiveValueFreed))
    }
}

/// The segments of a log, from the one where it was replayed from.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    list: VecDeque<Contents>,
}

impl Segments {
    /// None yet; room for `most`.
    pub fn with_room(most: usize) -> Segments {
        Segments { list: VecDeque::with_capacity(most) }
    }

    /// The same ones, with room for `most` in all.
    #[must_use]
    pub fn reserve(mut self, most: usize) -> Segments {
        self.list.reserve(most.saturating_sub(self.list.len()));
        self
    }

    /// A segment begins; nothing happens if it is the last one noted, or lies below.
    pub fn begin(&mut self, start: Start) {
        if self.list.back().is_none_or(|last| last.start.segment < start.segment) {
            self.list.push_back(Contents { start, orders: Instance(0), values: [None; NODES_MAX] });
        }
    }

    /// An order was written to the last segment.
    pub fn order(&mut self, instance: Instance) {
        let Some(last) = self.list.back_mut() else { return };
        last.orders = last.orders.max(instance.next());
    }

    /// A value was.
    pub fn value(&mut self, id: &ValueId) {
        let Some(last) = self.list.back_mut() else { return };
        let index = usize::from(id.origin.0).wrapping_sub(1);
        if let Some(known) = last.values.get_mut(index) {
            *known = (*known).max(Some((id.session, id.sequence)));
        }
    }

    /// From where the log has to be replayed by whoever has the state at `position`, at which
    /// `table` stands. Not behind what is unknown: it may hold what nobody delivered.
    pub fn replay_from(
        &self,
        position: Instance,
        table: &Sequences,
        damage: &[Damage],
    ) -> Option<Start> {
        let unknown = damage.iter().filter(|damage| damage.state == DamageState::Unknown);
        let unknown = unknown.map(|damage| segment_of(damage.from)).min().unwrap_or(u32::MAX);
        let (last, before) = self.list.back().zip(self.list.len().checked_sub(1))?;
        let open = |contents: &&Contents| {
            contents.start.segment >= unknown || !contents.is_done(position, table)
        };
        let found = self.list.iter().take(before).find(open).unwrap_or(last);
        Some(found.start)
    }

    /// Forgets the segments below `first`.
    pub fn forget(&mut self, first: u32) {
        while self.list.len() > 1 && self.list.front().is_some_and(|it| it.start.segment < first) {
            self.list.pop_front();
        }
    }

    /// Segments noted.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::address;
    use chainring_ring::ids::{Entry, Incarnation};

    fn id(sequence: u64) -> ValueId {
        let session = Session { incarnation: Incarnation(1), start: 1 };
        ValueId { origin: NodeId(2), session, sequence: Sequence(sequence) }
    }

    fn three() -> (Segments, Sequences) {
        let mut segments = Segments::with_room(3);
        for segment in 0..3 {
            segments.begin(Start { segment, ..Start::default() });
            segments.order(Instance(u64::from(segment) * 10 + 9));
            segments.value(&id(u64::from(segment) * 2 + 1));
        }
        let mut table = Sequences::default();
        for sequence in 0..3 {
            assert!(table.apply(&Entry::Value(id(sequence))));
        }
        (segments, table)
    }

    fn from(segments: &Segments, position: u64, table: &Sequences, damage: &[Damage]) -> u32 {
        segments.replay_from(Instance(position), table, damage).unwrap().segment
    }

    #[test]
    fn a_segment_is_done_when_its_orders_and_values_are() {
        let (mut segments, mut table) = three();
        assert_eq!(from(&segments, 9, &table, &[]), 0, "its last order is not delivered");
        assert_eq!(from(&segments, 10, &table, &[]), 1, "value 3 lies in it");
        assert_eq!(from(&segments, 30, &table, &[]), 1, "value 3 is not delivered");
        table.apply(&Entry::Value(id(3)));
        assert_eq!(from(&segments, 20, &table, &[]), 2);
        assert_eq!(from(&segments, 30, &table, &[]), 2, "the last one goes on");
        segments.forget(2);
        assert_eq!((segments.len(), from(&segments, 0, &table, &[])), (1, 2));
    }

    #[test]
    fn closed_values_are_done() {
        let (segments, mut table) = three();
        let below = Session { start: 2, ..id(0).session };
        table.apply(&Entry::Close { origin: NodeId(2), below });
        assert_eq!(from(&segments, 20, &table, &[]), 2);
    }

    #[test]
    fn what_is_unknown_is_replayed() {
        let (segments, mut table) = three();
        table.apply(&Entry::Value(id(3)));
        let damage = |state| Damage { from: address(1, 4096), to: address(1, 8192), state };
        assert_eq!(from(&segments, 30, &table, &[damage(DamageState::Unknown)]), 1);
        assert_eq!(from(&segments, 30, &table, &[damage(DamageState::Repaired)]), 2);
    }
}
