//! The acceptor: promises, accepted orders, the vote. Safety only; reads no timer.
//!
//! A vote is a position: "I hold every order and value from the ballot's base to here, at this
//! ballot, durably" (design, "Votes"; the watermark of protocols §5 with its six rules). It
//! leaves only in reaction to [`Input::Persisted`](crate::actions::Input::Persisted) and, at a
//! newly adopted ballot, after the promise is durable.

use crate::actions::{Action, Actions};
use crate::coordinator::Role;
use crate::core::Core;
use crate::ids::{Ballot, Entry, Instance, Order};
use crate::votes::Vote;
use crate::window::Slot;
use crate::{mark, mutant};

impl Core {
    /// An order of a coordinator.
    pub(crate) fn on_order(&mut self, order: Order, out: &mut Actions) {
        if order.ballot < self.promised {
            if mutant!(AcceptBelowPromise) && self.is_open(order.instance) {
                return self.take_order(order, out);
            }
            mark!(OrderBelowPromise);
            return self.reject(order.ballot, out);
        }
        if order.ballot > self.promised {
            mark!(OrderRaisedPromise);
            self.promise(order.ballot, out);
        }
        self.heard_coordinator();
        self.accept(order, out);
    }

    /// Raises the promise; the vote of the ballot before is frozen from here on.
    pub(crate) fn promise(&mut self, ballot: Ballot, out: &mut Actions) {
        assert!(ballot > self.promised);
        if mutant!(VoteExtendedAtPromise) {
            self.durable = self.received;
            self.publish_vote();
        }
        if self.answer_due.is_some() {
            mark!(AnswerOvertaken);
        }
        self.answer_before = self.promised;
        self.promised = ballot;
        self.base = None;
        self.received = Instance(0);
        self.durable = Instance(0);
        self.pending = None;
        self.answer_due = None;
        self.role = Role::Follower;
        self.awaits_coordinator();
        out.push(Action::WritePromise(ballot));
    }

    /// Takes an order of the ballot promised into the window and the log.
    pub(crate) fn accept(&mut self, order: Order, out: &mut Actions) {
        assert_eq!(order.ballot, self.promised);
        if self.base.is_none() {
            self.base = Some(order.base);
            self.start_counting(order.base);
        }
        if self.base != Some(order.base) || !self.make_room(order.instance) {
            return;
        }
        if let Some(slot) = self.window.get(order.instance) {
            if slot.order.ballot == order.ballot {
                mark!(OrderCameAgain);
                // One value per ballot and instance (pitfall 3).
                assert_eq!(slot.order.entry, order.entry, "two entries at {:?}", order);
                return;
            }
            // A claim that covers it also fixes it: a later ballot proposes the same.
            let delivered = order.instance < self.delivered;
            assert!(!delivered || slot.order.entry == order.entry, "decided otherwise: {order:?}");
            match () {
                () if delivered => mark!(DeliveredOrderedAgain),
                () if slot.order.entry == order.entry => mark!(AcceptedOrderRaised),
                () => mark!(AcceptedOrderOverwritten),
            }
            if mutant!(AcceptorSubstitutes) {
                return self.take_order(Order { entry: slot.order.entry, ..order }, out);
            }
        }
        self.take_order(order, out);
    }

    /// True if the instance is covered and not delivered.
    fn is_open(&self, instance: Instance) -> bool {
        instance >= self.delivered && instance < self.window.end()
    }

    fn take_order(&mut self, order: Order, out: &mut Actions) {
        self.appended += 1;
        self.window.put(Slot { order, ticket: self.appended });
        out.push(Action::AppendOrder(order));
        self.note_barrier(&order);
    }

    /// At a ballot just adopted, the vote counts from its base, or from what is decided already:
    /// every claim taken in is of no higher ballot, so the coordinator can only propose the same
    /// there, and the vote for it is true once that is durable here.
    pub(crate) fn start_counting(&mut self, base: Instance) {
        assert!(self.claim.ballot <= self.promised);
        if base < self.delivered {
            mark!(CountsFromDelivered);
        }
        self.received = base.max(self.delivered);
        self.durable = base.max(self.settled).min(self.received);
    }

    /// Makes the window cover `instance`; false if that would let go of something undelivered,
    /// or if it is long gone.
    fn make_room(&mut self, instance: Instance) -> bool {
        if instance < self.window.first() {
            mark!(OrderBelowWindow);
            return false;
        }
        if instance >= self.window.end() {
            if instance.0.is_multiple_of(self.window.span()) {
                mark!(WindowWentRound);
            }
            let first = Instance(instance.0 + 1 - self.window.span());
            assert!(self.settled <= self.delivered);
            if first > self.settled {
                mark!(WindowFull);
                self.liveness.orders_lost = true;
                return false;
            }
            self.window.advance(first);
        }
        true
    }

