//! Running digests, compared between nodes while they run.
//!
//! Every node notes its digest at each position that is a multiple of [`CHECK_EVERY`], tells the
//! others its newest note about once a second, and holds theirs against its own of the same
//! position. The digest covers everything delivered so far, so one comparison covers the whole log.
//! Invariants: only notes of equal positions are compared; two that differ end the shard, at every
//! node that sees it: nobody knows which one is right, and to go on would let the wrong one spread.
//! Nothing is allocated after `new`.

use crate::device::Machine;
use crate::mail::Notice;
use crate::records::Digest;
use crate::shard::{Failure, Shard};
use chainring_ring::header::{FrameError, u64_at};
use chainring_ring::ids::{Instance, NODES_MAX, NodeId};
use chainring_ring::mark;
use std::collections::VecDeque;

/// Instances between two notes, the same at all nodes.
pub const CHECK_EVERY: u64 = 64;
/// Notes kept: some seconds of the fastest ring.
const KEPT: usize = 1024;
/// Microseconds between two words to the others.
const TELL_US: u64 = 1_000_000;
/// Bytes of a note in a frame: position 8, digest 16.
pub const CHECK_BYTES: usize = 24;

/// The digest of everything delivered below a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Exclusive.
    pub position: Instance,
    /// Of what lies below.
    pub digest: Digest,
}

impl Check {
    /// Its bytes in a frame.
    pub fn encode(&self) -> [u8; CHECK_BYTES] {
        let mut bytes = [0; CHECK_BYTES];
        bytes[..8].copy_from_slice(&self.position.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.digest.0.to_le_bytes());
        bytes
    }

    /// From its bytes.
    ///
    /// # Errors
    /// [`FrameError::Body`] if no node notes such a position.
    pub fn decode(bytes: &[u8]) -> Result<Check, FrameError> {
        let position = Instance(match bytes.len() {
            CHECK_BYTES => u64_at(bytes, 0),
            _ => return Err(FrameError::Body),
        });
        let digest = u128::from(u64_at(bytes, 8)) | u128::from(u64_at(bytes, 16)) << 64;
        match position.0 > 0 && position.0.is_multiple_of(CHECK_EVERY) {
            true => Ok(Check { position, digest: Digest(digest) }),
            false => Err(FrameError::Body),
        }
    }
}

/// Two nodes delivered different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "what node {node} delivered below instance {position} is not what this node delivered: digest \
     {theirs:032x}, here {own:032x}. The ring must not go on: compare the logs with `chainring \
     verify`, keep the one that is right, and make the stores of the others anew",
    node = node.0, position = position.0, theirs = theirs.0, own = own.0
)]
pub struct Divergence {
    /// The other one.
    pub node: NodeId,
    /// Somewhere below.
    pub position: Instance,
    /// This node's digest.
    pub own: Digest,
    /// The other one's.
    pub theirs: Digest,
}

/// This node's notes, and the newest of each other node.
#[derive(Debug)]
pub struct Checks {
    own: VecDeque<Check>,
    /// By node; those of positions not delivered here yet.
    others: [Option<Check>; NODES_MAX],
    told_us: u64,
    told: Instance,
}

impl Checks {
    /// No notes.
    pub(super) fn new() -> Checks {
        let own = VecDeque::with_capacity(KEPT);
        Checks { own, others: [None; NODES_MAX], told_us: 0, told: Instance(0) }
    }

    /// Everything below `position` is delivered.
    fn delivered(
        &mut self,
        position: Instance,
        digest: impl FnOnce() -> Digest,
    ) -> Option<Divergence> {
        if !position.0.is_multiple_of(CHECK_EVERY) {
            return None;
        }
        if self.own.len() == KEPT {
            self.own.pop_front();
        }
        self.own.push_back(Check { position, digest: digest() });
        (1..=NODES_MAX as u8).find_map(|node| self.compare(NodeId(node)))
    }

    /// Another node's note.
    fn heard(&mut self, node: NodeId, check: Check) -> Option<Divergence> {
        *self.others.get_mut(usize::from(node.0).wrapping_sub(1))? = Some(check);
        self.compare(node)
    }

    fn compare(&mut self, node: NodeId) -> Option<Divergence> {
        let waiting = &mut self.others[usize::from(node.0) - 1];
        let theirs = (*waiting)?;
        let newest = self.own.back()?;
        if newest.position < theirs.position {
            return None;
        }
        *waiting = None;
        let Ok(at) = self.own.binary_search_by_key(&theirs.position, |check| check.position) else {
            mark!(DigestTooOld);
            return None;
        };
        let (own, theirs, position) = (self.own[at].digest, theirs.digest, theirs.position);
        if own == theirs {
            mark!(DigestsAgree);
            return None;
        }
        Some(Divergence { node, position, own, theirs })
    }

