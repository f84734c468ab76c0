//! Goes through the crash states of one history after another.
//!
//! Invariants: a state is recovered once, however often it comes up; a history depends on its seed
//! alone.

use crate::log::{Log, Oracle, Shape};
use crate::tape::{Mode, Tape};
use chainring::sim::disk::{DiskHandle, Rates};
use chainring::sim::random::Random;
use chainring_ring::ids::Durability;
use chainring_storage::{SuperblockFile, create_segment};
use std::collections::HashSet;
use std::sync::Mutex;

/// Sectors under way at most: all subsets of them are gone through. Many short histories and a few
/// wide ones.
const SECTORS_MAX: [u32; 8] = [6, 6, 6, 6, 8, 8, 10, 12];
/// Ways of one crash that are gone through; of more, as many by chance.
const WAYS_MAX: u64 = 1 << 12;
/// Of a crash in the middle of a recovery or of a superblock.
const INNER_WAYS_MAX: u64 = 128;
/// Ways up to which sectors are kept, lost and torn in every mixture.
const MIXED_WAYS_MAX: u64 = 1 << 6;

/// What was gone through, over all threads.
#[derive(Default)]
pub struct Seen {
    states: Mutex<HashSet<u64>>,
}

impl Seen {
    /// States so far.
    pub fn count(&self) -> u64 {
        self.states.lock().unwrap().len() as u64
    }

    fn is_new(&self, disk: &DiskHandle, shape: Shape, oracle: &Oracle) -> bool {
        let promise = u64::from(oracle.promised.round) << 32 | u64::from(oracle.start);
        let duties = oracle.acknowledged as u64 | u64::from(shape.nodes) << 32;
        let mixed = promise.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ duties.rotate_left(29);
        let state = disk.digest() as u64 ^ mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.states.lock().unwrap().insert(state)
    }
}

/// Counts of one thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Crashes, those that led to a state seen before among them.
    pub crashes: u64,
    /// Places in a history at which the power failed.
    pub boundaries: u64,
    /// Of the states, those of a crash in the middle of a recovery.
    pub in_recovery: u64,
    /// Of the states, those written on after recovery, and recovered again.
    pub regrown: u64,
}

/// Goes through one history.
pub struct Search<'a> {
    seen: &'a Seen,
    pub counts: &'a mut Counts,
    random: Random,
    shape: Shape,
    sectors_max: u32,
    /// Where in the history, for a report.
    at: String,
}

