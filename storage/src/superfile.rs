//! The file of the superblock: four copies, a MiB apart, written one after another.
//!
//! Invariants: a write is done when three copies hold it; no copy is written without which the
//! others would not give what was acknowledged last, or what is being written, so one copy that is
//! bad for good ends nothing, and a power failure beside it costs nothing; sequences rise over all
//! that was ever written, also where it was not chosen or could not be read, so that two different
//! superblocks never carry the same one. After a failed write nothing more is accepted.

use crate::config::Identity;
use crate::direct::AlignedBuf;
use crate::disk::{Access, Disk, DiskFile, FileSystem, is_full, opens_direct, sync_dir};
use crate::error::LogError;
use crate::superblock::{
    Choice, Copy, SUPERBLOCK_BYTES, Stamp, Superblock, choose, decode, newest,
};
use chainring_ring::header::u64_at;
use chainring_ring::{mark, mutant};
use std::path::{Path, PathBuf};

/// Copies in the file.
pub const COPIES: usize = 4;
/// Distance between copies, bytes: further than one mishap of a disk reaches.
pub const COPY_DISTANCE: u64 = 1 << 20;
/// One write of zeros, bytes.
const ZERO_WRITE_BYTES: usize = 64 << 10;
/// Copies that have to be written before a write is done.
pub const COPIES_WRITTEN_MIN: usize = 3;
/// A copy that cannot be read may carry a later sequence than all others, of a write that failed,
/// or of many: so far ahead no node gets. One that is torn may become whole again by another tear,
/// since bodies can be equal. As much again is taken from what is written, for two lives in a row
/// may be blind to what the other left.
const UNREAD_SEQUENCES: u64 = 1 << 32;

/// The open file.
#[derive(Debug)]
pub struct SuperblockFile {
    file: Box<dyn DiskFile>,
    buf: AlignedBuf,
    /// What is read back of a copy.
    check: AlignedBuf,
    /// Highest sequence in the file.
    sequence: u64,
    /// Of the copies that are known to be intact.
    stamps: [Option<Stamp>; COPIES],
    /// A copy was not intact, and nothing was written since.
    unread: bool,
    poisoned: bool,
}

/// The path of the superblock.
pub fn superblock_path(dir: &Path) -> PathBuf {
    dir.join("superblock")
}

impl SuperblockFile {
    /// Makes the file of a new store, durably. It never replaces one.
    ///
    /// # Errors
    /// [`LogError::Exists`], [`LogError::Full`], [`LogError::Io`].
    pub fn create(
        disk: &dyn Disk,
        dir: &Path,
        superblock: &Superblock,
        development: bool,
    ) -> Result<SuperblockFile, LogError> {
        let path = superblock_path(dir);
        if disk.exists(&path) {
            return Err(LogError::Exists { path });
        }
        let partial = dir.join("superblock.new");
        let _ = disk.remove(&partial);
        let bytes = COPIES as u64 * COPY_DISTANCE;
        let error = |source| match is_full(&source) {
            true => LogError::Full { dir: dir.to_path_buf(), bytes },
            false => LogError::io("creation of", &path, source),
        };
        let zero = || {
            let file = disk.open(&partial, Access::Create, development)?;
            let buf = AlignedBuf::new(ZERO_WRITE_BYTES);
            for at in (0..bytes).step_by(buf.len()) {
                file.write_all_at(&buf, at)?;
            }
            file.sync()
        };
        let made = zero().map_err(error).and_then(|()| {
            let file = disk.open(&partial, Access::WriteDurable, development).map_err(error)?;
            let mut file = SuperblockFile::over(file, 0);
            file.write(superblock)?;
            disk.rename(&partial, &path).map_err(error)?;
            Ok(file)
        });
        if made.is_err() {
            let _ = disk.remove(&partial);
        }
        sync_dir(disk, dir)?;
        made
    }

