//! `chainring demo`: the arguments, and the table at the end.

use super::DemoArgs;
use super::out::{Exit, Failure, Output, progress, table};
use crate::config::durability_of;
use crate::demo::{DemoError, Load, Plan, Report, run};
use serde_json::{Value, json};
use std::time::Duration;

/// `chainring demo`.
pub(super) fn demo(args: &DemoArgs) -> Result<Output, Failure> {
    let plan = plan(args);
    if args.files.is_empty() && plan.load == Load::Sample {
        progress("no files were named: shipping a built-in sample");
    }
    let report = run(&plan, &mut progress).map_err(|error| failure(&error))?;
    Ok(show(&plan, &report))
}

fn plan(args: &DemoArgs) -> Plan {
    let load = if !args.files.is_empty() {
        Load::Files(args.files.clone())
    } else if args.records.is_none() && args.seconds.is_none() {
        Load::Sample
    } else {
        let time = args.seconds.map(Duration::from_secs);
        Load::Random { records: args.records, size: args.size, time }
    };
    Plan {
        load,
        nodes: args.nodes,
        durability: durability_of(&args.durability).expect("clap checked it"),
        link_bits_per_s: args.link,
        dir: args.dir.clone(),
        keep: args.keep,
    }
}

/// Bits per second of `1gbit`, `2.5gbit`, `100mbit`.
///
/// # Errors
/// What is accepted.
pub fn link_rate(text: &str) -> Result<f64, String> {
    let units = [("gbit", 1e9), ("mbit", 1e6)];
    let parsed = units.iter().find_map(|(unit, bits)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        (number.is_finite() && number > 0.0).then_some(number * bits)
    });
    parsed.ok_or_else(|| "wanted a rate such as 1gbit, 2.5gbit or 100mbit".to_owned())
}

fn failure(error: &DemoError) -> Failure {
    let (exit, code) = match error {
        DemoError::Read { .. } => (Exit::NotFound, "unreadable"),
        DemoError::LineTooLong { .. } => (Exit::Failed, "record_too_large"),
        DemoError::InputTooLarge | DemoError::TooManyFiles { .. } => (Exit::Usage, "too_much"),
        DemoError::NotEmpty { .. } => (Exit::Refused, "not_empty"),
        DemoError::NoRoom { .. } => (Exit::Refused, "no_room"),
        DemoError::Store(_) => (Exit::Failed, "store"),
        DemoError::Stalled { .. } => (Exit::Timeout, "stalled"),
        DemoError::Interrupted => (Exit::Failed, "interrupted"),
        _ => (Exit::Failed, "failed"),
    };
    Failure::new(exit, code, error)
}

/// Payload delivered at the slowest node against the nominal capacity of one link. A ring in which
/// all nodes propose is bound by n/(n-1) links, so it can be above 1.
fn efficiency(plan: &Plan, report: &Report) -> f64 {
    report.delivered_bits_per_s() / plan.link_bits_per_s
}

fn show(plan: &Plan, report: &Report) -> Output {
    let good = report.problems.is_empty() && report.refused.is_none();
    let output = Output::new(text(plan, report), json(plan, report));
    output.ending(if good { Exit::Ok } else { Exit::Failed })
}

fn json(plan: &Plan, report: &Report) -> Value {
    let linked = plan.nodes > 1;
    let latency = &report.latency;
    let mut json = json!({
        "nodes": plan.nodes,
        "topology": "ring",
        "durability": crate::config::durability_name(plan.durability),
        "records": report.records,
        "bytes": report.bytes,
        "identical": report.problems.is_empty(),
        "digest": format!("{:032x}", report.digest),
        "seconds": report.seconds,
        "delivered_bits_per_s": report.delivered_bits_per_s(),
        "link_bits_per_s": linked.then_some(plan.link_bits_per_s),
        "efficiency": linked.then(|| efficiency(plan, report)),
        "latency_us": {
            "p50": latency.p50, "p99": latency.p99, "p999": latency.p999, "max": latency.max,
        },
        "cpu_s_per_gb": report.cpu_s_per_gb(plan.nodes),
    });
    // Only where there is something to say: what went wrong, and where the logs are.
    if let Some(refused) = &report.refused {
        let Failure { exit, code, message } = failure(refused);
        json["error"] = json!({ "code": code, "message": message, "exit": exit as u8 });
    }
    if !report.problems.is_empty() {
        json["problems"] = json!(report.problems);
    }
    if let Some(kept) = &report.kept {
        json["dir"] = json!(kept.display().to_string());
    }
    json
}

fn text(plan: &Plan, report: &Report) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    let (nodes, durability) = (plan.nodes, crate::config::durability_name(plan.durability));
    row("cluster", format!("{nodes} nodes, ring, {durability}, over loopback"));
    row("records", format!("{} ({} bytes) at every node", report.records, report.bytes));
    let identical = if report.problems.is_empty() { "true" } else { "FALSE" };
    row("identical", identical.to_owned());
    row("digest", format!("{:032x}", report.digest));
    row("seconds", format!("{:.3}", report.seconds));
    row("delivered", format!("{:.1} Mbit/s at every node", report.delivered_bits_per_s() / 1e6));
    if nodes > 1 {
        let link = plan.link_bits_per_s / 1e6;
        let share = 100.0 * efficiency(plan, report);
        let bound = 100.0 * f64::from(nodes) / f64::from(nodes - 1);
        let assumed = format!("{link} Mbit/s, assumed: this is loopback; bound {bound:.0} %");
        row("efficiency", format!("{share:.1} % of the link ({assumed})"));
    }
    let crate::demo::Latency { p50, p99, p999, max } = report.latency;
    row("latency", format!("p50 {p50} us, p99 {p99} us, p99.9 {p999} us, max {max} us"));
    row("cpu", format!("{:.3} s per 10^9 bytes delivered", report.cpu_s_per_gb(nodes)));
    let mut text = table(&rows);
    let mut line = |what: &str| {
        text.push('\n');
        text.push_str(what);
    };
    report.remarks.iter().for_each(|remark| line(remark));
    report.problems.iter().for_each(|problem| line(&format!("DIFFERENT: {problem}")));
    if let Some(kept) = &report.kept {
        line(&format!("the logs are in {}", kept.display()));
    }
    if let Some(refused) = &report.refused {
        line(&format!("NOT SHIPPED: {refused}"));
    }
    text
}