impl<'a> Search<'a> {
    /// Of the history of a seed.
    pub fn new(seed: u64, seen: &'a Seen, counts: &'a mut Counts) -> Search<'a> {
        let mut random = Random::stream(seed, "crash states");
        let durabilities = [Durability::Sync, Durability::Async];
        let shape = Shape {
            nodes: *random.pick(&[1, 3, 3]),
            durability: *random.pick(&durabilities),
            groups_in_flight: random.range(2..4) as u32,
            preallocate: random.range(1..3) as usize,
        };
        let sectors_max = *random.pick(&SECTORS_MAX);
        Search { seen, counts, random, shape, sectors_max, at: String::new() }
    }

    /// Lets a log live and crash, a few times over. The error says where and what.
    pub fn run(mut self) -> Result<(), String> {
        let mut log = Log::new(self.shape);
        for life in 0..self.random.range(1..5) {
            self.fill(&mut log);
            for step in 0..self.random.range(2..9) {
                self.at = format!("life {life} step {step}");
                self.step(&mut log).map_err(|wrong| self.report(&wrong))?;
            }
            self.at = format!("the end of life {life}");
            log = self.next_life(&log).map_err(|wrong| self.report(&wrong))?;
        }
        Ok(())
    }

    fn report(&self, wrong: &str) -> String {
        format!("{} of {:?}: {wrong}", self.at, self.shape)
    }

    /// Groups that are complete before the power can fail: many of them, so that segments roll.
    fn fill(&mut self, log: &mut Log) {
        let groups = if self.random.coin() { 0 } else { self.random.range(1..19) };
        for _ in 0..groups {
            self.make_segments(log);
            log.submit(1, &[1]);
            log.complete(0);
        }
    }

    fn make_segments(&mut self, log: &mut Log) {
        while let Some(number) = log.writer.segment_wanted() {
            log.make_segment(number);
        }
    }

    /// Something happens, and the power fails on the way and behind it.
    fn step(&mut self, log: &mut Log) -> Result<(), String> {
        if let Some(number) = log.writer.segment_wanted() {
            return self.segment(log, number);
        }
        let room = self.sectors_max.saturating_sub(log.sectors());
        // A group that is done waits for those before it.
        let waiting = log.oracle.groups.len() - log.oracle.acknowledged;
        let full = waiting as u32 >= self.shape.groups_in_flight || room < 2;
        match self.random.below(8) {
            0 => return self.superblock(log),
            1..=3 if !log.flying.is_empty() => {
                log.complete(self.random.below(log.flying.len() as u64) as usize);
            }
            _ if full => log.complete(self.random.below(log.flying.len() as u64) as usize),
            4 if log.writer.needs_seal() => log.submit_seal(),
            _ => self.group(log, room.min(8)),
        }
        self.crash(&log.disk, &log.oracle, WAYS_MAX)
    }

    /// A group of at most so many sectors.
    fn group(&mut self, log: &mut Log, sectors: u32) {
        let mut room = sectors - 1;
        let mut values = Vec::new();
        while room > 0 && values.len() < 3 && (values.is_empty() || self.random.coin()) {
            let size = 1 + self.random.below(u64::from(room)) as u32;
            values.push(size);
            room -= size;
        }
        match self.random.below(4) {
            0 => log.submit(1 + self.random.below(6) as usize, &[]),
            1 => log.submit(0, &values),
            _ => log.submit(values.len(), &values),
        }
    }

    /// The power fails at each operation of the making of a segment.
    fn segment(&mut self, log: &mut Log, number: u32) -> Result<(), String> {
        for operation in 1.. {
            let disk = log.disk.fork();
            disk.fail_after(operation);
            let config = crate::log::config(&disk, self.shape);
            if create_segment(crate::log::dir(), &config, number).is_ok() {
                break;
            }
            self.crash(&disk, &log.oracle, INNER_WAYS_MAX)?;
        }
        log.make_segment(number);
        self.crash(&log.disk, &log.oracle, INNER_WAYS_MAX)
    }

    /// The power fails at each copy of the superblock that is written.
    fn superblock(&mut self, log: &mut Log) -> Result<(), String> {
        let next = log.promise();
        for operation in 2..=5 {
            let disk = log.disk.fork();
            let identity = &log.config.identity;
            let opened = SuperblockFile::open(&disk, crate::log::dir(), identity, false);
            let (mut file, _) = opened.map_err(|error| error.to_string())?;
            disk.fail_after(operation - 1);
            let written = file.write(&next).is_ok();
            let mut oracle = log.oracle.clone();
            if written {
                // Three copies of four are enough, and then the promise counts.
                oracle.promised = next.promised;
            }
            self.crash(&disk, &oracle, INNER_WAYS_MAX)?;
        }
        log.write_superblock();
        self.crash(&log.disk, &log.oracle, WAYS_MAX)
    }

    /// The power fails now, in every way there is, or in `most` by chance.
    fn crash(&mut self, disk: &DiskHandle, oracle: &Oracle, most: u64) -> Result<(), String> {
        self.counts.boundaries += 1;
        let salt = self.random.bits();
        let mut count = Tape::all(Mode::KeptLost, salt);
        disk.fork().crash_by(&mut count);
        if count.ways() > most {
            let random = self.random.split(salt);
            return self.play(disk, oracle, Tape::some(random, salt, most));
        }
        if count.ways() <= MIXED_WAYS_MAX {
            return self.play(disk, oracle, Tape::all(Mode::All, salt));
        }
        self.play(disk, oracle, Tape::all(Mode::KeptLost, salt))?;
        self.play(disk, oracle, Tape::all(Mode::KeptTorn, salt))
    }

    fn play(&mut self, disk: &DiskHandle, oracle: &Oracle, mut tape: Tape) -> Result<(), String> {
        loop {
            let crashed = disk.fork();
            crashed.crash_by(&mut tape);
            self.counts.crashes += 1;
            if self.seen.is_new(&crashed, self.shape, oracle) {
                self.counts.in_recovery += u64::from(oracle.again);
                self.recover(&crashed, oracle)
                    .map_err(|wrong| format!("{} {wrong}", tape.shown()))?;
            }
            if !tape.advance() {
                return Ok(());
            }
        }
    }

    /// What is left has to be what the oracle says; now and then the log grows on.
    fn recover(&mut self, crashed: &DiskHandle, oracle: &Oracle) -> Result<(), String> {
        if self.random.below(32) > 0 {
            return Log::verify(crashed, self.shape, oracle);
        }
        let mut log = Log::start(crashed, self.shape, oracle)?;
        for _ in 0..1 + self.random.below(2) {
            self.make_segments(&mut log);
            self.group(&mut log, 8);
        }
        if self.random.coin() {
            log.complete(0);
        }
        let mut tape = Tape::some(self.random.split(1), 0, 1);
        crashed.crash_by(&mut tape);
        self.counts.regrown += 1;
        let grown = |wrong| format!("grown on, crashed by {}: {wrong}", tape.shown());
        Log::verify(crashed, self.shape, &log.oracle).map_err(grown)
    }

    /// Crashes in some way, goes through all the ways in which the recovery can crash, and through
    /// some in which the one behind it can, and starts over what one of them left.
    fn next_life(&mut self, log: &Log) -> Result<Log, String> {
        let disk = log.disk.fork();
        let mut tape = Tape::some(self.random.split(2), 0, 1);
        disk.crash_by(&mut tape);
        let oracle = log.oracle.recovered(&disk);
        let again = self.crash_recovery(&disk, &oracle)?;
        let again_disk = again.unwrap_or_else(|| disk.fork());
        let third = self.crash_recovery(&again_disk, &oracle)?;
        let left = match self.random.below(3) {
            0 => third.unwrap_or(again_disk),
            1 => again_disk,
            _ => disk,
        };
        left.set_rates(Rates::default());
        Log::start(&left, self.shape, &oracle)
    }

    /// The power fails at each operation of a start over `disk`. Returns what one of them left.
    fn crash_recovery(
        &mut self,
        disk: &DiskHandle,
        oracle: &Oracle,
    ) -> Result<Option<DiskHandle>, String> {
        let mut left = None;
        for operation in 1.. {
            let started = disk.fork();
            started.fail_after(operation);
            if Log::try_start(&started, self.shape) && !started.is_dark() {
                break;
            }
            let at = |wrong| format!("at operation {operation} of the recovery: {wrong}");
            self.crash(&started, oracle, INNER_WAYS_MAX).map_err(at)?;
            if self.random.below(4) == 0 {
                self.kill_recovery(&started, oracle).map_err(at)?;
            }
            if left.is_none() || self.random.below(operation) == 0 {
                started.crash_by(&mut Tape::some(self.random.split(operation), 0, 1));
                left = Some(started);
            }
        }
        Ok(left)
    }

    /// The process is killed and the power fails only in the recovery behind that: what was in the
    /// cache was seen by that one, and is lost after all.
    fn kill_recovery(&mut self, started: &DiskHandle, oracle: &Oracle) -> Result<(), String> {
        let disk = started.fork();
        disk.kill_by(&mut Tape::all(Mode::KeptLost, 0));
        disk.fail_after(self.random.range(1..40));
        let whole = Log::try_start(&disk, self.shape);
        let at = |wrong| format!("killed, and the next recovery crashed, {whole}: {wrong}");
        self.crash(&disk, oracle, INNER_WAYS_MAX / 4).map_err(at)
    }
}
