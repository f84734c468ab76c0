//! `chainring sim`: worlds of the simulator, and what they showed.
//!
//! Invariants: the first seed is always said; marks and faults are those of the worlds that were
//! asked for, not of the runs that make a failure small.

use super::out::{Exit, Failure, Format, Output, finish, progress};
use crate::sim::course::{Course, Names, Settings};
use crate::sim::faults::Kind;
use crate::sim::plan::EVENTS;
use crate::sim::shrink::{Shrunk, shrink};
use crate::sim::swarm::{self, Orders, Report, Stop, swarm};
use chainring_ring::marks::{self, Mark};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(feature = "mutants")]
mod mutants;
#[cfg(feature = "mutants")]
use mutants::planted;

/// The fault that is planted: none, in this build.
#[cfg(not(feature = "mutants"))]
fn planted() -> Option<&'static str> {
    None
}

/// What `--help` says behind the arguments.
pub(super) const HELP: &str = "Example:
  chainring sim --seconds 60                    worlds for a minute, on all processors
  chainring sim --seeds 3000 --first-seed 1     so many, from this one on
  chainring sim --seed 4711                     this world again, exactly
  chainring sim --seed 4711 --trace             and every step of its cores
  chainring sim --seed 4711 --plan nodes=2 --faults Crash:3,Lose:12
                                                the short course of a failure, as it was printed

A seed is a world: with the same --events it has one course on every machine, in every build of one
commit. Ends with 0 if nothing was violated, 1 if something was, 2 if it was called wrongly. Of each
world that failed the seed and the invariant are printed; of the first of them the line that replays
it and the shortest course that was found.

With --format json: one object with commit, threads, first_seed, seeds, seconds, events, events_per_s,
events_per_cpu_s, simulated_hours, faults {packet, storage, macro}, faults_by_kind, requests,
healed_s_max, healed_seed, violations, failures [{seed, invariant, what}], marks_hit, marks_total,
marks_not_hit, digest; after a failure also replay, and shrunk {seed, invariant, what, replay, faults
[{at_us, kind, number, place}], faults_before, requests, events, simulated_us, runs, seconds, steps}.
Where a panic ends the process, as in a release, only commit, first_seed, violations, failures and
replay.

A build with --features mutants has --mutant and --mutants, hunts for faults that are planted. They
end with 0 if all were caught, and print commit, first_seed, threads, mutants [{mutant, expected,
caught {by, seeds, seed, what, replay}, panicked, unsettled, seeds, seconds}], caught, seeds_median,
seeds_worst.";

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
    /// Tell every step of every core on stderr.
    #[arg(long, requires = "seed", conflicts_with_all = ["seeds", "seconds", "first_seed"])]
    pub trace: bool,
    /// Plant this fault: a name, several (hunted one after another), none, or list for all names.
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME,...|none|list", conflicts_with = "mutants")]
    pub mutant: Option<String>,
    /// Hunt all planted faults, each until it is caught or for 5,000 seeds (--seeds).
    #[cfg(feature = "mutants")]
    #[arg(long, conflicts_with_all = ["seed", "plan", "faults", "trace"])]
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
        finish(self.format, Ok(report.unwrap_or_else(|| panicked(&self.orders, failure))));
    }

    fn keep(&self, output: &Output) {
        *self.report.lock().expect("nobody panics while it is held") = Some(output.clone());
    }
}

/// What is said of a panic that ends the run.
fn panicked(orders: &Orders, failure: &swarm::Failure) -> Output {
    let replay = replay(orders, failure.seed, &orders.course, planted());
    let text = format!("1 violation, a panic, after which nothing could run; {}", again(&replay));
    let json = json!({
        "commit": COMMIT,
        "first_seed": orders.first_seed,
        "violations": 1,
        "failures": [failure_json(failure)],
        "replay": replay,
    });
    Output::new(text, json).ending(Exit::Failed)
}

/// `chainring sim`.
pub(super) fn sim(args: &SimArgs, format: Format) -> Result<Output, Failure> {
    let orders = args.orders();
    let words = LastWords { format, orders: orders.clone(), report: Mutex::new(None) };
    let words = Arc::new(words);
    let last = Arc::clone(&words);
    swarm::install_hook(move |failure| last.say(failure));
    #[cfg(feature = "mutants")]
    if let Some(output) = mutants::asked(args, &orders, &words)? {
        return Ok(output);
    }
    Ok(worlds(args, &orders, &words))
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
    let mut output = output(&report);
    let Some(first) = report.failures.first() else { return output };
    let replay = replay(orders, first.seed, &orders.course, planted());
    output.exit = Exit::Failed;
    let _ = write!(output.text, "\n{}", again(&replay));
    output.json.insert("replay".into(), replay.into());
    if args.shrink_seconds > 0 {
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
            (shrunk_text(&shrunk, &replay), shrunk_json(&shrunk, &replay))
        }
        Err(other) => {
            let swarm::Failure { seed, name, what } = &other;
            (format!("\nseed {seed}: {name}: {what}"), failure_json(&other))
        }
    };
    output.text.push_str(&text);
    output.json.insert("shrunk".into(), json);
}

/// Said at once, so that a run that is cut short is not lost.
fn say_first_seed(orders: &Orders) {
    eprintln!("chainring: first seed {}", orders.first_seed);
}

