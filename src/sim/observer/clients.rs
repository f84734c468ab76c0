//! Clients: what they asked, what they were told, what they read: B1, B4, B5, D1, D2, D5, D7, R2.
//!
//! Invariant: no two records of a run are equal, so that a record names its request; of a record
//! that its producer repeats, the first one.

use super::Observer;
use super::invariant::Invariant::{B1, B3, B4, B5, D1, D2, D5, D7, L5, R2};
use super::producers::Producers;
use crate::mail::TopicId;
use crate::records::Stamp;
use chainring_ring::ids::{Durability, Entry, Instance, NodeId};
use std::collections::{BTreeSet, HashMap};

/// A client's request, numbered from 0 by the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All its records are in the log: offsets of the first and the last.
    Appended(u64, u64),
    /// None of its records will ever be in the log.
    Refused,
    /// Nobody knows.
    Unknown,
    /// Records of a producer that get no offsets, for their sequences.
    Fenced,
    /// No records: an id for a producer.
    Registered(u64),
}

/// Hash of a record as clients and readers see it.
pub fn record_hash(record: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(record)
}

/// Requests of others end so soon while one disk is slow: it is found out within a second, and a
/// ballot follows.
const SOON_US: u64 = 3_000_000;

#[derive(Debug)]
pub(super) struct Op {
    pub(super) id: OpId,
    pub(super) node: NodeId,
    pub(super) topic: TopicId,
    /// Place of its records in `Clients::records`, and how many.
    pub(super) first: usize,
    pub(super) count: usize,
    /// Offsets acknowledged in the topic before it began lie below.
    pub(super) after: u64,
    /// When it began.
    pub(super) at_us: u64,
    pub(super) answer: Option<Answer>,
    /// Of a producer's: its first record, and the request that carried the same records first.
    pub(super) stamp: Option<(Stamp, usize)>,
    /// Where its records are, as anybody was told: of the first request with them.
    pub(super) told: Option<(u64, u64)>,
    /// Requests with the same records that may still bring them: of the first one.
    pub(super) chances: u32,
}

#[derive(Debug)]
struct Record {
    hash: u128,
    op: usize,
    /// Where it was read.
    offset: Option<u64>,
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) ops: Vec<Op>,
    pub(super) by_id: HashMap<OpId, usize>,
    records: Vec<Record>,
    by_hash: HashMap<u128, usize>,
    /// By topic: what was read at each offset; one more than the highest acknowledged.
    topics: Vec<(Vec<Option<usize>>, u64)>,
    /// By topic: below, some node has let go of what it held.
    dropped: Vec<u64>,
    /// Topic and offset of records whose only copy rotted.
    rotten: BTreeSet<(u32, u64)>,
    pub(super) producers: Producers,
}

impl Clients {
    /// The request that carried the same records first.
    pub(super) fn first(&self, index: usize) -> usize {
        self.ops[index].stamp.map_or(index, |(_, first)| first)
    }

    fn topic(&mut self, topic: TopicId) -> &mut (Vec<Option<usize>>, u64) {
        let index = topic.0 as usize;
        if self.topics.len() <= index {
            self.topics.resize_with(index + 1, Default::default);
        }
        &mut self.topics[index]
    }

    fn at(&self, topic: TopicId, offset: u64) -> Option<usize> {
        *self.topics.get(topic.0 as usize)?.0.get(usize::try_from(offset).ok()?)?
    }
}

impl Observer {
    /// A client sends records. No two records of a run are equal.
    ///
    /// # Panics
    /// If the workload repeats itself.
    pub fn invoked(&mut self, op: OpId, node: NodeId, topic: TopicId, records: &[u128]) {
        if self.is_over(node) {
            return;
        }
        let clients = &mut self.clients;
        let (index, first, count) = (clients.ops.len(), clients.records.len(), records.len());
        let after = clients.topic(topic).1;
        for hash in records {
            let record = clients.records.len();
            assert!(clients.by_hash.insert(*hash, record).is_none(), "a record comes twice");
            clients.records.push(Record { hash: *hash, op: index, offset: None });
        }
        assert!(clients.by_id.insert(op, index).is_none(), "request {op:?} comes twice");
        let (answer, stamp, told, chances) = (None, None, None, 1);
        let at_us = self.verdict.now_us;
        let op =
            Op { id: op, node, topic, first, count, after, at_us, answer, stamp, told, chances };
        clients.ops.push(op);
    }

    /// A client gets its answer, after the notices of what it speaks of.
    pub fn answered(&mut self, op: OpId, answer: Answer) {
        let Some(index) = self.clients.by_id.get(&op).copied() else { return };
        let node = self.clients.ops[index].node;
        if self.is_over(node) {
            return;
        }
        let before = self.clients.ops[index].answer.replace(answer);
        let what = || format!("{op:?} answered {answer:?} after {before:?}");
        self.verdict.check(B5, node, before.is_none(), what);
        self.ended_soon(index);
        match answer {
            Answer::Appended(first, last) => self.acknowledged(index, first, last),
            Answer::Refused => self.refused(index),
            Answer::Fenced => self.fenced(index),
            Answer::Unknown | Answer::Registered(_) => {}
        }
    }

