//! Phase 1 counted over answers *have*, *never had* and *unknown*, case by case (design,
//! "Ballots"), and what a new ballot proposes.

use chainring_ring::actions::{Action, Actions, Input, PromiseFrom};
use chainring_ring::codec::{ORDER_BYTES, put_order};
use chainring_ring::coordinator::Role;
use chainring_ring::core::{Core, Recovered, Settings};
use chainring_ring::ids::{
    Ballot, Durability, Entry, Incarnation, Instance, NodeId, Order, Sequence, Session, ValueId,
};
use chainring_ring::votes::Vote;
use chainring_ring::window::WINDOW_MAX;

/// An entry without bytes, told apart by a number.
fn entry(number: u32) -> Entry {
    let below = Session { incarnation: Incarnation(1), start: number };
    Entry::Close { origin: NodeId(2), below }
}

fn value(sequence: u64) -> ValueId {
    ValueId { origin: NodeId(2), session: Session::FIRST, sequence: Sequence(sequence) }
}

fn ballot(round: u32) -> Ballot {
    match round {
        0 => Ballot::ZERO,
        _ => Ballot { round, node: NodeId(2), incarnation: Incarnation(1) },
    }
}

fn order(instance: u64, round: u32, entry: Entry) -> Order {
    let (instance, ballot, base) = (Instance(instance), ballot(round), Instance(0));
    Order { instance, ballot, base, entry, decided: false }
}

fn core(nodes: u8, recovered: Recovered) -> Core {
    let settings = Settings {
        nodes: (1..=nodes).map(NodeId).collect(),
        voters: vec![Incarnation(1); usize::from(nodes)],
        me: NodeId(1),
        incarnation: Incarnation(1),
        session: Session::FIRST,
        durability: Durability::Sync,
        window: WINDOW_MAX,
        seed: 0,
        patience: 0,
    };
    Core::new(settings, recovered)
}

/// What one node answers.
#[derive(Clone, Copy)]
struct Says {
    node: u8,
    damaged: bool,
    /// Round promised before.
    before: u32,
    /// Position delivered.
    delivered: u64,
    /// (instance, round, number of the entry)
    orders: &'static [(u64, u32, u32)],
}

const NOTHING: Says = Says { node: 1, damaged: false, before: 0, delivered: 0, orders: &[] };

fn orders_of(says: &Says) -> Vec<Order> {
    says.orders
        .iter()
        .map(|(instance, round, number)| order(*instance, *round, entry(*number)))
        .collect()
}

fn answer(core: &mut Core, says: &Says, orders: &[Order], out: &mut Actions) {
    let mut bytes = vec![0; orders.len() * ORDER_BYTES];
    for (order, bytes) in orders.iter().zip(bytes.chunks_mut(ORDER_BYTES)) {
        put_order(order, bytes);
    }
    let promise = PromiseFrom {
        from: NodeId(says.node),
        incarnation: Incarnation(1),
        ballot: core.promised(),
        before: ballot(says.before),
        damaged: says.damaged,
        first: Instance(0),
        delivered: Instance(says.delivered),
        orders: &bytes,
    };
    core.step(Input::Promise(promise), out);
}

/// Node 1 campaigns with what it says itself as its memory.
fn candidate(nodes: u8, own: &Says, out: &mut Actions) -> Core {
    let recovered = Recovered {
        promised: ballot(own.before),
        damaged: own.damaged,
        orders: orders_of(own),
        ..Recovered::default()
    };
    let mut core = core(nodes, recovered);
    core.step(Input::Campaign, out);
    let promised = core.promised();
    core.step(Input::Promised(promised), out);
    core
}

fn appended(out: &Actions) -> Vec<Entry> {
    let entry = |action: &Action| match action {
        Action::AppendOrder(order) if order.entry == Entry::Barrier(order.ballot) => Some(END),
        Action::AppendOrder(order) => Some(order.entry),
        _ => None,
    };
    out.as_slice().iter().filter_map(entry).collect()
}

struct Case {
    name: &'static str,
    nodes: u8,
    answers: &'static [Says],
    /// What the new ballot proposes; `None` if it does not open.
    opens: Option<&'static [Entry]>,
}

const A: Entry =
    Entry::Close { origin: NodeId(2), below: Session { incarnation: Incarnation(1), start: 101 } };
const B: Entry =
    Entry::Close { origin: NodeId(2), below: Session { incarnation: Incarnation(1), start: 102 } };
const IDLE: Entry = Entry::Noop;
/// The ballot's own barrier, whatever its ballot.
const END: Entry = Entry::Barrier(Ballot::ZERO);

