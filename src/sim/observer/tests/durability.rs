//! D1 to D6: what is on stable media, what an acceptor reports, what a failure stops.

use super::pair;
use super::ring::{Bend, Ring, node};
use crate::records::Digest;
use crate::sim::observer::{Invariant, Stopped};
use chainring_ring::actions::Input;
use chainring_ring::ids::{Durability, Entry, Instance};

use Durability::{Async, Sync};

/// The mutant "ack before flush": the core is told, the disk was not.
#[test]
fn d1_a_vote_is_durable() {
    pair(Invariant::D1, Sync, |ring, broken| {
        ring.bend = broken.then_some((node(1), Bend::LoseGroups));
        ring.value(0);
        ring.run();
    });
}

/// What comes behind a group that is not complete does not count.
#[test]
fn d1_groups_count_in_order() {
    pair(Invariant::D1, Sync, |ring, broken| {
        if broken {
            ring.lose_group(1);
        }
        ring.value(0);
        ring.pump(0);
        ring.write(1);
    });
}

#[test]
fn async_votes_do_not_wait_for_the_disk() {
    let mut ring = Ring::new(Async);
    ring.bend = Some((node(1), Bend::LoseGroups));
    ring.value(0);
    ring.run();
    assert_eq!(ring.observer.violation(), None);
    assert_eq!(ring.cores[0].delivered(), Instance(2));
}

/// The mutant "a block says delivered of what is not in the log yet".
#[test]
fn b2_the_log_holds_what_it_calls_delivered() {
    pair(Invariant::B2, Async, |ring, broken| {
        ring.bend = broken.then_some((node(1), Bend::LoseOrders));
        for _ in 0..2 {
            ring.value(0);
            ring.run();
        }
    });
}

#[test]
fn d3_an_answer_reports_all() {
    pair(Invariant::D3, Sync, |ring, broken| {
        ring.bend = broken.then_some((node(1), Bend::EmptyAnswers));
        ring.value(0);
        ring.pump(0);
        ring.write(1);
        ring.step(0, Input::Campaign);
        ring.run();
    });
}

#[test]
fn d3_a_restart_finds_all_that_was_durable() {
    pair(Invariant::D3, Sync, |ring, broken| {
        ring.value(0);
        ring.pump(0);
        ring.write(1);
        let mut recovered = ring.recovered(1);
        assert!(!recovered.orders.is_empty() && !recovered.values.is_empty());
        if broken {
            recovered.orders.clear();
        }
        ring.restart(1, Stopped::Crash, recovered);
    });
}

#[test]
fn d3_an_order_without_its_value_is_not_enough() {
    pair(Invariant::D3, Sync, |ring, broken| {
        ring.value(0);
        ring.pump(0);
        ring.write(1);
        let mut recovered = ring.recovered(1);
        if broken {
            recovered.values.clear();
        }
        ring.restart(1, Stopped::Crash, recovered);
    });
}

/// A higher ballot takes the place of orders that were voted for; nobody was told of that write
/// before the crash. The new value has not come yet, the old ones must still be there.
#[test]
fn d3_a_value_outlives_its_order() {
    pair(Invariant::D3, Sync, |ring, broken| {
        let before = ring.recovered(0);
        ring.bend = Some((node(1), Bend::HoldPackets));
        let voted = [ring.value(0), ring.value(0)];
        ring.pump(0);
        ring.write(1);
        ring.restart(0, Stopped::Crash, before);
        ring.step(2, Input::Campaign);
        ring.lose_frames(1);
        ring.arrive();
        ring.bend = Some((node(0), Bend::HoldPackets));
        let new = Entry::Value(ring.value(2));
        ring.pump(2);
        ring.pump(0);
        let mut recovered = ring.recovered(1);
        assert_eq!(recovered.orders.last().map(|order| order.entry), Some(new));
        assert!(recovered.orders.len() == voted.len() && recovered.values.is_empty());
        recovered.values.extend(&voted[usize::from(broken)..]);
        ring.restart(1, Stopped::Crash, recovered);
    });
}

/// A node whose value and order are durable, and a recovery that found neither.
fn loses_all(ring: &mut Ring) -> chainring_ring::core::Recovered {
    ring.value(0);
    ring.pump(0);
    ring.write(1);
    let mut recovered = ring.recovered(1);
    recovered.orders.clear();
    recovered.values.clear();
    recovered
}

/// The mark of a clean stop says that all of it is on the disk, whoever was told of a write.
#[test]
fn d3_a_clean_stop_leaves_nothing_behind() {
    pair(Invariant::D3, Async, |ring, broken| {
        ring.bend = Some((node(1), Bend::LoseGroups));
        ring.value(0);
        ring.pump(0);
        ring.write(1);
        let mut recovered = ring.recovered(1);
        if broken {
            recovered.orders.clear();
        }
        ring.restart(1, Stopped::Clean, recovered);
    });
}

