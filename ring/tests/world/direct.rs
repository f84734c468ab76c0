//! Direct messages and fetching: a bag from which anything may arrive next, twice, or never.

use super::node::Node;
use super::{Direct, World};
use chainring_ring::actions::{Input, PromiseFrom};
use chainring_ring::ids::{Entry, Instance, NodeId, Order, ValueId};

impl World {
    pub(super) fn send(&mut self, to: NodeId, message: Direct) {
        if self.direct.len() < 256 {
            self.direct.push((usize::from(to.0) - 1, message));
        }
    }

    pub(super) fn fetch(&mut self, at: usize, id: ValueId) {
        let holds = |node: &&Node| {
            let Some(core) = &node.core else { return false };
            let logged =
                |(order, counts): &(Order, bool)| *counts && order.entry == Entry::Value(id);
            core.lanes().ticket(&id).is_some() || node.log.iter().any(logged)
        };
        if self.nodes.iter().any(|node| node.id != self.ids[at] && holds(&node)) {
            self.send(self.ids[at], Direct::Value(id));
        }
    }

    pub(super) fn catch_up(&mut self, at: usize, from: Instance) {
        let start = self.random.below(self.nodes.len() as u64) as usize;
        let peers = (0..self.nodes.len()).map(|k| (start + k) % self.nodes.len());
        let mut serving = peers.filter(|k| *k != at && self.nodes[*k].up());
        let Some(peer) = serving.find(|k| self.nodes[*k].core().delivered() > from) else { return };
        let entries = self.nodes[peer].log[from.0 as usize..].iter().map(|(order, _)| *order);
        let limit = if self.healing { 4096 } else { 1 + self.random.below(16) as usize };
        let entries = entries.take(limit).collect();
        let ballot = self.nodes[peer].core().claim().ballot;
        self.send(self.ids[at], Direct::Entries(entries, ballot));
    }

    pub(super) fn arrive_run(&mut self, at: usize, most: u64) {
        let mut left = most;
        while left > 0 && self.arrive(at) {
            left -= 1;
        }
    }

    pub(super) fn arrive_direct_run(&mut self, most: u64) {
        let mut left = most;
        while left > 0 && self.arrive_direct() {
            left -= 1;
        }
    }

    /// One direct message arrives, or is lost, or arrives and stays to arrive again.
    pub(super) fn arrive_direct(&mut self) -> bool {
        if self.direct.is_empty() {
            return false;
        }
        let index = self.random.below(self.direct.len() as u64) as usize;
        let (at, message) = if !self.healing && self.random.one_in(8) {
            self.direct[index].clone()
        } else {
            self.direct.swap_remove(index)
        };
        if !self.healing && self.random.one_in(10) {
            return true;
        }
        match message {
            Direct::Prepare(ballot) => self.step(at, Input::Prepare { ballot }),
            Direct::Reject(promised) => self.step(at, Input::Reject { promised }),
            Direct::Open(ballot, layout, claim, barrier) => {
                self.step(at, Input::Open { ballot, layout, claim, barrier });
            }
            Direct::Present(vote, hears, asks, damaged) => {
                self.step(at, Input::Present { vote, hears, asks, damaged });
            }
            Direct::Missed(from, ballot, node) => {
                self.step(at, Input::Missed { from, ballot, node });
            }
            Direct::Ask(from, ballot) => self.step(at, Input::Ask { from, ballot }),
            Direct::Lost(from, ballot) => self.step(at, Input::Lost { from, ballot }),
            Direct::Value(id) => self.step(at, Input::Fetched(id)),
            Direct::Entries(orders, ballot) => {
                for order in orders {
                    self.step(at, Input::Decided { order, ballot });
                }
            }
            Direct::Answer(answer) => {
                let promise = PromiseFrom {
                    from: answer.from,
                    incarnation: answer.incarnation,
                    ballot: answer.ballot,
                    before: answer.before,
                    damaged: answer.damaged,
                    first: answer.first,
                    delivered: answer.delivered,
                    orders: &answer.orders,
                };
                self.step(at, Input::Promise(promise));
            }
        }
        true
    }
}
