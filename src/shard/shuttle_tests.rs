//! Start and end of a shard under shuttle: the real loop, wire, mailboxes and wakers, over a kernel
//! without a machine, with a control thread beside it, in schedules drawn at random.
//!
//! Invariants of the model: time passes only for waits of the shard that nobody else can end, so a
//! wake-up that is lost is a deadlock; a write is under way until the kernel is asked again; the
//! mailboxes are tiny, so that both are full all the time.

mod desk;

use super::*;
use crate::config::{Cluster, Member, Node as Own};
use crate::device::Host;
use crate::mail::Append;
use crate::recover;
use crate::sim::disk::{DiskHandle, Target};
use crate::sim::random::Random;
use bytes::Bytes;
use chainring_net::mailbox::{Sender as Mailbox, Waker, channel};
use chainring_ring::ids::{ClusterId, Epoch};
use chainring_storage::{LogConfig, create_segment};
use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use std::sync::atomic::AtomicU64;

/// Schedules of an ordinary run, unless `CHAINRING_SCHEDULES` says otherwise.
const SCHEDULES: usize = 2000;
const TOPIC: &str = "t";

fn config(durability: Durability) -> Config {
    let nodes =
        vec![Member { id: NodeId(1), address: "a:1".into(), http: "a:2".into(), spare: false }];
    let mut limits = Limits {
        record_bytes: 100,
        packet_bytes: 1024,
        window_bytes: 4096,
        side_pool_bytes: 64 << 10,
        memory_log_bytes: 8192,
        group_bytes: 1024,
        group_orders: 64,
        groups_in_flight: 2,
        ..Limits::default()
    };
    limits.window_instances = 32;
    limits.segment_bytes = 16 * 12 * 1024;
    let config = Config {
        cluster: Cluster { id: ClusterId(5), epoch: Epoch(1), durability, block: 512, nodes },
        node: Own { id: NodeId(1), dir: "/store".into(), development: false, core: None },
        limits,
    };
    config.check().unwrap();
    config
}

/// How a node comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Drains, waits for that, stops.
    Drain,
    /// Drains and stops at once.
    Hurry,
    /// Stops.
    Stop,
    /// Stops, and the control thread does not wait for it.
    Gone,
}

/// What the control thread of a schedule found out.
#[derive(Default)]
struct Report {
    sent: u64,
    appended: Vec<u64>,
    refused: u64,
    records: u64,
    /// Appends sent before the word to drain.
    before_drain: u64,
    drained: bool,
}

/// A control thread: it sends, takes mail as [`crate::control::Control`] does, and ends its shard.
struct Clerk {
    commands: Mailbox<Command<Target>>,
    notices: Receiver<Notice>,
    own: Waker,
    shard: Waker,
    stopped: Arc<AtomicBool>,
    /// Every body that is alive holds one.
    bodies: Arc<()>,
    topic: bool,
    /// The first instance that it was not told of.
    next: Option<u64>,
    wanted: Option<u32>,
    report: Report,
}

struct Body(#[expect(dead_code, reason = "held, not read")] Arc<()>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        b"onetwo3"
    }
}

impl Clerk {
    /// Sends; takes mail while the box is full, as the control thread does while it waits.
    fn send(&mut self, mut command: Command<Target>) {
        while let Err(back) = self.commands.try_send(command) {
            command = back;
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            self.take_mail();
            shuttle::thread::yield_now();
        }
        self.shard.wake();
    }

    fn append(&mut self) {
        let token = self.report.sent;
        self.report.sent += 1;
        let body = Bytes::from_owner(Body(Arc::clone(&self.bodies)));
        let append = Append::new(token, crate::mail::TopicId(0), body, vec![3, 6, 7]);
        self.send(Command::Append(Box::new(append)));
    }

    fn answered(&self) -> bool {
        self.report.appended.len() as u64 + self.report.refused == self.report.sent
    }

