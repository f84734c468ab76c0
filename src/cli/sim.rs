//! `chainring sim`: worlds of the simulator, and what they showed.

use super::SimArgs;
use super::out::{Exit, Failure, Output};
use crate::sim::faults::Kind;
use crate::sim::swarm::{Orders, Report, install_hook, swarm};
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `chainring sim`.
pub(super) fn sim(args: &SimArgs) -> Result<Output, Failure> {
    install_hook();
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs());
    let first_seed = args.seed.or(args.first_seed).unwrap_or_else(clock);
    let seeds = args.seed.map(|_| 1).or(args.seeds);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let orders = Orders {
        first_seed,
        seeds: if args.seconds.is_none() { seeds.or(Some(1)) } else { seeds },
        time: args.seconds.map(Duration::from_secs),
        events: args.events,
        threads: args.threads.unwrap_or(threads),
        stop_at_first: false,
        told: args.trace,
    };
    let report = swarm(orders, &|_| {});
    Ok(output(&report))
}

fn output(report: &Report) -> Output {
    let hours = report.us as f64 / 3.6e9;
    let per_s = report.events_per_s_and_thread() * report.orders.threads as f64;
    let [packet, storage, large] = report.faults;
    let mut text = format!(
        "seeds {} to {}: {} worlds, {} events, {:.0} events/s on {} threads, {hours:.2} simulated hours\n\
         faults: {packet} packet, {storage} storage, {large} macro; {} requests answered; healed within {:.2} s (seed {})\n",
        report.orders.first_seed,
        report.orders.first_seed + report.seeds.saturating_sub(1),
        report.seeds,
        report.events,
        per_s,
        report.orders.threads,
        report.answered,
        report.healed_us as f64 / 1e6,
        report.healed_seed,
    );
    for (kind, count) in Kind::ALL.iter().zip(&report.by_kind) {
        text.push_str(&format!("  {count:>10}  {}\n", kind.text()));
    }
    for failure in &report.failures {
        text.push_str(&format!("seed {}: {}: {}\n", failure.seed, failure.name, failure.what));
    }
    text.push_str(&format!("digest {:016x}", report.digest));
    let json = json!({
        "threads": report.orders.threads,
        "seeds": report.seeds,
        "events": report.events,
        "events_per_s": per_s,
        "simulated_hours": hours,
        "faults": { "packet": packet, "storage": storage, "macro": large },
        "violations": report.failures.len(),
    });
    let mut output = Output::new(text, json);
    if !report.failures.is_empty() {
        output.exit = Exit::Failed;
    }
    output
}
