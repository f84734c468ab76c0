//! The digest: equal for equal histories, different after any difference, the same for ever.

use chainring_ring::actions::{Actions, Input};
use chainring_ring::core::{Core, Recovered, Settings};
use chainring_ring::ids::{
    Ballot, Durability, Incarnation, Instance, NodeId, Sequence, Session, ValueId,
};
use chainring_ring::votes::Vote;
use chainring_ring::window::WINDOW_MAX;

const BALLOT: Ballot = Ballot { round: 1, node: NodeId(1), incarnation: Incarnation(1) };

fn id(origin: u8, sequence: u64) -> ValueId {
    ValueId { origin: NodeId(origin), session: Session::FIRST, sequence: Sequence(sequence) }
}

fn new() -> Core {
    let settings = Settings {
        nodes: vec![NodeId(1)],
        voters: vec![Incarnation(1)],
        me: NodeId(1),
        incarnation: Incarnation(1),
        session: Session::FIRST,
        durability: Durability::Sync,
        window: WINDOW_MAX,
        seed: 0,
        patience: 0,
    };
    Core::new(settings, Recovered::default())
}

/// A ring of one orders, writes and delivers two values.
fn script() -> [Input<'static>; 8] {
    [
        Input::Tick,
        Input::Promised(BALLOT),
        Input::Persisted(1),
        Input::Value(id(1, 0)),
        Input::Value(id(1, 1)),
        Input::Persisted(5),
        Input::Tick,
        Input::Vote(Vote { node: NodeId(3), ..Vote::default() }),
    ]
}

fn run(core: &mut Core, inputs: &[Input<'_>]) {
    let mut out = Actions::new();
    for input in inputs {
        core.step(*input, &mut out);
        out.clear();
    }
}

#[test]
fn equal_histories_have_equal_digests() {
    let (mut first, mut second) = (new(), new());
    for input in script() {
        run(&mut first, &[input]);
        assert_ne!(first.digest(), new().digest());
        run(&mut second, &[input]);
        assert_eq!(first.digest(), second.digest());
        assert_eq!(first, second);
    }
    assert_eq!(first.delivered(), Instance(3), "barrier and two values");
}

#[test]
fn a_copy_goes_on_alike_and_apart() {
    let mut core = new();
    run(&mut core, &script()[..4]);
    let mut copy = core.clone();
    assert_eq!((copy.digest(), &copy), (core.digest(), &core));
    run(&mut core, &script()[4..]);
    assert_ne!(copy.digest(), core.digest());
    assert_ne!(copy, core);
    run(&mut copy, &script()[4..]);
    assert_eq!((copy.digest(), &copy), (core.digest(), &core));
}

/// Golden: changes only when the core's state or behaviour does, on purpose.
#[test]
fn the_digest_is_stable() {
    let mut core = new();
    run(&mut core, &script());
    assert_eq!(core.digest(), GOLDEN, "{:#034x}", core.digest());
}

const GOLDEN: u128 = 0x83af_1189_ec12_410c_32dc_a77f_785c_855c;
