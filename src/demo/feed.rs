//! The source of a node: its parts of all files, one after another, straight into the packets.
//!
//! Invariants: nothing is shipped before the common sign, and nothing is allocated or waited for
//! after it; every topic is known before.

use super::parts::{Part, Reader};
use crate::mail::TopicId;
use crate::node::now_us;
use crate::source::{Filling, Source, Supply};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A topic that did not come into being is proposed again after this.
const CREATE_AGAIN_US: u64 = 2_000_000;
/// No topic.
const UNKNOWN: u32 = u32::MAX;

/// What the sources of all nodes share with whoever waits for them.
#[derive(Debug)]
pub struct Shared {
    go: AtomicBool,
    first_us: AtomicU64,
    ready: AtomicUsize,
    finished: AtomicUsize,
    /// By node: records shipped, once it has finished.
    shipped: Vec<AtomicU64>,
    /// By part.
    topics: Vec<AtomicU32>,
}

impl Shared {
    /// For so many nodes and parts.
    pub fn new(nodes: usize, parts: usize) -> Arc<Shared> {
        Arc::new(Shared {
            go: AtomicBool::new(false),
            first_us: AtomicU64::new(u64::MAX),
            ready: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            shipped: (0..nodes).map(|_| AtomicU64::new(0)).collect(),
            topics: (0..parts).map(|_| AtomicU32::new(UNKNOWN)).collect(),
        })
    }

    /// Nodes whose topics are all known.
    pub fn ready(&self) -> usize {
        self.ready.load(Ordering::Acquire)
    }

    /// The sign to begin.
    pub fn go(&self) {
        self.go.store(true, Ordering::Release);
    }

    /// Nodes that have shipped all.
    pub fn finished(&self) -> usize {
        self.finished.load(Ordering::Acquire)
    }

    /// When the first record was handed to a batcher.
    pub fn first_us(&self) -> Option<u64> {
        Some(self.first_us.load(Ordering::Acquire)).filter(|time| *time != u64::MAX)
    }

    /// Records that each node has shipped.
    pub fn shipped(&self) -> Vec<u64> {
        self.shipped.iter().map(|records| records.load(Ordering::Acquire)).collect()
    }

    /// Id of a part's topic.
    pub fn topic(&self, part: usize) -> Option<TopicId> {
        let id = self.topics[part].load(Ordering::Acquire);
        (id != UNKNOWN).then_some(TopicId(id))
    }
}

/// A part and where it goes.
#[derive(Debug)]
struct Mine {
    /// Index among all parts.
    index: usize,
    name: String,
    id: Option<TopicId>,
    reader: Reader,
}

/// See the file's head.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    node: usize,
    parts: Vec<Mine>,
    /// Topics proposed, and when the last one was.
    created: usize,
    created_us: u64,
    known: usize,
    ready: bool,
    /// When the first own record was shipped.
    since_us: Option<u64>,
    time_us: Option<u64>,
    started: bool,
    /// Index of the part being shipped.
    current: usize,
    shipped: u64,
}

impl Feed {
    /// The source of a node.
    pub fn new(node: usize, all: &[Part], time: Option<Duration>, shared: &Arc<Shared>) -> Feed {
        let own = all.iter().enumerate().filter(|(_, part)| part.node == node);
        let mine = |(index, part): (usize, &Part)| Mine {
            index,
            name: part.topic.clone(),
            id: None,
            reader: part.content.reader(),
        };
        Feed {
            shared: Arc::clone(shared),
            node,
            parts: own.map(mine).collect(),
            created: 0,
            created_us: 0,
            known: 0,
            ready: false,
            since_us: None,
            time_us: time.map(|time| time.as_micros() as u64),
            started: false,
            current: 0,
            shipped: 0,
        }
    }

    /// Before the sign: proposes the topics and waits until they are there.
    fn prepare(&mut self, packet: &mut Filling<'_>) -> Supply {
        while let Some(part) = self.parts.get(self.created) {
            if part.id.is_none() && !packet.create(&part.name) {
                return Supply::More;
            }
            self.created += 1;
            self.created_us = now_us();
        }
        if self.known < self.parts.len() {
            if now_us() > self.created_us + CREATE_AGAIN_US {
                self.created = 0;
            }
        } else if !self.ready {
            self.ready = true;
            self.shared.ready.fetch_add(1, Ordering::AcqRel);
        }
        self.started = self.ready && self.shared.go.load(Ordering::Acquire);
        Supply::Idle
    }

    fn ship(&mut self, packet: &mut Filling<'_>) -> Supply {
        if let (Some(time), Some(since)) = (self.time_us, self.since_us)
            && now_us() >= since + time
        {
            return self.finish();
        }
        while let Some(part) = self.parts.get_mut(self.current) {
            let topic = part.id.expect("all topics are known before the sign");
            while let Some(record) = part.reader.peek() {
                if self.since_us.is_none() {
                    let now = now_us();
                    self.since_us = Some(now);
                    self.shared.first_us.fetch_min(now, Ordering::AcqRel);
                }
                if !packet.push(topic, record) {
                    return Supply::More;
                }
                part.reader.advance();
                self.shipped += 1;
            }
            self.current += 1;
        }
        self.finish()
    }

    fn finish(&mut self) -> Supply {
        self.shared.shipped[self.node].store(self.shipped, Ordering::Release);
        self.shared.finished.fetch_add(1, Ordering::AcqRel);
        Supply::Exhausted
    }
}

impl Source for Feed {
    fn fill(&mut self, packet: &mut Filling<'_>) -> Supply {
        if !self.started {
            let supply = self.prepare(packet);
            if !self.started {
                return supply;
            }
        }
        self.ship(packet)
    }

    fn next_bytes(&mut self) -> usize {
        let part = if self.started { self.parts.get_mut(self.current) } else { None };
        part.and_then(|part| part.reader.peek()).map_or(0, <[u8]>::len)
    }

    fn topic(&mut self, name: &str, id: TopicId) {
        let mine = self.parts.iter_mut().find(|part| part.id.is_none() && part.name == name);
        if let Some(part) = mine {
            part.id = Some(id);
            self.known += 1;
            self.shared.topics[part.index].store(id.0, Ordering::Release);
        }
    }
}
