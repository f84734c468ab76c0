//! Both halves of a handshake over a connection: Hello, then Welcome or Refusal.
//!
//! Invariant: each side takes exactly one frame of [`HELLO_BYTES`] from the socket, so that the
//! first byte behind it is left for whoever gets the connection.

use crate::peers::hello_codec::{
    HelloError, Message, check, decode, encode_hello, encode_refusal, encode_welcome,
};
use crate::peers::stream::{Stream, StreamError, read, write};
use chainring_net::hello::{HELLO_BYTES, Hello, Identity, Purpose, Resume, Welcome};
use chainring_ring::header::{FrameError, HEADER_BYTES, Header};
use chainring_ring::ids::NodeId;
use std::io;

/// Why a connection to a peer did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answers at the address.
    #[error("cannot connect to {address}: {source}; is the node running?")]
    Unreachable {
        /// As configured.
        address: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The peer took the connection and said nothing in time.
    #[error("the peer did not answer the handshake in time")]
    Silent,
    /// The connection ended in the handshake.
    #[error("handshake: {0}")]
    Stream(#[from] StreamError),
    /// The peer refused, and says why.
    #[error("refused: {text}")]
    Refused {
        /// The peer's words.
        text: String,
    },
    /// The peer accepted, but is not whom we want.
    #[error("the peer does not fit: {0}")]
    Differs(#[from] HelloError),
}

impl DialError {
    /// True if the peer sent something that is no frame of ours.
    pub fn is_bad_frame(&self) -> bool {
        matches!(self, DialError::Stream(error) if error.is_bad_frame())
    }
}

/// A hello that is refused.
#[derive(Debug)]
pub struct Refused {
    /// Who it says it is; 0 if that cannot be told.
    pub node: NodeId,
    /// What it wanted.
    pub purpose: Purpose,
    /// Why not.
    error: HelloError,
}

impl Refused {
    /// Right in itself, but from the wrong place.
    pub fn place(hello: &Hello, text: String) -> Refused {
        let error = HelloError::Place { text };
        Refused { node: hello.identity.node, purpose: hello.purpose, error }
    }

    /// Why.
    pub fn text(&self) -> String {
        self.error.to_string()
    }
}

/// Reads one frame of the handshake. Garbage is told by its header alone, before more is read;
/// a frame of another format version is read whole, for it has the same size in every version.
async fn take(stream: &Stream) -> Result<[u8; HELLO_BYTES], StreamError> {
    let mut frame = [0; HELLO_BYTES];
    read(stream, &mut frame[..HEADER_BYTES]).await?;
    match Header::decode(&frame[..HEADER_BYTES], HELLO_BYTES as u32) {
        Ok(header) if header.size as usize != HELLO_BYTES => {
            let limit = HELLO_BYTES as u32;
            return Err(FrameError::Size { size: header.size, limit }.into());
        }
        Ok(_) | Err(FrameError::Version { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    read(stream, &mut frame[HEADER_BYTES..]).await?;
    Ok(frame)
}

/// Reads a hello; the inner error is to be answered with [`refuse`].
///
/// # Errors
/// [`StreamError`] if there is nobody to answer.
pub async fn take_hello(
    stream: &Stream,
    ours: &Identity,
) -> Result<Result<Hello, Refused>, StreamError> {
    let frame = take(stream).await?;
    let refused = |node, purpose, error| Ok(Err(Refused { node, purpose, error }));
    match decode(&frame) {
        Ok(Message::Hello(hello)) => match check(ours, &hello.identity, hello.to) {
            Ok(()) => Ok(Ok(hello)),
            Err(error) => refused(hello.identity.node, hello.purpose, error),
        },
        Ok(Message::Welcome(_) | Message::Refusal(_)) => {
            Err(StreamError::Unexpected { code: frame[54] })
        }
        Err(HelloError::Frame(error)) => Err(error.into()),
        Err(error) => refused(NodeId(0), Purpose::Peer, error),
    }
}

/// Accepts a hello.
///
/// # Errors
/// [`StreamError`].
pub async fn welcome(
    stream: &Stream,
    ours: &Identity,
    to: NodeId,
    resume: Resume,
) -> Result<(), StreamError> {
    write(stream, &encode_welcome(&Welcome { identity: *ours, to, resume })).await
}

/// Refuses a hello.
///
/// # Errors
/// [`StreamError`].
pub async fn refuse(
    stream: &Stream,
    ours: &Identity,
    refused: &Refused,
) -> Result<(), StreamError> {
    write(stream, &encode_refusal(ours, &refused.text())).await
}

/// Says hello and waits for the answer.
///
/// # Errors
/// [`DialError`].
pub async fn call(stream: &Stream, hello: &Hello) -> Result<Resume, DialError> {
    // Small frames of the handshake and of the mesh must not wait for each other.
    stream.get_ref().set_nodelay(true).map_err(StreamError::from)?;
    write(stream, &encode_hello(hello)).await?;
    let frame = take(stream).await?;
    let welcome = match decode(&frame) {
        Ok(Message::Welcome(welcome)) => welcome,
        Ok(Message::Refusal(text)) => return Err(DialError::Refused { text }),
        Ok(Message::Hello(_)) => return Err(StreamError::Unexpected { code: frame[54] }.into()),
        Err(HelloError::Frame(error)) => return Err(StreamError::from(error).into()),
        Err(error) => return Err(error.into()),
    };
    check(&hello.identity, &welcome.identity, welcome.to)?;
    if welcome.identity.node != hello.to {
        let text =
            format!("node {} answers where node {} should", welcome.identity.node.0, hello.to.0);
        return Err(HelloError::Place { text }.into());
    }
    let fits = matches!(
        (hello.purpose, &welcome.resume),
        (Purpose::Data, Resume::Data { .. })
            | (Purpose::Control, Resume::Control { .. })
            | (Purpose::Peer, Resume::Peer)
    );
    if !fits {
        return Err(StreamError::from(FrameError::Body).into());
    }
    Ok(welcome.resume)
}
