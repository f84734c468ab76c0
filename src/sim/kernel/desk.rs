//! The desk: what a kernel and the world around it both know of the writes of one life.
//!
//! Invariant: a group is placed once all of it is on stable media, or the disk said so.

use crate::sim::disk::{Target, WriteId};
use chainring_net::kernel::Token;
use chainring_ring::ids::{Entry, Instance, Order, ValueId};
use std::collections::{BTreeMap, VecDeque};

/// A commit group on its way to the disk.
#[derive(Debug, Default)]
pub struct Group {
    /// Its number.
    pub number: u64,
    /// Groups to here were complete when it was planned.
    pub sealed: u64,
    /// Its orders.
    pub orders: Vec<Order>,
    /// The values in it.
    pub values: Vec<ValueId>,
    /// Position that is delivered, as it says.
    pub claimed: Instance,
}

/// A commit group on stable media.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Its number.
    pub number: u64,
    /// In which segment.
    pub segment: u32,
    /// Where in it.
    pub at: u64,
    /// Its length.
    pub bytes: u32,
    /// It holds another entry of an instance than a group of this life before it.
    pub overwrites: bool,
}

/// A write that is under way.
#[derive(Debug)]
pub struct Writing {
    /// The disk's name for it.
    pub id: WriteId,
    /// Which segment it goes to.
    pub segment: u32,
    /// The disk's name for that.
    pub target: Target,
    /// The same, in the file.
    pub at: u64,
    /// Its length.
    pub bytes: u32,
    /// What it is.
    pub group: Group,
    /// Once it is done, it is on stable media.
    pub(super) durable: bool,
    pub(super) token: Token,
}

/// An operation that is over.
pub(super) struct Done {
    pub token: Token,
    pub result: i32,
    /// A write of the log that did not do what was asked.
    pub failed: bool,
}

/// What a kernel and the world around it both hold.
#[derive(Default)]
pub struct Desk {
    pub(super) done: VecDeque<Done>,
    /// By a number of the desk's own, ascending.
    pub writing: VecDeque<(u64, Writing)>,
    pub(super) next: u64,
    /// What this life has written, in order of completion.
    pub placed: Vec<Placed>,
    /// Groups to here are known to be complete by what is on stable media.
    pub sealed: u64,
    /// The entries in them, the last of each instance.
    entries: BTreeMap<Instance, Entry>,
    /// The wire took in a completion since this was asked last.
    pub(super) fresh: bool,
}

impl Desk {
    /// True if the wire took in a completion, so that the shard has to look.
    pub fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Takes in the orders of a group. True if one of them is another than before.
    pub(super) fn takes(&mut self, orders: &[Order]) -> bool {
        let mut others = false;
        for order in orders {
            let before = self.entries.insert(order.instance, order.entry);
            others |= before.is_some_and(|before| before != order.entry);
        }
        others
    }

    /// Takes a write that is under way.
    pub fn take(&mut self, number: u64) -> Option<Writing> {
        let index = self.writing.iter().position(|(known, _)| *known == number)?;
        self.writing.remove(index).map(|(_, writing)| writing)
    }
}
