//! A node is ready once it has what was decided before it started, and not before.

use chainring_ring::actions::{Actions, Input};
use chainring_ring::core::{Core, Recovered, Settings};
use chainring_ring::ids::{
    Ballot, Claim, Durability, Entry, Incarnation, Instance, NodeId, Order, Session,
};
use chainring_ring::layout::Layout;
use chainring_ring::window::WINDOW_MIN;

fn ballot(round: u32) -> Ballot {
    Ballot { round, node: NodeId(2), incarnation: Incarnation(1) }
}

fn new(nodes: u8) -> Core {
    let settings = Settings {
        nodes: (1..=nodes).map(NodeId).collect(),
        voters: vec![Incarnation(1); nodes.into()],
        me: NodeId(1),
        incarnation: Incarnation(1),
        session: Session::FIRST,
        durability: Durability::Memory,
        window: WINDOW_MIN,
        seed: 0,
        patience: 0,
    };
    Core::new(settings, Recovered::default())
}

fn step(core: &mut Core, input: Input<'_>) {
    core.step(input, &mut Actions::new());
}

/// The coordinator's word: so much is decided, and the barrier is there.
fn open(core: &mut Core, round: u32, decided: u64, barrier: u64) {
    let ballot = ballot(round);
    let claim = Claim { ballot, position: Instance(decided) };
    let layout = Layout::new([NodeId(2), NodeId(1), NodeId(3)]);
    step(core, Input::Open { ballot, layout, claim, barrier: Instance(barrier) });
}

fn deliver_to(core: &mut Core, end: u64) {
    for at in (core.delivered().0..end).map(Instance) {
        let ballot = core.promised();
        let order =
            Order { instance: at, ballot, base: Instance(0), entry: Entry::Noop, decided: true };
        step(core, Input::Decided { order, ballot });
        let appended = core.appended();
        step(core, Input::Persisted(appended));
    }
    assert_eq!(core.delivered(), Instance(end));
}

#[test]
fn what_was_decided_at_the_start_has_to_be_delivered() {
    let mut core = new(3);
    assert!(!core.is_ready(), "it has heard nobody");
    open(&mut core, 1, 9, 3);
    deliver_to(&mut core, 8);
    assert!(!core.is_ready());
    // What is decided later does not put it off.
    open(&mut core, 1, 12, 3);
    deliver_to(&mut core, 9);
    assert!(core.is_ready());
    open(&mut core, 2, 20, 30);
    assert!(core.is_ready(), "once ready it stays so");
}

#[test]
fn the_barrier_has_to_be_delivered() {
    let mut core = new(3);
    open(&mut core, 1, 2, 5);
    deliver_to(&mut core, 5);
    assert!(!core.is_ready());
    deliver_to(&mut core, 6);
    assert!(core.is_ready());
}

#[test]
fn a_barrier_that_was_never_decided_is_not_waited_for() {
    let mut core = new(3);
    open(&mut core, 1, 2, 50);
    open(&mut core, 2, 2, 4);
    open(&mut core, 1, 2, 7);
    deliver_to(&mut core, 5);
    assert!(core.is_ready());
}

#[test]
fn a_node_alone_is_ready_behind_its_own_barrier() {
    let mut core = new(1);
    step(&mut core, Input::Tick);
    let promised = core.promised();
    step(&mut core, Input::Promised(promised));
    let appended = core.appended();
    step(&mut core, Input::Persisted(appended));
    assert!(core.is_ready(), "in memory its own vote is a quorum");
    assert_eq!(core.delivered(), Instance(1));
}
