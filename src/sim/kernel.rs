//! The simulated kernel: the operations of a shard's wire, on a simulated network and disk.
//!
//! Invariants: every operation completes once; what is received is copied when the wire looks, what
//! is sent when it is handed over; a write to the log ends when the agenda says so, and until then
//! a crash decides what becomes of it.

use crate::sim::agenda::{Agenda, What};
use crate::sim::disk::{Completion, DiskHandle, SECTOR, Target};
use crate::sim::faults::{Faults, Kind};
use crate::sim::journal::{Journal, Place};
use crate::sim::lan::Lan;
use crate::sim::observer::{Observer, Written};
use crate::sim::plan::Storage;
use crate::sim::random::Random;
use chainring_net::kernel::{Kernel, Token};
use chainring_net::mailbox::Waker;
use chainring_net::pool::{Arena, ArenaPlan, Range, Regions};
use chainring_ring::header::Header;
use chainring_ring::ids::NodeId;
use chainring_storage::block;
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

mod desk;
use desk::Done;
pub use desk::{Desk, Group, Placed, Writing};

/// One side of a connection; dropped, it is closed.
pub struct Link {
    lan: Rc<RefCell<Lan>>,
    /// Which connection.
    pub index: u32,
    /// 0 who dialed, 1 who accepted.
    pub side: u8,
}

impl Link {
    /// A side that nobody else holds.
    pub fn new(lan: &Rc<RefCell<Lan>>, index: u32, side: u8) -> Link {
        Link { lan: Rc::clone(lan), index, side }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.lan.borrow_mut().close(self.index, self.side);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "side {} of connection {}", self.side, self.index)
    }
}

/// What a shard's kernel opens.
#[derive(Debug)]
pub enum Handle {
    /// A connection.
    Link(Link),
    /// A segment of the log.
    Segment {
        /// Its number.
        number: u32,
        /// The disk's name for it.
        target: Target,
    },
}

impl Handle {
    fn link(&self) -> (u32, u8) {
        match self {
            Handle::Link(link) => (link.index, link.side),
            Handle::Segment { .. } => unreachable!("a segment is written only"),
        }
    }
}

enum Op {
    Receive { link: (u32, u8), into: Range, token: Token },
    Send { link: (u32, u8), from: Vec<Range>, token: Token },
    HangUp { link: (u32, u8), token: Token },
}

/// Which node, in which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Node, from 0.
    pub node: u8,
    /// Life, from 1.
    pub number: u32,
}

/// What the parts of a world share.
#[derive(Clone)]
pub struct Shared {
    /// What is to happen.
    pub agenda: Rc<RefCell<Agenda>>,
    /// What goes wrong.
    pub faults: Rc<RefCell<Faults>>,
    /// The network.
    pub lan: Rc<RefCell<Lan>>,
    /// Who watches.
    pub observer: Rc<RefCell<Observer>>,
    /// What is written down.
    pub journal: Journal,
}

/// The machine below one life of a node.
#[derive(Clone)]
pub struct Ground {
    /// What all nodes share.
    pub shared: Shared,
    /// The machine's disk.
    pub disk: DiskHandle,
    /// Shared with the world.
    pub desk: Rc<RefCell<Desk>>,
    /// Whose kernel.
    pub life: Life,
    /// How the disk is.
    pub storage: Storage,
    /// Writes may fail.
    pub fails: bool,
    /// Writes may get lost or land elsewhere.
    pub lies: bool,
}

impl Ground {
    /// A write of the log is over. False if it was over before.
    pub fn complete(&self, number: u64, random: &mut Random) -> bool {
        let Some(write) = self.desk.borrow_mut().take(number) else { return false };
        let how = self.outcome(&write, random);
        let node = NodeId(self.life.node + 1);
        let mut observer = self.shared.observer.borrow_mut();
        match how {
            Completion::Done => {}
            Completion::Lost | Completion::Misdirected { .. } => {
                observer.group_lied(node, write.group.number);
            }
            // It is told when the node is.
            Completion::Short { .. } | Completion::Failed(_) => {}
        }
        let result = self.disk.complete_write(write.id, how);
        let mut desk = self.desk.borrow_mut();
        // What a disk lies about is stable for all that its node can know.
        let failed = result != write.bytes as i32;
        if !failed && write.durable {
            let Group { number, sealed, orders, values, claimed } = &write.group;
            let written = Written { number: *number, claimed: *claimed, orders, values };
            observer.wrote_group(node, written);
            let (segment, at, bytes) = (write.segment, write.at, write.bytes);
            let overwrites = desk.takes(orders);
            desk.placed.push(Placed { number: *number, segment, at, bytes, overwrites });
            desk.sealed = desk.sealed.max(*sealed);
        }
        desk.done.push_back(Done { token: write.token, result, failed });
        true
    }

