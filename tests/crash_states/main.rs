//! Every crash state of the log writer, recovered and held against an oracle that knows only what
//! was written and what was acknowledged (see `docs/TESTING.md`, "Crash states of the log").

mod log;
#[path = "../../storage/tests/recovery/samples.rs"]
mod samples;
mod search;
mod superblock;
mod tape;

use chainring::sim::disk::DiskHandle;
use chainring::sim::random::Random;
use chainring_ring::ids::Durability;
use chainring_storage::{Disk, LogError, Superblock, SuperblockFile};
use search::{Counts, Search, Seen};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tape::{Mode, Tape};

/// States of the short form.
const STATES: u64 = 100_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

#[test]
fn what_a_crash_leaves_is_what_the_oracle_says() {
    let wanted = number("CHAINRING_CRASH_STATES").unwrap_or(STATES);
    let first = number("CHAINRING_FIRST_SEED").unwrap_or(1);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let (seen, next, began) = (Seen::default(), AtomicU64::new(first), Instant::now());
    let work = || {
        let mut counts = Counts::default();
        while seen.count() < wanted {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if let Err(wrong) = Search::new(seed, &seen, &mut counts).run() {
                panic!("CHAINRING_FIRST_SEED={seed} CHAINRING_CRASH_STATES=1: {wrong}");
            }
        }
        counts
    };
    let counts: Vec<Counts> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("see above")).collect()
    });
    let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum::<u64>();
    let (states, seconds) = (seen.count(), began.elapsed().as_secs_f64());
    println!(
        "{states} distinct crash states of {} crashes at {} places in {} histories recovered as the \
         oracle says, {} of them of a crash in a recovery, {} grown on; {:.1} s, {:.0} a second",
        sum(|c| c.crashes),
        sum(|c| c.boundaries),
        next.into_inner() - first,
        sum(|c| c.in_recovery),
        sum(|c| c.regrown),
        seconds,
        states as f64 / seconds
    );
    assert!(states >= wanted && sum(|c| c.in_recovery) > 0 && sum(|c| c.regrown) > 0);
}

/// The power fails at each operation of the making of a store: it is there whole, or not there.
#[test]
fn a_store_is_made_whole_or_not_at_all() {
    let dir = log::dir();
    let new = Superblock::new(samples::identity(), Durability::Sync, 512, 3);
    let (mut made, mut missing) = (0, 0);
    for operation in 1.. {
        let disk = DiskHandle::new(Random::new(0));
        disk.create_dir_all(dir).unwrap();
        disk.fail_after(operation);
        let done = SuperblockFile::create(&disk, dir, &new, false).is_ok();
        let mut tape = Tape::all(Mode::All, operation);
        loop {
            let crashed = disk.fork();
            crashed.crash_by(&mut tape);
            match SuperblockFile::open(&crashed, dir, &samples::identity(), false) {
                Ok((_, read)) if read == new => made += 1,
                Err(LogError::NoSuperblock { .. }) if !done => missing += 1,
                other => panic!("{} at operation {operation}: {other:?}", tape.shown()),
            }
            if !tape.advance() {
                break;
            }
        }
        if done {
            break;
        }
    }
    assert!(made > 1 && missing > 100, "{made} made, {missing} missing");
}
