//! Many worlds, one after another on each of several threads.
//!
//! Invariant: a world depends on its seed alone; threads share nothing but the number of the next
//! seed. A panic in a world is a failure of its seed, said with the seed whatever the build does
//! about panics.

use crate::sim::faults::Kind;
use crate::sim::plan::Plan;
use crate::sim::world::{Outcome, Telling, World};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Failures after which a swarm stops by itself.
const FAILURES_MAX: usize = 20;

thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Which worlds, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    /// The first seed.
    pub first_seed: u64,
    /// So many.
    pub seeds: Option<u64>,
    /// For so long.
    pub time: Option<Duration>,
    /// Events until the faults of a world end.
    pub events: u64,
    /// At a time.
    pub threads: usize,
    /// Stop at the first failure.
    pub stop_at_first: bool,
    /// Every step is told on stderr.
    pub told: bool,
}

impl Orders {
    fn telling(&self) -> Telling {
        Telling { told: self.told, ..Telling::default() }
    }
}

/// What came of them.
#[derive(Debug)]
pub struct Report {
    /// As ordered.
    pub orders: Orders,
    /// Worlds run.
    pub seeds: u64,
    /// Inputs consumed.
    pub events: u64,
    /// Simulated time, microseconds.
    pub us: u64,
    /// Packet, storage, macro.
    pub faults: [u64; 3],
    /// In the order of [`Kind::ALL`].
    pub by_kind: Vec<u64>,
    /// Requests answered.
    pub answered: u64,
    /// Longest time from healing to all nodes being equal.
    pub healed_us: u64,
    /// Of which seed.
    pub healed_seed: u64,
    /// Time that threads spent in worlds.
    pub busy: Duration,
    /// Wall time.
    pub elapsed: Duration,
    /// Xor of the digests of all worlds.
    pub digest: u64,
    /// Worlds that failed.
    pub failures: Vec<Failure>,
}

/// A world that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// Name of the invariant, or `panic`.
    pub name: String,
    /// In words.
    pub what: String,
}

impl Report {
    /// Inputs consumed in a second of one thread.
    pub fn events_per_s_and_thread(&self) -> f64 {
        self.events as f64 / self.busy.as_secs_f64().max(1e-9)
    }

    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.us += outcome.us;
        for (sum, count) in self.faults.iter_mut().zip(outcome.faults) {
            *sum += count;
        }
        for (sum, count) in self.by_kind.iter_mut().zip(&outcome.by_kind) {
            *sum += count;
        }
        self.answered += outcome.answered;
        if outcome.healed_us > self.healed_us {
            (self.healed_us, self.healed_seed) = (outcome.healed_us, outcome.seed);
        }
        self.digest ^= outcome.digest.wrapping_mul(outcome.seed | 1);
    }
}

/// Says which seed a panic is of, and ends the process where panics abort it.
pub fn install_hook() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let Some(seed) = SEED.get() else { return before(panic) };
        eprintln!("seed {seed}: {panic}");
        if cfg!(panic = "abort") {
            eprintln!("replay it with: chainring sim --seed {seed}");
            std::process::exit(1);
        }
    }));
}

/// Runs one world.
///
/// # Errors
/// [`Failure`]: an invariant was violated, or the code panicked.
pub fn run_seed(seed: u64, events: u64, telling: Telling) -> (Option<Outcome>, Option<Failure>) {
    SEED.set(Some(seed));
    let ran = catch_unwind(AssertUnwindSafe(|| World::new(Plan::new(seed, events), telling).run()));
    SEED.set(None);
    match ran {
        Ok(outcome) => {
            let failure = outcome.violation.as_ref().map(|violation| Failure {
                seed,
                name: violation.invariant.name().to_owned(),
                what: format!("{violation} [{}]", Plan::new(seed, events).summary()),
            });
            (Some(outcome), failure)
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let what = text.unwrap_or_else(|| "no message".to_owned());
            let what = format!("{what} [{}]", Plan::new(seed, events).summary());
            (None, Some(Failure { seed, name: "panic".to_owned(), what }))
        }
    }
}

/// Runs worlds as ordered; `tell` is called now and then with the report so far.
pub fn swarm(orders: Orders, tell: &(dyn Fn(&Report) + Sync)) -> Report {
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let report = Mutex::new(Report {
        orders,
        seeds: 0,
        events: 0,
        us: 0,
        faults: [0; 3],
        by_kind: vec![0; Kind::ALL.len()],
        answered: 0,
        healed_us: 0,
        healed_seed: 0,
        busy: Duration::ZERO,
        elapsed: Duration::ZERO,
        digest: 0,
        failures: Vec::new(),
    });
    std::thread::scope(|scope| {
        for _ in 0..orders.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let late = orders.time.is_some_and(|time| start.elapsed() >= time);
                    let done = orders.seeds.is_some_and(|seeds| number >= seeds);
                    if late || done || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let began = Instant::now();
                    let seed = orders.first_seed.wrapping_add(number);
                    let (outcome, failure) = run_seed(seed, orders.events, orders.telling());
                    let mut report = report.lock().expect("no panic while it is held");
                    report.busy += began.elapsed();
                    report.elapsed = start.elapsed();
                    if let Some(outcome) = &outcome {
                        report.add(outcome);
                    }
                    report.failures.extend(failure);
                    let failures = report.failures.len();
                    if failures >= if orders.stop_at_first { 1 } else { FAILURES_MAX } {
                        stop.store(true, Ordering::Relaxed);
                    }
                    tell(&report);
                }
            });
        }
    });
    let mut report = report.into_inner().expect("no panic while it was held");
    report.elapsed = start.elapsed();
    report.failures.sort_by_key(|failure| failure.seed);
    report
}
