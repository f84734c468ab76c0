//! Direct messages, fetch and catch-up between nodes.

use super::*;
use crate::gauges::Halt;
use crate::peers::frames::ANSWER_BYTES;
use crate::peers::mesh::{DIRECTS_MAX, Mesh, QUESTIONS_MAX};
use futures_lite::future::or;
use std::time::Instant;

async fn value(node: &Node) -> Vec<u8> {
    let value = |command: &mut Command| match command {
        Command::Value { frame } => Some(std::mem::take(frame)),
        _ => None,
    };
    node.next(value).await
}

async fn not_held(node: &Node) -> ValueId {
    let not_held = |command: &mut Command| match command {
        Command::NotHeld { id } => Some(*id),
        _ => None,
    };
    node.next(not_held).await
}

async fn entries(node: &Node) -> (Claim, Vec<Order>, Vec<u8>) {
    let entries = |command: &mut Command| match command {
        Command::Entries { claim, orders, frames } => {
            Some((*claim, std::mem::take(orders), std::mem::take(frames)))
        }
        _ => None,
    };
    node.next(entries).await
}

async fn direct(node: &Node) -> (NodeId, Vec<u8>) {
    let direct = |command: &mut Command| match command {
        Command::Direct { from, frame } => Some((*from, std::mem::take(frame))),
        _ => None,
    };
    node.next(direct).await
}

fn ask(node: &Node, id: ValueId) {
    assert!(node.peers.on_notice(Notice::FetchValue { id }).is_none());
}

fn catch_up(node: &Node, from: u64) {
    assert!(node.peers.on_notice(Notice::CatchUp { from: Instance(from) }).is_none());
}

fn send(node: &Node, to: u8, frame: Vec<u8>) {
    assert!(node.peers.on_notice(Notice::Direct { to: NodeId(to), frame }).is_none());
}

/// Says a direct message until it is heard: a connection that ends takes along what it carries.
async fn say(from: &Node, to: u8, hears: &Node, frame: Vec<u8>) -> NodeId {
    loop {
        send(from, to, frame.clone());
        let silence = async {
            pause(Duration::from_millis(200)).await;
            None
        };
        let heard = or(async { Some(direct(hears).await) }, silence).await;
        if let Some((by, _)) = heard.filter(|(_, heard)| *heard == frame) {
            return by;
        }
    }
}

/// A log of values of 32 KiB with no-ops and second occurrences between them.
pub fn fill<H>(world: &World<H>, values: u64) -> (Vec<Entry>, Vec<u8>) {
    let (mut all, mut bytes) = (Vec::new(), Vec::new());
    for sequence in 0..values {
        let frame = frame(Kind::Value, id(1, sequence), 32 << 10);
        world.append(Entry::Value(id(1, sequence)), &frame);
        all.push(Entry::Value(id(1, sequence)));
        bytes.extend(frame);
        if sequence % 7 == 0 {
            for entry in [Entry::Noop, Entry::Value(id(1, sequence))] {
                world.append(entry, &[]);
                all.push(entry);
            }
        }
    }
    (all, bytes)
}

