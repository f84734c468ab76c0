//! Liveness: repeated questions, fetching. Nothing here decides what is safe.
//!
//! Time comes as ticks of ten milliseconds. Who campaigns, and when, is [`crate::failover`]'s.

use crate::actions::{Action, Actions};
use crate::coordinator::Role;
use crate::core::Core;
use crate::failover::BEAT_TICKS;
use crate::ids::{Ballot, Entry, Instance, NODES_MAX, NodeId, Sequence, Session, ValueId};
use crate::mark;

/// Ticks a second.
pub const TICKS_PER_SECOND: u32 = 100;
/// Ticks between the repetitions of 1A.
const PREPARE_TICKS: u32 = 10;
/// Ticks that a value may take longer than its order before it is fetched: orders overtake
/// values by milliseconds.
const FETCH_TICKS: u32 = 5;
/// Values called for at a time.
pub(crate) const FETCHES_MAX: usize = 32;
/// Ticks between repeated calls for the same missing thing.
const REPEAT_TICKS: u32 = 25;
/// Ticks for which orders may be missing below a claim before the link is reset.
const RESET_TICKS: u32 = 40;
/// Ticks after which a candidate that reaches no quorum gives up.
const CAMPAIGN_TICKS: u32 = 50;
/// Ticks without progress, with something undecided, after which a coordinator opens a new
/// ballot.
const STUCK_TICKS: u32 = 500;

/// Ticks for which a value may be held and not delivered, though a coordinator is heard, until the
/// successor is asked again what it holds.
const HELD_TICKS: u32 = 300;

/// Timers and what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Liveness {
    /// Ticks since the campaign began.
    campaign: u32,
    /// Highest round that anybody named.
    pub(crate) round_seen: u32,
    /// A 1A or order was rejected since the last tick.
    pub(crate) rejected: bool,
    /// Something was delivered since the last tick.
    pub(crate) progress: bool,
    /// Ticks since something was delivered.
    still: u32,
    /// Orders came that the window could not take.
    pub(crate) orders_lost: bool,
    /// Values came of a session that could not be taken up yet.
    pub(crate) values_refused: bool,
    /// What was called for last, and ticks since.
    called: Option<Call>,
    called_ticks: u32,
    /// Ticks for which a value that would be ordered next has been missing.
    waits: u32,
    /// Highest sign of life heard.
    beat_ballot: Ballot,
    beat: u64,
    beat_ticks: u32,
    held: [Held; NODES_MAX],
}

/// How long an origin's first undelivered value has been held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Held {
    session: Session,
    first: Sequence,
    ticks: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Call {
    Value(ValueId),
    Entries(Instance),
}

impl Liveness {
    /// Ticks for which the campaign is under way.
    pub(crate) fn campaign_ticks(&self) -> u32 {
        self.campaign
    }

    pub(crate) fn campaign_began(&mut self) {
        self.campaign = 0;
    }
}

impl Core {
    /// Ten milliseconds have passed.
    pub(crate) fn tick(&mut self, out: &mut Actions) {
        let liveness = &mut self.liveness;
        liveness.rejected = false;
        liveness.campaign += 1;
        liveness.called_ticks += 1;
        liveness.beat_ticks += 1;
        liveness.still += 1;
        if core::mem::take(&mut liveness.progress) || self.delivered >= self.open_end() {
            self.liveness.still = 0;
        }
        self.beat();
        self.keep_campaigning(out);
        self.campaign_again(out);
        self.watch(out);
        self.repair(out);
        self.call_for_next(out);
        self.resend_held(out);
        self.change_further(out);
    }

    /// End of what is open here: ordered or claimed.
    fn open_end(&self) -> Instance {
        self.received.max(self.claim.position)
    }

    fn beat(&mut self) {
        let due = u64::from(self.liveness.beat_ticks) >= BEAT_TICKS;
        if due && matches!(self.role, Role::Coordinator(_)) {
            self.liveness.beat_ticks = 0;
            self.liveness.beat_ballot = self.promised;
            self.liveness.beat += 1;
            self.votes_changed = true;
        }
    }

