//! A simulated machine's disk, under the production code that opens, recovers and writes a store.
//!
//! What is written lies in a cache until it is flushed or was written durably; a write of the shard
//! is under way until the world completes it. When the power fails, each sector of what was not on
//! stable media is kept, lost or torn by itself, and each name that was made, changed or removed
//! since its directory was synced may be as before. [`DiskHandle`] is the blocking side, as a
//! [`chainring_storage::Disk`], the side of the simulated kernel ([`DiskHandle::submit_write`],
//! [`DiskHandle::complete_write`]), and the side of the world, which decides what goes wrong.
//!
//! Invariants: nothing is stable before it was flushed; a process of a life that ended does nothing
//! more; a fault counts only if it took effect.

pub(crate) mod crash;
mod drive;
mod faults;
pub(crate) mod file;
pub(crate) mod image;
mod seam;
#[cfg(test)]
mod tests;

use crate::sim::faults::{Dice, Kind, Name};
use crate::sim::random::Random;
use chainring_storage::superblock::{SUPERBLOCK_BYTES, decode};
use chainring_storage::superfile::{COPIES, COPY_DISTANCE, superblock_path};
use chainring_storage::{SharedDisk, Superblock, segment_path};
use crash::Chance;
use drive::Drive;
use image::Medium;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

pub use crash::{CrashPlan, Fate, Fates};
pub use faults::{Bad, Completion, Counts, Rates, Rot};
pub use image::SECTOR;

/// A file that the shard writes to; of no use after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    file: usize,
    life: u64,
}

/// A write that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId {
    target: Target,
    number: u64,
}

/// Readers of frames read so much, or a multiple.
const READ_BYTES: u64 = 4096;

/// Ranges in which reads may go wrong.
type Exposed = Vec<(Target, Range<u64>)>;

/// How a disk is since it was looked at last.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    /// The power failed in the middle of an operation.
    pub dark: bool,
    /// Something went wrong that nobody was told of.
    pub mishaps: bool,
}

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct DiskHandle {
    // A world has one thread: nobody ever waits for it.
    drive: Arc<Mutex<Drive>>,
    exposed: Arc<Mutex<Exposed>>,
}

impl DiskHandle {
    /// An empty disk; `random` decides which operations fail, by [`DiskHandle::set_rates`].
    pub fn new(random: Random) -> DiskHandle {
        DiskHandle::over(Drive::new(random))
    }

    fn over(drive: Drive) -> DiskHandle {
        DiskHandle { drive: Arc::new(Mutex::new(drive)), exposed: Arc::default() }
    }

