//! Commit groups as a simulated kernel sees them: what a write to the log holds.
//!
//! Invariant: it is read from the bytes that are written, not asked of who writes them.

use chainring_ring::header::Header;
use chainring_ring::ids::{Order, ValueId};
use chainring_storage::block;

/// A commit group on its way to the disk.
#[derive(Debug, Default)]
pub struct Group {
    /// Its number.
    pub number: u64,
    /// Groups to here were complete when it was planned.
    pub sealed: u64,
    /// Its orders.
    pub orders: Vec<Order>,
    /// The values in it.
    pub values: Vec<ValueId>,
}

/// A commit group on stable media.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Its number.
    pub number: u64,
    /// In which segment.
    pub segment: u32,
    /// Where in it.
    pub at: u64,
    /// Its length.
    pub bytes: u32,
}

/// What a write to the log holds.
pub fn group_of(bytes: &[u8]) -> Group {
    let header = block::peek(bytes).expect("the writer plans a block");
    let decoded = block::decode(&header, &bytes[..header.size as usize]).expect("a whole block");
    let mut group = Group { number: decoded.number, sealed: decoded.sealed, ..Group::default() };
    block::orders(&decoded, bytes, &mut group.orders).expect("its own orders");
    let mut at = decoded.bytes as usize;
    for _ in 0..decoded.values.count {
        let header = Header::decode(&bytes[at..], u32::MAX).expect("a value frame");
        group.values.push(header.value_id());
        at += header.size as usize;
    }
    group
}
