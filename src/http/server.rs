//! The listener and its connections.
//!
//! Invariants: at most `http_connections` connections, each with one buffer of at most one head
//! and one read; every wait has an end; a handler sees whole requests only; answers leave in the
//! order of the requests.

use super::head::{self, Head};
use super::{Budget, HttpCounters, Request, Response, count, decode_percent};
use crate::config::Limits;
use async_executor::LocalExecutor;
use async_io::{Async, Timer};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt};
use std::future::Future;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Bytes of one read.
const READ_BYTES: usize = 16 << 10;
/// Bytes of one write; each may take one pause.
const WRITE_BYTES: usize = 1 << 20;
/// After an answer that closes: what the client still sends is read so long, lest the kernel
/// throw away the answer with a reset.
const LINGER: Duration = Duration::from_secs(1);

/// What answers requests.
pub type Handler = Rc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Response>>>>;

/// What all connections share.
pub struct Server {
    /// Limits.
    pub limits: Limits,
    /// Memory for bodies and answers.
    pub budget: Budget,
    /// Figures.
    pub counters: Rc<HttpCounters>,
    /// What answers.
    pub handler: Handler,
}

/// How a request ended without one.
pub(super) enum Fault {
    /// Answer and close; `true` counts it as bad.
    Answer(Box<Response>, bool),
    /// The client closed, or the connection broke.
    Gone,
    /// The client was too slow; `true` if it had begun a request.
    Slow(bool),
}

impl Fault {
    pub(super) fn answer(response: Response) -> Fault {
        Fault::Answer(Box::new(response.closing()), true)
    }
}

/// Accepts connections for ever.
///
/// # Errors
/// The listener's, if it can no longer accept.
pub async fn serve(
    server: Rc<Server>,
    listener: TcpListener,
    executor: Rc<LocalExecutor<'static>>,
) -> std::io::Result<()> {
    let listener = Async::new(listener)?;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of file descriptors, or a connection that was gone at once: the listener
                // itself stays good.
                Timer::after(Duration::from_millis(10)).await;
                continue;
            }
        };
        let counters = Rc::clone(&server.counters);
        if counters.connections.get() >= u64::from(server.limits.http_connections) {
            count(&counters.refused);
            continue;
        }
        counters.connections.set(counters.connections.get() + 1);
        let server = Rc::clone(&server);
        let task = async move {
            let _ = stream.get_ref().set_nodelay(true);
            if let Some(stream) = converse(&server, stream).await {
                linger(stream).await;
            }
            counters.connections.set(counters.connections.get() - 1);
        };
        executor.spawn(task).detach();
    }
}

/// Answers the requests of one client until the connection is to end; gives the stream back if
/// the client may still be sending.
pub async fn converse<S: AsyncRead + AsyncWrite + Unpin>(server: &Server, stream: S) -> Option<S> {
    Connection::new(stream, server).run(server).await
}

