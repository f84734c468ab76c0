//! A node: one shard thread, one control thread, one store.
//!
//! Invariants: listeners are bound and the store is open before anything runs, so that what is
//! wrong is said at the start; the shard's memory and uring are made on the shard's own thread;
//! the control thread outlives the shard and answers what the shard left open.

mod foreground;
mod ground;
mod lifecycle;

pub use foreground::run;

use crate::config::Config;
use crate::control::disk::disk_read;
use crate::control::{Control, Parts, ReadPath};
use crate::device::Host;
use crate::gauges::{Gauges, State};
use crate::mail::{Command, Notice, Place};
use crate::peers::{self, PeersError, PeersOptions};
use crate::recover::{self, Opened, RecoverError};
use crate::shard::{Ended, Failure, Journal, Room, Shard, ShardParts, links};
use crate::source::Source;
use chainring_net::hello::{Identity, PROTOCOL};
use chainring_net::mailbox::{Receiver, Sender, Waker, channel};
use chainring_net::pool::{Arena, ArenaError, ArenaPlan};
use chainring_net::uring::{UringError, UringOptions};
use chainring_net::wire::{FORWARDS_MAX, WireOptions};
use chainring_ring::ids::Durability;
use chainring_storage::{DirLock, SharedDisk, Superblock};
use ground::{Ground, ShardKernel};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Each control buffer, bytes.
const CONTROL_BYTES: u32 = 1 << 20;
/// Segments made ahead of need, unless told otherwise.
pub const PREALLOCATE: usize = 2;

