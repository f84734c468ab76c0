//! Headers, and the bodies of frames between shards: orders, votes, direct messages, declarations.

use super::{BALLOT, CLUSTER, EPOCH, header, sealed, verified};
use crate::{Target, mutate};
use chainring::shard::{direct, links};
use chainring_net::declare::Declare;
use chainring_ring::actions::Input;
use chainring_ring::codec::{
    CLAIM_BYTES, ORDER_BYTES, POSITION_MAX, VOTE_BYTES, claim_at, order_at, put_claim, put_order,
    put_vote, vote_at,
};
use chainring_ring::configuration::{Change, Step};
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind, VERSION};
use chainring_ring::ids::{
    Claim, Entry, Incarnation, Instance, NODES_MAX, NodeId, Order, RingId, Sequence, Session,
    ValueId,
};
use chainring_ring::layout::Layout;
use chainring_ring::votes::Vote;

/// Largest frame accepted in these targets.
const LIMIT: u32 = 4096;

/// Any header.
pub const HEADER: Target = Target {
    name: "header",
    run: run_header,
    seeds: || [frame_of_orders(), frame_of_votes(), declare(), promise()].to_vec(),
    repair: mutate::frame,
    words: &[],
    bytes_max: LIMIT as usize + 64,
    memory_max: 16 << 10,
};

/// Orders, claims and votes by themselves.
pub const ORDERS: Target = Target {
    name: "orders",
    run: run_orders,
    seeds: || vec![body_of_orders(), body_of_votes()],
    repair: mutate::as_is,
    words: &[],
    bytes_max: 1024,
    memory_max: 4 << 10,
};

/// Frames of the control link.
pub const CONTROL: Target = Target {
    name: "control",
    run: run_control,
    seeds: || vec![frame_of_orders(), frame_of_votes()],
    repair: mutate::frame,
    words: &[],
    bytes_max: LIMIT as usize,
    memory_max: 64 << 10,
};

/// Messages that go straight to a node.
pub const DIRECT: Target = Target {
    name: "direct",
    run: run_direct,
    seeds: || {
        let empty = |kind| sealed(header(kind, 0, 0), &[], 1);
        let mut seeds: Vec<_> = failover().into();
        seeds.extend([promise(), empty(Kind::Prepare), empty(Kind::Reject)]);
        seeds
    },
    repair: mutate::frame,
    words: &[],
    bytes_max: LIMIT as usize,
    memory_max: 16 << 10,
};

/// Declarations of what the sender does not hold.
pub const DECLARE: Target = Target {
    name: "declare",
    run: run_declare,
    seeds: || vec![declare()],
    repair: mutate::frame,
    words: &[],
    bytes_max: LIMIT as usize,
    memory_max: 16 << 10,
};

fn run_header(bytes: &[u8]) -> bool {
    let read = Header::decode(bytes, LIMIT);
    assert_eq!(read.is_ok(), is_header(bytes), "{read:?}");
    let Ok(read) = read else { return false };
    let checked = read.check_body(bytes);
    let Some(whole) = bytes.get(..read.size as usize) else {
        assert_eq!(checked, Err(FrameError::Body), "the frame is not all there");
        return false;
    };
    if let Ok(body) = checked {
        assert_eq!(body.len(), read.length as usize);
        // No byte of a header goes unread: what was read gives the same frame again.
        let mut again = whole.to_vec();
        read.seal(&mut again);
        assert_eq!(again, whole);
    }
    checked.is_ok() && read.check_cluster(CLUSTER, EPOCH).is_ok()
}

/// What the drawing in docs/FORMAT.md accepts, read field by field.
fn is_header(bytes: &[u8]) -> bool {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return false };
    let number = |range: std::ops::Range<usize>| {
        head[range].iter().rev().fold(0u128, |number, byte| number << 8 | u128::from(*byte))
    };
    let kinds = [
        1, 2, 3, 4, 5, 6, 16, 17, 18, 32, 33, 34, 48, 49, 50, 51, 52, 53, 54, 55, 56, 64, 65, 66,
        67, 68, 69,
    ];
    let reserved = number(64..68) | number(69..72) | number(97..104) | number(112..128);
    number(0..16) == xxhash_rust::xxh3::xxh3_128(&head[16..])
        && head[55] == VERSION
        && kinds.contains(&head[54])
        && reserved == 0
        && number(56..60) <= u128::from(LIMIT)
        && number(60..64) + HEADER_BYTES as u128 <= number(56..60)
        && number(88..92) < u128::from(u32::MAX)
        && number(96..97) <= NODES_MAX as u128
        && number(80..88) <= u128::from(POSITION_MAX)
        && number(104..112) <= u128::from(POSITION_MAX)
}

