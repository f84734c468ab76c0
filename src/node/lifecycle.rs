//! The control thread of a node: its tasks, and how it starts, drains and ends.
//!
//! Invariant: a drain lasts at most `drain_ms`; whatever happens, the shard is told to stop and
//! the thread ends after it.

use super::{
    Command, Config, Control, ControlMail, Gauges, NodeError, Notice, Parts, PeersOptions,
};
use super::{Request, Source, State, ToControl, read_path, system};
use crate::control::catalog::Catalog;
use crate::keep::Keeper;
use crate::mail::Place;
use crate::peers::{Host, LogSource, Peers, Tcp, find};
use async_executor::LocalExecutor;
use async_io::Timer;
use chainring_ring::ids::{Ballot, Claim, Instance, Order, ValueId};
use chainring_storage::{LogConfig, LogError, create_segment, open_segment};
use futures_lite::FutureExt;
use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a running node looks for requests.
const LOOK: Duration = Duration::from_millis(10);
/// After a segment could not be made, it is tried again.
const SEGMENT_AGAIN: Duration = Duration::from_secs(2);

/// What the control thread starts with.
pub(super) struct Start {
    pub config: Config,
    pub parts: ToControl,
    pub mail: ControlMail,
    pub listeners: (Option<TcpListener>, TcpListener),
    pub source: Option<Box<dyn Source>>,
    pub request: Arc<AtomicU8>,
    pub gauges: Arc<Gauges>,
}

/// What peers see of a node.
struct PeerHost(Rc<Control>);

impl LogSource for PeerHost {
    fn delivered(&self) -> Instance {
        self.0.catalog().delivered()
    }
    fn first(&self) -> Instance {
        self.0.catalog().first()
    }
    fn entry(&self, instance: Instance) -> Option<(Order, Place)> {
        self.0.catalog().entry(instance)
    }
    fn find(&self, id: ValueId) -> Option<(Order, Place)> {
        self.0.catalog().find(id)
    }
    fn claim(&self) -> Claim {
        // Entries carry the ballot that matters themselves.
        Claim { ballot: Ballot::ZERO, position: self.delivered() }
    }
    async fn read(&self, place: Place, buffer: &mut Vec<u8>) -> bool {
        let mut frame = Vec::new();
        let found = self.0.read_for_peer(place, &mut frame).await;
        buffer.extend_from_slice(&frame);
        found
    }
    async fn read_held(&self, id: ValueId, buffer: &mut Vec<u8>) -> bool {
        let mut frame = Vec::new();
        let found = self.0.read_held(id, &mut frame).await;
        buffer.extend_from_slice(&frame);
        found
    }
}

impl Host for PeerHost {
    type Net = Tcp;

    fn keeper(&self) -> Option<&RefCell<Keeper>> {
        self.0.keeper()
    }
    fn catalog<R>(&self, look: impl FnOnce(&Catalog) -> R) -> R {
        look(&self.0.catalog())
    }
    fn forget_below(&self, position: Instance) {
        self.0.forget_below(position);
    }
    async fn ask_state(&self, command: impl FnOnce(u64) -> Command) -> Option<Notice> {
        self.0.ask_state(command).await
    }
    async fn blocking<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        blocking::unblock(work).await
    }
    fn clock_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    async fn send(&self, command: Command) {
        self.0.send(command).await;
    }
}

/// Starts the control thread; an error of its start is returned here.
pub(super) fn start_control(start: Start) -> Result<JoinHandle<()>, NodeError> {
    let (ready, started) = std::sync::mpsc::channel();
    let name = format!("control-{}", start.config.node.id.0);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let run = match prepare(start) {
            Ok(run) => {
                let _ = ready.send(Ok(()));
                run
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let executor = Rc::clone(&run.executor);
        let peers = run.peers.clone().run();
        let life = async {
            run.live().await;
        };
        async_io::block_on(executor.run(life.or(peers)));
    });
    let thread = thread.map_err(|source| system("a thread", source))?;
    match started.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            std::panic::resume_unwind(thread.join().err().unwrap_or_else(|| Box::new("gone")))
        }
    }
}

struct Run {
    control: Rc<Control>,
    peers: Rc<Peers<PeerHost>>,
    executor: Rc<LocalExecutor<'static>>,
    source: Cell<Option<Box<dyn Source>>>,
    drained: Rc<Cell<bool>>,
    making: Rc<Cell<bool>>,
    request: Arc<AtomicU8>,
    gauges: Arc<Gauges>,
    drain: Duration,
}

