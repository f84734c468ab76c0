//! Producers: what has an unknown outcome is sent again, and comes once.

use crate::amnesia::SMALL;
use crate::cluster::Cluster;
use chainring::http::client::{Answer, ClientError};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn parse(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// The records of a batch: each says which it is.
fn batch(first: u64, count: u64) -> Vec<u8> {
    (first..first + count).flat_map(|number| format!("record {number}\n").into_bytes()).collect()
}

/// Sends again until it is acknowledged: what a client of unknown outcome does.
fn until_acknowledged(mut send: impl FnMut() -> Result<Answer, ClientError>) -> Value {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = send();
        match &answer {
            Ok(answer) if answer.status == 200 => return parse(answer),
            Ok(answer) => assert!([503, 504].contains(&answer.status), "{}", parse(answer)),
            Err(_) => {}
        }
        assert!(Instant::now() < until, "{:?}", answer.map(|answer| parse(&answer)));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The node is killed under the request, at another moment each time; the same is sent again to
/// another node, to the node itself in its next life, and once more after all are restarted.
#[test]
fn a_request_repeated_after_kill_9_comes_once() {
    let mut cluster = Cluster::new("producers", 3, "sync", &SMALL);
    cluster.start_all();
    let first = cluster.post_as(1, "t", ("new", 0, 0), &batch(0, 5)).unwrap();
    assert_eq!(first.status, 200, "{}", parse(&first));
    let producer = first.header("chainring-producer").unwrap().to_owned();
    assert_eq!(parse(&first)["producer"].to_string(), producer);
    let (mut next, mut told) = (5, vec![(0, 5, parse(&first))]);
    for round in 0..6 {
        let (node, count) = (1 + round % 3, 1000);
        let body = batch(next, count);
        let sent = std::thread::scope(|scope| {
            let stamp = (producer.as_str(), 0, next);
            let (url, body) = (cluster.url(node), &body);
            let send = scope.spawn(move || post(&url, stamp, body));
            std::thread::sleep(Duration::from_millis([0, 2, 5, 10, 20, 40][round]));
            cluster.kill(node);
            send.join().unwrap()
        });
        cluster.start(node);
        let send = |node| cluster.post_as(node, "t", (&producer, 0, next), &body);
        let answer = until_acknowledged(|| send(1 + node % 3));
        if let Some(before) = sent.ok().filter(|answer| answer.status == 200) {
            assert_eq!(parse(&before), answer, "round {round}");
        }
        assert_eq!(until_acknowledged(|| send(node)), answer, "round {round}");
        told.push((next, count, answer));
        next += count;
    }
    cluster.stop_all();
    cluster.start_all();
    for (node, (first, count, before)) in (0..).zip(&told) {
        let body = batch(*first, *count);
        let again = until_acknowledged(|| {
            cluster.post_as(1 + node % 3, "t", (&producer, 0, *first), &body)
        });
        assert_eq!(again, *before, "all nodes rebuild it from their logs");
    }
    cluster.await_equal();
    for node in 1..=3 {
        let (read, sent) = (cluster.read_all(node, "t"), batch(0, next));
        assert!(read == sent, "node {node} has {} bytes, {} were sent", read.len(), sent.len());
    }
    cluster.stop_all();
    let dirs: Vec<String> = (1..=3).map(|node| cluster.dir(node)).collect();
    let (exit, verified) = crate::cluster::json(&["verify", &dirs[0], &dirs[1], &dirs[2]]);
    assert_eq!((exit, &verified["records"]), (0, &json!(next)), "{verified}");
}

fn post(url: &str, stamp: (&str, u32, u64), body: &[u8]) -> Result<Answer, ClientError> {
    let sequence = stamp.2.to_string();
    let headers = [("Chainring-Producer", stamp.0), ("Chainring-Sequence", sequence.as_str())];
    let timeout = Duration::from_secs(15);
    chainring::http::client::request_with(url, "POST", "/v1/logs/t", &headers, body, timeout)
}

#[test]
fn a_producer_is_told_what_it_may_not_append() {
    let mut cluster = Cluster::new("fences", 1, "memory", &SMALL);
    cluster.start_all();
    let send = |topic, stamp, body: &str| {
        let answer = cluster.post_as(1, topic, stamp, body.as_bytes()).unwrap();
        (answer.status, parse(&answer))
    };
    let offsets = |(status, answer): (u16, Value)| {
        assert_eq!(status, 200, "{answer}");
        (answer["first_offset"].as_u64().unwrap(), answer["last_offset"].as_u64().unwrap())
    };
    assert_eq!(offsets(send("t", ("7", 0, 0), "a\nb\n")), (0, 1));
    assert_eq!(offsets(send("t", ("8", 0, 0), "x\n")), (2, 2));
    assert_eq!(offsets(send("t", ("7", 0, 1), "b\nc\nd\n")), (1, 4), "a part was there");
    assert_eq!(offsets(send("t", ("7", 0, 0), "a\nb\n")), (0, 1));
    assert_eq!(offsets(send("u", ("7", 0, 4), "e\n")), (0, 0), "one series over all topics");
    assert_eq!(offsets(send("t", ("7", 3, 0), "f\n")), (5, 5), "a new epoch begins at 0");
    for (topic, stamp, status, code, key, value) in [
        ("t", ("7", 3, 9), 409, "sequence_gap", "expected_sequence", json!(1)),
        ("t", ("9", 0, 1), 409, "sequence_gap", "expected_sequence", json!(0)),
        ("t", ("7", 2, 0), 409, "old_epoch", "epoch", json!(3)),
        ("u", ("7", 3, 0), 409, "other_topic", "none", Value::Null),
        ("t", ("4503599627370500", 0, 0), 410, "unknown_producer", "none", Value::Null),
        ("t", ("seven", 0, 0), 400, "bad_producer", "none", Value::Null),
        ("t", ("new", 0, 1), 400, "bad_producer", "none", Value::Null),
    ] {
        let (found, answer) = send(topic, stamp, "f\n");
        let error = &answer["error"];
        let expected = (status, &json!(code), &value);
        assert_eq!((found, &error["code"], &error[key]), expected, "{answer}");
    }
    // Every second record is somebody else's, until the first ones are not remembered.
    for sequence in 1..70 {
        offsets(send("t", ("7", 3, sequence), "g\n"));
        assert_eq!(cluster.post(1, "t", b"h\n").unwrap().status, 200);
    }
    let (status, answer) = send("t", ("7", 3, 0), "f\n");
    assert_eq!((status, &answer["error"]["code"]), (410, &json!("sequence_forgotten")));
    let first = answer["error"]["first_sequence"].as_u64().unwrap();
    offsets(send("t", ("7", 3, first), "g\n"));
    let read = String::from_utf8(cluster.read_all(1, "t")).unwrap();
    assert_eq!(read.matches("f\n").count(), 1);
    assert_eq!((&read[..12], read.matches("g\n").count()), ("a\nb\nx\nc\nd\nf\n", 69));
    cluster.stop_all();
}

#[test]
fn ids_that_are_given_are_given_once() {
    let mut cluster = Cluster::new("given", 3, "sync", &SMALL);
    cluster.start_all();
    let mut given: Vec<u64> = Vec::new();
    for round in 0..2 {
        for node in [1, 2, 3, 1] {
            let answer = cluster.post_as(node, "t", ("new", 0, 0), b"").unwrap();
            assert_eq!((answer.status, &parse(&answer)["count"]), (200, &json!(0)));
            given.push(answer.header("chainring-producer").unwrap().parse().unwrap());
        }
        if round == 0 {
            cluster.stop_all();
            cluster.start_all();
        }
    }
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 8);
    cluster.stop_all();
}
