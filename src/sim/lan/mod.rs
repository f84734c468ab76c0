//! The simulated network: connections between nodes that are late, break, stand half open, meet
//! partitions, and lose, double or spoil frames.
//!
//! A connection has two sides, 0 who dialed and 1 who accepted, and a [`Flow`] each way. As on TCP
//! bytes of one connection come in order; unlike TCP a frame may get lost or come twice, for the
//! protocol must bear it. Invariants: everything happens by the agenda; a side that is closed hears
//! nothing more; what a partition holds up comes when it heals or never.

mod connect;
mod flow;

use crate::sim::agenda::{Agenda, What};
use crate::sim::faults::{Faults, Kind};
use crate::sim::journal::Place;
use crate::sim::random::Random;
use chainring_ring::header::Kind as FrameKind;
use flow::{End, Flow, HELD};
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

/// Most nodes.
pub const NODES_MAX: usize = 8;
/// Where a frame's kind lies in its header.
const KIND_AT: usize = 54;
/// A frame of more than half a buffer is let through as it comes, and one larger than this.
const WHOLE_MAX: usize = 96 << 10;
/// A frame that is held up for seconds takes so long, at most.
const LATE_US: u64 = 4_000_000;
/// Bytes of a connection that are sent and not read, mostly: socket buffers of both sides.
pub const BUFFER_BYTES: u32 = 256 << 10;

/// How the network of a world is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Shortest way of a frame, microseconds.
    pub delay_us: u32,
    /// Mean of what comes on top.
    pub jitter_us: u32,
    /// Bytes a microsecond, each way of a connection.
    pub bytes_per_us: u32,
    /// Times in a million frames.
    pub lose: u32,
    /// The same.
    pub double: u32,
    /// The same.
    pub hold: u32,
    /// The same.
    pub spoil: u32,
    /// The same.
    pub broken: u32,
    /// Times in a million hellos that are held up for seconds.
    pub late: u32,
    /// A frame is held up for seconds, and all behind it on its connection: others go on.
    pub stall: u32,
    /// Now and then it is much worse.
    pub spells: Spells,
    /// Socket buffers of a connection.
    pub buffer_bytes: u32,
    /// A connection that a partition holds up gives up after this, microseconds.
    pub give_up_us: u32,
}

/// Spells in which most of what is sent does not arrive whole, one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spells {
    /// From the beginning of one to that of the next, microseconds; 0 for none.
    pub every_us: u64,
    /// For how long.
    pub lasts_us: u64,
    /// Times in a million frames.
    pub lose: u32,
    /// The same.
    pub spoil: u32,
    /// The same.
    pub broken: u32,
}

impl Weather {
    /// How often a frame is lost, spoilt and meets a break, at a time.
    fn rates(&self, now: u64) -> (u32, u32, u32) {
        let Spells { every_us, lasts_us, lose, spoil, broken } = self.spells;
        match every_us > 0 && now % every_us >= every_us - lasts_us {
            true => (lose.max(self.lose), spoil.max(self.spoil), broken.max(self.broken)),
            false => (self.lose, self.spoil, self.broken),
        }
    }
}

/// Who sees every frame as it leaves.
pub trait Eyes {
    /// A whole frame leaves one node for another.
    fn frame(&mut self, from: u8, to: u8, frame: &[u8]);
}

#[derive(Debug)]
struct Side {
    node: u8,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// State of a dialed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial {
    /// On its way.
    Pending,
    /// Both sides may talk.
    Open,
    /// Nobody listens there.
    Refused,
    /// Nobody answers.
    Unreachable,
}

#[derive(Debug)]
struct Connection {
    dial: Dial,
    sides: [Side; 2],
    flows: [Flow; 2],
    /// Each flow's wire is busy until then.
    busy: [u64; 2],
    give_up: [bool; 2],
    /// This side has given up.
    timed_out: [bool; 2],
}

/// A host of the network.
#[derive(Debug, Default)]
struct Host {
    up: bool,
    listening: bool,
    accepted: VecDeque<u32>,
    listener: Option<Waker>,
}

