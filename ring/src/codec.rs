//! Bytes of orders, claims and votes: fixed size, little-endian, the same on the wire and on disk.
//!
//! ```text
//! order, 48 bytes                      claim, 24 bytes           vote, 48 bytes
//!   0 entry kind    1                    0 round         4         0 node          1
//!   1 flags         1  bit 0: decided    4 incarnation   4         1 reserved      1
//!   2 origin        1                    8 node          1         2 ballot node   1
//!   3 ballot node   1                    9 reserved      7         3 reserved      1
//!   4 round         4                   16 position      8         4 round         4
//!   8 ballot inc.   4                                              8 ballot inc.   4
//!  12 incarnation   4                                             12 incarnation   4
//!  16 start         4                                             16 session inc.  4
//!  20 reserved      4                                             20 session start 4
//!  24 sequence      8                                             24 received      8
//!  32 instance      8                                             32 durable       8
//!  40 base          8                                             40 delivered     8
//! ```

use crate::configuration::{Change, Step};
use crate::header::{FrameError, u32_at, u64_at};
use crate::ids::{
    Ballot, Claim, Entry, Incarnation, Instance, NODES_MAX, NodeId, Order, Sequence, Session,
    ValueId,
};
use crate::votes::Vote;

/// Bytes of an order.
pub const ORDER_BYTES: usize = 48;
/// Bytes of a claim.
pub const CLAIM_BYTES: usize = 24;
/// Bytes of a vote.
pub const VOTE_BYTES: usize = 48;

/// No position or sequence is higher: arithmetic on what a peer sends cannot overflow.
pub const POSITION_MAX: u64 = 1 << 62;

/// Refuses numbers that no log reaches.
///
/// # Errors
/// [`FrameError::Body`].
pub fn check_positions(positions: &[u64]) -> Result<(), FrameError> {
    let possible = positions.iter().all(|position| *position <= POSITION_MAX);
    if possible { Ok(()) } else { Err(FrameError::Body) }
}

/// The ballot of these fields.
///
/// # Errors
/// [`FrameError::Body`] if no node can own it, or no round could follow.
pub fn ballot_of(round: u32, node: u8, incarnation: u32) -> Result<Ballot, FrameError> {
    if round == u32::MAX || usize::from(node) > NODES_MAX {
        return Err(FrameError::Body);
    }
    Ok(Ballot { round, node: NodeId(node), incarnation: Incarnation(incarnation) })
}

const NOOP: u8 = 1;
const BARRIER: u8 = 2;
const VALUE: u8 = 3;
const CLOSE: u8 = 4;
const TRIM: u8 = 6;
const MEMBERSHIP: u8 = 5;
const ADMIT: u8 = 1;
const DISMISS: u8 = 2;
const JOINT: u8 = 3;
const LEAVE: u8 = 4;
const DECIDED: u8 = 1;

/// Writes an order into the first [`ORDER_BYTES`] of `out`.
///
/// # Panics
/// If `out` is too short.
pub fn put_order(order: &Order, out: &mut [u8]) {
    let out = &mut out[..ORDER_BYTES];
    let (kind, origin, session, sequence) = match order.entry {
        Entry::Noop => (NOOP, NodeId(0), Session::NONE, Sequence(0)),
        Entry::Barrier(Ballot { round, node, incarnation }) => {
            (BARRIER, node, Session { incarnation, start: round }, Sequence(0))
        }
        Entry::Value(id) => (VALUE, id.origin, id.session, id.sequence),
        Entry::Close { origin, below } => (CLOSE, origin, below, Sequence(0)),
        Entry::Trim(position) => (TRIM, NodeId(0), Session::NONE, Sequence(position.0)),
        Entry::Membership(change) => {
            (MEMBERSHIP, NodeId(0), Session::NONE, Sequence(change.version.into()))
        }
    };
    out.fill(0);
    out[0] = kind;
    out[1] = if order.decided { DECIDED } else { 0 };
    out[2] = origin.0;
    out[3] = order.ballot.node.0;
    out[4..8].copy_from_slice(&order.ballot.round.to_le_bytes());
    out[8..12].copy_from_slice(&order.ballot.incarnation.0.to_le_bytes());
    out[12..16].copy_from_slice(&session.incarnation.0.to_le_bytes());
    out[16..20].copy_from_slice(&session.start.to_le_bytes());
    out[24..32].copy_from_slice(&sequence.0.to_le_bytes());
    out[32..40].copy_from_slice(&order.instance.0.to_le_bytes());
    out[40..48].copy_from_slice(&order.base.0.to_le_bytes());
    if let Entry::Membership(change) = order.entry {
        put_step(change.step, out);
    }
}

