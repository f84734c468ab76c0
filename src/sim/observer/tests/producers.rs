//! B4 of producers: what they repeat comes once, in order, and they are told the same each time.

use super::pair;
use super::ring::{Ring, node};
use crate::mail::TopicId;
use crate::records::Stamp;
use crate::sim::observer::{Answer, Invariant, OpId, record_hash};
use chainring_ring::ids::Durability::Sync;

const TOPIC: TopicId = TopicId(0);

/// Request `op` with one record of a producer, whose value was delivered at the next offset.
fn produce(ring: &mut Ring, op: u32, (epoch, sequence): (u32, u64), record: &[u8]) {
    let stamp = Stamp { producer: 7, epoch, sequence };
    ring.observer.produced(OpId(op), node(0), TOPIC, &[record_hash(record)], stamp);
    ring.value(0);
    ring.run();
}

#[test]
fn b4_a_retry_is_told_the_first_offsets() {
    pair(Invariant::B4, Sync, |ring, broken| {
        produce(ring, 0, (0, 0), b"one");
        produce(ring, 1, (0, 1), b"two");
        ring.observer.repeated(OpId(2), OpId(0), node(1));
        ring.observer.answered(OpId(0), Answer::Appended(0, 0));
        let at = u64::from(broken);
        ring.observer.answered(OpId(2), Answer::Appended(at, at));
    });
}

#[test]
fn b4_records_of_a_producer_come_in_order() {
    for stamps in [[(0, 0), (0, 1)], [(0, 5), (1, 0)]] {
        pair(Invariant::B4, Sync, |ring, broken| {
            let (first, second) = if broken { (1, 0) } else { (0, 1) };
            produce(ring, 0, stamps[first], b"one");
            produce(ring, 1, stamps[second], b"two");
            ring.observer.read(node(1), TOPIC, 0, b"one");
            ring.observer.read(node(1), TOPIC, 1, b"two");
        });
    }
}

#[test]
fn b4_who_keeps_the_rules_gets_offsets() {
    pair(Invariant::B4, Sync, |ring, broken| {
        produce(ring, 0, (0, 0), b"one");
        ring.observer.repeated(OpId(1), OpId(0), node(1));
        if !broken {
            ring.observer.answered(OpId(1), Answer::Appended(0, 0));
        }
        ring.observer.answered(OpId(0), Answer::Fenced);
    });
    pair(Invariant::B4, Sync, |ring, broken| {
        produce(ring, 0, (0, 0), b"one");
        produce(ring, 1, (u32::from(!broken), 0), b"two");
        ring.observer.answered(OpId(0), Answer::Fenced);
    });
}

#[test]
fn b5_all_that_carried_it_were_refused() {
    pair(Invariant::B5, Sync, |ring, broken| {
        produce(ring, 0, (0, 0), b"one");
        ring.observer.repeated(OpId(1), OpId(0), node(1));
        ring.observer.answered(OpId(0), Answer::Refused);
        ring.observer.answered(OpId(1), if broken { Answer::Refused } else { Answer::Unknown });
        ring.observer.read(node(1), TOPIC, 0, b"one");
    });
}
