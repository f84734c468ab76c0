//! Stores and ports that are not a node's own, and a log without room.

use crate::amnesia::SMALL;
use crate::cluster::{Cluster, free_port};
use chainring::http::client::Answer;
use std::net::TcpListener;
use std::time::Duration;

/// Starts a node that must refuse; what it said.
fn refusal(cluster: &mut Cluster, node: usize) -> String {
    let before = cluster.said(node).len();
    cluster.start(node);
    let status = cluster.await_end(node);
    let said = cluster.said(node)[before..].to_owned();
    assert!(!status.success() && status.code().is_some(), "{status}: {said}");
    said
}

fn replace(cluster: &Cluster, node: usize, from: &str, to: &str) {
    let text = std::fs::read_to_string(cluster.config(node)).unwrap();
    assert!(text.contains(from), "no {from} in {text}");
    std::fs::write(cluster.config(node), text.replace(from, to)).unwrap();
}

#[test]
fn a_port_in_use_is_named() {
    let mut cluster = Cluster::new("ports", 3, "memory", &[]);
    for ports in [cluster.peer_ports.clone(), cluster.http_ports.clone()] {
        let _taken = TcpListener::bind(("127.0.0.1", ports[0])).unwrap();
        let said = refusal(&mut cluster, 1);
        assert!(said.contains(&format!("127.0.0.1:{}", ports[0])), "{said}");
    }
}

#[test]
fn a_store_of_another_node_cluster_or_kind_is_refused() {
    let mut cluster = Cluster::new("store", 3, "sync", &SMALL);
    let log = |node: usize| cluster.folder.join(&format!("{node}/log"));
    let (one, two, aside) = (log(1), log(2), cluster.folder.join("aside"));
    let swap = || {
        std::fs::rename(&one, &aside).unwrap();
        std::fs::rename(&two, &one).unwrap();
        std::fs::rename(&aside, &two).unwrap();
    };
    swap();
    let said = refusal(&mut cluster, 1);
    assert!(said.contains("node 2"), "{said}");
    swap();
    let text = std::fs::read_to_string(cluster.config(1)).unwrap();
    let id = text.lines().find(|line| line.starts_with("id = \"")).unwrap().to_owned();
    replace(&cluster, 1, &id, "id = \"abc\"");
    let said = refusal(&mut cluster, 1);
    assert!(said.contains("cluster"), "{said}");
    replace(&cluster, 1, "id = \"abc\"", &id);
    replace(&cluster, 1, "durability = \"sync\"", "durability = \"async\"");
    let said = refusal(&mut cluster, 1);
    assert!(said.contains("durability sync"), "{said}");
    replace(&cluster, 1, "durability = \"async\"", "durability = \"sync\"");
    // An empty store of a known member has lost its memory: it is not made anew by itself.
    std::fs::rename(&one, &aside).unwrap();
    let said = refusal(&mut cluster, 1);
    assert!(said.contains(&one.display().to_string()), "{said}");
    std::fs::rename(&aside, &one).unwrap();
    cluster.start_all();
    cluster.stop_all();
}

#[test]
fn two_processes_on_one_directory() {
    let mut cluster = Cluster::new("lock", 3, "sync", &SMALL);
    cluster.start_all();
    // Node 2 with the directory of node 1 and ports of its own: the lock is what stops it.
    let own = std::fs::read_to_string(cluster.config(1)).unwrap();
    cluster.kill(2);
    let mut text = own.clone();
    for port in [cluster.peer_ports[0], cluster.http_ports[0]] {
        text = text.replace(&format!(":{port}\""), &format!(":{}\"", free_port()));
    }
    let dir = cluster.folder.join("1/log").display().to_string();
    let text = text.replace("dir = \"log\"", &format!("dir = \"{dir}\""));
    std::fs::write(cluster.config(2), text).unwrap();
    let said = refusal(&mut cluster, 2);
    assert!(said.contains(&dir) && said.contains("another process"), "{said}");
    cluster.check_alive();
}

#[test]
fn a_full_log_refuses_and_keeps_what_was_acknowledged() {
    let mut cluster = Cluster::new("full", 3, "sync", &SMALL);

    (1..=3).for_each(|node| cluster.set_limit(node, "log_bytes", 32 << 20));
    cluster.start_all();
    let line = format!("{}\n", "x".repeat(999));
    let body = line.repeat(200);
    let mut acknowledged = 0;
    let refused = loop {
        let answer = cluster.post(1, "t", body.as_bytes()).unwrap();
        if answer.status != 200 {
            break answer;
        }
        acknowledged += 200;
        assert!(acknowledged < 100_000, "the log has no end");
    };
    let text = String::from_utf8(refused.body).unwrap();
    assert!(acknowledged > 5_000, "only {acknowledged} records fit: {text}");
    assert!(matches!(refused.status, 503 | 504), "{text}");
    // From now on it is said at once, and the node is not ready.
    let full = |status: &serde_json::Value| status["log"]["full"] == true;
    let status = cluster.await_status(1, full);
    assert_eq!(status["ready"], false);
    let refused = cluster.post(1, "t", b"late\n").unwrap();
    let text = String::from_utf8(refused.body).unwrap();
    assert!(refused.status == 503 && text.contains("log_full"), "{text}");
    let check = |cluster: &Cluster, least: usize| {
        let read = cluster.read_all(1, "t");
        assert!(read.len() >= least * line.len(), "{} bytes of {least}", read.len());
        assert!(read.chunks(line.len()).all(|record| record == line.as_bytes()));
    };
    check(&cluster, acknowledged);
    (1..=3).for_each(|node| cluster.kill(node));
    // After a restart too. The end of it needs the others: nothing could be written behind it
    // that says that it is decided, so a node alone shows what it knows to be.
    cluster.start(1);
    let there = |answer: &Answer| answer.status == 200;
    cluster.await_answer(1, "/v1/logs/t", Duration::from_secs(20), there);
    check(&cluster, acknowledged - 1_000);
    cluster.kill(1);
    // With more room it goes on.
    (1..=3).for_each(|node| cluster.set_limit(node, "log_bytes", 64 << 20));
    cluster.start_all();
    assert_eq!(cluster.post(1, "t", line.as_bytes()).unwrap().status, 200);
    check(&cluster, acknowledged + 1);
    cluster.stop_all();
}
