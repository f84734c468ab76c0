//! Writing checkpoints, and letting go of what is old: off the data path, on the control thread.
//!
//! Invariants: a checkpoint is noted in the superblock only when it is durable, and what lies
//! below it goes only when that is noted; peers are told only of what is noted; the coordinator
//! asks for a trim only at a position that a quorum of nodes said it has a checkpoint at, or above.
//! One thing is under way at a time.

use crate::gauges::State as NodeState;
use crate::keep::{Keeper, Kept, remove, sweep};
use crate::mail::{Command, Note, Notice, Taken};
use crate::peers::catch_up::probe;
use crate::peers::net::Net;
use crate::peers::{Host, Peers};
use chainring_ring::codec::POSITION_MAX;
use chainring_ring::ids::Instance;
use chainring_ring::{mark, mutant};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// How often it is seen what is to be done.
const LOOK: Duration = Duration::from_millis(250);
/// After a file could not be written, the next one is tried.
const AGAIN: Duration = Duration::from_secs(2);
/// Room for a first state; the shard says if it needs more.
const STATE_BYTES: usize = 64 << 10;

/// Does all this for ever.
pub async fn run<H: Host>(peers: Rc<Peers<H>>) {
    let mut room = STATE_BYTES;
    loop {
        peers.net.pause(LOOK).await;
        let Some(keeper) = peers.host.keeper() else { return };
        if keeper.borrow().busy {
            continue;
        }
        let doubtful = keeper.borrow_mut().doubtful();
        if !doubtful.is_empty() {
            mark!(CheckpointDoubted);
            let place = keeper.borrow().place().clone();
            // One that stays lets the next start pass over what could not be read: no more.
            let _ = peers.host.blocking(move || remove(&place, &doubtful)).await;
        }
        let due = peers.host.catalog(|catalog| keeper.borrow().is_due(catalog));
        if due {
            keeper.borrow_mut().busy = true;
            let done = checkpoint(&peers, keeper, &mut room).await;
            keeper.borrow_mut().busy = false;
            if !done {
                mark!(CheckpointNotMade);
                peers.net.pause(AGAIN).await;
            }
        }
        let trimmed = peers.host.catalog(|catalog| catalog.trimmed());
        let note = keeper.borrow().let_go(trimmed);
        if let Some(note) = note {
            keeper.borrow_mut().busy = true;
            let_go(&peers, keeper, note).await;
            keeper.borrow_mut().busy = false;
        }
        if peers.gauges.state.get() == NodeState::Coordinator as u64 {
            ask_for_trim(&peers, keeper).await;
        }
    }
}

/// Takes the state from the shard, with a buffer that is large enough.
pub(super) async fn take_state<H: Host>(host: &H, room: &mut usize) -> Option<(Taken, Vec<u8>)> {
    for _ in 0..3 {
        let buffer = Vec::with_capacity(*room);
        let answer = host.ask_state(|token| Command::TakeState { token, buffer }).await;
        let Some(Notice::State { taken, buffer, .. }) = answer else { return None };
        match taken {
            Ok(taken) => return Some((taken, buffer)),
            // It grows meanwhile.
            Err(needed) => *room = (*room).max(needed + needed / 4),
        }
    }
    None
}

/// Writes the next checkpoint and has it noted; false if that failed.
async fn checkpoint<H: Host>(peers: &Peers<H>, keeper: &RefCell<Keeper>, room: &mut usize) -> bool {
    let host = &peers.host;
    let Some((taken, state)) = take_state(host, room).await else { return false };
    let at_ms = host.clock_ms();
    let (planned, head) = host
        .catalog(|catalog| (keeper.borrow().plan(catalog, &taken, state, at_ms), catalog.head()));
    let Some(planned) = planned else { return false };
    let (position, start) = (planned.position, planned.start);
    let place = keeper.borrow().place().clone();
    let written = host.blocking(move || planned.write(&place.dir, &place.limits)).await;
    let Ok(checksum) = written else { return false };
    mark!(CheckpointMade);
    let kept = Kept { position, start, checksum, at_ms, head };
    let note = keeper.borrow().note_of(&kept);
    let noted = host.ask_state(|token| Command::Note { token, note }).await;
    // Told to peers before, it could count for a trim that its superblock knows nothing of.
    if noted.is_some() {
        keeper.borrow_mut().wrote(kept);
    }
    noted.is_some()
}

/// Lets go of what lies below a checkpoint that is at or below what was trimmed.
async fn let_go<H: Host>(peers: &Peers<H>, keeper: &RefCell<Keeper>, note: Note) {
    let host = &peers.host;
    if host.ask_state(|token| Command::Note { token, note }).await.is_none() {
        return; // the superblock may still need what lies below
    }
    mark!(LogBeginsLater);
    keeper.borrow_mut().noted(&note);
    host.forget_below(note.base);
    let place = keeper.borrow().place().clone();
    // What stays after a failure goes with the next, or at a start.
    let swept = host.blocking(move || sweep(&place, note.base, note.first_segment)).await;
    if swept.is_err() {
        mark!(SweepFailed);
    }
}

/// The coordinator asks for what its retention wants to be let go, as far as a quorum can do
/// without.
async fn ask_for_trim<H: Host>(peers: &Peers<H>, keeper: &RefCell<Keeper>) {
    let (head, trimmed) = peers.host.catalog(|catalog| (catalog.head(), catalog.trimmed()));
    let now_ms = peers.host.clock_ms();
    let goal = keeper.borrow().goal(head, now_ms);
    if goal <= trimmed {
        return;
    }
    let own = keeper.borrow().newest();
    let mut kept: Vec<(Instance, u8)> = probe(peers, Instance(POSITION_MAX), true)
        .await
        .iter()
        .map(|(node, standing)| (standing.checkpoint, 1 << (node.0 - 1)))
        .collect();
    kept.push((own, 1 << (peers.identity.get().node.0 - 1)));
    kept.sort_unstable_by_key(|(position, _)| std::cmp::Reverse(*position));
    // The core knows what a quorum is; this is as far as more than half of all have come.
    let half = kept.get(peers.nodes.len() / 2).map_or(Instance(0), |(position, _)| *position);
    let position = if mutant!(TrimAheadOfQuorum) { goal } else { goal.min(half) };
    if position > trimmed {
        mark!(TrimAsked);
        let held = kept.iter().filter(|(kept, _)| *kept >= position);
        let held = held.fold(0, |all, (_, bit)| all | bit);
        peers.host.send(Command::Trim { position, held }).await;
    } else {
        mark!(TrimWaitsForQuorum);
    }
}
