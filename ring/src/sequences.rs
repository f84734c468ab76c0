//! The next-sequence table: which occurrence of a value counts.
//!
//! Replicated state: a function of the log's prefix alone, equal at every node at equal
//! positions. Invariants: of each (origin, session) the sequences count in order, each once; any
//! other occurrence is a no-op at every node alike; a closed session never counts again.

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
            Entry::Noop | Entry::Barrier(_) | Entry::Membership(_) => false,
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
    }
}