/// One connection.
pub(super) struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
    start: usize,
    pub(super) limits: Limits,
    pub(super) body_began: Option<Instant>,
    pub(super) body_bytes: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(stream: S, server: &Server) -> Connection<S> {
        let limits = server.limits.clone();
        let buffer = Vec::new();
        Connection { stream, buffer, start: 0, limits, body_began: None, body_bytes: 0 }
    }

    /// Bytes read and not used.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Uses bytes up.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Reads more, within the pause that a client may make.
    pub(super) async fn fill(&mut self) -> Result<(), Fault> {
        let pause = Duration::from_millis(self.limits.http_header_ms.into());
        let patience = self.body_patience(pause);
        self.fill_within(patience, true).await
    }

    async fn fill_within(&mut self, patience: Duration, begun: bool) -> Result<(), Fault> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let used = self.buffer.len();
        self.buffer.resize(used + READ_BYTES, 0);
        let read =
            async { self.stream.read(&mut self.buffer[used..]).await.map_err(|_| Fault::Gone) };
        let slow = async {
            Timer::after(patience).await;
            Err(Fault::Slow(begun))
        };
        let result = read.or(slow).await;
        let read = *result.as_ref().unwrap_or(&0);
        self.buffer.truncate(used + read);
        self.body_bytes += read as u64;
        match result {
            Ok(0) => Err(Fault::Gone),
            Ok(_) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Reads a part of a body past the buffer, which must be empty.
    pub(super) async fn read_direct(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        let pause = Duration::from_millis(self.limits.http_header_ms.into());
        let patience = self.body_patience(pause);
        let read = async { self.stream.read(out).await.map_err(|_| Fault::Gone) };
        let slow = async {
            Timer::after(patience).await;
            Err(Fault::Slow(true))
        };
        let read = read.or(slow).await?;
        self.body_bytes += read as u64;
        if read == 0 { Err(Fault::Gone) } else { Ok(read) }
    }

    async fn run(mut self, server: &Server) -> Option<S> {
        loop {
            let fault = match self.exchange(server).await {
                Ok(true) => continue,
                Ok(false) => return Some(self.stream),
                Err(fault) => fault,
            };
            match fault {
                Fault::Gone => return None,
                Fault::Slow(begun) => {
                    if begun {
                        count(&server.counters.timeouts);
                        let message = "the request did not come in time";
                        let response = Response::error(408, "timeout", message).closing();
                        let _ = self.write(&response, true, false).await;
                    }
                    return None;
                }
                Fault::Answer(response, bad) => {
                    if bad {
                        count(&server.counters.bad);
                    }
                    let _ = self.write(&response, true, false).await;
                    return Some(self.stream);
                }
            }
        }
    }

    /// One request and its answer; `true` if the connection goes on.
    async fn exchange(&mut self, server: &Server) -> Result<bool, Fault> {
        let head = self.read_head().await?;
        let (target, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let Some(path) = decode_percent(target) else {
            return Err(Fault::answer(Response::error(
                400,
                "bad_request",
                "bad escape in the path",
            )));
        };
        let mut permit = server.budget.permit();
        let body = match head.framing {
            head::Framing::Length(0) => Vec::new(),
            framing => {
                self.invite(&head, framing, &mut permit).await?;
                self.read_body(framing, &mut permit).await?
            }
        };
        let is_head = head.method == "HEAD";
        let request = Request {
            method: head.method,
            path,
            query: query.to_owned(),
            accept_json: head.accept_json,
            producer: head.producer,
            body,
            permit,
        };
        let response = (server.handler)(request).await;
        count(&server.counters.requests);
        let close = response.close || !head.keep_alive;
        self.write(&response, close, is_head).await?;
        Ok(!close)
    }

    async fn read_head(&mut self) -> Result<Head, Fault> {
        if self.buffered().is_empty() {
            let idle = Duration::from_millis(self.limits.http_idle_ms.into());
            self.fill_within(idle, false).await?;
        }
        let deadline = Instant::now() + Duration::from_millis(self.limits.http_header_ms.into());
        loop {
            let limit = self.limits.http_header_bytes as usize;
            match head::parse(self.buffered()) {
                Err(response) => return Err(Fault::Answer(response, true)),
                Ok(Some(head)) if head.bytes <= limit => {
                    self.consume(head.bytes);
                    return Ok(head);
                }
                Ok(None) if self.buffered().len() <= limit => {}
                Ok(_) => {
                    let message = format!("request line and headers have at most {limit} bytes");
                    return Err(Fault::answer(Response::error(431, "headers_too_large", &message)));
                }
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            self.fill_within(patience, true).await?;
        }
    }

    /// Asks for the body, if the client waits to be asked; a length is paid for first.
    async fn invite(
        &mut self,
        head: &Head,
        framing: head::Framing,
        permit: &mut super::Permit,
    ) -> Result<(), Fault> {
        if let head::Framing::Length(length) = framing {
            self.cover(permit, length)?;
        }
        if head.expect_continue && self.buffered().is_empty() {
            self.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        Ok(())
    }

    async fn write(
        &mut self,
        response: &Response,
        close: bool,
        is_head: bool,
    ) -> Result<(), Fault> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
        for (name, value) in &response.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let connection = if close { "close" } else { "keep-alive" };
        let length = response.body.len();
        head.push_str(&format!("Content-Length: {length}\r\nConnection: {connection}\r\n\r\n"));
        let body: &[u8] = if is_head { &[] } else { &response.body };
        let mut first = head.into_bytes();
        let (with_head, rest) = body.split_at(body.len().min(READ_BYTES));
        first.extend_from_slice(with_head);
        self.write_all(&first).await?;
        for part in rest.chunks(WRITE_BYTES) {
            self.write_all(part).await?;
        }
        Ok(())
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let pause = Duration::from_millis(self.limits.http_header_ms.into());
        let write = async { self.stream.write_all(bytes).await.map_err(|_| Fault::Gone) };
        let slow = async {
            Timer::after(pause).await;
            Err(Fault::Slow(false))
        };
        write.or(slow).await
    }
}

/// Reads what the client still sends.
async fn linger(mut stream: Async<TcpStream>) {
    let _ = stream.get_ref().shutdown(Shutdown::Write);
    let mut waste = vec![0; READ_BYTES];
    let read = async { while stream.read(&mut waste).await.is_ok_and(|bytes| bytes > 0) {} };
    let end = async {
        Timer::after(LINGER).await;
    };
    read.or(end).await;
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Other",
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
