//! Catching up: decided entries from the peer that is furthest, answer after answer.
//!
//! Invariants: one catch-up at a time, the newest request counts. The next answer is on its way
//! while the shard takes the one before; at most [`AHEAD_MAX`] answers are with the shard and not
//! yet delivered. It ends when no peer has more, or when the shard got further by itself.
//! "Trimmed" is said only if every peer that can be reached, and is further, no longer holds the
//! first entry. The taking over of a peer's state is not broken off.

use crate::gauges::Halt;
use crate::mail::Command;
use crate::peers::frames::{ANSWER_BYTES, Ask, Entries, Standing};
use crate::peers::mesh::Answer;
use crate::peers::net::Net;
use crate::peers::problems::About;
use crate::peers::wait::{Bell, Later, all};
use crate::peers::{Host, Peers, state};
use chainring_ring::ids::{Instance, NodeId};
use chainring_ring::{mark, mutant};
use futures_lite::future::or;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// Most answers with the shard that it has not delivered.
pub const AHEAD_MAX: usize = 4;
/// Longest wait for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// Longest wait for all peers to say how far they are.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// Once somebody said that it can help, the others are waited for no longer than this.
const PROBE_REST: Duration = Duration::from_millis(20);
/// Wait between attempts while no peer can help.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The same when all of them have trimmed what is needed.
const TRIMMED_PAUSE: Duration = Duration::from_secs(1);
/// The shard took an answer but did not deliver it: after so long it is fetched again.
const DELIVERY_TIME: Duration = Duration::from_secs(3);
/// How often the shard's progress is looked at.
const DELIVERY_POLL: Duration = Duration::from_millis(2);
/// Fetching again what the shard does not deliver ends after so many times; it asks again.
const STALLS_MAX: u32 = 3;

/// The catch-up asked for.
#[derive(Debug, Default)]
pub struct CatchingUp {
    wanted: Cell<Option<Instance>>,
    generation: Cell<u64>,
    /// First instance of the answer that is awaited.
    asking: Cell<Option<Instance>>,
    /// A peer's state is awaited, or taken over.
    jumping: Cell<bool>,
    bell: Bell,
    /// True if the halt that the gauges show is ours.
    trimmed: Cell<bool>,
}

impl CatchingUp {
    /// Catch up from here; replaces what was asked before. If just that is under way, or a state
    /// comes, it is left alone: whoever asks again sooner than a slow peer answers must not end up
    /// with nothing.
    pub fn start(&self, from: Instance) {
        if self.asking.get() == Some(from) || self.jumping.get() {
            mark!(CatchUpLeftAlone);
            return;
        }
        if self.asking.get().is_some() {
            mark!(CatchUpReplaced);
        }
        self.wanted.set(Some(from));
        self.generation.set(self.generation.get() + 1);
        self.bell.ring();
    }
}

/// Serves requests to catch up for ever.
pub async fn run<H: Host>(peers: Rc<Peers<H>>) {
    let state = &peers.catching_up;
    loop {
        let from = state.bell.until(|| state.wanted.take()).await;
        let generation = state.generation.get();
        let replaced = state.bell.until(|| (state.generation.get() != generation).then_some(()));
        or(replaced, catch_up(&peers, from)).await;
        state.asking.set(None);
    }
}

/// How reading from one peer ended.
enum Ended {
    /// It has nothing more; another one may have.
    Dry,
    /// The shard is further than what was fetched.
    Overtaken,
    /// It failed, or cannot serve what it claims to hold.
    Failed,
    /// The shard does not deliver what it got.
    Stalled,
}

async fn catch_up<H: Host>(peers: &Peers<H>, from: Instance) {
    let mut next = from;
    let (mut avoid, mut stalls) = (None, 0);
    loop {
        if peers.host.delivered() > next || peers.meshes.is_empty() {
            return;
        }
        peers.catching_up.asking.set(Some(next));
        let standings = probe(peers, next, false).await;
        if mutant!(JumpsBack)
            && let Some((peer, _)) = standings.first()
        {
            jump(peers, *peer, next).await;
        }
        let Some(peer) = choose(&standings, next, avoid) else {
            // Who is no further has nothing to give: an empty store holds all that it has.
            let further = || standings.iter().filter(|(_, it)| it.delivered > next);
            if standings.is_empty() {
                mark!(CatchUpReachesNobody);
                peers.net.pause(RETRY_PAUSE).await;
            } else if further().next().is_none() {
                return;
            } else if further().all(|(_, standing)| standing.first > next) {
                mark!(CatchUpTrimmed);
                // Who holds the most of what follows.
                let longest = further().min_by_key(|(_, standing)| standing.first);
                let (peer, Standing { first, .. }) = longest.expect("one is further");
                match jump(peers, *peer, next).await {
                    Some(position) => {
                        say_not_trimmed(peers);
                        next = position;
                    }
                    None => {
                        say_trimmed(peers, *first, next);
                        peers.net.pause(TRIMMED_PAUSE).await;
                        next = next.max(peers.host.delivered());
                    }
                }
            } else {
                // Whoever holds it cannot be used at the moment.
                avoid = None;
                peers.net.pause(RETRY_PAUSE).await;
            }
            continue;
        };
        match read_from(peers, peer, &mut next).await {
            Ended::Overtaken => return mark!(CatchUpOvertaken),
            Ended::Dry => {
                mark!(CatchUpDry);
                avoid = None;
                continue;
            }
            Ended::Failed => {
                mark!(CatchUpFailed);
                avoid = Some(peer);
            }
            Ended::Stalled => {
                mark!(CatchUpStalled);
                stalls += 1;
                if stalls == STALLS_MAX {
                    return;
                }
                next = peers.host.delivered();
            }
        }
        peers.net.pause(RETRY_PAUSE).await;
    }
}

