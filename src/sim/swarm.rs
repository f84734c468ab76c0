//! Many worlds, one after another on each of several threads.
//!
//! Invariants: a world depends on its seed alone; threads share nothing but the number of the next
//! seed; whatever the threads do, the lowest seed that fails is among those that are reported. A
//! panic in a world is a failure of its seed, said with the seed whatever the build does about
//! panics.

use crate::sim::course::{Course, Names};
use crate::sim::faults::{Kind, Name};
use crate::sim::journal::Journal;
use crate::sim::observer::Invariant;
use crate::sim::plan::Plan;
use crate::sim::world::{Outcome, Telling, World};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The name of a failure that is a panic.
pub const PANIC: &str = "panic";

thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}
/// Panics are expected, and said later.
static QUIET: AtomicBool = AtomicBool::new(false);

/// When a swarm ends before all its worlds have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// After so many failures.
    Failures(usize),
    /// After the first violation of a named invariant other than that all ends well.
    Named,
}

/// Which worlds, and how many.
#[derive(Clone, Debug)]
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
    /// When to stop.
    pub stop: Stop,
    /// Every step is told on stderr.
    pub told: bool,
    /// What is left of each of them.
    pub course: Course,
    /// Set from outside: no world begins any more.
    pub ended: Arc<AtomicBool>,
}

impl Orders {
    /// The plan of a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::new(seed, self.events);
        self.course.settings.apply(&mut plan);
        plan
    }

    /// The faults that may happen, if not all.
    pub fn only(&self) -> Option<BTreeSet<Name>> {
        self.course.only.as_ref().map(|names| names.0.clone())
    }

    fn telling(&self) -> Telling {
        let journal = match (self.told, &self.course.only) {
            (true, _) => Journal::loud(),
            (false, Some(_)) => Journal::keeping(0),
            (false, None) => Journal::default(),
        };
        Telling { journal, only: self.only(), blind: false }
    }

    /// True if they are not wanted any more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn is_enough(&self, failures: &[Failure]) -> bool {
        match self.stop {
            Stop::Failures(most) => failures.len() >= most,
            Stop::Named => failures.iter().any(Failure::is_named),
        }
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
    /// Longest time from healing to all nodes being equal, and of which seed; none if no world
    /// came so far.
    pub healed: Option<(u64, u64)>,
    /// Time that threads spent in worlds.
    pub busy: Duration,
    /// Processor time of it.
    pub processor: Duration,
    /// Wall time.
    pub elapsed: Duration,
    /// Xor of the digests of all worlds.
    pub digest: u64,
    /// Worlds that failed.
    pub failures: Vec<Failure>,
    /// Faults that alone might happen, and did not.
    pub missing: Names,
}

/// A world that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// Name of the invariant, or `panic`.
    pub name: String,
    /// In words.
    pub what: String,
}

impl Failure {
    /// True if it broke a named invariant, and did more than panic or not come to an end.
    pub fn is_named(&self) -> bool {
        self.name != PANIC && self.name != Invariant::L1.name()
    }
}

impl Report {
    fn empty(orders: Orders) -> Report {
        Report {
            orders,
            seeds: 0,
            events: 0,
            us: 0,
            faults: [0; 3],
            by_kind: vec![0; Kind::ALL.len()],
            answered: 0,
            healed: None,
            busy: Duration::ZERO,
            processor: Duration::ZERO,
            elapsed: Duration::ZERO,
            digest: 0,
            failures: Vec::new(),
            missing: Names::default(),
        }
    }

