//! The same names over a scheduler that tries interleavings.
//!
//! Invariants: the eventfd is a counter under a lock, as the kernel's is; who waits for it waits
//! without a limit, so that a wake-up that is lost is a deadlock, which the scheduler reports.

#[cfg(loom)]
use loom::sync::{Condvar, Mutex};
#[cfg(shuttle)]
use shuttle::sync::{Condvar, Mutex};
use std::io::Result;
use std::os::fd::{AsFd, BorrowedFd};

#[cfg(loom)]
pub use loom::{cell::UnsafeCell as Slot, sync::Arc, sync::atomic::AtomicUsize};
#[cfg(loom)]
pub use ordered::AtomicBool;
#[cfg(shuttle)]
pub use shuttle::sync::{Arc, atomic::AtomicBool, atomic::AtomicUsize};
#[cfg(shuttle)]
pub use unwatched::Slot;

/// A counter that a sleeper can wait for.
pub struct EventFd {
    count: Mutex<u64>,
    written: Condvar,
}

impl EventFd {
    pub fn new() -> Result<EventFd> {
        Ok(EventFd { count: Mutex::new(0), written: Condvar::new() })
    }

    pub fn write(&self) {
        *self.count.lock().expect("nobody panics with it") += 1;
        self.written.notify_all();
    }

    pub fn drain(&self) {
        *self.count.lock().expect("nobody panics with it") = 0;
    }

    /// Whether a poll would say so.
    pub fn readable(&self) -> bool {
        *self.count.lock().expect("nobody panics with it") > 0
    }

    /// Blocks until it is readable.
    pub fn wait(&self) {
        let mut count = self.count.lock().expect("nobody panics with it");
        while *count == 0 {
            count = self.written.wait(count).expect("nobody panics with it");
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        panic!("a model has no descriptor")
    }
}

/// Sequentially consistent accesses for loom, which takes them for acquire and release: its
/// fences alone have a total order. Between a store and a load of one thread that both are
/// sequentially consistent there is a fence here. That is the whole of what the waker needs of
/// them, and no more than the language gives; with either of the two weaker there is none.
#[cfg(loom)]
mod ordered {
    use loom::sync::atomic::{Ordering, fence};
    use std::cell::Cell;

    loom::thread_local! {
        /// The last store of this thread was sequentially consistent.
        static STORED: Cell<bool> = Cell::new(false);
    }

    pub struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub fn new(value: bool) -> AtomicBool {
            AtomicBool(loom::sync::atomic::AtomicBool::new(value))
        }

        pub fn load(&self, order: Ordering) -> bool {
            if order == Ordering::SeqCst && STORED.with(Cell::get) {
                fence(Ordering::SeqCst);
            }
            self.0.load(order)
        }

        pub fn store(&self, value: bool, order: Ordering) {
            self.0.store(value, order);
            STORED.with(|stored| stored.set(order == Ordering::SeqCst));
        }

        pub fn swap(&self, value: bool, order: Ordering) -> bool {
            let before = self.0.swap(value, order);
            STORED.with(|stored| stored.set(order == Ordering::SeqCst));
            before
        }
    }
}

/// Shuttle has no cells that see races: it gives another thread a turn only where one of its own
/// types is used, and memory is never weak.
#[cfg(shuttle)]
mod unwatched {
    use std::cell::UnsafeCell;

    pub struct Slot<T>(UnsafeCell<T>);

    impl<T> Slot<T> {
        pub fn new(value: T) -> Slot<T> {
            Slot(UnsafeCell::new(value))
        }

        pub fn with_mut<R>(&self, work: impl FnOnce(*mut T) -> R) -> R {
            work(self.0.get())
        }
    }
}
