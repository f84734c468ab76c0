//! Tests of the routes over loopback, with a scripted shard at the other end of the mailboxes.
//!
//! The shard here is a thread that packs each append into one value, keeps the frames in memory
//! and says at once what a real one says after a decision.

use super::super::{Parts, ReadPath};
use super::*;
use crate::config::Config;
use crate::control::catalog::Catalog;
use crate::gauges::{Gauges, Halt, State};
use crate::http::client::{self, Answer};
use crate::mail::{Command, Notice, Place, Refusal, TopicId};
use crate::records::RunWriter;
use async_executor::LocalExecutor;
use chainring_net::mailbox::{Receiver, Sender, Waker, channel};
use chainring_ring::header::{Kind, round_up};
use chainring_ring::ids::*;
use serde_json::Value;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// What the scripted shard does with appends.
const DELIVER: u8 = 0;
const REFUSE: u8 = 1;
const KEEP: u8 = 2;
const UNKNOWN: u8 = 3;
/// Delivers, and has dropped all frames when it is asked for one.
const FORGET: u8 = 4;

/// Frames, one behind the other.
type Log = Arc<Mutex<Vec<u8>>>;

struct Shard {
    commands: Receiver<Command>,
    notices: Sender<Notice>,
    control: Waker,
    behaviour: Arc<AtomicU8>,
    log: Log,
    instance: u64,
    ends: Vec<u64>,
    kept: Vec<crate::mail::Append>,
}

impl Shard {
    fn say(&mut self, notice: Notice) {
        assert!(self.notices.try_send(notice).is_ok());
        self.control.wake();
    }

    fn deliver(&mut self, length: usize, frame: &mut [u8]) -> Place {
        let session = Session::FIRST;
        let sequence = Sequence(self.instance);
        let header = Header {
            checksum_body: 0,
            cluster: ClusterId(1),
            epoch: Epoch(1),
            ring: RingId(0),
            kind: Kind::Value,
            size: frame.len() as u32,
            length: length as u32,
            origin: NodeId(1),
            session,
            sequence,
            ballot: Ballot::ZERO,
            instance: Instance(0),
        };
        header.seal(frame);
        let mut log = self.log.lock().unwrap();
        let place = Place { at: log.len() as u64, bytes: frame.len() as u32 };
        log.extend_from_slice(frame);
        drop(log);
        let entry = Entry::Value(header.value_id());
        let instance = Instance(self.instance);
        let (ballot, base) = (Ballot::ZERO, Instance(0));
        let order = Order { instance, ballot, base, entry, decided: true };
        self.instance += 1;
        self.say(Notice::Instance { order, place });
        place
    }

    fn append(&mut self, mut append: Box<crate::mail::Append>) {
        match self.behaviour.load(Relaxed) {
            REFUSE => return self.say(Notice::Refused(append, Refusal::LogFull)),
            UNKNOWN => return self.say(Notice::Unknown(append)),
            KEEP => return self.kept.push(*append),
            _ => {}
        }
        let topic = append.topic;
        let mut frame =
            vec![0; round_up(HEADER_BYTES + 16 + append.body.len() + 4 * append.ends.len(), 512)];
        let mut writer = RunWriter::new();
        let mut start = 0;
        for end in &append.ends {
            let record = &append.body[start..*end as usize];
            assert!(writer.push(&mut frame[HEADER_BYTES..], topic, record));
            start = *end as usize;
        }
        assert_eq!(start, append.body.len());
        self.deliver(writer.bytes(), &mut frame);
        let first_offset = self.ends[topic.0 as usize];
        let count = append.ends.len() as u32;
        self.ends[topic.0 as usize] += u64::from(count);
        self.say(Notice::Run { topic, first_offset, count, skip: 0, at: HEADER_BYTES as u32 });
        append.number(first_offset, first_offset + u64::from(count) - 1);
        self.say(Notice::Appended(append));
    }

