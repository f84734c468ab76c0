//! The clients of a simulated world: bursts of requests, answers, and readers.
//!
//! Invariants: no two records of a run are equal, but those that a producer repeats; a request is
//! answered once, and one whose node ends under it has an unknown outcome.

use super::World;
use super::producers::Producer;
use crate::control::catalog::Located;
use crate::mail::{Append, Command, Notice, TopicId};
use crate::records::{Run, records, run_at};
use crate::sim::agenda::What;
use crate::sim::observer::{Answer, OpId, record_hash};
use crate::sim::plan::{Load, Plan};
use crate::sim::random::Random;
use bytes::Bytes;
use chainring_ring::header::HEADER_BYTES;

/// By then all links are up where nothing goes wrong.
const ALL_LINKED_US: u64 = 5_000_000;
/// A topic that did not come into being is proposed again after this.
const CREATE_AGAIN_US: u64 = 2_000_000;

#[derive(Debug)]
pub(super) struct Client {
    node: u8,
    left: u32,
    pub open: u16,
    /// One that repeats what has an unknown outcome.
    pub producer: Option<Producer>,
}

#[derive(Debug)]
struct Request {
    client: Option<u16>,
    node: u8,
    open: bool,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    pub list: Vec<Client>,
    requests: Vec<Request>,
    /// By node and topic: when it was last proposed there.
    created: Vec<Vec<u64>>,
    load: Load,
    pub random: Random,
    /// Requests that are not answered.
    pub open: usize,
    pub answered: u64,
    /// No client begins anything any more.
    pub quiet: bool,
    pub hashes: Vec<u128>,
}

impl Clients {
    pub fn new(plan: &Plan) -> Clients {
        let mut random = Random::stream(plan.seed, "clients");
        let clients = 0..plan.load.clients;
        let client = |random: &mut Random, producer| Client {
            node: random.below(u64::from(plan.nodes)) as u8,
            left: 1,
            open: 0,
            producer,
        };
        let mut list: Vec<_> = clients.map(|_| client(&mut random, None)).collect();
        let producers = 0..plan.load.producers;
        list.extend(producers.map(|number| client(&mut random, Some(Producer::new(number)))));
        Clients {
            list,
            requests: Vec::new(),
            created: vec![vec![0; usize::from(plan.load.topics)]; usize::from(plan.nodes)],
            load: plan.load.clone(),
            random,
            open: 0,
            answered: 0,
            quiet: false,
            hashes: Vec::new(),
        }
    }

    /// Records of a request: each says which request it is of and which of it.
    pub fn records(&mut self, op: u32) -> (Bytes, Vec<u32>) {
        let count = 1 + self.random.below(u64::from(self.load.records));
        let (mut body, mut ends) = (Vec::new(), Vec::new());
        self.hashes.clear();
        for index in 0..count {
            let most = u64::from(self.load.record_bytes.max(17) - 16);
            let length = self.random.below(most) as usize;
            let start = body.len();
            body.extend_from_slice(&op.to_le_bytes());
            body.extend_from_slice(&(index as u32).to_le_bytes());
            let mut fill = self.random.bits();
            for _ in 0..length {
                body.push(fill as u8);
                fill = fill.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            ends.push(body.len() as u32);
            self.hashes.push(record_hash(&body[start..]));
        }
        (body.into(), ends)
    }

    /// A request is on its way; the name of the next one counts on.
    pub fn began(&mut self, node: u8, client: Option<u16>) {
        self.requests.push(Request { client, node, open: true });
        self.open += 1;
        if let Some(client) = client {
            self.list[usize::from(client)].open += 1;
        }
    }

    /// The name of the next request.
    pub fn next_op(&self) -> u32 {
        self.requests.len() as u32
    }

    /// A request ends; false if it had ended before.
    fn answer(&mut self, op: u32, answer: &Answer) -> bool {
        let request = &mut self.requests[op as usize];
        if !std::mem::replace(&mut request.open, false) {
            return false;
        }
        if let Some(client) = request.client {
            let client = &mut self.list[usize::from(client)];
            client.open -= 1;
            if let Some(producer) = &mut client.producer {
                producer.told(op, answer);
            }
        }
        self.open -= 1;
        self.answered += 1;
        true
    }
}

impl World {
    /// Every client has its first call.
    pub(super) fn start_clients(&mut self) {
        // A link that is not up yet is no fault, but what is sent then goes another way.
        let calm = self.plan.is_fault_free() || self.plan.is_drag();
        let from = if calm { ALL_LINKED_US } else { 50_000 };
        for client in 0..self.clients.list.len() as u16 {
            let at = from + self.clients.random.below(200_000);
            self.shared.agenda.borrow_mut().put(at, What::Client { client });
        }
    }

