//! Opening a node's store: who it is in this life, what it remembers, what it delivers again.
//!
//! Invariants: the start number rises, and the clean-stop mark is erased, durably before anything
//! else happens; a node that may have forgotten a promise or a vote takes a new incarnation and
//! never votes under the old one; an existing member's store is never made anew by itself.

use crate::config::{Config, ConfigError, durability_name};
use crate::control::catalog::Catalog;
use crate::groups::{Delivered, Groups};
use crate::keep::{self, Keeper, Loaded};
use crate::mail::Place;
use chainring_ring::core::{Recovered, Settings};
use chainring_ring::header::{BLOCK_BYTES_MAX, HEADER_BYTES};
use chainring_ring::ids::{
    Ballot, Claim, Durability, Entry, Incarnation, Instance, NodeId, Order, RingId, Session,
    ValueId,
};
use chainring_ring::sequences::Sequences;
use chainring_ring::{mark, mutant};
use chainring_storage::{
    DamageState, DirLock, Disk, FileSystem, Group, Identity, LogConfig, LogError, LogReader,
    LogWriter, ReadAhead, Segments, SharedDisk, Superblock, SuperblockFile, superfile,
};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

mod replay;
use replay::Replay;

/// The log is read back in steps of this: values that follow one another lie close together.
/// Ticks for which a candidate with a quorum waits for the other nodes of the circle.
const CANDIDATE_PATIENCE: u32 = 5;
const READ_AHEAD_BYTES: usize = 1 << 20;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The log says no.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The configuration says no.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store was made with other settings.
    #[error(
        "the store in {dir} was made with {key} {made}, the configuration says {wanted}; \
         correct the configuration, or make a new cluster"
    )]
    Differs {
        /// Data directory.
        dir: String,
        /// Which setting.
        key: &'static str,
        /// As the store has it.
        made: String,
        /// As configured.
        wanted: String,
    },
    /// There is nothing older to put aside.
    #[error(
        "the store in {dir} is of cluster epoch {found}; for a new epoch raise cluster.epoch in the \
         configuration above that (it says {wanted}), on every node alike"
    )]
    NotNewer {
        /// Data directory.
        dir: String,
        /// Epoch of the store.
        found: u32,
        /// As configured.
        wanted: u32,
    },
    /// The directory cannot be made.
    #[error("cannot make the data directory {dir}: {source}")]
    Dir {
        /// Data directory.
        dir: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// A node's store, opened.
pub struct Opened {
    /// The superblock's file.
    pub file: SuperblockFile,
    /// As last written.
    pub superblock: Superblock,
    /// The log's writer and limits; none in memory durability.
    pub log: Option<(LogWriter, LogConfig)>,
    /// For the core.
    pub settings: Settings,
    /// For the core.
    pub recovered: Recovered,
    /// Topics and offsets at the position delivered.
    pub groups: Groups,
    /// What readers find.
    pub catalog: Catalog,
    /// What the segments of the log hold.
    pub segments: Segments,
    /// Its checkpoints; none in memory durability.
    pub keeper: Option<Keeper>,
    /// Frames of values that may still be delivered, in the order of the core's list.
    pub held: Vec<(Place, Vec<u8>)>,
    /// What an operator should know.
    pub remarks: Vec<String>,
}

/// Identity of a node's log.
pub fn identity(config: &Config) -> Identity {
    Identity {
        cluster: config.cluster.id,
        epoch: config.cluster.epoch,
        node: config.node.id,
        ring: RingId(0),
    }
}

/// Limits of a node's log; `preallocate` segments are made ahead.
pub fn log_config(config: &Config, preallocate: usize) -> LogConfig {
    LogConfig {
        segment_bytes: config.limits.segment_bytes,
        group_bytes_max: config.group_max() as u32,
        groups_in_flight: config.limits.groups_in_flight,
        preallocate,
        development: config.node.development,
        ..LogConfig::new(identity(config), config.cluster.block)
    }
}

/// Makes the store of a new node. It never replaces one.
///
/// # Errors
/// [`RecoverError`].
pub fn format(config: &Config) -> Result<(), RecoverError> {
    format_on(&FileSystem, config)
}

/// Makes the store of a node that comes as another life: a later one than any that was a member.
///
/// # Errors
/// [`RecoverError`].
pub fn format_life(config: &Config, incarnation: Incarnation) -> Result<(), RecoverError> {
    format_life_on(&FileSystem, config, incarnation)
}

/// As [`format()`], on any disk.
///
/// # Errors
/// [`RecoverError`].
pub fn format_on(disk: &dyn Disk, config: &Config) -> Result<(), RecoverError> {
    format_life_on(disk, config, Incarnation(1))
}

/// As [`format_life`], on any disk.
///
/// # Errors
/// [`RecoverError`].
pub fn format_life_on(
    disk: &dyn Disk,
    config: &Config,
    incarnation: Incarnation,
) -> Result<(), RecoverError> {
    let dir = &config.node.dir;
    disk.create_dir_all(dir)
        .map_err(|source| RecoverError::Dir { dir: dir.display().to_string(), source })?;
    disk.check_direct(dir, config.node.development)?;
    let nodes = config.cluster.founders().count() as u8;
    let (durability, block) = (config.cluster.durability, config.cluster.block);
    let mut superblock = Superblock::new(identity(config), durability, block, nodes);
    superblock.configuration = config.config_hash();
    superblock.incarnation = incarnation;
    SuperblockFile::create(disk, dir, &superblock, config.node.development)?;
    sync_name(disk, dir)
}

/// Makes the name of `dir` durable: a store that power failure can take away whole has promised
/// nothing. Whoever may not read the directory above did not make `dir`.
fn sync_name(disk: &dyn Disk, dir: &Path) -> Result<(), RecoverError> {
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    match disk.sync_dir(above.unwrap_or(Path::new("."))) {
        Err(source) if source.kind() != std::io::ErrorKind::PermissionDenied => {
            Err(RecoverError::Dir { dir: dir.display().to_string(), source })
        }
        _ => Ok(()),
    }
}

/// Puts the store of an older cluster epoch aside, as `DIR.epoch-N`, and a new one in its place: an
/// operator's decision, when too few nodes remember their votes. Nothing is deleted. The new store
/// is made as `DIR.next` first: after a crash it tells a change that began from a store that was
/// lost, which is never made anew in its epoch.
///
/// # Errors
/// [`RecoverError`].
pub fn new_epoch(config: &Config) -> Result<(), RecoverError> {
    let dir = config.node.dir.as_path();
    let named = || dir.display().to_string();
    let beside = |end: &str| dir.with_file_name(format!("{}.{end}", file_name(dir)));
    let fresh = beside("next");
    let moved = |from: &Path, to: &Path| {
        std::fs::rename(from, to).map_err(|source| RecoverError::Dir { dir: named(), source })
    };
    let begun = || {
        let made = superfile::read_superblock(&fresh);
        made.is_ok_and(|made| made.identity == identity(config))
    };
    if !is_formatted(dir) && !dir.exists() && begun() {
        moved(&fresh, dir)?;
        return sync_name(&FileSystem, dir);
    }
    let found = superfile::read_superblock(dir)?.identity;
    let lock = DirLock::acquire(dir)?;
    let ours = Identity { epoch: found.epoch, ..identity(config) };
    if found != ours {
        let path = superfile::superblock_path(dir);
        let (expected, found) = (Box::new(ours), Box::new(found));
        return Err(LogError::Foreign { path, expected, found }.into());
    }
    if found.epoch >= config.cluster.epoch {
        let (found, wanted) = (found.epoch.0, config.cluster.epoch.0);
        return Err(RecoverError::NotNewer { dir: named(), found, wanted });
    }
    // Of a try that was cut short: no node ever ran on it.
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)
            .map_err(|source| RecoverError::Dir { dir: fresh.display().to_string(), source })?;
    }
    let mut made = config.clone();
    made.node.dir.clone_from(&fresh);
    format(&made)?;
    moved(dir, &beside(&format!("epoch-{}", found.epoch.0)))?;
    moved(&fresh, dir)?;
    drop(lock);
    // Before a node runs on it: found as `DIR.next` again, it would be made anew.
    sync_name(&FileSystem, dir)
}

