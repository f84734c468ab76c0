//! A shard's whole input and output (skeleton).
use crate::link::{LinkError, LinkKind, Refused};
use crate::mailbox::Waker;
use crate::pool::{Arena, Range, Regions};
use crate::uring::{UringError, UringOptions};
use chainring_ring::header::Header;
use chainring_ring::ids::{ClusterId, Epoch};
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

/// What a wire needs to know.
#[derive(Clone, Copy, Debug)]
pub struct WireOptions {
    /// Frames of another cluster close the link.
    pub cluster: ClusterId,
    /// Frames of another epoch close the link.
    pub epoch: Epoch,
    /// Sizes on data links are multiples of it, bytes.
    pub block: u32,
    /// Largest frame on a data link, bytes; at most a quarter of the receive buffer.
    pub packet_max: u32,
    /// Largest frame on a control link, bytes; at most half the control buffers.
    pub control_max: u32,
    /// How long to spin (with yields) before blocking.
    pub spin: Duration,
    /// Knobs of the uring.
    pub uring: UringOptions,
}
/// How long [`Wire::poll`] may wait when nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Spins, then blocks, at most so long.
    UpTo(Duration),
}
/// What happened. Drain with [`Wire::next_event`] after each [`Wire::poll`].
#[derive(Debug)]
pub enum Event {
    /// A whole, verified frame (Value or Declare) in the receive buffer. It stays until
    /// [`Wire::release_received`] passes `position`.
    Packet {
        /// Its header.
        header: Header,
        /// Where it lies; `range.bytes` is `header.size`.
        range: Range,
        /// Position of its first byte in the stream of received bytes; the next packet's is
        /// `position + size`, over reconnects too.
        position: u64,
    },
    /// A whole, verified frame of the control link; valid until the next poll.
    Control {
        /// Its header.
        header: Header,
        /// Where it lies.
        range: Range,
    },
    /// A link is gone; what came before it was handed out before this (in-links).
    LinkDown {
        /// Which.
        kind: LinkKind,
        /// Why.
        reason: LinkError,
    },
    /// The kernel is done with a forwarded range. In order of [`Wire::forward`].
    Forwarded {
        /// As given.
        token: u64,
        /// True if it went out whole; false if the link broke first.
        sent: bool,
    },
    /// A write is done.
    Written {
        /// As given.
        token: u64,
        /// Bytes written (shorter than asked for is a failure), or the kernel's error number.
        result: Result<u32, i32>,
    },
    /// Somebody called [`Waker::wake`]: look into the mailboxes.
    Woken,
}
/// What the wire has counted since start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Calls into the kernel.
    pub enters: u64,
    /// Those that brought completions.
    pub enters_useful: u64,
    /// Sends of the data link.
    pub sends: u64,
    /// Bytes sent on the data link.
    pub bytes_sent: u64,
    /// Ranges sent whole on the data link.
    pub packets_sent: u64,
    /// Bytes received on the data link.
    pub bytes_received: u64,
    /// Frames received on the data link.
    pub packets_received: u64,
    /// Bytes sent on the control link.
    pub control_bytes_sent: u64,
    /// Frames received on the control link.
    pub control_received: u64,
    /// Writes submitted.
    pub writes: u64,
    /// Frames that closed a link.
    pub bad_frames: u64,
}
/// Most forwards queued, sent-but-unreported ones included.
pub const FORWARDS_MAX: usize = 4096;
/// Most writes in flight, done-but-unreported ones included.
pub const WRITES_MAX: usize = 16;
/// The shard's I/O.
pub struct Wire {
    _arena: Arena,
}
impl Wire {
    /// Must be called on the shard's thread. `waker` wakes this wire.
    ///
    /// # Errors
    /// [`UringError`].
    pub fn new(_options: WireOptions, _arena: Arena, _waker: Waker) -> Result<Wire, UringError> {
        todo!()
    }
    /// Takes over a connected socket; replaces an old one of the kind.
    pub fn attach(&mut self, _kind: LinkKind, _fd: OwnedFd) {
        todo!()
    }
    /// Closes a link; returns when the kernel no longer touches its memory. No LinkDown follows.
    pub fn detach(&mut self, _kind: LinkKind) {
        todo!()
    }
    /// Whether the link is attached and not down.
    pub fn attached(&self, _kind: LinkKind) -> bool {
        todo!()
    }
    /// Submits all that is queued, takes in what the kernel has done, waits if allowed.
    pub fn poll(&mut self, _wait: Wait) {
        todo!()
    }
    /// The next thing that happened since the last poll.
    pub fn next_event(&mut self) -> Option<Event> {
        todo!()
    }
    /// Gives received bytes below `position` back to the link.
    pub fn release_received(&mut self, _position: u64) {
        todo!()
    }
    /// Bytes of the receive buffer handed out and not released.
    pub fn received_held(&self) -> u32 {
        todo!()
    }
    /// Queues a range for the data link.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn forward(&mut self, _range: Range, _token: u64) -> Result<(), Refused> {
        todo!()
    }
    /// Lets `fill` append whole frames to the control buffer being filled: it gets the free rest
    /// and returns how much it used (0 for: does not fit).
    ///
    /// # Errors
    /// [`Refused`]; `Full` too if `fill` used nothing.
    pub fn control(&mut self, _fill: impl FnOnce(&mut [u8]) -> usize) -> Result<(), Refused> {
        todo!()
    }
    /// Writes the ranges one after another to `fd` at `offset`; `dsync`: on stable media when done.
    ///
    /// # Errors
    /// [`Refused::Full`].
    pub fn write(
        &mut self,
        _token: u64,
        _fd: RawFd,
        _ranges: &[Range],
        _offset: u64,
        _dsync: bool,
    ) -> Result<(), Refused> {
        todo!()
    }
    /// Bytes of a range (received and not released, own, side, blocks, control frame at hand).
    pub fn bytes(&self, _range: Range) -> &[u8] {
        todo!()
    }
    /// Bytes of a range of own, side or blocks.
    pub fn bytes_mut(&mut self, _range: Range) -> &mut [u8] {
        todo!()
    }
    /// Copies a range (of receive, own, side) to one of own, side or blocks of the same size.
    pub fn copy(&mut self, _from: Range, _to: Range) {
        todo!()
    }
    /// Where the regions lie.
    pub fn regions(&self) -> &Regions {
        todo!()
    }
    /// Counters since start.
    pub fn counters(&self) -> Counters {
        todo!()
    }
}
