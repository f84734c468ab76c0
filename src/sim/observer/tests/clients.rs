//! B1, B3, B5, D2, D7, R2, L1, L3: what clients send, are told, and read.

use super::pair;
use super::ring::{Ring, node};
use crate::mail::{Notice, TopicId};
use crate::sim::observer::{Answer, Invariant, OpId, record_hash};
use chainring_ring::ids::Durability;

use Durability::{Memory, Sync};

const TOPIC: TopicId = TopicId(0);

/// Request `op` with one record, whose value was delivered at the next offset.
fn append(ring: &mut Ring, op: u32, record: &[u8]) {
    ring.observer.invoked(OpId(op), node(0), TOPIC, &[record_hash(record)]);
    ring.value(0);
    ring.run();
}

#[test]
fn b1_only_what_was_sent_comes() {
    pair(Invariant::B1, Sync, |ring, broken| {
        append(ring, 0, b"one");
        ring.observer.read(node(1), TOPIC, 0, if broken { b"two" } else { b"one" });
    });
}

#[test]
fn b1_a_record_comes_once() {
    pair(Invariant::B1, Sync, |ring, broken| {
        append(ring, 0, b"one");
        append(ring, 1, b"two");
        ring.observer.read(node(1), TOPIC, 0, b"one");
        ring.observer.read(node(1), TOPIC, 1, if broken { b"one" } else { b"two" });
    });
}

#[test]
fn b3_an_offset_keeps_its_record() {
    pair(Invariant::B3, Sync, |ring, broken| {
        append(ring, 0, b"one");
        append(ring, 1, b"two");
        ring.observer.read(node(1), TOPIC, 0, b"one");
        ring.observer.read(node(2), TOPIC, 0, if broken { b"two" } else { b"one" });
    });
}

#[test]
fn b3_runs_have_no_gap() {
    pair(Invariant::B3, Sync, |ring, broken| {
        append(ring, 0, b"one");
        let first_offset = if broken { 2 } else { 1 };
        let run = Notice::Run { topic: TOPIC, first_offset, count: 1, skip: 0, at: 0 };
        ring.observer.notice(node(0), &run);
    });
}

#[test]
fn b3_a_topic_keeps_its_name() {
    pair(Invariant::B3, Sync, |ring, broken| {
        for (at, name) in [(0, "a"), (1, if broken { "b" } else { "a" })] {
            let topic = Notice::Topic { id: TOPIC, name: name.into() };
            ring.observer.notice(node(at), &topic);
        }
    });
}

#[test]
fn b4_records_of_a_request_stay_in_order() {
    pair(Invariant::B4, Sync, |ring, broken| {
        let hashes = [b"one", b"two"].map(|record| record_hash(record));
        ring.observer.invoked(OpId(0), node(0), TOPIC, &hashes);
        let records = if broken { [b"two", b"one"] } else { [b"one", b"two"] };
        ring.observer.read(node(1), TOPIC, 0, records[0]);
        ring.observer.read(node(1), TOPIC, 1, records[1]);
    });
}

#[test]
fn b5_what_was_acknowledged_is_there() {
    pair(Invariant::B5, Sync, |ring, broken| {
        append(ring, 0, b"one");
        append(ring, 1, b"two");
        let (zero, one) = if broken { (1, 0) } else { (0, 1) };
        ring.observer.answered(OpId(0), Answer::Appended(zero, zero));
        ring.observer.answered(OpId(1), Answer::Appended(one, one));
        ring.observer.read(node(1), TOPIC, 0, b"one");
    });
}

#[test]
fn b5_what_was_refused_never_comes() {
    pair(Invariant::B5, Sync, |ring, broken| {
        append(ring, 0, b"one");
        ring.observer.answered(OpId(0), if broken { Answer::Refused } else { Answer::Unknown });
        ring.observer.read(node(1), TOPIC, 0, b"one");
    });
}

