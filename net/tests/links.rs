//! What one wire does when its links break, lie or stall.

mod common;

use chainring_net::link::{LinkError, LinkKind, Refused};
use chainring_net::pool::Range;
use chainring_net::wire::{Event, FORWARDS_MAX, Wait, Wire};
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind};
use chainring_ring::ids::{ClusterId, Epoch};
use common::{BLOCK, check, fill, handed_over, header, tcp_pair, wire};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(20);

/// Turns until `done` says so of what happened; returns all of it.
fn until(wire: &mut Wire, done: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let start = Instant::now();
    let mut events = Vec::new();
    while !done(&events) {
        assert!(start.elapsed() < Duration::from_secs(10), "only {events:?}");
        wire.poll(Wait::UpTo(TICK));
        while let Some(event) = wire.next_event() {
            events.push(event);
        }
    }
    events
}

fn down(events: &[Event]) -> bool {
    matches!(events.last(), Some(Event::LinkDown { .. }))
}

fn receiving(receive: u32) -> (Wire, TcpStream) {
    let (mut wire, _) = wire(receive, 1 << 16);
    let (out, into) = tcp_pair();
    wire.attach(LinkKind::DataIn, handed_over(into));
    (wire, out)
}

fn packet(size: u32, origin: u8, sequence: u64) -> Vec<u8> {
    let mut frame = vec![0; size as usize];
    fill(&mut frame, origin, sequence);
    frame
}

/// Makes the header's checksum right again.
fn bless(frame: &mut [u8]) {
    let checksum = xxhash_rust::xxh3::xxh3_128(&frame[16..HEADER_BYTES]);
    frame[..16].copy_from_slice(&checksum.to_le_bytes());
}

fn sealed(change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = header(Kind::Value, 512, 1, 0);
    change(&mut header);
    let mut frame = vec![0; header.size as usize];
    header.seal(&mut frame);
    frame
}

/// What the wire says of bytes that follow a good packet.
fn verdict(bad: &[u8]) -> LinkError {
    let (mut wire, mut out) = receiving(1 << 16);
    out.write_all(&packet(512, 1, 0)).unwrap();
    out.write_all(bad).unwrap();
    let mut events = until(&mut wire, down);
    assert!(matches!(events[0], Event::Packet { position: 0, .. }), "the good one is kept");
    assert_eq!(events.len(), 2);
    let Some(Event::LinkDown { kind: LinkKind::DataIn, reason }) = events.pop() else {
        panic!("not down");
    };
    assert_eq!(wire.counters().bad_frames, 1);
    assert!(!wire.attached(LinkKind::DataIn));
    // The peer learns of it, too.
    let mut rest = Vec::new();
    out.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(!matches!(out.read_to_end(&mut rest), Ok(1..)));
    reason
}

#[test]
fn garbage_and_bombs_close_the_link() {
    use FrameError::{Body, BodyChecksum, HeaderChecksum, Kind as UnknownKind, Size, Version};
    let frame_error = |bad: &[u8]| match verdict(bad) {
        LinkError::Frame(error) => error,
        other => panic!("{other}"),
    };
    assert_eq!(frame_error(&[0x47; 700]), HeaderChecksum);
    assert_eq!(frame_error(b"GET / HTTP/1.1\r\n".repeat(10).as_slice()), HeaderChecksum);
    let patched = |at: usize, bytes: &[u8]| {
        let mut frame = packet(512, 1, 1);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        bless(&mut frame);
        frame
    };
    let limit = 1 << 14;
    assert_eq!(frame_error(&patched(56, &[0xff; 4])), Size { size: u32::MAX, limit });
    assert_eq!(frame_error(&patched(56, &[0; 4])), Size { size: 0, limit });
    assert_eq!(frame_error(&patched(55, &[9])), Version { found: 9 });
    assert_eq!(frame_error(&patched(54, &[0xee])), UnknownKind { code: 0xee });
    assert_eq!(frame_error(&sealed(|header| header.origin.0 = 0)), Body);
    assert_eq!(frame_error(&sealed(|header| header.origin.0 = 8)), Body);
    let unaligned = sealed(|header| header.size = 520);
    assert_eq!(frame_error(&unaligned), Size { size: 520, limit });
    let other = sealed(|header| header.cluster = ClusterId(1));
    assert_eq!(frame_error(&other), FrameError::Cluster { found: ClusterId(1) });
    let other = sealed(|header| header.epoch = Epoch(2));
    assert_eq!(frame_error(&other), FrameError::Epoch { found: Epoch(2) });
    let mut damaged = packet(512, 1, 1);
    damaged[511] ^= 1;
    assert_eq!(frame_error(&damaged), BodyChecksum);
    let stray = sealed(|header| header.kind = Kind::Votes);
    assert!(matches!(verdict(&stray), LinkError::Kind { code: 17 }));
}