/// The network.
pub struct Lan {
    weather: Weather,
    agenda: Rc<RefCell<Agenda>>,
    faults: Rc<RefCell<Faults>>,
    eyes: Rc<RefCell<dyn Eyes>>,
    random: Random,
    hosts: [Host; NODES_MAX],
    /// From, to: partitions that cut this way.
    cuts: [[u32; NODES_MAX]; NODES_MAX],
    connections: Vec<Connection>,
    healed: bool,
    /// Nodes whose shards have to look at their connections again, a bit each.
    stirred: u8,
    /// Digest of what went over the network.
    pub digest: u64,
    /// Frames that left.
    pub frames: u64,
}

impl Lan {
    /// A network of `seed`.
    pub fn new(
        seed: u64,
        weather: Weather,
        agenda: Rc<RefCell<Agenda>>,
        faults: Rc<RefCell<Faults>>,
        eyes: Rc<RefCell<dyn Eyes>>,
    ) -> Lan {
        Lan {
            weather,
            agenda,
            faults,
            eyes,
            random: Random::stream(seed, "network"),
            hosts: Default::default(),
            cuts: Default::default(),
            connections: Vec::new(),
            healed: false,
            stirred: 0,
            digest: 0,
            frames: 0,
        }
    }

    fn now(&self) -> u64 {
        self.agenda.borrow().now()
    }

    fn put(&self, at: u64, what: What) {
        self.agenda.borrow_mut().put(at, what);
    }

    fn announce(&mut self, index: usize, from: usize, at: u64) {
        let at = if at == HELD { return } else { at };
        self.put(at, What::Arrive { connection: index as u32, from: from as u8 });
    }

    /// When `bytes` bytes that leave now arrive.
    fn arrival(&mut self, index: usize, side: usize, bytes: usize) -> u64 {
        let now = self.now();
        let connection = &mut self.connections[index];
        let [from, to] = [side, 1 - side].map(|side| usize::from(connection.sides[side].node));
        if self.cuts[from][to] > 0 {
            return HELD;
        }
        let rate = u64::from(self.weather.bytes_per_us.max(1));
        let start = connection.busy[side].max(now);
        connection.busy[side] = start + bytes as u64 / rate;
        let jitter = self.random.below(2 * u64::from(self.weather.jitter_us) + 1);
        connection.busy[side] + u64::from(self.weather.delay_us) + jitter
    }

    /// Sends bytes. Returns how many were taken, or an error's number.
    pub fn send(&mut self, index: u32, side: u8, mut bytes: &[u8]) -> Result<usize, i32> {
        let (index, side) = (index as usize, usize::from(side));
        let connection = &self.connections[index];
        let flows = &connection.flows;
        let broken = flows[side].end != End::Open || flows[1 - side].end == End::Reset;
        if connection.sides[side].closed || broken {
            return Err(Errno::PIPE.raw_os_error());
        }
        if connection.flows[1 - side].end_arrived && connection.sides[1 - side].closed {
            return Err(Errno::PIPE.raw_os_error());
        }
        let buffer = self.weather.buffer_bytes as usize;
        let room = buffer.saturating_sub(connection.flows[side].held());
        bytes = &bytes[..bytes.len().min(room)];
        let mut taken = 0;
        while !bytes.is_empty() {
            let (count, whole) =
                self.connections[index].flows[side].write(bytes, WHOLE_MAX.min(buffer / 2));
            (taken, bytes) = (taken + count, &bytes[count..]);
            if whole && !self.frame_leaves(index, side) {
                return if taken > 0 { Ok(taken) } else { Err(Errno::CONNRESET.raw_os_error()) };
            }
            if !whole {
                self.rest_leaves(index, side);
            }
        }
        Ok(taken)
    }

    /// Part of a frame that is too large to be held back.
    fn rest_leaves(&mut self, index: usize, side: usize) {
        if let Some(at) = self.connections[index].flows[side].next_at() {
            self.announce(index, side, at);
        }
    }

