//! What a node must not forget beside its log, and which of four copies of it counts.
//!
//! ```text
//! header (128), kind Superblock: sequence, origin = node, session = (incarnation, start),
//!               ballot = promised, instance = number of the copy
//! 128  parent        16  body checksum of the superblock before it
//! 144  configuration 16  hash of the configuration
//! 160  sealed         8  groups of the log known to be complete
//! 168  claim         24  what was known to be decided
//! 192  block          4
//! 196  durability     1  0 memory, 1 async, 2 sync
//! 197  nodes          1
//! 198  flags          1  bit 0: clean stop, bit 1: remembers
//! 199  reserved       1  zero
//! 200  first segment  4
//! 204  damage count   4
//! 208  damaged ranges 16 x 24: from 8, to 8, state 1, reserved 7
//! 592  base           8  where the log begins: a checkpoint there, or the first instance
//! 600  checkpoint     8  position of the newest one
//! 608  its checksum  16  0 if there is none
//! 624  zeros to 4096
//! ```
//! Invariant: the body does not depend on the copy, so that copies are compared by its checksum;
//! start number and promise lie in the header and are compared beside it.

use crate::block::blank;
use crate::config::{GROUP_ALIGN, Identity, offset_of, segment_of};
use chainring_ring::codec::{CLAIM_BYTES, check_positions, claim_at, put_claim};
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind, u32_at, u64_at, u128_at};
use chainring_ring::ids::{Ballot, Claim, Durability, Incarnation, Instance, Sequence, Session};
use chainring_ring::mutant;

/// Bytes of one copy.
pub const SUPERBLOCK_BYTES: usize = GROUP_ALIGN as usize;
/// Most damaged ranges that can be recorded.
pub const DAMAGE_MAX: usize = 16;
/// Bytes in use behind the header.
const LENGTH: usize = BASE + 32;
const BASE: usize = 80 + DAMAGE_MAX * DAMAGE_BYTES;
const DAMAGE_BYTES: usize = 24;
const CLEAN: u8 = 1;
const REMEMBERS: u8 = 2;

/// What became of a damaged range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DamageState {
    /// A write that power failure tore; never acknowledged, and dropped.
    Cut = 1,
    /// Acknowledged bytes that cannot be read; what they held is not known.
    Unknown = 2,
    /// As `Unknown`, and everything it can have held was fetched from peers.
    Repaired = 3,
}

/// A damaged range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First address, see [`crate::config::address`].
    pub from: u64,
    /// First address behind it; may lie in a later segment.
    pub to: u64,
    /// What became of it.
    pub state: DamageState,
}

impl Damage {
    /// Segment in which it begins.
    pub fn segment(&self) -> u32 {
        segment_of(self.from)
    }

    /// Byte offset at which it begins in that segment.
    pub fn offset(&self) -> u32 {
        offset_of(self.from)
    }
}

impl core::fmt::Display for Damage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (segment, offset) = (segment_of(self.to), offset_of(self.to));
        write!(f, "segment {} offset {} to ", self.segment(), self.offset())?;
        write!(f, "segment {segment} offset {offset}")
    }
}

/// A node's durable memory beside its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Whose.
    pub identity: Identity,
    /// Life as acceptor.
    pub incarnation: Incarnation,
    /// Start number: raised and written at every start, before anything else is.
    pub start: u32,
    /// Highest ballot promised.
    pub promised: Ballot,
    /// What was known to be decided.
    pub claim: Claim,
    /// Durability that the cluster was made with.
    pub durability: Durability,
    /// Block that the cluster was made with.
    pub block: u32,
    /// Nodes that the cluster was made with.
    pub nodes: u8,
    /// Hash of the configuration that the cluster was made with.
    pub configuration: u128,
    /// The node stopped with everything on stable media; erased at the next start.
    pub clean: bool,
    /// False for an incarnation that does not know what an earlier one promised: it never votes.
    pub remembers: bool,
    /// Groups to here were complete when this was written.
    pub sealed: u64,
    /// Lowest segment of the log.
    pub first_segment: u32,
    /// Damage found; at most [`DAMAGE_MAX`].
    pub damage: Vec<Damage>,
    /// Where the log begins: at a checkpoint of this position, or with its first instance. Older
    /// checkpoints say nothing of this log.
    pub base: Instance,
    /// Position and checksum of the newest checkpoint.
    pub checkpoint: Option<(Instance, u128)>,
}