fn file_name(dir: &Path) -> String {
    dir.file_name().map_or_else(|| "log".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Opens a node's store and begins a new life of it. The caller holds its lock as long as the node
/// runs.
///
/// # Errors
/// [`RecoverError`].
pub fn open_on(
    disk: &SharedDisk,
    config: &Config,
    preallocate: usize,
) -> Result<Opened, RecoverError> {
    let dir = config.node.dir.as_path();
    if mutant!(StoreMadeAnew) && superfile::read_superblock_on(&**disk, dir).is_err() {
        let _ = disk.remove_dir_all(dir);
        format_on(&**disk, config)?;
    }
    let (mut file, mut superblock) =
        SuperblockFile::open(&**disk, dir, &identity(config), config.node.development)?;
    check_settings(config, &superblock)?;
    let mut remarks = Vec::new();
    begin_life(config, &mut superblock, &mut remarks);
    file.write(&superblock)?;
    let settings = settings(config, &superblock);
    if config.cluster.durability == Durability::Memory {
        return Ok(opened_in_memory(file, superblock, settings, remarks));
    }
    let limits = LogConfig { disk: disk.clone(), ..log_config(config, preallocate) };
    let found = walk(config, &limits, &mut file, &mut superblock, &settings, &mut remarks)?;
    let Walked { replay, found, writer, loaded } = found;
    let Loaded { state, catalog, ballot, keeper, .. } = loaded;
    let promised = superblock.promised.max(found.ballot).max(replay.claim.ballot).max(ballot);
    let reader = LogReader::on(disk.clone(), dir, limits.identity, limits.development);
    let ahead = READ_AHEAD_BYTES.min(limits.segment_bytes as usize);
    let mut reader = ReadAhead::new(reader, ahead);
    let delivered = replay.deliver(&mut reader, state, catalog)?;
    let (values, held) = replay.held(&mut reader, &delivered.table, held_most(config))?;
    let orders = replay.orders.range(delivered.position..).map(|(_, order)| *order).collect();
    let recovered = Recovered {
        promised,
        claim: Claim { ballot: replay.claim.ballot, position: delivered.position },
        delivered: delivered.position,
        table: delivered.table,
        configuration: Some(delivered.configuration),
        orders,
        values,
        damaged: replay.damaged,
    };
    // The promise is made durable before the first answer.
    if superblock.promised != promised {
        superblock.promised = promised;
        file.write(&superblock)?;
    }
    let (groups, catalog) = (delivered.groups, delivered.catalog);
    let (log, segments, keeper) = (Some((writer, limits)), found.contents, Some(keeper));
    Ok(Opened {
        file,
        superblock,
        log,
        settings,
        recovered,
        groups,
        catalog,
        segments,
        keeper,
        held,
        remarks,
    })
}

/// A node that keeps its log in memory begins with nothing.
fn opened_in_memory(
    file: SuperblockFile,
    superblock: Superblock,
    settings: Settings,
    remarks: Vec<String>,
) -> Opened {
    Opened {
        file,
        superblock,
        log: None,
        settings,
        recovered: Recovered::default(),
        groups: Groups::new(),
        catalog: Catalog::new(true),
        segments: Segments::default(),
        keeper: None,
        held: Vec::new(),
        remarks,
    }
}

/// What is in a log.
struct Walked {
    replay: Replay,
    found: chainring_storage::Recovered,
    writer: LogWriter,
    loaded: Loaded,
}

/// Reads the checkpoints, and the log behind the newest that can be used.
fn walk(
    config: &Config,
    limits: &LogConfig,
    file: &mut SuperblockFile,
    superblock: &mut Superblock,
    settings: &Settings,
    remarks: &mut Vec<String>,
) -> Result<Walked, RecoverError> {
    let loaded = keep::load(config, limits, superblock, settings.first_configuration())?;
    remarks.extend(loaded.remarks.iter().cloned());
    if fell_back(superblock, &loaded.keeper) {
        file.write(superblock)?;
    }
    let named = names_newest(superblock, &loaded.keeper);
    let (mut replay, dir) = (Replay::default(), config.node.dir.as_path());
    let mut take = |group: &Group<'_>| replay.take(group);
    let (found, writer) =
        chainring_storage::recover(dir, limits, file, superblock, loaded.start, &mut take)?;
    if named {
        file.write(superblock)?;
    }
    remarks.extend(remarks_on(&found));
    if loaded.lost {
        mark!(StateLost);
        remarks.push("no checkpoint can be read: a state is fetched from peers".to_owned());
    }
    replay.damaged = found.damaged || loaded.lost;
    // An idle log says in a seal how far it is delivered, and seals are not visited.
    if found.claim.position > replay.claim.position {
        mark!(ClaimOnlyInSeal);
        replay.claim = found.claim;
    }
    // Where nothing follows a peer's state yet, it alone says under which ballot it is decided.
    replay.claim.ballot = replay.claim.ballot.max(loaded.ballot);
    Ok(Walked { replay, found, writer, loaded })
}

/// The newest checkpoint cannot be used. What was repaired since an older one was repaired only as
/// far as the newer one did not have it: it is unknown again. True if anything changed.
fn fell_back(superblock: &mut Superblock, keeper: &Keeper) -> bool {
    let newest = keeper.newest();
    if superblock.checkpoint.is_none_or(|known| known.0 <= newest) {
        return false;
    }
    mark!(CheckpointFellBack);
    superblock.checkpoint = keeper.oldest().map(|_| keeper.note().checkpoint);
    for damage in &mut superblock.damage {
        if damage.state == DamageState::Repaired {
            damage.state = DamageState::Unknown;
        }
    }
    true
}

/// The life before ended between a checkpoint and its note. It is named now: what is repaired from
/// here on is repaired as far as that one does not have it, so its loss must show. True if it
/// changed. It is to be written only when the names in the directory are durable.
fn names_newest(superblock: &mut Superblock, keeper: &Keeper) -> bool {
    let newest = keeper.note().checkpoint;
    if superblock.checkpoint.unwrap_or_default().0 >= newest.0 {
        return false;
    }
    mark!(CheckpointNamedLate);
    superblock.checkpoint = Some(newest);
    true
}

fn check_settings(config: &Config, superblock: &Superblock) -> Result<(), RecoverError> {
    let made = [
        ("durability", durability_name(superblock.durability).to_owned()),
        ("block", superblock.block.to_string()),
        ("nodes", superblock.nodes.to_string()),
    ];
    let wanted = [
        durability_name(config.cluster.durability).to_owned(),
        config.cluster.block.to_string(),
        config.cluster.founders().count().to_string(),
    ];
    for ((key, made), wanted) in made.into_iter().zip(wanted) {
        if made != wanted {
            let dir = config.node.dir.display().to_string();
            return Err(RecoverError::Differs { dir, key, made, wanted });
        }
    }
    Ok(())
}

/// Raises the start number, and the incarnation if promises or votes may be forgotten.
fn begin_life(config: &Config, superblock: &mut Superblock, remarks: &mut Vec<String>) {
    let first = superblock.start == 0;
    let remembers = match config.cluster.durability {
        Durability::Memory => first,
        Durability::Async => first || superblock.clean,
        Durability::Sync => true,
    };
    if !remembers && !mutant!(AmnesiaUnnoticed) {
        mark!(LifeForgets);
        superblock.incarnation = Incarnation(superblock.incarnation.0 + 1);
        superblock.remembers = false;
        superblock.promised = Ballot::ZERO;
        remarks.push(format!(
            "node {} has forgotten its votes ({} durability, {}): it comes back as incarnation {}, \
             learns, and votes again once it is admitted",
            config.node.id.0,
            durability_name(config.cluster.durability),
            if first { "new" } else { "no clean stop" },
            superblock.incarnation.0
        ));
    }
    superblock.start += 1;
    if superblock.clean {
        mark!(CleanStopFound);
    }
    superblock.clean &= mutant!(CleanMarkNotErased);
}

fn settings(config: &Config, superblock: &Superblock) -> Settings {
    let mut nodes: Vec<_> = config.cluster.founders().map(|member| member.id).collect();
    nodes.sort_unstable();
    Settings {
        // Until an entry of the log says otherwise, the first lives vote.
        voters: vec![Incarnation(1); nodes.len()],
        nodes,
        me: config.node.id,
        incarnation: superblock.incarnation,
        session: if mutant!(SessionReused) { Session::FIRST } else { superblock.session() },
        durability: config.cluster.durability,
        window: u64::from(config.limits.window_instances),
        seed: u64::from(config.node.id.0) << 32 | u64::from(superblock.start),
        patience: CANDIDATE_PATIENCE,
    }
}

/// What an operator should know of a log as it was found.
fn remarks_on(found: &chainring_storage::Recovered) -> Vec<String> {
    let cut = |damage| format!("a torn write was cut: {}", describe(damage));
    let unknown =
        |damage| format!("damage below the seal, fetched from peers: {}", describe(damage));
    found.cuts.iter().map(cut).chain(found.unknowns.iter().map(unknown)).collect()
}

fn describe(damage: &chainring_storage::Damage) -> String {
    let place = |at: u64| format!("segment {} byte {}", at >> 32, at & 0xffff_ffff);
    format!("from {} to {}", place(damage.from), place(damage.to))
}

/// Bytes of undelivered values of one origin that a damaged log gives back.
fn held_most(config: &Config) -> u64 {
    u64::from(config.limits.window_bytes) + u64::from(config.packet_max())
}

/// True if `dir` holds a node's store.
pub fn is_formatted(dir: &Path) -> bool {
    dir.join("superblock").exists()
}

#[cfg(test)]
mod tests;
