//! The core: one node's state in one ring, and the one door into it.
//!
//! `step(input, &mut actions)` and nothing else changes the state. Safety lives in `acceptor`,
//! `learner` and `coordinator`, liveness in `liveness`; the safety files read no timer.
//!
//! Invariants, asserted here and there:
//! * `promised` never falls; nothing below it is accepted.
//! * `durable <= received`; both count from the base of the ballot promised.
//! * `window.first <= settled <= delivered`.
//! * a claim taken in is of no higher ballot than the promise.
//! * the published vote is of a ballot whose promise is durable, and is frozen by a higher one.

use crate::actions::{Action, Actions, Input, STEP_ROOM};
use crate::configuration::Configuration;
use crate::coordinator::Role;
use crate::damage::Damage;
use crate::failover::Failover;
use crate::ids::{
    Ballot, Claim, Durability, Incarnation, Instance, NODES_MAX, NodeId, Order, Sequence, Session,
    ValueId,
};
use crate::lanes::{Lanes, Verdict, lane_packets};
use crate::layout::Layout;
use crate::liveness::Liveness;
use crate::ready::Ready;
use crate::sequences::Sequences;
use crate::votes::Votes;
use crate::window::{Slot, Window};
use crate::{mark, mutant};
use alloc::vec::Vec;

/// What a node is told once, at its start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The nodes that vote or learn, ascending, 1 to 7 of them: at first those of the first
    /// configuration, then as it changes.
    pub nodes: Vec<NodeId>,
    /// The incarnation under which each node of the first configuration votes, same order.
    pub voters: Vec<Incarnation>,
    /// This node.
    pub me: NodeId,
    /// Its incarnation. If it is not the one listed, the node has forgotten its votes: it
    /// answers no 1A and its votes count nowhere.
    pub incarnation: Incarnation,
    /// Its session.
    pub session: Session,
    /// When it votes.
    pub durability: Durability,
    /// Instances that are open at a time, the same at all nodes: a power of two from
    /// [`WINDOW_MIN`](crate::window::WINDOW_MIN) to [`WINDOW_MAX`](crate::window::WINDOW_MAX).
    pub window: u64,
    /// Tells this node's waits apart from all others'.
    pub seed: u64,
    /// Ticks for which a candidate that has a quorum waits for the answers of others.
    pub patience: u32,
}

impl Settings {
    /// The configuration that the log begins with; only as long as no core has changed `nodes`.
    pub fn first_configuration(&self) -> Configuration {
        Configuration::first(self.nodes.iter().copied().zip(self.voters.iter().copied()))
    }
}

/// What a node remembers at its start; `Recovered::default()` for a new one.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The highest promise.
    pub promised: Ballot,
    /// The highest claim.
    pub claim: Claim,
    /// Position delivered when replaying the log.
    pub delivered: Instance,
    /// The table at that position.
    pub table: Sequences,
    /// The configuration at that position; `None` if it is the first one.
    pub configuration: Option<Configuration>,
    /// The newest order of each instance from `delivered` on, ascending.
    pub orders: Vec<Order>,
    /// Values held that may still be delivered, ascending.
    pub values: Vec<ValueId>,
    /// Part of the log that could hold orders or values is damaged.
    pub damaged: bool,
}

/// One node's state in one ring.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Core {
    pub(crate) settings: Settings,
    pub(crate) promised: Ballot,
    pub(crate) promise_durable: Ballot,
    /// Base of the ballot promised, once an order of it came.
    pub(crate) base: Option<Instance>,
    pub(crate) received: Instance,
    pub(crate) durable: Instance,
    pub(crate) window: Window,
    pub(crate) lanes: Lanes,
    pub(crate) table: Sequences,
    pub(crate) configuration: Configuration,
    /// See [`crate::quorum`].
    pub(crate) pending: Option<(Instance, Configuration)>,
    /// Removed nodes whose last session is not closed yet: a bit a node.
    pub(crate) to_close: u8,
    pub(crate) delivered: Instance,
    /// Everything below is delivered and its orders and values are durable here.
    pub(crate) settled: Instance,
    pub(crate) claim: Claim,
    pub(crate) votes: Votes,
    pub(crate) votes_changed: bool,
    pub(crate) appended: u64,
    pub(crate) persisted: u64,
    pub(crate) role: Role,
    /// A 1B that waits for stable media: candidate's ballot, log ticket.
    pub(crate) answer_due: Option<(Ballot, u64)>,
    /// Nothing was ever accepted here above this ballot and below the one promised.
    pub(crate) answer_before: Ballot,
    pub(crate) damage: Option<Damage>,
    /// Where the own session's predecessors are closed; values may leave when all nodes have
    /// delivered that far.
    pub(crate) opened_at: Option<Instance>,
    /// Delivered: everything below may be let go.
    pub(crate) trimmed: Instance,
    /// What this node is to order as that, if it is the coordinator.
    pub(crate) trim_due: Instance,
    /// The circle, and the ballot that it is known to be of.
    pub(crate) layout: Layout,
    pub(crate) layout_ballot: Ballot,
    pub(crate) liveness: Liveness,
    pub(crate) failover: Failover,
    pub(crate) ready: Ready,
}

