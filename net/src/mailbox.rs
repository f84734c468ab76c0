//! Bounded mailboxes between the shard thread and the control thread, and the waker beside them.
//!
//! Invariants: one writer and one reader for each mailbox (neither end is `Clone`); no lock, and no
//! allocation after [`channel`]. Slots from `head` to `tail` hold a letter, all others none; only
//! the reader moves `head`, only the writer moves `tail`. A letter is published by the release
//! store of `tail` and given back by the release store of `head`.
//!
//! The waker is Dekker's handshake: the sender says "mail", then looks whether the sleeper sleeps;
//! the sleeper says "asleep", then looks for mail. Both orders are sequentially consistent, so at
//! least one of them sees the other, and the eventfd is written only when somebody may block.
#![allow(unsafe_code)]

use crate::sync::{Arc, AtomicBool, AtomicUsize, EventFd, Slot};
use crossbeam_utils::CachePadded;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

struct Shared<T> {
    /// Letters taken since start.
    head: CachePadded<AtomicUsize>,
    /// Letters put since start.
    tail: CachePadded<AtomicUsize>,
    slots: Box<[Slot<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by the writer only while it holds no letter and by the reader only
// while it holds one; head and tail (acquire and release) hand it over. Letters cross threads.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the letters inside go with it.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, index: usize) -> &Slot<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        let mut index = head;
        while index != tail {
            // SAFETY: both ends are gone; slots from head to tail hold letters nobody took.
            self.slot(index).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            index = index.wrapping_add(1);
        }
    }
}

/// Writing end of a mailbox.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// The head as last seen; read again only when the box looks full.
    head_seen: usize,
}

/// Reading end of a mailbox.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The tail as last seen; read again only when the box looks empty.
    tail_seen: usize,
}

/// A mailbox of one writer and one reader that holds at least `capacity` letters: rounded up to a
/// power of two.
///
/// # Panics
/// If `capacity` is 0.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0);
    let slots =
        (0..capacity.next_power_of_two()).map(|_| Slot::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        slots,
    });
    let sender = Sender { shared: Arc::clone(&shared), tail: 0, head_seen: 0 };
    (sender, Receiver { shared, head: 0, tail_seen: 0 })
}

impl<T> Sender<T> {
    /// Puts a letter in, or gives it back when the box is full. Call [`Waker::wake`] afterwards.
    ///
    /// # Errors
    /// The letter, when there is no room.
    pub fn try_send(&mut self, letter: T) -> Result<(), T> {
        let capacity = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) == capacity {
            self.head_seen = self.shared.head.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == capacity {
                return Err(letter);
            }
        }
        // SAFETY: the slot at tail holds no letter (fewer than `capacity` are in), and the reader
        // does not touch it before the store below.
        self.shared.slot(self.tail).with_mut(|slot| unsafe { (*slot).write(letter) });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Room for so many letters at least.
    pub fn room(&mut self) -> usize {
        self.head_seen = self.shared.head.load(Ordering::Acquire);
        self.shared.slots.len() - self.tail.wrapping_sub(self.head_seen)
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest letter, if there is one.
    pub fn try_recv(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        // SAFETY: head < tail, so the slot holds a letter, published by the release store of tail;
        // the writer does not touch it before the store below.
        let slot = self.shared.slot(self.head);
        let letter = slot.with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Release);
        Some(letter)
    }
}

struct Bell {
    mail: CachePadded<AtomicBool>,
    asleep: CachePadded<AtomicBool>,
    eventfd: EventFd,
}

/// Wakes one thread that blocks on an eventfd; two atomics while it is awake. Clone freely.
///
/// The sleeper: `take` and read the mailboxes; then, to block, `prepare_sleep`, wait for the
/// eventfd to be readable, `awake`, `drain`. [`crate::wire::Wire`] does all that by itself.
#[derive(Clone)]
pub struct Waker(Arc<Bell>);

impl Waker {
    /// A waker of a thread that is awake.
    ///
    /// # Errors
    /// The kernel's, if there is no eventfd to be had.
    pub fn new() -> std::io::Result<Waker> {
        let eventfd = EventFd::new()?;
        let no = || CachePadded::new(AtomicBool::new(false));
        Ok(Waker(Arc::new(Bell { mail: no(), asleep: no(), eventfd })))
    }

    /// Any thread: there is mail.
    pub fn wake(&self) {
        let bell = &*self.0;
        // Whoever set the mark before us also looks after the sleeper.
        if bell.mail.swap(true, Ordering::SeqCst) || !bell.asleep.load(Ordering::SeqCst) {
            return;
        }
        bell.eventfd.write();
    }

    /// Sleeper: takes the mark "there is mail"; read the mailboxes after, not before.
    pub fn take(&self) -> bool {
        self.0.mail.load(Ordering::Relaxed) && self.0.mail.swap(false, Ordering::SeqCst)
    }

    /// Sleeper: true if it may block on the eventfd now; false if there is mail already.
    pub fn prepare_sleep(&self) -> bool {
        self.0.asleep.store(true, Ordering::SeqCst);
        if self.0.mail.load(Ordering::SeqCst) {
            self.awake();
            return false;
        }
        true
    }

    /// Sleeper: awake again, nobody needs to write the eventfd.
    pub fn awake(&self) {
        self.0.asleep.store(false, Ordering::SeqCst);
    }

    /// Sleeper: empties the eventfd after it was readable.
    pub fn drain(&self) {
        self.0.eventfd.drain();
    }

    /// The eventfd (nonblocking), for a poll or a reactor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }

    /// Blocks until the eventfd is readable: what a model has instead of a poll.
    #[cfg(any(loom, shuttle))]
    pub fn wait(&self) {
        self.0.eventfd.wait();
    }

    /// Whether the eventfd is readable.
    #[cfg(any(loom, shuttle))]
    pub fn readable(&self) -> bool {
        self.0.eventfd.readable()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
