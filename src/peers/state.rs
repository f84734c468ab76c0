//! The state of a peer, for a node that lacks entries which nobody holds any more.
//!
//! Invariants: what is served is one state, whole, with its checksum in every part; what is taken
//! over was verified, decoded and, in durable modes, made durable with its name before the shard
//! hears of it. At most one state is held for serving and one while it comes.

use crate::groups::{State, encode_names, topics_in};
use crate::keep::{Kept, sweep};
use crate::mail::{Arrival, Command, Notice};
use crate::peers::frames::{AskPart, PART_BYTES, Part, STATE_BYTES_MAX};
use crate::peers::keep::take_state;
use crate::peers::mesh::Answer;
use crate::peers::net::Net;
use crate::peers::{Host, Peers};
use chainring_ring::ids::{Claim, Instance, NodeId};
use chainring_ring::{mark, mutant};
use chainring_storage::checkpoint::read_checkpoint;
use chainring_storage::{Checkpoint, Start};
use std::rc::Rc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_128;

/// Longest wait for a part.
const PART_TIME: Duration = Duration::from_secs(5);
/// A checkpoint that is being written is waited for so long at a time.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// A state that peers are given.
#[derive(Debug)]
pub struct Served {
    claim: Claim,
    checksum: u128,
    bytes: Vec<u8>,
}

/// The answer to an [`AskPart`]: of total 0 if there is none of that position.
pub(super) async fn part<H: Host>(peers: &Peers<H>, ask: AskPart) -> Vec<u8> {
    if ask.offset == 0 {
        let fresh = oldest(peers).await.map(Rc::new);
        *peers.served.borrow_mut() = fresh;
    }
    let served = peers.served.borrow().clone();
    let fits = |served: &Rc<Served>| {
        let asked = ask.position == Instance(0) || ask.position == served.claim.position;
        asked && (ask.offset as usize) < served.bytes.len()
    };
    let Some(served) = served.filter(fits) else {
        let claim = Claim::default();
        let none = Part { claim, checksum: 0, total: 0, offset: 0, bytes: Vec::new() };
        return peers.envelope().part(&none);
    };
    let from = ask.offset as usize;
    let to = (from + PART_BYTES).min(served.bytes.len());
    if to == served.bytes.len() {
        *peers.served.borrow_mut() = None;
    }
    peers.envelope().part(&Part {
        claim: served.claim,
        checksum: served.checksum,
        total: served.bytes.len() as u32,
        offset: ask.offset,
        bytes: served.bytes[from..to].to_vec(),
    })
}

/// The oldest state from which everything that follows is held here: the checkpoint where the log
/// begins; in memory durability, the state of now.
async fn oldest<H: Host>(peers: &Peers<H>) -> Option<Served> {
    let host = &peers.host;
    let (claim, bytes) = match host.keeper() {
        Some(keeper) => {
            let (kept, place) = (keeper.borrow().oldest()?, keeper.borrow().place().clone());
            let read = move || read_checkpoint(&place.dir, &place.limits, kept.position);
            let (read, checksum) = host.blocking(read).await.ok()?;
            let held = checksum == kept.checksum && host.first() <= kept.position;
            let claim = Claim { ballot: read.ballot, position: read.position };
            held.then_some((claim, read.state))?
        }
        None => {
            let mut room = PART_BYTES;
            let (taken, mut bytes) = take_state(host, &mut room).await?;
            let topics = topics_in(&bytes);
            host.catalog(|catalog| {
                encode_names(catalog.topics().take(topics).map(|topic| topic.name), &mut bytes);
            });
            (taken.claim, bytes)
        }
    };
    mark!(StateServed);
    Some(Served { claim, checksum: xxh3_128(&bytes), bytes })
}

/// Fetches a peer's oldest state and goes on from it, if it lies behind `next`. Returns its
/// position.
pub(super) async fn fetch<H: Host>(
    peers: &Peers<H>,
    peer: NodeId,
    next: Instance,
) -> Option<Instance> {
    let (claim, bytes) = receive(peers, peer).await?;
    let state = State::decode(claim.position, &bytes).ok()?;
    if claim.position <= next && !mutant!(JumpsBack) {
        return None;
    }
    mark!(StateFetched);
    install(peers, claim, state, bytes).await.then_some(claim.position)
}

/// All parts of a state, verified.
async fn receive<H: Host>(peers: &Peers<H>, peer: NodeId) -> Option<(Claim, Vec<u8>)> {
    let mesh = peers.meshes.get(&peer)?;
    let mut first: Option<Part> = None;
    let mut bytes = Vec::new();
    loop {
        let position = first.as_ref().map_or(Instance(0), |part| part.claim.position);
        let ask = AskPart { position, offset: bytes.len() as u32 };
        let answer = peers.net.within(PART_TIME, mesh.part(ask)).await.flatten();
        let Some(Answer::Part(part)) = answer else { return None };
        let known = first.get_or_insert_with(|| part.clone());
        let same =
            (known.claim, known.checksum, known.total) == (part.claim, part.checksum, part.total);
        if part.total == 0 || part.total > STATE_BYTES_MAX || !same {
            return None;
        }
        bytes.extend_from_slice(&part.bytes);
        if bytes.len() >= part.total as usize {
            return (xxh3_128(&bytes) == part.checksum).then_some((part.claim, bytes));
        }
    }
}

/// Makes a state durable and has the shard go on from it; false if it did not.
async fn install<H: Host>(peers: &Peers<H>, claim: Claim, state: State, bytes: Vec<u8>) -> bool {
    let host = &peers.host;
    let topics = state.topics();
    let State { table, configuration, groups, .. } = state;
    let Some(keeper) = host.keeper() else {
        let arrival = Arrival { claim, table, configuration, groups, topics, checkpoint: None };
        return arrive(host, arrival).await;
    };
    while keeper.borrow().busy {
        peers.net.pause(BUSY_PAUSE).await;
    }
    keeper.borrow_mut().busy = true;
    let done = async {
        let (place, first) = (keeper.borrow().place().clone(), keeper.borrow().first_segment());
        let start = keeper.borrow().last_start().unwrap_or(Start::of_log(first));
        let at_ms = host.clock_ms();
        let (position, ballot) = (claim.position, claim.ballot);
        let (parent, index) = (0, crate::control::index::none());
        let from = position;
        let file = Checkpoint { position, ballot, from, parent, start, at_ms, state: bytes, index };
        let to = place.clone();
        let Ok(checksum) = host.blocking(move || file.write(&to.dir, &to.limits)).await else {
            return false;
        };
        let checkpoint = Some((checksum, start.segment));
        if !arrive(host, Arrival { claim, table, configuration, groups, topics, checkpoint }).await
        {
            // The next start finds that it follows nothing, and removes it.
            return false;
        }
        let head = host.catalog(|catalog| catalog.head());
        keeper.borrow_mut().arrived(Kept { position, start, checksum, at_ms, head });
        // As after any letting go: what stays is removed at a start.
        let _ = host.blocking(move || sweep(&place, position, start.segment)).await;
        true
    }
    .await;
    keeper.borrow_mut().busy = false;
    done
}

async fn arrive<H: Host>(host: &H, arrival: Arrival) -> bool {
    let arrival = Box::new(arrival);
    let answer = host.ask_state(|token| Command::Arrive { token, arrival }).await;
    matches!(answer, Some(Notice::Arrived { done: true, .. }))
}
