//! A node's connections to its peers, on the control thread.
//!
//! One listener. The predecessor in the circle dials it twice (values; orders and votes); after the
//! handshake both connections go to the shard, which says who the neighbours are. Every node dials
//! every other a third time, for direct messages (the mesh) and for fetch and catch-up.
//!
//! ```text
//!  accept ── handshake ──┬─ data, control ─▶ shard (Command::Incoming)
//!                        └─ peer ─▶ serve: Command::Direct · entries and values out
//!  dial ──── handshake ──── data, control ─▶ shard (Command::Outgoing)
//!  mesh ──── handshake ──── Notice::Direct out · fetch, catch_up ask here
//! ```
//! Invariants: everything is single-threaded and lives inside [`Peers::run`]; dropping that future
//! closes every connection. What happens depends on the order of events and on [`Net`] alone.
//! At most [`HALF_OPEN_MAX`] connections are in a handshake, each within [`HANDSHAKE_TIME`] and
//! holding one frame of the handshake; after it there is one connection a peer and purpose.

mod accept;
mod catch_up;
mod dial;
mod fetch;
pub mod frames;
mod handshake;
mod keep;
mod lives;
mod mesh;
mod net;
mod problems;
mod serve;
mod state;
mod stream;
mod tasks;
mod tcp;
#[cfg(test)]
mod tests;
mod view;
pub mod wait;

pub use accept::{HALF_OPEN_MAX, HANDSHAKE_TIME};
pub use fetch::find;
pub use mesh::DIRECTS_MAX;
pub use net::{Net, Stream};
pub use tcp::{Tcp, listen};

use crate::control::catalog::Catalog;
use crate::gauges::Gauges;
use crate::keep::Keeper;
use crate::mail::{Command, Notice, Place};
use crate::peers::frames::Envelope;
use crate::peers::problems::{About, Problems};
use crate::peers::tasks::Tasks;
use chainring_net::hello::{Identity, Purpose};
use chainring_ring::ids::{Claim, Instance, NodeId, Order, Session, ValueId};
use chainring_ring::layout::Layout;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
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

/// All that a node's connections need of the node around them.
pub trait Host: LogSource + 'static {
    /// The network and the clock below.
    type Net: Net;

    /// The checkpoints; none in memory durability. Not to be borrowed over an `await`.
    fn keeper(&self) -> Option<&RefCell<Keeper>>;
    /// Looks into the catalog.
    fn catalog<R>(&self, look: impl FnOnce(&Catalog) -> R) -> R;
    /// Forgets what the catalog has below a position.
    fn forget_below(&self, position: Instance);
    /// Sends the shard a command about the state, and waits for its answer.
    fn ask_state(
        &self,
        command: impl FnOnce(u64) -> CommandOf<Self>,
    ) -> impl Future<Output = Option<Notice>>;
    /// Does what blocks away from all else.
    fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> impl Future<Output = R>;
    /// The node's clock, milliseconds.
    fn clock_ms(&self) -> u64;
    /// Hands a command to the shard; waits while its mailbox is full.
    fn send(&self, command: CommandOf<Self>) -> impl Future<Output = ()>;
}

/// A command to the shard of this host.
pub type CommandOf<H> = Command<<<H as Host>::Net as Net>::Handle>;

/// A connection that this host's network makes.
type StreamOf<H> = <<H as Host>::Net as Net>::Stream;

/// Index of a link in a pair of states, data and control.
fn link_index(kind: Purpose) -> Option<usize> {
    match kind {
        Purpose::Data => Some(0),
        Purpose::Control => Some(1),
        Purpose::Peer => None,
    }
}

/// A node's connections to its peers. See the head of this file.
pub struct Peers<H: Host> {
    identity: Cell<Identity>,
    packet_max: u32,
    nodes: BTreeMap<NodeId, String>,
    host: H,
    gauges: Arc<Gauges>,
    net: H::Net,
    problems: Problems,
    lives: lives::Lives,
    accepting: accept::Accepting,
    predecessor: Cell<Option<NodeId>>,
    dialing: dial::Dialing,
    meshes: BTreeMap<NodeId, mesh::Mesh>,
    serving: serve::Serving,
    bucket: serve::Bucket,
    fetches: fetch::Fetches,
    catching_up: catch_up::CatchingUp,
    /// The state that a peer is being given, part by part.
    served: RefCell<Option<Rc<state::Served>>>,
    tasks: Tasks,
}

