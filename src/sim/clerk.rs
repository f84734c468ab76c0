//! The clerk: what the control thread of a simulated node does beside the peers' connections.
//!
//! It takes the shard's notices in order, keeps the catalog, reads delivered frames for peers and
//! readers, and hands commands to the shard. The catalog, the reader and the peers' code are those
//! of production; HTTP and the pump of the mail are not here. Invariant: a command that finds the
//! mailbox full waits, in order.

use crate::control::catalog::Catalog;
use crate::keep::Keeper;
use crate::mail::{Command, Notice, Place};
use crate::peers::wait::{Giver, later};
use crate::peers::{Host, LogSource, Net};
use crate::sim::disk::DiskHandle;
use crate::sim::kernel::Handle;
use crate::sim::peernet::SimNet;
use chainring_net::mailbox::Sender;
use chainring_ring::ids::{Ballot, Claim, Instance, Order, ValueId};
use chainring_storage::{AlignedBuf, LogReader, segment_path};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// What a blocking operation takes.
const BLOCKING: Duration = Duration::from_millis(2);
/// How long a full mailbox is left alone, as in production.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// A buffer that comes back, and whether it was filled.
type ReadBack = (Vec<u8>, bool);

/// Reads frames of the log on disk.
pub struct DiskReader {
    /// The production reader.
    pub reader: LogReader,
    /// Below it.
    pub disk: DiskHandle,
    /// Where the log lies.
    pub dir: PathBuf,
    /// What it reads into.
    pub buffer: AlignedBuf,
}

/// The state of one life's control thread.
pub struct Clerk {
    /// What is delivered.
    pub catalog: RefCell<Catalog>,
    commands: RefCell<Sender<Command<Handle>>>,
    /// Commands of the world that found the mailbox full.
    waiting: RefCell<VecDeque<Command<Handle>>>,
    reads: RefCell<BTreeMap<u64, Giver<ReadBack>>>,
    token: Cell<u64>,
    disk: RefCell<Option<DiskReader>>,
    keeper: Option<RefCell<Keeper>>,
    told: RefCell<BTreeMap<u64, Giver<Notice>>>,
    packet_max: u32,
    /// The shard has mail.
    pub stirred: Cell<bool>,
}

impl Clerk {
    /// A clerk at the start of a life.
    pub fn new(
        catalog: Catalog,
        commands: Sender<Command<Handle>>,
        disk: Option<DiskReader>,
        keeper: Option<Keeper>,
        packet_max: u32,
    ) -> Rc<Clerk> {
        Rc::new(Clerk {
            catalog: RefCell::new(catalog),
            commands: RefCell::new(commands),
            waiting: RefCell::default(),
            reads: RefCell::default(),
            token: Cell::new(0),
            disk: RefCell::new(disk),
            keeper: keeper.map(RefCell::new),
            told: RefCell::default(),
            packet_max,
            stirred: Cell::new(false),
        })
    }

    #[expect(clippy::result_large_err, reason = "the caller gets back what it gave")]
    fn try_send(&self, command: Command<Handle>) -> Result<(), Command<Handle>> {
        self.stirred.set(true);
        self.commands.borrow_mut().try_send(command)
    }

    /// Hands a command of the world to the shard, behind those that wait.
    pub fn order(&self, command: Command<Handle>) {
        self.waiting.borrow_mut().push_back(command);
        self.push();
    }

    /// Sends what waits, as far as there is room. True if nothing is left.
    pub fn push(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(command) = waiting.pop_front() {
            if let Err(command) = self.try_send(command) {
                waiting.push_front(command);
                return false;
            }
        }
        true
    }

    /// Takes a notice that is about the catalog or an answer; gives back any other.
    pub fn on_notice(&self, notice: Notice) -> Option<Notice> {
        match notice {
            Notice::Instance { order, place } => {
                self.catalog.borrow_mut().on_instance(order, place);
            }
            Notice::Run { topic, first_offset, count, skip, at } => {
                self.catalog.borrow_mut().on_run(topic, first_offset, count, (skip, at));
            }
            Notice::Topic { id, name } => self.catalog.borrow_mut().on_topic(id, &name),
            Notice::MemoryFirst { at } => self.catalog.borrow_mut().on_memory_first(at),
            Notice::Read { token, buffer, found } => {
                if let Some(giver) = self.reads.borrow_mut().remove(&token) {
                    giver.give((buffer, found));
                }
            }
            Notice::Changed(_) => {}
            notice @ (Notice::State { .. } | Notice::Noted { .. } | Notice::Arrived { .. }) => {
                self.on_state(notice);
            }
            other => return Some(other),
        }
        None
    }

    fn on_state(&self, notice: Notice) {
        if let Notice::Arrived { arrival, done: true, .. } = &notice {
            self.catalog.borrow_mut().restart(arrival.claim, &arrival.topics);
        }
        let giver = notice.state_token().and_then(|token| self.told.borrow_mut().remove(&token));
        if let Some(giver) = giver {
            giver.give(notice);
        }
    }