fn cases() -> Vec<Case> {
    let case = |name, nodes, answers, opens| Case { name, nodes, answers, opens };
    let mut cases = vec![
        case("alone in a ring of three", 3, &[NOTHING][..], None),
        case("alone in a ring of one", 1, &[NOTHING], Some(&[END][..])),
        case("two never had anything", 3, &[NOTHING, Says { node: 2, ..NOTHING }], Some(&[END])),
        case(
            "one of them has it",
            3,
            &[NOTHING, Says { node: 2, before: 1, orders: &[(0, 1, 101)], ..NOTHING }],
            Some(&[A, END]),
        ),
        case(
            "only the candidate has it",
            3,
            &[Says { before: 1, orders: &[(0, 1, 101)], ..NOTHING }, Says { node: 3, ..NOTHING }],
            Some(&[A, END]),
        ),
        case(
            "the highest ballot wins, first",
            3,
            &[
                Says { before: 2, orders: &[(0, 2, 102)], ..NOTHING },
                Says { node: 2, before: 1, orders: &[(0, 1, 101)], ..NOTHING },
            ],
            Some(&[B, END]),
        ),
        case(
            "the highest ballot wins, last",
            3,
            &[
                Says { before: 1, orders: &[(0, 1, 101)], ..NOTHING },
                Says { node: 2, before: 2, orders: &[(0, 2, 102)], ..NOTHING },
            ],
            Some(&[B, END]),
        ),
        case(
            "a hole is filled with nothing",
            3,
            &[NOTHING, Says { node: 2, before: 1, orders: &[(1, 1, 101)], ..NOTHING }],
            Some(&[IDLE, A, END]),
        ),
        case("the same node twice is one", 3, &[NOTHING, NOTHING], None),
        case("two of five", 5, &[NOTHING, Says { node: 2, ..NOTHING }], None),
        case(
            "three of five",
            5,
            &[NOTHING, Says { node: 2, ..NOTHING }, Says { node: 5, ..NOTHING }],
            Some(&[END]),
        ),
        case(
            "a peer that delivered more is heard out first",
            3,
            &[
                NOTHING,
                Says { node: 2, before: 1, delivered: 1, orders: &[(0, 1, 101)], ..NOTHING },
            ],
            None,
        ),
    ];
    cases.extend(damaged_cases());
    cases
}

/// Above everything reported an unknown answer stands for nothing at all.
fn damaged_cases() -> Vec<Case> {
    let case = |name, nodes, answers, opens| Case { name, nodes, answers, opens };
    vec![
        case(
            "unknown does not count",
            3,
            &[NOTHING, Says { node: 2, damaged: true, before: 1, ..NOTHING }][..],
            None,
        ),
        case(
            "unknown does not count at the candidate either",
            3,
            &[Says { damaged: true, ..NOTHING }, Says { node: 2, ..NOTHING }],
            None,
        ),
        case(
            "unknown beside a quorum of whole ones",
            3,
            &[
                NOTHING,
                Says { node: 2, damaged: true, before: 9, ..NOTHING },
                Says { node: 3, ..NOTHING },
            ],
            Some(&[END][..]),
        ),
        case(
            "what a damaged node still has is used",
            3,
            &[
                NOTHING,
                Says { node: 2, damaged: true, before: 1, orders: &[(0, 1, 101)], ..NOTHING },
                Says { node: 3, ..NOTHING },
            ],
            Some(&[A, END]),
        ),
        case(
            "have at its promise, but what lies above is unknown",
            3,
            &[
                Says { before: 1, orders: &[(0, 1, 101)], ..NOTHING },
                Says { node: 2, damaged: true, before: 1, orders: &[(0, 1, 101)], ..NOTHING },
            ],
            None,
        ),
        case(
            "two damaged of five",
            5,
            &[
                NOTHING,
                Says { node: 2, damaged: true, ..NOTHING },
                Says { node: 3, damaged: true, ..NOTHING },
                Says { node: 4, ..NOTHING },
            ],
            None,
        ),
        case(
            "two damaged of five, all there",
            5,
            &[
                NOTHING,
                Says { node: 2, damaged: true, ..NOTHING },
                Says { node: 3, damaged: true, ..NOTHING },
                Says { node: 4, ..NOTHING },
                Says { node: 5, before: 1, orders: &[(0, 1, 102)], ..NOTHING },
            ],
            Some(&[B, END]),
        ),
    ]
}

