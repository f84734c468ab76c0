//! What can go wrong with a log, each with its cause and the remedy.
//!
//! Variants that the shard thread can meet while it runs (`Busy`, `NoSegment`, `TooLarge`,
//! `Poisoned`) hold plain numbers, so that returning one allocates nothing.

use crate::config::{Identity, offset_of, segment_of};
use chainring_ring::header::FrameError;
use std::path::{Path, PathBuf};

/// Why a log does not open, or does not take a write.
#[derive(Debug)]
pub enum LogError {
    /// The system refused a call.
    Io {
        /// What was being done.
        stage: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file system cannot write past its cache, or has no disk below it.
    NoDirect {
        /// Data directory.
        dir: PathBuf,
        /// Its file system, as far as it is known.
        file_system: String,
    },
    /// Another process has the directory.
    Locked {
        /// Data directory.
        dir: PathBuf,
    },
    /// No room for another segment.
    Full {
        /// Data directory.
        dir: PathBuf,
        /// What was asked for, bytes.
        bytes: u64,
    },
    /// As many groups are in flight as may be; plan again after the next completion.
    Busy {
        /// Now in flight.
        in_flight: u32,
        /// The limit.
        limit: u32,
    },
    /// The segment is full and the next one is not ready yet; wait for it.
    NoSegment {
        /// The one that is needed.
        number: u32,
    },
    /// A segment was announced out of turn.
    SegmentOrder {
        /// Announced.
        given: u32,
        /// Next in turn, or no room for it in the queue.
        expected: u32,
    },
    /// A group above the limit.
    TooLarge {
        /// Asked for.
        bytes: u64,
        /// The limit.
        limit: u32,
    },
    /// A write of the log failed, or fell short: nothing more is accepted.
    Write {
        /// The group.
        group: u64,
        /// Its bytes.
        bytes: u32,
        /// Bytes that were written.
        wrote: u32,
        /// The kernel's error number; 0 if it fell short.
        errno: i32,
    },
    /// A write failed before: what the disk holds is not known until the log is opened again.
    Poisoned,
    /// Limits that do not fit each other.
    Config {
        /// The broken rule.
        rule: &'static str,
    },
    /// The files are of another cluster, ring or node.
    Foreign {
        /// The file.
        path: PathBuf,
        /// Ours.
        expected: Box<Identity>,
        /// What it says.
        found: Box<Identity>,
    },
    /// Acknowledged bytes are damaged and there is no peer to repair them from.
    Corrupt {
        /// First damaged address.
        from: u64,
        /// First address behind the damage.
        to: u64,
    },
    /// The disk does not give what lies at the end of the log.
    Unreadable {
        /// Where the log would end.
        from: u64,
    },
    /// More damaged ranges than the superblock can record.
    TooMuchDamage {
        /// Most ranges.
        limit: usize,
    },
    /// A checkpoint is damaged, or another's.
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FrameError,
    },
    /// A node alone has no state that its log goes on from.
    NoCheckpoint {
        /// Data directory.
        dir: PathBuf,
        /// Where the log begins.
        base: u64,
    },
    /// No superblock: the store is empty, or lost.
    NoSuperblock {
        /// The file.
        path: PathBuf,
    },
    /// Fewer than two copies agree.
    SuperblockUnreadable {
        /// The file.
        path: PathBuf,
        /// Copies that are intact, of four.
        intact: usize,
    },
    /// Two intact copies contradict each other.
    SuperblockFork {
        /// The file.
        path: PathBuf,
        /// At this sequence.
        sequence: u64,
    },
    /// A file that would have to be made is there already.
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The log holds a group of this start or a later one: the start number was not raised.
    StartNotRaised {
        /// In the log.
        found: u32,
        /// In the superblock.
        start: u32,
    },
    /// The frame at a place is not what was written there.
    Frame {
        /// Address.
        at: u64,
        /// Why.
        source: FrameError,
    },
}

impl LogError {
    pub(crate) fn io(stage: &'static str, path: &Path, source: std::io::Error) -> LogError {
        LogError::Io { stage, path: path.to_path_buf(), source }
    }
}