impl Superblock {
    /// The superblock of a new store: incarnation 1, not started yet, nothing promised.
    pub fn new(identity: Identity, durability: Durability, block: u32, nodes: u8) -> Superblock {
        Superblock {
            identity,
            incarnation: Incarnation(1),
            start: 0,
            promised: Ballot::ZERO,
            claim: Claim::default(),
            durability,
            block,
            nodes,
            configuration: 0,
            clean: false,
            remembers: true,
            sealed: 0,
            first_segment: 0,
            damage: Vec::with_capacity(DAMAGE_MAX),
            base: Instance(0),
            checkpoint: None,
        }
    }

    /// The session of this start.
    pub fn session(&self) -> Session {
        Session { incarnation: self.incarnation, start: self.start }
    }

    /// Writes copy number `copy` into `out`; returns the checksum of the body, the same for all.
    ///
    /// # Panics
    /// If `out` is not [`SUPERBLOCK_BYTES`] long or there are more than [`DAMAGE_MAX`] ranges.
    pub fn encode(&self, copy: u8, sequence: u64, parent: u128, out: &mut [u8]) -> u128 {
        assert!(self.damage.len() <= DAMAGE_MAX);
        assert_eq!(out.len(), SUPERBLOCK_BYTES);
        out.fill(0);
        let body = &mut out[HEADER_BYTES..];
        body[..16].copy_from_slice(&parent.to_le_bytes());
        body[16..32].copy_from_slice(&self.configuration.to_le_bytes());
        body[32..40].copy_from_slice(&self.sealed.to_le_bytes());
        put_claim(&self.claim, &mut body[40..40 + CLAIM_BYTES]);
        body[64..68].copy_from_slice(&self.block.to_le_bytes());
        body[68] = match self.durability {
            Durability::Memory => 0,
            Durability::Async => 1,
            Durability::Sync => 2,
        };
        body[69] = self.nodes;
        body[70] = u8::from(self.clean) * CLEAN + u8::from(self.remembers) * REMEMBERS;
        body[72..76].copy_from_slice(&self.first_segment.to_le_bytes());
        body[76..80].copy_from_slice(&(self.damage.len() as u32).to_le_bytes());
        let (position, checksum) = self.checkpoint.unwrap_or_default();
        body[BASE..BASE + 8].copy_from_slice(&self.base.0.to_le_bytes());
        body[BASE + 8..BASE + 16].copy_from_slice(&position.0.to_le_bytes());
        body[BASE + 16..BASE + 32].copy_from_slice(&checksum.to_le_bytes());
        for (damage, out) in self.damage.iter().zip(body[80..BASE].chunks_mut(DAMAGE_BYTES)) {
            out[..8].copy_from_slice(&damage.from.to_le_bytes());
            out[8..16].copy_from_slice(&damage.to.to_le_bytes());
            out[16] = damage.state as u8;
        }
        let header = Header {
            kind: Kind::Superblock,
            size: SUPERBLOCK_BYTES as u32,
            length: LENGTH as u32,
            session: self.session(),
            sequence: Sequence(sequence),
            ballot: self.promised,
            instance: Instance(u64::from(copy)),
            ..blank(&self.identity)
        };
        header.seal(out);
        u128_at(out, 16)
    }
}

/// An intact copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Rises with every write.
    pub sequence: u64,
    /// Checksum of the body.
    pub checksum: u128,
    /// That of the superblock before it.
    pub parent: u128,
    /// What it says.
    pub superblock: Superblock,
}

impl Copy {
    /// What tells it from others.
    pub fn stamp(&self) -> Stamp {
        let Copy { sequence, checksum, parent, .. } = *self;
        Stamp { sequence, checksum, parent }
    }
}

/// What tells one superblock from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Rises with every write.
    pub sequence: u64,
    /// Checksum of the body.
    pub checksum: u128,
    /// That of the superblock before it.
    pub parent: u128,
}