#[test]
fn a_ballot_opens_exactly_when_every_instance_is_counted() {
    for Case { name, nodes, answers, opens } in cases() {
        let mut out = Actions::new();
        let mut core = candidate(nodes, &answers[0], &mut out);
        answers[1..].iter().for_each(|says| answer(&mut core, says, &orders_of(says), &mut out));
        let coordinates = matches!(core.role(), Role::Coordinator(_));
        assert_eq!(coordinates, opens.is_some(), "{name}");
        assert_eq!(appended(&out), opens.unwrap_or_default(), "{name}");
    }
}

#[test]
fn a_reported_value_is_fetched_before_the_ballot_opens() {
    let mut out = Actions::new();
    let mut core = candidate(3, &NOTHING, &mut out);
    let says = Says { node: 2, before: 1, ..NOTHING };
    answer(&mut core, &says, &[order(0, 1, Entry::Value(value(0)))], &mut out);
    assert!(out.as_slice().contains(&Action::Fetch(value(0))));
    assert!(appended(&out).is_empty(), "only values that are held are ordered");
    core.step(Input::Fetched(value(0)), &mut out);
    assert_eq!(appended(&out), [Entry::Value(value(0)), END]);
}

/// A fetched value goes on like one of the link, whose own copy then counts as known; what lies
/// before it and did not come is declared first, or the next node would see a gap.
#[test]
fn a_fetched_value_is_passed_on() {
    let mut out = Actions::new();
    let mut core = core(3, Recovered::default());
    let id = |sequence| ValueId { origin: NodeId(3), ..value(sequence) };
    core.step(Input::Fetched(id(0)), &mut out);
    assert_eq!(out.as_slice(), [Action::Keep { id: id(0), forward: true }]);
    out.clear();
    core.step(Input::Fetched(id(3)), &mut out);
    let ValueId { origin, session, sequence } = id(3);
    let declared = Action::Declare { origin, session, to: sequence };
    assert_eq!(out.as_slice(), [declared, Action::Keep { id: id(3), forward: true }]);
    out.clear();
    core.step(Input::Fetched(id(1)), &mut out);
    assert_eq!(
        out.as_slice(),
        [Action::Keep { id: id(1), forward: false }],
        "declared, so not due"
    );
}

#[test]
fn an_answer_of_another_ballot_or_life_is_none() {
    let mut out = Actions::new();
    let mut core = candidate(3, &NOTHING, &mut out);
    let promise = PromiseFrom {
        from: NodeId(2),
        incarnation: Incarnation(1),
        ballot: ballot(1),
        before: Ballot::ZERO,
        damaged: false,
        first: Instance(0),
        delivered: Instance(0),
        orders: &[],
    };
    core.step(Input::Promise(promise), &mut out);
    let ballot = core.promised();
    core.step(
        Input::Promise(PromiseFrom { incarnation: Incarnation(2), ballot, ..promise }),
        &mut out,
    );
    core.step(Input::Promise(PromiseFrom { orders: &[0; 47], ballot, ..promise }), &mut out);
    core.step(Input::Promise(PromiseFrom { from: NodeId(4), ballot, ..promise }), &mut out);
    assert!(matches!(core.role(), Role::Candidate(_)));
    core.step(Input::Promise(PromiseFrom { ballot, ..promise }), &mut out);
    assert!(matches!(core.role(), Role::Coordinator(_)));
}

/// A range longer than the actions of a step is proposed in pieces, nothing new before its end.
#[test]
fn a_long_inherited_range_is_proposed_as_there_is_room() {
    const RANGE: u64 = 3000;
    let mut out = Actions::new();
    let mut core = candidate(3, &NOTHING, &mut out);
    core.step(Input::Value(ValueId { origin: NodeId(3), ..value(0) }), &mut out);
    let orders: Vec<Order> = (0..RANGE).map(|at| order(at, 1, Entry::Noop)).collect();
    let mut proposed = appended(&out);
    out.clear();
    answer(&mut core, &Says { node: 2, before: 1, ..NOTHING }, &orders, &mut out);
    for _ in 0..8 {
        proposed.extend(appended(&out));
        out.clear();
        core.step(Input::Continue, &mut out);
    }
    assert_eq!(proposed.len() as u64, RANGE + 2);
    assert!(proposed[..RANGE as usize].iter().all(|entry| *entry == Entry::Noop));
    assert_eq!(proposed[RANGE as usize], END);
    assert!(matches!(proposed.last(), Some(Entry::Value(id)) if id.origin == NodeId(3)));
}

