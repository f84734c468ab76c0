//! What the control thread is told, and digests: B2, B3, D6.
//!
//! Invariant: a run of a topic, once seen at one node, is the same at all.

use super::Observer;
use super::invariant::Invariant::{B2, B3, D6};
use crate::mail::{Arrival, Notice, TopicId};
use crate::records::Digest;
use chainring_ring::ids::{Instance, NodeId, Order};
use std::collections::BTreeMap;

/// Records that got offsets together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) count: u32,
    pub(super) instance: Instance,
}

/// What was delivered, as clients see it.
#[derive(Debug, Default)]
pub(super) struct Topics {
    /// By topic: its name, and its runs by first offset.
    pub(super) topics: Vec<Topic>,
    /// By position, the digest of all before it, once a node came by.
    digests: Vec<Option<Digest>>,
}

/// One topic.
#[derive(Debug, Default)]
pub(super) struct Topic {
    name: Option<Box<str>>,
    pub(super) runs: BTreeMap<u64, Run>,
    /// By instance, the offset behind its last run.
    ends: BTreeMap<Instance, u64>,
}

impl Topics {
    /// More topics than a log can have.
    const MOST: u32 = crate::groups::TOPICS_MAX;

    pub(super) fn topic(&mut self, id: TopicId) -> Option<&mut Topic> {
        if id.0 >= Topics::MOST {
            return None;
        }
        let index = id.0 as usize;
        if self.topics.len() <= index {
            self.topics.resize_with(index + 1, Topic::default);
        }
        Some(&mut self.topics[index])
    }

    /// The run that holds an offset, and its first one.
    pub(super) fn run_of(&self, topic: TopicId, offset: u64) -> Option<(u64, Run)> {
        let runs = &self.topics.get(topic.0 as usize)?.runs;
        let (first, run) = runs.range(..=offset).next_back()?;
        (offset < first + u64::from(run.count)).then_some((*first, *run))
    }
}

impl Topic {
    /// The offset behind all records delivered below `position`.
    pub(super) fn end_at(&self, position: Instance) -> u64 {
        self.ends.range(..position).next_back().map_or(0, |(_, end)| *end)
    }

    /// True if the run is the known one, or lies where nothing is known.
    fn take(&mut self, first: u64, run: Run) -> bool {
        if let Some(known) = self.runs.get(&first) {
            return *known == run;
        }
        let end = first + u64::from(run.count);
        let before = self.runs.range(..first).next_back();
        let after = self.runs.range(first..).next();
        let free = before.is_none_or(|(at, run)| at + u64::from(run.count) <= first)
            && after.is_none_or(|(at, _)| end <= *at);
        if free {
            self.runs.insert(first, run);
            let known = self.ends.entry(run.instance).or_default();
            *known = end.max(*known);
        }
        free
    }
}

impl Observer {
    /// The control thread takes a notice, in the order of the mailbox. Notices that say nothing
    /// of what was delivered are ignored.
    pub fn notice(&mut self, node: NodeId, notice: &Notice) {
        if self.is_over(node) {
            return;
        }
        match notice {
            Notice::Instance { order, .. } => self.told_instance(node, order),
            Notice::Run { topic, first_offset, count, .. } => {
                self.told_run(node, *topic, *first_offset, *count);
            }
            Notice::Topic { id, name } => self.told_topic(node, *id, name),
            Notice::Arrived { arrival, done: true, .. } => self.told_state(node, arrival),
            _ => {}
        }
    }

    fn told_instance(&mut self, node: NodeId, order: &Order) {
        let state = &mut self.nodes[usize::from(node.0)];
        let next = state.noticed;
        let what = || format!("tells {order:?} after {next:?}");
        self.verdict.check(B3, node, order.instance == next && next < state.delivered, what);
        state.noticed = next.next();
        let entry = self.log.get(next.0 as usize).map(|delivered| delivered.entry);
        let what = || format!("tells {order:?}, delivered {entry:?}");
        self.verdict.check(B2, node, entry == Some(order.entry), what);
    }

    fn told_run(&mut self, node: NodeId, topic: TopicId, first: u64, count: u32) {
        let state = &mut self.nodes[usize::from(node.0)];
        let end = first + u64::from(count);
        let next = state.ends.insert(topic.0, end).unwrap_or(first);
        let what = || format!("topic {}: offset {first} after {next}", topic.0);
        self.verdict.check(B3, node, next == first && count > 0, what);
        let instance = Instance(state.noticed.0.saturating_sub(1));
        let run = Run { count, instance };
        let same = self.topics.topic(topic).is_some_and(|topic| topic.take(first, run));
        let what = || format!("topic {}: offset {first} {run:?}, others otherwise", topic.0);
        self.verdict.check(B3, node, same, what);
    }

    /// A recovery delivers a run again: perhaps of the last life, which ended before it told.
    pub fn replayed_run(
        &mut self,
        node: NodeId,
        topic: TopicId,
        (first, instance): (u64, Instance),
        count: u32,
    ) {
        if self.is_over(node) {
            return;
        }
        let run = Run { count, instance };
        let same = self.topics.topic(topic).is_some_and(|topic| topic.take(first, run));
        let what = || format!("topic {}: replayed at {first} {run:?}, others otherwise", topic.0);
        self.verdict.check(B3, node, same, what);
    }

    /// The control thread goes on behind a peer's state: its topics are those of all.
    fn told_state(&mut self, node: NodeId, arrival: &Arrival) {
        let position = arrival.claim.position;
        let state = &mut self.nodes[usize::from(node.0)];
        let ahead = position > state.noticed && position <= state.delivered;
        let what = || format!("tells of {position:?} after {:?}", state.noticed);
        self.verdict.check(B3, node, ahead, what);
        state.noticed = position;
        state.ends.clear();
        for (id, (name, end)) in (0..).map(TopicId).zip(&arrival.topics) {
            self.told_topic(node, id, name);
            self.nodes[usize::from(node.0)].ends.insert(id.0, *end);
            let known = self.topics.topic(id).map(|topic| topic.end_at(position));
            let what = || format!("topic {} ends at {end} at {position:?}, not {known:?}", id.0);
            self.verdict.check(B3, node, known == Some(*end), what);
        }
    }

    fn told_topic(&mut self, node: NodeId, id: TopicId, name: &str) {
        let known =
            self.topics.topic(id).map(|topic| topic.name.get_or_insert_with(|| name.into()));
        let same = known.is_some_and(|known| **known == *name);
        self.verdict.check(B3, node, same, || format!("topic {} is called {name}", id.0));
    }

    /// Positions at which a digest is known.
    #[cfg(test)]
    pub fn digests(&self) -> usize {
        self.topics.digests.iter().flatten().count()
    }

    /// Instances that were delivered.
    #[cfg(test)]
    pub fn positions(&self) -> usize {
        self.log.len()
    }

    /// A node's digest at a position to which it has delivered.
    pub fn digest(&mut self, node: NodeId, delivered: Instance, digest: Digest) {
        if self.is_over(node) {
            return;
        }
        let (digests, index) = (&mut self.topics.digests, delivered.0 as usize);
        if digests.len() <= index {
            digests.resize(index + 1, None);
        }
        let first = *digests[index].get_or_insert(digest);
        let what = || format!("digest {:032x} at {delivered:?}, others {:032x}", digest.0, first.0);
        self.verdict.check(D6, node, first == digest, what);
    }
}
