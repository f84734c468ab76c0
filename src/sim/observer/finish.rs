//! The end of a run, and queues: L1, L3, L4, and the final compare.

use super::Observer;
use super::invariant::Invariant::{B3, D6, L1, L3, L4};
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
    /// By topic id, the offset of its next record.
    pub ends: &'a [u64],
}

impl Observer {
    /// How full a queue is.
    pub fn queue(&mut self, node: NodeId, name: &'static str, len: usize, cap: usize) {
        if !self.is_over(node) {
            self.verdict.check(L3, node, len <= cap, || format!("{name}: {len} of {cap}"));
        }
    }

    /// The faults are over.
    pub fn healed(&mut self) {
        self.ballots_left = Some(self.setup.ballots_after_heal);
    }

    /// The end of a run: the nodes that were to become equal. Everything that they hold was
    /// [read](Observer::read) before.
    pub fn finish(&mut self, nodes: &[FinalNode<'_>]) {
        if self.verdict.violation.is_some() {
            return;
        }
        for node in nodes {
            self.finish_node(node, &nodes[0]);
        }
        self.settle_clients();
        if self.setup.fault_free {
            self.crossed_once();
        }
    }

    fn finish_node(&mut self, node: &FinalNode<'_>, first: &FinalNode<'_>) {
        let (end, verdict) = (Instance(self.log.len() as u64), &mut self.verdict);
        let delivered = node.core.delivered();
        let what = || format!("delivered {delivered:?} of {end:?}");
        verdict.check(L1, node.node, delivered == end, what);
        let what = || format!("digest {:032x}, others {:032x}", node.digest.0, first.digest.0);
        verdict.check(D6, node.node, node.digest == first.digest, what);
        let what = || format!("offsets end at {:?}, others {:?}", node.ends, first.ends);
        verdict.check(B3, node.node, node.ends == first.ends, what);
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
