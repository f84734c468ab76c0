//! What a node holds of each origin's values: one lane an origin.
//!
//! Values of an origin come in sequence on the data link, so a lane is a position and, for the
//! last so many sequences, the log ticket of each. Invariants: a lane holds values of
//! one session; `first <= next`; a value is held from its arrival until it is delivered or its
//! session is closed. An origin starts a session only when every node has delivered the close
//! of the one before (see `proposer`), so a voter never meets two sessions at once.

use crate::ids::{NODES_MAX, NodeId, Sequence, Session, ValueId};
use crate::window::WINDOW_MAX;
use alloc::boxed::Box;
use alloc::vec;

/// Most values of one origin that are held and undelivered at a time, whatever the window.
pub const LANE_PACKETS_MAX: u64 = lane_packets(WINDOW_MAX);

/// The same for a window of this many instances: an eighth of it.
pub const fn lane_packets(window: u64) -> u64 {
    window / 8
}

/// Ticket of a value that was declared missing.
const MISSING: u64 = u64::MAX;

/// What is held of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    session: Session,
    first: Sequence,
    next: Sequence,
    tickets: Box<[u64]>,
}

/// What becomes of a value that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next of its origin: hold it and pass it on.
    Next,
    /// One that was missing: hold it.
    Missing,
    /// Already held or delivered, or of a closed session.
    Known,
    /// Later than the next one: the link lost something.
    Gap,
    /// More undelivered values than an origin may have.
    Overrun,
}

impl Lane {
    fn new(packets: u64) -> Lane {
        let tickets = vec![MISSING; packets as usize].into_boxed_slice();
        Lane { session: Session::NONE, first: Sequence(0), next: Sequence(0), tickets }
    }

    /// The session that the lane is at.
    pub fn session(&self) -> Session {
        self.session
    }

    /// First sequence that is not delivered.
    pub fn first(&self) -> Sequence {
        self.first
    }

    /// The sequence that would come next on the link.
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// True if a value is held and undelivered.
    pub fn has_undelivered(&self) -> bool {
        (self.oldest().0..self.next.0).any(|sequence| self.ticket(Sequence(sequence)).is_some())
    }

    /// The log ticket of a held, undelivered value.
    pub fn ticket(&self, sequence: Sequence) -> Option<u64> {
        if sequence < self.oldest() || sequence >= self.next {
            return None;
        }
        let ticket = self.tickets[self.place(sequence)];
        (ticket != MISSING).then_some(ticket)
    }

    /// Says what becomes of `sequence` of the lane's session.
    pub fn judge(&self, sequence: Sequence) -> Verdict {
        if sequence > self.next {
            return Verdict::Gap;
        }
        if sequence == self.next {
            let full = self.ticket(Sequence(self.next.0.wrapping_sub(self.packets()))).is_some();
            return if full { Verdict::Overrun } else { Verdict::Next };
        }
        let missing = sequence >= self.oldest() && self.ticket(sequence).is_none();
        if missing { Verdict::Missing } else { Verdict::Known }
    }

    /// Holds a value that was judged [`Verdict::Next`] or [`Verdict::Missing`].
    pub fn hold(&mut self, sequence: Sequence, ticket: u64) {
        assert!(matches!(self.judge(sequence), Verdict::Next | Verdict::Missing));
        let place = self.place(sequence);
        self.tickets[place] = ticket;
        self.next = self.next.max(sequence.next());
    }

    /// True if nothing that is held would have to be let go for [`Lane::declare_missing`].
    pub fn can_declare(&self, to: Sequence) -> bool {
        let end = self.next.0.min(to.0.saturating_sub(self.packets()));
        (self.oldest().0..end).all(|sequence| self.ticket(Sequence(sequence)).is_none())
    }

    /// Everything up to `to` that has not come will not come on the link.
    pub fn declare_missing(&mut self, to: Sequence) {
        let from = self.next.0.max(to.0.saturating_sub(self.packets()));
        for sequence in from..to.0 {
            let place = self.place(Sequence(sequence));
            self.tickets[place] = MISSING;
        }
        self.next = self.next.max(to);
    }

    /// Goes on to a higher session; what was held of the one before is let go.
    pub fn open(&mut self, session: Session, first: Sequence) {
        assert!(session > self.session);
        self.session = session;
        self.first = first;
        self.next = first;
    }

    /// Everything below `first` is delivered.
    pub fn delivered(&mut self, first: Sequence) {
        self.first = self.first.max(first);
        if self.next < self.first {
            self.next = self.first;
        }
    }

    /// Counts tickets from `persisted` on, and keeps none of what is past.
    fn rebase(&mut self, persisted: u64) {
        let mut tickets = vec![MISSING; self.tickets.len()].into_boxed_slice();
        for sequence in self.oldest().0..self.next.0 {
            let held = self.ticket(Sequence(sequence));
            let rebased = held.map(|ticket| ticket.saturating_sub(persisted));
            tickets[self.place(Sequence(sequence))] = rebased.unwrap_or(MISSING);
        }
        self.tickets = tickets;
    }