fn put_step(step: Step, out: &mut [u8]) {
    match step {
        Step::Admit { node, incarnation, instead } => {
            (out[2], out[20], out[21]) = (node.0, ADMIT, instead.unwrap_or_default().0);
            out[12..16].copy_from_slice(&incarnation.0.to_le_bytes());
        }
        Step::Dismiss { node } => (out[2], out[20]) = (node.0, DISMISS),
        Step::Joint { voters, fresh } => (out[20], out[21], out[22]) = (JOINT, voters, fresh),
        Step::Leave => out[20] = LEAVE,
    }
}

fn step_at(bytes: &[u8]) -> Result<Step, FrameError> {
    let node = |at: usize| NodeId(bytes[at]);
    let step = match bytes[20] {
        ADMIT => Step::Admit {
            node: node(2),
            incarnation: session_at(bytes, 12).incarnation,
            instead: (bytes[21] != 0).then_some(node(21)),
        },
        DISMISS => Step::Dismiss { node: node(2) },
        JOINT => Step::Joint { voters: bytes[21], fresh: bytes[22] },
        LEAVE => Step::Leave,
        _ => return Err(FrameError::Body),
    };
    let mut again = [0; ORDER_BYTES];
    put_step(step, &mut again);
    let same = again[2] == bytes[2] && again[12..24] == bytes[12..24];
    if same { Ok(step) } else { Err(FrameError::Reserved) }
}

/// Reads an order from the first [`ORDER_BYTES`] of `bytes`.
///
/// # Errors
/// [`FrameError::Body`] if they are too few, or not an order.
pub fn order_at(bytes: &[u8]) -> Result<Order, FrameError> {
    let bytes = bytes.get(..ORDER_BYTES).ok_or(FrameError::Body)?;
    if bytes[1] & !DECIDED != 0 || bytes[0] != MEMBERSHIP && bytes[20..24] != [0; 4] {
        return Err(FrameError::Reserved);
    }
    check_positions(&[u64_at(bytes, 24), u64_at(bytes, 32), u64_at(bytes, 40)])?;
    let origin = NodeId(bytes[2]);
    let session = session_at(bytes, 12);
    let entry = match bytes[0] {
        NOOP => Entry::Noop,
        BARRIER => Entry::Barrier(ballot_of(session.start, origin.0, session.incarnation.0)?),
        // Whoever holds values keeps them by origin.
        VALUE | CLOSE if origin.0 == 0 || usize::from(origin.0) > NODES_MAX => {
            return Err(FrameError::Body);
        }
        VALUE => Entry::Value(ValueId { origin, session, sequence: Sequence(u64_at(bytes, 24)) }),
        CLOSE => Entry::Close { origin, below: session },
        // Only what was delivered is let go.
        TRIM if u64_at(bytes, 24) > u64_at(bytes, 32) => return Err(FrameError::Body),
        TRIM => Entry::Trim(Instance(u64_at(bytes, 24))),
        MEMBERSHIP => {
            let version = u32::try_from(u64_at(bytes, 24)).map_err(|_| FrameError::Body)?;
            Entry::Membership(Change { version, step: step_at(bytes)? })
        }
        _ => return Err(FrameError::Body),
    };
    let ballot = ballot_of(u32_at(bytes, 4), bytes[3], u32_at(bytes, 8))?;
    let (instance, base) = (Instance(u64_at(bytes, 32)), Instance(u64_at(bytes, 40)));
    Ok(Order { instance, ballot, base, entry, decided: bytes[1] & DECIDED != 0 })
}

