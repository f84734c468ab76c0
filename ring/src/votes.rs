//! The vote vector: one entry a node, absolute, monotone, safe against loss, order and repetition.
//!
//! Invariants: entries compare by (ballot, incarnation) first; a higher pair replaces all fields,
//! equal pairs merge field by field. Positions of different ballots are never counted together
//! (Marandi, dissertation §3.3; the watermark form is analysed in the design, "Votes").

use crate::ids::{Ballot, Incarnation, Instance, NODES_MAX, NodeId, Session};
use crate::mutant;

/// What a node says of itself. Positions are exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vote {
    /// Who.
    pub node: NodeId,
    /// In which life as acceptor.
    pub incarnation: Incarnation,
    /// The ballot that `received` and `durable` count at.
    pub ballot: Ballot,
    /// The node's session as origin of values.
    pub session: Session,
    /// It holds every order from the ballot's base to here.
    pub received: Instance,
    /// It holds every order and value from the ballot's base to here, durably: its vote.
    pub durable: Instance,
    /// It has delivered to here, and has it durably where the cluster is durable.
    pub delivered: Instance,
}

/// The newest vote known of every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Votes {
    /// By node, `votes[node - 1]`; `node.0 == 0` while unheard of.
    entries: [Vote; NODES_MAX],
}

impl Votes {
    /// The newest vote of `node`, if any was heard.
    pub fn of(&self, node: NodeId) -> Option<&Vote> {
        let vote = self.entries.get(usize::from(node.0).checked_sub(1)?)?;
        (vote.node == node).then_some(vote)
    }

    /// All votes heard, in order of node id.
    pub fn iter(&self) -> impl Iterator<Item = &Vote> {
        self.entries.iter().filter(|vote| vote.node.0 != 0)
    }

    /// Takes in a vote; true if it taught us something. A vote of an impossible node is ignored.
    pub fn merge(&mut self, vote: &Vote) -> bool {
        let Some(index) = usize::from(vote.node.0).checked_sub(1) else { return false };
        let Some(known) = self.entries.get_mut(index) else { return false };
        let before = *known;
        if known.node.0 == 0 {
            *known = *vote;
        } else {
            match (vote.incarnation, vote.ballot).cmp(&(known.incarnation, known.ballot)) {
                core::cmp::Ordering::Less => {}
                core::cmp::Ordering::Greater => {
                    let durable = known.durable.max(vote.durable);
                    *known = *vote;
                    if mutant!(VotesMergeAcrossBallots) {
                        known.durable = durable;
                    }
                }
                core::cmp::Ordering::Equal => {
                    known.received = known.received.max(vote.received);
                    known.durable = known.durable.max(vote.durable);
                    known.delivered = known.delivered.max(vote.delivered);
                    known.session = known.session.max(vote.session);
                }
            }
        }
        *known != before
    }
}
