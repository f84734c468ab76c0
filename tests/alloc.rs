//! Shard threads allocate nothing between warm-up and end of load: counted by the allocator.
//!
//! Three nodes in this process, each fed by a source as fast as it goes. A source is asked on the
//! shard thread, so it is the source that marks the thread; while the count is on, every
//! allocation of a marked thread counts, and the first ones are printed with their callers.

use chainring::config::{Cluster, Config, Limits, Member, Node as Own};
use chainring::mail::TopicId;
use chainring::node::{Node, Options};
use chainring::source::{Filling, Source, Supply};
use chainring_ring::ids::{ClusterId, Durability, Epoch, NodeId};
use chainring_ring::layout::Layout;
use std::alloc::System;
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tracking_allocator::{AllocationGroupId, AllocationRegistry, AllocationTracker, Allocator};

#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator::system();

/// Callers that are printed.
const SHOWN: u64 = 8;

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Load begins when all nodes are in the circle: who starts last is let in a moment later.
static BEGIN: AtomicBool = AtomicBool::new(false);
static END: AtomicBool = AtomicBool::new(false);

thread_local! {
    static IS_SHARD: Cell<bool> = const { Cell::new(false) };
}

struct Counter;

impl AllocationTracker for Counter {
    fn allocated(&self, _: usize, size: usize, _: usize, _: AllocationGroupId) {
        if COUNTING.load(SeqCst) && IS_SHARD.get() && COUNT.fetch_add(1, SeqCst) < SHOWN {
            // Not counted itself: the allocator asks nobody while it is in here.
            eprintln!("{size} bytes\n{}", Backtrace::force_capture());
        }
    }

    fn deallocated(
        &self,
        _: usize,
        _: usize,
        _: usize,
        _: AllocationGroupId,
        _: AllocationGroupId,
    ) {
    }
}

/// Records of some hundred bytes for one topic, until the end.
#[derive(Debug)]
struct Load {
    name: String,
    topic: Option<TopicId>,
    asked: bool,
}

impl Source for Load {
    fn fill(&mut self, packet: &mut Filling<'_>) -> Supply {
        IS_SHARD.set(true);
        if END.load(SeqCst) {
            return Supply::Exhausted;
        }
        if !BEGIN.load(SeqCst) {
            return Supply::Idle;
        }
        let Some(topic) = self.topic else {
            self.asked |= !self.asked && packet.create(&self.name);
            return Supply::Idle;
        };
        while packet.push(topic, &[7; 400]) {}
        Supply::More
    }

    fn topic(&mut self, name: &str, id: TopicId) {
        if name == self.name {
            self.topic = Some(id);
        }
    }
}

/// Ports that are free now.
fn addresses(count: usize) -> Vec<String> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

fn configs(dir: &Path, durability: Durability) -> Vec<Config> {
    let addresses = addresses(6);
    let member = |id: u8| {
        let at = usize::from(id) - 1;
        let (address, http) = (addresses[at].clone(), addresses[3 + at].clone());
        Member { id: NodeId(id), address, http, spare: false }
    };
    let nodes = (1..=3).map(member).collect();
    let cluster = Cluster { id: ClusterId(77), epoch: Epoch(1), durability, block: 512, nodes };
    // Small segments and a small memory log: both come round often while the count is on.
    let limits = Limits {
        record_bytes: 64 << 10,
        packet_bytes: 64 << 10,
        segment_bytes: 32 << 20,
        memory_log_bytes: 64 << 20,
        ..Limits::default()
    };
    let own = |id: u8| {
        let dir = dir.join(id.to_string());
        Own { id: NodeId(id), dir, development: false, core: None }
    };
    let config = |id| Config { cluster: cluster.clone(), node: own(id), limits: limits.clone() };
    let configs: Vec<Config> = (1..=3).map(config).collect();
    for config in &configs {
        config.check().unwrap();
        chainring::recover::format(config).unwrap();
    }
    configs
}

fn start(config: Config) -> Node {
    let name = format!("load.{}", config.node.id.0);
    let source = Load { name, topic: None, asked: false };
    let options = Options { source: Some(Box::new(source)), ..Options::default() };
    Node::start(config, options).unwrap()
}

fn await_circle(nodes: &[Node]) {
    let until = Instant::now() + Duration::from_secs(30);
    let of = |node: &Node| Layout::decode(node.gauges.circle.get() as u32).unwrap_or_default();
    while nodes.iter().any(|node| of(node).nodes().len() < nodes.len()) {
        assert!(Instant::now() < until, "the circle stays incomplete");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn await_records(nodes: &[Node], records: u64) {
    let until = Instant::now() + Duration::from_secs(30);
    while nodes.iter().any(|node| node.gauges.records.get() < records) {
        let mut said = String::new();
        if Instant::now() >= until {
            nodes[0].gauges.each(|name, value| said += &format!("{name} {value}, "));
        }
        assert!(said.is_empty(), "too slow: {said}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Allocations of the three shards under load, and what was delivered meanwhile.
fn load(durability: Durability) -> (u64, u64) {
    let name = format!("alloc-{durability:?}-{}", std::process::id());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    BEGIN.store(false, SeqCst);
    END.store(false, SeqCst);
    let nodes: Vec<Node> = configs(&dir, durability).into_iter().map(start).collect();
    await_circle(&nodes);
    BEGIN.store(true, SeqCst);
    // Warm: every buffer has come round, the memory log too.
    await_records(&nodes, 400_000);
    let (before, counted) = (nodes[0].gauges.records.get(), COUNT.load(SeqCst));
    COUNTING.store(true, SeqCst);
    await_records(&nodes, before + 800_000);
    COUNTING.store(false, SeqCst);
    let (records, count) = (nodes[0].gauges.records.get() - before, COUNT.load(SeqCst) - counted);
    END.store(true, SeqCst);
    nodes.iter().for_each(Node::drain);
    nodes.into_iter().for_each(|node| drop(node.join().unwrap()));
    let _ = std::fs::remove_dir_all(&dir);
    (count, records)
}

/// One test: what one of two that run at the same time allocates would count for the other.
#[test]
fn shard_threads_allocate_nothing_under_load() {
    AllocationRegistry::set_global_tracker(Counter).unwrap();
    AllocationRegistry::enable_tracking();
    // The counter counts: this thread's own allocation, marked for a moment.
    IS_SHARD.set(true);
    COUNTING.store(true, SeqCst);
    drop(std::hint::black_box(Vec::<u8>::with_capacity(100)));
    IS_SHARD.set(false);
    COUNTING.store(false, SeqCst);
    assert!(COUNT.load(SeqCst) > 0, "the counter does not count");
    COUNT.store(0, SeqCst);
    for durability in [Durability::Memory, Durability::Sync] {
        let (count, records) = load(durability);
        assert_eq!(count, 0, "allocations of shard threads over {records} records, {durability:?}");
    }
}
