//! Finding single values: at their origin first, then at the other peers in turn. Who does not
//! answer soon is not waited for: the next one is asked as well.
//!
//! Invariants: one search a value, at most [`SEARCHES_MAX`] at a time and [`WAITING_MAX`] waiting.
//! The shard hears [`Command::Value`] once for a search that finds, [`Command::NotHeld`] once for
//! one in which every other node said that it does not hold the value, and nothing for one that
//! ran out of time while some node could not be asked: it asks again if it still needs the value.

use crate::mail::Command;
use crate::peers::mesh::Answer;
use crate::peers::net::Net;
use crate::peers::{CommandOf, Host, Peers};
use chainring_ring::ids::{NodeId, ValueId};
use chainring_ring::mark;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Most searches at a time.
pub const SEARCHES_MAX: usize = 64;
/// Most searches that wait for their turn; what is asked for beyond is forgotten.
pub const WAITING_MAX: usize = 4096;
/// Wait between two rounds of a search.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// After "not held by anybody" a value is not asked for again before this.
const NOT_HELD_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for one peer's answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Who has not answered by then is probably gone: the next one is asked too.
const NEXT_TIME: Duration = Duration::from_millis(20);
/// Longest search.
const SEARCH_TIME: Duration = Duration::from_secs(10);

/// The searches under way.
#[derive(Debug, Default)]
pub struct Fetches {
    /// Under way or waiting.
    known: RefCell<BTreeSet<ValueId>>,
    waiting: RefCell<VecDeque<ValueId>>,
    running: Cell<usize>,
    /// When nobody held it. Entries older than [`NOT_HELD_PAUSE`] are dropped.
    not_held: RefCell<BTreeMap<ValueId, Duration>>,
}

impl Fetches {
    /// Values sought, those of them that wait, and those that lately nobody held.
    pub fn fill(&self) -> [usize; 3] {
        let (known, waiting) = (self.known.borrow(), self.waiting.borrow());
        [known.len(), waiting.len(), self.not_held.borrow().len()]
    }
}

/// A question to one peer; none if it did not answer.
type Question<'a> = Pin<Box<dyn Future<Output = Option<Answer>> + 'a>>;

/// Begins a search, unless it is under way.
pub fn fetch<H: Host>(peers: &Rc<Peers<H>>, id: ValueId) {
    let fetches = &peers.fetches;
    if fetches.known.borrow().contains(&id) || fetches.waiting.borrow().len() >= WAITING_MAX {
        return;
    }
    fetches.known.borrow_mut().insert(id);
    fetches.waiting.borrow_mut().push_back(id);
    if fetches.running.get() < SEARCHES_MAX {
        fetches.running.set(fetches.running.get() + 1);
        peers.spawn(work(peers.clone()));
    }
}

/// Searches until nothing waits any more.
async fn work<H: Host>(peers: Rc<Peers<H>>) {
    let fetches = &peers.fetches;
    loop {
        let next = fetches.waiting.borrow_mut().pop_front();
        let Some(id) = next else { break };
        let found = peers.net.within(SEARCH_TIME, search(&peers, id)).await;
        fetches.known.borrow_mut().remove(&id);
        if let Some(command) = found {
            peers.host.send(command).await;
        }
    }
    fetches.running.set(fetches.running.get() - 1);
}

/// A value as some other node has it; none if nobody has, or who has cannot be asked.
pub async fn find<H: Host>(peers: Rc<Peers<H>>, id: ValueId) -> Option<Vec<u8>> {
    match peers.net.within(SEARCH_TIME, search(&peers, id)).await {
        Some(Command::Value { frame }) => Some(frame),
        _ => None,
    }
}

async fn search<H: Host>(peers: &Peers<H>, id: ValueId) -> CommandOf<H> {
    wait_if_lately_not_held(peers, id).await;
    let net = &peers.net;
    loop {
        let mut denied = 0;
        let mut nodes = candidates(peers, id.origin).into_iter();
        let mut asked: Vec<Question> = Vec::new();
        loop {
            let next = nodes.next();
            let is_last = next.is_none();
            if let Some(mesh) = next.and_then(|node| peers.meshes.get(&node)) {
                let answer = async move { net.within(ANSWER_TIME, mesh.fetch(id)).await.flatten() };
                asked.push(Box::pin(answer));
            }
            if asked.is_empty() {
                break;
            }
            let patience = if is_last { ANSWER_TIME } else { NEXT_TIME };
            match net.within(patience, first_of(&mut asked)).await.flatten() {
                Some(Answer::Value(frame)) => return Command::Value { frame },
                Some(Answer::NotHeld) => {
                    mark!(ValueNotHeldThere);
                    denied += 1;
                }
                Some(Answer::Entries(_) | Answer::Part(_)) | None => {}
            }
        }
        if denied == peers.meshes.len() {
            mark!(ValueHeldByNobody);
            peers.fetches.not_held.borrow_mut().insert(id, peers.net.now());
            return Command::NotHeld { id };
        }
        peers.net.pause(ROUND_PAUSE).await;
    }
}

/// The answer that is first; who gave it is asked no more.
async fn first_of(asked: &mut Vec<Question<'_>>) -> Option<Answer> {
    poll_fn(|context| {
        for index in 0..asked.len() {
            if let Poll::Ready(answer) = asked[index].as_mut().poll(context) {
                drop(asked.swap_remove(index));
                return Poll::Ready(answer);
            }
        }
        Poll::Pending
    })
    .await
}

async fn wait_if_lately_not_held<H: Host>(peers: &Peers<H>, id: ValueId) {
    let net = &peers.net;
    let since = {
        let mut not_held = peers.fetches.not_held.borrow_mut();
        not_held.retain(|_, since| net.since(*since) < NOT_HELD_PAUSE);
        not_held.get(&id).copied()
    };
    if let Some(since) = since {
        net.pause(NOT_HELD_PAUSE.saturating_sub(net.since(since))).await;
    }
}

/// All other nodes, the origin first and then onwards in the circle.
fn candidates<H: Host>(peers: &Peers<H>, origin: NodeId) -> Vec<NodeId> {
    let mut nodes: Vec<_> = peers.meshes.keys().copied().collect();
    let first = nodes.iter().position(|node| *node >= origin).unwrap_or(0);
    nodes.rotate_left(first);
    nodes
}