/// Goes on from a peer's state, if it gives one; then from its position. Nothing takes its place
/// meanwhile: a state that was taken over halfway would leave its keeper busy for good.
async fn jump<H: Host>(peers: &Peers<H>, peer: NodeId, next: Instance) -> Option<Instance> {
    peers.catching_up.jumping.set(true);
    let position = state::fetch(peers, peer, next).await;
    peers.catching_up.jumping.set(false);
    position
}

/// Asks all peers how far they are; those that can be reached answer. Nobody who is gone is waited
/// for while another one can help.
pub(super) async fn probe<H: Host>(
    peers: &Peers<H>,
    from: Instance,
    all_of_them: bool,
) -> Vec<(NodeId, Standing)> {
    let standings = RefCell::new(Vec::new());
    let asked = peers.meshes.iter().map(|(node, mesh)| {
        let (answer, standings) = (mesh.ask(Ask { from, limit: 0 }), &standings);
        async move {
            let answer = peers.net.within(PROBE_TIME, answer).await.flatten();
            if let Some(Answer::Entries(entries)) = answer {
                standings.borrow_mut().push((*node, entries.standing));
            }
        }
    });
    let everybody = async {
        all(asked).await;
    };
    let somebody = async {
        while all_of_them || choose(&standings.borrow(), from, None).is_none() {
            peers.net.pause(PROBE_REST).await;
        }
    };
    or(everybody, somebody).await;
    standings.into_inner()
}

/// The peer that is furthest among those that hold `next`.
fn choose(
    standings: &[(NodeId, Standing)],
    next: Instance,
    avoid: Option<NodeId>,
) -> Option<NodeId> {
    let holds = |standing: &Standing| standing.first <= next && standing.delivered > next;
    let able = standings.iter().filter(|(node, it)| holds(it) && Some(*node) != avoid);
    able.max_by_key(|(_, standing)| standing.delivered).map(|(node, _)| *node)
}

fn say_trimmed<H: Host>(peers: &Peers<H>, first: Instance, next: Instance) {
    let text = format!(
        "this node needs entries from {} on, no peer that can be reached holds any below {}, \
         and none gave its state there yet; it is asked for again",
        next.0, first.0
    );
    peers.say(About::CatchUp, text);
    if peers.gauges.halt.get() == Halt::None as u64 {
        peers.gauges.halt.set(Halt::Trimmed as u64);
        peers.catching_up.trimmed.set(true);
    }
}

fn say_not_trimmed<H: Host>(peers: &Peers<H>) {
    peers.problems.clear(About::CatchUp);
    if peers.catching_up.trimmed.take() && peers.gauges.halt.get() == Halt::Trimmed as u64 {
        peers.gauges.halt.set(Halt::None as u64);
    }
}

/// Reads from one peer as long as it has something; `next` moves on.
async fn read_from<H: Host>(peers: &Peers<H>, peer: NodeId, next: &mut Instance) -> Ended {
    let Some(mesh) = peers.meshes.get(&peer) else { return Ended::Failed };
    let ask = |from| mesh.ask(Ask { from, limit: ANSWER_BYTES });
    let mut ends = VecDeque::with_capacity(AHEAD_MAX + 1);
    let asking = &peers.catching_up.asking;
    asking.set(Some(*next));
    let mut pending = ask(*next);
    loop {
        let Some(entries) = answered(peers, pending).await else { return Ended::Failed };
        let Entries { standing, orders, frames, .. } = *entries;
        let Some(last) = orders.last() else {
            let dry = standing.delivered <= *next;
            return if dry { Ended::Dry } else { Ended::Failed };
        };
        say_not_trimmed(peers);
        *next = last.instance.next();
        asking.set(Some(*next));
        pending = ask(*next);
        ends.push_back(*next);
        peers.host.send(Command::Entries { claim: standing.claim, orders, frames }).await;
        if !room_ahead(peers, &mut ends).await {
            return Ended::Stalled;
        }
        if peers.host.delivered() > *next {
            return Ended::Overtaken;
        }
    }
}

async fn answered<H: Host>(peers: &Peers<H>, pending: Later<Answer>) -> Option<Box<Entries>> {
    match peers.net.within(ANSWER_TIME, pending).await.flatten()? {
        Answer::Entries(entries) => Some(entries),
        Answer::Value(_) | Answer::NotHeld | Answer::Part(_) => None,
    }
}

/// Waits until the shard has delivered enough of what it got; false if it does not move.
async fn room_ahead<H: Host>(peers: &Peers<H>, ends: &mut VecDeque<Instance>) -> bool {
    let (mut delivered, mut moved) = (peers.host.delivered(), peers.net.now());
    loop {
        while ends.front().is_some_and(|end| *end <= delivered) {
            ends.pop_front();
        }
        if ends.len() < AHEAD_MAX {
            return true;
        }
        peers.net.pause(DELIVERY_POLL).await;
        let now = peers.host.delivered();
        if now > delivered {
            (delivered, moved) = (now, peers.net.now());
        } else if peers.net.since(moved) > DELIVERY_TIME {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The core asks from further on as soon as it has jumped; the rest of the taking over is
    /// still to come.
    #[test]
    fn what_takes_a_state_over_is_not_replaced() {
        let state = CatchingUp::default();
        state.asking.set(Some(Instance(0)));
        state.jumping.set(true);
        state.start(Instance(7));
        assert_eq!((state.wanted.get(), state.generation.get()), (None, 0));
        state.jumping.set(false);
        state.start(Instance(7));
        assert_eq!((state.wanted.get(), state.generation.get()), (Some(Instance(7)), 1));
    }
}