    /// Blocks for mail until `done`, or until the shard has ended.
    fn until(&mut self, store: &Store, done: impl Fn(&Clerk) -> bool) {
        loop {
            self.own.take();
            // Before the mail is taken: what it sent before its end is in the box.
            let stopped = self.stopped.load(Ordering::SeqCst);
            let taken = self.take_mail();
            self.make_segment(store);
            if stopped || done(self) {
                return;
            }
            if !taken && self.own.prepare_sleep() {
                self.own.wait();
                self.own.awake();
                self.own.drain();
            }
        }
    }

    fn take_mail(&mut self) -> bool {
        let mut taken = false;
        while let Some(notice) = self.notices.try_recv() {
            taken = true;
            self.take_notice(notice);
        }
        taken
    }

    fn take_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Appended(append) => {
                assert!(self.report.appended.last().is_none_or(|last| *last < append.token));
                assert_eq!(append.first_offset.unwrap() + 2, append.last_offset);
                assert!(append.last_offset < self.report.records, "read before it is there");
                self.report.appended.push(append.token);
            }
            Notice::Refused(_, refusal) => {
                assert_eq!(refusal, crate::mail::Refusal::Draining);
                self.report.refused += 1;
            }
            Notice::Instance { order, .. } => {
                let next = self.next.unwrap_or(order.instance.0);
                assert_eq!(order.instance.0, next, "a gap");
                self.next = Some(next + 1);
            }
            Notice::Run { first_offset, count, .. } => {
                assert_eq!(first_offset, self.report.records, "a gap of offsets");
                self.report.records += u64::from(count);
            }
            Notice::Topic { .. } => self.topic = true,
            Notice::NeedSegment { number } => self.wanted = Some(number),
            Notice::Drained => {
                let answered = self.report.appended.len() as u64;
                assert_eq!(answered, self.report.before_drain, "drained, and an append is open");
                self.report.drained = true;
            }
            Notice::MemoryFirst { .. } | Notice::Session(_) => {}
            other => panic!("a lone node says {other:?}"),
        }
    }

    fn make_segment(&mut self, store: &Store) {
        if let (Some(number), Some(limits)) = (self.wanted.take(), &store.limits) {
            create_segment(&store.config.node.dir, limits, number).unwrap();
            let handle = store.disk.segment(&store.config.node.dir, number).unwrap();
            self.send(Command::Segment { number, handle });
        }
    }

    /// A life of the node, as `node/lifecycle.rs` has it.
    fn live(mut self, store: &Store, still: &Still, end: End, appends: u32) -> Report {
        let mut random = shuttle::rand::thread_rng();
        self.send(Command::CreateTopic { name: TOPIC.into() });
        if random.gen_bool(0.9) {
            self.until(store, |clerk| clerk.topic);
            for _ in 0..appends {
                self.append();
                if random.gen_bool(0.3) {
                    self.take_mail();
                }
            }
        }
        still.set();
        if matches!(end, End::Drain | End::Hurry) {
            if random.gen_bool(0.5) {
                self.until(store, Clerk::answered);
            }
            self.report.before_drain = self.report.sent;
            self.send(Command::Drain);
            self.append();
        }
        if end == End::Drain {
            self.until(store, |clerk| clerk.report.drained && clerk.answered());
            assert!(self.report.drained && self.report.refused == 1, "it ended by itself");
        }
        self.send(Command::Stop);
        if end != End::Gone {
            self.until(store, |_| false);
        }
        self.report
    }
}

/// Whether time has stopped for waits that mail can end; of std, it is no part of the model.
#[derive(Clone, Default)]
pub(super) struct Still(Arc<std::sync::atomic::AtomicBool>);

