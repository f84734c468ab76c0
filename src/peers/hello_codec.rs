//! Bytes and checks of the handshake.
//!
//! ```text
//! frame: header (kind Hello, Welcome or Refusal; 1024 bytes in every version), then the body
//!   0 version      2      16 config hash   16     of a Hello:   32 purpose 1
//!   2 durability   1                              of a Welcome: 32 resume  1, 33 count 1,
//!   3 to           1      node, session, cluster                40 24 each: origin 1, zero 7, ...
//!   4 block        4      and epoch are in the    of a Refusal: 32 UTF-8 text to the end
//!   8 incarnation  4      header
//!  12 zero         4
//! ```
//! Invariant: hostile bytes give an error, never a panic.

use chainring_net::hello::{
    HELLO_BYTES, Held, Hello, Identity, PROTOCOL, Purpose, Resume, Welcome,
};
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind, VERSION};
use chainring_ring::header::{u32_at, u64_at, u128_at};
use chainring_ring::ids::{
    Ballot, ClusterId, Durability, Epoch, Incarnation, Instance, NODES_MAX, NodeId, RingId,
    Sequence, Session,
};

const FIXED: usize = 32;
const RESUME_AT: usize = 40;
const HELD_BYTES: usize = 24;
/// Longest text of a refusal, bytes; a longer one is cut.
pub const TEXT_MAX: usize = HELLO_BYTES - HEADER_BYTES - FIXED;

/// Why two nodes do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Not a frame of the handshake.
    #[error("{0}")]
    Frame(FrameError),
    /// Another release.
    #[error("version {theirs}, this node speaks {ours}; run the same release on all nodes")]
    Version {
        /// Of the peer.
        theirs: u16,
        /// Of this node.
        ours: u16,
    },
    /// Another cluster.
    #[error("cluster {:032x}, this node is of cluster {:032x}; correct the addresses", theirs.0, ours.0)]
    Cluster {
        /// Of the peer.
        theirs: ClusterId,
        /// Of this node.
        ours: ClusterId,
    },
    /// Another epoch of the cluster.
    #[error("cluster epoch {}, this node is in epoch {}; start all nodes with the newest", theirs.0, ours.0)]
    Epoch {
        /// Of the peer.
        theirs: Epoch,
        /// Of this node.
        ours: Epoch,
    },
    /// The caller wants another node, or calls itself like this one.
    #[error("meant for node {}, this is node {}; correct the addresses of the nodes", theirs.0, ours.0)]
    Node {
        /// Whom the peer means.
        theirs: NodeId,
        /// This node.
        ours: NodeId,
    },
    /// Another durability.
    #[error("durability {theirs:?}, this node has {ours:?}; it is fixed for the whole cluster")]
    Durability {
        /// Of the peer.
        theirs: Durability,
        /// Of this node.
        ours: Durability,
    },
    /// Another block.
    #[error("block of {theirs} bytes, this node has {ours}; it is fixed for the whole cluster")]
    Block {
        /// Of the peer, bytes.
        theirs: u32,
        /// Of this node, bytes.
        ours: u32,
    },
    /// Another configuration.
    #[error(
        "nodes or limits of the configuration differ (hash {theirs:032x}, here {ours:032x}); \
         give all nodes the same"
    )]
    Config {
        /// Of the peer.
        theirs: u128,
        /// Of this node.
        ours: u128,
    },
    /// A node that has no business to open this connection.
    #[error("{text}; correct the addresses of the nodes")]
    Place {
        /// What is wrong.
        text: String,
    },
}

impl From<FrameError> for HelloError {
    fn from(error: FrameError) -> HelloError {
        match error {
            FrameError::Version { found } => {
                HelloError::Version { theirs: found.into(), ours: VERSION.into() }
            }
            error => HelloError::Frame(error),
        }
    }
}

/// A frame of the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Opens.
    Hello(Hello),
    /// Accepts.
    Welcome(Welcome),
    /// Refuses, with the reason.
    Refusal(String),
}

/// Checks what a peer says of itself; `to` is whom it believes to speak to.
///
/// # Errors
/// The first difference, the one that explains most.
pub fn check(ours: &Identity, theirs: &Identity, to: NodeId) -> Result<(), HelloError> {
    macro_rules! equal {
        ($field:ident, $error:ident) => {
            if theirs.$field != ours.$field {
                return Err(HelloError::$error { theirs: theirs.$field, ours: ours.$field });
            }
        };
    }
    equal!(version, Version);
    equal!(cluster, Cluster);
    equal!(epoch, Epoch);
    if to != ours.node {
        return Err(HelloError::Node { theirs: to, ours: ours.node });
    }
    equal!(durability, Durability);
    equal!(block, Block);
    equal!(config_hash, Config);
    Ok(())
}

fn seal(kind: Kind, identity: &Identity, to: NodeId, rest: &[u8]) -> [u8; HELLO_BYTES] {
    let mut frame = [0; HELLO_BYTES];
    let body = &mut frame[HEADER_BYTES..];
    body[0..2].copy_from_slice(&identity.version.to_le_bytes());
    body[2] = identity.durability as u8;
    body[3] = to.0;
    body[4..8].copy_from_slice(&identity.block.to_le_bytes());
    body[8..12].copy_from_slice(&identity.incarnation.0.to_le_bytes());
    body[16..32].copy_from_slice(&identity.config_hash.to_le_bytes());
    body[FIXED..FIXED + rest.len()].copy_from_slice(rest);
    Header {
        checksum_body: 0,
        cluster: identity.cluster,
        epoch: identity.epoch,
        ring: RingId(0),
        kind,
        size: HELLO_BYTES as u32,
        length: (FIXED + rest.len()) as u32,
        origin: identity.node,
        session: identity.session,
        sequence: Sequence(0),
        ballot: Ballot::ZERO,
        instance: Instance(0),
    }
    .seal(&mut frame);
    frame
}