impl<H: Host> Peers<H> {
    /// Sets up the connections; nothing happens before [`Peers::run`].
    ///
    /// # Errors
    /// [`PeersError::Unlisted`].
    pub fn new(
        options: PeersOptions,
        net: H::Net,
        host: H,
        gauges: Arc<Gauges>,
    ) -> Result<Rc<Peers<H>>, PeersError> {
        let identity = options.identity;
        let nodes: BTreeMap<_, _> = options.nodes.into_iter().collect();
        if !nodes.contains_key(&identity.node) {
            return Err(PeersError::Unlisted { node: identity.node });
        }
        let others = nodes.keys().filter(|node| **node != identity.node);
        let meshes = others.map(|node| (*node, mesh::Mesh::default())).collect();
        // The circle of all, until a ballot says otherwise.
        let circle = Layout::new(nodes.keys().copied());
        Ok(Rc::new(Peers {
            identity: Cell::new(identity),
            packet_max: options.packet_max,
            nodes,
            host,
            gauges,
            net,
            problems: Problems::default(),
            lives: lives::Lives::default(),
            accepting: accept::Accepting::default(),
            predecessor: Cell::new(circle.predecessor(identity.node)),
            dialing: dial::Dialing::new(circle.successor(identity.node)),
            meshes,
            serving: serve::Serving::default(),
            bucket: serve::Bucket::new(options.fetch_bytes_per_s),
            fetches: fetch::Fetches::default(),
            catching_up: catch_up::CatchingUp::default(),
            served: RefCell::default(),
            tasks: Tasks::default(),
        }))
    }

    /// Keeps the connections up. Never ends; drop it to close them all, for good.
    pub fn run(self: Rc<Self>) -> impl Future<Output = ()> {
        // From now on, not from the first turn on, for until they are closed tasks and peers hold
        // each other.
        let running = Running(self);
        async move {
            let peers = &running.0;
            peers.spawn(accept::listen(peers.clone()));
            peers.spawn(dial::keep(peers.clone(), Purpose::Data));
            peers.spawn(dial::keep(peers.clone(), Purpose::Control));
            for peer in peers.meshes.keys() {
                peers.spawn(mesh::run(peers.clone(), *peer));
            }
            peers.spawn(catch_up::run(peers.clone()));
            peers.spawn(keep::run(peers.clone()));
            peers.tasks.run().await
        }
    }

    /// Takes a notice of the shard; gives back those that are not about peers.
    pub fn on_notice(self: &Rc<Self>, notice: Notice) -> Option<Notice> {
        match notice {
            Notice::Resume { token, resume } => self.accepting.resume(token, resume),
            Notice::LinkDown { kind, outgoing: true } => self.dialing.down(kind),
            // The predecessor sees it too and dials again.
            Notice::LinkDown { outgoing: false, .. } => {}
            Notice::Neighbours { predecessor, successor } => {
                self.predecessor.set(predecessor);
                self.dialing.call(successor);
            }
            Notice::Direct { to, frame } => {
                if let Some(mesh) = self.meshes.get(&to) {
                    mesh.direct(self.net.now(), frame);
                }
            }
            Notice::Check(check) => {
                let frame = self.envelope().check(&check);
                let now = self.net.now();
                self.meshes.values().for_each(|mesh| mesh.direct(now, frame.clone()));
            }
            Notice::FetchValue { id } => fetch::fetch(self, id),
            Notice::CatchUp { from } => self.catching_up.start(from),
            other => return Some(other),
        }
        None
    }

    /// What is wrong between this node and its peers, in words.
    pub fn problems(&self) -> Vec<String> {
        self.problems.list(self.net.now())
    }

    /// The node's own session was closed and it took the next: later handshakes say so.
    pub fn set_session(&self, session: Session) {
        self.identity.set(Identity { session, ..self.identity.get() });
    }

    /// The neighbour that this node sends to, if it has one.
    pub fn successor(&self) -> Option<NodeId> {
        self.dialing.successor()
    }

    /// The neighbour that sends to this node, if it has one.
    pub fn predecessor(&self) -> Option<NodeId> {
        self.predecessor.get()
    }

    fn envelope(&self) -> Envelope {
        let Identity { cluster, epoch, node, session, block, .. } = self.identity.get();
        Envelope { cluster, epoch, node, session, block, packet_max: self.packet_max }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawn(task);
    }

    fn say(&self, about: About, text: String) {
        self.problems.set(self.net.now(), about, text);
    }
}

/// Closes all connections when it goes.
struct Running<H: Host>(Rc<Peers<H>>);

impl<H: Host> Drop for Running<H> {
    fn drop(&mut self) {
        self.0.tasks.close();
    }
}
