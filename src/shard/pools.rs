//! Memory for packets that are not received in place: the own pool and the side pool.
//!
//! Invariants: ranges handed out never overlap; the own pool is a circle given back in order, the
//! side pool a set of chunks given back in any order. Full is back-pressure, not an error.

use chainring_net::pool::Range;
use chainring_ring::mark;

/// A circle of memory for own packets.
#[derive(Debug)]
pub struct OwnPool {
    region: Range,
    /// Offsets in the region; `head == tail` with `used == 0` is empty.
    head: u32,
    tail: u32,
    used: u32,
}

impl OwnPool {
    /// A pool over the region.
    pub fn new(region: Range) -> OwnPool {
        OwnPool { region, head: 0, tail: 0, used: 0 }
    }

    /// The next range of `bytes`, which [`OwnPool::take`] may then take whole or in part.
    pub fn peek(&self, bytes: u32) -> Option<Range> {
        let size = self.region.bytes;
        let (free_front, free_back) = if self.used == 0 {
            (0, size)
        } else if self.head > self.tail {
            (self.tail, size - self.head)
        } else {
            (0, self.tail - self.head)
        };
        let head = if self.used == 0 { 0 } else { self.head };
        if free_back >= bytes {
            Some(Range { offset: self.region.offset + head, bytes })
        } else if free_front >= bytes {
            Some(Range { offset: self.region.offset, bytes })
        } else {
            None
        }
    }

    /// Takes the first `bytes` of the range that was peeked at. Returns the offset behind it, by
    /// which it is given back.
    pub fn take(&mut self, peeked: Range, bytes: u32) -> u32 {
        assert!(bytes <= peeked.bytes);
        let start = peeked.offset - self.region.offset;
        if self.used == 0 {
            self.tail = start;
            self.head = start;
        }
        let skipped =
            if start >= self.head { start - self.head } else { self.region.bytes - self.head };
        self.used += bytes + skipped;
        self.head = start + bytes;
        self.head
    }

    /// Everything up to `behind` is free again.
    pub fn give_back(&mut self, behind: u32) {
        let freed = if behind > self.tail {
            behind - self.tail
        } else {
            self.region.bytes - self.tail + behind
        };
        assert!(freed <= self.used);
        self.used -= freed;
        self.tail = behind;
    }
}

/// Bytes of a chunk of the side pool.
const CHUNK: u32 = 4096;

/// Chunks of memory, first fit. Room for one largest packet is kept for the value that is delivered
/// next: whatever else was fetched or moved here may wait for just that one.
#[derive(Debug)]
pub struct SidePool {
    region: Range,
    taken: Box<[bool]>,
    /// Chunks at the end, for the next value only.
    kept: usize,
    /// Ranges handed out.
    count: usize,
}

impl SidePool {
    /// A pool over the region, in packets of up to `largest` bytes.
    pub fn new(region: Range, largest: u32) -> SidePool {
        let chunks = (region.bytes / CHUNK) as usize;
        let kept = largest.div_ceil(CHUNK) as usize;
        SidePool { region, taken: vec![false; chunks].into_boxed_slice(), kept, count: 0 }
    }

    /// A range of exactly `bytes`; `None` if there is no room.
    pub fn take(&mut self, bytes: u32) -> Option<Range> {
        self.take_below(self.taken.len().saturating_sub(self.kept), bytes)
    }

    /// The same for the value that is delivered next.
    pub fn take_next(&mut self, bytes: u32) -> Option<Range> {
        self.take_below(self.taken.len(), bytes)
    }

    fn take_below(&mut self, end: usize, bytes: u32) -> Option<Range> {
        let need = bytes.div_ceil(CHUNK) as usize;
        let mut run = 0;
        for at in 0..end {
            run = if self.taken[at] { 0 } else { run + 1 };
            if run == need {
                let first = at + 1 - need;
                self.taken[first..=at].fill(true);
                self.count += 1;
                let offset = self.region.offset + first as u32 * CHUNK;
                return Some(Range { offset, bytes });
            }
        }
        mark!(SidePoolFull);
        None
    }

    /// The range is free again.
    pub fn give_back(&mut self, range: Range) {
        let first = ((range.offset - self.region.offset) / CHUNK) as usize;
        let chunks = range.bytes.div_ceil(CHUNK) as usize;
        assert!(self.taken[first..first + chunks].iter().all(|taken| *taken), "given back twice");
        self.taken[first..first + chunks].fill(false);
        self.count -= 1;
    }

    /// Ranges handed out.
    pub fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Random sizes, given back in order: ranges in use never overlap, and an empty pool is whole.
    #[test]
    fn own_ranges_never_overlap() {
        let region = Range { offset: 8192, bytes: 64 * 512 };
        let mut pool = OwnPool::new(region);
        let mut live: VecDeque<(Range, u32)> = VecDeque::new();
        let mut seed = 7u64;
        let mut full = 0;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let want = 512 * (1 + (seed >> 33) as u32 % 20);
            let take = 512 * (1 + (seed >> 40) as u32 % (want / 512));
            if seed >> 63 == 0 {
                let Some(peeked) = pool.peek(want) else {
                    full += 1;
                    continue;
                };
                let behind = pool.take(peeked, take);
                let range = Range { offset: peeked.offset, bytes: take };
                assert!(region.contains(range));
                let clear = |(other, _): &(Range, u32)| {
                    range.end() <= other.offset || other.end() <= range.offset
                };
                assert!(live.iter().all(clear));
                live.push_back((range, behind));
            } else if let Some((_, behind)) = live.pop_front() {
                pool.give_back(behind);
            }
        }
        assert!(full > 100);
        while let Some((_, behind)) = live.pop_front() {
            pool.give_back(behind);
        }
        assert!(pool.peek(region.bytes).is_some());
    }

    #[test]
    fn side_ranges_come_back() {
        let mut pool = SidePool::new(Range { offset: 0, bytes: 7 * CHUNK }, 2 * CHUNK);
        let first = pool.take(CHUNK + 1).unwrap();
        let second = pool.take(2 * CHUNK).unwrap();
        assert_eq!(first.end().div_ceil(CHUNK) * CHUNK, second.offset);
        assert!(pool.take(2 * CHUNK).is_none());
        let next = pool.take_next(2 * CHUNK).expect("room is kept for the next one");
        pool.give_back(next);
        pool.give_back(first);
        assert_eq!(pool.take(2 * CHUNK).unwrap().offset, 0);
        assert_eq!(pool.count(), 2);
    }
}
