//! Members come and go while records come in: three nodes become five, and three others are left.
//!
//! A writer repeats what failed under the same sequence, as a producer does; what was acknowledged
//! is present, once and at its offset, wherever anybody looks.

use crate::amnesia::SMALL;
use crate::cluster::{Cluster, json};
use chainring::http::client;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A cluster of which the nodes from this one on are spare, with new stores; none runs.
fn with_spares(name: &str, nodes: usize, first_spare: usize) -> Cluster {
    let cluster = Cluster::new(name, nodes, "sync", &SMALL);
    for node in 1..=nodes {
        let text = std::fs::read_to_string(cluster.config(node)).unwrap();
        let is_spare = |line: &str| {
            (first_spare..=nodes).any(|id| line.trim_start().starts_with(&format!("{{ id = {id},")))
        };
        let spare = |line: &str| match is_spare(line) {
            true => line.replace(" },", ", spare = true },"),
            false => line.to_owned(),
        };
        let lines: Vec<String> = text.lines().map(spare).collect();
        std::fs::write(cluster.config(node), lines.join("\n")).unwrap();
        std::fs::remove_dir_all(format!("{}/log", cluster.dir(node))).unwrap();
        store(&cluster, node, 1);
    }
    cluster
}

fn store(cluster: &Cluster, node: usize, incarnation: u64) {
    let (file, life) = (cluster.config(node).display().to_string(), incarnation.to_string());
    let (code, said) = json(&["member", "store", "--config", &file, "--incarnation", &life]);
    assert_eq!(code, 0, "{said:#}");
}

/// An order of `member`, to whoever of these nodes answers first.
fn member(cluster: &Cluster, nodes: &[usize], order: &[&str]) -> Value {
    let urls: Vec<String> = nodes.iter().map(|node| cluster.url(*node)).collect();
    let urls = urls.join(",");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let (code, said) = json(&[&["member"], order, &["--cluster", &urls]].concat());
        // While a ballot is opened, or a change is not done, nobody takes orders.
        let later = ["under_way", "unreachable", "timeout", "no_quorum", "refused"];
        let again = later.iter().any(|code| said["error"]["code"] == *code);
        if code == 0 {
            return said;
        }
        assert!(again && Instant::now() < until, "{order:?}: {code} {said:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn await_voters(cluster: &Cluster, nodes: &[usize], voters: &[u64]) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let known = member(cluster, nodes, &["list"]);
        let members = known["members"].as_array().unwrap();
        let votes = members.iter().filter(|member| !member["votes"].is_null());
        let votes: Vec<u64> = votes.map(|member| member["id"].as_u64().unwrap()).collect();
        if votes == voters && known["joint"] == false && members.len() == voters.len() {
            return;
        }
        assert!(Instant::now() < until, "not {voters:?}: {known:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Writes records until told to stop; the offsets that were acknowledged, by sequence.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u64>>,
}

impl Writer {
    fn start(urls: Vec<String>) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut offsets, mut at) = (Vec::new(), 0);
            while !told.load(Ordering::Relaxed) {
                offsets.push(append(&urls, &mut at, offsets.len()));
            }
            offsets
        });
        Writer { stop, thread }
    }

    fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Appends one record, at one node after another until it is acknowledged.