fn prepare(start: Start) -> Result<Run, NodeError> {
    let Start { config, parts, mail, listeners, source, request, gauges } = start;
    let drain = Duration::from_millis(config.limits.drain_ms.into());
    let options = PeersOptions {
        identity: parts.identity,
        nodes: config.cluster.nodes.iter().map(|node| (node.id, node.address.clone())).collect(),
        packet_max: config.packet_max(),
        fetch_bytes_per_s: config.limits.fetch_bytes_per_s,
    };
    let dir = config.node.dir.clone();
    let log_bytes = config.limits.log_bytes;
    let control = Control::new(Parts {
        read: read_path(&config, parts.read),
        config,
        gauges: Arc::clone(&gauges),
        commands: mail.commands,
        shard: mail.shard,
        notices: mail.notices,
        own: mail.own,
        catalog: parts.catalog,
        keeper: parts.keeper,
        topics_max: crate::groups::TOPICS_MAX,
    });
    let (peer_listener, http) = listeners;
    let host = PeerHost(Rc::clone(&control));
    let net = Tcp::new(peer_listener)?;
    let peers = Peers::new(options, net, host, Arc::clone(&gauges))?;
    let executor = Rc::new(LocalExecutor::new());
    let (to_peers, problems) = (Rc::clone(&peers), Rc::clone(&peers));
    control.on_peers(move |notice| {
        to_peers.on_notice(notice);
    });
    control.set_problems(move || problems.problems());
    let drained = Rc::new(Cell::new(false));
    let of_session = Rc::clone(&peers);
    let (seen, tasks, sink) = (Rc::clone(&drained), Rc::clone(&executor), Rc::clone(&control));
    let making = Rc::new(Cell::new(false));
    let made = Rc::clone(&making);
    let maker = parts.limits.map(|limits| Rc::new(Maker { dir, limits, log_bytes, making: made }));
    control.on_node(move |notice| match notice {
        Notice::NeedSegment { number } => {
            let maker = Rc::clone(maker.as_ref().expect("only a log asks for segments"));
            tasks.spawn(make_segment(maker, Rc::clone(&sink), number)).detach();
        }
        Notice::Session(session) => of_session.set_session(session),
        Notice::Drained => seen.set(true),
        _ => {}
    });
    if let Some(log) = parts.files {
        let from = Rc::clone(&peers);
        let finder = move |id| Box::pin(find(Rc::clone(&from), id)) as _;
        control.mend(log, parts.damage, Box::new(finder));
        executor.spawn(Rc::clone(&control).scrub()).detach();
    }
    control.start(&executor, http);
    let source = Cell::new(source);
    Ok(Run { control, peers, executor, source, drained, making, request, gauges, drain })
}

/// Where segments are made.
struct Maker {
    dir: std::path::PathBuf,
    limits: LogConfig,
    log_bytes: u64,
    /// One is being made: the node does not end in the middle of it.
    making: Rc<Cell<bool>>,
}

/// Makes a segment on a thread of its own, until there is room.
async fn make_segment(maker: Rc<Maker>, control: Rc<Control>, number: u32) {
    loop {
        let first = control.keeper().map_or(0, |keeper| keeper.borrow().first_segment());
        let segments = u64::from(number.saturating_sub(first)) + 1;
        let over = segments * u64::from(maker.limits.segment_bytes);
        let (dir, limits) = (maker.dir.clone(), maker.limits.clone());
        let make = move || {
            match create_segment(&dir, &limits, number) {
                // Made by an earlier life, which did not come to write to it.
                Ok(()) | Err(LogError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
            open_segment(&dir, number, limits.development)
        };
        maker.making.set(true);
        let made = if over > maker.log_bytes { None } else { blocking::unblock(make).await.ok() };
        maker.making.set(false);
        match made {
            Some(file) => {
                let handle = OwnedFd::from(file);
                return control.send(Command::Segment { number, handle }).await;
            }
            None => control.send(Command::NoSegment).await,
        }
        Timer::after(SEGMENT_AGAIN).await;
    }
}

impl Run {
    /// Until the node is told to end, and has.
    async fn live(&self) {
        if let Some(source) = self.source.take() {
            self.control.send(Command::Load(source)).await;
        }
        while self.requested() == Request::Run as u8 && !self.has_stopped() {
            Timer::after(LOOK).await;
        }
        if self.requested() == Request::Drain as u8 && !self.has_stopped() {
            self.drain().await;
        }
        while !self.has_stopped() {
            if self.control.try_send(Command::Stop).is_ok() {
                self.await_end().await;
            }
            Timer::after(LOOK).await;
        }
        while self.making.get() {
            Timer::after(LOOK).await;
        }
    }

    async fn drain(&self) {
        let until = Instant::now() + self.drain;
        self.control.refuse_appends();
        self.control.send(Command::Drain).await;
        while Instant::now() < until
            && self.requested() == Request::Drain as u8
            && !self.has_stopped()
            && !(self.drained.get() && self.control.open_appends() == 0)
        {
            Timer::after(LOOK).await;
        }
    }

    async fn await_end(&self) {
        let until = Instant::now() + self.drain;
        while !self.has_stopped() && Instant::now() < until {
            Timer::after(LOOK).await;
        }
    }

    fn requested(&self) -> u8 {
        self.request.load(Ordering::SeqCst)
    }

    fn has_stopped(&self) -> bool {
        self.gauges.state.get() == State::Stopped as u64
    }
}
