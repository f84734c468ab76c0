//! The doors, by what comes in.
//!
//! Invariant: what a target asserts holds for every input, not only for good ones.

pub mod bodies;
pub mod config;
pub mod disk;
pub mod frames;
pub mod hello;
pub mod http;
pub mod image;
pub mod mesh;
pub mod stream;

use chainring_ring::header::{HEADER_BYTES, Header, Kind};
use chainring_ring::ids::{
    Ballot, ClusterId, Epoch, Incarnation, Instance, NodeId, RingId, Sequence, Session,
};

/// The cluster of all good frames.
pub(crate) const CLUSTER: ClusterId = ClusterId(7);
/// Its epoch.
pub(crate) const EPOCH: Epoch = Epoch(1);
/// The ballot of all good frames that have one.
pub(crate) const BALLOT: Ballot = Ballot { round: 3, node: NodeId(2), incarnation: Incarnation(1) };

/// A name for bytes.
pub fn digest(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// A good header of a frame with a body of `length` bytes, `size` in all.
pub(crate) fn header(kind: Kind, size: usize, length: usize) -> Header {
    Header {
        checksum_body: 0,
        cluster: CLUSTER,
        epoch: EPOCH,
        ring: RingId(0),
        kind,
        size: size as u32,
        length: length as u32,
        origin: NodeId(2),
        session: Session { incarnation: Incarnation(1), start: 3 },
        sequence: Sequence(9),
        ballot: BALLOT,
        instance: Instance(40),
    }
}

/// A good frame, padded to `unit`.
pub(crate) fn sealed(header: Header, body: &[u8], unit: usize) -> Vec<u8> {
    let size = (HEADER_BYTES + body.len()).next_multiple_of(unit);
    let mut frame = vec![0; size];
    frame[HEADER_BYTES..HEADER_BYTES + body.len()].copy_from_slice(body);
    Header { size: size as u32, length: body.len() as u32, ..header }.seal(&mut frame);
    frame
}

/// A verified frame at the start of `bytes`, and its body in use.
pub(crate) fn verified(bytes: &[u8], limit: u32) -> Option<(Header, &[u8])> {
    let header = Header::decode(bytes, limit).ok()?;
    let body = header.check_body(bytes).ok()?;
    Some((header, body))
}
