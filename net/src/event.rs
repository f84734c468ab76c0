//! What a wire is told and what it tells: options, events, counters.

use crate::link::{LinkError, LinkKind};
use crate::pool::Range;
use crate::uring::UringOptions;
use chainring_ring::header::Header;
use chainring_ring::ids::{ClusterId, Epoch};
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
    /// Largest frame on a control link, bytes; at most the buffer it is received into.
    pub control_max: u32,
    /// Forwards queued at most, sent but unreported ones included; in production
    /// [`crate::wire::FORWARDS_MAX`].
    pub forwards: usize,
    /// How long to spin (with yields) before blocking.
    pub spin: Duration,
    /// Knobs of the uring.
    pub uring: UringOptions,
}

/// How long [`crate::wire::Wire::poll`] may wait when nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Spins, then blocks, at most so long.
    UpTo(Duration),
}

/// What happened. Drain with [`crate::wire::Wire::next_event`] after each poll.
#[derive(Debug)]
pub enum Event {
    /// A whole, verified frame (Value or Declare) in the receive buffer. It stays there until
    /// [`crate::wire::Wire::release_received`] passes `position`.
    Packet {
        /// Its header.
        header: Header,
        /// Where it lies; `range.bytes` is `header.size`.
        range: Range,
        /// Position of its first byte in the stream of received bytes. The next packet's is
        /// `position + size`, over reconnects too.
        position: u64,
    },
    /// A whole, verified frame of the control link; its place is valid until the next poll.
    Control {
        /// Its header.
        header: Header,
        /// Where it lies.
        range: Range,
    },
    /// A link is gone, and the kernel done with its memory. It comes last: after the packets that
    /// came in whole, after the forwards that came back.
    LinkDown {
        /// Which.
        kind: LinkKind,
        /// Why.
        reason: LinkError,
    },
    /// The kernel is done with a forwarded range. In the order they were queued.
    Forwarded {
        /// As given.
        token: u64,
        /// True if the socket took it whole; false if the link went down first. (Taken is not
        /// received: after a reconnect the successor's welcome says what it holds.)
        sent: bool,
    },
    /// A write is done.
    Written {
        /// As given.
        token: u64,
        /// Bytes written (fewer than asked for is a failure), or the kernel's error number.
        result: Result<u32, i32>,
    },
    /// Somebody called [`crate::mailbox::Waker::wake`]: look into the mailboxes.
    Woken,
}

/// What a wire has counted since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls into the kernel.
    pub enters: u64,
    /// Those that brought completions.
    pub enters_useful: u64,
    /// Times the thread blocked.
    pub blocks: u64,
    /// Receives of the data link.
    pub receives: u64,
    /// Bytes received on the data link.
    pub bytes_received: u64,
    /// Frames received on the data link.
    pub packets_received: u64,
    /// Sends of the data link.
    pub sends: u64,
    /// Bytes sent on the data link.
    pub bytes_sent: u64,
    /// Ranges sent whole on the data link.
    pub packets_sent: u64,
    /// Frames received on the control link.
    pub control_received: u64,
    /// Sends of the control link.
    pub control_sends: u64,
    /// Bytes sent on the control link.
    pub control_bytes_sent: u64,
    /// Writes submitted.
    pub writes: u64,
    /// Frames that closed a link.
    pub bad_frames: u64,
}
