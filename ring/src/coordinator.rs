//! The coordinator: Phase 1, and ordering. Safety only; reads no timer.
//!
//! Phase 1 is counted per instance over answers *have*, *never had* and *unknown* (design,
//! "Ballots"). Invariants: only values held here are ordered; the whole inherited range and a
//! barrier come before anything new; of each origin exactly the next sequence is ordered, and no
//! value of a session before the closes of all lower ones.

use crate::actions::{Action, Actions, PromiseFrom};
use crate::codec::{ORDER_BYTES, order_at};
use crate::configuration::{Configuration, Step};
use crate::core::Core;
use crate::failover::bit;
use crate::ids::{
    Ballot, Entry, Incarnation, Instance, NODES_MAX, NodeId, Order, Session, ValueId,
};
use crate::liveness::FETCHES_MAX;
use crate::sequences::Sequences;
use crate::{mark, mutant};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Instances of a window that a coordinator leaves free for the barriers and closes of its
/// successors: 64 of 4096, a quarter of a tiny one.
fn margin(span: u64) -> u64 {
    (span / 4).min(64)
}

/// Room for actions that ordering leaves to what follows from it in the same step.
const ORDER_ROOM: usize = 16;

/// What a node is in its ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Accepts and learns.
    Follower,
    /// Gathers promises for its ballot.
    Candidate(Box<Campaign>),
    /// Owns the ballot in force.
    Coordinator(Box<Tip>),
}

/// What a coordinator knows of the end of its orders.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tip {
    /// The next instance to order.
    pub next: Instance,
    /// Where the ballot's barrier is.
    pub barrier: Instance,
    /// The table after the last order.
    pub table: Sequences,
    /// What Phase 1 found from the ballot's base to its barrier, proposed again first of all.
    inherited: Box<[Entry]>,
    /// Whose turn it is: index into the circle.
    turn: usize,
    /// The last change of the members that was ordered.
    pub(crate) change: Option<Instance>,
    /// The step that is to be ordered next.
    pub(crate) wanted: Option<Step>,
}

impl Tip {
    /// True if the inherited range and the barrier are ordered.
    pub(crate) fn inherited_done(&self) -> bool {
        self.next > self.barrier
    }
}

