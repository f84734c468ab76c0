//! What tests of the log fill it with: orders and value frames of node 1, in the log of node 2.
//! `tests/crash_states/` takes this file too.

use chainring_ring::header::{HEADER_BYTES, Header, Kind};
use chainring_ring::ids::{
    Ballot, ClusterId, Entry, Epoch, Incarnation, Instance, NodeId, Order, RingId, Sequence,
    Session, ValueId,
};
use chainring_storage::Identity;

pub fn identity() -> Identity {
    Identity { cluster: ClusterId(0xc1), epoch: Epoch(1), node: NodeId(2), ring: RingId(0) }
}

pub fn ballot() -> Ballot {
    Ballot { round: 1, node: NodeId(1), incarnation: Incarnation(1) }
}

pub fn order(instance: u64) -> Order {
    let sequence = Sequence(instance);
    let id = ValueId { origin: NodeId(1), session: Session::FIRST, sequence };
    Order {
        instance: Instance(instance),
        ballot: ballot(),
        base: Instance(0),
        entry: Entry::Value(id),
        decided: false,
    }
}

pub fn value(sequence: u64, size: u32) -> Vec<u8> {
    let header = Header {
        checksum_body: 0,
        cluster: identity().cluster,
        epoch: identity().epoch,
        ring: identity().ring,
        kind: Kind::Value,
        size,
        length: size - HEADER_BYTES as u32,
        origin: NodeId(1),
        session: Session::FIRST,
        sequence: Sequence(sequence),
        ballot: Ballot::ZERO,
        instance: Instance(0),
    };
    let mut frame = vec![sequence as u8 | 1; size as usize];
    header.seal(&mut frame);
    frame
}
