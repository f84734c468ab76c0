//! Steps of a core: what it accepted, what it votes, what it delivers.
//!
//! Invariant: a step is judged in the order in which things become true: orders and packets first,
//! then the vote that rests on them, then what was decided by it.

use super::Observer;
use super::invariant::Invariant;
use super::invariant::Invariant::{A1, A2, A3, A4, A6, A7, B2, B3, B4, D1, D5};
use chainring_ring::actions::{Action, Input};
use chainring_ring::core::Core;
use chainring_ring::ids::{Ballot, Durability, Entry, Instance, NodeId, Order, ValueId};
use chainring_ring::votes::Vote;

/// An instance that was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    pub(super) entry: Entry,
    pub(super) counts: bool,
}

impl Observer {
    /// A step of the core: what went in, what came out, and the core behind it.
    pub fn stepped(&mut self, node: NodeId, core: &Core, input: &Input<'_>, actions: &[Action]) {
        if self.is_over(node) {
            return;
        }
        if let Input::Promised(ballot) = input {
            self.told_durable(node, *ballot);
        }
        let promised = self.nodes[usize::from(node.0)].promised;
        for action in actions {
            match action {
                Action::AppendOrder(order) => self.appends(node, order),
                Action::Keep { id, .. } => self.keeps(node, id),
                Action::WritePromise(ballot) => self.promises(node, *ballot),
                Action::Relink => self.relinks(node, core),
                Action::Mended => self.nodes[usize::from(node.0)].mended = core.promised(),
                _ => {}
            }
        }
        if let Input::Jump { claim, .. } = input {
            let delivers = |action: &&Action| matches!(action, Action::Deliver { .. });
            let more = actions.iter().filter(delivers).count() as u64;
            self.jumps(node, core, claim.position, more);
        }
        self.own_vote(node, core, promised, actions);
        for action in actions {
            match action {
                Action::Deliver { order, counts } => self.delivers(node, order, *counts),
                Action::Answer { ballot, .. } => self.answers(node, core, *ballot),
                _ => {}
            }
        }
        self.own_settled(node, core);
        let state = &self.nodes[usize::from(node.0)];
        let promised = core.promised() == state.promised;
        self.verdict.check(A2, node, promised, || {
            format!("promised {:?} without a word, before {:?}", core.promised(), state.promised)
        });
        let (claim, chosen_to) = (core.claim(), self.history.chosen_to);
        self.verdict.check(A6, node, claim.position <= chosen_to, || {
            format!("{claim:?}, but only what is below {chosen_to:?} is decided")
        });
    }

    /// The core goes on from a peer's state: it is the one that all deliver, and lies ahead.
    fn jumps(&mut self, node: NodeId, core: &Core, position: Instance, more: u64) {
        let Observer { nodes, log, verdict, .. } = self;
        let state = &mut nodes[usize::from(node.0)];
        let went_on = core.delivered().0 - more;
        if went_on == state.delivered.0 {
            return; // it was overtaken
        }
        let ahead = position > state.delivered && position.0 as usize <= log.len();
        let ahead = ahead && went_on == position.0;
        let what =
            || format!("goes on from {position:?}, at {:?} of {}", state.delivered, log.len());
        verdict.check(B2, node, ahead, what);
        if verdict.violation.is_some() {
            return;
        }
        for delivered in &log[state.delivered.0 as usize..position.0 as usize] {
            state.counting.apply(&delivered.entry);
        }
        (state.delivered, state.settled) = (position, position.max(state.settled));
        state.claimed = state.claimed.max(position);
        state.jumped = position;
        if more == 0 {
            state.counting.judge(verdict, node, core);
        }
    }

    /// The circle may have changed: a value may cross a link that it would not have had.
    fn relinks(&mut self, node: NodeId, core: &Core) {
        let state = &mut self.nodes[usize::from(node.0)];
        let now = [core.predecessor(), core.successor()];
        if std::mem::replace(&mut state.neighbours, now) != now {
            self.setup.fault_free = false;
        }
    }

    /// The core is told that its promise is durable.
    fn told_durable(&mut self, node: NodeId, ballot: Ballot) {
        let stable = self.nodes[usize::from(node.0)].stable_promised;
        let durable = ballot <= stable || self.setup.durability == Durability::Memory;
        let what = || format!("takes {ballot:?} for durable, {stable:?} is");
        self.verdict.check(A2, node, durable, what);
    }

