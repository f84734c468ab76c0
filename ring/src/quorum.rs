//! Which configurations are in force here, and what they decide. Safety only; reads no timer.
//!
//! A configuration is in force from the moment its order is held until that is overwritten at a
//! higher ballot, or its successor is delivered. Invariants: votes decide nothing beyond what this
//! node holds at the ballot in force, for behind that there may be a change it knows nothing of;
//! nor anything behind the first change that is not delivered here.

use crate::configuration::{Change, Configuration};
use crate::coordinator::Role;
use crate::core::{Core, Settings};
use crate::ids::{Ballot, Entry, Incarnation, Instance, NodeId};
use crate::{mark, mutant};

impl Core {
    /// The configuration at the position delivered.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The configuration that an order held here leads to and that is not delivered, and where
    /// the order is.
    pub fn pending(&self) -> Option<&(Instance, Configuration)> {
        self.pending.as_ref()
    }

    /// The position that a quorum has come to: a majority of each set of voters of each
    /// configuration in force.
    pub(crate) fn reached<T: Copy + Ord>(
        &self,
        extra: usize,
        of: impl Fn(NodeId, Incarnation) -> Option<T>,
    ) -> Option<T> {
        let reached = self.configuration.reached(extra, &of);
        match self.pending.as_ref().filter(|_| !mutant!(ChangeByOldQuorum)) {
            Some((_, pending)) => reached.min(pending.reached(extra, &of)),
            None => reached,
        }
    }

    /// True if those of whom `has` is true are a quorum.
    pub(crate) fn is_quorum(&self, has: impl Fn(NodeId, Incarnation) -> bool) -> bool {
        self.reached(0, |node, incarnation| has(node, incarnation).then_some(())).is_some()
    }

    /// True if this life of this node votes.
    pub fn is_voter(&self) -> bool {
        let (me, life) = (self.settings.me, self.settings.incarnation);
        let pending = self.pending.is_some_and(|(_, pending)| pending.votes(me, life));
        pending || self.configuration.votes(me, life)
    }

    /// True if this life of this node is listed: it votes, or learns and is to vote. It has
    /// remembered all it promised and accepted since it was listed first, so it answers 1A; whether
    /// the answer counts is the candidate's to say.
    pub fn is_acceptor(&self) -> bool {
        let (me, life) = (self.settings.me, self.settings.incarnation);
        let pending = self.pending.is_some_and(|(_, pending)| pending.lists(me, life));
        pending || self.configuration.lists(me, life)
    }

    /// True if somebody has delivered more.
    pub(crate) fn is_behind_votes(&self) -> bool {
        self.votes.iter().any(|vote| vote.delivered > self.delivered)
    }

    /// True if this life of this node was a member and is none any more.
    pub fn is_removed(&self) -> bool {
        let Settings { me, incarnation, .. } = self.settings;
        !self.is_acceptor() && self.configuration.highest(me) >= incarnation
    }

    /// True if fewer than a quorum of voters can still remember their votes: the ring can never
    /// go on by itself. Who is behind does not know who votes by now, and says nothing.
    pub fn is_forgotten(&self) -> bool {
        if self.is_behind_votes() {
            return false;
        }
        let remembers = |node, incarnation| {
            self.votes.of(node).is_none_or(|vote| vote.incarnation <= incarnation)
        };
        !self.configuration.is_quorum(remembers)
    }

    /// The position below which this node's own count of votes may speak: it knows every change
    /// of the configuration there.
    fn countable(&self) -> Option<Instance> {
        self.base.filter(|base| *base <= self.delivered)?;
        let change = self.pending.map_or(self.received, |(at, _)| at.next());
        Some(change.min(self.received))
    }

    /// What the votes heard decide, at the ballot in force.
    pub(crate) fn decided_by_votes(&self) -> Option<Instance> {
        let countable = self.countable()?;
        let of = |node: NodeId, incarnation| {
            let vote = self.votes.of(node)?;
            let listed = vote.incarnation == incarnation || mutant!(AmnesiacVotesCount);
            let equal = vote.ballot == self.promised
                || mutant!(QuorumAcrossBallots) && vote.ballot > Ballot::ZERO;
            (listed && equal).then_some(vote.durable)
        };
        let own = |position: &Instance| *position <= self.durable;
        let alone = mutant!(CoordinatorDecidesAlone) && matches!(self.role, Role::Coordinator(_));
        let decided = match () {
            () if alone => Some(self.durable),
            () if mutant!(VoteCountedTwice) => self.reached(1, of).filter(own),
            () => self.reached(0, of),
        };
        decided.map(|position| position.min(countable))
    }

    /// An order that is contiguous at the ballot in force: the first change that is not delivered
    /// puts its configuration in force.
    pub(crate) fn note_change(&mut self, at: Instance) {
        if self.pending.is_none()
            && at >= self.delivered
            && let Some(slot) = self.window.get(at)
            && let Entry::Membership(change) = slot.order.entry
            && let Ok(after) = self.configuration.after(&change)
        {
            self.pending = Some((at, after));
        }
    }

    /// A change is delivered.
    pub(crate) fn reconfigure(&mut self, change: &Change) {
        self.pending = self.pending.filter(|(at, _)| *at >= self.delivered);
        if !self.configuration.apply(change) {
            return;
        }
        mark!(ConfigurationChanged);
        self.list_nodes();
        if !self.settings.nodes.contains(&self.promised.node) {
            self.on_hint(self.promised.node); // it steps down
        }
        for at in self.delivered.0..self.received.0 {
            self.note_change(Instance(at));
        }
        self.votes_changed = true;
    }

    /// The nodes that this one has to do with.
    pub(crate) fn list_nodes(&mut self) {
        self.settings.nodes.clear();
        self.settings.nodes.extend(self.configuration.nodes());
        self.list_to_close();
    }
}
