//! A simulated node: the production shard, peers and recovery, life after life, on one disk.
//!
//! Invariants: a life begins by the production recovery and nothing of the last life but its disk
//! goes into it; a node that is paused or down does nothing; turns of a node follow one another.

use crate::config::Config;
use crate::device::Host;
use crate::gauges::Gauges;
use crate::keep::Keeper;
use crate::mail::{Command, Notice};
use crate::node::{arena_plan, peer_identity};
use crate::peers::{Peers, PeersOptions};
use crate::recover::{self, Opened, RecoverError};
use crate::shard::{Failure, Room, Shard, ShardParts, links};
use crate::sim::agenda::What;
use crate::sim::clerk::{Clerk, ClerkHost, DiskReader};
use crate::sim::disk::DiskHandle;
use crate::sim::faults::{Dice, Name};
use crate::sim::kernel::{Desk, Ground, Handle, Life, Placed, Shared, SimKernel, arena};
use crate::sim::peernet::{SimNet, Timers};
use crate::sim::plan::Plan;
use crate::sim::random::Random;
use chainring_net::hello::Identity;
use chainring_net::mailbox::{Receiver, Waker, channel};
use chainring_net::uring::UringOptions;
use chainring_net::wire::{Wait, Wire, WireOptions};
use chainring_ring::actions::ACTIONS_MAX;
use chainring_ring::core::Core;
use chainring_ring::ids::NodeId;
use chainring_storage::{AlignedBuf, LogConfig, LogReader};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

mod parts;
mod watch;
use parts::{peers_options, room, wire_options};
use watch::Watch;

/// Each control buffer, bytes: two of the largest frame.
const CONTROL_BYTES: u32 = (2 * links::CONTROL_MAX).next_multiple_of(4096);
/// Segments made ahead.
const PREALLOCATE: usize = 1;
/// Queues are looked at after so many turns: to look costs as much as a small turn.
const LOOK_TURNS: u64 = 16;
/// Turns of the peers' tasks in one go.
const POLLS_MAX: usize = 64;

/// Set when the peers' tasks want a turn.
#[derive(Default)]
pub struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The production shard on a simulated machine.
pub type SimShard = Shard<Host<SimKernel, Watch>>;

/// A node that runs.
pub struct Alive {
    /// Its shard.
    pub shard: SimShard,
    notices: Receiver<Notice>,
    /// Its control thread.
    pub clerk: Rc<Clerk>,
    peers: Rc<Peers<ClerkHost>>,
    running: Pin<Box<dyn Future<Output = ()>>>,
    flag: Arc<Flag>,
    /// Of its peers' code.
    pub timers: Rc<Timers>,
    /// Its kernel's writes.
    pub ground: Ground,
    control: Waker,
    /// For making segments; none in memory durability.
    pub log: Option<LogConfig>,
    mail_due: bool,
    inputs: u64,
    /// It was told to stop in good order, and has drained.
    pub drained: bool,
}

impl Alive {
    /// What it says is wrong between it and its peers.
    pub fn problems(&self) -> Vec<String> {
        self.peers.problems()
    }
}

/// How a node's clock differs from the world's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Microseconds ahead.
    pub ahead: u64,
    /// Runs so much faster, in a million.
    pub drift: i32,
}

impl Clock {
    fn local(self, now: u64) -> u64 {
        let drift = now as i64 / 1000 * i64::from(self.drift) / 1000;
        // Every clock is ahead of the slowest, so that none begins below 0.
        (now as i64 + now as i64 / 500 + drift) as u64 + self.ahead
    }
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// It goes on.
    On,
    /// The shard ended in good order.
    Clean,
    /// The shard ended without its mark.
    Unclean,
    /// The log failed.
    Failed,
}

