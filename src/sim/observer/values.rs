//! Values: who holds which, and which occurrence counts: A6's second half, B4, L4.
//!
//! Invariants: an id is given to one packet, with one body; of an origin's sessions the sequences
//! count in order, each once, and a closed session never counts again. [`Counting`] says so in its
//! own words: the core's table is what it judges.

use super::invariant::Invariant::{A6, B4, L3, L4};
use super::verdict::{Nodes, Verdict};
use chainring_ring::core::Core;
use chainring_ring::ids::{Entry, NODES_MAX, NodeId, Sequence, Session, ValueId};

/// Sequences beyond all known ones that a value may have: far more than a lane.
const AHEAD_MAX: u64 = 1 << 16;

/// One value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ValueCell {
    /// Nodes that have it in memory, or had it delivered in this life.
    pub(super) held: Nodes,
    /// Nodes with the packet on stable media.
    pub(super) stable: Nodes,
    /// Nodes that sent it on.
    pub(super) sent: Nodes,
    /// Its origin filled it.
    filled: bool,
    /// Checksum of its body.
    body: Option<u128>,
}

/// All values.
#[derive(Debug, Default)]
pub(super) struct Values {
    origins: [Vec<(Session, Vec<ValueCell>)>; NODES_MAX + 1],
}

impl Values {
    pub(super) fn get(&self, id: &ValueId) -> Option<&ValueCell> {
        let sessions = self.origins.get(usize::from(id.origin.0))?;
        let (_, cells) = sessions.iter().rev().find(|(session, _)| *session == id.session)?;
        cells.get(usize::try_from(id.sequence.0).ok()?)
    }

    fn get_mut(&mut self, id: &ValueId) -> Option<&mut ValueCell> {
        let sessions = self.origins.get_mut(usize::from(id.origin.0))?;
        let (_, cells) = sessions.iter_mut().rev().find(|(session, _)| *session == id.session)?;
        cells.get_mut(usize::try_from(id.sequence.0).ok()?)
    }

    /// True if the node has it in memory.
    pub(super) fn is_held(&self, id: &ValueId, node: NodeId) -> bool {
        self.get(id).is_some_and(|cell| cell.held.has(node))
    }

    /// True if the node has it on stable media.
    pub(super) fn is_stable(&self, id: &ValueId, node: NodeId) -> bool {
        self.get(id).is_some_and(|cell| cell.stable.has(node))
    }

    fn cell(
        &mut self,
        verdict: &mut Verdict,
        node: NodeId,
        id: &ValueId,
    ) -> Option<&mut ValueCell> {
        let sessions = self.origins.get_mut(usize::from(id.origin.0))?;
        let at = match sessions.iter().rposition(|(session, _)| *session == id.session) {
            Some(at) => at,
            None => {
                sessions.push((id.session, Vec::new()));
                sessions.len() - 1
            }
        };
        let cells = &mut sessions[at].1;
        if id.sequence.0 >= cells.len() as u64 + AHEAD_MAX {
            verdict.fail(L3, node, || format!("far beyond the lane: {id:?}"));
            return None;
        }
        let index = id.sequence.0 as usize;
        if cells.len() <= index {
            cells.resize(index + 1, ValueCell::default());
        }
        Some(&mut cells[index])
    }

    /// The node keeps a packet; `filled` if it is its own, filled in this session.
    pub(super) fn hold(&mut self, verdict: &mut Verdict, node: NodeId, id: &ValueId, filled: bool) {
        let Some(cell) = self.cell(verdict, node, id) else { return };
        cell.held.add(node);
        let twice = filled && std::mem::replace(&mut cell.filled, true);
        verdict.check(A6, node, !twice, || format!("filled twice: {id:?}"));
    }

    /// The packet is on the node's stable media.
    pub(super) fn keep(&mut self, verdict: &mut Verdict, node: NodeId, id: &ValueId) {
        if let Some(cell) = self.cell(verdict, node, id) {
            cell.stable.add(node);
        }
    }

