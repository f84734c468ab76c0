//! The superblock over a disk of which one copy is bad: every way in which its lives can end.
//!
//! Invariants: in each life the copy is bad in any way, or in none; the power fails at any write
//! of any update, and each sector of what was not durable is kept, lost or torn. Whatever is read
//! then is no older than what was acknowledged last, and the next update succeeds.

use crate::tape::{Mode, Tape};
use crate::{log, samples};
use chainring::sim::disk::{Bad, DiskHandle};
use chainring::sim::random::Random;
use chainring_ring::ids::Durability;
use chainring_storage::superfile::{COPIES, COPY_DISTANCE, superblock_path};
use chainring_storage::{Disk, Superblock, SuperblockFile};
use std::collections::HashSet;

/// What there is between two lives.
struct State {
    disk: DiskHandle,
    /// What was acknowledged last, and what was tried last.
    acknowledged: u32,
    tried: u32,
    /// How it came to this.
    way: String,
}

/// Lives behind one another.
struct Lives {
    /// The copy that may be bad.
    copy: u64,
    seen: HashSet<(u128, u32, u32)>,
    next: Vec<State>,
}

fn numbered(start: u32) -> Superblock {
    Superblock { start, ..Superblock::new(samples::identity(), Durability::Sync, 512, 3) }
}

/// How the copy may be from now on.
fn hows() -> impl Iterator<Item = Option<Bad>> {
    [None].into_iter().chain(Bad::ALL.map(Some))
}

impl State {
    fn new() -> State {
        let disk = DiskHandle::new(Random::new(0));
        disk.create_dir_all(log::dir()).unwrap();
        SuperblockFile::create(&disk, log::dir(), &numbered(0), false).unwrap();
        State { disk, acknowledged: 0, tried: 0, way: String::new() }
    }

    fn set_bad(&self, copy: u64, how: Option<Bad>) {
        let at = copy * COPY_DISTANCE;
        let bad = how.map(|how| (at..at + 4096, how));
        assert!(self.disk.set_bad(&superblock_path(log::dir()), bad));
    }

    /// Opens it and holds what is read against what was acknowledged. None if the power fails.
    fn open(&self, disk: &DiskHandle) -> Option<SuperblockFile> {
        let opened = SuperblockFile::open(disk, log::dir(), &samples::identity(), false);
        let (file, read) = match opened {
            Ok(opened) => opened,
            Err(_) if disk.is_dark() => return None,
            Err(error) => panic!("{}: {error}", self.way),
        };
        let known = self.acknowledged..=self.tried;
        assert!(known.contains(&read.start), "{}: {} of {known:?}", self.way, read.start);
        Some(file)
    }
}

impl Lives {
    /// A life whose power fails at that operation of its updates, if it comes to it; what it
    /// leaves goes to `next`. False if it does not.
    fn live(&mut self, from: &State, how: Option<Bad>, updates: u32, operation: u64) -> bool {
        let State { mut acknowledged, mut tried, .. } = *from;
        let disk = from.disk.fork();
        disk.fail_after(operation);
        let mut file = from.open(&disk);
        for _ in 0..updates {
            let Some(file) = &mut file else { break };
            tried += 1;
            if file.write(&numbered(tried)).is_ok() {
                acknowledged = tried;
            } else {
                assert!(disk.is_dark(), "{} {how:?}: an update failed", from.way);
                break;
            }
        }
        let way = format!("{} {how:?} {operation}", from.way);
        let failed = disk.is_dark();
        let mut tape = Tape::all(Mode::All, operation);
        loop {
            let left = disk.fork();
            left.crash_by(&mut tape);
            if self.seen.insert((left.digest(), acknowledged, tried)) {
                let way = format!("{way} {}", tape.shown());
                self.next.push(State { disk: left, acknowledged, tried, way });
            }
            if !tape.advance() {
                return failed;
            }
        }
    }

    /// All the ways that lead from a state.
    fn grow(&mut self, from: &State, updates: u32) {
        for how in hows() {
            from.set_bad(self.copy, how);
            (1..).find(|operation| !self.live(from, how, updates, *operation));
        }
    }
}

fn search(copy: u64, lives: u32, updates: u32) -> usize {
    let mut search = Lives { copy, seen: HashSet::new(), next: vec![State::new()] };
    for _ in 0..lives {
        for from in std::mem::take(&mut search.next) {
            search.grow(&from, updates);
        }
    }
    // Whatever is left is read, and goes on.
    for state in std::mem::take(&mut search.next) {
        for how in hows() {
            state.set_bad(copy, how);
            let disk = state.disk.fork();
            let mut file = state.open(&disk).expect("the power stays");
            let written = file.write(&numbered(state.tried + 1));
            assert!(written.is_ok(), "{} {how:?}: the next update failed", state.way);
            let copies = disk.stable_superblocks(log::dir(), &numbered(state.tried + 1));
            assert!(copies >= 3, "{} {how:?}: {copies} copies", state.way);
        }
    }
    search.seen.len()
}

/// Each copy, in lives that go on in any state that the one before can leave.
#[test]
fn one_bad_copy_costs_neither_the_node_nor_its_memory() {
    let lives = crate::number("CHAINRING_SUPERBLOCK_LIVES").unwrap_or(2) as u32;
    for copy in 0..COPIES as u64 {
        for updates in 1..=2 {
            let states = search(copy, lives, updates);
            println!("copy {copy}, {lives} lives of {updates} updates: {states} distinct states");
            assert!(states > 100, "{states}");
        }
    }
}
