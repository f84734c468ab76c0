//! One node with its disk, and all that it ever said and did: what a state of the world is made of.
//!
//! Invariant: a local state is a value. The same action on the same one gives the same one, so
//! that each is computed once, however many states of the world it is part of.

use super::Scope;
use super::disk::{Disk, Item};
use super::message::{Answer, Message, Messages};
use super::witness::accepts_legally;
use chainring_ring::actions::{Action, Actions, Input, PromiseFrom};
use chainring_ring::codec::{ORDER_BYTES, put_order};
use chainring_ring::configuration::Step;
use chainring_ring::core::{Core, Settings};
use chainring_ring::ids::{Ballot, Durability, Entry, Incarnation, Instance, NodeId, Session};
use chainring_ring::window::WINDOW_MIN;

/// What a node does by itself. What it receives is a message's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Campaign,
    Propose,
    Change(Step),
    /// The superblock holds the promise.
    Promised,
    /// The next so many items, and the claim, are on the disk.
    Persist(usize),
    Session,
    /// So many pending items survive, the pending promise or not; damage of this number.
    Crash {
        items: usize,
        promise: bool,
        damage: Option<usize>,
    },
    Restart,
    Receive(u32),
}

/// A broken invariant: its name in the catalogue, and what happened.
#[derive(Debug)]
pub struct Violation(pub &'static str, pub String);

/// An entry at an instance and a ballot.
pub type At = (Instance, Ballot, Entry);

/// A node, up or down.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    pub id: NodeId,
    pub core: Option<Core>,
    incarnation: Incarnation,
    pub(super) disk: Disk,
    pending: Vec<Item>,
    promise: Option<Ballot>,
    session_due: bool,
    campaigns: u8,
    values: u8,
    changes: u8,
    pub crashes: u8,
    /// Numbers of all messages that it sent in any life, ascending.
    pub sent: Vec<u32>,
    /// What it ordered as coordinator.
    pub proposed: Vec<At>,
    /// What it ever voted for.
    pub accepted: Vec<At>,
    /// What it delivered, from the first instance on.
    pub log: Vec<(Entry, bool)>,
    /// The highest ballot that a promise or vote of this incarnation carried.
    pub(super) told: Ballot,
}

impl Local {
    pub fn new(id: NodeId, scope: &Scope, messages: &mut Messages) -> Local {
        let mut local = Local {
            id,
            core: None,
            incarnation: Incarnation(1),
            disk: Disk::default(),
            pending: Vec::new(),
            promise: None,
            session_due: false,
            campaigns: 0,
            values: 0,
            changes: 0,
            crashes: 0,
            sent: Vec::new(),
            proposed: Vec::new(),
            accepted: Vec::new(),
            log: Vec::new(),
            told: Ballot::ZERO,
        };
        local.restart(scope, messages).expect("a new node");
        local
    }

    /// What the node may do by itself, crashes aside.
    pub fn acts(&self, scope: &Scope) -> Vec<Act> {
        let Some(core) = &self.core else { return vec![Act::Restart] };
        let mut acts = Vec::new();
        let at = usize::from(self.id.0) - 1;
        if self.campaigns < scope.campaigns[at] {
            acts.push(Act::Campaign);
        }
        if self.values < scope.values[at] && core.next_own_id().is_some() {
            acts.push(Act::Propose);
        }
        if let Some(step) = scope.changes.get(usize::from(self.changes))
            && core.judge(*step).is_ok()
        {
            acts.push(Act::Change(*step));
        }
        if self.promise.is_some() {
            acts.push(Act::Promised);
        }
        if self.session_due {
            acts.push(Act::Session);
        }
        let all = self.pending.len();
        acts.extend(if scope.fine { 1..=all } else { all.max(1)..=all }.map(Act::Persist));
        if all == 0 && scope.seals && self.claim_at(0) != self.disk.claim {
            acts.push(Act::Persist(0));
        }
        acts
    }

    /// The ways in which it may crash.
    pub fn crashes(&self, scope: &Scope) -> Vec<Act> {
        let at = usize::from(self.id.0) - 1;
        if self.core.is_none() || !scope.crashing[at] {
            return Vec::new();
        }
        let all = self.pending.len();
        let counts: Vec<usize> = match scope.fine {
            true => (0..=all).collect(),
            false => [0].into_iter().chain((all > 0).then_some(all)).collect(),
        };
        let mut acts = Vec::new();
        for items in counts {
            for promise in [false, true].into_iter().take(1 + usize::from(self.promise.is_some())) {
                acts.push(Act::Crash { items, promise, damage: None });
            }
        }
        if scope.damage {
            for damage in 0..self.disk.damaged().len() {
                acts.push(Act::Crash { items: 0, promise: false, damage: Some(damage) });
            }
        }
        acts
    }

