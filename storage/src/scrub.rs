//! A look over the segments that are full, group by group, beside the node that writes behind
//! them; and the one repair in place.
//!
//! Invariants: the look changes nothing; a frame is put back only if it is the one that lay there,
//! intact and of the same size, and what it shares a block with is written as it was read, twice
//! alike, so that a torn write leaves neighbours as they are; what was put back is read again.

use crate::block::{self, Block, Values, identity_of};
use crate::config::{GROUP_ALIGN, Identity, Place, address, offset_of, segment_of};
use crate::direct::AlignedBuf;
use crate::disk::{Access, DiskFile, SharedDisk};
use crate::error::LogError;
use crate::segment::{list_segments, segment_path};
use chainring_ring::header::{FrameError, Header, Kind};
use chainring_ring::ids::ValueId;
use chainring_ring::mutant;
use core::ops::Range;
use std::path::{Path, PathBuf};

/// One step in search of the next group, bytes.
const SEARCH_BYTES: u32 = 1 << 20;

/// Where a log lies.
#[derive(Clone, Debug)]
pub struct Log {
    /// The file system.
    pub disk: SharedDisk,
    /// Data directory.
    pub dir: PathBuf,
    /// Whose log.
    pub identity: Identity,
    /// Without O_DIRECT.
    pub development: bool,
}

/// What a step saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing wrong.
    Intact,
    /// Value frames in a range of addresses do not verify, or are not those of their group.
    Values(Range<u64>),
    /// No group where one was: what it ordered is lost to the next start. Its values may be there.
    Group(Range<u64>),
}

/// A walk that goes round for ever.
#[derive(Debug)]
pub struct Scrub {
    log: Log,
    /// Address of the next group.
    at: u64,
    /// Of the last group seen: number, and checksum unless something was missing behind it.
    last: (u64, Option<u128>),
    /// Number and bytes of the open segment.
    file: Option<(u32, u32, Box<dyn DiskFile>)>,
    /// End of the last group seen.
    behind: u64,
    /// No group follows here: whether something else than zeros lies behind it so far.
    gap: Option<bool>,
    buf: AlignedBuf,
}

impl Scrub {
    /// A walk from the beginning of the log.
    pub fn new(log: Log) -> Scrub {
        let buf = AlignedBuf::new(SEARCH_BYTES as usize);
        Scrub { log, at: 0, last: (0, None), file: None, behind: 0, gap: None, buf }
    }

    /// Looks at the next group of a segment below `end`: what it saw and how many bytes it read.
    /// `None` once all were seen; the next step begins anew.
    ///
    /// # Errors
    /// [`LogError::Io`] if the directory cannot be listed or a segment not opened.
    pub fn step(&mut self, end: u32) -> Result<Option<(Seen, u64)>, LogError> {
        let end = if mutant!(ScrubLooksAway) { 0 } else { end };
        let Some((number, bytes)) = self.segment(end)? else {
            (self.at, self.last, self.file) = (0, (0, None), None);
            (self.behind, self.gap) = (0, None);
            return Ok(None);
        };
        if number != segment_of(self.at) || offset_of(self.at) < GROUP_ALIGN {
            self.at = address(number, GROUP_ALIGN);
        }
        if self.file.as_ref().is_none_or(|(open, ..)| *open != number) {
            let path = segment_path(&self.log.dir, number);
            let file = self.log.disk.open(&path, Access::Read, self.log.development);
            let file = file.map_err(|source| LogError::io("open of", &path, source))?;
            self.file = Some((number, bytes, file));
        }
        let offset = offset_of(self.at);
        let Some(block) = self.block_at(offset) else { return Ok(Some(self.search(offset))) };
        let group = block.group_bytes() as u32;
        let follows = self.last.1.is_none_or(|last| [last, 0].contains(&block.previous));
        let gap = self.gap.take();
        let seen = match self.bad_value(offset, &block) {
            _ if gap.is_some() || !follows => Seen::Group(self.behind..self.at),
            Some(bad) => Seen::Values(address(number, bad.start)..address(number, bad.end)),
            None => Seen::Intact,
        };
        self.last = (block.number, Some(block.checksum));
        self.behind = self.at + u64::from(group);
        self.go_to(offset + group.next_multiple_of(GROUP_ALIGN));
        Ok(Some((seen, u64::from(group))))
    }

    /// The segment to go on in, and its bytes: the one that is open, or the next one that there is.
    fn segment(&self, end: u32) -> Result<Option<(u32, u32)>, LogError> {
        let at = segment_of(self.at);
        if let Some((number, bytes, _)) = &self.file
            && *number == at
            && at < end
        {
            return Ok(Some((*number, *bytes)));
        }
        let mut segments = list_segments(&*self.log.disk, &self.log.dir)?.into_iter();
        Ok(segments.find(|(number, _)| *number >= at && *number < end))
    }

    fn go_to(&mut self, offset: u32) {
        let (number, bytes, _) = self.file.as_ref().expect("a step opens it");
        let at_end = bytes.saturating_sub(offset) < GROUP_ALIGN;
        self.at = if at_end { address(number + 1, 0) } else { address(*number, offset) };
    }

    /// Reads a range of the open segment; what cannot be read is none of a group's bytes.
    fn read(&mut self, offset: u32, bytes: u32) -> Option<&[u8]> {
        let (_, limit, file) = self.file.as_ref().expect("a step opens it");
        let length = bytes.next_multiple_of(GROUP_ALIGN);
        if u64::from(offset) + u64::from(bytes) > u64::from(*limit) {
            return None;
        }
        self.buf.grow(length as usize);
        let buf = &mut self.buf[..length as usize];
        file.read_exact_at(buf, u64::from(offset)).ok()?;
        Some(&buf[..bytes as usize])
    }

