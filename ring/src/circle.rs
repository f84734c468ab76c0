//! Which nodes the circle of the next ballot has, in which order, and when a coordinator opens one
//! for the sake of its circle.
//!
//! Who answered is in it, unless it would hold the others up; who was not in the last one comes
//! at the tail; links that did not carry are not used. Invariant: a circle has a quorum of voters,
//! whatever that costs.

use crate::actions::{Action, Actions};
use crate::coordinator::Role;
use crate::core::Core;
use crate::failover::{bit, index};
use crate::ids::{Ballot, Instance, NodeId};
use crate::layout::Layout;
use crate::{mark, mutant};

/// Ticks more for who comes back.
const RETURN_PATIENCE: u32 = 5;
/// Ticks between two ballots that a coordinator opens of its own will.
const BALLOT_TICKS: u64 = 20;

impl Core {
    /// True if a node outside the circle is there, has waited, and has learnt what was decided.
    pub(crate) fn somebody_returns(&self) -> bool {
        let returns = |node: &&NodeId| {
            let waits = self.failover.waits(**node);
            !self.layout.contains(**node)
                && self.failover.answers(**node)
                && !waits
                && !self.is_far_behind(**node)
                && self.failover.pace.keeps_up(index(**node))
                && self.circle(bit(**node)).contains(**node)
        };
        let Role::Coordinator(tip) = &self.role else { return false };
        self.delivered > tip.barrier && self.settings.nodes.iter().any(|node| returns(&node))
    }

    /// True if a node would hold the window back.
    fn is_far_behind(&self, node: NodeId) -> bool {
        let Some(vote) = self.votes.of(node) else { return false };
        vote.delivered.0 + self.window.span() / 4 < self.delivered.0
    }

    /// Nodes whose answers are worth waiting for: those of the circle, and who would come back.
    pub(crate) fn is_awaited(&self, node: NodeId) -> bool {
        let known = self.layout.contains(node) || self.failover.answers(node);
        known && !self.failover.is_missed(node) && !self.is_slow(node)
    }

    fn is_slow(&self, node: NodeId) -> bool {
        self.failover.pace.is_slow(index(node))
    }

    /// Measures how far each node is behind what a quorum has delivered; not while the coordinator
    /// is silent: then nothing moves, and what the others say comes late.
    pub(crate) fn keep_pace(&mut self) {
        let leads = matches!(self.role, Role::Coordinator(_));
        if !self.is_in_circle() || !(leads || self.hears_coordinator()) {
            return;
        }
        let of = |node| self.votes.of(node).map_or(Instance(0), |vote| vote.delivered);
        let front = self.reached(0, |node, _| Some(of(node))).unwrap_or_default();
        for node in &self.settings.nodes {
            let inside = self.layout.contains(*node);
            self.failover.pace.tick(index(*node), of(*node), front, inside);
        }
    }

    /// A node of the circle that holds the others up, if they are enough without it.
    fn holds_up(&self) -> Option<NodeId> {
        let nodes = self.layout.nodes();
        let slow = nodes.iter().copied().find(|node| self.is_slow(*node))?;
        let others = Layout::new(nodes.iter().copied().filter(|node| *node != slow));
        self.has_quorum(&others).then_some(slow)
    }

    /// Ticks for which a candidate with a quorum waits for these: a little longer for who would
    /// come back, which has more to write than they who are in the circle.
    pub(crate) fn patience(&self, mut awaited: impl Iterator<Item = NodeId>) -> u32 {
        match awaited.any(|node| !self.layout.contains(node)) {
            true => self.settings.patience + RETURN_PATIENCE,
            false => self.settings.patience,
        }
    }

    /// The circle for a new ballot, of those who answered, and of who cannot but is there.
    pub(crate) fn next_circle(&self, answered: impl Fn(NodeId) -> bool) -> Layout {
        let mut here = 0;
        for node in &self.settings.nodes {
            let votes = |life| self.configuration.votes(*node, life);
            let learner = self.votes.of(*node).is_some_and(|vote| !votes(vote.incarnation));
            if answered(*node) || learner && self.failover.is_there(*node) {
                here |= bit(*node);
            }
        }
        let mut near = 0;
        let close = |node: &&NodeId| !self.is_far_behind(**node) && !self.is_slow(**node);
        let close = self.settings.nodes.iter().filter(close);
        close.for_each(|node| near |= bit(*node));
        let circle = self.circle_of(here & near);
        match self.has_quorum(&circle) {
            true => circle,
            // Better one that is behind, or a link that may not carry, than none.
            false => {
                mark!(CircleTakesAll);
                let known = self.known_order().filter(|node| here & bit(*node) != 0);
                Layout::new(core::iter::once(self.settings.me).chain(known))
            }
        }
    }

    /// The present circle and these nodes.
    fn circle(&self, more: u8) -> Layout {
        let present = self.layout.nodes().iter().fold(more, |all, node| all | bit(*node));
        self.circle_of(present)
    }

