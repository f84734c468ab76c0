//! What a simulated disk does wrong, short of losing power.
//!
//! Invariant: a fault is counted only if a result, or a byte on stable media, is another than
//! without it.

use super::crash::{Chance, CrashPlan};
use super::drive::Drive;
use super::file::{Bytes, Pending, sectors};
use super::image::{Medium, SECTOR};
use super::{Target, WriteId};
use crate::sim::faults::Kind;
use crate::sim::random::Random;
use core::ops::Range;
use rustix::io::Errno;
use std::io;

/// How often blocking operations fail, in a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Reads of exposed ranges that end with EIO; the next one may succeed.
    pub read_error: u32,
    /// Reads of exposed ranges that return other bytes than there are.
    pub read_garbage: u32,
    /// Writes that end with EIO, any part of them on stable media.
    pub write_error: u32,
    /// Writes that find no room.
    pub write_full: u32,
    /// Writes that take a part and say so.
    pub write_short: u32,
    /// Flushes that end with EIO: what was in the cache counts as clean from then on, so that the
    /// next flush succeeds and brings nothing of it to stable media.
    pub sync_error: u32,
    /// Changes of names, and syncs of directories, that end with EIO: nothing was done.
    pub name_error: u32,
}

/// Faults that took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that failed, for once or until the sector is written again.
    pub read_errors: u64,
    /// Of these, reads that met a sector which the disk does not give.
    pub latent_reads: u64,
    /// Reads that returned other bytes than there are.
    pub read_garbage: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Writes for which there was no room.
    pub full: u64,
    /// Writes that took a part.
    pub short: u64,
    /// Flushes that failed.
    pub sync_errors: u64,
    /// Writes reported as done and not stored.
    pub lost: u64,
    /// Writes stored in another place.
    pub misdirected: u64,
    /// Sectors changed at rest.
    pub rotten: u64,
    /// Sectors made unreadable.
    pub latent: u64,
    /// Writes and names that a crash altered.
    pub crashed: u64,
}

impl Counts {
    /// All of them.
    pub fn total(&self) -> u64 {
        let failed = self.read_errors + self.write_errors + self.full + self.sync_errors;
        let altered = self.read_garbage + self.short + self.lost + self.misdirected;
        failed + altered + self.rotten + self.latent + self.crashed
    }
}

/// How a sector changes at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// One to eight bits are others.
    Flip,
    /// It holds zeros.
    Zero,
    /// It holds anything.
    Garbage,
    /// It cannot be read until it is written again.
    Latent,
}

/// How a place of a file is bad for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It cannot be read; writes are reported as done.
    Unread,
    /// It cannot be written, and keeps what it holds.
    Unwritten,
    /// It keeps what it holds, and writes are reported as done.
    Kept,
    /// Whatever is written there is garbage, and reported as done.
    Garbage,
}

impl Bad {
    /// All of them.
    pub const ALL: [Bad; 4] = [Bad::Unread, Bad::Unwritten, Bad::Kept, Bad::Garbage];
}

/// How a write of the shard ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// As it should.
    Done,
    /// Reported as done, and nothing was stored.
    Lost,
    /// Reported as done, and stored in another place of the device.
    Misdirected {
        /// The file that gets the bytes.
        target: Target,
        /// Where in it.
        at: u64,
    },
    /// A part of it, and it says so.
    Short {
        /// Bytes that were stored.
        bytes: u32,
    },
    /// With an error, any part of it on stable media.
    Failed(Errno),
}

impl Drive {
    /// Whether something happens that happens so often.
    pub fn drawn(&mut self, kind: Kind, per_million: u32) -> bool {
        let hit = self.dice.draw(kind, per_million);
        if hit {
            self.mishaps.push(self.dice.last(kind));
        }
        hit
    }

    pub fn sync_fails(&mut self, file: usize) -> bool {
        if !self.drawn(Kind::SyncError, self.rates.sync_error) {
            return false;
        }
        self.counts.sync_errors += 1;
        self.files[file].give_up();
        true
    }

    /// A blocking write, with what may go wrong with it.
    pub fn try_write(
        &mut self,
        file: usize,
        at: u64,
        bytes: &[u8],
        durable: bool,
    ) -> io::Result<usize> {
        if let Some(bad) = self.files[file].bad_at(at, bytes.len() as u64) {
            return self.write_bad(file, at, bytes, bad);
        }
        let room = self.room(file, at, bytes.len() as u64) as usize;
        if (room == 0 && !bytes.is_empty()) || self.drawn(Kind::StoreFull, self.rates.write_full) {
            self.counts.full += 1;
            return Err(Errno::NOSPC.into());
        }
        if self.drawn(Kind::StoreError, self.rates.write_error) {
            self.counts.write_errors += 1;
            let bytes = Bytes::of(&bytes[..room]);
            self.land_partly(file, Pending { id: None, at, bytes, durable, clean: false });
            return Err(Errno::IO.into());
        }
        let mut take = room;
        let sectors = (take / SECTOR) as u64;
        if sectors > 1 && self.drawn(Kind::StoreShort, self.rates.write_short) {
            take = self.dice.stream(Kind::StoreShort).range(1..sectors) as usize * SECTOR;
        }
        self.counts.short += u64::from(take < bytes.len());
        self.write(file, at, &bytes[..take], durable)
    }

