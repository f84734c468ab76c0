//! One form for all states with the same safe future, for searches over states.
//!
//! Invariant: a core and its canonical form answer the same inputs with the same actions, but for
//! what timers do and for how log tickets are numbered.

use crate::core::Core;
use crate::failover::Failover;
use crate::liveness::Liveness;

impl Core {
    /// Forgets timers and counts log tickets from what is persisted, which becomes 0: the caller
    /// has to count its tickets from there as well.
    pub fn canonicalize(&mut self) {
        self.liveness = Liveness::default();
        self.failover = Failover::default();
        self.votes_changed = false;
        let persisted = core::mem::take(&mut self.persisted);
        self.appended -= persisted;
        if let Some((_, ticket)) = &mut self.answer_due {
            *ticket = ticket.saturating_sub(persisted);
        }
        self.window.rebase(persisted);
        self.lanes.rebase(persisted);
    }
}
