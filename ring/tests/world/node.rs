//! One simulated node: the core, and a log and superblock that survive crashes.
//!
//! Invariants: a commit group is on the disk whole or not at all; a crash keeps a prefix of the
//! groups in flight; what is recovered is a function of the disk alone.

use super::random::Random;
use chainring_ring::actions::Actions;
use chainring_ring::configuration::Configuration;
use chainring_ring::core::{Core, Recovered, Settings};
use chainring_ring::ids::{
    Ballot, Claim, Durability, Entry, Incarnation, Instance, NodeId, Order, Session, ValueId,
};
use chainring_ring::sequences::Sequences;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What takes a log ticket.
#[derive(Clone, Copy, Debug)]
pub enum Item {
    Value(ValueId),
    Order(Order),
}

/// One write: the order block names what the node had delivered when it was filled.
#[derive(Clone, Debug)]
pub struct Group {
    pub items: Vec<Item>,
    pub claim: Claim,
    pub last_ticket: u64,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub groups: Vec<Group>,
    pub promised: Ballot,
    pub start: u32,
    /// The first group that is damaged.
    pub damaged: Option<usize>,
}

/// A node, up or down.
pub struct Node {
    pub id: NodeId,
    pub core: Option<Core>,
    pub incarnation: Incarnation,
    pub disk: Disk,
    pub pending: Vec<Item>,
    pub in_flight: VecDeque<Group>,
    pub logged: Claim,
    pub promise: Option<Ballot>,
    pub session_due: bool,
    /// What was delivered: the log that peers are served from.
    pub log: Vec<(Order, bool)>,
    /// What is durable of the disk, to judge votes by.
    pub durable_orders: BTreeMap<Instance, BTreeSet<Ballot>>,
    pub durable_values: BTreeSet<ValueId>,
    /// Ids of own values of this life, in order of proposal.
    pub proposed: Vec<ValueId>,
    pub actions: Actions,
}

impl Node {
    pub fn new(id: NodeId) -> Node {
        Node {
            id,
            core: None,
            incarnation: Incarnation(1),
            disk: Disk::default(),
            pending: Vec::new(),
            in_flight: VecDeque::new(),
            logged: Claim::default(),
            promise: None,
            session_due: false,
            log: Vec::new(),
            durable_orders: BTreeMap::new(),
            durable_values: BTreeSet::new(),
            proposed: Vec::new(),
            actions: Actions::new(),
        }
    }

    pub fn up(&self) -> bool {
        self.core.is_some()
    }

    pub fn core(&self) -> &Core {
        self.core.as_ref().expect("the node is up")
    }

    /// Starts the node from its disk.
    pub fn start(&mut self, nodes: &[NodeId], durability: Durability, window: u64) {
        assert!(!self.up());
        if durability != Durability::Sync && self.disk.start > 0 {
            self.incarnation.0 += 1;
            self.disk = Disk { start: self.disk.start, ..Disk::default() };
        }
        self.disk.start += 1;
        let session = Session { incarnation: self.incarnation, start: self.disk.start };
        let first = Configuration::first(nodes.iter().map(|node| (*node, Incarnation(1))));
        let (recovered, log) = recover(&self.disk, first);
        self.log = log;
        self.logged = recovered.claim;
        self.note_durable();
        let settings = Settings {
            nodes: nodes.to_vec(),
            voters: vec![Incarnation(1); nodes.len()],
            me: self.id,
            incarnation: self.incarnation,
            session,
            durability,
            window,
            seed: u64::from(self.id.0),
            patience: 5,
        };
        self.core = Some(Core::new(settings, recovered));
    }

    /// Stops the node: a prefix of the writes in flight survives.
    pub fn crash(&mut self, random: &mut Random) {
        let kept = random.below(self.in_flight.len() as u64 + 1) as usize;
        self.disk.groups.extend(self.in_flight.drain(..kept));
        if let Some(promise) = self.promise.take()
            && random.one_in(2)
        {
            self.disk.promised = self.disk.promised.max(promise);
        }
        self.in_flight.clear();
        self.pending.clear();
        self.proposed.clear();
        self.session_due = false;
        self.actions.clear();
        self.core = None;
    }

