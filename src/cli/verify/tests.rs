//! Tests of `verify` and `inspect` on real logs, written through storage.

use super::*;
use crate::cli::inspect;
use crate::mail::TopicId;
use crate::records::{Digest, RunWriter};
use chainring_ring::header::{HEADER_BYTES, Header, Kind, round_up};
use chainring_ring::ids::*;
use chainring_storage::{
    FileSystem, Identity, LogConfig, LogWriter, Superblock, SuperblockFile, Values, create_segment,
    recover, segment_path,
};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A directory that goes with the test.
pub(crate) struct TestDir(pub PathBuf);

impl TestDir {
    pub(crate) fn new(name: &str) -> TestDir {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("chainring-{name}-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        TestDir(dir)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn identity(node: u8) -> Identity {
    Identity { cluster: ClusterId(9), epoch: Epoch(1), node: NodeId(node), ring: RingId(0) }
}

fn ballot() -> Ballot {
    Ballot { round: 1, node: NodeId(1), incarnation: Incarnation(1) }
}

/// What a value holds: topics to create, then records.
type Content<'a> = (&'a [&'a str], &'a [(u32, &'a str)]);

fn frame(sequence: u64, (topics, records): Content<'_>) -> Vec<u8> {
    let mut frame = vec![0; 4096];
    let mut writer = RunWriter::new();
    for name in topics {
        assert!(writer.create(&mut frame[HEADER_BYTES..], name));
    }
    for (topic, record) in records {
        assert!(writer.push(&mut frame[HEADER_BYTES..], TopicId(*topic), record.as_bytes()));
    }
    frame.truncate(round_up(HEADER_BYTES + writer.bytes(), 512));
    let header = Header {
        checksum_body: 0,
        cluster: ClusterId(9),
        epoch: Epoch(1),
        ring: RingId(0),
        kind: Kind::Value,
        size: frame.len() as u32,
        length: writer.bytes() as u32,
        origin: NodeId(1),
        session: Session::FIRST,
        sequence: Sequence(sequence),
        ballot: Ballot::ZERO,
        instance: Instance(0),
    };
    header.seal(&mut frame);
    frame
}

/// Writes a log: one group of one value each, then a seal with the claim. Places of the frames.
fn write_log(dir: &Path, node: u8, contents: &[Content<'_>], decided: u64) -> Vec<(u32, u32)> {
    let config = LogConfig {
        segment_bytes: 256 << 10,
        group_bytes_max: 8 << 10,
        development: true,
        ..LogConfig::new(identity(node), 512)
    };
    let mut superblock = Superblock::new(identity(node), Durability::Sync, 512, 3);
    superblock.start = 1;
    let mut file = SuperblockFile::create(&FileSystem, dir, &superblock, true).unwrap();
    let _ = create_segment(dir, &config, 0);
    let (_, mut writer) = recover(
        dir,
        &config,
        &mut file,
        &mut superblock,
        chainring_storage::Start::of_log(0),
        &mut |_| {},
    )
    .unwrap();
    let claim = Claim { ballot: ballot(), position: Instance(decided) };
    let mut block = vec![0; 64 << 10];
    let mut places = Vec::new();
    for (index, content) in contents.iter().enumerate() {
        let frame = frame(index as u64, *content);
        let id = Header::decode(&frame, 1 << 20).unwrap().value_id();
        let order = Order {
            instance: Instance(index as u64),
            ballot: ballot(),
            base: Instance(0),
            entry: Entry::Value(id),
            decided: false,
        };
        let mut values = Values::default();
        values.push(&frame);
        let plan = writer.plan([&order], &values, Claim::default(), &mut block).unwrap();
        let place = plan.value_place(0, frame.len() as u32);
        places.push((place.segment(), place.offset()));
        let head = plan.order_block_bytes as usize;
        let bytes = [&block[..head], &frame[..]].concat();
        write(dir, &mut writer, plan.segment, plan.offset, &bytes, plan.group);
    }
    let plan = writer.plan_seal(claim, &mut block).unwrap();
    let bytes = block[..plan.bytes as usize].to_vec();
    write(dir, &mut writer, plan.segment, plan.offset, &bytes, plan.group);
    places
}

fn write(dir: &Path, log: &mut LogWriter, segment: u32, at: u32, bytes: &[u8], group: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(segment_path(dir, segment)).unwrap();
    file.write_all_at(bytes, at.into()).unwrap();
    log.complete(group).unwrap();
}

/// Flips a bit of a node's log.
fn flip(dir: &Path, (segment, offset): (u32, u32), byte: usize) {
    let path = segment_path(dir, segment);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = u64::from(offset) + byte as u64;
    let mut one = [0];
    file.read_exact_at(&mut one, at).unwrap();
    file.write_all_at(&[one[0] ^ 4], at).unwrap();
}

const LOG: &[Content<'static>] = &[
    (&["a", "b"], &[]),
    (&[], &[(0, "a0\n"), (0, "a1\n"), (1, "b0\n")]),
    (&[], &[(1, "b1\n"), (1, "b2\n"), (0, "a2\n")]),
    (&["a"], &[(0, "a3\n")]),
];

struct Cluster {
    _dir: TestDir,
    dirs: Vec<PathBuf>,
    places: Vec<Vec<(u32, u32)>>,
}

fn cluster(logs: &[(&[Content<'_>], u64)]) -> Cluster {
    let dir = TestDir::new("verify");
    let (mut dirs, mut places) = (Vec::new(), Vec::new());
    for (index, (contents, decided)) in logs.iter().enumerate() {
        let node = index as u8 + 1;
        let path = dir.0.join(node.to_string());
        std::fs::create_dir_all(&path).unwrap();
        places.push(write_log(&path, node, contents, *decided));
        dirs.push(path);
    }
    Cluster { _dir: dir, dirs, places }
}

#[test]
fn equal_logs_are_identical_and_what_lies_beyond_is_said() {
    let c = cluster(&[(LOG, 4), (LOG, 4), (LOG, 3)]);
    let output = verify(&c.dirs).unwrap();
    assert_eq!(output.exit, Exit::Ok, "{}", output.text);
    assert_eq!(output.json["identical"], true);
    assert_eq!((&output.json["instances"], &output.json["records"]), (&json!(3), &json!(6)));
    assert_eq!(output.json["nodes"][0]["beyond"], 1);
    let mut digest = Digest::default();
    for (topic, offset, record) in [
        (0, 0, "a0\n"),
        (0, 1, "a1\n"),
        (1, 0, "b0\n"),
        (1, 1, "b1\n"),
        (1, 2, "b2\n"),
        (0, 2, "a2\n"),
    ] {
        digest.add(TopicId(topic), offset, record.as_bytes());
    }
    assert_eq!(output.json["digest"], format!("{:032x}", digest.0));
}

#[test]
fn a_flipped_byte_is_named_by_node_topic_and_offset() {
    // In the third value: 16 bytes of run, then b1, b2 (7 bytes each), 16 of run, then a2.
    let cases = [
        (HEADER_BYTES + 21, "b", 1),
        (HEADER_BYTES + 28, "b", 2),
        (HEADER_BYTES + 30 + 22, "a", 2),
        // The value's header, and the order block before it: only the value can be named.
        (40, "b", 1),
    ];
    for (byte, topic, offset) in cases {
        let c = cluster(&[(LOG, 4), (LOG, 4), (LOG, 4)]);
        flip(&c.dirs[1], c.places[1][2], byte);
        let output = verify(&c.dirs).unwrap();
        let found = &output.json["difference"];
        assert_eq!(output.exit, Exit::Failed);
        let expected = (&json!(2), &json!(topic), &json!(offset));
        assert_eq!(
            (&found["node"], &found["topic"], &found["offset"]),
            expected,
            "{}",
            output.text
        );
    }
}

#[test]
fn a_damaged_order_is_named_by_the_value_of_the_others() {
    let c = cluster(&[(LOG, 4), (LOG, 4)]);
    let (segment, offset) = c.places[0][2];
    flip(&c.dirs[0], (segment, offset - 512), 20);
    let output = verify(&c.dirs).unwrap();
    let found = &output.json["difference"];
    assert_eq!(
        (&found["node"], &found["topic"], &found["offset"]),
        (&json!(1), &json!("b"), &json!(1))
    );
    let inspected = inspect::inspect(&c.dirs[0]).unwrap();
    assert_eq!(inspected.exit, Exit::Degraded, "{}", inspected.text);
    assert_eq!(inspected.json["damage"][0]["state"], "unknown");
}

#[test]
fn other_content_under_a_good_checksum_is_found() {
    let other: &[Content<'_>] =
        &[LOG[0], LOG[1], (&[], &[(1, "b1\n"), (1, "bX\n"), (0, "a2\n")]), LOG[3]];
    let c = cluster(&[(LOG, 4), (other, 4), (LOG, 4)]);
    let output = verify(&c.dirs).unwrap();
    let found = &output.json["difference"];
    assert_eq!(
        (&found["node"], &found["topic"], &found["offset"]),
        (&json!(2), &json!("b"), &json!(2))
    );
    let shorter: &[Content<'_>] = &[LOG[0], (&[], &[(0, "a0\n"), (0, "a1\n")])];
    let c = cluster(&[(LOG, 2), (shorter, 2)]);
    let output = verify(&c.dirs).unwrap();
    assert_eq!(output.json["difference"]["node"], 2);
}

#[test]
fn nothing_compared_is_a_failure_and_so_is_no_log() {
    let c = cluster(&[(LOG, 4), (LOG, 0)]);
    assert_eq!(verify(&c.dirs).unwrap_err().code, "nothing_compared");
    let empty = cluster(&[(&[], 0), (&[], 0)]);
    assert_eq!(verify(&empty.dirs).unwrap().exit, Exit::Ok);
    let dir = TestDir::new("memory");
    let superblock = Superblock::new(identity(1), Durability::Memory, 512, 3);
    drop(SuperblockFile::create(&FileSystem, &dir.0, &superblock, true).unwrap());
    assert_eq!(verify(std::slice::from_ref(&dir.0)).unwrap_err().code, "no_log");
    let dir = TestDir::new("none");
    assert_eq!(verify(&[dir.0.join("missing")]).unwrap_err().exit, Exit::NotFound);
    assert_eq!(verify(std::slice::from_ref(&dir.0)).unwrap_err().exit, Exit::NotFound);
}

#[test]
fn inspect_shows_a_good_log() {
    let c = cluster(&[(LOG, 4)]);
    let output = inspect::inspect(&c.dirs[0]).unwrap();
    assert_eq!(output.exit, Exit::Ok, "{}", output.text);
    assert_eq!((&output.json["orders"], &output.json["decided"]), (&json!(4), &json!(4)));
    assert_eq!(output.json["segments"][0]["last_instance"], 3);
    assert!(output.text.contains("0..=3"));
}

#[test]
fn the_control_thread_reads_frames_from_disk_and_refuses_damaged_ones() {
    let c = cluster(&[(LOG, 4)]);
    let read = crate::control::disk::disk_read(FileSystem::shared(), &c.dirs[0], identity(1), true);
    let (segment, offset) = c.places[0][1];
    let bytes = frame(1, LOG[1]).len() as u32;
    let place = crate::mail::Place { at: u64::from(segment) << 32 | u64::from(offset), bytes };
    let mut out = vec![1; 10];
    read(place, &mut out).unwrap();
    assert_eq!(out, frame(1, LOG[1]));
    flip(&c.dirs[0], c.places[0][1], 300);
    assert!(read(place, &mut out).is_err());
}