impl Core {
    /// A node at its start.
    ///
    /// # Panics
    /// If the settings name no node, or more than seven, or an impossible window.
    pub fn new(settings: Settings, recovered: Recovered) -> Core {
        assert!((1..=NODES_MAX).contains(&settings.nodes.len()));
        assert!(settings.nodes.is_sorted() && settings.voters.len() == settings.nodes.len());
        let first = || settings.first_configuration();
        let configuration = recovered.configuration.unwrap_or_else(first);
        let first_session = settings.session == Session::FIRST;
        let mut core = Core {
            promised: recovered.promised,
            promise_durable: recovered.promised,
            base: None,
            received: Instance(0),
            durable: Instance(0),
            window: Window::new(recovered.delivered, settings.window),
            lanes: Lanes::new(lane_packets(settings.window)),
            table: recovered.table,
            configuration,
            pending: None,
            to_close: 0,
            delivered: recovered.delivered,
            settled: recovered.delivered,
            claim: recovered.claim,
            votes: Votes::default(),
            votes_changed: true,
            appended: 0,
            persisted: 0,
            role: Role::Follower,
            answer_due: None,
            // What was promised before that is forgotten: anything up to it may hide in damage.
            answer_before: recovered.promised,
            damage: recovered.damaged.then(|| Damage::new(recovered.promised)),
            opened_at: (first_session || mutant!(SessionsOverlap)).then_some(Instance(0)),
            // Until a ballot says otherwise all are in it, in the order of their ids.
            layout: Layout::new(configuration.nodes()),
            layout_ballot: Ballot::ZERO,
            trimmed: Instance(0),
            trim_due: Instance(0),
            liveness: Liveness::default(),
            failover: Failover::default(),
            ready: Ready::default(),
            settings,
        };
        core.settings.nodes.reserve_exact(NODES_MAX);
        core.list_nodes();
        for order in &recovered.orders {
            if order.instance < core.window.end() && order.instance >= core.delivered {
                core.window.put(Slot { order: *order, ticket: 0 });
            } else {
                mark!(RecoveredOrderBeyondWindow);
            }
        }
        core.recover_lanes(&recovered.values);
        core.recover_votes();
        core.publish_vote();
        core
    }

    fn recover_lanes(&mut self, values: &[ValueId]) {
        for node in (1..=NODES_MAX as u8).map(NodeId) {
            let origin = *self.table.of(node).expect("an id that can be");
            let lane = self.lanes.of_mut(node).expect("an id that can be");
            if origin.session != Session::NONE && origin.session >= origin.closed_below {
                lane.open(origin.session, origin.next);
            }
        }
        for id in values {
            if self.table.is_past(id) {
                continue;
            }
            let Some(lane) = self.lanes.of_mut(id.origin) else { continue };
            if id.session > lane.session() {
                mark!(RecoveredLaterSession);
                lane.open(id.session, Sequence(0));
            }
            if id.session == lane.session() {
                if id.sequence > lane.next() {
                    mark!(RecoveredGapInLane);
                    lane.declare_missing(id.sequence);
                }
                if matches!(lane.judge(id.sequence), Verdict::Next | Verdict::Missing) {
                    lane.hold(id.sequence, 0);
                }
            }
        }
    }

    /// After a restart the vote goes on at the ballot promised, from what the log holds of it.
    fn recover_votes(&mut self) {
        let at_promise = self.window.get(self.delivered).filter(|_| self.promised > Ballot::ZERO);
        let base = at_promise.filter(|slot| slot.order.ballot == self.promised);
        if let Some(base) = base.map(|slot| slot.order.base) {
            mark!(RecoveredVoteGoesOn);
            self.base = Some(base);
            self.start_counting(base);
        }
        self.advance_received();
        self.advance_durable();
    }

