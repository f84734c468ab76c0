//! What survives a crash, and what a node makes of it.

use chainring_ring::configuration::Configuration;
use chainring_ring::core::Recovered;
use chainring_ring::ids::{Ballot, Claim, Entry, Incarnation, Instance, NodeId, Order, ValueId};
use chainring_ring::sequences::Sequences;
use std::collections::{BTreeMap, BTreeSet};

/// What takes a log ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    Value(ValueId),
    Order(Order),
}

/// Superblock and log; of the log, what recovery reads out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    pub promised: Ballot,
    pub start: u32,
    /// The newest order of each instance.
    pub orders: BTreeMap<Instance, Order>,
    /// The highest ballot of any order, also of those that newer ones replaced.
    pub highest: Ballot,
    pub values: BTreeSet<ValueId>,
    pub claim: Claim,
    /// Part of the log is known to be lost.
    pub damaged: bool,
}

impl Disk {
    /// One commit group.
    pub fn write(&mut self, items: &[Item], claim: Claim) {
        for item in items {
            match item {
                Item::Value(id) => drop(self.values.insert(*id)),
                Item::Order(order) => {
                    self.orders.insert(order.instance, *order);
                    self.highest = self.highest.max(order.ballot);
                }
            }
        }
        if claim.position > self.claim.position {
            self.claim = claim;
        }
    }

    /// The promise that a restart finds.
    pub fn promise(&self) -> Ballot {
        self.promised.max(self.highest)
    }

    /// Everything that can be left of the log after damage: nothing, or all but one item.
    pub fn damaged(&self) -> Vec<Disk> {
        let mut left = Vec::new();
        for instance in self.orders.keys() {
            let mut disk = Disk { damaged: true, ..self.clone() };
            disk.orders.remove(instance);
            left.push(disk);
        }
        for id in &self.values {
            let mut disk = Disk { damaged: true, ..self.clone() };
            disk.values.remove(id);
            left.push(disk);
        }
        let (promised, start) = (self.promised, self.start);
        left.push(Disk { promised, start, damaged: true, ..Disk::default() });
        left
    }

    /// Reads the log as the production recovery does: what the core gets, and what was delivered.
    pub fn recover(&self) -> (Recovered, Vec<(Entry, bool)>) {
        let (mut table, mut log) = (Sequences::default(), Vec::new());
        let voters = (1..=3).map(|id| (NodeId(id), Incarnation(1)));
        let mut configuration = Configuration::first(voters);
        let mut delivered = Instance(0);
        // Behind damage an older order may have become the newest one left.
        let vouched = if self.damaged { Instance(0) } else { self.claim.position };
        while let Some(order) = self.orders.get(&delivered) {
            let claimed = delivered < self.claim.position
                && (order.decided || order.ballot >= self.claim.ballot);
            let held = match order.entry {
                Entry::Value(id) => !table.counts(&id) || self.values.contains(&id),
                _ => true,
            };
            if !(delivered < vouched || claimed) || !held {
                break;
            }
            if let Entry::Membership(change) = order.entry {
                configuration.apply(&change);
            }
            log.push((order.entry, table.apply(&order.entry)));
            delivered = delivered.next();
        }
        let recovered = Recovered {
            promised: self.promise(),
            claim: self.claim,
            delivered,
            orders: self.orders.range(delivered..).map(|(_, order)| *order).collect(),
            values: self.values.iter().copied().filter(|id| !table.is_past(id)).collect(),
            table,
            configuration: Some(configuration),
            damaged: self.damaged,
        };
        (recovered, log)
    }
}
