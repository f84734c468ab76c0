//! A ring without any protocol over loopback, one thread a node: what the wire alone can do.
//!
//! `cargo run --release -p chainring-net --example bare_ring -- [NODES] [FRAME_BYTES] [GIBIBYTES]`

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Plan, ring};
use std::time::Duration;

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn main() {
    let argument = |at, default| {
        std::env::args().nth(at).map_or(default, |text| text.parse::<u64>().expect("a number"))
    };
    let (nodes, bytes, gibibytes) = (argument(1, 3) as u8, argument(2, 32768), argument(3, 4));
    let size = match bytes {
        8192 => |_, _| 8192,
        32768 => |_, _| 32768,
        131_072 => |_, _| 131_072,
        262_144 => |_, _| 262_144,
        _ => panic!("frame sizes: 8192, 32768, 131072, 262144"),
    };
    let plan = Plan {
        nodes,
        packets: (gibibytes << 30) / bytes / u64::from(nodes),
        size,
        packet_max: bytes as u32,
        slots: ((1 << 20) / bytes).max(1),
        receive: 1 << 24,
        spin: Duration::from_micros(50),
        verify: false,
    };
    let reports = ring(&plan);
    let cpu = cpu_seconds();
    let total: u64 = reports.iter().map(|report| report.delivered).sum();
    for (node, report) in reports.iter().enumerate() {
        let rate = report.delivered as f64 * 8e-9 / report.seconds;
        println!("node {}: {rate:.1} Gbit/s delivered; {:?}", node + 1, report.counters);
    }
    println!("cpu: {:.3} s/GB (with start)", cpu / (total as f64 * 1e-9));
}
