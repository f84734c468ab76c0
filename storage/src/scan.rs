//! Walks over a log from its first segment to its end, deciding by the recovery table. Read only.
//!
//! Invariants: the position only rises; every kept group follows the one before it by checksum, or
//! a recorded gap lies between; what is reported as unknown was sealed, what is cut was not, and
//! could be read.

use crate::block::{self, Block};
use crate::config::{GROUP_ALIGN, Identity, LogConfig, Place, address, offset_of, segment_of};
use crate::contents::{Segments, Start};
use crate::error::LogError;
use crate::segment::{list_segments, segment_path};
use crate::superblock::{Damage, DamageState};
use crate::table::{Action, Case, Cover, Found, Row, decide};
use crate::window::Window;
use chainring_ring::header::Header;
use chainring_ring::ids::{Ballot, Claim, Order, Session};
use chainring_ring::{mark, mutant};
use std::path::Path;

mod look;

/// Looks at the end of a log until two in a row agree, most.
const LOOKS_MAX: u32 = 16;

/// What a walk is told.
#[derive(Clone, Copy, Debug)]
pub struct ScanInput<'a> {
    /// Data directory.
    pub dir: &'a Path,
    /// Identity, and whether files are direct. Limits are taken from the files.
    pub config: &'a LogConfig,
    /// `sealed` of the superblock; 0 if there is none.
    pub sealed: u64,
    /// Where it begins.
    pub from: Start,
    /// Start number of this life: nothing in the log may carry it. `None` to look at a log in use.
    pub start: Option<u32>,
    /// Whether the node is alone, so that corruption is refused.
    pub alone: bool,
    /// Damage recorded in the superblock.
    pub damage: &'a [Damage],
}

/// A group that was kept.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Its number.
    pub number: u64,
    /// Where it lies: its whole run on disk.
    pub place: Place,
    /// The life that wrote it.
    pub session: Session,
    /// Groups to here were complete when it was planned.
    pub sealed: u64,
    /// What was known to be decided then.
    pub claim: Claim,
    /// Its orders.
    pub orders: &'a [Order],
    /// Its value frames that verify: all, but in a damaged group.
    pub values: &'a [(Header, Place)],
    bytes: &'a [u8],
}

impl Group<'_> {
    /// The bytes of a value frame of this group.
    pub fn frame(&self, place: Place) -> &[u8] {
        let start = (place.at - self.place.at) as usize;
        &self.bytes[start..start + place.bytes as usize]
    }
}

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With nothing behind it.
    End,
    /// With a torn write, to be cut.
    Cut,
    /// With corruption: how far it went is not known.
    Lost,
}

/// What a walk found.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// Number of the last group kept; 0 if none.
    pub last: u64,
    /// Header checksum of that group's block.
    pub checksum: u128,
    /// Highest number seen anywhere, kept or not.
    pub highest: u64,
    /// Address of the end: where the next group goes, unless the tail is lost.
    pub end: u64,
    /// How it ends.
    pub tail: Tail,
    /// Highest claim.
    pub claim: Claim,
    /// Highest ballot of an order; the promise is at least that.
    pub ballot: Ballot,
    /// Groups kept, seals among them.
    pub groups: u64,
    /// Orders in them.
    pub orders: u64,
    /// Value frames in them.
    pub values: u64,
    /// Bytes of value frames in them.
    pub bytes: u64,
    /// Dropped, or damaged and not repaired.
    pub damage: Vec<Damage>,
    /// Segments whose header is damaged; costs nothing, since every group names its log.
    pub headers_damaged: u32,
    /// Segments: number and bytes.
    pub segments: Vec<(u32, u32)>,
    /// What they hold.
    pub contents: Segments,
}

