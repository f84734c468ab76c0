//! What is wrong between this node and its peers, in words, for `status`.
//!
//! Invariant: at most one text a peer, direction and purpose, and none older than
//! [`PROBLEM_TIME`]: whatever still fails is tried again and said again before that.

use chainring_net::hello::Purpose;
use chainring_ring::ids::NodeId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a problem is shown if it does not come again.
pub const PROBLEM_TIME: Duration = Duration::from_secs(10);

/// What a problem is about; a success there clears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The listener itself.
    Listener,
    /// A connection that a peer opens.
    Incoming(NodeId, u8),
    /// A connection to a peer.
    Outgoing(NodeId, u8),
    /// Catch-up.
    CatchUp,
}

impl About {
    /// A connection that `peer` opens.
    pub fn incoming(peer: NodeId, purpose: Purpose) -> About {
        About::Incoming(peer, purpose as u8)
    }

    /// A connection to `peer`.
    pub fn outgoing(peer: NodeId, purpose: Purpose) -> About {
        About::Outgoing(peer, purpose as u8)
    }
}

/// The present problems.
#[derive(Debug, Default)]
pub struct Problems {
    texts: RefCell<BTreeMap<About, (Duration, String)>>,
}

impl Problems {
    /// Something went wrong; replaces what was said of the same before.
    pub fn set(&self, now: Duration, about: About, text: String) {
        self.texts.borrow_mut().insert(about, (now, text));
    }

    /// It works now.
    pub fn clear(&self, about: About) {
        self.texts.borrow_mut().remove(&about);
    }

    /// The texts, without those that are over.
    pub fn list(&self, now: Duration) -> Vec<String> {
        let mut texts = self.texts.borrow_mut();
        texts.retain(|_, (since, _)| now.saturating_sub(*since) < PROBLEM_TIME);
        texts.values().map(|(_, text)| text.clone()).collect()
    }
}
