//! What goes out: the queue of forwarded ranges, and the two buffers of the control link.
//!
//! Forward by range: one send in flight; it takes all that was queued by then, up to 1 MiB, and
//! the uring merges neighbours. This is the one large win of the data path (4 to 7 times at 8 KiB).
//!
//! Invariants: tokens come back in the order they were queued, each once, and only when the
//! kernel does not read its range any more. A short send goes on in the middle of a range.

use crate::link::Refused;
use crate::pool::{Arena, Range};
use crate::uring::RANGES_MAX;
use chainring_ring::mark;
use std::collections::VecDeque;

/// Most forwards queued in production, sent-but-unreported ones included.
pub const FORWARDS_MAX: usize = 4096;
/// Most bytes of one send; a single larger packet goes alone.
const SEND_MAX: u32 = 1 << 20;

/// The queue of the data link.
#[derive(Debug)]
pub(crate) struct DataOut {
    queue: VecDeque<(Range, u64)>,
    /// Bytes of the first range that are sent already.
    head_sent: u32,
    /// Bytes of the send in flight; 0 for none.
    in_flight: u32,
    /// Tokens to report, and whether their ranges went out whole.
    reports: VecDeque<(u64, bool)>,
    /// Most of both.
    most: usize,
}

impl DataOut {
    pub(crate) fn new(most: usize) -> DataOut {
        DataOut {
            queue: VecDeque::with_capacity(most),
            head_sent: 0,
            in_flight: 0,
            reports: VecDeque::with_capacity(most),
            most,
        }
    }

    pub(crate) fn room(&self) -> usize {
        self.most - self.queue.len() - self.reports.len()
    }

    pub(crate) fn push(&mut self, range: Range, token: u64) -> Result<(), Refused> {
        if self.room() == 0 {
            return Err(Refused::Full);
        }
        self.queue.push_back((range, token));
        Ok(())
    }

    /// How many ranges the next send takes; None if there is nothing or one is in flight.
    pub(crate) fn begin(&mut self) -> Option<usize> {
        if self.in_flight > 0 || self.queue.is_empty() {
            return None;
        }
        let (mut count, mut bytes) = (0, 0);
        for (range, _) in self.queue.iter().take(RANGES_MAX) {
            let rest = range.bytes - if count == 0 { self.head_sent } else { 0 };
            if count > 0 && bytes + rest > SEND_MAX {
                break;
            }
            (count, bytes) = (count + 1, bytes + rest);
        }
        self.in_flight = bytes;
        Some(count)
    }

    /// The ranges of the send begun.
    pub(crate) fn batch(&self, count: usize) -> impl Iterator<Item = Range> {
        let first_sent = self.head_sent;
        self.queue.iter().take(count).enumerate().map(move |(index, (range, _))| {
            let sent = if index == 0 { first_sent } else { 0 };
            Range { offset: range.offset + sent, bytes: range.bytes - sent }
        })
    }

    /// The send is done: `bytes` went out. Returns how many ranges are complete.
    pub(crate) fn sent(&mut self, bytes: u32) -> u64 {
        assert!(bytes <= self.in_flight);
        self.in_flight = 0;
        let mut left = bytes;
        let mut complete = 0;
        while let Some(&(range, token)) = self.queue.front() {
            let rest = range.bytes - self.head_sent;
            if left < rest {
                break;
            }
            left -= rest;
            self.head_sent = 0;
            self.queue.pop_front();
            self.reports.push_back((token, true));
            complete += 1;
        }
        if left > 0 {
            mark!(PacketSentInPart);
        }
        self.head_sent += left;
        complete
    }

    /// The link is down and the kernel done with all ranges: they come back unsent.
    pub(crate) fn drop_all(&mut self) {
        (self.head_sent, self.in_flight) = (0, 0);
        while let Some((_, token)) = self.queue.pop_front() {
            mark!(ForwardCameBack);
            self.reports.push_back((token, false));
        }
    }

    pub(crate) fn report(&mut self) -> Option<(u64, bool)> {
        self.reports.pop_front()
    }

    pub(crate) fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }
}

/// The two buffers of the control link: one is sent while the other is filled.
#[derive(Debug)]
pub(crate) struct ControlOut {
    buffers: [Range; 2],
    /// The one being filled; the other is being sent.
    filling: usize,
    filled: u32,
    /// The rest of the other one that is not sent yet.
    rest: Range,
    in_flight: bool,
}

impl ControlOut {
    pub(crate) fn new(buffers: [Range; 2]) -> ControlOut {
        ControlOut { buffers, filling: 0, filled: 0, rest: Range::default(), in_flight: false }
    }

    pub(crate) fn fill(
        &mut self,
        arena: &mut Arena,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), Refused> {
        let buffer = self.buffers[self.filling];
        let free = &mut arena.bytes_mut(buffer)[self.filled as usize..];
        let limit = free.len();
        let used = fill(free);
        assert!(used <= limit && used.is_multiple_of(8), "control frames are multiples of 8");
        self.filled += used as u32;
        if used == 0 { Err(Refused::Full) } else { Ok(()) }
    }

