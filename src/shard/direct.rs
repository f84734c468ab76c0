//! Frames that go straight to a node: 1A, 1B, the word that more was promised, and what failover
//! says.
//!
//! They are rare, so they are made in memory of their own and travel by the control thread.
//! Invariant: a 1B lists exactly the orders that are held with their values when it is made.

use chainring_ring::actions::{Input, PromiseFrom};
use chainring_ring::codec::{
    CLAIM_BYTES, ORDER_BYTES, VOTE_BYTES, ballot_of, check_positions, claim_at, put_claim,
    put_order, put_vote, vote_at,
};
use chainring_ring::coordinator::Role;
use chainring_ring::core::Core;
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind, u32_at, u64_at};
use chainring_ring::ids::{
    Ballot, ClusterId, Epoch, Incarnation, Instance, NODES_MAX, NodeId, RingId,
};
use chainring_ring::layout::Layout;
use chainring_ring::mutant;

/// Bytes of a 1B before its orders: incarnation 4, flags 4, promised before 12 and 4 reserved,
/// first 8, delivered 8.
const PROMISE_BYTES: usize = 40;
/// Largest frame: a 1B with a whole window of orders.
pub const DIRECT_MAX: u32 = (HEADER_BYTES
    + PROMISE_BYTES
    + chainring_ring::window::WINDOW_MAX as usize * ORDER_BYTES) as u32;
const DAMAGED: u32 = 1;
/// Bytes of the word that a node is there: vote, whom it hears 1, whether it asks 1, whether its
/// log is damaged 1, reserved 5.
const PRESENT_BYTES: usize = VOTE_BYTES + 8;
/// Bytes of the word that a ballot is open: layout 4, reserved 4, barrier 8, claim.
const OPEN_BYTES: usize = 16 + CLAIM_BYTES;

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

    /// The own ballot is open; `None` if it is not any more: the step that wanted this said may
    /// have begun another one, which is not durable yet.
    pub fn open(&self, core: &Core) -> Option<Vec<u8>> {
        let Role::Coordinator(tip) = core.role() else { return None };
        let mut body = [0; OPEN_BYTES];
        body[..4].copy_from_slice(&core.layout().encode().to_le_bytes());
        body[8..16].copy_from_slice(&tip.barrier.0.to_le_bytes());
        put_claim(&core.claim(), &mut body[16..]);
        Some(self.frame(Kind::Open, core.promised(), &body))
    }

    /// The own vote, and whom this node hears.
    pub fn present(&self, core: &Core, asks: bool) -> Vec<u8> {
        let mut body = [0; PRESENT_BYTES];
        let own = core.votes().of(self.node).copied().unwrap_or_default();
        put_vote(&own, &mut body);
        body[VOTE_BYTES] = core.hears();
        body[VOTE_BYTES + 1] = u8::from(asks);
        body[VOTE_BYTES + 2] = u8::from(core.is_damaged());
        self.frame(Kind::Present, core.promised(), &body)
    }

    /// The predecessor is missed.
    pub fn missed(&self, ballot: Ballot, node: NodeId) -> Vec<u8> {
        self.frame(Kind::Missed, ballot, &[node.0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// The coordinator of this ballot is missed: a question, or its answer.
    pub fn coordinator_missed(&self, kind: Kind, ballot: Ballot) -> Vec<u8> {
        self.frame(kind, ballot, &[])
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
        // The answer goes to the ballot's owner, and nobody speaks for another.
        Kind::Prepare if header.ballot.node != from => Err(FrameError::Body),
        Kind::Prepare => Ok(Input::Prepare { ballot: header.ballot }),
        Kind::Reject => Ok(Input::Reject { promised: header.ballot }),
        Kind::Promise => {
            if body.len() < PROMISE_BYTES {
                return Err(FrameError::Body);
            }
            check_positions(&[u64_at(body, 24), u64_at(body, 32)])?;
            let before = ballot_of(u32_at(body, 8), body[16], u32_at(body, 12))?;
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
        kind => failover_input(kind, header.ballot, from, body),
    }
}

fn is_node(id: u8) -> bool {
    (1..=NODES_MAX as u8).contains(&id)
}

fn failover_input(
    kind: Kind,
    ballot: Ballot,
    from: NodeId,
    body: &[u8],
) -> Result<Input<'_>, FrameError> {
    match (kind, body.len()) {
        (Kind::Open, OPEN_BYTES) if body[4..8] == [0; 4] => {
            let layout = Layout::decode(u32_at(body, 0)).ok_or(FrameError::Body)?;
            check_positions(&[u64_at(body, 8)])?;
            let barrier = Instance(u64_at(body, 8));
            let claim = claim_at(&body[16..])?;
            let opens = ballot.node == from && claim.ballot <= ballot;
            match opens && layout.nodes().first() == Some(&from) {
                true => Ok(Input::Open { ballot, layout, claim, barrier }),
                false => Err(FrameError::Body),
            }
        }
        (Kind::Present, PRESENT_BYTES) => {
            let (vote, hears) = (vote_at(&body[..VOTE_BYTES])?, body[VOTE_BYTES]);
            let asks = body[VOTE_BYTES + 1] == 1;
            let damaged = body[VOTE_BYTES + 2] == 1;
            let flags = body[VOTE_BYTES + 1].max(body[VOTE_BYTES + 2]) <= 1;
            let zeros = flags && body[VOTE_BYTES + 3..] == [0; 5];
            match vote.node == from && zeros {
                true => Ok(Input::Present { vote, hears, asks, damaged }),
                false => Err(FrameError::Body),
            }
        }
        (Kind::Missed, 8) if is_node(body[0]) && body[1..] == [0; 7] => {
            Ok(Input::Missed { from, ballot, node: NodeId(body[0]) })
        }
        (Kind::Ask, 0) => Ok(Input::Ask { from, ballot }),
        (Kind::Lost, 0) => Ok(Input::Lost { from, ballot }),
        _ => Err(FrameError::Body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Sender = Sender { cluster: ClusterId(5), epoch: Epoch(1), node: NodeId(2) };

    fn is_input(frame: &[u8], from: u8) -> bool {
        let header = Header::decode(frame, DIRECT_MAX).expect("a frame");
        let body = header.check_body(frame).expect("whole");
        input(&header, NodeId(from), body).is_ok()
    }

    /// Nobody campaigns for another, and there is no node 0 or 8 to miss.
    #[test]
    fn impossible_frames_are_refused() {
        let ballot = Ballot { round: 3, node: NodeId(2), incarnation: Incarnation(1) };
        let prepare = ME.prepare(ballot);
        assert!(is_input(&prepare, 2) && !is_input(&prepare, 3));
        for (node, possible) in [(0, false), (1, true), (7, true), (8, false), (255, false)] {
            assert_eq!(is_input(&ME.missed(ballot, NodeId(node)), 2), possible, "{node}");
        }
        let last = Ballot { round: u32::MAX, ..ballot };
        let nobody = Ballot { node: NodeId(8), ..ballot };
        for bad in [last, nobody] {
            for frame in [ME.prepare(bad), ME.reject(bad), ME.missed(bad, NodeId(1))] {
                assert_eq!(Header::decode(&frame, DIRECT_MAX), Err(FrameError::Body));
            }
        }
    }
}
