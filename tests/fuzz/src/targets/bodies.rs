//! Bodies of value packets, their delivery, and the lines that clients send.

use crate::{Target, mutate};
use chainring::groups::producers::Producers;
use chainring::groups::{Delivered, Groups};
use chainring::mail::TopicId;
use chainring::records::{
    Digest, Run, RunWriter, Stamp, is_topic_name, line_ends, line_ends_bytes, records, run_at, runs,
};
use std::collections::BTreeMap;

/// A body of runs.
pub const RECORDS: Target = Target {
    name: "records",
    run: run_records,
    seeds,
    repair: mutate::as_is,
    words: WORDS,
    bytes_max: 2048,
    memory_max: 128 << 10,
};

/// The same body delivered.
pub const DELIVERY: Target = Target {
    name: "delivery",
    run: run_delivery,
    seeds,
    repair: mutate::as_is,
    words: WORDS,
    bytes_max: 2048,
    // 33 MiB are reserved in any case: two tables of producers, the groups' and the model's.
    memory_max: 34 << 20,
};

/// A body of lines; its first byte is the limit of a line.
pub const LINES: Target = Target {
    name: "lines",
    run: run_lines,
    seeds: || vec![b"\x20one line\nanother\r\n\n\nlast".to_vec(), b"\x05\n\n\n".to_vec()],
    repair: mutate::as_is,
    words: &[b"\n", b"\r\n", b"\n\n\n\n"],
    bytes_max: 1024,
    memory_max: 16 << 10,
};

const WORDS: &[&[u8]] = &[
    &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, b'x'],
    &[0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'n'],
    &[4, 0, 0, 0],
    &[0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[3, 0, 0, 0, 1, 0, 0, 0, 29, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
];

/// A body as the comment of `records.rs` draws it: the parts, and whether all of it was read.
fn reference(body: &[u8]) -> (Vec<Part>, bool) {
    let mut parts = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let Some((run, behind)) = reference_run(rest) else { return (parts, false) };
        parts.push(run);
        rest = behind;
    }
    (parts, true)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Records(u32, Option<Stamp>, Vec<Vec<u8>>),
    Create(String),
    Register,
}

fn reference_run(bytes: &[u8]) -> Option<(Part, &[u8])> {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(bytes.iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (topic, count, length) = (number(0)?, number(8)?, number(12)?);
    let (kind, zero) = (*bytes.get(4)?, &bytes[5..8]);
    let body = bytes.get(16..)?.get(..length)?;
    let rest = &bytes[16 + length..];
    if zero != [0; 3] {
        return None;
    }
    if kind == 2 {
        let name = String::from_utf8(body.to_vec()).ok()?;
        let good = is_topic_name(&name) && count == 0 && topic == 0;
        return good.then_some((Part::Create(name), rest));
    }
    if kind == 4 {
        return (count == 0 && topic == 0 && length == 0).then_some((Part::Register, rest));
    }
    let stamp = match kind {
        3 if length < 24 || bytes[36..40] != [0; 4] => return None,
        3 => Some(Stamp {
            producer: (number(20)? << 32 | number(16)?) as u64,
            sequence: (number(28)? << 32 | number(24)?) as u64,
            epoch: number(32)? as u32,
        }),
        _ => None,
    };
    let (mut found, mut at) = (Vec::new(), if kind == 3 { 40 } else { 16 });
    while at < 16 + length {
        let size = number(at)?;
        if at + 4 + size > 16 + length {
            return None;
        }
        found.push(bytes[at + 4..at + 4 + size].to_vec());
        at += 4 + size;
    }
    let good = [1, 3].contains(&kind) && count > 0 && found.len() == count;
    good.then_some((Part::Records(topic as u32, stamp, found), rest))
}

fn read(body: &[u8]) -> (Vec<Part>, bool) {
    let mut parts = Vec::new();
    for run in runs(body) {
        let Ok(run) = run else { return (parts, false) };
        match run {
            Run::Records { at, topic, count, bytes, stamp } => {
                assert_eq!(run_at(body, at), Ok(run));
                let found: Vec<_> = records(bytes).map(<[u8]>::to_vec).collect();
                assert_eq!(found.len(), count as usize);
                parts.push(Part::Records(topic.0, stamp, found));
            }
            Run::Create { name, .. } => parts.push(Part::Create(name.to_owned())),
            Run::Register { .. } => parts.push(Part::Register),
        }
    }
    (parts, true)
}

fn run_records(body: &[u8]) -> bool {
    let found = read(body);
    assert_eq!(found, reference(body));
    records(body).for_each(drop);
    let (parts, whole) = found;
    if !whole {
        return false;
    }
    // Written again it is no longer, and reads the same: runs of one topic may have become one.
    let mut again = vec![0xaa; body.len()];
    let mut writer = RunWriter::new();
    for part in &parts {
        match part {
            Part::Records(topic, stamp, records) => {
                for (index, record) in (0..).zip(records) {
                    let stamp = stamp.map(|first| first.after(index));
                    assert!(writer.push_as(&mut again, TopicId(*topic), stamp, record));
                }
            }
            Part::Create(name) => assert!(writer.create(&mut again, name)),
            Part::Register => assert!(writer.register(&mut again)),
        }
    }
    let (second, whole) = read(&again[..writer.bytes()]);
    assert!(whole);
    assert_eq!(flat(&second), flat(&parts));
    !parts.is_empty()
}

/// Record by record.
fn flat(parts: &[Part]) -> Vec<(Option<u32>, Option<Stamp>, &[u8])> {
    let mut all = Vec::new();
    for part in parts {
        match part {
            Part::Records(topic, stamp, records) => {
                let stamp = |index| stamp.map(|first: Stamp| first.after(index));
                let flat = |(index, record)| (Some(*topic), stamp(index), Vec::as_slice(record));
                all.extend((0..).zip(records).map(flat));
            }
            Part::Create(name) => all.push((None, None, name.as_bytes())),
            Part::Register => all.push((None, None, b"")),
        }
    }
    all
}

/// What was told: a topic and its id, or a run and its first offset.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Topic(u32, String),
    Run(u32, u64, u32),
    Producer(u64),
}

