//! The network and the clock below the connections to the peers.
//!
//! Invariant: nothing else here reaches a socket or a clock. Whoever stands in for it decides
//! what happens and when, and equal decisions make equal runs. In production it is
//! [`super::Tcp`].

use chainring_net::hello::Purpose;
use futures_lite::future::or;
use std::future::Future;
use std::io;
use std::time::Duration;

/// A node's sockets and clock. Every future may be dropped at any time; what it waits for then
/// does not happen, or goes to whoever asks next.
pub trait Net: 'static {
    /// A connection on the control thread; dropped, it is closed.
    type Stream: Stream;
    /// A connection as the shard takes it over.
    type Handle;

    /// Connects to a peer's address, "HOST:PORT" as configured.
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>>;

    /// The next connection that a peer opened.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Gives a connection up to the shard; bytes that were not read stay in it.
    ///
    /// # Errors
    /// The connection failed.
    fn release(&self, stream: Self::Stream) -> io::Result<Self::Handle>;

    /// Time since some start; never goes back.
    fn now(&self) -> Duration;

    /// Waits that long.
    fn pause(&self, time: Duration) -> impl Future<Output = ()>;

    /// How long ago that was.
    fn since(&self, then: Duration) -> Duration {
        self.now().saturating_sub(then)
    }

    /// The outcome of `work`, or `None` if it takes longer than `limit`.
    fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = Option<T>> {
        or(async { Some(work.await) }, async move {
            self.pause(limit).await;
            None
        })
    }
}

/// Both directions of a connection. One task may read while another one writes.
pub trait Stream: 'static {
    /// Reads what is there, at least one byte; 0 once the other side has finished.
    fn read(&self, bytes: &mut [u8]) -> impl Future<Output = io::Result<usize>>;

    /// Writes as much as there is room for, at least one byte.
    fn write(&self, bytes: &[u8]) -> impl Future<Output = io::Result<usize>>;

    /// Sets the options that connections of peers want.
    ///
    /// # Errors
    /// The connection is gone.
    fn tune(&self) -> io::Result<()>;

    /// Ends soon once the other side acknowledges nothing: for connections whose reader never
    /// stops for want of room.
    ///
    /// # Errors
    /// The connection is gone.
    fn end_unheard(&self) -> io::Result<()>;

    /// The options for what the connection is for.
    ///
    /// # Errors
    /// The connection is gone.
    fn tune_for(&self, purpose: Purpose) -> io::Result<()> {
        if purpose == Purpose::Data { Ok(()) } else { self.end_unheard() }
    }

    /// Nothing more is written: the other side reads to the end.
    fn finish(&self);
}
