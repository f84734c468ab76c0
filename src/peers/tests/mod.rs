//! Nodes' connections over loopback in one process; queues in place of the shards.

mod handshake;
mod lan;
mod mesh;
mod replay;

use crate::control::catalog::Catalog;
use crate::gauges::Gauges;
use crate::keep::Keeper;
use crate::mail::{Command, Notice, Place, Taken};
use crate::peers::wait::Bell;
use crate::peers::{Host, LogSource, Net, Peers, PeersOptions, Tcp, listen};
use async_executor::{LocalExecutor, Task};
use chainring_net::hello::{Held, Identity, PROTOCOL, Purpose, Resume};
use chainring_ring::header::{Header, Kind};
use chainring_ring::ids::*;
use chainring_storage::Start;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub const PACKET_MAX: u32 = 64 << 10;

/// What a node has delivered, and what its connections told its shard.
pub struct World<H = OwnedFd> {
    pub commands: RefCell<VecDeque<Command<H>>>,
    pub bell: Bell,
    pub log: RefCell<Vec<(Order, Place)>>,
    pub disk: RefCell<Vec<u8>>,
    pub held: RefCell<BTreeMap<ValueId, Vec<u8>>>,
    pub first: Cell<u64>,
    pub delivered: Cell<u64>,
    /// Deliver what catch-up brings, as a shard would.
    pub delivers: Cell<bool>,
    /// What the shard says when it is asked for the state.
    pub state: RefCell<Option<(Claim, Vec<u8>)>>,
    pub catalog: Catalog,
}

impl<H> Default for World<H> {
    fn default() -> World<H> {
        World {
            commands: RefCell::default(),
            bell: Bell::default(),
            log: RefCell::default(),
            disk: RefCell::default(),
            held: RefCell::default(),
            first: Cell::default(),
            delivered: Cell::default(),
            delivers: Cell::default(),
            state: RefCell::default(),
            catalog: Catalog::new(true),
        }
    }
}

impl<H> World<H> {
    /// Appends an entry to the log; a value's frame too.
    pub fn append(&self, entry: Entry, frame: &[u8]) {
        let mut log = self.log.borrow_mut();
        let at = self.disk.borrow().len() as u64;
        self.disk.borrow_mut().extend(frame);
        let instance = Instance(log.len() as u64);
        let order = Order { instance, ballot: ballot(), base: Instance(0), entry, decided: false };
        log.push((order, Place { at, bytes: frame.len() as u32 }));
        self.delivered.set(log.len() as u64);
    }
}

pub struct Mock<N: Net>(pub Rc<World<N::Handle>>);

impl<N: Net> Host for Mock<N> {
    type Net = N;

    fn keeper(&self) -> Option<&RefCell<Keeper>> {
        None
    }
    fn catalog<R>(&self, look: impl FnOnce(&Catalog) -> R) -> R {
        look(&self.0.catalog)
    }
    fn forget_below(&self, _: Instance) {}
    async fn ask_state(&self, command: impl FnOnce(u64) -> Command<N::Handle>) -> Option<Notice> {
        match command(0) {
            Command::TakeState { token, mut buffer } => {
                buffer.extend_from_slice(&self.0.state.borrow().as_ref()?.1);
                let claim = self.0.state.borrow().as_ref()?.0;
                let start = Start::default();
                Some(Notice::State { token, taken: Ok(Taken { claim, start }), buffer })
            }
            Command::Arrive { token, arrival } => {
                self.0.delivered.set(arrival.claim.position.0);
                Some(Notice::Arrived { token, arrival, done: true })
            }
            _ => None,
        }
    }
    async fn blocking<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        work()
    }
    fn clock_ms(&self) -> u64 {
        0
    }

    async fn send(&self, command: Command<N::Handle>) {
        if let Command::Entries { orders, .. } = &command
            && self.0.delivers.get()
        {
            self.0.delivered.set(orders.last().unwrap().instance.0 + 1);
        }
        self.0.commands.borrow_mut().push_back(command);
        self.0.bell.ring();
    }
}

impl<N: Net> LogSource for Mock<N> {
    fn delivered(&self) -> Instance {
        Instance(self.0.delivered.get())
    }
    fn first(&self) -> Instance {
        Instance(self.0.first.get())
    }
    fn entry(&self, instance: Instance) -> Option<(Order, Place)> {
        let held = instance.0 >= self.0.first.get();
        held.then(|| self.0.log.borrow().get(instance.0 as usize).copied()).flatten()
    }
    fn find(&self, id: ValueId) -> Option<(Order, Place)> {
        let log = self.0.log.borrow();
        log.iter().find(|(order, _)| order.entry == Entry::Value(id)).copied()
    }
    fn claim(&self) -> Claim {
        Claim { ballot: ballot(), position: self.delivered() }
    }
    async fn read(&self, place: Place, buffer: &mut Vec<u8>) -> bool {
        let (from, to) = (place.at as usize, place.at as usize + place.bytes as usize);
        buffer.extend(&self.0.disk.borrow()[from..to]);
        true
    }
    async fn read_held(&self, id: ValueId, buffer: &mut Vec<u8>) -> bool {
        let held = self.0.held.borrow();
        if let Some(frame) = held.get(&id) {
            buffer.extend(frame);
        }
        held.contains_key(&id)
    }
}

pub fn ballot() -> Ballot {
    Ballot { round: 3, node: NodeId(1), incarnation: Incarnation(1) }
}

pub fn identity(node: u8) -> Identity {
    Identity {
        cluster: ClusterId(0xc1),
        epoch: Epoch(1),
        node: NodeId(node),
        incarnation: Incarnation(1),
        session: Session::FIRST,
        version: PROTOCOL,
        durability: Durability::Sync,
        block: 512,
        config_hash: 77,
    }
}