/// Walks over a log. `visitor` sees every kept group that has orders or values, in order.
///
/// # Errors
/// [`LogError::Foreign`], [`LogError::Corrupt`] for a node alone, [`LogError::StartNotRaised`],
/// [`LogError::Unreadable`], [`LogError::Io`].
pub fn scan(
    input: &ScanInput<'_>,
    visitor: &mut dyn FnMut(&Group<'_>),
) -> Result<Scanned, LogError> {
    let mut scan = Scan::new(input)?;
    let mut at = address(input.from.segment, GROUP_ALIGN);
    loop {
        if offset_of(at) == GROUP_ALIGN {
            scan.begin(segment_of(at));
        }
        scan.note_chain(at);
        let (found, mut seen) = scan.look(at)?;
        let (mut case, mut later) = scan.case(at, found, seen.as_ref())?;
        if case.cover != Cover::None {
            // Beside a writer the group may have been completed, and a seal of it written, since
            // it was looked at. Once a seal was seen, another look shows it, or damage.
            scan.forget();
            let again = scan.look(at)?;
            seen = again.1;
            if again.0 != found {
                (case, later) = scan.case(at, again.0, seen.as_ref())?;
            }
        }
        let ends = !matches!(case.found, Found::Complete | Found::Rolled | Found::Foreign);
        if ends && case.cover == Cover::None && scan.unread() >= at {
            // What cannot be read was not torn, for all that is known: it may have been voted for.
            mark!(EndUnread);
            return Err(LogError::Unreadable { from: at });
        }
        if decide(&case).action == Action::Cut {
            (seen, case, later) = scan.look_until_sure(at)?;
        }
        match scan.act(decide(&case), at, seen, later, visitor)? {
            Some(next) => at = next,
            None => return Ok(scan.out),
        }
    }
}

struct Scan<'a> {
    input: &'a ScanInput<'a>,
    /// For the walk, and for looks ahead, so that these do not cost the walk its view.
    front: Window,
    ahead: Window,
    /// What the next group's `previous` has to be; `None` behind a gap.
    chain: Option<u128>,
    /// Start number of the last group kept.
    start: u32,
    orders: Vec<Order>,
    values: Vec<(Header, Place)>,
    foreign: Option<Identity>,
    /// What the last block that did not follow names as its predecessor.
    unchained: Option<u128>,
    /// The chain where each recorded damage begins.
    chains: Vec<(u64, u128)>,
    out: Scanned,
}

/// An intact block where the next group should begin.
struct Seen {
    block: Block,
    /// First byte of the group that does not verify.
    bad: u32,
}

