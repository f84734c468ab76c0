//! Bytes of what peers ask each other and answer: requests for entries and values.
//!
//! ```text
//! FetchEntries, 16      FetchValue and NotHeld, 24     Entries, 64, then orders, then frames
//!   0 from     8          0 origin       1               0 claim        24
//!   8 limit    4          1 zero         3              24 first         8
//!  12 zero     4          4 incarnation  4              32 delivered     8
//!                         8 start        4              40 from          8
//!                        12 zero         4              48 orders        4  (count)
//!                        16 sequence     8              52 frames        4  (bytes)
//!                                                       56 checkpoint    8
//! FetchState, 16        State, 48, then the part
//!   0 position 8          0 claim        24  the position that the state is of
//!   8 offset   4         24 checksum     16  of the whole state
//!  12 zero     4         40 total         4  its bytes; 0 if there is none
//!                        44 offset        4
//! ```
//! A value is answered with its own frame, byte for byte as its origin made it.
//!
//! Invariants: hostile bytes give an error, never a panic or an allocation beyond the frame's own
//! size; what [`Envelope::decode_entries`] accepts is contiguous from the instance that was asked
//! for, and its value frames are whole, verified, and in the order in which the entries name them.

use crate::mail::Place;
use crate::shard::checks::Check;
use chainring_ring::codec::{
    CLAIM_BYTES, ORDER_BYTES, check_positions, claim_at, order_at, put_claim, put_order,
};
use chainring_ring::header::{
    FrameError, HEADER_BYTES, Header, Kind, round_up, u32_at, u64_at, u128_at,
};
use chainring_ring::ids::{
    Ballot, Claim, ClusterId, Entry, Epoch, Incarnation, Instance, NODES_MAX, NodeId, Order,
    RingId, Sequence, Session, ValueId,
};

/// Orders and value frames of one [`Kind::Entries`] frame end with the first one at or above
/// this, bytes; the frame is at most this and one largest packet.
pub const ANSWER_BYTES: u32 = 1 << 20;
/// Largest frame of a direct message (Prepare, Promise, Reject), bytes: a promise reports every
/// open instance of the window in one frame, which is 4096 orders of 48 bytes and some more.
pub const DIRECT_BYTES_MAX: u32 = 512 << 10;
/// Frames of the mesh end at multiples of this; they are never written to disk.
const ALIGN: u32 = 8;
const ENTRIES_HEAD: usize = CLAIM_BYTES + 40;
const PART_HEAD: usize = CLAIM_BYTES + 24;
const ID_BYTES: usize = 24;
/// Largest state, bytes: 10,000 producers of 1.6 KiB, 10,000 topics of 260 bytes, and some more.
pub const STATE_BYTES_MAX: u32 = 32 << 20;
/// Bytes of a state in one frame.
pub const PART_BYTES: usize = 256 << 10;
const ASK_BYTES: usize = 16;

/// What every frame of a node says about where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Cluster.
    pub cluster: ClusterId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The node that makes the frame.
    pub node: NodeId,
    /// Its session.
    pub session: Session,
    /// Unit of value frames, bytes.
    pub block: u32,
    /// Largest value frame, bytes.
    pub packet_max: u32,
}

/// A request for decided entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// First one wanted.
    pub from: Instance,
    /// At most about so many bytes; 0 asks only how far the peer is.
    pub limit: u32,
}

/// A request for a part of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskPart {
    /// The position that the state is of; 0 for the oldest there is.
    pub position: Instance,
    /// Where the part begins.
    pub offset: u32,
}

/// A part of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The position that the state is of, and under which ballot the peer knows it.
    pub claim: Claim,
    /// XXH3-128 of the whole state.
    pub checksum: u128,
    /// Bytes of the whole state; 0 if the peer has none.
    pub total: u32,
    /// Where the part begins.
    pub offset: u32,
    /// It.
    pub bytes: Vec<u8>,
}

/// How far a peer is, as every answer to an [`Ask`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the peer knows to be decided, and under which ballot.
    pub claim: Claim,
    /// First instance that it still holds.
    pub first: Instance,
    /// It can serve everything from `first` to here.
    pub delivered: Instance,
    /// Position of its newest checkpoint, which is durable; 0 if there is none.
    pub checkpoint: Instance,
}

