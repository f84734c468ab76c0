//! Writes straight from packet memory to a file without page cache, on stable media when told.

mod common;

use chainring_net::mailbox::Waker;
use chainring_net::pool::Range;
use chainring_net::uring::UringError;
use chainring_net::wire::{Event, LinkKind, Refused, WRITES_MAX, Wait, Wire};
use common::{arena, check, fill, options, tcp_pair};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

fn made(fixed: bool) -> Wire {
    let mut options = options(1 << 14, Duration::ZERO);
    options.uring.fixed = fixed;
    match Wire::new(options, arena(1 << 16, 1 << 16), Waker::new().unwrap()) {
        Err(error @ UringError::Memlock { .. }) => {
            println!("writing from plain memory instead: {error}");
            made(false)
        }
        result => result.unwrap(),
    }
}

/// In the build directory, not in /tmp, which is often memory and knows no O_DIRECT.
fn direct(name: &str) -> (OwnedFd, std::path::PathBuf) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let file = open.open(&path).expect("a build directory on a file system with O_DIRECT");
    (file.into(), path)
}

fn next(wire: &mut Wire) -> Event {
    for _ in 0..500 {
        if let Some(event) = wire.next_event() {
            return event;
        }
        wire.poll(Wait::UpTo(Duration::from_millis(20)));
    }
    panic!("nothing happened in 10 s");
}

/// A commit group: a block, then packets as they lie in the receive buffer, across its end.
fn commit_group(fixed: bool) {
    let mut wire = made(fixed);
    let (mut out, into) = tcp_pair();
    wire.attach(LinkKind::DataIn, into.into());
    let (file, path) = direct(if fixed { "fixed.log" } else { "plain.log" });
    let (mut sequence, mut offset) = (0, 0);
    for round in 0..40u8 {
        let block = Range { bytes: 4096, ..wire.regions().blocks };
        wire.bytes_mut(block).fill(round + 1);
        let mut ranges = vec![block];
        let mut end = 0;
        for _ in 0..3 {
            let mut frame = [0; 1536];
            fill(&mut frame, 1, sequence);
            out.write_all(&frame).unwrap();
            let Event::Packet { range, position, .. } = next(&mut wire) else { panic!() };
            check(wire.bytes(range), 1, sequence);
            ranges.push(range);
            end = position + 1536;
            sequence += 1;
        }
        wire.write(u64::from(round), &file, &ranges, offset, true).unwrap();
        let Event::Written { token, result } = next(&mut wire) else { panic!() };
        assert_eq!((token, result), (u64::from(round), Ok(4096 + 3 * 1536)));
        offset += 4096 + 3 * 1536;
        wire.release_received(end);
    }
    let written = std::fs::read(path).unwrap();
    assert_eq!(written.len() as u64, offset);
    for (round, group) in written.chunks(4096 + 3 * 1536).enumerate() {
        assert!(group[..4096].iter().all(|byte| usize::from(*byte) == round + 1));
        for (index, frame) in group[4096..].chunks(1536).enumerate() {
            check(frame, 1, (3 * round + index) as u64);
        }
    }
    assert!(wire.counters().bytes_received > 2 << 16, "the buffer wrapped");
}

#[test]
fn groups_from_registered_memory() {
    commit_group(true);
    if !made(true).fixed() {
        println!("no WRITEV_FIXED here; the plain write was tested twice");
    }
}

#[test]
fn groups_from_plain_memory() {
    commit_group(false);
    assert!(!made(false).fixed());
}

#[test]
fn failures_are_told_and_writes_are_bounded() {
    let mut wire = made(true);
    let blocks = wire.regions().blocks;
    let (file, _) = direct("bounded.log");
    let reader: OwnedFd = File::open("/dev/null").unwrap().into();
    wire.write(9, &reader, &[blocks], 0, true).unwrap();
    let Event::Written { token: 9, result: Err(errno) } = next(&mut wire) else { panic!() };
    assert_eq!(errno, libc::EBADF);
    // O_DIRECT refuses a place that is not aligned.
    wire.write(10, &file, &[blocks], 100, false).unwrap();
    let Event::Written { token: 10, result: Err(errno) } = next(&mut wire) else { panic!() };
    assert_eq!(errno, libc::EINVAL);
    for token in 0..WRITES_MAX as u64 {
        wire.write(token, &file, &[blocks], token << 16, false).unwrap();
    }
    let more = wire.write(99, &file, &[blocks], 0, false);
    assert_eq!(more, Err(Refused::Full));
    assert_eq!(wire.writes_open(), WRITES_MAX);
    let mut seen = [false; WRITES_MAX];
    for _ in 0..WRITES_MAX {
        let Event::Written { token, result } = next(&mut wire) else { panic!() };
        assert_eq!(result, Ok(blocks.bytes));
        assert!(!std::mem::replace(&mut seen[token as usize], true));
    }
    assert_eq!(wire.writes_open(), 0);
}
