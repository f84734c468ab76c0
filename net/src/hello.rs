//! The handshake: who calls whom, whether they may talk, and where the sender goes on. Pure.
//!
//! The caller sends a hello; the acceptor answers with a welcome, or with a refusal and closes.
//! All three are frames of exactly [`HELLO_BYTES`], in every version, so that a peer of another
//! release is told apart from garbage. Cluster, epoch, node (origin) and session stand in the
//! header; the body, little-endian, reserved bytes zero:
//!
//! ```text
//!   0 protocol       2      welcome, data: 7 times 24 bytes from 32      welcome, control: 32
//!   2 purpose        1        0 origin       1                             0 round        4
//!   3 durability     1        1 reserved     7                             4 incarnation  4
//!   4 block          4        8 incarnation  4                             8 node         1
//!   8 to             1       12 start        4                             9 reserved     7
//!   9 count, code    1       16 next         8                            16 received     8
//!  10 text length    2
//!  12 incarnation    4      refusal: code in 9, text of the length in 10, from 32
//!  16 config hash   16
//! ```
//! A code that this release does not know is an error, never a guess.

pub use crate::refusal::{HelloError, Refusal};
use chainring_ring::codec::check_positions;
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind, u32_at, u64_at, u128_at};
use chainring_ring::ids::{
    Ballot, ClusterId, Durability, Epoch, Incarnation, Instance, NODES_MAX, NodeId, RingId,
    Sequence, Session,
};

/// Bytes of every handshake frame, in every version.
pub const HELLO_BYTES: usize = 1024;
/// Version of the handshake and of what follows on the links.
pub const PROTOCOL: u16 = 1;
const RESUME: usize = 32;
const HELD_BYTES: usize = 24;
/// Most bytes of a refusal's text.
pub const TEXT_BYTES_MAX: usize = 512;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Values.
    Data = 1,
    /// Orders and votes.
    Control = 2,
    /// Direct messages and fetch between control threads.
    Peer = 3,
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
    /// Version of the protocol it speaks: [`PROTOCOL`] for this code.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Data: one entry an origin, `held[..count]`; the others are default.
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

impl Resume {
    /// Data: from what is held, at most [`NODES_MAX`] origins.
    ///
    /// # Panics
    /// If there are more.
    pub fn data(entries: &[Held]) -> Resume {
        let mut held = [Held::default(); NODES_MAX];
        held[..entries.len()].copy_from_slice(entries);
        Resume::Data { count: entries.len() as u8, held }
    }

    /// What kind of connection it resumes.
    pub fn purpose(&self) -> Purpose {
        match self {
            Resume::Data { .. } => Purpose::Data,
            Resume::Control { .. } => Purpose::Control,
            Resume::Peer => Purpose::Peer,
        }
    }
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

/// Any frame of the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Opens.
    Hello(Hello),
    /// Accepts.
    Welcome(Welcome),
    /// Refuses.
    Refusal(Refusal),
}

/// Refuses an identity that we must not talk to. `ours` is who we are, `to` whom they mean.
///
/// # Errors
/// [`HelloError`], naming the first field that differs, both values and the remedy.
pub fn check(ours: &Identity, theirs: &Identity, to: NodeId) -> Result<(), HelloError> {
    if theirs.version != ours.version {
        return Err(HelloError::Protocol { ours: ours.version, theirs: theirs.version });
    }
    if theirs.cluster != ours.cluster {
        return Err(HelloError::Cluster { ours: ours.cluster, theirs: theirs.cluster });
    }
    if theirs.epoch != ours.epoch {
        return Err(HelloError::Epoch { ours: ours.epoch, theirs: theirs.epoch });
    }
    if to != ours.node {
        return Err(HelloError::To { ours: ours.node, meant: to });
    }
    let possible = 1..=NODES_MAX as u8;
    if !possible.contains(&theirs.node.0) || theirs.node == ours.node {
        return Err(HelloError::Node { ours: ours.node, theirs: theirs.node });
    }
    if theirs.durability != ours.durability {
        return Err(HelloError::Durability { ours: ours.durability, theirs: theirs.durability });
    }
    if theirs.block != ours.block {
        return Err(HelloError::Block { ours: ours.block, theirs: theirs.block });
    }
    if theirs.config_hash != ours.config_hash {
        return Err(HelloError::Config { ours: ours.config_hash, theirs: theirs.config_hash });
    }
    if theirs.incarnation < Incarnation(1) || theirs.session < Session::FIRST {
        return Err(HelloError::Life { incarnation: theirs.incarnation, session: theirs.session });
    }
    Ok(())
}