    /// How a write ends.
    fn outcome(&self, write: &Writing, random: &mut Random) -> Completion {
        let (now, here) = (self.shared.agenda.borrow().now(), Place::Node(self.life.node));
        let (storage, mut faults) = (&self.storage, self.shared.faults.borrow_mut());
        let sectors = u64::from(write.bytes) / SECTOR as u64;
        if self.fails && faults.draw(Kind::WriteError, storage.write_error) {
            faults.took(Kind::WriteError, now, here);
            return Completion::Failed(Errno::IO);
        }
        if self.fails && sectors > 1 && faults.draw(Kind::WriteShort, storage.write_short) {
            faults.took(Kind::WriteShort, now, here);
            let bytes = random.range(1..sectors) as u32 * SECTOR as u32;
            return Completion::Short { bytes };
        }
        if self.lies && faults.draw(Kind::WriteLost, storage.write_lost) {
            faults.took(Kind::WriteLost, now, here);
            return Completion::Lost;
        }
        if self.lies && faults.draw(Kind::WriteAstray, storage.write_astray) {
            faults.took(Kind::WriteAstray, now, here);
            let at = (write.at / 4096 + 1 + random.below(8)) * 4096;
            return Completion::Misdirected { target: write.target, at };
        }
        Completion::Done
    }
}

thread_local! {
    /// Packet memory of lives that are over: to map it anew costs more than to clear it.
    static SPARE: RefCell<VecDeque<Arena>> = const { RefCell::new(VecDeque::new()) };
}

/// Most arenas kept by a thread.
const SPARE_MAX: usize = 32;

/// Zeroed packet memory.
///
/// # Panics
/// If there is no memory for a small node.
pub fn arena(plan: &ArenaPlan) -> Arena {
    let kept = SPARE.with_borrow_mut(|spare| {
        let index = spare.iter_mut().position(|arena| arena.lay(plan))?;
        spare.remove(index)
    });
    let Some(mut arena) = kept else { return Arena::new(plan).expect("memory for a small node") };
    let Regions { receive, own, side, blocks, control_in, control_out } = plan.regions();
    let [first, second] = control_out;
    for range in [receive, own, side, blocks, control_in, first, second] {
        arena.receive_into(range, |bytes| bytes.fill(0));
    }
    arena
}

/// A kernel of one life of a node.
pub struct SimKernel {
    /// There until the kernel goes.
    arena: Option<Arena>,
    ground: Ground,
    random: Random,
    ops: Vec<Op>,
    spare: Vec<Vec<Range>>,
    start: Instant,
    /// Time that a blocking call has waited for.
    waited: Cell<Duration>,
}

impl SimKernel {
    /// A kernel over `arena`.
    pub fn new(arena: Arena, ground: Ground, random: Random) -> SimKernel {
        SimKernel {
            arena: Some(arena),
            ground,
            random,
            ops: Vec::with_capacity(8),
            spare: Vec::new(),
            start: Instant::now(),
            waited: Cell::default(),
        }
    }

    /// Tries what is under way; what is done leaves.
    fn work(&mut self) {
        let mut index = 0;
        while index < self.ops.len() {
            let result = match &self.ops[index] {
                Op::Receive { link, into, .. } => self.receive(*link, *into),
                Op::Send { link, .. } => self.send_out(*link, index),
                Op::HangUp { link, .. } => {
                    self.ground.shared.lan.borrow().is_hung_up(link.0, link.1).then_some(1)
                }
            };
            let Some(result) = result else {
                index += 1;
                continue;
            };
            let token = match self.ops.remove(index) {
                Op::Receive { token, .. } | Op::HangUp { token, .. } => token,
                Op::Send { token, mut from, .. } => {
                    from.clear();
                    self.spare.push(from);
                    token
                }
            };
            let done = Done { token, result, failed: false };
            self.ground.desk.borrow_mut().done.push_back(done);
        }
    }

    fn receive(&mut self, link: (u32, u8), into: Range) -> Option<i32> {
        let mut lan = self.ground.shared.lan.borrow_mut();
        let received = self
            .arena
            .as_mut()
            .expect(HAS_ARENA)
            .receive_into(into, |bytes| lan.receive(link.0, link.1, bytes));
        received.map(|result| result.map_or_else(|errno| -errno, |count| count as i32))
    }

    fn send_out(&mut self, link: (u32, u8), index: usize) -> Option<i32> {
        let Op::Send { from, .. } = &self.ops[index] else { unreachable!("a send") };
        let mut lan = self.ground.shared.lan.borrow_mut();
        let mut sent = 0;
        for range in from {
            match lan.send(link.0, link.1, self.arena().bytes(*range)) {
                Ok(count) => {
                    sent += count;
                    if count < range.bytes as usize {
                        break;
                    }
                }
                Err(errno) if sent == 0 => return Some(-errno),
                Err(_) => break,
            }
        }
        (sent > 0).then_some(sent as i32)
    }