fn run_delivery(body: &[u8]) -> bool {
    let mut groups = Groups::new();
    let mut told = Vec::new();
    // Twice, as a packet may be delivered whose topics are there already.
    let mut ends = [true; 2];
    for end in &mut ends {
        let result = groups.deliver(body, |delivered| {
            told.push(match delivered {
                Delivered::Topic { id, name } => Told::Topic(id.0, name.to_owned()),
                Delivered::Run { topic, first_offset, count, .. } => {
                    Told::Run(topic.0, first_offset, count)
                }
                Delivered::Producer { id } => Told::Producer(id),
                Delivered::Answer { .. } => return,
            });
        });
        *end = result.is_ok();
    }
    let (parts, whole) = reference(body);
    assert_eq!(ends, [whole; 2]);
    let (mut names, mut next) = (BTreeMap::new(), Vec::new());
    let (mut expected, mut digest) = (Vec::new(), Digest::default());
    // The table of producers has a model of its own (`src/groups/producers/tests.rs`); here it
    // says which records are new.
    let mut producers = Producers::new();
    for part in parts.iter().chain(&parts) {
        match part {
            Part::Create(name) if !names.contains_key(name) => {
                let id = next.len() as u32;
                names.insert(name.clone(), id);
                next.push(0u64);
                expected.push(Told::Topic(id, name.clone()));
            }
            Part::Create(_) => {}
            Part::Register => expected.extend(producers.register().map(Told::Producer)),
            Part::Records(topic, stamp, records) => {
                let Some(end) = next.get_mut(*topic as usize) else { continue };
                let count = records.len() as u32;
                let skip = stamp.map_or(0, |stamp| {
                    let placed = producers.deliver(stamp, TopicId(*topic), count, *end);
                    placed.map_or(count, |placed| placed.repeated)
                });
                if skip < count {
                    expected.push(Told::Run(*topic, *end, count - skip));
                }
                for record in &records[skip as usize..] {
                    digest.add(TopicId(*topic), *end, record);
                    *end += 1;
                }
            }
        }
    }
    assert_eq!(told, expected);
    assert_eq!(groups.digest(), Digest(digest.0.wrapping_add(producers.digest())));
    assert_eq!(groups.records(), next.iter().sum::<u64>());
    for (topic, end) in (0..).zip(&next) {
        assert_eq!(groups.end(TopicId(topic)), Some(*end));
    }
    !told.is_empty()
}

fn run_lines(bytes: &[u8]) -> bool {
    let Some((limit, text)) = bytes.split_first() else { return false };
    let limit = u32::from(*limit);
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    lines.retain(|line| !line.is_empty());
    let long = lines.iter().position(|line| line.len() > limit as usize);
    match line_ends(text, limit) {
        Ok(ends) => {
            assert_eq!(long, None);
            let mut start = 0;
            for (line, end) in lines.iter().zip(&ends) {
                assert_eq!(*line, &text[start..*end as usize]);
                start = *end as usize;
            }
            assert_eq!((lines.len(), start), (ends.len(), text.len()));
            assert!(ends.capacity() as u64 * 4 <= line_ends_bytes(text), "paid for by the budget");
        }
        Err(error) => assert_eq!(Some(error.line as usize - 1), long),
    }
    long.is_none()
}

fn seeds() -> Vec<Vec<u8>> {
    let mut body = vec![0; 600];
    let mut writer = RunWriter::new();
    assert!(writer.create(&mut body, "logs"));
    assert!(writer.create(&mut body, "events.A_b-9"));
    for (topic, record) in [(0, "a line\n"), (0, ""), (1, "another\n"), (9, "nobody's\n")] {
        assert!(writer.push(&mut body, TopicId(topic), record.as_bytes()));
    }
    assert!(writer.create(&mut body, "logs"));
    assert!(writer.register(&mut body));
    for (epoch, sequence) in [(0, 0), (0, 1), (0, 0), (1, 0), (0, 2), (1, 2)] {
        let stamp = Some(Stamp { producer: 7, epoch, sequence });
        assert!(writer.push_as(&mut body, TopicId(1), stamp, b"once\n"));
    }
    body.truncate(writer.bytes());
    vec![body]
}