    /// The lowest segment of the log that is needed.
    pub fn first_segment(&self) -> u32 {
        self.keeper.as_ref().map_or(0, |keeper| keeper.borrow().first_segment())
    }

    /// Reads a frame of the log on disk, verified; `None` if it cannot be read.
    pub fn read_disk(&self, place: Place) -> Option<Vec<u8>> {
        let mut disk = self.disk.borrow_mut();
        let DiskReader { reader, disk, dir, buffer } = disk.as_mut()?;
        let place = chainring_storage::Place { at: place.at, bytes: place.bytes };
        let number = place.segment();
        if let Ok(target) = disk.target(&segment_path(dir, number)) {
            disk.expose(target, 0..u64::MAX);
        }
        let frame = reader.read(place, buffer).ok().map(|(_, frame)| frame.to_vec());
        disk.shelter();
        if let Some(keeper) = self.keeper.as_ref().filter(|_| frame.is_none()) {
            keeper.borrow_mut().doubt(number);
        }
        frame
    }

    /// True if frames are read from disk, not from the shard's memory log.
    pub fn reads_disk(&self) -> bool {
        self.disk.borrow().is_some()
    }

    async fn ask(
        &self,
        net: &SimNet,
        command: impl FnOnce(u64, Vec<u8>) -> Command<Handle>,
        bytes: u32,
    ) -> Option<Vec<u8>> {
        let token = self.token.replace(self.token.get() + 1);
        let (giver, back) = later();
        self.reads.borrow_mut().insert(token, giver);
        self.send(net, command(token, Vec::with_capacity(bytes as usize))).await;
        let (buffer, found) = back.await?;
        found.then_some(buffer)
    }

    async fn send(&self, net: &SimNet, mut command: Command<Handle>) {
        while let Err(back) = self.try_send(command) {
            command = back;
            net.pause(FULL_PAUSE).await;
        }
    }
}

/// What the peers' code sees of a node.
pub struct ClerkHost {
    /// The clerk.
    pub clerk: Rc<Clerk>,
    /// For waiting while the mailbox is full.
    pub net: SimNet,
}

impl LogSource for ClerkHost {
    fn delivered(&self) -> Instance {
        self.clerk.catalog.borrow().delivered()
    }
    fn first(&self) -> Instance {
        self.clerk.catalog.borrow().first()
    }
    fn entry(&self, instance: Instance) -> Option<(Order, Place)> {
        self.clerk.catalog.borrow().entry(instance)
    }
    fn find(&self, id: ValueId) -> Option<(Order, Place)> {
        self.clerk.catalog.borrow().find(id)
    }
    fn claim(&self) -> Claim {
        Claim { ballot: Ballot::ZERO, position: self.delivered() }
    }
    async fn read(&self, place: Place, buffer: &mut Vec<u8>) -> bool {
        let frame = match self.clerk.reads_disk() {
            true => self.clerk.read_disk(place),
            false => {
                let command = |token, buffer| Command::ReadMemory { token, place, buffer };
                self.clerk.ask(&self.net, command, place.bytes).await
            }
        };
        let Some(frame) = frame else { return false };
        buffer.extend_from_slice(&frame);
        true
    }
    async fn read_held(&self, id: ValueId, buffer: &mut Vec<u8>) -> bool {
        let command = |token, buffer| Command::ReadHeld { token, id, buffer };
        let frame = self.clerk.ask(&self.net, command, self.clerk.packet_max).await;
        let Some(frame) = frame else { return false };
        buffer.extend_from_slice(&frame);
        true
    }
}

impl Host for ClerkHost {
    type Net = SimNet;

    fn keeper(&self) -> Option<&RefCell<Keeper>> {
        self.clerk.keeper.as_ref()
    }
    fn catalog<R>(&self, look: impl FnOnce(&Catalog) -> R) -> R {
        look(&self.clerk.catalog.borrow())
    }
    fn forget_below(&self, position: Instance) {
        self.clerk.catalog.borrow_mut().drop_below(position);
    }
    async fn ask_state(&self, command: impl FnOnce(u64) -> Command<Handle>) -> Option<Notice> {
        let token = self.clerk.token.replace(self.clerk.token.get() + 1);
        let (giver, back) = later();
        self.clerk.told.borrow_mut().insert(token, giver);
        self.clerk.send(&self.net, command(token)).await;
        back.await
    }
    /// The simulated disk takes no time: what the node does meanwhile is decided by what follows.
    async fn blocking<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let done = work();
        self.net.pause(BLOCKING).await;
        done
    }
    fn clock_ms(&self) -> u64 {
        self.net.now().as_millis() as u64
    }

    async fn send(&self, command: Command<Handle>) {
        self.clerk.send(&self.net, command).await;
    }
}