pub fn id(origin: u8, sequence: u64) -> ValueId {
    let (origin, sequence) = (NodeId(origin), Sequence(sequence));
    ValueId { origin, session: Session::FIRST, sequence }
}

/// A frame of `size` bytes; kind Value needs a multiple of the block.
pub fn frame(kind: Kind, id: ValueId, size: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|at| (at as u64 * 31 + id.sequence.0) as u8).collect();
    let length = size - 128;
    Header {
        checksum_body: 0,
        cluster: ClusterId(0xc1),
        epoch: Epoch(1),
        ring: RingId(0),
        kind,
        size,
        length,
        origin: id.origin,
        session: id.session,
        sequence: id.sequence,
        ballot: Ballot::ZERO,
        instance: Instance(0),
    }
    .seal(&mut bytes);
    bytes
}

pub struct Node {
    pub peers: Rc<Peers<Mock<Tcp>>>,
    pub world: Rc<World>,
    pub gauges: Arc<Gauges>,
    pub address: String,
    _running: Task<()>,
}

/// What the shard of `node` says it holds; differs from node to node and by kind.
pub fn resume_of(node: u8, kind: Purpose) -> Resume {
    let mut held = [Held::default(); NODES_MAX];
    held[0] = Held { origin: NodeId(1), session: Session::FIRST, next: Sequence(node.into()) };
    held[1] = Held { origin: NodeId(2), session: Session::FIRST, next: Sequence(1 << 40) };
    match kind {
        Purpose::Data => Resume::Data { count: 2, held },
        _ => Resume::Control { ballot: ballot(), received: Instance(node.into()) },
    }
}

impl Node {
    pub fn start(
        executor: &LocalExecutor<'_>,
        identity: Identity,
        listener: TcpListener,
        nodes: &[(NodeId, String)],
    ) -> Node {
        let pace = crate::peers::FETCH_BYTES_PER_S;
        Node::start_paced(executor, identity, listener, nodes, pace)
    }

    pub fn start_paced(
        executor: &LocalExecutor<'_>,
        identity: Identity,
        listener: TcpListener,
        nodes: &[(NodeId, String)],
        fetch_bytes_per_s: u64,
    ) -> Node {
        let world = Rc::new(World::default());
        let gauges = Arc::new(Gauges::default());
        let address = listener.local_addr().unwrap().to_string();
        let options = PeersOptions {
            identity,
            nodes: nodes.to_vec(),
            packet_max: PACKET_MAX,
            fetch_bytes_per_s,
        };
        let mock = Mock(world.clone());
        let net = Tcp::new(Some(listener)).unwrap();
        let peers = Peers::new(options, net, mock, gauges.clone()).unwrap();
        let _running = executor.spawn(peers.clone().run());
        Node { peers, world, gauges, address, _running }
    }

    /// The next command that `take` wants; others stay. "Prepare" is answered as a shard would.
    pub async fn next<T>(&self, mut take: impl FnMut(&mut Command) -> Option<T>) -> T {
        let me = self.peers.identity.get().node.0;
        let look = || {
            let mut commands = self.world.commands.borrow_mut();
            let mut answers = Vec::new();
            commands.retain(|command| match command {
                Command::PrepareIncoming { kind, token } => {
                    answers.push((*token, resume_of(me, *kind)));
                    false
                }
                _ => true,
            });
            let mut found = commands.iter_mut().enumerate();
            let found = found.find_map(|(at, command)| Some((at, take(command)?)));
            let result = found.map(|(at, taken)| {
                commands.remove(at);
                taken
            });
            drop(commands);
            for (token, resume) in answers {
                assert!(self.peers.on_notice(Notice::Resume { token, resume }).is_none());
            }
            result
        };
        let found =
            self.peers.net.within(Duration::from_secs(10), self.world.bell.until(look)).await;
        found.unwrap_or_else(|| {
            let commands = self.world.commands.borrow();
            panic!("nothing came at node {me}; {:?}; {commands:?}", self.peers.problems())
        })
    }

    /// Waits until a problem says `words`.
    pub async fn problem(&self, words: &str) {
        for _ in 0..1000 {
            if self.peers.problems().iter().any(|text| text.contains(words)) {
                return;
            }
            pause(Duration::from_millis(5)).await;
        }
        panic!("no problem says {words:?}: {:?}", self.peers.problems());
    }
}

/// Listeners on free ports, and the cluster's nodes with their addresses.
pub fn listeners(count: u8) -> (Vec<TcpListener>, Vec<(NodeId, String)>) {
    let listeners: Vec<_> = (0..count).map(|_| listen("127.0.0.1:0").unwrap()).collect();
    let nodes = (1..)
        .zip(&listeners)
        .map(|(node, listener)| (NodeId(node), listener.local_addr().unwrap().to_string()));
    let nodes = nodes.collect();
    (listeners, nodes)
}

/// Nodes 1 to `count`, running.
pub fn cluster(executor: &LocalExecutor<'_>, count: u8) -> Vec<Node> {
    let (listeners, nodes) = listeners(count);
    (1..)
        .zip(listeners)
        .map(|(node, listener)| Node::start(executor, identity(node), listener, &nodes))
        .collect()
}

/// Runs a test with an executor for the nodes.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce(Rc<LocalExecutor<'static>>) -> F) {
    let executor = Rc::new(LocalExecutor::new());
    async_io::block_on(executor.run(test(executor.clone())));
}

/// Waits that long.
pub async fn pause(time: Duration) {
    async_io::Timer::after(time).await;
}
