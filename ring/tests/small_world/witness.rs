//! What a node's own deeds are judged by, and what is noted of them for the judge of the whole.

use super::Scope;
use super::local::{At, Local, Violation};
use super::message::{Message, Messages};
use chainring_ring::actions::Action;
use chainring_ring::ids::{
    Ballot, Durability, Entry, Incarnation, Instance, NodeId, Order, ValueId,
};
use chainring_ring::votes::Vote;

impl Local {
    pub(super) fn propose(&mut self, order: Order) -> Result<(), Violation> {
        self.tell(order.ballot)?;
        let before = self.proposed.iter().find(|at| (at.0, at.1) == (order.instance, order.ballot));
        match before {
            Some(at) if at.2 != order.entry => {
                Err(Violation("A1", format!("{at:?} and {order:?}")))
            }
            Some(_) => Ok(()),
            None => {
                insert(&mut self.proposed, (order.instance, order.ballot, order.entry));
                Ok(())
            }
        }
    }

    pub(super) fn deliver(
        &mut self,
        order: Order,
        counts: bool,
        scope: &Scope,
        messages: &mut Messages,
    ) -> Result<(), Violation> {
        let (index, entry) = (order.instance.0 as usize, (order.entry, counts));
        if index > self.log.len() || self.log.get(index).is_some_and(|known| *known != entry) {
            let told = format!("node {:?} delivers {order:?} after {:?}", self.id, self.log);
            return Err(Violation("B3", told));
        }
        if index == self.log.len() {
            if counts && self.log.contains(&entry) {
                return Err(Violation("B1", format!("node {:?} doubles {order:?}", self.id)));
            }
            self.log.push(entry);
        }
        if scope.catch_up.contains(&true) {
            let ballot = self.core().claim().ballot;
            self.send(Message::Decided(order, ballot), messages);
        }
        Ok(())
    }

    /// A promise or vote of this ballot leaves.
    pub(super) fn tell(&mut self, ballot: Ballot) -> Result<(), Violation> {
        if ballot > self.disk.promise() {
            let told = format!("node {:?} tells {ballot:?}, which is volatile", self.id);
            return Err(Violation("A2", told));
        }
        self.told = self.told.max(ballot);
        Ok(())
    }

    /// Says where the own vote stands, and what is decided.
    pub(super) fn publish(
        &mut self,
        scope: &Scope,
        messages: &mut Messages,
    ) -> Result<(), Violation> {
        let core = self.core();
        let claim = core.claim();
        let Some(vote) = core.votes().of(self.id).copied() else { return Ok(()) };
        if core.is_voter() && vote.incarnation != Incarnation(1) {
            return Err(Violation("A8", format!("node {:?} votes as {vote:?}", self.id)));
        }
        // Positions that no rule of safety reads are left out: fewer states.
        let delivered = if scope.sessions { vote.delivered } else { Instance(0) };
        let vote = Vote { received: vote.durable, delivered, ..vote };
        self.tell(vote.ballot)?;
        self.accept(&vote)?;
        let heard = scope.votes.contains(&true);
        if heard && (vote.durable > Instance(0) || scope.sessions) {
            self.send(Message::Vote(vote), messages);
        }
        if scope.claims.contains(&true) && claim.position > Instance(0) {
            self.send(Message::Claim(claim), messages);
        }
        Ok(())
    }

    /// Notes what the own vote covers. Below the promise it is frozen: nothing new.
    fn accept(&mut self, vote: &Vote) -> Result<(), Violation> {
        let voter = self.core().is_voter();
        if !voter || vote.ballot == Ballot::ZERO || vote.ballot != self.core().promised() {
            return Ok(());
        }
        for instance in (0..vote.durable.0).map(Instance) {
            let core = self.core();
            let Some(slot) = core.window().get(instance) else { continue };
            let delivered = instance < core.delivered();
            if !delivered && slot.order.ballot != vote.ballot {
                continue;
            }
            let entry = slot.order.entry;
            if let Entry::Value(id) = entry
                && !self.holds(&id)
            {
                let told = format!("node {:?} votes for {id:?} without it", self.id);
                return Err(Violation("A6", told));
            }
            let durable = self.disk.orders.get(&instance).is_some_and(|on| on.entry == entry);
            if core.settings().durability == Durability::Sync && !durable {
                let told = format!("node {:?} votes for a volatile {instance:?}", self.id);
                return Err(Violation("A4", told));
            }
            insert(&mut self.accepted, (instance, vote.ballot, entry));
        }
        Ok(())
    }

    /// True if the value is where a vote for it says, or can never count again.
    fn holds(&self, id: &ValueId) -> bool {
        let core = self.core();
        let past = core.table().is_past(id);
        match core.settings().durability {
            Durability::Sync => self.disk.values.contains(id) || past,
            _ => core.lanes().ticket(id).is_some() || past,
        }
    }
}

/// A3: nothing below the promise is accepted, unless it is known to be decided.
pub fn accepts_legally(id: NodeId, action: &Action, promised: Ballot) -> Result<(), Violation> {
    match action {
        Action::AppendOrder(order) if !order.decided && order.ballot < promised => {
            Err(Violation("A3", format!("node {id:?} promised {promised:?}, accepts {order:?}")))
        }
        _ => Ok(()),
    }
}

fn insert(list: &mut Vec<At>, at: At) {
    if let Err(place) = list.binary_search(&at) {
        list.insert(place, at);
    }
}