/// What a node's vote has chosen it owes also after damage, once it calls itself whole.
#[test]
fn d3_damage_does_not_pay_what_is_owed() {
    pair(Invariant::D3, Sync, |ring, broken| {
        ring.value(0);
        ring.pump(0);
        ring.write(1);
        ring.write(0);
        let whole = ring.recovered(1);
        let mut lost = whole.clone();
        lost.orders.clear();
        let mended = lost.clone();
        lost.damaged = true;
        ring.observer.disk_harmed(node(1));
        ring.restart(1, Stopped::Crash, lost);
        ring.restart(1, Stopped::Crash, if broken { mended } else { whole });
    });
}

/// Damage that is known, or a disk that lied, is no false answer.
#[test]
fn d3_what_is_unknown_is_excused() {
    for lied in [false, true] {
        let mut ring = Ring::new(Sync);
        let mut recovered = loses_all(&mut ring);
        recovered.damaged = !lied;
        match lied {
            true => ring.observer.disk_lied(node(1)),
            false => ring.observer.disk_harmed(node(1)),
        }
        ring.restart(1, Stopped::Crash, recovered);
        ring.step(0, Input::Campaign);
        ring.run();
        assert_eq!(ring.observer.violation(), None);
    }
}

/// Of a group that is not there only what lies from there on may be missing: the value is in the
/// second group of node 2.
#[test]
fn d3_a_lost_group_excuses_nothing_before_it() {
    pair(Invariant::D3, Sync, |ring, broken| {
        ring.observer.group_lied(node(1), if broken { 3 } else { 2 });
        let recovered = loses_all(ring);
        ring.restart(1, Stopped::Crash, recovered);
    });
}

/// What a recovery is bound to notice, it must say.
#[test]
fn d3_harm_that_is_not_told_excuses_nothing() {
    pair(Invariant::D3, Sync, |ring, broken| {
        ring.observer.disk_harmed(node(1));
        let mut recovered = loses_all(ring);
        recovered.damaged = !broken;
        ring.restart(1, Stopped::Crash, recovered);
    });
}

/// A lie is over with the life in which it was told: what was found then must be found again.
#[test]
fn d3_a_lie_excuses_one_start() {
    pair(Invariant::D3, Sync, |ring, broken| {
        ring.observer.disk_lied(node(1));
        ring.value(0);
        ring.pump(0);
        ring.write(1);
        let whole = ring.recovered(1);
        ring.restart(1, Stopped::Crash, whole);
        let mut recovered = ring.recovered(1);
        if broken {
            recovered.orders.clear();
        }
        ring.restart(1, Stopped::Crash, recovered);
    });
}

/// The promise lies in the superblock: what the log lost does not excuse it.
#[test]
fn a2_a_lie_of_the_log_excuses_no_promise() {
    pair(Invariant::A2, Sync, |ring, broken| {
        ring.observer.disk_lied(node(1));
        let mut recovered = ring.recovered(1);
        if broken {
            recovered.promised.round -= 1;
        }
        ring.restart(1, Stopped::Crash, recovered);
    });
}

/// What a start found must not be gone with the power.
#[test]
fn d1_what_is_recovered_is_durable() {
    pair(Invariant::D1, Sync, |ring, broken| ring.observer.recovered(node(1), !broken));
}

/// A node that calls a whole disk damaged would be excused from everything.
#[test]
fn d3_damage_is_not_taken_at_its_word() {
    let mut ring = Ring::new(Sync);
    ring.value(0);
    ring.pump(0);
    ring.write(1);
    let mut recovered = ring.recovered(1);
    recovered.damaged = true;
    ring.restart(1, Stopped::Crash, recovered);
    let named = ring.observer.violation().map(|violation| violation.invariant);
    assert_eq!(named, Some(Invariant::D3));
}

/// What was not durable at a crash may be gone.
#[test]
fn what_was_volatile_may_be_lost() {
    let mut ring = Ring::new(Sync);
    let before = ring.recovered(1);
    ring.value(0);
    ring.pump(0);
    ring.restart(1, Stopped::Crash, before);
    ring.run();
    assert_eq!(ring.observer.violation(), None);
}

/// The turn in which the node is told is its last.
#[test]
fn d4_a_failed_write_ends_the_life() {
    pair(Invariant::D4, Sync, |ring, broken| {
        ring.observer.turned(node(1));
        ring.observer.io_failed(node(1));
        ring.step(1, Input::Continue);
        if !broken {
            let recovered = ring.recovered(1);
            ring.restart(1, Stopped::Failure, recovered);
        }
        ring.observer.turned(node(1));
    });
}

#[test]
fn d4_no_life_ends_well_behind_an_error() {
    pair(Invariant::D4, Async, |ring, broken| {
        ring.observer.io_failed(node(1));
        let how = if broken { Stopped::Clean } else { Stopped::Failure };
        ring.observer.stopped(node(1), how);
    });
}

#[test]
fn d6_equal_positions_have_equal_digests() {
    pair(Invariant::D6, Sync, |ring, broken| {
        ring.observer.digest(node(0), Instance(1), Digest(5));
        ring.observer.digest(node(1), Instance(2), Digest(6));
        ring.observer.digest(node(2), Instance(1), Digest(if broken { 6 } else { 5 }));
    });
}
