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

use crossbeam_utils::CachePadded;
use rustix::event::{EventfdFlags, eventfd};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

struct Shared<T> {
    /// Letters taken since start.
    head: CachePadded<AtomicUsize>,
    /// Letters put since start.
    tail: CachePadded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by the writer only while it holds no letter and by the reader only
// while it holds one; head and tail (acquire and release) hand it over. Letters cross threads.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the letters inside go with it.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, index: usize) -> *mut MaybeUninit<T> {
        self.slots[index & (self.slots.len() - 1)].get()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (*self.head.get_mut(), *self.tail.get_mut());
        let mut index = head;
        while index != tail {
            // SAFETY: both ends are gone; slots from head to tail hold letters nobody took.
            unsafe { (*self.slot(index)).assume_init_drop() };
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
        (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
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
        unsafe { (*self.shared.slot(self.tail)).write(letter) };
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
        let letter = unsafe { (*self.shared.slot(self.head)).assume_init_read() };
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Release);
        Some(letter)
    }
}

struct Bell {
    mail: CachePadded<AtomicBool>,
    asleep: CachePadded<AtomicBool>,
    eventfd: OwnedFd,
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
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
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
        // It can only fail when the counter is full, and then the fd is readable anyway.
        let _ = rustix::io::write(&bell.eventfd, &1u64.to_ne_bytes());
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
        // Nonblocking: "nothing there" is as good as emptied.
        let _ = rustix::io::read(&self.0.eventfd, &mut [0u8; 8]);
    }

    /// The eventfd (nonblocking), for a poll or a reactor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn full_gives_the_letter_back() {
        let (mut sender, mut receiver) = channel(3);
        for letter in 0..4 {
            sender.try_send(letter).unwrap();
        }
        assert_eq!(sender.try_send(4), Err(4));
        assert_eq!(receiver.try_recv(), Some(0));
        sender.try_send(4).unwrap();
        assert_eq!((1..=4).map(|_| receiver.try_recv().unwrap()).sum::<i32>(), 10);
        assert_eq!(receiver.try_recv(), None);
    }

    /// Every letter is dropped exactly once: those taken, and those left when both ends go.
    #[test]
    fn letters_are_dropped_once() {
        let counter = Arc::new(());
        let (mut sender, mut receiver) = channel(8);
        for _ in 0..13 {
            sender.try_send(Arc::clone(&counter)).unwrap();
            drop(receiver.try_recv());
        }
        for _ in 0..5 {
            sender.try_send(Arc::clone(&counter)).unwrap();
        }
        assert_eq!(Arc::strong_count(&counter), 6);
        drop(sender);
        assert_eq!(Arc::strong_count(&counter), 6);
        drop(receiver);
        assert_eq!(Arc::strong_count(&counter), 1);
    }

    /// Two threads, a small box, the reader blocking on the eventfd: order kept, no lost wake-up.
    #[test]
    fn two_threads_lose_nothing() {
        let count = if cfg!(miri) { 200u64 } else { 300_000 };
        let waker = Waker::new().unwrap();
        let (mut sender, mut receiver) = channel(64);
        let bell = waker.clone();
        let writer = std::thread::spawn(move || {
            for letter in 0..count {
                let mut letter = Box::new(letter);
                while let Err(back) = sender.try_send(letter) {
                    letter = back;
                    std::thread::yield_now();
                }
                bell.wake();
            }
        });
        let mut expected = 0;
        while expected < count {
            waker.take();
            while let Some(letter) = receiver.try_recv() {
                assert_eq!(*letter, expected);
                expected += 1;
            }
            if expected < count && waker.prepare_sleep() {
                let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
                let mut fds = [PollFd::new(&waker, PollFlags::IN)];
                assert_eq!(poll(&mut fds, Some(&timeout)).unwrap(), 1, "lost wake-up");
                waker.awake();
                waker.drain();
            }
        }
        writer.join().unwrap();
    }
}
