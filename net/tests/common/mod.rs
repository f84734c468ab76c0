//! A ring without any protocol: every node sends its own packets round, everybody forwards until
//! the origin's predecessor, which acknowledges to the origin over the control link.
//!
//! It needs that window: without one, a ring of full buffers stands still for ever.
#![allow(dead_code)]

use chainring_net::mailbox::Waker;
use chainring_net::pool::{Arena, ArenaPlan, Range};
use chainring_net::uring::UringOptions;
use chainring_net::wire::{Counters, Event, FORWARDS_MAX, LinkKind, Wait, Wire, WireOptions};
use chainring_ring::header::{HEADER_BYTES, Header, Kind};
use chainring_ring::ids::*;
use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

pub const BLOCK: u32 = 512;
pub const CLUSTER: ClusterId = ClusterId(0xc0ffee);
pub const EPOCH: Epoch = Epoch(1);

/// A token that no packet of the receive buffer has: own packets count from here.
const OWN: u64 = 1 << 63;

#[derive(Clone)]
pub struct Plan {
    pub nodes: u8,
    /// Packets of each node.
    pub packets: u64,
    /// Frame size of a packet, by origin and sequence.
    pub size: fn(u8, u64) -> u32,
    pub packet_max: u32,
    /// Own packets on the way.
    pub slots: u64,
    pub receive: u32,
    pub spin: Duration,
    /// Whether bodies are filled, and compared at every node.
    pub verify: bool,
}

#[derive(Debug)]
pub struct Report {
    /// Frame bytes received, own acknowledged ones included.
    pub delivered: u64,
    pub seconds: f64,
    pub counters: Counters,
}

pub fn options(packet_max: u32, spin: Duration) -> WireOptions {
    WireOptions {
        cluster: CLUSTER,
        epoch: EPOCH,
        block: BLOCK,
        packet_max,
        control_max: 1 << 12,
        forwards: FORWARDS_MAX,
        spin,
        // Only writes gain by it, and a user's memlock limit may be small.
        uring: UringOptions { fixed: false },
    }
}

pub fn arena(receive: u32, own: u32) -> Arena {
    let plan = ArenaPlan {
        receive,
        own: own.next_multiple_of(4096),
        side: 1 << 16,
        blocks: 1 << 16,
        control_in: 1 << 14,
        control_out: 1 << 13,
    };
    Arena::new(&plan).unwrap()
}

pub fn wire(receive: u32, own: u32) -> (Wire, Waker) {
    let waker = Waker::new().unwrap();
    let options = options(receive / 4, Duration::ZERO);
    (Wire::new(options, arena(receive, own), waker.clone()).unwrap(), waker)
}

pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let out = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (into, _) = listener.accept().unwrap();
    for stream in [&out, &into] {
        chainring_net::socket::tune(stream, None).unwrap();
    }
    (out, into)
}

/// As the control thread hands it over: nonblocking.
pub fn handed_over(stream: TcpStream) -> OwnedFd {
    stream.set_nonblocking(true).unwrap();
    stream.into()
}

pub fn header(kind: Kind, size: u32, origin: u8, sequence: u64) -> Header {
    Header {
        checksum_body: 0,
        cluster: CLUSTER,
        epoch: EPOCH,
        ring: RingId(0),
        kind,
        size,
        length: size - HEADER_BYTES as u32,
        origin: NodeId(origin),
        session: Session::FIRST,
        sequence: Sequence(sequence),
        ballot: Ballot::ZERO,
        instance: Instance(0),
    }
}

/// The bytes that the body of a packet consists of.
fn pattern(origin: u8, sequence: u64, at: usize) -> u8 {
    (sequence.wrapping_mul(31) as usize + at.wrapping_mul(7) + usize::from(origin)) as u8
}

pub fn fill(frame: &mut [u8], origin: u8, sequence: u64) {
    for (at, byte) in frame.iter_mut().enumerate().skip(HEADER_BYTES) {
        *byte = pattern(origin, sequence, at);
    }
    header(Kind::Value, frame.len() as u32, origin, sequence).seal(frame);
}

pub fn check(frame: &[u8], origin: u8, sequence: u64) {
    let wrong = (HEADER_BYTES..frame.len()).find(|at| frame[*at] != pattern(origin, sequence, *at));
    assert_eq!(wrong, None, "packet {sequence} of node {origin} differs");
}

struct Node {
    id: u8,
    plan: Plan,
    wire: Wire,
    /// Next sequence by origin - 1; the own one is the next to send.
    next: Vec<u64>,
    /// Own packets: acknowledged, and gone out.
    acked: u64,
    gone: u64,
    /// Packets of the successor's... origin whose predecessor this is: consumed, and told.
    told: u64,
    /// Handed out: position of the first byte behind each, and whether it may go.
    held: VecDeque<(u64, bool)>,
    waiting: VecDeque<(Range, u64)>,
    delivered: u64,
}

impl Node {
    fn successor(&self) -> u8 {
        self.id % self.plan.nodes + 1
    }

