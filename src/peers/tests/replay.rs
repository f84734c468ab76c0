//! A cluster on a simulated network: equal seeds make equal runs, to the byte and the microsecond.

use super::lan::{End, Lan, Port};
use super::mesh::fill;
use super::*;
use std::pin::Pin;
use std::rc::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use xxhash_rust::xxh3::xxh3_64;

#[derive(Default)]
struct Awake(AtomicBool);

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A node whose connections are polled by hand.
struct Machine {
    peers: Rc<Peers<Mock<Port>>>,
    world: Rc<World<End>>,
    run: Pin<Box<dyn Future<Output = ()>>>,
    awake: Arc<Awake>,
    /// What its shard got: closed when the machine goes.
    links: BTreeMap<(bool, u8), End>,
}

struct Cluster {
    lan: Rc<Lan>,
    machines: BTreeMap<u8, Machine>,
    transcript: Vec<String>,
    polls: u64,
    gone: Vec<Weak<Peers<Mock<Port>>>>,
}

impl Cluster {
    fn start(&mut self, node: u8, session: u32) -> Rc<World<End>> {
        let address = |node: u8| format!("node-{node}");
        let options = PeersOptions {
            identity: Identity {
                session: Session { incarnation: Incarnation(1), start: session },
                ..identity(node)
            },
            nodes: (1..=3).map(|node| (NodeId(node), address(node))).collect(),
            packet_max: PACKET_MAX,
            fetch_bytes_per_s: 100_000_000,
        };
        let world = Rc::new(World::default());
        let port = Port::listen(&self.lan, &address(node));
        let peers = Peers::new(options, port, Mock(world.clone()), Arc::default()).unwrap();
        let run = Box::pin(peers.clone().run());
        let awake = Arc::new(Awake(AtomicBool::new(true)));
        let links = BTreeMap::new();
        let machine = Machine { peers, world: world.clone(), run, awake, links };
        self.machines.insert(node, machine);
        world
    }

    /// Stops it dead, wherever it is.
    fn crash(&mut self, node: u8) {
        let machine = self.machines.remove(&node).unwrap();
        self.gone.push(Rc::downgrade(&machine.peers));
        drop(machine);
    }

    fn notice(&mut self, node: u8, notice: Notice) {
        assert!(self.machines[&node].peers.on_notice(notice).is_none());
    }

    fn problems(&self) -> Vec<String> {
        self.machines.values().flat_map(|machine| machine.peers.problems()).collect()
    }

    fn run(&mut self, until: Duration) {
        loop {
            while self.turn() {}
            if !self.lan.step(until) {
                return;
            }
        }
    }

    /// Polls who was woken and takes its commands; false if nobody was.
    fn turn(&mut self) -> bool {
        let mut woken = false;
        for (node, machine) in &mut self.machines {
            if !machine.awake.0.swap(false, Ordering::SeqCst) {
                continue;
            }
            woken = true;
            self.polls += 1;
            let waker = Waker::from(machine.awake.clone());
            assert!(machine.run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            let commands = machine.world.commands.take();
            for command in commands {
                let said = machine.take(*node, command);
                self.transcript.push(format!("{:?} node {node}: {said}", self.lan.now()));
            }
        }
        woken
    }
}

impl Machine {
    /// As a shard would; what it was.
    fn take(&mut self, me: u8, command: Command<End>) -> String {
        match command {
            Command::PrepareIncoming { kind, token } => {
                let resume = resume_of(me, kind);
                assert!(self.peers.on_notice(Notice::Resume { token, resume }).is_none());
                format!("prepare {kind:?} {token}")
            }
            Command::Incoming { kind, from, handle } => {
                self.links.insert((false, kind as u8), handle);
                format!("incoming {kind:?} from {}", from.0)
            }
            Command::Outgoing { kind, to, handle, resume } => {
                self.links.insert((true, kind as u8), handle);
                assert_eq!(resume, resume_of(to.0, kind));
                format!("outgoing {kind:?} to {}", to.0)
            }
            Command::Direct { from, frame } => {
                format!("direct from {}: {:x}", from.0, xxh3_64(&frame))
            }
            Command::Entries { orders, frames, .. } => {
                let (first, last) = (orders[0].instance.0, orders.last().unwrap().instance.0);
                format!("entries {first} to {last}: {:x}", xxh3_64(&frames))
            }
            Command::Value { frame } => format!("value {:x}", xxh3_64(&frame)),
            Command::Hint { node } => format!("hint {}", node.0),
            Command::NotHeld { id } => format!("not held {}", id.sequence.0),
            _ => unreachable!("nobody here sends another"),
        }
    }
}

/// Links, direct messages, fetch and catch-up; a crash in the middle of it, and a new life.
fn story(seed: u64) -> Vec<String> {
    let ms = Duration::from_millis;
    let (machines, transcript, gone) = Default::default();
    let mut all = Cluster { lan: Lan::new(seed), machines, transcript, polls: 0, gone };
    let worlds: Vec<_> = (1..=3).map(|node| all.start(node, 1)).collect();
    let (log, _) = fill(&worlds[0], 150);
    fill(&worlds[1], 160);
    worlds[2].delivers.set(true);
    worlds[2].held.borrow_mut().insert(id(3, 9), frame(Kind::Value, id(3, 9), 20 << 10));
    all.run(ms(50));
    let (prepare, promise) =
        (frame(Kind::Prepare, id(1, 0), 136), frame(Kind::Promise, id(2, 0), 70_008));
    all.notice(1, Notice::Direct { to: NodeId(2), frame: prepare.clone() });
    all.notice(1, Notice::Direct { to: NodeId(3), frame: prepare });
    all.notice(2, Notice::Direct { to: NodeId(1), frame: promise });
    all.notice(2, Notice::FetchValue { id: id(3, 9) });
    all.notice(1, Notice::FetchValue { id: id(1, 999) });
    all.notice(3, Notice::CatchUp { from: Instance(0) });
    while worlds[2].delivered.get() == 0 {
        assert!(all.lan.now() < ms(1000), "no catch-up: {:?}", all.problems());
        all.run(all.lan.now() + ms(1));
    }
    assert!(worlds[2].delivered.get() < log.len() as u64, "catch-up is over before the crash");
    all.crash(2);
    all.notice(1, Notice::LinkDown { kind: Purpose::Data, outgoing: true });
    all.notice(1, Notice::LinkDown { kind: Purpose::Control, outgoing: true });
    all.run(all.lan.now() + ms(400));
    all.start(2, 2);
    all.run(all.lan.now() + crate::peers::problems::PROBLEM_TIME + ms(1000));
    assert!(worlds[2].delivered.get() >= log.len() as u64);
    assert!(all.polls < 20_000, "{} polls: somebody does not sleep", all.polls);
    assert_eq!(all.problems(), [""; 0]);
    (1..=3).for_each(|node| all.crash(node));
    assert!(all.gone.iter().all(|peers| peers.upgrade().is_none()), "something holds dead peers");
    all.transcript
}

#[test]
fn equal_seeds_make_equal_runs() {
    let first = story(1);
    assert_eq!(first, story(1));
    assert_ne!(first, story(2), "the transcript does not tell runs apart");
    let count = |words: &str| first.iter().filter(|line| line.contains(words)).count();
    // Six links; node 2's four come up again.
    assert_eq!((count("outgoing"), count("incoming")), (10, 10));
    assert_eq!((count("direct from 1"), count("direct from 2")), (2, 1));
    assert_eq!((count("node 2: value"), count("node 1: not held 999")), (1, 1));
    assert!(count("node 3: entries") > 4);
}
