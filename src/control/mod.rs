//! The control thread: it knows the catalog, answers clients, and passes mail on.
//!
//! Invariants: everything here lives on one thread (`Rc`, `RefCell`, no lock), and no borrow is
//! held over an `await`; an append is answered once, and the memory that it holds is paid for
//! until the shard has given it back; mail that is not for this module goes to whoever registered
//! for it.

mod append;
pub mod catalog;
pub mod disk;
pub mod front;
pub mod index;
mod members;
mod producer;
mod refusal;
mod scrub;
pub mod status;
pub mod wait;

use crate::config::Config;
use crate::gauges::Gauges;
use crate::groups::producers::Fence;
use crate::http::{Budget, HttpCounters, Permit};
use crate::keep::Keeper;
use crate::mail::{Append, Change, Command, Notice, Place, Refusal};
use async_executor::LocalExecutor;
use async_io::{Async, Timer};
use catalog::Catalog;
use chainring_net::mailbox::{Receiver, Sender, Waker};
use chainring_ring::ids::{Instance, ValueId};
use futures_lite::future::yield_now;
pub use refusal::AppendError;
use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};
use wait::{Signal, Slot};

/// Letters taken before other tasks get a turn.
const PUMP_LETTERS: usize = 4096;
/// How long a full mailbox is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// Reads a frame of the log on disk into a buffer, verified; or says why not.
pub type DiskRead = Box<dyn Fn(Place, &mut Vec<u8>) -> Result<(), String>>;

/// A value may be delivered, by the votes of others, before this node's own write of it is done.
/// Until then its place holds nothing, and is no damage: it is read again for so long...
const WRITTEN_WITHIN: Duration = Duration::from_millis(500);
/// ...with this between.
const READ_PAUSE: Duration = Duration::from_millis(5);

/// Where delivered frames are read.
pub enum ReadPath {
    /// From the segments, on this thread: at most one packet at a time.
    Disk(DiskRead),
    /// From the memory log, by asking the shard.
    Memory,
}

/// What the control thread is made of.
pub struct Parts {
    /// Configuration.
    pub config: Config,
    /// The node's figures.
    pub gauges: std::sync::Arc<Gauges>,
    /// To the shard.
    pub commands: Sender<Command>,
    /// Wakes the shard.
    pub shard: Waker,
    /// From the shard.
    pub notices: Receiver<Notice>,
    /// Wakes this thread.
    pub own: Waker,
    /// Where delivered frames are read.
    pub read: ReadPath,
    /// What recovery found.
    pub catalog: Catalog,
    /// Its checkpoints; none in memory durability.
    pub keeper: Option<Keeper>,
    /// Most topics of the log: [`crate::groups::TOPICS_MAX`].
    pub topics_max: u32,
}

enum Outcome {
    Appended(u64, u64),
    Registered(u64),
    Fenced(Fence),
    Refused(Refusal),
    Unknown,
}

struct Pending {
    slot: Slot<Outcome>,
    /// Held until the shard gave the records back, whether anybody still waits or not.
    _permit: Permit,
}

/// A buffer that comes back, and whether it was filled.
type ReadBack = (Vec<u8>, bool);
type Problems = RefCell<Option<Box<dyn Fn() -> Vec<String>>>>;
type Dispatch = RefCell<Option<Box<dyn Fn(Notice)>>>;

