//! The learner: claims, and delivery in order of instance. Safety only; reads no timer.
//!
//! A claim authorises only entries accepted here at its ballot or later, or known to be decided
//! when they came; anything else is fetched (pitfall 13).

use crate::actions::{Action, Actions};
use crate::core::Core;
use crate::ids::{Ballot, Claim, Entry, Instance, NodeId, Order, Sequence, Session, ValueId};
use crate::lanes::Verdict;
use crate::votes::Vote;
use crate::window::Slot;
use crate::{mark, mutant};

impl Core {
    /// A vote by any path. The own one is this node's to say.
    pub(crate) fn on_vote(&mut self, vote: &Vote) {
        if vote.node != self.settings.me {
            let changed = self.votes.merge(vote);
            if changed && !self.configuration.votes(vote.node, vote.incarnation) {
                mark!(VoteOfForgetful);
            }
            self.votes_changed |= changed;
        }
    }

    /// What a quorum has voted for at one ballot is decided.
    pub(crate) fn count_votes(&mut self, out: &mut Actions) {
        if let Some(position) = self.decided_by_votes() {
            self.learn(Claim { ballot: self.promised, position }, out);
        }
    }

    /// Takes in a claim. One of a higher ballot raises the promise: that ballot exists.
    pub(crate) fn learn(&mut self, claim: Claim, out: &mut Actions) {
        if claim.position <= self.claim.position {
            return;
        }
        if claim.ballot > self.promised {
            mark!(ClaimRaisedPromise);
            self.promise(claim.ballot, out);
        } else if claim.ballot < self.promised {
            mark!(ClaimOfLowerBallot);
        }
        self.claim = claim;
        self.votes_changed = true;
    }

    /// Delivers what is decided, authorised and held.
    pub(crate) fn deliver(&mut self, out: &mut Actions) {
        let end = self.claim.position;
        let end = if mutant!(DeliveredOnAccept) { end.max(self.received) } else { end };
        while self.delivered < end && out.room() > 8 {
            let Some(slot) = self.window.get(self.delivered).copied() else { return };
            let authorised = slot.order.decided || slot.order.ballot >= self.claim.ballot;
            if !authorised && !mutant!(ClaimAuthorisesAll) {
                mark!(ClaimDoesNotAuthorise);
                return;
            }
            let mut ticket = slot.ticket;
            if let Entry::Value(id) = slot.order.entry
                && self.table.counts(&id)
            {
                let Some(held) = self.lanes.ticket(&id) else {
                    mark!(DecidedValueNotHeld);
                    if mutant!(DeliverWithoutValue) {
                        self.deliver_one(Order { entry: Entry::Noop, ..slot.order }, out);
                        continue;
                    }
                    return;
                };
                ticket = ticket.max(held);
            }
            let delivered = self.delivered;
            self.window.get_mut(delivered).expect("just read").ticket = ticket;
            self.deliver_one(slot.order, out);
        }
    }

    fn deliver_one(&mut self, order: Order, out: &mut Actions) {
        assert_eq!(order.instance, self.delivered);
        let counts = self.table.apply(&order.entry);
        self.delivered = self.delivered.next();
        self.liveness.progress = true;
        match order.entry {
            Entry::Value(id) if counts => self.release(id),
            Entry::Close { origin, below } => self.close(origin, below, out),
            Entry::Membership(change) => self.reconfigure(&change),
            Entry::Value(_) => mark!(OccurrenceIsNothing),
            Entry::Noop => mark!(NoopDelivered),
            Entry::Barrier(_) => mark!(BarrierDelivered),
            Entry::Trim(position) => self.trim(position, order.instance),
        }
        out.push(Action::Deliver { order, counts });
    }

    fn release(&mut self, id: ValueId) {
        let lane = self.lanes.of_mut(id.origin).expect("a value that counts");
        if lane.session() < id.session {
            lane.open(id.session, id.sequence.next());
        } else if lane.session() == id.session {
            lane.delivered(id.sequence.next());
        }
    }

