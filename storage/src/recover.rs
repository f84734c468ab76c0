//! Opens a log: walks over it, records what was cut or is damaged, and ends with a durable seal.
//!
//! Order of events, each durable before the next begins: what the last process wrote; the record of
//! cuts and damage in the superblock; zeros over what was cut; the segments to write to; a seal of
//! this life over everything kept. Only then may the node send its first frame. A crash anywhere in
//! between leads to the same decisions again.

use crate::config::{GROUP_ALIGN, LogConfig, SEGMENT_BYTES_MAX, address, offset_of, segment_of};
use crate::contents::{Segments, Start};
use crate::direct::AlignedBuf;
use crate::disk::{Access, Disk, sync_dir};
use crate::error::LogError;
use crate::scan::{Group, ScanInput, Scanned, Tail, scan};
use crate::segment::{create_segment, list_segments, remove_segments, segment_path, zero_rest};
use crate::superblock::{DAMAGE_MAX, Damage, DamageState, Superblock};
use crate::superfile::SuperblockFile;
use crate::writer::{LogWriter, Resume};
use chainring_ring::ids::{Ballot, Claim};
use chainring_ring::mark;
use std::path::Path;

/// What was recovered.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Highest claim in the log: what it authorises is delivered again.
    pub claim: Claim,
    /// Highest ballot of an order: the promise is at least that.
    pub ballot: Ballot,
    /// Groups kept, seals among them.
    pub groups: u64,
    /// Orders kept.
    pub orders: u64,
    /// Value frames kept.
    pub values: u64,
    /// Bytes of value frames.
    pub bytes: u64,
    /// Whether acknowledged bytes are unknown: until they are repaired, an order without its value
    /// is not "never had", and a missing instance is "unknown".
    pub damaged: bool,
    /// What was cut now: torn writes.
    pub cuts: Vec<Damage>,
    /// What is unknown and not repaired.
    pub unknowns: Vec<Damage>,
    /// There was no room to make segments ahead: appends will end with this one.
    pub full: bool,
    /// What the segments hold, from where the walk began.
    pub contents: Segments,
}