/// The frame of a hello.
pub fn encode_hello(hello: &Hello) -> [u8; HELLO_BYTES] {
    seal(Kind::Hello, &hello.identity, hello.to, &[hello.purpose as u8])
}

/// The frame of a welcome.
pub fn encode_welcome(welcome: &Welcome) -> [u8; HELLO_BYTES] {
    let mut rest = [0; RESUME_AT - FIXED + NODES_MAX * HELD_BYTES];
    match &welcome.resume {
        Resume::Data { count, held } => {
            (rest[0], rest[1]) = (Purpose::Data as u8, *count);
            for (held, out) in held.iter().zip(rest[8..].chunks_exact_mut(HELD_BYTES)) {
                out[0] = held.origin.0;
                out[8..12].copy_from_slice(&held.session.incarnation.0.to_le_bytes());
                out[12..16].copy_from_slice(&held.session.start.to_le_bytes());
                out[16..24].copy_from_slice(&held.next.0.to_le_bytes());
            }
        }
        Resume::Control { ballot, received } => {
            (rest[0], rest[8]) = (Purpose::Control as u8, ballot.node.0);
            rest[16..20].copy_from_slice(&ballot.round.to_le_bytes());
            rest[20..24].copy_from_slice(&ballot.incarnation.0.to_le_bytes());
            rest[24..32].copy_from_slice(&received.0.to_le_bytes());
        }
        Resume::Peer => rest[0] = Purpose::Peer as u8,
    }
    seal(Kind::Welcome, &welcome.identity, welcome.to, &rest)
}

/// The frame of a refusal; `text` is cut to [`TEXT_MAX`] bytes.
pub fn encode_refusal(ours: &Identity, text: &str) -> [u8; HELLO_BYTES] {
    let end = text.floor_char_boundary(TEXT_MAX);
    seal(Kind::Refusal, ours, NodeId(0), &text.as_bytes()[..end])
}

/// Reads a frame of the handshake.
///
/// # Errors
/// [`HelloError::Version`] for another release's, else [`HelloError::Frame`].
pub fn decode(frame: &[u8; HELLO_BYTES]) -> Result<Message, HelloError> {
    let header = Header::decode(frame, HELLO_BYTES as u32)?;
    let body = header.check_body(frame)?;
    if body.len() < FIXED {
        return Err(FrameError::Body.into());
    }
    let (fixed, rest) = body.split_at(FIXED);
    // A refusal comes from a node that does not fit: only its words count.
    if header.kind == Kind::Refusal {
        return Ok(Message::Refusal(printable(rest)));
    }
    let version = u16::from_le_bytes([fixed[0], fixed[1]]);
    if version != PROTOCOL {
        return Err(HelloError::Version { theirs: version, ours: PROTOCOL });
    }
    let (identity, to) = (identity_at(&header, fixed)?, NodeId(fixed[3]));
    match header.kind {
        Kind::Hello => {
            let purpose = rest.first().copied().and_then(purpose_of).ok_or(FrameError::Body)?;
            Ok(Message::Hello(Hello { identity, purpose, to }))
        }
        Kind::Welcome => Ok(Message::Welcome(Welcome { identity, to, resume: resume_at(rest)? })),
        kind => Err(FrameError::Kind { code: kind as u8 }.into()),
    }
}

/// A stranger's text is shown to people: it must not steer their terminals.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect()
}

fn identity_at(header: &Header, fixed: &[u8]) -> Result<Identity, FrameError> {
    let all = [Durability::Memory, Durability::Async, Durability::Sync];
    let durability = all.into_iter().find(|it| *it as u8 == fixed[2]).ok_or(FrameError::Body)?;
    Ok(Identity {
        cluster: header.cluster,
        epoch: header.epoch,
        node: header.origin,
        incarnation: Incarnation(u32_at(fixed, 8)),
        session: header.session,
        version: u16::from_le_bytes([fixed[0], fixed[1]]),
        durability,
        block: u32_at(fixed, 4),
        config_hash: u128_at(fixed, 16),
    })
}

fn purpose_of(code: u8) -> Option<Purpose> {
    [Purpose::Data, Purpose::Control, Purpose::Peer].into_iter().find(|it| *it as u8 == code)
}

fn resume_at(rest: &[u8]) -> Result<Resume, FrameError> {
    let rest: &[u8; RESUME_AT - FIXED + NODES_MAX * HELD_BYTES] =
        rest.first_chunk().ok_or(FrameError::Body)?;
    match purpose_of(rest[0]).ok_or(FrameError::Body)? {
        Purpose::Data => {
            let count = rest[1];
            if usize::from(count) > NODES_MAX {
                return Err(FrameError::Body);
            }
            let mut held = [Held::default(); NODES_MAX];
            for (held, bytes) in held.iter_mut().zip(rest[8..].chunks_exact(HELD_BYTES)) {
                let incarnation = Incarnation(u32_at(bytes, 8));
                held.origin = NodeId(bytes[0]);
                held.session = Session { incarnation, start: u32_at(bytes, 12) };
                held.next = Sequence(u64_at(bytes, 16));
            }
            Ok(Resume::Data { count, held })
        }
        Purpose::Control => {
            let incarnation = Incarnation(u32_at(rest, 20));
            let ballot = Ballot { round: u32_at(rest, 16), node: NodeId(rest[8]), incarnation };
            Ok(Resume::Control { ballot, received: Instance(u64_at(rest, 24)) })
        }
        Purpose::Peer => Ok(Resume::Peer),
    }
}
