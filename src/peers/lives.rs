//! The newest life known of every peer.
//!
//! Invariant: a life that was over once another was seen is never spoken to again: it is a copy of
//! the node's directory, or a process that should be gone, and what it says of its votes and
//! values is no longer true.

use chainring_net::hello::{HelloError, Identity, check_life};
use chainring_ring::ids::{Incarnation, NodeId, Session};
use chainring_ring::mark;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// By node: its newest incarnation and session.
#[derive(Debug, Default)]
pub struct Lives {
    known: RefCell<BTreeMap<NodeId, (Incarnation, Session)>>,
}

impl Lives {
    /// Takes in what a node of the cluster says of itself.
    ///
    /// # Errors
    /// [`HelloError::Stale`] if it is an older life than the one known.
    pub fn learn(&self, identity: &Identity) -> Result<(), HelloError> {
        let life = (identity.incarnation, identity.session);
        let mut known = self.known.borrow_mut();
        let known = known.entry(identity.node).or_insert(life);
        check_life(*known, life).inspect_err(|_| mark!(OlderLifeRefused))?;
        *known = life;
        Ok(())
    }
}
