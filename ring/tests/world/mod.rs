//! A whole cluster under a random schedule: links that break, messages that are lost, doubled and
//! overtake each other, nodes that crash, writes that take their time.
//!
//! Deterministic: one seeded generator, no clock. Links are FIFO and resume as production does;
//! direct messages are a bag.

mod check;
mod direct;
mod links;
mod members;
mod node;
mod random;

use chainring_ring::actions::{Action, Input};
use chainring_ring::codec::{ORDER_BYTES, put_order};
use chainring_ring::coordinator::Role;
use chainring_ring::ids::{
    Ballot, Claim, Durability, Incarnation, Instance, NodeId, Order, ValueId,
};
use chainring_ring::layout::Layout;
use chainring_ring::votes::Vote;
use check::Check;
use links::{Frame, Link};
use node::{Item, Node};
use random::Random;

/// What a schedule is drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// How many of them the log begins with; if it is not all, members change.
    pub founders: usize,
    pub durability: Durability,
    pub steps: usize,
    /// One step in this many, of each kind of fault.
    pub calm: u64,
    /// Nodes whose log may be damaged.
    pub damaged: usize,
    /// Instances open at a time.
    pub window: u64,
    /// Values and frames move in runs of up to this many.
    pub burst: u64,
}

/// A message between any two nodes.
#[derive(Clone, Debug)]
enum Direct {
    Prepare(Ballot),
    Answer(Box<Answer>),
    Reject(Ballot),
    Open(Ballot, Layout, Claim, Instance),
    Present(Vote, u8, bool, bool),
    Missed(NodeId, Ballot, NodeId),
    Ask(NodeId, Ballot),
    Lost(NodeId, Ballot),
    Value(ValueId),
    Entries(Vec<Order>, Ballot),
}

#[derive(Clone, Debug)]
struct Answer {
    from: NodeId,
    incarnation: Incarnation,
    ballot: Ballot,
    before: Ballot,
    damaged: bool,
    first: Instance,
    delivered: Instance,
    orders: Vec<u8>,
}

/// The cluster.
pub struct World {
    plan: Plan,
    ids: Vec<NodeId>,
    pub nodes: Vec<Node>,
    /// By sender.
    links: Vec<Link>,
    direct: Vec<(usize, Direct)>,
    random: Random,
    pub check: Check,
    /// Steps without faults: everything arrives.
    healing: bool,
    /// Nodes that may lose their votes or parts of their log.
    expendable: Vec<usize>,
}

impl World {
    pub fn new(plan: Plan) -> World {
        let ids: Vec<NodeId> = (1..=plan.nodes as u8).map(NodeId).collect();
        let mut random = Random::new(plan.seed);
        let minority = plan.nodes - (plan.nodes / 2 + 1);
        let spread = random.below(plan.nodes as u64) as usize;
        let expendable = (0..minority).map(|k| (k * 2 + spread) % plan.nodes).collect();
        let mut world = World {
            plan,
            nodes: ids.iter().map(|id| Node::new(*id)).collect(),
            ids,
            links: (0..plan.nodes).map(|_| Link::default()).collect(),
            direct: Vec::new(),
            random,
            check: Check::default(),
            healing: false,
            expendable,
        };
        (0..plan.nodes).for_each(|at| world.restart(at));
        world
    }

    /// Runs the schedule, heals everything and waits until all is delivered everywhere.
    pub fn run(&mut self) {
        for _ in 0..self.plan.steps {
            self.random_step();
        }
        self.heal();
    }