/// The link breaks in the middle of a packet, many times; the buffer goes on at the last whole one.
#[test]
fn a_broken_link_goes_on_at_the_last_whole_packet() {
    let (mut wire, mut out) = receiving(1 << 14);
    let mut position = 0;
    for round in 0..40u64 {
        let size = BLOCK * (1 + (round % 5) as u32);
        let whole = packet(size, 3, round);
        out.write_all(&whole).unwrap();
        out.write_all(&packet(2048, 3, round + 1)[..100 + 47 * round as usize]).unwrap();
        drop(out);
        let events = until(&mut wire, down);
        assert_eq!(events.len(), 2);
        let Event::Packet { range, position: at, .. } = events[0] else { panic!("{events:?}") };
        assert_eq!(at, position);
        check(wire.bytes(range), 3, round);
        assert!(matches!(
            events[1],
            Event::LinkDown { kind: LinkKind::DataIn, reason: LinkError::Closed }
        ));
        position += u64::from(size);
        assert_eq!(wire.received_held(), size);
        wire.release_received(position);
        let (next, into) = tcp_pair();
        wire.attach(LinkKind::DataIn, handed_over(into));
        out = next;
    }
    assert!(position > 3 << 14, "wrapped");
}

/// A shard that releases nothing stops the sender, not more; releasing lets it go on.
#[test]
fn a_full_buffer_holds_the_sender_back() {
    let (mut wire, mut out) = receiving(1 << 14);
    let sender = std::thread::spawn(move || {
        for sequence in 0..20_000 {
            out.write_all(&packet(1024, 1, sequence)).unwrap();
        }
        out
    });
    let events = until(&mut wire, |events| events.len() == 16);
    assert_eq!(wire.received_held(), 1 << 14);
    for _ in 0..5 {
        wire.poll(Wait::UpTo(TICK));
        assert!(wire.next_event().is_none(), "more than the buffer holds");
    }
    let Event::Packet { range, position: 15360, .. } = events[15] else { panic!("{events:?}") };
    check(wire.bytes(range), 1, 15);
    let mut next = 16;
    wire.release_received(1 << 14);
    while next < 20_000 {
        wire.poll(Wait::UpTo(TICK));
        while let Some(event) = wire.next_event() {
            let Event::Packet { range, position, .. } = event else { panic!("{event:?}") };
            check(wire.bytes(range), 1, next);
            wire.release_received(position + 1024);
            next += 1;
        }
    }
    sender.join().unwrap();
}

#[test]
#[should_panic(expected = "not held")]
fn released_bytes_are_not_shown() {
    let (mut wire, mut out) = receiving(1 << 14);
    out.write_all(&packet(1024, 1, 0)).unwrap();
    let events = until(&mut wire, |events| events.len() == 1);
    wire.release_received(512);
    let Event::Packet { range, .. } = events[0] else { panic!("{events:?}") };
    wire.bytes(range);
}

/// Fills the link until its queue is full; the peer reads nothing.
fn stuffed() -> (Wire, TcpStream) {
    let (mut wire, _) = wire(1 << 16, 1 << 20);
    let (out, into) = tcp_pair();
    wire.attach(LinkKind::DataOut, handed_over(out));
    let own = wire.regions().own;
    for token in 0..FORWARDS_MAX as u64 {
        wire.forward(Range { bytes: 1 << 18, ..own }, token).unwrap();
    }
    assert_eq!(wire.forward(own, 1), Err(Refused::Full));
    for _ in 0..5 {
        wire.poll(Wait::UpTo(TICK));
    }
    (wire, into)
}

fn tokens(events: &[Event]) -> Vec<(u64, bool)> {
    let token = |event: &Event| match event {
        Event::Forwarded { token, sent } => Some((*token, *sent)),
        _ => None,
    };
    events.iter().filter_map(token).collect()
}

/// The peer goes away under a full queue: every token comes back once, in order, before the end.
#[test]
fn unsent_forwards_come_back() {
    let (mut wire, into) = stuffed();
    drop(into);
    let events = until(&mut wire, down);
    let tokens = tokens(&events);
    assert!(tokens.iter().map(|(token, _)| *token).eq(0..FORWARDS_MAX as u64));
    assert!(tokens.is_sorted_by_key(|(_, sent)| !sent), "sent ones first");
    assert!(!tokens[FORWARDS_MAX - 1].1);
    assert_eq!(wire.forward(wire.regions().own, 1), Err(Refused::Down));
    assert_eq!(wire.forward_room(), FORWARDS_MAX);
}

