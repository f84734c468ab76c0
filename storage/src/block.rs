//! The first block of a commit group: what the group holds and what is known to be complete.
//!
//! ```text
//! header (128), kind OrderBlock or Seal: sequence = group number, origin = node,
//!               session = (incarnation, start number) of the life that wrote it
//! 128  previous      16  checksum of the header of the group before it; 0: first, or unknown
//! 144  values digest 16  over the headers of the value frames, in their order
//! 160  sealed         8  this group and all before it are complete
//! 168  claim         24  what was known to be decided
//! 192  orders         4  count
//! 196  values         4  count
//! 200  value bytes    4  value frames that follow the block, one after another
//! 204  reserved       4  zero
//! 208  orders, 48 bytes each, then zeros to a multiple of the block
//! ```
//! Invariants: `sealed` is below the group's own number. Numbers and starts never fall along a log.
//! A seal is a group without orders and values.

use crate::config::{GROUP_ALIGN, Identity, LogConfig};
use chainring_ring::codec::{CLAIM_BYTES, ORDER_BYTES, claim_at, order_at, put_claim, put_order};
use chainring_ring::header::{
    BLOCK_BYTES_MIN, FrameError, HEADER_BYTES, Header, Kind, round_up, u32_at, u64_at, u128_at,
};
use chainring_ring::ids::{Ballot, Claim, Instance, NodeId, Order, Sequence, Session};

/// Bytes before the orders, behind the header.
const PREFIX_BYTES: usize = 80;
/// Most orders of a group; bounds the order block.
pub const ORDERS_PER_GROUP_MAX: usize = 4096;
/// Largest order block, bytes.
pub const ORDER_BLOCK_BYTES_MAX: u32 = {
    let bytes = (HEADER_BYTES + PREFIX_BYTES + ORDERS_PER_GROUP_MAX * ORDER_BYTES) as u32;
    bytes.div_ceil(GROUP_ALIGN) * GROUP_ALIGN
};

/// Bytes of an order block with `orders` orders.
pub fn order_block_bytes(orders: usize, block: u32) -> usize {
    round_up(HEADER_BYTES + PREFIX_BYTES + orders * ORDER_BYTES, block)
}

/// The value frames of a group, added up one after another in the order they are written.
///
/// The digest binds the group to exactly these frames: a write that the disk lost shows, even where
/// older, intact value frames lie below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Frames.
    pub count: u32,
    /// Their bytes.
    pub bytes: u32,
    /// Over their header checksums.
    pub digest: u128,
}

impl Values {
    /// Adds a value frame; only its header is looked at.
    ///
    /// # Panics
    /// If `frame` is shorter than a header.
    pub fn push(&mut self, frame: &[u8]) {
        // Header checksums are well mixed already; a multiplication keeps their order.
        const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        self.digest = (self.digest.rotate_left(29) ^ u128_at(frame, 0)).wrapping_mul(ODD);
        self.count += 1;
        self.bytes += u32_at(frame, 56);
    }
}

/// A decoded first block, without its orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Whether it is a seal.
    pub seal: bool,
    /// Number of the group.
    pub number: u64,
    /// The life that wrote it.
    pub session: Session,
    /// Checksum of its header, which covers the body too.
    pub checksum: u128,
    /// Checksum of the header of the group before it.
    pub previous: u128,
    /// Groups to here are complete.
    pub sealed: u64,
    /// What was known to be decided.
    pub claim: Claim,
    /// Orders in the block.
    pub orders: u32,
    /// Value frames behind it.
    pub values: Values,
    /// The block itself, bytes.
    pub bytes: u32,
}

impl Block {
    /// The whole group: this block and its value frames, bytes.
    pub fn group_bytes(&self) -> u64 {
        u64::from(self.bytes) + u64::from(self.values.bytes)
    }
}

/// What [`encode`] puts into a block beside its orders.
pub(crate) struct Fields {
    pub number: u64,
    pub session: Session,
    pub previous: u128,
    pub sealed: u64,
    pub claim: Claim,
    pub values: Values,
}

/// Writes the first block of a group over the start of `out`; returns its header's checksum.
///
/// # Panics
/// If `out` is not exactly the block.
pub(crate) fn encode<'a>(
    config: &LogConfig,
    fields: &Fields,
    orders: impl ExactSizeIterator<Item = &'a Order>,
    out: &mut [u8],
) -> u128 {
    let count = orders.len();
    let size = order_block_bytes(count, config.block);
    assert_eq!(out.len(), size);
    assert!(fields.sealed < fields.number);
    out.fill(0);
    let body = &mut out[HEADER_BYTES..];
    body[..16].copy_from_slice(&fields.previous.to_le_bytes());
    body[16..32].copy_from_slice(&fields.values.digest.to_le_bytes());
    body[32..40].copy_from_slice(&fields.sealed.to_le_bytes());
    put_claim(&fields.claim, &mut body[40..40 + CLAIM_BYTES]);
    body[64..68].copy_from_slice(&(count as u32).to_le_bytes());
    body[68..72].copy_from_slice(&fields.values.count.to_le_bytes());
    body[72..76].copy_from_slice(&fields.values.bytes.to_le_bytes());
    let mut first = None;
    for (index, order) in orders.enumerate() {
        first.get_or_insert(order.instance);
        put_order(order, &mut body[PREFIX_BYTES + index * ORDER_BYTES..]);
    }
    let seal = count == 0 && fields.values.count == 0;
    let header = Header {
        kind: if seal { Kind::Seal } else { Kind::OrderBlock },
        size: size as u32,
        length: (PREFIX_BYTES + count * ORDER_BYTES) as u32,
        session: fields.session,
        sequence: Sequence(fields.number),
        instance: first.unwrap_or(Instance(0)),
        ..blank(&config.identity)
    };
    header.seal(out);
    u128_at(out, 0)
}