    fn appends(&mut self, node: NodeId, order: &Order) {
        let owner = order.ballot.node == node && !order.decided;
        if let Entry::Trim(position) = order.entry
            && owner
        {
            self.trims(node, position);
        }
        let state = &self.nodes[usize::from(node.0)];
        if !order.decided {
            let legal = order.ballot == state.promised;
            self.verdict.check(A3, node, legal, || {
                format!("accepts {order:?}, promised is {:?}", state.promised)
            });
        }
        let life = owner.then_some(state.life);
        let foreign = owner && order.ballot.incarnation != state.incarnation;
        self.verdict.check(A1, node, !foreign, || format!("of an earlier life: {order:?}"));
        self.history.order(&mut self.verdict, node, order, life);
        self.history.hold(node, order);
    }

    /// A coordinator orders that what lies below be let go: a quorum of those that govern what is
    /// delivered has the state there, or later, on stable media. (Who takes its place orders it
    /// again.)
    fn trims(&mut self, node: NodeId, position: Instance) {
        let has = |node: NodeId| self.nodes[usize::from(node.0)].checkpoint >= position;
        let holders = self.setup.nodes.iter().filter(|node| has(**node)).count();
        let quorum = self.setup.nodes.len() / 2 + 1;
        let what = || format!("trims to {position:?}, which {holders} nodes have checkpoints for");
        self.verdict.check(D5, node, holders >= quorum, what);
    }

    /// The node's own entry in its vector, if it changed: every position that it names is true.
    /// `promised` is the promise before the step: one that rises behind the vote in the same step
    /// freezes it from then on (orders of the step were judged one by one as they were taken).
    pub(super) fn own_vote(
        &mut self,
        node: NodeId,
        core: &Core,
        promised: Ballot,
        actions: &[Action],
    ) {
        let Some(vote) = core.votes().of(node) else { return };
        let state = &self.nodes[usize::from(node.0)];
        let before = state.vote;
        if *vote == before {
            return;
        }
        let verdict = &mut self.verdict;
        let own = vote.incarnation == state.incarnation;
        verdict.check(Invariant::A8, node, own, || format!("votes for another life: {vote:?}"));
        verdict.check(A2, node, vote.ballot >= before.ballot, || format!("{vote:?}, {before:?}"));
        let same = vote.ballot == before.ballot;
        let rises = vote.received >= before.received && vote.durable >= before.durable;
        verdict.check(A7, node, !same || rises, || format!("{vote:?} falls from {before:?}"));
        let moved = vote.durable != before.durable || vote.received != before.received;
        if !same || moved {
            let frozen = vote.ballot < promised && state.vote.node == node;
            let what = || format!("{vote:?} moves after the promise {promised:?}");
            verdict.check(A3, node, !frozen, what);
            let base = self.history.opening(vote.ballot).map(|opening| opening.base);
            self.vote_is_true(node, core, (vote, &before), base, actions);
        }
        self.nodes[usize::from(node.0)].publish(vote);
    }

    fn vote_is_true(
        &mut self,
        node: NodeId,
        core: &Core,
        (vote, before): (&Vote, &Vote),
        base: Option<Instance>,
        actions: &[Action],
    ) {
        let Some(base) = base else {
            // Its owner opens it at what is decided, and may have to wait for room to propose.
            let own = vote.ballot.node == node && vote.received <= core.delivered();
            let nothing = vote.received == Instance(0) || own;
            let nothing = nothing && vote.durable <= vote.received;
            let what = || format!("{vote:?} at a ballot that proposed nothing");
            return self.verdict.check(A7, node, nothing, what);
        };
        let ordered = vote.durable <= vote.received;
        self.verdict.check(A7, node, ordered, || format!("{vote:?} votes for orders to come"));
        let (mut received, mut durable) = (base, base);
        if vote.ballot == before.ballot && before.received > Instance(0) {
            (received, durable) = (before.received, before.durable);
        }
        let received = received.max(core.delivered());
        for instance in (received.0..vote.received.0).map(Instance) {
            let cell = self.history.cell(instance);
            let held = cell.and_then(|cell| cell.at(vote.ballot));
            if held.is_none_or(|proposal| !proposal.held.has(node)) {
                let what = || format!("{vote:?} without the order of {instance:?}: {held:?}");
                return self.verdict.fail(A7, node, what);
            }
        }
        let settled = self.nodes[usize::from(node.0)].settled;
        for instance in (durable.max(settled).0..vote.durable.0).map(Instance) {
            self.vote_covers(node, core, vote, instance, actions);
            if self.verdict.violation.is_some() {
                return;
            }
        }
    }

