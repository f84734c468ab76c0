//! Producers: what they repeat comes once, and they are told the same each time: B4.
//!
//! Invariant: what a node remembers of producers is not asked; all is judged by the requests, the
//! answers and the records that are read.

use super::Observer;
use super::clients::{Op, OpId};
use super::invariant::Invariant::B4;
use crate::mail::TopicId;
use crate::records::Stamp;
use chainring_ring::ids::NodeId;
use std::collections::{BTreeMap, HashMap};

/// Offsets of a producer's records in one topic, by epoch and sequence.
type Places = BTreeMap<(u32, u64), u64>;

/// What is known of all producers.
#[derive(Debug, Default)]
pub(super) struct Producers {
    places: HashMap<(u64, TopicId), Places>,
    /// The newest epoch that each began.
    epochs: HashMap<u64, u32>,
}

impl Producers {
    /// A record was read: true if those before and behind it of its producer lie so, too.
    pub(super) fn came(&mut self, stamp: Stamp, topic: TopicId, offset: u64) -> bool {
        let places = self.places.entry((stamp.producer, topic)).or_default();
        let key = (stamp.epoch, stamp.sequence);
        let before = places.range(..key).next_back();
        let behind = places.range(key..).next();
        let fits =
            before.is_none_or(|(_, at)| *at < offset) && behind.is_none_or(|(_, at)| *at > offset);
        places.insert(key, offset);
        fits
    }
}

impl Observer {
    /// A producer sends records for the first time.
    ///
    /// # Panics
    /// If the workload repeats itself.
    pub fn produced(
        &mut self,
        op: OpId,
        node: NodeId,
        topic: TopicId,
        records: &[u128],
        stamp: Stamp,
    ) {
        self.invoked(op, node, topic, records);
        let clients = &mut self.clients;
        let Some(index) = clients.by_id.get(&op).copied() else { return };
        clients.ops[index].stamp = Some((stamp, index));
        let newest = clients.producers.epochs.entry(stamp.producer).or_default();
        *newest = stamp.epoch.max(*newest);
    }

    /// A producer sends the records of the request `of` again, under another name.
    ///
    /// # Panics
    /// If `of` was none of a producer's.
    pub fn repeated(&mut self, op: OpId, of: OpId, node: NodeId) {
        if self.is_over(node) {
            return;
        }
        let clients = &mut self.clients;
        let Some(first) = clients.by_id.get(&of).copied() else { return };
        clients.ops[first].chances += 1;
        let Op { topic, first: record, count, after, stamp, .. } = clients.ops[first];
        assert!(stamp.is_some_and(|(_, index)| index == first), "{of:?} is no producer's first");
        let (first, answer, told, chances) = (record, None, None, 0);
        let at_us = self.verdict.now_us;
        let again =
            Op { id: op, node, topic, first, count, after, at_us, answer, stamp, told, chances };
        assert!(clients.by_id.insert(op, clients.ops.len()).is_none(), "{op:?} comes twice");
        clients.ops.push(again);
    }

    /// Somebody was told where records are: all others are told the same.
    pub(super) fn told(&mut self, index: usize, first: u64, last: u64) {
        let original = self.clients.first(index);
        let (node, id) = (self.clients.ops[index].node, self.clients.ops[index].id);
        let before = *self.clients.ops[original].told.get_or_insert((first, last));
        let what = || format!("{id:?} at {first} to {last}, its records were at {before:?}");
        self.verdict.check(B4, node, before == (first, last), what);
    }

    /// Producers here keep their rules: records get no offsets only if they have them already, or
    /// a newer epoch was begun.
    pub(super) fn fenced(&mut self, index: usize) {
        let clients = &self.clients;
        let first = &clients.ops[clients.first(index)];
        let (op, told) = (&clients.ops[index], first.told);
        let over = op.stamp.is_some_and(|(stamp, _)| {
            clients.producers.epochs.get(&stamp.producer).is_some_and(|epoch| *epoch > stamp.epoch)
        });
        let what = || format!("{:?} {:?} got no offsets", op.id, op.stamp);
        self.verdict.check(B4, op.node, told.is_some() || over, what);
    }
}
