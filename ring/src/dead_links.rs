//! Links between neighbours that did not carry.
//!
//! Whoever misses its predecessor knows only that nothing comes. If both ends answer the ballot
//! that follows, both are well and the link is to blame: it is not used for a time that doubles
//! each time, for what else they say to each other, in small frames, need not be what it did not
//! carry. Otherwise the node was to blame that does not answer, and its links are as good as ever
//! once it is back. Invariant: what is blamed is not used before its time, whoever is heard
//! meanwhile.

use crate::failover::index;
use crate::ids::{NODES_MAX, NodeId};

/// Ticks for which a link that did not carry is not used, the first time.
const DEAD_TICKS: u64 = 300;
/// Doublings of that, most: whoever is left out for a link that is well again waits no longer.
const TIMES_MAX: u8 = 2;
/// A link that carried for so many times what it was not used for is as good as new.
const FORGET_AFTER: u64 = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Link {
    /// Nothing came over it; who is to blame is not known yet.
    suspected: bool,
    /// The tick from which on it is used again; how often it was blamed.
    until: u64,
    times: u8,
}

/// By sender and receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct DeadLinks {
    links: [[Link; NODES_MAX]; NODES_MAX],
}

impl DeadLinks {
    fn at(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        &mut self.links[index(from)][index(to)]
    }

    /// True if the link may be used at this tick.
    pub(crate) fn carries(&self, from: NodeId, to: NodeId, now: u64) -> bool {
        let link = self.links[index(from)][index(to)];
        !link.suspected && now >= link.until
    }

    /// Nothing came over this link.
    pub(crate) fn suspect(&mut self, from: NodeId, to: NodeId) {
        self.at(from, to).suspected = true;
    }

    /// No ballot follows.
    pub(crate) fn acquit(&mut self, from: NodeId, to: NodeId) {
        self.at(from, to).suspected = false;
    }

    /// A ballot follows: these nodes answered it.
    pub(crate) fn judge(&mut self, answered: impl Fn(NodeId) -> bool, now: u64) {
        let node = |index: usize| NodeId(index as u8 + 1);
        for (from, links) in self.links.iter_mut().enumerate() {
            for (to, link) in links.iter_mut().enumerate().filter(|(_, link)| link.suspected) {
                link.suspected = false;
                if answered(node(from)) && answered(node(to)) {
                    link.blame(now);
                }
            }
        }
    }
}

impl Link {
    fn blame(&mut self, now: u64) {
        let lasted = DEAD_TICKS << self.times.saturating_sub(1);
        if now > self.until + FORGET_AFTER * lasted {
            self.times = 0;
        }
        self.until = now + (DEAD_TICKS << self.times);
        self.times = (self.times + 1).min(TIMES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    /// When the link from A to B is used again, blamed at `now`.
    fn blamed(links: &mut DeadLinks, now: u64) -> u64 {
        links.suspect(A, B);
        assert!(!links.carries(A, B, now) && links.carries(B, A, now));
        links.judge(|_| true, now);
        (now..).find(|now| links.carries(A, B, *now)).unwrap() - now
    }

    #[test]
    fn a_link_between_nodes_that_are_well_waits_longer_each_time() {
        let mut links = DeadLinks::default();
        let mut now = 5;
        for times in [0, 1, 2, 2] {
            let waits = blamed(&mut links, now);
            assert_eq!(waits, DEAD_TICKS << times);
            now += waits + 10;
        }
        // It carried for long since.
        assert_eq!(blamed(&mut links, now + (DEAD_TICKS << 8)), DEAD_TICKS);
    }

    #[test]
    fn a_link_of_a_node_that_is_gone_is_used_when_it_is_back() {
        for gone in [A, B] {
            let mut links = DeadLinks::default();
            links.suspect(A, B);
            links.judge(|node| node != gone, 7);
            assert!(links.carries(A, B, 8));
        }
    }
}
