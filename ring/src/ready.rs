//! Ready: whether a node has everything that was decided before it started.
//!
//! The first word of a coordinator that a node hears in its life names what is decided, and where
//! the barrier of its ballot is. Until the barrier is decided nobody knows all that is: something
//! chosen at a lower ballot may be on its way again. So a node is ready once it has delivered up to
//! both. Invariants: once ready it stays so; nothing that is safe depends on it.

use crate::core::Core;
use crate::ids::{Ballot, Claim, Instance};
use crate::mark;

/// How far a node has to deliver before it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ready {
    ballot: Ballot,
    /// Exclusive; `None` until a coordinator was heard.
    at: Option<Instance>,
    reached: bool,
}

impl Core {
    /// True once everything is delivered here that was decided when the first coordinator of this
    /// life was heard.
    pub fn is_ready(&self) -> bool {
        self.ready.reached
    }

    /// A coordinator says what is decided, and where the barrier of its ballot is.
    pub(crate) fn hears_of_barrier(&mut self, ballot: Ballot, claim: Claim, barrier: Instance) {
        if ballot < self.promised {
            return;
        }
        let ready = &mut self.ready;
        // A ballot whose barrier was never decided says nothing any more.
        if ready.at.is_none() || !ready.reached && ballot > ready.ballot {
            (ready.ballot, ready.at) = (ballot, Some(claim.position.max(barrier.next())));
        }
    }

    pub(crate) fn settle_ready(&mut self) {
        let behind = |at| self.delivered < at;
        if !self.ready.reached && !self.ready.at.is_none_or(behind) {
            mark!(NodeReady);
            self.ready.reached = true;
        }
    }
}
