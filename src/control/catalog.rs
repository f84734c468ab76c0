//! What the control thread knows of the delivered log: topics, runs, entries and where they lie.
//!
//! Invariants: fed in order of instance, by recovery and then by the shard's notices; entries are
//! contiguous from [`Catalog::first`] to [`Catalog::delivered`]; nothing undelivered is in it, so
//! nothing undelivered is ever shown.
//!
//! Memory: per entry 88 bytes and 24 for the lookup by id; per run 32. A value takes at least one
//! block, 512 bytes, of the log; with one run in each, the usual case, that is at most 28 % of
//! the log when every packet holds one tiny record, and 0.06 % with packets of 256 KiB. The log
//! itself is limited (`log_bytes`, `memory_log_bytes`), and so is this.

use crate::mail::{Place, TopicId};
use chainring_ring::header::Header;
use chainring_ring::ids::{
    Ballot, Claim, Entry, Instance, NodeId, Order, Sequence, Session, ValueId,
};
use std::collections::{HashMap, VecDeque};

/// Records of one topic that lie together in one value frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Offset of the first record.
    pub first_offset: u64,
    /// Records.
    pub count: u32,
    /// Records of the run in front of them, which were in the log before.
    pub skip: u32,
    /// Byte offset of the run's header in the frame.
    pub at: u32,
    /// The frame.
    pub place: Place,
    /// The value that it is of.
    pub id: ValueId,
}

impl Run {
    /// Whether what was read from its place is its value. A disk may put an intact frame of the
    /// same log where another one should lie; checksums do not tell.
    pub fn is_in(&self, frame: &[u8]) -> bool {
        Run::is_value(frame, self.id)
    }

    /// Whether an intact frame is this value.
    pub fn is_value(frame: &[u8], id: ValueId) -> bool {
        Header::decode(frame, u32::MAX).is_ok_and(|header| header.value_id() == id)
    }
}

/// Where an offset of a topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Located {
    /// In this run.
    Run(Run),
    /// At or above the end.
    Above {
        /// One above the last offset.
        end: u64,
    },
    /// Dropped from the memory log.
    Below {
        /// The first offset kept.
        first: u64,
    },
}

#[derive(Debug)]
struct Topic {
    name: Box<str>,
    first: u64,
    end: u64,
    runs: VecDeque<Run>,
}

/// A topic as [`Catalog::topics`] shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicView<'a> {
    /// Id.
    pub id: TopicId,
    /// Name.
    pub name: &'a str,
    /// The first offset kept.
    pub first: u64,
    /// One above the last offset.
    pub end: u64,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Catalog {
    first: Instance,
    entries: VecDeque<(Order, Place)>,
    /// Of each origin: delivered values, rising in (session, sequence) and in instance.
    by_id: HashMap<NodeId, VecDeque<(Session, Sequence, Instance)>>,
    topics: Vec<Topic>,
    names: HashMap<Box<str>, TopicId>,
    /// Entries of which no later one lies below them in the memory log, rising in both. A value
    /// may reach the memory log before one of a lower instance does; this finds the last entry
    /// below a place without looking at all.
    floors: VecDeque<(u64, Instance)>,
    trims: bool,
    /// Highest ballot at which an entry was accepted here.
    ballot: Ballot,
    trimmed: Instance,
    /// Highest place of a value.
    head: u64,
}

impl Catalog {
    /// Empty. `trims` says that the log drops its oldest: the memory log.
    pub fn new(trims: bool) -> Catalog {
        Catalog { trims, ..Catalog::default() }
    }

    /// Begins again, with a state and nothing before it.
    pub fn restart(&mut self, claim: Claim, topics: &[(Box<str>, u64)]) {
        let (trims, trimmed) = (self.trims, self.trimmed);
        let ballot = self.ballot.max(claim.ballot);
        *self = Catalog { trims, ballot, trimmed, first: claim.position, ..Catalog::default() };
        for (index, (name, end)) in topics.iter().enumerate() {
            self.on_topic(TopicId(index as u32), name);
            (self.topics[index].first, self.topics[index].end) = (*end, *end);
        }
    }

    /// Everything below may be let go, as was decided.
    pub fn trimmed(&self) -> Instance {
        self.trimmed
    }

    /// Highest place of a value.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The runs of the entries from `from` to before `to`, in the order of these.
    pub fn runs(&self, from: Instance, to: Instance) -> Vec<(Instance, TopicId, Run)> {
        let of = |run: &Run| self.find(run.id).map_or(Instance(0), |(order, _)| order.instance);
        let mut found = Vec::new();
        for (index, topic) in self.topics.iter().enumerate() {
            let first = topic.runs.partition_point(|run| of(run) < from);
            let runs = topic.runs.range(first..).map(|run| (of(run), TopicId(index as u32), *run));
            found.extend(runs.take_while(|(instance, ..)| *instance < to));
        }
        found.sort_by_key(|(instance, ..)| *instance);
        found
    }

    /// Takes the next delivered entry.
    ///
    /// # Panics
    /// If it is not the next one: the feed is in order or the shard is broken.
    pub fn on_instance(&mut self, order: Order, place: Place) {
        assert_eq!(order.instance, self.delivered(), "delivered entries come in order");
        self.ballot = self.ballot.max(order.ballot);
        if let Entry::Trim(position) = order.entry {
            self.trimmed = self.trimmed.max(position);
        }
        self.head = self.head.max(place.at);
        self.entries.push_back((order, place));
        if place.bytes == 0 {
            return;
        }
        if let Entry::Value(id) = order.entry {
            let values = self.by_id.entry(id.origin).or_default();
            values.push_back((id.session, id.sequence, order.instance));
        }
        if self.trims {
            while self.floors.back().is_some_and(|(at, _)| *at >= place.at) {
                self.floors.pop_back();
            }
            self.floors.push_back((place.at, order.instance));
        }
    }

