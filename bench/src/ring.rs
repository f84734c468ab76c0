//! The measurement of a ring: rounds of a bare stream and of every case.
//!
//! Invariants: a round takes everything once, so that a neighbour on the machine slows all alike
//! and the ratio is of figures of the same minute; what went wrong in any run stays in the result;
//! a signal ends it between any two runs and within each.

use crate::arguments::Ring;
use crate::place::Place;
use crate::spread::Spread;
use crate::stream::{Carried, carry};
use chainring::cli::out::{Exit, Failure, progress};
use chainring::config::durability_of;
use chainring::demo::{DemoError, Load, Plan, Report, run};
use chainring::records::RECORD_PREFIX_BYTES;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Payload and prefixes for which the demonstration makes all segments before it takes time: 7 of
/// 1 GiB, less what it adds for headers and padding. A log on disk beyond that would measure the
/// making of segments too.
const LOG_BYTES_MAX: u64 = 5_900_000_000;

/// What was measured.
pub struct Measured {
    /// Where, when, and of what.
    pub place: Place,
    /// The bare stream's rate, bits per second.
    pub stream: Spread,
    /// Its congestion control.
    pub congestion: String,
    /// Each pair of durability and size.
    pub cases: Vec<Case>,
    /// What should be known beside, each once.
    pub remarks: Vec<String>,
}

/// One pair of durability and size.
pub struct Case {
    /// As on the command line.
    pub durability: String,
    /// Bytes of a record.
    pub size: u32,
    /// Records of one run.
    pub records: u64,
    /// Payload delivered at the slowest node, bits per second.
    pub delivered: Spread,
    /// The same over the bare stream's rate in the same round.
    pub ratio: Spread,
    /// Batcher to delivery at the origin, half of the records, microseconds.
    pub p50: Spread,
    /// The same, 99 of 100.
    pub p99: Spread,
    /// Processor seconds per 10^9 bytes delivered, summed over nodes.
    pub cpu: Spread,
    /// What did not agree in any of its runs; empty if all logs were identical.
    pub problems: Vec<String>,
}

/// Measures.
///
/// # Errors
/// [`Failure`]: a run did not come to its end, or a signal came.
pub fn measure(plan: &Ring) -> Result<Measured, Failure> {
    let signal = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        signal_hook::flag::register(number, Arc::clone(&signal))
            .map_err(|error| Failure::new(Exit::Failed, "failed", error))?;
    }
    let place = Place::here();
    let cases = plan.cases();
    cases.iter().try_for_each(|(durability, size)| check_room(plan, durability, *size))?;
    let mut streams = Vec::new();
    let mut runs: Vec<Vec<Report>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=plan.repeat {
        let told = format!("round {round} of {}", plan.repeat);
        progress(&format!("{told}: bare stream"));
        streams.push(carry(plan.bytes, &signal).map_err(|error| stream_failure(&error))?);
        for ((durability, size), reports) in cases.iter().zip(&mut runs) {
            if signal.load(Ordering::Relaxed) {
                return Err(failure(&DemoError::Interrupted));
            }
            progress(&format!("{told}: {durability}, records of {size} bytes"));
            // A signal may look like a fault of whatever it interrupts.
            let report = once(plan, durability, *size).map_err(|error| {
                let meant = signal.load(Ordering::Relaxed);
                failure(if meant { &DemoError::Interrupted } else { &error })
            })?;
            reports.push(report);
        }
    }
    let mut remarks = remarks(&place, plan, &streams);
    for ((durability, size), reports) in cases.iter().zip(&runs) {
        for remark in reports.iter().flat_map(|report| &report.remarks) {
            let remark = format!("{durability}, records of {size} bytes: {remark}");
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
    }
    let sum_up = |((durability, size), reports): (&(&str, u32), &Vec<Report>)| {
        case(plan, (durability, *size), reports, &streams)
    };
    Ok(Measured {
        stream: Spread::of(streams.iter().map(|stream| stream.bits_per_s)),
        congestion: streams[0].congestion.clone(),
        cases: cases.iter().zip(&runs).map(sum_up).collect(),
        place,
        remarks,
    })
}

/// One cluster, one load.
fn once(plan: &Ring, durability: &str, size: u32) -> Result<Report, DemoError> {
    let demo = Plan {
        load: Load::Random { records: Some(plan.records(size)), size, time: None },
        nodes: plan.nodes,
        durability: durability_of(durability).expect("clap checked it"),
        // An assumption that only the demo's own efficiency uses; here the bound is measured.
        link_bits_per_s: 1e9,
        dir: None,
        keep: false,
    };
    run(&demo, &mut |_| {})
}