/// Writes a claim into the first [`CLAIM_BYTES`] of `out`.
///
/// # Panics
/// If `out` is too short.
pub fn put_claim(claim: &Claim, out: &mut [u8]) {
    let out = &mut out[..CLAIM_BYTES];
    out.fill(0);
    out[0..4].copy_from_slice(&claim.ballot.round.to_le_bytes());
    out[4..8].copy_from_slice(&claim.ballot.incarnation.0.to_le_bytes());
    out[8] = claim.ballot.node.0;
    out[16..24].copy_from_slice(&claim.position.0.to_le_bytes());
}

/// Reads a claim from the first [`CLAIM_BYTES`] of `bytes`.
///
/// # Errors
/// [`FrameError::Body`] if they are too few, or name what cannot be.
pub fn claim_at(bytes: &[u8]) -> Result<Claim, FrameError> {
    let bytes = bytes.get(..CLAIM_BYTES).ok_or(FrameError::Body)?;
    check_positions(&[u64_at(bytes, 16)])?;
    let ballot = ballot_of(u32_at(bytes, 0), bytes[8], u32_at(bytes, 4))?;
    Ok(Claim { ballot, position: Instance(u64_at(bytes, 16)) })
}

/// Writes a vote into the first [`VOTE_BYTES`] of `out`.
///
/// # Panics
/// If `out` is too short.
pub fn put_vote(vote: &Vote, out: &mut [u8]) {
    let out = &mut out[..VOTE_BYTES];
    out.fill(0);
    out[0] = vote.node.0;
    out[2] = vote.ballot.node.0;
    out[4..8].copy_from_slice(&vote.ballot.round.to_le_bytes());
    out[8..12].copy_from_slice(&vote.ballot.incarnation.0.to_le_bytes());
    out[12..16].copy_from_slice(&vote.incarnation.0.to_le_bytes());
    out[16..20].copy_from_slice(&vote.session.incarnation.0.to_le_bytes());
    out[20..24].copy_from_slice(&vote.session.start.to_le_bytes());
    out[24..32].copy_from_slice(&vote.received.0.to_le_bytes());
    out[32..40].copy_from_slice(&vote.durable.0.to_le_bytes());
    out[40..48].copy_from_slice(&vote.delivered.0.to_le_bytes());
}

/// Reads a vote from the first [`VOTE_BYTES`] of `bytes`.
///
/// # Errors
/// [`FrameError::Body`] if they are too few, or name what cannot be.
pub fn vote_at(bytes: &[u8]) -> Result<Vote, FrameError> {
    let bytes = bytes.get(..VOTE_BYTES).ok_or(FrameError::Body)?;
    check_positions(&[u64_at(bytes, 24), u64_at(bytes, 32), u64_at(bytes, 40)])?;
    if usize::from(bytes[0]) > NODES_MAX {
        return Err(FrameError::Body);
    }
    Ok(Vote {
        node: NodeId(bytes[0]),
        incarnation: Incarnation(u32_at(bytes, 12)),
        ballot: ballot_of(u32_at(bytes, 4), bytes[2], u32_at(bytes, 8))?,
        session: session_at(bytes, 16),
        received: Instance(u64_at(bytes, 24)),
        durable: Instance(u64_at(bytes, 32)),
        delivered: Instance(u64_at(bytes, 40)),
    })
}