/// Ballot after ballot opened, left its barrier and came to nothing, until the window was full.
/// The next one opens all the same; its own barrier follows when something is decided.
#[test]
fn a_window_full_of_barriers_is_inherited() {
    let mut out = Actions::new();
    let mut core = candidate(3, &NOTHING, &mut out);
    let barrier = Entry::Barrier(ballot(1));
    let orders: Vec<Order> = (0..WINDOW_MAX).map(|at| order(at, 1, barrier)).collect();
    answer(&mut core, &Says { node: 2, before: 1, ..NOTHING }, &orders, &mut out);
    let mut proposed = Vec::new();
    for _ in 0..8 {
        proposed.extend(appended(&out));
        out.clear();
        core.step(Input::Continue, &mut out);
    }
    assert_eq!(proposed, vec![barrier; WINDOW_MAX as usize]);
    let vote = Vote {
        node: NodeId(2),
        incarnation: Incarnation(1),
        ballot: core.promised(),
        durable: Instance(1),
        received: Instance(1),
        ..Vote::default()
    };
    core.step(Input::Vote(vote), &mut out);
    core.step(Input::Persisted(core.appended()), &mut out);
    core.step(Input::Continue, &mut out);
    assert_eq!((core.delivered(), appended(&out)), (Instance(1), vec![END]));
}

/// What is delivered and not written yet fills the window: there is no room for a single order.
#[test]
fn a_ballot_does_not_open_without_room_for_an_order() {
    let mut out = Actions::new();
    let mut core = core(3, Recovered::default());
    for at in 0..WINDOW_MAX {
        let order = order(at, 1, Entry::Noop);
        core.step(Input::Decided { order, ballot: ballot(1) }, &mut out);
        out.clear();
    }
    core.step(Input::Campaign, &mut out);
    core.step(Input::Promised(core.promised()), &mut out);
    out.clear();
    for node in [2, 3] {
        answer(&mut core, &Says { node, before: 1, ..NOTHING }, &[], &mut out);
    }
    assert!(matches!(core.role(), Role::Candidate(_)) && appended(&out).is_empty());
    core.step(Input::Persisted(core.appended()), &mut out);
    core.step(Input::Continue, &mut out);
    assert_eq!(appended(&out), [END]);
}

/// Asked again after a restart, a node names no lower bound for what damage may hide.
#[test]
fn the_promise_before_is_never_understated() {
    let mut out = Actions::new();
    let recovered = Recovered { promised: ballot(5), damaged: true, ..Recovered::default() };
    let mut restarted = core(3, recovered);
    restarted.step(Input::Prepare { ballot: ballot(5) }, &mut out);
    assert!(out.as_slice().contains(&Action::Answer { to: NodeId(2), ballot: ballot(5) }));
    assert_eq!(restarted.promised_before(), ballot(5));
    restarted.step(Input::Prepare { ballot: ballot(6) }, &mut out);
    restarted.step(Input::Promised(ballot(6)), &mut out);
    assert_eq!(restarted.promised_before(), ballot(5));
}

/// The next ballot inherits the barrier of the one before, and behind it what the damaged node
/// voted for and lost: only its own barrier ends what it inherited.
#[test]
fn damage_does_not_end_at_a_barrier_that_was_inherited() {
    let recovered = Recovered { promised: ballot(1), damaged: true, ..Recovered::default() };
    let (mut core, mut out) = (core(3, recovered), Actions::new());
    let entries = [Entry::Barrier(ballot(1)), A, Entry::Barrier(ballot(2))];
    for (instance, entry) in (0..).zip(entries) {
        assert!(core.is_damaged(), "before {instance}");
        core.step(Input::Order(order(instance, 2, entry)), &mut out);
        if instance == 0 {
            core.step(Input::Promised(ballot(2)), &mut out);
        }
        core.step(Input::Persisted(core.appended()), &mut out);
    }
    assert!(!core.is_damaged());
    assert!(out.as_slice().contains(&Action::Mended));
}

/// A link may swallow the last value of its origin; nothing comes behind it that shows the gap.
#[test]
fn a_value_that_nobody_orders_is_sent_again() {
    let settings = Settings { me: NodeId(3), ..core(3, Recovered::default()).settings().clone() };
    let (mut core, mut out) = (Core::new(settings, Recovered::default()), Actions::new());
    core.step(Input::Value(value(0)), &mut out);
    let mut resent = Vec::new();
    for beat in 0..1000 {
        // A coordinator is heard, but for the last third.
        if beat < 660 {
            core.step(Input::Beat { ballot: ballot(1), beat }, &mut out);
        }
        out.clear();
        core.step(Input::Tick, &mut out);
        if out.as_slice().contains(&Action::Resend) {
            resent.push(beat);
        }
    }
    assert_eq!(resent, [300, 601]);
}
