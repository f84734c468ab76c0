//! A1 to A8, B2, B4, L2, L4: what is proposed, voted, chosen, delivered.

use super::pair;
use super::ring::{Bend, Ring, node, sender};
use crate::sim::observer::history::History;
use crate::sim::observer::verdict::Verdict;
use crate::sim::observer::{Invariant, Stopped};
use chainring_ring::actions::{Actions, Input};
use chainring_ring::codec::{CLAIM_BYTES, VOTE_BYTES, put_vote};
use chainring_ring::core::Recovered;
use chainring_ring::header::{Header, Kind};
use chainring_ring::ids::{
    Ballot, Claim, Durability, Entry, Incarnation, Instance, NodeId, Order, Sequence,
};
use chainring_ring::votes::Vote;

use Durability::{Memory, Sync};

fn ballot(round: u32, node: u8) -> Ballot {
    Ballot { round, node: NodeId(node), incarnation: Incarnation(1) }
}

fn order(instance: u64, ballot: Ballot, entry: Entry) -> Order {
    Order { instance: Instance(instance), ballot, base: Instance(0), entry, decided: false }
}

/// The order of the first instance, as it lies in node 1's window.
fn first_order(ring: &Ring) -> Order {
    ring.cores[0].window().get(Instance(0)).expect("the barrier").order
}

#[test]
fn a1_one_entry_at_a_ballot() {
    pair(Invariant::A1, Sync, |ring, broken| {
        let mut order = first_order(ring);
        if broken {
            order.entry = Entry::Noop;
        }
        ring.control_order(1, &order);
    });
}

#[test]
fn a1_a_ballot_is_not_taken_up_by_a_later_life() {
    let mut history = History::new(&[1, 2, 3].map(NodeId), 64);
    let mut verdict = Verdict::default();
    for (instance, life, fault) in [(0, 1, false), (1, 1, false), (2, 2, true)] {
        let order = order(instance, ballot(1, 1), Entry::Noop);
        history.order(&mut verdict, NodeId(1), &order, Some(life));
        let found = verdict.violation.as_ref().map(|violation| violation.invariant);
        assert_eq!(found, fault.then_some(Invariant::A1));
    }
}

#[test]
fn a2_a_promise_is_durable_first() {
    pair(Invariant::A2, Sync, |ring, broken| {
        ring.bend = broken.then_some((node(1), Bend::LoseSuperblocks));
        ring.step(0, Input::Campaign);
        ring.run();
    });
}

#[test]
fn a2_a_restart_remembers_the_promise() {
    pair(Invariant::A2, Sync, |ring, broken| {
        let mut recovered = ring.recovered(2);
        if broken {
            recovered = Recovered { promised: Ballot::ZERO, ..recovered };
        }
        ring.restart(2, Stopped::Crash, recovered);
    });
}

#[test]
fn a3_nobody_accepts_what_nobody_proposed() {
    pair(Invariant::A3, Sync, |ring, broken| {
        let next = order(1, ring.cores[0].promised(), Entry::Noop);
        if broken {
            ring.step(1, Input::Order(next));
        }
    });
}

#[test]
fn a3_a_vote_is_frozen_by_a_higher_promise() {
    pair(Invariant::A3, Sync, |ring, broken| {
        ring.value(0);
        ring.pump(0);
        // The promise is on its way to the disk.
        let (mut promised, mut actions) = (ring.cores[1].clone(), Actions::new());
        let input = Input::Prepare { ballot: ballot(9, 3) };
        promised.step(input, &mut actions);
        ring.observer.stepped(node(1), &promised, &input, actions.as_slice());
        if !broken {
            ring.cores[1] = promised;
        }
        ring.write(1);
    });
}

/// A coordinator that hears nothing of the next ballot until that has decided: what it hears then
/// lets it order once more; only a claim, or an order, takes its ballot from it (seed 2411).
#[test]
fn a3_a_vote_may_move_though_a_higher_ballot_has_decided() {
    let mut ring = Ring::new(Sync);
    ring.run();
    let recovered = ring.recovered(2);
    ring.restart(2, Stopped::Crash, recovered);
    ring.step(2, Input::Campaign);
    ring.lose_frames(0);
    ring.arrive();
    for instance in ring.cores[2].window().first().0..ring.cores[2].received().0 {
        let order = ring.cores[2].window().get(Instance(instance)).expect("ordered").order;
        ring.control_order(2, &order);
        ring.step(1, Input::Order(order));
    }
    ring.write(1);
    ring.write(2);
    let before = ring.cores[0].votes().of(node(0)).copied().expect("its own");
    for at in [1, 2] {
        let vote = *ring.cores[at].votes().of(node(at)).expect("its own");
        ring.step(0, Input::Vote(vote));
    }
    let once_more = ring.cores[0].window().get(before.received).expect("ordered").order;
    assert_eq!(once_more.ballot, before.ballot);
    assert_eq!(ring.cores[0].promised(), before.ballot, "it holds no order of the other");
    let vote = *ring.cores[1].votes().of(node(1)).expect("its own");
    ring.step(2, Input::Vote(vote));
    let claim = ring.cores[2].claim();
    ring.step(0, Input::Claim(claim));
    assert!(ring.cores[0].promised() > before.ballot);
    assert_eq!(ring.observer.violation(), None);
}

