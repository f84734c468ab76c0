//! What nodes say to each other, numbered.
//!
//! Whatever was sent stays to be received: by anybody it is meant for, at any later time, in any
//! order, any number of times or never. That is loss, repetition, reordering and delay at once,
//! and more than a link between neighbours does.

use super::Scope;
use chainring_ring::ids::{Ballot, Claim, Incarnation, Instance, NodeId, Order, ValueId};
use chainring_ring::votes::Vote;
use std::collections::HashMap;

/// A 1B.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    pub from: NodeId,
    pub incarnation: Incarnation,
    pub ballot: Ballot,
    pub before: Ballot,
    pub damaged: bool,
    pub first: Instance,
    pub delivered: Instance,
    pub orders: Vec<Order>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    Prepare(Ballot),
    Answer(Answer),
    /// A coordinator's order, by whatever way.
    Order(Order),
    /// A value packet: on the data link or fetched.
    Value(ValueId),
    Vote(Vote),
    Claim(Claim),
    /// Catch-up: an entry that a peer has delivered, and the ballot of its claim.
    Decided(Order, Ballot),
}

impl Message {
    /// True if `node` may receive what `from` sent.
    fn is_for(&self, node: NodeId, from: NodeId, scope: &Scope) -> bool {
        let at = usize::from(node.0) - 1;
        match self {
            Message::Prepare(_) => node != from,
            Message::Vote(_) => node != from && scope.votes[at],
            Message::Claim(_) => scope.claims[at],
            Message::Decided(..) => node != from && scope.catch_up[at],
            Message::Answer(answer) => node == answer.ballot.node,
            Message::Order(order) => node != order.ballot.node,
            // Fetched again after a crash.
            Message::Value(_) => true,
        }
    }
}

/// All messages that were ever sent in any state.
#[derive(Default)]
pub struct Messages {
    list: Vec<Message>,
    numbers: HashMap<Message, u32>,
}

impl Messages {
    /// The number of a message.
    pub fn number(&mut self, message: Message) -> u32 {
        let next = self.list.len() as u32;
        let list = &mut self.list;
        *self.numbers.entry(message).or_insert_with_key(|message| {
            list.push(message.clone());
            next
        })
    }

    pub fn get(&self, number: u32) -> &Message {
        &self.list[number as usize]
    }

    pub fn is_for(&self, number: u32, node: NodeId, from: NodeId, scope: &Scope) -> bool {
        self.get(number).is_for(node, from, scope)
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }
}
