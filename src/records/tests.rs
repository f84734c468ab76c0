//! Tests of bodies and the digest.

use super::*;
use proptest::prelude::*;

/// What a body is made of: a record, or a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Record(u32, Option<Stamp>, Vec<u8>),
    Create(String),
    Register,
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => (0..3u32, proptest::option::of(stamp()), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(topic, stamp, bytes)| Part::Record(topic, stamp, bytes)),
        1 => Just(Part::Register),
        1 => "[A-Za-z0-9._-]{1,20}".prop_map(Part::Create),
    ]
}

/// Few of each, so that runs go on.
fn stamp() -> impl Strategy<Value = Stamp> {
    let ends = prop_oneof![Just(u64::MAX), Just(0)];
    (0..2u64, 0..2u32, prop_oneof![3 => 0..3u64, 1 => ends])
        .prop_map(|(producer, epoch, sequence)| Stamp { producer, epoch, sequence })
}

fn write(parts: &[Part], body: &mut [u8]) -> (usize, usize) {
    let mut writer = RunWriter::new();
    for (index, part) in parts.iter().enumerate() {
        let before = writer.bytes();
        let fits = match part {
            Part::Record(topic, stamp, bytes) => {
                let need = writer.need(TopicId(*topic), *stamp, bytes.len());
                let fits = writer.push_as(body, TopicId(*topic), *stamp, bytes);
                assert_eq!(writer.bytes() - before, if fits { need } else { 0 });
                fits
            }
            Part::Create(name) => writer.create(body, name),
            Part::Register => writer.register(body),
        };
        if !fits {
            return (index, writer.bytes());
        }
    }
    (parts.len(), writer.bytes())
}

fn read(body: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    for run in runs(body) {
        match run.unwrap() {
            Run::Records { topic, count, bytes, at, stamp } => {
                let of_run: Vec<&[u8]> = records(bytes).collect();
                assert_eq!(of_run.len(), count as usize);
                assert_eq!(run_at(body, at), Ok(Run::Records { at, topic, count, bytes, stamp }));
                let part = |(index, record): (u32, &&[u8])| {
                    Part::Record(topic.0, stamp.map(|first| first.after(index)), record.to_vec())
                };
                parts.extend((0..).zip(&of_run).map(part));
            }
            Run::Create { name, .. } => parts.push(Part::Create(name.to_owned())),
            Run::Register { .. } => parts.push(Part::Register),
        }
    }
    parts
}

proptest! {
    #[test]
    fn round_trip(parts in proptest::collection::vec(part(), 0..60), room in 0..2000usize) {
        let mut body = vec![0xee; room];
        let (written, length) = write(&parts, &mut body);
        prop_assert_eq!(read(&body[..length]), &parts[..written]);
        prop_assert!(body[length..].iter().all(|byte| *byte == 0xee));
    }

    #[test]
    fn hostile_bytes_end_in_errors(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for run in runs(&body).flatten() {
            if let Run::Records { bytes, .. } = run {
                records(bytes).for_each(drop);
            }
        }
        records(&body).for_each(drop);
    }

    /// A damaged body gives other runs or an error, never a panic, and never bytes from outside.
    #[test]
    fn damaged_bodies(
        parts in proptest::collection::vec(part(), 1..20),
        at in any::<usize>(),
        bit in 0..8u32,
    ) {
        let mut body = vec![0; 2000];
        let (_, length) = write(&parts, &mut body);
        body.truncate(length);
        body[at % length] ^= 1 << bit;
        let total: usize = runs(&body).flatten().map(|run| match run {
            Run::Records { bytes, .. } => bytes.len() + RUN_HEADER_BYTES,
            Run::Create { name, .. } => name.len() + RUN_HEADER_BYTES,
            Run::Register { .. } => RUN_HEADER_BYTES,
        }).sum();
        prop_assert!(total <= length);
    }
}

#[test]
fn a_record_of_another_topic_opens_a_run() {
    let mut body = [0; 200];
    let mut writer = RunWriter::new();
    for (topic, record) in [(1, "a"), (1, "b"), (2, "c"), (1, "")] {
        assert!(writer.push(&mut body, TopicId(topic), record.as_bytes()));
    }
    let counts: Vec<u32> = runs(&body[..writer.bytes()])
        .map(|run| match run.unwrap() {
            Run::Records { count, .. } => count,
            Run::Create { .. } | Run::Register { .. } => 0,
        })
        .collect();
    assert_eq!(counts, [2, 1, 1]);
}

