//! A file of a simulated disk: what is on stable media, and what is not there yet.
//!
//! Invariant: a read sees the writes that were reported as done, in their order; what is under way
//! is seen by nobody before it is done or the power failed.

use super::crash::{Fate, Fates};
use super::image::{Image, SECTOR, is_zero};
use std::collections::BTreeSet;

/// Bytes to be written.
#[derive(Clone, Debug)]
pub(super) enum Bytes {
    /// So many zeros.
    Zeros(u64),
    /// These.
    Some(Vec<u8>),
}

impl Bytes {
    pub fn of(bytes: &[u8]) -> Bytes {
        match is_zero(bytes) {
            true => Bytes::Zeros(bytes.len() as u64),
            false => Bytes::Some(bytes.to_vec()),
        }
    }

    pub fn len(&self) -> u64 {
        match self {
            Bytes::Zeros(bytes) => *bytes,
            Bytes::Some(bytes) => bytes.len() as u64,
        }
    }

    fn part(&self, part: core::ops::Range<u64>) -> Bytes {
        match self {
            Bytes::Zeros(_) => Bytes::Zeros(part.end - part.start),
            Bytes::Some(bytes) => Bytes::of(&bytes[part.start as usize..part.end as usize]),
        }
    }

    fn write(&self, part: core::ops::Range<u64>, at: u64, image: &mut Image) {
        match self {
            Bytes::Zeros(_) => image.zero(at + part.start, part.end - part.start),
            Bytes::Some(bytes) => {
                image.write(at + part.start, &bytes[part.start as usize..part.end as usize]);
            }
        }
    }
}

/// A write that is not on stable media, or not whole.
#[derive(Clone, Debug)]
pub(super) struct Pending {
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
    fn sectors(&self) -> impl Iterator<Item = (core::ops::Range<u64>, u64)> + use<> {
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
pub(super) struct File {
    pub stable: Image,
    pub stable_length: u64,
    pub length: u64,
    /// Writes not on stable media, in the order in which they were made.
    pub pending: Vec<Pending>,
    /// Sectors that the disk does not give, until they are written again.
    pub latent: BTreeSet<u64>,
}

impl File {
    /// What a process reads; the length was looked at before.
    pub fn read(&self, at: u64, out: &mut [u8]) {
        self.stable.read(at, out);
        let end = at + out.len() as u64;
        for pending in self.pending.iter().filter(|pending| pending.id.is_none()) {
            let (from, to) = (at.max(pending.at), end.min(pending.at + pending.bytes.len()));
            if from < to {
                let out = &mut out[(from - at) as usize..(to - at) as usize];
                match &pending.bytes {
                    Bytes::Zeros(_) => out.fill(0),
                    Bytes::Some(bytes) => out.copy_from_slice(
                        &bytes[(from - pending.at) as usize..(to - pending.at) as usize],
                    ),
                }
            }
        }
    }

    /// Whether a read meets a sector that the disk does not give.
    pub fn is_latent(&self, at: u64, bytes: u64) -> bool {
        let sector = SECTOR as u64;
        let touched = at / sector..(at + bytes).div_ceil(sector);
        !self.latent.is_empty() && self.latent.range(touched).next().is_some()
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
        if !self.latent.is_empty() {
            let sector = SECTOR as u64;
            let end = (at + bytes).div_ceil(sector);
            self.latent.retain(|number| !(at / sector..end).contains(number));
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
                let bytes = pending.bytes.part(part);
                self.pending.push(Pending { id: None, at, bytes, durable: false, clean: true });
            }
        }
    }

    /// Lets each sector of a write come to stable media as `fates` says. True if one did not.
    pub fn land_partly(&mut self, pending: &Pending, fates: &mut dyn Fates) -> bool {
        if matches!(pending.bytes, Bytes::Zeros(_))
            && self.stable.is_zero(pending.at, pending.bytes.len())
        {
            return false;
        }
        fates.write();
        let mut altered = false;
        for (part, number) in pending.sectors() {
            let at = pending.at + part.start;
            // What is there already cannot be lost.
            let same = match &pending.bytes {
                Bytes::Zeros(_) => self.stable.is_zero(at, part.end - part.start),
                Bytes::Some(bytes) => {
                    self.stable.holds(at, &bytes[part.start as usize..part.end as usize])
                }
            };
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