/// An address for people: segment and offset.
pub(crate) struct At(pub u64);

impl core::fmt::Display for At {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "segment {} offset {}", segment_of(self.0), offset_of(self.0))
    }
}

impl core::fmt::Display for LogError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use LogError::*;
        match self {
            Busy { in_flight, limit } => write!(f, "{in_flight} of {limit} groups are in flight"),
            NoSegment { number } => write!(f, "segment {number} is not ready yet"),
            SegmentOrder { given, expected } => {
                write!(f, "segment {given} announced, {expected} is next in turn")
            }
            TooLarge { bytes, limit } => write!(f, "group of {bytes} bytes, the limit is {limit}"),
            Write { group, bytes, wrote, errno: 0 } => write!(
                f,
                "the write of group {group} to the log fell short: {wrote} of {bytes} bytes; start the node again to recover it"
            ),
            Write { group, errno, .. } => write!(
                f,
                "the write of group {group} to the log failed: {}; start the node again to recover it",
                std::io::Error::from_raw_os_error(*errno)
            ),
            Poisoned => write!(f, "a write of the log failed; start the node again to recover it"),
            Config { rule } => write!(f, "log configuration: {rule}"),
            Corrupt { from, to } => write!(
                f,
                "acknowledged bytes are damaged from {} to {} and no other node holds them; \
                 restore the file from a copy",
                At(*from),
                At(*to)
            ),
            Unreadable { from } => write!(
                f,
                "the disk does not give what lies at the end of the log, from {}: it may be more \
                 than a torn write, and is not cut; start the node again, and if it stays so, copy \
                 the files to another disk",
                At(*from)
            ),
            TooMuchDamage { limit } => write!(
                f,
                "more than {limit} damaged ranges: replace the disk and join this node anew"
            ),
            StartNotRaised { found, start } => write!(
                f,
                "the log holds start {found}, the superblock says {start}: it is older than the \
                 log; was it restored from a copy?"
            ),
            Frame { at, source } => write!(f, "{}: {source}", At(*at)),
            other => other.fmt_of_file(f),
        }
    }
}

impl LogError {
    /// The variants that name a file or directory.
    fn fmt_of_file(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use LogError::*;
        match self {
            Io { stage, path, source } => write!(f, "{stage} {}: {source}", path.display()),
            NoDirect { dir, file_system } => write!(
                f,
                "{} is on {file_system}, which cannot write past its cache to a disk (O_DIRECT); \
                 use a directory on ext4 or xfs, or set development = true and accept loss",
                dir.display()
            ),
            Locked { dir } => {
                write!(f, "{} is in use by another process; stop that one first", dir.display())
            }
            Full { dir, bytes } => write!(
                f,
                "no room in {} for a segment of {bytes} bytes; free some space",
                dir.display()
            ),
            Foreign { path, expected, found } => write!(
                f,
                "{} belongs to {found}, this is {expected}; point the node to its own directory",
                path.display()
            ),
            Checkpoint { path, source } => write!(f, "{}: {source}", path.display()),
            NoCheckpoint { dir, base } => write!(
                f,
                "{}: the log begins at instance {base}, and no checkpoint from there on can be \
                 read; alone this node cannot go on: bring the files back from a copy",
                dir.display()
            ),
            NoSuperblock { path } => write!(
                f,
                "{} is missing: this is no node's data directory (name D/1, not D), or its store was lost",
                path.display()
            ),
            SuperblockUnreadable { path, intact } => write!(
                f,
                "{}: {intact} of 4 copies are intact, no two agree and none follows another: the node has lost \
                 its memory",
                path.display()
            ),
            SuperblockFork { path, sequence } => write!(
                f,
                "{}: copies contradict each other at sequence {sequence}; was the disk in two \
                 machines? The node has to join anew",
                path.display()
            ),
            Exists { path } => write!(f, "{} is there already and is kept", path.display()),
            _ => unreachable!("formatted above"),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LogError::Io { source, .. } => Some(source),
            LogError::Frame { source, .. } | LogError::Checkpoint { source, .. } => Some(source),
            _ => None,
        }
    }
}
