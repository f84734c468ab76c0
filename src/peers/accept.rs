//! The listener and the acceptor's half of the handshake.
//!
//! Invariants: the shard is told to prepare, answers from where on the peer is to send, and gets
//! the connection, in this order and one connection at a time for each purpose; a newer
//! connection makes an older one in the handshake give way, for the peer only dials again when it
//! has lost the older one.

use crate::mail::Command;
use crate::peers::handshake::{Refused, refuse, take_hello, welcome};
use crate::peers::net::{Net, Stream};
use crate::peers::problems::About;
use crate::peers::stream::{StreamError, close_gently};
use crate::peers::wait::{Bell, Giver, later};
use crate::peers::{Host, Peers, StreamOf, link_index, serve};
use chainring_net::hello::{Hello, Purpose, Resume};
use chainring_ring::ids::NodeId;
use chainring_ring::{mark, mutant};
use futures_lite::future::{or, yield_now};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// Longest time from a connection to the end of its handshake.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Most connections in a handshake; a further one takes the place of the oldest. A peer says hello
/// at once, so it is done long before strangers that say nothing have pushed it out.
pub const HALF_OPEN_MAX: usize = 64;
/// Wait after the listener failed, mostly for want of file descriptors.
const LISTENER_PAUSE: Duration = Duration::from_millis(100);

/// The state of the incoming side.
#[derive(Debug, Default)]
pub struct Accepting {
    /// Tickets of the connections in a handshake.
    half_open: Rc<RefCell<BTreeSet<u64>>>,
    arrived: Cell<u64>,
    pushed_out: Bell,
    next_token: Cell<u64>,
    resumes: RefCell<BTreeMap<u64, Giver<Resume>>>,
    /// Of the newest connection, data and control.
    newest: [Cell<u64>; 2],
    /// True while a connection is between "prepare" and "incoming" at the shard.
    busy: [Cell<bool>; 2],
    bell: Bell,
}

impl Accepting {
    /// Tasks that wait to be pushed out.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.pushed_out.waiting()
    }

    /// Connections in a handshake.
    pub fn fill(&self) -> usize {
        self.half_open.borrow().len()
    }

    /// The shard's answer to [`Command::PrepareIncoming`].
    pub fn resume(&self, token: u64, resume: Resume) {
        if let Some(giver) = self.resumes.borrow_mut().remove(&token) {
            giver.give(resume);
        }
    }

    fn token(&self) -> u64 {
        self.next_token.replace(self.next_token.get() + 1)
    }
}

/// A place among the half-open connections; taken when the connection is accepted, for its task
/// may begin later.
struct HalfOpen(Rc<RefCell<BTreeSet<u64>>>, u64);

impl HalfOpen {
    /// A place, and whether somebody lost his for it.
    fn take(accepting: &Accepting) -> (HalfOpen, bool) {
        let ticket = accepting.arrived.replace(accepting.arrived.get() + 1);
        let mut open = accepting.half_open.borrow_mut();
        let full = open.len() == HALF_OPEN_MAX && !mutant!(HandshakesPileUp);
        if full {
            open.pop_first();
            accepting.pushed_out.ring();
        }
        open.insert(ticket);
        (HalfOpen(Rc::clone(&accepting.half_open), ticket), full)
    }

    /// Once the place is another's.
    async fn lost(&self, accepting: &Accepting) {
        let lost = || (!self.0.borrow().contains(&self.1)).then_some(());
        accepting.pushed_out.until(lost).await;
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.0.borrow_mut().remove(&self.1);
    }
}

/// A connection's turn at the shard, from "prepare" to "incoming".
struct Turn<'a> {
    accepting: &'a Accepting,
    link: usize,
    token: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.accepting.resumes.borrow_mut().remove(&self.token);
        self.accepting.busy[self.link].set(false);
        self.accepting.bell.ring();
    }
}

/// Accepts connections for ever.
pub async fn listen<H: Host>(peers: Rc<Peers<H>>) {
    loop {
        match peers.net.accept().await {
            Ok(stream) => {
                let (place, full) = HalfOpen::take(&peers.accepting);
                if full {
                    let text = format!("more than {HALF_OPEN_MAX} connections without a handshake");
                    peers.say(About::Listener, text);
                }
                peers.spawn(greet(peers.clone(), stream, place));
            }
            Err(error) => {
                let text = format!("cannot accept connections of peers: {error}");
                peers.say(About::Listener, text);
                peers.net.pause(LISTENER_PAUSE).await;
            }
        }
        // A flood of connections must not keep everything else from its turn.
        yield_now().await;
    }
}

/// What a connection is after its handshake.
enum Greeted<S> {
    /// With the shard.
    Handed,
    /// A peer's, to be served here.
    Serve(NodeId, S),
}

