//! kill -9 of any node of three processes under load, again and again: nothing acknowledged is
//! lost, doubled or moved, and the ring goes on by itself.
//!
//! `CHAINRING_KILL_ROUNDS` says how often (6); `CHAINRING_KILL_SEED` repeats one choice of nodes
//! and moments; `tests/kill-loop.sh` is the long form with the release build.

use crate::cluster::{self, Cluster};
use crate::disk::DiskProbe;
use crate::writers::Writers;
use std::time::{Duration, Instant};

/// From the restart of a node to appends at all nodes, beside what the disk stands still for all.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// A small generator: the same seed, the same choices.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_moved() {
    let rounds = number("CHAINRING_KILL_ROUNDS", 6);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let seed = number("CHAINRING_KILL_SEED", now.as_nanos() as u64 | 1);
    println!("{rounds} rounds, CHAINRING_KILL_SEED={seed}");
    let mut random = Random(seed);
    // Small segments, so that the log goes from one to the next between kills.
    let limits = [
        ("record_bytes", 64 << 10),
        ("packet_bytes", 64 << 10),
        ("group_bytes", 256 << 10),
        ("segment_bytes", 8 << 20),
    ];
    let mut cluster = Cluster::new("kill", 3, "sync", &limits);
    cluster.start_all();
    let writers = Writers::start(&cluster, 2);
    let disk = DiskProbe::start(cluster.folder.join("probe"));
    for round in 1..=rounds {
        std::thread::sleep(Duration::from_millis(300 + random.below(700)));
        cluster.check_alive();
        let victim = 1 + random.below(3) as usize;
        cluster.kill(victim);
        std::thread::sleep(Duration::from_millis(random.below(500)));
        let took = restart(&mut cluster, victim, &writers, &disk);
        let (took, still) = (took.0.as_millis(), took.1.as_millis());
        println!(
            "round {round}: node {victim} killed, appends everywhere after {took} ms, disk still for {still} ms"
        );
    }
    let (records, outcomes) = writers.stop();
    println!("{outcomes}");
    assert!(outcomes.acknowledged > 10 * rounds, "hardly any load: {outcomes}");
    let resident: Vec<u64> = (1..=3).map(|node| cluster.resident_kib(node)).collect();
    println!("resident: {resident:?} KiB");
    cluster.await_equal();
    records.check(&cluster);
    cluster.stop_all();
    let dirs: Vec<String> = (1..=3).map(|node| cluster.dir(node)).collect();
    let arguments: Vec<&str> =
        ["verify"].into_iter().chain(dirs.iter().map(String::as_str)).collect();
    let (code, verified) = cluster::json(&arguments);
    assert_eq!(code, 0, "{verified:#}");
}

/// Starts a node again: how long until an append that began after it has succeeded at every
/// node, and for how much of it the disk stood still.
fn restart(
    cluster: &mut Cluster,
    victim: usize,
    writers: &Writers,
    disk: &DiskProbe,
) -> (Duration, Duration) {
    let (restarted, still_before) = (Instant::now(), disk.still());
    cluster.start(victim);
    loop {
        let (took, still) = (restarted.elapsed(), disk.still() - still_before);
        let succeeded = |node: &usize| writers.succeeded_since(*node, restarted);
        let late: Vec<usize> = (1..=cluster.nodes()).filter(|node| !succeeded(node)).collect();
        if late.is_empty() {
            return (took, still);
        }
        cluster.check_alive();
        let said = |node| match cluster.get(node, "/status") {
            Ok(answer) => String::from_utf8_lossy(&answer.body).into_owned(),
            Err(error) => error.to_string(),
        };
        assert!(
            took <= BACK_WITHIN + still,
            "no append at nodes {late:?} {took:?} after the restart, disk still for {still:?}: {}",
            (1..=cluster.nodes())
                .map(|node| format!("\nnode {node}: {}", said(node)))
                .collect::<String>()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