    /// A blocking and durable write, of a sector or more, of a place that is bad for good.
    fn write_bad(&mut self, file: usize, at: u64, bytes: &[u8], bad: Bad) -> io::Result<usize> {
        if bad == Bad::Unread {
            return self.write(file, at, bytes, true);
        }
        if bad == Bad::Garbage {
            self.counts.lost += 1;
            let mut garbage = bytes.to_vec();
            garbage[..SECTOR].iter_mut().step_by(64).for_each(|byte| *byte ^= 0x55);
            return self.write(file, at, &garbage, true);
        }
        if self.strike() || bad == Bad::Unwritten {
            self.counts.write_errors += 1;
            return Err(Errno::IO.into());
        }
        self.counts.lost += 1;
        Ok(bytes.len())
    }

    fn land_partly(&mut self, file: usize, pending: Pending) -> bool {
        let held = &mut self.files[file];
        let torn = CrashPlan { lost: 300_000, torn: 400_000, ..CrashPlan::default() };
        let mut fates = Chance::new(&mut self.random, torn);
        let altered = held.land_partly(&pending, &mut fates);
        held.stable_length = held.stable_length.max(pending.at + pending.bytes.len());
        held.length = held.length.max(held.stable_length);
        altered
    }

    /// A blocking read, with what may go wrong with it. `exposed` are the ranges in which it may.
    pub fn try_read(
        &mut self,
        file: usize,
        at: u64,
        out: &mut [u8],
        exposed: &[(Target, Range<u64>)],
    ) -> io::Result<usize> {
        let held = &self.files[file];
        let bytes = held.length.saturating_sub(at).min(out.len() as u64);
        if held.is_latent(at, bytes) {
            self.counts.read_errors += 1;
            self.counts.latent_reads += 1;
            return Err(Errno::IO.into());
        }
        if held.bad_at(at, bytes) == Some(Bad::Unread) {
            self.counts.read_errors += 1;
            return Err(Errno::IO.into());
        }
        let out = &mut out[..bytes as usize];
        held.read(at, out);
        if self.rates.read_error == 0 && self.rates.read_garbage == 0 {
            return Ok(out.len());
        }
        if self.exposed {
            return match self.drawn(Kind::ReadError, self.rates.read_error) {
                true => {
                    self.counts.read_errors += 1;
                    Err(Errno::IO.into())
                }
                false => Ok(out.len()),
            };
        }
        let of_file = exposed.iter().filter(|(target, _)| target.file == file);
        let cut = |range: &Range<u64>| range.start.max(at)..range.end.min(at + bytes);
        let mut hit = of_file.map(|(_, range)| cut(range)).filter(|range| !range.is_empty());
        let Some(hit) = hit.next() else { return Ok(out.len()) };
        if self.drawn(Kind::ReadError, self.rates.read_error) {
            self.counts.read_errors += 1;
            return Err(Errno::IO.into());
        }
        if self.drawn(Kind::ReadSpoilt, self.rates.read_garbage) {
            self.counts.read_garbage += 1;
            let random = self.dice.stream(Kind::ReadSpoilt);
            let byte = (random.range(hit) - at) as usize;
            out[byte] ^= 1 << random.below(8);
        }
        Ok(out.len())
    }

    /// Begins a write of the shard.
    pub fn submit(&mut self, target: Target, at: u64, bytes: Vec<u8>, durable: bool) -> WriteId {
        self.next_write += 1;
        let number = self.next_write;
        let bytes = Bytes::all(bytes);
        let pending = Pending { id: Some(number), at, bytes, durable, clean: false };
        if target.life == self.life {
            self.files[target.file].pending.push(pending);
        }
        WriteId { target, number }
    }