    /// A whole frame leaves: what becomes of it. False if the connection broke.
    fn frame_leaves(&mut self, index: usize, side: usize) -> bool {
        let now = self.now();
        let size = self.connections[index].flows[side].frame().len();
        let mut at = self.arrival(index, side, size);
        let connection = &mut self.connections[index];
        let [from, to] = [side, 1 - side].map(|side| connection.sides[side].node);
        let flow = &mut connection.flows[side];
        self.frames += 1;
        let mark = u64::from_le_bytes(flow.frame()[..8].try_into().expect("a header"));
        self.digest =
            (self.digest ^ mark ^ now).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        self.eyes.borrow_mut().frame(from, to, flow.frame());
        let way = Place::Way(from, to);
        let mut faults = self.faults.borrow_mut();
        if at == HELD {
            faults.count(Kind::Cut, 1);
            flow.pass(HELD, false);
            if !std::mem::replace(&mut connection.give_up[side], true) {
                let until = now + u64::from(self.weather.give_up_us);
                let what = What::GiveUp { connection: index as u32, side: side as u8 };
                self.agenda.borrow_mut().put(until, what);
            }
            return true;
        }
        let weather = &self.weather;
        let (lose, spoil, broken) = weather.rates(now);
        let (lose, double) = match may_vanish(flow.frame()) {
            true => (lose, weather.double),
            false => (0, 0),
        };
        if faults.draw(Kind::Lose, lose) {
            faults.took(Kind::Lose, now, way);
            flow.lose();
            return true;
        }
        let twice = faults.draw(Kind::Double, double);
        if twice {
            faults.took(Kind::Double, now, way);
        }
        if faults.draw(Kind::Hold, weather.hold) {
            faults.took(Kind::Hold, now, way);
            let mean = u64::from(weather.delay_us + weather.jitter_us) + 1;
            at += 10 * mean + faults.stream(Kind::Hold).below(40 * mean);
        }
        let hello = flow.frame()[KIND_AT] == FrameKind::Hello as u8;
        let late = [(Kind::Stall, weather.stall), (Kind::Late, weather.late)];
        let (kind, rate) = late[usize::from(hello)];
        if faults.draw(kind, rate) {
            faults.took(kind, now, way);
            at += faults.stream(kind).below(LATE_US);
        }
        if faults.draw(Kind::Spoil, spoil) {
            faults.took(Kind::Spoil, now, way);
            let frame = flow.frame_mut();
            let place = faults.stream(Kind::Spoil).below(frame.len() as u64) as usize;
            frame[place] ^= 1 << faults.stream(Kind::Spoil).below(8);
        }
        let broken = faults.draw(Kind::Break, broken);
        if broken {
            faults.took(Kind::Break, now, way);
        }
        drop(faults);
        let at = self.connections[index].flows[side].pass(at, twice);
        if broken {
            self.break_up(index, side);
            return false;
        }
        self.announce(index, side, at);
        true
    }

    /// A connection breaks: the sender learns at once, the receiver when the reset arrives.
    fn break_up(&mut self, index: usize, side: usize) {
        let at = self.now() + u64::from(self.weather.delay_us);
        let connection = &mut self.connections[index];
        connection.flows[side].reset();
        connection.flows[1 - side].reset();
        for side in &mut connection.sides {
            wake(&mut side.reader);
            wake(&mut side.writer);
        }
        let nodes = [0, 1].map(|side| connection.sides[side].node);
        nodes.iter().for_each(|node| self.stirred |= 1 << node);
        self.announce(index, side, at);
        self.announce(index, 1 - side, at);
    }

    /// A connection that is still held up is given up by its sender.
    pub fn on_give_up(&mut self, index: u32, side: u8) {
        let (index, side) = (index as usize, usize::from(side));
        let connection = &mut self.connections[index];
        connection.give_up[side] = false;
        if !connection.flows[side].is_held() || connection.sides[side].closed {
            return;
        }
        // The other side hears nothing of it: it stands half open.
        connection.flows[side].reset();
        connection.flows[1 - side].reset();
        connection.timed_out[side] = true;
        wake(&mut connection.sides[side].reader);
        wake(&mut connection.sides[side].writer);
        self.stirred |= 1 << connection.sides[side].node;
    }

    /// Bytes or an end arrive. Returns the node that has to look.
    pub fn on_arrive(&mut self, index: u32, from: u8) -> Option<u8> {
        let (index, from) = (index as usize, usize::from(from));
        let now = self.now();
        let connection = &mut self.connections[index];
        let flow = &mut connection.flows[from];
        let any = flow.arrive(now) || flow.end == End::Reset;
        let receiver = &mut connection.sides[1 - from];
        if receiver.closed {
            flow.discard();
            // Whoever sends to a process that is gone is told so, if its machine is up.
            let to_host = &self.hosts[usize::from(receiver.node)];
            if any && to_host.up && connection.flows[from].end == End::Open {
                connection.flows[from].reset();
                connection.flows[1 - from].reset();
                wake(&mut connection.sides[from].reader);
                wake(&mut connection.sides[from].writer);
                return Some(connection.sides[from].node);
            }
            return None;
        }
        if !any {
            return None;
        }
        let node = receiver.node;
        wake(&mut receiver.reader);
        Some(node)
    }