#[test]
fn every_error_is_met() {
    let mut body = [0; 64];
    let mut writer = RunWriter::new();
    assert!(writer.push(&mut body, TopicId(1), b"abc"));
    let good = &body[..writer.bytes()];
    let with = |at: usize, byte: u8| {
        let mut bad = good.to_vec();
        bad[at] = byte;
        runs(&bad).next().unwrap().unwrap_err()
    };
    assert_eq!(with(4, 5), RunError::Kind { at: 0 });
    assert_eq!(with(4, STAMPED), RunError::Short { at: 0 }, "no room for a stamp");
    assert_eq!(with(4, REGISTER), RunError::Kind { at: 0 }, "a registration has no records");
    assert_eq!(with(5, 1), RunError::Kind { at: 0 });
    assert_eq!(with(8, 2), RunError::Records { at: 0 });
    assert_eq!(with(16, 4), RunError::Records { at: 0 });
    assert_eq!(with(12, 8), RunError::Short { at: 0 });
    assert_eq!(with(4, CREATE), RunError::Name { at: 0 });
    assert_eq!(run_at(good, 100), Err(RunError::Short { at: 100 }));
    assert_eq!(runs(&good[..15]).next(), Some(Err(RunError::Short { at: 0 })));
}

#[test]
fn names() {
    let long = "x".repeat(TOPIC_NAME_MAX);
    for good in ["a", "A.b_c-9", long.as_str()] {
        assert!(is_topic_name(good), "{good}");
    }
    for bad in ["", "a b", "a/b", "\u{e4}", &format!("{long}x")] {
        assert!(!is_topic_name(bad), "{bad}");
    }
}

#[test]
fn the_digest_pins_every_record_to_its_place() {
    let digest = |records: &[(u32, u64, &str)]| {
        let mut digest = Digest::default();
        for (topic, offset, bytes) in records {
            digest.add(TopicId(*topic), *offset, bytes.as_bytes());
        }
        digest
    };
    let base = digest(&[(0, 0, "a"), (0, 1, "b"), (1, 0, "c")]);
    assert_eq!(base, digest(&[(1, 0, "c"), (0, 0, "a"), (0, 1, "b")]), "interleaving");
    assert_ne!(base, digest(&[(0, 0, "b"), (0, 1, "a"), (1, 0, "c")]), "moved");
    assert_ne!(base, digest(&[(0, 0, "a"), (0, 1, "b"), (0, 0, "c")]), "other topic");
    assert_ne!(base, digest(&[(0, 0, "a"), (0, 1, "b")]), "lost");
    assert_ne!(base, digest(&[(0, 0, "a"), (0, 1, "b"), (1, 0, "c"), (1, 0, "c")]), "doubled");
    let (low, high) = base.halves();
    assert_eq!(Digest::from_halves(low, high), base);
}

#[test]
fn only_a_line_feed_ends_a_line() {
    for (text, ends) in [
        (&b""[..], &[][..]),
        (b"\n", &[1]),
        (b"a", &[1]),
        (b"a\n", &[2]),
        (b"a\r\n\n\rb\0\xff", &[3, 4, 8]),
    ] {
        assert_eq!(line_ends(text, 100).unwrap(), ends);
        assert!(line_ends_bytes(text) >= 4 * ends.len() as u64);
    }
    assert_eq!(line_ends(b"abc\nabc\nabcd", 4).unwrap(), [4, 8, 12]);
    assert_eq!(line_ends(b"abc\nabcd\n", 4), Err(LineTooLong { line: 2, limit: 4 }));
    assert_eq!(line_ends(b"abcde", 4), Err(LineTooLong { line: 1, limit: 4 }));
}

#[test]
fn a_stamp_goes_on_within_its_run() {
    let stamp = |epoch, sequence| Some(Stamp { producer: 7, epoch, sequence });
    let mut body = [0; 400];
    let mut writer = RunWriter::new();
    for stamp in [stamp(0, 4), stamp(0, 5), stamp(0, 5), stamp(1, 6), None] {
        assert!(writer.push_as(&mut body, TopicId(1), stamp, b"x"));
    }
    writer.end_run();
    assert!(writer.push(&mut body, TopicId(1), b"y"));
    let found: Vec<_> = runs(&body[..writer.bytes()])
        .map(|run| match run {
            Ok(Run::Records { count, stamp, .. }) => (count, stamp),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [(2, stamp(0, 4)), (1, stamp(0, 5)), (1, stamp(1, 6)), (1, None), (1, None)];
    assert_eq!(found, expected);
    body[RUN_HEADER_BYTES + 20] = 1;
    assert_eq!(run_at(&body, 0), Err(RunError::Kind { at: 0 }));
}
