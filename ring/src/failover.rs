//! Failover: who is missed, who campaigns when, and which nodes a ballot's circle has.
//!
//! Nothing here decides what is safe: any node may campaign at any time, and whatever the circle,
//! votes are counted over the configuration. Time comes as ticks of ten milliseconds.
//!
//! A node watches two others: the coordinator, whose signs of life go round the circle, and its
//! predecessor, by the frames of the control link. A silence is judged by the longest pause heard
//! lately; a broken connection shortens what is left of it. Who misses its predecessor tells the
//! coordinator, which opens a ballot without it; who misses the coordinator asks the others, in the
//! order of the circle, and campaigns once a quorum misses it too. Who is outside the circle says
//! so to all, learns by catch-up, and comes back at the tail with a ballot of its own.

use crate::actions::{Action, Actions};
use crate::coordinator::Role;
use crate::core::Core;
use crate::dead_links::DeadLinks;
use crate::ids::{Ballot, Claim, NODES_MAX, NodeId};
use crate::layout::Layout;
use crate::mark;
use crate::pace::Pace;
use crate::votes::Vote;
use crate::watch::{CANDIDATE_TICKS, NEW_TICKS, SILENCE_MAX, Watch};

/// Ticks between signs of life, of a coordinator and of each neighbour.
pub(crate) const BEAT_TICKS: u64 = 2;
/// Ticks between words to those whom no link reaches, and between repeated complaints.
const TELL_TICKS: u64 = 5;
/// Ticks by which each place in the circle asks later than the one before it.
const STAGGER_TICKS: u32 = 3;
/// Ticks by which who is not next to the coordinator asks later.
const LATER_TICKS: u32 = 10;
/// Ticks for which who resigned leaves the office to others.
const RESIGNED_TICKS: u32 = 50;
/// Doublings of the wait between attempts, most.
const ATTEMPTS_MAX: u32 = 2;
/// Who said something within so many ticks is there.
const PRESENT_TICKS: u64 = 20;
/// Ticks until a node that was left out may come back, the first time; doubled each time.
const RETURN_TICKS: u64 = 10;
/// Ticks after which one time less is remembered.
const FORGET_TICKS: u64 = 6000;
/// Doublings of that, most.
const RETURNS_MAX: u32 = 5;

/// Whom a node misses, and whom it knows to be there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failover {
    coordinator: Watch,
    pub(crate) predecessor: Watch,
    /// Ticks since the start.
    pub(crate) ticks: u64,
    /// Nothing was taken in since the last tick: silence says nothing.
    deaf: bool,
    /// Who said that it has lost the coordinator too: a bit a node.
    lost: u8,
    /// Who asked while the coordinator was still heard here: a bit a node.
    asked: u8,
    /// When to ask next, in ticks of silence; how often it was asked.
    asks_at: u32,
    attempts: u32,
    /// The tick from which on another ballot may be opened here of the own will.
    pub(crate) may_open: u64,
    /// Somebody has promised more than that ballot.
    pub(crate) above: bool,
    /// By node, the tick at which it counts as gone if it says nothing directly.
    gone: [u64; NODES_MAX],
    /// Nodes that are missed: nobody waits for them. A bit a node.
    missed: u8,
    /// Nodes that said they do not hear this one. A bit a node.
    deaf_ones: u8,
    /// By node, the tick from which on it may come back, and how often it was left out.
    returns: [(u64, u32); NODES_MAX],
    pub(crate) dead_links: DeadLinks,
    pub(crate) pace: Pace,
}

impl Default for Failover {
    fn default() -> Failover {
        Failover {
            // A node that starts has heard nobody.
            coordinator: Watch::silent(),
            predecessor: Watch::default(),
            ticks: 0,
            deaf: false,
            lost: 0,
            asked: 0,
            asks_at: 0,
            attempts: 0,
            may_open: 0,
            above: false,
            gone: [0; NODES_MAX],
            missed: 0,
            deaf_ones: 0,
            returns: Default::default(),
            dead_links: Default::default(),
            pace: Pace::default(),
        }
    }
}

pub(crate) fn index(node: NodeId) -> usize {
    usize::from(node.0) - 1
}

pub(crate) fn bit(node: NodeId) -> u8 {
    1 << index(node)
}

impl Failover {
    /// True if what others say was taken in.
    fn tick(&mut self) -> bool {
        self.ticks += 1;
        let deaf = core::mem::take(&mut self.deaf);
        if deaf {
            // What was not listened to has said nothing of who is there.
            self.gone.iter_mut().for_each(|gone| *gone += 1);
        } else {
            self.coordinator.tick();
            self.predecessor.tick();
        }
        if self.ticks.is_multiple_of(FORGET_TICKS) {
            self.returns.iter_mut().for_each(|(_, times)| *times = times.saturating_sub(1));
        }
        !deaf
    }

