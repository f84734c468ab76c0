//! HTTP/1.1 on the control thread: requests, responses, and the memory they may take.
//!
//! Invariants: every buffer is paid for from one [`Budget`] before it grows; a request that breaks
//! a rule is answered, its connection closed, and counted; nothing is appended from a body that
//! did not come whole.

mod body;
pub mod client;
mod head;
pub mod server;

pub use head::ProducerHeaders;
use std::cell::Cell;
use std::rc::Rc;

/// Memory that all bodies and answers share.
#[derive(Clone, Debug)]
pub struct Budget(Rc<Cell<u64>>, u64);

/// Memory taken from a [`Budget`]; dropped, it goes back.
#[derive(Debug)]
pub struct Permit {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    /// All of it free.
    pub fn new(bytes: u64) -> Budget {
        Budget(Rc::new(Cell::new(bytes)), bytes)
    }

    /// A permit for nothing yet.
    pub fn permit(&self) -> Permit {
        Permit { budget: self.clone(), bytes: 0 }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.1 - self.0.get()
    }
}

impl Permit {
    /// Makes the permit cover at least `bytes`; false if there is not as much.
    pub fn cover(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let Some(rest) = self.budget.0.get().checked_sub(more) else { return false };
        self.budget.0.set(rest);
        self.bytes += more;
        true
    }

    /// True if `bytes` are more than the whole budget: waiting would not help.
    pub fn never(&self, bytes: u64) -> bool {
        bytes > self.budget.1
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() + self.bytes);
    }
}

/// A request, read whole.
pub struct Request {
    /// Method, as sent.
    pub method: String,
    /// Path, percent-decoded.
    pub path: String,
    /// Query, as sent.
    pub query: String,
    /// True if the client asked for JSON by `Accept`.
    pub accept_json: bool,
    /// Whose records the body is.
    pub producer: ProducerHeaders,
    /// The body; chunks put together.
    pub body: Vec<u8>,
    /// Pays for the body.
    pub permit: Permit,
}

impl Request {
    /// The names of all parameters, as they stand there.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name))
    }

    /// The value of a query parameter, percent-decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs =
            self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| *key == name).and_then(|(_, value)| decode_percent(value))
    }
}

/// `%41` to `A`; `None` if it is malformed or not UTF-8.
pub fn decode_percent(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers beside those of framing.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Close the connection after it.
    pub close: bool,
    /// Pays for the body, where it is large.
    pub permit: Option<Permit>,
}

impl Response {
    /// A body of some type.
    pub fn new(status: u16, content_type: &str, body: Vec<u8>) -> Response {
        let headers = vec![("Content-Type", content_type.to_owned())];
        Response { status, headers, body, close: false, permit: None }
    }

    /// A JSON body, with a line feed for terminals.
    pub fn json(status: u16, value: &serde_json::Value) -> Response {
        let mut body = value.to_string().into_bytes();
        body.push(b'\n');
        Response::new(status, "application/json", body)
    }

    /// `{"v":1,"error":{"code":..,"message":..}}`.
    pub fn error(status: u16, code: &str, message: &str) -> Response {
        Response::error_with(status, code, message, serde_json::Map::new())
    }

    /// The same with further keys in `error`.
    pub fn error_with(
        status: u16,
        code: &str,
        message: &str,
        mut more: serde_json::Map<String, serde_json::Value>,
    ) -> Response {
        more.insert("code".into(), code.into());
        more.insert("message".into(), message.into());
        Response::json(status, &serde_json::json!({ "v": 1, "error": more }))
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Response {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Closes the connection after this answer.
    #[must_use]
    pub fn closing(mut self) -> Response {
        self.close = true;
        self
    }
}

/// Figures of the HTTP server, read by metrics and status.
#[derive(Default)]
pub struct HttpCounters {
    /// Connections open.
    pub connections: Cell<u64>,
    /// Connections refused over the limit.
    pub refused: Cell<u64>,
    /// Requests answered.
    pub requests: Cell<u64>,
    /// Requests that broke a rule of HTTP or a limit; each closed its connection.
    pub bad: Cell<u64>,
    /// Requests that did not come in time.
    pub timeouts: Cell<u64>,
}

/// Adds one to a counter.
pub fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_overdrawn_and_comes_back() {
        let budget = Budget::new(100);
        let (mut a, mut b) = (budget.permit(), budget.permit());
        assert!(a.cover(60) && a.cover(50) && !b.cover(41) && b.cover(40));
        assert_eq!(budget.used(), 100);
        assert!(!a.never(100) && a.never(101));
        drop(a);
        assert!(b.cover(100));
        drop(b);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn percent() {
        assert_eq!(decode_percent("a%2Fb").as_deref(), Some("a/b"));
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decode_percent(bad), None, "{bad}");
        }
    }
}