#[test]
fn b5_what_was_acknowledged_is_not_lost() {
    pair(Invariant::B5, Sync, |ring, broken| {
        append(ring, 0, b"one");
        ring.observer.answered(OpId(0), Answer::Appended(0, 0));
        if !broken {
            ring.observer.read(node(1), TOPIC, 0, b"one");
        }
        ring.finish(true);
    });
}

/// An answer that speaks of nothing delivered: nobody's memory, nobody's disk holds it.
#[test]
fn d1_and_d2_an_answer_rests_on_a_quorum() {
    for (rule, durability) in [(Invariant::D1, Sync), (Invariant::D2, Memory)] {
        pair(rule, durability, |ring, broken| {
            append(ring, 0, b"one");
            let offset = u64::from(broken);
            ring.observer.answered(OpId(0), Answer::Appended(offset, offset));
        });
    }
}

#[test]
fn d7_what_is_served_is_the_record() {
    pair(Invariant::D7, Sync, |ring, broken| {
        append(ring, 0, b"one");
        ring.observer.read(node(1), TOPIC, 0, b"one");
        ring.observer.read(node(2), TOPIC, 0, if broken { b"0ne" } else { b"one" });
    });
}

/// The second request began when the first was acknowledged.
#[test]
fn r2_real_time_order_is_kept() {
    pair(Invariant::R2, Sync, |ring, broken| {
        append(ring, 0, b"one");
        append(ring, 9, b"two");
        if broken {
            ring.observer.answered(OpId(0), Answer::Appended(1, 1));
            ring.observer.invoked(OpId(1), node(0), TOPIC, &[record_hash(b"three")]);
        } else {
            ring.observer.invoked(OpId(1), node(0), TOPIC, &[record_hash(b"three")]);
            ring.observer.answered(OpId(0), Answer::Appended(1, 1));
        }
        ring.observer.answered(OpId(1), Answer::Appended(0, 0));
    });
}

#[test]
fn l1_every_request_ends() {
    pair(Invariant::L1, Sync, |ring, broken| {
        append(ring, 0, b"one");
        if !broken {
            ring.observer.answered(OpId(0), Answer::Unknown);
        }
        ring.finish(true);
    });
}

#[test]
fn l1_all_logs_become_equal() {
    pair(Invariant::L1, Memory, |ring, broken| {
        ring.value(0);
        match broken {
            true => (0..2).for_each(|_| (0..2).for_each(|at| (ring.pump(at), ring.write(at)).0)),
            false => ring.run(),
        }
        ring.finish(true);
    });
}

/// Worse than the fault model: what is lost is excused, what is there must be right.
#[test]
fn beyond_the_model_nothing_false_is_there() {
    let play = |offset| {
        let mut ring = Ring::new(Sync);
        append(&mut ring, 0, b"one");
        append(&mut ring, 1, b"two");
        ring.observer.answered(OpId(0), Answer::Appended(0, 0));
        ring.observer.read(node(2), TOPIC, offset, b"one");
        ring.finish(false);
        ring.observer.violation().map(|violation| violation.invariant)
    };
    assert_eq!(play(0), None, "the other request was not even answered");
    assert_eq!(play(1), Some(Invariant::B5), "acknowledged elsewhere");
}

#[test]
fn b3_offsets_end_where_the_log_does() {
    for whole in [false, true] {
        pair(Invariant::B3, Sync, |ring, broken| {
            append(ring, 0, b"one");
            append(ring, 1, b"two");
            for op in 0..2 {
                ring.observer.answered(OpId(op), Answer::Unknown);
            }
            ring.offsets[2] += u64::from(broken);
            ring.finish(whole);
        });
    }
}

#[test]
fn l3_queues_are_looked_at_one_by_one() {
    pair(Invariant::L3, Sync, |ring, broken| {
        let queues = [("outbox", 4, 4), ("backlog", 2 + usize::from(broken), 2)];
        ring.observer.queues(node(0), queues.into_iter());
    });
}

#[test]
fn l3_a_queue_stays_below_its_cap() {
    pair(Invariant::L3, Sync, |ring, broken| {
        ring.observer.queue(node(0), "outbox", 4 + usize::from(broken), 4);
    });
}
