//! A file of a disk that can lose power: what is on stable media, and what is not there yet. Under
//! the simulator the media are an [`Image`], under real processes (feature `chaos`) real files.
//!
//! Invariant: a read sees the writes that were reported as done, in their order; what is under way
//! is seen by nobody before it is done or the power failed.

use super::crash::{Fate, Fates};
use super::faults::Bad;
use super::image::{Image, Medium, PAGE, SECTOR, is_zero};
use core::ops::Range;
use std::collections::BTreeSet;

/// Bytes to be written: these, and behind them zeros.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    some: Vec<u8>,
    length: u64,
}

impl Bytes {
    /// As they are.
    pub fn all(bytes: Vec<u8>) -> Bytes {
        Bytes { length: bytes.len() as u64, some: bytes }
    }

    /// Without the zeros at their end, where these fill pages.
    pub fn of(bytes: &[u8]) -> Bytes {
        let zeros = bytes.rchunks(PAGE).take_while(|page| is_zero(page)).count();
        let some = bytes[..bytes.len().saturating_sub(zeros * PAGE)].to_vec();
        Bytes { some, length: bytes.len() as u64 }
    }

    pub fn len(&self) -> u64 {
        self.length
    }

    /// True if there is nothing but zeros, and that was seen.
    pub fn is_zero(&self) -> bool {
        self.some.is_empty()
    }

    pub fn truncate(&mut self, length: u64) {
        self.length = self.length.min(length);
        self.some.truncate(self.length as usize);
    }

    /// A part of them: what there is, and how many zeros behind it.
    fn part(&self, part: &Range<u64>) -> (&[u8], u64) {
        let known = self.some.len() as u64;
        let some = &self.some[part.start.min(known) as usize..part.end.min(known) as usize];
        (some, part.end - part.start - some.len() as u64)
    }

    fn write(&self, part: Range<u64>, at: u64, image: &mut impl Medium) {
        let (some, zeros) = self.part(&part);
        let behind = at + part.start + some.len() as u64;
        image.write(at + part.start, some);
        if zeros > 0 {
            image.zero(behind, zeros);
        }
    }

    /// A part of them alone.
    fn cut(&self, part: &Range<u64>) -> Bytes {
        Bytes { some: self.part(part).0.to_vec(), length: part.end - part.start }
    }

    fn read(&self, part: Range<u64>, out: &mut [u8]) {
        let (some, _) = self.part(&part);
        let (known, zeros) = out.split_at_mut(some.len());
        known.copy_from_slice(some);
        zeros.fill(0);
    }

    /// Whether they are the same as other bytes, of which there are as many.
    pub fn equal(&self, others: &[u8]) -> bool {
        let (known, zeros) = others.split_at(self.some.len());
        *known == *self.some && is_zero(zeros)
    }

    /// Whether a part of them lies in an image already.
    fn lie_in(&self, part: Range<u64>, at: u64, image: &impl Medium) -> bool {
        let (some, zeros) = self.part(&part);
        let behind = at + part.start + some.len() as u64;
        image.holds(at + part.start, some) && (zeros == 0 || image.is_zero(behind, zeros))
    }
}

/// The sectors that a range of a file touches.
pub(super) fn sectors(at: u64, bytes: u64) -> Range<u64> {
    at / SECTOR as u64..(at + bytes).div_ceil(SECTOR as u64)
}

/// A write that is not on stable media, or not whole.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// Number of a write under way; none of one in the cache, which is done but for a flush.
    pub id: Option<u64>,
    pub at: u64,
    pub bytes: Bytes,
    /// Goes to stable media when it is done, with all that is in the cache.
    pub durable: bool,
    /// Of the cache, and a flush failed: it counts as clean, so that no other flush takes it along.
    /// Seen it is until the power fails.
    pub clean: bool,
}

impl Pending {
    /// Offset within the write, and sector, of every part that is written whole, lost or torn.
    fn sectors(&self) -> impl Iterator<Item = (Range<u64>, u64)> + use<> {
        let (at, end) = (self.at, self.at + self.bytes.len());
        let sector = SECTOR as u64;
        (at / sector..end.div_ceil(sector)).map(move |number| {
            let from = (number * sector).max(at);
            let to = ((number + 1) * sector).min(end);
            (from - at..to - at, number)
        })
    }
}

/// A file, by whatever name.
#[derive(Clone, Debug, Default)]
pub(crate) struct File<M = Image> {
    pub stable: M,
    pub stable_length: u64,
    pub length: u64,
    /// Writes not on stable media, in the order in which they were made.
    pub pending: Vec<Pending>,
    /// Sectors that the disk does not give, until they are written again.
    pub latent: BTreeSet<u64>,
    /// Sectors that hold other bytes than were written last, until they are written again.
    pub spoilt: BTreeSet<u64>,
    /// A place that is bad for good.
    pub bad: Option<(Range<u64>, Bad)>,
}

