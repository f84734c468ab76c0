//! The observer: a ghost that watches a simulated cluster and names what must never happen.
//!
//! It is told facts - what a core did, what lies on stable media, what leaves a node, what clients
//! asked and got - and judges them from its own memory of the whole history; what a node says of
//! itself is judged, never believed. Invariants: it takes shared references and gives nothing back,
//! so that a run with it and one without are the same run; it never panics on what a broken node
//! does; the first violation stands and ends the watch.

mod invariant;

pub use invariant::{Invariant, Violation};

use crate::mail::{Notice, TopicId};
use crate::records::Digest;
use chainring_ring::actions::{Action, Input};
use chainring_ring::core::Core;
use chainring_ring::header::Header;
use chainring_ring::ids::{Durability, Instance, NodeId, Order, ValueId};
use chainring_storage::Superblock;

/// What the observer is told once.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The nodes, ascending.
    pub nodes: Vec<NodeId>,
    /// When they vote.
    pub durability: Durability,
    /// Instances that a node's window holds.
    pub window: u64,
    /// No fault will be injected: L4 is watched.
    pub fault_free: bool,
    /// Ballots that may be opened once the faults are over.
    pub ballots_after_heal: u32,
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

/// A client's request, numbered from 0 by the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All its records are in the log: offsets of the first and the last.
    Appended(u64, u64),
    /// None of its records will ever be in the log.
    Refused,
    /// Nobody knows.
    Unknown,
}

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

/// Hash of a record as clients and readers see it.
pub fn record_hash(record: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(record)
}

/// The observer.
pub struct Observer {
    setup: Setup,
    now_us: u64,
    violation: Option<Violation>,
}

impl Observer {
    /// An observer of a cluster that has not begun.
    pub fn new(setup: Setup) -> Observer {
        Observer { setup, now_us: 0, violation: None }
    }

    /// The first violation.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Simulated time.
    pub fn now(&mut self, us: u64) {
        self.now_us = us;
    }

    /// A new life begins: after recovery, before the first step. `superblock` as it is on stable
    /// media; `next_group` is the number of the first group that this life will write
    /// (`LogWriter::durable() + 1`; anything in memory durability).
    pub fn started(&mut self, node: NodeId, core: &Core, superblock: &Superblock, next_group: u64) {
        let _ = (node, core, superblock, next_group, &self.setup);
    }

    /// A life is over.
    pub fn stopped(&mut self, node: NodeId, how: Stopped) {
        let _ = (node, how);
    }

    /// The node's disk lost, beyond detection, what it had reported as stable: it is not blamed.
    pub fn disk_lied(&mut self, node: NodeId) {
        let _ = node;
    }

    /// A step of the core: what went in, what came out, and the core behind it.
    pub fn stepped(&mut self, node: NodeId, core: &Core, input: &Input<'_>, actions: &[Action]) {
        let _ = (node, core, input, actions);
    }

    /// A commit group or seal is on stable media now, in any order of numbers.
    pub fn wrote_group(&mut self, node: NodeId, number: u64, orders: &[Order], values: &[ValueId]) {
        let _ = (node, number, orders, values);
    }

    /// Three copies of this superblock are on stable media.
    pub fn wrote_superblock(&mut self, node: NodeId, superblock: &Superblock) {
        let _ = (node, superblock);
    }

    /// A write or sync of the node returned an error, in the turn (or just before it) in which the
    /// node learns of it.
    pub fn io_failed(&mut self, node: NodeId) {
        let _ = node;
    }

    /// A control frame (orders, or votes and claim) leaves.
    pub fn control_frame(&mut self, from: NodeId, header: &Header, body: &[u8]) {
        let _ = (from, header, body);
    }

    /// A direct frame (1A, 1B, reject) leaves.
    pub fn direct_frame(&mut self, from: NodeId, to: NodeId, frame: &[u8]) {
        let _ = (from, to, frame);
    }

    /// A value frame leaves on the data link.
    pub fn value_frame(&mut self, from: NodeId, header: &Header) {
        let _ = (from, header);
    }

    /// The control thread takes a notice, in the order of the mailbox. Notices that say nothing
    /// of what was delivered are ignored.
    pub fn notice(&mut self, node: NodeId, notice: &Notice) {
        let _ = (node, notice);
    }

    /// A node's digest at a position that it has delivered.
    pub fn digest(&mut self, node: NodeId, delivered: Instance, digest: Digest) {
        let _ = (node, delivered, digest);
    }

    /// A client sends records. No two records of a run are equal.
    pub fn invoked(&mut self, op: OpId, node: NodeId, topic: TopicId, records: &[u128]) {
        let _ = (op, node, topic, records);
    }

    /// A client gets its answer, after the notices of what it speaks of.
    pub fn answered(&mut self, op: OpId, answer: Answer) {
        let _ = (op, answer);
    }

    /// A node served a record to a reader.
    pub fn read(&mut self, node: NodeId, topic: TopicId, offset: u64, record: &[u8]) {
        let _ = (node, topic, offset, record);
    }

    /// How full a queue is.
    pub fn queue(&mut self, node: NodeId, name: &'static str, len: usize, cap: usize) {
        let _ = (node, name, len, cap);
    }

    /// The faults are over.
    pub fn healed(&mut self) {}

    /// The end of a run: the nodes that were to become equal. Everything that they hold was
    /// [read](Observer::read) before.
    pub fn finish(&mut self, nodes: &[FinalNode<'_>]) {
        let _ = nodes;
    }
}