/// A node, running or not.
pub struct SimNode {
    /// From 0.
    pub index: u8,
    /// Its configuration.
    pub config: Config,
    /// Its disk.
    pub disk: DiskHandle,
    /// The life that it has now.
    pub alive: Option<Alive>,
    /// Lives so far.
    pub lives: u32,
    /// Its clock.
    pub clock: Clock,
    /// It stands still until then.
    pub paused_until: u64,
    /// Its last turn lasts until then.
    busy_until: u64,
    turns: u64,
    called: Option<u64>,
    stamp: u64,
    /// Inputs that its shards consumed.
    pub inputs: u64,
    /// It is to be started at some time.
    pub booting: bool,
    /// Its disk may lose and spoil what it holds.
    pub victim: bool,
    /// Its incarnation, as its store had it last.
    pub incarnation: u32,
    /// Sectors of its log that rotted.
    pub rotten: u32,
    /// Its last life ends by the power's going, right behind a stop in good order.
    pub unplugged: bool,
    /// What its last life wrote last.
    pub last: Option<Placed>,
    /// Its next write to the log is aimed at, by this strike.
    pub aim: Option<u32>,
    /// What the last life that ended by itself wrote, in order.
    pub placed: Vec<Placed>,
    random: Random,
    turn_us: (u32, u32),
    mail_us: (u32, u32),
    forwards: usize,
}

impl SimNode {
    /// A node with a formatted store, not running.
    pub fn new(index: u8, plan: &Plan, only: Option<Arc<BTreeSet<Name>>>) -> SimNode {
        let config = plan.config(index);
        let number = u64::from(index);
        let disk = DiskHandle::new(Random::stream(plan.seed, "disk").split(number));
        disk.set_dice(Dice::new(
            &Random::stream(plan.seed, "disk faults").split(number),
            index + 1,
            only,
        ));
        recover::format_on(&*disk.shared(), &config).expect("a new disk takes a store");
        SimNode {
            index,
            disk,
            alive: None,
            lives: 0,
            clock: Clock { ahead: 0, drift: plan.drift[usize::from(index)] },
            paused_until: 0,
            busy_until: 0,
            turns: 0,
            called: None,
            stamp: 0,
            inputs: 0,
            booting: false,
            victim: plan.victims[usize::from(index)],
            incarnation: 1,
            rotten: 0,
            unplugged: false,
            last: None,
            aim: None,
            placed: Vec::new(),
            random: Random::stream(plan.seed, "node").split(number),
            turn_us: plan.turn_us,
            mail_us: plan.mail_us,
            forwards: plan.forwards,
            config,
        }
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        NodeId(self.index + 1)
    }

    /// Recovers the store and begins a life.
    ///
    /// # Errors
    /// [`RecoverError`]: the store cannot be used, or not now.
    pub fn boot(&mut self, plan: &Plan, shared: &Shared) -> Result<(), RecoverError> {
        self.lives += 1;
        let life = Life { node: self.index, number: self.lives };
        let opened = recover::open_on(&self.disk.shared(), &self.config, PREALLOCATE)?;
        if self.disk.has_misread() {
            shared.observer.borrow_mut().misread(self.id());
        }
        self.incarnation = opened.superblock.incarnation.0;
        let ground = Ground {
            shared: shared.clone(),
            disk: self.disk.clone(),
            desk: Rc::new(RefCell::new(Desk::default())),
            life,
            storage: plan.storage.clone(),
            fails: self.victim || plan.durability == chainring_ring::ids::Durability::Sync,
            lies: self.victim && !plan.beyond,
        };
        let alive = self.begin(opened, ground)?;
        (self.called, self.busy_until) = (None, 0);
        shared.lan.borrow_mut().host_up(self.index);
        self.alive = Some(alive);
        let now = shared.agenda.borrow().now();
        self.call(shared, now);
        self.mail_later(shared);
        Ok(())
    }

