//! `chainring sim`: worlds of the simulator, and what they showed.
//!
//! Invariants: the first seed is always said; marks and faults are those of the worlds that were
//! asked for, not of the runs that make a failure small.

use super::out::{Exit, Failure, Format, Output, finish, progress, say};
use crate::sim::course::{Course, Names, Settings};
use crate::sim::plan::{EVENTS, Plan};
use crate::sim::shrink::shrink;
use crate::sim::swarm::{self, Orders, Stop, swarm};
use chainring_ring::marks;
use clap::Args;
use mutants::planted;
use show::{number, replay};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(feature = "mutants")]
mod mutants;
#[cfg(not(feature = "mutants"))]
#[path = "sim/no_mutants.rs"]
mod mutants;
mod show;
mod signals;

/// What `--help` says behind the arguments.
pub(super) const HELP: &str = "Example:
  chainring sim --seconds 60                    worlds for a minute, on all processors
  chainring sim --seeds 3000 --first-seed 1     so many, from this one on
  chainring sim --seed 4711                     this world again, exactly
  chainring sim --seed 4711 --trace             and every fault, and every step of its cores
  chainring sim --seed 4711 --plan nodes=2 --faults Crash:3,Lose:12
                                                the short course of a failure, as it was printed

A seed is a world: with the same --events it has one course on every machine, in every build of one
commit. Ends with 0 if nothing was violated, 1 if something was, 2 if it was called wrongly, 130 if a
signal ended it before that. The first signal (Ctrl-C) lets the worlds under way come to their end
and prints what all showed, or the shortest course so far; the second ends it at once. Of each world
that failed the seed and the invariant are printed; of the first of them the line that replays it and
the shortest course that was found. Marks that were not hit are listed of 100 worlds or more.

With --format json: one object with v (1), commit, threads, first_seed, seeds, seconds, events,
events_per_s, events_per_cpu_s, simulated_hours, faults {packet, storage, macro}, faults_by_kind,
requests, healed_s_max and healed_seed (null if no world came so far), interrupted, violations,
failures [{seed, invariant, what}], marks_hit, marks_total, marks_not_hit, marks {name: count, to about
100,000}, digest; of a single world also world, its sizes in a line; after a failure also replay, and
shrunk {seed, invariant, what, replay, faults [{at_us, kind, number, place}], faults_before, requests,
events, simulated_us, runs, seconds, steps}.
Where a panic ends the process, as in a release, only v, commit, first_seed, violations, failures and
replay.

A build with --features mutants has --mutant and --mutants, hunts for faults that are planted. They
end with 0 if all were caught, and print v, commit, first_seed, threads, mutants [{mutant, expected,
caught {by, seeds, seed, what, replay}, panicked, unsettled, seeds, seconds}], caught, interrupted,
seeds_median, seeds_worst.";

/// Failures after which a swarm ends by itself.
const FAILURES_MAX: usize = 20;
/// How often a terminal hears of the progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// Arguments of `sim`.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// Run this world again, exactly.
    #[arg(long, conflicts_with_all = ["seeds", "seconds", "first_seed"])]
    pub seed: Option<u64>,
    /// Run so many worlds, one after another.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// Run worlds for so many seconds; those that have begun by then come to their end.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,
    /// The first seed; by default the clock says it, and it is printed.
    #[arg(long)]
    pub first_seed: Option<u64>,
    /// Events of a world until its faults end.
    #[arg(long, default_value_t = EVENTS,
        value_parser = clap::value_parser!(u64).range(1..=EVENTS_MAX))]
    pub events: u64,
    /// Worlds at a time; by default one for each processor.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Look so long for the shortest course of the first failure; 0 for not at all.
    #[arg(long, default_value_t = 60)]
    pub shrink_seconds: u64,
    /// Lower numbers of the world's plan, as the line of a short course says.
    #[arg(long, value_name = "NAME=NUMBER,...", requires = "seed",
        conflicts_with_all = ["seeds", "seconds", "first_seed"])]
    pub plan: Option<Settings>,
    /// Let these faults happen and no others, as the line of a short course says.
    #[arg(long, value_name = "KIND:NUMBER,...|none", requires = "seed",
        conflicts_with_all = ["seeds", "seconds", "first_seed"])]
    pub faults: Option<Names>,
    /// Tell every fault and every step of every core on stderr.
    #[arg(long, requires = "seed", conflicts_with_all = ["seeds", "seconds", "first_seed"])]
    pub trace: bool,
    /// Plant this fault: a name, several (hunted one after another), none, or list for all names.
    #[arg(long, value_name = "NAME,...|none|list", conflicts_with = "mutants",
        hide = cfg!(not(feature = "mutants")))]
    pub mutant: Option<String>,
    /// Hunt all planted faults, each until it is caught or for 5,000 seeds (--seeds).
    #[arg(long, conflicts_with_all = ["seed", "plan", "faults", "trace"],
        hide = cfg!(not(feature = "mutants")))]
    pub mutants: bool,
}