    /// Moves `received` over contiguous orders of the ballot in force.
    pub(crate) fn advance_received(&mut self) {
        if self.base.is_none() {
            return;
        }
        assert!(self.claim.ballot <= self.promised);
        self.received = self.received.max(self.delivered);
        let stale =
            |core: &Core| mutant!(OldOrdersVoted) && core.window.get(core.received).is_some();
        while self.window.holds_at(self.received, self.promised) || stale(self) {
            self.note_change(self.received);
            self.received = self.received.next();
        }
    }

    /// Moves the vote over what is held durably.
    pub(crate) fn advance_durable(&mut self) {
        if self.base.is_none() {
            return;
        }
        self.durable = self.durable.max(self.settled);
        while self.durable < self.received {
            let Some(slot) = self.window.get(self.durable).copied() else { break };
            let of_ballot = slot.order.ballot == self.promised || mutant!(OldOrdersVoted);
            if !of_ballot && self.durable >= self.delivered {
                break;
            }
            match self.slot_ticket(&slot) {
                Some(ticket) if ticket <= self.persisted => self.durable = self.durable.next(),
                _ => break,
            }
        }
        assert!(self.durable <= self.received);
    }

    /// Log ticket at which both order and value of a slot are durable; `None` while the value is
    /// not held.
    fn slot_ticket(&self, slot: &Slot) -> Option<u64> {
        if slot.order.instance < self.delivered {
            return Some(slot.ticket);
        }
        match slot.order.entry {
            Entry::Value(id) if !self.table.is_past(&id) && !mutant!(VoteWithoutValue) => {
                let order = if mutant!(VoteWithoutOrder) { 0 } else { slot.ticket };
                Some(order.max(self.lanes.ticket(&id)?))
            }
            _ => Some(slot.ticket),
        }
    }

    /// Puts the own vote into the vector. While the promise is not durable the vote of the
    /// ballot before stands, frozen.
    pub(crate) fn publish_vote(&mut self) {
        let frozen = self.promise_durable < self.promised;
        let before = self.votes.of(self.settings.me).copied();
        let mut vote = Vote {
            node: self.settings.me,
            incarnation: self.settings.incarnation,
            ballot: self.promised,
            session: self.settings.session,
            received: self.received,
            durable: self.durable,
            delivered: self.settled,
        };
        if frozen {
            mark!(VoteFrozen);
            vote = Vote { delivered: self.settled, ..before.unwrap_or_default() };
            if before.is_none() {
                return;
            }
        }
        self.votes_changed |= self.votes.merge(&vote);
    }

    /// The superblock holds the promise.
    pub(crate) fn on_promised(&mut self, ballot: Ballot, out: &mut Actions) {
        self.promise_durable = self.promise_durable.max(ballot);
        assert!(self.promise_durable <= self.promised);
        self.send_prepares(out);
    }

    /// 1A of a candidate.
    pub(crate) fn on_prepare(&mut self, ballot: Ballot, out: &mut Actions) {
        if !self.is_acceptor() && !mutant!(AmnesiacAnswers) {
            mark!(ForgetfulAsked);
            // An acceptor that is not listed answers nothing, but it is there.
            return out.push(Action::Present { to: ballot.node, asks: false });
        }
        if ballot < self.promised {
            mark!(PrepareBelowPromise);
            return self.reject(ballot, out);
        }
        if ballot > self.promised {
            mark!(PrepareRaisedPromise);
            self.promise(ballot, out);
            self.answer_due = Some((ballot, self.appended));
            return;
        }
        self.prepared_again();
        if self.base.is_none() && self.answer_due.is_none() {
            // Asked again, nothing accepted at it yet: the same answer.
            mark!(PrepareCameAgain);
            self.answer_due = Some((ballot, self.appended));
        } else {
            mark!(PrepareTooLate);
        }
    }

    /// Sends a due 1B once the promise, and all orders and values held, are durable.
    pub(crate) fn answer_if_durable(&mut self, out: &mut Actions) {
        let Some((ballot, ticket)) = self.answer_due else { return };
        assert_eq!(ballot, self.promised);
        if self.promise_durable >= ballot && self.persisted >= ticket {
            self.answer_due = None;
            if ballot.node == self.settings.me {
                self.answer_self();
            } else {
                out.push(Action::Answer { to: ballot.node, ballot });
            }
        } else if self.promise_durable >= ballot {
            mark!(AnswerWaitsForLog);
        } else {
            mark!(AnswerWaitsForPromise);
        }
    }

    pub(crate) fn reject(&mut self, ballot: Ballot, out: &mut Actions) {
        if !core::mem::replace(&mut self.liveness.rejected, true) && ballot.node != self.settings.me
        {
            mark!(RejectSent);
            out.push(Action::Reject { to: ballot.node, promised: self.promised });
        }
    }
}
