//! Mailboxes and waker under loom: every interleaving, and every answer that weak memory may give.
//!
//! Threads are few and letters fewer, so that the executions can be counted out. Where they are
//! too many for every day, threads are interrupted three times at most, unless
//! `LOOM_MAX_PREEMPTIONS` says otherwise. A lost wake-up is a deadlock, a letter that is touched
//! too early a race, and loom fails for both by itself.

use super::*;
use crate::event::{Wait, WireOptions};
use crate::kernel::{Kernel, Token};
use crate::pool::{Arena, ArenaPlan, PAGE_BYTES, Range};
use crate::uring::UringOptions;
use crate::wire::{Event, FORWARDS_MAX, Wire};
use chainring_ring::ids::{ClusterId, Epoch};
use loom::model::Builder;
use loom::thread;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Interruptions that are tried every day; of the larger models.
const OFTEN: Option<usize> = Some(3);

/// Tries all executions of `run` in which threads are interrupted `often` times at most, and says
/// how many there were.
fn explore(name: &str, often: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    // Not loom's: it counts over executions.
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&count);
    let mut builder = Builder::new();
    let bound = often.map(|often| builder.preemption_bound.unwrap_or(often));
    builder.preemption_bound = bound;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    let count = count.load(Ordering::Relaxed);
    println!("{name}: {count} executions, preemptions {bound:?}");
}

/// Letters pass whole and in order through a box that gets full and wraps.
#[test]
fn letters_arrive_whole_and_in_order() {
    explore("letters", None, || {
        let (mut sender, mut receiver) = channel(2);
        let writer = thread::spawn(move || {
            let sent = (0..4u32).take_while(|letter| sender.try_send(Box::new(*letter)).is_ok());
            sent.count()
        });
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.extend(receiver.try_recv());
        }
        let sent = writer.join().unwrap();
        taken.extend(std::iter::from_fn(|| receiver.try_recv()));
        let taken: Vec<u32> = taken.into_iter().map(|letter| *letter).collect();
        assert_eq!(taken, (0..sent as u32).collect::<Vec<_>>());
        assert!(sent >= 2, "there is room for two");
    });
}

/// The room that is told is there, whatever the reader does meanwhile.
#[test]
fn room_that_is_told_is_there() {
    explore("room", None, || {
        let (mut sender, mut receiver) = channel(2);
        let writer = thread::spawn(move || {
            let mut sent = 0;
            for _ in 0..2 {
                for _ in 0..sender.room() {
                    assert!(sender.try_send(Box::new(1u32)).is_ok());
                    sent += 1;
                }
            }
            sent
        });
        let early = receiver.try_recv().map_or(0, |letter| *letter);
        let sent: u32 = writer.join().unwrap();
        let late: u32 = std::iter::from_fn(|| receiver.try_recv()).map(|letter| *letter).sum();
        assert_eq!(early + late, sent);
    });
}

/// Whichever end goes first, each letter is dropped once: taken, left behind or given back.
#[test]
fn letters_are_dropped_once_whoever_goes_first() {
    explore("drops", None, || {
        // Not loom's: only counted, at the end.
        let count = std::sync::Arc::new(());
        let (mut sender, mut receiver) = channel(2);
        let letter = || Box::new(std::sync::Arc::clone(&count));
        let letters = [letter(), letter(), letter()];
        let writer = thread::spawn(move || {
            letters.into_iter().for_each(|letter| drop(sender.try_send(letter)));
        });
        drop(receiver.try_recv());
        drop(receiver);
        writer.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&count), 1);
    });
}

/// Reads `count` letters as the control thread does, blocking whenever there is none.
fn pump(waker: &Waker, boxes: &mut [Receiver<u32>], count: usize) {
    let mut taken = 0;
    while taken < count {
        waker.take();
        let before = taken;
        for receiver in boxes.iter_mut() {
            taken += std::iter::from_fn(|| receiver.try_recv()).count();
        }
        if taken == before && waker.prepare_sleep() {
            waker.wait();
            waker.awake();
            waker.drain();
        }
    }
}

fn one_sender(name: &str, often: Option<usize>, letters: u32) {
    explore(name, often, move || {
        let waker = Waker::new().unwrap();
        let (mut sender, receiver) = channel(2);
        let bell = waker.clone();
        let writer = thread::spawn(move || {
            for letter in 0..letters {
                assert!(sender.try_send(letter).is_ok());
                bell.wake();
            }
        });
        pump(&waker, &mut [receiver], letters as usize);
        writer.join().unwrap();
    });
}

/// Nobody sleeps while there is mail.
#[test]
fn nobody_sleeps_through_mail() {
    one_sender("one letter", None, 1);
    one_sender("two letters", OFTEN, 2);
}