/// Longest search for a shorter course, seconds.
const SHRINK_MAX_S: u64 = 86_400;
/// Most events of a world: beyond all that could ever be run.
const EVENTS_MAX: u64 = 1_000_000_000_000;

impl SimArgs {
    fn orders(&self) -> Orders {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |at| at.as_secs());
        let seeds = self.seed.map(|_| 1).or(self.seeds);
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        Orders {
            first_seed: self.seed.or(self.first_seed).unwrap_or_else(clock),
            seeds: if self.seconds.is_none() { seeds.or(Some(1)) } else { seeds },
            time: self.seconds.map(Duration::from_secs),
            events: self.events,
            threads: self.threads.map_or_else(processors, usize::from),
            stop: Stop::Failures(FAILURES_MAX),
            told: self.trace,
            course: Course {
                settings: self.plan.clone().unwrap_or_default(),
                only: self.faults.clone(),
            },
            ended: Arc::default(),
        }
    }
}

/// What is printed when a panic aborts the process, as it does in a release.
struct LastWords {
    format: Format,
    orders: Orders,
    /// The report, while the shortest course of a failure in it is looked for.
    report: Mutex<Option<Output>>,
}

impl LastWords {
    fn say(&self, failure: &swarm::Failure) {
        let report = self.report.lock().ok().and_then(|mut report| report.take());
        finish(self.format, Ok(report.unwrap_or_else(|| show::panicked(&self.orders, failure))));
    }

    fn keep(&self, output: &Output) {
        *self.report.lock().expect("nobody panics while it is held") = Some(output.clone());
    }
}

/// `chainring sim`.
pub(super) fn sim(args: &SimArgs, format: Format) -> Result<Output, Failure> {
    let orders = args.orders();
    let Orders { first_seed, events, .. } = orders;
    let lowered = orders.course.settings.check(Plan::new(first_seed, events));
    lowered.map_err(|error| usage(format!("--plan {error}")))?;
    signals::listen(&orders.ended)?;
    let words = LastWords { format, orders: orders.clone(), report: Mutex::new(None) };
    let words = Arc::new(words);
    let last = Arc::clone(&words);
    swarm::install_hook(move |failure| last.say(failure));
    if let Some(output) = mutants::asked(args, &orders, &words)? {
        return Ok(output);
    }
    Ok(worlds(args, &orders, &words))
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, "usage", message)
}

/// Runs the worlds that were asked for; makes their first failure small.
fn worlds(args: &SimArgs, orders: &Orders, words: &LastWords) -> Output {
    say_first_seed(orders);
    let told = Mutex::new(Instant::now());
    marks::reset();
    let report = swarm(orders.clone(), &|report| {
        let mut told = told.lock().expect("nobody panics while it is held");
        if told.elapsed() >= PROGRESS {
            *told = Instant::now();
            let (worlds, failures) = (number(report.seeds, "world"), report.failures.len());
            progress(&format!("{worlds}, {} events, {failures} failures", report.events));
        }
    });
    if !report.missing.0.is_empty() {
        say(&format!("chainring: of --faults these did not take effect: {}", report.missing));
    }
    let mut output = show::output(&report);
    let Some(first) = report.failures.first() else {
        let exit = if orders.has_ended() { Exit::Interrupted } else { Exit::Ok };
        return output.ending(exit);
    };
    let replay = replay(orders, first.seed, &orders.course, planted());
    output.exit = Exit::Failed;
    let _ = write!(output.text, "\n{}", show::again(&replay));
    output.json.insert("replay".into(), replay.into());
    if args.shrink_seconds > 0 && !orders.has_ended() {
        words.keep(&output);
        make_small(args, orders, first, &mut output);
    }
    output
}

fn make_small(args: &SimArgs, orders: &Orders, first: &swarm::Failure, output: &mut Output) {
    progress(&format!("seed {}: looking for its shortest course", first.seed));
    swarm::set_quiet(true);
    let time = Duration::from_secs(args.shrink_seconds.min(SHRINK_MAX_S));
    let (text, json) = match shrink(orders, first, time) {
        Ok(shrunk) => {
            let replay = replay(orders, first.seed, &shrunk.course(), planted());
            (show::shrunk_text(&shrunk, &replay), show::shrunk_json(&shrunk, &replay))
        }
        Err(other) => {
            let swarm::Failure { seed, name, what } = &other;
            (format!("\nseed {seed}: {name}: {what}"), show::failure_json(&other))
        }
    };
    output.text.push_str(&text);
    output.json.insert("shrunk".into(), json);
}

/// Said at once, so that a run that is cut short is not lost.
fn say_first_seed(orders: &Orders) {
    say(&format!("chainring: first seed {}", orders.first_seed));
}
