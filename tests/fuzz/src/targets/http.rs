//! HTTP: what clients send to a node, and what the command line reads as an answer.

use super::digest;
use crate::random::Random;
use crate::{Target, mutate};
use chainring::config::Limits;
use chainring::http::client;
use chainring::http::server::{Handler, Server, converse};
use chainring::http::{Budget, Request, Response};
use futures_lite::{AsyncRead, AsyncWrite, future};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// What a client sends on one connection; the first byte chooses the limits.
pub const REQUESTS: Target = Target {
    name: "requests",
    run: run_requests,
    seeds,
    repair: mutate::as_is,
    words: WORDS,
    bytes_max: 4096,
    memory_max: 1 << 20,
};

/// What a server answers; the first byte says whether there is a body.
pub const ANSWER: Target = Target {
    name: "answer",
    run: run_answer,
    seeds: || {
        let whole = b"\0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\
                      Content-Length: 5\r\nConnection: close\r\n\r\nhello";
        vec![whole.to_vec(), b"\x01HTTP/1.1 204 x\r\n\r\n".to_vec()]
    },
    repair: mutate::as_is,
    words: WORDS,
    bytes_max: 4096,
    memory_max: 128 << 10,
};

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/logs/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Accept: application/json\r\n",
    b"Chainring-Producer: new\r\n",
    b"Chainring-Epoch: 4294967295\r\n",
    b"Chainring-Sequence: 18446744073709551615\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff\r\n",
    b"10000;name=value\r\n",
    b"%2f",
    b"%",
    b"?offset=5&limit=",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
];

/// What a handler saw.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    path: String,
    query: String,
    body: Vec<u8>,
}

fn run_requests(bytes: &[u8]) -> bool {
    let Some((choice, bytes)) = bytes.split_first() else { return false };
    let bodies = [100, 4096, 70_000];
    let limits = Limits {
        http_body_bytes: bodies[usize::from(*choice) % bodies.len()],
        http_header_bytes: 512,
        ..Limits::default()
    };
    let whole = serve(&limits, bytes, None);
    let pieces = serve(&limits, bytes, Some(Random::new(digest(bytes))));
    assert_eq!(whole, pieces, "requests do not depend on how the bytes came");
    !whole.is_empty()
}

/// Lets a server answer `bytes`, in pieces or at once; what the handler saw.
fn serve(limits: &Limits, bytes: &[u8], pieces: Option<Random>) -> Vec<Seen> {
    let budget = Budget::new(3 * u64::from(limits.http_body_bytes));
    let seen: Rc<RefCell<Vec<Seen>>> = Rc::default();
    let notes = Rc::clone(&seen);
    let handler: Handler = Rc::new(move |request: Request| {
        for name in request.parameters() {
            let _ = request.parameter(name);
        }
        let Request { method, path, query, body, permit, .. } = request;
        let response = Response::new(200, "text/plain", body.clone());
        notes.borrow_mut().push(Seen { method, path, query, body });
        drop(permit);
        Box::pin(async move { response })
    });
    let (limits, counters) = (limits.clone(), Rc::default());
    let server = Server { limits, budget: budget.clone(), counters, handler };
    let mut client = Client { input: bytes, pieces, output: Vec::new() };
    let _ = future::block_on(converse(&server, Pipe(&mut client)));
    assert_eq!(budget.used(), 0, "all memory comes back");
    drop(server);
    let seen = Rc::into_inner(seen).expect("the handler is gone").into_inner();
    check_answers(&client.output, &seen);
    let most = bodies_max(&seen);
    assert!(most <= bytes.len());
    seen
}

fn bodies_max(seen: &[Seen]) -> usize {
    seen.iter().map(|seen| seen.body.len()).max().unwrap_or(0)
}

/// One answer a request, in order, and at most one more that says why the connection ends.
fn check_answers(mut output: &[u8], seen: &[Seen]) {
    for request in seen {
        let (status, length, rest) = answer(output);
        assert_eq!((status, length), (200, request.body.len()));
        let body = if request.method == "HEAD" { 0 } else { length };
        assert_eq!(&rest[..body], &request.body[..body]);
        output = &rest[body..];
    }
    if !output.is_empty() {
        let (status, length, rest) = answer(output);
        assert!(status == 100 && rest.is_empty() || status >= 400 && rest.len() == length);
    }
}

/// Status, length of the body, and what follows the head; invitations are passed over.
fn answer(output: &[u8]) -> (u16, usize, &[u8]) {
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = std::str::from_utf8(&output[..end]).expect("heads are text");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    if status == 100 && end < output.len() {
        return answer(&output[end..]);
    }
    let length = head
        .split("Content-Length: ")
        .nth(1)
        .map_or(0, |rest| rest.split("\r\n").next().expect("a line").parse().expect("a number"));
    (status, length, &output[end..])
}

/// A client that has sent everything and reads nothing.
struct Client<'a> {
    input: &'a [u8],
    pieces: Option<Random>,
    output: Vec<u8>,
}

struct Pipe<'a, 'b>(&'a mut Client<'b>);

impl AsyncRead for Pipe<'_, '_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let client = &mut *self.0;
        let most = out.len().min(client.input.len());
        let length = match &mut client.pieces {
            Some(random) if most > 0 => 1 + random.below(most.min(40)),
            _ => most,
        };
        let (now, later) = client.input.split_at(length.min(most));
        out[..now.len()].copy_from_slice(now);
        client.input = later;
        Poll::Ready(Ok(now.len()))
    }
}

impl AsyncWrite for Pipe<'_, '_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn run_answer(bytes: &[u8]) -> bool {
    let Some((head, bytes)) = bytes.split_first() else { return false };
    let Some(answer) = client::parse(bytes, head & 1 == 1) else { return false };
    assert_ne!(answer.status, 100, "that is not the answer yet");
    assert!(answer.body.len() <= bytes.len());
    if let Some(length) = answer.header("content-length").and_then(|text| text.parse().ok()) {
        let whole = answer.body.len() == length;
        assert!(whole || head & 1 == 1 && answer.body.len() < length);
    }
    true
}

fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "\0POST /v1/logs/a%2Eb?x=%41&y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
         GET /status?offset=1&limit=2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "\x01POST /v1/logs/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
         Expect: 100-continue\r\n\r\n5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n\
         HEAD / HTTP/1.1\r\nHost: b\r\nAccept: application/json\r\n\r\n",
        "\x02GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
