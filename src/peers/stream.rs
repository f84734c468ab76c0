//! Frames over a connection between control threads.
//!
//! Invariants: nothing is allocated before a header was verified and its size found to be within
//! the limit that the caller states; nothing behind the frame is taken from the socket; whoever
//! sends half a frame or reads nothing is given up after [`FRAME_TIME`].

use crate::peers::frames::Envelope;
use crate::peers::net::{Net, Stream};
use chainring_ring::header::{FrameError, HEADER_BYTES, Header};
use std::io::{self, ErrorKind};
use std::time::Duration;

/// Longest time for the rest of a frame whose header is there, and for a write.
pub const FRAME_TIME: Duration = Duration::from_secs(10);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
    /// Bytes that are no frame of ours.
    #[error("bad frame: {0}")]
    Frame(#[from] FrameError),
    /// A good frame that has no business here.
    #[error("a frame of kind {code} was not expected here")]
    Unexpected {
        /// The kind's code.
        code: u8,
    },
    /// The peer took too long.
    #[error("the peer did not go on for {} s", FRAME_TIME.as_secs())]
    Slow,
    /// A newer connection of the same peer took its place.
    #[error("a newer connection of the same peer took its place")]
    Superseded,
}

impl StreamError {
    /// True if the peer sent something that it should not have.
    pub fn is_bad_frame(&self) -> bool {
        matches!(self, StreamError::Frame(_) | StreamError::Unexpected { .. })
    }
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> StreamError {
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                StreamError::Closed
            }
            _ => StreamError::Io(error),
        }
    }
}

/// Fills `bytes` and takes nothing more from the socket.
///
/// # Errors
/// [`StreamError::Closed`] if the peer closes before, [`StreamError::Io`].
pub async fn read(stream: &impl Stream, mut bytes: &mut [u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        match stream.read(bytes).await? {
            0 => return Err(StreamError::Closed),
            count => bytes = &mut bytes[count..],
        }
    }
    Ok(())
}

/// Writes all `bytes`.
///
/// # Errors
/// [`StreamError::Slow`] if the peer does not take them, [`StreamError::Closed`],
/// [`StreamError::Io`].
pub async fn write<N: Net>(net: &N, stream: &N::Stream, bytes: &[u8]) -> Result<(), StreamError> {
    let write_all = async {
        let mut left = bytes;
        while !left.is_empty() {
            match stream.write(left).await? {
                0 => return Err(io::Error::from(ErrorKind::WriteZero)),
                count => left = &left[count..],
            }
        }
        Ok(())
    };
    let written = net.within(FRAME_TIME, write_all).await;
    Ok(written.ok_or(StreamError::Slow)??)
}

/// Waits for a frame of at most `limit` bytes and returns it, verified.
///
/// # Errors
/// Everything that [`StreamError`] names.
pub async fn read_frame<N: Net>(
    net: &N,
    stream: &N::Stream,
    envelope: &Envelope,
    limit: u32,
) -> Result<(Header, Vec<u8>), StreamError> {
    let mut head = [0; HEADER_BYTES];
    read(stream, &mut head).await?;
    let header = Header::decode(&head, limit)?;
    header.check_cluster(envelope.cluster, envelope.epoch)?;
    let mut frame = vec![0; header.size as usize];
    frame[..HEADER_BYTES].copy_from_slice(&head);
    let rest = net.within(FRAME_TIME, read(stream, &mut frame[HEADER_BYTES..])).await;
    rest.ok_or(StreamError::Slow)??;
    header.check_body(&frame)?;
    Ok((header, frame))
}

/// Closes a connection so that what was written last still arrives: with bytes unread, closing at
/// once would reset the connection and could take the last frame with it.
pub async fn close_gently<N: Net>(net: &N, stream: &N::Stream) {
    const PATIENCE: Duration = Duration::from_millis(500);
    const UNREAD_MAX: usize = 64;
    stream.finish();
    let drain = async {
        let mut bytes = [0; 1024];
        for _ in 0..UNREAD_MAX {
            if !matches!(stream.read(&mut bytes).await, Ok(count) if count > 0) {
                break;
            }
        }
    };
    net.within(PATIENCE, drain).await;
}
