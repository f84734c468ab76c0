//! What lies on disk, block by block: superblocks, first blocks of groups, headers of segments.

use super::frames::{body_of_orders, check_order};
use super::{BALLOT, CLUSTER, EPOCH, header, sealed};
use crate::{Target, mutate};
use chainring_ring::codec::{CLAIM_BYTES, ORDER_BYTES, POSITION_MAX, put_claim};
use chainring_ring::header::{Header, Kind};
use chainring_ring::ids::{Claim, Durability, Instance, NodeId, RingId, Sequence};
use chainring_storage::block::{self, Values};
use chainring_storage::segment::decode_header;
use chainring_storage::superblock::{Choice, Copy, DAMAGE_MAX, SUPERBLOCK_BYTES, choose, decode};
use chainring_storage::{Damage, DamageState, Identity, Superblock};

/// The four copies, one after another.
pub const SUPERBLOCK: Target = Target {
    name: "superblock",
    run: run_superblock,
    seeds: superblocks,
    repair: |bytes, random| {
        bytes.resize(4 * SUPERBLOCK_BYTES, 0);
        // A torn write leaves one copy behind another.
        if random.once_in(4) {
            let (from, to) = (random.below(4), random.below(4));
            let from = from * SUPERBLOCK_BYTES..(from + 1) * SUPERBLOCK_BYTES;
            bytes.copy_within(from, to * SUPERBLOCK_BYTES);
        }
        for copy in bytes.chunks_mut(SUPERBLOCK_BYTES) {
            if !random.once_in(8) {
                mutate::seal(copy);
            }
        }
    },
    words: &[],
    bytes_max: 4 * SUPERBLOCK_BYTES,
    memory_max: 64 << 10,
};

/// A group's first block.
pub const BLOCK: Target = Target {
    name: "block",
    run: run_block,
    seeds: || vec![order_block(9, 77), seal_block(10, 5)],
    repair: mutate::frame,
    words: &[],
    bytes_max: 8 << 10,
    memory_max: 64 << 10,
};

/// A segment's first block.
pub const SEGMENT: Target = Target {
    name: "segment",
    run: run_segment,
    seeds: || vec![segment()],
    repair: |bytes, random| mutate::fixed(bytes, 4096, random),
    words: &[],
    bytes_max: 4096,
    memory_max: 16 << 10,
};

/// Whose log the good ones are.
pub(crate) fn identity() -> Identity {
    Identity { cluster: CLUSTER, epoch: EPOCH, node: NodeId(2), ring: RingId(0) }
}

fn run_superblock(bytes: &[u8]) -> bool {
    let mut copies = [const { None }; 4];
    for (copy, bytes) in copies.iter_mut().zip(bytes.chunks(SUPERBLOCK_BYTES)) {
        *copy = decode(bytes).ok();
        if let Some(copy) = copy {
            check_copy(copy);
        }
    }
    let intact = || copies.iter().flatten();
    let count = |wanted: &Copy| intact().filter(|copy| *copy == wanted).count();
    let choice = choose(&copies);
    match &choice {
        Choice::Open(chosen) => {
            let follows = intact().any(|copy| is_child(chosen, copy));
            let alone = intact().all(|copy| count(copy) == 1);
            assert!(count(chosen) >= 2 || (alone && follows), "one copy alone counts for nothing");
            let mut newer = intact().filter(|copy| copy.sequence > chosen.sequence);
            let counts = |copy| alone && intact().any(|other| is_child(copy, other));
            assert!(newer.all(|copy| count(copy) == 1 && !counts(copy)));
            assert!(intact().all(|copy| copy.sequence != chosen.sequence || *copy == **chosen));
        }
        Choice::Unreadable { intact: counted } => {
            assert_eq!(*counted, intact().count());
            assert!(intact().all(|copy| count(copy) == 1));
            assert!(intact().all(|copy| !intact().any(|other| is_child(copy, other))));
        }
        Choice::Fork { sequence } => {
            let sequence = *sequence;
            let of = |sequence| intact().filter(move |copy| copy.sequence == sequence);
            let torn = of(sequence).any(|copy| count(copy) != of(sequence).count());
            let before = || sequence.checked_sub(1).into_iter().flat_map(of);
            let orphan = before().any(|one| of(sequence).any(|two| two.parent != one.checksum));
            assert!(torn || orphan);
        }
    }
    matches!(choice, Choice::Open(_))
}

fn is_child(copy: &Copy, of: &Copy) -> bool {
    of.sequence < copy.sequence && of.checksum == copy.parent
}

