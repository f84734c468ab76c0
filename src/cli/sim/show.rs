//! What `chainring sim` says of worlds, as text and as JSON.
//!
//! Invariant: beside whatever failed stands the line that runs it again, and the commit that it
//! belongs to.

use super::planted;
use crate::cli::out::{Exit, Output};
use crate::sim::course::Course;
use crate::sim::faults::Kind;
use crate::sim::plan::EVENTS;
use crate::sim::shrink::Shrunk;
use crate::sim::swarm::{self, Orders, Report};
use chainring_ring::marks::{self, Mark};
use serde_json::{Value, json};
use std::fmt::Write;

/// The commit of this build.
pub(super) const COMMIT: &str = env!("CHAINRING_COMMIT");
/// Of the shortest course, so many faults are shown as text, and so much of a step.
const FAULTS_SHOWN: usize = 100;
const STEP_CHARS: usize = 300;
/// Worlds that should hit every mark.
const MANY: u64 = 100;

/// The command that runs a world of these orders again, with what is left of it.
pub(super) fn replay(orders: &Orders, seed: u64, course: &Course, mutant: Option<&str>) -> String {
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

pub(super) fn again(replay: &str) -> String {
    format!("commit {COMMIT}; replay it with: {replay}")
}

pub(super) fn failure_json(failure: &swarm::Failure) -> Value {
    let swarm::Failure { seed, name, what } = failure;
    json!({ "seed": seed, "invariant": name, "what": what })
}

/// `1 world`, `2 worlds`.
pub(super) fn number(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What is said of a panic that ends the run.
pub(super) fn panicked(orders: &Orders, failure: &swarm::Failure) -> Output {
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

pub(super) fn output(report: &Report) -> Output {
    let [packet, storage, large] = report.faults;
    let not_hit: Vec<&str> =
        Mark::ALL.iter().filter(|mark| marks::count(**mark) == 0).map(|mark| mark.name()).collect();
    let by_kind = Kind::ALL.iter().zip(&report.by_kind);
    let by_kind = by_kind.map(|(kind, count)| (format!("{kind:?}"), Value::from(*count)));
    let by_mark = Mark::ALL.iter().map(|mark| (mark.name().into(), marks::count(*mark).into()));
    let mut json = json!({
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
        "healed_s_max": report.healed.map(|(us, _)| us as f64 / 1e6),
        "healed_seed": report.healed.map(|(_, seed)| seed),
        "interrupted": report.orders.has_ended(),
        "violations": report.failures.len(),
        "failures": report.failures.iter().map(failure_json).collect::<Vec<_>>(),
        "marks_hit": Mark::ALL.len() - not_hit.len(),
        "marks_total": Mark::ALL.len(),
        "marks_not_hit": not_hit,
        "marks": by_mark.collect::<serde_json::Map<_, _>>(),
        "digest": format!("{:016x}", report.digest),
    });
    if let Some(world) = world(report) {
        json["world"] = world.into();
    }
    Output::new(text(report, &not_hit), json)
}

/// What a world is, where there is but one.
fn world(report: &Report) -> Option<String> {
    let orders = &report.orders;
    (orders.seeds == Some(1)).then(|| orders.plan(orders.first_seed).summary())
}

fn text(report: &Report, not_hit: &[&str]) -> String {
    let mut text = totals(report);
    if let Some(world) = world(report) {
        let _ = writeln!(text, "world: {world}");
    }
    by_kind(report, &mut text);
    let hit = Mark::ALL.len() - not_hit.len();
    let _ = writeln!(text, "marks: {hit} of {} hit", Mark::ALL.len());
    // Of few worlds it says nothing that most marks were not hit.
    for names in not_hit.chunks(4).filter(|_| report.seeds >= MANY) {
        let _ = writeln!(text, "  not hit: {}", names.join(" "));
    }
    for swarm::Failure { seed, name, what } in &report.failures {
        let _ = writeln!(text, "seed {seed}: {name}: {what}");
    }
    let violations = number(report.failures.len() as u64, "violation");
    let _ = write!(text, "{violations}; digest {:016x}", report.digest);
    text
}

fn totals(report: &Report) -> String {
    let healed = report.healed.map_or(String::new(), |(us, seed)| {
        let seconds = us as f64 / 1e6;
        format!("; all nodes equal at most {seconds:.2} s after the faults (seed {seed})")
    });
    format!(
        "{}, first seed {}: {} events, {:.0} a second on {} ({:.0} in a second of \
         processor time), {:.2} simulated hours\n\
         {} answered{healed}\n",
        number(report.seeds, "world"),
        report.orders.first_seed,
        report.events,
        report.events_per_s(),
        number(report.orders.threads as u64, "thread"),
        report.events_per_cpu_s(),
        report.us as f64 / 3.6e9,
        number(report.answered, "request"),
    )
}

/// By the names that `--faults` takes.
fn by_kind(report: &Report, text: &mut String) {
    let [packet, storage, large] = report.faults;
    let _ = writeln!(text, "faults: {packet} packet, {storage} storage, {large} macro");
    let width = Kind::ALL.iter().map(|kind| format!("{kind:?}").len()).max().unwrap_or(0);
    for (kind, count) in Kind::ALL.iter().zip(&report.by_kind).filter(|(_, count)| **count > 0) {
        let name = format!("{kind:?}");
        let _ = writeln!(text, "  {name:<width$}  {count:>10}  {}", kind.text());
    }
}

pub(super) fn shrunk_text(shrunk: &Shrunk, replay: &str) -> String {
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
        let _ = writeln!(text, "{fault}{}", shrunk.lasts(fault));
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

pub(super) fn shrunk_json(shrunk: &Shrunk, replay: &str) -> Value {
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
    use crate::cli::sim::SimArgs;
    use crate::sim::swarm::swarm;
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
        let said = text(&report);
        assert!(said.contains("1 world, first seed 5: ") && said.contains("\nworld: "), "{said}");
        assert!(!said.contains("not hit: "), "{said}");
        // Those of a world that failed before it was healed.
        (report.healed, report.seeds) = (None, MANY);
        let said = text(&report);
        assert!(said.contains(" answered\nworld: ") && said.contains("not hit: "), "{said}");
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
