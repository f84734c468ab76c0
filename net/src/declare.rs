//! A declaration on a data link: "I do not hold these values; do not wait for them here."
//!
//! It stands in the place of the values it names, in their order, so that what follows it is the
//! next of its origin. Body, little-endian: origin 1, reserved 7, session incarnation 4, session
//! start 4, from 8, to 8.

use chainring_ring::codec::check_positions;
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind, round_up, u32_at, u64_at};
use chainring_ring::ids::{
    Ballot, ClusterId, Epoch, Incarnation, Instance, NODES_MAX, NodeId, RingId, Sequence, Session,
};

/// Bytes of the body in use.
pub const DECLARE_BYTES: usize = 32;

/// The values that the sender does not hold: of one session of one origin, `from` to before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declare {
    /// Whose values.
    pub origin: NodeId,
    /// Of which session.
    pub session: Session,
    /// The first.
    pub from: Sequence,
    /// Behind the last.
    pub to: Sequence,
}

impl Declare {
    /// Writes the frame, as node `by`, into the start of `out`; returns its size: header and body,
    /// rounded up to the block.
    ///
    /// # Panics
    /// If `out` is shorter than a block.
    pub fn encode(
        &self,
        (cluster, epoch, ring): (ClusterId, Epoch, RingId),
        by: NodeId,
        block: u32,
        out: &mut [u8],
    ) -> usize {
        let size = round_up(HEADER_BYTES + DECLARE_BYTES, block);
        let frame = &mut out[..size];
        frame.fill(0);
        let body = &mut frame[HEADER_BYTES..][..DECLARE_BYTES];
        body[0] = self.origin.0;
        body[8..12].copy_from_slice(&self.session.incarnation.0.to_le_bytes());
        body[12..16].copy_from_slice(&self.session.start.to_le_bytes());
        body[16..24].copy_from_slice(&self.from.0.to_le_bytes());
        body[24..32].copy_from_slice(&self.to.0.to_le_bytes());
        let header = Header {
            checksum_body: 0,
            cluster,
            epoch,
            ring,
            kind: Kind::Declare,
            size: size as u32,
            length: DECLARE_BYTES as u32,
            origin: by,
            session: Session::NONE,
            sequence: Sequence(0),
            ballot: Ballot::ZERO,
            instance: Instance(0),
        };
        header.seal(frame);
        size
    }

    /// Reads the body of a verified frame.
    ///
    /// # Errors
    /// [`FrameError::Body`] if it is none, names no node, or nothing.
    pub fn decode(body: &[u8]) -> Result<Declare, FrameError> {
        let body: &[u8; DECLARE_BYTES] = body.try_into().map_err(|_| FrameError::Body)?;
        let (incarnation, start) = (Incarnation(u32_at(body, 8)), u32_at(body, 12));
        let (from, to) = (Sequence(u64_at(body, 16)), Sequence(u64_at(body, 24)));
        let possible = body[0] >= 1 && usize::from(body[0]) <= NODES_MAX;
        check_positions(&[from.0, to.0])?;
        if !possible || body[1..8] != [0; 7] || from >= to {
            return Err(FrameError::Body);
        }
        let session = Session { incarnation, start };
        Ok(Declare { origin: NodeId(body[0]), session, from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_round_trip() {
        let session = Session { incarnation: Incarnation(2), start: 3 };
        let declare =
            Declare { origin: NodeId(4), session, from: Sequence(10), to: Sequence(1 << 50) };
        let mut out = [0xff; 4096];
        let place = (ClusterId(1), Epoch(2), RingId(3));
        assert_eq!(declare.encode(place, NodeId(1), 512, &mut out), 512);
        let header = Header::decode(&out, 4096).unwrap();
        assert_eq!((header.kind, header.origin), (Kind::Declare, NodeId(1)));
        let body = header.check_body(&out).unwrap();
        assert_eq!(Declare::decode(body), Ok(declare));
        assert!(Declare::decode(&body[..31]).is_err());
        let mut bad = [0; DECLARE_BYTES];
        bad.copy_from_slice(body);
        bad[24..32].copy_from_slice(&10u64.to_le_bytes());
        assert_eq!(Declare::decode(&bad), Err(FrameError::Body), "an empty range");
    }
}
