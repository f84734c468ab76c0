//! Sets of nodes, and the place where the first violation is kept.
//!
//! Invariant: the first violation stands; what is said of it is put into words only then.

use super::invariant::{Invariant, Violation};
use chainring_ring::ids::{NODES_MAX, NodeId};

/// A set of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Nodes(u8);

impl Nodes {
    pub(super) fn add(&mut self, node: NodeId) {
        self.0 |= bit(node);
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        self.0 &= !bit(node);
    }

    pub(super) fn has(self, node: NodeId) -> bool {
        self.0 & bit(node) != 0
    }

    pub(super) fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

fn bit(node: NodeId) -> u8 {
    1 << (node.0 as usize % (NODES_MAX + 1))
}

/// What was seen first, and the time.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) now_us: u64,
    pub(super) violation: Option<Violation>,
}

impl Verdict {
    /// Something was not true.
    #[cold]
    pub(super) fn fail(
        &mut self,
        invariant: Invariant,
        node: NodeId,
        what: impl FnOnce() -> String,
    ) {
        self.violation.get_or_insert_with(|| Violation {
            invariant,
            at_us: self.now_us,
            node: (node.0 != 0).then_some(node),
            what: what(),
        });
    }

    /// Something has to be true.
    #[inline]
    pub(super) fn check(
        &mut self,
        invariant: Invariant,
        node: NodeId,
        holds: bool,
        what: impl FnOnce() -> String,
    ) {
        if !holds {
            self.fail(invariant, node, what);
        }
    }
}
