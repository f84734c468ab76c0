//! Mailboxes between real threads, and what becomes of letters.

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
