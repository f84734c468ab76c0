//! Looks at a node's log without changing it: for `chainring inspect`, beside a running node too.
//!
//! Damage at the end of a log in use may be a write on its way; it lies above the highest seal and
//! is reported as a cut that recovery would make.

use crate::config::{GROUP_ALIGN, Identity, LogConfig, segment_of};
use crate::contents::Start;
use crate::disk::{Access, Disk, FileSystem, SharedDisk, opens_direct};
use crate::error::LogError;
use crate::scan::{ScanInput, Scanned, scan};
use crate::segment::{decode_header, list_segments, segment_path};
use crate::superblock::Superblock;
use crate::superfile::read_superblock_on;
use chainring_ring::ids::Instance;
use std::path::Path;

/// What one segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its number.
    pub number: u32,
    /// Bytes of the file.
    pub bytes: u32,
    /// Groups with orders or values.
    pub groups: u64,
    /// Orders in them.
    pub orders: u64,
    /// Value frames in them.
    pub values: u64,
    /// Bytes of the groups.
    pub used: u64,
    /// Lowest and highest instance ordered, both inclusive.
    pub instances: Option<(Instance, Instance)>,
}

/// What a log holds.
#[derive(Debug)]
pub struct Report {
    /// Whose log it is, by superblock or first intact segment.
    pub identity: Identity,
    /// The superblock, or why it cannot be used.
    pub superblock: Result<Superblock, LogError>,
    /// The walk over the groups: positions, end and damage.
    pub log: Scanned,
    /// Segment by segment.
    pub segments: Vec<SegmentReport>,
}

/// Reads the log in `dir`.
///
/// # Errors
/// [`LogError::NoSuperblock`] if there is nothing that says whose log it is;
/// [`LogError::Foreign`] if its files disagree on that; [`LogError::Io`].
pub fn inspect(dir: &Path) -> Result<Report, LogError> {
    inspect_on(&FileSystem::shared(), dir)
}

/// As [`inspect`], on any disk.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_on(disk: &SharedDisk, dir: &Path) -> Result<Report, LogError> {
    let superblock = read_superblock_on(&**disk, dir);
    let first = list_segments(&**disk, dir)?.first().map_or(0, |(number, _)| *number);
    let development = !opens_direct(&**disk, &segment_path(dir, first));
    let identity = match &superblock {
        Ok(superblock) => superblock.identity,
        Err(_) => identity_by_segment(&**disk, dir)?,
    };
    // As the writer beside writes: cached reads could keep what it has since overwritten.
    let new = LogConfig::new(identity, GROUP_ALIGN);
    let config = LogConfig { development, disk: disk.clone(), ..new };
    let (sealed, first_segment, damage) = match &superblock {
        Ok(superblock) => (superblock.sealed, superblock.first_segment, &superblock.damage[..]),
        Err(_) => (0, first, &[][..]),
    };
    let (start, alone) = (None, false);
    let from = Start::of_log(first_segment);
    let input = ScanInput { dir, config: &config, sealed, from, start, alone, damage };
    let mut segments: Vec<SegmentReport> = Vec::new();
    let log = scan(&input, &mut |group| {
        let number = segment_of(group.place.at);
        if segments.last().is_none_or(|segment| segment.number != number) {
            segments.push(empty(number));
        }
        let segment = segments.last_mut().expect("pushed above");
        segment.groups += 1;
        segment.orders += group.orders.len() as u64;
        segment.values += group.values.len() as u64;
        segment.used += u64::from(group.place.bytes);
        for order in group.orders {
            let (low, high) = segment.instances.unwrap_or((order.instance, order.instance));
            segment.instances = Some((low.min(order.instance), high.max(order.instance)));
        }
    })?;
    let segments = with_sizes(segments, &log);
    Ok(Report { identity, superblock, log, segments })
}

fn empty(number: u32) -> SegmentReport {
    let (groups, orders, values, used) = (0, 0, 0, 0);
    SegmentReport { number, bytes: 0, groups, orders, values, used, instances: None }
}

fn with_sizes(mut seen: Vec<SegmentReport>, log: &Scanned) -> Vec<SegmentReport> {
    let report = |(number, bytes): &(u32, u32)| {
        let index = seen.iter().position(|segment| segment.number == *number);
        let segment = index.map_or_else(|| empty(*number), |index| seen.swap_remove(index));
        SegmentReport { bytes: *bytes, ..segment }
    };
    log.segments.iter().map(report).collect()
}

fn identity_by_segment(disk: &dyn Disk, dir: &Path) -> Result<Identity, LogError> {
    for (number, _) in list_segments(disk, dir)? {
        let mut head = [0; GROUP_ALIGN as usize];
        let path = segment_path(dir, number);
        let file = disk.open(&path, Access::Read, true);
        let read = file.and_then(|file| file.read_exact_at(&mut head, 0));
        if let (Ok(()), Ok(header)) = (read, decode_header(&head)) {
            return Ok(header.identity);
        }
    }
    Err(LogError::NoSuperblock { path: crate::superfile::superblock_path(dir) })
}
