//! The files below a device and what of them is not on stable media.
//!
//! Invariants: a file is known by its inode, whatever its name; what the device holds back of a
//! file is seen by whoever reads it, and is lost with the process.

use super::medium::RealFile;
use super::names::Names;
use crate::sim::disk::crash::{Chance, CrashPlan};
use crate::sim::disk::file::{Bytes, File, Pending};
use crate::sim::disk::image::Medium;
use crate::sim::random::Random;
use rustix::fs::{Stat, fstat, stat};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// A file: device and inode.
pub(super) type Key = (u64, u64);

fn key(stat: &Stat) -> Key {
    (stat.st_dev, stat.st_ino)
}

/// The file of a name.
pub(super) fn key_of(path: &Path) -> io::Result<Key> {
    Ok(key(&stat(path)?))
}

/// The file behind a descriptor.
pub(super) fn key_behind(fd: impl AsFd) -> io::Result<Key> {
    Ok(key(&fstat(fd)?))
}

/// A write of the shard that is under way.
#[derive(Debug)]
pub(super) struct Write {
    pub file: Key,
    pub at: u64,
    pub bytes: Vec<u8>,
    /// What lay there before.
    pub before: Vec<u8>,
}

/// What a failed write leaves: any part of it.
const FAILED: CrashPlan =
    CrashPlan { affected: 1_000_000, lost: 300_000, torn: 400_000, names_lost: 0 };

#[derive(Debug)]
pub(super) struct Drive {
    files: BTreeMap<Key, File<RealFile>>,
    pub names: Names,
    /// Decides what is left of writes that fail.
    random: Random,
}

impl Drive {
    pub fn new(seed: u64) -> Drive {
        Drive { files: BTreeMap::new(), names: Names::default(), random: Random::new(seed) }
    }

    /// A file is written to from now on. A new one takes the place of what had its inode.
    pub fn know(&mut self, path: &Path, direct: bool, new: bool) -> io::Result<Key> {
        let key = key_of(path)?;
        if new {
            self.files.remove(&key);
        }
        self.file(key, || RealFile::open(path, direct))?;
        Ok(key)
    }

    /// A file, made known by `open`.
    pub fn file(
        &mut self,
        key: Key,
        open: impl FnOnce() -> io::Result<RealFile>,
    ) -> io::Result<&mut File<RealFile>> {
        match self.files.entry(key) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let stable = open()?;
                let length = stable.length();
                Ok(place.insert(File::over(stable, length)))
            }
        }
    }

    /// A file, if anything was written to it.
    pub fn get(&self, key: Key) -> Option<&File<RealFile>> {
        self.files.get(&key)
    }

    fn known(&mut self, key: Key) -> &mut File<RealFile> {
        self.files.get_mut(&key).expect("a file that was opened for writing")
    }

    /// A write; the power may fail in the middle of it.
    pub fn write(&mut self, key: Key, at: u64, bytes: &[u8], durable: bool, dark: bool) {
        let (bytes, length) = (Bytes::of(bytes), bytes.len() as u64);
        let held = self.known(key);
        if durable && !dark && held.pending.is_empty() {
            held.land(at, &bytes);
            held.stable.sync();
            return;
        }
        held.length = held.length.max(at + length);
        held.pending.push(Pending { id: None, at, bytes, durable, clean: false });
        if durable && !dark {
            self.flush(key);
        }
    }

    /// A write failed: any part of it is there.
    pub fn write_fails(&mut self, key: Key, at: u64, bytes: &[u8]) {
        let mut random = self.random.split(at);
        self.random.bits();
        let pending =
            Pending { id: None, at, bytes: Bytes::of(bytes), durable: true, clean: false };
        let held = self.known(key);
        held.land_partly(&pending, &mut Chance::new(&mut random, FAILED));
        held.stable_length = held.stable_length.max(held.stable.length());
        held.length = held.length.max(held.stable_length);
    }

    /// What the device holds of a file comes to stable media.
    pub fn flush(&mut self, key: Key) {
        let held = self.known(key);
        held.flush();
        held.stable.sync();
    }

    /// A flush failed: what the device holds counts as clean, and the next flush succeeds.
    pub fn flush_fails(&mut self, key: Key) {
        self.known(key).give_up();
    }

    /// The power failed: of everything that was not on stable media some is there. Returns how many
    /// writes and names are not as they were written.
    pub fn power_fails(&mut self, seed: u64, writes: Vec<Write>) -> io::Result<u64> {
        for Write { file, at, bytes, before } in writes {
            let held = self.known(file);
            held.stable.write(at, &before);
            let bytes = Bytes::all(bytes);
            held.pending.push(Pending { id: None, at, bytes, durable: true, clean: false });
        }
        let mut random = Random::new(seed);
        let mut fates = Chance::new(&mut random, CrashPlan::default());
        let mut altered = self.names.power_fails(&mut fates)?;
        for file in self.files.values_mut() {
            if !file.pending.is_empty() || file.length != file.stable_length {
                altered += file.power_fails(&mut fates);
                file.stable.sync();
            }
        }
        Ok(altered)
    }
}