fn proposed(verdict: &mut Verdict, all: &[(Ballot, Entry)]) -> History {
    let mut history = History::new(&[1, 2, 3].map(NodeId), 64);
    for (life, (ballot, entry)) in (1..).zip(all) {
        history.order(verdict, ballot.node, &order(0, *ballot, *entry), Some(life));
    }
    history
}

fn votes(history: &mut History, verdict: &mut Verdict, nodes: [u8; 2], ballot: Ballot) {
    for node in nodes {
        history.vote(verdict, NodeId(node), Instance(0), ballot);
    }
}

const BARRIER: Entry =
    Entry::Barrier(Ballot { round: 1, node: NodeId(1), incarnation: Incarnation(1) });

/// Two ballots choose: the same, or not. Both were proposed before anything was chosen.
#[test]
fn a4_one_entry_is_chosen() {
    let entries = [(BARRIER, None), (Entry::Noop, Some(Invariant::A4))];
    for (second, fault) in entries {
        let mut verdict = Verdict::default();
        let all = [(ballot(1, 1), BARRIER), (ballot(2, 2), second)];
        let mut history = proposed(&mut verdict, &all);
        votes(&mut history, &mut verdict, [2, 3], ballot(2, 2));
        votes(&mut history, &mut verdict, [1, 2], ballot(1, 1));
        assert_eq!(verdict.violation.map(|violation| violation.invariant), fault);
        assert_eq!(history.chosen_to, Instance(1));
    }
}

#[test]
fn a5_what_is_chosen_is_proposed_again() {
    let entries = [(BARRIER, None), (Entry::Noop, Some(Invariant::A5))];
    for (second, fault) in entries {
        let mut verdict = Verdict::default();
        let mut history = proposed(&mut verdict, &[(ballot(1, 1), BARRIER)]);
        votes(&mut history, &mut verdict, [1, 2], ballot(1, 1));
        history.order(&mut verdict, NodeId(2), &order(0, ballot(2, 2), second), Some(1));
        assert_eq!(verdict.violation.map(|violation| violation.invariant), fault);
        // The same, seen the other way round: the proposal was there before the votes.
        let mut verdict = Verdict::default();
        let all = [(ballot(1, 1), BARRIER), (ballot(2, 2), second)];
        let mut history = proposed(&mut verdict, &all);
        votes(&mut history, &mut verdict, [1, 2], ballot(1, 1));
        assert_eq!(verdict.violation.map(|violation| violation.invariant), fault);
    }
}

/// One acceptor counted twice is no quorum.
#[test]
fn votes_of_one_node_are_one_vote() {
    let mut verdict = Verdict::default();
    let mut history = proposed(&mut verdict, &[(ballot(1, 1), BARRIER)]);
    votes(&mut history, &mut verdict, [1, 1], ballot(1, 1));
    assert_eq!(history.chosen_to, Instance(0));
}

#[test]
fn a6_decided_needs_a_quorum() {
    pair(Invariant::A6, Sync, |ring, broken| {
        ring.value(0);
        ring.pump(0);
        let position = Instance(if broken { 2 } else { 1 });
        let ballot = ring.cores[1].promised();
        ring.step(1, Input::Claim(Claim { ballot, position }));
    });
}

#[test]
fn a6_a_vote_needs_the_value() {
    pair(Invariant::A6, Memory, |ring, broken| {
        ring.bend = broken.then_some((node(1), Bend::LosePackets));
        ring.value(0);
        ring.run();
    });
}

#[test]
fn a6_an_id_has_one_payload() {
    pair(Invariant::A6, Sync, |ring, broken| {
        let id = ring.value(0);
        let body = u128::from(id.sequence.0) + u128::from(broken);
        let header = Header {
            origin: id.origin,
            session: id.session,
            sequence: id.sequence,
            checksum_body: body,
            ..sender(1).header(Kind::Value, 512, 1)
        };
        ring.observer.value_frame(node(1), &header);
    });
}

