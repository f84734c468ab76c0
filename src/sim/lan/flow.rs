//! One direction of a connection: bytes on their way, in order, as a stream carries them.
//!
//! Frames are recognised as they are written, so that a fault can meet a whole one; the reader sees
//! bytes only, in pieces that need not be frames. Invariants: bytes are read in the order in which
//! they were let through; nothing arrives before its time, nor behind an end.

use chainring_ring::header::{HEADER_BYTES, u32_at};
use std::collections::VecDeque;

/// Where a frame's size lies in its header.
const SIZE_AT: usize = 56;
/// When what a partition holds up arrives: not before it heals.
pub(super) const HELD: u64 = u64::MAX;

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It goes on.
    Open,
    /// The sender closed it; what is on its way arrives.
    Closed,
    /// What is on its way is gone.
    Reset,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Flow {
    /// Sent and not read.
    bytes: VecDeque<u8>,
    /// Of these, so many may be read.
    arrived: usize,
    /// The rest, in order: when it arrives and how much it is.
    pieces: VecDeque<(u64, u32)>,
    /// A frame that is not written whole yet.
    part: Vec<u8>,
    /// Bytes of the frame being let through as it comes, being too large to be held back.
    through: usize,
    /// Nothing arrives before what was sent before it.
    last_at: u64,
    pub end: End,
    /// The reader knows of the end.
    pub end_arrived: bool,
}

impl Flow {
    pub fn new() -> Flow {
        Flow {
            bytes: VecDeque::new(),
            arrived: 0,
            pieces: VecDeque::new(),
            part: Vec::new(),
            through: 0,
            last_at: 0,
            end: End::Open,
            end_arrived: false,
        }
    }

    /// Bytes that are sent and not read.
    pub fn held(&self) -> usize {
        self.bytes.len() + self.part.len()
    }

    /// True if there are bytes to read.
    pub fn has_bytes(&self) -> bool {
        self.arrived > 0
    }

    /// Takes in what is written; true if `part` holds a whole frame now. Returns how much of
    /// `bytes` it took.
    pub fn write(&mut self, bytes: &[u8], whole_max: usize) -> (usize, bool) {
        if self.through > 0 {
            let count = self.through.min(bytes.len());
            self.bytes.extend(&bytes[..count]);
            self.through -= count;
            self.piece_at(self.last_at, count);
            return (count, false);
        }
        let mut taken = 0;
        if self.part.len() < HEADER_BYTES {
            taken = (HEADER_BYTES - self.part.len()).min(bytes.len());
            self.part.extend_from_slice(&bytes[..taken]);
            if self.part.len() < HEADER_BYTES {
                return (taken, false);
            }
        }
        let size = (u32_at(&self.part, SIZE_AT) as usize).max(HEADER_BYTES);
        if size > whole_max {
            self.bytes.extend(&self.part);
            let count = self.part.len();
            self.through = size - count;
            self.part.clear();
            self.piece_at(self.last_at, count);
            return (taken, false);
        }
        let count = (size - self.part.len()).min(bytes.len() - taken);
        self.part.extend_from_slice(&bytes[taken..taken + count]);
        (taken + count, self.part.len() == size)
    }

    /// The frame that was just completed.
    pub fn frame(&self) -> &[u8] {
        &self.part
    }

    /// The same, to be spoiled.
    pub fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.part
    }

    /// Lets the frame through, to arrive at `at` or when it is its turn; once more if `twice`.
    pub fn pass(&mut self, at: u64, twice: bool) -> u64 {
        let size = self.part.len();
        for _ in 0..=usize::from(twice) {
            self.bytes.extend(&self.part);
            self.piece_at(at, size);
        }
        self.part.clear();
        self.last_at
    }

    /// Forgets the frame.
    pub fn lose(&mut self) {
        self.part.clear();
    }

    /// A frame half written goes on its way: its sender is gone.
    pub fn pass_part(&mut self, at: u64) {
        if !self.part.is_empty() {
            self.pass(at, false);
        }
    }

    fn piece_at(&mut self, at: u64, count: usize) {
        self.last_at = self.last_at.max(at);
        match self.pieces.back_mut() {
            Some((before, bytes)) if *before == self.last_at => *bytes += count as u32,
            _ => self.pieces.push_back((self.last_at, count as u32)),
        }
    }

    /// When the next piece arrives.
    pub fn next_at(&self) -> Option<u64> {
        self.pieces.front().map(|(at, _)| *at)
    }

    /// Brings in what arrives by now. True if anything did.
    pub fn arrive(&mut self, now: u64) -> bool {
        let mut any = false;
        while self.pieces.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = self.pieces.pop_front().expect("just seen");
            self.arrived += bytes as usize;
            any = true;
        }
        if self.end == End::Closed && self.pieces.is_empty() && !self.end_arrived {
            self.end_arrived = true;
            any = true;
        }
        any
    }

    /// What a partition held up arrives at `at`. Returns the pieces.
    pub fn release(&mut self, at: u64) -> u32 {
        let mut count = 0;
        for (when, _) in self.pieces.iter_mut().filter(|(when, _)| *when == HELD) {
            *when = at;
            count += 1;
        }
        if self.last_at == HELD {
            self.last_at = at;
        }
        count
    }

    /// True if a partition holds something up.
    pub fn is_held(&self) -> bool {
        self.last_at == HELD
    }

    /// Reads what has arrived. Returns how much.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let count = self.arrived.min(into.len());
        let (front, back) = self.bytes.as_slices();
        let first = front.len().min(count);
        into[..first].copy_from_slice(&front[..first]);
        into[first..count].copy_from_slice(&back[..count - first]);
        self.bytes.drain(..count);
        self.arrived -= count;
        count
    }

    /// The connection is reset: nothing more arrives. Returns whether anything was lost.
    pub fn reset(&mut self) -> bool {
        let lost = !self.pieces.is_empty() || !self.part.is_empty();
        let arrived = self.arrived;
        self.bytes.truncate(arrived);
        self.pieces.clear();
        self.part.clear();
        (self.end, self.through) = (End::Reset, 0);
        lost
    }

    /// Nobody reads any more.
    pub fn discard(&mut self) {
        self.bytes = VecDeque::new();
        self.pieces = VecDeque::new();
        self.part = Vec::new();
        self.arrived = 0;
    }
}
