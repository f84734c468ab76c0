//! The way of a demonstration: read, start, ship, wait, read back, compare.
//!
//! Invariant: every wait ends: by what is waited for, by a node that stops, by a signal, or after
//! 30 s in which nothing went on.

use super::check;
use super::cluster::{Cluster, Home};
use super::feed::Shared;
use super::input::Input;
use super::room::Room;
use super::{DemoError, Latency, Plan, Report, system};
use crate::gauges::Gauges;
use crate::node::{Finished, Node, now_us};
use crate::records::Digest;
use chainring_ring::ids::Durability;
use hdrhistogram::Histogram;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Nothing goes on for so long: something is wrong.
const STALL: Duration = Duration::from_secs(30);
/// How often the nodes' figures are looked at.
const LOOK: Duration = Duration::from_millis(1);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);

/// Tells how far it is; called now and then.
type Tell<'a> = &'a mut dyn FnMut(&str);

/// Carries out a plan.
///
/// # Errors
/// [`DemoError`]: it did not come to its end. What did not agree is in the report.
pub fn run(plan: &Plan, tell: Tell<'_>) -> Result<Report, DemoError> {
    // The clock of all threads begins here.
    let _ = now_us();
    tell("reading");
    let mut input = Input::read(&plan.load, plan.nodes)?;
    let signal = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        signal_hook::flag::register(number, Arc::clone(&signal))
            .map_err(system("listen for signals"))?;
    }
    let mut home = Home::make(plan)?;
    let room = Room::new(input.sum(), input.time.map_or(0, |time| time.as_secs() + 1));
    let shared = Shared::new(plan.nodes.into(), input.parts.len());
    tell(&format!("starting {} nodes in {}", plan.nodes, home.dir.display()));
    let cluster = Cluster::start(plan, &home.dir, &room, &input, &shared)?;
    let mut watch = Watch { cluster, shared, signal };
    let shipped = match watch.ship(&mut input, tell) {
        Ok(shipped) => shipped,
        Err(error) => return Err(watch.give_up(error)),
    };
    let mut report = finish(plan, &home.dir, watch, &input, &shipped, tell)?;
    report.refused = input.refused.take();
    if input.time.is_some() && shipped.bytes > room.disk_bytes() {
        let remark = "segments were made while time was taken: more came than was expected";
        report.remarks.push(remark.to_owned());
    }
    if !report.problems.is_empty() {
        home.temporary = false; // what is wrong can be looked at
    }
    report.kept = (!home.temporary).then(|| home.dir.clone());
    Ok(report)
}

/// What was shipped, and when.
struct Shipped {
    records: u64,
    bytes: u64,
    digest: Digest,
    seconds: f64,
    cpu_seconds: f64,
}

/// A running cluster and what is to be watched.
struct Watch {
    cluster: Cluster,
    shared: Arc<Shared>,
    signal: Arc<AtomicBool>,
}

impl Watch {
    /// Ships everything and waits until it is delivered everywhere.
    fn ship(&mut self, input: &mut Input, tell: Tell<'_>) -> Result<Shipped, DemoError> {
        let nodes = self.cluster.nodes.len();
        tell("forming the ring");
        self.wait("the ring forms and makes its topics", tell, None, |watch| {
            watch.shared.ready() == nodes
        })?;
        tell("making the memory logs ready");
        self.wait("the memory logs are made ready", tell, None, |watch| {
            watch.gauges().all(|gauges| gauges.warm.get() == 1)
        })?;
        let cpu = cpu_seconds();
        self.shared.go();
        let total = input.sum().map(|(records, _)| records);
        self.wait("the load is shipped", tell, total, |watch| watch.shared.finished() == nodes)?;
        input.shipped(&self.shared.shipped());
        let (records, bytes) = input.sum().expect("the load has ended");
        self.wait("everything is delivered", tell, Some(records), |watch| {
            watch.gauges().all(|gauges| gauges.records.get() >= records)
        })?;
        let cpu_seconds = cpu_seconds() - cpu;
        let last = self.gauges().map(|gauges| gauges.last_delivery_us.get()).max().unwrap_or(0);
        let first = self.shared.first_us().unwrap_or(last);
        let seconds = last.saturating_sub(first) as f64 / 1e6;
        let seconds = if records > 0 { seconds.max(1e-6) } else { 0.0 };
        let digest = check::digest(&input.parts, &self.shared);
        Ok(Shipped { records, bytes, digest, seconds, cpu_seconds })
    }

    fn gauges(&self) -> impl Iterator<Item = &Gauges> {
        self.cluster.nodes.iter().map(|node| &*node.gauges)
    }