    /// A packet with this body leaves a node.
    pub(super) fn leaves(
        &mut self,
        verdict: &mut Verdict,
        node: NodeId,
        (id, body): (&ValueId, u128),
        once: bool,
    ) {
        let Some(cell) = self.cell(verdict, node, id) else { return };
        let same = *cell.body.get_or_insert(body) == body;
        let again = cell.sent.has(node);
        cell.sent.add(node);
        verdict.check(A6, node, same, || format!("two payloads of {id:?}"));
        verdict.check(L4, node, !(once && again), || format!("sent again: {id:?}"));
    }

    /// The node holds nothing, and of what may still count its disk has nothing.
    pub(super) fn lose(&mut self, node: NodeId, is_past: impl Fn(&ValueId) -> bool) {
        for (origin, sessions) in self.origins.iter_mut().enumerate() {
            for (session, cells) in sessions {
                for (sequence, cell) in cells.iter_mut().enumerate() {
                    let (origin, sequence) = (NodeId(origin as u8), Sequence(sequence as u64));
                    cell.held.remove(node);
                    if !is_past(&ValueId { origin, session: *session, sequence }) {
                        cell.stable.remove(node);
                    }
                }
            }
        }
    }

    /// The packet may not be on the node's stable media.
    pub(super) fn doubt(&mut self, node: NodeId, id: &ValueId) {
        if let Some(cell) = self.get_mut(id) {
            cell.stable.remove(node);
        }
    }

    /// What the node held is what its disk holds; `lost` if that is gone too.
    pub(super) fn stop(&mut self, node: NodeId, lost: bool) {
        let sessions = self.origins.iter_mut().flatten();
        for cell in sessions.flat_map(|(_, cells)| cells) {
            if lost {
                cell.stable.remove(node);
            }
            if cell.stable.has(node) {
                cell.held.add(node);
            } else {
                cell.held.remove(node);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Origin {
    closed_below: Session,
    session: Session,
    next: u64,
}

/// Which occurrence of a value counts, in the observer's own words.
#[derive(Clone, Debug, Default)]
pub(super) struct Counting {
    origins: [Origin; NODES_MAX + 1],
}

impl Counting {
    fn counts(&self, id: &ValueId) -> bool {
        let Some(origin) = self.origins.get(usize::from(id.origin.0)) else { return false };
        if id.session < origin.closed_below {
            return false;
        }
        let open = origin.session > Session::NONE && origin.session >= origin.closed_below;
        match id.session.cmp(&origin.session) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => id.sequence.0 == origin.next,
            std::cmp::Ordering::Greater => !open && id.sequence.0 == 0,
        }
    }

    /// Takes the next entry of the log; true if it is a value that counts.
    pub(super) fn apply(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Noop | Entry::Barrier(_) | Entry::Trim(_) | Entry::Membership(_) => false,
            Entry::Value(id) => {
                let counts = self.counts(id);
                if counts {
                    let origin = &mut self.origins[usize::from(id.origin.0)];
                    (origin.session, origin.next) = (id.session, id.sequence.0 + 1);
                }
                counts
            }
            Entry::Close { origin, below } => {
                if let Some(origin) = self.origins.get_mut(usize::from(origin.0)) {
                    origin.closed_below = origin.closed_below.max(*below);
                }
                false
            }
        }
    }

    /// True if no occurrence of the value can count any more.
    pub(super) fn is_past(&self, id: &ValueId) -> bool {
        let Some(origin) = self.origins.get(usize::from(id.origin.0)) else { return true };
        let delivered = id.session == origin.session && id.sequence.0 < origin.next;
        id.session < origin.closed_below || id.session < origin.session || delivered
    }

    /// A node's table says the same at the same position.
    pub(super) fn judge(&self, verdict: &mut Verdict, node: NodeId, core: &Core) {
        for id in 1..=NODES_MAX {
            let mine = &self.origins[id];
            let Some(its) = core.table().of(NodeId(id as u8)) else { continue };
            let same = its.closed_below == mine.closed_below
                && (its.session, its.next.0) == (mine.session, mine.next);
            verdict.check(B4, node, same, || format!("of origin {id} {its:?}, not {mine:?}"));
        }
    }
}
