//! Three real cores whose every fact goes to an observer, and the places where facts are bent.

use crate::mail::{Notice, TopicId};
use crate::records::Digest;
use crate::shard::direct::{self, Sender};
use crate::sim::observer::{FinalNode, Observer, Setup, Stopped, Written};
use chainring_ring::actions::{Action, Actions, Input};
use chainring_ring::codec::{CLAIM_BYTES, ORDER_BYTES, VOTE_BYTES, put_claim, put_order, put_vote};
use chainring_ring::core::{Core, Recovered, Settings};
use chainring_ring::header::{HEADER_BYTES, Header, Kind};
use chainring_ring::ids::{
    ClusterId, Durability, Entry, Epoch, Incarnation, Instance, NodeId, Order, RingId, ValueId,
};
use chainring_storage::{Identity, Superblock};

const WINDOW: u64 = 64;

/// What is bent, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bend {
    /// Commit groups are not on stable media when the core is told so.
    LoseGroups,
    /// Their orders are not in them.
    LoseOrders,
    /// Nor is the superblock.
    LoseSuperblocks,
    /// Packets are not kept.
    LosePackets,
    /// Packets do not go on to the next node.
    HoldPackets,
    /// Of the deliveries of a step, the first does not happen.
    LoseFirstDelivery,
    /// What is delivered is a no-op.
    DeliverNoops,
    /// What counts is said not to.
    CountWrongly,
    /// A 1B has no orders.
    EmptyAnswers,
}

/// Three nodes in a circle.
pub(super) struct Ring {
    pub observer: Observer,
    pub cores: Vec<Core>,
    pub superblocks: Vec<Superblock>,
    /// By node, what it appended and has not written.
    pending: Vec<(Vec<Order>, Vec<ValueId>)>,
    groups: Vec<u64>,
    /// Topic offsets given out by each node.
    pub offsets: Vec<u64>,
    inbox: Vec<(usize, NodeId, Vec<u8>)>,
    pub bend: Option<(NodeId, Bend)>,
    pub durability: Durability,
}

pub(super) fn node(at: usize) -> NodeId {
    NodeId(at as u8 + 1)
}

pub(super) fn sender(at: usize) -> Sender {
    Sender { cluster: ClusterId(1), epoch: Epoch(1), node: node(at) }
}

impl Ring {
    /// Three nodes, started; node 1 coordinates, and the first ballot's barrier is delivered.
    pub(super) fn new(durability: Durability) -> Ring {
        let mut ring = Ring::blank(durability, false);
        ring.step(0, Input::Campaign);
        ring.run();
        ring
    }

    pub(super) fn blank(durability: Durability, fault_free: bool) -> Ring {
        let setup = Setup {
            nodes: (0..3).map(node).collect(),
            durability,
            window: WINDOW,
            fault_free,
            drag: true,
        };
        let identity = |at| Identity {
            cluster: ClusterId(1),
            epoch: Epoch(1),
            node: node(at),
            ring: RingId(0),
        };
        let superblock = |at| {
            let new = Superblock::new(identity(at), durability, 512, 3);
            Superblock { start: 1, ..new }
        };
        let superblocks: Vec<_> = (0..3).map(superblock).collect();
        // Nothing goes wrong: the circle is one of all.
        let patience = if fault_free { 1 } else { 0 };
        let cores =
            (0..3).map(|at| Ring::core(at, &superblocks[at], Recovered::default(), patience));
        let mut ring = Ring {
            observer: Observer::new(setup),
            cores: cores.collect(),
            superblocks,
            pending: vec![Default::default(); 3],
            groups: vec![0; 3],
            offsets: vec![0; 3],
            inbox: Vec::new(),
            bend: None,
            durability,
        };
        (0..3).for_each(|at| ring.tell_started(at));
        ring
    }

    fn core(at: usize, superblock: &Superblock, recovered: Recovered, patience: u32) -> Core {
        let settings = Settings {
            nodes: (0..3).map(node).collect(),
            voters: vec![Incarnation(1); 3],
            me: node(at),
            incarnation: superblock.incarnation,
            session: superblock.session(),
            durability: superblock.durability,
            window: WINDOW,
            seed: 0,
            patience,
        };
        Core::new(settings, recovered)
    }

    fn tell_started(&mut self, at: usize) {
        let next = self.groups[at] + 1;
        self.observer.started(node(at), &self.cores[at], &self.superblocks[at], (next, true));
    }

    fn is_bent(&self, at: usize, bend: Bend) -> bool {
        self.bend == Some((node(at), bend))
    }