    pub(crate) fn is_there(&self, node: NodeId) -> bool {
        self.ticks < self.gone[index(node)]
    }

    /// True if the node said something directly not long ago: it may be waiting for its log.
    pub(crate) fn was_there(&self, node: NodeId) -> bool {
        self.ticks < self.gone[index(node)] + u64::from(SILENCE_MAX)
    }

    /// Nobody waits for the node, and it waits before it comes back.
    pub(crate) fn leave_out(&mut self, node: NodeId) {
        self.missed |= bit(node);
        let (until, times) = &mut self.returns[index(node)];
        *until = self.ticks + (RETURN_TICKS << *times);
        *times = (*times + 1).min(RETURNS_MAX);
    }

    /// True while a node that was left out may not come back yet.
    pub(crate) fn waits(&self, node: NodeId) -> bool {
        self.ticks < self.returns[index(node)].0
    }

    /// True if a coordinator may open another ballot of its own will.
    pub(crate) fn may_open(&self) -> bool {
        self.ticks >= self.may_open
    }

    /// True if nobody waits for the node.
    pub(crate) fn is_missed(&self, node: NodeId) -> bool {
        self.missed & bit(node) != 0
    }

    /// True if the node is there, and hears this one.
    pub(crate) fn answers(&self, node: NodeId) -> bool {
        self.is_there(node) && self.deaf_ones & bit(node) == 0
    }

    pub(crate) fn carries(&self, from: NodeId, to: NodeId) -> bool {
        self.dead_links.carries(from, to, self.ticks)
    }
}

impl Core {
    /// True if the coordinator is heard, as far as this node can tell.
    pub(crate) fn hears_coordinator(&self) -> bool {
        !self.failover.coordinator.is_lost()
    }

    pub(crate) fn heard_coordinator(&mut self) {
        self.failover.coordinator.heard();
        (self.failover.asks_at, self.failover.attempts) = (0, 0);
        (self.failover.lost, self.failover.asked) = (0, 0);
    }

    /// A higher ballot is promised: its owner has yet to show that it is there.
    pub(crate) fn awaits_coordinator(&mut self) {
        self.failover.coordinator.begin(CANDIDATE_TICKS);
        (self.failover.asks_at, self.failover.attempts) = (0, 0);
        (self.failover.lost, self.failover.asked) = (0, 0);
    }

    /// Something came on the control link.
    pub(crate) fn heard_predecessor(&mut self) {
        self.failover.predecessor.heard();
    }

    /// Nothing was taken in since the last tick, for want of room.
    pub(crate) fn on_deaf(&mut self) {
        mark!(DeafForATick);
        self.failover.deaf = true;
    }

    /// A connection to this node broke: a hint, no more.
    pub(crate) fn on_hint(&mut self, node: NodeId) {
        if node == self.settings.me {
            return;
        }
        if node == self.promised.node {
            mark!(CoordinatorHinted);
            self.failover.coordinator.hint();
        }
        if self.layout.predecessor(self.settings.me) == Some(node) {
            self.failover.predecessor.hint();
        }
    }

    /// A node said something directly: it is there.
    pub(crate) fn is_there(&mut self, node: NodeId) {
        if self.settings.nodes.contains(&node) {
            self.failover.gone[index(node)] = self.failover.ticks + PRESENT_TICKS;
            self.failover.missed &= !bit(node);
        }
    }

    /// True if this node is in the circle of the ballot in force.
    pub fn is_in_circle(&self) -> bool {
        let known = self.promised > Ballot::ZERO && self.layout_ballot == self.promised;
        known && self.layout.contains(self.settings.me)
    }

    /// The circle as this node knows it.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A tick: signs of life, and what follows from those that are missed.
    pub(crate) fn watch(&mut self, out: &mut Actions) {
        if self.failover.tick() {
            self.keep_pace();
        }
        let tell = self.failover.ticks.is_multiple_of(TELL_TICKS);
        if self.failover.ticks.is_multiple_of(BEAT_TICKS) {
            // To the successor: it watches this node.
            self.votes_changed = true;
        }
        match self.role {
            Role::Coordinator(_) => self.watch_circle(tell, out),
            Role::Candidate(_) => {}
            Role::Follower => {
                self.miss_predecessor(tell, out);
                if tell && !self.is_in_circle() && !self.is_removed() {
                    mark!(OutsideTheCircle);
                    self.tell_others(|to| Action::Present { to, asks: true }, out);
                }
                self.miss_coordinator(out);
            }
        }
    }

