//! The production network: TCP, and the timers of the control thread's reactor.
//!
//! Invariant: a connection leaves in the mode that the uring wants, blocking: the kernel answers
//! EAGAIN to an operation on a socket that never blocks.

use crate::peers::PeersError;
use crate::peers::net::{Net, Stream};
use async_io::{Async, Timer};
use chainring_net::socket::{end_unheard, tune};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The sockets of this machine and its clock.
#[derive(Debug)]
pub struct Tcp {
    listener: Option<Async<TcpListener>>,
    start: Instant,
}

/// Listens on a node's peer address ("HOST:PORT").
///
/// # Errors
/// [`PeersError::Listen`].
pub fn listen(address: &str) -> Result<TcpListener, PeersError> {
    TcpListener::bind(address)
        .map_err(|source| PeersError::Listen { address: address.to_owned(), source })
}

impl Tcp {
    /// Peers connect to `listener`; a ring of one needs none.
    ///
    /// # Errors
    /// [`PeersError::Listen`].
    pub fn new(listener: Option<TcpListener>) -> Result<Tcp, PeersError> {
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let listener = listener.map(Async::new).transpose().map_err(|source| {
            let address = address.map_or_else(String::new, |address| address.to_string());
            PeersError::Listen { address, source }
        })?;
        Ok(Tcp { listener, start: Instant::now() })
    }
}

impl Net for Tcp {
    type Stream = Async<TcpStream>;
    type Handle = OwnedFd;

    async fn connect(&self, address: &str) -> io::Result<Async<TcpStream>> {
        Async::<TcpStream>::connect(resolve(address)?).await
    }

    async fn accept(&self) -> io::Result<Async<TcpStream>> {
        match &self.listener {
            Some(listener) => Ok(listener.accept().await?.0),
            None => std::future::pending().await,
        }
    }

    fn release(&self, stream: Async<TcpStream>) -> io::Result<OwnedFd> {
        let stream = stream.into_inner()?;
        stream.set_nonblocking(false)?;
        Ok(stream.into())
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn pause(&self, time: Duration) {
        Timer::after(time).await;
    }
}

impl Stream for Async<TcpStream> {
    async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        AsyncReadExt::read(&mut &*self, bytes).await
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        AsyncWriteExt::write(&mut &*self, bytes).await
    }

    fn tune(&self) -> io::Result<()> {
        tune(self.get_ref(), None).map(|_| ())
    }

    fn end_unheard(&self) -> io::Result<()> {
        end_unheard(self.get_ref())
    }

    fn finish(&self) {
        // If that fails the connection is gone, and the other side sees it.
        let _ = self.get_ref().shutdown(Shutdown::Write);
    }
}

/// The address of a peer. A name, unlike a number, is looked up by the system's resolver, which
/// may hold up the control thread for as long as it takes.
fn resolve(address: &str) -> io::Result<SocketAddr> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(none)
}
