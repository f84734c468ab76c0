//! What a node keeps of its log: checkpoints, and where the log begins.
//!
//! Invariants: the checkpoints of the list are durable, the superblock names the newest or named a
//! later one, they rise, and each one's index begins where the one before stands; the first of them
//! is where the log begins, but for a log that is whole; what lies below goes only after the
//! superblock says so; nothing is let go that was not trimmed. The lowest segment is the one from
//! which the first checkpoint has the log replayed.

use crate::config::Config;
use crate::control::catalog::Catalog;
use crate::control::index;
use crate::groups::{State, encode_names, topics_in};
use crate::mail::{Note, Taken};
use chainring_ring::configuration::Configuration;
use chainring_ring::ids::Instance;
use chainring_ring::mark;
use chainring_storage::checkpoint::{
    list_checkpoints, read_checkpoint, remove_checkpoint, remove_partial,
};
use chainring_storage::config::{offset_of, segment_of};
use chainring_storage::segment::remove_segments;
use chainring_storage::{Checkpoint, LogConfig, LogError, Start, Superblock, list_segments};
use std::path::PathBuf;

/// Instances after which a checkpoint is due, however few bytes they took: an index of 6 MiB.
const INSTANCES: u64 = 1 << 16;

/// Reads of a checkpoint that does not verify.
const READS: u32 = 8;

/// A checkpoint on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its position.
    pub position: Instance,
    /// From where the log is replayed behind it.
    pub start: Start,
    /// Its checksum.
    pub checksum: u128,
    /// When it was made, milliseconds of this node's clock.
    pub at_ms: u64,
    /// Highest place of a value in what its index, and those before, name.
    pub head: u64,
}

/// Where a node's files are.
#[derive(Clone, Debug)]
pub struct Place {
    /// The data directory.
    pub dir: PathBuf,
    /// Identity, disk and limits.
    pub limits: LogConfig,
}

/// When a log lets go of its oldest.
#[derive(Clone, Copy, Debug)]
struct Retention {
    bytes: u64,
    ms: u64,
}

/// See the file's head.
#[derive(Debug)]
pub struct Keeper {
    place: Place,
    list: Vec<Kept>,
    base: Instance,
    first_segment: u32,
    every: u64,
    retention: Retention,
    /// A checkpoint, or a state that arrives, is being written.
    pub busy: bool,
    /// The lowest segment in which something could not be read.
    doubt: Option<u32>,
}

/// What a start finds.
pub struct Loaded {
    /// The newest state that can be used.
    pub state: State,
    /// What lies between the beginning of the log and it.
    pub catalog: Catalog,
    /// From where the log is replayed.
    pub start: Start,
    /// The ballot under which the state is known.
    pub ballot: chainring_ring::ids::Ballot,
    /// Of the checkpoints.
    pub keeper: Keeper,
    /// There is no state that the log goes on from.
    pub lost: bool,
    /// What an operator should know.
    pub remarks: Vec<String>,
}

impl Loaded {
    fn nothing(
        config: &Config,
        place: Place,
        superblock: &Superblock,
        first: Configuration,
    ) -> Loaded {
        let limits = &config.limits;
        let retention = Retention {
            bytes: limits.retention_bytes,
            ms: limits.retention_seconds.saturating_mul(1000),
        };
        Loaded {
            state: State::empty(first),
            catalog: Catalog::new(false),
            start: Start::of_log(superblock.first_segment),
            ballot: chainring_ring::ids::Ballot::ZERO,
            keeper: Keeper {
                place,
                list: Vec::new(),
                base: superblock.base,
                first_segment: superblock.first_segment,
                every: limits.checkpoint_bytes,
                retention,
                busy: false,
                doubt: None,
            },
            lost: superblock.base > Instance(0),
            remarks: Vec::new(),
        }
    }

    fn parent(&self) -> u128 {
        self.keeper.list.last().map_or(0, |last| last.checksum)
    }

    /// Goes on with a checkpoint if it fits, and names nothing of what lies in the segment `gap`,
    /// or behind; false if it does not.
    fn take(&mut self, read: Checkpoint, checksum: u128, gap: u32) -> bool {
        let Ok(state) = State::decode(read.position, &read.state) else { return false };
        if self.lost {
            // The log begins here.
            let claim = chainring_ring::ids::Claim { ballot: read.ballot, position: read.position };
            self.catalog.restart(claim, &state.topics());
            self.lost = false;
        } else {
            let follows = read.from == self.state.position && read.parent == self.parent();
            let follows = follows && segment_of(index::head(&read.index)) < gap;
            if !follows || index::restore(&mut self.catalog, &read.index, &state).is_err() {
                return false;
            }
        }
        let (Checkpoint { position, start, at_ms, ballot, .. }, head) = (read, self.catalog.head());
        self.keeper.list.push(Kept { position, start, checksum, at_ms, head });
        (self.state, self.start, self.ballot) = (state, start, self.ballot.max(ballot));
        true
    }
}

