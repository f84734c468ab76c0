//! What lies below the blocking code of a log: a file system, as a trait. Everything of this crate
//! but the lock of a directory reads and writes through it, so that the same recovery runs on any
//! disk. The data path does not: its writes go from the shard to the kernel.
//!
//! Invariant: nothing here retries or hides what a disk says, but for calls cut short by a signal.

use crate::config::GROUP_ALIGN;
use crate::direct::AlignedBuf;
use crate::error::LogError;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write; a write returns before it is durable.
    Write,
    /// Read and write; a write returns when it is durable.
    WriteDurable,
    /// As `Write`, and the file must not exist.
    Create,
}

/// A file system that holds stores.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// Opens a file past the page cache, or through it for development.
    ///
    /// # Errors
    /// What the system says; `EINVAL` where the file system knows no direct files.
    fn open(&self, path: &Path, access: Access, development: bool)
    -> io::Result<Box<dyn DiskFile>>;

    /// Whether there is a file or directory of that name.
    fn exists(&self, path: &Path) -> bool;

    /// The files and directories in a directory with their lengths, in no order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, u64)>>;

    /// Removes a file; durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file or directory, over what has that name; durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes a directory and those above it, as far as they are missing.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Removes a directory and all that is in it.
    ///
    /// # Errors
    /// What the system says.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes names in a directory durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether files in `dir` can be read and written past the page cache; in development they
    /// need not.
    ///
    /// # Errors
    /// [`LogError::NoDirect`] unless `development`; [`LogError::Io`] if the directory takes no
    /// files, [`LogError::Full`] if it is full.
    fn check_direct(&self, dir: &Path, development: bool) -> Result<bool, LogError>;
}

/// An open file. Of a direct one buffers, offsets and lengths are multiples of 4096.
pub trait DiskFile: std::fmt::Debug + Send {
    /// Reads into `bytes` from `offset` on; fewer at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`; may write fewer than all `bytes`.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes durable what was written to the file, by whomever.
    ///
    /// # Errors
    /// What the system says. A second call proves nothing then.
    fn sync(&self) -> io::Result<()>;

    /// Bytes of the file.
    ///
    /// # Errors
    /// What the system says.
    fn length(&self) -> io::Result<u64>;

    /// Fills `bytes`.
    ///
    /// # Errors
    /// As [`DiskFile::read_at`]; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.read_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => (bytes, offset) = (&mut bytes[read..], offset + read as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all `bytes`.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`]; `WriteZero` if the file takes no more.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(wrote) => (bytes, offset) = (&bytes[wrote..], offset + wrote as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A file system as it is held: by every part of a node that reads or writes its store.
pub type SharedDisk = Arc<dyn Disk>;

/// The file system of this machine.
#[derive(Clone, Copy, Debug)]
pub struct FileSystem;

impl FileSystem {
    /// As it is held.
    pub fn shared() -> SharedDisk {
        Arc::new(FileSystem)
    }
}

impl Disk for FileSystem {
    fn open(
        &self,
        path: &Path,
        access: Access,
        development: bool,
    ) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(open_file(path, access, development)?))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, u64)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(data) => found.push((entry.file_name(), data.len())),
                // Removed or renamed since, by a node that is looked at while it runs.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    /// Tries a write and a read, since some file systems take the flag and fail later.
    fn check_direct(&self, dir: &Path, development: bool) -> Result<bool, LogError> {
        let path = dir.join("direct-probe");
        let _ = std::fs::remove_file(&path);
        let result = probe(&path);
        let _ = std::fs::remove_file(&path);
        let file_system = file_system(dir);
        // Linux lets these take O_DIRECT, but there is no disk below them.
        let in_memory = ["tmpfs", "ramfs"].contains(&file_system.as_str());
        match result {
            Ok(()) if !in_memory => Ok(true),
            Err(source) if is_full(&source) => {
                Err(LogError::Full { dir: dir.to_path_buf(), bytes: u64::from(GROUP_ALIGN) })
            }
            Err(source) if !refuses_direct(&source) => Err(LogError::io("probe of", dir, source)),
            _ if development => Ok(false),
            _ => Err(LogError::NoDirect { dir: dir.to_path_buf(), file_system }),
        }
    }
}

impl DiskFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Opens a file of this machine: for [`FileSystem`], and for the shard's own descriptors.
pub(crate) fn open_file(path: &Path, access: Access, development: bool) -> io::Result<File> {
    let mut flags = libc::O_CLOEXEC;
    if !development {
        flags |= libc::O_DIRECT;
    }
    if access == Access::WriteDurable {
        flags |= libc::O_DSYNC;
    }
    OpenOptions::new()
        .read(true)
        .write(access != Access::Read)
        .create_new(access == Access::Create)
        .custom_flags(flags)
        .open(path)
}

/// Whether an existing file opens past the page cache: for those who only look.
pub(crate) fn opens_direct(disk: &dyn Disk, path: &Path) -> bool {
    disk.open(path, Access::Read, false).is_ok()
}

/// Makes names in `dir` durable.
pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    disk.sync_dir(dir).map_err(|source| LogError::io("sync of directory", dir, source))
}

fn refuses_direct(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS))
}

/// Whether the system said that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

fn probe(path: &Path) -> io::Result<()> {
    let file = open_file(path, Access::Create, false)?;
    let mut page = AlignedBuf::new(GROUP_ALIGN as usize);
    page.fill(0x5a);
    DiskFile::write_all_at(&file, &page, 0)?;
    page.fill(0);
    DiskFile::read_exact_at(&file, &mut page, 0)?;
    match page.iter().all(|byte| *byte == 0x5a) {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// The type of file system that `dir` is on, from the table of mounts; "unknown" if not found.
fn file_system(dir: &Path) -> String {
    let unknown = || "an unknown file system".to_string();
    let Ok(dir) = dir.canonicalize() else { return unknown() };
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return unknown() };
    let mut best = (0, unknown());
    for line in mounts.lines() {
        // "36 35 98:0 /root /mount/point options - type source options"
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4) else { continue };
        // A later mount hides an earlier one at the same point.
        if dir.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), right.split(' ').next().unwrap_or("unknown").to_string());
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system in memory takes the flag on newer kernels, refuses it on older ones; both are
    /// no disk.
    #[test]
    fn a_file_system_without_a_disk_is_refused() {
        let dir = Path::new("/dev/shm");
        if file_system(dir) != "tmpfs" {
            eprintln!("skipped: /dev/shm is not a tmpfs here");
            return;
        }
        let dir = dir.join(format!("chainring-probe-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let refused = FileSystem.check_direct(&dir, false);
        let accepted = FileSystem.check_direct(&dir, true);
        let left = std::fs::read_dir(&dir).unwrap().count();
        std::fs::remove_dir_all(&dir).unwrap();
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("tmpfs") && error.contains("development"), "{error}");
        assert!(!accepted.unwrap());
        assert_eq!(left, 0, "the probe is removed");
    }
}