    /// One slow disk holds up nobody but who is at that node.
    fn ended_soon(&mut self, index: usize) {
        let Op { id, node, at_us, .. } = self.clients.ops[index];
        let took = self.verdict.now_us - at_us;
        if self.setup.drag && node != self.dragged {
            let what = || format!("{id:?} took {took} us, the disk of {:?} is slow", self.dragged);
            self.verdict.check(L5, node, took <= SOON_US, what);
        }
    }

    /// The disk of this node is slow from now on, and no other one.
    pub fn dragged(&mut self, node: NodeId) {
        self.dragged = node;
    }

    fn acknowledged(&mut self, index: usize, first: u64, last: u64) {
        let Observer { clients, verdict, .. } = self;
        let op = &clients.ops[index];
        let (node, topic, after) = (op.node, op.topic, op.after);
        let room = last.checked_sub(first).is_some_and(|more| more + 1 >= op.count as u64);
        let what = || format!("{} records at {first} to {last}", op.count);
        verdict.check(B5, node, room, what);
        let what = || format!("{:?} at {first}, began when {after} was acknowledged", op.id);
        verdict.check(R2, node, first >= after, what);
        if verdict.violation.is_some() || op.count == 0 {
            return;
        }
        self.told(index, first, last);
        let Observer { clients, verdict, .. } = self;
        let op = &clients.ops[index];
        let ends = [(op.first, first), (op.first + op.count - 1, last)];
        for (record, offset) in ends {
            let read = clients.at(topic, offset);
            let fits = read.is_none_or(|read| read == record);
            let elsewhere = clients.records[record].offset.filter(|at| *at != offset);
            let what =
                || format!("acknowledged at {offset}, read at {elsewhere:?}, there {read:?}");
            verdict.check(B5, node, fits && elsewhere.is_none(), what);
        }
        let acknowledged = &mut clients.topic(topic).1;
        *acknowledged = (*acknowledged).max(last + 1);
        for offset in ends.map(|(_, offset)| offset) {
            self.rests_on_a_quorum(node, topic, offset);
        }
    }

    /// What was refused does not come, and did not.
    fn refused(&mut self, index: usize) {
        let first = self.clients.first(index);
        self.clients.ops[first].chances -= 1;
        if self.clients.ops[first].chances > 0 {
            return; // another request brings the same records
        }
        let op = &self.clients.ops[index];
        let mut records = self.clients.records[op.first..op.first + op.count].iter();
        let read = records.find_map(|record| record.offset);
        let what = || format!("{:?} was refused, and read at {read:?}", op.id);
        self.verdict.check(B5, op.node, read.is_none(), what);
    }

    /// An acknowledged offset is in a delivered run that a quorum holds, durably where promised.
    fn rests_on_a_quorum(&mut self, node: NodeId, topic: TopicId, offset: u64) {
        let sync = self.setup.durability == Durability::Sync;
        let rule = if sync { D1 } else { D2 };
        let Some((_, run)) = self.topics.run_of(topic, offset) else {
            let what = || format!("topic {}: {offset} acknowledged, not delivered", topic.0);
            return self.verdict.fail(rule, node, what);
        };
        let rests = self.is_held_by_quorum(run.instance);
        let what = || format!("acknowledged {:?} rests on too few nodes", run.instance);
        self.verdict.check(rule, node, rests, what);
    }

    /// True if a quorum accepted a delivered instance, or holds it now: on stable media in sync.
    fn is_held_by_quorum(&self, instance: Instance) -> bool {
        let sync = self.setup.durability == Durability::Sync;
        let Some(delivered) = self.log.get(instance.0 as usize) else { return false };
        let Some(cell) = self.history.cell(instance) else { return false };
        let value = |node| match delivered.entry {
            Entry::Value(id) => self.values.is_held(&id, node),
            _ => true,
        };
        let holds = |node: NodeId| {
            let same = || cell.proposals().filter(|p| p.entry == delivered.entry);
            let now = match sync {
                true => self.is_stable(node, instance),
                false => same().any(|p| p.held.has(node)) && value(node),
            };
            now || same().any(|p| p.has_voted(node))
        };
        self.history.governing.at(instance).is_quorum(|node, _| holds(node))
    }