fn run_orders(bytes: &[u8]) -> bool {
    let mut accepted = false;
    for bytes in bytes.chunks(ORDER_BYTES) {
        if let Ok(order) = order_at(bytes) {
            accepted = true;
            check_order(&order);
            let mut again = [0xaa; ORDER_BYTES];
            put_order(&order, &mut again);
            assert_eq!(order_at(&again), Ok(order));
            if matches!(order.entry, Entry::Value(_)) {
                assert_eq!(again, bytes, "every field of a value's order is read");
            }
        }
        if let Ok(vote) = vote_at(bytes) {
            let mut again = [0xaa; VOTE_BYTES];
            put_vote(&vote, &mut again);
            assert_eq!(vote_at(&again), Ok(vote));
            assert!(vote.received.max(vote.durable).max(vote.delivered).0 <= POSITION_MAX);
        }
        if let Ok(claim) = claim_at(bytes) {
            let mut again = [0xaa; CLAIM_BYTES];
            put_claim(&claim, &mut again);
            assert_eq!(claim_at(&again), Ok(claim));
            assert!(claim.position.0 <= POSITION_MAX);
        }
    }
    accepted
}

/// What everybody behind the decoder relies on.
pub(crate) fn check_order(order: &Order) {
    assert!(order.instance.0 <= POSITION_MAX && order.base.0 <= POSITION_MAX);
    let origin = match order.entry {
        Entry::Value(id) => {
            assert!(id.sequence.0 <= POSITION_MAX);
            id.origin
        }
        Entry::Close { origin, .. } => origin,
        Entry::Trim(position) => return assert!(position <= order.instance),
        Entry::Noop | Entry::Barrier(_) | Entry::Membership(_) => return,
    };
    assert!((1..=NODES_MAX).contains(&usize::from(origin.0)), "nobody holds values of {origin:?}");
}

fn run_control(bytes: &[u8]) -> bool {
    let Some((header, body)) = verified(bytes, LIMIT) else { return false };
    let (mut orders, mut votes, mut others) = (Vec::new(), Vec::new(), 0);
    let result = links::inputs(&header, body, |input| match input {
        Input::Order(order) => orders.push(order),
        Input::Vote(vote) => votes.push(vote),
        Input::Claim(claim) => {
            assert!(claim.position.0 <= POSITION_MAX);
            others += 1;
        }
        Input::Beat { ballot, beat } => {
            assert_eq!((ballot, beat), (header.ballot, header.sequence.0));
            others += 1;
        }
        other => panic!("no control frame is {other:?}"),
    });
    orders.iter().for_each(check_order);
    let parts = match header.kind {
        Kind::Orders => body.len().div_ceil(ORDER_BYTES),
        Kind::Votes => body.len().saturating_sub(CLAIM_BYTES).div_ceil(VOTE_BYTES),
        _ => 0,
    };
    match result {
        Ok(()) if header.kind == Kind::Orders => {
            assert_eq!((orders.len(), votes.len(), others), (parts, 0, 0));
        }
        Ok(()) => assert_eq!((orders.len(), votes.len(), others), (0, parts, 2)),
        Err(_) => assert!(orders.len() + votes.len() <= parts && others == 0),
    }
    result.is_ok()
}

fn run_direct(bytes: &[u8]) -> bool {
    let Some((header, body)) = verified(bytes, LIMIT) else { return false };
    let from = BALLOT.node;
    let result = direct::input(&header, from, body);
    match &result {
        Ok(Input::Prepare { ballot } | Input::Reject { promised: ballot }) => {
            assert_eq!(*ballot, header.ballot);
            assert_ne!(header.kind, Kind::Promise);
        }
        Ok(Input::Promise(promise)) => {
            assert_eq!((promise.from, promise.ballot), (from, header.ballot));
            assert!(promise.first.max(promise.delivered).0 <= POSITION_MAX);
            promise.orders.chunks(ORDER_BYTES).flat_map(order_at).for_each(|o| check_order(&o));
        }
        Ok(Input::Open { ballot, layout, claim, barrier }) => {
            assert!(barrier.0 <= POSITION_MAX);
            assert_eq!((ballot.node, layout.nodes().first()), (from, Some(&from)));
            assert_eq!(Layout::decode(layout.encode()), Some(*layout));
            assert!(claim.position.0 <= POSITION_MAX && claim.ballot <= *ballot);
        }
        Ok(Input::Present { vote, .. }) => {
            assert_eq!(vote.node, from);
            assert!(vote.durable.max(vote.delivered).0 <= POSITION_MAX);
        }
        Ok(
            Input::Missed { from: who, ballot, .. }
            | Input::Ask { from: who, ballot }
            | Input::Lost { from: who, ballot },
        ) => assert_eq!((*who, *ballot), (from, header.ballot)),
        Ok(other) => panic!("no direct frame is {other:?}"),
        Err(_) => {
            let foreign = header.kind == Kind::Prepare && header.ballot.node != from;
            assert!(foreign || !matches!(header.kind, Kind::Prepare | Kind::Reject));
        }
    }
    result.is_ok()
}

