//! The next-sequence table: which occurrence of a value counts.
//!
//! Replicated state: a function of the log's prefix alone, equal at every node at equal
//! positions. Invariants: of each (origin, session) the sequences count in order, each once; any
//! other occurrence is a no-op at every node alike; a closed session never counts again.

use crate::codec::{check_positions, session_at};
use crate::header::{FrameError, u64_at};
use crate::ids::{Entry, NODES_MAX, NodeId, Sequence, Session, ValueId};
use crate::{mark, mutant};

/// What is known of one origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Every session lower than this is closed.
    pub closed_below: Session,
    /// The session that counts, or a closed one before the first value of the next.
    pub session: Session,
    /// Its next sequence.
    pub next: Sequence,
}

impl Origin {
    /// The sequence of `session` that would count now; `None` if none would: the session is
    /// closed, or a lower one is still open.
    pub fn next_of(&self, session: Session) -> Option<Sequence> {
        if session < self.closed_below {
            return None;
        }
        if session == self.session {
            return Some(self.next);
        }
        let open = self.session != Session::NONE && self.session >= self.closed_below;
        (!open && session > self.session).then_some(Sequence(0))
    }
}

/// Bytes of an encoded table: 24 an origin.
pub const TABLE_BYTES: usize = NODES_MAX * ORIGIN_BYTES;
const ORIGIN_BYTES: usize = 24;

fn put_session(session: Session, out: &mut [u8]) {
    out[..4].copy_from_slice(&session.incarnation.0.to_le_bytes());
    out[4..8].copy_from_slice(&session.start.to_le_bytes());
}

/// The table of all origins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sequences {
    origins: [Origin; NODES_MAX],
}

impl Sequences {
    /// What is known of `node`; `None` for an impossible id.
    pub fn of(&self, node: NodeId) -> Option<&Origin> {
        self.origins.get(usize::from(node.0).checked_sub(1)?)
    }

    /// True if an occurrence of this value would count now.
    pub fn counts(&self, id: &ValueId) -> bool {
        let next = self.of(id.origin).and_then(|origin| origin.next_of(id.session));
        let later = mutant!(SequenceSkipped) && next.is_some_and(|next| next < id.sequence);
        next == Some(id.sequence) || later
    }

    /// True if no occurrence of this value can count any more.
    pub fn is_past(&self, id: &ValueId) -> bool {
        let Some(origin) = self.of(id.origin) else { return true };
        id.session < origin.closed_below
            || id.session < origin.session
            || (id.session == origin.session && id.sequence < origin.next)
    }

    /// Takes the next entry of the log; true if it is a value that counts.
    pub fn apply(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Noop | Entry::Barrier(_) | Entry::Trim(_) | Entry::Membership(_) => false,
            Entry::Value(id) => {
                let counts = self.counts(id);
                if counts {
                    let origin = self.origin_mut(id.origin).expect("a value that counts");
                    origin.session = id.session;
                    origin.next = id.sequence.next();
                }
                counts
            }
            Entry::Close { origin, below } => {
                if let Some(origin) = self.origin_mut(*origin) {
                    if origin.closed_below >= *below {
                        mark!(CloseRepeated);
                    }
                    origin.closed_below = origin.closed_below.max(*below);
                }
                false
            }
        }
    }

    /// Writes the table: of each origin, node 1 first, `closed_below`, `session`, `next`.
    pub fn encode(&self) -> [u8; TABLE_BYTES] {
        let mut bytes = [0; TABLE_BYTES];
        for (origin, out) in self.origins.iter().zip(bytes.chunks_exact_mut(ORIGIN_BYTES)) {
            put_session(origin.closed_below, &mut out[0..8]);
            put_session(origin.session, &mut out[8..16]);
            out[16..24].copy_from_slice(&origin.next.0.to_le_bytes());
        }
        bytes
    }

    /// Reads a table.
    ///
    /// # Errors
    /// [`FrameError::Body`] if these bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Sequences, FrameError> {
        if bytes.len() != TABLE_BYTES {
            return Err(FrameError::Body);
        }
        let mut table = Sequences::default();
        for (origin, bytes) in table.origins.iter_mut().zip(bytes.chunks_exact(ORIGIN_BYTES)) {
            let next = u64_at(bytes, 16);
            check_positions(&[next])?;
            *origin = Origin {
                closed_below: session_at(bytes, 0),
                session: session_at(bytes, 8),
                next: Sequence(next),
            };
        }
        Ok(table)
    }

    fn origin_mut(&mut self, node: NodeId) -> Option<&mut Origin> {
        self.origins.get_mut(usize::from(node.0).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;

    fn session(start: u32) -> Session {
        Session { incarnation: Incarnation(1), start }
    }

    fn value(start: u32, sequence: u64) -> Entry {
        let session = session(start);
        Entry::Value(ValueId { origin: NodeId(2), session, sequence: Sequence(sequence) })
    }

    #[test]
    fn only_the_next_sequence_counts() {
        let mut table = Sequences::default();
        assert!(!table.apply(&value(1, 1)));
        assert!(table.apply(&value(1, 0)));
        assert!(!table.apply(&value(1, 0)));
        assert!(table.apply(&value(1, 1)));
        assert!(!table.apply(&Entry::Noop));
    }

    #[test]
    fn a_session_waits_for_the_close_of_all_lower_ones() {
        let mut table = Sequences::default();
        assert!(table.apply(&value(1, 0)));
        assert!(!table.apply(&value(3, 0)), "session 1 is still open");
        assert!(!table.apply(&Entry::Close { origin: NodeId(2), below: session(3) }));
        assert!(!table.apply(&value(1, 1)), "session 1 is closed");
        assert!(!table.apply(&value(2, 0)), "session 2 is closed");
        assert!(table.apply(&value(3, 0)));
        assert!(table.apply(&value(3, 1)));
        assert!(!table.apply(&Entry::Close { origin: NodeId(2), below: session(2) }));
        assert!(table.apply(&value(3, 2)), "an older close changes nothing");
        assert_eq!(Sequences::decode(&table.encode()), Ok(table));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let mut bytes = Sequences::default().encode();
        assert!(Sequences::decode(&bytes[1..]).is_err());
        bytes[23] = 0xff;
        assert!(Sequences::decode(&bytes).is_err(), "no log reaches such a sequence");
    }
}