    /// Ends a life, and begins the next from what `recovered` says.
    pub(super) fn restart(&mut self, at: usize, how: Stopped, recovered: Recovered) {
        self.observer.stopped(node(at), how);
        self.pending[at] = Default::default();
        self.superblocks[at].start += 1;
        self.cores[at] = Ring::core(at, &self.superblocks[at], recovered, 0);
        self.tell_started(at);
    }

    /// What a true recovery would find: all that the core holds.
    pub(super) fn recovered(&self, at: usize) -> Recovered {
        let core = &self.cores[at];
        let open = core.delivered().0..core.window().end().0;
        let orders = open.filter_map(|index| core.window().get(Instance(index)));
        let orders: Vec<_> = orders.map(|slot| slot.order).collect();
        let value = |order: &Order| match order.entry {
            Entry::Value(id) => core.lanes().ticket(&id).map(|_| id),
            _ => None,
        };
        Recovered {
            promised: core.promised(),
            claim: core.claim(),
            delivered: core.delivered(),
            table: core.table().clone(),
            configuration: Some(*core.configuration()),
            values: orders.iter().filter_map(value).collect(),
            orders,
            damaged: false,
        }
    }

    /// One step, told to the observer and carried out.
    pub(super) fn step(&mut self, at: usize, input: Input<'_>) {
        let mut actions = Actions::new();
        self.cores[at].step(input, &mut actions);
        let mut told = actions.as_slice().to_vec();
        self.bend_actions(at, &mut told);
        self.observer.stepped(node(at), &self.cores[at], &input, &told);
        for action in actions.as_slice() {
            self.carry_out(at, action);
        }
    }

    fn bend_actions(&self, at: usize, told: &mut Vec<Action>) {
        let Some((_, bend)) = self.bend.filter(|(bent, _)| *bent == node(at)) else { return };
        match bend {
            Bend::LosePackets => told.retain(|action| !matches!(action, Action::Keep { .. })),
            Bend::LoseFirstDelivery => {
                let first = told.iter().position(|a| matches!(a, Action::Deliver { .. }));
                first.map(|first| told.remove(first));
            }
            _ => {}
        }
        for action in told {
            if let Action::Deliver { order, counts } = action {
                if bend == Bend::DeliverNoops {
                    (order.entry, *counts) = (Entry::Noop, false);
                }
                *counts &= bend != Bend::CountWrongly;
            }
        }
    }

    fn carry_out(&mut self, at: usize, action: &Action) {
        match *action {
            Action::Keep { id, forward } => {
                self.pending[at].1.push(id);
                if forward && !self.is_bent(at, Bend::HoldPackets) {
                    self.forward(at, id);
                    self.step((at + 1) % 3, Input::Value(id));
                }
            }
            Action::AppendOrder(order) => self.pending[at].0.push(order),
            Action::WritePromise(ballot) => {
                self.superblocks[at].promised = ballot;
                if !self.is_bent(at, Bend::LoseSuperblocks) {
                    self.observer.wrote_superblock(node(at), &self.superblocks[at]);
                }
                self.step(at, Input::Promised(ballot));
            }
            Action::Prepare { to } => {
                let frame = sender(at).prepare(self.cores[at].promised());
                self.direct(at, to, frame);
            }
            Action::Answer { to, ballot } => {
                let mut frame = sender(at).promise(&self.cores[at], ballot);
                if self.is_bent(at, Bend::EmptyAnswers) {
                    frame = without_orders(&frame);
                }
                self.direct(at, to, frame);
            }
            Action::Deliver { order, counts } => self.deliver(at, order, counts),
            _ => {}
        }
    }

    /// Each value that counts holds one record of topic 0.
    fn deliver(&mut self, at: usize, order: Order, counts: bool) {
        let notice = Notice::Instance { order, place: Default::default() };
        self.observer.notice(node(at), &notice);
        if counts {
            let (topic, first_offset) = (TopicId(0), self.offsets[at]);
            let notice = Notice::Run { topic, first_offset, count: 1, skip: 0, at: 0 };
            self.observer.notice(node(at), &notice);
            self.offsets[at] += 1;
        }
    }

    pub(super) fn forward(&mut self, at: usize, id: ValueId) {
        let header = Header {
            origin: id.origin,
            session: id.session,
            sequence: id.sequence,
            checksum_body: u128::from(id.sequence.0),
            ..sender(at).header(Kind::Value, 512, 1)
        };
        self.observer.value_frame(node(at), &header);
    }

    fn direct(&mut self, at: usize, to: NodeId, frame: Vec<u8>) {
        self.observer.direct_frame(node(at), to, &frame);
        self.inbox.push((usize::from(to.0) - 1, node(at), frame));
    }

