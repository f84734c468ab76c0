//! Relays: the majority changes hands, so that what was chosen is known to few.
//!
//! One minority after another is cut off, under requests, while somebody else is told to campaign.
//! Who comes back holds orders that nobody chose, and who is cut off next takes with it the word of
//! what was chosen; one of those left may at that moment lose what it wrote last. Invariant: one
//! minority is cut off at a time, and only victims of the plan lose anything.

use super::{Plan, Strike};
use crate::sim::faults::Kind;
use crate::sim::random::Random;

/// Before a minority comes back, one of the others loses something and its power.
const LOSS_US: u64 = 2_000;

/// Appends a relay, ascending in time.
pub(super) fn relay(random: &mut Random, plan: &Plan, mut at: u64, strikes: &mut Vec<Strike>) {
    let first = strikes.len();
    let most = usize::from(plan.nodes - 1) / 2;
    let mean = 50_000 << random.below(5);
    let mut order: Vec<u8> = (0..plan.nodes).collect();
    random.shuffle(&mut order);
    for _ in 0..2 + random.below(4) {
        let lasts = 10 * LOSS_US + random.exponential(mean);
        let (out, left) = order.split_at(most);
        let mut push = |at, lasts, kind, node, detail| {
            strikes.push(Strike { at, lasts, kind, node, detail });
        };
        push(at, lasts, Kind::Part, out[0], cut(out));
        for _ in 0..1 + random.below(2) {
            push(at + random.below(lasts), 0, Kind::Campaign, *random.pick(left), 1);
        }
        for _ in 0..random.below(6) {
            push(at + random.below(lasts), 0, Kind::Rush, left[0], 0);
        }
        at += lasts;
        let victims: Vec<u8> = left.iter().copied().filter(|node| plan.may_spoil(*node)).collect();
        if !victims.is_empty() && random.coin() {
            let (node, detail) = (*random.pick(&victims), random.bits() & !ANYWHERE);
            push(at - LOSS_US, 0, Kind::Rot, node, detail);
            let lasts = 1_000 + random.exponential(10_000);
            push(at - LOSS_US / 2, lasts, Kind::Power, node, AT_ONCE);
        }
        at += 100;
        // Who was cut off is left in the next time.
        order.rotate_left(most);
    }
    strikes[first..].sort_by_key(|strike| strike.at);
}

/// A power failure's detail: at once, not in the middle of an operation or of a write.
const AT_ONCE: u64 = 3;
/// Of a rot's detail: set if it meets any part of the log.
const ANYWHERE: u64 = 1 << 8;

/// The detail of a partition between these nodes and all others.
fn cut(out: &[u8]) -> u64 {
    let mask = out.iter().fold(0, |mask, node| mask | 1 << node) << 8;
    (mask..).find(|detail: &u64| detail % 7 == 5).expect("one of seven")
}
