//! Waiting on the control thread: a slot for one answer, and a signal that something changed.
//!
//! Invariants: single-threaded (`Rc`, never `Arc`); a waker is kept only while its task waits, so
//! nothing grows with the number of answers.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// One answer that one task waits for.
pub struct Slot<T>(Rc<Inner<T>>);

struct Inner<T> {
    value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Slot(Rc::clone(&self.0))
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot(Rc::new(Inner { value: RefCell::default(), waker: RefCell::default() }))
    }
}

impl<T> Slot<T> {
    /// Puts the answer in and wakes the task.
    pub fn put(&self, value: T) {
        *self.0.value.borrow_mut() = Some(value);
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits for the answer.
    pub fn take(&self) -> impl Future<Output = T> + '_ {
        poll_fn(|context| match self.0.value.borrow_mut().take() {
            Some(value) => Poll::Ready(value),
            None => {
                *self.0.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
    }
}

/// Wakes all tasks that wait for a change.
#[derive(Default)]
pub struct Signal {
    generation: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// The number of changes so far; take it before looking.
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Something changed.
    pub fn notify(&self) {
        self.generation.set(self.generation.get() + 1);
        // Taken out first: a woken task may wait again at once.
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until there were more changes than `seen`.
    pub fn beyond(&self, seen: u64) -> impl Future<Output = ()> + '_ {
        poll_fn(move |context| {
            if self.generation.get() > seen {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    #[test]
    fn an_answer_wakes_its_task() {
        let slot = Slot::default();
        assert!(block_on(poll_once(slot.take())).is_none());
        let other = slot.clone();
        assert_eq!(block_on(zip(slot.take(), async { other.put(5) })).0, 5);
    }

    #[test]
    fn a_change_before_the_wait_is_not_missed() {
        let signal = Signal::default();
        let seen = signal.generation();
        signal.notify();
        block_on(signal.beyond(seen));
        let seen = signal.generation();
        assert!(block_on(poll_once(signal.beyond(seen))).is_none());
        block_on(zip(signal.beyond(seen), async { signal.notify() }));
    }
}
