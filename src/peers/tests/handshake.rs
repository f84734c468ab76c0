//! Who gets in, who does not, and what both sides say about it.

use super::*;
use crate::peers::{HALF_OPEN_MAX, HANDSHAKE_TIME};
use async_io::Async;
use chainring_net::hello::{HELLO_BYTES, Hello, Message};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// True if reading waits when nothing is there, as the uring needs it.
fn blocks(stream: &mut TcpStream) -> bool {
    let start = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    stream.read(&mut [0]).is_err() && start.elapsed() > Duration::from_millis(15)
}

async fn outgoing(node: &Node, wanted: Purpose) -> (NodeId, OwnedFd, Resume) {
    node.next(|command| match command {
        Command::Outgoing { kind, to, handle, resume } if *kind == wanted => {
            Some((*to, handle.try_clone().unwrap(), *resume))
        }
        _ => None,
    })
    .await
}

async fn incoming(node: &Node, wanted: Purpose) -> (NodeId, OwnedFd) {
    node.next(|command| match command {
        Command::Incoming { kind, from, handle } if *kind == wanted => {
            Some((*from, handle.try_clone().unwrap()))
        }
        _ => None,
    })
    .await
}

fn encode_hello(hello: &Hello) -> [u8; HELLO_BYTES] {
    Message::Hello(*hello).encode(&hello.identity)
}

async fn connect(node: &Node) -> Async<TcpStream> {
    let address: SocketAddr = node.address.parse().unwrap();
    Async::<TcpStream>::connect(address).await.unwrap()
}

/// Reads until the other side closes; how many bytes came.
async fn read_to_end(stream: &mut Async<TcpStream>) -> usize {
    let mut bytes = Vec::new();
    let late = async {
        pause(Duration::from_secs(9)).await;
        panic!("the connection stays open");
    };
    // How it ends is not looked at.
    let _ = futures_lite::future::or(stream.read_to_end(&mut bytes), late).await;
    bytes.len()
}

fn both<A, B>(
    a: impl Future<Output = A>,
    b: impl Future<Output = B>,
) -> impl Future<Output = (A, B)> {
    futures_lite::future::zip(a, b)
}

/// Every link of a ring of one to three comes up, its resume passes through, and the first byte
/// sent is the first byte received.
#[test]
fn links_come_up_and_resume_passes_through() {
    for count in 1..=3u8 {
        run(|executor| async move {
            let nodes = cluster(&executor, count);
            if count == 1 {
                pause(Duration::from_millis(50)).await;
                assert!(nodes[0].world.commands.borrow().is_empty());
                assert_eq!(nodes[0].peers.successor(), None);
                return;
            }
            for (at, node) in nodes.iter().enumerate() {
                let next = &nodes[(at + 1) % nodes.len()];
                let (own, to) = (NodeId(at as u8 + 1), next.peers.identity.get().node);
                for kind in [Purpose::Data, Purpose::Control] {
                    let ((called, out, resume), (from, into)) =
                        both(outgoing(node, kind), incoming(next, kind)).await;
                    assert_eq!((called, from), (to, own));
                    assert_eq!(resume, resume_of(to.0, kind));
                    let (mut out, mut into) = (TcpStream::from(out), TcpStream::from(into));
                    out.write_all(&[at as u8, 9]).unwrap();
                    let mut bytes = [0; 2];
                    into.read_exact(&mut bytes).unwrap();
                    assert_eq!(bytes, [at as u8, 9]);
                    assert!(blocks(&mut out) && blocks(&mut into));
                }
                assert!(node.peers.problems().is_empty(), "{:?}", node.peers.problems());
            }
        });
    }
}

#[test]
fn bytes_behind_the_hello_stay_in_the_socket() {
    run(|executor| async move {
        let (mut listeners, nodes) = listeners(2);
        let node = Node::start(&executor, identity(1), listeners.remove(0), &nodes);
        let hello = Hello { identity: identity(2), purpose: Purpose::Data, to: NodeId(1) };
        let mut stream = connect(&node).await;
        let bytes = [&encode_hello(&hello)[..], b"and on it goes"].concat();
        stream.write_all(&bytes).await.unwrap();
        let (_, into) = incoming(&node, Purpose::Data).await;
        let mut read = [0; 14];
        TcpStream::from(into).read_exact(&mut read).unwrap();
        assert_eq!(&read, b"and on it goes");
    });
}

