//! The layout of a ballot: which nodes its circle has, and in which order.
//!
//! The coordinator is first, then hop by hop; behind the last one the circle closes. Invariants: no
//! node twice; a layout that a ballot opens with has a quorum of voters. It says who sends to whom
//! and nothing about who decides: votes are counted over the configuration.

use crate::ids::{NODES_MAX, NodeId};

/// Nodes in the order of the circle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Layout {
    nodes: [NodeId; NODES_MAX],
    count: u8,
}

/// Bits of a node in an encoded layout.
const NODE_BITS: u32 = 4;

impl Layout {
    /// These nodes, in this order; what is there already, or has no room, is left out.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Layout {
        let mut layout = Layout::default();
        nodes.into_iter().for_each(|node| layout.push(node));
        layout
    }

    /// Adds a node at the tail.
    pub fn push(&mut self, node: NodeId) {
        if !self.contains(node) && usize::from(self.count) < NODES_MAX {
            self.nodes[usize::from(self.count)] = node;
            self.count += 1;
        }
    }

    /// The nodes, the coordinator first.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes[..usize::from(self.count)]
    }

    /// True if the node is in the circle.
    pub fn contains(&self, node: NodeId) -> bool {
        self.place(node).is_some()
    }

    /// How many hops behind the coordinator a node is.
    pub fn place(&self, node: NodeId) -> Option<usize> {
        self.nodes().iter().position(|known| *known == node)
    }

    /// The node that this one sends to; `None` if it is alone, or not in the circle.
    pub fn successor(&self, node: NodeId) -> Option<NodeId> {
        self.neighbour(node, 1)
    }

    /// The node that sends to this one; `None` if it is alone, or not in the circle.
    pub fn predecessor(&self, node: NodeId) -> Option<NodeId> {
        self.neighbour(node, usize::from(self.count).wrapping_sub(1))
    }

    fn neighbour(&self, node: NodeId, hops: usize) -> Option<NodeId> {
        let other = self.nodes()[(self.place(node)? + hops) % usize::from(self.count)];
        (other != node).then_some(other)
    }

    /// The same circle, told from `node` on, if that is in it.
    #[must_use]
    pub fn from(&self, node: NodeId) -> Layout {
        let start = self.place(node).unwrap_or(0);
        let nodes = self.nodes().iter().cycle().skip(start).take(usize::from(self.count));
        Layout::new(nodes.copied())
    }

    /// In 28 bits, the first node in the lowest.
    pub fn encode(&self) -> u32 {
        let bits =
            |(index, node): (usize, &NodeId)| u32::from(node.0) << (index as u32 * NODE_BITS);
        self.nodes().iter().enumerate().map(bits).sum()
    }

    /// From its bits; `None` if they are no layout: a node that cannot be, or twice, or a gap.
    pub fn decode(bits: u32) -> Option<Layout> {
        let node = |index: u32| NodeId((bits >> (index * NODE_BITS) & 0xf) as u8);
        let nodes = (0..NODES_MAX as u32).map(node);
        let layout = Layout::new(nodes.take_while(|node| (1..=NODES_MAX as u8).contains(&node.0)));
        (layout.encode() == bits).then_some(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(nodes: &[u8]) -> Layout {
        Layout::new(nodes.iter().map(|node| NodeId(*node)))
    }

    #[test]
    fn a_circle_closes() {
        let circle = layout(&[3, 1, 5]);
        assert_eq!(circle.successor(NodeId(5)), Some(NodeId(3)));
        assert_eq!(circle.predecessor(NodeId(3)), Some(NodeId(5)));
        assert_eq!(circle.predecessor(NodeId(1)), Some(NodeId(3)));
        assert_eq!((circle.successor(NodeId(2)), circle.place(NodeId(5))), (None, Some(2)));
        assert_eq!(circle.from(NodeId(1)), layout(&[1, 5, 3]));
        let alone = layout(&[4]);
        assert_eq!((alone.successor(NodeId(4)), alone.predecessor(NodeId(4))), (None, None));
        assert_eq!(Layout::default().predecessor(NodeId(4)), None);
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        for nodes in [&[][..], &[7], &[2, 1], &[1, 2, 3, 4, 5, 6, 7], &[7, 6, 5, 4, 3, 2, 1]] {
            let circle = layout(nodes);
            assert_eq!(Layout::decode(circle.encode()), Some(circle));
        }
        for bits in [0x11, 0x8, 0x201, 0x1000_0321, 0xf, 0x121] {
            assert_eq!(Layout::decode(bits), None, "{bits:#x}");
        }
    }
}
