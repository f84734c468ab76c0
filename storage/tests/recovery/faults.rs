//! What a disk does wrong while a node starts or makes files, by a disk that does it on purpose.

use crate::common::{Node, TestDir, config, identity, poke, ten_groups};
use chainring_ring::ids::Durability;
use chainring_storage::config::address;
use chainring_storage::segment::segment_path;
use chainring_storage::superfile::{COPY_DISTANCE, read_superblock_on};
use chainring_storage::{
    Access, Damage, DamageState, Disk, DiskFile, FileSystem, LogConfig, LogError, LogReader,
    ReadAhead, SharedDisk, Superblock, SuperblockFile, create_segment, inspect_on,
};
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The file system of this machine, with faults.
#[derive(Clone, Debug, Default)]
struct Faulty(Arc<Mutex<Faults>>);

#[derive(Debug, Default)]
struct Faults {
    /// Bytes of a file that cannot be read.
    bad: (PathBuf, Range<u64>),
    /// Writes at these offsets are said to be done, and are not.
    lost: Vec<u64>,
    /// Syncs of directories that fail.
    sync_dir: u32,
    /// Removals behind which the next sync of a directory fails.
    removals: u32,
}

#[derive(Debug)]
struct FaultyFile {
    disk: Faulty,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl Disk for Faulty {
    fn open(&self, path: &Path, access: Access, dev: bool) -> io::Result<Box<dyn DiskFile>> {
        let file = FileSystem.open(path, access, dev)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), path: path.to_path_buf(), file }))
    }
    fn exists(&self, path: &Path) -> bool {
        FileSystem.exists(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, u64)>> {
        FileSystem.list(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut faults = self.0.lock().unwrap();
        if faults.removals > 0 {
            faults.removals -= 1;
            faults.sync_dir += 1;
        }
        FileSystem.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileSystem.rename(from, to)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        FileSystem.create_dir_all(dir)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        FileSystem.remove_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut faults = self.0.lock().unwrap();
        if faults.sync_dir > 0 {
            faults.sync_dir -= 1;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        FileSystem.sync_dir(dir)
    }
    fn check_direct(&self, dir: &Path, development: bool) -> Result<bool, LogError> {
        FileSystem.check_direct(dir, development)
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let (path, bad) = self.disk.0.lock().unwrap().bad.clone();
        if path == self.path && offset < bad.end && bad.start < offset + bytes.len() as u64 {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.file.read_at(bytes, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.disk.0.lock().unwrap().lost.contains(&offset) {
            return Ok(bytes.len());
        }
        self.file.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

/// A sector that cannot be read costs the group that it lies in, and nobody else: neither the walk
/// nor whoever then reads the neighbours in large steps stops at it.
#[test]
fn a_sector_that_cannot_be_read_costs_its_group_alone() {
    let dir = TestDir::new();
    let node = ten_groups(&dir);
    let (bad, kept) = (4, node.kept.clone());
    let (segment, offset) = node.block_of(bad);
    drop(node);
    let disk = Faulty::default();
    let range = u64::from(offset)..u64::from(offset) + 4096;
    disk.0.lock().unwrap().bad = (segment_path(&dir.0, segment), range);
    let config = LogConfig { disk: Arc::new(disk.clone()), ..config(&dir.0) };
    let node = Node::start_as(&dir.0, config, 3).unwrap();
    let unknown = Damage {
        from: address(segment, offset),
        to: address(segment, offset + 4096),
        state: DamageState::Unknown,
    };
    assert_eq!(node.recovered.unknowns, [unknown]);
    let report = inspect_on(&(Arc::new(disk) as SharedDisk), &dir.0).unwrap();
    assert_eq!(report.superblock.unwrap().damage, [unknown]);
    let config = &node.config;
    let reader = LogReader::on(config.disk.clone(), &dir.0, identity(), config.development);
    let mut ahead = ReadAhead::new(reader, 1 << 20);
    for (index, group) in kept.iter().enumerate() {
        for (place, frame) in &group.values {
            let read = ahead.read(*place).map(|(_, bytes)| bytes);
            match index == bad {
                true => assert!(matches!(read, Err(LogError::Io { .. })), "{read:?}"),
                false => assert_eq!(read.unwrap(), &frame[..]),
            }
        }
    }
}

/// A copy that the disk said it wrote and did not write counts as not written. Any one may be, for
/// good; where two are, a write ends and leaves what was there.
#[test]
fn a_superblock_is_written_when_three_copies_can_be_read() {
    let dir = TestDir::new();
    let (disk, development) = (Faulty::default(), config(&dir.0).development);
    let mut superblock = Superblock::new(identity(), Durability::Sync, 512, 3);
    drop(SuperblockFile::create(&disk, &dir.0, &superblock, development).unwrap());
    let open = || SuperblockFile::open(&disk, &dir.0, &identity(), development).unwrap().0;
    for lost in 0..4 {
        disk.0.lock().unwrap().lost = [lost * COPY_DISTANCE].into();
        let mut file = open();
        for _ in 0..3 {
            superblock.start += 1;
            file.write(&superblock).unwrap();
            assert_eq!(read_superblock_on(&disk, &dir.0).unwrap(), superblock);
        }
    }
    disk.0.lock().unwrap().lost = [0, COPY_DISTANCE].into();
    let next = Superblock { start: superblock.start + 1, ..superblock.clone() };
    assert!(matches!(open().write(&next), Err(LogError::Poisoned)));
    assert_eq!(read_superblock_on(&disk, &dir.0).unwrap(), superblock);
}

/// A segment whose name may not be durable is not one that was made before.
#[test]
fn a_segment_is_there_when_its_name_is_durable() {
    let dir = TestDir::new();
    let disk = Faulty::default();
    disk.0.lock().unwrap().sync_dir = 1;
    let config = LogConfig { disk: Arc::new(disk), ..config(&dir.0) };
    let failed = create_segment(&dir.0, &config, 0).unwrap_err();
    assert!(matches!(failed, LogError::Io { .. }), "{failed}");
    create_segment(&dir.0, &config, 0).unwrap();
    assert!(matches!(create_segment(&dir.0, &config, 0), Err(LogError::Exists { .. })));
}

/// A cut began a segment, and before anything was written there the log is started again: what was
/// cut goes once more, and wherever that ends, no segment is missing below one that is there.
#[test]
fn a_segment_goes_after_those_behind_it() {
    let dir = TestDir::new();
    let disk = Faulty::default();
    disk.0.lock().unwrap().removals = 1;
    let two_ahead = LogConfig { preallocate: 2, ..config(&dir.0) };
    let faulty = LogConfig { disk: Arc::new(disk), ..two_ahead.clone() };
    let mut node = Node::start_as(&dir.0, two_ahead.clone(), 3).unwrap();
    loop {
        let next = node.plan(&[4096]);
        if next.plan.segment == 1 {
            node.write_part(&next, 0..next.bytes.len() - 512);
            break;
        }
        node.write(next);
    }
    let kept = node.kept.len();
    drop(node);
    let node = Node::start_as(&dir.0, two_ahead, 3).unwrap();
    assert_eq!(node.recovered.cuts[0].from, address(1, 4096));
    drop(node);
    // The power failed before the seal of that start was on the disk.
    poke(&dir.0, 1, 4096, &[0; 4096]);
    let start = || Node::start_as(&dir.0, faulty.clone(), 3);
    assert!(start().is_err(), "it ends behind the first removal");
    let node = start().unwrap();
    assert!(!node.recovered.damaged, "{:x?}", node.recovered.unknowns);
    assert_eq!(node.kept.len(), kept);
}
