//! What is let go, and the state that stands for it. Safety only; reads no timer.
//!
//! Invariants: `trimmed <= delivered`; what is delivered never falls; a jump passes only over what
//! is decided, so that no vote, promise or report of this node says less than before.

use crate::actions::Actions;
use crate::configuration::Configuration;
use crate::coordinator::Role;
use crate::core::Core;
use crate::ids::{Claim, Instance, NODES_MAX, NodeId, Sequence, Session};
use crate::sequences::Sequences;
use crate::{mark, mutant};

impl Core {
    /// Somebody who knows what a quorum holds durably wants this ordered.
    pub(crate) fn on_trim(&mut self, position: Instance, held: u8) {
        let holds = |node: NodeId, _| held >> (node.0 - 1) & 1 != 0;
        let enough = self.is_quorum(holds) || mutant!(TrimAheadOfQuorum);
        if enough && position > self.trimmed && position <= self.delivered {
            self.trim_due = position;
        }
    }

    /// What is to be ordered as trimmed, once.
    pub(crate) fn take_trim(&mut self) -> Option<Instance> {
        let position = core::mem::take(&mut self.trim_due);
        if position <= self.trimmed {
            return None;
        }
        mark!(TrimOrdered);
        Some(position)
    }

    /// An entry that lets go is delivered.
    pub(crate) fn trim(&mut self, position: Instance, at: Instance) {
        assert!(position <= at, "{position:?} is let go at {at:?}");
        self.trimmed = self.trimmed.max(position);
    }

    /// Everything below may be let go, as far as is delivered here.
    pub fn trimmed(&self) -> Instance {
        self.trimmed
    }

    /// True if a state of this position would be gone on from.
    pub fn takes_jump(&self, position: Instance) -> bool {
        let behind = position <= self.delivered && !mutant!(JumpsBack);
        !behind && !matches!(self.role, Role::Coordinator(_))
    }

    /// The state at a later position is there, durably.
    ///
    /// Everything below is decided, and every later ballot can only propose the same: so it counts
    /// as held, as what is delivered does. Orders and values beyond it stay as they are.
    pub(crate) fn on_jump(
        &mut self,
        claim: Claim,
        table: &Sequences,
        configuration: &Configuration,
        out: &mut Actions,
    ) {
        if !self.takes_jump(claim.position) {
            return mark!(JumpOvertaken);
        }
        mark!(Jumped);
        if claim.ballot > self.promised {
            mark!(JumpRaisedPromise);
            self.promise(claim.ballot, out);
        }
        self.table = table.clone();
        self.delivered = claim.position;
        self.settled = claim.position;
        self.window.advance(claim.position);
        if claim.position > self.claim.position {
            self.claim = Claim { ballot: claim.ballot.max(self.claim.ballot), ..claim };
        }
        self.votes_changed = true;
        self.liveness.progress = true;
        self.jump_to(configuration);
        self.pass_lanes();
        let own = self.table.of(self.settings.me).map_or(Session::NONE, |own| own.closed_below);
        let opens = own == self.settings.session && self.opened_at.is_none();
        if opens || own > self.settings.session {
            mark!(JumpPassedOwnClose);
            self.own_session_closed(own, out);
        }
    }

    /// The configuration there is in force, and behind it what the orders held say.
    fn jump_to(&mut self, configuration: &Configuration) {
        self.configuration = *configuration;
        self.pending = None;
        self.list_nodes();
        if !self.settings.nodes.contains(&self.promised.node) {
            self.on_hint(self.promised.node);
        }
        for at in self.delivered.0..self.received.0 {
            self.note_change(Instance(at));
        }
    }

    /// Lets go of the values that the table says are past.
    fn pass_lanes(&mut self) {
        for node in (1..=NODES_MAX as u8).map(NodeId) {
            let origin = *self.table.of(node).expect("an id that there can be");
            let lane = self.lanes.of_mut(node).expect("an id that there can be");
            if lane.session() < origin.closed_below {
                let counts = origin.session >= origin.closed_below;
                let session = if counts { origin.session } else { origin.closed_below };
                lane.open(session, if counts { origin.next } else { Sequence(0) });
            } else if lane.session() < origin.session {
                lane.open(origin.session, origin.next);
            } else if lane.session() == origin.session {
                lane.delivered(origin.next);
            }
        }
    }
}