    /// Opens the file and chooses the copy that counts, by [`choose`]; if it is the only one, it is
    /// written again.
    ///
    /// # Errors
    /// [`LogError::NoSuperblock`], [`LogError::SuperblockUnreadable`] and
    /// [`LogError::SuperblockFork`] mean that this node has lost its memory; nothing is formatted.
    /// [`LogError::Foreign`] if it is of another cluster, epoch, ring or node.
    pub fn open(
        disk: &dyn Disk,
        dir: &Path,
        identity: &Identity,
        development: bool,
    ) -> Result<(SuperblockFile, Superblock), LogError> {
        let path = superblock_path(dir);
        let cached = mutant!(SuperblockCached);
        let access = if cached { Access::Write } else { Access::WriteDurable };
        let file = disk.open(&path, access, development);
        let file = file.map_err(|source| not_opened(&path, source))?;
        // What an earlier process wrote and did not sync must not count before it is durable.
        file.sync().map_err(|source| LogError::io("sync of", &path, source))?;
        let copies = read_copies(&*file);
        let highest = copies.iter().flatten().map(|copy| copy.sequence).max().unwrap_or(0);
        let copy = chosen(&path, &copies)?;
        if copy.superblock.identity != *identity {
            mark!(SuperblockForeign);
            let (expected, found) = (Box::new(*identity), Box::new(copy.superblock.identity));
            return Err(LogError::Foreign { path, expected, found });
        }
        // A newer one that was never acknowledged is no parent, and its sequence is used up: a gap
        // of one more keeps the next write from being taken for its child.
        let unfinished = highest > copy.sequence;
        if unfinished {
            mark!(SuperblockUnfinished);
        }
        let sequence = highest + u64::from(unfinished);
        let unread = copies.iter().any(Option::is_none);
        if unread {
            mark!(SuperblockCopyUnread);
        }
        let mut opened = SuperblockFile::over(file, copy.sequence);
        opened.stamps = copies.each_ref().map(|copy| copy.as_ref().map(Copy::stamp));
        opened.settle(&copy);
        (opened.sequence, opened.unread) = (sequence, unread);
        Ok((opened, copy.superblock))
    }

    fn over(file: Box<dyn DiskFile>, sequence: u64) -> SuperblockFile {
        let [buf, check] = [(); 2].map(|()| AlignedBuf::new(SUPERBLOCK_BYTES));
        let stamps = [None; COPIES];
        SuperblockFile { file, buf, check, sequence, stamps, unread: false, poisoned: false }
    }

    /// Writes what counts again as it is, until two hold it: what followed a copy that may be bad
    /// would else follow nothing once that one cannot be read.
    fn settle(&mut self, copy: &Copy) {
        let (base, mut left) = (Some(copy.stamp()), [true; COPIES]);
        while self.stamps.iter().filter(|stamp| **stamp == base).count() < 2 {
            let Some(next) = self.next_copy(&left, base) else { return };
            left[next] = false;
            self.write_copy(next, &copy.superblock, copy.parent);
        }
    }