    /// Values that it has room for: a power of two.
    fn packets(&self) -> u64 {
        self.tickets.len() as u64
    }

    fn place(&self, sequence: Sequence) -> usize {
        sequence.0 as usize & (self.tickets.len() - 1)
    }

    fn oldest(&self) -> Sequence {
        Sequence(self.first.0.max(self.next.0.saturating_sub(self.packets())))
    }
}

/// The lanes of all origins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lanes {
    lanes: [Lane; NODES_MAX],
}

impl Lanes {
    /// Empty lanes with room for this many values each.
    ///
    /// # Panics
    /// If that is not a power of two.
    pub fn new(packets: u64) -> Lanes {
        assert!(packets.is_power_of_two());
        Lanes { lanes: core::array::from_fn(|_| Lane::new(packets)) }
    }

    /// The lane of an origin; `None` for an impossible id.
    pub fn of(&self, node: NodeId) -> Option<&Lane> {
        self.lanes.get(usize::from(node.0).checked_sub(1)?)
    }

    /// The lane of an origin, to change it.
    pub fn of_mut(&mut self, node: NodeId) -> Option<&mut Lane> {
        self.lanes.get_mut(usize::from(node.0).checked_sub(1)?)
    }

    /// Counts tickets from `persisted` on.
    pub(crate) fn rebase(&mut self, persisted: u64) {
        self.lanes.iter_mut().for_each(|lane| lane.rebase(persisted));
    }

    /// The log ticket of a held, undelivered value.
    pub fn ticket(&self, id: &ValueId) -> Option<u64> {
        let lane = self.of(id.origin)?;
        if lane.session() == id.session { lane.ticket(id.sequence) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;

    fn lane() -> Lane {
        lane_of(LANE_PACKETS_MAX)
    }

    fn lane_of(packets: u64) -> Lane {
        let mut lane = Lane::new(packets);
        lane.open(Session { incarnation: Incarnation(1), start: 1 }, Sequence(0));
        lane
    }

    #[test]
    fn values_come_in_sequence() {
        let mut lane = lane();
        assert_eq!(lane.judge(Sequence(1)), Verdict::Gap);
        lane.hold(Sequence(0), 10);
        assert_eq!(lane.judge(Sequence(0)), Verdict::Known);
        assert_eq!(lane.ticket(Sequence(0)), Some(10));
        lane.delivered(Sequence(1));
        assert_eq!(lane.ticket(Sequence(0)), None);
        assert_eq!(lane.judge(Sequence(0)), Verdict::Known);
        assert_eq!(lane.judge(Sequence(1)), Verdict::Next);
    }

    #[test]
    fn what_is_held_is_not_pushed_out() {
        let mut lane = lane_of(4);
        lane.hold(Sequence(0), 1);
        assert!(lane.can_declare(Sequence(4)) && !lane.can_declare(Sequence(5)));
        lane.declare_missing(Sequence(4));
        assert_eq!(lane.ticket(Sequence(0)), Some(1));
        lane.delivered(Sequence(1));
        assert!(lane.can_declare(Sequence(1000)));
    }

    #[test]
    fn what_was_declared_missing_can_come_later() {
        let mut lane = lane();
        lane.hold(Sequence(0), 1);
        lane.declare_missing(Sequence(3));
        assert_eq!(lane.judge(Sequence(3)), Verdict::Next);
        assert_eq!(lane.judge(Sequence(2)), Verdict::Missing);
        lane.hold(Sequence(2), 7);
        assert_eq!(lane.judge(Sequence(2)), Verdict::Known);
        assert_eq!((lane.ticket(Sequence(1)), lane.ticket(Sequence(2))), (None, Some(7)));
        assert!(lane.has_undelivered());
    }

    #[test]
    fn an_origin_cannot_overrun_its_lane() {
        for packets in [2, LANE_PACKETS_MAX] {
            overrun(packets);
        }
    }

    fn overrun(packets: u64) {
        let mut lane = lane_of(packets);
        for sequence in 0..packets {
            lane.hold(Sequence(sequence), sequence);
        }
        assert_eq!(lane.judge(Sequence(packets)), Verdict::Overrun);
        lane.delivered(Sequence(1));
        assert_eq!(lane.judge(Sequence(packets)), Verdict::Next);
        // A jump far ahead leaves everything before it missing.
        lane.declare_missing(Sequence(100_000));
        assert_eq!(lane.judge(Sequence(100_000)), Verdict::Next);
        assert_eq!(lane.judge(Sequence(99_999)), Verdict::Missing);
        assert_eq!(lane.judge(Sequence(5)), Verdict::Known, "too far behind to be taken back");
    }
}