/// Refuses a life of a node that is older than the one already `known` of it.
///
/// # Errors
/// [`HelloError::Stale`].
pub fn check_life(
    known: (Incarnation, Session),
    theirs: (Incarnation, Session),
) -> Result<(), HelloError> {
    if theirs.0 < known.0 || theirs.1 < known.1 {
        return Err(HelloError::Stale { known, theirs });
    }
    Ok(())
}

/// Whether a welcome answers our hello: [`check`], the node that was called, the same purpose.
///
/// # Errors
/// [`HelloError`].
pub fn check_welcome(hello: &Hello, welcome: &Welcome) -> Result<(), HelloError> {
    check(&hello.identity, &welcome.identity, welcome.to)?;
    if welcome.identity.node != hello.to {
        return Err(HelloError::Answer { called: hello.to, answered: welcome.identity.node });
    }
    if welcome.resume.purpose() != hello.purpose {
        return Err(HelloError::Frame(FrameError::Body));
    }
    Ok(())
}

impl Message {
    /// The frame, made by `by`: that is the identity inside for a hello and a welcome.
    pub fn encode(&self, by: &Identity) -> [u8; HELLO_BYTES] {
        let mut frame = [0; HELLO_BYTES];
        let body = &mut frame[HEADER_BYTES..];
        let kind = match self {
            Message::Hello(hello) => {
                put_identity(&hello.identity, hello.purpose, hello.to, body);
                Kind::Hello
            }
            Message::Welcome(welcome) => {
                put_identity(&welcome.identity, welcome.resume.purpose(), welcome.to, body);
                put_resume(&welcome.resume, body);
                Kind::Welcome
            }
            Message::Refusal(refusal) => {
                let text = refusal.text_bytes();
                body[9] = refusal.code;
                body[10..12].copy_from_slice(&(text.len() as u16).to_le_bytes());
                body[RESUME..RESUME + text.len()].copy_from_slice(text);
                Kind::Refusal
            }
        };
        let header = Header {
            checksum_body: 0,
            cluster: by.cluster,
            epoch: by.epoch,
            ring: RingId(0),
            kind,
            size: HELLO_BYTES as u32,
            length: (HELLO_BYTES - HEADER_BYTES) as u32,
            origin: by.node,
            session: by.session,
            sequence: Sequence(0),
            ballot: Ballot::ZERO,
            instance: Instance(0),
        };
        header.seal(&mut frame);
        frame
    }

    /// Reads a frame. A peer of another release comes out as [`HelloError::Format`].
    ///
    /// # Errors
    /// [`HelloError::Format`] or [`HelloError::Frame`]; whether the two may talk is for [`check`].
    pub fn decode(frame: &[u8; HELLO_BYTES]) -> Result<Message, HelloError> {
        let header = Header::decode(frame, HELLO_BYTES as u32)?;
        if header.size as usize != HELLO_BYTES {
            return Err(FrameError::Size { size: header.size, limit: HELLO_BYTES as u32 }.into());
        }
        let body = header.check_body(frame)?;
        if body.len() < HELLO_BYTES - HEADER_BYTES {
            return Err(FrameError::Body.into());
        }
        match header.kind {
            Kind::Hello => {
                let (identity, purpose, to) = identity_at(&header, body)?;
                Ok(Message::Hello(Hello { identity, purpose, to }))
            }
            Kind::Welcome => {
                let (identity, purpose, to) = identity_at(&header, body)?;
                let resume = resume_at(purpose, body)?;
                Ok(Message::Welcome(Welcome { identity, to, resume }))
            }
            Kind::Refusal => {
                let length = usize::from(u16::from_le_bytes([body[10], body[11]]));
                if length > TEXT_BYTES_MAX {
                    return Err(FrameError::Body.into());
                }
                let text = String::from_utf8_lossy(&body[RESUME..RESUME + length]).into_owned();
                Ok(Message::Refusal(Refusal { code: body[9], text }))
            }
            other => Err(FrameError::Kind { code: other as u8 }.into()),
        }
    }
}

