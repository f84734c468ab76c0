//! A wire over a kernel of our own: what the seam promises to whoever writes another one.

mod common;

use chainring_net::kernel::{Kernel, Token};
use chainring_net::mailbox::Waker;
use chainring_net::pool::{Arena, Range};
use chainring_net::wire::{Event, LinkKind, Wait, Wire};
use chainring_ring::header::Kind;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A pipe in memory, both ends; only the kernel below moves bytes.
#[derive(Default)]
struct Pipe {
    bytes: RefCell<VecDeque<u8>>,
    shut: Cell<bool>,
}

/// What was started.
enum Work {
    Recv(Rc<Pipe>, Range),
    Send(Rc<Pipe>, Vec<Range>),
    HangUp(Rc<Pipe>),
    Write(u32),
    Woken,
}

/// Does everything at once in `submit`, and has a clock of its own.
struct Own {
    arena: Arena,
    work: Vec<(Work, Token)>,
    done: VecDeque<(Token, i32)>,
    start: Instant,
    /// Time waited so far; looking at the clock while it may not be looked at is a panic.
    waited: Duration,
    waits: u32,
    clock: bool,
}

impl Own {
    fn result(&mut self, work: &Work) -> Option<i32> {
        match work {
            Work::Recv(pipe, _) | Work::HangUp(pipe) if pipe.shut.get() => Some(0),
            Work::Recv(pipe, into) => {
                let mut bytes = pipe.bytes.borrow_mut();
                let count = bytes.len().min(into.bytes as usize);
                let into = Range { bytes: count as u32, ..*into };
                self.arena.receive_into(into, |to| {
                    to.iter_mut().zip(bytes.drain(..count)).for_each(|(to, byte)| *to = byte);
                });
                (count > 0).then_some(count as i32)
            }
            Work::Send(pipe, ranges) => {
                let bytes = ranges.iter().flat_map(|range| self.arena.bytes(*range));
                pipe.bytes.borrow_mut().extend(bytes);
                Some(ranges.iter().map(|range| range.bytes as i32).sum())
            }
            Work::Write(bytes) => Some(*bytes as i32),
            Work::HangUp(_) | Work::Woken => None,
        }
    }
}

impl Kernel for Own {
    type Handle = Rc<Pipe>;

    fn arena(&self) -> &Arena {
        &self.arena
    }
    fn arena_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }
    fn now(&self) -> Instant {
        assert!(self.clock, "who may not wait needs no clock");
        self.start + self.waited
    }
    fn submit(&mut self) {
        for (work, token) in std::mem::take(&mut self.work) {
            match self.result(&work) {
                Some(result) => self.done.push_back((token, result)),
                None => self.work.push((work, token)),
            }
        }
    }
    fn submit_and_wait(&mut self, timeout: Duration) {
        self.submit();
        if self.done.is_empty() {
            self.waited += timeout;
            self.waits += 1;
            assert!(self.waits < 10, "waits for what will not come");
        }
    }
    fn ready(&mut self) -> bool {
        !self.done.is_empty()
    }
    fn next_completion(&mut self) -> Option<(Token, i32)> {
        self.done.pop_front()
    }
    fn enters(&self) -> (u64, u64) {
        (0, 0)
    }
    fn recv(&mut self, link: &Rc<Pipe>, into: Range, token: Token) {
        self.work.push((Work::Recv(Rc::clone(link), into), token));
    }
    fn send(&mut self, link: &Rc<Pipe>, from: impl Iterator<Item = Range>, token: Token) {
        self.work.push((Work::Send(Rc::clone(link), from.collect()), token));
    }
    fn write(&mut self, _: &Rc<Pipe>, from: &[Range], _: u64, _: bool, token: Token) {
        self.work.push((Work::Write(from.iter().map(|range| range.bytes).sum()), token));
    }
    fn hang_up(&mut self, link: &Rc<Pipe>, token: Token) {
        self.work.push((Work::HangUp(Rc::clone(link)), token));
    }
    fn woken(&mut self, _: &Waker, token: Token) {
        self.work.push((Work::Woken, token));
    }
    fn shutdown(&mut self, link: &Rc<Pipe>) {
        link.shut.set(true);
    }
}

fn wire(clock: bool) -> Wire<Own> {
    let arena = common::arena(1 << 14, 1 << 14);
    let (start, waited, waits) = (Instant::now(), Duration::ZERO, 0);
    let kernel =
        Own { arena, work: Vec::new(), done: VecDeque::new(), start, waited, waits, clock };
    let options = common::options(1 << 12, Duration::ZERO);
    Wire::over(options, kernel, Waker::new().unwrap())
}

/// Frames go round a wire whose two data links are one pipe; no clock is looked at, and dropping
/// a link closes its handle.
#[test]
fn frames_pass_without_a_clock() {
    let mut wire = wire(false);
    let pipe = Rc::new(Pipe::default());
    wire.attach(LinkKind::DataIn, Rc::clone(&pipe));
    wire.attach(LinkKind::DataOut, Rc::clone(&pipe));
    let frame = Range { bytes: 512, ..wire.regions().own };
    common::fill(wire.bytes_mut(frame), 1, 7);
    let sent: Vec<u8> = wire.bytes(frame).to_vec();
    wire.forward(frame, 5).unwrap();
    let mut seen = (0, 0);
    for _ in 0..4 {
        wire.poll(Wait::No);
        while let Some(event) = wire.next_event() {
            match event {
                Event::Forwarded { token: 5, sent: true } => seen.0 += 1,
                Event::Packet { header, range, position: 0 } => {
                    assert_eq!((header.kind, wire.bytes(range)), (Kind::Value, &sent[..]));
                    seen.1 += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(seen, (1, 1));
    wire.write(9, &pipe, &[frame], 0, true).unwrap();
    wire.poll(Wait::No);
    let written = wire.next_event();
    assert!(matches!(written, Some(Event::Written { token: 9, result: Ok(512) })), "{written:?}");
    wire.detach(LinkKind::DataIn);
    wire.detach(LinkKind::DataOut);
    assert_eq!(Rc::strong_count(&pipe), 1, "closed, and no operation holds it");
}

/// A peer that is gone is told once, as over the real kernel.
#[test]
fn the_end_of_a_connection_is_an_event() {
    let mut wire = wire(false);
    let pipe = Rc::new(Pipe::default());
    wire.attach(LinkKind::ControlOut, Rc::clone(&pipe));
    wire.poll(Wait::No);
    assert!(wire.next_event().is_none() && wire.attached(LinkKind::ControlOut));
    pipe.shut.set(true);
    wire.poll(Wait::No);
    let down = wire.next_event();
    assert!(matches!(down, Some(Event::LinkDown { kind: LinkKind::ControlOut, .. })), "{down:?}");
    assert!(wire.next_event().is_none() && Rc::strong_count(&pipe) == 1);
}

/// Waiting passes by the kernel's clock alone: an hour is over at once.
#[test]
fn time_passes_where_the_kernel_says() {
    let mut wire = wire(true);
    let hour = Duration::from_secs(3600);
    let begun = Instant::now();
    wire.poll(Wait::UpTo(hour));
    assert!(wire.next_event().is_none());
    assert_eq!(wire.kernel().waited, hour);
    assert_eq!(wire.counters().blocks, 1);
    assert!(begun.elapsed() < Duration::from_secs(60));
}
