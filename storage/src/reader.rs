//! Reads value frames back by their place, beside a running writer, from any thread or process.
//!
//! Invariant: bytes are returned only after header and body were verified.

use crate::config::{GROUP_ALIGN, Identity, Place, offset_of};
use crate::direct::{Access, AlignedBuf, open};
use crate::error::LogError;
use crate::segment::segment_path;
use chainring_ring::header::{FrameError, Header, Kind};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Most files held open.
const FILES_MAX: usize = 8;

/// A reader of one log. Not shared: each thread has its own.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    identity: Identity,
    development: bool,
    /// Open segments, the last one used last.
    files: Vec<(u32, File)>,
}

impl LogReader {
    /// A reader of the log in `dir`. Opens nothing yet.
    pub fn new(dir: &Path, identity: Identity, development: bool) -> LogReader {
        let files = Vec::with_capacity(FILES_MAX);
        LogReader { dir: dir.to_path_buf(), identity, development, files }
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
            Err(source) => Err(LogError::Frame { at: place.at, source }),
        }
    }

    fn file(&mut self, segment: u32) -> std::io::Result<&File> {
        match self.files.iter().position(|(number, _)| *number == segment) {
            Some(index) => self.files[index..].rotate_left(1),
            None => {
                let path = segment_path(&self.dir, segment);
                let file = open(&path, Access::Read, self.development)?;
                if self.files.len() == FILES_MAX {
                    self.files.remove(0);
                }
                self.files.push((segment, file));
            }
        }
        Ok(&self.files.last().expect("just moved or pushed there").1)
    }
}

fn verify(frame: &[u8], identity: &Identity) -> Result<Header, FrameError> {
    let header = Header::decode(frame, frame.len() as u32)?;
    header.check_cluster(identity.cluster, identity.epoch)?;
    if header.kind != Kind::Value || header.size as usize != frame.len() {
        return Err(FrameError::Body);
    }
    header.check_body(frame)?;
    Ok(header)
}
