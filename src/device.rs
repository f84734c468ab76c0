//! Where the shard meets the machine: a port to the network, a device for the log.
//!
//! The shard is generic over both. [`Host`] is the machine: one kernel for both, in production the
//! uring; a simulator puts its own kernel below, and a [`Probe`] that sees what the core does.
//! Invariants: what the shard gives away (a range to forward, a range to write) stays as it is
//! until the event that gives it back; a write that is reported as done is on stable media; a
//! probe changes nothing.

use crate::records::Digest;
use chainring_net::kernel::Kernel;
use chainring_net::pool::{Range, Regions};
use chainring_net::uring::Uring;
use chainring_net::wire::{Counters, Event, LinkKind, Refused, Wait, Wire};
use chainring_ring::actions::{Action, Input};
use chainring_ring::core::Core;
use chainring_ring::ids::Instance;
use chainring_ring::mutant;
use chainring_storage::{LogError, Superblock, SuperblockFile};
use std::collections::VecDeque;

/// The links to the neighbours and the packet memory behind them.
pub trait Port {
    /// An open connection or file; drop closes it.
    type Handle;
    /// Submits what is queued, takes in what is done, waits if told to.
    fn poll(&mut self, wait: Wait);
    /// What happened, one by one.
    fn next_event(&mut self) -> Option<Event>;
    /// Of that, only writes and forwards that are done: what gives room back.
    fn next_done(&mut self) -> Option<Event>;
    /// Takes over a connection.
    fn attach(&mut self, kind: LinkKind, connection: Self::Handle);
    /// Closes a link; the receive buffer goes on behind the last packet handed out.
    fn detach(&mut self, kind: LinkKind);
    /// Whether the link is up.
    fn attached(&self, kind: LinkKind) -> bool;
    /// Queues a range for the successor.
    ///
    /// # Errors
    /// [`Refused`].
    fn forward(&mut self, range: Range, token: u64) -> Result<(), Refused>;
    /// Lets `fill` append frames for the control link.
    ///
    /// # Errors
    /// [`Refused`].
    fn control(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> Result<(), Refused>;
    /// Bytes of control frames that wait for the send before them.
    fn control_waiting(&self) -> u32;
    /// Gives received bytes below `position` back.
    fn release_received(&mut self, position: u64);
    /// Bytes received and not given back.
    fn received_held(&self) -> u32;
    /// The bytes of a range.
    fn bytes(&self, range: Range) -> &[u8];
    /// The bytes of an own, side or block range, to be written.
    fn bytes_mut(&mut self, range: Range) -> &mut [u8];
    /// Copies a range into an own, side or block range.
    fn copy(&mut self, from: Range, to: Range);
    /// Where the regions lie.
    fn regions(&self) -> Regions;
    /// What was counted.
    fn counters(&self) -> Counters;
}

/// The log's files, written from the port's packet memory.
pub trait Device: Port {
    /// A zero-written segment is there.
    fn add_segment(&mut self, number: u32, file: Self::Handle);
    /// Segments below `number` are not written any more.
    fn drop_segments(&mut self, number: u32);
    /// Writes the ranges one after another, on stable media when [`Event::Written`] says so.
    ///
    /// # Errors
    /// [`Refused::Full`] for now.
    fn write(
        &mut self,
        token: u64,
        segment: u32,
        ranges: &[Range],
        offset: u64,
    ) -> Result<(), Refused>;
    /// Writes the superblock; done when it returns.
    ///
    /// # Errors
    /// [`LogError`]: the log is poisoned.
    fn write_superblock(&mut self, superblock: &Superblock) -> Result<(), LogError>;
}

/// Sees what the core is told and says, and can change nothing. In production nobody looks, and
/// nothing of it is left in the code.
pub trait Probe {
    /// The core took an input and gave these actions, none of which is carried out yet.
    #[inline]
    fn stepped(&mut self, core: &Core, input: &Input<'_>, actions: &[Action]) {
        let _ = (core, input, actions);
    }
    /// Everything below `position` is delivered, and this is its digest.
    #[inline]
    fn delivered(&mut self, position: Instance, digest: Digest) {
        let _ = (position, digest);
    }
    /// The superblock was written: its file says that it is done, or that it failed.
    #[inline]
    fn wrote_superblock(&mut self, superblock: &Superblock, done: bool) {
        let _ = (superblock, done);
    }
}

impl Probe for () {}

/// All that a shard runs on.
pub trait Machine: Port + Device + Probe {}

impl<M: Port + Device + Probe> Machine for M {}

/// The machine: a wire over a kernel, and the log's files.
pub struct Host<K: Kernel = Uring, P: Probe = ()> {
    wire: Wire<K>,
    superblock: SuperblockFile,
    /// Open segments by number, ascending; the writer is at the first.
    segments: VecDeque<(u32, K::Handle)>,
    probe: P,
}

impl<K: Kernel, P: Probe> Host<K, P> {
    /// A machine whose first segments, if it has a log, are `segments`.
    pub fn new(
        wire: Wire<K>,
        superblock: SuperblockFile,
        segments: Vec<(u32, K::Handle)>,
        probe: P,
    ) -> Host<K, P> {
        let mut open = VecDeque::with_capacity(SEGMENTS_OPEN);
        open.extend(segments);
        Host { wire, superblock, segments: open, probe }
    }
}

/// Segments open for writing: the current one and those made ahead.
const SEGMENTS_OPEN: usize = 32;

impl<K: Kernel, P: Probe> Port for Host<K, P> {
    type Handle = K::Handle;