/// Why a node cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its store.
    #[error(transparent)]
    Store(#[from] RecoverError),
    /// Its peers.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// The HTTP address cannot be listened on.
    #[error("cannot listen on the HTTP address {address}: {source}; is another process using it?")]
    Http {
        /// As configured.
        address: String,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// Its packet memory.
    #[error(transparent)]
    Memory(#[from] ArenaError),
    /// Its uring.
    #[error(transparent)]
    Uring(#[from] UringError),
    /// A resource of the process.
    #[error("cannot get {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It ended while running.
    #[error("node {node}: {source}")]
    Ended {
        /// Which node.
        node: u8,
        /// Why.
        source: Failure,
    },
}

/// How a node is started.
#[derive(Debug)]
pub struct Options {
    /// Segments made ahead of need.
    pub preallocate: usize,
    /// Load from inside.
    pub source: Option<Box<dyn Source>>,
    /// Core to pin the shard to, if the configuration names none.
    pub core: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options { preallocate: PREALLOCATE, source: None, core: None }
    }
}

/// What is asked of a running node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Request {
    Run = 0,
    Drain = 1,
    Stop = 2,
}

/// A running node.
pub struct Node {
    /// Its configuration.
    pub config: Config,
    /// Its figures.
    pub gauges: Arc<Gauges>,
    /// What an operator should know of its start.
    pub remarks: Vec<String>,
    request: Arc<AtomicU8>,
    shard: JoinHandle<Ended>,
    control: JoinHandle<()>,
    /// Held until both threads have ended.
    lock: chainring_storage::DirLock,
}

/// How a node ended.
pub struct Finished {
    /// True if everything is on stable media and marked so.
    pub clean: bool,
    /// Batcher to delivery at the origin, microseconds.
    pub latency: hdrhistogram::Histogram<u64>,
}

/// Microseconds since the start of the process.
pub fn now_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

impl Node {
    /// Opens the store and starts both threads.
    ///
    /// # Errors
    /// [`NodeError`]: nothing runs then.
    pub fn start(config: Config, options: Options) -> Result<Node, NodeError> {
        let member = config.member();
        let peer_listener = match config.cluster.nodes.len() {
            1 => None,
            _ => Some(peers::listen(&member.address)?),
        };
        let http = TcpListener::bind(&member.http)
            .map_err(|source| NodeError::Http { address: member.http.clone(), source })?;
        let lock = DirLock::acquire(&config.node.dir).map_err(RecoverError::Log)?;
        let ground = Ground::new(&config.node.dir, config.node.development)
            .map_err(|source| system("the ground of its store", source))?;
        let opened = recover::open_on(&ground.disk(), &config, options.preallocate)?;
        let mut remarks = opened.remarks.clone();
        remarks.extend(ground.remark());
        let gauges = Arc::new(Gauges::default());
        let letters = config.limits.mailbox_letters as usize;
        let (commands_in, commands) = channel(letters);
        let (notices, notices_in) = channel(letters);
        let waker = || Waker::new().map_err(|source| system("an eventfd", source));
        let (shard_waker, control_waker) = (waker()?, waker()?);
        let request = Arc::new(AtomicU8::new(Request::Run as u8));

        let (to_shard, to_control) = split(&config, opened, &gauges, &ground)?;
        let mail = ShardMail {
            commands,
            notices,
            own: shard_waker.clone(),
            control: control_waker.clone(),
        };
        let core = config.node.core.or(options.core);
        let (shard, unpinned) = start_shard(&config, to_shard, mail, core)?;
        remarks.extend(unpinned);
        let mail = ControlMail {
            commands: commands_in,
            notices: notices_in,
            own: control_waker,
            shard: shard_waker,
        };
        let control = lifecycle::start_control(lifecycle::Start {
            config: config.clone(),
            parts: to_control,
            mail,
            listeners: (peer_listener, http),
            source: options.source,
            request: Arc::clone(&request),
            gauges: Arc::clone(&gauges),
        })?;
        Ok(Node { config, gauges, remarks, request, shard, control, lock })
    }

    /// Takes no new records, answers open ones, marks the store as clean, ends.
    pub fn drain(&self) {
        self.request.fetch_max(Request::Drain as u8, Ordering::SeqCst);
    }

    /// Ends at once.
    pub fn stop(&self) {
        self.request.fetch_max(Request::Stop as u8, Ordering::SeqCst);
    }

    /// True once the shard has ended.
    pub fn has_ended(&self) -> bool {
        self.shard.is_finished()
    }

    /// Waits for the end that [`Node::drain`] or [`Node::stop`] asked for.
    ///
    /// # Errors
    /// [`NodeError::Ended`] if the log failed, or nodes delivered different things.
    ///
    /// # Panics
    /// If a thread of the node panicked.
    pub fn join(self) -> Result<Finished, NodeError> {
        self.control.join().expect("the control thread does not panic");
        let ended = self.shard.join().expect("the shard does not panic");
        drop(self.lock);
        match ended.failure {
            Some(source) => Err(NodeError::Ended { node: self.config.node.id.0, source }),
            None => Ok(Finished { clean: ended.clean, latency: ended.latency }),
        }
    }
}

fn system(what: &'static str, source: std::io::Error) -> NodeError {
    NodeError::System { what, source }
}

/// The shard's ends of the mailboxes.
struct ShardMail {
    commands: Receiver<Command>,
    notices: Sender<Notice>,
    own: Waker,
    control: Waker,
}

/// The control thread's ends.
struct ControlMail {
    commands: Sender<Command>,
    notices: Receiver<Notice>,
    own: Waker,
    shard: Waker,
}

/// What of the store goes to the shard.
struct ToShard {
    opened: ShardStore,
    ground: Ground,
    gauges: Arc<Gauges>,
}

struct ShardStore {
    file: chainring_storage::SuperblockFile,
    superblock: chainring_storage::Superblock,
    log: Option<chainring_storage::LogWriter>,
    contents: chainring_storage::Segments,
    segments: Vec<(u32, OwnedFd)>,
    core: chainring_ring::core::Core,
    groups: crate::groups::Groups,
    held: Vec<(Place, Vec<u8>)>,
}

/// What of the store goes to the control thread.
struct ToControl {
    catalog: crate::control::catalog::Catalog,
    identity: Identity,
    /// Where delivered frames are read; without a log from memory.
    read: Option<SharedDisk>,
    limits: Option<chainring_storage::LogConfig>,
    keeper: Option<crate::keep::Keeper>,
    /// For the look over the log.
    files: Option<chainring_storage::scrub::Log>,
    /// Ranges of it that are damaged for good.
    damage: Vec<std::ops::Range<u64>>,
}

fn split(
    config: &Config,
    opened: Opened,
    gauges: &Arc<Gauges>,
    ground: &Ground,
) -> Result<(ToShard, ToControl), NodeError> {
    let identity = peer_identity(config, &opened.superblock);
    let (log, limits) = opened.log.map_or((None, None), |(log, limits)| (Some(log), Some(limits)));
    let mut segments = Vec::new();
    if let Some(log) = &log {
        segments = chainring_storage::open_segments(
            &config.node.dir,
            log.segment(),
            config.node.development,
        )
        .map_err(RecoverError::Log)?;
    }
    let read = log.is_some().then(|| ground.disk());
    let files = limits.as_ref().map(|limits| chainring_storage::scrub::Log {
        disk: ground.disk(),
        dir: config.node.dir.clone(),
        identity: limits.identity,
        development: limits.development,
    });
    let damage = opened.superblock.damage.iter().map(|damage| damage.from..damage.to).collect();
    let (catalog, keeper) = (opened.catalog, opened.keeper);
    let to_control = ToControl { catalog, identity, read, limits, keeper, files, damage };
    let store = ShardStore {
        file: opened.file,
        superblock: opened.superblock,
        log,
        contents: opened.segments,
        segments,
        core: chainring_ring::core::Core::new(opened.settings, opened.recovered),
        groups: opened.groups,
        held: opened.held,
    };
    Ok((ToShard { opened: store, ground: ground.clone(), gauges: Arc::clone(gauges) }, to_control))
}

/// Starts the shard's thread; with it come remarks on what it could not have.
fn start_shard(
    config: &Config,
    parts: ToShard,
    mail: ShardMail,
    core: Option<usize>,
) -> Result<(JoinHandle<Ended>, Vec<String>), NodeError> {
    let (ready, started) = mpsc::channel();
    let config = config.clone();
    let name = format!("shard-{}", config.node.id.0);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let pinned = core.map_or(Ok(()), chainring_tuning::cores::pin);
        let unpinned = pinned.err().map(|error| format!("the shard is not pinned: {error}"));
        let waker = mail.control.clone();
        let gauges = Arc::clone(&parts.gauges);
        let made = make_shard(&config, parts, mail);
        let mut shard = match made {
            Ok((shard, unregistered)) => {
                let _ = ready.send(Ok([unpinned, unregistered].into_iter().flatten().collect()));
                shard
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return Ended::nothing();
            }
        };
        let mut now = now_us();
        while let Some(wait) = shard.turn(now) {
            shard.poll(wait, now_us() - now);
            now = now_us();
        }
        let ended = shard.end();
        gauges.state.set(State::Stopped as u64);
        waker.wake();
        ended
    });
    let thread = thread.map_err(|source| system("a thread", source))?;
    match started.recv() {
        Ok(Ok(unpinned)) => Ok((thread, unpinned)),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            std::panic::resume_unwind(thread.join().err().unwrap_or_else(|| Box::new("gone")))
        }
    }
}