pub(crate) fn session_at(bytes: &[u8], at: usize) -> Session {
    Session { incarnation: Incarnation(u32_at(bytes, at)), start: u32_at(bytes, at + 4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot() -> Ballot {
        Ballot { round: 5, node: NodeId(3), incarnation: Incarnation(2) }
    }

    #[test]
    fn orders_round_trip() {
        let session = Session { incarnation: Incarnation(4), start: 9 };
        let id = ValueId { origin: NodeId(7), session, sequence: Sequence(11) };
        let close = Entry::Close { origin: NodeId(2), below: session };
        for entry in [Entry::Noop, Entry::Barrier(ballot()), Entry::Value(id), close] {
            for decided in [false, true] {
                let (instance, base) = (Instance(77), Instance(70));
                let order = Order { instance, ballot: ballot(), base, entry, decided };
                let mut bytes = [0xff; ORDER_BYTES];
                put_order(&order, &mut bytes);
                assert_eq!(order_at(&bytes), Ok(order));
            }
        }
        for origin in [0, 8, 255].map(NodeId) {
            let id = ValueId { origin, session, sequence: Sequence(1) };
            for entry in [Entry::Value(id), Entry::Close { origin, below: session }] {
                let (instance, base) = (Instance(77), Instance(70));
                let order = Order { instance, ballot: ballot(), base, entry, decided: false };
                let mut bytes = [0; ORDER_BYTES];
                put_order(&order, &mut bytes);
                assert_eq!(order_at(&bytes), Err(FrameError::Body), "no such origin");
            }
        }
        assert_eq!(order_at(&[0; ORDER_BYTES]), Err(FrameError::Body));
        assert_eq!(order_at(&[1; ORDER_BYTES - 1]), Err(FrameError::Body));
    }

    /// What could overflow when counted on is no order, claim or vote.
    #[test]
    fn impossible_positions_are_refused() {
        let order = Order {
            instance: Instance(u64::MAX),
            ballot: ballot(),
            base: Instance(0),
            entry: Entry::Noop,
            decided: false,
        };
        let mut bytes = [0; ORDER_BYTES];
        put_order(&order, &mut bytes);
        assert_eq!(order_at(&bytes), Err(FrameError::Body));
        let claim = Claim { ballot: ballot(), position: Instance(POSITION_MAX + 1) };
        put_claim(&claim, &mut bytes);
        assert_eq!(claim_at(&bytes), Err(FrameError::Body));
        let vote = Vote { node: NodeId(1), durable: Instance(u64::MAX), ..Vote::default() };
        put_vote(&vote, &mut bytes);
        assert_eq!(vote_at(&bytes), Err(FrameError::Body));
    }

    /// A ballot above which there is no round would be the last one; no node has a number above 7.
    #[test]
    fn impossible_ballots_are_refused() {
        let last = Ballot { round: u32::MAX, ..ballot() };
        for bad in [last, Ballot { node: NodeId(8), ..ballot() }] {
            let (instance, entry) = (Instance(7), Entry::Barrier(bad));
            let good = Order { instance, ballot: ballot(), base: instance, entry, decided: false };
            let mut bytes = [0; ORDER_BYTES];
            for order in [good, Order { ballot: bad, entry: Entry::Noop, ..good }] {
                put_order(&order, &mut bytes);
                assert_eq!(order_at(&bytes), Err(FrameError::Body));
            }
            put_claim(&Claim { ballot: bad, position: instance }, &mut bytes);
            assert_eq!(claim_at(&bytes), Err(FrameError::Body));
            put_vote(&Vote { ballot: bad, ..Vote::default() }, &mut bytes);
            assert_eq!(vote_at(&bytes), Err(FrameError::Body));
        }
        let mut bytes = [0; VOTE_BYTES];
        put_vote(&Vote { node: NodeId(8), ..Vote::default() }, &mut bytes);
        assert_eq!(vote_at(&bytes), Err(FrameError::Body));
        let highest = Ballot { round: u32::MAX - 1, ..ballot() };
        put_vote(&Vote { ballot: highest, ..Vote::default() }, &mut bytes);
        assert!(vote_at(&bytes).is_ok());
    }

    #[test]
    fn claims_and_votes_round_trip() {
        let claim = Claim { ballot: ballot(), position: Instance(1 << 40) };
        let mut bytes = [0xff; CLAIM_BYTES];
        put_claim(&claim, &mut bytes);
        assert_eq!(claim_at(&bytes), Ok(claim));
        let vote = Vote {
            node: NodeId(2),
            incarnation: Incarnation(3),
            ballot: ballot(),
            session: Session { incarnation: Incarnation(3), start: 8 },
            received: Instance(30),
            durable: Instance(20),
            delivered: Instance(10),
        };
        let mut bytes = [0xff; VOTE_BYTES];
        put_vote(&vote, &mut bytes);
        assert_eq!(vote_at(&bytes), Ok(vote));
    }
}