    /// When a write that begins now is done.
    fn write_time(&mut self) -> u64 {
        let storage = &self.ground.storage;
        let jitter = self.random.exponential(u64::from(storage.jitter_us) + 1);
        let mut time = u64::from(storage.write_us) + jitter + self.ground.disk.drag_us();
        let mut faults = self.ground.shared.faults.borrow_mut();
        if faults.draw(Kind::Slow, storage.slow) {
            let now = self.ground.shared.agenda.borrow().now();
            let here = Place::Node(self.ground.life.node);
            faults.took(Kind::Slow, now, here);
            time *= 100;
        }
        if faults.draw(Kind::Hang, storage.hang) {
            let now = self.ground.shared.agenda.borrow().now();
            faults.took(Kind::Hang, now, Place::Node(self.ground.life.node));
            time += 2_000_000 + faults.stream(Kind::Hang).below(6_000_000);
        }
        time
    }
}

/// Why a kernel has its memory.
const HAS_ARENA: &str = "given back when the kernel goes";

impl Drop for SimKernel {
    fn drop(&mut self) {
        let arena = self.arena.take().expect(HAS_ARENA);
        // A thread that ends drops its worlds behind its spare memory: then it just goes.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            spare.push_back(arena);
            if spare.len() > SPARE_MAX {
                spare.pop_front();
            }
        });
    }
}

impl Kernel for SimKernel {
    type Handle = Handle;

    fn arena(&self) -> &Arena {
        self.arena.as_ref().expect(HAS_ARENA)
    }
    fn arena_mut(&mut self) -> &mut Arena {
        self.arena.as_mut().expect(HAS_ARENA)
    }
    /// Goes on only for who waits: a node that stops in good order does, for its last writes.
    fn now(&self) -> Instant {
        self.waited.set(self.waited.get() + Duration::from_micros(100));
        self.start + self.waited.get()
    }
    fn submit(&mut self) {
        self.work();
    }
    fn submit_and_wait(&mut self, _timeout: Duration) {
        self.work();
        let first = self.ground.desk.borrow().writing.front().map(|(number, _)| *number);
        if let Some(number) = first {
            self.ground.complete(number, &mut self.random);
        }
    }
    fn ready(&mut self) -> bool {
        !self.ground.desk.borrow().done.is_empty()
    }
    fn next_completion(&mut self) -> Option<(Token, i32)> {
        let mut desk = self.ground.desk.borrow_mut();
        let Done { token, result, failed } = desk.done.pop_front()?;
        desk.fresh = true;
        if failed {
            let node = NodeId(self.ground.life.node + 1);
            self.ground.shared.observer.borrow_mut().io_failed(node);
        }
        Some((token, result))
    }
    fn enters(&self) -> (u64, u64) {
        (0, 0)
    }

    fn recv(&mut self, link: &Handle, into: Range, token: Token) {
        self.ops.push(Op::Receive { link: link.link(), into, token });
    }

    fn send(&mut self, link: &Handle, from: impl Iterator<Item = Range>, token: Token) {
        let mut ranges = self.spare.pop().unwrap_or_default();
        ranges.extend(from);
        self.ops.push(Op::Send { link: link.link(), from: ranges, token });
    }

    fn write(&mut self, file: &Handle, from: &[Range], offset: u64, durable: bool, token: Token) {
        let Handle::Segment { number: segment, target } = *file else {
            unreachable!("connections are not written")
        };
        let length = from.iter().map(|range| range.bytes as usize).sum();
        let mut bytes = Vec::with_capacity(length);
        from.iter().for_each(|range| bytes.extend_from_slice(self.arena().bytes(*range)));
        let group = group_of(&bytes);
        let id = self.ground.disk.submit_write(target, offset, bytes, durable);
        let (at, bytes) = (offset, length as u32);
        let mut desk = self.ground.desk.borrow_mut();
        desk.next += 1;
        let write = desk.next;
        desk.writing
            .push_back((write, Writing { id, segment, target, at, bytes, group, durable, token }));
        drop(desk);
        let time = self.write_time();
        let Life { node, number: life } = self.ground.life;
        let mut agenda = self.ground.shared.agenda.borrow_mut();
        let until = agenda.now() + time;
        agenda.put(until, What::Written { node, life, write });
    }

    fn hang_up(&mut self, link: &Handle, token: Token) {
        self.ops.push(Op::HangUp { link: link.link(), token });
    }

    /// Nobody sleeps in a simulated world: the agenda calls.
    fn woken(&mut self, _waker: &Waker, _token: Token) {}

    fn shutdown(&mut self, link: &Handle) {
        let (index, side) = link.link();
        self.ground.shared.lan.borrow_mut().shutdown(index, side);
    }
}

/// What a write to the log holds.
fn group_of(bytes: &[u8]) -> Group {
    let header = block::peek(bytes).expect("the writer plans a block");
    let decoded = block::decode(&header, &bytes[..header.size as usize]).expect("a whole block");
    let (number, sealed, claimed) = (decoded.number, decoded.sealed, decoded.claim.position);
    let mut group = Group { number, sealed, claimed, ..Group::default() };
    block::orders(&decoded, bytes, &mut group.orders).expect("its own orders");
    let mut at = decoded.bytes as usize;
    for _ in 0..decoded.values.count {
        let header = Header::decode(&bytes[at..], u32::MAX).expect("a value frame");
        group.values.push(header.value_id());
        at += header.size as usize;
    }
    group
}
