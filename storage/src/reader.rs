//! Reads value frames back by their place, beside a running writer, from any thread or process.
//!
//! Invariant: bytes are returned only after header and body were verified.

use crate::config::{GROUP_ALIGN, Identity, Place, offset_of};
use crate::direct::AlignedBuf;
use crate::disk::{Access, DiskFile, FileSystem, SharedDisk};
use crate::error::LogError;
use crate::segment::segment_path;
use chainring_ring::header::{FrameError, Header, Kind};
use chainring_ring::{mark, mutant};
use std::path::{Path, PathBuf};

/// Most files held open.
const FILES_MAX: usize = 8;

/// A reader of one log. Not shared: each thread has its own.
#[derive(Debug)]
pub struct LogReader {
    disk: SharedDisk,
    dir: PathBuf,
    identity: Identity,
    development: bool,
    /// Open segments, the last one used last.
    files: Vec<(u32, Box<dyn DiskFile>)>,
}

impl LogReader {
    /// A reader of the log in `dir`. Opens nothing yet.
    pub fn new(dir: &Path, identity: Identity, development: bool) -> LogReader {
        LogReader::on(FileSystem::shared(), dir, identity, development)
    }

    /// As [`LogReader::new`], on any disk.
    pub fn on(disk: SharedDisk, dir: &Path, identity: Identity, development: bool) -> LogReader {
        let files = Vec::with_capacity(FILES_MAX);
        LogReader { disk, dir: dir.to_path_buf(), identity, development, files }
    }

    /// Reads the value frame at `place` through `buf`, which grows to the largest frame read.
    ///
    /// # Errors
    /// [`LogError::Frame`] if what lies there is not an intact value frame of that size;
    /// [`LogError::Io`].
    pub fn read<'a>(
        &mut self,
        place: Place,
        buf: &'a mut AlignedBuf,
    ) -> Result<(Header, &'a [u8]), LogError> {
        let align = u64::from(GROUP_ALIGN);
        let offset = u64::from(offset_of(place.at));
        let start = offset / align * align;
        let end = (offset + u64::from(place.bytes)).next_multiple_of(align);
        let length = (end - start) as usize;
        buf.grow(length);
        let path = segment_path(&self.dir, place.segment());
        let error = |source| LogError::io("read of", &path, source);
        let file = self.file(place.segment()).map_err(error)?;
        file.read_exact_at(&mut buf[..length], start).map_err(error)?;
        let frame = &buf[(offset - start) as usize..][..place.bytes as usize];
        match verify(frame, &self.identity) {
            Ok(header) => Ok((header, frame)),
            Err(source) => {
                mark!(FrameDamagedInLog);
                Err(LogError::Frame { at: place.at, source })
            }
        }
    }

    fn file(&mut self, segment: u32) -> std::io::Result<&dyn DiskFile> {
        match self.files.iter().position(|(number, _)| *number == segment) {
            Some(index) => self.files[index..].rotate_left(1),
            None => {
                let path = segment_path(&self.dir, segment);
                let file = self.disk.open(&path, Access::Read, self.development)?;
                if self.files.len() == FILES_MAX {
                    self.files.remove(0);
                }
                self.files.push((segment, file));
            }
        }
        Ok(&*self.files.last().expect("just moved or pushed there").1)
    }
}

/// Reads many frames of a log that nobody writes to, most of them one after another: what a read
/// brought beyond its frame is kept for the next ones.
#[derive(Debug)]
pub struct ReadAhead {
    reader: LogReader,
    buf: AlignedBuf,
    /// What lies in `buf`: address of its first byte, and how much.
    held: (u64, usize),
}

impl ReadAhead {
    /// A reader that reads at least `bytes` at a time.
    pub fn new(reader: LogReader, bytes: usize) -> ReadAhead {
        let bytes = bytes.next_multiple_of(GROUP_ALIGN as usize);
        ReadAhead { reader, buf: AlignedBuf::new(bytes), held: (0, 0) }
    }

    /// The value frame at `place`.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn read(&mut self, place: Place) -> Result<(Header, &[u8]), LogError> {
        let (at, bytes) = (place.at, place.bytes as usize);
        let (first, length) = self.held;
        if at < first || at + bytes as u64 > first + length as u64 {
            self.fill(place)?;
        }
        let start = (at - self.held.0) as usize;
        let frame = &self.buf[start..start + bytes];
        match verify(frame, &self.reader.identity) {
            Ok(header) => Ok((header, frame)),
            Err(source) => Err(LogError::Frame { at, source }),
        }
    }

    fn fill(&mut self, place: Place) -> Result<(), LogError> {
        self.held = (0, 0);
        let align = u64::from(GROUP_ALIGN);
        let skip = place.at % align;
        let need = (skip + u64::from(place.bytes)).next_multiple_of(align) as usize;
        self.buf.grow(need);
        let path = segment_path(&self.reader.dir, place.segment());
        let error = |source| LogError::io("read of", &path, source);
        let file = self.reader.file(place.segment()).map_err(error)?;
        let start = u64::from(offset_of(place.at)) - skip;
        let mut length = 0;
        // A segment's end comes before the buffer's, and a read may be cut short by a signal.
        while length < need {
            let buf = &mut self.buf[length..];
            match file.read_at(buf, start + length as u64) {
                // Direct reads go on at a multiple of the block only; a cut file ends elsewhere.
                Ok(read) if read < align as usize => {
                    return Err(error(std::io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(read) => length += read / align as usize * align as usize,
                Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) if buf.len() > need - length => {
                    // The sector that fails may lie behind the frame: no reason to do without it.
                    let rest = &mut buf[..need - length];
                    file.read_exact_at(rest, start + length as u64).map_err(error)?;
                    length = need;
                }
                Err(source) => return Err(error(source)),
            }
        }
        self.held = (place.at - skip, length);
        Ok(())
    }
}

fn verify(frame: &[u8], identity: &Identity) -> Result<Header, FrameError> {
    let header = Header::decode(frame, frame.len() as u32)?;
    header.check_cluster(identity.cluster, identity.epoch)?;
    if header.kind != Kind::Value || header.size as usize != frame.len() {
        return Err(FrameError::Body);
    }
    if !mutant!(RottenBodyServed) {
        header.check_body(frame)?;
    }
    Ok(header)
}
