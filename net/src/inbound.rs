//! What comes in: the receive buffer of the data link, and the smaller one of the control link.
//!
//! Data, positions counting bytes since start, over reconnects too:
//! ```text
//! released ≤ parsed ≤ received ≤ released + size of the buffer
//! ├ handed out, held ─┤├ not parsed ─┤├ free: the receive in flight goes here ─┤
//! ```
//! A position's place is its remainder by the size; what passes the end lies in the mirror. Frames
//! are multiples of the block, so `parsed` is one always; what is left of a broken link (a half
//! frame) is dropped by setting `received` back to `parsed`.
//!
//! Nothing of a frame is looked at before its checksum matched, and no size is believed beyond
//! the limit, so garbage costs one link and no memory.

use crate::link::LinkError;
use crate::pool::{Arena, Range};
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind};
use chainring_ring::ids::{ClusterId, Epoch, NODES_MAX};
use chainring_ring::mark;

/// Most bytes of one receive.
pub const RECEIVE_MAX: u32 = 1 << 20;

/// What a frame must satisfy.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Cluster that frames must be of.
    pub cluster: ClusterId,
    /// Epoch that they must be of.
    pub epoch: Epoch,
    /// Sizes are multiples of it.
    pub unit: u32,
    /// Largest frame.
    pub limit: u32,
    /// Kinds that belong here.
    pub kinds: [Kind; 2],
}

impl Rules {
    /// The verified frame at the start of `bytes`; None while it is not all there.
    fn frame(&self, bytes: &[u8]) -> Result<Option<Header>, LinkError> {
        if bytes.len() < HEADER_BYTES {
            return Ok(None);
        }
        let header = Header::decode(bytes, self.limit)?;
        header.check_cluster(self.cluster, self.epoch)?;
        if !self.kinds.contains(&header.kind) {
            return Err(LinkError::Kind { code: header.kind as u8 });
        }
        if !header.size.is_multiple_of(self.unit) {
            return Err(FrameError::Size { size: header.size, limit: self.limit }.into());
        }
        if header.origin.0 == 0 || usize::from(header.origin.0) > NODES_MAX {
            return Err(FrameError::Body.into());
        }
        let Some(frame) = bytes.get(..header.size as usize) else { return Ok(None) };
        header.check_body(frame)?;
        Ok(Some(header))
    }
}

/// The receive buffer of the data link.
#[derive(Debug)]
pub struct DataIn {
    rules: Rules,
    buffer: Range,
    released: u64,
    parsed: u64,
    received: u64,
    /// Bytes came since the parser last ran dry.
    fresh: bool,
}

impl DataIn {
    /// An empty one over `buffer`, a power of two.
    ///
    /// # Panics
    /// If it is none.
    pub fn new(rules: Rules, buffer: Range) -> DataIn {
        assert!(buffer.bytes.is_power_of_two());
        DataIn { rules, buffer, released: 0, parsed: 0, received: 0, fresh: false }
    }

    fn range(&self, position: u64, bytes: u32) -> Range {
        let place = (position & u64::from(self.buffer.bytes - 1)) as u32;
        Range { offset: self.buffer.offset + place, bytes }
    }

    /// Where the next receive may go; None while the buffer is full.
    pub fn room(&self) -> Option<Range> {
        let free = self.buffer.bytes - (self.received - self.released) as u32;
        if free == 0 {
            mark!(ReceiveBufferFull);
        }
        (free > 0).then(|| self.range(self.received, free.min(RECEIVE_MAX)))
    }

    /// `bytes` came in at the room's start.
    ///
    /// # Panics
    /// If they are more than there was room for.
    pub fn received(&mut self, bytes: u32) {
        self.received += u64::from(bytes);
        assert!(self.received - self.released <= u64::from(self.buffer.bytes));
        self.fresh = true;
    }

