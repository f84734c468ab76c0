//! Changes of the members under way: nodes come, go, and lose all that they remember.
//!
//! Invariant: a node loses its memory only while all others are up, and a quorum of each
//! configuration that anybody holds remembers; more than that no protocol bears.

use super::World;
use super::node::Disk;
use chainring_ring::actions::Input;
use chainring_ring::configuration::{Configuration, Step};
use chainring_ring::coordinator::Role;
use chainring_ring::core::Core;
use chainring_ring::ids::{Durability, Entry, Incarnation, Instance, NodeId};

fn bit(node: NodeId) -> u8 {
    1 << (node.0 - 1)
}

/// Who votes, who comes to vote, who learns.
pub(super) fn describe(core: &Core) -> String {
    let known = core.configuration();
    let member = |node: NodeId| {
        let life = |life: Option<Incarnation>| life.map_or(0, |life| life.0);
        let learner = life(known.learner(node).map(|(life, _)| life));
        (node.0, life(known.voter(node)), life(known.next(node)), learner)
    };
    let pending = core.pending().map(|(at, _)| at.0);
    format!("{:?} pending {pending:?}", known.nodes().map(member).collect::<Vec<_>>())
}

impl World {
    /// True if the ring bears it that a node forgets all.
    pub(super) fn may_forget(&self, at: usize) -> bool {
        // Who is down may hold the order of a change that nobody else knows.
        let others = self.nodes.iter().filter(|node| node.id != self.ids[at]);
        if others.clone().any(|node| !node.up() || node.disk.damaged.is_some()) {
            return false;
        }
        let mut cores = self.nodes.iter().filter_map(|node| node.core.as_ref());
        cores.all(|core| {
            let known = core.configuration();
            let held = (core.delivered().0..core.window().end().0).map(Instance);
            let held = held.filter_map(|at| core.window().get(at));
            let mut held = held.filter_map(|slot| match slot.order.entry {
                Entry::Membership(change) => known.after(&change).ok(),
                _ => None,
            });
            self.remember(known, at) && held.all(|after| self.remember(&after, at))
        })
    }

    /// True if all whom a configuration lists remember, but for one, and are a quorum without it.
    fn remember(&self, known: &Configuration, but: usize) -> bool {
        let life = |node: NodeId| self.nodes[usize::from(node.0) - 1].incarnation;
        let other = |node: NodeId| usize::from(node.0) - 1 != but;
        let mut listed = known.nodes().filter(|node| other(*node));
        let all = listed.all(|node| {
            let learner = known.learner(node).map(|(learner, _)| learner);
            let lives = [known.voter(node), known.next(node), learner];
            lives.into_iter().flatten().all(|listed| listed == life(node))
        });
        // One that is about to vote may be lost only where three vote already.
        let learns = self.ids.get(but).is_some_and(|node| known.learner(*node).is_some());
        let spare = !learns || known.voters().count_ones() >= 3;
        all && spare && known.is_quorum(|node, listed| other(node) && life(node) == listed)
    }

    /// One change, or the loss of a memory.
    pub(super) fn change_members(&mut self) {
        let at = self.random.below(self.nodes.len() as u64) as usize;
        let node = self.ids[at];
        if self.random.one_in(6) {
            return self.wipe(at);
        }
        let coordinates = |core: &&Core| matches!(core.role(), Role::Coordinator(_));
        let cores = self.nodes.iter().filter_map(|node| node.core.as_ref());
        let known = cores.filter(coordinates).map(|core| *core.configuration()).next_back();
        let Some(known) = known else { return };
        let life = self.nodes[at].incarnation;
        let listed = known.nodes().any(|listed| listed == node);
        let other = NodeId(1 + self.random.below(self.ids.len() as u64) as u8);
        let step = match self.random.below(4) {
            0 if known.learner(node).is_some() => Step::Dismiss { node },
            // Of two voters none may be lost: only what all remember may come to that.
            1 if known.voters().count_ones() > 3 || self.remember(&known, usize::MAX) => {
                Step::Joint { voters: known.voters() & !bit(node), fresh: 0 }
            }
            _ if !listed && known.highest(node) >= life => return self.wipe(at),
            _ if !listed => {
                let instead =
                    known.voter(other).map(|_| other).filter(|_| other.0.is_multiple_of(2));
                Step::Admit { node, incarnation: life, instead }
            }
            _ => {
                let instead = known.voter(node).map(|_| node);
                Step::Admit { node, incarnation: life, instead }
            }
        };
        self.ask_all(step);
    }

    fn ask_all(&mut self, step: Step) {
        (0..self.nodes.len()).for_each(|at| self.step(at, Input::Change(step)));
    }

    /// The node comes back with an empty disk, as another life.
    pub(super) fn wipe(&mut self, at: usize) {
        if !self.may_forget(at) {
            return;
        }
        if self.nodes[at].up() {
            self.fall(at);
        }
        let start = self.nodes[at].disk.start;
        self.nodes[at].disk = Disk { start, ..Disk::default() };
        if self.plan.durability == Durability::Sync {
            self.nodes[at].incarnation.0 += 1; // elsewhere the start does
        }
        self.restart(at);
    }

    /// Where no life is admitted by itself, an operator asks for it.
    pub(super) fn readmit(&mut self) {
        let Some(known) = self.newest() else { return };
        for at in 0..self.nodes.len() {
            let (node, incarnation) = (self.ids[at], self.nodes[at].incarnation);
            let listed = known.nodes().any(|listed| listed == node);
            if listed && !known.lists(node, incarnation) && known.highest(node) >= incarnation {
                self.wipe(at); // a life that was dismissed does not come back
            } else if listed && !known.lists(node, incarnation) {
                let place = known.learner(node).and_then(|(_, instead)| instead);
                let instead = known.voter(node).map(|_| node).or(place);
                self.ask_all(Step::Admit { node, incarnation, instead });
            }
        }
    }

    /// The configuration of whoever has delivered most.
    fn newest(&self) -> Option<Configuration> {
        let cores = self.nodes.iter().filter_map(|node| node.core.as_ref());
        cores.max_by_key(|core| core.delivered()).map(|core| *core.configuration())
    }

    /// The members, once no change is under way any more.
    pub(super) fn members(&self) -> Option<Vec<usize>> {
        let known = self.newest()?;
        let settled = |node: NodeId| {
            known.learner(node).is_none()
                && known.voter(node) == Some(self.nodes[usize::from(node.0) - 1].incarnation)
        };
        let whole = !known.is_joint() && known.nodes().all(settled);
        whole.then(|| known.nodes().map(|node| usize::from(node.0) - 1).collect())
    }
}