    /// A node served a record to a reader.
    pub fn read(&mut self, node: NodeId, topic: TopicId, offset: u64, record: &[u8]) {
        if self.is_over(node) {
            return;
        }
        let Observer { clients, verdict, .. } = self;
        let (known, hash) = (clients.at(topic, offset), record_hash(record));
        if known.is_some_and(|known| clients.records[known].hash == hash) {
            return;
        }
        let Some(read) = clients.by_hash.get(&hash).copied() else {
            let rule = if known.is_some() { D7 } else { B1 };
            let what = || format!("topic {} offset {offset}: nobody sent this", topic.0);
            return verdict.fail(rule, node, what);
        };
        let what = || format!("topic {} offset {offset}: record {read}, was {known:?}", topic.0);
        verdict.check(B3, node, known.is_none(), what);
        let place = clients.records[read].offset;
        let what = || format!("topic {} offset {offset}: record {read} is at {place:?}", topic.0);
        verdict.check(B1, node, place.is_none(), what);
        self.first_read(node, topic, offset, read);
    }

    fn first_read(&mut self, node: NodeId, topic: TopicId, offset: u64, read: usize) {
        let Observer { clients, verdict, .. } = self;
        let op = &clients.ops[clients.records[read].op];
        let what = || format!("{:?} was sent to topic {}, not {}", op.id, op.topic.0, topic.0);
        verdict.check(B1, node, op.topic == topic, what);
        let (first, last) = (op.first, op.first + op.count - 1);
        let fits = match op.told {
            Some((from, to)) => {
                (from..=to).contains(&offset)
                    && (read == first) == (offset == from)
                    && (read == last) == (offset == to)
            }
            None => op.chances > 0,
        };
        let what = || format!("{:?} {:?} {:?}: record at {offset}", op.id, op.answer, op.told);
        verdict.check(B5, node, fits, what);
        let what = || format!("{:?} at {offset}, {} was acknowledged before", op.id, op.after);
        verdict.check(R2, node, offset >= op.after, what);
        let neighbour = |at: usize| clients.records[at].offset;
        let before = (read > first).then(|| neighbour(read - 1)).flatten();
        let behind = (read < last).then(|| neighbour(read + 1)).flatten();
        let sorted = before.is_none_or(|at| at < offset) && behind.is_none_or(|at| at > offset);
        let what = || format!("{:?}: records at {before:?}, {offset}, {behind:?}", op.id);
        verdict.check(B4, node, sorted, what);
        if let Some((stamp, _)) = op.stamp {
            let of_producer = stamp.after((read - first) as u32);
            let fits = clients.producers.came(of_producer, topic, offset);
            let what = || format!("{of_producer:?} at {offset}: the producer's order is another");
            verdict.check(B4, node, fits, what);
        }
        if verdict.violation.is_some() {
            return;
        }
        clients.records[read].offset = Some(offset);
        let offsets = &mut clients.topic(topic).0;
        let index = offset as usize;
        if offsets.len() <= index {
            offsets.resize(index + 1, None);
        }
        offsets[index] = Some(read);
    }

    /// A node serves nothing below `first` of a topic: a memory log is bounded; and others let go
    /// of what was trimmed, or of what they went past with a peer's state.
    pub fn dropped(&mut self, node: NodeId, topic: TopicId, first: u64) {
        if self.setup.durability != Durability::Memory && !self.is_over(node) {
            let state = &self.nodes[usize::from(node.0)];
            let position = self.trimmed.max(state.jumped);
            let most = self.topics.topic(topic).map_or(0, |topic| topic.end_at(position));
            let what = || format!("topic {} begins at {first}, not {most} at most", topic.0);
            self.verdict.check(D5, node, first <= most, what);
        }
        let dropped = &mut self.clients.dropped;
        let index = topic.0 as usize;
        if dropped.len() <= index {
            dropped.resize(index + 1, 0);
        }
        dropped[index] = dropped[index].max(first);
    }

    /// The only copy of a record rotted, and is not served any more.
    pub fn rotten(&mut self, topic: TopicId, offset: u64) {
        self.clients.rotten.insert((topic.0, offset));
    }

    /// Where all became equal: every request ended, and what was acknowledged was read.
    pub(super) fn settle_clients(&mut self) {
        let Observer { clients, verdict, topics, trimmed, setup, .. } = self;
        // Of a log on disk all is somewhere that was not trimmed.
        let memory = setup.durability == Durability::Memory;
        let from = |topic: TopicId| match memory {
            true => clients.dropped.get(topic.0 as usize).copied().unwrap_or(0),
            false => topics.topics.get(topic.0 as usize).map_or(0, |topic| topic.end_at(*trimmed)),
        };
        for op in &clients.ops {
            let node = op.node;
            let what = || format!("{:?} was never answered", op.id);
            verdict.check(super::Invariant::L1, node, op.answer.is_some(), what);
            if let Some(Answer::Appended(first, last)) = op.answer {
                let records = &clients.records[op.first..op.first + op.count];
                let kept = first >= from(op.topic);
                let topic = op.topic.0;
                let rotten = clients.rotten.range((topic, first)..=(topic, last)).next().is_some();
                let lost = records.iter().find(|record| kept && !rotten && record.offset.is_none());
                let what = || format!("{:?} at {first} to {last}: lost {lost:?}", op.id);
                verdict.check(B5, node, lost.is_none(), what);
            }
        }
    }
}