    /// Waits until `done`; or until something is wrong.
    fn wait(
        &self,
        waiting: &'static str,
        tell: Tell<'_>,
        total: Option<u64>,
        done: impl Fn(&Watch) -> bool,
    ) -> Result<(), DemoError> {
        let (mut last, mut since, mut told) = (u64::MAX, Instant::now(), Instant::now());
        while !done(self) {
            if self.signal.load(Ordering::Relaxed) {
                return Err(DemoError::Interrupted);
            }
            if let Some(node) = self.cluster.nodes.iter().find(|node| node.has_ended()) {
                return Err(DemoError::Stopped { node: node.config.node.id.0 });
            }
            let now: u64 = self.gauges().map(|gauges| gauges.records.get()).sum();
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > STALL {
                let (seconds, states) = (STALL.as_secs(), self.cluster.states());
                return Err(DemoError::Stalled { seconds, waiting, states });
            }
            if told.elapsed() > TELL {
                told = Instant::now();
                let slowest = self.gauges().map(|gauges| gauges.records.get()).min().unwrap_or(0);
                let of = total.map_or(String::new(), |total| format!(" of {total}"));
                tell(&format!("delivered everywhere: {slowest}{of} records"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends everything; a node's own reason says more than that it stopped.
    fn give_up(self, error: DemoError) -> DemoError {
        match (self.cluster.stop(), error) {
            (Err(reason), DemoError::Stopped { .. }) => reason.into(),
            (_, error) => error,
        }
    }
}

/// Reads everything back, stops the nodes, and sums up.
fn finish(
    plan: &Plan,
    home: &Path,
    watch: Watch,
    input: &Input,
    shipped: &Shipped,
    tell: Tell<'_>,
) -> Result<Report, DemoError> {
    let (mut problems, mut remarks) = (Vec::new(), Vec::new());
    let Watch { cluster, .. } = watch;
    for node in &cluster.nodes {
        remarks.extend(node.remarks.iter().cloned());
    }
    if plan.durability == Durability::Memory {
        tell("reading the memory logs back");
        match read_memory(&cluster.nodes, input, &mut remarks) {
            Ok(found) => problems.extend(found),
            Err(error) => {
                let _ = cluster.stop();
                return Err(error);
            }
        }
    }
    let gauges: Vec<_> = cluster.nodes.iter().map(|node| Arc::clone(&node.gauges)).collect();
    tell("stopping");
    let finished = cluster.drain()?;
    for (gauges, id) in gauges.iter().zip(1..) {
        problems.extend(compare_figures(id, gauges, shipped));
    }
    if plan.durability != Durability::Memory {
        tell("reading the logs back");
        problems.extend(read_disks(home, plan.nodes, input)?);
    }
    Ok(Report {
        records: shipped.records,
        bytes: shipped.bytes,
        digest: shipped.digest.0,
        problems,
        refused: None,
        seconds: shipped.seconds,
        cpu_seconds: shipped.cpu_seconds,
        latency: latency(&finished),
        remarks,
        kept: None,
    })
}

/// The figures that a node has kept itself.
fn compare_figures(id: u8, gauges: &Gauges, shipped: &Shipped) -> Vec<String> {
    let digest = Digest::from_halves(gauges.digest_low.get(), gauges.digest_high.get());
    let pairs = [
        ("records", gauges.records.get().to_string(), shipped.records.to_string()),
        ("bytes", gauges.bytes.get().to_string(), shipped.bytes.to_string()),
        ("digest", format!("{:032x}", digest.0), format!("{:032x}", shipped.digest.0)),
    ];
    let unequal = |(what, has, wanted): (&str, String, String)| {
        (has != wanted).then(|| format!("node {id}: {what} {has}, shipped {wanted}"))
    };
    pairs.into_iter().filter_map(unequal).collect()
}

fn read_memory(
    nodes: &[Node],
    input: &Input,
    remarks: &mut Vec<String>,
) -> Result<Vec<String>, DemoError> {
    let mut problems = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let url = format!("http://{}", node.config.member().http);
        let mut dropped = 0;
        problems.extend(check::memory(index, &url, &input.parts, &mut dropped)?);
        if dropped > 0 {
            remarks.push(format!(
                "node {}: the memory log had dropped the {dropped} oldest records before they \
                 could be compared",
                index + 1
            ));
        }
    }
    Ok(problems)
}

fn read_disks(home: &Path, nodes: u8, input: &Input) -> Result<Vec<String>, DemoError> {
    let check = |node: usize| {
        let dir = home.join((node + 1).to_string()).join("log");
        check::disk(node, &dir, &input.parts)
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..usize::from(nodes)).map(|node| scope.spawn(move || check(node))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a check does not panic")).collect()
    });
    let mut problems = Vec::new();
    for node in found {
        problems.extend(node?);
    }
    Ok(problems)
}

fn latency(finished: &[Finished]) -> Latency {
    let mut all = Histogram::<u64>::new_with_bounds(1, 100_000_000, 3).expect("valid bounds");
    for node in finished {
        all.add(&node.latency).expect("of the same bounds");
    }
    Latency {
        p50: all.value_at_quantile(0.5),
        p99: all.value_at_quantile(0.99),
        p999: all.value_at_quantile(0.999),
        max: all.max(),
    }
}

/// User and system time of the process.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
