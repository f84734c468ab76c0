//! What may be read of a core from outside.
//!
//! Invariant: nothing here changes the state, but for the note that the vector has changed, which
//! is taken once.

use crate::coordinator::Role;
use crate::core::{Core, Settings};
use crate::ids::{Ballot, Entry, Instance};
use crate::lanes::Lanes;
use crate::mutant;
use crate::sequences::Sequences;
use crate::votes::Votes;
use crate::window::{Slot, Window};

impl Core {
    /// Position delivered here.
    pub fn delivered(&self) -> Instance {
        self.delivered
    }

    /// The table at that position.
    pub fn table(&self) -> &Sequences {
        &self.table
    }

    /// The orders at hand.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// What is held of each origin.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The vote vector.
    pub fn votes(&self) -> &Votes {
        &self.votes
    }

    /// True once after each change of the vector or the claim: it is time to send them.
    pub fn take_votes_changed(&mut self) -> bool {
        core::mem::take(&mut self.votes_changed)
    }

    /// What the node is in its ballot.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// What the node was told at its start.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Log tickets given out so far.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// True if the answer to a 1A must call what it does not list unknown.
    pub fn is_damaged(&self) -> bool {
        self.damage.is_some() && !mutant!(DamageNotTold)
    }

    /// What was promised before the ballot that is answered for; never less.
    pub fn promised_before(&self) -> Ballot {
        self.answer_before
    }

    /// True if order and value of the slot are held: what 1B calls *have*.
    pub fn has(&self, slot: &Slot) -> bool {
        match slot.order.entry {
            Entry::Value(id) => {
                slot.order.instance < self.delivered
                    || self.table.is_past(&id)
                    || self.lanes.ticket(&id).is_some()
            }
            _ => true,
        }
    }

    /// A stable digest of the whole state.
    pub fn digest(&self) -> u128 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        core::hash::Hash::hash(self, &mut hasher);
        hasher.digest128()
    }
}
