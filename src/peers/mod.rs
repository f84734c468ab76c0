//! A node's connections to its peers, on the control thread.
//!
//! One listener. The ring predecessor dials it twice (values; orders and votes); after the
//! handshake both connections go to the shard. Every node may dial every other a third time, for
//! direct messages (the mesh) and for fetch and catch-up.
//!
//! ```text
//!  accept ── handshake ──┬─ data, control ─▶ shard (Command::Incoming)
//!                        └─ peer ─▶ serve: Command::Direct · entries and values out
//!  dial ──── handshake ──── data, control ─▶ shard (Command::Outgoing)
//!  mesh ──── handshake ──── Notice::Direct out · fetch, catch_up ask here
//! ```
//! Invariants: everything is single-threaded and lives inside [`Peers::run`]; dropping that future
//! closes every connection. At most [`HALF_OPEN_MAX`] connections are in a handshake, each within
//! [`HANDSHAKE_TIME`] and holding one frame of the handshake; after it there is one connection a
//! peer and purpose.

mod accept;
mod catch_up;
mod dial;
mod fetch;
pub mod frames;
mod handshake;
mod lives;
mod mesh;
mod problems;
mod serve;
mod stream;
#[cfg(test)]
mod tests;
pub mod wait;

pub use accept::{HALF_OPEN_MAX, HANDSHAKE_TIME};

use crate::gauges::Gauges;
use crate::mail::{Command, Notice, Place};
use crate::peers::frames::Envelope;
use crate::peers::problems::Problems;
use crate::peers::wait::Bell;
use async_executor::LocalExecutor;
use async_io::Async;
use chainring_net::hello::{Identity, Purpose};
use chainring_ring::ids::{Claim, Instance, NodeId, Order, Session, ValueId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes a second that all answers of a node to fetch and catch-up take, unless configured.
pub const FETCH_BYTES_PER_S: u64 = 200_000_000;

/// What the connections to the peers need to know.
#[derive(Clone, Debug)]
pub struct PeersOptions {
    /// Who this node is, as its handshakes say.
    pub identity: Identity,
    /// All nodes of the cluster, this one too, with their peer addresses ("HOST:PORT").
    pub nodes: Vec<(NodeId, String)>,
    /// Largest value frame, bytes.
    pub packet_max: u32,
    /// See [`FETCH_BYTES_PER_S`].
    pub fetch_bytes_per_s: u64,
}

/// Why the connections to the peers could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// The peer address cannot be listened on.
    #[error(
        "cannot listen on the peer address {address}: {source}; \
         is another process using it, and does it belong to this machine?"
    )]
    Listen {
        /// As configured.
        address: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// This node is not among the nodes of the cluster.
    #[error("node {} is not among the nodes of the cluster; correct [node] id", node.0)]
    Unlisted {
        /// This node.
        node: NodeId,
    },
}

/// What peers may be served from, and how far this node is. Positions are exclusive.
pub trait LogSource {
    /// Everything below it was delivered here and can be found with [`LogSource::entry`], down
    /// to [`LogSource::first`].
    fn delivered(&self) -> Instance;
    /// First instance still held.
    fn first(&self) -> Instance;
    /// The entry of a delivered instance and the place of its value's frame; 0 bytes if it is
    /// no value or a later occurrence of one.
    fn entry(&self, instance: Instance) -> Option<(Order, Place)>;
    /// The entry that delivered this value.
    fn find(&self, id: ValueId) -> Option<(Order, Place)>;
    /// What is known to be decided.
    fn claim(&self) -> Claim;
    /// Appends the frame at `place` to `buffer`; false if it is gone or cannot be read, whatever
    /// was appended by then.
    fn read(&self, place: Place, buffer: &mut Vec<u8>) -> impl Future<Output = bool>;
    /// The same for a value that the shard holds undelivered.
    fn read_held(&self, id: ValueId, buffer: &mut Vec<u8>) -> impl Future<Output = bool>;
}

/// The way to the shard.
pub trait CommandSink {
    /// Hands a command to the shard; waits while its mailbox is full.
    fn send(&self, command: Command) -> impl Future<Output = ()>;
}

/// All that a node's connections need of the node around them.
pub trait Host: LogSource + CommandSink + 'static {}

impl<T: LogSource + CommandSink + 'static> Host for T {}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Index of a link in a pair of states, data and control.
fn link_index(kind: Purpose) -> Option<usize> {
    match kind {
        Purpose::Data => Some(0),
        Purpose::Control => Some(1),
        Purpose::Peer => None,
    }
}

/// A node's connections to its peers. See the head of this file.
pub struct Peers<H> {
    identity: Cell<Identity>,
    packet_max: u32,
    nodes: BTreeMap<NodeId, String>,
    host: H,
    gauges: Arc<Gauges>,
    listener: Option<Async<TcpListener>>,
    problems: Problems,
    lives: lives::Lives,
    accepting: accept::Accepting,
    dialing: dial::Dialing,
    meshes: BTreeMap<NodeId, mesh::Mesh>,
    serving: serve::Serving,
    bucket: serve::Bucket,
    fetches: fetch::Fetches,
    catching_up: catch_up::CatchingUp,
    tasks: RefCell<Vec<Task>>,
    tasks_bell: Bell,
}

