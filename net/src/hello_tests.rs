//! Tests of the handshake's codec and checks.

use super::*;
use chainring_ring::header::VERSION;

fn identity(node: u8) -> Identity {
    Identity {
        cluster: ClusterId(77),
        epoch: Epoch(2),
        node: NodeId(node),
        incarnation: Incarnation(3),
        session: Session { incarnation: Incarnation(2), start: 9 },
        version: PROTOCOL,
        durability: Durability::Async,
        block: 4096,
        config_hash: 0x1234_5678_9abc_def0,
    }
}

fn hello() -> Hello {
    Hello { identity: identity(1), purpose: Purpose::Data, to: NodeId(2) }
}

fn held(count: u8) -> Vec<Held> {
    let session = Session { incarnation: Incarnation(1), start: 5 };
    let entry = |origin| Held { origin: NodeId(origin), session, next: Sequence(1 << 40) };
    (1..=count).map(entry).collect()
}

#[test]
fn messages_round_trip() {
    let ballot = Ballot { round: 4, node: NodeId(3), incarnation: Incarnation(2) };
    let mut all = Vec::new();
    for purpose in [Purpose::Data, Purpose::Control, Purpose::Peer] {
        for durability in [Durability::Memory, Durability::Async, Durability::Sync] {
            let identity = Identity { durability, ..identity(1) };
            all.push(Message::Hello(Hello { identity, purpose, to: NodeId(7) }));
        }
    }
    let control = Resume::Control { ballot, received: Instance(99) };
    for resume in [Resume::data(&held(7)), Resume::data(&[]), control, Resume::Peer] {
        all.push(Message::Welcome(Welcome { identity: identity(1), to: NodeId(2), resume }));
    }
    all.push(Message::Refusal(Refusal { code: 8, text: "kein Schlüssel".into() }));
    for message in all {
        assert_eq!(Message::decode(&message.encode(&identity(1))), Ok(message));
    }
}

#[test]
fn a_long_text_is_cut_at_a_character() {
    let message = Message::Refusal(Refusal { code: 1, text: "ä".repeat(300) + "x" });
    let odd = Message::Refusal(Refusal { code: 1, text: "x".to_string() + &"ä".repeat(300) });
    for (message, bytes) in [(message, 512), (odd, 511)] {
        let Ok(Message::Refusal(read)) = Message::decode(&message.encode(&identity(1))) else {
            panic!("not a refusal");
        };
        assert_eq!(read.text.len(), bytes);
        assert!(!read.text.contains('\u{fffd}'));
    }
}

/// A peer of another release is told apart from garbage, though nothing else of it is believed.
#[test]
fn another_version_is_no_garbage() {
    let mut frame = Message::Hello(hello()).encode(&identity(1));
    frame[55] = VERSION + 1;
    assert_eq!(Message::decode(&frame), Err(HelloError::Frame(FrameError::HeaderChecksum)));
    let checksum = xxhash_rust::xxh3::xxh3_128(&frame[16..HEADER_BYTES]);
    frame[..16].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(Message::decode(&frame), Err(HelloError::Format { theirs: VERSION + 1 }));
    let other = Identity { version: 2, ..identity(1) };
    let frame = Message::Hello(Hello { identity: other, ..hello() }).encode(&other);
    assert_eq!(Message::decode(&frame), Err(HelloError::Protocol { ours: 1, theirs: 2 }));
}

#[test]
fn every_field_is_checked_and_has_a_remedy() {
    let ours = identity(2);
    let good = identity(1);
    assert_eq!(check(&ours, &good, NodeId(2)), Ok(()));
    let session = Session { incarnation: Incarnation(1), start: 0 };
    let cases = [
        (Identity { version: 9, ..good }, 2, "one release"),
        (Identity { cluster: ClusterId(1), ..good }, 3, "addresses"),
        (Identity { epoch: Epoch(1), ..good }, 4, "lower epoch"),
        (Identity { node: NodeId(2), ..good }, 6, "own id"),
        (Identity { node: NodeId(0), ..good }, 6, "own id"),
        (Identity { node: NodeId(8), ..good }, 6, "own id"),
        (Identity { durability: Durability::Sync, ..good }, 8, "alike"),
        (Identity { block: 512, ..good }, 9, "made"),
        (Identity { config_hash: 0, ..good }, 10, "alike"),
        (Identity { incarnation: Incarnation(0), ..good }, 11, "damaged"),
        (Identity { session, ..good }, 11, "damaged"),
    ];
    for (theirs, code, remedy) in cases {
        let error = check(&ours, &theirs, NodeId(2)).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
        assert!(error.to_string().len() <= TEXT_BYTES_MAX);
    }
    let error = check(&ours, &good, NodeId(3)).unwrap_err();
    assert_eq!(error, HelloError::To { ours: NodeId(2), meant: NodeId(3) });
}

#[test]
fn an_older_life_is_refused_and_the_same_one_may_return() {
    let life = |incarnation, start| {
        (Incarnation(incarnation), Session { incarnation: Incarnation(incarnation), start })
    };
    assert_eq!(check_life(life(2, 5), life(2, 5)), Ok(()));
    assert_eq!(check_life(life(2, 5), life(3, 1)), Ok(()));
    assert!(check_life(life(2, 5), life(2, 4)).is_err());
    assert!(check_life(life(2, 5), life(1, 9)).is_err());
}

#[test]
fn a_welcome_must_answer_the_hello() {
    let resume = Resume::data(&held(2));
    let good = Welcome { identity: identity(2), to: NodeId(1), resume };
    assert_eq!(check_welcome(&hello(), &good), Ok(()));
    let other = Welcome { identity: identity(3), ..good };
    let answer = HelloError::Answer { called: NodeId(2), answered: NodeId(3) };
    assert_eq!(check_welcome(&hello(), &other), Err(answer));
    assert!(check_welcome(&hello(), &Welcome { resume: Resume::Peer, ..good }).is_err());
    assert!(check_welcome(&hello(), &Welcome { to: NodeId(5), ..good }).is_err());
}

/// Bytes that the checksums bless but no release writes: refused, never a panic.
#[test]
fn impossible_bodies_are_refused() {
    let resume = Resume::data(&held(7));
    let welcome = Message::Welcome(Welcome { identity: identity(1), to: NodeId(2), resume });
    let good = welcome.encode(&identity(1));
    let header = Header::decode(&good, HELLO_BYTES as u32).unwrap();
    for (at, byte) in [(2, 0), (2, 4), (3, 0), (3, 9), (9, 8), (9, 255), (RESUME, 0), (RESUME, 8)] {
        let mut frame = good;
        frame[HEADER_BYTES + at] = byte;
        header.seal(&mut frame);
        let error = HelloError::Frame(FrameError::Body);
        assert_eq!(Message::decode(&frame), Err(error), "byte {at} = {byte}");
    }
    let mut frame = Message::Refusal(Refusal { code: 1, text: "x".into() }).encode(&identity(1));
    let header = Header::decode(&frame, HELLO_BYTES as u32).unwrap();
    frame[HEADER_BYTES + 10..HEADER_BYTES + 12].fill(255);
    header.seal(&mut frame);
    assert!(Message::decode(&frame).is_err());
    let short = Header { length: 10, ..header };
    short.seal(&mut frame);
    assert!(Message::decode(&frame).is_err());
}