fn put_identity(identity: &Identity, purpose: Purpose, to: NodeId, body: &mut [u8]) {
    body[0..2].copy_from_slice(&identity.version.to_le_bytes());
    body[2] = purpose as u8;
    body[3] = match identity.durability {
        Durability::Memory => 1,
        Durability::Async => 2,
        Durability::Sync => 3,
    };
    body[4..8].copy_from_slice(&identity.block.to_le_bytes());
    body[8] = to.0;
    body[12..16].copy_from_slice(&identity.incarnation.0.to_le_bytes());
    body[16..32].copy_from_slice(&identity.config_hash.to_le_bytes());
}

fn identity_at(header: &Header, body: &[u8]) -> Result<(Identity, Purpose, NodeId), HelloError> {
    let version = u16::from_le_bytes([body[0], body[1]]);
    if version != PROTOCOL {
        // What follows may mean other things there.
        return Err(HelloError::Protocol { ours: PROTOCOL, theirs: version });
    }
    let purpose = [Purpose::Data, Purpose::Control, Purpose::Peer]
        .into_iter()
        .find(|purpose| *purpose as u8 == body[2])
        .ok_or(FrameError::Body)?;
    let durability = match body[3] {
        1 => Durability::Memory,
        2 => Durability::Async,
        3 => Durability::Sync,
        _ => return Err(FrameError::Body.into()),
    };
    let identity = Identity {
        cluster: header.cluster,
        epoch: header.epoch,
        node: header.origin,
        incarnation: Incarnation(u32_at(body, 12)),
        session: header.session,
        version,
        durability,
        block: u32_at(body, 4),
        config_hash: u128_at(body, 16),
    };
    Ok((identity, purpose, NodeId(body[8])))
}

fn put_resume(resume: &Resume, body: &mut [u8]) {
    match resume {
        Resume::Data { count, held } => {
            body[9] = *count;
            for (index, entry) in held[..usize::from(*count)].iter().enumerate() {
                let out = &mut body[RESUME + index * HELD_BYTES..][..HELD_BYTES];
                out[0] = entry.origin.0;
                out[8..12].copy_from_slice(&entry.session.incarnation.0.to_le_bytes());
                out[12..16].copy_from_slice(&entry.session.start.to_le_bytes());
                out[16..24].copy_from_slice(&entry.next.0.to_le_bytes());
            }
        }
        Resume::Control { ballot, received } => {
            let out = &mut body[RESUME..RESUME + HELD_BYTES];
            out[0..4].copy_from_slice(&ballot.round.to_le_bytes());
            out[4..8].copy_from_slice(&ballot.incarnation.0.to_le_bytes());
            out[8] = ballot.node.0;
            out[16..24].copy_from_slice(&received.0.to_le_bytes());
        }
        Resume::Peer => {}
    }
}

fn resume_at(purpose: Purpose, body: &[u8]) -> Result<Resume, HelloError> {
    match purpose {
        Purpose::Peer => Ok(Resume::Peer),
        Purpose::Control => {
            let bytes = &body[RESUME..];
            let ballot = Ballot {
                round: u32_at(bytes, 0),
                node: NodeId(bytes[8]),
                incarnation: Incarnation(u32_at(bytes, 4)),
            };
            check_positions(&[u64_at(bytes, 16)])?;
            Ok(Resume::Control { ballot, received: Instance(u64_at(bytes, 16)) })
        }
        Purpose::Data => {
            let mut held = [Held::default(); NODES_MAX];
            let used = held.get_mut(..usize::from(body[9])).ok_or(FrameError::Body)?;
            for (index, entry) in used.iter_mut().enumerate() {
                let bytes = &body[RESUME + index * HELD_BYTES..][..HELD_BYTES];
                if bytes[0] == 0 || usize::from(bytes[0]) > NODES_MAX {
                    return Err(FrameError::Body.into());
                }
                check_positions(&[u64_at(bytes, 16)])?;
                let (incarnation, start) = (Incarnation(u32_at(bytes, 8)), u32_at(bytes, 12));
                *entry = Held {
                    origin: NodeId(bytes[0]),
                    session: Session { incarnation, start },
                    next: Sequence(u64_at(bytes, 16)),
                };
            }
            Ok(Resume::Data { count: body[9], held })
        }
    }
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
