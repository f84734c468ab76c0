//! The hunt for mutants: does the simulator see the faults that were planted on purpose?
//!
//! Invariants: a mutant is caught by the violation of a named invariant alone, never by a panic or
//! because a world does not come to its end (L1); it needed as many seeds as its lowest one that
//! caught it says, whatever the number of threads; when a hunt ends nothing is planted.

use crate::sim::swarm::{Failure, Orders, PANIC, Stop, swarm};
use chainring_ring::mutants::{Mutant, plant};
use std::time::{Duration, Instant};

/// What came of the hunt for one.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Whom.
    pub mutant: Mutant,
    /// The violation by which it was caught, and the seeds that it took.
    pub caught: Option<(Failure, u64)>,
    /// Seeds that panicked before.
    pub panicked: u64,
    /// Seeds that came to no end before.
    pub unsettled: u64,
    /// Seeds that were run.
    pub seeds: u64,
    /// For so long.
    pub took: Duration,
}

/// Hunts one mutant over the seeds of `orders`.
pub fn hunt(mutant: Mutant, orders: &Orders) -> Hunt {
    let began = Instant::now();
    plant(Some(mutant));
    let report = swarm(Orders { stop: Stop::Named, told: false, ..orders.clone() }, &|_| {});
    plant(None);
    let caught = report.failures.iter().find(|failure| failure.is_named()).cloned();
    let needed = |seed: u64| seed.wrapping_sub(orders.first_seed) + 1;
    let end = caught.as_ref().map_or(report.seeds, |failure| needed(failure.seed));
    let before = report.failures.iter().filter(|failure| needed(failure.seed) < end);
    let (panicked, unsettled): (Vec<_>, Vec<_>) = before.partition(|failure| failure.name == PANIC);
    Hunt {
        mutant,
        caught: caught.map(|failure| (failure, end)),
        panicked: panicked.len() as u64,
        unsettled: unsettled.len() as u64,
        seeds: report.seeds,
        took: began.elapsed(),
    }
}

/// Seeds that they needed: the median and the most, of those that were caught.
pub fn median_and_worst(hunts: &[Hunt]) -> Option<(u64, u64)> {
    let caught = hunts.iter().filter_map(|hunt| hunt.caught.as_ref());
    let mut needed: Vec<u64> = caught.map(|(_, seeds)| *seeds).collect();
    needed.sort_unstable();
    Some((*needed.get(needed.len().checked_sub(1)? / 2)?, *needed.last()?))
}

/// The mutant of a name.
pub fn named(name: &str) -> Option<Mutant> {
    Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(seeds: &[u64]) -> Vec<Hunt> {
        let failure = Failure { seed: 1, name: "A3".to_owned(), what: String::new() };
        let hunt = |seeds: &u64| Hunt {
            mutant: Mutant::AcceptBelowPromise,
            caught: (*seeds > 0).then(|| (failure.clone(), *seeds)),
            panicked: 0,
            unsettled: 0,
            seeds: 5000,
            took: Duration::ZERO,
        };
        seeds.iter().map(hunt).collect()
    }

    #[test]
    fn only_who_was_caught_counts() {
        assert_eq!(median_and_worst(&needed(&[])), None);
        assert_eq!(median_and_worst(&needed(&[0, 0])), None);
        assert_eq!(median_and_worst(&needed(&[7, 0])), Some((7, 7)));
        assert_eq!(median_and_worst(&needed(&[900, 0, 1, 30])), Some((30, 900)));
        assert_eq!(named("AcceptBelowPromise"), Some(Mutant::AcceptBelowPromise));
        assert_eq!(named("acceptbelowpromise"), None);
        let named = |name| Failure { seed: 1, name: String::from(name), what: String::new() };
        assert!(named("A3").is_named() && !named(PANIC).is_named() && !named("L1").is_named());
    }
}
