//! Dialing peers, and keeping the data and control connections to the successor up.
//!
//! Invariants: one attempt at a time for each connection; a connection belongs to the shard from
//! [`Command::Outgoing`] until it says [`crate::mail::Notice::LinkDown`], and is not dialed
//! between.

use crate::mail::Command;
use crate::peers::accept::HANDSHAKE_TIME;
use crate::peers::handshake::{DialError, OUT_OF_PLACE, call};
use crate::peers::net::{Net, Stream};
use crate::peers::problems::About;
use crate::peers::stream::StreamError;
use crate::peers::wait::{Backoff, Bell};
use crate::peers::{Host, Peers, StreamOf, link_index};
use chainring_net::hello::{Hello, Purpose, Resume};
use chainring_ring::ids::NodeId;
use chainring_ring::mark;
use futures_lite::future::or;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Wait after a refusal: it takes a person to mend what was refused.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// A link that lived so long starts the waits between attempts anew.
pub const STABLE_TIME: Duration = Duration::from_secs(1);
/// Longest time for a connection to come about. Shorter than the kernel's second before it asks
/// again: what asks again is a new attempt.
const CONNECT_TIME: Duration = Duration::from_millis(300);

/// The state of the outgoing links.
#[derive(Debug)]
pub struct Dialing {
    /// Whom to call; it changes with the circle, and each time it does the number rises.
    successor: Cell<(u64, Option<NodeId>)>,
    /// True once the shard has lost the link, data and control.
    down: [Cell<bool>; 2],
    bell: Bell,
}

impl Dialing {
    /// Links to this neighbour.
    pub fn new(successor: Option<NodeId>) -> Dialing {
        Dialing {
            successor: Cell::new((0, successor)),
            down: Default::default(),
            bell: Bell::default(),
        }
    }

    /// Whom this node sends to.
    pub fn successor(&self) -> Option<NodeId> {
        self.successor.get().1
    }

    /// The circle has another successor; the shard has taken the links to the old one down.
    pub fn call(&self, successor: Option<NodeId>) {
        let (number, before) = self.successor.get();
        if successor != before {
            self.successor.set((number + 1, successor));
            self.bell.ring();
        }
    }

    /// The shard lost this link.
    pub fn down(&self, kind: Purpose) {
        if let Some(link) = link_index(kind) {
            self.down[link].set(true);
            self.bell.ring();
        }
    }
}

/// Keeps one link to the successor up, whoever that is, for ever.
pub async fn keep<H: Host>(peers: Rc<Peers<H>>, kind: Purpose) {
    let dialing = &peers.dialing;
    loop {
        let (number, to) = dialing.successor.get();
        let other = dialing.bell.until(|| (dialing.successor.get().0 != number).then_some(()));
        match to {
            Some(to) => or(keep_to(&peers, to, kind), other).await,
            None => other.await,
        }
    }
}

/// Keeps a link to this successor up; ends only with it.
async fn keep_to<H: Host>(peers: &Peers<H>, to: NodeId, kind: Purpose) {
    let mut backoff = Backoff::new(seed(peers, to, kind));
    let Some(link) = link_index(kind) else { return };
    let down = &peers.dialing.down[link];
    loop {
        match dial(peers, to, kind).await.and_then(|(stream, resume)| {
            let handle = peers.net.release(stream).map_err(StreamError::from)?;
            Ok((handle, resume))
        }) {
            Ok((handle, resume)) => {
                down.set(false);
                let since = peers.net.now();
                peers.host.send(Command::Outgoing { kind, to, handle, resume }).await;
                peers.dialing.bell.until(|| down.get().then_some(())).await;
                // A link that breaks right after every handshake must not turn into a busy loop.
                if peers.net.since(since) > STABLE_TIME {
                    backoff.reset();
                }
                peers.net.pause(backoff.next_delay()).await;
            }
            Err(error) => peers.net.pause(wait_after(&error, &mut backoff)).await,
        }
    }
}

/// How long to wait after a failed attempt.
pub fn wait_after(error: &DialError, backoff: &mut Backoff) -> Duration {
    match error {
        // The circle changes at one node before the other: soon both know it.
        DialError::Refused { code: OUT_OF_PLACE, .. } => backoff.next_delay(),
        DialError::Refused { .. } | DialError::Differs(_) => REFUSED_PAUSE,
        _ => backoff.next_delay(),
    }
}

/// What tells this node's attempts apart from all others', for the jitter.
pub fn seed<H: Host>(peers: &Peers<H>, to: NodeId, kind: Purpose) -> u64 {
    let own = peers.identity.get().node;
    u64::from(own.0) << 16 | u64::from(to.0) << 8 | kind as u64
}

/// Connects to a peer and shakes hands; what fails is remembered for `status`.
///
/// # Errors
/// [`DialError`].
pub async fn dial<H: Host>(
    peers: &Peers<H>,
    to: NodeId,
    purpose: Purpose,
) -> Result<(StreamOf<H>, Resume), DialError> {
    let outcome = attempt(peers, to, purpose).await;
    let about = About::outgoing(to, purpose);
    match &outcome {
        Ok(_) => peers.problems.clear(about),
        Err(error) => {
            match error {
                DialError::Unreachable { .. } => mark!(PeerUnreachable),
                DialError::Silent => mark!(PeerSilent),
                DialError::Refused { .. } => mark!(PeerRefused),
                _ => mark!(HandshakeBroken),
            }
            if error.is_bad_frame() {
                peers.gauges.bad_frames.add(1);
            }
            peers.say(about, format!("no connection to node {}: {error}", to.0));
        }
    }
    outcome
}

async fn attempt<H: Host>(
    peers: &Peers<H>,
    to: NodeId,
    purpose: Purpose,
) -> Result<(StreamOf<H>, Resume), DialError> {
    let address = peers.nodes.get(&to).map_or("", String::as_str);
    let unreachable = |source| DialError::Unreachable { address: address.to_owned(), source };
    let connected = peers.net.within(CONNECT_TIME, peers.net.connect(address)).await;
    let stream = connected
        .unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(unreachable)?;
    stream.tune().and_then(|()| stream.tune_for(purpose)).map_err(StreamError::from)?;
    let hello = Hello { identity: peers.identity.get(), purpose, to };
    let called = peers.net.within(HANDSHAKE_TIME, call(&peers.net, &stream, &hello)).await;
    let welcome = called.ok_or(DialError::Silent)??;
    peers.lives.learn(&welcome.identity)?;
    Ok((stream, welcome.resume))
}
