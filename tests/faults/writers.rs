//! Writers that remember what became of every record, and the check of the log against it.
//!
//! Every record is unique and names its writer and number. What was acknowledged must lie at the
//! acknowledged offsets, once; what was refused must not be there; what became of the rest is
//! unknown: once or not at all, a batch whole or not at all.

use crate::cluster::Cluster;
use chainring::http::client;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Topics that all writers share.
const TOPICS: [&str; 3] = ["alpha", "beta", "gamma"];
/// Pause after an answer: load on every node, and a log that grows by no more than a few MB a
/// second, since a node that starts reads all of it.
const PAUSE: Duration = Duration::from_millis(12);

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Acknowledged { first: u64 },
    Refused,
    Unknown,
}

/// One append: the records `first..first + count` of a writer.
#[derive(Clone, Copy, Debug)]
struct Append {
    topic: usize,
    writer: usize,
    first: u64,
    count: u64,
    outcome: Outcome,
}

/// How many appends came out how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcomes {
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
}

impl std::fmt::Display for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcomes { acknowledged, refused, unknown } = self;
        write!(f, "appends: {acknowledged} acknowledged, {refused} refused, {unknown} unknown")
    }
}

/// Running writers.
pub struct Writers {
    stop: Arc<AtomicBool>,
    began: Instant,
    /// By node, when the newest append that succeeded had begun, microseconds after `began`.
    succeeded: Arc<Vec<AtomicU64>>,
    appends: Arc<Mutex<Vec<Append>>>,
    /// By node, the newest answer that was not an acknowledgement.
    refusals: Arc<Vec<Mutex<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts `per_node` writers at every node.
    pub fn start(cluster: &Cluster, per_node: usize) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let succeeded: Arc<Vec<_>> =
            Arc::new((0..cluster.nodes()).map(|_| AtomicU64::new(0)).collect());
        let appends = Arc::new(Mutex::new(Vec::new()));
        let refusals: Arc<Vec<_>> =
            Arc::new((0..cluster.nodes()).map(|_| Mutex::default()).collect());
        let began = Instant::now();
        let mut threads = Vec::new();
        for writer in 0..per_node * cluster.nodes() {
            let node = writer / per_node;
            let url = cluster.url(node + 1);
            let (stop, succeeded) = (Arc::clone(&stop), Arc::clone(&succeeded));
            let (appends, refusals) = (Arc::clone(&appends), Arc::clone(&refusals));
            threads.push(std::thread::spawn(move || {
                let mut next = 0;
                while !stop.load(Ordering::Relaxed) {
                    let at = began.elapsed().as_micros() as u64;
                    let (append, said) = write(&url, writer, next);
                    next += append.count;
                    appends.lock().unwrap().push(append);
                    if matches!(append.outcome, Outcome::Acknowledged { .. }) {
                        succeeded[node].fetch_max(at, Ordering::Relaxed);
                    } else {
                        *refusals[node].lock().unwrap() = format!("{:?} {said}", began.elapsed());
                    }
                    std::thread::sleep(PAUSE);
                }
            }));
        }
        Writers { stop, began, succeeded, appends, refusals, threads }
    }

    /// True if an append at this node that began after `since` was acknowledged.
    pub fn succeeded_since(&self, node: usize, since: Instant) -> bool {
        let since = since.duration_since(self.began).as_micros() as u64;
        self.succeeded[node - 1].load(Ordering::Relaxed) > since
    }

    /// The newest answer of a node that was not an acknowledgement, and when; the time now.
    pub fn newest_refusal(&self, node: usize) -> (String, Duration) {
        (self.refusals[node - 1].lock().unwrap().clone(), self.began.elapsed())
    }

    /// Stops them all: what they wrote.
    pub fn stop(self) -> (Records, Outcomes) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let appends = std::mem::take(&mut *self.appends.lock().unwrap());
        let mut outcomes = Outcomes::default();
        for append in &appends {
            match append.outcome {
                Outcome::Acknowledged { .. } => outcomes.acknowledged += 1,
                Outcome::Refused => outcomes.refused += 1,
                Outcome::Unknown => outcomes.unknown += 1,
            }
        }
        (Records(appends), outcomes)
    }
}

