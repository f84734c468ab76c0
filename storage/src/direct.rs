//! Memory that direct files take, and the lock on a directory.
//!
//! Invariant: a buffer begins at a multiple of 4096, however often it grows.

use crate::config::GROUP_ALIGN;
use crate::error::LogError;
use std::fs::{File, OpenOptions, TryLockError};
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
}