    /// Writes the copies one after another, each durable before the next begins, so that at most
    /// one is torn, in the order of [`SuperblockFile::next_copy`]. Blocks. Allocates nothing.
    ///
    /// # Errors
    /// [`LogError::Poisoned`] if fewer than three copies hold it, now or before.
    pub fn write(&mut self, superblock: &Superblock) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        let base = newest(&self.stamps);
        let parent = base.map_or(0, |base| base.checksum);
        self.sequence += 1;
        if std::mem::take(&mut self.unread) {
            superblock.encode(0, 0, parent, &mut self.buf);
            // The frame's checksum, which is over all of it.
            self.sequence += UNREAD_SEQUENCES + u64_at(&self.buf, 0) % UNREAD_SEQUENCES;
        }
        let (mut left, mut written) = ([true; COPIES], 0);
        while let Some(copy) = self.next_copy(&left, base) {
            left[copy] = false;
            written += usize::from(self.write_copy(copy, superblock, parent));
        }
        if left.contains(&true) {
            mark!(SuperblockWriteGivenUp);
        }
        let least = if mutant!(SuperblockWriteUnchecked) { 1 } else { COPIES_WRITTEN_MIN };
        self.poisoned = written < least;
        match () {
            () if self.poisoned => mark!(SuperblockPoisoned),
            () if written < COPIES => mark!(SuperblockCopyFailed),
            () => {}
        }
        if self.poisoned { Err(LogError::Poisoned) } else { Ok(()) }
    }

    /// Of the copies left the one to be written next: one without which the others still give the
    /// superblock before, `base`, or the one that is being written. First those that are not
    /// intact, then what was never finished, then the oldest; last those that hold the one before.
    fn next_copy(&self, left: &[bool; COPIES], base: Option<Stamp>) -> Option<usize> {
        let spare = |copy: &usize| {
            let mut others = self.stamps;
            others[*copy] = None;
            let found = newest(&others);
            // A new file holds nothing yet that could be lost.
            base.is_none()
                || found.is_some_and(|it| Some(it) == base || it.sequence == self.sequence)
        };
        let parent = base.map(|base| base.parent);
        let age = |copy: &usize| {
            self.stamps[*copy]
                .map(|it| (Some(it) == base, Some(it.checksum) == parent, it.sequence))
        };
        (0..COPIES).filter(|copy| left[*copy]).filter(spare).min_by_key(age)
    }

    /// Writes one copy, and reads it back, since a disk may lose a write or put it elsewhere and
    /// say that it is done. True if it holds what it should.
    fn write_copy(&mut self, copy: usize, superblock: &Superblock, parent: u128) -> bool {
        let sequence = self.sequence;
        let checksum = superblock.encode(copy as u8, sequence, parent, &mut self.buf);
        let at = copy as u64 * COPY_DISTANCE;
        let wrote = self.file.write_all_at(&self.buf, at);
        let read = wrote.and_then(|()| self.file.read_exact_at(&mut self.check, at));
        let holds = read.is_ok() && *self.check == *self.buf;
        self.stamps[copy] = holds.then_some(Stamp { sequence, checksum, parent });
        holds
    }
}

/// Reads the superblock of a directory without changing or locking anything: for inspection.
///
/// # Errors
/// As [`SuperblockFile::open`] but `Foreign`.
pub fn read_superblock(dir: &Path) -> Result<Superblock, LogError> {
    read_superblock_on(&FileSystem, dir)
}

/// As [`read_superblock`], on any disk.
///
/// # Errors
/// As [`read_superblock`].
pub fn read_superblock_on(disk: &dyn Disk, dir: &Path) -> Result<Superblock, LogError> {
    let path = superblock_path(dir);
    // As a node beside writes it: cached reads could keep what it has since overwritten.
    let development = !opens_direct(disk, &path);
    let file = disk.open(&path, Access::Read, development);
    let file = file.map_err(|source| not_opened(&path, source))?;
    Ok(chosen(&path, &read_copies(&*file))?.superblock)
}

fn not_opened(path: &Path, source: std::io::Error) -> LogError {
    match source.kind() {
        std::io::ErrorKind::NotFound => {
            mark!(SuperblockMissing);
            LogError::NoSuperblock { path: path.to_path_buf() }
        }
        _ => LogError::io("open of", path, source),
    }
}

/// The intact copies.
fn read_copies(file: &dyn DiskFile) -> [Option<Copy>; COPIES] {
    let mut buf = AlignedBuf::new(SUPERBLOCK_BYTES);
    core::array::from_fn(|copy| {
        file.read_exact_at(&mut buf, copy as u64 * COPY_DISTANCE).ok()?;
        decode(&buf).ok()
    })
}