    fn keep_campaigning(&mut self, out: &mut Actions) {
        let due = self.liveness.campaign.is_multiple_of(PREPARE_TICKS);
        if matches!(self.role, Role::Candidate(_)) && due {
            mark!(PreparesRepeated);
            self.send_prepares(out);
        }
    }

    fn campaign_again(&mut self, out: &mut Actions) {
        let alone = || self.is_quorum(|node, _| node == self.settings.me);
        match &self.role {
            // It waits for its own log, and another ballot would wait for it too.
            Role::Candidate(_) | Role::Coordinator(_) if alone() => return,
            Role::Coordinator(_) if self.liveness.still >= STUCK_TICKS => mark!(CoordinatorStuck),
            Role::Candidate(campaign)
                if self.liveness.campaign >= CAMPAIGN_TICKS
                    && !self.is_quorum(|node, life| {
                        let here = node == self.settings.me || self.failover.was_there(node);
                        here || campaign.answered(node, life)
                    }) =>
            {
                return self.give_up_campaign();
            }
            // What was reported may have gone for ever since: ask again.
            Role::Candidate(_) if self.liveness.campaign >= STUCK_TICKS => mark!(CandidateStuck),
            _ => return,
        }
        self.liveness.still = 0;
        self.campaign(out);
    }

    /// Calls for what holds delivery up.
    fn repair(&mut self, out: &mut Actions) {
        let behind = self.delivered < self.claim.position;
        if core::mem::take(&mut self.liveness.values_refused) {
            // Nothing else would bring them again: their origin may be waiting for them.
            mark!(DataResetForSession);
            out.push(Action::ResetData);
        }
        if self.liveness.still >= RESET_TICKS && self.liveness.orders_lost {
            mark!(ControlResetForOrders);
            self.liveness.orders_lost = false;
            out.push(Action::ResetControl);
        }
        if self.liveness.still < FETCH_TICKS {
            return;
        }
        // Values help only where the next entry is known; and what everybody else has delivered
        // comes with its entry, whatever became of its session here. No link brings own values
        // of a life before, and there may be many.
        let own = self.missing_values().next().is_some_and(|id| id.origin == self.settings.me);
        let patient = self.liveness.still < RESET_TICKS;
        let entries = behind && (own || !self.knows_next() || !patient);
        let first = self.missing_values().next().filter(|_| !entries);
        if let Some(first) = first {
            // A candidate calls for what was reported to it.
            if !matches!(self.role, Role::Candidate(_)) && self.calls_for_value(first) {
                mark!(OrderedValuesFetched);
                self.missing_values().take(FETCHES_MAX).for_each(|id| out.push(Action::Fetch(id)));
            }
        } else if behind {
            // The order itself is missing, or of a ballot that the claim does not authorise.
            let reproposed = self.base.is_some_and(|base| self.delivered >= base);
            let patience = if reproposed && !own { RESET_TICKS } else { FETCH_TICKS };
            if self.liveness.still >= patience {
                self.want_catch_up(out);
            }
        }
    }

    /// True if the entry that is delivered next is held and its decision is known.
    fn knows_next(&self) -> bool {
        let slot = self.window.get(self.delivered);
        slot.is_some_and(|slot| slot.order.decided || slot.order.ballot >= self.claim.ballot)
    }

    /// A coordinator calls for the values that it would order next and that its predecessor
    /// declared missing: no order names them yet, so nobody else will.
    fn call_for_next(&mut self, out: &mut Actions) {
        let waits = self.values_to_order().next().is_some();
        let ticks = if waits { self.liveness.waits % REPEAT_TICKS + 1 } else { 0 };
        self.liveness.waits = ticks;
        if ticks == FETCH_TICKS {
            mark!(NextValuesFetched);
            let values = self.values_to_order().take(FETCHES_MAX);
            values.for_each(|id| out.push(Action::Fetch(id)));
        }
    }