fn record(writer: usize, number: u64) -> String {
    // Lengths differ, so that packets and places do.
    let pad = (number * 7919 + writer as u64 * 31) % 700;
    format!("{writer} {number} {}\n", "x".repeat(pad as usize))
}

fn write(url: &str, writer: usize, next: u64) -> (Append, String) {
    let topic = (next % TOPICS.len() as u64) as usize;
    let count = if next.is_multiple_of(5) { 40 } else { 1 + next % 3 };
    let body: String = (next..next + count).map(|number| record(writer, number)).collect();
    let path = format!("/v1/logs/{}", TOPICS[topic]);
    let answer = client::request(url, "POST", &path, body.as_bytes(), Duration::from_secs(15));
    let said = match &answer {
        Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
        Err(error) => error.to_string(),
    };
    let outcome = match answer {
        Ok(answer) if answer.status == 200 => {
            let answer: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(answer["count"], count);
            let (first, last) = (answer["first_offset"].as_u64(), answer["last_offset"].as_u64());
            assert!(last.unwrap() + 1 >= first.unwrap() + count, "{answer}");
            Outcome::Acknowledged { first: first.unwrap() }
        }
        Ok(answer) if answer.status == 503 => Outcome::Refused,
        Ok(answer) if answer.status == 504 => Outcome::Unknown,
        Ok(answer) if answer.status < 600 && answer.status != 500 => {
            panic!("{}: {said}", answer.status)
        }
        _ => Outcome::Unknown,
    };
    if outcome == Outcome::Unknown {
        std::thread::sleep(PAUSE);
    }
    (Append { topic, writer, first: next, count, outcome }, said)
}

/// What the writers wrote.
pub struct Records(Vec<Append>);

impl Records {
    /// Checks the log of every node.
    pub fn check(&self, cluster: &Cluster) {
        for (index, topic) in TOPICS.iter().enumerate() {
            let bytes = cluster.read_all(1, topic);
            for node in 2..=cluster.nodes() {
                assert!(cluster.read_all(node, topic) == bytes, "node {node} differs in {topic}");
            }
            self.check_topic(index, std::str::from_utf8(&bytes).unwrap());
        }
    }

    fn check_topic(&self, topic: usize, text: &str) {
        let mut at: HashMap<(usize, u64), u64> = HashMap::new();
        let mut newest: HashMap<usize, u64> = HashMap::new();
        for (offset, line) in text.split_inclusive('\n').enumerate() {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap().parse::<u64>().unwrap();
            let (writer, number) = (word() as usize, word());
            assert_eq!(line, record(writer, number), "a record changed at {offset}");
            let before = at.insert((writer, number), offset as u64);
            assert_eq!(before, None, "record {writer} {number} is there twice");
            let newest = newest.entry(writer).or_default();
            assert!(number >= *newest, "writer {writer}: {number} behind {newest}");
            *newest = number;
        }
        let mut known = 0;
        for append in self.0.iter().filter(|append| append.topic == topic) {
            let numbers = append.first..append.first + append.count;
            let found: Vec<Option<u64>> =
                numbers.map(|number| at.get(&(append.writer, number)).copied()).collect();
            let there = found.iter().flatten().count() as u64;
            known += there;
            match append.outcome {
                Outcome::Acknowledged { first } => {
                    assert_eq!(there, append.count, "lost: {append:?}: {found:?}");
                    assert_eq!(found[0], Some(first), "moved: {append:?}");
                }
                Outcome::Refused => assert_eq!(there, 0, "refused, but there: {append:?}"),
                Outcome::Unknown => {}
            }
        }
        assert_eq!(known, at.len() as u64, "records that nobody wrote");
    }
}