impl<'a> Scan<'a> {
    fn new(input: &'a ScanInput<'a>) -> Result<Scan<'a>, LogError> {
        let segments = list_segments(&*input.config.disk, input.dir)?;
        let longest = segments.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        let window = || Window::new(input.dir, input.config, longest);
        let out = Scanned {
            last: input.from.number,
            checksum: input.from.checksum.unwrap_or(0),
            highest: input.sealed.max(input.from.number),
            end: 0,
            tail: Tail::End,
            claim: Claim::default(),
            ballot: Ballot::ZERO,
            groups: 0,
            orders: 0,
            values: 0,
            bytes: 0,
            damage: Vec::new(),
            headers_damaged: 0,
            segments: Vec::new(),
            contents: Segments::default(),
        };
        let mut scan = Scan {
            input,
            front: window(),
            ahead: window(),
            chain: input.from.checksum,
            start: input.from.start,
            orders: Vec::new(),
            values: Vec::new(),
            foreign: None,
            unchained: None,
            chains: Vec::new(),
            out,
        };
        for (number, bytes) in segments {
            let named = scan.check_segment(number, bytes)?;
            match number >= input.from.segment {
                true if named => scan.out.segments.push((number, bytes)),
                true => {}
                // What is not walked over has to be ours too.
                false => scan.check_first(number, bytes)?,
            }
        }
        // A header that cannot be read costs nothing: it says nothing of where the log ends.
        scan.forget();
        Ok(scan)
    }

    /// Highest address that the disk did not give; 0 if it gave all.
    fn unread(&self) -> u64 {
        self.front.unread().max(self.ahead.unread())
    }

    fn forget(&mut self) {
        self.front.forget();
        self.ahead.forget();
    }

    /// The walk comes to a segment.
    fn begin(&mut self, segment: u32) {
        let (number, checksum, start) = (self.out.last, self.chain, self.start);
        self.out.contents.begin(Start { segment, number, checksum, start });
    }

    fn note_chain(&mut self, at: u64) {
        let begins = self.input.damage.iter().any(|damage| damage.from == at);
        if let Some(chain) = self.chain.filter(|_| begins) {
            self.chains.push((at, chain));
        }
    }

    /// What lies at a place, read until two reads in a row brought the same bytes: what may have
    /// been voted for is not cut on the word of one.
    fn look_until_sure(&mut self, at: u64) -> Result<(Option<Seen>, Case, Option<u64>), LogError> {
        let mut before = None;
        for _ in 0..LOOKS_MAX {
            self.front.prove();
            self.ahead.prove();
            let (found, seen) = self.look(at)?;
            let (case, later) = self.case(at, found, seen.as_ref())?;
            let proof = Some((self.front.proof(), self.ahead.proof()));
            if proof == before && self.unread() < at {
                return Ok((seen, case, later));
            }
            if before.is_some() {
                mark!(EndReadsOtherwise);
            }
            before = proof;
        }
        Err(LogError::Unreadable { from: at })
    }

    fn act(
        &mut self,
        row: &Row,
        at: u64,
        seen: Option<Seen>,
        later: Option<u64>,
        visitor: &mut dyn FnMut(&Group<'_>),
    ) -> Result<Option<u64>, LogError> {
        self.out.end = at;
        let to = later.unwrap_or_else(|| self.end_of_log(at)).max(at + u64::from(GROUP_ALIGN));
        match row.action {
            Action::Keep | Action::KeepPart | Action::KeepPartRepaired => {
                let Seen { block, bad } = seen.expect("only an intact block is kept");
                let end = at + block.group_bytes();
                if row.action == Action::KeepPart && !mutant!(LostValuesForgotten) {
                    let from = at + u64::from(bad);
                    self.record(Damage { from, to: end, state: DamageState::Unknown });
                }
                self.take(at, &block, visitor)?;
                return Ok(Some(end.next_multiple_of(u64::from(GROUP_ALIGN))));
            }
            Action::Roll if mutant!(RollEndsLog) => self.out.tail = Tail::End,
            Action::Roll => return Ok(Some(address(segment_of(at) + 1, GROUP_ALIGN))),
            Action::Skip | Action::SkipRepaired => {
                if row.action == Action::Skip && !mutant!(LostGroupForgotten) {
                    self.record(Damage { from: at, to, state: DamageState::Unknown });
                }
                self.chain = None;
                if later.is_none() {
                    mark!(TailLost);
                }
                self.out.tail = if later.is_none() { Tail::Lost } else { Tail::End };
                return Ok(later);
            }
            Action::Cut => {
                self.out.tail = Tail::Cut;
                let to = self.end_of_log(at);
                self.record(Damage { from: at, to, state: DamageState::Cut });
            }
            Action::End => self.out.tail = Tail::End,
            Action::RefuseForeign => {
                return Err(LogError::Foreign {
                    path: segment_path(self.input.dir, segment_of(at)),
                    expected: Box::new(self.input.config.identity),
                    found: Box::new(self.foreign.expect("seen by the look that led here")),
                });
            }
            Action::RefuseCorrupt => {
                let (from, to) = match seen {
                    Some(Seen { block, bad }) => (at + u64::from(bad), at + block.group_bytes()),
                    None => (at, to),
                };
                return Err(LogError::Corrupt { from, to });
            }
        }
        Ok(None)
    }

    fn record(&mut self, damage: Damage) {
        self.out.damage.push(damage);
    }

    pub(super) fn end_of_log(&self, at: u64) -> u64 {
        let end = self.out.segments.last().map_or(at, |(number, bytes)| address(*number, *bytes));
        end.max(at)
    }

    fn take(
        &mut self,
        at: u64,
        block: &Block,
        visitor: &mut dyn FnMut(&Group<'_>),
    ) -> Result<(), LogError> {
        let (segment, offset) = (segment_of(at), offset_of(at));
        let limit = self.segment_bytes(segment).expect("a block was read from it");
        // Its beginning was skipped, perhaps.
        self.begin(segment);
        let bytes = self.front.get(segment, limit, offset, block.group_bytes() as u32)?;
        block::orders(block, bytes, &mut self.orders)
            .map_err(|source| LogError::Frame { at, source })?;
        let out = &mut self.out;
        for order in &self.orders {
            out.ballot = out.ballot.max(order.ballot);
            out.contents.order(order.instance);
        }
        self.values.iter().for_each(|(header, _)| out.contents.value(&header.value_id()));
        if (block.claim.ballot, block.claim.position) > (out.claim.ballot, out.claim.position) {
            out.claim = block.claim;
        }
        (out.last, out.checksum) = (block.number, block.checksum);
        out.highest = out.highest.max(block.number);
        out.groups += 1;
        out.orders += self.orders.len() as u64;
        out.values += self.values.len() as u64;
        out.bytes += u64::from(block.values.bytes);
        (self.chain, self.start) = (Some(block.checksum), block.session.start);
        if !block.seal {
            visitor(&Group {
                number: block.number,
                place: Place { at, bytes: block.group_bytes() as u32 },
                session: block.session,
                sealed: block.sealed,
                claim: block.claim,
                orders: &self.orders,
                values: &self.values,
                bytes,
            });
        }
        Ok(())
    }
}