    /// Writes what is pending.
    pub(super) fn write(&mut self, at: usize) {
        let (mut orders, values) = std::mem::take(&mut self.pending[at]);
        if orders.is_empty() && values.is_empty() {
            return;
        }
        if self.durability != Durability::Memory {
            self.groups[at] += 1;
            if self.is_bent(at, Bend::LoseOrders) {
                orders.clear();
            }
            let (core, number) = (&self.cores[at], self.groups[at]);
            let claimed = core.claim_to_log(Instance(0), core.appended()).position;
            if !self.is_bent(at, Bend::LoseGroups) {
                let written = Written { number, claimed, orders: &orders, values: &values };
                self.observer.wrote_group(node(at), written);
            }
        }
        let appended = self.cores[at].appended();
        self.step(at, Input::Persisted(appended));
    }

    /// A group of this number is under way, and does not come to an end.
    pub(super) fn lose_group(&mut self, at: usize) {
        self.groups[at] += 1;
    }

    /// Sends orders and votes to the successor.
    pub(super) fn pump(&mut self, at: usize) {
        let to = (at + 1) % 3;
        let ballot = self.cores[at].promised();
        let mut next = self.cores[at].window().first();
        while ballot.node != node(to) && next < self.cores[at].received() {
            let slot = self.cores[at].window().get(next).copied();
            if let Some(slot) = slot.filter(|slot| slot.order.ballot == ballot) {
                self.control_order(at, &slot.order);
                self.step(to, Input::Order(slot.order));
            }
            next = next.next();
        }
        let votes: Vec<_> = self.cores[at].votes().iter().copied().collect();
        let claim = self.cores[at].claim();
        let mut body = vec![0; CLAIM_BYTES + votes.len() * VOTE_BYTES];
        put_claim(&claim, &mut body);
        for (vote, out) in votes.iter().zip(body[CLAIM_BYTES..].chunks_mut(VOTE_BYTES)) {
            put_vote(vote, out);
        }
        self.observer.control_frame(node(at), &sender(at).header(Kind::Votes, 0, 0), &body);
        votes.into_iter().for_each(|vote| self.step(to, Input::Vote(vote)));
        self.step(to, Input::Claim(claim));
    }

    pub(super) fn control_order(&mut self, at: usize, order: &Order) {
        let mut body = [0; ORDER_BYTES];
        put_order(order, &mut body);
        let header = Header { ballot: order.ballot, ..sender(at).header(Kind::Orders, 0, 0) };
        self.observer.control_frame(node(at), &header, &body);
    }

    /// The frames of Phase 1 that are on their way to this node do not come.
    pub(super) fn lose_frames(&mut self, to: usize) {
        self.inbox.retain(|(at, ..)| *at != to);
    }

    /// All others do.
    pub(super) fn arrive(&mut self) {
        while let Some((at, from, frame)) = self.inbox.pop() {
            let header = Header::decode(&frame, direct::DIRECT_MAX).expect("a frame");
            let input = direct::input(&header, from, &frame[HEADER_BYTES..]);
            self.step(at, input.expect("an input"));
        }
    }

    /// Everything arrives.
    pub(super) fn run(&mut self) {
        for _ in 0..8 {
            self.arrive();
            (0..3).for_each(|at| self.pump(at));
            (0..3).for_each(|at| self.write(at));
        }
    }

    /// A value of a node, on its way to everybody.
    pub(super) fn value(&mut self, at: usize) -> ValueId {
        let id = self.cores[at].next_own_id().expect("an open session");
        self.step(at, Input::Value(id));
        id
    }

    /// The end of a run, of which each node shows what it has; `whole` as in
    /// [`Observer::finish`].
    pub(super) fn finish(&mut self, whole: bool) {
        let ends = self.offsets.chunks(1);
        let ends = ends.map(|end| if end[0] == 0 { &end[..0] } else { end });
        let nodes: Vec<_> = (0..3)
            .zip(ends)
            .map(|(at, ends)| FinalNode {
                node: node(at),
                core: &self.cores[at],
                digest: Digest::default(),
                told: self.cores[at].delivered(),
                ends,
            })
            .collect();
        self.observer.finish(&nodes, whole);
    }
}

/// The same 1B, with nothing to report.
fn without_orders(frame: &[u8]) -> Vec<u8> {
    let header = Header::decode(frame, direct::DIRECT_MAX).expect("a frame");
    let mut frame = frame[..HEADER_BYTES + 40].to_vec();
    Header { size: frame.len() as u32, length: 40, ..header }.seal(&mut frame);
    frame
}