/// Two senders: the one who finds the mark set relies on the other.
#[test]
fn one_wakes_for_both() {
    explore("two senders", OFTEN, || {
        let waker = Waker::new().unwrap();
        let mut boxes = Vec::new();
        for letter in 0..2 {
            let (mut sender, receiver) = channel(1);
            let bell = waker.clone();
            boxes.push(receiver);
            thread::spawn(move || {
                assert!(sender.try_send(letter).is_ok());
                bell.wake();
            });
        }
        pump(&waker, &mut boxes, 2);
    });
}

/// A kernel that can do nothing but be woken.
struct OnlyWaker {
    arena: Option<Arena>,
    start: Instant,
    poll: Option<(Waker, Token)>,
}

impl Kernel for OnlyWaker {
    type Handle = ();

    fn arena(&self) -> &Arena {
        self.arena.as_ref().unwrap()
    }
    fn arena_mut(&mut self) -> &mut Arena {
        self.arena.as_mut().unwrap()
    }
    /// Time stands still: no limit ever ends a wait.
    fn now(&self) -> Instant {
        self.start
    }
    fn submit(&mut self) {}
    fn submit_and_wait(&mut self, _: Duration) {
        self.poll.as_ref().expect("a wait without a poll of the waker").0.wait();
    }
    fn ready(&mut self) -> bool {
        self.poll.as_ref().is_some_and(|(waker, _)| waker.readable())
    }
    fn next_completion(&mut self) -> Option<(Token, i32)> {
        let (_, token) = self.poll.take_if(|(waker, _)| waker.readable())?;
        Some((token, 1))
    }
    fn enters(&self) -> (u64, u64) {
        (0, 0)
    }
    fn recv(&mut self, (): &(), _: Range, _: Token) {}
    fn send(&mut self, (): &(), _: impl Iterator<Item = Range>, _: Token) {}
    fn write(&mut self, (): &(), _: &[Range], _: u64, _: bool, _: Token) {}
    fn hang_up(&mut self, (): &(), _: Token) {}
    fn woken(&mut self, waker: &Waker, token: Token) {
        assert!(self.poll.is_none(), "one poll at a time");
        self.poll = Some((waker.clone(), token));
    }
    fn shutdown(&mut self, (): &()) {}
}

std::thread_local! {
    /// Nobody looks into it here: mapping one for each execution is most of its time.
    static ARENA: Cell<Option<Arena>> = const { Cell::new(None) };
}

impl Drop for OnlyWaker {
    fn drop(&mut self) {
        ARENA.set(self.arena.take());
    }
}

fn wire(waker: &Waker) -> Wire<OnlyWaker> {
    let plan = ArenaPlan {
        receive: PAGE_BYTES,
        own: 0,
        side: 0,
        blocks: 0,
        control_in: PAGE_BYTES,
        control_out: PAGE_BYTES,
    };
    let arena = ARENA.take().unwrap_or_else(|| Arena::new(&plan).unwrap());
    let kernel = OnlyWaker { arena: Some(arena), start: Instant::now(), poll: None };
    let options = WireOptions {
        cluster: ClusterId(1),
        epoch: Epoch(1),
        block: 512,
        packet_max: 1024,
        control_max: PAGE_BYTES,
        forwards: FORWARDS_MAX,
        spin: Duration::ZERO,
        uring: UringOptions { fixed: false },
    };
    Wire::over(options, kernel, waker.clone())
}

fn one_wire(name: &str, often: Option<usize>, letters: u32) {
    explore(name, often, move || {
        let waker = Waker::new().unwrap();
        let (mut sender, mut receiver) = channel(2);
        let bell = waker.clone();
        let writer = thread::spawn(move || {
            for letter in 0..letters {
                assert!(sender.try_send(letter).is_ok());
                bell.wake();
            }
        });
        let mut wire = wire(&waker);
        let mut taken = 0;
        while taken < letters as usize {
            // As the shard's turn: the event first, then whatever lies in the box.
            while let Some(event) = wire.next_event() {
                assert!(matches!(event, Event::Woken));
            }
            let before = taken;
            taken += std::iter::from_fn(|| receiver.try_recv()).count();
            let busy = taken > before;
            wire.poll(if busy { Wait::No } else { Wait::UpTo(Duration::from_millis(10)) });
        }
        writer.join().unwrap();
    });
}

/// The shard's side, the real one: its poll is armed before it sleeps and stays armed over turns.
#[test]
fn a_wire_does_not_sleep_through_mail() {
    one_wire("wire, one letter", None, 1);
    one_wire("wire, two letters", OFTEN, 2);
}