/// A decoded and verified answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries {
    /// How far the peer is.
    pub standing: Standing,
    /// What was asked for.
    pub from: Instance,
    /// Contiguous from `from`, all marked as decided: they come by catch-up.
    pub orders: Vec<Order>,
    /// Their value frames, one after another.
    pub frames: Vec<u8>,
}

impl Envelope {
    /// Largest frame that a client may get as an answer, bytes.
    pub fn answer_limit(&self) -> u32 {
        ANSWER_BYTES + self.packet_max
    }

    /// Largest frame that a node may get unasked, bytes.
    pub fn ask_limit(&self) -> u32 {
        DIRECT_BYTES_MAX
    }

    fn seal(&self, kind: Kind, body: &[u8]) -> Vec<u8> {
        let size = round_up(HEADER_BYTES + body.len(), ALIGN);
        let mut frame = vec![0; size];
        frame[HEADER_BYTES..HEADER_BYTES + body.len()].copy_from_slice(body);
        Header {
            checksum_body: 0,
            cluster: self.cluster,
            epoch: self.epoch,
            ring: RingId(0),
            kind,
            size: u32::try_from(size).expect("bounded by the limits above"),
            length: u32::try_from(body.len()).expect("bounded by the limits above"),
            origin: self.node,
            session: self.session,
            sequence: Sequence(0),
            ballot: Ballot::ZERO,
            instance: Instance(0),
        }
        .seal(&mut frame);
        frame
    }

    /// A frame of kind [`Kind::Check`].
    pub fn check(&self, check: &Check) -> Vec<u8> {
        self.seal(Kind::Check, &check.encode())
    }

    /// A frame of kind [`Kind::FetchEntries`].
    pub fn ask(&self, ask: Ask) -> Vec<u8> {
        let mut body = [0; ASK_BYTES];
        body[0..8].copy_from_slice(&ask.from.0.to_le_bytes());
        body[8..12].copy_from_slice(&ask.limit.to_le_bytes());
        self.seal(Kind::FetchEntries, &body)
    }

    /// A frame of kind [`Kind::FetchValue`].
    pub fn fetch_value(&self, id: ValueId) -> Vec<u8> {
        self.seal(Kind::FetchValue, &id_bytes(id))
    }

    /// A frame of kind [`Kind::NotHeld`].
    pub fn not_held(&self, id: ValueId) -> Vec<u8> {
        self.seal(Kind::NotHeld, &id_bytes(id))
    }

    /// A frame of kind [`Kind::FetchState`].
    pub fn ask_part(&self, ask: AskPart) -> Vec<u8> {
        let mut body = [0; ASK_BYTES];
        body[0..8].copy_from_slice(&ask.position.0.to_le_bytes());
        body[8..12].copy_from_slice(&ask.offset.to_le_bytes());
        self.seal(Kind::FetchState, &body)
    }

    /// A frame of kind [`Kind::State`].
    pub fn part(&self, part: &Part) -> Vec<u8> {
        let mut body = vec![0; PART_HEAD];
        put_claim(&part.claim, &mut body);
        let head = &mut body[CLAIM_BYTES..];
        head[0..16].copy_from_slice(&part.checksum.to_le_bytes());
        head[16..20].copy_from_slice(&part.total.to_le_bytes());
        head[20..24].copy_from_slice(&part.offset.to_le_bytes());
        body.extend_from_slice(&part.bytes);
        self.seal(Kind::State, &body)
    }

    /// A frame of kind [`Kind::Entries`].
    pub fn entries(
        &self,
        standing: &Standing,
        from: Instance,
        orders: &[Order],
        frames: &[u8],
    ) -> Vec<u8> {
        let mut body = vec![0; ENTRIES_HEAD + orders.len() * ORDER_BYTES + frames.len()];
        put_claim(&standing.claim, &mut body);
        let head = &mut body[CLAIM_BYTES..];
        head[0..8].copy_from_slice(&standing.first.0.to_le_bytes());
        head[8..16].copy_from_slice(&standing.delivered.0.to_le_bytes());
        head[16..24].copy_from_slice(&from.0.to_le_bytes());
        head[24..28].copy_from_slice(&(orders.len() as u32).to_le_bytes());
        head[28..32].copy_from_slice(&(frames.len() as u32).to_le_bytes());
        head[32..40].copy_from_slice(&standing.checkpoint.0.to_le_bytes());
        for (order, out) in orders.iter().zip(body[ENTRIES_HEAD..].chunks_mut(ORDER_BYTES)) {
            put_order(order, out);
        }
        body[ENTRIES_HEAD + orders.len() * ORDER_BYTES..].copy_from_slice(frames);
        self.seal(Kind::Entries, &body)
    }

