//! Real files as the stable media of a device.
//!
//! Invariant: what it writes is in the file when it returns; what the disk below refuses ends the
//! process, for then nothing that a test shows would be true.

use crate::sim::disk::image::Medium;
use chainring_storage::AlignedBuf;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Unit of direct files, bytes.
const UNIT: u64 = 4096;
/// One read or write, bytes.
const STEP: u64 = 1 << 20;
/// Why the process ends.
const REFUSED: &str = "the disk below the device does what it is told";

/// A file, read and written in whole units.
#[derive(Debug)]
pub(super) struct RealFile {
    file: File,
}

impl RealFile {
    /// Opens it, past the page cache or, in development, through it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, direct: bool) -> io::Result<RealFile> {
        let flags = if direct { OFlags::DIRECT } else { OFlags::empty() };
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(flags.bits() as i32);
        Ok(RealFile { file: options.open(path)? })
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.file.metadata().expect(REFUSED).len()
    }

    /// Brings it to the disk.
    pub fn sync(&self) {
        self.file.sync_data().expect(REFUSED);
    }

    /// The units that a range touches, a step at a time: where, and how many bytes.
    fn steps(at: u64, bytes: u64) -> impl Iterator<Item = (u64, usize)> {
        let (from, to) = (at / UNIT * UNIT, (at + bytes).next_multiple_of(UNIT));
        (from..to).step_by(STEP as usize).map(move |at| (at, STEP.min(to - at) as usize))
    }

    /// Fills `buf` from `at` on, with zeros behind the end of the file.
    fn load(&self, at: u64, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], at + done as u64).expect(REFUSED) {
                0 => break,
                read => done += read,
            }
        }
        buf[done..].fill(0);
    }

    /// Whether `same` holds for every step of a range: its bytes, and which of the range they are.
    fn all(
        &self,
        at: u64,
        bytes: u64,
        same: impl Fn(&[u8], core::ops::Range<usize>) -> bool,
    ) -> bool {
        let mut buf = AlignedBuf::new(STEP.min(bytes + 2 * UNIT) as usize);
        RealFile::steps(at, bytes).all(|(from, length)| {
            self.load(from, &mut buf[..length]);
            let (first, last) = (from.max(at), (from + length as u64).min(at + bytes));
            let held = &buf[(first - from) as usize..(last - from) as usize];
            same(held, (first - at) as usize..(last - at) as usize)
        })
    }
}

impl Medium for RealFile {
    fn read(&self, at: u64, out: &mut [u8]) {
        let bytes = out.len() as u64;
        let mut buf = AlignedBuf::new(STEP.min(bytes + 2 * UNIT) as usize);
        for (from, length) in RealFile::steps(at, bytes) {
            self.load(from, &mut buf[..length]);
            let (first, last) = (from.max(at), (from + length as u64).min(at + bytes));
            let held = &buf[(first - from) as usize..(last - from) as usize];
            out[(first - at) as usize..(last - at) as usize].copy_from_slice(held);
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        let mut buf = AlignedBuf::new(STEP.min(bytes.len() as u64 + 2 * UNIT) as usize);
        for (from, length) in RealFile::steps(at, bytes.len() as u64) {
            let (first, last) = (from.max(at), (from + length as u64).min(end));
            if last - first < length as u64 {
                self.load(from, &mut buf[..length]);
            }
            buf[(first - from) as usize..(last - from) as usize]
                .copy_from_slice(&bytes[(first - at) as usize..(last - at) as usize]);
            self.file.write_all_at(&buf[..length], from).expect(REFUSED);
        }
    }

    fn zero(&mut self, at: u64, bytes: u64) {
        let zeros = vec![0; STEP.min(bytes) as usize];
        for from in (at..at + bytes).step_by(STEP as usize) {
            self.write(from, &zeros[..STEP.min(at + bytes - from) as usize]);
        }
    }

    fn holds(&self, at: u64, bytes: &[u8]) -> bool {
        self.all(at, bytes.len() as u64, |held, part| held == &bytes[part])
    }

    fn is_zero(&self, at: u64, bytes: u64) -> bool {
        self.all(at, bytes, |held, _| held.iter().all(|byte| *byte == 0))
    }

    fn truncate(&mut self, length: u64) {
        self.file.set_len(length).expect(REFUSED);
    }
}