    /// The note to tell now, if it is time and there is a new one.
    fn due(&mut self, now_us: u64) -> Option<Check> {
        let newest = *self.own.back()?;
        if now_us < self.told_us + TELL_US || newest.position == self.told {
            return None;
        }
        (self.told_us, self.told) = (now_us, newest.position);
        Some(newest)
    }
}

impl<M: Machine> Shard<M> {
    /// An instance was delivered.
    pub(super) fn note_digest(&mut self, instance: Instance) {
        let groups = &self.groups;
        let divergence = self.checks.delivered(instance.next(), || groups.digest());
        self.failure = self.failure.take().or(divergence.map(Failure::Diverged));
    }

    /// Another node told its note.
    pub(super) fn take_check(&mut self, from: NodeId, body: &[u8]) {
        match Check::decode(body) {
            Ok(check) => {
                let divergence = self.checks.heard(from, check);
                self.failure = self.failure.take().or(divergence.map(Failure::Diverged));
            }
            Err(_) => self.bad_frames += 1,
        }
    }

    /// Tells the others how this node's digest stands.
    pub(super) fn tell_digest(&mut self) {
        if let Some(check) = self.checks.due(self.now_us) {
            self.outbox.push(Notice::Check(check));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(position: u64, digest: u128) -> Check {
        Check { position: Instance(position), digest: Digest(digest) }
    }

    fn deliver(checks: &mut Checks, position: u64, digest: u128) -> Option<Divergence> {
        checks.delivered(Instance(position), || Digest(digest))
    }

    #[test]
    fn notes_of_one_position_are_compared_whoever_comes_first() {
        let mut checks = Checks::new();
        assert_eq!(deliver(&mut checks, CHECK_EVERY - 1, 9), None);
        assert_eq!(checks.heard(NodeId(2), check(CHECK_EVERY, 1)), None, "not there yet");
        assert_eq!(checks.heard(NodeId(3), check(2 * CHECK_EVERY, 2)), None);
        assert_eq!(deliver(&mut checks, CHECK_EVERY, 1), None);
        let differs = deliver(&mut checks, 2 * CHECK_EVERY, 3).expect("node 3 differs");
        assert_eq!((differs.node, differs.position.0), (NodeId(3), 2 * CHECK_EVERY));
        assert_eq!((differs.own, differs.theirs), (Digest(3), Digest(2)));
        assert_eq!(deliver(&mut checks, 3 * CHECK_EVERY, 4), None, "said once");
        assert!(checks.heard(NodeId(1), check(CHECK_EVERY, 7)).is_some(), "of an old position");
        assert_eq!(checks.heard(NodeId(1), check(CHECK_EVERY, 1)), None);
        assert_eq!(checks.heard(NodeId(0), check(CHECK_EVERY, 7)), None, "nobody");
        assert_eq!(checks.heard(NodeId(8), check(CHECK_EVERY, 7)), None, "nobody");
    }

    #[test]
    fn notes_are_bounded_and_what_is_too_old_is_not_compared() {
        let mut checks = Checks::new();
        for at in 1..=2 * KEPT as u64 {
            assert_eq!(deliver(&mut checks, at * CHECK_EVERY, u128::from(at)), None);
        }
        assert_eq!((checks.own.len(), checks.own.capacity()), (KEPT, KEPT));
        assert_eq!(checks.heard(NodeId(2), check(CHECK_EVERY, 7)), None);
        assert!(checks.heard(NodeId(2), check((KEPT as u64 + 1) * CHECK_EVERY, 7)).is_some());
    }

    #[test]
    fn the_newest_note_is_told_now_and_then() {
        let mut checks = Checks::new();
        assert_eq!(checks.due(5 * TELL_US), None);
        deliver(&mut checks, CHECK_EVERY, 1);
        deliver(&mut checks, 2 * CHECK_EVERY, 2);
        assert_eq!(checks.due(5 * TELL_US), Some(check(2 * CHECK_EVERY, 2)));
        assert_eq!(checks.due(9 * TELL_US), None, "nothing new");
        deliver(&mut checks, 3 * CHECK_EVERY, 3);
        assert_eq!(checks.due(5 * TELL_US + 9), None, "too soon");
        assert_eq!(checks.due(6 * TELL_US), Some(check(3 * CHECK_EVERY, 3)));
    }

    #[test]
    fn only_notes_are_decoded() {
        let note = check(7 * CHECK_EVERY, u128::MAX - 5);
        assert_eq!(Check::decode(&note.encode()), Ok(note));
        assert!(Check::decode(&note.encode()[1..]).is_err());
        for position in [0, 1, CHECK_EVERY + 1] {
            assert!(Check::decode(&check(position, 1).encode()).is_err());
        }
    }
}