    fn has_quorum(&self, circle: &Layout) -> bool {
        self.is_quorum(|node, incarnation| {
            let heard = self.votes.of(node).map(|vote| vote.incarnation);
            circle.contains(node) && heard.is_none_or(|heard| heard == incarnation)
        })
    }

    /// The order in which nodes stand now, from this one on; who is not in the circle at the tail.
    fn known_order(&self) -> impl Iterator<Item = NodeId> {
        let circle = self.layout.from(self.settings.me);
        let present = (0..circle.nodes().len()).map(move |place| circle.nodes()[place]);
        present.chain(self.settings.nodes.iter().copied())
    }

    /// As many of these nodes as links that carry make a circle of, in the known order if they do.
    fn circle_of(&self, here: u8) -> Layout {
        let me = self.settings.me;
        let here = here | bit(me);
        let rest = Layout::new(self.known_order().filter(|node| here & bit(*node) != 0));
        let mut best = Layout::new([me]);
        self.extend(best, &rest, &mut best);
        best
    }

    /// Depth first; at most 7! orders, and a whole one in the known order mostly comes first.
    fn extend(&self, circle: Layout, rest: &Layout, best: &mut Layout) {
        let me = self.settings.me;
        let last = *circle.nodes().last().expect("this node at least");
        let closes = last == me || self.failover.carries(last, me);
        if closes && circle.nodes().len() > best.nodes().len() {
            *best = circle;
        }
        for node in rest.nodes().iter().filter(|node| !circle.contains(**node)) {
            if best.nodes().len() == rest.nodes().len() {
                return;
            }
            if self.failover.carries(last, *node) {
                let mut longer = circle;
                longer.push(*node);
                self.extend(longer, rest, best);
            }
        }
    }

    /// A node misses its predecessor in the circle of `ballot`.
    pub(crate) fn on_missed(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        node: NodeId,
        out: &mut Actions,
    ) {
        self.is_there(from);
        let ours = matches!(self.role, Role::Coordinator(_)) && ballot == self.promised;
        if ours && self.layout.predecessor(from) == Some(node) {
            self.mend_circle(node, from, out);
        }
    }

    /// The link between two neighbours carries nothing: another ballot, with another circle.
    fn mend_circle(&mut self, from: NodeId, to: NodeId, out: &mut Actions) {
        if !self.failover.may_open() {
            return;
        }
        // Which end of it is to blame, if one is, the answers will show.
        self.failover.dead_links.suspect(from, to);
        let there = self.settings.nodes.iter().filter(|node| self.failover.is_there(**node));
        let circle = self.circle(there.fold(0, |all, node| all | bit(*node)));
        if self.has_quorum(&circle) {
            mark!(CircleBroken);
            return self.campaign(out);
        }
        // A ballot would have the same circle: nothing helps but that the link is made again.
        mark!(CircleHasNoOther);
        self.failover.dead_links.acquit(from, to);
    }

    /// What a coordinator does at a tick.
    pub(crate) fn watch_circle(&mut self, tell: bool, out: &mut Actions) {
        let me = self.settings.me;
        if tell {
            let reached = |node: &NodeId| {
                let here = self.votes.of(*node).is_some_and(|vote| vote.ballot == self.promised);
                *node == me || here && self.layout.contains(*node)
            };
            let nodes = self.settings.nodes.iter();
            nodes.filter(|node| !reached(node)).for_each(|to| out.push(Action::Open { to: *to }));
        }
        if let Some(predecessor) = self.layout.predecessor(me)
            && self.failover.predecessor.is_lost()
        {
            return self.mend_circle(predecessor, me, out);
        }
        if self.failover.may_open()
            && let Some(slow) = self.holds_up()
        {
            if slow != me {
                mark!(SlowLeftOut);
                self.failover.leave_out(slow);
                return self.campaign(out);
            } else if !mutant!(SlowOneClings) {
                return self.resign(out);
            }
        }
        let above = self.votes.iter().any(|vote| vote.ballot > self.promised);
        let above = above || self.failover.above;
        if self.failover.may_open() && (above || self.somebody_returns()) {
            if above {
                mark!(BallotAbove);
            } else {
                mark!(NodeReturns);
            }
            self.campaign(out);
        }
    }

    /// A ballot was opened here, with the answers of these nodes.
    pub(crate) fn opened(&mut self, answered: impl Fn(NodeId) -> bool, out: &mut Actions) {
        self.failover.dead_links.judge(&answered, self.failover.ticks);
        let circle = self.next_circle(answered);
        self.failover.may_open = self.failover.ticks + BALLOT_TICKS;
        self.failover.above = false;
        for node in self.settings.nodes.iter().filter(|node| !circle.contains(**node)) {
            mark!(CircleLeavesOut);
            // Also one that is there and was too slow to answer: it waits longer each time.
            if self.failover.is_there(*node) {
                self.failover.leave_out(*node);
            }
        }
        self.enter(circle, out);
        self.tell_others(|to| Action::Open { to }, out);
    }
}
