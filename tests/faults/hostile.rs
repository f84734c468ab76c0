//! Peers of other clusters and kinds, garbage and length bombs on every port: refused or closed,
//! counted, and memory stays bounded.

use crate::amnesia::SMALL;
use crate::cluster::Cluster;
use chainring_net::hello::{HELLO_BYTES, Hello, Identity, Message, PROTOCOL, Purpose};
use chainring_ring::header::HEADER_BYTES;
use chainring_ring::ids::{ClusterId, Durability, Epoch, Incarnation, NodeId, Session};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Sends bytes to a port and reads until the other side closes.
fn exchange(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("not closed: {error}"),
    }
    answer
}

/// What node 3 of this cluster would say to node 1.
fn identity(cluster: &Cluster) -> Identity {
    let text = std::fs::read_to_string(cluster.config(1)).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("id = \"")).unwrap();
    let id = u128::from_str_radix(id.trim_end_matches('"'), 16).unwrap();
    Identity {
        cluster: ClusterId(id),
        epoch: Epoch(1),
        node: NodeId(3),
        incarnation: Incarnation(1),
        session: Session { incarnation: Incarnation(1), start: 1 },
        version: PROTOCOL,
        durability: Durability::Sync,
        block: 512,
        config_hash: 1,
    }
}

/// The text of the refusal that such a peer gets.
fn refused(cluster: &Cluster, identity: Identity) -> String {
    let hello = Hello { identity, purpose: Purpose::Data, to: NodeId(1) };
    let frame = Message::Hello(hello).encode(&identity);
    let answer = exchange(cluster.peer_ports[0], &frame);
    let frame: &[u8; HELLO_BYTES] = answer[..].try_into().expect("one frame");
    match Message::decode(frame) {
        Ok(Message::Refusal(refusal)) => refusal.text,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[test]
fn peers_of_another_kind_are_told_why_not() {
    let mut cluster = Cluster::new("peers", 3, "sync", &SMALL);
    cluster.start(1);
    cluster.await_status(1, |_| true);
    let ours = identity(&cluster);
    for (theirs, word) in [
        (Identity { cluster: ClusterId(5), ..ours }, "cluster"),
        (Identity { epoch: Epoch(9), ..ours }, "epoch"),
        (Identity { version: PROTOCOL + 1, ..ours }, "protocol"),
        (Identity { durability: Durability::Memory, ..ours }, "durability"),
        (Identity { block: 4096, ..ours }, "block"),
        (ours, "configuration"),
        (Identity { node: NodeId(1), ..ours }, "node 1"),
    ] {
        let said = refused(&cluster, theirs);
        assert!(said.contains(word), "{word}: {said}");
    }
    let status = cluster.await_status(1, |_| true);
    assert!(status["reasons"].to_string().contains("refused a connection"), "{status:#}");
}

/// Random bytes, a repeatable choice.
fn garbage(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[test]
fn garbage_and_length_bombs_are_closed_and_counted() {
    let mut cluster = Cluster::new("hostile", 3, "sync", &SMALL);
    cluster.start_all();
    assert_eq!(cluster.post(1, "t", b"before\n").unwrap().status, 200);
    let (peer, http) = (cluster.peer_ports[0], cluster.http_ports[0]);
    let before = cluster.resident_kib(1);
    let count = |cluster: &mut Cluster| {
        let status = cluster.await_status(1, |_| true);
        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        (number(&status["bad_frames"]), number(&status["http"]["bad"]))
    };
    let counted = count(&mut cluster);
    for seed in 1..=50 {
        exchange(peer, &garbage(seed, 64 << 10));
        exchange(http, &garbage(seed, 64 << 10));
    }
    // A frame that says to be as large as can be, its header otherwise whatever it may.
    let mut bomb = vec![0; HEADER_BYTES];
    for at in (0..HEADER_BYTES).step_by(4) {
        bomb[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    }
    exchange(peer, &[bomb, vec![0; 1 << 20]].concat());
    let head = "POST /v1/logs/t HTTP/1.1\r\nHost: x\r\n";
    let bombs = [
        format!("{head}Content-Length: 18446744073709551615\r\n\r\n"),
        format!("{head}Content-Length: 99999999999999999999999\r\n\r\n"),
        format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"),
        format!("{head}X: {}\r\n\r\n", "y".repeat(1 << 20)),
        "G".repeat(1 << 20),
    ];
    for bomb in &bombs {
        let answer = String::from_utf8(exchange(http, bomb.as_bytes())).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let after = count(&mut cluster);
    assert!(after.0 >= counted.0 + 51, "{counted:?} {after:?}");
    assert!(after.1 >= counted.1 + 50 + bombs.len() as u64, "{counted:?} {after:?}");
    let grown = cluster.resident_kib(1).saturating_sub(before);
    assert!(grown < 64 << 10, "grown by {grown} KiB");
    // Nothing of it came in, and the ring is as it was.
    assert_eq!(cluster.post(2, "t", b"after\n").unwrap().status, 200);
    cluster.await_equal();
    assert_eq!(cluster.read_all(1, "t"), b"before\nafter\n");
    cluster.stop_all();
}
