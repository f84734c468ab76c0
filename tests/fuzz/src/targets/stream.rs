//! What comes in on a link, in pieces of any size: the receive buffers of net.

use super::frames::{control_stream, data_stream};
use super::{CLUSTER, EPOCH, digest};
use crate::random::Random;
use crate::{Target, mutate};
use chainring_net::inbound::{ControlIn, DataIn, Rules};
use chainring_net::link::LinkError;
use chainring_net::pool::{Arena, ArenaPlan, Range};
use chainring_ring::header::{HEADER_BYTES, Header, Kind};
use chainring_ring::ids::NODES_MAX;
use std::cell::RefCell;

/// The first byte chooses the link; the rest comes in.
pub const STREAM: Target = Target {
    name: "stream",
    run,
    seeds: || {
        let of = |link: u8, stream: Vec<u8>| [vec![link], stream].concat();
        vec![of(0, data_stream()), of(1, control_stream())]
    },
    repair: |bytes, random| {
        let unit = if bytes.first().is_some_and(|link| link & 1 == 0) { 512 } else { 8 };
        if bytes.len() > 1 && !random.once_in(8) {
            mutate::train(&mut bytes[1..], unit, random);
        }
    },
    words: &[],
    bytes_max: 12 << 10,
    memory_max: 64 << 10,
};

/// Bytes of a receive buffer; frames are at most a quarter.
const BUFFER: u32 = 8 << 10;
const FRAME_MAX: u32 = BUFFER / 4;

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::new(arena());
}

fn arena() -> Arena {
    // Only the kernel may write to the receive buffer, so another region stands in for it and its
    // mirror.
    let plan = ArenaPlan {
        receive: 4096,
        own: 2 * BUFFER,
        side: 0,
        blocks: 0,
        control_in: BUFFER,
        control_out: 4096,
    };
    Arena::new(&plan).expect("a small arena")
}

fn run(bytes: &[u8]) -> bool {
    let Some((link, stream)) = bytes.split_first() else { return false };
    let mut random = Random::new(digest(bytes));
    ARENA.with_borrow_mut(|arena| match link & 1 {
        0 => data(arena, stream, &mut random),
        _ => control(arena, stream, &mut random),
    })
}

/// A whole frame: where it lies in the stream, and its header.
type Frame = (usize, Header);

/// What a whole stream comes to, read in one go: its frames, and whether it ends in an error.
fn reference(stream: &[u8], rules: &Rules) -> (Vec<Frame>, bool) {
    let (mut frames, mut at) = (Vec::new(), 0);
    while stream.len() - at >= HEADER_BYTES {
        let Ok(header) = Header::decode(&stream[at..], rules.limit) else { return (frames, true) };
        let belongs = header.check_cluster(rules.cluster, rules.epoch).is_ok()
            && rules.kinds.contains(&header.kind)
            && header.size.is_multiple_of(rules.unit)
            && (1..=NODES_MAX).contains(&usize::from(header.origin.0));
        if !belongs {
            return (frames, true);
        }
        let end = at + header.size as usize;
        if end > stream.len() {
            break;
        }
        if header.check_body(&stream[at..end]).is_err() {
            return (frames, true);
        }
        frames.push((at, header));
        at = end;
    }
    (frames, false)
}

/// Whether a frame came.
fn data(arena: &mut Arena, stream: &[u8], random: &mut Random) -> bool {
    let kinds = [Kind::Value, Kind::Declare];
    let rules = Rules { cluster: CLUSTER, epoch: EPOCH, unit: 512, limit: FRAME_MAX, kinds };
    let region = Range { bytes: BUFFER, ..arena.regions().own };
    let mut inbound = DataIn::new(rules, region);
    let (mut frames, mut given, mut end) = (Vec::new(), 0, 0);
    let failed = 'link: loop {
        let Some(room) = inbound.room() else {
            inbound.release(end as u64);
            assert!(inbound.room().is_some(), "frames fit into the buffer");
            continue;
        };
        if given == stream.len() {
            break false;
        }
        let length = piece(room.bytes, stream.len() - given, random);
        mirrored(arena, region, room.offset, &stream[given..given + length]);
        given += length;
        inbound.received(length as u32);
        loop {
            match inbound.next(arena) {
                Ok(Some((header, range, position))) => {
                    let at = position as usize;
                    end = at + header.size as usize;
                    assert_eq!(arena.bytes(range), &stream[at..end]);
                    assert!(inbound.holds(range));
                    frames.push((at, header));
                    if random.once_in(2) {
                        inbound.release(end as u64);
                    }
                }
                Ok(None) => break,
                Err(error) => break 'link say(&error),
            }
        }
        assert!(!inbound.fresh());
    };
    let expected = reference(stream, &rules);
    assert_eq!((&frames, failed), (&expected.0, expected.1));
    !frames.is_empty()
}

/// Writes as the kernel would: into the buffer and its mirror behind it.
fn mirrored(arena: &mut Arena, region: Range, offset: u32, bytes: &[u8]) {
    for (index, byte) in bytes.iter().enumerate() {
        let place = (offset - region.offset + index as u32) % BUFFER;
        for copy in [place, place + BUFFER] {
            arena.bytes_mut(Range { offset: region.offset + copy, bytes: 1 })[0] = *byte;
        }
    }
}

/// Whether a frame came.
fn control(arena: &mut Arena, stream: &[u8], random: &mut Random) -> bool {
    let kinds = [Kind::Orders, Kind::Votes];
    let rules = Rules { cluster: CLUSTER, epoch: EPOCH, unit: 8, limit: FRAME_MAX, kinds };
    let mut inbound = ControlIn::new(rules, arena.regions().control_in);
    let (mut frames, mut given, mut at) = (Vec::new(), 0, 0);
    let failed = 'link: loop {
        let room = inbound.room(arena).expect("frames fit into the buffer");
        if given == stream.len() {
            break false;
        }
        let length = piece(room.bytes, stream.len() - given, random);
        let into = Range { bytes: length as u32, ..room };
        arena.bytes_mut(into).copy_from_slice(&stream[given..given + length]);
        given += length;
        inbound.received(length as u32);
        loop {
            match inbound.next(arena) {
                Ok(Some((header, range))) => {
                    assert_eq!(arena.bytes(range), &stream[at..at + header.size as usize]);
                    assert!(inbound.holds(range));
                    frames.push((at, header));
                    at += header.size as usize;
                }
                Ok(None) => break,
                Err(error) => break 'link say(&error),
            }
        }
    };
    let expected = reference(stream, &rules);
    assert_eq!((&frames, failed), (&expected.0, expected.1));
    !frames.is_empty()
}

/// Bytes of one receive.
fn piece(room: u32, left: usize, random: &mut Random) -> usize {
    let most = (room as usize).min(left);
    let length = if random.once_in(2) { most } else { 1 + random.below(most) };
    length.min(most)
}

fn say(error: &LinkError) -> bool {
    assert!(error.to_string().len() < 200);
    true
}
