//! What the observer remembers of one node, over all its lives.
//!
//! Invariant: what concerns promises and votes is kept by incarnation, what concerns memory by
//! life; `groups` counts as stable only what no missing group comes before.

use super::values::Counting;
use chainring_ring::ids::{Ballot, Incarnation, Instance, NodeId, Order, Session, ValueId};
use chainring_ring::votes::Vote;
use std::collections::BTreeMap;

/// A commit group or seal that is on stable media.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Its number.
    pub number: u64,
    /// Of the log up to it, it says that all below is delivered.
    pub claimed: Instance,
    /// Its orders.
    pub orders: &'a [Order],
    /// The values in it.
    pub values: &'a [ValueId],
}

/// A commit group that is on stable media before one that comes before it.
#[derive(Debug, Default)]
pub(super) struct Group {
    number: u64,
    claimed: Instance,
    pub(super) orders: Vec<Order>,
    pub(super) values: Vec<ValueId>,
}

impl Group {
    /// Takes over what was written.
    pub(super) fn take(&mut self, written: Written<'_>) {
        (self.number, self.claimed) = (written.number, written.claimed);
        self.orders.extend_from_slice(written.orders);
        self.values.extend_from_slice(written.values);
    }

    /// As it was written.
    pub(super) fn written(&self) -> Written<'_> {
        let Group { number, claimed, orders, values } = self;
        Written { number: *number, claimed: *claimed, orders, values }
    }
}

/// One node.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) alive: bool,
    /// Counts lives.
    pub(super) life: u32,
    pub(super) incarnation: Incarnation,
    /// This incarnation and all before it are forgotten.
    pub(super) forgotten: Incarnation,
    /// In this life the disk lost what it had reported as stable, from this group on.
    pub(super) lied: Option<u64>,
    /// Groups of this life from there on, where their node takes them for stable.
    pub(super) doubtful: Vec<Group>,
    /// Its disk was harmed since recovery last found it whole: it may find damage.
    pub(super) harmed: bool,
    /// Its start could not read all that is there.
    pub(super) misread: bool,
    /// This life was told of an I/O error.
    pub(super) failed: bool,

    /// Predecessor and successor.
    pub(super) neighbours: [Option<NodeId>; 2],
    /// The ballot at which damage of this node ended last. Its quorum had never voted for what it
    /// did not report, so that nothing below it is chosen there, whatever the damage hid.
    pub(super) mended: Ballot,
    /// The promise in memory.
    pub(super) promised: Ballot,
    /// The promise and session in the superblock, and whose incarnation's they are.
    pub(super) stable_promised: Ballot,
    pub(super) stable_session: Session,
    /// The highest ballot at which this incarnation showed a vote, a 1A or a 1B.
    pub(super) shown: Ballot,
    /// The own vote, as published last in this life.
    pub(super) vote: Vote,
    /// By (incarnation, ballot), the highest positions published.
    pub(super) published: Vec<Vote>,

    /// The ballot of the last 1B of this life, and what it had to report, at least.
    pub(super) answer: (Ballot, Vec<(Instance, Ballot)>),

    pub(super) delivered: Instance,
    /// It went on from a state of this position last.
    pub(super) jumped: Instance,
    /// Position of the newest checkpoint that its superblock names.
    pub(super) checkpoint: Instance,
    /// In this life everything below was checked to be stable, or came from the log.
    pub(super) settled: Instance,
    /// What the log says of itself is delivered.
    pub(super) claimed: Instance,
    pub(super) counting: Counting,
    /// Position told to the control thread.
    pub(super) noticed: Instance,
    /// By topic, the offset of its next record; none before the first run of this life.
    pub(super) ends: BTreeMap<u32, u64>,

    pub(super) next_group: u64,
    pub(super) groups: Vec<Group>,
    pub(super) spare: Vec<Group>,
}

impl Node {
    /// True if the vote was published by this node, or less than it.
    pub(super) fn has_published(&self, vote: &Vote) -> bool {
        let of = |mine: &&Vote| mine.incarnation == vote.incarnation && mine.ballot == vote.ballot;
        self.published.iter().rev().find(of).is_some_and(|mine| {
            mine.received >= vote.received
                && mine.durable >= vote.durable
                && mine.delivered >= vote.delivered
                && mine.session >= vote.session
        })
    }

    /// Notes the vote as published.
    pub(super) fn publish(&mut self, vote: &Vote) {
        self.vote = *vote;
        let of =
            |mine: &&mut Vote| mine.incarnation == vote.incarnation && mine.ballot == vote.ballot;
        match self.published.iter_mut().rev().find(of) {
            Some(mine) => {
                mine.received = mine.received.max(vote.received);
                mine.durable = mine.durable.max(vote.durable);
                mine.delivered = mine.delivered.max(vote.delivered);
                mine.session = mine.session.max(vote.session);
            }
            None => self.published.push(*vote),
        }
    }

    /// The highest ballot below `ballot` at which this incarnation voted for anything.
    pub(super) fn voted_below(&self, ballot: Ballot) -> Ballot {
        let mine = self.published.iter().filter(|vote| {
            vote.incarnation == self.incarnation && vote.ballot < ballot && vote.durable.0 > 0
        });
        mine.map(|vote| vote.ballot).max().unwrap_or_default()
    }
}