    /// Whether and how much can be read: `Ok(0)` is the end, `None` that nothing is there yet.
    pub fn receive(&mut self, index: u32, side: u8, into: &mut [u8]) -> Option<Result<usize, i32>> {
        let (index, side) = (index as usize, usize::from(side));
        let connection = &mut self.connections[index];
        let flow = &mut connection.flows[1 - side];
        if flow.has_bytes() {
            let was_full = flow.held() >= self.weather.buffer_bytes as usize / 2;
            // A stream breaks where it likes.
            let most = match self.random.below(8) {
                0 => 1 + self.random.below(into.len() as u64) as usize,
                _ => into.len(),
            };
            let count = flow.read(&mut into[..most]);
            let sender = &mut connection.sides[side ^ 1];
            wake(&mut sender.writer);
            self.stirred |= u8::from(was_full) << sender.node;
            return Some(Ok(count));
        }
        match flow.end {
            End::Reset if connection.timed_out[side] => Some(Err(Errno::TIMEDOUT.raw_os_error())),
            End::Reset => Some(Err(Errno::CONNRESET.raw_os_error())),
            _ if flow.end_arrived => Some(Ok(0)),
            _ => None,
        }
    }

    /// Leaves a waker for when bytes can be read.
    pub fn wait_readable(&mut self, index: u32, side: u8, waker: &Waker) {
        self.connections[index as usize].sides[usize::from(side)].reader = Some(waker.clone());
    }

    /// Leaves a waker for when bytes can be written.
    pub fn wait_writable(&mut self, index: u32, side: u8, waker: &Waker) {
        self.connections[index as usize].sides[usize::from(side)].writer = Some(waker.clone());
    }

    /// Whether the other side has closed, as a poll for a hang-up says.
    pub fn is_hung_up(&self, index: u32, side: u8) -> bool {
        let flow = &self.connections[index as usize].flows[1 - usize::from(side)];
        flow.end_arrived || flow.end == End::Reset
    }

    /// The nodes whose shards have to look at their connections again, a bit each.
    pub fn take_stirred(&mut self) -> u8 {
        std::mem::take(&mut self.stirred)
    }

    /// A partition cuts the way from one node to another. True if it was open.
    pub fn cut(&mut self, from: u8, to: u8) -> bool {
        let cuts = &mut self.cuts[usize::from(from)][usize::from(to)];
        *cuts += 1;
        *cuts == 1
    }

    /// A partition that cut this way is over; it opens when the last of them is.
    pub fn mend(&mut self, from: u8, to: u8) {
        let cuts = &mut self.cuts[usize::from(from)][usize::from(to)];
        if *cuts > 0 {
            *cuts -= 1;
            if *cuts == 0 {
                self.release(from, to);
            }
        }
    }

    fn release(&mut self, from: u8, to: u8) {
        let at = self.now() + u64::from(self.weather.delay_us);
        for index in 0..self.connections.len() {
            for side in 0..2 {
                let connection = &mut self.connections[index];
                let way = (connection.sides[side].node, connection.sides[1 - side].node);
                let flow = &mut connection.flows[side];
                let ended = flow.end == End::Closed && !flow.end_arrived;
                if way == (from, to) && (flow.release(at) > 0 || ended) {
                    self.announce(index, side, at);
                }
            }
        }
    }

    /// No partitions, no faults any more.
    pub fn heal(&mut self) {
        self.healed = true;
        for from in 0..NODES_MAX as u8 {
            for to in 0..NODES_MAX as u8 {
                let cuts = &mut self.cuts[usize::from(from)][usize::from(to)];
                *cuts = (*cuts).min(1);
                self.mend(from, to);
            }
        }
    }
}

/// Whether a frame may get lost or come twice: those of the ring and the direct ones. Questions and
/// answers on the third connection rest on TCP, as handshakes do.
fn may_vanish(frame: &[u8]) -> bool {
    use FrameKind::{Orders, Prepare, Promise, Reject, Value, Votes};
    let kinds = [Value, Orders, Votes, Prepare, Promise, Reject];
    kinds.iter().any(|kind| *kind as u8 == frame[KIND_AT])
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