#[test]
fn a7_a_vote_that_is_passed_on_is_its_nodes() {
    pair(Invariant::A7, Sync, |ring, broken| {
        ring.value(0);
        ring.run();
        let mut vote = *ring.cores[0].votes().of(node(2)).expect("heard");
        vote.durable.0 += u64::from(broken);
        votes_frame(ring, 0, &vote);
    });
}

fn votes_frame(ring: &mut Ring, at: usize, vote: &Vote) {
    let mut body = [0; CLAIM_BYTES + VOTE_BYTES];
    put_vote(vote, &mut body[CLAIM_BYTES..]);
    ring.observer.control_frame(node(at), &sender(at).header(Kind::Votes, 0, 0), &body);
}

#[test]
fn a8_a_lost_disk_is_another_incarnation() {
    pair(Invariant::A8, Sync, |ring, broken| {
        let incarnation = Incarnation(if broken { 1 } else { 2 });
        ring.superblocks[2].incarnation = incarnation;
        ring.superblocks[2].promised = Ballot::ZERO;
        ring.restart(2, Stopped::DiskLost, Recovered::default());
    });
}

#[test]
fn a8_who_forgot_answers_nothing() {
    pair(Invariant::A8, Memory, |ring, broken| {
        ring.superblocks[2].incarnation = Incarnation(2);
        ring.restart(2, Stopped::Crash, Recovered::default());
        let frame = sender(2).promise(&ring.cores[2], Ballot::ZERO);
        if broken {
            ring.observer.direct_frame(node(2), node(0), &frame);
        }
    });
}

/// What recovery delivers again is what was delivered.
#[test]
fn b2_a_replay_is_the_same_log() {
    pair(Invariant::B2, Sync, |ring, broken| {
        let slot = ring.cores[0].window().get(Instance(0)).copied();
        let mut order = slot.expect("the first barrier").order;
        if broken {
            order.entry = Entry::Noop;
        }
        ring.observer.replayed_as(node(1), &order);
    });
}

#[test]
fn b2_all_deliver_the_same() {
    pair(Invariant::B2, Memory, |ring, broken| {
        ring.bend = broken.then_some((node(2), Bend::DeliverNoops));
        ring.value(0);
        ring.run();
    });
}

#[test]
fn b3_no_delivery_is_left_out() {
    pair(Invariant::B3, Memory, |ring, broken| {
        ring.value(0);
        if !broken {
            return ring.run();
        }
        // The first delivery goes unseen, the second is seen in the same step.
        ring.value(0);
        ring.bend = Some((node(2), Bend::LoseFirstDelivery));
        ring.run();
    });
}

#[test]
fn b4_the_next_sequence_counts() {
    pair(Invariant::B4, Memory, |ring, broken| {
        ring.bend = broken.then_some((node(1), Bend::CountWrongly));
        ring.value(0);
        ring.run();
    });
}

#[test]
fn b4_a_session_is_durable_before_its_values() {
    pair(Invariant::B4, Sync, |ring, broken| {
        let mut id = ring.value(1);
        if broken {
            id.session.start += 1;
            id.sequence = Sequence(0);
        }
        let keep = chainring_ring::actions::Action::Keep { id, forward: false };
        let told = if broken { vec![keep] } else { vec![] };
        ring.observer.stepped(node(1), &ring.cores[1], &Input::Continue, &told);
    });
}

/// One more ballot is allowed here, two are a duel.
#[test]
fn l2_few_ballots_when_the_faults_are_over() {
    pair(Invariant::L2, Sync, |ring, broken| {
        ring.observer.healed(1);
        for _ in 0..1 + usize::from(broken) {
            ring.step(0, Input::Campaign);
            ring.run();
        }
    });
}

/// A node in another life learns from the log what it once opened; that is none of its own.
#[test]
fn l2_ballots_of_a_life_before_are_not_opened() {
    pair(Invariant::L2, Sync, |ring, broken| {
        ring.observer.healed(0);
        let incarnation = Incarnation(u32::from(broken));
        ring.observer.promises(NodeId(1), Ballot { incarnation, ..ballot(9, 1) });
    });
}

#[test]
fn l4_a_value_crosses_a_link_once() {
    for (again, fault) in [(false, None), (true, Some(Invariant::L4))] {
        let mut ring = Ring::blank(Memory, true);
        ring.step(0, Input::Campaign);
        ring.run();
        let id = ring.value(0);
        if again {
            ring.forward(1, id);
        }
        ring.run();
        ring.finish(true);
        let found = ring.observer.violation();
        assert_eq!(found.map(|violation| violation.invariant), fault, "{found:?}");
    }
}