/// Opens the log in `dir`, whose lock the caller holds.
///
/// `superblock` is the one read from `file`, with its start number raised and written already.
/// `from` is where the walk begins: the beginning of the log, or where a checkpoint says that
/// nothing before it is needed. `visitor` sees every kept group that has orders or values, in
/// order.
///
/// # Errors
/// Those of [`crate::scan::scan`], [`LogError::NoDirect`], [`LogError::TooMuchDamage`],
/// [`LogError::Full`] if there is no room to write at all.
pub fn recover(
    dir: &Path,
    config: &LogConfig,
    file: &mut SuperblockFile,
    superblock: &mut Superblock,
    from: Start,
    visitor: &mut dyn FnMut(&Group<'_>),
) -> Result<(Recovered, LogWriter), LogError> {
    config.check()?;
    config.disk.check_direct(dir, config.development)?;
    sync_all(&*config.disk, dir)?;
    let input = ScanInput {
        dir,
        config,
        sealed: superblock.sealed,
        from,
        start: Some(superblock.start),
        alone: superblock.nodes == 1,
        damage: &superblock.damage,
    };
    let scanned = scan(&input, visitor)?;
    let damage = merge(&superblock.damage, &scanned.damage)?;
    // Only a cut leaves the seals of the log behind without another word of what was kept.
    let sealed = match scanned.tail {
        Tail::Cut => {
            if superblock.sealed < scanned.last {
                mark!(CutRaisesSeal);
            }
            superblock.sealed.max(scanned.last)
        }
        Tail::End | Tail::Lost => superblock.sealed,
    };
    if damage != superblock.damage || sealed != superblock.sealed {
        (superblock.damage, superblock.sealed) = (damage, sealed);
        file.write(superblock)?;
    }
    if remove_segments(&*config.disk, dir, superblock.first_segment)? > 0 {
        mark!(FreedSegmentFound);
    }
    let (at, full) = prepare(dir, config, &scanned, &superblock.damage)?;
    let writer = resume(dir, config, superblock, &scanned, at)?;
    let of = |state| scanned.damage.iter().copied().filter(move |damage| damage.state == state);
    let unknowns: Vec<Damage> = of(DamageState::Unknown).collect();
    if !unknowns.is_empty() {
        mark!(StartsDamaged);
    }
    let mut contents = scanned.contents;
    // Where the writer goes on; behind a lost tail its first group follows nothing.
    let checksum = (scanned.tail != Tail::Lost).then_some(scanned.checksum);
    let number = scanned.last;
    let start = Start { segment: segment_of(at), number, checksum, start: superblock.start };
    contents.begin(start);
    // Its seal may have had no room there.
    contents.begin(Start { segment: writer.segment(), ..start });
    let recovered = Recovered {
        claim: scanned.claim,
        ballot: scanned.ballot,
        groups: scanned.groups,
        orders: scanned.orders,
        values: scanned.values,
        bytes: scanned.bytes,
        damaged: !unknowns.is_empty(),
        cuts: of(DamageState::Cut).collect(),
        unknowns,
        full,
        contents,
    };
    Ok((recovered, writer))
}

/// Makes durable what the last process wrote: a read must not see what a power failure can still
/// take away.
fn sync_all(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    for (number, _) in list_segments(disk, dir)? {
        let path = segment_path(dir, number);
        disk.open(&path, Access::Read, true)
            .and_then(|file| file.sync())
            .map_err(|source| LogError::io("sync of", &path, source))?;
    }
    sync_dir(disk, dir)
}

/// The damage list to record: what is unknown now, what was repaired, and the last cuts as far as
/// there is room. Ranges that were unknown and read well again are dropped.
fn merge(recorded: &[Damage], found: &[Damage]) -> Result<Vec<Damage>, LogError> {
    let of = |list: &[Damage], state| -> Vec<Damage> {
        list.iter().copied().filter(|damage| damage.state == state).collect()
    };
    let mut list = of(found, DamageState::Unknown);
    if of(recorded, DamageState::Unknown).iter().any(|known| !list.contains(known)) {
        mark!(DamageReadsAgain);
    }
    list.extend(of(recorded, DamageState::Repaired));
    if list.len() > DAMAGE_MAX {
        return Err(LogError::TooMuchDamage { limit: DAMAGE_MAX });
    }
    let mut cuts = of(recorded, DamageState::Cut);
    cuts.extend(of(found, DamageState::Cut).iter().filter(|cut| !recorded.contains(cut)));
    let room = DAMAGE_MAX - list.len();
    if room == 0 && !of(found, DamageState::Cut).is_empty() {
        return Err(LogError::TooMuchDamage { limit: DAMAGE_MAX });
    }
    list.extend(&cuts[cuts.len().saturating_sub(room)..]);
    Ok(list)
}

/// Clears what was cut and makes the segments to write to. Returns the address to go on at, and
/// whether there was no room to make segments ahead.
///
/// What an earlier start cut is cleared once more, as long as nothing was written behind it: the
/// sync of its zeros may have failed, and then none that follows says whether they are durable.
fn prepare(
    dir: &Path,
    config: &LogConfig,
    scanned: &Scanned,
    recorded: &[Damage],
) -> Result<(u64, bool), LogError> {
    let disk = &*config.disk;
    let last = scanned.segments.last().map(|(number, _)| *number);
    let mut at = scanned.end;
    if scanned.tail == Tail::Lost {
        // What may be repaired is not overwritten.
        mark!(GoesOnBehindLostTail);
        at = address(last.map_or(0, |last| last.max(segment_of(at))) + 1, GROUP_ALIGN);
    }
    clear(dir, config, scanned, recorded, at)?;
    let current = segment_of(at);
    let kept = |number: u32| disk.exists(&segment_path(dir, number));
    if !kept(current) {
        mark!(SegmentMadeToGoOn);
        create_segment(dir, config, current)?;
    }
    for number in current + 1..=current + config.preallocate as u32 {
        match kept(number) {
            true => {}
            false => match create_segment(dir, config, number) {
                Err(LogError::Full { .. }) => {
                    mark!(StartsFull);
                    return Ok((at, true));
                }
                result => result?,
            },
        }
    }
    Ok((at, false))
}

/// Removes the segments behind `at` that are of no use, and zeros what was cut of its own.
fn clear(
    dir: &Path,
    config: &LogConfig,
    scanned: &Scanned,
    recorded: &[Damage],
    at: u64,
) -> Result<(), LogError> {
    let (disk, current) = (&*config.disk, segment_of(at));
    let is_cut = |number: u32| {
        let unsure = |damage: &Damage| {
            let here = segment_of(damage.from) == number && damage.to > at;
            damage.state == DamageState::Cut && here && scanned.tail == Tail::End
        };
        scanned.tail == Tail::Cut || recorded.iter().any(unsure)
    };
    // Behind a cut: dropped groups. Behind an end: zeros, of no use with another size.
    let useless = |(number, bytes): &&(u32, u32)| {
        *number > current && (is_cut(*number) || *bytes != config.segment_bytes)
    };
    // None behind the first of them may outlive it: a gap would pass for damage.
    let first = scanned.segments.iter().find(useless).map_or(u32::MAX, |(number, _)| *number);
    for (number, bytes) in scanned.segments.iter().rev() {
        let path = segment_path(dir, *number);
        if *number >= first {
            mark!(SegmentRemoved);
            disk.remove(&path).map_err(|source| LogError::io("removal of", &path, source))?;
            // From the end, each durable before the next: a crash in between leaves no gap.
            sync_dir(disk, dir)?;
        }
        if *number == current && is_cut(current) {
            mark!(CutZeroed);
            zero_rest(&path, config, offset_of(at), *bytes)?;
        }
    }
    Ok(())
}

/// Makes the writer and lets it write its first group, a seal.
fn resume(
    dir: &Path,
    config: &LogConfig,
    superblock: &Superblock,
    scanned: &Scanned,
    at: u64,
) -> Result<LogWriter, LogError> {
    let (disk, path) = (&*config.disk, segment_path(dir, segment_of(at)));
    let length = disk
        .open(&path, Access::Read, config.development)
        .and_then(|file| file.length())
        .map_err(|source| LogError::io("size of", &path, source))?;
    let resume = Resume {
        session: superblock.session(),
        at,
        segment_bytes: length.min(SEGMENT_BYTES_MAX.into()) as u32 / GROUP_ALIGN * GROUP_ALIGN,
        // Above everything ever seen, so that no leftover carries a number of this life.
        number: scanned.highest.max(scanned.last) + 1,
        // Behind a lost tail nothing is followed: the gap has to be found again.
        previous: if scanned.tail == Tail::Lost { 0 } else { scanned.checksum },
    };
    let mut writer = LogWriter::new(config.clone(), resume);
    for number in segment_of(at) + 1.. {
        if !disk.exists(&segment_path(dir, number)) || writer.add_segment(number).is_err() {
            break;
        }
    }
    let mut block = AlignedBuf::new(GROUP_ALIGN as usize);
    let full = LogError::Full { dir: dir.into(), bytes: config.segment_bytes.into() };
    let plan = writer.plan_seal(scanned.claim, &mut block).map_err(|_| full)?;
    let path = segment_path(dir, plan.segment);
    disk.open(&path, Access::WriteDurable, config.development)
        .and_then(|file| file.write_all_at(&block[..plan.bytes as usize], u64::from(plan.offset)))
        .map_err(|source| LogError::io("seal of", &path, source))?;
    writer.complete(plan.group)?;
    Ok(writer)
}
