//! The configuration: which nodes vote, in which of their lives, and who is on the way to it.
//!
//! Replicated state: a function of the log's prefix alone, equal at every node at equal positions.
//! Invariants: a node's incarnation only rises, also over its removal; there are two sets of voters
//! only between a joint change and its end, and a quorum is a majority of each; whoever comes to
//! vote was admitted as a learner by an entry before.

use crate::header::{FrameError, u32_at};
use crate::ids::{Incarnation, NODES_MAX, NodeId};
use crate::mutant;

/// Bytes of an encoded configuration.
pub const CONFIGURATION_BYTES: usize = 8 + NODES_MAX * MEMBER_BYTES;
const MEMBER_BYTES: usize = 20;

/// One step from a configuration to the next, as an entry of the log carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// The version that it leads to: if it is not the next one, the entry is nothing.
    pub version: u32,
    /// What changes.
    pub step: Step,
}

/// What a [`Change`] changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// This life of a node learns, and is to vote once it has caught up.
    Admit {
        /// Which node.
        node: NodeId,
        /// Which of its lives: higher than any that was ever admitted.
        incarnation: Incarnation,
        /// The voter whose place it takes, which may be an earlier life of the same node.
        instead: Option<NodeId>,
    },
    /// A node that learns is not to vote after all.
    Dismiss {
        /// Which node.
        node: NodeId,
    },
    /// Another set of voters: until [`Step::Leave`] is decided both sets count.
    Joint {
        /// Who votes then: a bit a node, node 1 the lowest.
        voters: u8,
        /// Who of them votes in the life that it learns in.
        fresh: u8,
    },
    /// The old set of voters counts no more.
    Leave,
}

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Only the coordinator proposes changes.
    NotCoordinator {
        /// Who may be.
        coordinator: NodeId,
    },
    /// Another change is not done yet.
    UnderWay,
    /// There is no such node.
    Unknown,
    /// The node votes already.
    AlreadyMember,
    /// That life of the node may have voted before.
    Incarnation {
        /// The lowest that may be admitted.
        least: Incarnation,
    },
    /// It would change nothing.
    Same,
    /// Nobody would be left.
    LastVoter,
    /// Too few of the voters that there would be are up and in the circle.
    NoQuorum,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Refusal::NotCoordinator { coordinator } => {
                write!(f, "only the coordinator changes the members; ask node {}", coordinator.0)
            }
            Refusal::UnderWay => write!(f, "another change is not done yet; try again when it is"),
            Refusal::Unknown => write!(f, "there is no such member; `member list` names them"),
            Refusal::AlreadyMember => write!(
                f,
                "the node is a member; a life of it that forgot its votes comes by `member replace`"
            ),
            Refusal::Incarnation { least } => write!(
                f,
                "that incarnation may have voted before; make the store with --incarnation {}",
                least.0
            ),
            Refusal::Same => write!(f, "nothing would change"),
            Refusal::LastVoter => write!(f, "no voter would be left"),
            Refusal::NoQuorum => write!(
                f,
                "too few of the voters that there would be are up; start them, or replace the dead \
                 one first"
            ),
        }
    }
}

impl core::error::Error for Refusal {}

/// What is known of one node id. Incarnation 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Member {
    /// It votes under this one.
    voter: Incarnation,
    /// And will under this one when the joint change is over.
    next: Incarnation,
    /// It learns under this one, to vote later.
    learner: Incarnation,
    /// The highest that was ever admitted.
    highest: Incarnation,
    /// In whose place it will vote; 0 for nobody's.
    instead: NodeId,
}

const NONE: Incarnation = Incarnation(0);

/// Who votes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Configuration {
    version: u32,
    joint: bool,
    members: [Member; NODES_MAX],
}

/// All ids that there can be.
fn ids() -> impl Iterator<Item = NodeId> {
    (1..=NODES_MAX as u8).map(NodeId)
}

fn bit(node: NodeId) -> u8 {
    1 << (node.0 - 1)
}

impl Configuration {
    /// What a cluster begins with.
    pub fn first(voters: impl IntoIterator<Item = (NodeId, Incarnation)>) -> Configuration {
        let mut configuration = Configuration::default();
        for (node, incarnation) in voters {
            if let Some(member) = configuration.member_mut(node) {
                (member.voter, member.highest) = (incarnation, incarnation);
            }
        }
        configuration
    }

    fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(usize::from(node.0).checked_sub(1)?)
    }

    fn member_mut(&mut self, node: NodeId) -> Option<&mut Member> {
        self.members.get_mut(usize::from(node.0).checked_sub(1)?)
    }

    /// Changes so far.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// True between a joint change and its end.
    pub fn is_joint(&self) -> bool {
        self.joint
    }

    /// All nodes that vote, will vote, or learn: ascending.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<'_> {
        let listed =
            |member: &Member| member.voter != NONE || member.next != NONE || member.learner != NONE;
        ids().filter(move |node| self.member(*node).is_some_and(listed))
    }

    /// The incarnation under which a node votes.
    pub fn voter(&self, node: NodeId) -> Option<Incarnation> {
        self.member(node).map(|member| member.voter).filter(|voter| *voter != NONE)
    }

    /// The incarnation under which it votes after the joint change.
    pub fn next(&self, node: NodeId) -> Option<Incarnation> {
        self.member(node).map(|member| member.next).filter(|next| *next != NONE)
    }

    /// The incarnation under which it learns, to vote later, and in whose place.
    pub fn learner(&self, node: NodeId) -> Option<(Incarnation, Option<NodeId>)> {
        let member = self.member(node).filter(|member| member.learner != NONE)?;
        Some((member.learner, (member.instead.0 != 0).then_some(member.instead)))
    }

    /// The highest incarnation of a node that was ever admitted.
    pub fn highest(&self, node: NodeId) -> Incarnation {
        self.member(node).map_or(NONE, |member| member.highest)
    }

    /// True if this life of a node votes, before or after a joint change.
    pub fn votes(&self, node: NodeId, incarnation: Incarnation) -> bool {
        [self.voter(node), self.next(node)].contains(&Some(incarnation))
    }

    /// True if this life of a node votes, or is to vote later.
    pub fn lists(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let learns = self.learner(node).is_some_and(|(learner, _)| learner == incarnation);
        learns || self.votes(node, incarnation)
    }

    /// The nodes that vote: a bit a node.
    pub fn voters(&self) -> u8 {
        ids().filter(|node| self.voter(*node).is_some()).fold(0, |all, node| all | bit(node))
    }

    /// The highest position that a majority of the voters has come to, of each set of them; `of`
    /// says how far one life of a node has. `extra` is 0, but for a fault planted on purpose.
    pub fn reached<T: Copy + Ord>(
        &self,
        extra: usize,
        of: impl Fn(NodeId, Incarnation) -> Option<T>,
    ) -> Option<T> {
        let majority = |listed: fn(&Member) -> Incarnation| {
            let (mut reached, mut voters) = ([None; NODES_MAX], 0);
            for (node, member) in ids().zip(&self.members) {
                let incarnation = listed(member);
                if incarnation != NONE {
                    reached[voters] = of(node, incarnation);
                    voters += 1;
                }
            }
            reached[..voters].sort_unstable_by(|one, other| other.cmp(one));
            reached[(voters / 2).saturating_sub(extra)]
        };
        let reached = majority(|member| member.voter);
        if !self.joint || mutant!(JointByOldOnly) {
            return reached;
        }
        let next = majority(|member| member.next);
        if mutant!(JointByNewOnly) { next } else { reached.min(next) }
    }

    /// True if those of whom `has` is true are a majority of each set of voters.
    pub fn is_quorum(&self, has: impl Fn(NodeId, Incarnation) -> bool) -> bool {
        self.reached(0, |node, incarnation| has(node, incarnation).then_some(())).is_some()
    }

    /// The change that makes this step from here.
    pub fn change(&self, step: Step) -> Change {
        Change { version: self.version.wrapping_add(1), step }
    }

    /// Takes a change of the log; true if it is one. It is nothing if it does not follow.
    pub fn apply(&mut self, change: &Change) -> bool {
        match self.after(change) {
            Ok(after) => {
                *self = after;
                true
            }
            Err(_) => false,
        }
    }

    /// What there is after a change.
    ///
    /// # Errors
    /// Why there can be no such change.
    pub fn after(&self, change: &Change) -> Result<Configuration, Refusal> {
        if self.version.checked_add(1) != Some(change.version) {
            return Err(Refusal::UnderWay);
        }
        let mut after = Configuration { version: change.version, ..*self };
        match change.step {
            Step::Leave if self.joint => after.leave(),
            Step::Leave => return Err(Refusal::Same),
            _ if self.joint => return Err(Refusal::UnderWay),
            Step::Admit { node, incarnation, instead } => {
                after.admit(node, incarnation, instead)?;
            }
            Step::Dismiss { node } => {
                let member = after.member_mut(node).filter(|member| member.learner != NONE);
                let member = member.ok_or(Refusal::Unknown)?;
                (member.learner, member.instead) = (NONE, NodeId(0));
            }
            Step::Joint { voters, fresh } => after.join(voters, fresh)?,
        }
        Ok(after)
    }

    fn admit(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        instead: Option<NodeId>,
    ) -> Result<(), Refusal> {
        if instead.is_some_and(|instead| self.voter(instead).is_none()) {
            return Err(Refusal::Unknown);
        }
        if self.voter(node).is_some() && instead != Some(node) {
            return Err(Refusal::AlreadyMember);
        }
        let member = self.member_mut(node).ok_or(Refusal::Unknown)?;
        if incarnation <= member.highest {
            return Err(Refusal::Incarnation { least: Incarnation(member.highest.0 + 1) });
        }
        (member.learner, member.highest) = (incarnation, incarnation);
        if mutant!(AdmittedAtOnce) && instead == Some(node) {
            member.voter = incarnation;
        }
        member.instead = instead.unwrap_or_default();
        Ok(())
    }

    fn join(&mut self, voters: u8, fresh: u8) -> Result<(), Refusal> {
        if voters == 0 {
            return Err(Refusal::LastVoter);
        }
        if u32::from(voters) >> NODES_MAX != 0 || fresh & !voters != 0 {
            return Err(Refusal::Unknown);
        }
        for (node, member) in ids().zip(&mut self.members) {
            let is_in = |set: u8| set & bit(node) != 0;
            member.next = match (is_in(voters), is_in(fresh)) {
                (false, _) => continue,
                (true, false) => member.voter,
                (true, true) => member.learner,
            };
            if member.next == NONE {
                return Err(Refusal::Unknown);
            }
        }
        if self.members.iter().all(|member| member.next == member.voter) {
            return Err(Refusal::Same);
        }
        self.joint = true;
        Ok(())
    }

    fn leave(&mut self) {
        self.joint = false;
        for member in &mut self.members {
            let next = core::mem::take(&mut member.next);
            if next != NONE || !mutant!(RemovedVotes) {
                member.voter = next;
            }
            if member.learner == member.voter {
                (member.learner, member.instead) = (NONE, NodeId(0));
            }
        }
        // Whose place is gone takes nobody's.
        let gone = |node: &NodeId| self.voter(*node).is_none();
        let gone = ids().filter(gone).fold(0, |all, node| all | bit(node));
        for member in &mut self.members {
            if member.instead.0 != 0 && gone & bit(member.instead) != 0 {
                member.instead = NodeId(0);
            }
        }
    }

    /// Writes it into the first [`CONFIGURATION_BYTES`] of `out`.
    ///
    /// # Panics
    /// If `out` is too short.
    pub fn encode(&self, out: &mut [u8]) {
        let out = &mut out[..CONFIGURATION_BYTES];
        out.fill(0);
        out[..4].copy_from_slice(&self.version.to_le_bytes());
        out[4] = u8::from(self.joint);
        for (member, out) in self.members.iter().zip(out[8..].chunks_exact_mut(MEMBER_BYTES)) {
            let lives = [member.voter, member.next, member.learner, member.highest];
            for (life, out) in lives.iter().zip(out.chunks_exact_mut(4)) {
                out.copy_from_slice(&life.0.to_le_bytes());
            }
            out[16] = member.instead.0;
        }
    }

    /// Reads one from the first [`CONFIGURATION_BYTES`] of `bytes`.
    ///
    /// # Errors
    /// [`FrameError::Body`] if they are too few, or no configuration.
    pub fn decode(bytes: &[u8]) -> Result<Configuration, FrameError> {
        let bytes = bytes.get(..CONFIGURATION_BYTES).ok_or(FrameError::Body)?;
        let mut read = Configuration {
            version: u32_at(bytes, 0),
            joint: bytes[4] == 1,
            ..Configuration::default()
        };
        for (member, bytes) in read.members.iter_mut().zip(bytes[8..].chunks_exact(MEMBER_BYTES)) {
            let life = |at| Incarnation(u32_at(bytes, at));
            *member = Member {
                voter: life(0),
                next: life(4),
                learner: life(8),
                highest: life(12),
                instead: NodeId(bytes[16]),
            };
        }
        let mut again = [0; CONFIGURATION_BYTES];
        read.encode(&mut again);
        if again == *bytes && read.is_possible() { Ok(read) } else { Err(FrameError::Body) }
    }

    fn is_possible(&self) -> bool {
        let possible = |member: &Member| {
            let most = member.voter.max(member.next).max(member.learner);
            let replaces = member.instead.0 == 0 || member.learner != NONE;
            most <= member.highest
                && replaces
                && usize::from(member.instead.0) <= NODES_MAX
                && (self.joint || member.next == NONE)
        };
        let next = self.members.iter().any(|member| member.next != NONE);
        self.voters() != 0 && self.joint == next && self.members.iter().all(possible)
    }
}

#[cfg(test)]
#[path = "configuration_tests.rs"]
mod tests;
