//! Pace: which node holds the others up, and who of those outside the circle keeps up.
//!
//! What the window and the memory of own values wait for is the delivery of every node of the
//! circle. So a node is measured by the time in which it delivers what a quorum has delivered:
//! a goal is set, and when it is reached the next one. Ticks in which it is late run up a debt, the
//! others pay it off. Every node measures all, so that whoever coordinates next knows at once.
//! Invariants: only lateness behind a quorum counts, so no majority is ever called slow; who is
//! slow stays so until its debt is paid.

use crate::ids::{Instance, NODES_MAX};
use crate::mutant;

/// A node of the circle that takes longer to its goal is late: its disk or link takes tens of
/// milliseconds for what others do in a few.
const LATE_TICKS: u32 = 5;
/// The same for one outside, which asks for what is decided now and then, and tells of itself: it
/// is a quarter of a second behind, and more while it fetches.
const OUTSIDE_LATE_TICKS: u32 = 60;
/// What a late tick costs, where one in time pays off 1: late for half of the time is too much.
const LATE_COSTS: u32 = 2;
/// Who owes so much is slow: one that stands still is after half a second.
const SLOW_DEBT: u32 = 100;
/// Nobody owes more.
const DEBT_MAX: u32 = 150;

/// How one node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Stride {
    /// What a quorum had delivered when the goal before was reached, and ticks since.
    goal: Instance,
    ticks: u32,
    debt: u32,
    slow: bool,
}

/// How all of them do, by node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Pace {
    strides: [Stride; NODES_MAX],
}

impl Pace {
    /// A tick: this node has delivered so far, a quorum to `front`.
    pub(crate) fn tick(
        &mut self,
        index: usize,
        delivered: Instance,
        front: Instance,
        inside: bool,
    ) {
        let stride = &mut self.strides[index];
        stride.ticks += 1;
        if delivered >= stride.goal {
            (stride.goal, stride.ticks) = (front, 0);
        }
        let late = stride.ticks >= if inside { LATE_TICKS } else { OUTSIDE_LATE_TICKS };
        stride.debt = match late {
            true => (stride.debt + LATE_COSTS).min(DEBT_MAX),
            false => stride.debt.saturating_sub(1),
        };
        match stride.debt {
            0 => stride.slow = false,
            SLOW_DEBT.. => stride.slow = !mutant!(SlowNotSeen),
            _ => {}
        }
    }

    /// Another circle: what was late in the one before may have been so for its sake.
    pub(crate) fn begin(&mut self) {
        self.strides.iter_mut().for_each(|stride| (stride.goal, stride.ticks) = Default::default());
    }

    /// This node begins anew.
    pub(crate) fn forget(&mut self, index: usize) {
        self.strides[index] = Stride::default();
    }

    /// True if this node holds the others up, or did and has not made up for it.
    pub(crate) fn is_slow(&self, index: usize) -> bool {
        self.strides[index].slow
    }

    /// True if a node outside is as far as a quorum was a moment ago.
    pub(crate) fn keeps_up(&self, index: usize) -> bool {
        let stride = &self.strides[index];
        !stride.slow && stride.ticks < OUTSIDE_LATE_TICKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks until a node is called slow that delivers what there is every `period` ticks.
    fn ticks_to_slow(period: u64) -> Option<u64> {
        let mut pace = Pace::default();
        (1..3000).find(|tick| {
            let delivered = Instance(tick / period * period);
            pace.tick(0, delivered, Instance(*tick), true);
            pace.is_slow(0)
        })
    }

    #[test]
    fn who_takes_long_for_what_others_have_is_slow() {
        for period in 1..8 {
            assert_eq!(ticks_to_slow(period), None, "{period}");
        }
        for period in [16, 20, 40] {
            let ticks = ticks_to_slow(period).expect("slow");
            assert!(ticks < 150, "{period}: {ticks}");
        }
        let standing = ticks_to_slow(10_000).expect("slow");
        assert!((SLOW_DEBT / LATE_COSTS..60).contains(&(standing as u32)), "{standing}");
    }

    #[test]
    fn who_was_slow_keeps_up_for_a_time_before_it_is_not() {
        let mut pace = Pace::default();
        (1..500).for_each(|_| pace.tick(0, Instance(0), Instance(9), true));
        assert!(pace.is_slow(0) && !pace.keeps_up(0));
        // Level, in steps that are fine outside and would be late inside.
        let ticks = (1..).find(|tick| {
            pace.tick(0, Instance(10 + tick / 20 * 20), Instance(10 + tick), false);
            pace.keeps_up(0)
        });
        assert!((DEBT_MAX.into()..200).contains(&ticks.unwrap()), "{ticks:?}");
        assert!(!pace.is_slow(0));
    }

    #[test]
    fn an_idle_ring_makes_nobody_slow_and_another_circle_begins_anew() {
        let mut pace = Pace::default();
        (0..500).for_each(|_| pace.tick(0, Instance(9), Instance(9), true));
        assert!(!pace.is_slow(0) && pace.keeps_up(0));
        for _ in 0..500 {
            (0..8).for_each(|_| pace.tick(0, Instance(9), Instance(20), true));
            (0..4).for_each(|_| pace.tick(0, Instance(20), Instance(20), true));
            pace = Pace { ..pace };
            pace.begin();
        }
        assert!(!pace.is_slow(0), "late for four ticks of twelve");
    }
}