/// Each difference is refused with its reason, and both sides show it.
#[test]
fn whoever_differs_is_refused_with_the_reason() {
    let us = identity(2);
    let cases = [
        (Identity { cluster: ClusterId(0xc2), ..us }, "belongs to cluster"),
        (Identity { epoch: Epoch(2), ..us }, "in cluster epoch"),
        (Identity { version: PROTOCOL + 1, ..us }, "speaks protocol"),
        (Identity { durability: Durability::Memory, ..us }, "has durability"),
        (Identity { block: 4096, ..us }, "'s block is"),
        (Identity { config_hash: 78, ..us }, "has hash"),
    ];
    for (theirs, words) in cases {
        run(|executor| async move {
            let (mut listeners, nodes) = listeners(2);
            let (two, one) = (listeners.pop().unwrap(), listeners.pop().unwrap());
            let one = Node::start(&executor, identity(1), one, &nodes);
            let two = Node::start(&executor, theirs, two, &nodes);
            both(one.problem(words), two.problem(words)).await;
            both(one.problem("refused a connection of"), two.problem("refused; it says: ")).await;
            assert!(one.world.commands.borrow().is_empty());
            assert!(two.world.commands.borrow().is_empty());
            // A refusal is no attack.
            assert_eq!(one.gauges.bad_frames.get() + two.gauges.bad_frames.get(), 0);
        });
    }
}

/// A wrong address, and a stranger or the wrong neighbour on the right one.
#[test]
fn whoever_is_out_of_place_is_refused() {
    run(|executor| async move {
        let (mut listeners, mut nodes) = listeners(3);
        // Node 2 takes node 1's address for node 3's.
        let two = listeners.remove(1);
        let right = nodes.clone();
        nodes[2].1 = nodes[0].1.clone();
        let one = Node::start(&executor, identity(1), listeners.remove(0), &right);
        let two = Node::start(&executor, identity(2), two, &nodes);
        both(one.problem("calls node 3"), two.problem("calls node 3")).await;
        // Node 1 gets its values from node 3, not from node 2, and knows no node 5.
        for (from, words) in [(2, "not from node 2"), (5, "node 5 is not among")] {
            let (purpose, to) = (Purpose::Data, NodeId(1));
            let hello = Hello { identity: identity(from), purpose, to };
            let mut stream = connect(&one).await;
            stream.write_all(&encode_hello(&hello)).await.unwrap();
            assert_eq!(read_to_end(&mut stream).await, 1024);
            one.problem(words).await;
        }
        assert!(one.world.commands.borrow().is_empty());
    });
}

/// Once a newer life of a node was seen, an older one is not let in.
#[test]
fn an_older_life_is_refused() {
    run(|executor| async move {
        let (mut listeners, nodes) = listeners(2);
        let node = Node::start(&executor, identity(1), listeners.remove(0), &nodes);
        let start = |start| Session { incarnation: Incarnation(1), start };
        for (session, ends) in [(3, false), (2, true), (3, false), (4, false)] {
            let identity = Identity { session: start(session), ..identity(2) };
            let hello = Hello { identity, purpose: Purpose::Peer, to: NodeId(1) };
            let mut stream = connect(&node).await;
            stream.write_all(&encode_hello(&hello)).await.unwrap();
            let mut answer = [0; HELLO_BYTES];
            stream.read_exact(&mut answer).await.unwrap();
            let refused = matches!(Message::decode(&answer), Ok(Message::Refusal(_)));
            assert_eq!(refused, ends, "session {session}");
        }
    });
}

#[test]
fn garbage_and_length_bombs_are_closed_and_counted() {
    run(|executor| async move {
        let (mut listeners, nodes) = listeners(2);
        let node = Node::start(&executor, identity(1), listeners.remove(0), &nodes);
        let hello = Hello { identity: identity(2), purpose: Purpose::Peer, to: NodeId(1) };
        let mut damaged = encode_hello(&hello).to_vec();
        damaged[700] ^= 1;
        let mut foreign = encode_hello(&hello).to_vec();
        foreign.extend(frame(Kind::Votes, id(2, 0), 512));
        let bomb = |size: u32| {
            let mut bytes = frame(Kind::Hello, id(2, 0), 512);
            bytes[56..60].copy_from_slice(&size.to_le_bytes());
            let checksum = xxhash_rust::xxh3::xxh3_128(&bytes[16..128]);
            bytes[..16].copy_from_slice(&checksum.to_le_bytes());
            bytes
        };
        let cases = [
            vec![0xee; 4000],
            vec![0; 128],
            b"GET / HTTP/1.1\r\n\r\n".repeat(20),
            bomb(u32::MAX),
            bomb(1 << 20),
            bomb(512),
            frame(Kind::Value, id(2, 0), 1024),
            damaged,
            foreign,
        ];
        for (at, bytes) in cases.into_iter().enumerate() {
            let mut stream = connect(&node).await;
            stream.write_all(&bytes).await.unwrap();
            read_to_end(&mut stream).await;
            assert_eq!(node.gauges.bad_frames.get(), at as u64 + 1, "case {at}");
        }
        // And it still lets the right one in.
        let mut stream = connect(&node).await;
        stream.write_all(&encode_hello(&hello)).await.unwrap();
        stream.read_exact(&mut [0; 1024]).await.unwrap();
    });
}