    fn begin(&mut self, opened: Opened, ground: Ground) -> Result<Alive, RecoverError> {
        let (config, shared, life) = (&self.config, &ground.shared, ground.life);
        let letters = config.limits.mailbox_letters as usize;
        let ((commands_in, commands), (notices_out, notices)) =
            (channel(letters), channel(letters));
        let waker = || Waker::new().expect("an eventfd");
        let (control, identity) = (waker(), peer_identity(config, &opened.superblock));
        let (log, limits) =
            opened.log.map_or((None, None), |(log, limits)| (Some(log), Some(limits)));
        let core = Core::new(opened.settings, opened.recovered);
        let next = log.as_ref().map_or(1, |log| log.durable() + 1);
        let start = opened.keeper.as_ref().and_then(Keeper::last_start);
        let whole = start.is_none_or(|start| start.segment <= opened.superblock.first_segment);
        self.tell_recovered(shared, &core, (&opened.superblock, next, whole));
        self.tell_replayed(shared, opened.groups.digest(), &opened.catalog);
        let segments = log.as_ref().map_or(Vec::new(), |log| self.segments(log.segment()));
        let arena = arena(&arena_plan(config, &opened.held, CONTROL_BYTES));
        let random = self.random.split(u64::from(life.number));
        let kernel = SimKernel::new(arena, ground.clone(), random);
        let wire = Wire::over(wire_options(config, self.forwards), kernel, waker());
        let (disk, dir) = (self.disk.clone(), config.node.dir.clone());
        let mut watch = Watch { node: self.id(), shared: shared.clone(), disk, dir, named: None };
        watch.check_named(&opened.superblock);
        let gauges = Arc::new(Gauges::default());
        let parts = ShardParts {
            machine: Host::new(wire, opened.file, segments, watch),
            core,
            groups: opened.groups,
            superblock: opened.superblock,
            log,
            segments: opened.segments,
            held: opened.held,
            commands,
            notices: notices_out,
            control_waker: control.clone(),
            gauges: Arc::clone(&gauges),
            room: room(config),
        };
        let shard = Shard::new(config, parts);
        let disk = limits.as_ref().map(|_| self.reader());
        let (catalog, keeper) = (opened.catalog, opened.keeper);
        let clerk = Clerk::new(catalog, commands_in, disk, keeper, config.packet_max());
        let timers = Rc::<Timers>::default();
        let net = || SimNet::new(&shared.lan, &shared.agenda, &timers, life);
        let options = peers_options(config, identity);
        let host = ClerkHost { clerk: Rc::clone(&clerk), net: net() };
        let peers = Peers::new(options, net(), host, gauges).expect("a node of the cluster");
        let running = Box::pin(Rc::clone(&peers).run());
        let flag = Arc::new(Flag(true.into()));
        let (log, mail_due, inputs, drained) = (limits, false, 0, false);
        Ok(Alive {
            shard,
            notices,
            clerk,
            peers,
            running,
            flag,
            timers,
            ground,
            control,
            log,
            mail_due,
            inputs,
            drained,
        })
    }

    fn reader(&self) -> DiskReader {
        let dir = self.config.node.dir.clone();
        let identity = recover::identity(&self.config);
        let reader = LogReader::on(self.disk.shared(), &dir, identity, false);
        DiskReader { reader, disk: self.disk.clone(), dir, buffer: AlignedBuf::new(4096) }
    }

    /// The segments from the one being written on.
    fn segments(&self, from: u32) -> Vec<(u32, Handle)> {
        let dir = &self.config.node.dir;
        let open = |number| {
            let target = self.disk.segment(dir, number).ok()?;
            Some((number, Handle::Segment { number, target }))
        };
        (from..).map_while(open).collect()
    }

    /// Has the shard take a turn at `at`, or when it can.
    pub fn call(&mut self, shared: &Shared, at: u64) {
        let at = at.max(self.busy_until).max(self.paused_until);
        if self.alive.is_none() || self.called.is_some_and(|called| called <= at) {
            return;
        }
        self.called = Some(at);
        self.stamp += 1;
        let what = What::Turn { node: self.index, stamp: self.stamp };
        shared.agenda.borrow_mut().put(at, what);
    }

    /// A call comes. The turn, unless it was called off or put off.
    pub fn on_turn(&mut self, shared: &Shared, stamp: u64) -> Turned {
        if stamp != self.stamp || self.alive.is_none() {
            return Turned::On;
        }
        self.called = None;
        let now = shared.agenda.borrow().now();
        if now < self.paused_until {
            self.call(shared, now);
            return Turned::On;
        }
        let local = self.clock.local(now);
        let cost = u64::from(self.turn_us.0) + self.random.below(2 * u64::from(self.turn_us.1) + 1);
        let alive = self.alive.as_mut().expect("just seen");
        alive.shard.poll(Wait::No, 0);
        let wait = alive.shard.turn(local);
        self.inputs += alive.shard.inputs() - alive.inputs;
        alive.inputs = alive.shard.inputs();
        let Some(wait) = wait else { return self.ended() };
        let id = NodeId(self.index + 1);
        let mut observer = shared.observer.borrow_mut();
        observer.turned(id);
        self.turns += 1;
        if self.turns.is_multiple_of(LOOK_TURNS) {
            observer.queues(id, alive.shard.queues());
            observer.queues(id, alive.peers.queues());
        }
        drop(observer);
        alive.shard.poll(Wait::No, 0);
        self.busy_until = now + cost;
        let fresh = alive.ground.desk.borrow_mut().take_fresh();
        let mail = alive.control.take();
        let next = match wait {
            Wait::UpTo(time) if !fresh => now + time.as_micros() as u64,
            _ => now,
        };
        self.call(shared, next);
        if mail {
            self.mail_later(shared);
        }
        Turned::On
    }