/// Reads one copy.
///
/// # Errors
/// Why the bytes are no superblock.
pub fn decode(bytes: &[u8]) -> Result<Copy, FrameError> {
    let header = Header::decode(bytes, SUPERBLOCK_BYTES as u32)?;
    if header.kind != Kind::Superblock || header.length as usize != LENGTH {
        return Err(FrameError::Body);
    }
    let body = header.check_body(bytes)?;
    let durability = match body[68] {
        0 => Durability::Memory,
        1 => Durability::Async,
        2 => Durability::Sync,
        _ => return Err(FrameError::Body),
    };
    let count = u32_at(body, 76) as usize;
    if body[70] & !(CLEAN | REMEMBERS) != 0 || body[71] != 0 || count > DAMAGE_MAX {
        return Err(FrameError::Reserved);
    }
    // Groups are counted on from it.
    let (base, position) = (u64_at(body, BASE), u64_at(body, BASE + 8));
    check_positions(&[u64_at(body, 32), base, position])?;
    let checksum = u128_at(body, BASE + 16);
    let checkpoint = (checksum != 0).then_some((Instance(position), checksum));
    let mut damage = Vec::with_capacity(DAMAGE_MAX);
    for bytes in body[80..].chunks(DAMAGE_BYTES).take(count) {
        let state = match bytes[16] {
            1 => DamageState::Cut,
            2 => DamageState::Unknown,
            3 => DamageState::Repaired,
            _ => return Err(FrameError::Body),
        };
        damage.push(Damage { from: u64_at(bytes, 0), to: u64_at(bytes, 8), state });
    }
    let superblock = Superblock {
        identity: crate::block::identity_of(&header, None),
        incarnation: header.session.incarnation,
        start: header.session.start,
        promised: header.ballot,
        claim: claim_at(&body[40..])?,
        durability,
        block: u32_at(body, 64),
        nodes: body[69],
        configuration: u128_at(body, 16),
        clean: body[70] & CLEAN != 0,
        remembers: body[70] & REMEMBERS != 0,
        sealed: u64_at(body, 32),
        first_segment: u32_at(body, 72),
        damage,
        base: Instance(base),
        checkpoint,
    };
    let (sequence, checksum) = (header.sequence.0, header.checksum_body);
    Ok(Copy { sequence, checksum, parent: u128_at(body, 0), superblock })
}

/// What four copies come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The newest held by two or more (row 17), or one that follows another.
    Open(Box<Copy>),
    /// No two copies agree, and none follows another (row 18).
    Unreadable {
        /// Intact copies.
        intact: usize,
    },
    /// Two copies contradict each other (row 18).
    Fork {
        /// At this sequence.
        sequence: u64,
    },
}

/// Chooses among the copies, `None` for one that is not intact: see [`newest`].
pub fn choose(copies: &[Option<Copy>; 4]) -> Choice {
    let intact = || copies.iter().flatten();
    for one in intact() {
        for other in intact() {
            let same = one.sequence == other.sequence && one != other;
            let next = one.sequence + 1 == other.sequence && other.parent != one.checksum;
            if same || next {
                return Choice::Fork { sequence: other.sequence };
            }
        }
    }
    let stamps = copies.each_ref().map(|copy| copy.as_ref().map(Copy::stamp));
    let counts = |copy: &&Copy| newest(&stamps) == Some(copy.stamp());
    let first = || intact().next().filter(|_| mutant!(SuperblockFirstCopy));
    match first().or_else(|| intact().find(counts)) {
        Some(copy) => Choice::Open(Box::new(copy.clone())),
        None => Choice::Unreadable { intact: intact().count() },
    }
}

/// The superblock that counts, of copies that do not contradict each other.
///
/// A write is done when three copies hold it, so a newest one held by one copy only was never
/// acknowledged, and one held by two may have been: it is used, and written again to all. If no two
/// agree, at least one of any two is as new as what was acknowledged last. So the newest counts
/// that names another one as its parent: the two vouch for each other.
pub fn newest(stamps: &[Option<Stamp>; 4]) -> Option<Stamp> {
    let all = || stamps.iter().flatten();
    let agreed = |one: &&Stamp| all().filter(|other| other.sequence == one.sequence).count() >= 2;
    let parent =
        |child: &Stamp, one: &Stamp| one.sequence < child.sequence && one.checksum == child.parent;
    let follows = |one: &&Stamp| all().any(|other| parent(one, other));
    let last = all().filter(agreed).max_by_key(|one| one.sequence);
    last.or_else(|| all().filter(follows).max_by_key(|one| one.sequence)).copied()
}