    /// The next whole frame, with its place and position.
    ///
    /// # Errors
    /// What is wrong with the bytes; the link is to be broken.
    pub fn next(&mut self, arena: &Arena) -> Result<Option<(Header, Range, u64)>, LinkError> {
        if !self.fresh {
            return Ok(None);
        }
        let unparsed = self.range(self.parsed, (self.received - self.parsed) as u32);
        match self.rules.frame(arena.bytes(unparsed)) {
            Ok(Some(header)) => {
                let position = self.parsed;
                self.parsed += u64::from(header.size);
                Ok(Some((header, self.range(position, header.size), position)))
            }
            Ok(None) => {
                self.fresh = false;
                Ok(None)
            }
            Err(error) => {
                self.fresh = false;
                Err(error)
            }
        }
    }

    /// Whether bytes came since [`DataIn::next`] last found no frame.
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// Drops what is not parsed; no receive may be in flight.
    pub fn cut(&mut self) {
        if self.received > self.parsed {
            mark!(HalfPacketCut);
        }
        self.received = self.parsed;
        self.fresh = false;
    }

    /// Gives what lies before a position back to the kernel.
    ///
    /// # Panics
    /// If it was given back before, or not handed out.
    pub fn release(&mut self, position: u64) {
        assert!(position >= self.released, "released backwards");
        assert!(position <= self.parsed, "released what was not handed out");
        self.released = position;
    }

    /// Bytes handed out and not released.
    pub fn held(&self) -> u32 {
        (self.parsed - self.released) as u32
    }

    /// Whether a range of the receive buffer lies in what was handed out and not released.
    pub fn holds(&self, range: Range) -> bool {
        let place = u64::from(range.offset - self.buffer.offset);
        let mask = u64::from(self.buffer.bytes - 1);
        // How far behind `released` the range starts.
        let behind = place.wrapping_sub(self.released) & mask;
        behind + u64::from(range.bytes) <= u64::from(self.held())
    }
}

/// The receive buffer of the control link: frames are at its front, parsed ones go at each turn.
#[derive(Debug)]
pub struct ControlIn {
    rules: Rules,
    buffer: Range,
    parsed: u32,
    filled: u32,
    fresh: bool,
}

impl ControlIn {
    /// An empty one over `buffer`.
    pub fn new(rules: Rules, buffer: Range) -> ControlIn {
        ControlIn { rules, buffer, parsed: 0, filled: 0, fresh: false }
    }

    /// Moves what is not parsed to the front and says where the next receive may go. No receive
    /// may be in flight; ranges handed out before are void.
    pub fn room(&mut self, arena: &mut Arena) -> Option<Range> {
        if self.parsed > 0 {
            let rest = (self.parsed as usize)..(self.filled as usize);
            arena.bytes_mut(self.buffer).copy_within(rest, 0);
            self.filled -= self.parsed;
            self.parsed = 0;
        }
        let free = self.buffer.bytes - self.filled;
        (free > 0).then_some(Range { offset: self.buffer.offset + self.filled, bytes: free })
    }

    /// `bytes` came in at the room's start.
    ///
    /// # Panics
    /// If they are more than there was room for.
    pub fn received(&mut self, bytes: u32) {
        self.filled += bytes;
        assert!(self.filled <= self.buffer.bytes);
        self.fresh = true;
    }

    /// The next whole frame and its place.
    ///
    /// # Errors
    /// What is wrong with the bytes; the link is to be broken.
    pub fn next(&mut self, arena: &Arena) -> Result<Option<(Header, Range)>, LinkError> {
        if !self.fresh {
            return Ok(None);
        }
        let offset = self.buffer.offset + self.parsed;
        let unparsed = Range { offset, bytes: self.filled - self.parsed };
        let frame = self.rules.frame(arena.bytes(unparsed));
        if let Ok(Some(header)) = &frame {
            self.parsed += header.size;
        } else {
            self.fresh = false;
        }
        Ok(frame?.map(|header| (header, Range { offset, bytes: header.size })))
    }

    /// Whether bytes came since [`ControlIn::next`] last found no frame.
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// Whether a range lies in what was handed out since the last turn.
    pub fn holds(&self, range: Range) -> bool {
        Range { bytes: self.parsed, ..self.buffer }.contains(range)
    }

    /// Forgets everything; no receive may be in flight.
    pub fn cut(&mut self) {
        if self.filled > self.parsed {
            mark!(HalfControlFrameCut);
        }
        (self.parsed, self.filled, self.fresh) = (0, 0, false);
    }
}
