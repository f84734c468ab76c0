//! What a wire needs of the machine below it: packet memory, and operations that complete later.
//!
//! In production that is the [`Uring`]; a simulator puts its own under the same wire. The choice is
//! made at compile time and costs nothing.
//!
//! Invariants, of every kernel:
//! * A token comes back exactly once, with bytes or a negative error number as the operation's
//!   system call gives them.
//! * Between start and token the kernel alone touches what is received into, and what is sent or
//!   written stays as it is.
//! * After [`Kernel::shutdown`] the operations on that connection come to an end by themselves.
//! * The clock is the kernel's; it is looked at only by who may wait.

use crate::mailbox::Waker;
use crate::pool::{Arena, Range};
use crate::uring::Uring;
use rustix::net::{Shutdown, shutdown};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Names an operation to the one who started it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Which operation.
    pub what: u8,
    /// Of which the owner thinks what he likes.
    pub value: u64,
}

/// Memory, connections and files, and the operations between them.
pub trait Kernel {
    /// An open connection or file; drop closes it.
    type Handle;

    /// The packet memory.
    fn arena(&self) -> &Arena;
    /// The packet memory, to be written.
    fn arena_mut(&mut self) -> &mut Arena;

    /// The time; only differences count.
    fn now(&self) -> Instant;
    /// Hands over what was started, and lets completions arrive.
    fn submit(&mut self);
    /// Hands over what was started and waits until something completes, or for `timeout`.
    fn submit_and_wait(&mut self, timeout: Duration);
    /// Whether a completion lies ready, or would after a [`Kernel::submit`].
    fn ready(&mut self) -> bool;
    /// The next completion that has arrived.
    fn next_completion(&mut self) -> Option<(Token, i32)>;
    /// Calls handed over, and those of them that brought completions.
    fn enters(&self) -> (u64, u64);

    /// Receives what is there, at most `into.bytes`.
    fn recv(&mut self, link: &Self::Handle, into: Range, token: Token);
    /// Sends the ranges one after another; a short result is possible if the link breaks.
    ///
    /// # Panics
    /// If there are none, or more than [`crate::uring::RANGES_MAX`] after merging of neighbours.
    fn send(&mut self, link: &Self::Handle, from: impl Iterator<Item = Range>, token: Token);
    /// Writes the ranges one after another at `offset`; if `durable`, the completion says that
    /// they are on stable media.
    ///
    /// # Panics
    /// As [`Kernel::send`].
    fn write(
        &mut self,
        file: &Self::Handle,
        from: &[Range],
        offset: u64,
        durable: bool,
        token: Token,
    );
    /// Completes once the peer is gone, or the connection shut down.
    fn hang_up(&mut self, link: &Self::Handle, token: Token);
    /// Completes once somebody has woken the sleeper of this waker.
    fn woken(&mut self, waker: &Waker, token: Token);
    /// Ends a connection in both directions, and with it the operations in flight.
    fn shutdown(&mut self, link: &Self::Handle);
}

impl Kernel for Uring {
    type Handle = OwnedFd;

    fn arena(&self) -> &Arena {
        Uring::arena(self)
    }
    fn arena_mut(&mut self) -> &mut Arena {
        Uring::arena_mut(self)
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
    fn submit(&mut self) {
        Uring::submit(self);
    }
    fn submit_and_wait(&mut self, timeout: Duration) {
        Uring::submit_and_wait(self, timeout);
    }
    fn ready(&mut self) -> bool {
        Uring::ready(self)
    }
    fn next_completion(&mut self) -> Option<(Token, i32)> {
        Uring::next_completion(self)
    }
    fn enters(&self) -> (u64, u64) {
        Uring::enters(self)
    }

    fn recv(&mut self, link: &OwnedFd, into: Range, token: Token) {
        Uring::recv(self, link.as_raw_fd(), into, token);
    }
    fn send(&mut self, link: &OwnedFd, from: impl Iterator<Item = Range>, token: Token) {
        Uring::send(self, link.as_raw_fd(), from, token);
    }
    fn write(&mut self, file: &OwnedFd, from: &[Range], offset: u64, durable: bool, token: Token) {
        Uring::write(self, file.as_raw_fd(), from.iter().copied(), offset, durable, token);
    }
    fn hang_up(&mut self, link: &OwnedFd, token: Token) {
        Uring::poll(self, link.as_raw_fd(), libc::POLLRDHUP, token);
    }
    fn woken(&mut self, waker: &Waker, token: Token) {
        Uring::poll(self, waker.fd().as_raw_fd(), libc::POLLIN, token);
    }
    fn shutdown(&mut self, link: &OwnedFd) {
        // It fails only if the peer was faster; that ends the operations too.
        let _ = shutdown(link, Shutdown::Both);
    }
}
