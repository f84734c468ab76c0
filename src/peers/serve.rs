//! The answering end of the mesh: direct messages in, entries and values out.
//!
//! Invariants: one connection a peer is served, a newer one takes its place; requests are
//! answered in the order in which they came; answers never hold up direct messages, for a ballot
//! must not wait behind a node that catches up. Memory a connection: one frame coming in, one
//! answer going out and [`REQUESTS_MAX`] requests.

use crate::mail::Command;
use crate::peers::frames::{
    Ask, AskPart, Envelope, Gather, Standing, decode_ask, decode_ask_part, decode_id, has_frame,
};
use crate::peers::net::Net;
use crate::peers::problems::About;
use crate::peers::stream::{StreamError, read_frame, write};
use crate::peers::wait::Bell;
use crate::peers::{Host, Peers, StreamOf, state};
use chainring_net::hello::Purpose;
use chainring_ring::header::{HEADER_BYTES, Kind};
use chainring_ring::ids::{Entry, Instance, NodeId, ValueId};
use chainring_ring::mark;
use futures_lite::future::or;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Requests of one connection that wait for their answers; above it nothing more is read.
pub const REQUESTS_MAX: usize = 256;

#[derive(Debug)]
enum Request {
    Entries(Ask),
    Value(ValueId),
    Part(AskPart),
}

#[derive(Debug, Default)]
struct Desk {
    requests: RefCell<VecDeque<Request>>,
    bell: Bell,
}

/// Serves a peer's connection until it ends.
pub async fn serve<H: Host>(peers: Rc<Peers<H>>, from: NodeId, stream: StreamOf<H>) {
    let generation = peers.serving.replace(from);
    let desk = Desk::default();
    let superseded = async {
        peers.serving.superseded(from, generation).await;
        mark!(ServingReplaced);
        StreamError::Superseded
    };
    let work = or(listen(&peers, from, &stream, &desk), answer(&peers, &stream, &desk));
    let error = or(work, superseded).await;
    if error.is_bad_frame() {
        peers.gauges.bad_frames.add(1);
        let text = format!("closed a connection of node {}: {error}", from.0);
        peers.say(About::incoming(from, Purpose::Peer), text);
    }
}

/// Takes frames in until the connection fails.
async fn listen<H: Host>(
    peers: &Peers<H>,
    from: NodeId,
    stream: &StreamOf<H>,
    desk: &Desk,
) -> StreamError {
    loop {
        let envelope = peers.envelope();
        let (header, frame) =
            match read_frame(&peers.net, stream, &envelope, envelope.ask_limit()).await {
                Ok(read) => read,
                Err(error) => return error,
            };
        let body = &frame[HEADER_BYTES..HEADER_BYTES + header.length as usize];
        let request = match header.kind {
            kind if kind.is_direct() && header.origin == from => {
                peers.host.send(Command::Direct { from, frame }).await;
                continue;
            }
            Kind::FetchEntries => decode_ask(body).map(Request::Entries),
            Kind::FetchValue => decode_id(body).map(Request::Value),
            Kind::FetchState => decode_ask_part(body).map(Request::Part),
            kind => return StreamError::Unexpected { code: kind as u8 },
        };
        match request {
            Ok(request) => desk.requests.borrow_mut().push_back(request),
            Err(error) => return error.into(),
        }
        desk.bell.ring();
        desk.bell.until(|| (desk.requests.borrow().len() < REQUESTS_MAX).then_some(())).await;
    }
}

/// Answers requests until the connection fails.
async fn answer<H: Host>(peers: &Peers<H>, stream: &StreamOf<H>, desk: &Desk) -> StreamError {
    loop {
        let request = desk.bell.until(|| desk.requests.borrow_mut().pop_front()).await;
        desk.bell.ring();
        let frame = match request {
            Request::Entries(ask) => entries(peers, ask).await,
            Request::Value(id) => value(peers, id).await,
            Request::Part(ask) => state::part(peers, ask).await,
        };
        peers.bucket.keep_ahead(peers.net.now(), peers.gauges.bytes.get());
        peers.bucket.take(&peers.net, frame.len()).await;
        if let Err(error) = write(&peers.net, stream, &frame).await {
            return error;
        }
    }
}

/// The answer to an [`Ask`]: as many entries as there are and fit, perhaps none.
async fn entries<H: Host>(peers: &Peers<H>, ask: Ask) -> Vec<u8> {
    let (host, envelope) = (&peers.host, peers.envelope());
    let mut gather = Gather::new(ask.limit);
    let mut at = ask.from;
    while !gather.full() && at < host.delivered() {
        let Some((order, place)) = host.entry(at) else { break };
        if has_frame(&order, place) {
            let start = gather.frames.len();
            let read = host.read(place, &mut gather.frames).await;
            // What is damaged here must not be handed on; the peer finds it elsewhere.
            if !read || !is_value_of(&envelope, &gather.frames[start..], order.entry) {
                mark!(ServedUpToDamage);
                gather.frames.truncate(start);
                break;
            }
        }
        gather.push(order);
        at = at.next();
    }
    envelope.entries(&standing(host), ask.from, &gather.orders, &gather.frames)
}

