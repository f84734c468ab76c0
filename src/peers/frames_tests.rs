//! Frames of the mesh: round trips, and hostile bytes.

use super::*;
use proptest::prelude::*;

const ENVELOPE: Envelope = Envelope {
    cluster: ClusterId(9),
    epoch: Epoch(2),
    node: NodeId(3),
    session: Session::FIRST,
    block: 512,
    packet_max: 4096,
};

fn id(sequence: u64) -> ValueId {
    let session = Session { incarnation: Incarnation(4), start: 7 };
    ValueId { origin: NodeId(2), session, sequence: Sequence(sequence) }
}

fn value(sequence: u64) -> Vec<u8> {
    let mut frame = vec![0x5a; 1024];
    Header {
        checksum_body: 0,
        cluster: ENVELOPE.cluster,
        epoch: ENVELOPE.epoch,
        ring: RingId(0),
        kind: Kind::Value,
        size: 1024,
        length: 800,
        origin: NodeId(2),
        session: id(0).session,
        sequence: Sequence(sequence),
        ballot: Ballot::ZERO,
        instance: Instance(0),
    }
    .seal(&mut frame);
    frame
}

fn order(instance: u64, entry: Entry) -> Order {
    let (instance, base) = (Instance(instance), Instance(0));
    Order { instance, ballot: Ballot::ZERO, base, entry, decided: true }
}

fn body(frame: &[u8]) -> &[u8] {
    Header::decode(frame, u32::MAX).unwrap().check_body(frame).unwrap()
}

fn standing() -> Standing {
    let claim = Claim { ballot: Ballot::ZERO, position: Instance(12) };
    Standing { claim, first: Instance(5), delivered: Instance(12), checkpoint: Instance(9) }
}

fn sample() -> (Vec<Order>, Vec<u8>) {
    let entries = [
        Entry::Noop,
        Entry::Value(id(0)),
        Entry::Value(id(1)),
        Entry::Value(id(1)),
        Entry::Value(id(2)),
    ];
    let orders = (5..).zip(entries).map(|(at, entry)| order(at, entry)).collect();
    (orders, [value(0), value(1), value(2)].concat())
}

#[test]
fn requests_round_trip() {
    let ask = Ask { from: Instance(77), limit: 5 };
    assert_eq!(decode_ask(body(&ENVELOPE.ask(ask))), Ok(ask));
    assert_eq!(decode_id(body(&ENVELOPE.fetch_value(id(8)))), Ok(id(8)));
    assert_eq!(decode_id(body(&ENVELOPE.not_held(id(8)))), Ok(id(8)));
    for origin in [0, 8, 255].map(NodeId) {
        let asked = ENVELOPE.fetch_value(ValueId { origin, ..id(8) });
        assert_eq!(decode_id(body(&asked)), Err(FrameError::Body), "no such origin");
    }
}

/// Whoever counts on from such a number overflows.
#[test]
fn impossible_positions_are_refused() {
    let bad = FrameError::Body;
    let part = ENVELOPE.ask_part(AskPart { position: Instance(u64::MAX), offset: 5 });
    assert_eq!(decode_ask_part(body(&part)), Err(bad));
    let ask = ENVELOPE.ask(Ask { from: Instance(u64::MAX), limit: 5 });
    assert_eq!(decode_ask(body(&ask)), Err(bad));
    assert_eq!(decode_id(body(&ENVELOPE.fetch_value(id(u64::MAX)))), Err(bad));
    let none = ENVELOPE.entries(&standing(), Instance(u64::MAX), &[], &[]);
    assert_eq!(ENVELOPE.decode_entries(body(&none)), Err(bad));
}