    /// Loses some of what the log holds: known to be damaged from now on.
    pub fn damage(&mut self, random: &mut Random) {
        let share = 2 + random.below(8);
        for (index, group) in self.disk.groups.iter_mut().enumerate() {
            let before = group.items.len();
            group.items.retain(|_| !random.one_in(share));
            if group.items.len() < before {
                let first = self.disk.damaged.get_or_insert(index);
                *first = index.min(*first);
            }
        }
    }

    /// Submits a group of all that is pending; false if there is nothing to write.
    pub fn submit(&mut self) -> bool {
        let core = self.core.as_ref().expect("the node is up");
        let claim = core.claim_to_log(self.logged.position, core.appended());
        if self.pending.is_empty() && claim == self.logged {
            return false;
        }
        self.logged = claim;
        let items = std::mem::take(&mut self.pending);
        self.in_flight.push_back(Group { items, claim, last_ticket: core.appended() });
        true
    }

    /// The oldest write in flight is durable; its last ticket.
    pub fn complete(&mut self) -> Option<u64> {
        let group = self.in_flight.pop_front()?;
        let last = group.last_ticket;
        self.note_items(&group.items);
        self.disk.groups.push(group);
        Some(last)
    }

    fn note_items(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Value(id) => {
                    self.durable_values.insert(*id);
                }
                Item::Order(order) => {
                    self.durable_orders.entry(order.instance).or_default().insert(order.ballot);
                }
            }
        }
    }

    fn note_durable(&mut self) {
        self.durable_orders.clear();
        self.durable_values.clear();
        let groups = std::mem::take(&mut self.disk.groups);
        groups.iter().for_each(|group| self.note_items(&group.items));
        self.disk.groups = groups;
    }
}

/// Reads the log as the production recovery does.
fn recover(disk: &Disk, first: Configuration) -> (Recovered, Vec<(Order, bool)>) {
    let (mut orders, mut values) = (BTreeMap::new(), BTreeSet::new());
    let (mut promised, mut claim) = (disk.promised, Claim::default());
    let mut vouched = Instance(0);
    let intact = disk.damaged.unwrap_or(usize::MAX);
    for (index, group) in disk.groups.iter().enumerate() {
        for item in &group.items {
            match item {
                Item::Value(id) => {
                    values.insert(*id);
                }
                Item::Order(order) => {
                    orders.insert(order.instance, *order);
                    promised = promised.max(order.ballot);
                }
            }
        }
        if group.claim.position > claim.position {
            claim = group.claim;
            // Behind damage an older order may have become the newest one left.
            vouched = if index < intact { claim.position } else { vouched };
        }
    }
    let (mut table, mut log) = (Sequences::default(), Vec::new());
    let mut configuration = first;
    let mut delivered = Instance(0);
    while let Some(order) = orders.get(&delivered) {
        let claimed = delivered < claim.position && (order.decided || order.ballot >= claim.ballot);
        let authorised = delivered < vouched || claimed;
        let held = match order.entry {
            Entry::Value(id) => !table.counts(&id) || values.contains(&id),
            _ => true,
        };
        if !authorised || !held {
            break;
        }
        if let Entry::Membership(change) = order.entry {
            configuration.apply(&change);
        }
        log.push((*order, table.apply(&order.entry)));
        delivered = delivered.next();
    }
    let values = values.into_iter().filter(|id| !table.is_past(id)).collect();
    let orders = orders.range(delivered..).map(|(_, order)| *order).collect();
    let damaged = disk.damaged.is_some();
    let configuration = Some(configuration);
    let recovered =
        Recovered { promised, claim, delivered, table, configuration, orders, values, damaged };
    (recovered, log)
}
