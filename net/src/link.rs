//! One link: a connected socket, the operations on it, and how it ends.
//!
//! ```text
//! Down ── attach ──▶ Up ── failure, detach ──▶ Closing ── last operation done ──▶ Down
//! ```
//! Invariant: a descriptor is closed only when no operation of it is in flight, so a completion
//! never meets another connection, nor the kernel memory that was given on.

use chainring_ring::header::FrameError;
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The four links of a shard to its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LinkKind {
    /// Values from the predecessor.
    DataIn = 0,
    /// Values to the successor.
    DataOut = 1,
    /// Orders and votes from the predecessor.
    ControlIn = 2,
    /// Orders and votes to the successor.
    ControlOut = 3,
}

impl LinkKind {
    /// All of them, by code.
    pub const ALL: [LinkKind; 4] =
        [LinkKind::DataIn, LinkKind::DataOut, LinkKind::ControlIn, LinkKind::ControlOut];
}

/// Why a link went down.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer closed the connection: it stopped, or took another one.
    #[error("the peer closed the connection")]
    Closed,
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
    /// The peer sent something that is no frame of this cluster.
    #[error("bad frame: {0}; see what else connects to the peer port")]
    Frame(#[source] FrameError),
    /// A good frame of a kind that has no business on this link.
    #[error("a frame of kind {code} does not belong on this link: the peer runs other code")]
    Kind {
        /// The kind's code.
        code: u8,
    },
}

impl From<FrameError> for LinkError {
    fn from(error: FrameError) -> LinkError {
        LinkError::Frame(error)
    }
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

/// State common to all links.
#[derive(Debug, Default)]
pub(crate) struct Link {
    fd: Option<OwnedFd>,
    closing: bool,
    ops: u8,
    /// Why it went down, until the shard is told.
    reason: Option<LinkError>,
}

impl Link {
    /// Takes a socket.
    ///
    /// # Panics
    /// If the link is not down.
    pub(crate) fn open(&mut self, fd: OwnedFd) {
        assert!(self.fd.is_none() && self.ops == 0);
        *self = Link { fd: Some(fd), ..Link::default() };
    }

    /// The socket, if the link is up.
    pub(crate) fn up(&self) -> Option<RawFd> {
        self.fd.as_ref().filter(|_| !self.closing).map(AsRawFd::as_raw_fd)
    }

    /// Whether nothing is attached, and nothing in flight any more.
    pub(crate) fn down(&self) -> bool {
        self.fd.is_none()
    }

    /// An operation was started.
    pub(crate) fn started(&mut self) {
        self.ops += 1;
    }

    /// An operation is done.
    pub(crate) fn done(&mut self) {
        self.ops = self.ops.checked_sub(1).expect("no more completions than operations");
        self.settle();
    }

    /// Begins to close; the first reason counts.
    pub(crate) fn fail(&mut self, reason: LinkError) {
        if self.up().is_some() {
            self.reason = Some(reason);
            self.close();
        }
    }

    /// Begins to close for what the peer said: a better reason than its having closed since.
    pub(crate) fn blame(&mut self, reason: LinkError) {
        self.reason = Some(reason);
        self.close();
    }

    /// Begins to close at the owner's wish: no reason is told.
    pub(crate) fn close(&mut self) {
        let Some(fd) = &self.fd else { return };
        self.closing = true;
        // Ends the operations in flight. It fails only if the peer was faster; that ends them too.
        let _ = shutdown(fd, Shutdown::Both);
        self.settle();
    }

    /// Forgets to tell why it went down.
    pub(crate) fn hush(&mut self) {
        self.reason = None;
    }

    /// The reason, once, when all is over.
    pub(crate) fn take_reason(&mut self) -> Option<LinkError> {
        if self.down() { self.reason.take() } else { None }
    }

    /// Whether a reason waits to be told.
    pub(crate) fn has_reason(&self) -> bool {
        self.down() && self.reason.is_some()
    }

    fn settle(&mut self) {
        if self.closing && self.ops == 0 {
            self.fd = None;
        }
    }
}

/// What a result of a receive or send means for the link: bytes, or the end.
pub(crate) fn outcome(result: i32) -> Result<u32, LinkError> {
    match result {
        0 => Err(LinkError::Closed),
        1.. => Ok(result as u32),
        _ if result == -libc::EPIPE || result == -libc::ECONNRESET => Err(LinkError::Closed),
        _ => Err(LinkError::Io(io::Error::from_raw_os_error(-result))),
    }
}

/// Whether a failed operation is simply to be started again.
pub(crate) fn again(result: i32) -> bool {
    [libc::EAGAIN, libc::EINTR, libc::ENOBUFS].contains(&-result)
}
