//! A kernel without a machine: a disk in memory, a clock of its own, and the waker to sleep on.

use super::Still;
use crate::config::Config;
use crate::sim::disk::{Completion, DiskHandle, Target, WriteId};
use chainring_net::kernel::{Kernel, Token};
use chainring_net::mailbox::Waker;
use chainring_net::pool::{Arena, Range};
use chainring_net::uring::UringOptions;
use chainring_net::wire::{FORWARDS_MAX, Wire, WireOptions};
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The shortest wait that mail can end; shorter ones are for the log and a full mailbox.
const MAIL: Duration = Duration::from_micros(1_001);

/// Microseconds of the shard's clock.
#[derive(Clone, Default)]
pub struct Time(Rc<Cell<u64>>);

impl Time {
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

pub struct Desk {
    arena: Option<Arena>,
    disk: DiskHandle,
    still: Still,
    start: Instant,
    time: Time,
    /// Writes under way.
    writes: VecDeque<(WriteId, Token)>,
    done: VecDeque<(Token, i32)>,
    poll: Option<(Waker, Token)>,
}

std::thread_local! {
    /// Nobody looks into an old one's bytes; mapping one a schedule is most of its time.
    static ARENA: Cell<Option<Arena>> = const { Cell::new(None) };
}

impl Drop for Desk {
    fn drop(&mut self) {
        ARENA.set(self.arena.take());
    }
}

impl Desk {
    pub fn time(&self) -> Time {
        self.time.clone()
    }

    fn complete(&mut self) {
        while let Some((id, token)) = self.writes.pop_front() {
            self.done.push_back((token, self.disk.complete_write(id, Completion::Done)));
        }
    }
}

pub fn wire(config: &Config, disk: DiskHandle, still: Still, own: Waker) -> Wire<Desk> {
    const CONTROL: u32 = 1 << 16;
    let plan = || crate::node::arena_plan(config, &[], CONTROL);
    let arena = ARENA.take().filter(|arena| arena.total() as u64 == plan().total());
    let arena = arena.unwrap_or_else(|| Arena::new(&plan()).expect("memory for a small node"));
    let desk = Desk {
        arena: Some(arena),
        disk,
        still,
        start: Instant::now(),
        time: Time::default(),
        writes: VecDeque::new(),
        done: VecDeque::new(),
        poll: None,
    };
    let options = WireOptions {
        cluster: config.cluster.id,
        epoch: config.cluster.epoch,
        block: config.cluster.block,
        packet_max: config.packet_max(),
        control_max: crate::shard::links::CONTROL_MAX,
        forwards: FORWARDS_MAX,
        spin: Duration::ZERO,
        uring: UringOptions { fixed: false },
    };
    Wire::over(options, desk, own)
}

impl Kernel for Desk {
    type Handle = Target;

    fn arena(&self) -> &Arena {
        self.arena.as_ref().expect("given back at the end")
    }
    fn arena_mut(&mut self) -> &mut Arena {
        self.arena.as_mut().expect("given back at the end")
    }
    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.time.get())
    }
    fn submit(&mut self) {
        self.time.0.set(self.time.get() + 1);
        if !self.writes.is_empty()
            && shuttle::rand::Rng::gen_bool(&mut shuttle::rand::thread_rng(), 0.5)
        {
            self.complete();
        }
    }
    fn submit_and_wait(&mut self, timeout: Duration) {
        if !self.writes.is_empty() {
            return self.complete();
        }
        if self.still.get() && timeout >= MAIL {
            return self.poll.as_ref().expect("a wait without a poll of the waker").0.wait();
        }
        shuttle::thread::yield_now();
        self.time.0.set(self.time.get() + timeout.as_micros() as u64);
    }
    fn ready(&mut self) -> bool {
        !self.done.is_empty() || self.poll.as_ref().is_some_and(|(waker, _)| waker.readable())
    }
    fn next_completion(&mut self) -> Option<(Token, i32)> {
        let woken = self.poll.take_if(|(waker, _)| waker.readable());
        woken.map(|(_, token)| (token, 1)).or_else(|| self.done.pop_front())
    }
    fn enters(&self) -> (u64, u64) {
        (0, 0)
    }
    fn recv(&mut self, _: &Target, _: Range, _: Token) {}
    fn send(&mut self, _: &Target, _: impl Iterator<Item = Range>, _: Token) {}
    fn write(&mut self, file: &Target, from: &[Range], at: u64, durable: bool, token: Token) {
        let mut bytes = Vec::new();
        from.iter().for_each(|range| bytes.extend_from_slice(self.arena().bytes(*range)));
        self.writes.push_back((self.disk.submit_write(*file, at, bytes, durable), token));
    }
    fn hang_up(&mut self, _: &Target, _: Token) {}
    fn woken(&mut self, waker: &Waker, token: Token) {
        assert!(self.poll.is_none(), "one poll at a time");
        self.poll = Some((waker.clone(), token));
    }
    fn shutdown(&mut self, _: &Target) {}
}