#[test]
fn parts_of_a_state_round_trip() {
    let ask = AskPart { position: Instance(77), offset: 5 };
    assert_eq!(decode_ask_part(body(&ENVELOPE.ask_part(ask))), Ok(ask));
    let claim = standing().claim;
    let part = Part { claim, checksum: 7 << 99, total: 900, offset: 300, bytes: vec![3; 600] };
    assert_eq!(decode_part(body(&ENVELOPE.part(&part))), Ok(part.clone()));
    let bad = [
        Part { total: 899, ..part.clone() },
        Part { total: STATE_BYTES_MAX + 1, ..part.clone() },
        Part { bytes: Vec::new(), ..part },
    ];
    for part in bad {
        assert_eq!(decode_part(body(&ENVELOPE.part(&part))), Err(FrameError::Body), "{part:?}");
    }
}

#[test]
fn entries_round_trip() {
    let (orders, frames) = sample();
    let frame = ENVELOPE.entries(&standing(), Instance(5), &orders, &frames);
    let read = ENVELOPE.decode_entries(body(&frame)).unwrap();
    let standing = standing();
    assert_eq!(read, Entries { standing, from: Instance(5), orders, frames });
}

/// A foreign, damaged, unnamed or misplaced value frame, a hole and an undelivered entry are
/// each refused.
#[test]
fn impossible_entries_are_refused() {
    let (orders, frames) = sample();
    let read = |from, orders: &[Order], frames: &[u8]| {
        let frame = ENVELOPE.entries(&standing(), Instance(from), orders, frames);
        ENVELOPE.decode_entries(body(&frame))
    };
    let (good, bad) = (read(5, &orders, &frames), Err(FrameError::Body));
    assert!(good.is_ok());
    assert_eq!(read(6, &orders, &frames), bad);
    assert_eq!(read(5, &orders, &frames[..frames.len() - 512]), bad);
    assert_eq!(read(5, &orders, &[value(1), value(0)].concat()), bad);
    assert_eq!(read(5, &orders, &value(3)), bad);
    assert_eq!(read(5, &orders, &[value(0), value(0)].concat()), bad);
    assert_eq!(read(12, &[order(12, Entry::Noop)], &[]), bad);
    let mut damaged = frames.clone();
    damaged[700] ^= 1;
    assert_eq!(read(5, &orders, &damaged), Err(FrameError::BodyChecksum));
    let other = Envelope { epoch: Epoch(3), ..ENVELOPE };
    assert_eq!(other.value(&frames), Err(FrameError::Epoch { found: Epoch(2) }));
    let tight = Envelope { packet_max: 512, ..ENVELOPE };
    assert_eq!(tight.value(&frames), Err(FrameError::Size { size: 1024, limit: 512 }));
    let coarse = Envelope { block: 4096, ..ENVELOPE };
    assert_eq!(coarse.value(&frames), Err(FrameError::Size { size: 1024, limit: 4096 }));
}

#[test]
fn an_answer_keeps_to_its_limit() {
    let mut gather = Gather::new(u32::MAX);
    while !gather.full() {
        gather.push(order(gather.orders.len() as u64, Entry::Value(id(0))));
        gather.frames.extend([0; 4096]);
    }
    let frame = ENVELOPE.entries(&standing(), Instance(0), &gather.orders, &gather.frames);
    assert!(frame.len() <= ENVELOPE.answer_limit() as usize, "{}", frame.len());
    assert!(frame.len() > ANSWER_BYTES as usize - 8192);
    assert!(Gather::new(0).full());
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_ask(&bytes);
        let _ = decode_id(&bytes);
        let _ = decode_part(&bytes);
        let _ = ENVELOPE.value(&bytes);
        let _ = ENVELOPE.decode_entries(&bytes);
    }

    /// Damage behind a good checksum, as a faulty peer might make it.
    #[test]
    fn hostile_entries_never_panic(at in 0usize..3500, byte: u8, cut in 0usize..3500) {
        let (orders, frames) = sample();
        let frame = ENVELOPE.entries(&standing(), Instance(5), &orders, &frames);
        let mut bytes = body(&frame).to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = ENVELOPE.decode_entries(&bytes);
        bytes.truncate(cut);
        let _ = ENVELOPE.decode_entries(&bytes);
    }
}