impl Still {
    fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

struct Store {
    config: Config,
    disk: DiskHandle,
    limits: Option<LogConfig>,
}

/// One life of a node; what is on its disk afterwards must hold what it answered.
fn life(durability: Durability, formatted: &DiskHandle, end: End) {
    let config = config(durability);
    let disk = formatted.fork();
    let mut opened = recover::open_on(&disk.shared(), &config, 2).unwrap();
    let (log, limits) = opened.log.take().unzip();
    let (commands_in, commands) = channel(2);
    let (notices, notices_in) = channel(4);
    let (own, control) = (Waker::new().unwrap(), Waker::new().unwrap());
    let (still, bodies, stopped) =
        (Still::default(), Arc::new(()), Arc::new(AtomicBool::new(false)));
    let clerk = Clerk {
        commands: commands_in,
        notices: notices_in,
        own: control.clone(),
        shard: own.clone(),
        stopped: Arc::clone(&stopped),
        bodies: Arc::clone(&bodies),
        topic: false,
        next: None,
        wanted: None,
        report: Report::default(),
    };
    let of_shard = (config.clone(), disk.clone(), still.clone());
    let shard = shuttle::thread::spawn(move || {
        let (config, disk, still) = of_shard;
        let segments = log.as_ref().map_or(Vec::new(), |log| {
            let segment = |number| Some((number, disk.segment(&config.node.dir, number).ok()?));
            (log.segment()..).map_while(segment).collect()
        });
        let wire = desk::wire(&config, disk, still, own);
        let time = wire.kernel().time();
        let parts = ShardParts {
            machine: Host::new(wire, opened.file, segments, ()),
            core: Core::new(opened.settings, opened.recovered),
            groups: opened.groups,
            superblock: opened.superblock,
            segments: opened.segments,
            log,
            held: opened.held,
            commands,
            notices,
            control_waker: control.clone(),
            gauges: Arc::default(),
            room: Room { packets: 256, notices: 2048, log_items: 2048, sparse: true },
        };
        let mut shard = Shard::new(&config, parts);
        while let Some(wait) = shard.turn(time.get()) {
            shard.poll(wait, 1);
        }
        let ended = shard.end();
        stopped.store(true, Ordering::SeqCst);
        control.wake();
        ended
    });
    let store = Store { config, disk, limits };
    let appends = shuttle::rand::thread_rng().gen_range(0..8);
    let report = clerk.live(&store, &still, end, appends);
    let ended = shard.join().unwrap();
    assert!(ended.failure.is_none(), "{:?}", ended.failure);
    assert_eq!(Arc::strong_count(&bodies), 1, "a body did not come back");
    let durable = durability != Durability::Memory;
    assert_eq!(ended.clean, durable && matches!(end, End::Drain | End::Hurry));
    if ended.clean {
        let again = recover::open_on(&store.disk.shared(), &store.config, 2).unwrap();
        let records = again.groups.records();
        assert!(records >= report.records, "told of {}, and {records} are there", report.records);
        // Who does not wait for the drain is not told of the last ones.
        assert!(end == End::Hurry || records == report.records, "more than it was told of");
    }
}

fn schedules(durability: Durability, scheduler: impl Scheduler + 'static, name: &str) {
    let config = config(durability);
    let disk = DiskHandle::new(Random::new(1));
    recover::format_on(&*disk.shared(), &config).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let mut settings = shuttle::Config::new();
    settings.stack_size = 1 << 20;
    shuttle::Runner::new(scheduler, settings).run(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let ends = [End::Drain, End::Hurry, End::Stop, End::Gone];
        let end = ends[shuttle::rand::thread_rng().gen_range(0..ends.len())];
        life(durability, &disk, end);
    });
    println!("{name}: {} schedules", count.load(Ordering::Relaxed));
}

fn count() -> usize {
    std::env::var("CHAINRING_SCHEDULES").map_or(SCHEDULES, |count| count.parse().expect("a count"))
}

#[test]
fn a_shard_on_disk_starts_and_ends_in_every_schedule() {
    schedules(Durability::Sync, RandomScheduler::new(count()), "disk, random");
    schedules(Durability::Sync, PctScheduler::new(3, count()), "disk, pct");
}

#[test]
fn a_shard_in_memory_starts_and_ends_in_every_schedule() {
    schedules(Durability::Memory, RandomScheduler::new(count()), "memory, random");
    schedules(Durability::Memory, PctScheduler::new(3, count()), "memory, pct");
}
