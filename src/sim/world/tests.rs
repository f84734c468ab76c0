//! What a world owes its observer, and what the observer owes the world.

use super::{Outcome, Telling, World};
use crate::sim::plan::Plan;
use std::rc::Rc;

const EVENTS: u64 = 4000;

fn run(seed: u64, blind: bool) -> Outcome {
    World::new(Plan::new(seed, EVENTS), Telling { blind, ..Telling::default() }).run()
}

/// Whoever watches changes nothing: the same course, to the last event, without anybody.
#[test]
fn a_world_that_nobody_watches_is_the_same() {
    for seed in 1..=12 {
        let (seen, unseen) = (run(seed, false), run(seed, true));
        assert_eq!(seen.violation, None);
        let course = |it: &Outcome| {
            let Outcome { events, us, healed_us, requests, answered, digest, .. } = *it;
            (events, us, healed_us, requests, answered, digest, it.by_kind.clone())
        };
        assert_eq!(course(&seen), course(&unseen), "seed {seed}");
    }
}

/// Every fault has a name: where none may happen, none does.
#[test]
fn a_world_without_its_faults_has_none() {
    for seed in 17..=26 {
        let telling = Telling { only: Some(Default::default()), ..Telling::default() };
        let outcome = World::new(Plan::new(seed, EVENTS), telling).run();
        assert_eq!((outcome.violation, outcome.faults), (None, [0; 3]), "seed {seed}");
    }
}

/// Digests are compared at every position while a world runs, not at its end alone.
#[test]
fn the_digest_of_every_position_is_told() {
    let world = World::new(Plan::new(1, EVENTS), Telling::default());
    let (observer, nodes) = (Rc::clone(&world.shared.observer), world.nodes.len());
    assert_eq!(world.run().violation, None);
    let (known, all) = (observer.borrow().digests(), observer.borrow().positions());
    assert!(nodes > 1 && all > 20 && known == all + 1, "{known} of {all}");
}