/// Reads what a start needs of the checkpoints: those from where the log begins up to the first
/// that cannot be used; the log says the rest. What is of no use is removed. `first` is the
/// configuration that a whole log begins with.
///
/// # Errors
/// [`LogError::Io`], [`LogError::NoCheckpoint`] for a node alone.
pub fn load(
    config: &Config,
    limits: &LogConfig,
    found: &Superblock,
    first: Configuration,
) -> Result<Loaded, LogError> {
    let dir = config.node.dir.clone();
    let place = Place { dir: dir.clone(), limits: limits.clone() };
    let mut loaded = Loaded::nothing(config, place, found, first);
    let (mut whole, gap) = (true, gap(limits, &dir, found.first_segment)?);
    remove_partial(&*limits.disk, &dir)?;
    for position in list_checkpoints(&*limits.disk, &dir)? {
        let named = |checksum| {
            found.checkpoint.is_none_or(|known| known.0 != position || known.1 == checksum)
        };
        let useful = whole && position >= found.base;
        let used = useful
            && read_again(&dir, limits, position, position == found.base)?.is_some_and(
                |(read, checksum)| {
                    // What a segment held that is gone is found out, and repaired, by the walk.
                    named(checksum) && loaded.take(read, checksum, gap)
                },
            );
        if !used {
            if useful {
                mark!(CheckpointTorn);
                let at = position.0;
                loaded.remarks.push(format!("the checkpoint at instance {at} cannot be used"));
            }
            // What lies behind one that is missing goes on from nothing, but where none was used
            // yet: then the log begins at the next.
            whole &= loaded.lost || !useful;
            remove_checkpoint(&*limits.disk, &dir, position)?;
        }
    }
    if loaded.lost && found.nodes == 1 {
        return Err(LogError::NoCheckpoint { dir, base: found.base.0 });
    }
    Ok(loaded)
}

/// Reads a checkpoint, more than once if need be: a read may fail for once. `None` if it is
/// damaged, or cannot be read.
///
/// # Errors
/// [`LogError::Io`] for the one where the log begins: without it records would be given up.
fn read_again(
    dir: &std::path::Path,
    limits: &LogConfig,
    position: Instance,
    first: bool,
) -> Result<Option<(Checkpoint, u128)>, LogError> {
    for _ in 1..READS {
        if let Ok(read) = read_checkpoint(dir, limits, position) {
            return Ok(Some(read));
        }
    }
    match read_checkpoint(dir, limits, position) {
        Ok(read) => Ok(Some(read)),
        Err(error @ LogError::Io { .. }) if first => Err(error),
        Err(_) => Ok(None),
    }
}

/// The first segment that is missing below one that is there.
fn gap(limits: &LogConfig, dir: &std::path::Path, first: u32) -> Result<u32, LogError> {
    let mut next = first;
    for (number, _) in list_segments(&*limits.disk, dir)? {
        if number > next {
            mark!(SegmentMissing);
            return Ok(next);
        }
        next = next.max(number + 1);
    }
    Ok(u32::MAX)
}

impl Keeper {
    /// Where the files are.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Position of the newest checkpoint; 0 if there is none.
    pub fn newest(&self) -> Instance {
        self.list.last().map_or(Instance(0), |last| last.position)
    }

    /// Where the log begins.
    pub fn base(&self) -> Instance {
        self.base
    }

    /// Lowest segment that is needed.
    pub fn first_segment(&self) -> u32 {
        self.first_segment
    }

    /// The oldest checkpoint: what a peer goes on from that lacks what was let go.
    pub fn oldest(&self) -> Option<Kept> {
        self.list.first().copied()
    }

    /// From where the log is replayed behind the newest.
    pub fn last_start(&self) -> Option<Start> {
        self.list.last().map(|last| last.start)
    }

    /// True if it is time for the next one.
    pub fn is_due(&self, catalog: &Catalog) -> bool {
        let since = catalog.delivered().0.saturating_sub(self.newest().0);
        since > 0
            && self.doubt.is_none()
            && (since >= INSTANCES || self.bytes(self.head(), catalog.head()) >= self.every)
    }

    fn head(&self) -> u64 {
        self.list.last().map_or(0, |last| last.head)
    }

    /// Bytes of log from one place to a later one.
    fn bytes(&self, from: u64, to: u64) -> u64 {
        let at = |place: u64| {
            let segments =
                u64::from(segment_of(place)) * u64::from(self.place.limits.segment_bytes);
            segments + u64::from(offset_of(place))
        };
        at(to).saturating_sub(at(from))
    }

