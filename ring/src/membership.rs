//! Changes of the members: who proposes which one, and when.
//!
//! A change is asked for, or follows from the configuration itself: a joint change is ended, a
//! learner that has caught up is made voter, and where votes may be lost with the process (memory
//! and async durability) a node that comes back in another life is admitted again. So whoever
//! coordinates goes on with what its predecessor began. Nothing here decides what is safe: what
//! does not follow from the configuration before is nothing at every node.

use crate::actions::Actions;
use crate::configuration::{Configuration, Refusal, Step};
use crate::coordinator::Role;
use crate::core::Core;
use crate::failover::bit;
use crate::ids::{Durability, Entry, Incarnation, NODES_MAX, NodeId, Session};
use crate::{mark, mutant};

impl Core {
    /// What a change would lead to, if this node proposed it now.
    ///
    /// # Errors
    /// Why it would not.
    pub fn judge(&self, step: Step) -> Result<Configuration, Refusal> {
        let Role::Coordinator(tip) = &self.role else {
            return Err(Refusal::NotCoordinator { coordinator: self.promised.node });
        };
        if !tip.inherited_done() || tip.wanted.is_some() || self.change_open() {
            return Err(Refusal::UnderWay);
        }
        let after = self.configuration.after(&self.configuration.change(step))?;
        let joint = matches!(step, Step::Joint { .. });
        if joint && !after.is_quorum(|node, life| self.keeps_pace(node, life)) {
            return Err(Refusal::NoQuorum);
        }
        Ok(after)
    }

    /// True if this life of a node is in the circle and votes at its ballot.
    fn keeps_pace(&self, node: NodeId, life: Incarnation) -> bool {
        let vote = self.votes.of(node).filter(|vote| vote.incarnation == life);
        self.layout.contains(node) && vote.is_some_and(|vote| vote.ballot == self.promised)
    }

    /// Somebody asks for a change.
    pub(crate) fn on_change(&mut self, step: Step) {
        if self.judge(step).is_ok()
            && let Role::Coordinator(tip) = &mut self.role
        {
            tip.wanted = Some(step);
        }
    }

    /// A tick of a coordinator: goes on with the change that is under way, or begins one.
    pub(crate) fn change_further(&mut self, out: &mut Actions) {
        if !matches!(self.role, Role::Coordinator(_)) {
            // Without a coordinator nobody else says what is decided, and who votes.
            if self.is_behind_votes() && !self.hears_coordinator() {
                mark!(LearnsWithoutCoordinator);
                self.want_catch_up(out);
            }
            return;
        }
        if self.change_open() {
            return;
        }
        if !self.is_acceptor() {
            mark!(CoordinatorRemoved);
            return self.step_down();
        }
        let strangers = self.layout.nodes().iter();
        let strangers = strangers.filter(|node| !self.settings.nodes.contains(node)).count();
        if strangers > 0 && self.failover.may_open() {
            mark!(RemovedLeavesCircle);
            return self.campaign(out);
        }
        if let Some(step) = self.next_step() {
            self.on_change(step);
        }
    }

    fn next_step(&self) -> Option<Step> {
        if self.configuration.is_joint() {
            return Some(Step::Leave);
        }
        let mut nodes = self.settings.nodes.iter();
        let promoted = nodes.find_map(|node| self.promotion(*node));
        promoted.or_else(|| self.settings.nodes.iter().find_map(|node| self.readmission(*node)))
    }

    /// A learner that has caught up is to vote.
    fn promotion(&self, node: NodeId) -> Option<Step> {
        let (life, instead) = self.configuration.learner(node)?;
        let vote = self.votes.of(node).filter(|_| self.keeps_pace(node, life))?;
        let Role::Coordinator(tip) = &self.role else { return None };
        if vote.delivered <= tip.barrier {
            mark!(LearnerIsBehind);
            return None;
        }
        let gone = instead.map_or(0, bit);
        let voters = self.configuration.voters() & !gone | bit(node);
        let step = Step::Joint { voters, fresh: bit(node) };
        self.judge(step).is_ok().then_some(step)
    }

    /// A voter that came back without its memory, where that is no loss of a disk.
    fn readmission(&self, node: NodeId) -> Option<Step> {
        let vote = self.votes.of(node)?;
        let listed = vote.incarnation <= self.configuration.highest(node);
        let by_itself = self.settings.durability != Durability::Sync;
        let there = self.keeps_pace(node, vote.incarnation) || self.failover.is_there(node);
        if listed || !by_itself || !there {
            return None;
        }
        mark!(ReadmittedByItself);
        // A learner keeps the place that it was to take.
        let place = self.configuration.learner(node).and_then(|(_, instead)| instead);
        let instead = self.configuration.voter(node).map(|_| node).or(place);
        Some(Step::Admit { node, incarnation: vote.incarnation, instead })
    }

    /// A coordinator that is no member any more leaves its ballot to the others.
    fn step_down(&mut self) {
        self.role = Role::Follower;
    }

    /// The change that is to be ordered next.
    pub(crate) fn take_wanted(&mut self) -> Option<Entry> {
        let Role::Coordinator(tip) = &mut self.role else { return None };
        let change = self.configuration.change(tip.wanted.take()?);
        self.configuration.after(&change).ok().map(|_| Entry::Membership(change))
    }

    /// True if a change was ordered here that is not delivered.
    pub(crate) fn change_open(&self) -> bool {
        let Role::Coordinator(tip) = &self.role else { return false };
        tip.change.is_some_and(|at| self.delivered <= at) && !mutant!(OrderedBehindChange)
    }

    /// The session below which all of a removed node's are to be closed.
    fn closed_for_good(&self, node: NodeId) -> Session {
        Session { incarnation: Incarnation(self.configuration.highest(node).0 + 1), start: 0 }
    }

    /// Lists the removed nodes that are not closed yet.
    pub(crate) fn list_to_close(&mut self) {
        let nodes = (1..=NODES_MAX as u8).map(NodeId);
        let removed = nodes.filter(|node| {
            let was = self.configuration.highest(*node) > Incarnation(0);
            was && !self.settings.nodes.contains(node)
        });
        let open = removed.filter(|node| {
            let closed = self.table.of(*node).map(|origin| origin.closed_below);
            closed < Some(self.closed_for_good(*node))
        });
        self.to_close = open.fold(0, |all, node| all | bit(node));
    }

    /// The close of a removed node's sessions, if one is due.
    pub(crate) fn removal_close(&self) -> Option<Entry> {
        let Role::Coordinator(tip) = &self.role else { return None };
        let due = |node: &NodeId| {
            let closed = tip.table.of(*node).map(|origin| origin.closed_below);
            self.to_close & bit(*node) != 0 && closed < Some(self.closed_for_good(*node))
        };
        let node = (1..=NODES_MAX as u8).map(NodeId).find(due)?;
        mark!(RemovedIsClosed);
        Some(Entry::Close { origin: node, below: self.closed_for_good(node) })
    }
}