    pub(crate) fn tell_others(&self, tell: impl Fn(NodeId) -> Action, out: &mut Actions) {
        let others = self.settings.nodes.iter().filter(|node| **node != self.settings.me);
        others.for_each(|node| out.push(tell(*node)));
    }

    fn miss_predecessor(&mut self, tell: bool, out: &mut Actions) {
        let predecessor = self.layout.predecessor(self.settings.me);
        let Some(node) = predecessor.filter(|_| self.is_in_circle() && tell) else { return };
        if self.failover.predecessor.is_lost() {
            mark!(PredecessorMissed);
            out.push(Action::Missed { to: self.promised.node, node });
        }
    }

    /// Who misses the coordinator asks whether others do, in the order of the circle.
    fn miss_coordinator(&mut self, out: &mut Actions) {
        if !self.failover.coordinator.is_lost() {
            return;
        }
        // Who asked too early is not made to ask again.
        let asked = core::mem::take(&mut self.failover.asked);
        for node in self.settings.nodes.iter().filter(|node| asked & bit(**node) != 0) {
            out.push(Action::Lost { to: *node, ballot: self.promised });
        }
        if !self.is_voter() {
            return;
        }
        let place = self.place_behind_coordinator();
        let coordinator = self.promised.node;
        let apart = coordinator != self.settings.me && self.layout.contains(coordinator);
        let apart = apart && self.layout.successor(coordinator) != Some(self.settings.me);
        let failover = &mut self.failover;
        let silence = failover.coordinator.silence;
        if failover.asks_at == 0 {
            // Its signs of life may also be lost behind another node: that one is left out first.
            let later = if apart { LATER_TICKS } else { 0 };
            failover.asks_at = silence.max(1) + later + STAGGER_TICKS * place;
        }
        if silence < failover.asks_at {
            return;
        }
        let wait = (STAGGER_TICKS * (1 + place)) << failover.attempts;
        failover.asks_at = silence + wait + jitter(self.settings.seed, failover.ticks) % wait;
        failover.attempts = (failover.attempts + 1).min(ATTEMPTS_MAX);
        failover.lost = bit(self.settings.me);
        mark!(AsksForCoordinator);
        self.tell_others(|to| Action::Ask { to }, out);
        self.campaign_if_lost(out);
    }

    /// A coordinator that holds the others up makes room for another one.
    pub(crate) fn resign(&mut self, out: &mut Actions) {
        mark!(CoordinatorResigned);
        self.role = Role::Follower;
        self.failover.pace.forget(index(self.settings.me));
        self.failover.coordinator.give_up();
        self.failover.asks_at = SILENCE_MAX + RESIGNED_TICKS;
        self.tell_others(|to| Action::Ask { to }, out);
    }

    /// How many nodes of the circle come before this one, behind the coordinator that is missed.
    fn place_behind_coordinator(&self) -> u32 {
        let circle = self.layout.from(self.promised.node);
        let place = circle.place(self.settings.me).unwrap_or(NODES_MAX);
        place.saturating_sub(usize::from(circle.contains(self.promised.node))) as u32
    }

    /// A candidate that reaches no quorum asks again before it raises anything.
    pub(crate) fn give_up_campaign(&mut self) {
        mark!(CandidateReachesTooFew);
        self.role = Role::Follower;
        self.answer_due = None;
        self.failover.coordinator.give_up();
        self.failover.asks_at = 0;
    }

    fn campaign_if_lost(&mut self, out: &mut Actions) {
        let lost = self.failover.lost;
        let misses = |node, _| lost & bit(node) != 0;
        if self.is_quorum(misses) && matches!(self.role, Role::Follower) {
            mark!(CoordinatorMissedByQuorum);
            self.failover.lost = 0;
            let coordinator = self.promised.node;
            if self.settings.nodes.contains(&coordinator) && coordinator != self.settings.me {
                self.failover.leave_out(coordinator);
            }
            self.campaign(out);
        }
    }

    /// Somebody misses the coordinator of `ballot` and asks whether this node does.
    pub(crate) fn on_ask(&mut self, from: NodeId, ballot: Ballot, out: &mut Actions) {
        self.is_there(from);
        match &self.role {
            Role::Coordinator(_) => out.push(Action::Open { to: from }),
            // It is at work: waiting for answers, fetching, catching up.
            Role::Candidate(campaign) if campaign.prepared => {
                mark!(CandidateAnswersAsk);
                out.push(Action::Prepare { to: from });
            }
            Role::Follower if !self.hears_coordinator() => {
                out.push(Action::Lost { to: from, ballot })
            }
            Role::Follower if from == ballot.node && ballot == self.promised => {
                mark!(CoordinatorGaveUp);
                self.failover.coordinator.give_up();
                out.push(Action::Lost { to: from, ballot });
            }
            Role::Follower if self.settings.nodes.contains(&from) => {
                mark!(AskedWhileHearing);
                self.failover.asked |= bit(from);
            }
            _ => {}
        }
    }