/// The control thread's state; see the file's head.
pub struct Control {
    /// Configuration.
    pub config: Config,
    /// The node's figures.
    pub gauges: std::sync::Arc<Gauges>,
    /// Most topics of the log.
    pub topics_max: u32,
    /// Memory for bodies.
    pub budget: Budget,
    /// Memory for answers, apart: slow readers cost readers only.
    pub answers: Budget,
    /// Figures of the HTTP server.
    pub http: Rc<HttpCounters>,
    /// Notified after mail was taken.
    pub changed: Signal,
    commands: RefCell<Sender<Command>>,
    shard: Waker,
    notices: RefCell<Receiver<Notice>>,
    own: Waker,
    read: ReadPath,
    catalog: RefCell<Catalog>,
    appends: RefCell<HashMap<u64, Pending>>,
    reads: RefCell<HashMap<u64, Slot<ReadBack>>>,
    changes: RefCell<HashMap<u64, Slot<Box<Change>>>>,
    keeper: Option<RefCell<Keeper>>,
    /// Who waits for a word about the state.
    told: RefCell<HashMap<u64, Slot<Notice>>>,
    creating: RefCell<HashMap<String, Instant>>,
    token: Cell<u64>,
    draining: Cell<bool>,
    on_peers: Dispatch,
    on_node: Dispatch,
    problems: Problems,
    /// The last failure to read the log.
    read_error: RefCell<Option<String>>,
    damage: scrub::Damage,
}

impl Control {
    /// Nothing runs before [`Control::start`]; register handlers in between.
    pub fn new(parts: Parts) -> Rc<Control> {
        let memory = u64::from(parts.config.limits.http_memory_bytes);
        let (budget, answers) = (Budget::new(memory - memory / 4), Budget::new(memory / 4));
        Rc::new(Control {
            config: parts.config,
            gauges: parts.gauges,
            topics_max: parts.topics_max,
            budget,
            answers,
            http: Rc::default(),
            changed: Signal::default(),
            commands: RefCell::new(parts.commands),
            shard: parts.shard,
            notices: RefCell::new(parts.notices),
            own: parts.own,
            read: parts.read,
            catalog: RefCell::new(parts.catalog),
            appends: RefCell::default(),
            reads: RefCell::default(),
            changes: RefCell::default(),
            keeper: parts.keeper.map(RefCell::new),
            told: RefCell::default(),
            creating: RefCell::default(),
            token: Cell::new(0),
            draining: Cell::new(false),
            on_peers: RefCell::default(),
            on_node: RefCell::default(),
            problems: RefCell::default(),
            read_error: RefCell::default(),
            damage: scrub::Damage::default(),
        })
    }

    /// Takes Resume, LinkDown, Direct, FetchValue and CatchUp.
    pub fn on_peers(&self, handler: impl Fn(Notice) + 'static) {
        *self.on_peers.borrow_mut() = Some(Box::new(handler));
    }

    /// Takes NeedSegment, Session and Drained.
    pub fn on_node(&self, handler: impl Fn(Notice) + 'static) {
        *self.on_node.borrow_mut() = Some(Box::new(handler));
    }

    /// Names what keeps peers apart; shown as it is by `status`.
    pub fn set_problems(&self, problems: impl Fn() -> Vec<String> + 'static) {
        *self.problems.borrow_mut() = Some(Box::new(problems));
    }

    /// What [`Control::set_problems`] names now, and the last failure to read the log.
    pub fn problems(&self) -> Vec<String> {
        let of_peers = self.problems.borrow().as_ref().map(|problems| problems());
        let mut problems = of_peers.unwrap_or_default();
        problems.extend(self.read_error.borrow().clone());
        problems.extend(self.damage.told());
        problems
    }

    /// Starts the tasks: mail, and HTTP on a listener that is bound already.
    pub fn start(self: &Rc<Self>, executor: &Rc<LocalExecutor<'static>>, http: TcpListener) {
        executor.spawn(Rc::clone(self).pump()).detach();
        let server = front::server(self);
        let serve = crate::http::server::serve(server, http, Rc::clone(executor));
        executor.spawn(serve).detach();
    }

    /// Refuses appends from now on; the node is stopping.
    pub fn refuse_appends(&self) {
        self.draining.set(true);
        self.changed.notify();
    }

    /// True after [`Control::refuse_appends`].
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Appends that wait for their answer.
    pub fn open_appends(&self) -> usize {
        self.appends.borrow().len()
    }

    /// The checkpoints; none in memory durability.
    pub fn keeper(&self) -> Option<&RefCell<Keeper>> {
        self.keeper.as_ref()
    }

