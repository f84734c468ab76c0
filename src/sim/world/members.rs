//! Changes of the members: an operator removes nodes and takes them back.
//!
//! Invariants: only the minority that may lose its memory is removed, so that it stays a minority
//! of every set of voters; whoever was removed gets an empty store and another life before it comes
//! back, and all are members when a world ends.

use super::World;
use crate::mail::{Change, Command};
use chainring_ring::configuration::{Configuration, Step};
use chainring_ring::coordinator::Role;
use chainring_ring::core::Core;
use chainring_ring::ids::{Incarnation, NodeId};

/// A removed node comes back after so long.
const REMOVED_US: u64 = 200_000;

impl World {
    fn core(&self, node: u8) -> Option<&Core> {
        Some(self.nodes[usize::from(node)].alive.as_ref()?.shard.core())
    }

    /// Who coordinates, as far as one can tell, and what it knows of the members.
    fn coordinator(&self) -> Option<(u8, Configuration)> {
        let cores = (0..self.plan.nodes).filter_map(|node| Some((node, self.core(node)?)));
        let mut own = cores.filter(|(_, core)| matches!(core.role(), Role::Coordinator(_)));
        own.next().map(|(node, core)| (node, *core.configuration()))
    }

    /// Something is changed at a node: it is removed, or what it is now is admitted. False if
    /// nothing can be done.
    pub(super) fn change_members(&mut self, node: u8, detail: u64) -> bool {
        let Some((coordinator, known)) = self.coordinator() else { return false };
        let (id, sim) = (NodeId(node + 1), &self.nodes[usize::from(node)]);
        let life = Incarnation(sim.incarnation);
        let step = match () {
            // A learner whose turn never came.
            () if known.learner(id).is_some() && detail.is_multiple_of(4) => {
                Step::Dismiss { node: id }
            }
            () if known.lists(id, life) => {
                let voters = known.voters() & !(1 << node);
                if !sim.victim || known.voter(id) != Some(life) || voters.count_ones() < 2 {
                    return false;
                }
                Step::Joint { voters, fresh: 0 }
            }
            // Gone for good: the store is of no use any more.
            () if known.highest(id) >= life => return self.bring_anew(node),
            () => self.admission(&known, id, life),
        };
        self.order_change(coordinator, step)
    }

    fn admission(&self, known: &Configuration, node: NodeId, incarnation: Incarnation) -> Step {
        let place = known.learner(node).and_then(|(_, instead)| instead);
        let instead = known.voter(node).map(|_| node).or(place);
        Step::Admit { node, incarnation, instead }
    }

    fn order_change(&mut self, coordinator: u8, step: Step) -> bool {
        let taken = self.core(coordinator).is_some_and(|core| core.judge(step).is_ok());
        let change = Box::new(Change::new(0, Some(step), false));
        self.nodes[usize::from(coordinator)].order(&self.shared, Command::Change(change));
        taken
    }

    /// A removed node's machine gets an empty disk.
    fn bring_anew(&mut self, node: u8) -> bool {
        let sim = &self.nodes[usize::from(node)];
        if !sim.victim || sim.alive.is_none() {
            return false;
        }
        self.crash(node, true, REMOVED_US);
        self.lose_disk(node);
        true
    }

    /// When all else is healed an operator sees to it that all are members.
    pub(super) fn complete_members(&mut self) {
        if !self.healing || self.plan.beyond {
            return;
        }
        let Some((coordinator, known)) = self.coordinator() else { return };
        for node in 0..self.plan.nodes {
            let (id, life) = (NodeId(node + 1), self.nodes[usize::from(node)].incarnation);
            let (life, up) = (Incarnation(life), self.core(node).is_some());
            if self.is_absent(node) || !up || known.lists(id, life) {
                continue;
            }
            if known.highest(id) >= life {
                self.bring_anew(node);
            } else {
                let step = self.admission(&known, id, life);
                self.order_change(coordinator, step);
            }
        }
    }

    /// Nodes that may have to come back after all else is healed: of who may be removed, some may
    /// be on their way out.
    pub(super) fn outsiders(&self) -> u32 {
        self.nodes.iter().filter(|sim| sim.victim).count() as u32
    }

    /// True if all nodes that are there vote, in the life that they have, and no change is under
    /// way.
    pub(super) fn members_are_whole(&self) -> bool {
        let Some((_, known)) = self.coordinator() else { return false };
        let votes = |node: u8| {
            let life = Incarnation(self.nodes[usize::from(node)].incarnation);
            known.voter(NodeId(node + 1)) == Some(life) && known.learner(NodeId(node + 1)).is_none()
        };
        let mut present = (0..self.plan.nodes).filter(|node| !self.is_absent(*node));
        self.plan.beyond || !known.is_joint() && present.all(votes)
    }
}