#[test]
fn direct_messages_go_both_ways_and_nothing_else_does() {
    run(|executor| async move {
        let nodes = cluster(&executor, 3);
        let prepare = frame(Kind::Prepare, id(1, 0), 136);
        let promise = frame(Kind::Promise, id(2, 0), 70_008);
        send(&nodes[0], 2, prepare.clone());
        send(&nodes[0], 3, prepare.clone());
        send(&nodes[0], 9, prepare.clone());
        assert_eq!(direct(&nodes[1]).await, (NodeId(1), prepare.clone()));
        assert_eq!(direct(&nodes[2]).await, (NodeId(1), prepare.clone()));
        send(&nodes[1], 1, promise.clone());
        assert_eq!(direct(&nodes[0]).await, (NodeId(2), promise));
        // One made by another node, one of a kind that belongs elsewhere and one of another
        // cluster end the connection.
        let mut foreign = frame(Kind::Prepare, id(1, 0), 136);
        let mut header = Header::decode(&foreign, 136).unwrap();
        header.cluster = ClusterId(5);
        header.seal(&mut foreign);
        let other = frame(Kind::Prepare, id(2, 0), 136);
        let elsewhere = frame(Kind::Votes, id(1, 0), 136);
        for (count, bad) in (1..).zip([other, elsewhere, foreign]) {
            // Only a connection that carries something carries the bad one for sure.
            let good = frame(Kind::Prepare, id(1, count), 136);
            assert_eq!(say(&nodes[0], 3, &nodes[2], good).await, NodeId(1));
            send(&nodes[0], 3, bad);
            while nodes[2].gauges.bad_frames.get() < count {
                pause(Duration::from_millis(1)).await;
            }
        }
        assert_eq!(say(&nodes[0], 3, &nodes[2], prepare).await, NodeId(1));
        assert_eq!(nodes[2].gauges.bad_frames.get(), 3);
    });
}

#[test]
fn direct_messages_wait_for_a_node_that_starts_but_not_long() {
    run(|executor| async move {
        let (mut listeners, nodes) = listeners(2);
        let one = Node::start(&executor, identity(1), listeners.remove(0), &nodes);
        drop(listeners);
        send(&one, 2, frame(Kind::Prepare, id(1, 7), 136));
        pause(Duration::from_millis(1100)).await;
        send(&one, 2, frame(Kind::Prepare, id(1, 8), 136));
        let listener = listen(&nodes[1].1).unwrap();
        let two = Node::start(&executor, identity(2), listener, &nodes);
        let (_, first) = direct(&two).await;
        assert_eq!(Header::decode(&first, 1 << 20).unwrap().sequence, Sequence(8));
    });
}

#[test]
fn the_oldest_direct_message_is_dropped() {
    let mesh = Mesh::default();
    for at in 0..DIRECTS_MAX as u8 + 3 {
        mesh.direct(Duration::ZERO, vec![at]);
    }
    let envelope = crate::peers::frames::Envelope {
        cluster: ClusterId(1),
        epoch: Epoch(1),
        node: NodeId(1),
        session: Session::FIRST,
        block: 512,
        packet_max: PACKET_MAX,
    };
    let left: Vec<_> =
        std::iter::from_fn(|| mesh.next_frame(Duration::ZERO, &envelope)).flatten().collect();
    assert_eq!(left, (3..DIRECTS_MAX as u8 + 3).collect::<Vec<_>>());
}

/// Whoever asks too much of a peer that does not answer is told so at once.
#[test]
fn questions_that_wait_are_limited() {
    let mesh = Mesh::default();
    let mut asked: Vec<_> = (0..QUESTIONS_MAX as u64).map(|at| mesh.fetch(id(2, at))).collect();
    let one_more = mesh.fetch(id(2, 0));
    let now = |answer| futures_lite::future::block_on(futures_lite::future::poll_once(answer));
    assert!(matches!(now(one_more), Some(None)));
    assert!(now(asked.pop().unwrap()).is_none(), "it waits");
    assert_eq!(mesh.fill(), (0, QUESTIONS_MAX));
}

