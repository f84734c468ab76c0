//! Times of deliveries: the latency of own records, and when the newest delivery was.
//!
//! The loop reads the clock once a turn, so what a turn delivers counts as delivered when the turn
//! is over: at the time of the next one. Invariant: nothing is allocated after `new`.

use chainring_ring::lanes::LANE_PACKETS_MAX;
use hdrhistogram::Histogram;
use std::collections::VecDeque;

/// Times of one shard's deliveries.
#[derive(Debug)]
pub struct Times {
    /// Batcher to delivery at the origin, microseconds, of own records.
    pub latency: Histogram<u64>,
    /// When the newest delivery was, microseconds.
    pub last_us: u64,
    /// Something was delivered in this turn.
    delivered: bool,
    /// Own packets delivered in this turn: since when they were under way, and their records.
    own: VecDeque<(u64, u32)>,
}

impl Times {
    /// No deliveries.
    pub fn new() -> Times {
        let latency = Histogram::new_with_bounds(1, 100_000_000, 3).expect("valid bounds");
        let own = VecDeque::with_capacity(LANE_PACKETS_MAX as usize);
        Times { latency, last_us: 0, delivered: false, own }
    }

    /// Something was delivered.
    pub fn delivered(&mut self) {
        self.delivered = true;
    }

    /// An own packet was delivered, under way since `since_us`.
    pub fn delivered_own(&mut self, since_us: u64, records: u32) {
        if records > 0 {
            self.own.push_back((since_us, records));
        }
    }

    /// The turn that delivered is over.
    pub fn turn(&mut self, now_us: u64) {
        if std::mem::take(&mut self.delivered) {
            self.last_us = now_us;
        }
        while let Some((since_us, records)) = self.own.pop_front() {
            let latency = now_us.saturating_sub(since_us).max(1);
            self.latency.saturating_record_n(latency, u64::from(records));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_counts_from_the_end_of_its_turn() {
        let mut times = Times::new();
        times.delivered();
        times.delivered_own(100, 3);
        times.delivered_own(100, 0);
        assert_eq!((times.last_us, times.latency.len()), (0, 0));
        times.turn(350);
        assert_eq!((times.last_us, times.latency.len(), times.latency.max()), (350, 3, 250));
        times.turn(900);
        assert_eq!((times.last_us, times.latency.len()), (350, 3));
    }
}
