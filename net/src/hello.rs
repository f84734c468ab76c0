//! The handshake (skeleton).
use chainring_ring::ids::*;
/// Bytes of every handshake frame, in every version.
pub const HELLO_BYTES: usize = 1024;
/// Version of the handshake and of what follows on the links.
pub const PROTOCOL: u16 = 1;
/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Values.
    Data,
    /// Orders and votes.
    Control,
    /// Direct messages and fetch between control threads.
    Peer,
}
/// Who a node is; the same for all its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Cluster.
    pub cluster: ClusterId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Node.
    pub node: NodeId,
    /// Its life as acceptor.
    pub incarnation: Incarnation,
    /// Its life as origin.
    pub session: Session,
    /// Version of the protocol it speaks.
    pub version: u16,
    /// Durability of the cluster.
    pub durability: Durability,
    /// Block, bytes.
    pub block: u32,
    /// Hash of what all configurations must agree on.
    pub config_hash: u128,
}
/// Opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who calls.
    pub identity: Identity,
    /// What for.
    pub purpose: Purpose,
    /// Whom it believes to call.
    pub to: NodeId,
}
/// What the acceptor holds of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Held {
    /// Whose values.
    pub origin: NodeId,
    /// Of which session.
    pub session: Session,
    /// The first sequence that is not held contiguously.
    pub next: Sequence,
}
/// Where the sender goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Data: one entry an origin, `held[..count]`.
    Data {
        /// Entries in use.
        count: u8,
        /// Entries.
        held: [Held; NODES_MAX],
    },
    /// Control: orders of `ballot` are held to `received`.
    Control {
        /// Ballot.
        ballot: Ballot,
        /// Exclusive.
        received: Instance,
    },
    /// Nothing to resume.
    Peer,
}
/// Accepts a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Who accepts.
    pub identity: Identity,
    /// Whom it answers.
    pub to: NodeId,
    /// Where to go on.
    pub resume: Resume,
}
