//! Both halves of a handshake over a connection: Hello, then Welcome or Refusal.
//!
//! Invariant: each side takes exactly one frame of [`HELLO_BYTES`] from the socket, so that the
//! first byte behind it is left for whoever gets the connection.

use crate::peers::net::{Net, Stream};
use crate::peers::stream::{StreamError, read, write};
use chainring_net::hello::{
    HELLO_BYTES, Hello, HelloError, Identity, Message, Purpose, Refusal, Resume, Welcome, check,
    check_welcome,
};
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
    /// The peer refused, and says why, from where it stands.
    #[error("refused; it says: {text}")]
    Refused {
        /// What kind of reason.
        code: u8,
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
    pub refusal: Refusal,
}

/// Code of a refusal for what only the circle of nodes can know; see [`HelloError::code`].
pub const OUT_OF_PLACE: u8 = 254;

impl Refused {
    /// A node that differs, or an older life of it.
    pub fn differs(hello: &Hello, error: &HelloError) -> Refused {
        let (node, purpose) = (hello.identity.node, hello.purpose);
        Refused { node, purpose, refusal: error.into() }
    }

    /// Right in itself, but from the wrong place.
    pub fn place(hello: &Hello, text: String) -> Refused {
        let refusal = Refusal { code: OUT_OF_PLACE, text };
        Refused { node: hello.identity.node, purpose: hello.purpose, refusal }
    }
}

/// Reads one frame of the handshake. Garbage is told by its header alone, before more is read;
/// a frame of another format version is read whole, for it has the same size in every version.
async fn take(stream: &impl Stream) -> Result<[u8; HELLO_BYTES], StreamError> {
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
    stream: &impl Stream,
    ours: &Identity,
) -> Result<Result<Hello, Refused>, StreamError> {
    let frame = take(stream).await?;
    match Message::decode(&frame) {
        Ok(Message::Hello(hello)) => match check(ours, &hello.identity, hello.to) {
            Ok(()) => Ok(Ok(hello)),
            Err(error) => Ok(Err(Refused::differs(&hello, &error))),
        },
        Ok(Message::Welcome(_) | Message::Refusal(_)) => {
            Err(StreamError::Unexpected { code: frame[54] })
        }
        Err(HelloError::Frame(error)) => Err(error.into()),
        // Another release: what the frame says besides may mean other things there.
        Err(error) => {
            let (node, purpose) = (NodeId(0), Purpose::Peer);
            Ok(Err(Refused { node, purpose, refusal: (&error).into() }))
        }
    }
}

/// Accepts a hello.
///
/// # Errors
/// [`StreamError`].
pub async fn welcome<N: Net>(
    net: &N,
    stream: &N::Stream,
    ours: &Identity,
    to: NodeId,
    resume: Resume,
) -> Result<(), StreamError> {
    let welcome = Message::Welcome(Welcome { identity: *ours, to, resume });
    write(net, stream, &welcome.encode(ours)).await
}

/// Refuses a hello.
///
/// # Errors
/// [`StreamError`].
pub async fn refuse<N: Net>(
    net: &N,
    stream: &N::Stream,
    ours: &Identity,
    refusal: Refusal,
) -> Result<(), StreamError> {
    write(net, stream, &Message::Refusal(refusal).encode(ours)).await
}

/// Says hello and waits for the answer.
///
/// # Errors
/// [`DialError`].
pub async fn call<N: Net>(
    net: &N,
    stream: &N::Stream,
    hello: &Hello,
) -> Result<Welcome, DialError> {
    write(net, stream, &Message::Hello(*hello).encode(&hello.identity)).await?;
    let frame = take(stream).await?;
    match Message::decode(&frame) {
        Ok(Message::Welcome(welcome)) => {
            check_welcome(hello, &welcome)?;
            Ok(welcome)
        }
        Ok(Message::Refusal(refusal)) => {
            Err(DialError::Refused { code: refusal.code, text: printable(&refusal.text) })
        }
        Ok(Message::Hello(_)) => Err(StreamError::Unexpected { code: frame[54] }.into()),
        Err(HelloError::Frame(error)) => Err(StreamError::from(error).into()),
        Err(error) => Err(error.into()),
    }
}

/// A stranger's text is shown to people: it must not steer their terminals.
fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}