    /// What the next send takes; None if there is nothing or one is in flight.
    pub(crate) fn begin(&mut self) -> Option<Range> {
        if self.in_flight {
            return None;
        }
        if self.rest.bytes == 0 {
            if self.filled == 0 {
                return None;
            }
            self.rest = Range { bytes: self.filled, ..self.buffers[self.filling] };
            self.filling = 1 - self.filling;
            self.filled = 0;
        }
        self.in_flight = true;
        Some(self.rest)
    }

    pub(crate) fn sent(&mut self, bytes: u32) {
        self.in_flight = false;
        if bytes < self.rest.bytes {
            mark!(ControlSentInPart);
        }
        self.rest = Range { offset: self.rest.offset + bytes, bytes: self.rest.bytes - bytes };
    }

    /// Bytes that wait for a send.
    pub(crate) fn waiting(&self) -> u32 {
        self.filled + self.rest.bytes
    }

    /// Forgets everything; no send may be in flight.
    pub(crate) fn cut(&mut self) {
        (self.filled, self.rest, self.in_flight) = (0, Range::default(), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u32, bytes: u32) -> Range {
        Range { offset, bytes }
    }

    #[test]
    fn short_sends_go_on_in_the_middle() {
        let mut out = DataOut::new(FORWARDS_MAX);
        for token in 0..3 {
            out.push(range(token * 1000, 512), u64::from(token)).unwrap();
        }
        assert_eq!(out.begin(), Some(3));
        assert_eq!(out.begin(), None, "one send in flight");
        assert_eq!(out.sent(512 + 100), 1);
        assert_eq!(out.report(), Some((0, true)));
        assert_eq!(out.report(), None);
        assert_eq!(out.begin(), Some(2));
        let batch: Vec<_> = out.batch(2).collect();
        assert_eq!(batch, [range(1100, 412), range(2000, 512)]);
        out.drop_all();
        assert_eq!((out.report(), out.report()), (Some((1, false)), Some((2, false))));
        assert_eq!((out.report(), out.begin()), (None, None));
    }

    #[test]
    fn one_send_takes_up_to_a_mebibyte() {
        let mut out = DataOut::new(FORWARDS_MAX);
        for token in 0..5 {
            out.push(range(0, 300 << 10), token).unwrap();
        }
        assert_eq!(out.begin(), Some(3));
        out.drop_all();
        let mut out = DataOut::new(FORWARDS_MAX);
        out.push(range(0, 3 << 20), 1).unwrap();
        assert_eq!(out.begin(), Some(1), "a larger packet goes alone");
    }

    #[test]
    fn queue_and_reports_share_one_bound() {
        let mut out = DataOut::new(FORWARDS_MAX);
        for token in 0..FORWARDS_MAX as u64 {
            out.push(range(0, 8), token).unwrap();
        }
        let count = out.begin().unwrap();
        assert_eq!(count, RANGES_MAX);
        assert_eq!(out.sent(8 * count as u32), count as u64);
        assert_eq!(out.push(range(0, 8), 9), Err(Refused::Full));
        assert_eq!(out.report(), Some((0, true)));
        out.push(range(0, 8), 9).unwrap();
    }

    /// What is in flight is not filled again; a short send goes on before what came after it.
    #[test]
    fn the_two_buffers_take_turns() {
        let bytes = crate::pool::PAGE_BYTES;
        let mut plan = crate::pool::ArenaPlan {
            receive: bytes,
            own: 0,
            side: 0,
            blocks: 0,
            control_in: bytes,
            control_out: bytes,
        };
        plan.control_out *= 2;
        let mut arena = Arena::new(&plan).unwrap();
        let mut out = ControlOut::new(arena.regions().control_out);
        let put = |out: &mut ControlOut, arena: &mut Arena, byte| {
            out.fill(arena, |free| {
                let frame = free.get_mut(..3000).unwrap_or_default();
                frame.fill(byte);
                frame.len()
            })
        };
        assert_eq!(out.begin(), None);
        assert_eq!(put(&mut out, &mut arena, 1), Ok(()));
        let first = out.begin().unwrap();
        for byte in [2, 3] {
            assert_eq!(put(&mut out, &mut arena, byte), Ok(()));
        }
        assert_eq!(put(&mut out, &mut arena, 4), Err(Refused::Full));
        assert_eq!(out.begin(), None, "one send in flight");
        assert_eq!(arena.bytes(first), [1; 3000]);
        out.sent(1000);
        let rest = out.begin().unwrap();
        assert_eq!(rest, range(first.offset + 1000, 2000));
        out.sent(2000);
        let second = out.begin().unwrap();
        assert_eq!(arena.bytes(second), [[2; 3000], [3; 3000]].concat());
        out.sent(6000);
        assert_eq!((out.begin(), out.waiting()), (None, 0));
    }
}