    /// The state after an action.
    pub fn after(
        &self,
        act: &Act,
        scope: &Scope,
        messages: &mut Messages,
    ) -> Result<Local, Violation> {
        let mut next = self.clone();
        match act {
            Act::Campaign => {
                next.campaigns += 1;
                next.step(Input::Campaign, scope, messages)?;
            }
            Act::Propose => {
                let id = self.core().next_own_id().expect("checked");
                next.values += 1;
                next.step(Input::Value(id), scope, messages)?;
                next.send(Message::Value(id), messages);
            }
            Act::Change(step) => {
                next.changes += 1;
                next.step(Input::Change(*step), scope, messages)?;
            }
            Act::Promised => {
                let ballot = next.promise.take().expect("checked");
                next.disk.promised = ballot;
                next.step(Input::Promised(ballot), scope, messages)?;
            }
            Act::Persist(items) => {
                next.write(*items);
                let ticket = *items as u64;
                next.step(Input::Persisted(ticket), scope, messages)?;
            }
            Act::Session => {
                next.session_due = false;
                next.disk.start += 1;
                let session = Session { incarnation: next.incarnation, start: next.disk.start };
                next.step(Input::Session(session), scope, messages)?;
            }
            Act::Crash { items, promise, damage } => next.crash(*items, *promise, *damage, scope),
            Act::Restart => next.restart(scope, messages)?,
            Act::Receive(number) => next.receive(*number, scope, messages)?,
        }
        if let Some(core) = &mut next.core {
            core.canonicalize();
        }
        Ok(next)
    }

    pub fn core(&self) -> &Core {
        self.core.as_ref().expect("the node is up")
    }

    /// The claim that a group of the next so many items carries.
    fn claim_at(&self, items: usize) -> chainring_ring::ids::Claim {
        self.core().claim_to_log(self.disk.claim.position, items as u64)
    }

    fn write(&mut self, items: usize) {
        let claim = self.claim_at(items);
        let items: Vec<Item> = self.pending.drain(..items).collect();
        self.disk.write(&items, claim);
    }

    fn crash(&mut self, items: usize, promise: bool, damage: Option<usize>, scope: &Scope) {
        self.crashes += 1;
        if scope.durability == Durability::Sync {
            self.write(items);
        }
        self.disk.promised =
            self.promise.filter(|_| promise).unwrap_or(self.disk.promised).max(self.disk.promised);
        if let Some(number) = damage {
            self.disk = self.disk.damaged().swap_remove(number);
        }
        self.pending.clear();
        self.promise = None;
        self.session_due = false;
        self.core = None;
    }

    fn restart(&mut self, scope: &Scope, messages: &mut Messages) -> Result<(), Violation> {
        if scope.durability != Durability::Sync && self.disk.start > 0 {
            self.incarnation.0 += 1;
            self.disk = Disk { start: self.disk.start, ..Disk::default() };
            self.told = Ballot::ZERO;
        }
        self.disk.start += 1;
        let (recovered, log) = self.disk.recover();
        if self.log.get(..log.len()) != Some(&log[..]) {
            let told = format!("node {:?} recovers {log:?} of {:?}", self.id, self.log);
            return Err(Violation("B3", told));
        }
        if recovered.promised < self.told {
            let told = format!("node {:?} told {:?}, found {recovered:?}", self.id, self.told);
            return Err(Violation("A2", told));
        }
        let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let settings = Settings {
            voters: vec![Incarnation(1); nodes.len()],
            nodes,
            me: self.id,
            incarnation: self.incarnation,
            session: Session { incarnation: self.incarnation, start: self.disk.start },
            durability: scope.durability,
            window: WINDOW_MIN,
            seed: u64::from(self.id.0),
            patience: 0,
        };
        let mut core = Core::new(settings, recovered);
        core.canonicalize();
        self.core = Some(core);
        self.publish(scope, messages)
    }

