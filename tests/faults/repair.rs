//! Damage below the seal: fetched from peers, written again, and not called unknown any more.

use crate::amnesia::SMALL;
use crate::cluster::{Cluster, json};

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
