//! Nodes that have forgotten their votes: memory durability after any restart, async after one
//! that was not clean. They come back as learners and vote again once they have caught up; a ring
//! that can never go on says so.

use crate::cluster::{Cluster, Folder, binary, chainring, free_port, json, turn};
use chainring::http::client;
use serde_json::Value;
use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Small segments: nodes of these tests start in a moment.
pub const SMALL: [(&str, u64); 4] = [
    ("record_bytes", 64 << 10),
    ("packet_bytes", 64 << 10),
    ("group_bytes", 256 << 10),
    ("segment_bytes", 8 << 20),
];

fn has_reason(status: &Value, code: &str) -> bool {
    status["reasons"].as_array().into_iter().flatten().any(|reason| reason["code"] == code)
}

/// Appends a line at every node, again until each takes it.
fn append_everywhere(cluster: &Cluster, line: &str) {
    for node in 1..=cluster.nodes() {
        let until = Instant::now() + Duration::from_secs(10);
        let body = format!("{line} {node}\n");
        loop {
            let answer = cluster.post(node, "t", body.as_bytes());
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                break;
            }
            let said = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
            assert!(Instant::now() < until, "node {node}: {said:?}\n{}", cluster.said(node));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn lines(cluster: &Cluster, node: usize) -> Vec<String> {
    let text = String::from_utf8(cluster.read_all(node, "t")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn memory_nodes_learn_and_a_ring_without_a_quorum_halts() {
    let mut cluster = Cluster::new("amnesia", 3, "memory", &[("memory_log_bytes", 64 << 20)]);
    cluster.start_all();
    append_everywhere(&cluster, "first");
    // The coordinator too: whoever is left has a quorum of votes.
    cluster.kill(1);
    cluster.start(1);
    let is_back = |status: &Value| status["votes"] == true && status["incarnation"] == 2;
    cluster.await_status(1, is_back);
    append_everywhere(&cluster, "second");
    cluster.await_equal();
    assert_eq!(lines(&cluster, 1).len(), 6, "it has what it had forgotten");
    let (code, members) = json(&["member", "list", "--cluster", &cluster.url(2)]);
    assert_eq!((code, &members["members"][0]["votes"]), (0, &2.into()), "{members:#}");

    // Two at once: one is left that remembers.
    (2..=3).for_each(|node| cluster.kill(node));
    (2..=3).for_each(|node| cluster.start(node));
    for node in 1..=3 {
        let status = cluster.await_status(node, |status| status["halt"] == "amnesia");
        assert_eq!((&status["state"], &status["ready"]), (&"halted".into(), &false.into()));
        let ready = cluster.get(node, "/readyz").unwrap();
        let text = String::from_utf8(ready.body).unwrap();
        assert!(
            ready.status == 503
                && text.contains("higher cluster.epoch")
                && text.contains("--new-epoch"),
            "{text}"
        );
        let refused = cluster.post(node, "t", b"late\n").unwrap();
        assert_eq!(refused.status, 503, "{}", String::from_utf8_lossy(&refused.body));
    }
    assert_eq!(lines(&cluster, 1).len(), 6, "what is left can be saved");

    // All lost: no empty log passes for the old one.
    (1..=3).for_each(|node| cluster.kill(node));
    (1..=3).for_each(|node| cluster.start(node));
    for node in 1..=3 {
        cluster.await_status(node, |status| status["halt"] == "amnesia");
        assert_eq!(cluster.get(node, "/v1/logs/t").unwrap().status, 404);
        assert_eq!(cluster.post(node, "t", b"late\n").unwrap().status, 503);
    }
    cluster.stop_all();
}

#[test]
fn async_nodes_remember_a_clean_stop_only() {
    let mut cluster = Cluster::new("async", 3, "async", &SMALL);
    cluster.start_all();
    append_everywhere(&cluster, "first");
    cluster.stop_all();
    cluster.start_all();
    for node in 1..=3 {
        let status = cluster.await_status(node, |_| true);
        assert_eq!((&status["incarnation"], &status["votes"]), (&1.into(), &true.into()));
    }
    append_everywhere(&cluster, "second");
    cluster.await_equal();
    cluster.kill(2);
    cluster.start(2);
    let is_back = |status: &Value| status["votes"] == true && status["incarnation"] == 2;
    cluster.await_status(2, is_back);
    append_everywhere(&cluster, "third");
    cluster.await_equal();
    let all = lines(&cluster, 2);
    assert_eq!(all.len(), 9, "{all:?}");
    assert!((1..=3).all(|node| lines(&cluster, node) == all));
    [1, 3].into_iter().for_each(|node| cluster.kill(node));
    [1, 3].into_iter().for_each(|node| cluster.start(node));
    for node in 1..=3 {
        let status = cluster.await_status(node, |status| status["halt"] == "amnesia");
        assert!(node == 2 || has_reason(&status, "forgot_votes"), "{status:#}");
    }
}

/// A process of `up`; killed by its handle if the test fails.
struct Up(Child);

impl Up {
    fn start(folder: &Folder, port: u16, said: &str) -> Up {
        let out = File::create(folder.join(said)).unwrap();
        let mut command = Command::new(binary());
        command.args(["up", "--durability", "memory", "--http-port", &port.to_string(), "--dir"]);
        let out = command.arg(folder.join("ring")).stderr(out.try_clone().unwrap()).stdout(out);
        Up(out.spawn().unwrap())
    }

    fn terminate(mut self) {
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.0.id())]).status();
        assert!(sent.unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn await_append(url: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    let post = || client::request(url, "POST", "/v1/logs/t", b"x\n", Duration::from_secs(12));
    while !post().is_ok_and(|answer| answer.status == 200) {
        assert!(Instant::now() < until, "no append at {url}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_memory_cluster_that_was_down_is_a_new_epoch_and_says_so() {
    let _turn = turn();
    let folder = Folder::new("epoch");
    // HTTP from here on, peers a thousand above.
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let all_free = |port: &u16| (0..3).all(|at| is_free(port + at) && is_free(port + at + 1000));
    let port = std::iter::repeat_with(free_port).find(all_free).unwrap();
    let url = format!("http://127.0.0.1:{}", port + 1);
    let get = |path| client::get(&url, path, Duration::from_secs(5)).unwrap();
    let up = Up::start(&folder, port, "first.out");
    await_append(&url);
    assert_eq!(get("/v1/logs/t").body, b"x\n");
    up.terminate();
    let up = Up::start(&folder, port, "second.out");
    let until = Instant::now() + Duration::from_secs(20);
    while client::get(&url, "/readyz", Duration::from_secs(5)).map_or(0, |a| a.status) != 200 {
        assert!(Instant::now() < until, "not ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(get("/v1/logs/t").status, 404);
    await_append(&url);
    assert_eq!(get("/v1/logs/t?epoch=1").status, 410, "a reader of the old log");
    up.terminate();
    let said = std::fs::read_to_string(folder.join("second.out")).unwrap();
    assert!(said.contains("cluster epoch 2"), "{said}");
    let other = ["up", "--durability", "sync", "--dir"];
    let dir = folder.join("ring").display().to_string();
    let refused = chainring(&[&other[..], &[&dir]].concat());
    assert_eq!(refused.status.code(), Some(5), "made with another durability");
}
