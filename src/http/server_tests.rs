//! Tests of the server over loopback sockets, with a handler that says what it was asked.

use super::*;
use crate::http::client;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc;

/// Counters that cross the thread: connections, refused, requests, bad, timeouts, memory.
type Figures = [u64; 6];

/// Starts a server; its address, and what asks for its figures.
fn start(limits: Limits) -> (SocketAddr, impl Fn() -> Figures) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (ask, asked) = mpsc::channel::<mpsc::Sender<Figures>>();
    std::thread::spawn(move || {
        let executor = Rc::new(LocalExecutor::new());
        let counters: Rc<HttpCounters> = Rc::default();
        let budget = Budget::new(limits.http_memory_bytes.into());
        let handler: Handler = Rc::new(|request: Request| {
            Box::pin(async move {
                let text = format!("{} {} {}", request.method, request.path, request.body.len());
                Response::new(200, "text/plain", text.into_bytes())
            })
        });
        let server = Server { limits, budget: budget.clone(), counters: counters.clone(), handler };
        executor.spawn(serve(Rc::new(server), listener, executor.clone())).detach();
        let figures = async {
            loop {
                while let Ok(answer) = asked.try_recv() {
                    let c = &counters;
                    let cells = [&c.connections, &c.refused, &c.requests, &c.bad, &c.timeouts];
                    let [a, b, d, e, f] = cells.map(|cell| cell.get());
                    let _ = answer.send([a, b, d, e, f, budget.used()]);
                }
                Timer::after(Duration::from_millis(2)).await;
            }
        };
        async_io::block_on(executor.run(figures))
    });
    let figures = move || {
        let (answer, figures) = mpsc::channel();
        ask.send(answer).unwrap();
        figures.recv().unwrap()
    };
    (address, figures)
}

fn limits() -> Limits {
    Limits {
        http_body_bytes: 100_000,
        http_memory_bytes: 250_000,
        http_connections: 4,
        http_header_bytes: 2000,
        http_header_ms: 150,
        http_idle_ms: 400,
        ..Limits::default()
    }
}

/// Sends bytes, then reads until the server closes.
fn talk(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.write_all(bytes);
    let mut out = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read) = stream.read(&mut part) {
        if read == 0 {
            break;
        }
        out.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn status_of(answer: &str) -> u16 {
    answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[test]
fn bodies_by_length_in_chunks_and_pipelined() {
    let (address, figures) = start(limits());
    let url = format!("http://{address}");
    let body = vec![b'x'; 90_000];
    let answer = client::request(&url, "POST", "/a%20b?c", &body, Duration::from_secs(5)).unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"POST /a b 90000"[..]));
    let chunked = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\n123\r\n0\r\nT: u\r\n\r\n";
    let next = "HEAD /d HTTP/1.1\r\nHost: a\r\n\r\nGET /e HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answers = talk(address, format!("{chunked}{next}").as_bytes());
    let at = |text: &str| answers.find(text).unwrap_or_else(|| panic!("{text} in {answers}"));
    assert!(at("POST /c 8") < at("GET /e 0"));
    assert!(!answers.contains("HEAD /d"), "an answer to HEAD has no body");
    assert_eq!(answers.matches("200 OK").count(), 3);
    assert_eq!(figures()[2..], [4, 0, 0, 0]);
}

/// Bodies beyond what one read takes come whole: by length, and in one large chunk.
#[test]
fn large_bodies_come_whole() {
    let large = Limits { http_body_bytes: 4 << 20, http_memory_bytes: 16 << 20, ..limits() };
    let (address, figures) = start(large);
    let body = vec![b'x'; 3_000_001];
    let url = format!("http://{address}");
    let answer = client::request(&url, "POST", "/a", &body, Duration::from_secs(5)).unwrap();
    assert_eq!(answer.body, b"POST /a 3000001");
    let head =
        "POST /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut bytes = format!("{head}{:x}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    assert!(talk(address, &bytes).ends_with("POST /b 3000001"));
    assert_eq!(figures()[2..], [2, 0, 0, 0]);
}

#[test]
fn a_client_that_expects_is_invited_or_refused_before_it_sends() {
    let (address, _) = start(limits());
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut part = [0; 256];
    let read = stream.read(&mut part).unwrap();
    assert_eq!(&part[..read], b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    let read = stream.read(&mut part).unwrap();
    assert!(part[..read].ends_with(b"POST / 3"));
    let long = head.replace(": 3", ": 100001");
    assert_eq!(status_of(&talk(address, long.as_bytes())), 413);
}

#[test]
fn what_breaks_a_rule_is_answered_closed_and_counted() {
    let (address, figures) = start(limits());
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    let cases: Vec<(u16, Vec<u8>)> = vec![
        (400, b"\x00\xff\x13garbage\r\n\r\n".to_vec()),
        (400, vec![0x80; 5000]),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(3000)).into_bytes()),
        (413, format!("{post}Content-Length: 18446744073709551615\r\n\r\n").into_bytes()),
        (413, format!("{chunked}fffffffffffffff\r\n").into_bytes()),
        (413, format!("{chunked}18000\r\n{}\r\n1000\r\n", "x".repeat(0x18000)).into_bytes()),
        (400, format!("{chunked}zz\r\n").into_bytes()),
        (400, format!("{chunked}3;{}\r\nabc\r\n", "x".repeat(300)).into_bytes()),
        (400, format!("{chunked}3\r\nabcd\r\n").into_bytes()),
        (400, format!("{chunked}{}", "1".repeat(400)).into_bytes()),
        (400, format!("{chunked}0\r\n{}", "a: b\r\n".repeat(2000)).into_bytes()),
        (400, format!("{post}Content-Length: 1\r\nContent-Length: 1\r\n\r\n").into_bytes()),
        (400, b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
    ];
    for (index, (status, bytes)) in cases.iter().enumerate() {
        assert_eq!(status_of(&talk(address, bytes)), *status, "case {index}");
    }
    let [_, _, requests, bad, _, memory] = figures();
    assert_eq!((requests, bad, memory), (0, cases.len() as u64, 0));
}

#[test]
fn the_slow_are_given_up() {
    let (address, figures) = start(limits());
    let began = Instant::now();
    assert_eq!(status_of(&talk(address, b"GET / HT")), 408);
    let body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    assert_eq!(status_of(&talk(address, body)), 408);
    assert_eq!(talk(address, b""), "", "idle: closed without a word");
    assert!(began.elapsed() < Duration::from_secs(4));
    // Drips: each byte within the pause, the whole not within the deadline.
    for (number, head) in
        ["", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"].iter().enumerate()
    {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(20));
            let _ = stream.write_all(b"G");
        }
        assert_eq!(figures()[4], 3 + number as u64, "given up while it still dripped");
    }
    assert_eq!(figures()[5], 0, "memory came back");
}

#[test]
fn connections_and_memory_are_bounded() {
    let (address, figures) = start(limits());
    let open: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    while figures()[0] < 4 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(talk(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    assert_eq!(figures()[..2], [4, 1]);
    // Two bodies of the limit are paid for, a third is not.
    for mut stream in &open[..2] {
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").unwrap();
    }
    while figures()[5] < 200_000 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut third = &open[2];
    third.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n").unwrap();
    let mut part = [0; 512];
    let read = third.read(&mut part).unwrap();
    let answer = String::from_utf8_lossy(&part[..read]).into_owned();
    assert_eq!(status_of(&answer), 503);
    assert!(answer.contains("Retry-After: 1"));
    drop(open);
    while figures()[0] > 0 || figures()[5] > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}
