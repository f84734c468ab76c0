//! The bytes of a simulated file.
//!
//! Invariants: what was never written reads as zeros and costs nothing; a copy of an image shares
//! its pages until one of the two is written.

use std::sync::{Arc, OnceLock};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// What a disk writes whole, or tears: bytes.
pub const SECTOR: usize = 512;
/// Unit of memory of an image.
pub(super) const PAGE: usize = 4096;

type Bytes = [u8; PAGE];

#[derive(Clone, Debug)]
struct Page {
    bytes: Bytes,
    /// Of the bytes and their place; looked for once, whoever shares the page.
    digest: OnceLock<u128>,
}

/// Stable media: bytes at positions, zeros where nothing is.
pub(crate) trait Medium {
    /// Fills `out` with what lies from `at` on.
    fn read(&self, at: u64, out: &mut [u8]);
    /// Puts bytes there.
    fn write(&mut self, at: u64, bytes: &[u8]);
    /// Puts zeros there.
    fn zero(&mut self, at: u64, bytes: u64);
    /// Whether these bytes lie there.
    fn holds(&self, at: u64, bytes: &[u8]) -> bool;
    /// Whether nothing but zeros lies there.
    fn is_zero(&self, at: u64, bytes: u64) -> bool;
    /// Forgets what lies at and behind a position.
    fn truncate(&mut self, length: u64);
}

/// Bytes at positions, zeros where nothing is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// Pages by number, ascending.
    pages: Vec<(u32, Arc<Page>)>,
}

impl Medium for Image {
    fn read(&self, at: u64, out: &mut [u8]) {
        let mut held = self.pages[self.first(at)..].iter().peekable();
        for (page, within, piece) in pieces(at, out.len()) {
            let out = &mut out[piece];
            match held.next_if(|(number, _)| *number == page) {
                Some((_, held)) => out.copy_from_slice(&held.bytes[within..within + out.len()]),
                None => out.fill(0),
            }
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        for (page, within, piece) in pieces(at, bytes.len()) {
            let bytes = &bytes[piece];
            match self.find(page) {
                Ok(index) if bytes.len() == PAGE && is_zero(bytes) => {
                    self.pages.remove(index);
                }
                Ok(index) => {
                    let page = Arc::make_mut(&mut self.pages[index].1);
                    page.bytes[within..within + bytes.len()].copy_from_slice(bytes);
                    page.digest = OnceLock::new();
                }
                Err(_) if is_zero(bytes) => {}
                Err(index) => {
                    let mut fresh = Page { bytes: [0; PAGE], digest: OnceLock::new() };
                    fresh.bytes[within..within + bytes.len()].copy_from_slice(bytes);
                    self.pages.insert(index, (page, Arc::new(fresh)));
                }
            }
        }
    }

    fn zero(&mut self, at: u64, bytes: u64) {
        const ZEROS: Bytes = [0; PAGE];
        let end = at + bytes;
        let (first, last) = (self.first(at), self.first(end.next_multiple_of(PAGE as u64)));
        // Only the pages that exist; from the end, since whole ones go.
        for index in (first..last).rev() {
            let page = u64::from(self.pages[index].0) * PAGE as u64;
            let (from, to) = (at.max(page), end.min(page + PAGE as u64));
            self.write(from, &ZEROS[..(to - from) as usize]);
        }
    }

    fn holds(&self, at: u64, bytes: &[u8]) -> bool {
        pieces(at, bytes.len()).all(|(page, within, piece)| {
            let bytes = &bytes[piece];
            match self.find(page) {
                Ok(index) => self.pages[index].1.bytes[within..within + bytes.len()] == *bytes,
                Err(_) => is_zero(bytes),
            }
        })
    }

    fn is_zero(&self, at: u64, bytes: u64) -> bool {
        let end = at + bytes;
        self.pages[self.first(at)..]
            .iter()
            .take_while(|(page, _)| u64::from(*page) * (PAGE as u64) < end)
            .all(|(page, held)| {
                let page = u64::from(*page) * PAGE as u64;
                let (from, to) = (at.max(page) - page, end.min(page + PAGE as u64) - page);
                is_zero(&held.bytes[from as usize..to as usize])
            })
    }

    fn truncate(&mut self, length: u64) {
        let end = self.pages.last().map_or(0, |(page, _)| (u64::from(*page) + 1) * PAGE as u64);
        if end > length {
            self.zero(length, end - length);
        }
    }
}

impl Image {
    /// A digest of what it holds.
    pub fn digest(&self) -> u128 {
        let of = |(number, page): &(u32, Arc<Page>)| {
            *page.digest.get_or_init(|| match is_zero(&page.bytes) {
                // As good as no page.
                true => 0,
                false => xxh3_128_with_seed(&page.bytes, u64::from(*number)),
            })
        };
        self.pages.iter().map(of).fold(0, |all, page| all ^ page)
    }

    /// The first page that is, from a position's on.
    fn first(&self, at: u64) -> usize {
        self.find((at / PAGE as u64) as u32).unwrap_or_else(|index| index)
    }

    /// Where a page is, or where it would have to be put.
    fn find(&self, page: u32) -> Result<usize, usize> {
        // A log is written at its end.
        match self.pages.last() {
            Some((last, _)) if *last < page => Err(self.pages.len()),
            Some((last, _)) if *last == page => Ok(self.pages.len() - 1),
            _ => self.pages.binary_search_by_key(&page, |(number, _)| *number),
        }
    }
}

/// Page, place within it and part of the whole, for each page that a range touches.
fn pieces(at: u64, bytes: usize) -> impl Iterator<Item = (u32, usize, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        (done < bytes).then(|| {
            let here = at + done as u64;
            let within = (here % PAGE as u64) as usize;
            let piece = done..bytes.min(done + PAGE - within);
            done = piece.end;
            ((here / PAGE as u64) as u32, within, piece)
        })
    })
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: Bytes = [0; PAGE];
    bytes.chunks(PAGE).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::random::Random;

    #[test]
    fn an_image_is_a_sparse_array() {
        let mut random = Random::new(5);
        let (mut image, mut model) = (Image::default(), vec![0u8; 10 * PAGE]);
        for round in 0..2000u64 {
            let at = random.below(9 * PAGE as u64) as usize;
            let bytes = random.below(2 * PAGE as u64).min((model.len() - at) as u64) as usize;
            match round % 3 {
                0 => {
                    random.fill(&mut model[at..at + bytes]);
                    image.write(at as u64, &model[at..at + bytes]);
                }
                1 => {
                    model[at..at + bytes].fill(0);
                    image.zero(at as u64, bytes as u64);
                }
                _ => {
                    let before = image.clone();
                    image.write(at as u64, &model[at..at + bytes]);
                    let mut out = vec![1; bytes];
                    before.read(at as u64, &mut out);
                    assert_eq!(out, model[at..at + bytes], "a copy keeps what it had");
                }
            }
            assert!(image.holds(at as u64, &model[at..at + bytes]));
            assert_eq!(
                image.is_zero(at as u64, bytes as u64),
                model[at..at + bytes].iter().all(|byte| *byte == 0)
            );
            let mut out = vec![1; model.len()];
            image.read(0, &mut out);
            assert!(out == model, "round {round}");
        }
        image.truncate(5000);
        assert!(image.is_zero(5000, 1 << 30));
        image.zero(0, 1 << 30);
        assert!(image.pages.is_empty(), "zeros cost nothing");
    }
}
