//! The end of a run, and queues: L1, L3, L4, and the final compare.

use super::Observer;
use super::invariant::Invariant::{B3, L1, L3, L4};
use crate::gauges::Queue;
use crate::records::Digest;
use chainring_ring::core::Core;
use chainring_ring::ids::{Entry, Instance, NodeId};

/// A node at the end of a run.
#[derive(Clone, Copy, Debug)]
pub struct FinalNode<'a> {
    /// Which.
    pub node: NodeId,
    /// Its core.
    pub core: &'a Core,
    /// Digest of all that it delivered.
    pub digest: Digest,
    /// The instances that its control thread was told of.
    pub told: Instance,
    /// By topic id, the offset of its next record as that knows it.
    pub ends: &'a [u64],
}

impl Observer {
    /// How full a queue is.
    pub fn queue(&mut self, node: NodeId, name: &'static str, len: usize, cap: usize) {
        if !self.is_over(node) {
            self.verdict.check(L3, node, len <= cap, || format!("{name}: {len} of {cap}"));
        }
    }

    /// How full the queues of a node are.
    #[inline]
    pub fn queues(&mut self, node: NodeId, queues: impl Iterator<Item = Queue>) {
        for (name, len, cap) in queues.filter(|(_, len, cap)| len > cap) {
            self.queue(node, name, len, cap);
        }
    }

    /// The faults are over: from now on at most so many ballots are opened.
    pub fn healed(&mut self, ballots: u32) {
        self.ballots_left = Some(ballots);
    }

    /// The end of a run: the nodes that live. Everything that they hold was
    /// [read](Observer::read) before. `whole` if all were to become equal and nothing is lost;
    /// else more went wrong than the ring can bear, and nothing that is there may be false.
    pub fn finish(&mut self, nodes: &[FinalNode<'_>], whole: bool) {
        for node in nodes {
            if self.is_over(node.node) {
                return;
            }
            self.digest(node.node, node.core.delivered(), node.digest);
            self.finish_node(node, whole);
        }
        if whole && self.verdict.violation.is_none() {
            self.settle_clients();
        }
        if whole && self.setup.fault_free {
            self.crossed_once();
        }
    }

    fn finish_node(&mut self, node: &FinalNode<'_>, whole: bool) {
        let (end, verdict) = (Instance(self.log.len() as u64), &mut self.verdict);
        let delivered = node.core.delivered();
        let what = || format!("delivered {delivered:?} of {end:?}");
        verdict.check(L1, node.node, delivered == end || !whole, what);
        // Of the last instance told the runs may be under way.
        let least = Instance(node.told.0 - u64::from(!whole && node.told.0 > 0));
        for (id, topic) in self.topics.topics.iter().enumerate() {
            let (least, most) = (topic.end_at(least), topic.end_at(node.told));
            let end = node.ends.get(id).copied().unwrap_or(0);
            let what = || format!("topic {id} ends at {end}, not {least} to {most}");
            verdict.check(B3, node.node, (least..=most).contains(&end), what);
        }
        let what = || format!("knows {} topics, {}", node.ends.len(), self.topics.topics.len());
        verdict.check(B3, node.node, node.ends.len() <= self.topics.topics.len(), what);
        let counting = &self.nodes[usize::from(node.node.0)].counting;
        counting.judge(verdict, node.node, node.core);
    }

    /// From its origin round the circle, as far as the node before it.
    fn crossed_once(&mut self) {
        let (nodes, verdict) = (&self.setup.nodes, &mut self.verdict);
        for delivered in self.log.iter().filter(|delivered| delivered.counts) {
            let Entry::Value(id) = delivered.entry else { continue };
            let sent = self.values.get(&id).map_or_else(Default::default, |cell| cell.sent);
            let origin = nodes.iter().position(|node| *node == id.origin).unwrap_or_default();
            let last: NodeId = nodes[(origin + nodes.len() - 1) % nodes.len()];
            let right = sent.count() == nodes.len() - 1 && !sent.has(last);
            verdict.check(L4, id.origin, right, || format!("{id:?} crossed {sent:?}"));
        }
    }
}