/// A campaign under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Campaign {
    /// By node, what it answered.
    answers: [Option<Answer>; NODES_MAX],
    /// By instance, the entry reported at the highest ballot.
    reports: BTreeMap<Instance, Report>,
    /// The 1As have been sent at least once.
    pub(crate) prepared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Answer {
    incarnation: Incarnation,
    before: Ballot,
    damaged: bool,
    first: Instance,
    delivered: Instance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Report {
    ballot: Ballot,
    entry: Entry,
    /// Bit per node that reported the instance at all.
    have: u8,
}

impl Core {
    /// Opens a campaign at a ballot above everything seen.
    pub(crate) fn campaign(&mut self, out: &mut Actions) {
        let seen = self.votes.iter().map(|vote| vote.ballot.round).max().unwrap_or(0);
        let round = self.promised.round.max(self.liveness.round_seen).max(seen);
        let round = round.checked_add(1).expect("no frame brings the last round");
        let incarnation = self.settings.incarnation;
        let ballot = Ballot { round, node: self.settings.me, incarnation };
        match self.role {
            Role::Follower => mark!(FollowerCampaigned),
            Role::Candidate(_) => mark!(CandidateCampaignedAgain),
            Role::Coordinator(_) => mark!(CoordinatorCampaignedAgain),
        }
        self.promise(ballot, out);
        self.role = Role::Candidate(Box::default());
        if self.is_voter() {
            self.answer_due = Some((ballot, self.appended));
        } else {
            mark!(ForgetfulCampaigned);
        }
        self.liveness.campaign_began();
    }

    /// Sends 1A to all others, once the ballot is durable at its owner.
    pub(crate) fn send_prepares(&mut self, out: &mut Actions) {
        let named = self.named();
        let Role::Candidate(campaign) = &mut self.role else { return };
        if self.promise_durable < self.promised {
            return;
        }
        if !core::mem::replace(&mut campaign.prepared, true) {
            // The own write is no time in which others could have answered.
            self.liveness.campaign_began();
        }
        for node in (1..=NODES_MAX as u8).map(NodeId) {
            let answered = campaign.answers[usize::from(node.0) - 1].is_some();
            let listed = named.iter().any(|named| named.nodes().any(|known| known == node));
            if listed && node != self.settings.me && !answered {
                out.push(Action::Prepare { to: node });
            }
        }
    }

    /// Every configuration that may govern what a candidate inherits: the one that it has
    /// delivered, and those that the changes reported to it lead to (pitfall 9).
    fn named(&self) -> Vec<Configuration> {
        let mut named = alloc::vec![self.configuration];
        let Role::Candidate(campaign) = &self.role else { return named };
        for (_, report) in campaign.reports.range(self.delivered..) {
            let last = named.last().expect("one at least");
            if let Entry::Membership(change) = report.entry
                && let Ok(after) = last.after(&change)
            {
                mark!(CandidateSawChange);
                named.push(after);
            }
        }
        named
    }

    /// The own answer, which has become durable.
    pub(crate) fn answer_self(&mut self) {
        let answer = Answer {
            incarnation: self.settings.incarnation,
            before: self.answer_before,
            damaged: self.is_damaged(),
            first: self.window.first(),
            delivered: self.delivered,
        };
        let (first, end) = (self.window.first(), self.window.end());
        let mine = (first.0..end.0).filter_map(|instance| self.window.get(Instance(instance)));
        let mine = mine.filter(|slot| self.has(slot)).map(|slot| slot.order);
        let me = self.settings.me;
        let orders: Vec<Order> = mine.collect();
        let Role::Candidate(campaign) = &mut self.role else { return };
        campaign.record(me, answer, orders.into_iter());
    }

    /// 1B of a voter.
    pub(crate) fn on_promise(&mut self, promise: &PromiseFrom<'_>, out: &mut Actions) {
        if promise.ballot != self.promised || !self.settings.nodes.contains(&promise.from) {
            mark!(PromiseOfAnotherBallot);
            return;
        }
        self.is_there(promise.from);
        let Role::Candidate(campaign) = &mut self.role else { return };
        let answer = Answer {
            incarnation: promise.incarnation,
            before: promise.before,
            damaged: promise.damaged,
            first: promise.first,
            delivered: promise.delivered,
        };
        let orders = promise.orders.chunks_exact(ORDER_BYTES);
        if !orders.remainder().is_empty() || orders.clone().any(|bytes| order_at(bytes).is_err()) {
            return; // not an answer; a whole one comes when asked again
        }
        let orders = orders.filter_map(|bytes| order_at(bytes).ok());
        let change = |order: Order| matches!(order.entry, Entry::Membership(_));
        let changes = orders.clone().any(change);
        campaign.record(promise.from, answer, orders);
        if changes {
            self.send_prepares(out); // to whom it names as well
        }
        self.complete_campaign(out);
    }

    /// Opens the ballot when every instance of the range is counted and every value at hand.
    pub(crate) fn complete_campaign(&mut self, out: &mut Actions) {
        let Role::Candidate(campaign) = &self.role else { return };
        let named = self.named();
        let answers = || campaign.answers.iter().flatten();
        // Above everything reported only undamaged memory counts as "never had".
        let undamaged = |answer: &Answer| !answer.damaged || mutant!(UnknownCounts);
        if !campaign.is_quorum(&named, |_, answer| undamaged(answer)) {
            if campaign.is_quorum(&named, |_, _| true) {
                mark!(UndamagedAnswersTooFew);
            }
            // Whoever was asked may be no voter any more.
            return self.learn_of_changes(out);
        }
        // Who answers a moment later than a quorum belongs into the circle as well.
        let awaited = |node: &NodeId| {
            campaign.answers[usize::from(node.0) - 1].is_none() && self.is_awaited(*node)
        };
        let mut awaited = self.settings.nodes.iter().copied().filter(awaited);
        let patient = self.liveness.campaign_ticks() < self.patience(awaited.clone());
        if patient && awaited.next().is_some() {
            mark!(CandidateWaitsForMore);
            return;
        }
        // What is decided at others is learned first: the base lies above it.
        let decided = answers().map(|answer| answer.delivered.max(answer.first)).max();
        let behind = decided.is_some_and(|decided| self.delivered < decided);
        if behind && !mutant!(CampaignWithoutCatchUp) {
            mark!(CandidateIsBehind);
            return self.want_catch_up(out);
        }
        let top = campaign.reports.keys().next_back().map_or(Instance(0), |last| last.next());
        let top = Instance(top.0 - u64::from(mutant!(RangeCutShort) && top.0 > 0));
        let range = self.delivered.0..top.0.max(self.delivered.0);
        let span = self.window.span();
        // All of a window may be inherited: each ballot that came to nothing left its barrier. But
        // there is room for one order at least: a ballot that proposes nothing is none.
        if range.end.max(range.start + 1) > self.settled.0 + span {
            mark!(CandidateLogIsBehind);
            return self.want_catch_up(out); // or the own log has to follow first
        }
        let counted = |instance| {
            campaign
                .is_quorum(&named, |node, answer| campaign.counts(Instance(instance), node, answer))
        };
        if !range.clone().all(counted) {
            return;
        }
        let missing = |instance| self.reported_missing(Instance(instance));
        let first = range.clone().filter_map(missing).next();
        if let Some(first) = first {
            mark!(CandidateFetches);
            if self.calls_for_value(first) {
                let fetches =
                    range.filter_map(|instance| self.reported_missing(Instance(instance)));
                fetches.take(FETCHES_MAX).for_each(|id| out.push(Action::Fetch(id)));
            }
            return;
        }
        self.open_ballot(Instance(range.end), out);
    }

    /// A candidate that too few answer learns first what is decided at those that do: they may
    /// have other voters by now.
    fn learn_of_changes(&mut self, out: &mut Actions) {
        let Role::Candidate(campaign) = &self.role else { return };
        let decided = campaign.answers.iter().flatten().map(|answer| answer.delivered).max();
        if decided.is_some_and(|decided| self.delivered < decided) {
            self.want_catch_up(out);
        }
    }

    /// The value reported for an instance, if it is not held here.
    fn reported_missing(&self, instance: Instance) -> Option<ValueId> {
        let Role::Candidate(campaign) = &self.role else { return None };
        match campaign.reports.get(&instance)?.entry {
            Entry::Value(id) if !self.table.is_past(&id) => {
                self.lanes.ticket(&id).is_none().then_some(id)
            }
            _ => None,
        }
    }

    fn open_ballot(&mut self, top: Instance, out: &mut Actions) {
        let role = core::mem::replace(&mut self.role, Role::Follower);
        let Role::Candidate(campaign) = role else { unreachable!("checked by the caller") };
        let base = self.delivered;
        let me = 1 << (usize::from(self.settings.me.0) - 1);
        let known = |report: &&Report| !mutant!(HolesFilledBlindly) || report.have & me != 0;
        let entry_of = |instance: u64| campaign.reports.get(&Instance(instance)).filter(known);
        match (base..top).is_empty() {
            true => mark!(BallotInheritsNothing),
            false if (base.0..top.0).all(|i| entry_of(i).is_some()) => mark!(BallotInherits),
            false => mark!(HoleFilledWithNoop),
        }
        let entries = (base.0..top.0).map(entry_of);
        let inherited = entries.map(|report| report.map_or(Entry::Noop, |report| report.entry));
        self.role = Role::Coordinator(Box::new(Tip {
            next: base,
            barrier: top,
            table: self.table.clone(),
            inherited: inherited.collect(),
            turn: 0,
            change: None,
            wanted: None,
        }));
        self.base = Some(base);
        self.start_counting(base);
        let answered = |node: NodeId| campaign.answers[usize::from(node.0) - 1].is_some();
        self.opened(answered, out);
        self.hears_of_barrier(self.promised, self.claim, top);
        self.order_inherited(out);
    }

    /// Orders the inherited range and its barrier, as far as there is room; true if it is done.
    fn order_inherited(&mut self, out: &mut Actions) -> bool {
        loop {
            let Role::Coordinator(tip) = &self.role else { return false };
            if tip.inherited_done() {
                return true;
            }
            if self.change_open() {
                mark!(InheritedChangeFirst);
                return false; // no re-proposal and no barrier behind an undecided change
            }
            if out.room() <= ORDER_ROOM {
                return false;
            }
            if tip.next.0 >= self.settled.0 + self.window.span() {
                mark!(InheritedFillsWindow);
                return false; // what is decided of it makes room
            }
            let index = tip.inherited.len() - (tip.barrier.0 - tip.next.0) as usize;
            let entry = tip.inherited.get(index).copied().unwrap_or(Entry::Barrier(self.promised));
            self.order(entry, out);
            if mutant!(NewBeforeInherited) {
                return false;
            }
        }
    }

    /// Orders what can be ordered: closes first, then of each origin in turn its next value.
    pub(crate) fn order_values(&mut self, out: &mut Actions) {
        let nodes = self.settings.nodes.len();
        let span = self.window.span();
        let limit = Instance(self.delivered_everywhere().0 + span - margin(span));
        let mut idle = 0;
        if !self.order_inherited(out) && !mutant!(NewBeforeInherited) {
            return; // nothing new before the end of what was inherited
        }
        self.order_change(limit, out);
        if self.change_open() {
            return; // nothing behind an undecided change
        }
        while idle < nodes && out.room() > ORDER_ROOM {
            let Role::Coordinator(tip) = &self.role else { return };
            if tip.next >= limit {
                mark!(OrdersHeldBack);
                return;
            }
            if let Some(position) = self.take_trim() {
                self.order(Entry::Trim(position), out);
                continue;
            }
            let Role::Coordinator(tip) = &mut self.role else { return };
            let node = self.settings.nodes[tip.turn % nodes];
            tip.turn = (tip.turn + 1) % nodes;
            match self.next_entry_of(node) {
                Some(entry) => {
                    self.order(entry, out);
                    idle = 0;
                }
                None => idle += 1,
            }
        }
    }

    /// Orders the change that is wanted, and the closes of who was removed.
    fn order_change(&mut self, limit: Instance, out: &mut Actions) {
        let Role::Coordinator(tip) = &self.role else { return };
        let any = tip.wanted.is_some() || self.to_close != 0;
        if !any || self.change_open() || tip.next >= limit || out.room() <= ORDER_ROOM {
            return;
        }
        if let Some(close) = self.removal_close() {
            return self.order(close, out);
        }
        if let Some(change) = self.take_wanted() {
            mark!(ChangeOrdered);
            self.order(change, out);
        }
    }

    fn next_entry_of(&self, node: NodeId) -> Option<Entry> {
        let Role::Coordinator(tip) = &self.role else { return None };
        let origin = tip.table.of(node)?;
        if let Some(below) = self.close_due(node)
            && origin.closed_below < below
        {
            mark!(CloseOrdered);
            return Some(Entry::Close { origin: node, below });
        }
        let session = self.lanes.of(node)?.session();
        let id = ValueId { origin: node, session, sequence: origin.next_of(session)? };
        self.lanes.ticket(&id).is_some().then_some(Entry::Value(id))
    }

    /// A node that shows a later session than its first has all lower ones closed.
    fn close_due(&self, node: NodeId) -> Option<Session> {
        let session = self.votes.of(node)?.session;
        (session > Session::FIRST).then_some(session)
    }

    fn order(&mut self, entry: Entry, out: &mut Actions) {
        let Role::Coordinator(tip) = &mut self.role else { unreachable!("only coordinators") };
        if let Entry::Membership(_) = entry {
            tip.change = Some(tip.next);
        }
        let base = self.base.expect("a coordinator has a base");
        let order =
            Order { instance: tip.next, ballot: self.promised, base, entry, decided: false };
        tip.next = tip.next.next();
        tip.table.apply(&entry);
        self.accept(order, out);
        assert!(self.window.holds_at(order.instance, order.ballot), "a coordinator has room");
    }
}

impl Campaign {
    /// True if this life of a node has answered.
    pub(crate) fn answered(&self, node: NodeId, life: Incarnation) -> bool {
        self.answer(node, life).is_some()
    }

    fn answer(&self, node: NodeId, life: Incarnation) -> Option<&Answer> {
        let answer = self.answers.get(usize::from(node.0).checked_sub(1)?)?.as_ref();
        answer.filter(|answer| answer.incarnation == life || mutant!(AmnesiacAnswers))
    }

    /// True if the answers that count are those of a quorum of each of these configurations.
    fn is_quorum(&self, named: &[Configuration], counts: impl Fn(NodeId, &Answer) -> bool) -> bool {
        let counts = |node, life| self.answer(node, life).filter(|answer| counts(node, answer));
        let extra = usize::from(mutant!(PromiseCountedTwice));
        let has = |node, life| counts(node, life).map(|_| ());
        named.iter().all(|named| named.reached(extra, has).is_some())
    }

    fn record(&mut self, from: NodeId, answer: Answer, orders: impl Iterator<Item = Order>) {
        let index = usize::from(from.0) - 1;
        self.answers[index] = Some(answer);
        for order in orders {
            let report = self.reports.entry(order.instance).or_insert(Report {
                ballot: order.ballot,
                entry: order.entry,
                have: 0,
            });
            report.have |= 1 << index;
            if order.ballot != report.ballot && order.entry != report.entry {
                mark!(ReportsDiffer);
            }
            let lower = mutant!(LowerReportWins) && order.ballot < report.ballot;
            if order.ballot > report.ballot && !mutant!(LowerReportWins) || lower {
                report.ballot = order.ballot;
                report.entry = order.entry;
            }
        }
    }

    /// True if a node's answer counts for an instance.
    fn counts(&self, instance: Instance, node: NodeId, answer: &Answer) -> bool {
        let report = self.reports.get(&instance);
        let have = report.is_some_and(|report| report.have & bit(node) != 0);
        // Nothing higher can hide in damage than what the node had promised.
        let bounded = report.is_some_and(|report| report.ballot >= answer.before);
        if answer.damaged && !have && bounded {
            mark!(UnknownBounded);
        }
        have || !answer.damaged || bounded || mutant!(UnknownCounts)
    }
}
