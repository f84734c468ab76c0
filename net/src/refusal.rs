//! Why two nodes do not talk, in words that say what to do, and the frame's share of it.

use crate::hello::TEXT_BYTES_MAX;
use chainring_ring::header::{FrameError, VERSION};
use chainring_ring::ids::{ClusterId, Durability, Epoch, Incarnation, NodeId, Session};

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The frame format is another release's.
    #[error("the peer's frames have format {theirs}, ours {VERSION}; run one release on all nodes")]
    Format {
        /// What the peer writes.
        theirs: u8,
    },
    /// The handshake or what follows is another release's.
    #[error("the peer speaks protocol {theirs}, we {ours}; run one release on all nodes")]
    Protocol {
        /// Ours.
        ours: u16,
        /// The peer's.
        theirs: u16,
    },
    /// Another cluster.
    #[error(
        "the peer belongs to cluster {theirs:032x}, we to {ours:032x}; \
         correct the addresses, or one node has another cluster's directory",
        theirs = theirs.0, ours = ours.0
    )]
    Cluster {
        /// Ours.
        ours: ClusterId,
        /// The peer's.
        theirs: ClusterId,
    },
    /// Another epoch of the same cluster.
    #[error(
        "the peer is in cluster epoch {theirs}, we in {ours}; \
         bring the node of the lower epoch up to date with the configuration of the higher",
        theirs = theirs.0, ours = ours.0
    )]
    Epoch {
        /// Ours.
        ours: Epoch,
        /// The peer's.
        theirs: Epoch,
    },
    /// The peer means another node.
    #[error(
        "the peer calls node {meant}, we are node {ours}; \
         two addresses are exchanged in the peer's configuration",
        meant = meant.0, ours = ours.0
    )]
    To {
        /// Who we are.
        ours: NodeId,
        /// Whom it means.
        meant: NodeId,
    },
    /// The peer says to be us, or a node that cannot be.
    #[error(
        "the peer says it is node {theirs}, we are node {ours}; \
         give every node its own id, 1 to 7, and its own directory",
        theirs = theirs.0, ours = ours.0
    )]
    Node {
        /// Who we are.
        ours: NodeId,
        /// Who it says to be.
        theirs: NodeId,
    },
    /// Another node answered than was called.
    #[error(
        "node {called} was called, node {answered} answered; \
         two addresses are exchanged in our configuration",
        called = called.0, answered = answered.0
    )]
    Answer {
        /// Who was called.
        called: NodeId,
        /// Who answered.
        answered: NodeId,
    },
    /// Another durability.
    #[error(
        "the peer has durability {theirs:?}, we {ours:?}; \
         it is a property of the cluster: make all configurations alike"
    )]
    Durability {
        /// Ours.
        ours: Durability,
        /// The peer's.
        theirs: Durability,
    },
    /// Another block.
    #[error(
        "the peer's block is {theirs} bytes, ours {ours}; it is fixed when a cluster is made: \
         make all configurations alike, or make the cluster anew"
    )]
    Block {
        /// Ours, bytes.
        ours: u32,
        /// The peer's, bytes.
        theirs: u32,
    },
    /// Another configuration.
    #[error(
        "the peer's configuration has hash {theirs:032x}, ours {ours:032x}; \
         make members, limits and windows alike on all nodes"
    )]
    Config {
        /// Ours.
        ours: u128,
        /// The peer's.
        theirs: u128,
    },
    /// Incarnation and session start at 1.
    #[error(
        "the peer says incarnation {incarnation}, session {session:?}, which no node has; \
         its superblock is damaged, or it runs other code",
        incarnation = incarnation.0
    )]
    Life {
        /// Its life as acceptor.
        incarnation: Incarnation,
        /// Its life as origin.
        session: Session,
    },
    /// A life of the node that was over already.
    #[error(
        "the peer is an older life of its node ({theirs:?}) than the one we know ({known:?}); \
         it runs twice, or from a copy of its directory: stop the older one"
    )]
    Stale {
        /// The one we know.
        known: (Incarnation, Session),
        /// The peer's.
        theirs: (Incarnation, Session),
    },
    /// Not a frame of the handshake.
    #[error("not a handshake: {0}; something else talks to the peer port")]
    Frame(FrameError),
}

impl From<FrameError> for HelloError {
    fn from(error: FrameError) -> HelloError {
        match error {
            FrameError::Version { found } => HelloError::Format { theirs: found },
            other => HelloError::Frame(other),
        }
    }
}

impl HelloError {
    /// The reason's code in a refusal. Codes are part of the format.
    pub fn code(&self) -> u8 {
        match self {
            HelloError::Format { .. } => 1,
            HelloError::Protocol { .. } => 2,
            HelloError::Cluster { .. } => 3,
            HelloError::Epoch { .. } => 4,
            HelloError::To { .. } => 5,
            HelloError::Node { .. } => 6,
            HelloError::Answer { .. } => 7,
            HelloError::Durability { .. } => 8,
            HelloError::Block { .. } => 9,
            HelloError::Config { .. } => 10,
            HelloError::Life { .. } => 11,
            HelloError::Stale { .. } => 12,
            HelloError::Frame(_) => 13,
        }
    }
}

/// Refuses a hello: the reason's code and its words, as the refusing node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// [`HelloError::code`], or [`Refusal::NOT_READY`].
    pub code: u8,
    /// At most [`TEXT_BYTES_MAX`] bytes are sent.
    pub text: String,
}

impl Refusal {
    /// Nothing is wrong but the moment: the caller tries again later.
    pub const NOT_READY: u8 = 255;

    /// What is sent of the text: whole characters only.
    pub(crate) fn text_bytes(&self) -> &[u8] {
        let mut end = self.text.len().min(TEXT_BYTES_MAX);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        &self.text.as_bytes()[..end]
    }
}

impl From<&HelloError> for Refusal {
    fn from(error: &HelloError) -> Refusal {
        Refusal { code: error.code(), text: error.to_string() }
    }
}