async fn greet<H: Host>(peers: Rc<Peers<H>>, stream: StreamOf<H>, place: HalfOpen) {
    let pushed_out = async {
        place.lost(&peers.accepting).await;
        Err(StreamError::Superseded)
    };
    let handshake = or(handshake(&peers, stream), pushed_out);
    let greeted = peers.net.within(HANDSHAKE_TIME, handshake).await;
    drop(place);
    // Whoever is done leaves no waker behind, which would keep its task's memory; the few others
    // look again.
    peers.accepting.pushed_out.ring();
    match greeted {
        Some(Ok(Greeted::Serve(from, stream))) => serve::serve(peers, from, stream).await,
        Some(Ok(Greeted::Handed)) => {}
        Some(Err(error)) if error.is_bad_frame() => peers.gauges.bad_frames.add(1),
        // The peer gave up, or was too slow: it dials again and says so on its side.
        Some(Err(_)) => mark!(GreetingBroken),
        None => mark!(GreetingTimedOut),
    }
}

async fn handshake<H: Host>(
    peers: &Peers<H>,
    stream: StreamOf<H>,
) -> Result<Greeted<StreamOf<H>>, StreamError> {
    stream.tune()?;
    let hello = match take_hello(&stream, &peers.identity.get()).await? {
        Ok(hello) => hello,
        Err(refused) => {
            turn_away(peers, &stream, refused).await;
            return Ok(Greeted::Handed);
        }
    };
    stream.tune_for(hello.purpose)?;
    if let Some(refused) = out_of_place(peers, &hello) {
        turn_away(peers, &stream, refused).await;
        return Ok(Greeted::Handed);
    }
    let from = hello.identity.node;
    peers.problems.clear(About::incoming(from, hello.purpose));
    if hello.purpose == Purpose::Peer {
        welcome(&peers.net, &stream, &peers.identity.get(), from, Resume::Peer).await?;
        return Ok(Greeted::Serve(from, stream));
    }
    hand_over(peers, from, hello.purpose, stream).await?;
    Ok(Greeted::Handed)
}

async fn turn_away<H: Host>(peers: &Peers<H>, stream: &StreamOf<H>, refused: Refused) {
    let (node, purpose) = (refused.node, refused.purpose);
    let who = if node.0 == 0 { "an unknown node".into() } else { format!("node {}", node.0) };
    let text = format!("refused a connection of {who}: {}", refused.refusal.text);
    peers.say(About::incoming(node, purpose), text);
    // If the refusal cannot be sent, the peer sees the connection closed and asks again.
    let _ = refuse(&peers.net, stream, &peers.identity.get(), refused.refusal).await;
    close_gently(&peers.net, stream).await;
}

/// Checks that only the neighbours' circle can know.
fn out_of_place<H: Host>(peers: &Peers<H>, hello: &Hello) -> Option<Refused> {
    let from = hello.identity.node;
    if !peers.meshes.contains_key(&from) {
        let text = format!("node {} is not among the other nodes of the cluster", from.0);
        return Some(Refused::place(hello, text));
    }
    if let Err(error) = peers.lives.learn(&hello.identity) {
        return Some(Refused::differs(hello, &error));
    }
    let predecessor = peers.predecessor();
    if hello.purpose == Purpose::Peer || predecessor == Some(from) {
        return None;
    }
    let before = predecessor.map_or(0, |node| node.0);
    let text = format!("values and orders come from node {before} here, not from node {}", from.0);
    Some(Refused::place(hello, text))
}

/// Gives a data or control connection to the shard.
async fn hand_over<H: Host>(
    peers: &Peers<H>,
    from: NodeId,
    kind: Purpose,
    stream: StreamOf<H>,
) -> Result<(), StreamError> {
    let accepting = &peers.accepting;
    let Some(link) = link_index(kind) else { return Ok(()) };
    let generation = accepting.newest[link].get() + 1;
    accepting.newest[link].set(generation);
    accepting.bell.ring();
    let newest = || accepting.newest[link].get() == generation;
    let my_turn = || (!newest() || !accepting.busy[link].get()).then_some(());
    accepting.bell.until(my_turn).await;
    if !newest() {
        return Err(StreamError::Superseded);
    }
    accepting.busy[link].set(true);
    let token = accepting.token();
    let _turn = Turn { accepting, link, token };
    let (giver, resume) = later();
    accepting.resumes.borrow_mut().insert(token, giver);
    peers.host.send(Command::PrepareIncoming { kind, token }).await;
    let superseded = accepting.bell.until(|| (!newest()).then_some(None));
    let resume = or(resume, superseded).await.ok_or(StreamError::Superseded)?;
    welcome(&peers.net, &stream, &peers.identity.get(), from, resume).await?;
    let handle = peers.net.release(stream)?;
    peers.host.send(Command::Incoming { kind, from, handle }).await;
    Ok(())
}