/// Silent and slow ones are closed at the deadline, and those above the limit at once.
#[test]
fn half_open_connections_are_few_and_short() {
    run(|executor| async move {
        let (mut listeners, nodes) = listeners(2);
        let node = Node::start(&executor, identity(1), listeners.remove(0), &nodes);
        let (start, mut streams) = (Instant::now(), Vec::new());
        for _ in 0..HALF_OPEN_MAX {
            streams.push(connect(&node).await);
        }
        pause(Duration::from_millis(100)).await;
        // A further one takes the place of the oldest, and gets its handshake.
        let surplus = connect(&node).await;
        assert_eq!(read_to_end(&mut streams.remove(0)).await, 0);
        assert!(start.elapsed() < HANDSHAKE_TIME / 2);
        streams.push(surplus);
        let mut slow = streams.pop().unwrap();
        let mut writer = slow.get_ref().try_clone().unwrap();
        let drip = async {
            loop {
                let _ = writer.write(&[0]);
                pause(Duration::from_millis(300)).await;
            }
        };
        assert_eq!(futures_lite::future::or(read_to_end(&mut slow), drip).await, 0);
        let closed = start.elapsed();
        assert!(closed > HANDSHAKE_TIME - Duration::from_millis(500), "{closed:?}");
        assert!(closed < HANDSHAKE_TIME * 3 / 2, "{closed:?}");
        for mut stream in streams {
            assert_eq!(read_to_end(&mut stream).await, 0);
        }
    });
}

/// A connection that is gone leaves nothing behind, however many there were.
#[test]
fn connections_that_came_and_went_leave_no_waker() {
    run(|executor| async move {
        let (mut listeners, nodes) = listeners(2);
        let node = Node::start(&executor, identity(1), listeners.remove(0), &nodes);
        for _ in 0..20 {
            drop(connect(&node).await);
            pause(Duration::from_millis(10)).await;
        }
        pause(Duration::from_millis(100)).await;
        assert_eq!(node.peers.accepting.waiting(), 0);
    });
}

#[test]
fn a_broken_link_is_dialed_again_and_only_it() {
    run(|executor| async move {
        let nodes = cluster(&executor, 2);
        for kind in [Purpose::Data, Purpose::Control] {
            both(outgoing(&nodes[0], kind), incoming(&nodes[1], kind)).await;
            both(outgoing(&nodes[1], kind), incoming(&nodes[0], kind)).await;
        }
        for round in 0..3 {
            let start = Instant::now();
            let notice = Notice::LinkDown { kind: Purpose::Data, outgoing: true };
            assert!(nodes[0].peers.on_notice(notice).is_none());
            let lost = Notice::LinkDown { kind: Purpose::Data, outgoing: false };
            assert!(nodes[1].peers.on_notice(lost).is_none());
            both(outgoing(&nodes[0], Purpose::Data), incoming(&nodes[1], Purpose::Data)).await;
            assert!(start.elapsed() < Duration::from_millis(500), "round {round}");
        }
        pause(Duration::from_millis(100)).await;
        for node in nodes {
            let commands = node.world.commands.borrow();
            assert!(commands.is_empty(), "{commands:?}");
        }
    });
}

/// A peer that comes back dials while the shard still prepares for its older connection: the
/// newer one gets in, the older one never reaches the shard.
#[test]
fn a_newer_connection_takes_the_place_of_an_older_one() {
    run(|executor| async move {
        let (mut listeners, nodes) = listeners(2);
        let node = Node::start(&executor, identity(1), listeners.remove(0), &nodes);
        let hello = Hello { identity: identity(2), purpose: Purpose::Control, to: NodeId(1) };
        let mut older = connect(&node).await;
        older.write_all(&encode_hello(&hello)).await.unwrap();
        pause(Duration::from_millis(50)).await;
        assert_eq!(node.world.commands.borrow().len(), 1, "prepared");
        let (mut newer, start) = (connect(&node).await, Instant::now());
        newer.write_all(&encode_hello(&hello)).await.unwrap();
        assert_eq!(read_to_end(&mut older).await, 0);
        assert!(start.elapsed() < HANDSHAKE_TIME / 2, "closed by the deadline alone");
        let (_, into) = incoming(&node, Purpose::Control).await;
        newer.read_exact(&mut [0; 1024]).await.unwrap();
        newer.write_all(&[5]).await.unwrap();
        let mut byte = [0];
        TcpStream::from(into).read_exact(&mut byte).unwrap();
        assert_eq!(byte, [5]);
        assert!(node.world.commands.borrow().is_empty());
    });
}

#[test]
fn a_port_in_use_is_named() {
    let (_listeners, nodes) = listeners(1);
    let error = listen(&nodes[0].1).unwrap_err().to_string();
    assert!(error.contains(&nodes[0].1) && error.contains("another process"), "{error}");
}