    /// The 1A of the ballot promised came again. Behind a question of this node it is the answer;
    /// else it says nothing: a candidate that hears nobody goes on asking, too.
    pub(crate) fn prepared_again(&mut self) {
        if self.failover.lost != 0 {
            self.heard_coordinator();
        }
    }

    /// Another node misses the coordinator too.
    pub(crate) fn on_lost(&mut self, from: NodeId, ballot: Ballot, out: &mut Actions) {
        self.is_there(from);
        let listed = self.settings.nodes.contains(&from);
        if listed && ballot == self.promised && !self.hears_coordinator() && self.failover.lost != 0
        {
            self.failover.lost |= bit(from);
            self.campaign_if_lost(out);
        }
    }

    /// A node outside the circle, or one that does not know it, says what it has, and whom it
    /// hears; or one of the circle answers that it hears that.
    pub(crate) fn on_present(&mut self, vote: &Vote, hears: u8, asks: bool, out: &mut Actions) {
        let (from, me) = (vote.node, self.settings.me);
        if from == me || !self.settings.nodes.contains(&from) {
            return;
        }
        self.is_there(from);
        // Who is deaf would not answer a 1A.
        self.failover.deaf_ones &= !bit(from);
        self.failover.deaf_ones |= if hears & bit(me) == 0 { bit(from) } else { 0 };
        self.on_vote(vote);
        if matches!(self.role, Role::Coordinator(_)) {
            out.push(Action::Open { to: from });
        } else if asks {
            out.push(Action::Present { to: from, asks: false });
        }
    }

    /// A node of the circle has started with a damaged log, sooner than it was missed. What hides
    /// in the damage is known once it has voted through the barrier of another ballot.
    pub(crate) fn hears_of_damage(&mut self, node: NodeId, damaged: bool) {
        if damaged && matches!(self.role, Role::Coordinator(_)) && self.layout.contains(node) {
            mark!(BallotForDamaged);
            self.failover.above = true;
        }
    }

    /// The nodes that this one heard directly of late: a bit a node.
    pub fn hears(&self) -> u8 {
        let heard = self.settings.nodes.iter().filter(|node| self.failover.is_there(**node));
        heard.fold(0, |all, node| all | bit(*node))
    }

    /// The coordinator's word: its ballot is open, with this circle.
    pub(crate) fn on_open(
        &mut self,
        ballot: Ballot,
        layout: Layout,
        claim: Claim,
        out: &mut Actions,
    ) {
        if ballot < self.promised {
            mark!(OpenBelowPromise);
            return self.reject(ballot, out);
        }
        if ballot > self.promised {
            mark!(OpenRaisedPromise);
            self.promise(ballot, out);
        }
        self.is_there(ballot.node);
        self.heard_coordinator();
        if self.layout_ballot != ballot {
            // Its signs of life go round the circle, once the links of that are made.
            self.failover.coordinator.begin(NEW_TICKS);
        }
        self.enter(layout, out);
        self.learn(claim, out);
    }

    /// The circle of the ballot promised is known.
    pub(crate) fn enter(&mut self, layout: Layout, out: &mut Actions) {
        if self.layout_ballot != self.promised {
            self.layout_ballot = self.promised;
            self.layout = layout;
            // The new neighbour has the time to call.
            self.failover.predecessor.begin(NEW_TICKS);
            self.failover.pace.begin();
            out.push(Action::Relink);
        }
    }

    /// Somebody promised more than the own ballot. A coordinator opens one above it at once, but
    /// for somebody who just did the same; a candidate gives way.
    pub(crate) fn on_reject(&mut self, promised: Ballot, out: &mut Actions) {
        self.liveness.round_seen = self.liveness.round_seen.max(promised.round);
        if promised <= self.promised {
            return;
        }
        match self.role {
            Role::Follower => {}
            Role::Coordinator(_) if self.failover.may_open() => {
                mark!(BallotAbove);
                self.campaign(out);
            }
            // It goes on, and opens one above as soon as that is due.
            Role::Coordinator(_) => self.failover.above = true,
            Role::Candidate(_) => {
                mark!(GaveWay);
                self.role = Role::Follower;
                self.answer_due = None;
                self.failover.coordinator.silence = 0;
            }
        }
    }
}

/// SplitMix64 of both.
fn jitter(seed: u64, ticks: u64) -> u32 {
    let mut z = seed.wrapping_add(ticks).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32
}