    fn random_step(&mut self) {
        let at = self.random.below(self.plan.nodes as u64) as usize;
        let calm = self.plan.calm;
        let burst = 1 + self.random.below(self.plan.burst);
        match self.random.below(100) {
            0..=11 => (0..burst).for_each(|_| self.propose(at)),
            12..=25 => self.write(at),
            26..=45 => self.pump_control(at),
            46..=65 => self.arrive_run(at, burst),
            66..=74 => self.arrive_direct_run(1),
            75..=84 => self.step(at, Input::Tick),
            85..=87 => self.write_promise(at),
            88..=89 => self.open_session(at),
            90 if self.random.one_in(calm) => self.crash(at),
            91..=92 if !self.nodes[at].up() => self.restart(at),
            93 if self.random.one_in(calm) => self.break_link(at),
            94..=96 => self.resume(at),
            97 if self.random.one_in(calm) => self.step(at, Input::Campaign),
            98 => self.write(at),
            99 if self.changes() => self.change_members(),
            _ => {}
        }
    }

    /// Everything goes well from here on; asserts that the ring goes on by itself.
    fn heal(&mut self) {
        self.healing = true;
        (0..self.nodes.len())
            .filter(|at| !self.nodes[*at].up())
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|at| self.restart(at));
        for _ in 0..TICKS_TO_HEAL {
            (0..self.nodes.len()).for_each(|at| self.step(at, Input::Tick));
            self.settle();
            self.readmit();
            if self.is_whole() {
                self.mend();
                let member = self.members().expect("it is whole")[0];
                self.check.finished(&self.nodes[member].log);
                return;
            }
        }
        let state = |node: &Node| self.describe(node);
        let nodes: Vec<String> = self.nodes.iter().map(state).collect();
        panic!("not whole {TICKS_TO_HEAL} ticks after the last fault:\n{}", nodes.join("\n"));
    }

    /// One more ballot, and no log counts as damaged any more.
    fn mend(&mut self) {
        if self.nodes.iter().any(|node| node.core().is_damaged()) {
            let member = self.members().expect("it is whole")[0];
            self.step(member, Input::Campaign);
            for _ in 0..4 {
                (0..self.nodes.len()).for_each(|at| self.step(at, Input::Tick));
                self.settle();
            }
        }
        let members = self.members().expect("it is whole");
        let damaged = |node: &&Node| node.core().is_damaged();
        let damaged = members.iter().map(|at| &self.nodes[*at]).find(damaged);
        assert!(damaged.is_none(), "damaged for ever: {}", self.describe(damaged.expect("some")));
    }

    fn describe(&self, node: &Node) -> String {
        let core = node.core();
        let role = match core.role() {
            Role::Follower => "follower",
            Role::Candidate(_) => "candidate",
            Role::Coordinator(_) => "coordinator",
        };
        let slot = core.window().get(core.delivered()).map(|slot| slot.order);
        let lanes: Vec<_> = self
            .ids
            .iter()
            .map(|id| core.lanes().of(*id).expect("a lane"))
            .map(|lane| (lane.session().start, lane.first().0, lane.next().0))
            .collect();
        format!(
            "{:?} life {} {role} members {} promised {:?} claim {:?} received {:?} durable {:?} delivered {:?} everywhere {:?} next {slot:?} proposed {:?} lanes {lanes:?} own {:?}",
            node.id,
            node.incarnation.0,
            members::describe(core),
            core.promised(),
            core.claim(),
            core.received(),
            core.durable(),
            core.delivered(),
            core.delivered_everywhere(),
            node.proposed.len(),
            core.next_own_id()
        )
    }

    /// Lets everything that is under way arrive.
    fn settle(&mut self) {
        for _ in 0..64 {
            for at in 0..self.nodes.len() {
                self.resume(at);
                self.open_session(at);
                self.write_promise(at);
                while self.nodes[at].submit() || !self.nodes[at].in_flight.is_empty() {
                    self.complete(at);
                }
                self.pump_control(at);
                self.arrive_run(at, u64::MAX);
            }
            self.arrive_direct_run(u64::MAX);
        }
    }

    fn is_whole(&self) -> bool {
        let longest = self.check.chosen.len() as u64;
        let Some(members) = self.members() else { return false };
        members.iter().map(|at| &self.nodes[*at]).all(|node| {
            let delivered = |id: &ValueId| self.check.is_done(id);
            let core = node.core();
            core.delivered() == Instance(longest)
                && core.received() <= core.delivered()
                && core.next_own_id().is_some()
                && node.proposed.iter().all(delivered)
        })
    }

    fn propose(&mut self, at: usize) {
        let Some(core) = &self.nodes[at].core else { return };
        let Some(id) = core.next_own_id() else { return };
        if self.nodes[at].proposed.len() >= PROPOSALS * self.plan.burst as usize {
            return;
        }
        self.step(at, Input::Value(id));
        // Its lane may be full: then the batcher waits.
        if self.nodes[at].core().lanes().ticket(&id).is_some() || self.check.is_done(&id) {
            self.nodes[at].proposed.push(id);
        }
    }

    fn write(&mut self, at: usize) {
        if !self.nodes[at].up() {
            return;
        }
        if self.nodes[at].in_flight.len() < 2 && self.random.one_in(2) {
            self.nodes[at].submit();
        } else {
            self.complete(at);
        }
    }

    fn complete(&mut self, at: usize) {
        if let Some(last) = self.nodes[at].complete() {
            self.step(at, Input::Persisted(last));
        }
    }

    fn write_promise(&mut self, at: usize) {
        if let Some(ballot) = self.nodes[at].promise.take() {
            self.nodes[at].disk.promised = ballot;
            self.step(at, Input::Promised(ballot));
        }
    }

    fn open_session(&mut self, at: usize) {
        if std::mem::take(&mut self.nodes[at].session_due) {
            self.nodes[at].disk.start += 1;
            let start = self.nodes[at].disk.start;
            let session =
                chainring_ring::ids::Session { incarnation: self.nodes[at].incarnation, start };
            self.step(at, Input::Session(session));
        }
    }

    fn crash(&mut self, at: usize) {
        let forgets = self.plan.durability != Durability::Sync;
        let may = match self.changes() {
            true => self.may_forget(at),
            false => self.expendable.contains(&at),
        };
        if !self.nodes[at].up() || forgets && !may {
            return;
        }
        self.fall(at);
        let damaged = self.expendable.iter().take(self.plan.damaged).any(|k| *k == at);
        let bearable = !self.changes() || self.may_forget(at);
        if damaged && bearable && self.random.one_in(2) {
            self.nodes[at].damage(&mut self.random);
        }
    }

    /// True if the members change.
    fn changes(&self) -> bool {
        self.plan.founders < self.plan.nodes
    }

    /// The node stops from one moment to the next.
    fn fall(&mut self, at: usize) {
        self.nodes[at].crash(&mut self.random);
        self.break_link(at);
        if let Some(before) = self.caller(at) {
            self.break_link(before);
        }
    }

    fn restart(&mut self, at: usize) {
        let founders = &self.ids[..self.plan.founders];
        self.nodes[at].start(founders, self.plan.durability, self.plan.window);
        self.check.recovered(&self.nodes[at]);
    }

    /// Steps a node and carries out what it wants.
    pub fn step(&mut self, at: usize, input: Input<'_>) {
        let Some(mut core) = self.nodes[at].core.take() else { return };
        let mut actions = std::mem::take(&mut self.nodes[at].actions);
        let mut input = input;
        loop {
            core.step(input, &mut actions);
            let more = actions.room() < 512;
            self.nodes[at].core = Some(core);
            for action in actions.as_slice() {
                self.carry_out(at, action);
            }
            actions.clear();
            core = self.nodes[at].core.take().expect("just put there");
            let durability = core.settings().durability;
            if durability != Durability::Sync && !self.nodes[at].pending.is_empty() {
                let items = std::mem::take(&mut self.nodes[at].pending);
                self.nodes[at].disk.groups.clear();
                drop(items);
                input = Input::Persisted(core.appended());
            } else if more {
                input = Input::Continue;
            } else {
                break;
            }
        }
        self.nodes[at].core = Some(core);
        self.nodes[at].actions = actions;
    }

    fn carry_out(&mut self, at: usize, action: &Action) {
        match *action {
            Action::Keep { id, forward } => {
                self.nodes[at].pending.push(Item::Value(id));
                if forward {
                    self.links[at].send_data(Frame::Value(id));
                }
            }
            Action::Declare { origin, session, to } => {
                self.links[at].send_data(Frame::Missing(origin, session, to));
            }
            Action::AppendOrder(order) => {
                self.check.appended(&order);
                self.nodes[at].pending.push(Item::Order(order));
            }
            Action::WritePromise(ballot) => self.nodes[at].promise = Some(ballot),
            Action::Deliver { order, counts } => {
                self.check.delivered(&self.nodes[at], &order, counts);
                self.nodes[at].log.push((order, counts));
            }
            Action::Prepare { to } => {
                let ballot = self.nodes[at].core().promised();
                self.send(to, Direct::Prepare(ballot));
            }
            Action::Answer { to, ballot } => {
                let answer = self.answer(at, ballot);
                self.send(to, Direct::Answer(Box::new(answer)));
            }
            Action::Reject { to, promised } => self.send(to, Direct::Reject(promised)),
            Action::Relink => self.relink(at),
            Action::Open { to } => {
                let core = self.nodes[at].core();
                let Role::Coordinator(tip) = core.role() else { return };
                let (ballot, layout, claim) = (core.promised(), *core.layout(), core.claim());
                self.send(to, Direct::Open(ballot, layout, claim, tip.barrier));
            }
            Action::Present { to, asks } => {
                let core = self.nodes[at].core();
                let vote = *core.votes().of(self.ids[at]).expect("its own");
                let word = Direct::Present(vote, core.hears(), asks, core.is_damaged());
                self.send(to, word);
            }
            Action::Missed { to, node } => {
                let ballot = self.nodes[at].core().promised();
                self.send(to, Direct::Missed(self.ids[at], ballot, node));
            }
            Action::Ask { to } => {
                let ballot = self.nodes[at].core().promised();
                self.send(to, Direct::Ask(self.ids[at], ballot));
            }
            Action::Lost { to, ballot } => self.send(to, Direct::Lost(self.ids[at], ballot)),
            Action::Fetch(id) => self.fetch(at, id),
            Action::CatchUp { from } => self.catch_up(at, from),
            Action::ResetData => {
                self.caller(at).into_iter().for_each(|from| self.links[from].break_data());
            }
            Action::ResetControl => {
                self.caller(at).into_iter().for_each(|from| self.links[from].break_control());
            }
            Action::Resend => self.links[at].break_data(),
            Action::Mended => self.nodes[at].disk.damaged = None,
            Action::NewSession => {
                // What was proposed in a session that is closed under a live node is proposed
                // again by its batcher; here it is given up.
                self.nodes[at].proposed.clear();
                self.nodes[at].session_due = true;
            }
            Action::Drop(_) | Action::Free { .. } => {}
        }
    }

    fn answer(&self, at: usize, ballot: Ballot) -> Answer {
        let core = self.nodes[at].core();
        let window = core.window();
        let mut orders = Vec::new();
        for instance in window.first().0..window.end().0 {
            let Some(slot) = window.get(Instance(instance)).filter(|slot| core.has(slot)) else {
                continue;
            };
            let end = orders.len();
            orders.resize(end + ORDER_BYTES, 0);
            put_order(&slot.order, &mut orders[end..]);
        }
        Answer {
            from: self.ids[at],
            incarnation: core.settings().incarnation,
            ballot,
            before: core.promised_before(),
            damaged: core.is_damaged(),
            first: window.first(),
            delivered: core.delivered(),
            orders,
        }
    }
}

/// Most values that a node proposes in a life, in a plan without bursts.
const PROPOSALS: usize = 40;
/// Within this many ticks after the last fault everything is delivered everywhere.
const TICKS_TO_HEAL: usize = 1500;