    fn run(mut self) {
        loop {
            let Some(command) = self.commands.try_recv() else {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            };
            match command {
                Command::Append(append) => self.append(append),
                Command::CreateTopic { name } => {
                    let mut frame = vec![0; 512];
                    let mut writer = RunWriter::new();
                    assert!(writer.create(&mut frame[HEADER_BYTES..], &name));
                    self.deliver(writer.bytes(), &mut frame);
                    let id = TopicId(self.ends.len() as u32);
                    self.ends.push(0);
                    self.say(Notice::Topic { id, name });
                }
                Command::ReadMemory { token, place, mut buffer } => {
                    let found = self.behaviour.load(Relaxed) != FORGET;
                    copy(&self.log, place.at, place.bytes, &mut buffer);
                    self.say(Notice::Read { token, buffer, found });
                }
                Command::Stop => return,
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

fn copy(log: &Log, at: u64, bytes: u32, to: &mut Vec<u8>) {
    to.clear();
    to.extend_from_slice(&log.lock().unwrap()[at as usize..][..bytes as usize]);
}

struct Node {
    url: String,
    gauges: Arc<Gauges>,
    behaviour: Arc<AtomicU8>,
}

fn start(change: impl FnOnce(&mut Config)) -> Node {
    start_reading(change, |_| ReadPath::Memory)
}

fn start_reading(
    change: impl FnOnce(&mut Config),
    read: impl FnOnce(Log) -> ReadPath + Send + 'static,
) -> Node {
    let mut config = crate::config::tests::sample(1);
    config.limits.append_timeout_ms = 300;
    config.limits.record_bytes = 100;
    change(&mut config);
    let gauges = Arc::new(Gauges::default());
    gauges.state.set(State::Coordinator as u64);
    gauges.coordinator.set(1);
    gauges.circle.set(1);
    gauges.ready.set(1);
    gauges.votes.set(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (commands, shard_commands) = channel(1024);
    let (shard_notices, notices) = channel(4096);
    let (shard, own) = (Waker::new().unwrap(), Waker::new().unwrap());
    let behaviour = Arc::new(AtomicU8::new(DELIVER));
    let script = Shard {
        commands: shard_commands,
        notices: shard_notices,
        control: own.clone(),
        behaviour: behaviour.clone(),
        log: Log::default(),
        instance: 0,
        ends: Vec::new(),
        kept: Vec::new(),
    };
    let log = Arc::clone(&script.log);
    std::thread::spawn(move || script.run());
    let published = gauges.clone();
    std::thread::spawn(move || {
        let (read, catalog) = (read(log), Catalog::new(true));
        let (gauges, topics_max, keeper) = (published, 3, None);
        let parts = Parts {
            config,
            gauges,
            commands,
            shard,
            notices,
            own,
            read,
            catalog,
            keeper,
            topics_max,
        };
        let control = Control::new(parts);
        let executor = Rc::new(LocalExecutor::new());
        control.start(&executor, listener);
        async_io::block_on(executor.run(std::future::pending::<()>()))
    });
    Node { url, gauges, behaviour }
}

impl Node {
    fn call(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        client::request(&self.url, method, path, body, Duration::from_secs(10)).unwrap()
    }

    fn post(&self, topic: &str, body: impl AsRef<[u8]>) -> (u16, Value) {
        let answer = self.call("POST", &format!("/v1/logs/{topic}"), body.as_ref());
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    fn get(&self, path: &str) -> Answer {
        self.call("GET", path, b"")
    }

    fn code(&self, method: &str, path: &str) -> (u16, String) {
        let answer = self.call(method, path, b"");
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        (answer.status, body["error"]["code"].as_str().unwrap_or("").to_owned())
    }
}

/// A node whose own disk is behind the others' serves what it has delivered a moment later; what
/// stays unreadable is said.
#[test]
fn a_place_that_is_being_written_is_read_again() {
    for (written_after, found) in [(3, true), (usize::MAX, false)] {
        let tries = std::cell::Cell::new(0);
        let read = move |_: Place, out: &mut Vec<u8>| {
            tries.set(tries.get() + 1);
            let written = tries.get() > written_after;
            out.extend(written.then_some(7));
            written.then_some(()).ok_or_else(|| "nothing is there".to_owned())
        };
        let ((commands, _taken), (_told, notices)) = (channel(4), channel(4));
        let control = Control::new(Parts {
            config: crate::config::tests::sample(1),
            gauges: Arc::default(),
            commands,
            shard: Waker::new().unwrap(),
            notices,
            own: Waker::new().unwrap(),
            read: ReadPath::Disk(Box::new(read)),
            catalog: Catalog::new(false),
            keeper: None,
            topics_max: 1,
        });
        let mut frame = Vec::new();
        // A peer is told at once, and it is no alarm.
        assert!(!async_io::block_on(control.read_for_peer(Place::default(), &mut frame)));
        assert!(control.read_error.borrow().is_none());
        let read = async_io::block_on(control.read(Place::default(), &mut frame));
        assert_eq!((read, frame.len()), (found, usize::from(found)));
        assert_eq!(control.read_error.borrow().is_none(), found);
    }
}

#[test]
fn what_goes_in_comes_out() {
    let node = start(|_| {});
    let odd: &[u8] = b"one\r\n\n\x00\xff\xfe\nlone\rcr\n last without";
    let (status, answer) = node.post("a.b", odd);
    assert_eq!(status, 200, "{answer}");
    let expected = json!({"v":1,"topic":"a.b","first_offset":0,"last_offset":4,"count":5});
    assert_eq!(answer, expected);
    let (_, answer) = node.post("other", "x\n");
    assert_eq!(answer["first_offset"], 0);
    let (_, answer) = node.post("a.b", "more\n");
    assert_eq!((&answer["first_offset"], &answer["last_offset"]), (&json!(5), &json!(5)));
    let raw = node.get("/v1/logs/a.b");
    assert_eq!(raw.body, [odd, b"more\n"].concat());
    assert_eq!(raw.header("chainring-next-offset"), Some("6"));
    let part = node.get("/v1/logs/a.b?offset=1&limit=2");
    assert_eq!((&part.body[..], part.header("chainring-next-offset")), (&odd[5..10], Some("3")));
    let json: Value =
        serde_json::from_slice(&node.get("/v1/logs/a.b?offset=3&limit=9&format=json").body)
            .unwrap();
    assert_eq!((&json["next_offset"], &json["end_offset"]), (&json!(6), &json!(6)));
    let first = &json["records"][0];
    assert_eq!(first["offset"], 3);
    assert_eq!(STANDARD.decode(first["data"].as_str().unwrap()).unwrap(), b"lone\rcr\n");
    assert_eq!(json["records"].as_array().unwrap().len(), 3);
    let head = node.call("HEAD", "/v1/logs/a.b", b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn an_empty_body_creates_the_topic_and_appends_nothing() {
    let node = start(|_| {});
    let (status, answer) = node.post("empty", "");
    assert_eq!(status, 200);
    let expected = json!({"v":1,"topic":"empty","first_offset":null,"last_offset":null,"count":0});
    assert_eq!(answer, expected);
    let read = node.get("/v1/logs/empty");
    assert_eq!((read.status, read.body.len()), (200, 0));
    assert_eq!(read.header("chainring-next-offset"), Some("0"));
}

#[test]
fn a_line_over_the_limit_is_named_and_nothing_is_appended() {
    let node = start(|_| {});
    let fits = format!("{}\n", "x".repeat(99));
    let long = format!("{}\n", "x".repeat(100));
    let (status, _) = node.post("t", &fits);
    assert_eq!(status, 200);
    for (body, line) in [
        (format!("{fits}{fits}{long}"), 3),
        (long.clone(), 1),
        (format!("{fits}{}", "y".repeat(101)), 2),
    ] {
        let (status, answer) = node.post("t", body);
        assert_eq!((status, &answer["error"]["line"]), (413, &json!(line)), "{answer}");
    }
    let (status, _) = node.post("t", "y".repeat(100));
    assert_eq!(status, 200, "exactly the limit, without a line feed");
    assert_eq!(node.get("/v1/logs/t").header("chainring-end-offset"), Some("2"));
}

#[test]
fn what_the_shard_says_becomes_a_status() {
    let node = start(|_| {});
    node.post("t", "0\n");
    for (behaviour, status, code) in [
        (REFUSE, 503, "log_full"),
        (UNKNOWN, 504, "outcome_unknown"),
        (KEEP, 504, "outcome_unknown"),
    ] {
        node.behaviour.store(behaviour, Relaxed);
        let answer = node.call("POST", "/v1/logs/t", b"1\n");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, body["error"]["code"].as_str()), (status, Some(code)));
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
    }
    let status: Value = serde_json::from_slice(&node.get("/status").body).unwrap();
    assert_eq!(status["open_appends"], 1, "the shard still holds the one that it kept");
    assert!(status["http"]["memory_bytes"].as_u64().unwrap() > 0, "and its memory");
    node.behaviour.store(DELIVER, Relaxed);
    let gauges = &node.gauges;
    for (set, code) in [(&gauges.log_full, "log_full"), (&gauges.halt, "halted")] {
        set.set(1);
        assert_eq!(node.code("POST", "/v1/logs/t"), (503, code.to_owned()));
        set.set(0);
    }
    gauges.state.set(State::Draining as u64);
    assert_eq!(node.code("POST", "/v1/logs/t"), (503, "draining".to_owned()));
    assert_eq!(node.get("/v1/logs/t").body, b"0\n");
}

#[test]
fn reads_that_cannot_be() {
    let node = start(|_| {});
    node.post("t", "0\n1\n2\n");
    for (path, status, code) in [
        ("/v1/logs/none", 404, "unknown_topic"),
        ("/v1/logs/none?wait_ms=100", 404, "unknown_topic"),
        ("/v1/logs/a/b", 400, "bad_topic"),
        ("/v1/logs/", 400, "bad_topic"),
        ("/v1/logs/t?offset=x", 400, "bad_parameter"),
        ("/v1/logs/t?offset=-1", 400, "bad_parameter"),
        ("/v1/logs/t?limit=1000001", 400, "bad_parameter"),
        ("/v1/logs/t?format=xml", 400, "bad_parameter"),
        ("/v1/logs/t?epoch=2", 410, "other_epoch"),
        ("/v2", 404, "not_found"),
    ] {
        assert_eq!(node.code("GET", path), (status, code.to_owned()), "{path}");
    }
    let above = node.get("/v1/logs/t?offset=7");
    assert_eq!((above.status, above.body.len()), (200, 0));
    assert_eq!(above.header("chainring-next-offset"), Some("7"));
    for (method, path) in
        [("DELETE", "/v1/logs/t"), ("PUT", "/v1/logs/t"), ("POST", "/status"), ("POST", "/metrics")]
    {
        assert_eq!(node.code(method, path), (405, "method_not_allowed".to_owned()));
    }
    node.behaviour.store(FORGET, Relaxed);
    let gone = node.get("/v1/logs/t?offset=1");
    let body: Value = serde_json::from_slice(&gone.body).unwrap();
    assert_eq!((gone.status, &body["error"]["first_offset"]), (410, &json!(3)));
}

/// A write that went astray left the frame before where the second record should lie: whole, of
/// this log, and not what was asked for.
#[test]
fn an_intact_frame_of_another_value_is_not_served() {
    let astray = |log: Log| {
        let read = move |place: Place, to: &mut Vec<u8>| {
            let at = if place.at == 1024 { 512 } else { place.at };
            copy(&log, at, place.bytes, to);
            Ok(())
        };
        ReadPath::Disk(Box::new(read))
    };
    let node = start_reading(|_| {}, astray);
    node.post("t", "0\n");
    node.post("t", "1\n");
    node.post("t", "2\n");
    assert_eq!(node.code("GET", "/v1/logs/t?offset=1"), (500, "unreadable".to_owned()));
    let before = node.get("/v1/logs/t");
    assert_eq!(
        (before.header("chainring-next-offset"), &before.body[..]),
        (Some("1"), &b"0\n"[..])
    );
    assert_eq!(node.get("/v1/logs/t?offset=2").body, b"2\n");
}

#[test]
fn a_reader_waits_until_its_offset_exists() {
    let node = start(|_| {});
    node.post("t", "0\n");
    let began = Instant::now();
    let empty = node.get("/v1/logs/t?offset=1&wait_ms=150");
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert_eq!(empty.body.len(), 0);
    let url = node.url.clone();
    let reader = std::thread::spawn(move || {
        client::get(&url, "/v1/logs/t?offset=2&wait_ms=8000", Duration::from_secs(9)).unwrap()
    });
    std::thread::sleep(Duration::from_millis(50));
    node.post("t", "1\n");
    std::thread::sleep(Duration::from_millis(50));
    assert!(!reader.is_finished(), "offset 2 does not exist yet");
    let began = Instant::now();
    node.post("t", "2\n");
    assert_eq!(reader.join().unwrap().body, b"2\n");
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[test]
fn topics_are_limited() {
    let node = start(|_| {});
    for name in ["a", "b", "c", "a"] {
        assert_eq!(node.post(name, "x\n").0, 200);
    }
    let (status, answer) = node.post("d", "x\n");
    assert_eq!((status, answer["error"]["code"].as_str()), (403, Some("too_many_topics")));
}

#[test]
fn an_answer_is_bounded_and_says_where_to_go_on() {
    let node = start(|config| config.limits.http_answer_bytes = 250);
    let line = format!("{}\n", "z".repeat(79));
    node.post("t", line.repeat(5));
    let mut offset = 0;
    let mut sizes = Vec::new();
    while offset < 5 {
        let answer = node.get(&format!("/v1/logs/t?offset={offset}"));
        offset = answer.header("chainring-next-offset").unwrap().parse().unwrap();
        sizes.push(answer.body.len());
    }
    assert_eq!(sizes, [240, 160]);
    let json = node.get("/v1/logs/t?format=json");
    let json: Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(json["next_offset"], 1, "the first record always fits");
}

#[test]
fn health_names_its_reasons() {
    let node = start(|_| {});
    assert_eq!(node.get("/readyz").status, 200);
    assert_eq!(node.get("/livez").status, 200);
    node.gauges.halt.set(Halt::Amnesia as u64);
    node.gauges.state.set(State::Halted as u64);
    node.gauges.votes.set(0);
    let ready = node.get("/readyz");
    let body: Value = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!((ready.status, &body["reasons"][0]["code"]), (503, &json!("amnesia")));
    let status: Value = serde_json::from_slice(&node.get("/status").body).unwrap();
    assert_eq!((&status["halt"], &status["ready"]), (&json!("amnesia"), &json!(false)));
    assert_eq!(status["reasons"].as_array().unwrap().len(), 2);
    assert_eq!(node.get("/livez").status, 200);
    node.gauges.state.set(State::Stopped as u64);
    assert_eq!(node.get("/livez").status, 503);
}

#[test]
fn metrics_are_prometheus_text() {
    let node = start(|_| {});
    node.gauges.records.set(7);
    let text = String::from_utf8(node.get("/metrics").body).unwrap();
    assert!(text.contains(
        "# TYPE chainring_records_total counter\nchainring_records_total{node=\"1\"} 7\n"
    ));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once(' ').unwrap();
        assert!(name.starts_with("chainring_") && value.parse::<u64>().is_ok(), "{line}");
    }
}
