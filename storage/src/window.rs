//! A moving view of a segment for reading it in order, in large direct reads.
//!
//! Invariant: a part that the disk does not give reads as bytes that no checksum accepts, so that a
//! latent error and damage meet the same rows of the table (row 16 of reliability, §6). That there
//! was one is remembered, for what cannot be read must never pass for a torn write.

use crate::config::GROUP_ALIGN;
use crate::config::{LogConfig, address};
use crate::direct::AlignedBuf;
use crate::disk::{Access, DiskFile, SharedDisk};
use crate::error::LogError;
use crate::segment::segment_path;
use chainring_ring::mark;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of the view once it reads ahead; a larger group makes it grow, to a segment at most.
const WINDOW_BYTES: usize = 2 << 20;
/// One read, bytes.
const READ_BYTES: usize = 1 << 20;
/// What unreadable sectors read as: no header and no value.
const UNREADABLE: u8 = 0xff;

pub(crate) struct Window {
    disk: SharedDisk,
    dir: PathBuf,
    development: bool,
    file: Option<(u32, Box<dyn DiskFile>)>,
    buf: AlignedBuf,
    start: usize,
    filled: usize,
    /// Read ahead to here.
    most: usize,
    /// Highest address that the disk did not give.
    unread: u64,
    /// Of all bytes that were read since [`Window::prove`], in order.
    proof: Option<u64>,
}

impl Window {
    /// A view of the log in `dir`, whose longest segment has `longest` bytes.
    pub fn new(dir: &Path, config: &LogConfig, longest: u32) -> Window {
        let (disk, development) = (config.disk.clone(), config.development);
        let (dir, buf) = (dir.to_path_buf(), AlignedBuf::new(GROUP_ALIGN as usize));
        let most = WINDOW_BYTES.min(longest as usize);
        Window {
            disk,
            dir,
            development,
            file: None,
            buf,
            start: 0,
            filled: 0,
            most,
            unread: 0,
            proof: None,
        }
    }

    /// `bytes` bytes of a segment from `offset`, a multiple of 4096; fewer at the end of the
    /// segment, which is `limit` bytes long.
    pub fn get(
        &mut self,
        segment: u32,
        limit: u32,
        offset: u32,
        bytes: u32,
    ) -> Result<&[u8], LogError> {
        let offset = offset as usize;
        let end = (offset + bytes as usize).min(limit as usize).max(offset);
        let held = self.file.as_ref().is_some_and(|(number, _)| *number == segment)
            && offset >= self.start
            && end <= self.start + self.filled;
        if !held && end > offset {
            self.fill(segment, limit as usize, offset, end)?;
        }
        match end > offset {
            true => Ok(&self.buf[offset - self.start..end - self.start]),
            false => Ok(&[]),
        }
    }

    /// Forgets what was read, for a log that is written at the same time.
    pub fn forget(&mut self) {
        (self.filled, self.unread) = (0, 0);
    }

    /// Forgets what was read, and from now on sums up what is: equal sums are equal bytes, read in
    /// the same order.
    pub fn prove(&mut self) {
        self.forget();
        self.proof = Some(0);
    }

    /// The sum, and no more of it.
    pub fn proof(&mut self) -> Option<u64> {
        self.proof.take()
    }

    /// Highest address that the disk did not give since; 0 if it gave all.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    fn fill(
        &mut self,
        segment: u32,
        limit: usize,
        offset: usize,
        end: usize,
    ) -> Result<(), LogError> {
        let path = segment_path(&self.dir, segment);
        let same = self.file.as_ref().is_some_and(|(number, _)| *number == segment);
        let known = self.start..self.start + self.filled;
        // Whoever goes on behind what was read is read ahead for; a look at one place is not.
        let goes_on = same && self.filled > 0 && (known.start..=known.end).contains(&offset);
        self.filled = 0;
        if !same {
            let file = self.disk.open(&path, Access::Read, self.development);
            let file = file.map_err(|source| LogError::io("open of", &path, source))?;
            self.file = Some((segment, file));
        }
        let needed = (end - offset).next_multiple_of(GROUP_ALIGN as usize);
        let ahead = if goes_on { needed.max(self.most) } else { needed };
        let mut kept = 0;
        if ahead > self.buf.len() {
            self.buf.grow(ahead);
        } else if goes_on {
            // What is held of it moves to the front and is not read again.
            kept = known.end - offset;
            self.buf.copy_within(offset - known.start..offset - known.start + kept, 0);
        }
        let (_, file) = self.file.as_ref().expect("opened above");
        let wanted = ahead.min(limit - offset);
        let mut read = |out: &mut [u8], at: u64| file.read_exact_at(out, at);
        for (index, out) in self.buf[kept..wanted].chunks_mut(READ_BYTES).enumerate() {
            let at = (offset + kept + index * READ_BYTES) as u64;
            let unread = read_marking(&mut read, out, at)
                .map_err(|source| LogError::io("read of", &path, source))?;
            if let Some(at) = unread {
                self.unread = self.unread.max(address(segment, at as u32));
            }
        }
        if let Some(sum) = &mut self.proof {
            *sum = xxh3_64_with_seed(&self.buf[kept..wanted], *sum);
        }
        (self.start, self.filled) = (offset, wanted);
        Ok(())
    }
}

/// Reads `out`; where the disk fails, halves down to 4096 bytes and marks what stays unreadable.
/// Returns where the last such part lies.
fn read_marking(
    read: &mut impl FnMut(&mut [u8], u64) -> std::io::Result<()>,
    out: &mut [u8],
    at: u64,
) -> std::io::Result<Option<u64>> {
    let Err(error) = read(out, at) else { return Ok(None) };
    let latent = [libc::EIO, libc::ENODATA, libc::ETIMEDOUT, libc::EBADMSG, libc::EILSEQ];
    let latent = error.raw_os_error().is_some_and(|code| latent.contains(&code));
    if !latent && error.kind() != std::io::ErrorKind::UnexpectedEof {
        return Err(error);
    }
    let align = GROUP_ALIGN as usize;
    if out.len() <= align {
        mark!(SectorUnreadable);
        out.fill(UNREADABLE);
        return Ok(Some(at));
    }
    let middle = (out.len() / 2).div_ceil(align) * align;
    let (low, high) = out.split_at_mut(middle);
    let low = read_marking(read, low, at)?;
    Ok(read_marking(read, high, at + middle as u64)?.or(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latent_error_costs_one_sector() {
        let mut reads = 0;
        let mut read = |out: &mut [u8], at: u64| {
            reads += 1;
            let bad = 5 * 4096;
            if at <= bad && bad < at + out.len() as u64 {
                return Err(std::io::Error::from_raw_os_error(libc::EIO));
            }
            out.fill(7);
            Ok(())
        };
        let mut out = vec![0; 16 * 4096];
        assert_eq!(read_marking(&mut read, &mut out, 0).unwrap(), Some(5 * 4096));
        for (sector, bytes) in out.chunks(4096).enumerate() {
            let expected = if sector == 5 { UNREADABLE } else { 7 };
            assert!(bytes.iter().all(|byte| *byte == expected), "sector {sector}");
        }
        assert!(reads < 16);
        let mut refused = |_: &mut [u8], _| Err(std::io::Error::from_raw_os_error(libc::EACCES));
        assert!(read_marking(&mut refused, &mut out, 0).is_err());
    }
}
