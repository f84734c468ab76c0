//! What was measured, as a table and as an object.
//!
//! Invariants: every figure is a median with its least and greatest beside it; the bound stands in
//! the same result as what is held against it.

use crate::arguments::Ring;
use crate::ring::{Case, Measured};
use crate::stream::WRITE_BYTES;
use chainring::cli::out::{Exit, Output, table};
use serde_json::{Value, json};

/// The result in both formats; a failure if any logs were not identical.
pub fn output(plan: &Ring, measured: &Measured) -> Output {
    let identical = measured.cases.iter().all(|case| case.problems.is_empty());
    let output = Output::new(text(plan, measured), json(plan, measured, identical));
    output.ending(if identical { Exit::Ok } else { Exit::Failed })
}

fn json(plan: &Ring, measured: &Measured, identical: bool) -> Value {
    let mut json = measured.place.json();
    json["nodes"] = plan.nodes.into();
    json["topology"] = "ring".into();
    json["repeat"] = plan.repeat.into();
    json["identical"] = identical.into();
    json["bare_stream"] = json!({
        "bits_per_s": measured.stream.json(),
        "bytes": plan.bytes,
        "write_bytes": WRITE_BYTES,
        "congestion": measured.congestion,
    });
    json["cases"] = measured.cases.iter().map(case_json).collect();
    json["remarks"] = json!(measured.remarks);
    json
}

fn case_json(case: &Case) -> Value {
    let mut json = json!({
        "durability": case.durability,
        "size": case.size,
        "records": case.records,
        "bytes": case.records * u64::from(case.size),
        "identical": case.problems.is_empty(),
        "delivered_bits_per_s": case.delivered.json(),
        "ratio": case.ratio.json(),
        "latency_us": { "p50": case.p50.json(), "p99": case.p99.json() },
        "cpu_s_per_gb": case.cpu.json(),
    });
    if !case.problems.is_empty() {
        json["problems"] = json!(case.problems);
    }
    json
}

fn text(plan: &Ring, measured: &Measured) -> String {
    let place = &measured.place;
    let (nodes, repeat) = (plan.nodes, plan.repeat);
    let pair = |name: &str, value: String| vec![name.to_owned(), value];
    let stream = measured.stream.text(1e6, 0);
    let mut text = table(&[
        pair("machine", format!("{}, {} cores", place.cpu, place.cores)),
        pair("kernel", place.kernel.clone()),
        pair("commit", format!("{}, {} build", place.commit, place.profile)),
        pair("date", place.date.clone()),
        pair("cluster", format!("{nodes} nodes, ring, over loopback")),
        pair("figures", format!("median (least to greatest) of {repeat} rounds")),
        pair("bare stream", format!("{stream} Mbit/s, one stream, {}", measured.congestion)),
    ]);
    let head = ["DURABILITY", "SIZE", "MBIT/S", "RATIO", "P50 US", "P99 US", "CPU S/GB", "LOGS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(measured.cases.iter().map(|case| {
        let identical = if case.problems.is_empty() { "identical" } else { "DIFFERENT" };
        vec![
            case.durability.clone(),
            case.size.to_string(),
            case.delivered.text(1e6, 0),
            case.ratio.text(1.0, 3),
            case.p50.text(1.0, 0),
            case.p99.text(1.0, 0),
            case.cpu.text(1.0, 2),
            identical.to_owned(),
        ]
    }));
    text.push_str("\n\n");
    text.push_str(&table(&rows));
    text.push_str("\n\nRATIO is payload delivered at each node over the bare stream of its round.");
    let problems = measured.cases.iter().flat_map(|case| &case.problems);
    let problems = problems.map(|problem| format!("DIFFERENT: {problem}"));
    for line in measured.remarks.iter().cloned().chain(problems) {
        text.push('\n');
        text.push_str(&line);
    }
    text
}
