//! Everything that was ever proposed, and by whom it was accepted: A1, A3, A4, A5.
//!
//! Invariants: proposals and votes are never forgotten, whatever becomes of the nodes; `held` and
//! `stable` say what lies in a node's memory and on its disk now. An instance is chosen as soon as
//! a quorum's true votes at one ballot cover it:
//! of the configuration that governs it (`members.rs`), by node and life.

use super::invariant::Invariant::{A1, A3, A4, A5, L3};
use super::members::Governing;
use super::verdict::{Nodes, Verdict};
use chainring_ring::ids::{Ballot, Entry, Incarnation, Instance, NODES_MAX, NodeId, Order};

/// Instances that may be open beyond the last one delivered, in windows.
const WINDOWS_OPEN: u64 = 4;

type Past = Vec<(NodeId, Incarnation)>;

/// An entry at an instance and a ballot.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) ballot: Ballot,
    pub(super) entry: Entry,
    /// Nodes whose newest order of the instance this is.
    pub(super) held: Nodes,
    /// Nodes with the order on stable media.
    pub(super) stable: Nodes,
    /// Acceptors whose true vote covered it, in the life that they remember.
    pub(super) voted: Nodes,
    /// The same of lives that are forgotten.
    past: Past,
}

impl Proposal {
    /// True if a vote of the node covered it, of whichever life.
    pub(super) fn has_voted(&self, node: NodeId) -> bool {
        self.voted.has(node) || self.past.iter().any(|(voter, _)| *voter == node)
    }
}

/// What was proposed for one instance. Nearly always one proposal.
#[derive(Debug, Default)]
pub(super) struct Cell {
    first: Option<Proposal>,
    more: Vec<Proposal>,
    /// What was chosen, and at which ballot first.
    pub(super) chosen: Option<(Entry, Ballot)>,
    /// Nodes whose disk lied about what they had here: they cannot know that it is gone.
    excused: Nodes,
}

impl Cell {
    pub(super) fn proposals(&self) -> impl Iterator<Item = &Proposal> {
        self.first.iter().chain(&self.more)
    }

    fn proposals_mut(&mut self) -> impl Iterator<Item = &mut Proposal> {
        self.first.iter_mut().chain(&mut self.more)
    }

    pub(super) fn at(&self, ballot: Ballot) -> Option<&Proposal> {
        self.proposals().find(|proposal| proposal.ballot == ballot)
    }

    pub(super) fn at_mut(&mut self, ballot: Ballot) -> Option<&mut Proposal> {
        self.proposals_mut().find(|proposal| proposal.ballot == ballot)
    }

    /// The newest order that a node holds.
    pub(super) fn held_by(&self, node: NodeId) -> Option<&Proposal> {
        self.proposals().find(|proposal| proposal.held.has(node))
    }

    /// True if the node has an order of this entry on stable media.
    pub(super) fn is_stable(&self, node: NodeId, entry: &Entry) -> bool {
        self.proposals().any(|p| p.stable.has(node) && p.entry == *entry)
    }

    /// True if the node's vote covered this entry, at whatever ballot from this one on.
    pub(super) fn is_voted(&self, node: NodeId, entry: &Entry, from: Ballot) -> bool {
        let mut known = self.proposals().filter(|p| p.ballot >= from && p.entry == *entry);
        known.any(|p| p.voted.has(node))
    }

    /// What was chosen and at which ballot, if it was chosen by the node's vote as well: an
    /// acceptor that calls itself whole holds it for ever.
    pub(super) fn owed(&self, node: NodeId) -> Option<(Entry, Ballot)> {
        let (entry, ballot) = self.chosen.filter(|_| !self.excused.has(node))?;
        let mut voted = self.proposals().filter(|p| p.ballot >= ballot && p.entry == entry);
        voted.any(|p| p.voted.has(node)).then_some((entry, ballot))
    }

    /// From now on the node's newest order is that of `ballot`.
    fn hold(&mut self, node: NodeId, ballot: Ballot) {
        for proposal in self.proposals_mut() {
            if proposal.ballot == ballot {
                proposal.held.add(node);
            } else {
                proposal.held.remove(node);
            }
        }
    }

