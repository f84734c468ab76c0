//! Dialing peers, and keeping the data and control connections to the successor up.
//!
//! Invariants: one attempt at a time for each connection; a connection belongs to the shard from
//! [`Command::Outgoing`] until it says [`crate::mail::Notice::LinkDown`], and is not dialed
//! between.

use crate::mail::Command;
use crate::peers::accept::{HANDSHAKE_TIME, blocking};
use crate::peers::handshake::{DialError, call};
use crate::peers::problems::About;
use crate::peers::stream::{Stream, StreamError};
use crate::peers::wait::{Backoff, Bell, pause, within};
use crate::peers::{Host, Peers, link_index};
use async_io::Async;
use chainring_net::hello::{Hello, Purpose, Resume};
use chainring_net::socket::tune;
use chainring_ring::ids::NodeId;
use std::cell::Cell;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Wait after a refusal: it takes a person to mend what was refused.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// A link that lived so long starts the waits between attempts anew.
const STABLE_TIME: Duration = Duration::from_secs(1);
/// Longest time for a connection to come about.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// The state of the outgoing links.
#[derive(Debug, Default)]
pub struct Dialing {
    /// True once the shard has lost the link, data and control.
    down: [Cell<bool>; 2],
    bell: Bell,
}

impl Dialing {
    /// The shard lost this link.
    pub fn down(&self, kind: Purpose) {
        if let Some(link) = link_index(kind) {
            self.down[link].set(true);
            self.bell.ring();
        }
    }
}

/// Keeps one link to the successor up, for ever.
pub async fn keep<H: Host>(peers: Rc<Peers<H>>, to: NodeId, kind: Purpose) {
    let mut backoff = Backoff::new(seed(&peers, to, kind));
    let Some(link) = link_index(kind) else { return };
    let down = &peers.dialing.down[link];
    loop {
        match dial(&peers, to, kind).await.and_then(|(stream, resume)| {
            let stream = blocking(stream).map_err(DialError::from)?;
            Ok((stream, resume))
        }) {
            Ok((stream, resume)) => {
                down.set(false);
                let (command, since) = (outgoing(kind, to, stream, resume), Instant::now());
                peers.host.send(command).await;
                peers.dialing.bell.until(|| down.get().then_some(())).await;
                // A link that breaks right after every handshake must not turn into a busy loop.
                if since.elapsed() > STABLE_TIME {
                    backoff.reset();
                }
                pause(backoff.next_delay()).await;
            }
            Err(error) => pause(wait_after(&error, &mut backoff)).await,
        }
    }
}

fn outgoing(kind: Purpose, to: NodeId, stream: TcpStream, resume: Resume) -> Command {
    Command::Outgoing { kind, to, handle: stream.into(), resume }
}

/// How long to wait after a failed attempt.
pub fn wait_after(error: &DialError, backoff: &mut Backoff) -> Duration {
    match error {
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
) -> Result<(Stream, Resume), DialError> {
    let outcome = attempt(peers, to, purpose).await;
    let about = About::outgoing(to, purpose);
    match &outcome {
        Ok(_) => peers.problems.clear(about),
        Err(error) => {
            if error.is_bad_frame() {
                peers.gauges.bad_frames.add(1);
            }
            peers.problems.set(about, format!("no connection to node {}: {error}", to.0));
        }
    }
    outcome
}

async fn attempt<H: Host>(
    peers: &Peers<H>,
    to: NodeId,
    purpose: Purpose,
) -> Result<(Stream, Resume), DialError> {
    let address = peers.nodes.get(&to).map_or("", String::as_str);
    let unreachable = |source| DialError::Unreachable { address: address.to_owned(), source };
    let connect = Async::<TcpStream>::connect(resolve(address).map_err(unreachable)?);
    let stream = within(CONNECT_TIME, connect)
        .await
        .unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(unreachable)?;
    tune(stream.get_ref(), None).map_err(StreamError::from)?;
    let hello = Hello { identity: peers.identity.get(), purpose, to };
    let called = within(HANDSHAKE_TIME, call(&stream, &hello)).await;
    let welcome = called.ok_or(DialError::Silent)??;
    peers.lives.learn(&welcome.identity)?;
    Ok((stream, welcome.resume))
}

/// The address of a peer. A name, unlike a number, is looked up by the system's resolver, which
/// may hold up the control thread for as long as it takes.
fn resolve(address: &str) -> std::io::Result<SocketAddr> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(none)
}