/// Detaching ends a send that would never end by itself; the next link starts afresh.
#[test]
fn detach_does_not_wait_for_the_peer() {
    let (mut wire, into) = stuffed();
    let start = Instant::now();
    wire.detach(LinkKind::DataOut);
    assert!(start.elapsed() < Duration::from_secs(1));
    let mut events = Vec::new();
    while let Some(event) = wire.next_event() {
        events.push(event);
    }
    assert_eq!(tokens(&events).len(), FORWARDS_MAX);
    assert_eq!(events.len(), FORWARDS_MAX, "no LinkDown");
    drop(into);
    let (out, mut into) = tcp_pair();
    wire.attach(LinkKind::DataOut, handed_over(out));
    let own = Range { bytes: 512, ..wire.regions().own };
    fill(wire.bytes_mut(own), 2, 5);
    wire.forward(own, 7).unwrap();
    let events = until(&mut wire, |events| !events.is_empty());
    assert_eq!(tokens(&events), [(7, true)]);
    let mut frame = [0; 512];
    into.read_exact(&mut frame).unwrap();
    check(&frame, 2, 5);
}

/// Links with nothing to do cost no calls, though their sockets came nonblocking.
#[test]
fn an_idle_wire_sleeps() {
    let (mut wire, _out) = receiving(1 << 16);
    let (_control, into) = tcp_pair();
    wire.attach(LinkKind::ControlIn, handed_over(into));
    wire.poll(Wait::UpTo(Duration::from_millis(300)));
    assert!(wire.next_event().is_none());
    assert!(wire.counters().enters < 6, "{:?}", wire.counters());
    assert!(wire.counters().blocks > 0);
}

#[test]
fn an_idle_sender_learns_that_its_peer_is_gone() {
    let (mut wire, _) = wire(1 << 16, 1 << 16);
    for kind in [LinkKind::DataOut, LinkKind::ControlOut] {
        let (out, into) = tcp_pair();
        wire.attach(kind, handed_over(out));
        wire.poll(Wait::UpTo(TICK));
        assert!(wire.next_event().is_none());
        drop(into);
        let events = until(&mut wire, |events| !events.is_empty());
        assert!(matches!(events[0], Event::LinkDown { kind: gone, .. } if gone == kind));
    }
}

/// Control frames pass in order though the buffers are small: full is told, nothing is lost.
#[test]
fn control_frames_pass_in_order() {
    let (mut near, _) = wire(1 << 16, 1 << 16);
    let (mut far, _) = wire(1 << 16, 1 << 16);
    assert_eq!(near.control(|_| 8), Err(Refused::Down));
    let (out, into) = tcp_pair();
    near.attach(LinkKind::ControlOut, handed_over(out));
    far.attach(LinkKind::ControlIn, handed_over(into));
    let (mut sent, mut received, mut full) = (0, 0, 0);
    while received < 5_000u64 {
        while sent < 5_000 {
            let size = HEADER_BYTES + 8 * (sent % 40) as usize;
            let result = near.control(|buffer| {
                let Some(frame) = buffer.get_mut(..size) else { return 0 };
                frame[HEADER_BYTES..].fill(sent as u8);
                header(Kind::Orders, size as u32, 1, sent).seal(frame);
                size
            });
            if result == Err(Refused::Full) {
                full += 1;
                break;
            }
            sent += 1;
        }
        near.poll(Wait::No);
        assert!(near.next_event().is_none());
        far.poll(Wait::UpTo(Duration::from_millis(1)));
        while let Some(event) = far.next_event() {
            let Event::Control { header, range } = event else { panic!("{event:?}") };
            assert_eq!(header.sequence.0, received);
            let body = &far.bytes(range)[HEADER_BYTES..];
            assert_eq!(body.len(), 8 * (received % 40) as usize);
            assert!(body.iter().all(|byte| *byte == received as u8));
            received += 1;
        }
    }
    assert!(full > 10);
    assert_eq!(far.counters().control_received, 5_000);
}

#[test]
fn garbage_on_the_control_link_closes_it() {
    let (mut wire, _) = wire(1 << 16, 1 << 16);
    for (bad, bomb) in [(vec![7; 500], false), (sealed(|header| header.kind = Kind::Value), true)] {
        let (mut out, into) = tcp_pair();
        wire.attach(LinkKind::ControlIn, handed_over(into));
        out.write_all(&bad).unwrap();
        let events = until(&mut wire, down);
        let Event::LinkDown { reason, .. } = &events[0] else { panic!("{events:?}") };
        assert_eq!(matches!(reason, LinkError::Kind { code: 1 }), bomb, "{reason}");
    }
    assert_eq!(wire.counters().bad_frames, 2);
}

/// Another thread wakes a wire that blocks, and one that does not.
#[test]
fn wakers_wake() {
    let (mut wire, waker) = wire(1 << 16, 1 << 16);
    for _ in 0..20 {
        let other = waker.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            other.wake();
        });
        let start = Instant::now();
        wire.poll(Wait::UpTo(Duration::from_secs(20)));
        assert!(start.elapsed() < Duration::from_secs(10), "lost wake-up");
        assert!(matches!(wire.next_event(), Some(Event::Woken)));
        assert!(wire.next_event().is_none());
        thread.join().unwrap();
    }
    assert!(wire.counters().blocks > 0);
    waker.wake();
    wire.poll(Wait::No);
    assert!(matches!(wire.next_event(), Some(Event::Woken)));
}