/// Refuses a load whose log cannot be made before time is taken.
fn check_room(plan: &Ring, durability: &str, size: u32) -> Result<(), Failure> {
    let records = plan.records(size);
    let wanted = records.saturating_mul(u64::from(size) + RECORD_PREFIX_BYTES as u64);
    if durability == "memory" || wanted <= LOG_BYTES_MAX {
        return Ok(());
    }
    let most = LOG_BYTES_MAX / (u64::from(size) + RECORD_PREFIX_BYTES as u64) * u64::from(size);
    let message = format!(
        "--bytes {} in records of {size} bytes needs a larger log than is made before time is \
         taken; give at most {most}, or --durability memory",
        plan.bytes
    );
    Err(Failure::new(Exit::Usage, "too_much", message))
}

fn case(plan: &Ring, of: (&str, u32), reports: &[Report], streams: &[Carried]) -> Case {
    let over = |figure: &dyn Fn(&Report) -> f64| Spread::of(reports.iter().map(figure));
    let pairs = reports.iter().zip(streams);
    let mut problems = Vec::new();
    for (report, round) in reports.iter().zip(1..) {
        // The demonstration keeps such a log.
        let kept = report.kept.as_ref().map(|dir| format!("; the logs are in {}", dir.display()));
        let kept = kept.unwrap_or_default();
        let found = report.problems.iter();
        problems.extend(found.map(|problem| format!("round {round}: {problem}{kept}")));
    }
    Case {
        durability: of.0.to_owned(),
        size: of.1,
        records: plan.records(of.1),
        delivered: over(&Report::delivered_bits_per_s),
        ratio: Spread::of(pairs.map(|(run, bare)| run.delivered_bits_per_s() / bare.bits_per_s)),
        p50: over(&|report| report.latency.p50 as f64),
        p99: over(&|report| report.latency.p99 as f64),
        cpu: over(&|report| report.cpu_s_per_gb(plan.nodes)),
        problems,
    }
}

/// What lessens the worth of the figures.
fn remarks(place: &Place, plan: &Ring, streams: &[Carried]) -> Vec<String> {
    let mut remarks = Vec::new();
    if place.profile != "release" {
        let remark = "this is a development build: measure with cargo run --release";
        remarks.push(remark.to_owned());
    }
    if place.cores < usize::from(plan.nodes) {
        let (nodes, cores) = (plan.nodes, place.cores);
        remarks.push(format!("{nodes} nodes share {cores} cores: each waits for the others"));
    }
    let congestion = &streams[0].congestion;
    if !["cubic", "reno"].contains(&congestion.as_str()) {
        remarks.push(format!(
            "the kernel has neither cubic nor reno: the bare stream and the links use {congestion}, \
             which may pace; load the module tcp_cubic"
        ));
    }
    remarks
}

fn stream_failure(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::Interrupted => failure(&DemoError::Interrupted),
        _ => Failure::new(Exit::Failed, "stream", format!("the bare stream failed: {error}")),
    }
}

/// As `chainring demo` ends in such cases.
fn failure(error: &DemoError) -> Failure {
    let (exit, code) = match error {
        DemoError::NoRoom { .. } => (Exit::Refused, "no_room"),
        DemoError::Store(_) => (Exit::Failed, "store"),
        DemoError::Stalled { .. } => (Exit::Timeout, "stalled"),
        DemoError::Interrupted => (Exit::Failed, "interrupted"),
        _ => (Exit::Failed, "failed"),
    };
    // Where the demonstration has an option, this has the variable.
    let message = error.to_string().replace("name another --dir", "set TMPDIR to another place");
    Failure::new(exit, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_log_on_disk_has_to_be_made_beforehand() {
        let plan =
            |bytes| Ring { nodes: 3, durability: Vec::new(), size: Vec::new(), bytes, repeat: 1 };
        let refused = |bytes, durability| check_room(&plan(bytes), durability, 16).is_err();
        for durability in ["sync", "async"] {
            assert!(!refused(4_720_000_000, durability), "what the message offers must do");
            assert!(refused(4_720_000_016, durability));
        }
        assert!(!refused(1_000_000_000_000, "memory"));
    }

    #[test]
    fn a_missing_place_is_told_in_terms_of_this_command() {
        let (dir, wanted, free) = ("/d".into(), 2, 1);
        let failure = failure(&DemoError::NoRoom { dir, wanted, free });
        assert_eq!((failure.exit, failure.code), (Exit::Refused, "no_room"));
        assert!(failure.message.ends_with("set TMPDIR to another place"), "{failure:?}");
    }
}