    fn poll(&mut self, wait: Wait) {
        self.wire.poll(wait);
    }
    fn next_event(&mut self) -> Option<Event> {
        self.wire.next_event()
    }
    fn next_done(&mut self) -> Option<Event> {
        self.wire.next_done()
    }
    fn attach(&mut self, kind: LinkKind, connection: K::Handle) {
        self.wire.attach(kind, connection);
    }
    fn detach(&mut self, kind: LinkKind) {
        self.wire.detach(kind);
    }
    fn attached(&self, kind: LinkKind) -> bool {
        self.wire.attached(kind)
    }
    fn forward(&mut self, range: Range, token: u64) -> Result<(), Refused> {
        self.wire.forward(range, token)
    }
    fn control(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> Result<(), Refused> {
        self.wire.control(fill)
    }
    fn control_waiting(&self) -> u32 {
        self.wire.control_waiting()
    }
    fn release_received(&mut self, position: u64) {
        self.wire.release_received(position);
    }
    fn received_held(&self) -> u32 {
        self.wire.received_held()
    }
    fn bytes(&self, range: Range) -> &[u8] {
        self.wire.bytes(range)
    }
    fn bytes_mut(&mut self, range: Range) -> &mut [u8] {
        self.wire.bytes_mut(range)
    }
    fn copy(&mut self, from: Range, to: Range) {
        self.wire.copy(from, to);
    }
    fn regions(&self) -> Regions {
        *self.wire.regions()
    }
    fn counters(&self) -> Counters {
        self.wire.counters()
    }
}

impl<K: Kernel, P: Probe> Device for Host<K, P> {
    fn add_segment(&mut self, number: u32, file: K::Handle) {
        assert!(self.segments.len() < SEGMENTS_OPEN);
        self.segments.push_back((number, file));
    }

    fn drop_segments(&mut self, number: u32) {
        while self.segments.front().is_some_and(|(first, _)| *first < number) {
            self.segments.pop_front();
        }
    }

    fn write(
        &mut self,
        token: u64,
        segment: u32,
        ranges: &[Range],
        offset: u64,
    ) -> Result<(), Refused> {
        let file = self.segments.iter().find(|(number, _)| *number == segment);
        let (_, file) = file.expect("a segment that the writer was told of");
        self.wire.write(token, file, ranges, offset, !mutant!(WriteNotDurable))
    }

    fn write_superblock(&mut self, superblock: &Superblock) -> Result<(), LogError> {
        let written = self.superblock.write(superblock);
        self.probe.wrote_superblock(superblock, written.is_ok());
        written
    }
}

impl<K: Kernel, P: Probe> Probe for Host<K, P> {
    #[inline]
    fn stepped(&mut self, core: &Core, input: &Input<'_>, actions: &[Action]) {
        self.probe.stepped(core, input, actions);
    }
    #[inline]
    fn delivered(&mut self, position: Instance, digest: Digest) {
        self.probe.delivered(position, digest);
    }
}