    fn receive(
        &mut self,
        number: u32,
        scope: &Scope,
        messages: &mut Messages,
    ) -> Result<(), Violation> {
        if self.core.is_none() {
            return Ok(());
        }
        let message = messages.get(number).clone();
        let mut bytes = Vec::new();
        let input = match &message {
            Message::Prepare(ballot) => Input::Prepare { ballot: *ballot },
            Message::Order(order) => Input::Order(*order),
            Message::Value(id) => Input::Value(*id),
            Message::Vote(vote) => Input::Vote(*vote),
            Message::Claim(claim) => Input::Claim(*claim),
            Message::Decided(order, ballot) => Input::Decided { order: *order, ballot: *ballot },
            Message::Answer(answer) => {
                bytes.resize(answer.orders.len() * ORDER_BYTES, 0);
                for (order, out) in answer.orders.iter().zip(bytes.chunks_exact_mut(ORDER_BYTES)) {
                    put_order(order, out);
                }
                Input::Promise(PromiseFrom {
                    from: answer.from,
                    incarnation: answer.incarnation,
                    ballot: answer.ballot,
                    before: answer.before,
                    damaged: answer.damaged,
                    first: answer.first,
                    delivered: answer.delivered,
                    orders: &bytes,
                })
            }
        };
        self.step(input, scope, messages)
    }

    /// Steps the core and carries out what it says; in memory durability all is persisted at once.
    fn step(
        &mut self,
        input: Input<'_>,
        scope: &Scope,
        messages: &mut Messages,
    ) -> Result<(), Violation> {
        let mut actions = Actions::new();
        let promised = self.core().promised();
        let mut input = input;
        loop {
            self.core.as_mut().expect("up").step(input, &mut actions);
            for action in actions.as_slice() {
                accepts_legally(self.id, action, promised)?;
                self.carry_out(action, scope, messages)?;
            }
            actions.clear();
            match self.written(scope) {
                Some(next) => input = next,
                None => break,
            }
        }
        if self.core().promised() < promised {
            return Err(Violation("A2", format!("node {:?} falls below {promised:?}", self.id)));
        }
        self.publish(scope, messages)
    }

    /// What became durable at once.
    fn written(&mut self, scope: &Scope) -> Option<Input<'static>> {
        let slow = scope.slow[usize::from(self.id.0) - 1];
        if let Some(ballot) = self.promise.take_if(|_| !slow) {
            self.disk.promised = ballot;
            return Some(Input::Promised(ballot));
        }
        let memory = scope.durability != Durability::Sync;
        if self.pending.is_empty() || slow && !memory {
            return None;
        }
        match memory {
            true => self.pending.clear(),
            false => self.write(self.pending.len()),
        }
        Some(Input::Persisted(self.core().appended()))
    }

    fn carry_out(
        &mut self,
        action: &Action,
        scope: &Scope,
        messages: &mut Messages,
    ) -> Result<(), Violation> {
        match *action {
            Action::Keep { id, .. } => self.pending.push(Item::Value(id)),
            Action::AppendOrder(order) => {
                self.pending.push(Item::Order(order));
                if order.ballot.node == self.id && !order.decided {
                    self.propose(order)?;
                    self.send(Message::Order(order), messages);
                }
            }
            Action::WritePromise(ballot) => self.promise = Some(ballot),
            Action::Deliver { order, counts } => self.deliver(order, counts, scope, messages)?,
            Action::Prepare { .. } => {
                let ballot = self.core().promised();
                self.tell(ballot)?;
                self.send(Message::Prepare(ballot), messages);
            }
            Action::Answer { ballot, .. } => {
                self.tell(ballot)?;
                let answer = self.answer(ballot);
                self.send(Message::Answer(answer), messages);
            }
            Action::Mended => self.disk.damaged = false,
            Action::NewSession => self.session_due = true,
            _ => {}
        }
        Ok(())
    }

    fn answer(&self, ballot: Ballot) -> Answer {
        let core = self.core();
        let window = core.window();
        let slots = window.first().0..window.end().0;
        let slots = slots.filter_map(|at| window.get(Instance(at)).filter(|slot| core.has(slot)));
        Answer {
            from: self.id,
            incarnation: core.settings().incarnation,
            ballot,
            before: core.promised_before(),
            damaged: core.is_damaged(),
            first: window.first(),
            delivered: core.delivered(),
            orders: slots.map(|slot| slot.order).collect(),
        }
    }

    pub(super) fn send(&mut self, message: Message, messages: &mut Messages) {
        let number = messages.number(message);
        if let Err(place) = self.sent.binary_search(&number) {
            self.sent.insert(place, number);
        }
    }
}