    /// Inputs consumed in a second of wall time, by all threads together.
    pub fn events_per_s(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Inputs consumed in a second of processor time: what a core of its own would do.
    pub fn events_per_cpu_s(&self) -> f64 {
        self.events as f64 / self.processor.as_secs_f64().max(1e-9)
    }

    fn add(&mut self, outcome: &Outcome) {
        self.events += outcome.events;
        self.us += outcome.us;
        for (sum, count) in self.faults.iter_mut().zip(outcome.faults) {
            *sum += count;
        }
        for (sum, count) in self.by_kind.iter_mut().zip(&outcome.by_kind) {
            *sum += count;
        }
        self.answered += outcome.answered;
        let Outcome { seed, healed_us, .. } = *outcome;
        if healed_us > self.healed.map_or(0, |(us, _)| us) {
            self.healed = Some((healed_us, seed));
        }
        self.digest ^= outcome.digest.wrapping_mul(outcome.seed | 1);
    }
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Says which seed a panic is of. Where panics abort the process nothing could be said later: there
/// `last_words` are given the failure, and the process ends with 1.
pub fn install_hook(last_words: impl Fn(&Failure) + Send + Sync + 'static) {
    // Other threads may panic as well: the first has the word, and keeps it.
    let ending = Mutex::new(());
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let Some(seed) = SEED.get() else { return before(panic) };
        if QUIET.load(Ordering::Relaxed) && !cfg!(panic = "abort") {
            return;
        }
        eprintln!("seed {seed}: {panic}");
        if cfg!(panic = "abort") {
            let _ending = ending.lock();
            last_words(&Failure { seed, name: PANIC.to_owned(), what: panic.to_string() });
            std::process::exit(1);
        }
    }));
}

/// Panics in worlds are not said any more, or again, as they happen.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Runs one world. What came of it, unless it panicked; how it failed, if it did.
pub fn run(plan: Plan, telling: Telling) -> (Option<Outcome>, Option<Failure>) {
    let (seed, summary) = (plan.seed, plan.summary());
    SEED.set(Some(seed));
    let ran = catch_unwind(AssertUnwindSafe(|| World::new(plan, telling).run()));
    SEED.set(None);
    let failure = |name: &str, what: &str| {
        Some(Failure { seed, name: name.to_owned(), what: format!("{what} [{summary}]") })
    };
    match ran {
        Ok(outcome) => {
            let violation = outcome.violation.as_ref();
            let failure =
                violation.and_then(|seen| failure(seen.invariant.name(), &seen.to_string()));
            (Some(outcome), failure)
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            (None, failure(PANIC, text.unwrap_or("no message")))
        }
    }
}

/// Runs worlds as ordered; `tell` is called now and then with the report so far.
pub fn swarm(orders: Orders, tell: &(dyn Fn(&Report) + Sync)) -> Report {
    let threads = orders.threads.max(1);
    let swarm = Swarm {
        start: Instant::now(),
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        report: Mutex::new(Report::empty(orders.clone())),
        orders,
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = swarm.next_seed() {
                    swarm.world(seed, tell);
                }
            });
        }
    });
    let mut report = swarm.report.into_inner().expect("no panic while it was held");
    report.elapsed = swarm.start.elapsed();
    report.failures.sort_by_key(|failure| failure.seed);
    report
}

/// What its threads share.
struct Swarm {
    orders: Orders,
    start: Instant,
    /// Worlds that have begun.
    next: AtomicU64,
    /// There were failures enough.
    stop: AtomicBool,
    report: Mutex<Report>,
}

impl Swarm {
    /// The next world, unless it is over.
    fn next_seed(&self) -> Option<u64> {
        let Orders { first_seed, seeds, time, .. } = self.orders;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let late = time.is_some_and(|time| self.start.elapsed() >= time);
        let done = seeds.is_some_and(|seeds| number >= seeds);
        let over = late || done || self.stop.load(Ordering::Relaxed) || self.orders.has_ended();
        (!over).then(|| first_seed.wrapping_add(number))
    }

    fn world(&self, seed: u64, tell: &dyn Fn(&Report)) {
        let (began, processor) = (Instant::now(), processor_time());
        let telling = self.orders.telling();
        let journal = telling.journal.clone();
        let (outcome, failure) = run(self.orders.plan(seed), telling);
        let mut report = self.report.lock().expect("no panic while it is held");
        report.busy += began.elapsed();
        report.processor += processor_time().saturating_sub(processor);
        report.elapsed = self.start.elapsed();
        if let Some(outcome) = &outcome {
            report.add(outcome);
        }
        if let Some(names) = &self.orders.course.only {
            report.missing = names.missing(&journal.tape());
        }
        report.seeds += 1;
        report.failures.extend(failure);
        if self.orders.is_enough(&report.failures) {
            self.stop.store(true, Ordering::Relaxed);
        }
        tell(&report);
    }
}
