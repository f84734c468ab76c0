//! Room: how large logs are made, so that none has to grow while time is taken.
//!
//! Invariant: with a known number of records, the segments made before the start hold them all,
//! and no other is made; what the disk or the memory has no room for is refused at the start.

use super::{DemoError, system};
use crate::config::Limits;
use std::path::Path;

/// Beyond the segment in use, so many are made ahead at most.
const AHEAD_MAX: u64 = 6;
/// Largest segment that the configuration takes, bytes: 1 GiB.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Without a number of records, a second of load is expected to bring this: 4 Gbit/s.
const EXPECTED_BYTES_PER_S: u64 = 500_000_000;
/// In every log, whatever the load: partly filled groups, seals, the end of a segment. 48 MiB.
const SLACK_BYTES: u64 = 48 << 20;
/// In front of a record, bytes.
const RECORD_OVERHEAD: u64 = crate::records::RECORD_PREFIX_BYTES as u64;

/// Sizes that the load asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Of a segment.
    pub segment_bytes: u32,
    /// Segments made ahead.
    pub ahead: usize,
    /// All segments; none is made beyond.
    pub log_bytes: u64,
    /// What the memory log has to hold to reach back to the first record.
    pub memory_bytes: u64,
}

impl Room {
    /// For so many records and bytes, or if that is not known, for so many seconds.
    pub fn new(sum: Option<(u64, u64)>, seconds: u64) -> Room {
        let limits = Limits::default();
        let (records, bytes) = sum.unwrap_or((0, seconds.saturating_mul(EXPECTED_BYTES_PER_S)));
        let bytes = bytes.saturating_add(records.saturating_mul(RECORD_OVERHEAD));
        // A quarter more: headers, order blocks, padding to the block.
        let wanted = (bytes + bytes / 4).saturating_add(SLACK_BYTES);
        let least = u64::from(limits.segment_bytes);
        let share = wanted.div_ceil(AHEAD_MAX + 1).next_multiple_of(1 << 20);
        let segment = share.clamp(least, SEGMENT_BYTES_MAX);
        let ahead = (wanted.div_ceil(segment) - 1).clamp(1, AHEAD_MAX);
        let holds_all = sum.is_some() && segment * (ahead + 1) >= wanted;
        // A load without end, or larger than 7 segments, gets more as it goes on.
        let log_bytes = if holds_all { segment * (ahead + 1) } else { limits.log_bytes };
        Room {
            segment_bytes: segment as u32,
            ahead: ahead as usize,
            log_bytes,
            memory_bytes: wanted,
        }
    }

    /// Bytes that a node's log has on disk at the start.
    pub fn disk_bytes(&self) -> u64 {
        u64::from(self.segment_bytes) * (self.ahead as u64 + 1)
    }

    /// Bytes of a node's memory log: what is wanted, at most the default, and no more than half of
    /// the memory that is free, over all nodes.
    pub fn memory_log_bytes(&self, nodes: u8) -> u64 {
        let share = free_memory().map_or(u64::MAX, |free| free / 2 / u64::from(nodes));
        let most = Limits::default().memory_log_bytes.min(share);
        self.memory_bytes.min(most).max(SLACK_BYTES)
    }
}

/// Refuses a directory whose disk has no room for `wanted` bytes.
pub fn check_disk(dir: &Path, wanted: u64) -> Result<(), DemoError> {
    let free = rustix::fs::statvfs(dir)
        .map_err(|error| system(format!("look at the disk of {}", dir.display()))(error.into()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if free < wanted {
        return Err(DemoError::NoRoom { dir: dir.to_owned(), wanted, free });
    }
    Ok(())
}

/// Memory that can be had without swapping, bytes.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
