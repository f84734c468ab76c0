//! Packets of mixed sizes go round over real sockets; every byte is compared at every node.

mod common;

use common::{Plan, ring};
use std::time::Duration;

fn mixed(origin: u8, sequence: u64) -> u32 {
    let draw = (sequence ^ u64::from(origin) << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    512 * (1 + (draw % if draw.is_multiple_of(11) { 16 } else { 4 }) as u32)
}

fn plan(nodes: u8, packets: u64) -> Plan {
    Plan {
        nodes,
        packets,
        size: mixed,
        packet_max: 8192,
        slots: 16,
        receive: 1 << 20,
        spin: Duration::from_micros(50),
        verify: true,
    }
}

#[test]
fn three_nodes_pass_packets_round() {
    let reports = ring(&plan(3, 34_000));
    for report in &reports {
        assert!(report.counters.bytes_received > 20 << 20, "the buffer wrapped many times");
        assert_eq!(report.counters.packets_received, 68_000);
        assert_eq!(report.counters.packets_sent, 68_000);
        assert_eq!(report.counters.bad_frames, 0);
    }
}

/// The smallest buffer that two windows fit in, and no spinning: blocking loses no wake-up.
#[test]
fn two_nodes_in_a_small_buffer() {
    let plan = Plan { slots: 4, receive: 1 << 15, spin: Duration::ZERO, ..plan(2, 5_000) };
    let reports = ring(&plan);
    assert!(reports.iter().all(|report| report.counters.packets_received == 5_000));
}