const _: () = assert!(HEADER_BYTES + LENGTH <= SUPERBLOCK_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use chainring_ring::ids::NodeId;

    fn sample() -> Superblock {
        let damage = Damage { from: 4096, to: 1 << 33, state: DamageState::Unknown };
        let promised = Ballot { round: 4, node: NodeId(3), incarnation: Incarnation(1) };
        Superblock {
            incarnation: Incarnation(3),
            start: 9,
            promised,
            claim: Claim { ballot: promised, position: Instance(70) },
            configuration: 1 << 100,
            clean: true,
            sealed: 55,
            first_segment: 2,
            damage: vec![damage; DAMAGE_MAX],
            base: Instance(40),
            checkpoint: Some((Instance(60), 7 << 90)),
            ..Superblock::new(crate::segment::tests::identity(), Durability::Async, 4096, 5)
        }
    }

    fn copy(sequence: u64, salt: u128) -> Copy {
        let superblock = Superblock { configuration: salt, ..sample() };
        let parent = if sequence == 5 { copy(4, 0).checksum } else { 0 };
        let mut bytes = [0; SUPERBLOCK_BYTES];
        superblock.encode(0, sequence, parent, &mut bytes);
        decode(&bytes).unwrap()
    }

    #[test]
    fn round_trip() {
        let mut bytes = [0xff; SUPERBLOCK_BYTES];
        for number in 0..4 {
            let checksum = sample().encode(number, 8, 77, &mut bytes);
            let copy = decode(&bytes).unwrap();
            assert_eq!((copy.sequence, copy.parent, copy.checksum), (8, 77, checksum));
            assert_eq!(copy.superblock, sample());
        }
        bytes[1000] ^= 1;
        assert_eq!(decode(&bytes), Err(FrameError::BodyChecksum));
    }

    /// Every combination of damaged, old and new over four copies: 3^4.
    #[test]
    fn every_mix_of_old_new_and_damaged() {
        for mix in 0..81usize {
            let state = |index: u32| mix / 3usize.pow(index) % 3;
            let copies: [Option<Copy>; 4] =
                core::array::from_fn(|index| match state(index as u32) {
                    0 => None,
                    1 => Some(copy(4, 0)),
                    _ => Some(copy(5, 1)),
                });
            let count = |wanted| (0..4).filter(|index| state(*index) == wanted).count();
            let expected = match (count(1), count(2)) {
                (_, 2..) => Some(5),
                (2.., _) => Some(4),
                // The one that follows.
                (1, 1) => Some(5),
                _ => None,
            };
            match (choose(&copies), expected) {
                (Choice::Open(copy), Some(sequence)) => assert_eq!(copy.sequence, sequence),
                (Choice::Unreadable { intact }, None) => assert_eq!(intact, count(1) + count(2)),
                other => panic!("mix {mix}: {other:?}"),
            }
        }
    }

    /// Of two that do not agree one has to be the other's child; whatever else is there is older.
    #[test]
    fn one_that_follows_another_counts() {
        let newest = |copies| match choose(&copies) {
            Choice::Open(copy) => Some(copy.sequence),
            _ => None,
        };
        assert_eq!(newest([Some(copy(5, 1)), None, Some(copy(4, 0)), Some(copy(2, 0))]), Some(5));
        assert_eq!(newest([Some(copy(7, 1)), None, Some(copy(4, 0)), Some(copy(5, 0))]), Some(5));
        assert_eq!(newest([Some(copy(7, 1)), None, None, Some(copy(4, 0))]), None);
        assert_eq!(newest([None, Some(copy(5, 1)), None, None]), None);
    }

    #[test]
    fn contradictions_are_refused() {
        let fork = [Some(copy(5, 1)), Some(copy(5, 2)), Some(copy(5, 1)), Some(copy(5, 1))];
        assert_eq!(choose(&fork), Choice::Fork { sequence: 5 });
        // Sequence 5 names 4 with salt 0 as its parent, not this one.
        let parent = [Some(copy(5, 1)), Some(copy(5, 1)), Some(copy(4, 9)), None];
        assert_eq!(choose(&parent), Choice::Fork { sequence: 5 });
        // The promise lies in the header, beside the body's checksum.
        let mut other = copy(4, 0);
        other.superblock.promised.round += 1;
        let promise = [Some(copy(4, 0)), Some(copy(4, 0)), Some(other), None];
        assert_eq!(choose(&promise), Choice::Fork { sequence: 4 });
    }
}
