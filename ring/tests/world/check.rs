//! What must never happen, judged from outside the core.
//!
//! Everything a node appends, publishes or delivers passes through here. Panics name the fault.

use super::node::Node;
use chainring_ring::ids::{
    Ballot, Durability, Entry, Instance, NodeId, Order, Sequence, Session, ValueId,
};
use std::collections::{BTreeMap, BTreeSet};

/// The judge.
#[derive(Default)]
pub struct Check {
    /// What was proposed, by instance and ballot.
    proposed: BTreeMap<(Instance, Ballot), Entry>,
    /// What was delivered somewhere, by instance: entry and whether it counts.
    pub chosen: Vec<(Entry, bool)>,
    /// By (origin, session), the next sequence that may count.
    next: BTreeMap<(NodeId, Session), Sequence>,
    /// Own values that their origin has delivered.
    acknowledged: BTreeSet<ValueId>,
}

impl Check {
    pub fn appended(&mut self, order: &Order) {
        let key = (order.instance, order.ballot);
        let first = *self.proposed.entry(key).or_insert(order.entry);
        assert_eq!(first, order.entry, "two entries at one instance and ballot: {order:?}");
    }

    pub fn delivered(&mut self, node: &Node, order: &Order, counts: bool) {
        let index = order.instance.0 as usize;
        assert_eq!(node.log.len(), index, "node {:?} delivers out of order", node.id);
        assert!(index <= self.chosen.len());
        if index == self.chosen.len() {
            self.chosen.push((order.entry, counts));
            if let (Entry::Value(id), true) = (order.entry, counts) {
                let next = self.next.entry((id.origin, id.session)).or_default();
                assert_eq!(*next, id.sequence, "value doubled, lost or moved: {id:?}");
                *next = next.next();
            }
        }
        let chosen = self.chosen[index];
        assert_eq!(chosen, (order.entry, counts), "node {:?} at {index}: two decisions", node.id);
        if let (Entry::Value(id), true) = (order.entry, counts)
            && id.origin == node.id
        {
            self.acknowledged.insert(id);
        }
    }

    /// True if the origin of this own value has delivered it.
    pub fn is_done(&self, id: &ValueId) -> bool {
        self.acknowledged.contains(id)
    }

    /// What a restarted node delivered from its log alone is the prefix of what was chosen.
    pub fn recovered(&mut self, node: &Node) {
        for (index, (order, counts)) in node.log.iter().enumerate() {
            let chosen = self.chosen.get(index);
            let found = (order.entry, *counts);
            assert_eq!(chosen, Some(&found), "node {:?} recovered otherwise at {index}", node.id);
        }
    }

    /// A vote that leaves speaks the truth: promise, orders and values are durable.
    pub fn published(&self, node: &Node) {
        let core = node.core();
        let Some(vote) = core.votes().of(node.id) else { return };
        if core.settings().durability != Durability::Sync || node.disk.damaged.is_some() {
            return;
        }
        assert!(vote.ballot <= node.disk.promised.max(highest_order(node)), "volatile promise");
        let delivered = core.delivered();
        for instance in delivered.0..vote.durable.0 {
            let Some(slot) = core.window().get(Instance(instance)) else { continue };
            let below = slot.order.base > Instance(instance) || slot.order.ballot > vote.ballot;
            if below || slot.order.ballot != vote.ballot {
                continue;
            }
            let ballots = node.durable_orders.get(&Instance(instance));
            let durable = ballots.is_some_and(|ballots| ballots.contains(&vote.ballot));
            assert!(durable, "node {:?} votes for a volatile order at {instance}", node.id);
            if let Entry::Value(id) = slot.order.entry
                && !core.table().is_past(&id)
            {
                assert!(node.durable_values.contains(&id), "votes for a volatile {id:?}");
            }
        }
    }

    /// Nothing that was acknowledged is missing at the end.
    pub fn finished(&self, log: &[(Order, bool)]) {
        let counts = |entry: &(Order, bool)| match entry {
            (Order { entry: Entry::Value(id), .. }, true) => Some(*id),
            _ => None,
        };
        let held: BTreeSet<ValueId> = log.iter().filter_map(counts).collect();
        for id in &self.acknowledged {
            assert!(held.contains(id), "acknowledged and lost: {id:?}");
        }
    }
}

fn highest_order(node: &Node) -> Ballot {
    let ballots = node.durable_orders.values().filter_map(|ballots| ballots.last());
    ballots.max().copied().unwrap_or_default()
}