fn run_declare(bytes: &[u8]) -> bool {
    let Some((header, body)) = verified(bytes, LIMIT) else { return false };
    let Ok(declare) = Declare::decode(body) else { return false };
    assert!(declare.from < declare.to && declare.to.0 <= POSITION_MAX);
    assert!((1..=NODES_MAX).contains(&usize::from(declare.origin.0)));
    let mut again = vec![0xaa; 512];
    let size = declare.encode((CLUSTER, EPOCH, RingId(0)), header.origin, 512, &mut again);
    let (_, read) = verified(&again[..size], LIMIT).expect("it was sealed");
    assert_eq!(read, body, "every byte is read");
    true
}

pub(crate) fn orders() -> Vec<Order> {
    let session = Session { incarnation: Incarnation(1), start: 3 };
    let value = |sequence| {
        Entry::Value(ValueId { origin: NodeId(2), session, sequence: Sequence(sequence) })
    };
    let close = Entry::Close { origin: NodeId(3), below: session };
    let change = |step| Entry::Membership(Change { version: 7, step });
    let (node, incarnation) = (NodeId(4), Incarnation(2));
    let admit = change(Step::Admit { node, incarnation, instead: Some(NodeId(1)) });
    let joint = change(Step::Joint { voters: 0b1110, fresh: 0b1000 });
    let [dismiss, leave] = [Step::Dismiss { node }, Step::Leave].map(change);
    let members = [admit, joint, dismiss, leave];
    let trim = Entry::Trim(Instance(17));
    let entries = [value(9), Entry::Noop, Entry::Barrier(BALLOT), close, value(10), trim];
    let entries = entries.into_iter().chain(members);
    let order = |(instance, entry)| Order {
        instance: Instance(instance),
        ballot: BALLOT,
        base: Instance(30),
        entry,
        decided: instance == 41,
    };
    (40..).zip(entries).map(order).collect()
}

pub(crate) fn body_of_orders() -> Vec<u8> {
    let mut body = vec![0; orders().len() * ORDER_BYTES];
    for (order, out) in orders().iter().zip(body.chunks_mut(ORDER_BYTES)) {
        put_order(order, out);
    }
    body
}

fn body_of_votes() -> Vec<u8> {
    let mut body = vec![0; CLAIM_BYTES + 3 * VOTE_BYTES];
    put_claim(&Claim { ballot: BALLOT, position: Instance(38) }, &mut body);
    for (node, out) in (1..).zip(body[CLAIM_BYTES..].chunks_mut(VOTE_BYTES)) {
        let vote = Vote {
            node: NodeId(node),
            incarnation: Incarnation(1),
            ballot: BALLOT,
            session: Session::FIRST,
            received: Instance(44),
            durable: Instance(42),
            delivered: Instance(38),
        };
        put_vote(&vote, out);
    }
    body
}

fn frame_of_orders() -> Vec<u8> {
    sealed(header(Kind::Orders, 0, 0), &body_of_orders(), 1)
}

fn frame_of_votes() -> Vec<u8> {
    sealed(header(Kind::Votes, 0, 0), &body_of_votes(), 1)
}

/// What failover says: a ballot is open, a node is there, a neighbour or the coordinator is missed.
fn failover() -> [Vec<u8>; 5] {
    let direct = |kind, body: &[u8]| sealed(header(kind, 0, 0), body, 1);
    let mut open = vec![0; 16 + CLAIM_BYTES];
    open[..4].copy_from_slice(&0x312u32.to_le_bytes());
    put_claim(&Claim { ballot: BALLOT, position: Instance(9) }, &mut open[16..]);
    let mut present = vec![0; VOTE_BYTES + 8];
    put_vote(&Vote { node: NodeId(2), ballot: BALLOT, ..Vote::default() }, &mut present);
    [
        direct(Kind::Open, &open),
        direct(Kind::Present, &present),
        direct(Kind::Missed, &[1, 0, 0, 0, 0, 0, 0, 0]),
        direct(Kind::Ask, &[]),
        direct(Kind::Lost, &[]),
    ]
}

fn promise() -> Vec<u8> {
    let mut body = vec![0; 40];
    body[0] = 1;
    body[24] = 30;
    body[32] = 35;
    body.extend_from_slice(&body_of_orders());
    sealed(header(Kind::Promise, 0, 0), &body, 1)
}

fn declare() -> Vec<u8> {
    let session = Session { incarnation: Incarnation(1), start: 3 };
    let declare = Declare { origin: NodeId(4), session, from: Sequence(10), to: Sequence(20) };
    let mut frame = vec![0; 512];
    declare.encode((CLUSTER, EPOCH, RingId(0)), NodeId(2), 512, &mut frame);
    frame
}

/// Two frames of the control link, one after another.
pub(crate) fn control_stream() -> Vec<u8> {
    [frame_of_orders(), frame_of_votes(), frame_of_orders()].concat()
}

/// Frames of the data link, one after another.
pub(crate) fn data_stream() -> Vec<u8> {
    let value = sealed(header(Kind::Value, 0, 0), &[7; 700], 512);
    [declare(), value.clone(), value].concat()
}
