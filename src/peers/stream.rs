//! Frames over a connection between control threads.
//!
//! Invariants: nothing is allocated before a header was verified and its size found to be within
//! the limit that the caller states; nothing behind the frame is taken from the socket; whoever
//! sends half a frame or reads nothing is given up after [`FRAME_TIME`].

use crate::peers::frames::Envelope;
use crate::peers::wait::within;
use async_io::Async;
use chainring_ring::header::{FrameError, HEADER_BYTES, Header};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Duration;

/// A connection on the control thread.
pub type Stream = Async<TcpStream>;

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
pub async fn read(mut stream: &Stream, bytes: &mut [u8]) -> Result<(), StreamError> {
    Ok(stream.read_exact(bytes).await?)
}

/// Writes all `bytes`.
///
/// # Errors
/// [`StreamError::Slow`] if the peer does not take them, [`StreamError::Closed`],
/// [`StreamError::Io`].
pub async fn write(mut stream: &Stream, bytes: &[u8]) -> Result<(), StreamError> {
    let written = within(FRAME_TIME, stream.write_all(bytes)).await;
    Ok(written.ok_or(StreamError::Slow)??)
}

/// Waits for a frame of at most `limit` bytes and returns it, verified.
///
/// # Errors
/// Everything that [`StreamError`] names.
pub async fn read_frame(
    stream: &Stream,
    envelope: &Envelope,
    limit: u32,
) -> Result<(Header, Vec<u8>), StreamError> {
    let mut head = [0; HEADER_BYTES];
    read(stream, &mut head).await?;
    let header = Header::decode(&head, limit)?;
    header.check_cluster(envelope.cluster, envelope.epoch)?;
    let mut frame = vec![0; header.size as usize];
    frame[..HEADER_BYTES].copy_from_slice(&head);
    let rest = within(FRAME_TIME, read(stream, &mut frame[HEADER_BYTES..])).await;
    rest.ok_or(StreamError::Slow)??;
    header.check_body(&frame)?;
    Ok((header, frame))
}

/// Closes a connection so that what was written last still arrives: with bytes unread, closing at
/// once would reset the connection and could take the last frame with it.
pub async fn close_gently(stream: &Stream) {
    const PATIENCE: Duration = Duration::from_millis(500);
    const UNREAD_MAX: usize = 64;
    let _ = stream.get_ref().shutdown(std::net::Shutdown::Write);
    let drain = async {
        let mut reader = stream;
        let mut bytes = [0; 1024];
        for _ in 0..UNREAD_MAX {
            if !matches!(reader.read(&mut bytes).await, Ok(count) if count > 0) {
                break;
            }
        }
    };
    within(PATIENCE, drain).await;
}