fn append(urls: &[String], at: &mut usize, sequence: usize) -> u64 {
    let (text, until) = (sequence.to_string(), Instant::now() + Duration::from_secs(20));
    let headers =
        [("Chainring-Producer", "77"), ("Chainring-Epoch", "0"), ("Chainring-Sequence", &*text)];
    loop {
        let (url, body) = (&urls[*at % urls.len()], format!("record {sequence}\n"));
        let timeout = Duration::from_secs(2);
        let path = "/v1/logs/t";
        let answer = client::request_with(url, "POST", path, &headers, body.as_bytes(), timeout);
        if let Ok(answer) = &answer
            && answer.status == 200
        {
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            return body["first_offset"].as_u64().unwrap();
        }
        let said = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
        assert!(Instant::now() < until, "record {sequence}: {said:?}");
        *at += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn check(cluster: &Cluster, node: usize, offsets: &[u64]) {
    let text = String::from_utf8(cluster.read_all(node, "t")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), offsets.len(), "node {node}: each once, and nothing else");
    for (sequence, offset) in offsets.iter().enumerate() {
        assert_eq!(lines[*offset as usize], format!("record {sequence}"), "node {node}");
    }
}

#[test]
fn three_become_five_and_three_others_are_left() {
    let mut cluster = with_spares("members", 6, 4);
    (1..=6).for_each(|node| cluster.start(node));
    (1..=3).for_each(|node| cluster.await_ready(node));
    let writer = Writer::start((1..=6).map(|node| cluster.url(node)).collect());
    let planned = member(&cluster, &[1, 2, 3], &["add", "4", "--dry-run"]);
    let last = planned["quorums"].as_array().unwrap().last().unwrap();
    assert_eq!((&last[0]["need"], last[0]["of"].as_array().unwrap().len()), (&3.into(), 4));
    await_voters(&cluster, &[1], &[1, 2, 3]);
    for (node, voters) in [("4", &[1, 2, 3, 4][..]), ("5", &[1, 2, 3, 4, 5])] {
        member(&cluster, &[1, 2, 3], &["add", node]);
        await_voters(&cluster, &[1], voters);
    }
    member(&cluster, &[4, 5], &["replace", "1", "--by", "6"]);
    await_voters(&cluster, &[4], &[2, 3, 4, 5, 6]);
    for (node, voters) in [("2", &[3, 4, 5, 6][..]), ("3", &[4, 5, 6])] {
        member(&cluster, &[4, 5], &["remove", node]);
        await_voters(&cluster, &[4], voters);
    }
    let offsets = writer.stop();
    assert!(offsets.len() > 100, "{} records", offsets.len());
    (1..=3).for_each(|node| cluster.kill(node));
    for node in 4..=6 {
        let url = vec![cluster.url(node)];
        let sequence = offsets.len() + node;
        assert!(append_anew(&url[0], sequence), "node {node} takes records");
    }
    for node in 4..=6 {
        let end = offsets.len();
        let text = String::from_utf8(cluster.read_all(node, "t")).unwrap();
        assert!(text.lines().count() >= end);
        check(&cluster, node, &offsets);
    }
}

/// One record of no producer, to another topic.
fn append_anew(url: &str, number: usize) -> bool {
    let (body, until) = (format!("{number}\n"), Instant::now() + Duration::from_secs(10));
    let post =
        || client::request(url, "POST", "/v1/logs/u", body.as_bytes(), Duration::from_secs(5));
    while !post().is_ok_and(|answer| answer.status == 200) {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

#[test]
fn a_node_whose_store_is_gone_comes_back_as_another_life() {
    let mut cluster = with_spares("wiped", 3, 4);
    cluster.start_all();
    let mut at = 0;
    let urls: Vec<String> = (1..=3).map(|node| cluster.url(node)).collect();
    let mut offsets: Vec<u64> = (0..20).map(|n| append(&urls, &mut at, n)).collect();
    for node in [2, 3] {
        cluster.kill(node);
        std::fs::remove_dir_all(format!("{}/log", cluster.dir(node))).unwrap();
        let (left, id) = (if node == 2 { [1, 3] } else { [1, 2] }, node.to_string());
        let said = member(&cluster, &left, &["replace", &id]);
        let life = said["planned"]["admitted"]["incarnation"].as_u64().unwrap();
        assert_eq!(life, 2);
        store(&cluster, node, life);
        cluster.start(node);
        cluster.await_status(node, |status| {
            status["votes"] == true && status["incarnation"] == life && status["ready"] == true
        });
        let next = offsets.len();
        offsets.extend((next..next + 20).map(|n| append(&urls, &mut at, n)));
        await_voters(&cluster, &[1], &[1, 2, 3]);
    }
    cluster.await_equal();
    (1..=3).for_each(|node| check(&cluster, node, &offsets));
    cluster.stop_all();
}
