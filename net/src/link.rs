//! One link: a connection, the operations on it, and how it ends.
//!
//! ```text
//! Down ── attach ──▶ Up ── failure, detach ──▶ Closing ── last operation done ──▶ Down
//! ```
//! Invariant: a connection is closed only when no operation of it is in flight, so a completion
//! never meets another one, nor the kernel memory that was given on.

use crate::kernel::Kernel;
use chainring_ring::header::FrameError;
use chainring_ring::mark;
use std::io;

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
#[derive(Debug)]
pub(crate) struct Link<H> {
    handle: Option<H>,
    closing: bool,
    ops: u8,
    /// Why it went down, until the shard is told.
    reason: Option<LinkError>,
}

impl<H> Default for Link<H> {
    fn default() -> Link<H> {
        Link { handle: None, closing: false, ops: 0, reason: None }
    }
}

impl<H> Link<H> {
    /// Takes a connection.
    ///
    /// # Panics
    /// If the link is not down.
    pub(crate) fn open(&mut self, handle: H) {
        assert!(self.handle.is_none() && self.ops == 0);
        *self = Link { handle: Some(handle), ..Link::default() };
    }

    /// The connection, if the link is up.
    pub(crate) fn up(&self) -> Option<&H> {
        self.handle.as_ref().filter(|_| !self.closing)
    }

    /// Whether nothing is attached, and nothing in flight any more.
    pub(crate) fn down(&self) -> bool {
        self.handle.is_none()
    }

    /// An operation is started on this connection.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn start(&mut self) -> &H {
        self.ops += 1;
        self.handle.as_ref().expect("operations are started on open links")
    }

    /// An operation is done.
    pub(crate) fn done(&mut self) {
        self.ops = self.ops.checked_sub(1).expect("no more completions than operations");
        self.settle();
    }

    /// Begins to close; the first reason counts.
    pub(crate) fn fail(&mut self, kernel: &mut impl Kernel<Handle = H>, reason: LinkError) {
        if self.up().is_some() {
            match reason {
                LinkError::Closed => mark!(LinkClosedByPeer),
                _ => mark!(LinkFailed),
            }
            self.reason = Some(reason);
            self.close(kernel);
        }
    }

    /// Begins to close for what the peer said: a better reason than its having closed since.
    pub(crate) fn blame(&mut self, kernel: &mut impl Kernel<Handle = H>, reason: LinkError) {
        match reason {
            LinkError::Frame(FrameError::HeaderChecksum) => mark!(FrameHeaderDamaged),
            LinkError::Frame(FrameError::BodyChecksum) => mark!(FrameBodyDamaged),
            _ => {}
        }
        self.reason = Some(reason);
        self.close(kernel);
    }

    /// Begins to close at the owner's wish: no reason is told.
    pub(crate) fn close(&mut self, kernel: &mut impl Kernel<Handle = H>) {
        let Some(handle) = &self.handle else { return };
        self.closing = true;
        kernel.shutdown(handle);
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
            self.handle = None;
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