    fn add(&mut self, proposal: Proposal) {
        if self.first.is_none() {
            self.first = Some(proposal);
        } else {
            self.more.push(proposal);
        }
    }
}

/// A ballot that proposed something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) ballot: Ballot,
    pub(super) base: Instance,
    /// Which life of its owner proposes.
    life: u32,
}

/// The history of a ring.
#[derive(Debug)]
pub(super) struct History {
    pub(super) cells: Vec<Cell>,
    openings: Vec<Opening>,
    /// Everything below is chosen.
    pub(super) chosen_to: Instance,
    pub(super) governing: Governing,
    /// By node, the life whose votes `voted` names.
    lives: [Incarnation; NODES_MAX + 1],
    window: u64,
}

impl History {
    pub(super) fn new(nodes: &[NodeId], window: u64) -> History {
        History {
            cells: Vec::new(),
            openings: Vec::new(),
            chosen_to: Instance(0),
            governing: Governing::new(nodes),
            lives: [Incarnation(1); NODES_MAX + 1],
            window,
        }
    }

    /// A node votes in this life from now on: the votes of one before are not its own any more.
    pub(super) fn lives(&mut self, node: NodeId, incarnation: Incarnation) {
        let before = std::mem::replace(&mut self.lives[usize::from(node.0)], incarnation);
        if before == incarnation {
            return;
        }
        for proposal in self.cells.iter_mut().flat_map(Cell::proposals_mut) {
            if proposal.voted.has(node) {
                proposal.voted.remove(node);
                proposal.past.push((node, before));
            }
        }
    }

    pub(super) fn cell(&self, instance: Instance) -> Option<&Cell> {
        self.cells.get(usize::try_from(instance.0).ok()?)
    }

    pub(super) fn cell_mut(&mut self, instance: Instance) -> Option<&mut Cell> {
        self.cells.get_mut(usize::try_from(instance.0).ok()?)
    }

    pub(super) fn opening(&self, ballot: Ballot) -> Option<&Opening> {
        self.openings.iter().rev().find(|opening| opening.ballot == ballot)
    }

    pub(super) fn chosen(&self, instance: Instance) -> Option<Entry> {
        Some(self.cell(instance)?.chosen?.0)
    }

    /// A node says, writes or holds this order: it is what was proposed, or, from a life of the
    /// ballot's owner, becomes so.
    pub(super) fn order(
        &mut self,
        verdict: &mut Verdict,
        node: NodeId,
        order: &Order,
        owner_life: Option<u32>,
    ) {
        let known = self.cell(order.instance).and_then(|cell| cell.at(order.ballot));
        match (known, owner_life) {
            (Some(known), _) => {
                let same = known.entry == order.entry;
                verdict.check(A1, node, same, || format!("{order:?}, before {:?}", known.entry));
                let opening = self.opening(order.ballot);
                let base = opening.is_some_and(|opening| opening.base == order.base);
                verdict.check(A1, node, base, || format!("{order:?}, but {opening:?}"));
                let resumed = owner_life.filter(|life| opening.is_none_or(|o| o.life != *life));
                verdict.check(A1, node, resumed.is_none(), || format!("again {order:?}"));
            }
            (None, Some(life)) => self.propose(verdict, node, order, life),
            (None, None) => verdict.fail(A3, node, || format!("nobody proposed {order:?}")),
        }
    }

    fn propose(&mut self, verdict: &mut Verdict, node: NodeId, order: &Order, life: u32) {
        let open = self.chosen_to.0 + WINDOWS_OPEN * self.window;
        if order.instance.0 >= open {
            return verdict.fail(L3, node, || format!("far beyond what is open: {order:?}"));
        }
        match self.opening(order.ballot) {
            None => {
                let (ballot, base) = (order.ballot, order.base);
                self.openings.push(Opening { ballot, base, life });
            }
            Some(opening) => {
                let same = opening.base == order.base && opening.life == life;
                verdict.check(A1, node, same, || format!("{order:?} goes on with {opening:?}"));
            }
        }
        let index = order.instance.0 as usize;
        if self.cells.len() <= index {
            self.cells.resize_with(index + 1, Cell::default);
        }
        let cell = &mut self.cells[index];
        if let Some((entry, ballot)) = cell.chosen {
            let kept = ballot >= order.ballot || entry == order.entry;
            verdict
                .check(A5, node, kept, || format!("{order:?}, chosen is {entry:?} at {ballot:?}"));
        }
        cell.add(Proposal {
            ballot: order.ballot,
            entry: order.entry,
            held: Nodes::default(),
            stable: Nodes::default(),
            voted: Nodes::default(),
            past: Vec::new(),
        });
        if let Entry::Membership(change) = order.entry {
            self.governing.proposed(&change);
        }
    }