fn check_copy(copy: &Copy) {
    assert!(copy.superblock.damage.len() <= DAMAGE_MAX);
    assert!(copy.superblock.claim.position.0 <= POSITION_MAX && copy.sequence <= POSITION_MAX);
    let mut again = vec![0xaa; SUPERBLOCK_BYTES];
    copy.superblock.encode(0, copy.sequence, copy.parent, &mut again);
    let read = decode(&again).expect("we read what we write");
    // Bytes that mean nothing are not kept, so the checksum may be another.
    assert_eq!(Copy { checksum: copy.checksum, ..read }, *copy);
    for damage in &copy.superblock.damage {
        assert!(damage.to_string().len() < 100);
    }
}

fn run_block(bytes: &[u8]) -> bool {
    let Ok(header) = block::peek(bytes) else { return false };
    assert!(header.size.is_multiple_of(512));
    let Ok(block) = block::decode(&header, bytes) else { return false };
    assert!(block.sealed < block.number && block.number <= POSITION_MAX);
    assert!(block.orders as usize * ORDER_BYTES < bytes.len());
    assert_eq!(block.group_bytes(), u64::from(header.size) + u64::from(block.values.bytes));
    assert_eq!(block.seal, block.orders == 0 && block.values.count == 0);
    let least = u64::from(block.values.count) * 512;
    assert!(u64::from(block.values.bytes) >= least);
    assert!(block.values.count > 0 || block.values == Values::default());
    let mut orders = Vec::new();
    let read = block::orders(&block, bytes, &mut orders);
    orders.iter().for_each(check_order);
    if read.is_ok() {
        assert_eq!(orders.len(), block.orders as usize);
    }
    read.is_ok()
}

fn run_segment(bytes: &[u8]) -> bool {
    let Ok(read) = decode_header(bytes) else { return false };
    let header = Header::decode(bytes, 4096).expect("it was decoded");
    assert_eq!((header.kind, header.sequence.0), (Kind::Segment, read.number));
    assert_eq!(read.identity, Identity { node: header.origin, ..read.identity });
    assert_eq!(read.block.to_le_bytes(), bytes[132..136]);
    true
}

/// The body of a group's first block, without values.
fn prefix(previous: u128, sealed: u64, orders: u32) -> Vec<u8> {
    let mut body = vec![0; 80];
    body[..16].copy_from_slice(&previous.to_le_bytes());
    body[32..40].copy_from_slice(&sealed.to_le_bytes());
    let claim = Claim { ballot: BALLOT, position: Instance(38) };
    put_claim(&claim, &mut body[40..40 + CLAIM_BYTES]);
    body[64..68].copy_from_slice(&orders.to_le_bytes());
    body
}

fn order_block(number: u64, previous: u128) -> Vec<u8> {
    let mut body = prefix(previous, number - 1, 5);
    body.extend_from_slice(&body_of_orders());
    let header = header(Kind::OrderBlock, 0, 0);
    sealed(Header { sequence: Sequence(number), ..header }, &body, 512)
}

fn seal_block(number: u64, previous: u128) -> Vec<u8> {
    let header = header(Kind::Seal, 0, 0);
    sealed(Header { sequence: Sequence(number), ..header }, &prefix(previous, 9, 0), 512)
}

fn segment() -> Vec<u8> {
    let body = [(1u32 << 20).to_le_bytes(), 512u32.to_le_bytes()].concat();
    let mut frame = sealed(header(Kind::Segment, 0, 0), &body, 4096);
    let header = Header::decode(&frame, 4096).expect("sealed");
    Header { sequence: Sequence(3), length: 8, ..header }.seal(&mut frame);
    frame
}

fn superblocks() -> Vec<Vec<u8>> {
    let damage = Damage { from: 4096, to: 1 << 33, state: DamageState::Unknown };
    let old = Superblock {
        promised: BALLOT,
        claim: Claim { ballot: BALLOT, position: Instance(70) },
        damage: vec![damage; 3],
        ..Superblock::new(identity(), Durability::Async, 512, 3)
    };
    let new = Superblock { start: 5, clean: true, sealed: 9, ..old.clone() };
    let mut bytes = vec![0; 4 * SUPERBLOCK_BYTES];
    let mut checksum = 0;
    for (copy, out) in (0..).zip(bytes.chunks_mut(SUPERBLOCK_BYTES)) {
        checksum = old.encode(copy, 4, 0, out);
    }
    let before = bytes.clone();
    for (copy, out) in (0..2).zip(bytes.chunks_mut(SUPERBLOCK_BYTES)) {
        new.encode(copy, 5, checksum, out);
    }
    vec![before, bytes]
}
