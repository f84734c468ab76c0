//! Files that are read and written past the page cache, and the lock on a directory.
//!
//! Invariant: whoever asks for direct files gets them or an error, never silently cached ones.

use crate::config::GROUP_ALIGN;
use crate::error::LogError;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Alignment of buffers, offsets and lengths of direct files, bytes.
const ALIGN: usize = GROUP_ALIGN as usize;

/// Bytes whose address is a multiple of 4096, as direct files demand.
///
/// A `Vec` gives no alignment and asking the allocator for it needs `unsafe`; one page more and
/// an offset need neither.
#[derive(Debug)]
pub struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes.
    pub fn new(len: usize) -> AlignedBuf {
        let bytes = vec![0u8; len + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        assert!(start < ALIGN, "an address of bytes can always be aligned");
        AlignedBuf { bytes, start, len }
    }

    /// Makes it hold at least `len` bytes; what it held is lost if it has to grow.
    pub fn grow(&mut self, len: usize) {
        if len > self.len {
            *self = AlignedBuf::new(len);
        }
    }
}

impl core::ops::Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl core::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

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

/// Opens `path` past the page cache, or through it for development.
///
/// # Errors
/// What the system says; `EINVAL` where the file system knows no direct files.
pub fn open(path: &Path, access: Access, development: bool) -> std::io::Result<File> {
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
pub(crate) fn opens_direct(path: &Path) -> bool {
    open(path, Access::Read, false).is_ok()
}

/// Makes names in `dir` durable.
///
/// # Errors
/// [`LogError::Io`].
pub fn sync_dir(dir: &Path) -> Result<(), LogError> {
    let error = |source| LogError::io("sync of directory", dir, source);
    File::open(dir).map_err(error)?.sync_all().map_err(error)
}

/// Tries a direct write and read in `dir`, since some file systems take the flag and fail later.
/// Returns whether direct files work; in development they need not.
///
/// # Errors
/// [`LogError::NoDirect`] unless `development`; [`LogError::Io`] if the directory takes no files,
/// [`LogError::Full`] if it is full.
pub fn check_direct(dir: &Path, development: bool) -> Result<bool, LogError> {
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

fn refuses_direct(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS))
}

/// Whether the system said that there is no room.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

fn probe(path: &Path) -> std::io::Result<()> {
    let file = open(path, Access::Create, false)?;
    let mut page = AlignedBuf::new(ALIGN);
    page.fill(0x5a);
    file.write_all_at(&page, 0)?;
    page.fill(0);
    file.read_exact_at(&mut page, 0)?;
    match page.iter().all(|byte| *byte == 0x5a) {
        true => Ok(()),
        false => Err(std::io::Error::from_raw_os_error(libc::EINVAL)),
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

/// Holds a data directory for one process, until dropped or the process ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock; does not wait.
    ///
    /// # Errors
    /// [`LogError::Locked`] if another process, or this one, has it.
    pub fn acquire(dir: &Path) -> Result<DirLock, LogError> {
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|source| LogError::io("open of", &path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LogError::Locked { dir: dir.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(LogError::io("lock of", &path, source)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory of its own for a test, removed with it.
    pub struct TestDir(pub PathBuf);

    impl TestDir {
        pub fn new() -> TestDir {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("chainring-storage-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            TestDir(path)
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn buffers_are_aligned() {
        for len in [0, 1, 4096, 100_000] {
            let mut buf = AlignedBuf::new(len);
            assert_eq!(buf.len(), len);
            assert_eq!(buf.as_ptr().align_offset(ALIGN), 0);
            buf.grow(200_000);
            assert_eq!(buf.len(), 200_000);
            assert_eq!(buf.as_ptr().align_offset(ALIGN), 0);
        }
    }

    #[test]
    fn one_process_per_directory() {
        let dir = TestDir::new();
        let lock = DirLock::acquire(&dir.0).unwrap();
        let second = DirLock::acquire(&dir.0).unwrap_err();
        assert!(matches!(second, LogError::Locked { .. }));
        assert!(second.to_string().contains(dir.0.to_str().unwrap()));
        drop(lock);
        DirLock::acquire(&dir.0).unwrap();
    }

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
        let refused = check_direct(&dir, false);
        let accepted = check_direct(&dir, true);
        let left = std::fs::read_dir(&dir).unwrap().count();
        std::fs::remove_dir_all(&dir).unwrap();
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("tmpfs") && error.contains("development"), "{error}");
        assert!(!accepted.unwrap());
        assert_eq!(left, 0, "the probe is removed");
    }
}