    fn drive(&self) -> MutexGuard<'_, Drive> {
        self.drive.lock().expect("nobody panics while holding it")
    }

    fn exposed(&self) -> MutexGuard<'_, Exposed> {
        self.exposed.lock().expect("nobody panics while holding it")
    }

    /// As storage wants it.
    pub fn shared(&self) -> SharedDisk {
        Arc::new(self.clone())
    }

    /// Another disk that holds the same and goes its own way; cheap, pages are shared.
    pub fn fork(&self) -> DiskHandle {
        DiskHandle::over(self.drive().clone())
    }

    // The side of the simulated kernel.

    /// A file to write to.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn target(&self, path: &Path) -> io::Result<Target> {
        let drive = self.drive();
        drive.alive(drive.life)?;
        Ok(Target { file: drive.find(path)?, life: drive.life })
    }

    /// A segment to write to.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn segment(&self, dir: &Path, number: u32) -> io::Result<Target> {
        self.target(&segment_path(dir, number))
    }

    /// Begins a write: `bytes` are under way until [`DiskHandle::complete_write`] or a crash.
    pub fn submit_write(&self, target: Target, at: u64, bytes: Vec<u8>, durable: bool) -> WriteId {
        self.drive().submit(target, at, bytes, durable)
    }

    /// Ends a write; returns what the kernel reports: bytes, or an error number below 0.
    pub fn complete_write(&self, id: WriteId, how: Completion) -> i32 {
        self.drive().complete(id, how)
    }

    // The side of the world.

    /// The power fails. Returns how many writes and names are not as they were written.
    pub fn crash(&self, random: &mut Random, plan: CrashPlan) -> u64 {
        self.crash_by(&mut Chance::new(random, plan))
    }

    /// As [`DiskHandle::crash`], decided by `fates`.
    pub fn crash_by(&self, fates: &mut dyn Fates) -> u64 {
        let mut drive = self.drive();
        let altered = drive.power_fails(fates);
        drive.counts.crashed += altered;
        altered
    }

    /// The process is killed and the power stays: writes under way end in any state, what was
    /// written stays. Returns how many writes are not as they were written.
    pub fn kill(&self, random: &mut Random, plan: CrashPlan) -> u64 {
        self.kill_by(&mut Chance::new(random, plan))
    }

    /// As [`DiskHandle::kill`], decided by `fates`.
    pub fn kill_by(&self, fates: &mut dyn Fates) -> u64 {
        let mut drive = self.drive();
        let altered = drive.killed(fates);
        drive.counts.crashed += altered;
        altered
    }

    /// Lets the power fail in the middle of the `operations`-th blocking operation from now that
    /// changes something, 1 being the next: it and all later ones fail. A crash ends that.
    pub fn fail_after(&self, operations: u64) {
        let mut drive = self.drive();
        drive.fuse = Some(drive.operations + operations);
    }

    /// Takes [`DiskHandle::fail_after`] back, if the power did not fail yet.
    pub fn fail_no_more(&self) {
        self.drive().fuse = None;
    }

    /// Whether the power failed by [`DiskHandle::fail_after`]: the world has to crash the node.
    pub fn is_dark(&self) -> bool {
        self.drive().dark
    }

    /// Blocking operations so far that changed something.
    pub fn operations(&self) -> u64 {
        self.drive().operations
    }

    /// How often blocking operations fail from now on. Returns how often they did.
    pub fn set_rates(&self, rates: Rates) -> Rates {
        std::mem::replace(&mut self.drive().rates, rates)
    }

    /// Decides which operations fail.
    pub fn set_dice(&self, dice: Dice) {
        self.drive().dice = dice;
    }

    /// How the disk is.
    pub fn glance(&self) -> Glance {
        let drive = self.drive();
        Glance { dark: drive.dark, mishaps: !drive.mishaps.is_empty() }
    }

    /// What went wrong with blocking operations since it was asked last, by name.
    pub fn take_mishaps(&self) -> Vec<Name> {
        std::mem::take(&mut self.drive().mishaps)
    }

    /// Whether a read failed since then.
    pub fn has_misread(&self) -> bool {
        self.drive().mishaps.iter().any(|(kind, _)| *kind == Kind::ReadError)
    }

    /// Lets every read fail as often as [`Rates`] says, until [`DiskHandle::shelter`]. What is read
    /// is what there is.
    pub fn expose_all(&self) {
        self.drive().exposed = true;
    }

    /// Lets reads of a range go wrong as often as [`Rates`] says; nowhere else they do. A crash
    /// or [`DiskHandle::shelter`] ends that.
    pub fn expose(&self, target: Target, range: Range<u64>) {
        self.exposed().push((target, range));
    }

    /// No read goes wrong any more but for latent errors.
    pub fn shelter(&self) {
        self.exposed().clear();
        self.drive().exposed = false;
    }

    /// Bytes that have room.
    pub fn set_capacity(&self, bytes: u64) {
        self.drive().capacity = bytes;
    }

    /// Writes to the log take so much longer.
    pub fn drag(&self, us: u64) {
        self.drive().drag_us = us;
    }

    /// What they take more.
    pub fn drag_us(&self) -> u64 {
        self.drive().drag_us
    }

    /// Leaves room for so many bytes more.
    pub fn leave_room(&self, bytes: u64) {
        let mut drive = self.drive();
        drive.capacity = drive.used() + bytes;
    }

    /// Bytes used.
    pub fn used(&self) -> u64 {
        self.drive().used()
    }

    /// Lets the sector that holds a byte change at rest. True if it did.
    pub fn rot(&self, path: &Path, at: u64, rot: Rot, random: &mut Random) -> bool {
        let mut drive = self.drive();
        drive.find(path).is_ok_and(|file| drive.rot(file, at, rot, random))
    }

    /// What lies in a range of a file lies in another place of it as well, as a write that went
    /// astray leaves it. True if that place is another now.
    pub fn misplace(&self, path: &Path, from: Range<u64>, to: u64) -> bool {
        let mut drive = self.drive();
        drive.find(path).is_ok_and(|file| drive.misplace(file, from, to))
    }

    /// Whether a range of a file holds other bytes than were written there last, or a reader, who
    /// takes whole blocks, meets a sector that cannot be read.
    pub fn is_spoilt(&self, path: &Path, range: &Range<u64>) -> bool {
        let drive = self.drive();
        let block = range.start / READ_BYTES * READ_BYTES..range.end.next_multiple_of(READ_BYTES);
        drive.find(path).is_ok_and(|file| {
            let file = &drive.files[file];
            file.is_spoilt(range.start, range.end - range.start)
                || file.is_latent(block.start, block.end - block.start)
        })
    }

    /// A place of a file is bad for good, or no more. Durable writes only. True if it is there.
    pub fn set_bad(&self, path: &Path, bad: Option<(Range<u64>, Bad)>) -> bool {
        let mut drive = self.drive();
        drive.find(path).map(|file| drive.files[file].bad = bad).is_ok()
    }

    /// True if a place of this file is bad for good.
    pub fn is_bad(&self, path: &Path) -> bool {
        let drive = self.drive();
        drive.find(path).is_ok_and(|file| drive.files[file].bad.is_some())
    }

    /// Sectors that could not be read can be read again. True if there were any.
    pub fn cure_latent(&self) -> bool {
        self.drive().cure_latent()
    }

    /// A file at rest is gone. True if it was there.
    pub fn lose_file(&self, path: &Path) -> bool {
        self.drive().lose_file(path)
    }

    /// A file of another disk takes the place of the own one of this name. True if both were there.
    pub fn take_file(&self, other: &DiskHandle, path: &Path) -> bool {
        let theirs = other.drive();
        let Ok(file) = theirs.find(path) else { return false };
        self.drive().replace_file(path, theirs.files[file].clone())
    }

    /// Everything is gone. True if there was anything.
    pub fn lose(&self) -> bool {
        let mut drive = self.drive();
        let held = !drive.names.is_empty();
        let mut empty = Drive::new(drive.random.clone());
        (empty.life, empty.capacity) = (drive.life + 1, drive.capacity);
        (empty.rates, empty.counts) = (drive.rates, drive.counts);
        (empty.dice, empty.mishaps) = (drive.dice.clone(), std::mem::take(&mut drive.mishaps));
        (empty.operations, empty.next_write) = (drive.operations, drive.next_write);
        *drive = empty;
        held
    }

    /// Two machines, both down, get each other's disk.
    pub fn swap(&self, other: &DiskHandle) {
        if Arc::ptr_eq(&self.drive, &other.drive) {
            return;
        }
        let (mut mine, mut theirs) = (self.drive(), other.drive());
        std::mem::swap(&mut *mine, &mut *theirs);
        (mine.life, theirs.life) = (mine.life + 1, theirs.life + 1);
    }

    /// What went wrong so far.
    pub fn counts(&self) -> Counts {
        self.drive().counts
    }

    /// The files by name, and their bytes.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let drive = self.drive();
        let file = |(path, file): (&PathBuf, &usize)| (path.clone(), drive.files[*file].length);
        drive.names.iter().map(file).collect()
    }

    /// A digest of names and bytes on stable media.
    pub fn digest(&self) -> u128 {
        self.drive().digest()
    }

    /// True if the power could go and no file, segment or superblock, would be other than it is
    /// read now, names included. One that is being made, "NAME.new", is read by nobody.
    pub fn is_settled(&self) -> bool {
        self.drive().is_settled(|path| path.extension().is_none_or(|end| end != "new"))
    }

    /// How many copies of this superblock are on stable media.
    pub fn stable_superblocks(&self, dir: &Path, wanted: &Superblock) -> usize {
        let path = superblock_path(dir);
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let copies = 0..COPIES as u64;
        let held = copies.filter(|copy| {
            self.read_stable(&path, copy * COPY_DISTANCE, &mut bytes)
                && decode(&bytes).is_ok_and(|copy| copy.superblock == *wanted)
        });
        held.count()
    }

    /// What of a file is on stable media now. False if there is no such file.
    pub fn read_stable(&self, path: &Path, at: u64, out: &mut [u8]) -> bool {
        let drive = self.drive();
        let found = drive.find(path);
        found.map(|file| drive.files[file].stable.read(at, out)).is_ok()
    }
}