    /// Takes one input and adds what is to be done to `out`.
    ///
    /// # Panics
    /// If `out` has less than [`STEP_ROOM`] left.
    pub fn step(&mut self, input: Input<'_>, out: &mut Actions) {
        assert!(out.room() >= STEP_ROOM);
        match input {
            Input::Tick => self.tick(out),
            Input::Deaf => self.on_deaf(),
            Input::Continue => {}
            Input::Campaign => self.campaign(out),
            Input::Value(id) => self.on_value(id, false, out),
            Input::Fetched(id) => self.on_value(id, true, out),
            Input::Missing { origin, session, to } => self.on_missing(origin, session, to, out),
            Input::Order(order) => self.on_order(order, out),
            Input::Vote(vote) => self.on_vote(&vote),
            Input::Claim(claim) => self.learn(claim, out),
            Input::Beat { ballot, beat } => self.on_beat(ballot, beat),
            Input::Persisted(ticket) => self.on_persisted(ticket),
            Input::Promised(ballot) => self.on_promised(ballot, out),
            Input::Prepare { ballot } => self.on_prepare(ballot, out),
            Input::Promise(promise) => self.on_promise(&promise, out),
            Input::Reject { promised } => self.on_reject(promised, out),
            Input::Open { ballot, layout, claim, barrier } => {
                self.on_open(ballot, layout, claim, out);
                self.hears_of_barrier(ballot, claim, barrier);
            }
            Input::Present { vote, hears, asks, damaged } => {
                self.on_present(&vote, hears, asks, out);
                self.hears_of_damage(vote.node, damaged);
            }
            Input::Missed { from, ballot, node } => self.on_missed(from, ballot, node, out),
            Input::Ask { from, ballot } => self.on_ask(from, ballot, out),
            Input::Lost { from, ballot } => self.on_lost(from, ballot, out),
            Input::Hint(node) => self.on_hint(node),
            Input::Decided { order, ballot } => self.on_decided(order, ballot, out),
            Input::Session(session) => self.on_session(session),
            Input::Trim { position, held } => self.on_trim(position, held),
            Input::Jump { claim, table, configuration } => {
                self.on_jump(claim, table, configuration, out);
            }
            Input::Change(step) => self.on_change(step),
        }
        self.settle(out);
    }

    /// What follows from any change, in the direction in which data flows: order, vote, decide,
    /// deliver.
    fn settle(&mut self, out: &mut Actions) {
        self.answer_if_durable(out);
        self.complete_campaign(out);
        self.order_values(out);
        self.advance_received();
        self.advance_durable();
        self.publish_vote();
        self.count_votes(out);
        self.deliver(out);
        self.advance_settled();
        self.publish_vote();
        self.settle_ready();
        self.mend(out);
    }

    /// A value lies in memory. One that was `fetched` was asked for: it may lie beyond what came on
    /// the link, for an order can name a value of which the ones before are nowhere.
    fn on_value(&mut self, id: ValueId, fetched: bool, out: &mut Actions) {
        let successor = self.successor();
        if !self.enter_session(id.origin, id.session) {
            return out.push(Action::Drop(id));
        }
        if fetched {
            // Whoever follows meets the same gap: it is told of it as on the link.
            self.on_missing(id.origin, id.session, id.sequence, out);
        }
        let ticket = self.appended + 1;
        let lane = self.lanes.of_mut(id.origin).expect("an origin with a session");
        let verdict = lane.judge(id.sequence);
        match verdict {
            Verdict::Next | Verdict::Missing => {
                lane.hold(id.sequence, ticket);
                self.appended = ticket;
                let next = verdict == Verdict::Next;
                if !next {
                    mark!(MissingValueCame);
                }
                let back = |node| node == id.origin && !mutant!(ForwardedToOrigin);
                let forward = next && successor.is_some_and(|node| !back(node));
                out.push(Action::Keep { id, forward });
            }
            Verdict::Known => {
                mark!(ValueKnownAlready);
                out.push(Action::Drop(id));
            }
            Verdict::Gap | Verdict::Overrun => {
                if verdict == Verdict::Gap {
                    mark!(LaneGap);
                } else {
                    mark!(LaneOverrun);
                }
                out.push(Action::Drop(id));
                if id.origin != self.settings.me && !fetched {
                    out.push(Action::ResetData);
                }
            }
        }
    }

