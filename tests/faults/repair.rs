//! Damage below the seal: fetched from peers, written again, and not called unknown any more; and
//! damage under a running node.

use crate::amnesia::SMALL;
use crate::cluster::{Cluster, json};
use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

#[test]
fn a_flipped_byte_is_named_repaired_and_then_whole() {
    let mut cluster = Cluster::new("repair", 3, "sync", &SMALL);
    cluster.start_all();
    let body: Vec<u8> = (0..200).flat_map(|n| format!("record {n:05}\n").into_bytes()).collect();
    for _ in 0..20 {
        assert_eq!(cluster.post(1, "t", &body).unwrap().status, 200);
    }
    let whole = body.repeat(20);
    cluster.stop_all();

    let segment = format!("{}/log/segment-00000000.log", cluster.dir(2));
    let mut bytes = std::fs::read(&segment).unwrap();
    let needle = b"record 00123\n";
    let found: Vec<usize> =
        (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    bytes[found[9]] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let dirs: Vec<String> = (1..=3).map(|node| cluster.dir(node)).collect();
    let verify = || json(&["verify", &dirs[0], &dirs[1], &dirs[2]]);
    let (code, answer) = verify();
    let difference = &answer["difference"];
    assert_eq!((code, difference["node"].as_u64()), (1, Some(2)), "{answer}");
    assert_eq!(difference["topic"], "t");
    assert_eq!(difference["offset"], 9 * 200 + 123, "{answer}");

    cluster.start_all();
    assert!(cluster.said(2).contains("damage below the seal"), "{}", cluster.said(2));
    cluster.await_status(2, |status| status["records"] == 4000);
    (1..=3).for_each(|node| assert!(cluster.read_all(node, "t") == whole, "node {node} differs"));
    cluster.stop_all();
    let (code, answer) = verify();
    assert_eq!(code, 0, "{answer}");
    let before = cluster.said(2).len();
    cluster.start_all();
    let said = &cluster.said(2)[before..];
    assert!(!said.contains("damage"), "the superblock says that it is repaired: {said}");
    cluster.stop_all();
}

/// Bends one byte of the record `needle` in the first segment of a node, behind its back. Returns
/// the segment as it was.
fn bend(cluster: &Cluster, node: usize, needle: &[u8]) -> (PathBuf, Vec<u8>) {
    let segment = PathBuf::from(format!("{}/log/segment-00000000.log", cluster.dir(node)));
    let bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("it is there");
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    file.sync_all().unwrap();
    (segment, bytes)
}

/// A log of more than one segment; what is in it.
fn fill(cluster: &Cluster) -> Vec<u8> {
    let filler = "x".repeat(1000);
    let mut whole = Vec::new();
    for body in 0..12 {
        let line = |n| format!("record {:05} {filler}\n", 1000 * body + n).into_bytes();
        let body: Vec<u8> = (0..1000).flat_map(line).collect();
        assert_eq!(cluster.post(1, "t", &body).unwrap().status, 200);
        whole.extend(body);
    }
    whole
}

#[test]
fn a_running_node_repairs_what_it_or_a_reader_finds_and_serves_none_of_it() {
    let limits = [&SMALL[..], &[("log_bytes", 1 << 30)]].concat();
    let mut cluster = Cluster::new("scrub", 3, "sync", &limits);
    cluster.set_limit(2, "scrub_bytes_per_s", 100_000_000);
    // Node 3 comes to it in an hour: its readers are first.
    cluster.set_limit(3, "scrub_bytes_per_s", 2_000);
    cluster.start_all();
    let whole = fill(&cluster);
    cluster.await_equal();
    for node in [2, 3] {
        let (segment, before) = bend(&cluster, node, b"record 01234");
        if node == 3 {
            assert!(cluster.read_all(node, "t") == whole, "a reader gets what was written");
        }
        let repaired = |status: &Value| status["log"]["repaired_values"] == 1;
        let status = cluster.await_status(node, repaired);
        assert_eq!(status["log"]["damaged_values"], 1, "{status:#}");
        let told = status["reasons"].to_string();
        assert!(told.contains("segment 0 byte ") && told.contains("repaired"), "{told}");
        assert!(std::fs::read(segment).unwrap() == before, "node {node}: every byte is back");
        assert!(cluster.read_all(node, "t") == whole);
    }
    cluster.stop_all();
}

#[test]
fn who_is_alone_serves_an_error_in_the_place_of_damage() {
    let mut cluster = Cluster::new("alone", 1, "sync", &SMALL);
    cluster.start_all();
    let whole = fill(&cluster);
    let read = |offset| cluster.get(1, &format!("/v1/logs/t?offset={offset}&limit=1")).unwrap();
    assert_eq!(read(1234).body, whole[1234 * 1014..1235 * 1014]);
    bend(&cluster, 1, b"record 01234");
    let answer = read(1234);
    assert_eq!(answer.status, 500, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(read(9000).body, whole[9000 * 1014..9001 * 1014], "the rest is served");
    let told = String::from_utf8(cluster.get(1, "/status").unwrap().body).unwrap();
    assert!(told.contains("a value that no peer has; it is not served"), "{told}");
}
