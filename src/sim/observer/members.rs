//! Who votes where, in the observer's own words.
//!
//! Invariants: a configuration governs what lies behind the change that led to it; a change itself
//! is chosen by quorums of both. A life counts where it is listed and nowhere else.

use chainring_ring::configuration::{Change, Step};
use chainring_ring::ids::{Incarnation, Instance, NODES_MAX, NodeId};

/// A set of voters: by node, its life; 0 if it does not vote.
type Voters = [u32; NODES_MAX + 1];

/// Who votes, between two changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Members {
    version: u32,
    now: Voters,
    /// The other set of a joint change.
    next: Option<Voters>,
    learners: Voters,
    highest: Voters,
}

impl Members {
    pub(super) fn first(nodes: &[NodeId]) -> Members {
        let mut members = Members::default();
        for node in nodes {
            let id = usize::from(node.0);
            (members.now[id], members.highest[id]) = (1, 1);
        }
        members
    }

    /// True if those of whom `has` is true are more than half of each set.
    pub(super) fn is_quorum(&self, has: impl Fn(NodeId, Incarnation) -> bool) -> bool {
        let more_than_half = |set: &Voters| {
            let listed = (1..=NODES_MAX).filter(|id| set[*id] != 0);
            let there = listed.clone().filter(|id| has(NodeId(*id as u8), Incarnation(set[*id])));
            2 * there.count() > listed.count()
        };
        more_than_half(&self.now) && self.next.as_ref().is_none_or(more_than_half)
    }

    /// What follows from a change; `None` if it does not follow from here.
    pub(super) fn after(&self, change: &Change) -> Option<Members> {
        let mut after = Members { version: self.version + 1, ..*self };
        if change.version != after.version {
            return None;
        }
        match (change.step, self.next) {
            (Step::Leave, Some(next)) => {
                (after.now, after.next) = (next, None);
                for (learner, voter) in after.learners.iter_mut().zip(&after.now) {
                    *learner *= u32::from(learner != voter);
                }
            }
            (Step::Leave, None) | (_, Some(_)) => return None,
            (Step::Admit { node, incarnation, .. }, None) => {
                let id = usize::from(node.0);
                if !(1..=NODES_MAX).contains(&id) || incarnation.0 <= self.highest[id] {
                    return None;
                }
                (after.learners[id], after.highest[id]) = (incarnation.0, incarnation.0);
            }
            (Step::Dismiss { node }, None) => *after.learners.get_mut(usize::from(node.0))? = 0,
            (Step::Joint { voters, fresh }, None) => {
                let mut next = Voters::default();
                for id in (1..=NODES_MAX).filter(|id| voters >> (id - 1) & 1 != 0) {
                    let learns = fresh >> (id - 1) & 1 != 0;
                    next[id] = if learns { self.learners[id] } else { self.now[id] };
                }
                after.next = Some(next);
            }
        }
        Some(after)
    }
}

/// All configurations of the history.
#[derive(Debug)]
pub(super) struct Governing {
    first: Members,
    /// By instance of the change that was chosen, what it led to: ascending.
    chosen: Vec<(Instance, Members)>,
    /// Lives that some entry was to admit, whatever became of it.
    named: Vec<(NodeId, Incarnation)>,
}

impl Governing {
    pub(super) fn new(nodes: &[NodeId]) -> Governing {
        let named = nodes.iter().map(|node| (*node, Incarnation(1))).collect();
        Governing { first: Members::first(nodes), chosen: Vec::new(), named }
    }

    /// Who votes on an instance that is no change.
    pub(super) fn at(&self, instance: Instance) -> &Members {
        let before = self.chosen.iter().rev().find(|(at, _)| *at < instance);
        before.map_or(&self.first, |(_, members)| members)
    }

    /// A change was proposed.
    pub(super) fn proposed(&mut self, change: &Change) {
        if let Step::Admit { node, incarnation, .. } = change.step {
            self.named.push((node, incarnation));
        }
    }

    /// A change was chosen.
    pub(super) fn chosen(&mut self, instance: Instance, change: &Change) {
        if let Some(after) = self.at(instance).after(change) {
            let place = self.chosen.partition_point(|(at, _)| *at < instance);
            self.chosen.insert(place, (instance, after));
        }
    }

    /// True if some entry was to admit this life.
    pub(super) fn is_named(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.named.contains(&(node, incarnation))
    }
}