    /// The order is the newest that the node has in memory.
    pub(super) fn hold(&mut self, node: NodeId, order: &Order) {
        if let Some(cell) = self.cell_mut(order.instance) {
            cell.hold(node, order.ballot);
        }
    }

    /// The order is on the node's stable media.
    pub(super) fn keep(&mut self, node: NodeId, order: &Order) {
        let Some(cell) = self.cell_mut(order.instance) else { return };
        if let Some(proposal) = cell.at_mut(order.ballot) {
            proposal.stable.add(node);
            cell.excused.remove(node);
        }
    }

    /// An acceptor's true vote covers the instance.
    pub(super) fn vote(
        &mut self,
        verdict: &mut Verdict,
        node: NodeId,
        instance: Instance,
        ballot: Ballot,
    ) {
        let History { cells, governing, lives, .. } = self;
        let cell = usize::try_from(instance.0).ok().and_then(|index| cells.get_mut(index));
        let Some(cell) = cell else { return };
        let Some(proposal) = cell.at_mut(ballot) else { return };
        proposal.voted.add(node);
        let entry = proposal.entry;
        let voted = |node: NodeId, life| {
            let now = proposal.voted.has(node) && lives[usize::from(node.0)] == life;
            now || proposal.past.contains(&(node, life))
        };
        let members = governing.at(instance);
        let after = match entry {
            Entry::Membership(change) => members.after(&change),
            _ => None,
        };
        if !members.is_quorum(voted) || after.is_some_and(|after| !after.is_quorum(voted)) {
            return;
        }
        if let Some((first, at)) = cell.chosen {
            return verdict.check(A4, node, first == entry, || {
                format!("{instance:?}: {first:?} at {at:?} and {entry:?} at {ballot:?}")
            });
        }
        cell.chosen = Some((entry, ballot));
        if let Entry::Membership(change) = entry {
            governing.chosen(instance, &change);
        }
        let Some(cell) = self.cells.get(instance.0 as usize) else { return };
        let other = cell.proposals().find(|p| p.ballot > ballot && p.entry != entry);
        if let Some(other) = other {
            verdict.fail(A5, node, || format!("{instance:?}: {entry:?} chosen below {other:?}"));
        }
        while self.chosen(self.chosen_to).is_some() {
            self.chosen_to = self.chosen_to.next();
        }
    }

    /// The node has nothing from `from` on, not on its disk either; `lied` if it is not to blame.
    pub(super) fn lose(&mut self, node: NodeId, from: Instance, lied: bool) {
        let first = self.cells.len().min(from.0 as usize);
        for cell in &mut self.cells[first..] {
            for proposal in cell.proposals_mut() {
                proposal.held.remove(node);
                proposal.stable.remove(node);
            }
            if lied {
                cell.excused.add(node);
            }
        }
    }

    /// The order may not be on the node's stable media.
    pub(super) fn doubt(&mut self, node: NodeId, order: &Order) {
        let Some(cell) = self.cell_mut(order.instance) else { return };
        cell.excused.add(node);
        if let Some(proposal) = cell.at_mut(order.ballot) {
            proposal.stable.remove(node);
        }
    }

    /// What the node held from `from` on is what its disk holds; `lost` if that is gone too.
    pub(super) fn stop(&mut self, node: NodeId, from: Instance, lost: bool) {
        let first = if lost { 0 } else { self.cells.len().min(from.0 as usize) };
        for cell in &mut self.cells[first..] {
            let mut newest = None;
            for proposal in cell.proposals_mut() {
                if lost {
                    proposal.stable.remove(node);
                }
                if proposal.stable.has(node) {
                    newest = newest.max(Some(proposal.ballot));
                }
                proposal.held.remove(node);
            }
            if let Some(ballot) = newest {
                cell.hold(node, ballot);
            }
        }
    }
}
