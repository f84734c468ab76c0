//! What two threads touch at once, for the mailboxes: of std, or of a model.
//!
//! A model runs the same code under a scheduler of its own. With `--cfg loom` every interleaving
//! and every answer of weak memory is tried; with `--cfg shuttle` interleavings at random, of code
//! too large for the first. Invariants: in an ordinary build each name here is std's or a wrapper
//! that costs nothing, and no crate of a model is built; nobody else knows which one it is.

#[cfg(any(loom, shuttle))]
mod model;

#[cfg(any(loom, shuttle))]
pub(crate) use model::{Arc, AtomicBool, AtomicUsize, EventFd, Slot};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use real::{EventFd, Slot};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{Arc, atomic::AtomicBool, atomic::AtomicUsize};

#[cfg(not(any(loom, shuttle)))]
mod real {
    use rustix::event::{EventfdFlags, eventfd};
    use std::cell::UnsafeCell;
    use std::io::Result;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    /// A place that two threads use in turns.
    pub struct Slot<T>(UnsafeCell<T>);

    impl<T> Slot<T> {
        pub fn new(value: T) -> Slot<T> {
            Slot(UnsafeCell::new(value))
        }

        /// Lends the place. Whoever follows the pointer says why nobody else does.
        #[inline(always)]
        pub fn with_mut<R>(&self, work: impl FnOnce(*mut T) -> R) -> R {
            work(self.0.get())
        }
    }

    /// A counter of the kernel that a sleeper can wait for.
    pub struct EventFd(OwnedFd);

    impl EventFd {
        pub fn new() -> Result<EventFd> {
            Ok(EventFd(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
        }

        pub fn write(&self) {
            // It can only fail when the counter is full, and then the fd is readable anyway.
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }

        pub fn drain(&self) {
            // Nonblocking: "nothing there" is as good as emptied.
            let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
        }
    }

    impl AsFd for EventFd {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}