    /// Asks the shard about the state.
    pub async fn ask_state(&self, command: impl FnOnce(u64) -> Command) -> Option<Notice> {
        let (token, slot) = (self.next_token(), Slot::default());
        self.told.borrow_mut().insert(token, slot.clone());
        self.send(command(token)).await;
        Some(slot.take().await)
    }

    /// Forgets what the catalog has below a position.
    pub fn forget_below(&self, position: Instance) {
        self.catalog.borrow_mut().drop_below(position);
    }

    /// The catalog. Not to be held over an `await`.
    pub fn catalog(&self) -> Ref<'_, Catalog> {
        self.catalog.borrow()
    }

    /// Sends a command, or gives it back when the mailbox is full.
    ///
    /// # Errors
    /// The command.
    #[expect(clippy::result_large_err, reason = "the caller gets back what it gave")]
    pub fn try_send(&self, command: Command) -> Result<(), Command> {
        self.commands.borrow_mut().try_send(command)?;
        self.shard.wake();
        Ok(())
    }

    /// Sends a command; waits while the mailbox is full.
    pub async fn send(&self, mut command: Command) {
        while let Err(back) = self.try_send(command) {
            command = back;
            Timer::after(FULL_PAUSE).await;
        }
    }

    /// Reads the frame of a delivered value for a peer, at once or not at all: others wait behind
    /// it, and who asked asks another node, or again.
    pub async fn read_for_peer(&self, place: Place, buffer: &mut Vec<u8>) -> bool {
        match &self.read {
            ReadPath::Disk(read) => {
                let read = read(place, buffer);
                if read.is_err() {
                    self.doubt(place);
                }
                read.is_ok()
            }
            ReadPath::Memory => self.read(place, buffer).await,
        }
    }

    /// Reads the frame of a delivered value off the disk, as it is.
    fn read_once(&self, place: Place, buffer: &mut Vec<u8>) -> Result<(), String> {
        match &self.read {
            ReadPath::Disk(read) => read(place, buffer),
            ReadPath::Memory => Err("there is no log on disk".to_owned()),
        }
    }

    /// Reads the frame of a delivered value into `buffer`; false if it is not there any more.
    pub async fn read(&self, place: Place, buffer: &mut Vec<u8>) -> bool {
        match &self.read {
            ReadPath::Disk(read) => {
                let since = Instant::now();
                while let Err(reason) = read(place, buffer) {
                    if since.elapsed() >= WRITTEN_WITHIN {
                        let reason = format!("reading the log at {:#x}: {reason}", place.at);
                        *self.read_error.borrow_mut() = Some(reason);
                        self.doubt(place);
                        return false;
                    }
                    Timer::after(READ_PAUSE).await;
                }
                true
            }
            ReadPath::Memory => {
                buffer.clear();
                buffer.reserve(place.bytes as usize);
                let command = |token, buffer| Command::ReadMemory { token, place, buffer };
                self.ask(command, buffer).await
            }
        }
    }

    /// What lies there cannot be read: the next start has it repaired.
    fn doubt(&self, place: Place) {
        if let Some(keeper) = &self.keeper {
            keeper.borrow_mut().doubt((place.at >> 32) as u32);
        }
    }

    /// Reads the frame of an undelivered value that the shard holds.
    pub async fn read_held(&self, id: ValueId, buffer: &mut Vec<u8>) -> bool {
        buffer.clear();
        buffer.reserve(self.config.packet_max() as usize);
        self.ask(|token, buffer| Command::ReadHeld { token, id, buffer }, buffer).await
    }

    async fn ask(
        &self,
        command: impl FnOnce(u64, Vec<u8>) -> Command,
        buffer: &mut Vec<u8>,
    ) -> bool {
        let token = self.next_token();
        let slot = Slot::default();
        self.reads.borrow_mut().insert(token, slot.clone());
        self.send(command(token, std::mem::take(buffer))).await;
        let (filled, found) = slot.take().await;
        *buffer = filled;
        found
    }

    fn next_token(&self) -> u64 {
        self.token.set(self.token.get() + 1);
        self.token.get()
    }

    /// Takes mail for ever.
    async fn pump(self: Rc<Self>) {
        let bell = Async::new_nonblocking(self.own.clone()).expect("an eventfd can be polled");
        loop {
            self.own.take();
            if self.take_mail() {
                yield_now().await;
            } else if self.own.prepare_sleep() {
                let _ = bell.readable().await;
                self.own.awake();
                self.own.drain();
            }
        }
    }

    /// Takes what is in the mailbox, up to a limit; false if there was nothing.
    fn take_mail(&self) -> bool {
        let mut memory_first = None;
        for taken in 0..PUMP_LETTERS {
            let notice = self.notices.borrow_mut().try_recv();
            match notice {
                None if taken == 0 => return false,
                None => break,
                // The last one says it all.
                Some(Notice::MemoryFirst { at }) => memory_first = Some(at),
                Some(notice) => self.dispatch(notice),
            }
        }
        if let Some(at) = memory_first {
            self.catalog.borrow_mut().on_memory_first(at);
        }
        self.changed.notify();
        true
    }

    fn dispatch(&self, notice: Notice) {
        match notice {
            Notice::Appended(append) => {
                let first = append.first_offset.unwrap_or_default();
                let outcome = match (append.fence, append.producer) {
                    (Some(fence), _) => Outcome::Fenced(fence),
                    (None, Some(id)) => Outcome::Registered(id),
                    (None, None) => Outcome::Appended(first, append.last_offset),
                };
                self.answer(&append, outcome);
            }
            Notice::Refused(append, refusal) => self.answer(&append, Outcome::Refused(refusal)),
            Notice::Unknown(append) => self.answer(&append, Outcome::Unknown),
            Notice::Instance { order, place } => {
                self.catalog.borrow_mut().on_instance(order, place);
            }
            Notice::Run { topic, first_offset, count, skip, at } => {
                self.catalog.borrow_mut().on_run(topic, first_offset, count, (skip, at));
            }
            Notice::Topic { id, name } => {
                self.creating.borrow_mut().remove(&*name);
                self.catalog.borrow_mut().on_topic(id, &name);
            }
            Notice::MemoryFirst { at } => self.catalog.borrow_mut().on_memory_first(at),
            Notice::Read { token, buffer, found } => {
                if let Some(slot) = self.reads.borrow_mut().remove(&token) {
                    slot.put((buffer, found));
                }
            }
            Notice::Changed(change) => {
                if let Some(slot) = self.changes.borrow_mut().remove(&change.token) {
                    slot.put(change);
                }
            }
            notice @ (Notice::State { .. } | Notice::Noted { .. } | Notice::Arrived { .. }) => {
                self.on_state(notice);
            }
            notice @ (Notice::NeedSegment { .. } | Notice::Session(_) | Notice::Drained) => {
                pass(&self.on_node, notice);
            }
            notice @ (Notice::Resume { .. }
            | Notice::LinkDown { .. }
            | Notice::Neighbours { .. }
            | Notice::Direct { .. }
            | Notice::Check(_)
            | Notice::FetchValue { .. }
            | Notice::CatchUp { .. }) => pass(&self.on_peers, notice),
        }
    }

    fn on_state(&self, notice: Notice) {
        if let Notice::Arrived { arrival, done: true, .. } = &notice {
            self.catalog.borrow_mut().restart(arrival.claim, &arrival.topics);
        }
        let slot = notice.state_token().and_then(|token| self.told.borrow_mut().remove(&token));
        if let Some(slot) = slot {
            slot.put(notice);
        }
    }

    fn answer(&self, append: &Append, outcome: Outcome) {
        if let Some(pending) = self.appends.borrow_mut().remove(&append.token) {
            pending.slot.put(outcome);
        }
    }
}

fn pass(to: &Dispatch, notice: Notice) {
    if let Some(handler) = &*to.borrow() {
        handler(notice);
    }
}
