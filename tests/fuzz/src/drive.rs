//! The deterministic driver: seeds are spoilt by a seeded stream, block by block, on all cores.
//!
//! Invariants: the executions of a block are a function of (seed, target, number of the block),
//! whichever thread runs it; time is shared equally between the targets.

use crate::mutate::mutate;
use crate::random::Random;
use crate::trial::{Failure, Taken, judge};
use crate::{Target, regressions};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Executions of a block.
pub const BLOCK: u64 = 256;
/// Changes between two fresh seeds: 1, often, to 2 to the power of one less than this, seldom.
const CHAIN: usize = 5;
/// A block that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of the random streams.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// The end by time.
    pub time: Option<Duration>,
    /// The end by executions of each target, rounded up to blocks.
    pub executions: Option<u64>,
}

/// What was done with one target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Executions.
    pub executions: u64,
    /// Of these, inputs taken for good ones.
    pub accepted: u64,
    /// Longest time of one.
    pub time: Duration,
    /// Most memory of one, bytes.
    pub memory: usize,
    /// Time of all threads.
    pub spent: Duration,
    /// Blocks begun.
    blocks: u64,
}

/// What all threads share.
struct State {
    done: Vec<Done>,
    /// By thread: target, block, since when.
    running: Vec<Option<(usize, u64, Instant)>>,
}

/// An input that failed.
#[derive(Clone, Debug)]
pub struct Found {
    /// Name of the target.
    pub target: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
    /// How.
    pub failure: Failure,
}

/// Runs `targets` until the plan ends or an input fails.
pub fn drive(plan: &Plan, targets: &[&'static Target]) -> (Vec<Done>, Option<Found>) {
    let begin = Instant::now();
    let seeds: Vec<Vec<Vec<u8>>> = targets.iter().map(|target| seeds_of(target)).collect();
    let running = vec![None; plan.threads];
    let state = Mutex::new(State { done: vec![Done::default(); targets.len()], running });
    let found: Mutex<Option<Found>> = Mutex::new(None);
    let end = AtomicBool::new(false);
    let late = || plan.time.is_some_and(|time| begin.elapsed() >= time);
    let work = |thread: usize| {
        while !end.load(SeqCst) && !late() {
            let Some((index, block)) = lock(&state).next(plan, thread) else { break };
            let target = targets[index];
            let begin = Instant::now();
            let random = Random::of_block(plan.seed, target.name, block);
            let result = run_block(target, &seeds[index], random);
            lock(&state).finish(thread, index, begin.elapsed(), result.as_ref().ok());
            if let Err((bytes, failure)) = result {
                end.store(true, SeqCst);
                *lock(&found) = Some(Found { target: target.name, bytes, failure });
            }
        }
    };
    let work = &work;
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..plan.threads).map(|thread| scope.spawn(move || work(thread))).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            lock(&state).watch(targets);
        }
    });
    let done = std::mem::take(&mut lock(&state).done);
    (done, lock(&found).take())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds it")
}

impl State {
    /// The next block of the target that had the least time.
    fn next(&mut self, plan: &Plan, thread: usize) -> Option<(usize, u64)> {
        let open = |done: &Done| plan.executions.is_none_or(|most| done.blocks * BLOCK < most);
        let least = self.done.iter_mut().enumerate().filter(|(_, done)| open(done));
        let (index, done) = least.min_by_key(|(_, done)| (done.spent, done.blocks))?;
        let block = done.blocks;
        done.blocks += 1;
        self.running[thread] = Some((index, block, Instant::now()));
        Some((index, block))
    }

    fn finish(&mut self, thread: usize, index: usize, spent: Duration, block: Option<&Done>) {
        self.running[thread] = None;
        let done = &mut self.done[index];
        done.spent += spent;
        if let Some(block) = block {
            done.executions += block.executions;
            done.accepted += block.accepted;
            done.time = done.time.max(block.time);
            done.memory = done.memory.max(block.memory);
        }
    }

    /// Ends the process where a block hangs: a thread cannot be stopped.
    fn watch(&self, targets: &[&'static Target]) {
        for (index, block, since) in self.running.iter().flatten() {
            if since.elapsed() > HANG {
                eprintln!("{}: block {block} hangs", targets[*index].name);
                std::process::exit(1);
            }
        }
    }
}

/// Its seeds, and what failed once.
pub fn seeds_of(target: &Target) -> Vec<Vec<u8>> {
    let mut seeds = (target.seeds)();
    seeds.extend(regressions::of(target).into_iter().map(|(_, bytes)| bytes));
    seeds.retain(|seed| seed.len() <= target.bytes_max);
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    seeds
}

fn run_block(
    target: &Target,
    seeds: &[Vec<u8>],
    mut random: Random,
) -> Result<Done, (Vec<u8>, Failure)> {
    let mut done = Done::default();
    let (mut bytes, mut left) = (Vec::new(), 0);
    for _ in 0..BLOCK {
        if left == 0 {
            let power = random.below(CHAIN);
            left = 1 + random.below(1 << power);
            bytes.clear();
            bytes.extend_from_slice(&seeds[random.below(seeds.len())]);
        }
        left -= 1;
        change(target, &mut bytes, seeds, &mut random);
        match judge(target, &bytes) {
            Ok(taken) => done.add(&taken),
            Err(failure) => return Err((bytes, failure)),
        }
    }
    Ok(done)
}

impl Done {
    fn add(&mut self, taken: &Taken) {
        self.executions += 1;
        self.accepted += u64::from(taken.accepted);
        self.time = self.time.max(taken.time);
        self.memory = self.memory.max(taken.memory);
    }
}

/// Some changes and the repair.
pub fn change(target: &Target, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    for _ in 0..1 + random.below(2) {
        let other = &seeds[random.below(seeds.len())];
        mutate(bytes, target.bytes_max, target.words, other, random);
    }
    (target.repair)(bytes, random);
    bytes.truncate(target.bytes_max);
}
