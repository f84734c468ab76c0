//! The links between neighbours: FIFO, broken at any moment, resumed as production does.

use super::World;
use chainring_ring::actions::Input;
use chainring_ring::ids::{Ballot, Claim, Instance, NodeId, Order, Sequence, Session, ValueId};
use chainring_ring::votes::Vote;
use std::collections::VecDeque;

/// What travels on a link.
#[derive(Clone, Debug)]
pub enum Frame {
    Value(ValueId),
    Missing(NodeId, Session, Sequence),
    Order(Order),
    Votes(Vec<Vote>, Claim, (Ballot, u64)),
}

/// Both links from a node to its successor.
#[derive(Default)]
pub struct Link {
    data_up: bool,
    control_up: bool,
    /// Whom it leads to, since it came up last.
    to: Option<usize>,
    data: VecDeque<Frame>,
    control: VecDeque<Frame>,
    /// Next order to send, and at which ballot.
    cursor: (Ballot, Option<Instance>),
}

impl Link {
    pub fn send_data(&mut self, frame: Frame) {
        if self.data_up {
            self.data.push_back(frame);
        }
    }

    pub fn break_data(&mut self) {
        self.data_up = false;
        self.data.clear();
    }

    pub fn break_control(&mut self) {
        self.control_up = false;
        self.control.clear();
    }
}

impl World {
    /// Whose link leads to this node.
    pub fn caller(&self, at: usize) -> Option<usize> {
        self.links.iter().position(|link| link.to == Some(at))
    }

    /// Whom a node would send to: its successor, if that takes it for its predecessor.
    fn successor(&self, at: usize) -> Option<usize> {
        let to = usize::from(self.nodes[at].core.as_ref()?.successor()?.0) - 1;
        let other = self.nodes[to].core.as_ref()?;
        (other.predecessor() == Some(self.ids[at])).then_some(to)
    }

    /// The circle of a node has changed: links to who is no neighbour any more go down.
    pub fn relink(&mut self, at: usize) {
        let core = self.nodes[at].core();
        let (me, predecessor, successor) = (self.ids[at], core.predecessor(), core.successor());
        for (from, link) in self.links.iter_mut().enumerate() {
            let Some(to) = link.to else { continue };
            let out = from == at && successor != Some(self.ids[to]);
            let into = self.ids[to] == me && predecessor != Some(self.ids[from]);
            if out || into {
                link.break_data();
                link.break_control();
                link.to = None;
            }
        }
    }

    pub fn break_link(&mut self, at: usize) {
        if self.random.one_in(3) || self.successor(at).is_none() {
            self.links[at].break_data();
            self.links[at].break_control();
        } else if self.random.one_in(2) {
            self.links[at].break_data();
        } else {
            self.links[at].break_control();
        }
    }

    /// Opens the links from `at` to its successor again, from where the successor stands.
    pub fn resume(&mut self, at: usize) {
        let Some(to) = self.successor(at) else { return };
        if self.links[at].to != Some(to) {
            self.links[at].break_data();
            self.links[at].break_control();
            // The newest caller is the one that is heard.
            if let Some(before) = self.caller(to) {
                self.links[before].break_data();
                self.links[before].break_control();
                self.links[before].to = None;
            }
            self.links[at].to = Some(to);
        }
        if !self.links[at].control_up {
            let core = self.nodes[to].core();
            let next = core.received().max(core.delivered());
            self.links[at].cursor = (core.promised(), Some(next));
            self.links[at].control_up = true;
            // The first frame of a link shows all.
            self.send_votes(at);
        }
        if !self.links[at].data_up {
            self.links[at].data_up = true;
            for origin in 0..self.ids.len() {
                self.resume_origin(at, to, self.ids[origin]);
            }
        }
    }

    fn resume_origin(&mut self, at: usize, to: usize, origin: NodeId) {
        if origin == self.ids[to] {
            return;
        }
        let theirs = self.nodes[to].core().lanes().of(origin).expect("a lane");
        let ours = self.nodes[at].core().lanes().of(origin).expect("a lane");
        let session = ours.session();
        if session < theirs.session() || session == Session::NONE {
            return;
        }
        let from = if session == theirs.session() { theirs.next() } else { Sequence(0) };
        let mut frames = Vec::new();
        for sequence in from.0..ours.next().0 {
            let id = ValueId { origin, session, sequence: Sequence(sequence) };
            frames.push(match ours.ticket(Sequence(sequence)) {
                Some(_) => Frame::Value(id),
                None => Frame::Missing(origin, session, Sequence(sequence + 1)),
            });
        }
        frames.into_iter().for_each(|frame| self.links[at].send_data(frame));
    }

    /// Sends orders and votes on the control link.
    pub fn pump_control(&mut self, at: usize) {
        if !self.nodes[at].up() || !self.links[at].control_up {
            return;
        }
        let limit =
            if self.healing { u64::MAX } else { 1 + self.random.below(8 * self.plan.burst) };
        self.send_orders(at, limit);
        let core = self.nodes[at].core.as_mut().expect("the node is up");
        if core.take_votes_changed() || self.healing {
            self.send_votes(at);
        }
    }

    fn send_orders(&mut self, at: usize, limit: u64) {
        let Some(to) = self.links[at].to else { return };
        let core = self.nodes[at].core();
        let promised = core.promised();
        let link = &mut self.links[at];
        if link.cursor.0 != promised {
            link.cursor = (promised, None);
        }
        if promised.node == self.ids[to] {
            return;
        }
        if link.cursor.1.is_none() {
            // The base is known once an order of the ballot is: look for the first one held.
            let window = core.window();
            let range = window.first().0..core.received().0;
            let first = range.map(Instance).find(|at| window.holds_at(*at, promised));
            link.cursor.1 = first;
        }
        let Some(cursor) = &mut link.cursor.1 else { return };
        *cursor = (*cursor).max(core.window().first());
        let mut sent = 0;
        while *cursor < core.received() && sent < limit {
            if let Some(slot) = core.window().get(*cursor)
                && slot.order.ballot == promised
            {
                link.control.push_back(Frame::Order(slot.order));
                sent += 1;
            }
            *cursor = cursor.next();
        }
    }

    fn send_votes(&mut self, at: usize) {
        self.check.published(&self.nodes[at]);
        let core = self.nodes[at].core();
        let votes = core.votes().iter().copied().collect();
        let frame = Frame::Votes(votes, core.claim(), core.newest_beat());
        self.links[at].control.push_back(frame);
    }

    /// The next frame of one of the links from `at` arrives; false if there was none.
    pub fn arrive(&mut self, at: usize) -> bool {
        let Some(to) = self.links[at].to else { return false };
        let link = &mut self.links[at];
        let data_first = self.random.one_in(2);
        let (first, second) = match data_first {
            true => (&mut link.data, &mut link.control),
            false => (&mut link.control, &mut link.data),
        };
        let Some(frame) = first.pop_front().or_else(|| second.pop_front()) else { return false };
        match frame {
            Frame::Value(id) => self.step(to, Input::Value(id)),
            Frame::Missing(origin, session, upto) => {
                self.step(to, Input::Missing { origin, session, to: upto });
            }
            Frame::Order(order) => self.step(to, Input::Order(order)),
            Frame::Votes(votes, claim, (ballot, beat)) => {
                votes.into_iter().for_each(|vote| self.step(to, Input::Vote(vote)));
                self.step(to, Input::Claim(claim));
                self.step(to, Input::Beat { ballot, beat });
            }
        }
        true
    }
}