fn is_value_of(envelope: &Envelope, frame: &[u8], entry: Entry) -> bool {
    envelope.value(frame).is_ok_and(|header| {
        header.size as usize == frame.len() && entry == Entry::Value(header.value_id())
    })
}

fn standing<H: Host>(host: &H) -> Standing {
    let checkpoint = host.keeper().map_or(Instance(0), |keeper| keeper.borrow().newest());
    let (claim, first, delivered) = (host.claim(), host.first(), host.delivered());
    Standing { claim, first, delivered, checkpoint }
}

/// A value's frame, from the log or from what the shard still holds, or "not held".
async fn value<H: Host>(peers: &Peers<H>, id: ValueId) -> Vec<u8> {
    let (host, envelope) = (&peers.host, peers.envelope());
    let entry = Entry::Value(id);
    let mut frame = Vec::new();
    if let Some((order, place)) = host.find(id)
        && has_frame(&order, place)
        && host.read(place, &mut frame).await
        && is_value_of(&envelope, &frame, entry)
    {
        return frame;
    }
    frame.clear();
    if host.read_held(id, &mut frame).await && is_value_of(&envelope, &frame, entry) {
        return frame;
    }
    mark!(AnsweredNotHeld);
    envelope.not_held(id)
}

/// Which connection of each peer is the one served.
#[derive(Debug, Default)]
pub struct Serving {
    generations: RefCell<BTreeMap<NodeId, u64>>,
    bell: Bell,
}

impl Serving {
    /// A new connection of this peer; older ones end.
    fn replace(&self, peer: NodeId) -> u64 {
        let mut generations = self.generations.borrow_mut();
        let generation = generations.entry(peer).or_default();
        *generation += 1;
        let generation = *generation;
        drop(generations);
        self.bell.ring();
        generation
    }

    async fn superseded(&self, peer: NodeId, generation: u64) {
        let newest = || self.generations.borrow().get(&peer).copied();
        self.bell.until(|| (newest() != Some(generation)).then_some(())).await;
    }
}

/// Limits what all answers together take from the network: a token bucket in debt. Who catches up
/// with a ring that is faster than the limit would never get there: so it is a quarter more than
/// what the ring delivers, if that is higher.
#[derive(Debug)]
pub struct Bucket {
    least: u64,
    bytes_per_s: Cell<u64>,
    free_at: Cell<Duration>,
    /// When it was last looked at what the ring delivers, and how much it had delivered.
    looked: Cell<(Duration, u64)>,
}

impl Bucket {
    /// What the bucket lends at once, as time.
    const BURST: Duration = Duration::from_millis(50);
    /// So long the ring's rate is measured, and holds.
    const LOOK: Duration = Duration::from_secs(1);

    /// A bucket that refills at `bytes_per_s`, at least 1.
    pub fn new(bytes_per_s: u64) -> Bucket {
        let least = bytes_per_s.max(1);
        let (free_at, looked) = Default::default();
        Bucket { least, bytes_per_s: Cell::new(least), free_at, looked }
    }

    /// The ring has delivered so many bytes by now.
    pub fn keep_ahead(&self, now: Duration, delivered: u64) {
        let (then, before) = self.looked.get();
        let past = now.saturating_sub(then);
        if past < Self::LOOK {
            return;
        }
        self.looked.set((now, delivered));
        // Nobody asked for long: what was long ago says nothing of now.
        let recent = past < 3 * Self::LOOK;
        let micros = past.as_micros().max(1) as u64;
        let rate = delivered.saturating_sub(before).saturating_mul(1_000_000) / micros;
        let ahead = if recent { rate / 4 * 5 } else { 0 };
        self.bytes_per_s.set(self.least.max(ahead));
    }

    /// What it refills at.
    pub fn rate(&self) -> u64 {
        self.bytes_per_s.get()
    }

    /// Takes `bytes`, then waits until they are earned but for the burst.
    pub async fn take(&self, net: &impl Net, bytes: usize) {
        let (now, rate) = (net.now(), self.rate());
        let cost = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / rate);
        let free_at = self.free_at.get().max(now) + cost;
        self.free_at.set(free_at);
        let debt = free_at.saturating_sub(now);
        if debt > Self::BURST {
            net.pause(debt - Self::BURST).await;
        }
    }
}