    /// A client does what it does next.
    pub(super) fn on_client(&mut self, client: u16) {
        if self.clients.quiet {
            return;
        }
        let nodes = u64::from(self.plan.nodes);
        let clients = &mut self.clients;
        let one = &mut clients.list[usize::from(client)];
        let wait = match one.left {
            0 => {
                one.left = 1 + clients.random.below(u64::from(clients.load.burst)) as u32;
                one.node = clients.random.below(nodes) as u8;
                clients.random.exponential(clients.load.rest_us)
            }
            _ => clients.random.exponential(clients.load.pause_us),
        };
        let (node, busy) = (one.node, one.open >= clients.load.open);
        if one.left > 0 && !busy {
            one.left -= 1;
            if clients.random.below(4) == 0 {
                self.read_something(node);
            } else if !self.request_of(node, client) {
                self.clients.list[usize::from(client)].left = 0;
            }
        }
        let at = self.now() + wait + 1;
        self.shared.agenda.borrow_mut().put(at, What::Client { client });
    }

    fn request_of(&mut self, node: u8, client: u16) -> bool {
        match self.clients.list[usize::from(client)].producer {
            Some(_) => self.produce(node, client),
            None => self.request(node, Some(client)),
        }
    }

    /// Sends a request to a node; false if there is nobody, or no topic yet.
    pub(super) fn request(&mut self, node: u8, client: Option<u16>) -> bool {
        let Some(topic) = self.some_topic(node) else { return false };
        let op = self.clients.next_op();
        let (body, ends) = self.clients.records(op);
        let sim = &mut self.nodes[usize::from(node)];
        let mut observer = self.shared.observer.borrow_mut();
        observer.invoked(OpId(op), sim.id(), topic, &self.clients.hashes);
        drop(observer);
        self.clients.began(node, client);
        let append = Append::new(u64::from(op), topic, body, ends);
        sim.order(&self.shared, Command::Append(Box::new(append)));
        true
    }

    /// A topic that a node knows; one that it does not is proposed.
    pub(super) fn some_topic(&mut self, node: u8) -> Option<TopicId> {
        let now = self.now();
        let topic = self.clients.random.below(u64::from(self.plan.load.topics)) as usize;
        let sim = &mut self.nodes[usize::from(node)];
        let name = format!("t{topic}");
        let known = sim.alive.as_ref()?.clerk.catalog.borrow().topic(&name);
        if known.is_none() {
            let last = &mut self.clients.created[usize::from(node)][topic];
            if *last == 0 || now >= *last + CREATE_AGAIN_US {
                *last = now;
                sim.order(&self.shared, Command::CreateTopic { name: name.into() });
            }
        }
        known
    }

    /// A shard's answer to a client.
    pub(super) fn on_answer(&mut self, notice: Notice) {
        let (token, answer) = match notice {
            Notice::Appended(append) if append.fence.is_some() => (append.token, Answer::Fenced),
            Notice::Appended(append) if append.producer.is_some() => {
                (append.token, Answer::Registered(append.producer.unwrap_or_default()))
            }
            Notice::Appended(append) => {
                let first = append.first_offset.unwrap_or_default();
                (append.token, Answer::Appended(first, append.last_offset))
            }
            Notice::Refused(append, _) => (append.token, Answer::Refused),
            Notice::Unknown(append) => (append.token, Answer::Unknown),
            _ => return,
        };
        if self.clients.answer(token as u32, &answer) {
            self.shared.observer.borrow_mut().answered(OpId(token as u32), answer);
        }
    }

    /// A node's process is gone: nobody knows what becomes of what it was asked.
    pub(super) fn forget_requests(&mut self, node: u8) {
        for op in 0..self.clients.requests.len() as u32 {
            let request = &self.clients.requests[op as usize];
            if request.open && request.node == node {
                self.clients.answer(op, &Answer::Unknown);
                self.shared.observer.borrow_mut().answered(OpId(op), Answer::Unknown);
            }
        }
        self.clients.created[usize::from(node)].fill(0);
    }

    fn read_something(&mut self, node: u8) {
        let Some(alive) = &self.nodes[usize::from(node)].alive else { return };
        let catalog = alive.clerk.catalog.borrow();
        let random = &mut self.clients.random;
        let Some(topic) = catalog.topics().nth(random.below(3) as usize) else { return };
        if topic.end == topic.first {
            return;
        }
        let (id, offset) = (topic.id, topic.first + random.below(topic.end - topic.first));
        drop(catalog);
        self.read_record(node, id, offset);
    }

    /// Reads a run of records as a reader does. Returns how many; 0 if they could not be read.
    pub(super) fn read_record(&mut self, node: u8, topic: TopicId, offset: u64) -> u64 {
        let sim = &self.nodes[usize::from(node)];
        let Some(alive) = &sim.alive else { return 0 };
        let Located::Run(run) = alive.clerk.catalog.borrow().locate(topic, offset) else {
            return 0;
        };
        let frame = match alive.clerk.reads_disk() {
            true => alive.clerk.read_disk(run.place),
            false => alive.shard.memory_frame(run.place).map(<[u8]>::to_vec),
        };
        let Some(frame) = frame.filter(|frame| run.is_in(frame)) else { return 0 };
        let body = &frame[HEADER_BYTES..];
        let Ok(Run::Records { bytes, .. }) = run_at(body, run.at as usize - HEADER_BYTES) else {
            return 0;
        };
        let mut observer = self.shared.observer.borrow_mut();
        let mut at = run.first_offset;
        for record in records(bytes).skip(run.skip as usize) {
            if at >= offset {
                observer.read(sim.id(), topic, at, record);
            }
            at += 1;
        }
        at - offset
    }
}
