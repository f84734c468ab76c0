//! `chainring sim`: worlds of the simulator, and what they showed.
//!
//! Invariants: the first seed is always said; marks and faults are those of the worlds that were
//! asked for, not of the runs that make a failure small.

use super::out::{Exit, Failure, Output, progress};
use crate::sim::faults::Kind;
use crate::sim::plan::{EVENTS, Plan};
use crate::sim::shrink::{Shrunk, shrink};
use crate::sim::swarm::{self, Orders, Report, Stop, swarm};
use chainring_ring::marks::{self, Mark};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(feature = "mutants")]
mod mutants;

/// The commit of this build.
const COMMIT: &str = env!("CHAINRING_COMMIT");
/// Failures after which a swarm ends by itself.
const FAILURES_MAX: usize = 20;
/// Of the shortest course, so many faults are shown as text, and so much of a step.
const FAULTS_SHOWN: usize = 100;
const STEP_CHARS: usize = 300;
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
    /// Run worlds for so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// The first seed; by default the clock says it.
    #[arg(long)]
    pub first_seed: Option<u64>,
    /// Events of a world until its faults end.
    #[arg(long, default_value_t = EVENTS)]
    pub events: u64,
    /// Worlds at a time; by default one for each processor.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Look so long for the shortest course of the first failure; 0 for not at all.
    #[arg(long, default_value_t = 60)]
    pub shrink_seconds: u64,
    /// Tell every step of every core on stderr.
    #[arg(long, requires = "seed", conflicts_with_all = ["seeds", "seconds", "first_seed"])]
    pub trace: bool,
    /// Plant this fault: a name, none, or list for all names.
    #[cfg(feature = "mutants")]
    #[arg(long, conflicts_with = "mutants")]
    pub mutant: Option<String>,
    /// Plant one fault after another, each until it is caught or for 5,000 seeds.
    #[cfg(feature = "mutants")]
    #[arg(long, conflicts_with = "seed")]
    pub mutants: bool,
}

/// Longest search for a shorter course, seconds.
const SHRINK_MAX_S: u64 = 86_400;

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
        }
    }
}

/// `chainring sim`.
pub(super) fn sim(args: &SimArgs) -> Result<Output, Failure> {
    swarm::install_hook();
    #[cfg(feature = "mutants")]
    if let Some(output) = mutants::asked(args)? {
        return Ok(output);
    }
    Ok(worlds(args))
}

/// Runs the worlds that were asked for; makes their first failure small.
fn worlds(args: &SimArgs) -> Output {
    let orders = args.orders();
    eprintln!("chainring: first seed {}", orders.first_seed);
    let told = Mutex::new(Instant::now());
    marks::reset();
    let report = swarm(orders, &|report| {
        let mut told = told.lock().expect("nobody panics while it is held");
        if told.elapsed() >= PROGRESS {
            *told = Instant::now();
            let (seeds, failures) = (report.seeds, report.failures.len());
            progress(&format!("{seeds} worlds, {} events, {failures} failures", report.events));
        }
    });
    let mut output = output(&report);
    let Some(first) = report.failures.first() else { return output };
    output.exit = Exit::Failed;
    output.text.push_str(&replay(&orders, first.seed));
    if args.shrink_seconds > 0 {
        progress(&format!("seed {}: looking for its shortest course", first.seed));
        swarm::set_quiet(true);
        let plan = Plan::new(first.seed, orders.events);
        let time = Duration::from_secs(args.shrink_seconds.min(SHRINK_MAX_S));
        let (text, json) = match shrink(plan, first, time, orders.threads) {
            Ok(shrunk) => (shrunk_text(&shrunk), shrunk_json(&shrunk)),
            Err(other) => {
                let swarm::Failure { seed, name, what } = other;
                (format!("\nseed {seed}: {name}: {what}"), json!({ "seed": seed, "what": what }))
            }
        };
        output.text.push_str(&text);
        output.json.insert("shrunk".into(), json);
    }
    output
}

fn replay(orders: &Orders, seed: u64) -> String {
    let events = match orders.events {
        EVENTS => String::new(),
        events => format!(" --events {events}"),
    };
    #[cfg(feature = "mutants")]
    let mutant = chainring_ring::mutants::Mutant::ALL
        .iter()
        .find(|mutant| chainring_ring::mutants::is_planted(**mutant))
        .map_or_else(String::new, |mutant| format!(" --mutant {}", mutant.name()));
    #[cfg(not(feature = "mutants"))]
    let mutant = "";
    format!("\ncommit {COMMIT}; replay it with: chainring sim --seed {seed}{events}{mutant}")
}

