//! The observer: a ghost that watches a simulated cluster and names what must never happen.
//!
//! It is told facts - what a core did, what lies on stable media, what leaves a node, what clients
//! asked and got - and judges them from its own memory of the whole history; what a node says of
//! itself is judged, never believed. Invariants: it takes shared references and gives nothing back,
//! so that a run with it and one without are the same run; it never panics on what a broken node
//! does; the first violation stands and ends the watch.

//!
//! | file | what it watches |
//! |---|---|
//! | `history.rs` | what was proposed, accepted, chosen |
//! | `members.rs` | who votes where |
//! | `values.rs` | packets, and which occurrence of a value counts |
//! | `node.rs`, `lives.rs` | what a node must still know when it comes back; stable media |
//! | `steps.rs` | every step of a core |
//! | `frames.rs` | every frame as it leaves |
//! | `delivery.rs`, `clients.rs` | what comes out, and what clients are told |
//! | `finish.rs` | the end of a run |

mod clients;
mod delivery;
mod finish;
mod frames;
mod history;
mod invariant;
mod lives;
mod members;
mod node;
mod producers;
mod steps;
mod values;
mod verdict;

pub use clients::{Answer, OpId, record_hash};
pub use finish::FinalNode;
pub use invariant::{Invariant, Violation};
pub use node::Written;

use chainring_ring::ids::{Durability, Instance, NODES_MAX, NodeId};

/// What the observer is told once.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The nodes, ascending; none, and nothing is watched.
    pub nodes: Vec<NodeId>,
    /// When they vote.
    pub durability: Durability,
    /// Instances that a node's window holds.
    pub window: u64,
    /// No fault will be injected: L4 is watched, until the circle changes.
    pub fault_free: bool,
    /// Nothing goes wrong but slow disks, one at a time: L5 is watched.
    pub drag: bool,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// From one moment to the next. What was not on stable media is gone.
    Crash,
    /// By itself, with everything on stable media and the clean-stop mark set.
    Clean,
    /// By itself, because something failed; as a crash otherwise.
    Failure,
    /// The disk is gone, or no superblock can be read from it.
    DiskLost,
}

/// The observer.
pub struct Observer {
    setup: Setup,
    verdict: verdict::Verdict,
    history: history::History,
    values: values::Values,
    /// By node id.
    nodes: [node::Node; NODES_MAX + 1],
    /// What is delivered, by instance.
    log: Vec<steps::Delivered>,
    topics: delivery::Topics,
    /// Everything below may be let go, as was delivered.
    trimmed: Instance,
    clients: clients::Clients,
    /// Ballots that may still be opened, once the faults are over.
    ballots_left: Option<u32>,
    /// Whose disk is slow, or was last.
    dragged: NodeId,
}

impl Observer {
    /// An observer of a cluster that has not begun.
    pub fn new(setup: Setup) -> Observer {
        Observer {
            verdict: verdict::Verdict::default(),
            history: history::History::new(&setup.nodes, setup.window),
            values: values::Values::default(),
            nodes: Default::default(),
            log: Vec::new(),
            topics: delivery::Topics::default(),
            trimmed: Instance(0),
            clients: clients::Clients::default(),
            ballots_left: None,
            dragged: NodeId(0),
            setup,
        }
    }

    /// The first violation.
    pub fn violation(&self) -> Option<&Violation> {
        self.verdict.violation.as_ref()
    }

    /// Simulated time.
    #[inline]
    pub fn now(&mut self, us: u64) {
        self.verdict.now_us = us;
    }
}

#[cfg(test)]
mod tests;
