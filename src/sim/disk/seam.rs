//! The simulated disk as the file system below a store.
//!
//! Invariant: every call answers as the real one would, alignment of direct files included.

use super::image::SECTOR;
use super::{DiskHandle, Target};
use chainring_storage::{Access, Disk, DiskFile, LogError};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Whoever asks for less room than this is told that a disk is full.
const PROBE_BYTES: u64 = 4096;

#[derive(Debug)]
struct OpenFile {
    disk: DiskHandle,
    target: Target,
    access: Access,
    direct: bool,
}

impl Disk for DiskHandle {
    fn open(
        &self,
        path: &Path,
        access: Access,
        development: bool,
    ) -> io::Result<Box<dyn DiskFile>> {
        let mut drive = self.drive();
        drive.alive(drive.life)?;
        let file = match access {
            Access::Create => drive.create(path)?,
            _ => drive.find(path)?,
        };
        let target = Target { file, life: drive.life };
        Ok(Box::new(OpenFile { disk: self.clone(), target, access, direct: !development }))
    }

    fn exists(&self, path: &Path) -> bool {
        let drive = self.drive();
        drive.alive(drive.life).is_ok()
            && (drive.names.contains_key(path) || drive.dirs.contains(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, u64)>> {
        let drive = self.drive();
        drive.alive(drive.life)?;
        if !drive.dirs.contains(dir) {
            return Err(Errno::NOENT.into());
        }
        let here = drive.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let named = here.filter_map(|(path, file)| {
            Some((path.file_name()?.to_os_string(), drive.files[*file].length))
        });
        Ok(named.collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.drive().remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.drive().rename(from, to)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.drive().create_dir_all(dir)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.drive().remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.drive().sync_dir(dir)
    }

    fn check_direct(&self, dir: &Path, _development: bool) -> Result<bool, LogError> {
        let drive = self.drive();
        drive.alive(drive.life).map_err(|source| LogError::Io {
            stage: "probe of",
            path: dir.to_path_buf(),
            source,
        })?;
        match drive.capacity.saturating_sub(drive.used()) < PROBE_BYTES {
            true => Err(LogError::Full { dir: dir.to_path_buf(), bytes: PROBE_BYTES }),
            false => Ok(true),
        }
    }
}

impl OpenFile {
    fn check(&self, at: u64, bytes: usize) -> io::Result<()> {
        let aligned = at.is_multiple_of(SECTOR as u64) && bytes.is_multiple_of(SECTOR);
        if self.direct && !aligned { Err(Errno::INVAL.into()) } else { Ok(()) }
    }
}

impl DiskFile for OpenFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check(offset, bytes.len())?;
        let mut drive = self.disk.drive();
        drive.alive(self.target.life)?;
        drive.try_read(self.target.file, offset, bytes, &self.disk.exposed())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.check(offset, bytes.len())?;
        if self.access == Access::Read {
            return Err(Errno::BADF.into());
        }
        let mut drive = self.disk.drive();
        drive.alive(self.target.life)?;
        let durable = self.access == Access::WriteDurable;
        drive.try_write(self.target.file, offset, bytes, durable)
    }

    fn sync(&self) -> io::Result<()> {
        let mut drive = self.disk.drive();
        drive.alive(self.target.life)?;
        drive.sync(self.target.file)
    }

    fn length(&self) -> io::Result<u64> {
        let drive = self.disk.drive();
        drive.alive(self.target.life)?;
        Ok(drive.files[self.target.file].length)
    }
}
