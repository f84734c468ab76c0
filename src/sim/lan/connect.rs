//! Processes and connections of the simulated network come and go: hosts up and down, dialing and
//! accepting, closing one side or one direction.
//!
//! Invariants: a dialed connection comes about or not after one way there and back, as host and
//! partitions are then; what was sent before a side closes still comes, unless the kernel resets
//! the connection.

use super::flow::{End, Flow};
use super::{Connection, Dial, Host, Lan, Side, wake};
use crate::sim::agenda::What;
use std::collections::VecDeque;
use std::task::Waker;

impl Lan {
    /// A node's process runs and listens.
    pub fn host_up(&mut self, node: u8) {
        let host = &mut self.hosts[usize::from(node)];
        *host = Host { up: true, listening: true, ..Host::default() };
    }

    /// A node's process is gone. With its machine (`power`) nobody is told; otherwise the kernel
    /// resets its connections.
    pub fn host_down(&mut self, node: u8, power: bool) {
        let host = &mut self.hosts[usize::from(node)];
        (host.listening, host.up) = (false, !power);
        (host.listener, host.accepted) = (None, VecDeque::new());
        for index in 0..self.connections.len() {
            for side in 0..2 {
                let own = &mut self.connections[index].sides[side];
                if own.node == node && !own.closed {
                    (own.closed, own.reader, own.writer) = (true, None, None);
                    self.abandon(index, side, power);
                }
            }
        }
    }

    /// A machine has power again; its process may be down still.
    pub fn host_powered(&mut self, node: u8) {
        self.hosts[usize::from(node)].up = true;
    }

    /// The side of a process that is gone.
    fn abandon(&mut self, index: usize, side: usize, power: bool) {
        let at = self.arrival(index, side, 0);
        let connection = &mut self.connections[index];
        connection.flows[1 - side].discard();
        if power {
            // What the network has taken arrives; then there is silence.
            return;
        }
        connection.flows[side].pass_part(at);
        connection.flows[side].end = End::Closed;
        self.announce(index, side, at);
    }

    /// Dials; the outcome comes by [`Lan::dial_state`].
    pub fn dial(&mut self, from: u8, to: u8) -> u32 {
        let side = |node| Side { node, closed: false, reader: None, writer: None };
        let connection = Connection {
            dial: Dial::Pending,
            sides: [side(from), side(to)],
            flows: [Flow::new(), Flow::new()],
            busy: [0; 2],
            give_up: [false; 2],
            timed_out: [false; 2],
        };
        self.connections.push(connection);
        let index = self.connections.len() as u32 - 1;
        let at = self.now() + u64::from(2 * self.weather.delay_us) + 1;
        self.put(at, What::Dialed { connection: index });
        index
    }

    /// A dialed connection comes about or not.
    pub fn on_dialed(&mut self, index: u32) {
        let connection = &self.connections[index as usize];
        let [from, to] = [0, 1].map(|side| usize::from(connection.sides[side].node));
        if connection.sides[0].closed || connection.dial != Dial::Pending {
            return;
        }
        let blocked = self.cuts[from][to] + self.cuts[to][from] > 0;
        let host = &mut self.hosts[to];
        let dial = match () {
            () if blocked || !host.up => Dial::Unreachable,
            () if !host.listening => Dial::Refused,
            () => Dial::Open,
        };
        if dial == Dial::Open {
            host.accepted.push_back(index);
            wake(&mut host.listener);
        }
        let connection = &mut self.connections[index as usize];
        connection.dial = dial;
        wake(&mut connection.sides[0].reader);
    }

    /// How a dialed connection stands.
    pub fn dial_state(&mut self, index: u32, waker: &Waker) -> Dial {
        let connection = &mut self.connections[index as usize];
        if connection.dial == Dial::Pending {
            connection.sides[0].reader = Some(waker.clone());
        }
        connection.dial
    }

    /// The next connection accepted at a node.
    pub fn accept(&mut self, node: u8, waker: &Waker) -> Option<u32> {
        let host = &mut self.hosts[usize::from(node)];
        let accepted = host.accepted.pop_front();
        if accepted.is_none() {
            host.listener = Some(waker.clone());
        }
        accepted
    }

    /// Closes a side, as the last handle of it goes.
    pub fn close(&mut self, index: u32, side: u8) {
        let (index, side) = (index as usize, usize::from(side));
        let own = &mut self.connections[index].sides[side];
        if own.closed {
            return;
        }
        (own.closed, own.reader, own.writer) = (true, None, None);
        let at = self.arrival(index, side, 0);
        let connection = &mut self.connections[index];
        // Unread bytes make a kernel reset the connection; what was sent may be lost then.
        let unread = connection.flows[1 - side].has_bytes();
        connection.flows[1 - side].discard();
        connection.flows[side].pass_part(at);
        if connection.flows[side].end == End::Open {
            connection.flows[side].end = End::Closed;
            if unread && self.random.below(2) == 0 {
                connection.flows[side].reset();
            }
        }
        self.announce(index, side, at);
    }

    /// Ends both directions; the handle stays.
    pub fn shutdown(&mut self, index: u32, side: u8) {
        let (index, side) = (index as usize, usize::from(side));
        let at = self.arrival(index, side, 0);
        let connection = &mut self.connections[index];
        if connection.sides[side].closed {
            return;
        }
        connection.flows[side].pass_part(at);
        if connection.flows[side].end == End::Open {
            connection.flows[side].end = End::Closed;
        }
        let incoming = &mut connection.flows[1 - side];
        incoming.discard();
        (incoming.end, incoming.end_arrived) = (End::Closed, true);
        self.announce(index, side, at);
    }

    /// Ends what this side sends.
    pub fn shutdown_write(&mut self, index: u32, side: u8) {
        let (index, side) = (index as usize, usize::from(side));
        let at = self.arrival(index, side, 0);
        let flow = &mut self.connections[index].flows[side];
        flow.pass_part(at);
        if flow.end == End::Open {
            flow.end = End::Closed;
        }
        self.announce(index, side, at);
    }
}