/// A header of ours, to be filled in.
pub(crate) fn blank(identity: &Identity) -> Header {
    Header {
        checksum_body: 0,
        cluster: identity.cluster,
        epoch: identity.epoch,
        ring: identity.ring,
        kind: Kind::Seal,
        size: 0,
        length: 0,
        origin: identity.node,
        session: Session::NONE,
        sequence: Sequence(0),
        ballot: Ballot::ZERO,
        instance: Instance(0),
    }
}

/// Whose frame it is, by its header. `node` is given where a frame's origin is not the log's node.
pub(crate) fn identity_of(header: &Header, node: Option<NodeId>) -> Identity {
    Identity {
        cluster: header.cluster,
        epoch: header.epoch,
        ring: header.ring,
        node: node.unwrap_or(header.origin),
    }
}

/// Bytes of the block that starts here, if its header is intact and that of a group's first block.
///
/// # Errors
/// Why they are not.
pub fn peek(bytes: &[u8]) -> Result<Header, FrameError> {
    let header = Header::decode(bytes, ORDER_BLOCK_BYTES_MAX)?;
    match header.kind {
        Kind::OrderBlock | Kind::Seal if header.size.is_multiple_of(BLOCK_BYTES_MIN) => Ok(header),
        _ => Err(FrameError::Body),
    }
}

/// Reads a block whose header [`peek`] found intact. `bytes` is the whole block.
///
/// # Errors
/// What is wrong with its body.
pub fn decode(header: &Header, bytes: &[u8]) -> Result<Block, FrameError> {
    let body = header.check_body(bytes)?;
    if body.len() < PREFIX_BYTES {
        return Err(FrameError::Body);
    }
    let values =
        Values { count: u32_at(body, 68), bytes: u32_at(body, 72), digest: u128_at(body, 16) };
    let block = Block {
        seal: header.kind == Kind::Seal,
        number: header.sequence.0,
        session: header.session,
        checksum: u128_at(bytes, 0),
        previous: u128_at(body, 0),
        sealed: u64_at(body, 32),
        claim: claim_at(&body[40..])?,
        orders: u32_at(body, 64),
        values,
        bytes: header.size,
    };
    let length = PREFIX_BYTES as u64 + u64::from(block.orders) * ORDER_BYTES as u64;
    let empty = block.orders == 0 && values.count == 0 && values.bytes == 0;
    // A value frame is a block or more; without values nothing behind the block can be damaged.
    let least = u64::from(values.count) * u64::from(BLOCK_BYTES_MIN);
    let none = values == Values::default();
    let values_fit = none || values.count > 0 && u64::from(values.bytes) >= least;
    let fits = length == u64::from(header.length) && block.sealed < block.number && values_fit;
    match fits && body[76..80] == [0; 4] && block.seal == empty {
        true => Ok(block),
        false => Err(FrameError::Body),
    }
}

/// Reads the orders of a decoded block into `out`.
///
/// # Errors
/// [`FrameError`] for the first that is none.
///
/// # Panics
/// If `bytes` are not those of the block.
pub fn orders(block: &Block, bytes: &[u8], out: &mut Vec<Order>) -> Result<(), FrameError> {
    out.clear();
    for index in 0..block.orders as usize {
        out.push(order_at(&bytes[HEADER_BYTES + PREFIX_BYTES + index * ORDER_BYTES..])?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainring_ring::ids::{Entry, Incarnation};

    fn sample(count: u64) -> (Vec<u8>, Fields, Vec<Order>) {
        let config = LogConfig::new(crate::segment::tests::identity(), 512);
        let ballot = Ballot { round: 3, node: NodeId(2), incarnation: Incarnation(1) };
        let order = |instance| Order {
            instance: Instance(instance),
            ballot,
            base: Instance(0),
            entry: Entry::Barrier(ballot),
            decided: false,
        };
        let orders: Vec<Order> = (40..40 + count).map(order).collect();
        let fields = Fields {
            number: 9,
            session: Session { incarnation: Incarnation(1), start: 4 },
            previous: 77,
            sealed: 8,
            claim: Claim { ballot, position: Instance(41) },
            values: Values::default(),
        };
        let mut out = vec![0xff; order_block_bytes(orders.len(), 512)];
        encode(&config, &fields, orders.iter(), &mut out);
        (out, fields, orders)
    }

    #[test]
    fn blocks_round_trip() {
        for count in [0, 1, 6, 7, 100] {
            let (bytes, fields, orders) = sample(count);
            let header = peek(&bytes).unwrap();
            let block = decode(&header, &bytes).unwrap();
            assert_eq!(block.seal, count == 0);
            assert_eq!((block.number, block.previous, block.sealed), (9, 77, 8));
            assert_eq!((block.claim, block.session), (fields.claim, fields.session));
            let mut read = Vec::new();
            super::orders(&block, &bytes, &mut read).unwrap();
            assert_eq!(read, orders);
        }
    }

    #[test]
    fn the_digest_knows_the_order_of_frames() {
        let frame = |seed: u8| {
            let mut frame = [seed; HEADER_BYTES];
            frame[56..60].copy_from_slice(&512u32.to_le_bytes());
            frame
        };
        let (mut one, mut other) = (Values::default(), Values::default());
        one.push(&frame(1));
        one.push(&frame(2));
        other.push(&frame(2));
        other.push(&frame(1));
        assert_eq!((one.count, one.bytes), (2, 1024));
        assert_ne!(one.digest, other.digest);
    }
}
