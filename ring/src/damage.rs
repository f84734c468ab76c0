//! Damage: when a node that lost part of its log knows again what it voted for.
//!
//! Invariant: while damaged, what the node does not hold is unknown, never "never had". That ends
//! when it has voted, durably, through the barrier of a ballot above every promise that it may
//! have forgotten votes under, and has everything below that ballot's base delivered and durable:
//! whatever could hide in the damage is decided, or was proposed again (design, "Ballots").

use crate::actions::{Action, Actions};
use crate::core::Core;
use crate::ids::{Ballot, Entry, Instance, Order};
use crate::{mark, mutant};

/// What is to happen before a damaged log counts as whole again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Damage {
    /// The promise that was recovered: no forgotten vote is above it.
    promised: Ballot,
    /// The newest barrier of a higher ballot, its own: not one that it inherited, behind which
    /// there may be more to propose again.
    barrier: Option<(Ballot, Instance)>,
}

impl Damage {
    pub(crate) fn new(promised: Ballot) -> Damage {
        Damage { promised, barrier: None }
    }
}

impl Core {
    /// An order was accepted.
    pub(crate) fn note_barrier(&mut self, order: &Order) {
        if let Some(damage) = &mut self.damage
            && order.entry == Entry::Barrier(order.ballot)
            && order.ballot > damage.promised
        {
            mark!(BarrierSeenByDamaged);
            damage.barrier = Some((order.ballot, order.instance));
        }
    }

    /// Ends the damage if it can end.
    pub(crate) fn mend(&mut self, out: &mut Actions) {
        if mutant!(MendedTooEarly) && self.damage.is_some() && self.base.is_some() {
            self.damage = None;
            out.push(Action::Mended);
        }
        let barrier = self.damage.and_then(|damage| damage.barrier);
        let (Some((ballot, barrier)), Some(base)) = (barrier, self.base) else { return };
        let in_force = ballot == self.promised && self.promise_durable == ballot;
        if in_force && self.durable > barrier && self.settled >= base {
            mark!(DamageMended);
            self.damage = None;
            out.push(Action::Mended);
        } else if !in_force {
            mark!(BarrierOvertaken);
        }
    }
}
