//! The names of things. One newtype each, so that an instance is never taken for a sequence.
//!
//! Positions are exclusive everywhere: `Instance(5)` as a position means "instances 0 to 4".

use crate::configuration::Change;

/// One process on one machine, 1 to [`NODES_MAX`] in this version's clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u8);

/// Most nodes of a ring.
pub const NODES_MAX: usize = 7;

/// One life of a node as acceptor: its memory of promises and votes. 1 at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

/// One life of a node as origin of values. `Session::NONE` is below every real one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    /// Incarnation of the origin when the session began.
    pub incarnation: Incarnation,
    /// Start number: rises at every start and at every close of the own session.
    pub start: u32,
}

impl Session {
    /// No session: below every real one.
    pub const NONE: Session = Session { incarnation: Incarnation(0), start: 0 };
    /// The first session of a node's first life; nothing can have been proposed before it.
    pub const FIRST: Session = Session { incarnation: Incarnation(1), start: 1 };
}

/// Place of a value in its origin's session, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// Names a value packet for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId {
    /// The node that filled the packet.
    pub origin: NodeId,
    /// The origin's session at that time.
    pub session: Session,
    /// The packet's place in that session.
    pub sequence: Sequence,
}

/// Position of an entry in a ring's log, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u64);

impl Instance {
    /// The instance after this one.
    #[must_use]
    pub fn next(self) -> Instance {
        Instance(self.0 + 1)
    }
}

/// A ballot: totally ordered, owned by one coordinator for one layout of the ring.
///
/// The incarnation keeps a coordinator that lost its memory from using a ballot twice
/// (Paxos pitfall: one (ballot, instance), two values).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Rises with every campaign. 0 only in [`Ballot::ZERO`].
    pub round: u32,
    /// The owner.
    pub node: NodeId,
    /// The owner's incarnation.
    pub incarnation: Incarnation,
}

impl Ballot {
    /// Below every ballot that anybody opens.
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId(0), incarnation: Incarnation(0) };
}

/// A ring of the cluster; 0 is the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingId(pub u16);

/// Identity of a cluster, drawn when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

/// Epoch of a cluster: a higher one is a new log under the same cluster id. 1 at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// What the instance of a log holds: the id of a value, or a small control entry.
///
/// Later kinds (skip) take further codes; an unknown code is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// Nothing; fills a hole that Phase 1 found.
    Noop,
    /// Nothing; ends the range that this ballot inherited. A later ballot that inherits it
    /// proposes it again as it is: the ballot says that it ends nothing there.
    Barrier(Ballot),
    /// The value of this id, if it is the next of its origin; otherwise nothing.
    Value(ValueId),
    /// Every later occurrence of a value of this origin from a session lower than `below` is
    /// nothing, and what was never delivered of them is freed.
    Close {
        /// Whose sessions are closed.
        origin: NodeId,
        /// The lowest session that stays open.
        below: Session,
    },
    /// Everything below may be let go: a quorum holds, durably, the state that it came to.
    Trim(Instance),
    /// Another configuration, if it follows the one before; otherwise nothing.
    Membership(Change),
}

/// What a coordinator says: at `ballot`, `instance` holds `entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order {
    /// Where.
    pub instance: Instance,
    /// Under which ballot it was accepted here.
    pub ballot: Ballot,
    /// First instance of that ballot: votes at it count from here.
    pub base: Instance,
    /// What.
    pub entry: Entry,
    /// True if the entry was already known to be decided when it was written: it came by
    /// catch-up. Recovery may deliver it whatever its ballot.
    pub decided: bool,
}

/// "At `ballot`, everything below `position` is decided."
///
/// It authorises only local entries accepted at that ballot or later, or marked as decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The ballot at whose quorum the position was seen.
    pub ballot: Ballot,
    /// Exclusive.
    pub position: Instance,
}

/// How much must be true of an entry before a node votes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Vote when in memory; nothing is written but the superblock.
    Memory,
    /// Vote when in memory, written behind within a bound.
    Async,
    /// Vote after stable media.
    Sync,
}
