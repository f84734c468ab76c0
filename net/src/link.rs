//! What links say (skeleton).
use chainring_ring::header::FrameError;
/// The four links of a shard to its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Values from the predecessor.
    DataIn,
    /// Values to the successor.
    DataOut,
    /// Orders and votes from the predecessor.
    ControlIn,
    /// Orders and votes to the successor.
    ControlOut,
}
/// Why a link went down.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[source] std::io::Error),
    /// The peer sent something that is no frame of ours.
    #[error("bad frame: {0}")]
    Frame(#[source] FrameError),
    /// A good frame of a kind that has no business on this link.
    #[error("a frame of kind {code} does not belong on this link")]
    Kind {
        /// The kind's code.
        code: u8,
    },
}
/// Why something could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No room now; try again after the next events.
    #[error("no room now")]
    Full,
    /// There is no such link now.
    #[error("the link is down")]
    Down,
}