    /// The intact block of a group of ours that is newer than the last one.
    fn block_at(&mut self, offset: u32) -> Option<Block> {
        let (identity, last) = (self.log.identity, self.last.0);
        let header = block::peek(self.read(offset, GROUP_ALIGN)?).ok()?;
        if identity_of(&header, None) != identity {
            return None;
        }
        let block = block::decode(&header, self.read(offset, header.size)?).ok()?;
        (block.number > last).then_some(block)
    }

    /// Goes on where no group is: a step further, to what is no zeros, or to the end. Zeros to the
    /// end are what the next group did not fit into; whether they are, its chain tells.
    fn search(&mut self, offset: u32) -> (Seen, u64) {
        let limit = self.file.as_ref().expect("a step opens it").1;
        let bytes = SEARCH_BYTES.min(limit - offset);
        let pages = self.read(offset, bytes).map(|held| held.chunks(GROUP_ALIGN as usize));
        let zeros = pages.map(|mut pages| {
            pages.position(|page| page.iter().any(|byte| *byte != 0)).map(|page| page as u32)
        });
        let ahead = match zeros {
            Some(None) => bytes,
            // Garbage, or what cannot be read.
            Some(Some(0)) | None => GROUP_ALIGN,
            Some(Some(pages)) => pages * GROUP_ALIGN,
        };
        let dirty = self.gap.unwrap_or(false) | matches!(zeros, Some(Some(0)) | None);
        self.gap = Some(dirty);
        self.go_to(offset + ahead);
        if offset + ahead < limit {
            return (Seen::Intact, u64::from(bytes));
        }
        self.gap = None;
        if !dirty {
            return (Seen::Intact, u64::from(bytes));
        }
        let lost = self.behind..self.at;
        (self.last.1, self.behind) = (None, self.at);
        (Seen::Group(lost), u64::from(bytes))
    }

    /// The bytes of a group's values that are not as they were written.
    fn bad_value(&mut self, offset: u32, block: &Block) -> Option<Range<u32>> {
        let (identity, size) = (self.log.identity, block.group_bytes() as u32);
        let Some(group) = self.read(offset, size) else {
            return Some(offset + block.bytes..offset + size);
        };
        let (mut values, mut at) = (Values::default(), block.bytes);
        let mut bad: Option<Range<u32>> = None;
        while at < size {
            let rest = &group[at as usize..];
            let end = match verify_header(rest, &identity) {
                Ok(header) => {
                    values.push(rest);
                    if header.check_body(&rest[..header.size as usize]).is_ok() {
                        at += header.size;
                        continue;
                    }
                    at + header.size
                }
                Err(_) => size,
            };
            let first = bad.map_or(at, |bad| bad.start);
            (bad, at) = (Some(first..end), end);
        }
        let as_written = bad.is_some() || values == block.values;
        let bad = bad.or((!as_written).then_some(block.bytes..size));
        bad.map(|bad| offset + bad.start..offset + bad.end)
    }
}

fn verify_header(frame: &[u8], identity: &Identity) -> Result<Header, FrameError> {
    let header = Header::decode(frame, frame.len() as u32)?;
    header.check_cluster(identity.cluster, identity.epoch)?;
    if header.kind == Kind::Value { Ok(header) } else { Err(FrameError::Body) }
}

/// Whether `frame` is the value `id` of this log, whole and of the size of its place.
///
/// # Errors
/// [`LogError::Frame`].
pub fn check(log: &Log, place: Place, id: ValueId, frame: &[u8]) -> Result<(), LogError> {
    let wrong = |source| LogError::Frame { at: place.at, source };
    if mutant!(RepairUnchecked) {
        return Ok(());
    }
    let header = verify_header(frame, &log.identity).map_err(wrong)?;
    let size = header.size == place.bytes && frame.len() == place.bytes as usize;
    if !size || header.value_id() != id {
        return Err(wrong(FrameError::Body));
    }
    header.check_body(frame).map(drop).map_err(wrong)
}

/// Puts the value `id` back to where it lay in a segment that nobody writes to any more.
///
/// # Errors
/// As [`check`]; [`LogError::Io`] if what shares a block with it cannot be read, twice alike, or
/// the write is not there when read.
pub fn put_back(log: &Log, place: Place, id: ValueId, frame: &[u8]) -> Result<(), LogError> {
    check(log, place, id, frame)?;
    let path = segment_path(&log.dir, place.segment());
    write_back(log, &path, place, frame).map_err(|source| LogError::io("repair of", &path, source))
}

fn write_back(log: &Log, path: &Path, place: Place, frame: &[u8]) -> std::io::Result<()> {
    let (offset, align) = (u64::from(offset_of(place.at)), u64::from(GROUP_ALIGN));
    let start = offset / align * align;
    let length = ((offset + frame.len() as u64).next_multiple_of(align) - start) as usize;
    let file = log.disk.open(path, Access::WriteDurable, log.development)?;
    let [mut blocks, mut again] = [(); 2].map(|()| AlignedBuf::new(length));
    let own = (offset - start) as usize..(offset - start) as usize + frame.len();
    // Where the frame fills its blocks alone nothing else has to be readable.
    if own.len() < length && !mutant!(RepairForgetsNeighbours) {
        file.read_exact_at(&mut blocks, start)?;
        file.read_exact_at(&mut again, start)?;
    }
    if blocks[..own.start] != again[..own.start] || blocks[own.end..] != again[own.end..] {
        return Err(std::io::Error::other("two reads brought different bytes"));
    }
    blocks[own].copy_from_slice(frame);
    file.write_all_at(&blocks, start)?;
    file.read_exact_at(&mut again, start)?;
    match *again == *blocks {
        true => Ok(()),
        false => Err(std::io::Error::other("the disk does not hold what was written")),
    }
}