/// Held by the origin's shard, by another node's log, or by nobody.
#[test]
fn values_are_found_wherever_they_are() {
    run(|executor| async move {
        let nodes = cluster(&executor, 3);
        let held = frame(Kind::Value, id(2, 5), 1024);
        nodes[1].world.held.borrow_mut().insert(id(2, 5), held.clone());
        ask(&nodes[0], id(2, 5));
        ask(&nodes[0], id(2, 5));
        assert_eq!(value(&nodes[0]).await, held);

        let logged = frame(Kind::Value, id(2, 6), PACKET_MAX);
        nodes[2].world.append(Entry::Value(id(2, 6)), &logged);
        ask(&nodes[0], id(2, 6));
        assert_eq!(value(&nodes[0]).await, logged);

        let start = Instant::now();
        ask(&nodes[0], id(2, 7));
        assert_eq!(not_held(&nodes[0]).await, id(2, 7));
        assert!(start.elapsed() < Duration::from_millis(300));
        ask(&nodes[0], id(2, 7));
        assert_eq!(not_held(&nodes[0]).await, id(2, 7));
        assert!(start.elapsed() > Duration::from_millis(450), "asked again too soon");

        // Asked for many at once: each comes once.
        for sequence in 100..300 {
            let frame = frame(Kind::Value, id(3, sequence), 512);
            nodes[2].world.held.borrow_mut().insert(id(3, sequence), frame);
            ask(&nodes[0], id(3, sequence));
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 100..300 {
            seen.insert(Header::decode(&value(&nodes[0]).await, PACKET_MAX).unwrap().sequence);
        }
        assert_eq!(seen.len(), 200);
        let links = |command: &Command| {
            matches!(command, Command::Incoming { .. } | Command::Outgoing { .. })
        };
        pause(Duration::from_millis(50)).await;
        assert!(
            nodes[0]
                .world
                .commands
                .borrow()
                .iter()
                .all(|it| links(it) || matches!(it, Command::PrepareIncoming { .. }))
        );
    });
}

/// A node that is down is no node that does not hold it.
#[test]
fn a_value_is_found_once_its_holder_is_up() {
    run(|executor| async move {
        let (mut listeners, nodes) = listeners(3);
        let three = listeners.pop().unwrap();
        drop(listeners.pop());
        let one = Node::start(&executor, identity(1), listeners.pop().unwrap(), &nodes);
        let _three = Node::start(&executor, identity(3), three, &nodes);
        ask(&one, id(2, 1));
        pause(Duration::from_millis(700)).await;
        let late = |it: &Command| matches!(it, Command::NotHeld { .. } | Command::Value { .. });
        assert!(!one.world.commands.borrow().iter().any(late));
        let two = Node::start(&executor, identity(2), listen(&nodes[1].1).unwrap(), &nodes);
        let held = frame(Kind::Value, id(2, 1), 512);
        two.world.held.borrow_mut().insert(id(2, 1), held.clone());
        assert_eq!(value(&one).await, held);
    });
}

/// A node that was stopped keeps its connections and says nothing: whoever can help is asked
/// meanwhile.
#[test]
fn nobody_waits_for_a_node_that_says_nothing() {
    run(|executor| async move {
        let (mut listeners, nodes) = listeners(3);
        let three = listeners.pop().unwrap();
        let _silent = listeners.pop().unwrap();
        let one = Node::start(&executor, identity(1), listeners.pop().unwrap(), &nodes);
        let three = Node::start(&executor, identity(3), three, &nodes);
        say(&one, 3, &three, frame(Kind::Prepare, id(1, 1), 136)).await;
        let held = frame(Kind::Value, id(2, 1), 512);
        three.world.held.borrow_mut().insert(id(2, 1), held.clone());
        fill(&three.world, 3);
        let start = Instant::now();
        ask(&one, id(2, 1));
        assert_eq!(value(&one).await, held);
        assert!(start.elapsed() < Duration::from_millis(500), "value: {:?}", start.elapsed());
        let start = Instant::now();
        catch_up(&one, 0);
        entries(&one).await;
        assert!(start.elapsed() < Duration::from_millis(500), "entries: {:?}", start.elapsed());
    });
}

/// Everything arrives once, in order, in several answers, and then it is quiet.
#[test]
fn catch_up_brings_the_whole_log() {
    run(|executor| async move {
        let nodes = cluster(&executor, 3);
        fill(&nodes[0].world, 3);
        let (all, bytes) = fill(&nodes[1].world, 200);
        let node = &nodes[2];
        node.world.delivers.set(true);
        catch_up(node, 0);
        let (mut got, mut frames, mut answers) = (Vec::new(), Vec::new(), 0);
        while got.len() < all.len() {
            let (claim, orders, more) = entries(node).await;
            assert_eq!(claim.position.0, all.len() as u64);
            assert!(more.len() <= (ANSWER_BYTES + PACKET_MAX) as usize);
            for order in orders {
                assert_eq!(order.instance.0, got.len() as u64);
                assert!(order.decided);
                got.push(order.entry);
            }
            frames.extend(more);
            answers += 1;
        }
        assert!(got == all && frames == bytes);
        assert!((6..=9).contains(&answers), "{answers}");
        pause(Duration::from_millis(300)).await;
        let again = |it: &Command| matches!(it, Command::Entries { .. });
        assert!(!node.world.commands.borrow().iter().any(again));

        // From the middle, and a newer request replaces the running one.
        node.world.delivered.set(20);
        catch_up(node, 20);
        catch_up(node, 30);
        assert_eq!(entries(node).await.1[0].instance, Instance(30));
        assert_eq!(node.gauges.bad_frames.get(), 0);
    });
}

/// A shard that does not deliver is not buried: a few answers ahead, no more.
#[test]
fn catch_up_waits_for_the_shard() {
    run(|executor| async move {
        let nodes = cluster(&executor, 2);
        let (all, _) = fill(&nodes[0].world, 300);
        let node = &nodes[1];
        catch_up(node, 0);
        pause(Duration::from_millis(500)).await;
        let count = || {
            let commands = node.world.commands.borrow();
            commands.iter().filter(|it| matches!(it, Command::Entries { .. })).count()
        };
        assert_eq!(count(), crate::peers::catch_up::AHEAD_MAX);
        // It goes on when the shard does.
        node.world.delivers.set(true);
        node.world.delivered.set(60);
        let mut last = 0;
        while last + 1 < all.len() as u64 {
            last = entries(node).await.1.last().unwrap().instance.0;
        }
    });
}

/// A shard that asks again and again, faster than a slow peer answers, still gets its answer.
#[test]
fn impatience_does_not_starve_catch_up() {
    run(|executor| async move {
        let (mut listeners, nodes) = listeners(2);
        let (two, one) = (listeners.pop().unwrap(), listeners.pop().unwrap());
        let slow = Node::start_paced(&executor, identity(1), one, &nodes, 3_000_000);
        let node = Node::start(&executor, identity(2), two, &nodes);
        fill(&slow.world, 100);
        let nag = async {
            loop {
                catch_up(&node, 0);
                pause(Duration::from_millis(30)).await;
            }
        };
        let first = async { entries(&node).await.1[0].instance };
        assert_eq!(futures_lite::future::or(first, nag).await, Instance(0));
        // What the shard lost it gets again.
        catch_up(&node, 0);
        assert_eq!(entries(&node).await.1[0].instance, Instance(0));
    });
}

/// Damage at the peer that is furthest is passed by: another one has the entry.
#[test]
fn damaged_entries_come_from_another_peer() {
    run(|executor| async move {
        let nodes = cluster(&executor, 3);
        fill(&nodes[0].world, 10);
        let (all, bytes) = fill(&nodes[1].world, 11);
        nodes[1].world.disk.borrow_mut()[4 * (32 << 10) + 9000] ^= 1;
        let node = &nodes[2];
        node.world.delivers.set(true);
        catch_up(node, 0);
        let (mut got, mut frames) = (Vec::new(), Vec::new());
        while got.len() < all.len() {
            let (_, orders, more) = entries(node).await;
            got.extend(orders.iter().map(|order| order.entry));
            frames.extend(more);
        }
        assert!(got == all && frames == bytes);
        assert_eq!(node.gauges.bad_frames.get(), 0);
        // And a single value likewise.
        ask(node, id(1, 4));
        let found = value(node).await;
        assert!(found == bytes[4 * (32 << 10)..5 * (32 << 10)]);
    });
}

#[test]
fn entries_that_all_peers_have_trimmed_halt_the_node_and_say_so() {
    run(|executor| async move {
        // The fourth has an empty store: it holds all that it has, and is of no help.
        let nodes = cluster(&executor, 4);
        let node = &nodes[2];
        node.world.delivers.set(true);
        for other in &nodes[..2] {
            fill(&other.world, 20);
        }
        nodes[0].world.first.set(15);
        nodes[1].world.first.set(12);
        catch_up(node, 10);
        node.problem("needs entries from 10 on").await;
        node.problem("below 12").await;
        assert_eq!(node.gauges.halt.get(), Halt::Trimmed as u64);
        assert!(
            !node.world.commands.borrow().iter().any(|it| matches!(it, Command::Entries { .. }))
        );
        // One that holds them comes back.
        nodes[1].world.first.set(10);
        assert_eq!(entries(node).await.1[0].instance, Instance(10));
        pause(Duration::from_millis(50)).await;
        assert_eq!(node.gauges.halt.get(), Halt::None as u64);
        assert!(node.peers.problems().is_empty());
    });
}

/// The peer serving a catch-up goes away in the middle: another one goes on where it stopped.
#[test]
fn catch_up_survives_the_loss_of_its_peer() {
    run(|executor| async move {
        let mut nodes = cluster(&executor, 3);
        let three = nodes.pop().unwrap();
        let (all, _) = fill(&nodes[0].world, 200);
        fill(&nodes[1].world, 201);
        catch_up(&three, 0);
        let (_, orders, _) = entries(&three).await;
        let mut next = orders.last().unwrap().instance.0 + 1;
        nodes.remove(1);
        three.world.delivers.set(true);
        three.world.delivered.set(next);
        while next < all.len() as u64 {
            let (_, orders, _) = entries(&three).await;
            assert_eq!(orders[0].instance.0, next);
            next = orders.last().unwrap().instance.0 + 1;
        }
    });
}

/// Who catches up with a ring that is faster than the limit gets there all the same.
#[test]
fn the_limit_keeps_ahead_of_the_ring() {
    let bucket = crate::peers::serve::Bucket::new(1000);
    let rate = |ms, delivered| {
        bucket.keep_ahead(Duration::from_millis(ms), delivered);
        bucket.rate()
    };
    assert_eq!(rate(60_000, 9000), 1000, "nothing is known yet");
    assert_eq!(rate(61_000, 13_000), 5000);
    assert_eq!(rate(61_500, 30_000), 5000, "too short a time");
    assert_eq!(rate(63_000, 13_200), 1000, "the ring is slow");
    assert_eq!(rate(64_000, 93_200), 100_000);
    assert_eq!(rate(70_000, 999_000), 1000, "long ago");
}

/// Answers are paced, and a direct message does not wait behind them.
#[test]
fn answers_are_paced_but_direct_messages_are_not() {
    run(|executor| async move {
        let net = Tcp::new(None).unwrap();
        let bucket = crate::peers::serve::Bucket::new(10_000_000);
        let start = Instant::now();
        for _ in 0..5 {
            bucket.take(&net, 1_000_000).await;
        }
        let spent = start.elapsed();
        assert!(spent >= Duration::from_millis(440), "{spent:?}");
        assert!(spent < Duration::from_millis(800), "{spent:?}");
        let nodes = cluster(&executor, 2);
        fill(&nodes[0].world, 500);
        catch_up(&nodes[1], 0);
        entries(&nodes[1]).await;
        let start = Instant::now();
        send(&nodes[1], 1, frame(Kind::Prepare, id(2, 1), 136));
        direct(&nodes[0]).await;
        assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
    });
}
