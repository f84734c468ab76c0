//! The head of a request: request line and headers, and how its body is framed.
//!
//! Invariant: a head whose framing could be read in two ways is refused, so that no proxy in
//! front of the node and the node itself disagree on where a request ends.

use super::Response;

/// Headers accepted in one request.
const HEADERS_MAX: usize = 64;

/// How the body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 without a body.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// `Chainring-Producer`, `-Epoch` and `-Sequence`, as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerHeaders {
    /// Whose.
    pub producer: Option<String>,
    /// Of its lives.
    pub epoch: Option<String>,
    /// Of the first record.
    pub sequence: Option<String>,
}

impl ProducerHeaders {
    /// The place of a header's value, if it is one of these.
    fn place(&mut self, name: &str) -> Option<&mut Option<String>> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("chainring-producer") {
            Some(&mut self.producer)
        } else if is("chainring-epoch") {
            Some(&mut self.epoch)
        } else if is("chainring-sequence") {
            Some(&mut self.sequence)
        } else {
            None
        }
    }
}

/// A head, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    pub method: String,
    pub target: String,
    pub framing: Framing,
    pub expect_continue: bool,
    pub keep_alive: bool,
    pub accept_json: bool,
    /// Whose records the body is.
    pub producer: ProducerHeaders,
    /// Bytes of the head.
    pub bytes: usize,
}

/// Parses a head; `Ok(None)` if it is not whole yet.
///
/// # Errors
/// The answer to give before closing.
pub fn parse(bytes: &[u8]) -> Result<Option<Head>, Box<Response>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(refuse(431, "headers_too_large", "more than 64 headers"));
        }
        Err(error) => return Err(refuse(400, "bad_request", &format!("not HTTP: {error}"))),
    };
    let newer = request.version == Some(1);
    let mut head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        framing: Framing::Length(0),
        expect_continue: false,
        keep_alive: newer,
        accept_json: false,
        producer: ProducerHeaders::default(),
        bytes: length,
    };
    let mut seen = Seen { hosts: 0, length: None, chunked: false };
    for header in request.headers.iter() {
        header_of(header, &mut head, &mut seen)?;
    }
    if newer && seen.hosts != 1 {
        return Err(refuse(400, "bad_request", "one Host header is needed"));
    }
    head.framing = match (seen.length, seen.chunked) {
        (Some(_), true) => {
            let message = "Content-Length and Transfer-Encoding together";
            return Err(refuse(400, "bad_request", message));
        }
        (None, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(Some(head))
}

struct Seen {
    hosts: u32,
    length: Option<u64>,
    chunked: bool,
}

fn header_of(
    header: &httparse::Header<'_>,
    head: &mut Head,
    seen: &mut Seen,
) -> Result<(), Box<Response>> {
    let bad = |message: &str| Err(refuse(400, "bad_request", message));
    let Ok(value) = std::str::from_utf8(header.value) else {
        return bad("a header is not UTF-8");
    };
    let value = value.trim();
    let is = |name: &str| header.name.eq_ignore_ascii_case(name);
    if is("host") {
        seen.hosts += 1;
    } else if is("content-length") {
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let length = value.parse().ok().filter(|_| digits);
        if length.is_none() || seen.length.is_some() {
            return bad("Content-Length is not one number");
        }
        seen.length = length;
    } else if is("transfer-encoding") {
        if !value.eq_ignore_ascii_case("chunked") || seen.chunked {
            let message = "the only transfer encoding is chunked";
            return Err(refuse(501, "not_implemented", message));
        }
        seen.chunked = true;
    } else if is("expect") {
        if !value.eq_ignore_ascii_case("100-continue") {
            return Err(refuse(417, "expectation_failed", "only 100-continue can be expected"));
        }
        head.expect_continue = true;
    } else if is("connection") {
        for token in value.split(',').map(str::trim) {
            if token.eq_ignore_ascii_case("close") {
                head.keep_alive = false;
            } else if token.eq_ignore_ascii_case("keep-alive") {
                head.keep_alive = true;
            }
        }
    } else if is("accept") {
        head.accept_json |= value.contains("application/json");
    } else if let Some(place) = head.producer.place(header.name) {
        // Of two values none is the right one.
        if place.replace(value.to_owned()).is_some() {
            return bad(&format!("{} comes twice", header.name));
        }
    }
    Ok(())
}

fn refuse(status: u16, code: &str, message: &str) -> Box<Response> {
    Box::new(Response::error(status, code, message).closing())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> u16 {
        parse(text.as_bytes()).unwrap_err().status
    }

    #[test]
    fn heads() {
        let text = "POST /x?y=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\nAccept: application/json\r\n\r\nhello";
        let head = parse(text.as_bytes()).unwrap().unwrap();
        let expected = Head {
            method: "POST".into(),
            target: "/x?y=1".into(),
            framing: Framing::Length(5),
            expect_continue: true,
            keep_alive: false,
            accept_json: true,
            producer: ProducerHeaders::default(),
            bytes: text.len() - 5,
        };
        assert_eq!(head, expected);
        for cut in 1..expected.bytes {
            assert_eq!(parse(&text.as_bytes()[..cut]).unwrap(), None, "{cut}");
        }
        let old = parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap();
        assert!(!old.keep_alive);
    }

    #[test]
    fn two_meanings_are_refused() {
        let with = |headers: &str| status(&format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
        assert_eq!(with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400);
        assert_eq!(with("Content-Length: 1\r\nContent-Length: 2\r\n"), 400);
        assert_eq!(with("Content-Length: +1\r\n"), 400);
        assert_eq!(with("Content-Length: 99999999999999999999999\r\n"), 400);
        assert_eq!(with("Transfer-Encoding: gzip\r\n"), 501);
        assert_eq!(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 501);
        assert_eq!(with("Expect: wonders\r\n"), 417);
        assert_eq!(with("Host: b\r\n"), 400);
        assert_eq!(with("Chainring-Epoch: 1\r\nchainring-epoch: 1\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("\x16\x03\x01\x02\x00\x01\x00\x01\u{7f}\r\n\r\n"), 400);
        assert_eq!(with(&"a: b\r\n".repeat(70)), 431);
    }
}