/// Packet memory of a shard; each control buffer takes `control` bytes.
pub(crate) fn arena_plan(config: &Config, held: &[(Place, Vec<u8>)], control: u32) -> ArenaPlan {
    let held: usize = held.iter().map(|(_, frame)| frame.len().next_multiple_of(4096)).sum();
    let limits = &config.limits;
    let block = Journal::block_bytes(limits.group_orders as usize, config.cluster.block);
    let blocks = match config.cluster.durability {
        Durability::Memory => 0,
        _ => block * (limits.groups_in_flight + 1),
    };
    ArenaPlan {
        receive: config.receive_bytes() as u32,
        own: config.own_pool_bytes() as u32,
        side: limits.side_pool_bytes + held as u32,
        blocks,
        control_in: control,
        control_out: control,
    }
}

/// Who a node is in this life, as its handshakes say.
pub(crate) fn peer_identity(config: &Config, superblock: &Superblock) -> Identity {
    Identity {
        cluster: config.cluster.id,
        epoch: config.cluster.epoch,
        node: config.node.id,
        incarnation: superblock.incarnation,
        session: superblock.session(),
        version: PROTOCOL,
        durability: config.cluster.durability,
        block: config.cluster.block,
        config_hash: config.config_hash(),
    }
}

fn make_shard(
    config: &Config,
    parts: ToShard,
    mail: ShardMail,
) -> Result<(Shard<Host<ShardKernel>>, Option<String>), NodeError> {
    let store = parts.opened;
    let plan = arena_plan(config, &store.held, CONTROL_BYTES);
    let arena = || Arena::new(&plan);
    let options = WireOptions {
        cluster: config.cluster.id,
        epoch: config.cluster.epoch,
        block: config.cluster.block,
        packet_max: config.packet_max(),
        control_max: links::CONTROL_MAX,
        forwards: FORWARDS_MAX,
        spin: Duration::from_micros(50),
        uring: UringOptions { fixed: store.log.is_some() },
    };
    let (wire, remark) = match parts.ground.wire(options, arena()?, mail.own.clone()) {
        Err(UringError::Memlock { needed, limit }) => {
            let options = WireOptions { uring: UringOptions { fixed: false }, ..options };
            let remark = format!(
                "packet memory of {needed} bytes is not registered, RLIMIT_MEMLOCK is {limit}: \
                 each write to the log costs more; raise it (ulimit -l, LimitMEMLOCK=)"
            );
            (parts.ground.wire(options, arena()?, mail.own)?, Some(remark))
        }
        made => (made?, None),
    };
    let machine = Host::new(wire, store.file, store.segments, ());
    let parts = ShardParts {
        machine,
        core: store.core,
        groups: store.groups,
        superblock: store.superblock,
        log: store.log,
        segments: store.contents,
        held: store.held,
        commands: mail.commands,
        notices: mail.notices,
        control_waker: mail.control,
        gauges: parts.gauges,
        room: Room::default(),
    };
    Ok((Shard::new(config, parts), remark))
}

/// How delivered frames are read on the control thread.
fn read_path(config: &Config, disk: Option<SharedDisk>) -> ReadPath {
    let Some(disk) = disk else { return ReadPath::Memory };
    let identity = recover::identity(config);
    let (dir, development) = (&config.node.dir, config.node.development);
    ReadPath::Disk(disk_read(disk, dir, identity, development))
}

#[cfg(test)]
mod tests;
