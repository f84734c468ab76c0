//! Segment files: named by number, written full of zeros before use, so that a write of the log
//! changes no metadata and never runs out of space.
//!
//! ```text
//!    0  header (128), kind Segment: sequence = number, origin = node
//!  128  bytes of the file  4
//!  132  block              4
//!  136  zeros to 4096
//! 4096  groups, each at a multiple of 4096
//! ```
//! Invariant: a file with the name of a segment was complete once; it is made under another name.

use crate::block::{blank, identity_of};
use crate::config::{GROUP_ALIGN, Identity, LogConfig};
use crate::direct::AlignedBuf;
use crate::disk::{Access, Disk, FileSystem, is_full, open_file, sync_dir};
use crate::error::LogError;
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind, u32_at};
use chainring_ring::ids::Sequence;
use chainring_ring::mark;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// One write of zeros, bytes.
const ZERO_WRITE_BYTES: usize = 1 << 20;

/// The path of a segment.
pub fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("segment-{number:08}.log"))
}

/// The segments of a directory: (number, bytes), ascending.
///
/// # Errors
/// [`LogError::Io`].
pub fn list_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u32, u32)>, LogError> {
    let listed = disk.list(dir).map_err(|source| LogError::io("listing of", dir, source))?;
    let mut found = Vec::new();
    for (name, bytes) in listed {
        let number = name.to_str().and_then(|name| {
            let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
            (digits.len() == 8).then(|| digits.parse::<u32>().ok())?
        });
        if let Some(number) = number {
            // A length beyond the limit is damage; what lies there is not looked at.
            let limit = u64::from(crate::config::SEGMENT_BYTES_MAX);
            found.push((number, bytes.min(limit) as u32 / GROUP_ALIGN * GROUP_ALIGN));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes the segments below `first`: nobody replays or reads them. Returns how many there were.
///
/// # Errors
/// [`LogError::Io`].
pub fn remove_segments(disk: &dyn Disk, dir: &Path, first: u32) -> Result<usize, LogError> {
    let listed = list_segments(disk, dir)?;
    let freed = listed.iter().take_while(|(number, _)| *number < first);
    let mut removed = 0;
    for (number, _) in freed {
        let path = segment_path(dir, *number);
        disk.remove(&path).map_err(|source| LogError::io("removal of", &path, source))?;
        removed += 1;
    }
    if removed > 0 {
        sync_dir(disk, dir)?;
    }
    Ok(removed)
}

/// Opens a segment for the writer: direct, and durable only where a write asks for it.
///
/// # Errors
/// [`LogError::Io`].
pub fn open_segment(dir: &Path, number: u32, development: bool) -> Result<File, LogError> {
    let path = segment_path(dir, number);
    open_file(&path, Access::Write, development)
        .map_err(|source| LogError::io("open of", &path, source))
}

/// Opens the segments from `first` on for the writer.
///
/// # Errors
/// [`LogError::Io`].
pub fn open_segments(
    dir: &Path,
    first: u32,
    development: bool,
) -> Result<Vec<(u32, OwnedFd)>, LogError> {
    let numbers = list_segments(&FileSystem, dir)?.into_iter().map(|(number, _)| number);
    let numbers = numbers.filter(|number| *number >= first);
    numbers.map(|number| Ok((number, open_segment(dir, number, development)?.into()))).collect()
}

/// Makes a segment, zero-written and durable. Blocks; for the start of a node or another thread
/// than the shard's, which is then told by [`crate::LogWriter::add_segment`].
///
/// # Errors
/// [`LogError::Full`], [`LogError::Io`]: nothing is left behind. [`LogError::Exists`]: it was made
/// before, durably.
pub fn create_segment(dir: &Path, config: &LogConfig, number: u32) -> Result<(), LogError> {
    let path = segment_path(dir, number);
    let disk = &*config.disk;
    if disk.exists(&path) {
        // Where a name could neither be made durable nor removed, it is there and may yet go.
        sync_dir(disk, dir)?;
        return Err(LogError::Exists { path });
    }
    let partial = path.with_extension("new");
    // Left by a crash in the middle of this.
    if disk.remove(&partial).is_ok() {
        mark!(HalfSegmentRemoved);
    }
    let result = write_segment(&partial, config, number)
        .and_then(|()| disk.rename(&partial, &path).map_err(|source| ("rename of", source)));
    match result {
        // With a name that power failure may take away it must not pass for one that is there.
        Ok(()) => sync_dir(disk, dir).inspect_err(|_| drop(disk.remove(&path))),
        Err((stage, source)) => {
            let _ = disk.remove(&partial);
            let bytes = u64::from(config.segment_bytes);
            match is_full(&source) {
                true => {
                    mark!(SegmentHasNoRoom);
                    Err(LogError::Full { dir: dir.to_path_buf(), bytes })
                }
                false => Err(LogError::io(stage, &path, source)),
            }
        }
    }
}

type Staged<T> = Result<T, (&'static str, std::io::Error)>;

fn write_segment(path: &Path, config: &LogConfig, number: u32) -> Staged<()> {
    let file = config.disk.open(path, Access::Create, config.development);
    let file = file.map_err(|error| ("creation of", error))?;
    let mut buf = AlignedBuf::new(ZERO_WRITE_BYTES.min(config.segment_bytes as usize));
    encode_header(config, number, &mut buf[..GROUP_ALIGN as usize]);
    let mut at = 0;
    while at < config.segment_bytes as usize {
        let bytes = buf.len().min(config.segment_bytes as usize - at);
        file.write_all_at(&buf[..bytes], at as u64).map_err(|error| ("zeroing of", error))?;
        at += bytes;
        buf[..GROUP_ALIGN as usize].fill(0);
    }
    file.sync().map_err(|error| ("sync of", error))
}

/// Writes zeros from `offset` to the end of a segment, durably. Only for what was cut.
pub(crate) fn zero_rest(
    path: &Path,
    config: &LogConfig,
    offset: u32,
    bytes: u32,
) -> Result<(), LogError> {
    let error = |source| LogError::io("zeroing of", path, source);
    let file = config.disk.open(path, Access::Write, config.development).map_err(error)?;
    let buf = AlignedBuf::new(ZERO_WRITE_BYTES.min((bytes - offset.min(bytes)) as usize));
    let mut at = offset;
    while at < bytes {
        let length = buf.len().min((bytes - at) as usize);
        file.write_all_at(&buf[..length], u64::from(at)).map_err(error)?;
        at += length as u32;
    }
    file.sync().map_err(error)
}

fn encode_header(config: &LogConfig, number: u32, out: &mut [u8]) {
    out.fill(0);
    out[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&config.segment_bytes.to_le_bytes());
    out[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&config.block.to_le_bytes());
    let header = Header {
        kind: Kind::Segment,
        size: GROUP_ALIGN,
        length: 8,
        sequence: Sequence(u64::from(number)),
        ..blank(&config.identity)
    };
    header.seal(out);
}

/// What the first block of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose it is.
    pub identity: Identity,
    /// Its number.
    pub number: u64,
    /// Its block.
    pub block: u32,
}

/// Reads the first 4096 bytes of a segment.
///
/// # Errors
/// Why they are no header of a segment.
pub fn decode_header(bytes: &[u8]) -> Result<SegmentHeader, FrameError> {
    let header = Header::decode(bytes, GROUP_ALIGN)?;
    if header.kind != Kind::Segment || header.length != 8 {
        return Err(FrameError::Body);
    }
    let body = header.check_body(bytes)?;
    let identity = identity_of(&header, None);
    Ok(SegmentHeader { identity, number: header.sequence.0, block: u32_at(body, 4) })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::direct::tests::TestDir;
    use chainring_ring::ids::{ClusterId, Epoch, NodeId, RingId};

    pub fn identity() -> Identity {
        Identity { cluster: ClusterId(0xc1), epoch: Epoch(1), node: NodeId(2), ring: RingId(0) }
    }

    /// Segments of 132 KiB with groups to 8 KiB; direct where the test directory allows it.
    pub fn small(dir: &Path) -> LogConfig {
        LogConfig {
            segment_bytes: 132 << 10,
            group_bytes_max: 8 << 10,
            development: !FileSystem.check_direct(dir, true).unwrap(),
            ..LogConfig::new(identity(), 512)
        }
    }

    #[test]
    fn a_segment_is_a_header_and_zeros() {
        let dir = TestDir::new();
        let config = small(&dir.0);
        create_segment(&dir.0, &config, 3).unwrap();
        let bytes = std::fs::read(segment_path(&dir.0, 3)).unwrap();
        assert_eq!(bytes.len(), 132 << 10);
        let header = decode_header(&bytes[..4096]).unwrap();
        assert_eq!(header, SegmentHeader { identity: identity(), number: 3, block: 512 });
        assert!(bytes[4096..].iter().all(|byte| *byte == 0));
        assert_eq!(list_segments(&FileSystem, &dir.0).unwrap(), vec![(3, 132 << 10)]);
        let again = create_segment(&dir.0, &config, 3).unwrap_err();
        assert!(matches!(again, LogError::Exists { .. }));
    }

    /// Needs the right to mount; says so where it has it not.
    #[test]
    fn a_full_disk_leaves_nothing_behind() {
        let dir = TestDir::new();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "chainring-test"])
            .arg(&dir.0)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: no right to mount a small file system");
            return;
        }
        let config = LogConfig { development: true, ..small(&dir.0) };
        let result = create_segment(&dir.0, &config, 0);
        let left = std::fs::read_dir(&dir.0).unwrap().count();
        std::process::Command::new("umount").arg(&dir.0).status().unwrap();
        assert!(matches!(result, Err(LogError::Full { .. })), "{result:?}");
        assert_eq!(left, 0);
    }
}
