//! The look over full segments, and the repair of a value in place.

use super::common::{Node, TestDir, poke};
use chainring_ring::header::Header;
use chainring_storage::scrub::{Log, Scrub, Seen, put_back};
use chainring_storage::{FileSystem, LogError, Place, segment_path};

/// Three segments full of groups, and one that is written.
fn full(dir: &TestDir) -> (Node, Log) {
    let mut node = Node::start(&dir.0).unwrap();
    while node.writer.segment() < 3 {
        node.append(&[1024, 2048, 512]);
    }
    let log = Log {
        disk: FileSystem::shared(),
        dir: dir.0.clone(),
        identity: node.config.identity,
        development: node.config.development,
    };
    (node, log)
}

/// What one round finds wrong, and the bytes that it read.
fn round(log: &Log) -> (Vec<Seen>, u64) {
    let (mut walk, mut wrong, mut read) = (Scrub::new(log.clone()), Vec::new(), 0);
    while let Some((seen, bytes)) = walk.step(3).unwrap() {
        read += bytes;
        if seen != Seen::Intact {
            wrong.push(seen);
        }
    }
    (wrong, read)
}

fn segment(log: &Log, number: u32) -> Vec<u8> {
    std::fs::read(segment_path(&log.dir, number)).unwrap()
}

/// The places of the values of a group in a full segment.
fn places(node: &Node, index: usize) -> Vec<(Place, Vec<u8>)> {
    assert!(node.kept[index].values[0].0.segment() < 3);
    node.kept[index].values.clone()
}

#[test]
fn a_round_reads_every_group_and_finds_nothing_wrong_with_a_good_log() {
    let dir = TestDir::new();
    let (node, log) = full(&dir);
    let (wrong, read) = round(&log);
    assert_eq!(wrong, []);
    let groups = node.kept.iter().filter(|group| group.values[0].0.segment() < 3);
    let bytes: u64 =
        groups.flat_map(|group| &group.values).map(|(_, frame)| frame.len() as u64).sum();
    assert!(read > bytes, "{read} of {bytes} bytes of values");
}

#[test]
fn every_bent_byte_of_a_value_is_found_and_the_value_put_back() {
    let dir = TestDir::new();
    let (node, log) = full(&dir);
    let before: Vec<_> = (0..3).map(|number| segment(&log, number)).collect();
    for index in [0, 1, 20, 40] {
        for (place, frame) in places(&node, index) {
            let id = Header::decode(&frame, u32::MAX).unwrap().value_id();
            for at in [0, 100, 127, 128, frame.len() - 1] {
                let bent = [frame[at] ^ 1];
                poke(&dir.0, place.segment(), u64::from(place.offset()) + at as u64, &bent);
                let (wrong, _) = round(&log);
                let [Seen::Values(range)] = &wrong[..] else { panic!("{index}, {at}: {wrong:?}") };
                assert!(range.contains(&(place.at + at as u64)), "{index}, {at}: {range:?}");
                put_back(&log, place, id, &frame).unwrap();
                assert!(segment(&log, place.segment()) == before[place.segment() as usize]);
            }
        }
    }
    assert_eq!(round(&log).0, []);
}

#[test]
fn nothing_else_is_put_there() {
    let dir = TestDir::new();
    let (node, log) = full(&dir);
    let all = places(&node, 3);
    let (place, frame) = &all[0];
    let id = |frame: &[u8]| Header::decode(frame, u32::MAX).unwrap().value_id();
    let before = segment(&log, place.segment());
    let mut bent = frame.clone();
    bent[200] ^= 1;
    let other = &places(&node, 4)[0].1;
    for (what, frame, id) in [
        ("a bent body", &bent, id(frame)),
        ("another value", other, id(frame)),
        ("another id", frame, id(other)),
        ("another size", &all[1].1, id(&all[1].1)),
    ] {
        let refused = put_back(&log, *place, id, frame);
        assert!(matches!(refused, Err(LogError::Frame { .. })), "{what}: {refused:?}");
    }
    assert!(segment(&log, place.segment()) == before);
}

#[test]
fn a_group_that_is_gone_is_missed() {
    for lost in ["block", "group", "last of its segment"] {
        let dir = TestDir::new();
        let (node, log) = full(&dir);
        let last = |index: &usize| {
            node.kept[*index + 1].values[0].0.segment() > node.kept[*index].values[0].0.segment()
        };
        let index = match lost {
            "last of its segment" => (0..node.kept.len()).find(last).unwrap(),
            _ => 5,
        };
        let (segment, at) = node.block_of(index);
        let bytes = if lost == "block" { 512 } else { 8192 };
        poke(&dir.0, segment, u64::from(at), &vec![0; bytes]);
        let (wrong, _) = round(&log);
        let [Seen::Group(range)] = &wrong[..] else { panic!("{lost}: {wrong:?}") };
        let start = u64::from(segment) << 32 | u64::from(at);
        assert!(range.contains(&start), "{lost}: {range:x?}");
    }
}