    fn ended(&mut self) -> Turned {
        let alive = self.alive.take().expect("it had a turn");
        let ended = alive.shard.end();
        self.placed = std::mem::take(&mut alive.ground.desk.borrow_mut().placed);
        self.placed.sort_unstable_by_key(|placed| placed.number);
        match (ended.failure, ended.clean) {
            // The observer sees the difference itself; so it is the comparison that is wrong.
            (Some(Failure::Diverged(divergence)), _) => panic!("{divergence}"),
            (Some(Failure::Log(_)), _) => Turned::Failed,
            (None, true) => Turned::Clean,
            (None, false) => Turned::Unclean,
        }
    }

    /// Has the control thread take its mail soon.
    pub fn mail_later(&mut self, shared: &Shared) {
        let Some(alive) = self.alive.as_mut().filter(|alive| !alive.mail_due) else { return };
        alive.mail_due = true;
        let now = shared.agenda.borrow().now().max(self.paused_until);
        let wait = u64::from(self.mail_us.0) + self.random.below(2 * u64::from(self.mail_us.1));
        let what = What::Mail { node: self.index, life: self.lives };
        shared.agenda.borrow_mut().put(now + wait, what);
    }

    /// True if the peers' tasks want a turn.
    pub fn is_flagged(&self) -> bool {
        self.alive.as_ref().is_some_and(|alive| alive.flag.0.load(Ordering::Relaxed))
    }

    /// The control thread takes its mail; what is for clients, or for the world, is given to it.
    pub fn on_mail(&mut self, shared: &Shared, give: &mut dyn FnMut(Notice)) {
        let now = shared.agenda.borrow().now();
        let id = self.id();
        let paused = now < self.paused_until;
        let Some(alive) = &mut self.alive else { return };
        alive.mail_due = false;
        if paused {
            return self.mail_later(shared);
        }
        while let Some(notice) = alive.notices.try_recv() {
            shared.observer.borrow_mut().notice(id, &notice);
            let Some(notice) = alive.clerk.on_notice(notice) else { continue };
            match alive.peers.on_notice(notice) {
                Some(Notice::Session(session)) => alive.peers.set_session(session),
                Some(Notice::Drained) => alive.drained = true,
                Some(notice) => give(notice),
                None => {}
            }
        }
        let all = alive.clerk.push();
        let waker = std::task::Waker::from(Arc::clone(&alive.flag));
        for _ in 0..POLLS_MAX {
            if !alive.flag.0.swap(false, Ordering::Relaxed) {
                break;
            }
            let polled = alive.running.as_mut().poll(&mut Context::from_waker(&waker));
            assert_eq!(polled, Poll::Pending, "connections are kept up for ever");
        }
        let again = !all || alive.flag.0.load(Ordering::Relaxed);
        if alive.clerk.stirred.take() {
            self.call(shared, now);
        }
        if again {
            self.mail_later(shared);
        }
    }

    /// Hands a command to the shard.
    pub fn order(&mut self, shared: &Shared, command: Command<Handle>) {
        let Some(alive) = &self.alive else { return };
        alive.clerk.order(command);
        alive.clerk.stirred.set(false);
        let now = shared.agenda.borrow().now();
        self.call(shared, now);
    }

    /// A pause may have been cut short: the shard takes its turn now, and the control thread,
    /// which would else sleep until the pause was to end, its mail soon.
    pub fn recall(&mut self, shared: &Shared) {
        self.called = None;
        if let Some(alive) = &mut self.alive {
            alive.mail_due = false;
        }
        self.mail_later(shared);
        let now = shared.agenda.borrow().now();
        self.call(shared, now);
    }

    /// Stands still for a time.
    pub fn pause(&mut self, shared: &Shared, until: u64) {
        self.paused_until = self.paused_until.max(until);
        self.called = None;
        self.call(shared, until);
    }
}