    /// Brings the origin's lane to `session`; false if the session is over, or cannot be taken
    /// up yet.
    fn enter_session(&mut self, node: NodeId, session: Session) -> bool {
        let voter = self.is_acceptor();
        let Some(origin) = self.table.of(node).copied() else { return false };
        let Some(lane) = self.lanes.of_mut(node) else { return false };
        if session < lane.session() || session < origin.closed_below {
            mark!(SessionOver);
            return false;
        }
        if session > lane.session() {
            // What a voter holds of the session before may be what it voted for.
            if voter && lane.has_undelivered() && !mutant!(SessionsOverlap) {
                mark!(SessionHasToWait);
                self.liveness.values_refused = true;
                return false;
            }
            mark!(SessionTakenUp);
            let first = if origin.session == session { origin.next } else { Sequence(0) };
            lane.open(session, first);
        }
        true
    }

    fn on_missing(&mut self, node: NodeId, session: Session, to: Sequence, out: &mut Actions) {
        if !self.enter_session(node, session) {
            return;
        }
        let successor = self.successor();
        let lane = self.lanes.of_mut(node).expect("an origin with a session");
        if lane.session() == session && to > lane.next() {
            // What this node holds it may have voted for; it has to be delivered first.
            if !lane.can_declare(to) {
                mark!(DeclareHasToWait);
                self.liveness.values_refused = true;
                return;
            }
            mark!(DeclaredMissing);
            lane.declare_missing(to);
            if successor.is_some_and(|successor| successor != node) {
                mark!(DeclarationPassedOn);
                out.push(Action::Declare { origin: node, session, to });
            }
        }
    }

    /// Everything appended up to `ticket` is durable.
    fn on_persisted(&mut self, ticket: u64) {
        assert!(ticket <= self.appended, "persisted {ticket} of {}", self.appended);
        self.persisted = self.persisted.max(ticket);
    }

    /// The node after this one in the circle; `None` if it is alone, or outside.
    pub fn successor(&self) -> Option<NodeId> {
        self.layout.successor(self.settings.me)
    }

    /// The node before this one in the circle; `None` if it is alone, or outside.
    pub fn predecessor(&self) -> Option<NodeId> {
        self.layout.predecessor(self.settings.me)
    }

    /// Position that every node of the circle has delivered, as far as is known here. Who is
    /// outside catches up, and holds nobody back.
    pub fn delivered_everywhere(&self) -> Instance {
        let of = |node: &NodeId| self.votes.of(*node).map_or(Instance(0), |vote| vote.delivered);
        let nodes =
            if mutant!(OutsideHoldsBack) { &self.settings.nodes[..] } else { self.layout.nodes() };
        nodes.iter().map(of).min().unwrap_or_default()
    }

    /// The ballot promised, which is the one in force here.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// Position of contiguous orders at the ballot in force.
    pub fn received(&self) -> Instance {
        self.received
    }

    /// Position voted for at the ballot in force.
    pub fn durable(&self) -> Instance {
        self.durable
    }

    /// The highest claim known.
    pub fn claim(&self) -> Claim {
        self.claim
    }

    /// The claim that an order block of the log carries, when the log up to and with it holds
    /// everything to `ticket`: true for everybody as any claim is. For this log it says more: up
    /// to and with this block, the newest order of each instance below the position is the
    /// decided one, at whatever ballot it lies there. `from` is what a block before it said.
    ///
    /// Recovery has to use that. Read as a mere claim, the highest one does not authorise what
    /// was delivered before its ballot's base and lies in the log at lower ballots: recovery would
    /// stop there, values of closed sessions would come alive again beside those of the next, and
    /// the node would answer *never had* for what it had voted for. Behind damage an older order
    /// may have become the newest one left; there the claim is a mere claim.
    pub fn claim_to_log(&self, from: Instance, ticket: u64) -> Claim {
        if mutant!(ClaimAheadOfLog) {
            return Claim { ballot: self.claim.ballot, position: self.delivered };
        }
        // In async durability the window moves on ahead of the log.
        let past_logged = self.window.let_go() <= ticket;
        let mut position = if past_logged { from.max(self.window.first()) } else { from };
        let logged = |at| self.window.get(at).is_some_and(|slot| slot.ticket <= ticket);
        while position < self.delivered && logged(position) {
            position = position.next();
        }
        Claim { ballot: self.claim.ballot, position }
    }
}
