//! Frames that go straight to a node: 1A, 1B, and the word that more was promised.
//!
//! They are rare, so they are made in memory of their own and travel by the control thread.
//! Invariant: a 1B lists exactly the orders that are held with their values when it is made.

use chainring_ring::actions::{Input, PromiseFrom};
use chainring_ring::codec::{ORDER_BYTES, check_positions, put_order};
use chainring_ring::core::Core;
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind, u32_at, u64_at};
use chainring_ring::ids::{Ballot, ClusterId, Epoch, Incarnation, Instance, NodeId, RingId};
use chainring_ring::mutant;

/// Bytes of a 1B before its orders: incarnation 4, flags 4, promised before 12 and 4 reserved,
/// first 8, delivered 8.
const PROMISE_BYTES: usize = 40;
/// Largest frame: a 1B with a whole window of orders.
pub const DIRECT_MAX: u32 = (HEADER_BYTES
    + PROMISE_BYTES
    + chainring_ring::window::WINDOW_MAX as usize * ORDER_BYTES) as u32;
const DAMAGED: u32 = 1;

/// Whose frames they are.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Cluster.
    pub cluster: ClusterId,
    /// Its epoch.
    pub epoch: Epoch,
    /// This node.
    pub node: NodeId,
}

impl Sender {
    /// A header of this node's; the caller fills in what its kind needs.
    pub fn header(&self, kind: Kind, size: u32, length: u32) -> Header {
        Header {
            checksum_body: 0,
            cluster: self.cluster,
            epoch: self.epoch,
            ring: RingId(0),
            kind,
            size,
            length,
            origin: self.node,
            session: Default::default(),
            sequence: Default::default(),
            ballot: Ballot::ZERO,
            instance: Instance(0),
        }
    }

    fn frame(&self, kind: Kind, ballot: Ballot, body: &[u8]) -> Vec<u8> {
        let size = (HEADER_BYTES + body.len()) as u32;
        let mut frame = vec![0; size as usize];
        frame[HEADER_BYTES..].copy_from_slice(body);
        Header { ballot, ..self.header(kind, size, body.len() as u32) }.seal(&mut frame);
        frame
    }

    /// 1A.
    pub fn prepare(&self, ballot: Ballot) -> Vec<u8> {
        self.frame(Kind::Prepare, ballot, &[])
    }

    /// More was promised.
    pub fn reject(&self, promised: Ballot) -> Vec<u8> {
        self.frame(Kind::Reject, promised, &[])
    }

    /// 1B from the core's state.
    pub fn promise(&self, core: &Core, ballot: Ballot) -> Vec<u8> {
        let window = core.window();
        let mut body = vec![0; PROMISE_BYTES];
        let before = core.promised_before();
        let flags = if core.is_damaged() { DAMAGED } else { 0 };
        body[0..4].copy_from_slice(&core.settings().incarnation.0.to_le_bytes());
        body[4..8].copy_from_slice(&flags.to_le_bytes());
        body[8..12].copy_from_slice(&before.round.to_le_bytes());
        body[12..16].copy_from_slice(&before.incarnation.0.to_le_bytes());
        body[16] = before.node.0;
        if !mutant!(AnswerWithoutFirst) {
            body[24..32].copy_from_slice(&window.first().0.to_le_bytes());
            body[32..40].copy_from_slice(&core.delivered().0.to_le_bytes());
        }
        for instance in window.first().0..window.end().0 {
            let slot = window.get(Instance(instance));
            if let Some(slot) = slot.filter(|slot| core.has(slot)) {
                let at = body.len();
                body.resize(at + ORDER_BYTES, 0);
                put_order(&slot.order, &mut body[at..]);
            }
        }
        self.frame(Kind::Promise, ballot, &body)
    }
}

/// The input that a verified frame from `from` is.
///
/// # Errors
/// [`FrameError::Body`] if it is none.
pub fn input<'a>(header: &Header, from: NodeId, body: &'a [u8]) -> Result<Input<'a>, FrameError> {
    match header.kind {
        Kind::Prepare => Ok(Input::Prepare { ballot: header.ballot }),
        Kind::Reject => Ok(Input::Reject { promised: header.ballot }),
        Kind::Promise => {
            if body.len() < PROMISE_BYTES {
                return Err(FrameError::Body);
            }
            check_positions(&[u64_at(body, 24), u64_at(body, 32)])?;
            let before = Ballot {
                round: u32_at(body, 8),
                node: NodeId(body[16]),
                incarnation: Incarnation(u32_at(body, 12)),
            };
            Ok(Input::Promise(PromiseFrom {
                from,
                incarnation: Incarnation(u32_at(body, 0)),
                ballot: header.ballot,
                before,
                damaged: u32_at(body, 4) & DAMAGED != 0,
                first: Instance(u64_at(body, 24)),
                delivered: Instance(u64_at(body, 32)),
                orders: &body[PROMISE_BYTES..],
            }))
        }
        _ => Err(FrameError::Body),
    }
}
