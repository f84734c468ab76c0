//! Tests of the catalog.

use super::*;
use chainring_ring::ids::Incarnation;

fn id(origin: u8, start: u32, sequence: u64) -> ValueId {
    let session = Session { incarnation: Incarnation(1), start };
    ValueId { origin: NodeId(origin), session, sequence: Sequence(sequence) }
}

fn order(instance: u64, entry: Entry) -> Order {
    let instance = Instance(instance);
    Order { instance, ballot: Ballot::ZERO, base: Instance(0), entry, decided: false }
}

fn place(at: u64) -> Place {
    Place { at, bytes: 512 }
}

/// Three values of two origins, a no-op between, two topics; places out of order.
fn sample() -> Catalog {
    let mut catalog = Catalog::new(true);
    catalog.on_instance(order(0, Entry::Value(id(1, 1, 0))), place(0));
    catalog.on_topic(TopicId(0), "a");
    catalog.on_topic(TopicId(1), "b");
    catalog.on_run(TopicId(0), 0, 10, (0, 128));
    catalog.on_instance(order(1, Entry::Noop), Place::default());
    catalog.on_instance(order(2, Entry::Value(id(2, 5, 0))), place(1024));
    catalog.on_run(TopicId(0), 10, 1, (0, 128));
    catalog.on_run(TopicId(1), 0, 4, (0, 160));
    catalog.on_instance(order(3, Entry::Value(id(1, 1, 1))), place(512));
    catalog.on_run(TopicId(1), 4, 2, (0, 128));
    catalog.on_instance(order(4, Entry::Value(id(1, 2, 0))), place(1536));
    catalog.on_run(TopicId(0), 11, 3, (0, 128));
    catalog
}

#[test]
fn offsets_are_located() {
    let catalog = sample();
    let run = |topic, offset| match catalog.locate(TopicId(topic), offset) {
        Located::Run(run) => (run.first_offset, run.count, run.place.at, run.at),
        other => panic!("{other:?}"),
    };
    assert_eq!(run(0, 0), (0, 10, 0, 128));
    assert_eq!(run(0, 9), (0, 10, 0, 128));
    assert_eq!(run(0, 10), (10, 1, 1024, 128));
    assert_eq!(run(1, 3), (0, 4, 1024, 160));
    assert_eq!(run(1, 5), (4, 2, 512, 128));
    assert_eq!(catalog.locate(TopicId(0), 14), Located::Above { end: 14 });
    assert_eq!(catalog.locate(TopicId(0), u64::MAX), Located::Above { end: 14 });
}

#[test]
fn entries_are_found_by_instance_and_id() {
    let catalog = sample();
    assert_eq!((catalog.first(), catalog.delivered()), (Instance(0), Instance(5)));
    assert_eq!(catalog.entry(Instance(3)).unwrap().1, place(512));
    assert_eq!(catalog.entry(Instance(5)), None);
    assert_eq!(catalog.find(id(2, 5, 0)).unwrap().0.instance, Instance(2));
    assert_eq!(catalog.find(id(1, 2, 0)).unwrap().0.instance, Instance(4));
    assert_eq!(catalog.find(id(1, 2, 1)), None);
    assert_eq!(catalog.find(id(3, 1, 0)), None);
}

#[test]
fn the_claim_is_no_lower_than_any_ballot_delivered() {
    let mut catalog = sample();
    assert_eq!(catalog.claim(), Claim { ballot: Ballot::ZERO, position: Instance(5) });
    let ballot = Ballot { round: 3, node: NodeId(2), incarnation: Incarnation(1) };
    catalog.on_instance(Order { ballot, ..order(5, Entry::Noop) }, Place::default());
    catalog.on_instance(order(6, Entry::Noop), Place::default());
    assert_eq!(catalog.claim(), Claim { ballot, position: Instance(7) });
}

#[test]
fn what_the_memory_log_dropped_is_gone_with_all_before_it() {
    let mut catalog = sample();
    catalog.on_memory_first(0);
    assert_eq!(catalog.first(), Instance(0));
    // Drops the places 0 and 512: the entries 0 and 3, and so all up to 3.
    catalog.on_memory_first(513);
    assert_eq!((catalog.first(), catalog.delivered()), (Instance(4), Instance(5)));
    assert_eq!(catalog.entry(Instance(3)), None);
    assert_eq!(catalog.find(id(1, 1, 1)), None);
    assert_eq!(catalog.find(id(1, 2, 0)).unwrap().0.instance, Instance(4));
    assert_eq!(catalog.locate(TopicId(0), 10), Located::Below { first: 11 });
    assert_eq!(catalog.locate(TopicId(1), 0), Located::Below { first: 6 });
    assert!(matches!(catalog.locate(TopicId(0), 11), Located::Run(_)));
    catalog.on_memory_first(u64::MAX);
    assert_eq!((catalog.first(), catalog.delivered()), (Instance(5), Instance(5)));
    catalog.on_instance(order(5, Entry::Value(id(1, 2, 1))), place(4096));
    catalog.on_run(TopicId(1), 6, 1, (0, 128));
    assert!(matches!(catalog.locate(TopicId(1), 6), Located::Run(_)));
    let ends: Vec<_> = catalog.topics().map(|t| (t.name, t.first, t.end)).collect();
    assert_eq!(ends, [("a", 14, 14), ("b", 6, 7)]);
}

#[test]
#[should_panic(expected = "in order")]
fn a_gap_is_a_broken_shard() {
    sample().on_instance(order(6, Entry::Noop), Place::default());
}