    /// A value that is held for long, and that a coordinator at work does not order, may have been
    /// lost behind this node with nothing after it that would show the gap.
    fn resend_held(&mut self, out: &mut Actions) {
        let mut lost = false;
        for (node, held) in self.settings.nodes.iter().zip(&mut self.liveness.held) {
            let lane = self.lanes.of(*node).expect("an id that can be");
            let (session, first) = (lane.session(), lane.first());
            let same = (held.session, held.first) == (session, first) && lane.has_undelivered();
            let ticks = if same { held.ticks + 1 } else { 0 };
            lost |= ticks >= HELD_TICKS;
            *held = Held { session, first, ticks };
        }
        let follows = matches!(self.role, Role::Follower) && self.hears_coordinator();
        if lost && follows && self.successor().is_some() {
            mark!(HeldValuesResent);
            self.liveness.held = Default::default();
            out.push(Action::Resend);
        }
    }

    fn values_to_order(&self) -> impl Iterator<Item = ValueId> {
        self.settings.nodes.iter().flat_map(|node| self.missing_of(*node))
    }

    /// Of one origin: what is missing behind the last value ordered, if that is the next one.
    fn missing_of(&self, origin: NodeId) -> impl Iterator<Item = ValueId> {
        let lane = self.lanes.of(origin).expect("an id that can be");
        let session = lane.session();
        let next = match &self.role {
            Role::Coordinator(tip) => tip.table.of(origin).and_then(|known| known.next_of(session)),
            _ => None,
        };
        let from = next.filter(|next| lane.ticket(*next).is_none()).unwrap_or(lane.next());
        let missing = move |sequence: &Sequence| lane.ticket(*sequence).is_none();
        let missing = (from.0..lane.next().0).map(Sequence).filter(missing);
        missing.map(move |sequence| ValueId { origin, session, sequence })
    }

    /// The ordered values, decided or not, that did not come.
    fn missing_values(&self) -> impl Iterator<Item = ValueId> {
        let range = self.delivered.0..self.received.0.max(self.claim.position.0);
        let slots = range.filter_map(|instance| self.window.get(Instance(instance)));
        slots.filter_map(|slot| match slot.order.entry {
            Entry::Value(id) if !self.table.is_past(&id) => {
                self.lanes.ticket(&id).is_none().then_some(id)
            }
            _ => None,
        })
    }

    /// True if it is time to call for the values from this one on.
    pub(crate) fn calls_for_value(&mut self, first: ValueId) -> bool {
        self.calls(Call::Value(first))
    }

    pub(crate) fn want_catch_up(&mut self, out: &mut Actions) {
        let from = self.delivered;
        if self.calls(Call::Entries(from)) {
            mark!(EntriesCalledFor);
            out.push(Action::CatchUp { from });
        }
    }

    /// True if it is time to call for this: it is new, or long not answered. While entries come
    /// in, the running catch-up is left alone.
    fn calls(&mut self, call: Call) -> bool {
        let same = match (self.liveness.called, call) {
            (Some(Call::Entries(_)), Call::Entries(_)) => true,
            (called, call) => called == Some(call),
        };
        if same && (self.liveness.called_ticks < REPEAT_TICKS || self.liveness.progress) {
            return false;
        }
        if same {
            mark!(CallRepeated);
        }
        self.liveness.called = Some(call);
        self.liveness.called_ticks = 0;
        true
    }

    /// A coordinator's sign of life, passed on round the circle.
    pub(crate) fn on_beat(&mut self, ballot: Ballot, beat: u64) {
        self.heard_predecessor();
        let liveness = &mut self.liveness;
        if (ballot, beat) > (liveness.beat_ballot, liveness.beat) && ballot >= self.promised {
            (liveness.beat_ballot, liveness.beat) = (ballot, beat);
            self.votes_changed = true;
            self.heard_coordinator();
        }
    }

    /// The newest sign of life known.
    pub fn newest_beat(&self) -> (Ballot, u64) {
        (self.liveness.beat_ballot, self.liveness.beat)
    }
}