    /// A vote covers an instance: order and value are there, durably where that is promised.
    fn vote_covers(
        &mut self,
        node: NodeId,
        core: &Core,
        vote: &Vote,
        instance: Instance,
        actions: &[Action],
    ) {
        let state = &self.nodes[usize::from(node.0)];
        let sync = self.setup.durability == Durability::Sync;
        let held = self.history.cell(instance).and_then(|cell| cell.at(vote.ballot));
        let held = held.filter(|proposal| proposal.held.has(node)).cloned();
        if instance < state.delivered {
            let stable = !sync || self.is_stable(node, instance);
            self.verdict.check(D1, node, stable, || format!("{vote:?}: {instance:?} is volatile"));
        } else if let Some(proposal) = &held {
            if let Entry::Value(id) = proposal.entry
                && !state.counting.is_past(&id)
                && !delivers(actions, &id)
            {
                let there = self.values.is_held(&id, node);
                let what = || format!("{vote:?} without the value of {instance:?}, {id:?}");
                self.verdict.check(A6, node, there, what);
                let stable = !sync || self.values.is_stable(&id, node);
                let what = || format!("{vote:?}: the value {id:?} of {instance:?} is volatile");
                self.verdict.check(D1, node, stable, what);
            }
            let stable = !sync || proposal.stable.has(node);
            let what = || format!("{vote:?}: the order of {instance:?} is volatile");
            self.verdict.check(D1, node, stable, what);
        } else {
            // Decided entries that came by themselves count once they are delivered.
            let decided = instance < core.delivered();
            let what = || format!("{vote:?} without the order of {instance:?}");
            return self.verdict.check(A7, node, decided, what);
        }
        if held.is_some() && self.verdict.violation.is_none() {
            self.history.vote(&mut self.verdict, node, instance, vote.ballot);
        }
    }

    /// True if the node has order and value of a delivered instance on stable media.
    pub(super) fn is_stable(&self, node: NodeId, instance: Instance) -> bool {
        let state = &self.nodes[usize::from(node.0)];
        state.alive && instance < state.settled || self.is_written(node, instance)
    }

    /// The same, of what this life or one before was seen to write, or found.
    pub(super) fn is_written(&self, node: NodeId, instance: Instance) -> bool {
        let Some(delivered) = self.log.get(instance.0 as usize) else { return false };
        let cell = self.history.cell(instance);
        let order = cell.is_some_and(|cell| cell.is_stable(node, &delivered.entry));
        let value = match delivered.entry {
            Entry::Value(id) if delivered.counts => self.values.is_stable(&id, node),
            _ => true,
        };
        order && value
    }

    /// "Delivered" in the own vote: it is, and durably where that is promised.
    pub(super) fn own_settled(&mut self, node: NodeId, core: &Core) {
        let Some(vote) = core.votes().of(node) else { return };
        let state = &self.nodes[usize::from(node.0)];
        if vote.delivered <= state.settled {
            return;
        }
        let delivered = state.delivered;
        let what = || format!("{vote:?}, but {delivered:?} is delivered");
        self.verdict.check(A7, node, vote.delivered <= delivered, what);
        if self.setup.durability == Durability::Sync && self.verdict.violation.is_none() {
            for instance in (state.settled.0..vote.delivered.0).map(Instance) {
                let stable = self.is_stable(node, instance);
                let what = || format!("{vote:?}: delivered {instance:?} is volatile");
                self.verdict.check(D1, node, stable, what);
            }
        }
        self.nodes[usize::from(node.0)].settled = vote.delivered;
    }

    fn delivers(&mut self, node: NodeId, order: &Order, counts: bool) {
        let Observer { nodes, log, verdict, history, values, .. } = self;
        let state = &mut nodes[usize::from(node.0)];
        let next = state.delivered;
        verdict.check(B3, node, order.instance == next, || format!("{order:?} after {next:?}"));
        let right = state.counting.apply(&order.entry) == counts;
        verdict.check(B4, node, right, || format!("{order:?} counts: {counts}"));
        if let Entry::Value(id) = order.entry
            && counts
        {
            let held = values.is_held(&id, node);
            verdict.check(A6, node, held, || format!("delivers {order:?} without its value"));
        }
        state.delivered = next.next();
        let delivered = Delivered { entry: order.entry, counts };
        if let Some(first) = log.get(next.0 as usize) {
            let what = || format!("{delivered:?} at {next:?}, others {first:?}");
            return verdict.check(B2, node, *first == delivered, what);
        }
        match history.chosen(next) {
            None => verdict.fail(A6, node, || format!("delivers {order:?}, which is not decided")),
            Some(entry) => verdict.check(A4, node, entry == order.entry, || {
                format!("delivers {order:?}, chosen is {entry:?}")
            }),
        }
        if let Entry::Trim(position) = order.entry {
            self.trimmed = self.trimmed.max(position);
        }
        self.log.push(delivered);
    }
}

/// True if the value is delivered in this very step: other occurrences of it count as held.
fn delivers(actions: &[Action], id: &ValueId) -> bool {
    let is = |action: &Action| match action {
        Action::Deliver { order, .. } => order.entry == Entry::Value(*id),
        _ => false,
    };
    actions.iter().any(is)
}