/// Listens on a node's peer address ("HOST:PORT").
///
/// # Errors
/// [`PeersError::Listen`].
pub fn listen(address: &str) -> Result<TcpListener, PeersError> {
    TcpListener::bind(address)
        .map_err(|source| PeersError::Listen { address: address.to_owned(), source })
}

impl<H: Host> Peers<H> {
    /// Sets up the connections; nothing happens before [`Peers::run`]. A ring of one needs no
    /// listener.
    ///
    /// # Errors
    /// [`PeersError`].
    pub fn new(
        options: PeersOptions,
        listener: Option<TcpListener>,
        host: H,
        gauges: Arc<Gauges>,
    ) -> Result<Rc<Peers<H>>, PeersError> {
        let identity = options.identity;
        let nodes: BTreeMap<_, _> = options.nodes.into_iter().collect();
        let Some(address) = nodes.get(&identity.node).cloned() else {
            return Err(PeersError::Unlisted { node: identity.node });
        };
        let listener = listener
            .map(Async::new)
            .transpose()
            .map_err(|source| PeersError::Listen { address, source })?;
        let others = nodes.keys().filter(|node| **node != identity.node);
        let meshes = others.map(|node| (*node, mesh::Mesh::default())).collect();
        Ok(Rc::new(Peers {
            identity: Cell::new(identity),
            packet_max: options.packet_max,
            nodes,
            host,
            gauges,
            listener,
            problems: Problems::default(),
            lives: lives::Lives::default(),
            accepting: accept::Accepting::default(),
            dialing: dial::Dialing::default(),
            meshes,
            serving: serve::Serving::default(),
            bucket: serve::Bucket::new(options.fetch_bytes_per_s),
            fetches: fetch::Fetches::default(),
            catching_up: catch_up::CatchingUp::default(),
            tasks: RefCell::default(),
            tasks_bell: Bell::default(),
        }))
    }

    /// Keeps the connections up. Never ends; drop it to close them all.
    pub async fn run(self: Rc<Self>) {
        let executor = LocalExecutor::new();
        if self.listener.is_some() {
            self.spawn(accept::listen(self.clone()));
        }
        if let Some(successor) = self.successor() {
            self.spawn(dial::keep(self.clone(), successor, Purpose::Data));
            self.spawn(dial::keep(self.clone(), successor, Purpose::Control));
        }
        for peer in self.meshes.keys() {
            self.spawn(mesh::run(self.clone(), *peer));
        }
        self.spawn(catch_up::run(self.clone()));
        let start = async {
            loop {
                let tasks = || Some(self.tasks.take()).filter(|tasks| !tasks.is_empty());
                for task in self.tasks_bell.until(tasks).await {
                    executor.spawn(task).detach();
                }
            }
        };
        executor.run(start).await
    }

    /// Takes a notice of the shard; gives back those that are not about peers.
    pub fn on_notice(self: &Rc<Self>, notice: Notice) -> Option<Notice> {
        match notice {
            Notice::Resume { token, resume } => self.accepting.resume(token, resume),
            Notice::LinkDown { kind, outgoing: true } => self.dialing.down(kind),
            // The predecessor sees it too and dials again.
            Notice::LinkDown { outgoing: false, .. } => {}
            Notice::Direct { to, frame } => {
                if let Some(mesh) = self.meshes.get(&to) {
                    mesh.direct(frame);
                }
            }
            Notice::FetchValue { id } => fetch::fetch(self, id),
            Notice::CatchUp { from } => self.catching_up.start(from),
            other => return Some(other),
        }
        None
    }

    /// What is wrong between this node and its peers, in words.
    pub fn problems(&self) -> Vec<String> {
        self.problems.list()
    }

    /// The node's own session was closed and it took the next: later handshakes say so.
    pub fn set_session(&self, session: Session) {
        self.identity.set(Identity { session, ..self.identity.get() });
    }

    /// The neighbour that this node sends to, if it is not alone.
    pub fn successor(&self) -> Option<NodeId> {
        let own = self.identity.get().node;
        let after = self.nodes.keys().find(|node| **node > own);
        after.or(self.nodes.keys().next()).copied().filter(|node| *node != own)
    }

    /// The neighbour that sends to this node, if it is not alone.
    pub fn predecessor(&self) -> Option<NodeId> {
        let own = self.identity.get().node;
        let before = self.nodes.keys().rfind(|node| **node < own);
        before.or(self.nodes.keys().next_back()).copied().filter(|node| *node != own)
    }

    fn envelope(&self) -> Envelope {
        let Identity { cluster, epoch, node, session, block, .. } = self.identity.get();
        Envelope { cluster, epoch, node, session, block, packet_max: self.packet_max }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push(Box::pin(task));
        self.tasks_bell.ring();
    }
}
