//! A network and a clock in memory: chance from a seed, time that goes on when told.

use crate::peers::{Net, Stream};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Bytes of a direction that are on their way or not yet read.
const PIPE_BYTES: usize = 64 << 10;
/// With less room nothing is written, as in TCP: else full pipes carry single bytes.
const ROOM_MIN: usize = PIPE_BYTES / 4;

/// All nodes' network.
pub struct Lan(RefCell<State>);

#[derive(Default)]
struct State {
    now: Duration,
    chance: u64,
    /// By time and order of making.
    events: BTreeMap<Key, Event>,
    made: u64,
    listeners: BTreeMap<String, Listener>,
    /// Two for each connection: from the side that dialed, and to it.
    pipes: Vec<Pipe>,
}

type Key = (Duration, u64);

enum Event {
    Wake(Waker),
    Bytes(usize, Vec<u8>),
    Finish(usize),
    /// The reader is gone.
    Deaf(usize),
}

#[derive(Default)]
struct Listener {
    backlog: VecDeque<End>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    used: usize,
    /// When the last of what is on its way arrives.
    last: Duration,
    finished: bool,
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn room(&self) -> usize {
        PIPE_BYTES - self.used
    }
}

impl State {
    /// From 0 to below `limit`; SplitMix64.
    fn chance(&mut self, limit: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(50 + self.chance(2000))
    }

    fn at(&mut self, due: Duration, event: Event) -> Key {
        self.made += 1;
        self.events.insert((due, self.made), event);
        (due, self.made)
    }

    /// After everything that was sent through `pipe` before.
    fn through(&mut self, pipe: usize, event: Event) {
        let due = self.pipes[pipe].last.max(self.now + self.latency());
        self.pipes[pipe].last = due;
        self.at(due, event);
    }
}

impl Lan {
    pub fn new(seed: u64) -> Rc<Lan> {
        Rc::new(Lan(RefCell::new(State { chance: seed, ..State::default() })))
    }

    pub fn now(&self) -> Duration {
        self.0.borrow().now
    }

    /// Lets the next thing happen, if there is one by then.
    pub fn step(&self, until: Duration) -> bool {
        let mut state = self.0.borrow_mut();
        let Some(next) = state.events.first_entry().filter(|next| next.key().0 <= until) else {
            state.now = until;
            return false;
        };
        let ((due, _), event) = next.remove_entry();
        state.now = due;
        let waker = match event {
            Event::Wake(waker) => Some(waker),
            Event::Bytes(pipe, bytes) => {
                state.pipes[pipe].bytes.extend(bytes);
                state.pipes[pipe].reader.take()
            }
            Event::Finish(pipe) => {
                state.pipes[pipe].finished = true;
                state.pipes[pipe].reader.take()
            }
            Event::Deaf(pipe) => {
                state.pipes[pipe].deaf = true;
                state.pipes[pipe].writer.take()
            }
        };
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        true
    }
}

/// One node's side of the network.
pub struct Port {
    lan: Rc<Lan>,
    address: String,
}

impl Port {
    pub fn listen(lan: &Rc<Lan>, address: &str) -> Port {
        let taken = lan.0.borrow_mut().listeners.insert(address.into(), Listener::default());
        assert!(taken.is_none(), "two nodes at {address}");
        Port { lan: lan.clone(), address: address.into() }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Taken out first: the ends in it look in here when they go.
        let listener = self.lan.0.borrow_mut().listeners.remove(&self.address);
        drop(listener);
    }
}

impl Net for Port {
    type Stream = End;
    type Handle = End;

    async fn connect(&self, address: &str) -> io::Result<End> {
        let latency = self.lan.0.borrow_mut().latency();
        self.pause(latency).await;
        let mut state = self.lan.0.borrow_mut();
        let first = state.pipes.len();
        let end = |read, write| End { lan: self.lan.clone(), read, write };
        let Some(listener) = state.listeners.get_mut(address) else {
            return Err(ErrorKind::ConnectionRefused.into());
        };
        listener.backlog.push_back(end(first, first + 1));
        let waker = listener.waker.take();
        state.pipes.extend([Pipe::default(), Pipe::default()]);
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        Ok(end(first + 1, first))
    }

    async fn accept(&self) -> io::Result<End> {
        poll_fn(|context| {
            let mut state = self.lan.0.borrow_mut();
            let listener = state.listeners.get_mut(&self.address).expect("listens while it lives");
            match listener.backlog.pop_front() {
                Some(end) => Poll::Ready(Ok(end)),
                None => {
                    listener.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn release(&self, stream: End) -> io::Result<End> {
        Ok(stream)
    }

    fn now(&self) -> Duration {
        self.lan.now()
    }

    fn pause(&self, time: Duration) -> impl Future<Output = ()> {
        let due = self.lan.now() + time;
        Pause { lan: self.lan.clone(), due, key: None }
    }
}

struct Pause {
    lan: Rc<Lan>,
    due: Duration,
    key: Option<Key>,
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let lan = self.lan.clone();
        let mut state = lan.0.borrow_mut();
        if state.now >= self.due {
            return Poll::Ready(());
        }
        let wake = Event::Wake(context.waker().clone());
        match self.key {
            Some(key) => drop(state.events.insert(key, wake)),
            None => self.key = Some(state.at(self.due, wake)),
        }
        Poll::Pending
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.lan.0.borrow_mut().events.remove(&key);
        }
    }
}

/// One end of a connection.
pub struct End {
    lan: Rc<Lan>,
    read: usize,
    write: usize,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.lan.0.borrow_mut();
        state.through(self.write, Event::Finish(self.write));
        let due = state.now + state.latency();
        state.at(due, Event::Deaf(self.read));
    }
}

impl Stream for End {
    async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| {
            let mut state = self.lan.0.borrow_mut();
            let pipe = &mut state.pipes[self.read];
            if pipe.bytes.is_empty() && !pipe.finished {
                pipe.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            let count = pipe.bytes.len().min(bytes.len());
            bytes.iter_mut().zip(pipe.bytes.drain(..count)).for_each(|(to, byte)| *to = byte);
            pipe.used -= count;
            let room = pipe.room();
            let writer = pipe.writer.take_if(|_| room >= ROOM_MIN);
            drop(state);
            writer.into_iter().for_each(Waker::wake);
            Poll::Ready(Ok(count))
        })
        .await
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|context| {
            let mut state = self.lan.0.borrow_mut();
            let pipe = &mut state.pipes[self.write];
            if pipe.deaf {
                return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
            } else if pipe.room() < ROOM_MIN {
                pipe.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            let most = bytes.len().min(pipe.room());
            let count = 1 + state.chance(most as u64) as usize;
            state.pipes[self.write].used += count;
            state.through(self.write, Event::Bytes(self.write, bytes[..count].to_vec()));
            Poll::Ready(Ok(count))
        })
        .await
    }

    fn tune(&self) -> io::Result<()> {
        Ok(())
    }

    fn end_unheard(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) {
        self.lan.0.borrow_mut().through(self.write, Event::Finish(self.write));
    }
}
