//! The device as the file system below a store: everything but the writes of the shard.
//!
//! Invariant: reads go to the real file by the production code, and see what the device holds.

use super::desk::{Device, Verdict};
use super::drive::{Key, key_of};
use super::orders::Op;
use chainring_storage::{Access, Disk, DiskFile, FileSystem, LogError};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// A part of a write, or a write that has several: bytes.
const SECTOR: usize = 512;

#[derive(Debug)]
pub(super) struct ChaosDisk {
    pub device: Device,
}

#[derive(Debug)]
struct OpenFile {
    device: Device,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    key: Key,
    access: Access,
}

impl ChaosDisk {
    /// A change of names. One in which the power fails is made, and may be lost.
    fn change(&self, op: Op, path: &Path, make: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.device.begin(op, path, 0) {
            Verdict::Pass | Verdict::Short => make(),
            Verdict::Fail(errno) => Err(errno.into()),
            Verdict::Dead => Err(Errno::IO.into()),
            Verdict::Dark => {
                make()?;
                self.device.darken();
                Err(Errno::IO.into())
            }
        }
    }
}

impl Disk for ChaosDisk {
    fn open(
        &self,
        path: &Path,
        access: Access,
        development: bool,
    ) -> io::Result<Box<dyn DiskFile>> {
        let mut file = None;
        let open = || {
            file = Some(FileSystem.open(path, access, development)?);
            let mut drive = self.device.drive();
            if access == Access::Create {
                drive.names.made(path);
            }
            if access != Access::Read {
                drive.know(path, !development, access == Access::Create)?;
            }
            Ok(())
        };
        let op = if access == Access::Create { Op::Create } else { Op::Open };
        self.change(op, path, open)?;
        let file = file.expect("it was opened");
        let (device, path, key) = (self.device.clone(), path.to_path_buf(), key_of(path)?);
        Ok(Box::new(OpenFile { device, file, path, key, access }))
    }

    fn exists(&self, path: &Path) -> bool {
        FileSystem.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, u64)>> {
        let mut listed = FileSystem.list(dir)?;
        let drive = self.device.drive();
        for (name, length) in &mut listed {
            let held = key_of(&dir.join(&*name)).ok().and_then(|key| drive.get(key));
            *length = held.map_or(*length, |held| held.length);
        }
        Ok(listed)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Op::Remove, path, || self.device.drive().names.remove(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Op::Rename, to, || self.device.drive().names.rename(from, to))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        FileSystem.create_dir_all(dir)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        FileSystem.remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.device.begin(Op::Dir, dir, 0) {
            Verdict::Pass | Verdict::Short => {
                let mut drive = self.device.drive();
                FileSystem.sync_dir(dir)?;
                drive.names.settle()
            }
            Verdict::Fail(errno) => Err(errno.into()),
            Verdict::Dead => Err(Errno::IO.into()),
            Verdict::Dark => {
                self.device.darken();
                Err(Errno::IO.into())
            }
        }
    }

    fn check_direct(&self, dir: &Path, development: bool) -> Result<bool, LogError> {
        FileSystem.check_direct(dir, development)
    }
}

impl DiskFile for OpenFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let wanted = bytes.len();
        match self.device.begin(Op::Read, &self.path, wanted as u64) {
            Verdict::Fail(errno) => return Err(errno.into()),
            Verdict::Dead => return Err(Errno::IO.into()),
            Verdict::Pass | Verdict::Short | Verdict::Dark => {}
        }
        let drive = self.device.drive();
        let read = self.file.read_at(bytes, offset)?;
        let Some(held) = drive.get(self.key) else { return Ok(read) };
        let known = held.length.saturating_sub(offset).min(wanted as u64) as usize;
        bytes[read.min(known)..known].fill(0);
        held.overlay(offset, &mut bytes[..known]);
        Ok(known)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let durable = self.access == Access::WriteDurable;
        let verdict = self.device.begin(Op::Write, &self.path, bytes.len() as u64);
        let mut drive = self.device.drive();
        match verdict {
            Verdict::Pass => {
                drive.write(self.key, offset, bytes, durable, false);
                Ok(bytes.len())
            }
            Verdict::Short => {
                let half = (bytes.len() / 2).next_multiple_of(SECTOR).min(bytes.len());
                drive.write(self.key, offset, &bytes[..half], durable, false);
                Ok(half)
            }
            Verdict::Fail(errno) => {
                drive.write_fails(self.key, offset, bytes);
                Err(errno.into())
            }
            Verdict::Dead => Err(Errno::IO.into()),
            Verdict::Dark => {
                drive.write(self.key, offset, bytes, durable, true);
                drop(drive);
                self.device.darken();
                Err(Errno::IO.into())
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.device.begin(Op::Sync, &self.path, 0) {
            Verdict::Pass | Verdict::Short => {
                // Of a file that was only read nothing is held.
                if self.access != Access::Read {
                    self.device.drive().flush(self.key);
                }
                self.file.sync()
            }
            Verdict::Fail(errno) => {
                if self.access != Access::Read {
                    self.device.drive().flush_fails(self.key);
                }
                Err(errno.into())
            }
            Verdict::Dead => Err(Errno::IO.into()),
            Verdict::Dark => {
                self.device.darken();
                Err(Errno::IO.into())
            }
        }
    }

    fn length(&self) -> io::Result<u64> {
        match self.device.drive().get(self.key) {
            Some(held) => Ok(held.length),
            None => self.file.length(),
        }
    }
}