    /// Takes a run of the entry before; `skip` and `at` as [`Run`] has them.
    ///
    /// # Panics
    /// If its topic does not exist or its offsets do not go on.
    pub fn on_run(
        &mut self,
        topic: TopicId,
        first_offset: u64,
        count: u32,
        (skip, at): (u32, u32),
    ) {
        let (order, place) = *self.entries.back().expect("a run follows its entry");
        let Entry::Value(id) = order.entry else { unreachable!("only values have records") };
        let topic = &mut self.topics[topic.0 as usize];
        assert_eq!(topic.end, first_offset, "offsets of a topic have no gaps");
        topic.end += u64::from(count);
        topic.runs.push_back(Run { first_offset, count, skip, at, place, id });
    }

    /// Takes a topic that the entry before created.
    ///
    /// # Panics
    /// If ids are not given in order.
    pub fn on_topic(&mut self, id: TopicId, name: &str) {
        assert_eq!(id.0 as usize, self.topics.len(), "topic ids come in order");
        let topic = Topic { name: name.into(), first: 0, end: 0, runs: VecDeque::new() };
        self.topics.push(topic);
        self.names.insert(name.into(), id);
    }

    /// Everything in the memory log below `at` is dropped: so is every entry up to the last one
    /// that lay there, with its runs.
    pub fn on_memory_first(&mut self, at: u64) {
        let mut last = None;
        while let Some((_, instance)) = self.floors.front().filter(|(place, _)| *place < at) {
            last = Some(*instance);
            self.floors.pop_front();
        }
        let Some(last) = last else { return };
        self.drop_below(last.next());
    }

    /// Forgets the entries below `position`, with their runs.
    pub fn drop_below(&mut self, position: Instance) {
        let mut dropped = Vec::new();
        while self.first < position {
            let Some((_, place)) = self.entries.pop_front() else { break };
            self.first = self.first.next();
            if place.bytes > 0 {
                dropped.push(place.at);
            }
        }
        for values in self.by_id.values_mut() {
            while values.front().is_some_and(|(_, _, instance)| *instance < position) {
                values.pop_front();
            }
        }
        dropped.sort_unstable();
        for topic in &mut self.topics {
            let gone = |run: &Run| dropped.binary_search(&run.place.at).is_ok();
            while let Some(run) = topic.runs.front().filter(|run| gone(run)) {
                topic.first = run.first_offset + u64::from(run.count);
                topic.runs.pop_front();
            }
        }
    }

    /// The first entry kept.
    pub fn first(&self) -> Instance {
        self.first
    }

    /// Position delivered.
    pub fn delivered(&self) -> Instance {
        Instance(self.first.0 + self.entries.len() as u64)
    }

    /// What is known to be decided by what was delivered. An entry was delivered because it was
    /// accepted here at the deciding ballot or a later one, so the highest ballot of all is no
    /// lower than any that decided: the claim authorises nothing else than what was decided.
    pub fn claim(&self) -> Claim {
        Claim { ballot: self.ballot, position: self.delivered() }
    }

    /// A kept entry and its value's frame (0 bytes if it has none or counts as nothing).
    pub fn entry(&self, instance: Instance) -> Option<(Order, Place)> {
        let index = instance.0.checked_sub(self.first.0)?;
        self.entries.get(usize::try_from(index).ok()?).copied()
    }

    /// The entry that delivered a value.
    pub fn find(&self, id: ValueId) -> Option<(Order, Place)> {
        let values = self.by_id.get(&id.origin)?;
        let key = (id.session, id.sequence);
        let index =
            values.binary_search_by_key(&key, |(session, sequence, _)| (*session, *sequence));
        self.entry(values[index.ok()?].2)
    }

    /// Delivered values that lie, with any byte, in a range of the log.
    pub fn values_in(&self, range: &core::ops::Range<u64>) -> Vec<(ValueId, Place)> {
        let inside = |place: &Place| {
            place.bytes > 0
                && place.at < range.end
                && range.start < place.at + u64::from(place.bytes)
        };
        let value = |(order, place): &(Order, Place)| match order.entry {
            Entry::Value(id) if inside(place) => Some((id, *place)),
            _ => None,
        };
        self.entries.iter().filter_map(value).collect()
    }

    /// The last segment in which a delivered value lies: those before it are full.
    pub fn last_segment(&self) -> u32 {
        let last = self.entries.iter().rev().find(|(_, place)| place.bytes > 0);
        last.map_or(0, |(_, place)| (place.at >> 32) as u32)
    }

    /// Id of a topic.
    pub fn topic(&self, name: &str) -> Option<TopicId> {
        self.names.get(name).copied()
    }

    /// A topic by its id.
    pub fn view(&self, id: TopicId) -> Option<TopicView<'_>> {
        let topic = self.topics.get(id.0 as usize)?;
        Some(TopicView { id, name: &topic.name, first: topic.first, end: topic.end })
    }

    /// All topics, in order of id.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = TopicView<'_>> {
        self.topics.iter().enumerate().map(|(id, topic)| TopicView {
            id: TopicId(id as u32),
            name: &topic.name,
            first: topic.first,
            end: topic.end,
        })
    }

    /// Where an offset of a topic is.
    ///
    /// # Panics
    /// If there is no such topic.
    pub fn locate(&self, topic: TopicId, offset: u64) -> Located {
        let topic = &self.topics[topic.0 as usize];
        if offset >= topic.end {
            return Located::Above { end: topic.end };
        }
        if offset < topic.first {
            return Located::Below { first: topic.first };
        }
        let behind = topic.runs.partition_point(|run| run.first_offset <= offset);
        Located::Run(topic.runs[behind - 1])
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
