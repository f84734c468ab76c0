//! What lies at a place of a log, and behind it.
//!
//! Invariant: nothing here moves the walk; a decision needs the rest of the log only where no group
//! follows, so a whole log is read once.

use super::{Scan, Seen};
use crate::block::{self, Block, Values, identity_of};
use crate::config::{GROUP_ALIGN, Identity, Place, address, offset_of, segment_of};
use crate::error::LogError;
use crate::segment::{decode_header, segment_path};
use crate::superblock::{Damage, DamageState};
use crate::table::{Case, Cover, Found};
use chainring_ring::header::{BLOCK_BYTES_MIN, Header, Kind};
use chainring_ring::{mark, mutant};

/// What the 4096 bytes at an address begin.
enum Slot {
    Group(Block),
    Foreign(Identity),
    Garbage,
    Zero,
    /// No such segment, or its end.
    Missing,
}

/// The rest of a log behind a position without a group that follows.
#[derive(Default)]
struct Survey {
    /// First intact group that is ours and newer.
    later: Option<u64>,
    sealed: u64,
    dirty: bool,
}

impl Scan<'_> {
    /// Whether a file is what its name says. One that is not counts as missing.
    pub(super) fn check_segment(&mut self, number: u32, bytes: u32) -> Result<bool, LogError> {
        match decode_header(self.ahead.get(number, bytes, 0, GROUP_ALIGN)?) {
            Ok(header) if header.identity != self.input.config.identity => Err(LogError::Foreign {
                path: segment_path(self.input.dir, number),
                expected: Box::new(self.input.config.identity),
                found: Box::new(header.identity),
            }),
            Ok(header) => Ok(header.number == u64::from(number)),
            Err(_) => {
                mark!(SegmentHeaderDamaged);
                self.out.headers_damaged += 1;
                Ok(true)
            }
        }
    }

    /// Whether the first group of a segment is ours, if it can be read.
    pub(super) fn check_first(&mut self, number: u32, bytes: u32) -> Result<(), LogError> {
        let first = self.ahead.get(number, bytes, GROUP_ALIGN, GROUP_ALIGN)?;
        let found = block::peek(first).map(|header| identity_of(&header, None));
        let ours = self.input.config.identity;
        match found.ok().filter(|found| *found != ours) {
            Some(found) => Err(LogError::Foreign {
                path: segment_path(self.input.dir, number),
                expected: Box::new(ours),
                found: Box::new(found),
            }),
            None => Ok(()),
        }
    }

    pub(super) fn segment_bytes(&self, number: u32) -> Option<u32> {
        let segments = &self.out.segments;
        let index = segments.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(segments[index].1)
    }

    fn slot(&mut self, at: u64, ahead: bool) -> Result<Slot, LogError> {
        let (segment, offset) = (segment_of(at), offset_of(at));
        let Some(limit) = self.segment_bytes(segment) else { return Ok(Slot::Missing) };
        let window = if ahead { &mut self.ahead } else { &mut self.front };
        let bytes = window.get(segment, limit, offset, GROUP_ALIGN)?;
        if bytes.len() < GROUP_ALIGN as usize {
            return Ok(Slot::Missing);
        }
        if *bytes == [0; GROUP_ALIGN as usize] {
            return Ok(Slot::Zero);
        }
        let Ok(header) = block::peek(bytes) else { return Ok(Slot::Garbage) };
        let identity = identity_of(&header, None);
        if identity != self.input.config.identity {
            return Ok(Slot::Foreign(identity));
        }
        let bytes = window.get(segment, limit, offset, header.size)?;
        match block::decode(&header, bytes) {
            Ok(block) if block.group_bytes() <= u64::from(limit - offset) => Ok(Slot::Group(block)),
            _ => Ok(Slot::Garbage),
        }
    }

    /// Whether a block is older than what was kept already.
    fn is_stale(&self, block: &Block) -> bool {
        block.number <= self.out.last || block.session.start < self.start
    }

    fn follows(&self, block: &Block) -> bool {
        let chained = self.chain.is_none_or(|chain| chain == block.previous);
        !self.is_stale(block) && (chained || mutant!(ChainUnchecked))
    }

    pub(super) fn look(&mut self, at: u64) -> Result<(Found, Option<Seen>), LogError> {
        let found = match self.slot(at, false)? {
            Slot::Group(block) if self.follows(&block) => {
                self.check_start(&block)?;
                let bad = self.check_values(at, &block)?;
                let found = if bad.is_none() { Found::Complete } else { Found::BadValues };
                return Ok((found, Some(Seen { block, bad: bad.unwrap_or(0) })));
            }
            Slot::Group(block) if self.is_stale(&block) => Found::Stale,
            Slot::Group(block) => {
                self.unchained = Some(block.previous);
                Found::Unchained
            }
            Slot::Foreign(identity) => {
                self.foreign = Some(identity);
                return Ok((Found::Foreign, None));
            }
            Slot::Garbage => Found::Garbage,
            Slot::Zero | Slot::Missing => Found::Empty,
        };
        let next = address(segment_of(at) + 1, GROUP_ALIGN);
        match self.slot(next, true)? {
            // Behind a gap the chain says nothing, and the gap's end is where the walk goes on.
            Slot::Group(block) if self.chain.is_some() && self.follows(&block) => {
                Ok((Found::Rolled, None))
            }
            _ => Ok((found, None)),
        }
    }

    fn check_start(&self, block: &Block) -> Result<(), LogError> {
        match self.input.start {
            Some(start) if block.session.start >= start => {
                Err(LogError::StartNotRaised { found: block.session.start, start })
            }
            _ => Ok(()),
        }
    }

    /// Reads the value frames of a group into `values`; returns the first byte that fails.
    fn check_values(&mut self, at: u64, block: &Block) -> Result<Option<u32>, LogError> {
        self.values.clear();
        let (segment, offset) = (segment_of(at), offset_of(at));
        let limit = self.segment_bytes(segment).expect("a block was read from it");
        let bytes = self.front.get(segment, limit, offset, block.group_bytes() as u32)?;
        let (mut values, mut before) = (Values::default(), block.bytes);
        let mut first_bad = None;
        for _ in 0..block.values.count {
            let rest = &bytes[before as usize..];
            let Some(header) = value_header(rest, &self.input.config.identity) else {
                mark!(ValueHeaderDamaged);
                // Fewer frames than were written, all intact: the disk lost the write.
                let bad = if rest.is_empty() { block.bytes } else { before };
                return Ok(first_bad.or(Some(bad)));
            };
            let frame = &rest[..header.size as usize];
            match header.check_body(frame) {
                Ok(_) => {
                    let place = Place { at: at + u64::from(before), bytes: header.size };
                    self.values.push((header, place));
                }
                Err(_) => {
                    mark!(ValueBodyDamaged);
                    first_bad = first_bad.or(Some(before));
                }
            }
            values.push(frame);
            before += header.size;
        }
        // All frames intact, but others than were written: the disk lost the write.
        let lost = values != block.values;
        Ok(first_bad.or(lost.then_some(block.bytes)))
    }

    /// Completes a case; looks at the rest of the log only where the decision needs it.
    pub(super) fn case(
        &mut self,
        at: u64,
        mut found: Found,
        seen: Option<&Seen>,
    ) -> Result<(Case, Option<u64>), LogError> {
        let (cover, later, repaired) = (Cover::None, false, false);
        let alone = self.input.alone && !mutant!(AloneGoesOn);
        let mut case = Case { found, cover, later, repaired, alone };
        if matches!(found, Found::Complete | Found::Rolled | Found::Foreign) {
            return Ok((case, None));
        }
        let survey = self.survey(at)?;
        if found == Found::Empty && survey.dirty {
            // Zeros, but what stands behind them was written at some time: a torn write whose
            // first sectors did not land.
            mark!(ZerosBeforeRemains);
            found = Found::Garbage;
        }
        let number = seen.map_or(self.out.last + 1, |seen| seen.block.number);
        let from = at + seen.map_or(0, |seen| u64::from(seen.bad));
        let cover = match () {
            () if survey.sealed >= number => Cover::Log,
            () if self.input.sealed >= number && !mutant!(SuperblockSealIgnored) => {
                Cover::Superblock
            }
            () if self.is_gap(segment_of(at)) && !mutant!(GapIgnored) => Cover::Gap,
            () => Cover::None,
        };
        // What was repaired once says nothing of what was lost behind it since: where a group is
        // gone, the record has to reach as far as the walk would skip.
        let to = survey.later.unwrap_or_else(|| self.end_of_log(at));
        let reaches = |end: u64| seen.is_some() || self.joined(end) >= self.joined(to);
        let holds = |damage: &Damage| {
            damage.from <= from && from < self.joined(damage.to) && reaches(damage.to)
        };
        let repaired = |damage: &Damage| damage.state == DamageState::Repaired && holds(damage);
        case.found = found;
        case.cover = cover;
        case.later = survey.later.is_some();
        let gone_on = mutant!(AloneGoesOn) && self.input.alone;
        let came_back = found == Found::Unchained && self.goes_on(at);
        case.repaired = self.input.damage.iter().any(repaired) || came_back || gone_on;
        // An intact block without its predecessor: the walk goes on with the block itself.
        let next = if found == Found::Unchained { Some(at) } else { survey.later };
        Ok((case, next))
    }

    /// A group that could not be read once can be read again: what was written behind it follows
    /// the group before it, as the chain stood where that damage began.
    fn goes_on(&self, at: u64) -> bool {
        let before = |damage: &Damage| {
            let ends_here = damage.state != DamageState::Cut && self.joined(damage.to) == at;
            let chain = self.chains.iter().find(|(from, _)| *from == damage.from);
            chain.map(|(_, chain)| *chain).filter(|_| ends_here)
        };
        self.input.damage.iter().filter_map(before).any(|chain| self.unchained == Some(chain))
    }

    /// An address, that of a segment's end as the first of the next one.
    fn joined(&self, at: u64) -> u64 {
        let next = address(segment_of(at) + 1, GROUP_ALIGN);
        match self.segment_bytes(segment_of(at)) {
            Some(bytes) if offset_of(at) >= bytes => next,
            _ => at,
        }
    }

    /// Whether a segment is missing from this one on, below one that is there.
    fn is_gap(&self, from: u32) -> bool {
        let last = self.out.segments.last().map_or(0, |(number, _)| *number);
        (from..last).any(|number| self.segment_bytes(number).is_none())
    }

    /// Looks at every place behind `at` where a group can begin.
    fn survey(&mut self, at: u64) -> Result<Survey, LogError> {
        let mut survey = Survey::default();
        for index in 0..self.out.segments.len() {
            let (segment, bytes) = self.out.segments[index];
            let first = match segment.cmp(&segment_of(at)) {
                std::cmp::Ordering::Less => continue,
                std::cmp::Ordering::Equal => offset_of(at),
                std::cmp::Ordering::Greater => GROUP_ALIGN,
            };
            for offset in (first..bytes).step_by(GROUP_ALIGN as usize) {
                let here = address(segment, offset);
                match self.slot(here, true)? {
                    Slot::Zero | Slot::Missing => continue,
                    Slot::Group(block) if self.is_plausible(&block, at, here) => {
                        survey.sealed = survey.sealed.max(block.sealed);
                        self.out.highest = self.out.highest.max(block.number);
                        if here > at {
                            survey.later = survey.later.or(Some(here));
                        }
                    }
                    _ => {}
                }
                survey.dirty = true;
            }
        }
        Ok(survey)
    }

    /// Whether a block found by looking around can be part of the log. A client's records may hold
    /// the bytes of an old segment: their groups are stale, or numbered beyond what has room here.
    fn is_plausible(&self, block: &Block, at: u64, here: u64) -> bool {
        let apart = u64::from(segment_of(here) - segment_of(at));
        let largest = self.out.segments.iter().map(|(_, bytes)| u64::from(*bytes)).max();
        let bytes = (apart + 1) * largest.unwrap_or(0);
        let room = self.out.last + 1 + bytes / u64::from(GROUP_ALIGN);
        let jumps = block.session.start > self.start || self.chain.is_none();
        !self.is_stale(block) && (jumps || block.number <= room)
    }
}

/// The header of a value frame that lies whole in `bytes` and belongs to this log.
fn value_header(bytes: &[u8], identity: &Identity) -> Option<Header> {
    let header = Header::decode(bytes, bytes.len().min(u32::MAX as usize) as u32).ok()?;
    let ours = identity_of(&header, Some(identity.node)) == *identity;
    let fits = header.size.is_multiple_of(BLOCK_BYTES_MIN);
    (header.kind == Kind::Value && ours && fits).then_some(header)
}