fn chosen(path: &Path, copies: &[Option<Copy>; COPIES]) -> Result<Copy, LogError> {
    let path = path.to_path_buf();
    match choose(copies) {
        Choice::Open(copy) => {
            let same = |other: &&Copy| other.sequence == copy.sequence;
            match copies.iter().flatten().filter(same).count() {
                1 => mark!(SuperblockFollows),
                2 => mark!(SuperblockHeldByTwo),
                3 => mark!(SuperblockHeldByThree),
                _ => {}
            }
            Ok(*copy)
        }
        Choice::Unreadable { intact } => {
            mark!(SuperblockUnreadable);
            Err(LogError::SuperblockUnreadable { path, intact })
        }
        Choice::Fork { sequence } => Err(LogError::SuperblockFork { path, sequence }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct::tests::TestDir;
    use crate::segment::tests::{identity, small};
    use chainring_ring::ids::{Durability, NodeId};

    fn sample() -> Superblock {
        Superblock::new(identity(), Durability::Sync, 512, 3)
    }

    fn spoil(dir: &Path, copy: usize) {
        let file = std::fs::OpenOptions::new().write(true).open(superblock_path(dir)).unwrap();
        file.write_all_at(b"spoiled", copy as u64 * COPY_DISTANCE + 300).unwrap();
        file.sync_all().unwrap();
    }

    /// All 16 patterns of damaged copies: two intact ones open, fewer do not.
    #[test]
    fn every_pattern_of_damaged_copies() {
        for pattern in 0..16u32 {
            let dir = TestDir::new();
            let development = small(&dir.0).development;
            let mut superblock = sample();
            let mut file =
                SuperblockFile::create(&FileSystem, &dir.0, &superblock, development).unwrap();
            superblock.start = 7;
            file.write(&superblock).unwrap();
            drop(file);
            (0..COPIES)
                .filter(|copy| pattern >> copy & 1 == 1)
                .for_each(|copy| spoil(&dir.0, copy));
            let intact = 4 - pattern.count_ones() as usize;
            match SuperblockFile::open(&FileSystem, &dir.0, &identity(), development) {
                Ok((mut file, read)) => {
                    assert!(intact >= 2, "pattern {pattern:04b}");
                    assert_eq!(read, superblock);
                    file.write(&read).unwrap();
                    assert_eq!(read_superblock(&dir.0).unwrap(), superblock, "all rewritten");
                }
                Err(LogError::SuperblockUnreadable { intact: counted, .. }) => {
                    assert!(intact < 2, "pattern {pattern:04b}");
                    assert_eq!(counted, intact);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A write that reached one copy and was never acknowledged: the old one counts, and what is
    /// written next is not taken for a fork of the lost one, whatever becomes of the copies.
    #[test]
    fn a_torn_write_is_passed_over() {
        let dir = TestDir::new();
        let development = small(&dir.0).development;
        let mut file = SuperblockFile::create(&FileSystem, &dir.0, &sample(), development).unwrap();
        let torn = Superblock { start: 5, ..sample() };
        torn.encode(0, 2, newest(&file.stamps).unwrap().checksum, &mut file.buf);
        file.file.write_all_at(&file.buf, 0).unwrap();
        drop(file);
        let (mut file, read) =
            SuperblockFile::open(&FileSystem, &dir.0, &identity(), development).unwrap();
        assert_eq!(read, sample());
        let next = Superblock { start: 6, ..sample() };
        // The new write reaches all copies but the first, which keeps the torn one.
        let mut kept = AlignedBuf::new(SUPERBLOCK_BYTES);
        file.file.read_exact_at(&mut kept, 0).unwrap();
        file.write(&next).unwrap();
        file.file.write_all_at(&kept, 0).unwrap();
        let (_, read) =
            SuperblockFile::open(&FileSystem, &dir.0, &identity(), development).unwrap();
        assert_eq!(read, next);
    }

    /// A file of which writes fail, and tear what was there.
    #[derive(Debug)]
    struct Tears {
        file: Box<dyn DiskFile>,
        /// These: a bit for each copy.
        which: u8,
    }

    impl DiskFile for Tears {
        fn read_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
            self.file.read_at(bytes, offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<usize> {
            if self.which >> (offset / COPY_DISTANCE) & 1 == 0 {
                return self.file.write_at(bytes, offset);
            }
            let mut torn = AlignedBuf::new(SUPERBLOCK_BYTES);
            torn.copy_from_slice(bytes);
            torn[300] ^= 1;
            self.file.write_at(&torn, offset)?;
            Err(std::io::Error::from_raw_os_error(libc::EIO))
        }
        fn sync(&self) -> std::io::Result<()> {
            self.file.sync()
        }
        fn length(&self) -> std::io::Result<u64> {
            self.file.length()
        }
    }

    /// Any of the writes fail, in two lives in a row: what was acknowledged counts, or what was
    /// about to be.
    #[test]
    fn failed_writes_in_a_row_leave_one_that_counts() {
        let cases = (0..16).flat_map(|first| [1, 3, 6, 12].map(|second| (first, second)));
        for case in cases {
            let dir = TestDir::new();
            let development = small(&dir.0).development;
            drop(SuperblockFile::create(&FileSystem, &dir.0, &sample(), development).unwrap());
            let (mut least, mut most) = (0, 0);
            for which in [case.0, case.1] {
                let opened = SuperblockFile::open(&FileSystem, &dir.0, &identity(), development);
                let (mut file, read) = opened.unwrap_or_else(|error| panic!("{case:?}: {error}"));
                assert!((least..=most).contains(&read.start), "{case:?}: {}", read.start);
                file.file = Box::new(Tears { file: file.file, which });
                most += 1;
                if file.write(&Superblock { start: most, ..sample() }).is_ok() {
                    least = most;
                }
            }
            assert!(SuperblockFile::open(&FileSystem, &dir.0, &identity(), development).is_ok());
        }
    }

    /// A file whose power fails in the middle of a write.
    #[derive(Debug)]
    struct Fails {
        file: Box<dyn DiskFile>,
        /// Writes until then.
        left: std::sync::atomic::AtomicUsize,
    }

    impl DiskFile for Fails {
        fn read_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
            self.file.read_at(bytes, offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<usize> {
            let left = self.left.load(std::sync::atomic::Ordering::Relaxed);
            if left == usize::MAX {
                return Err(std::io::ErrorKind::Other.into());
            }
            self.left.store(left.wrapping_sub(1), std::sync::atomic::Ordering::Relaxed);
            let mut torn = AlignedBuf::new(SUPERBLOCK_BYTES);
            torn.copy_from_slice(bytes);
            if left == 0 {
                torn[300] ^= 1;
            }
            self.file.write_at(&torn, offset)
        }
        fn sync(&self) -> std::io::Result<()> {
            self.file.sync()
        }
        fn length(&self) -> std::io::Result<u64> {
            self.file.length()
        }
    }

    /// The power fails in one write after another, each time at any copy: two copies that agree are
    /// left, and what was acknowledged counts, or what was about to be.
    #[test]
    fn torn_writes_in_a_row_leave_two_that_agree() {
        for case in 0..5usize.pow(2) {
            let dir = TestDir::new();
            let development = small(&dir.0).development;
            drop(SuperblockFile::create(&FileSystem, &dir.0, &sample(), development).unwrap());
            let mut start = 0;
            for landed in [case % 5, case / 5] {
                let opened = SuperblockFile::open(&FileSystem, &dir.0, &identity(), development);
                let (mut file, read) = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
                assert!(read.start == start || read.start == start + 1, "{case}");
                start = read.start;
                file.file = Box::new(Fails { file: file.file, left: landed.into() });
                let next = Superblock { start: start + 1, ..sample() };
                assert_eq!(file.write(&next).is_ok(), landed >= COPIES_WRITTEN_MIN);
                start += u32::from(landed >= COPIES_WRITTEN_MIN);
            }
            assert!(SuperblockFile::open(&FileSystem, &dir.0, &identity(), development).is_ok());
        }
    }

    #[test]
    fn missing_foreign_and_existing() {
        let dir = TestDir::new();
        let development = small(&dir.0).development;
        let missing =
            SuperblockFile::open(&FileSystem, &dir.0, &identity(), development).unwrap_err();
        assert!(matches!(missing, LogError::NoSuperblock { .. }));
        SuperblockFile::create(&FileSystem, &dir.0, &sample(), development).unwrap();
        let exists =
            SuperblockFile::create(&FileSystem, &dir.0, &sample(), development).unwrap_err();
        assert!(matches!(exists, LogError::Exists { .. }));
        let other = Identity { node: NodeId(3), ..identity() };
        let foreign = SuperblockFile::open(&FileSystem, &dir.0, &other, development).unwrap_err();
        assert!(matches!(foreign, LogError::Foreign { .. }));
        assert!(foreign.to_string().contains("node 2") && foreign.to_string().contains("node 3"));
    }
}