/// The command that runs a world of these orders again, with what is left of it.
fn replay(orders: &Orders, seed: u64, course: &Course, mutant: Option<&str>) -> String {
    let mut line = format!("chainring sim --seed {seed}");
    if orders.events != EVENTS {
        let _ = write!(line, " --events {}", orders.events);
    }
    if let Some(mutant) = mutant {
        let _ = write!(line, " --mutant {mutant}");
    }
    if !course.settings.is_empty() {
        let _ = write!(line, " --plan {}", course.settings);
    }
    if let Some(names) = &course.only {
        let _ = write!(line, " --faults {names}");
    }
    line
}

fn again(replay: &str) -> String {
    format!("commit {COMMIT}; replay it with: {replay}")
}

fn failure_json(failure: &swarm::Failure) -> Value {
    let swarm::Failure { seed, name, what } = failure;
    json!({ "seed": seed, "invariant": name, "what": what })
}

/// `1 world`, `2 worlds`.
fn number(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn output(report: &Report) -> Output {
    let [packet, storage, large] = report.faults;
    let not_hit: Vec<&str> =
        Mark::ALL.iter().filter(|mark| marks::count(**mark) == 0).map(|mark| mark.name()).collect();
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
        "failures": report.failures.iter().map(failure_json).collect::<Vec<_>>(),
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
        "{}, first seed {first}: {} events, {:.0} a second on {} ({:.0} in a second of \
         processor time), {:.2} simulated hours\n\
         {} answered; all nodes equal at most {:.2} s after the faults (seed {})\n\
         faults: {packet} packet, {storage} storage, {large} macro\n",
        number(report.seeds, "world"),
        report.events,
        report.events_per_s(),
        number(report.orders.threads as u64, "thread"),
        report.events_per_cpu_s(),
        report.us as f64 / 3.6e9,
        number(report.answered, "request"),
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
    let violations = number(report.failures.len() as u64, "violation");
    let _ = write!(text, "{violations}; digest {:016x}", report.digest);
    text
}

fn shrunk_text(shrunk: &Shrunk, replay: &str) -> String {
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
        let _ = writeln!(
            text,
            "              and {more} more, see --format json, which has the line to replay it too"
        );
    }
    if shrunk.faults.len() <= FAULTS_SHOWN {
        let _ = writeln!(text, "replay it with: {replay}");
    }
    text.push_str("its last steps:");
    for step in &shrunk.steps {
        let cut = step.char_indices().nth(STEP_CHARS).map_or(step.len(), |(at, _)| at);
        let _ = write!(text, "\n{}", &step[..cut]);
    }
    text
}

fn shrunk_json(shrunk: &Shrunk, replay: &str) -> Value {
    let faults = shrunk.faults.iter().map(|fault| {
        let (kind, place) = (format!("{:?}", fault.kind()), fault.place.to_string());
        json!({ "at_us": fault.at, "kind": kind, "number": fault.name.1, "place": place })
    });
    json!({
        "seed": shrunk.failure.seed,
        "invariant": shrunk.failure.name,
        "what": shrunk.failure.what,
        "replay": replay,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Sim {
        #[command(flatten)]
        args: SimArgs,
    }

    fn orders(line: &str) -> Orders {
        Sim::try_parse_from(line.split(' ').skip(1)).expect(line).args.orders()
    }

    #[test]
    fn a_line_to_replay_is_read_as_it_was_meant() {
        for line in [
            "chainring sim --seed 7",
            "chainring sim --seed 7 --events 300 --plan events=20,nodes=2 --faults Lose:12,Crash:3",
            "chainring sim --seed 18446744073709551615 --faults none",
        ] {
            let orders = orders(line);
            assert_eq!(replay(&orders, orders.first_seed, &orders.course, None), line);
        }
        let orders = orders("chainring sim --first-seed 5 --seeds 9 --events 300");
        let line = replay(&orders, 8, &Course::default(), Some("VoteBeforeFlush"));
        assert_eq!(line, "chainring sim --seed 8 --events 300 --mutant VoteBeforeFlush");
    }

    #[test]
    fn every_world_that_failed_is_listed() {
        let orders = orders("chainring sim --first-seed 5 --seeds 1 --events 1");
        let mut report = swarm(orders, &|_| {});
        let text = |report: &Report| output(report).text;
        assert!(text(&report).contains("1 world, first seed 5: "), "{}", text(&report));
        let failure = |seed, name: &str| {
            let (name, what) = (name.to_owned(), "as it was".to_owned());
            swarm::Failure { seed, name, what }
        };
        report.failures = vec![failure(5, "A3"), failure(9, swarm::PANIC)];
        let text = text(&report);
        let lines: Vec<&str> = text.lines().rev().collect();
        assert!(lines[0].starts_with("2 violations; digest "), "{text}");
        assert_eq!(lines[1..3], ["seed 9: panic: as it was", "seed 5: A3: as it was"]);
    }

    #[test]
    fn a_panic_that_ends_the_process_leaves_its_seed_and_how_to_replay_it() {
        let orders = orders("chainring sim --first-seed 5 --seeds 9 --events 300");
        let what = "it broke".to_owned();
        let failure = swarm::Failure { seed: 8, name: swarm::PANIC.to_owned(), what };
        let output = panicked(&orders, &failure);
        let line = "chainring sim --seed 8 --events 300";
        assert!(output.text.contains(COMMIT) && output.text.ends_with(line), "{}", output.text);
        assert_eq!(output.json["violations"], 1);
        assert_eq!(output.json["failures"][0]["seed"], 8);
        assert_eq!((&output.json["replay"], output.exit), (&line.into(), Exit::Failed));
    }
}
