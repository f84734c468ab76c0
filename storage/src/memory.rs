//! The memory log: the newest frames in a circle of bytes, for readers in memory durability.
//!
//! Invariants: a frame never wraps; positions only rise; `first <= head` and `head - first` is at
//! most the capacity; nothing at or above the floor is overwritten. No allocation after `new`.

use crate::config::Place;
use chainring_ring::mark;

/// A circular store of frames.
#[derive(Debug)]
pub struct MemoryLog {
    bytes: Box<[u8]>,
    /// Position behind the newest frame.
    head: u64,
    /// Everything from here on is intact.
    first: u64,
    /// Everything from here on has to stay.
    floor: u64,
    /// Bytes whose pages the kernel has given; the rest is touched bit by bit.
    touched: usize,
    /// Pages come with the frames only.
    sparse: bool,
}

impl MemoryLog {
    /// Room for `bytes` bytes. The kernel gives the pages when they are touched, which takes about
    /// a second a gigabyte: see [`MemoryLog::touch`].
    ///
    /// # Panics
    /// If `bytes` is 0.
    pub fn new(bytes: usize) -> MemoryLog {
        assert!(bytes > 0);
        let bytes = vec![0u8; bytes].into_boxed_slice();
        MemoryLog { bytes, head: 0, first: 0, floor: 0, touched: 0, sparse: false }
    }

    /// As [`MemoryLog::new`], but touching does no more than count: for who makes more of them
    /// than there is memory, and fills few.
    pub fn sparse(bytes: usize) -> MemoryLog {
        MemoryLog { sparse: true, ..MemoryLog::new(bytes) }
    }

    /// Touches the next `bytes` bytes, so that no page is missing when a frame comes there. True
    /// while there is more to touch.
    pub fn touch(&mut self, bytes: usize) -> bool {
        // Nothing lies behind the head before the first time round.
        let from = self.touched.max(usize::try_from(self.head).unwrap_or(usize::MAX));
        let to = from.saturating_add(bytes).min(self.bytes.len());
        if let Some(pages) = self.bytes.get_mut(from..to).filter(|_| !self.sparse) {
            pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        }
        self.touched = to;
        self.touched < self.bytes.len()
    }

    /// Copies a frame behind the newest; the oldest make room. `None` if that would take something
    /// at or above the floor, or the frame is larger than the whole: nothing is changed then.
    pub fn append(&mut self, frame: &[u8]) -> Option<Place> {
        let (capacity, length) = (self.bytes.len() as u64, frame.len() as u64);
        let left = capacity - self.head % capacity;
        if left < length {
            mark!(MemoryLogWentRound);
        }
        let at = if left < length { self.head + left } else { self.head };
        let end = at + length;
        let first = self.first.max(end.saturating_sub(capacity));
        if length > capacity || first > self.keep() {
            return None;
        }
        let start = (at % capacity) as usize;
        self.bytes[start..start + frame.len()].copy_from_slice(frame);
        (self.first, self.head) = (first, end);
        Some(Place { at, bytes: length as u32 })
    }

    /// The lowest position that has to stay.
    fn keep(&self) -> u64 {
        // A floor at the head means that nothing has to stay, wherever the next frame comes to lie.
        if self.floor >= self.head { u64::MAX } else { self.floor }
    }

    /// Everything below `at` may be overwritten from now on; [`MemoryLog::head`] frees all. Nothing
    /// may be overwritten before the first call. The floor never falls.
    pub fn keep_from(&mut self, at: u64) {
        self.floor = self.floor.max(at.min(self.head));
    }

    /// The frame at a place, if it is still there.
    pub fn get(&self, place: Place) -> Option<&[u8]> {
        let end = place.at.checked_add(u64::from(place.bytes))?;
        if place.at < self.first || end > self.head {
            return None;
        }
        let start = (place.at % self.bytes.len() as u64) as usize;
        self.bytes.get(start..start + place.bytes as usize)
    }

    /// The lowest position that is still there.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The position behind the newest frame.
    pub fn head(&self) -> u64 {
        self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_changes_nothing_that_is_kept() {
        touch_and_keep(MemoryLog::new(64 << 10));
        touch_and_keep(MemoryLog::sparse(64 << 10));
    }

    fn touch_and_keep(mut log: MemoryLog) {
        let place = log.append(&[7; 5000]).expect("room");
        assert!(log.touch(8 << 10));
        let second = log.append(&[9; 20_000]).expect("room");
        while log.touch(8 << 10) {}
        assert_eq!(log.get(place), Some(&[7; 5000][..]));
        assert_eq!(log.get(second), Some(&[9; 20_000][..]));
        log.keep_from(log.head());
        let third = log.append(&[3; 60_000]).expect("room");
        assert!(!log.touch(8 << 10));
        assert_eq!(log.get(third), Some(&[3; 60_000][..]));
    }

    /// Against a list that forgets nothing: what `get` returns is what was appended, and the newest
    /// are always there.
    #[test]
    fn holds_the_newest_frames_whole() {
        let mut log = MemoryLog::new(1000);
        let mut appended: Vec<(Place, u8)> = Vec::new();
        for round in 0..2000usize {
            let frame = vec![round as u8; 1 + round * 37 % 300];
            let place = log.append(&frame).unwrap();
            log.keep_from(log.head());
            appended.push((place, round as u8));
            for (place, byte) in appended.iter().rev().take(20) {
                match log.get(*place) {
                    Some(bytes) => assert_eq!(bytes, vec![*byte; place.bytes as usize]),
                    None => assert!(place.at < log.first()),
                }
            }
            assert!(log.get(place).is_some());
            assert!(log.head() - log.first() <= 1000);
        }
    }

    #[test]
    fn what_has_to_stay_stays() {
        let mut log = MemoryLog::new(1000);
        let first = log.append(&[1; 400]).unwrap();
        let second = log.append(&[2; 400]).unwrap();
        assert_eq!(log.append(&[3; 400]), None, "nothing was freed yet");
        log.keep_from(second.at);
        let third = log.append(&[3; 400]).unwrap();
        assert_eq!(third.at, 1000, "a frame does not wrap");
        assert_eq!(log.get(first), None);
        assert_eq!(log.get(second), Some(&[2; 400][..]));
        assert_eq!(log.append(&[4; 400]), None, "the second has to stay");
        log.keep_from(log.head());
        assert!(log.append(&[4; 1000]).is_some());
        assert_eq!(log.append(&[5; 1001]), None);
        assert_eq!(log.get(Place { at: u64::MAX, bytes: 8 }), None);
    }
}