    fn close(&mut self, origin: NodeId, below: Session, out: &mut Actions) {
        if let Some(lane) = self.lanes.of_mut(origin)
            && lane.session() < below
        {
            mark!(LaneClosed);
            lane.open(below, Sequence(0));
        }
        self.list_to_close();
        out.push(Action::Free { origin, below });
        if origin == self.settings.me {
            self.own_session_closed(below, out);
        }
    }

    /// Moves `settled` over what is delivered and durable here.
    pub(crate) fn advance_settled(&mut self) {
        while self.settled < self.delivered {
            let Some(slot) = self.window.get(self.settled) else { break };
            if slot.ticket > self.persisted {
                break;
            }
            self.settled = self.settled.next();
        }
    }

    /// A decided entry that a peer sent; it is the next one to deliver, or of no use.
    pub(crate) fn on_decided(&mut self, order: Order, ballot: Ballot, out: &mut Actions) {
        let useful = order.instance == self.delivered && self.room_for_decided(order.instance);
        let value = match order.entry {
            Entry::Value(id) => Some(id),
            _ => None,
        };
        let counts = value.is_some_and(|id| self.table.counts(&id));
        if let Some(id) = value {
            if !useful || !counts {
                mark!(FetchedEntryDropped);
                out.push(Action::Drop(id));
            } else {
                self.keep_fetched(id, out);
            }
        }
        if !useful {
            return;
        }
        if ballot > self.promised {
            mark!(FetchedEntryRaisedPromise);
            self.promise(ballot, out);
        }
        // Reporting a decided entry at any ballot is harmless; an own acceptance of it stands.
        let known = self.window.get(order.instance).map(|slot| slot.order);
        let order = match known.filter(|known| known.entry == order.entry) {
            Some(known) if known.ballot >= order.ballot => Order { decided: true, ..known },
            _ => Order { decided: true, ..order },
        };
        if known.is_some_and(|known| known.entry != order.entry) {
            mark!(FetchedEntryOverwrites);
        }
        self.appended += 1;
        let mut ticket = self.appended;
        out.push(Action::AppendOrder(order));
        if let Some(id) = value.filter(|_| counts) {
            ticket = ticket.max(self.lanes.ticket(&id).unwrap_or(ticket));
        }
        self.window.put(Slot { order, ticket });
        if order.instance >= self.claim.position {
            let position = order.instance.next();
            self.claim = Claim { ballot: self.claim.ballot.max(ballot), position };
            self.votes_changed = true;
        }
        self.deliver_one(order, out);
    }

    /// True if a decided entry could be taken: the window covers it, or can move to.
    pub fn covers(&self, instance: Instance) -> bool {
        instance < self.window.end() || instance.0 + 1 - self.window.span() <= self.settled.0
    }

    /// The window moves on with catch-up, however far ahead the decided entry lies.
    fn room_for_decided(&mut self, instance: Instance) -> bool {
        if instance >= self.window.end() {
            let first = Instance(instance.0 + 1 - self.window.span());
            if first > self.settled {
                return false; // the log has to follow first
            }
            mark!(WindowMovedByCatchUp);
            self.window.advance(first);
        }
        true
    }

    /// A fetched value that counts: held for the moment of its delivery, written to the log.
    fn keep_fetched(&mut self, id: ValueId, out: &mut Actions) {
        if self.lanes.ticket(&id).is_some() {
            mark!(FetchedAndReceived);
            return out.push(Action::Drop(id)); // the link brought it too
        }
        self.appended += 1;
        let ticket = self.appended;
        let lane = self.lanes.of_mut(id.origin).expect("a value that counts");
        if lane.session() < id.session {
            mark!(FetchedOpensSession);
            lane.open(id.session, id.sequence);
        }
        if lane.session() == id.session {
            if lane.judge(id.sequence) == Verdict::Gap {
                lane.declare_missing(id.sequence);
            }
            if matches!(lane.judge(id.sequence), Verdict::Next | Verdict::Missing) {
                lane.hold(id.sequence, ticket);
            }
        }
        out.push(Action::Keep { id, forward: false });
    }
}