fn output(report: &Report) -> Output {
    let [packet, storage, large] = report.faults;
    let not_hit: Vec<&str> =
        Mark::ALL.iter().filter(|mark| marks::count(**mark) == 0).map(|mark| mark.name()).collect();
    let failure = |failure: &swarm::Failure| {
        let swarm::Failure { seed, name, what } = failure;
        json!({ "seed": seed, "invariant": name, "what": what })
    };
    let by_kind = Kind::ALL.iter().zip(&report.by_kind);
    let by_kind = by_kind.map(|(kind, count)| (format!("{kind:?}"), Value::from(*count)));
    let json = json!({
        "commit": COMMIT,
        "threads": report.orders.threads,
        "first_seed": report.orders.first_seed,
        "seeds": report.seeds,
        "seconds": report.elapsed.as_secs_f64(),
        "events": report.events,
        "events_per_s": report.events_per_s(),
        "events_per_cpu_s": report.events_per_cpu_s(),
        "simulated_hours": report.us as f64 / 3.6e9,
        "faults": { "packet": packet, "storage": storage, "macro": large },
        "faults_by_kind": by_kind.collect::<serde_json::Map<_, _>>(),
        "requests": report.answered,
        "healed_s_max": report.healed_us as f64 / 1e6,
        "healed_seed": report.healed_seed,
        "violations": report.failures.len(),
        "failures": report.failures.iter().map(failure).collect::<Vec<_>>(),
        "marks_hit": Mark::ALL.len() - not_hit.len(),
        "marks_total": Mark::ALL.len(),
        "marks_not_hit": not_hit,
        "digest": format!("{:016x}", report.digest),
    });
    Output::new(text(report, &not_hit), json)
}

fn text(report: &Report, not_hit: &[&str]) -> String {
    let (first, [packet, storage, large]) = (report.orders.first_seed, report.faults);
    let mut text = format!(
        "{} worlds, first seed {first}: {} events, {:.0} a second on {} threads ({:.0} in a second of \
         processor time), {:.2} simulated hours\n\
         {} requests answered; all nodes equal at most {:.2} s after the faults (seed {})\n\
         faults: {packet} packet, {storage} storage, {large} macro\n",
        report.seeds,
        report.events,
        report.events_per_s(),
        report.orders.threads,
        report.events_per_cpu_s(),
        report.us as f64 / 3.6e9,
        report.answered,
        report.healed_us as f64 / 1e6,
        report.healed_seed,
    );
    for (kind, count) in Kind::ALL.iter().zip(&report.by_kind).filter(|(_, count)| **count > 0) {
        let _ = writeln!(text, "  {count:>10}  {}", kind.text());
    }
    let hit = Mark::ALL.len() - not_hit.len();
    let _ = writeln!(text, "marks: {hit} of {} hit", Mark::ALL.len());
    for names in not_hit.chunks(4) {
        let _ = writeln!(text, "  not hit: {}", names.join(" "));
    }
    for swarm::Failure { seed, name, what } in &report.failures {
        let _ = writeln!(text, "seed {seed}: {name}: {what}");
    }
    let _ = write!(text, "{} violations; digest {:016x}", report.failures.len(), report.digest);
    text
}

fn shrunk_text(shrunk: &Shrunk) -> String {
    let known = |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
    let mut text = format!(
        "\n\nshortest course, found in {:.1} s and {} runs: {} of {} faults, {} requests, {} events, {} us\n{}\n",
        shrunk.took.as_secs_f64(),
        shrunk.runs,
        shrunk.faults.len(),
        shrunk.faults_before,
        known(shrunk.requests),
        known(shrunk.events),
        known(shrunk.us),
        shrunk.failure.what,
    );
    for fault in shrunk.faults.iter().take(FAULTS_SHOWN) {
        let (kind, place) = (fault.kind(), fault.place);
        let _ = writeln!(text, "{:>12}  {}: {place}{}", fault.at, kind.text(), shrunk.lasts(fault));
    }
    if let Some(more @ 1..) = shrunk.faults.len().checked_sub(FAULTS_SHOWN) {
        let _ = writeln!(text, "              and {more} more, see --format json");
    }
    text.push_str("its last steps:");
    for step in &shrunk.steps {
        let cut = step.char_indices().nth(STEP_CHARS).map_or(step.len(), |(at, _)| at);
        let _ = write!(text, "\n{}", &step[..cut]);
    }
    text
}

fn shrunk_json(shrunk: &Shrunk) -> Value {
    let faults = shrunk.faults.iter().map(|fault| {
        let (kind, place) = (format!("{:?}", fault.kind()), fault.place.to_string());
        json!({ "at_us": fault.at, "kind": kind, "number": fault.name.1, "place": place })
    });
    json!({
        "seed": shrunk.failure.seed,
        "invariant": shrunk.failure.name,
        "what": shrunk.failure.what,
        "faults": faults.collect::<Vec<_>>(),
        "faults_before": shrunk.faults_before,
        "requests": shrunk.requests,
        "events": shrunk.events,
        "simulated_us": shrunk.us,
        "runs": shrunk.runs,
        "seconds": shrunk.took.as_secs_f64(),
        "steps": shrunk.steps,
    })
}
