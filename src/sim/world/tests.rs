//! What a world owes its observer, and what the observer owes the world.

use super::{Outcome, Telling, World};
use crate::control::catalog::Located;
use crate::mail::TopicId;
use crate::sim::disk::Rot;
use crate::sim::observer::Invariant;
use crate::sim::plan::Plan;
use crate::sim::random::Random;
use chainring_storage::{Access, Disk, Place, segment_path};
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

/// A world at its end, and where on the disk of a node that it may spoil a record lies.
fn ended() -> (World, u8, std::path::PathBuf, u64) {
    for seed in 1.. {
        let mut world = World::new(Plan::new(seed, EVENTS), Telling::default());
        if !world.live() || world.equal_at.is_none() {
            continue;
        }
        let Some(sim) = world.nodes.iter().find(|sim| sim.victim) else { continue };
        let alive = sim.alive.as_ref().expect("all are equal");
        let catalog = alive.clerk.catalog.borrow();
        let written = alive.clerk.reads_disk() && catalog.topics().any(|topic| topic.end > 0);
        let Located::Run(run) = catalog.locate(TopicId(0), 0) else { continue };
        let place = Place { at: run.place.at, bytes: run.place.bytes };
        let path = segment_path(&sim.config.node.dir, place.segment());
        let (node, at) = (sim.index, u64::from(place.offset()));
        drop(catalog);
        if written && world.plan.nodes > 1 {
            return (world, node, path, at);
        }
    }
    unreachable!("most worlds have a node that may be spoilt");
}

/// A record that cannot be read is excused nowhere, once the log was looked over, while another
/// node has it: a look over the log puts it back.
#[test]
fn what_another_node_has_may_not_be_unreadable() {
    for (rots, looks) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut world, node, path, at) = ended();
        let disk = &world.nodes[usize::from(node)].disk;
        match rots {
            true => assert!(disk.rot(&path, at, Rot::Garbage, &mut Random::new(1))),
            false => {
                let file = disk.open(&path, Access::Write, true).unwrap();
                file.write_at(&[0; 64], at).unwrap();
            }
        }
        if looks {
            world.compare();
        } else {
            world.read_all(node);
        }
        let named = world.outcome().violation.map(|violation| violation.invariant);
        assert_eq!(named, (!looks).then_some(Invariant::D7), "rots: {rots}");
    }
}
