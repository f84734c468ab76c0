//! The producers of a simulated world: clients who may repeat a request, at any node.
//!
//! Invariants: a producer goes on with the next records only when all before them were
//! acknowledged, or in a newer epoch; what it repeats is the same records under the same stamp, to
//! the same topic. It is impatient: it repeats also what is still under way.

use super::World;
use crate::mail::{Append, Command, TopicId};
use crate::records::Stamp;
use crate::sim::observer::{Answer, OpId};
use bytes::Bytes;

/// Where ids begin that the producers choose themselves.
const OWN_IDS: u64 = 1000;
/// One of so many batches begins a new epoch, whatever became of the one before.
const EPOCH_IN: u64 = 24;

/// A producer.
#[derive(Debug)]
pub(super) struct Producer {
    id: Option<u64>,
    epoch: u32,
    next: u64,
    batch: Option<Batch>,
    /// Its request for an id.
    asked: Option<u32>,
}

/// Records that are to be appended, once.
#[derive(Clone, Debug)]
struct Batch {
    topic: TopicId,
    body: Bytes,
    ends: Vec<u32>,
    stamp: Stamp,
    /// All requests that carried it.
    ops: Vec<u32>,
    open: u16,
}

impl Producer {
    /// The producers of a world: every second one chooses its id, the others ask for theirs.
    pub fn new(number: u16) -> Producer {
        let id = number.is_multiple_of(2).then_some(OWN_IDS + u64::from(number));
        Producer { id, epoch: 0, next: 0, batch: None, asked: None }
    }

    /// One of its requests ended.
    pub fn told(&mut self, op: u32, answer: &Answer) {
        if self.asked.take_if(|asked| *asked == op).is_some() {
            if let Answer::Registered(id) = answer {
                self.id = Some(*id);
            }
            return;
        }
        let Some(batch) = self.batch.as_mut().filter(|batch| batch.ops.contains(&op)) else {
            return;
        };
        batch.open -= 1;
        if let Answer::Appended(..) = answer {
            self.next += batch.ends.len() as u64;
            self.batch = None;
        }
    }
}

impl World {
    /// A producer sends its records, again if need be; false if there is nobody, or no topic yet.
    pub(super) fn produce(&mut self, node: u8, client: u16) -> bool {
        if self.nodes[usize::from(node)].alive.is_none() {
            return false;
        }
        let op = self.clients.next_op();
        let Some(id) = self.producer(client).id else { return self.register(node, client, op) };
        if self.clients.random.below(EPOCH_IN) == 0 && self.producer(client).next > 0 {
            let producer = self.producer(client);
            (producer.epoch, producer.next, producer.batch) = (producer.epoch + 1, 0, None);
        }
        match self.producer(client).batch.as_ref().map(|batch| batch.open > 0) {
            None => self.first_time(node, client, op, id),
            Some(under_way) => {
                if under_way && self.clients.random.below(4) > 0 {
                    return true; // patience
                }
                self.again(node, client, op)
            }
        }
    }

    fn producer(&mut self, client: u16) -> &mut Producer {
        let producer = self.clients.list[usize::from(client)].producer.as_mut();
        producer.expect("called for a producer")
    }

    fn register(&mut self, node: u8, client: u16, op: u32) -> bool {
        if self.producer(client).asked.is_none() {
            self.producer(client).asked = Some(op);
            self.clients.began(node, Some(client));
            self.order_append(node, Append::registration(u64::from(op)));
        }
        true
    }

    fn first_time(&mut self, node: u8, client: u16, op: u32, id: u64) -> bool {
        let Some(topic) = self.some_topic(node) else { return false };
        let (body, ends) = self.clients.records(op);
        let producer = self.producer(client);
        let stamp = Stamp { producer: id, epoch: producer.epoch, sequence: producer.next };
        let batch = Batch { topic, body, ends, stamp, ops: Vec::new(), open: 0 };
        producer.batch = Some(batch);
        let name = self.nodes[usize::from(node)].id();
        let mut observer = self.shared.observer.borrow_mut();
        observer.produced(OpId(op), name, topic, &self.clients.hashes, stamp);
        drop(observer);
        self.carry(node, client, op);
        true
    }

    fn again(&mut self, node: u8, client: u16, op: u32) -> bool {
        let name = self.nodes[usize::from(node)].id();
        let batch = self.producer(client).batch.as_ref().expect("there is one");
        let (topic, first) = (batch.topic, batch.ops[0]);
        let alive = self.nodes[usize::from(node)].alive.as_ref().expect("looked at before");
        if alive.clerk.catalog.borrow().view(topic).is_none() {
            return false;
        }
        self.shared.observer.borrow_mut().repeated(OpId(op), OpId(first), name);
        self.carry(node, client, op);
        true
    }

    /// Sends the batch under a name.
    fn carry(&mut self, node: u8, client: u16, op: u32) {
        let batch = self.producer(client).batch.as_mut().expect("there is one");
        batch.ops.push(op);
        batch.open += 1;
        let Batch { topic, body, ends, stamp, .. } = batch.clone();
        self.clients.began(node, Some(client));
        let append = Append::new(u64::from(op), topic, body, ends).stamped(Some(stamp));
        self.order_append(node, append);
    }

    fn order_append(&mut self, node: u8, append: Append) {
        let sim = &mut self.nodes[usize::from(node)];
        sim.order(&self.shared, Command::Append(Box::new(append)));
    }
}