    /// Reads and verifies one value frame at the start of `bytes`; returns its header.
    ///
    /// # Errors
    /// What is wrong with it; [`FrameError::Body`] if `bytes` end before it does.
    pub fn value(&self, bytes: &[u8]) -> Result<Header, FrameError> {
        let header = Header::decode(bytes, self.packet_max)?;
        if header.kind != Kind::Value {
            return Err(FrameError::Kind { code: header.kind as u8 });
        }
        header.check_cluster(self.cluster, self.epoch)?;
        if !header.size.is_multiple_of(self.block) {
            return Err(FrameError::Size { size: header.size, limit: self.packet_max });
        }
        header.check_body(bytes)?;
        Ok(header)
    }

    /// Reads the body of a [`Kind::Entries`] frame, `body` being the bytes in use.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode_entries(&self, body: &[u8]) -> Result<Entries, FrameError> {
        let head = body.get(..ENTRIES_HEAD).ok_or(FrameError::Body)?;
        let standing = Standing {
            claim: claim_at(head)?,
            first: Instance(u64_at(head, CLAIM_BYTES)),
            delivered: Instance(u64_at(head, CLAIM_BYTES + 8)),
            checkpoint: Instance(u64_at(head, CLAIM_BYTES + 32)),
        };
        let from = Instance(u64_at(head, CLAIM_BYTES + 16));
        let Standing { first, delivered, checkpoint, .. } = standing;
        check_positions(&[first.0, delivered.0, checkpoint.0, from.0])?;
        let count = u32_at(head, CLAIM_BYTES + 24) as usize;
        let bytes = u32_at(head, CLAIM_BYTES + 28) as usize;
        let rest = &body[ENTRIES_HEAD..];
        let orders_end = count.checked_mul(ORDER_BYTES).ok_or(FrameError::Body)?;
        if orders_end.checked_add(bytes) != Some(rest.len()) {
            return Err(FrameError::Body);
        }
        let orders = decode_orders(&rest[..orders_end], from, standing.delivered)?;
        let frames = &rest[orders_end..];
        self.check_frames(&orders, frames)?;
        Ok(Entries { standing, from, orders, frames: frames.to_vec() })
    }

    /// Frames must be values of the orders, in their order; an order may lack its frame (a later
    /// occurrence counts as nothing), a frame may not lack its order.
    fn check_frames(&self, orders: &[Order], mut frames: &[u8]) -> Result<(), FrameError> {
        let mut orders = orders.iter();
        while !frames.is_empty() {
            let header = self.value(frames)?;
            let named = Entry::Value(header.value_id());
            orders.find(|order| order.entry == named).ok_or(FrameError::Body)?;
            frames = &frames[header.size as usize..];
        }
        Ok(())
    }
}

fn decode_orders(bytes: &[u8], from: Instance, end: Instance) -> Result<Vec<Order>, FrameError> {
    let mut orders = Vec::with_capacity(bytes.len() / ORDER_BYTES);
    for (index, bytes) in bytes.chunks_exact(ORDER_BYTES).enumerate() {
        let order = order_at(bytes)?;
        let expected = from.0.checked_add(index as u64).ok_or(FrameError::Body)?;
        if order.instance.0 != expected || order.instance >= end {
            return Err(FrameError::Body);
        }
        orders.push(Order { decided: true, ..order });
    }
    Ok(orders)
}