impl<M: Medium> File<M> {
    /// A file as it lies on its media; real files alone are there before they are written.
    #[cfg(feature = "chaos")]
    pub fn over(stable: M, length: u64) -> File<M> {
        let (latent, spoilt) = Default::default();
        let (stable_length, pending, bad) = (length, Vec::new(), None);
        File { stable, stable_length, length, pending, latent, spoilt, bad }
    }

    /// How the place is bad that a read or write touches.
    pub fn bad_at(&self, at: u64, bytes: u64) -> Option<Bad> {
        let (place, bad) = self.bad.as_ref()?;
        (place.start < at + bytes && at < place.end).then_some(*bad)
    }

    /// What a process reads; the length was looked at before.
    pub fn read(&self, at: u64, out: &mut [u8]) {
        self.stable.read(at, out);
        self.overlay(at, out);
    }

    /// Puts what was written and is not on stable media over what was read there.
    pub fn overlay(&self, at: u64, out: &mut [u8]) {
        let end = at + out.len() as u64;
        for pending in self.pending.iter().filter(|pending| pending.id.is_none()) {
            let (from, to) = (at.max(pending.at), end.min(pending.at + pending.bytes.len()));
            if from < to {
                let out = &mut out[(from - at) as usize..(to - at) as usize];
                pending.bytes.read(from - pending.at..to - pending.at, out);
            }
        }
    }

    /// Whether a read meets a sector that the disk does not give.
    pub fn is_latent(&self, at: u64, bytes: u64) -> bool {
        self.latent.range(sectors(at, bytes)).next().is_some()
    }

    /// Whether a read brings other bytes than were written.
    pub fn is_spoilt(&self, at: u64, bytes: u64) -> bool {
        self.spoilt.range(sectors(at, bytes)).next().is_some()
    }

    /// Puts bytes on stable media.
    pub fn land(&mut self, at: u64, bytes: &Bytes) {
        let length = bytes.len();
        bytes.write(0..length, at, &mut self.stable);
        self.heal(at, length);
        self.stable_length = self.stable_length.max(at + length);
        self.length = self.length.max(self.stable_length);
    }

    /// What is written anew can be read again, and hides what a failed flush left behind.
    fn heal(&mut self, at: u64, bytes: u64) {
        let hidden = |held: &Pending| held.at < at + bytes && at < held.at + held.bytes.len();
        self.pending.retain(|held| !held.clean || !hidden(held));
        for bad in [&mut self.latent, &mut self.spoilt] {
            if !bad.is_empty() {
                bad.retain(|number| !sectors(at, bytes).contains(number));
            }
        }
    }

    /// What is in the cache comes to stable media.
    pub fn flush(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match pending.id {
                None if !pending.clean => self.land(pending.at, &pending.bytes),
                _ => self.pending.push(pending),
            }
        }
        self.stable_length = self.length;
    }

    /// A flush failed: what is in the cache counts as clean, sector by sector.
    pub fn give_up(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            if pending.id.is_some() || pending.clean {
                self.pending.push(pending);
                continue;
            }
            for (part, _) in pending.sectors() {
                let at = pending.at + part.start;
                let bytes = pending.bytes.cut(&part);
                self.pending.push(Pending { id: None, at, bytes, durable: false, clean: true });
            }
        }
    }

    /// Lets each sector of a write come to stable media as `fates` says. True if one did not.
    pub fn land_partly(&mut self, pending: &Pending, fates: &mut dyn Fates) -> bool {
        if pending.bytes.is_zero() && self.stable.is_zero(pending.at, pending.bytes.len()) {
            return false;
        }
        fates.write();
        let mut altered = false;
        for (part, number) in pending.sectors() {
            // What is there already cannot be lost.
            let same = pending.bytes.lie_in(part.clone(), pending.at, &self.stable);
            let fate = if same { Fate::Kept } else { fates.sector(number) };
            altered |= fate != Fate::Kept;
            let part = match fate {
                Fate::Kept => part,
                Fate::Lost => continue,
                Fate::Torn { from, to } => {
                    let clamp = |at: u16| part.end.min(part.start + u64::from(at));
                    clamp(from)..clamp(to.max(from))
                }
            };
            if !part.is_empty() {
                let (from, length) = (pending.at + part.start, part.end - part.start);
                pending.bytes.write(part, pending.at, &mut self.stable);
                self.heal(from, length);
            }
        }
        altered
    }

    /// The power failed: what was not on stable media is partly there. Returns how many writes are
    /// not there as they were written.
    pub fn power_fails(&mut self, fates: &mut dyn Fates) -> u64 {
        let mut altered = 0;
        for pending in std::mem::take(&mut self.pending) {
            altered += u64::from(self.land_partly(&pending, fates));
        }
        if self.length > self.stable_length {
            self.length = fates.length(self.stable_length, self.length);
            self.stable.truncate(self.length);
        }
        self.stable_length = self.length;
        altered
    }
}
