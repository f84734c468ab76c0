//! A small blocking HTTP client for the command line: one request, one connection.
//!
//! Invariant: an answer is bounded in bytes and time; a server that breaks the rules is an error,
//! never a wait.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Longest answer read.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not a URL of ours.
    #[error("{url} is not http://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
    },
    /// Nobody answers there.
    #[error("{url} cannot be reached: {source}; is the node running?")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody answers, but not as expected.
    #[error("{url} answered with something that is not HTTP; is it a chainring node?")]
    NotHttp {
        /// Where.
        url: String,
    },
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Gets `path` of the node at `url`.
///
/// # Errors
/// [`ClientError`].
pub fn get(url: &str, path: &str, timeout: Duration) -> Result<Answer, ClientError> {
    request(url, "GET", path, &[], timeout)
}

/// Sends one request with a body and reads the answer to its end, all within `timeout`.
///
/// # Errors
/// [`ClientError`].
pub fn request(
    url: &str,
    method: &str,
    path: &str,
    body: &[u8],
    timeout: Duration,
) -> Result<Answer, ClientError> {
    request_with(url, method, path, &[], body, timeout)
}

/// As [`request`], with more headers.
///
/// # Errors
/// [`ClientError`].
pub fn request_with(
    url: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<Answer, ClientError> {
    let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    if host.is_empty() || host.contains('/') || !host.contains(':') {
        return Err(ClientError::Url { url: url.to_owned() });
    }
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let bytes = exchange(host, head.as_bytes(), body, timeout)
        .map_err(|source| ClientError::Unreachable { url: url.to_owned(), source })?;
    parse(&bytes, method == "HEAD").ok_or_else(|| ClientError::NotHttp { url: url.to_owned() })
}

fn exchange(host: &str, head: &[u8], body: &[u8], timeout: Duration) -> std::io::Result<Vec<u8>> {
    let deadline = Instant::now() + timeout;
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in host.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(head)?;
        // A server that refuses the body answers before it has read it.
        let _ = stream.write_all(body);
        return read_all(&mut stream, deadline);
    }
    Err(last)
}

fn read_all(stream: &mut TcpStream, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no whole answer in time");
    let mut bytes = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        stream.set_read_timeout(Some(left))?;
        let read = match stream.read(&mut part) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(late()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes.extend_from_slice(&part[..read]);
        if read == 0 || bytes.len() > ANSWER_BYTES_MAX {
            return Ok(bytes);
        }
    }
}

/// Reads an answer; `None` if it is not one, or cut short. `head`: it was asked for without body.
pub fn parse(mut bytes: &[u8], head: bool) -> Option<Answer> {
    // A server may send any number of these before the answer.
    loop {
        let (at, answer) = parse_one(bytes, head)?;
        match answer.status {
            100 => bytes = &bytes[at..],
            _ => return Some(answer),
        }
    }
}

/// The length of the head, and the answer.
fn parse_one(bytes: &[u8], head: bool) -> Option<(usize, Answer)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(at) = response.parse(bytes).ok()? else { return None };
    let status = response.code?;
    let pair = |header: &httparse::Header<'_>| {
        let value = String::from_utf8_lossy(header.value).into_owned();
        (header.name.to_ascii_lowercase(), value)
    };
    let headers: Vec<_> = response.headers.iter().map(pair).collect();
    let mut answer = Answer { status, headers, body: Vec::new() };
    if status == 100 {
        return Some((at, answer));
    }
    answer.body = bytes[at..].to_vec();
    let length: Option<usize> = answer.header("content-length").and_then(|n| n.parse().ok());
    if let Some(length) = length {
        if answer.body.len() < length && !head {
            return None; // cut short
        }
        answer.body.truncate(length);
    }
    Some((at, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many there are: they must not fill the stack.
    #[test]
    fn invitations_before_the_answer_are_passed_over() {
        let mut text = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000);
        assert!(parse(text.as_bytes(), false).is_none());
        text.push_str("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab");
        let answer = parse(text.as_bytes(), false).unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ab"[..]));
    }
}
