//! What peers ask each other and answer, on the third connection.

use super::frames::{body_of_orders, check_order};
use super::{BALLOT, CLUSTER, EPOCH, header, sealed, verified};
use crate::{Target, mutate};
use chainring::peers::frames::{Ask, Entries, Envelope, Standing, decode_ask, decode_id};
use chainring_ring::codec::{ORDER_BYTES, POSITION_MAX, order_at};
use chainring_ring::header::{Header, Kind};
use chainring_ring::ids::{
    Claim, Entry, Incarnation, Instance, NODES_MAX, NodeId, Order, Sequence, Session,
};

/// Requests, answers and value frames.
pub const MESH: Target = Target {
    name: "mesh",
    run,
    seeds,
    repair: |bytes, random| {
        // Value frames lie within the frame; the outer checksum is made right last.
        if bytes.len() > INNER && !random.once_in(4) {
            mutate::train(&mut bytes[INNER..], 512, random);
        }
        mutate::frame(bytes, random);
    },
    words: &[],
    bytes_max: 8 << 10,
    memory_max: 96 << 10,
};

/// Where the value frames begin in the seed of an answer: header, head, five orders.
const INNER: usize = 128 + 56 + 5 * ORDER_BYTES;

const ENVELOPE: Envelope = Envelope {
    cluster: CLUSTER,
    epoch: EPOCH,
    node: NodeId(2),
    session: Session { incarnation: Incarnation(1), start: 3 },
    block: 512,
    packet_max: 4096,
};

fn run(bytes: &[u8]) -> bool {
    let Some((header, body)) = verified(bytes, ENVELOPE.answer_limit()) else { return false };
    // Who asks is free to put any body behind any kind.
    if let Ok(ask) = decode_ask(body) {
        assert!(ask.from.0 <= POSITION_MAX);
        let again = ENVELOPE.ask(ask);
        let (_, read) = verified(&again, u32::MAX).expect("it was sealed");
        assert_eq!(read, body, "every byte is read");
    }
    if let Ok(id) = decode_id(body) {
        assert!((1..=NODES_MAX).contains(&usize::from(id.origin.0)));
        assert!(id.sequence.0 <= POSITION_MAX);
        for again in [ENVELOPE.fetch_value(id), ENVELOPE.not_held(id)] {
            let (_, read) = verified(&again, u32::MAX).expect("it was sealed");
            assert_eq!(read, body, "every byte is read");
        }
    }
    if let Ok(value) = ENVELOPE.value(bytes) {
        assert_eq!(value, header);
        assert!(value.size.is_multiple_of(512) && value.size <= ENVELOPE.packet_max);
    }
    let entries = ENVELOPE.decode_entries(body);
    if let Ok(entries) = &entries {
        check(entries);
        let Entries { standing, from, orders, frames } = entries;
        let again = ENVELOPE.entries(standing, *from, orders, frames);
        let (_, read) = verified(&again, u32::MAX).expect("it was sealed");
        assert_eq!(ENVELOPE.decode_entries(read).as_ref(), Ok(entries));
    }
    entries.is_ok()
}

/// Contiguous, decided, and every frame whole and named, in order.
fn check(entries: &Entries) {
    assert!(entries.from.0 <= POSITION_MAX);
    for (instance, order) in (entries.from.0..).zip(&entries.orders) {
        check_order(order);
        assert!(order.decided && order.instance == Instance(instance));
        assert!(order.instance < entries.standing.delivered);
    }
    let mut rest = &entries.frames[..];
    let mut named = entries.orders.iter();
    while !rest.is_empty() {
        let (header, _) = verified(rest, ENVELOPE.packet_max).expect("frames are verified");
        let id = header.value_id();
        assert!(named.any(|order| order.entry == Entry::Value(id)), "nobody asked for {id:?}");
        rest = &rest[header.size as usize..];
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let orders: Vec<Order> =
        body_of_orders().chunks(ORDER_BYTES).map(|bytes| order_at(bytes).unwrap()).collect();
    let value = |sequence| {
        let header = Header { sequence: Sequence(sequence), ..header(Kind::Value, 0, 0) };
        sealed(header, &[5; 600], 512)
    };
    let claim = Claim { ballot: BALLOT, position: Instance(60) };
    let checkpoint = Instance(40);
    let standing = Standing { claim, first: Instance(5), delivered: Instance(60), checkpoint };
    let frames = [value(9), value(10)].concat();
    let Entry::Value(id) = orders[0].entry else { unreachable!("the first is a value") };
    vec![
        ENVELOPE.entries(&standing, Instance(40), &orders, &frames),
        ENVELOPE.entries(&standing, Instance(60), &[], &[]),
        ENVELOPE.ask(Ask { from: Instance(40), limit: 1 << 20 }),
        ENVELOPE.fetch_value(id),
        ENVELOPE.not_held(id),
        value(9),
    ]
}