    /// Ends a write of the shard; returns what the kernel reports.
    pub fn complete(&mut self, id: WriteId, how: Completion) -> i32 {
        const CANCELED: i32 = -125;
        let WriteId { target: Target { file, life }, number } = id;
        if self.dark || life != self.life {
            return CANCELED;
        }
        let list = &mut self.files[file].pending;
        let Some(index) = list.iter().position(|pending| pending.id == Some(number)) else {
            return CANCELED;
        };
        let mut pending = list.remove(index);
        pending.id = None;
        let bytes = pending.bytes.len();
        let room = self.room(file, pending.at, bytes);
        match how {
            Completion::Done if room == bytes => {
                self.put(file, pending, bytes);
                bytes as i32
            }
            Completion::Lost => {
                self.counts.lost += u64::from(self.differs(file, &pending));
                self.files[file].spoilt.extend(sectors(pending.at, bytes));
                bytes as i32
            }
            Completion::Misdirected { target, at } => {
                let (lost, pending_at) = (self.differs(file, &pending), pending.at);
                let other = Pending { at, ..pending };
                let room = self.files[target.file].length.saturating_sub(at).min(bytes);
                self.counts.misdirected += u64::from(lost && room > 0);
                self.put(target.file, other, room);
                self.files[file].spoilt.extend(sectors(pending_at, bytes));
                self.files[target.file].spoilt.extend(sectors(at, room));
                bytes as i32
            }
            Completion::Failed(errno) => {
                self.counts.write_errors += 1;
                self.land_partly(file, pending);
                -errno.raw_os_error()
            }
            Completion::Done | Completion::Short { .. } => {
                let wanted = if let Completion::Short { bytes } = how { bytes } else { u32::MAX };
                let stored = room.min(u64::from(wanted));
                self.counts.full += u64::from(room < bytes && stored == room);
                self.counts.short += u64::from(stored < room);
                self.put(file, pending, stored);
                if stored == 0 { -Errno::NOSPC.raw_os_error() } else { stored as i32 }
            }
        }
    }

    /// Stores the first `take` bytes of a write.
    fn put(&mut self, file: usize, mut pending: Pending, take: u64) {
        pending.bytes.truncate(take);
        let held = &mut self.files[file];
        held.length = held.length.max(pending.at + take);
        match pending.durable {
            true => {
                // What reaches the media does so behind the cache's flush.
                let cached = held.pending.iter().any(|other| other.id.is_none() && !other.clean);
                if cached {
                    held.flush();
                }
                held.land(pending.at, &pending.bytes);
            }
            false => held.pending.push(pending),
        }
    }

    /// Whether a file holds something else than a write would put there.
    fn differs(&self, file: usize, pending: &Pending) -> bool {
        let mut held = vec![0; pending.bytes.len() as usize];
        self.files[file].read(pending.at, &mut held);
        !pending.bytes.equal(&held)
    }

    /// Copies a range of a file to another place of it, at rest. True if that place is another now.
    pub fn misplace(&mut self, file: usize, from: Range<u64>, to: u64) -> bool {
        let held = &mut self.files[file];
        let length = from.end - from.start;
        if from.end.max(to + length) > held.stable_length {
            return false;
        }
        let mut bytes = vec![0; length as usize];
        held.stable.read(from.start, &mut bytes);
        let altered = !held.stable.holds(to, &bytes);
        held.stable.write(to, &bytes);
        held.spoilt.extend(sectors(to, length));
        self.counts.misdirected += u64::from(altered);
        altered
    }

    /// Sectors that could not be read can be read again.
    pub fn cure_latent(&mut self) -> bool {
        let latent = self.files.iter_mut().filter(|file| !file.latent.is_empty());
        latent.map(|file| file.latent.clear()).count() > 0
    }

    /// Lets the sector that holds a byte change at rest. True if it is another now.
    pub fn rot(&mut self, file: usize, at: u64, rot: Rot, random: &mut Random) -> bool {
        let held = &mut self.files[file];
        let sector = at / SECTOR as u64;
        let start = sector * SECTOR as u64;
        if start >= held.stable_length {
            return false;
        }
        if rot == Rot::Latent {
            let fresh = held.latent.insert(sector);
            self.counts.latent += u64::from(fresh);
            return fresh;
        }
        let (mut before, mut bytes) = ([0; SECTOR], [0; SECTOR]);
        held.stable.read(start, &mut before);
        match rot {
            Rot::Garbage => random.fill(&mut bytes),
            Rot::Zero | Rot::Latent => {}
            Rot::Flip => {
                bytes = before;
                for _ in 0..=random.below(8) {
                    bytes[random.below(SECTOR as u64) as usize] ^= 1 << random.below(8);
                }
            }
        }
        let room = (held.stable_length - start).min(SECTOR as u64) as usize;
        held.stable.write(start, &bytes[..room]);
        let altered = before[..room] != bytes[..room];
        if altered {
            held.spoilt.insert(sector);
        }
        self.counts.rotten += u64::from(altered);
        altered
    }
}