/// Reads the body of a [`Kind::FetchEntries`] frame.
///
/// # Errors
/// [`FrameError::Body`] if it is not one.
pub fn decode_ask(body: &[u8]) -> Result<Ask, FrameError> {
    if body.len() != ASK_BYTES || body[12..] != [0; 4] {
        return Err(FrameError::Body);
    }
    check_positions(&[u64_at(body, 0)])?;
    Ok(Ask { from: Instance(u64_at(body, 0)), limit: u32_at(body, 8) })
}

/// Reads the body of a [`Kind::FetchState`] frame.
///
/// # Errors
/// [`FrameError::Body`] if it is not one.
pub fn decode_ask_part(body: &[u8]) -> Result<AskPart, FrameError> {
    let Ask { from, limit } = decode_ask(body)?;
    Ok(AskPart { position: from, offset: limit })
}

/// Reads the body of a [`Kind::State`] frame.
///
/// # Errors
/// [`FrameError::Body`] if it is not one.
pub fn decode_part(body: &[u8]) -> Result<Part, FrameError> {
    let (head, bytes) = body.split_at_checked(PART_HEAD).ok_or(FrameError::Body)?;
    let part = Part {
        claim: claim_at(head)?,
        checksum: u128_at(head, CLAIM_BYTES),
        total: u32_at(head, CLAIM_BYTES + 16),
        offset: u32_at(head, CLAIM_BYTES + 20),
        bytes: bytes.to_vec(),
    };
    let end = part.offset as usize + part.bytes.len();
    let empty = part.bytes.is_empty() && part.total > 0;
    if end > part.total as usize || part.total > STATE_BYTES_MAX || empty {
        return Err(FrameError::Body);
    }
    Ok(part)
}

/// Reads the body of a [`Kind::FetchValue`] or [`Kind::NotHeld`] frame.
///
/// # Errors
/// [`FrameError::Body`] if it is not one.
pub fn decode_id(body: &[u8]) -> Result<ValueId, FrameError> {
    if body.len() != ID_BYTES || body[1..4] != [0; 3] || body[12..16] != [0; 4] {
        return Err(FrameError::Body);
    }
    // The shard looks values up by origin.
    if body[0] == 0 || usize::from(body[0]) > NODES_MAX {
        return Err(FrameError::Body);
    }
    check_positions(&[u64_at(body, 16)])?;
    Ok(ValueId {
        origin: NodeId(body[0]),
        session: Session { incarnation: Incarnation(u32_at(body, 4)), start: u32_at(body, 8) },
        sequence: Sequence(u64_at(body, 16)),
    })
}

fn id_bytes(id: ValueId) -> [u8; ID_BYTES] {
    let mut body = [0; ID_BYTES];
    body[0] = id.origin.0;
    body[4..8].copy_from_slice(&id.session.incarnation.0.to_le_bytes());
    body[8..12].copy_from_slice(&id.session.start.to_le_bytes());
    body[16..24].copy_from_slice(&id.sequence.0.to_le_bytes());
    body
}

/// Gathers entries for one answer and says when it is full.
#[derive(Debug)]
pub struct Gather {
    limit: usize,
    /// Entries gathered.
    pub orders: Vec<Order>,
    /// Their value frames.
    pub frames: Vec<u8>,
}

impl Gather {
    /// An empty answer of at most about `limit` bytes, and never above [`ANSWER_BYTES`] and one
    /// packet.
    pub fn new(limit: u32) -> Gather {
        // Head and padding count too, so that the whole frame keeps to its limit.
        let head = HEADER_BYTES + ENTRIES_HEAD + ORDER_BYTES + ALIGN as usize;
        let limit = (limit.min(ANSWER_BYTES) as usize).saturating_sub(head);
        Gather { limit, orders: Vec::new(), frames: Vec::new() }
    }

    /// True if nothing more may be added.
    pub fn full(&self) -> bool {
        self.orders.len() * ORDER_BYTES + self.frames.len() >= self.limit
    }

    /// Adds an entry whose value frame, if it has one, `frames` already ends with.
    pub fn push(&mut self, order: Order) {
        self.orders.push(order);
    }
}

/// True if a log entry comes with a value frame: it is a value, and its first occurrence.
pub fn has_frame(order: &Order, place: Place) -> bool {
    matches!(order.entry, Entry::Value(_)) && place.bytes > 0
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