    fn on_packet(&mut self, header: Header, range: Range, position: u64) {
        let (origin, sequence) = (header.origin.0, header.sequence.0);
        assert_eq!(sequence, self.next[usize::from(origin) - 1], "of node {origin}");
        self.next[usize::from(origin) - 1] += 1;
        if self.plan.verify {
            assert_eq!(header.size, (self.plan.size)(origin, sequence));
            check(self.wire.bytes(range), origin, sequence);
        }
        self.delivered += u64::from(header.size);
        let end = position + u64::from(header.size);
        let last = origin == self.successor();
        self.held.push_back((end, last));
        if !last {
            self.waiting.push_back((range, end));
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Packet { header, range, position } => self.on_packet(header, range, position),
            Event::Control { header, .. } => self.acked = self.acked.max(header.instance.0),
            Event::Forwarded { token, sent } => {
                assert!(sent);
                if token >= OWN {
                    assert_eq!(token - OWN, self.gone);
                    self.gone += 1;
                } else {
                    let index = self.held.partition_point(|(end, _)| *end < token);
                    assert_eq!(self.held[index], (token, false));
                    self.held[index].1 = true;
                }
            }
            Event::LinkDown { kind, reason } => panic!("{kind:?} of node {}: {reason}", self.id),
            Event::Written { .. } | Event::Woken => {}
        }
    }

    fn send_own(&mut self) {
        let own = usize::from(self.id) - 1;
        while self.next[own] < self.plan.packets
            && self.next[own] < self.acked.min(self.gone) + self.plan.slots
            && self.wire.forward_room() > 0
        {
            let sequence = self.next[own];
            let size = (self.plan.size)(self.id, sequence);
            let slot = (sequence % self.plan.slots) as u32 * self.plan.packet_max;
            let range = Range { offset: self.wire.regions().own.offset + slot, bytes: size };
            let frame = self.wire.bytes_mut(range);
            if self.plan.verify {
                fill(frame, self.id, sequence);
            } else {
                header(Kind::Value, size, self.id, sequence).seal(frame);
            }
            self.wire.forward(range, OWN + sequence).unwrap();
            self.delivered += u64::from(size);
            self.next[own] += 1;
        }
    }

    fn turn(&mut self) {
        self.wire.poll(Wait::UpTo(Duration::from_millis(100)));
        while let Some(event) = self.wire.next_event() {
            self.on_event(event);
        }
        while let Some((range, token)) = self.waiting.front().copied() {
            if self.wire.forward(range, token).is_err() {
                break;
            }
            self.waiting.pop_front();
        }
        while let Some((end, true)) = self.held.front().copied() {
            self.wire.release_received(end);
            self.held.pop_front();
        }
        self.send_own();
        let consumed = self.next[usize::from(self.successor()) - 1];
        if self.plan.nodes > 1 && consumed > self.told {
            let mut vote = header(Kind::Votes, HEADER_BYTES as u32, self.id, 0);
            vote.instance = Instance(consumed);
            let done = self.wire.control(|buffer| {
                let Some(frame) = buffer.get_mut(..HEADER_BYTES) else { return 0 };
                vote.seal(frame);
                HEADER_BYTES
            });
            if done.is_ok() {
                self.told = consumed;
            }
        }
    }

    fn done(&self) -> bool {
        let all = self.plan.packets;
        self.next.iter().all(|next| *next == all)
            && self.acked == all
            && self.held.is_empty()
            && self.told == all
            && self.wire.control_waiting() == 0
    }

    fn run(mut self, barrier: &Barrier, done: &AtomicU8) -> Report {
        barrier.wait();
        let start = Instant::now();
        let seconds = || start.elapsed().as_secs_f64();
        while !self.done() {
            self.turn();
            assert!(seconds() < 120.0, "node {} stands still: {:?}", self.id, self.next);
        }
        let took = seconds();
        // Nobody hangs up before all have everything. (A barrier would hang if one panicked.)
        done.fetch_add(1, Ordering::SeqCst);
        while done.load(Ordering::SeqCst) < self.plan.nodes {
            assert!(seconds() < 120.0, "another node stands still");
            std::thread::sleep(Duration::from_millis(1));
        }
        Report { delivered: self.delivered, seconds: took, counters: self.wire.counters() }
    }
}

/// Runs the plan, one thread a node; panics if a byte differs or the ring stands still.
pub fn ring(plan: &Plan) -> Vec<Report> {
    let nodes = usize::from(plan.nodes);
    let mut links: Vec<Vec<(LinkKind, OwnedFd)>> = (0..nodes).map(|_| Vec::new()).collect();
    for node in 0..nodes {
        let kinds =
            [(LinkKind::DataOut, LinkKind::DataIn), (LinkKind::ControlOut, LinkKind::ControlIn)];
        for (near, far) in kinds {
            let (out, into) = tcp_pair();
            links[node].push((near, handed_over(out)));
            links[(node + 1) % nodes].push((far, handed_over(into)));
        }
    }
    let (barrier, done) = (Arc::new(Barrier::new(nodes)), Arc::new(AtomicU8::new(0)));
    let threads: Vec<_> = (1..=plan.nodes)
        .zip(links)
        .map(|(id, links)| {
            let (plan, barrier, done) = (plan.clone(), Arc::clone(&barrier), Arc::clone(&done));
            std::thread::spawn(move || {
                let own = plan.slots as u32 * plan.packet_max;
                let options = options(plan.packet_max, plan.spin);
                let arena = arena(plan.receive, own);
                let mut wire = Wire::new(options, arena, Waker::new().unwrap()).unwrap();
                for (kind, fd) in links {
                    wire.attach(kind, fd);
                }
                let node = Node {
                    id,
                    next: vec![0; usize::from(plan.nodes)],
                    plan,
                    wire,
                    acked: 0,
                    gone: 0,
                    told: 0,
                    held: VecDeque::new(),
                    waiting: VecDeque::new(),
                    delivered: 0,
                };
                node.run(&barrier, &done)
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}
