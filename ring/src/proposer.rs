//! The proposer: the own session and the ids of own values.
//!
//! Invariant: values of a session leave only when every node has delivered the close of all
//! sessions before it, so that no node ever holds values of two sessions of one origin. A node's
//! very first session has none before it.

use crate::actions::{Action, Actions};
use crate::core::Core;
use crate::ids::{Sequence, Session, ValueId};
use crate::lanes::lane_packets;
use crate::mark;

impl Core {
    /// The id that the next own value takes; `None` while the session is not open or
    /// too many are on their way.
    pub fn next_own_id(&self) -> Option<ValueId> {
        let opened = self.opened_at?;
        if self.delivered_everywhere() < opened || self.delivered < opened {
            return None;
        }
        let (origin, session) = (self.settings.me, self.settings.session);
        let lane = self.lanes.of(origin)?;
        let sequence = if lane.session() == session { lane.next() } else { Sequence(0) };
        if lane.session() == session && sequence.0 - lane.first().0 >= self.own_packets() {
            return None;
        }
        Some(ValueId { origin, session, sequence })
    }

    /// Most own values that are proposed and undelivered here. Half a lane: a node that hears of
    /// decisions later than this one must still have room for what is proposed after them, or it
    /// would close its link.
    fn own_packets(&self) -> u64 {
        lane_packets(self.settings.window) / 2
    }

    /// Every own session lower than `below` is closed.
    pub(crate) fn own_session_closed(&mut self, below: Session, out: &mut Actions) {
        if below == self.settings.session {
            mark!(OwnSessionOpened);
            self.opened_at = Some(self.delivered);
        } else if below > self.settings.session {
            self.opened_at = None;
            out.push(Action::NewSession);
        }
    }

    /// A higher start number is durable.
    pub(crate) fn on_session(&mut self, session: Session) {
        assert!(session > self.settings.session);
        self.settings.session = session;
        self.opened_at = None;
    }
}