    /// The checkpoint of a state that was taken; `None` if it is no newer.
    pub fn plan(
        &self,
        catalog: &Catalog,
        taken: &Taken,
        mut state: Vec<u8>,
        at_ms: u64,
    ) -> Option<Checkpoint> {
        let (from, position) = (self.newest().max(self.base), taken.claim.position);
        if position <= from || catalog.delivered() < position || catalog.first() > from {
            return None;
        }
        let topics = catalog.topics().take(topics_in(&state)).map(|topic| topic.name);
        encode_names(topics, &mut state);
        Some(Checkpoint {
            position,
            ballot: taken.claim.ballot,
            from,
            parent: self.list.last().map_or(0, |last| last.checksum),
            start: taken.start,
            at_ms,
            state,
            index: index::encode(catalog, from, position),
        })
    }

    /// What is to be noted of a checkpoint that goes on from the last one, and is durable.
    pub fn note_of(&self, kept: &Kept) -> Note {
        Note { checkpoint: (kept.position, kept.checksum), ..self.note() }
    }

    /// That was noted: from now on peers are told of it.
    pub fn wrote(&mut self, kept: Kept) {
        self.list.push(kept);
    }

    /// A peer's state is durable and taken over: the log begins with it.
    pub fn arrived(&mut self, kept: Kept) {
        self.first_segment = self.first_segment.max(kept.start.segment);
        self.doubt = self.doubt.filter(|segment| *segment >= self.first_segment);
        self.list = vec![kept];
        self.base = kept.position;
    }

    /// What the superblock is to say.
    pub fn note(&self) -> Note {
        let last = self.list.last().map_or((Instance(0), 0), |last| (last.position, last.checksum));
        Note { checkpoint: last, base: self.base, first_segment: self.first_segment }
    }

    /// What is to be noted so that what lies below the newest checkpoint at or below `trimmed` can
    /// go; `None` if nothing does.
    pub fn let_go(&self, trimmed: Instance) -> Option<Note> {
        let kept = self.list.iter().rev().find(|kept| kept.position <= trimmed)?;
        let (base, first_segment) = (kept.position, kept.start.segment.max(self.first_segment));
        (base > self.base).then_some(Note { base, first_segment, ..self.note() })
    }

    /// That was noted.
    pub fn noted(&mut self, note: &Note) {
        self.base = self.base.max(note.base);
        self.first_segment = self.first_segment.max(note.first_segment);
        let base = self.base;
        self.list.retain(|kept| kept.position >= base);
        self.doubt = self.doubt.filter(|segment| *segment >= self.first_segment);
    }

    /// Something in the log could not be read: the next start is to walk over it, and have it
    /// repaired. Until then there are no further checkpoints.
    pub fn doubt(&mut self, segment: u32) {
        let lowest = self.doubt.map_or(segment, |known| known.min(segment));
        self.doubt = Some(lowest).filter(|lowest| *lowest >= self.first_segment);
    }

    /// The positions of checkpoints that would let a start pass over what could not be read.
    /// They are forgotten here.
    pub fn doubtful(&mut self) -> Vec<Instance> {
        let Some(segment) = self.doubt else { return Vec::new() };
        // Of the one where the log begins the index is not used.
        let begins = |kept: &Kept| kept.position == self.base;
        let behind = |kept: &Kept| segment_of(kept.head) >= segment && !begins(kept);
        let keep = self.list.iter().position(behind).unwrap_or(self.list.len());
        self.list.drain(keep..).map(|kept| kept.position).collect()
    }

    /// The position below which retention wants everything let go; the log is written at `head`.
    pub fn goal(&self, head: u64, now_ms: u64) -> Instance {
        let Retention { bytes, ms } = self.retention;
        let large = |kept: &Kept| {
            let begins = chainring_storage::config::address(kept.start.segment, 0);
            bytes > 0 && self.bytes(begins, head) >= bytes
        };
        let old = |kept: &Kept| ms > 0 && now_ms.saturating_sub(kept.at_ms) >= ms;
        let past = self.list.iter().rev().find(|kept| large(kept) || old(kept));
        past.map_or(Instance(0), |kept| kept.position)
    }
}

/// Removes checkpoints.
///
/// # Errors
/// [`LogError::Io`].
pub fn remove(place: &Place, positions: &[Instance]) -> Result<(), LogError> {
    let remove = |position| remove_checkpoint(&*place.limits.disk, &place.dir, position);
    positions.iter().copied().try_for_each(remove)
}

/// Removes the files that are of no use where the log begins at `base` and `first_segment`, as the
/// superblock says. Those that stay after a failure are removed by the next call, or a start.
///
/// # Errors
/// [`LogError::Io`].
pub fn sweep(place: &Place, base: Instance, first_segment: u32) -> Result<(), LogError> {
    let (disk, dir) = (&*place.limits.disk, &place.dir);
    for position in list_checkpoints(disk, dir)? {
        if position < base {
            remove_checkpoint(disk, dir, position)?;
        }
    }
    if remove_segments(disk, dir, first_segment)? > 0 {
        mark!(SegmentFreed);
    }
    Ok(())
}
