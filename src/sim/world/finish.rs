//! The end of a world: it heals, all nodes become equal, and everything is compared.
//!
//! Invariants: after healing nothing goes wrong any more; every log is read back whole, by the
//! production readers, before the observer compares.

use super::{BALLOTS_AFTER_HEAL, LAST_REQUESTS_US, LIVENESS_US, LOOK_US, World};
use crate::control::catalog::Located;
use crate::mail::TopicId;
use crate::sim::agenda::What;
use crate::sim::disk::Rates;
use crate::sim::faults::Kind;
use crate::sim::journal::Place as Where;
use crate::sim::observer::{FinalNode, Invariant, Violation};
use chainring_ring::core::Core;
use chainring_ring::ids::Ballot;
use chainring_storage::{Place, segment_path};

/// A world that is worse than the fault model is looked at for so long.
const BEYOND_US: u64 = 3_000_000;
/// Longer than a world lasts.
const ABSENT_US: u64 = 1_000_000_000_000;

impl World {
    /// A phase may be over. True if that is the end.
    pub(super) fn on_phase(&mut self) -> bool {
        self.end_stopping();
        if !self.healing {
            if self.now() >= self.plan.safety_us {
                self.heal();
            }
            return false;
        }
        self.complete_members();
        let now = self.now();
        if !self.last_requests && now >= self.healed_at + LAST_REQUESTS_US {
            self.last_requests = true;
            for node in 0..self.plan.nodes {
                self.last_requests &= self.is_absent(node) || self.request(node, None);
            }
        }
        if self.last_requests && self.clients.open == 0 && self.are_equal() {
            if self.bring_back() {
                return false;
            }
            self.equal_at = Some(now);
            return true;
        }
        if self.plan.beyond && now >= self.healed_at + BEYOND_US {
            return true;
        }
        if now >= self.healed_at + LIVENESS_US {
            self.say_unsettled();
            return true;
        }
        self.put(now + LOOK_US, What::Phase);
        false
    }

    pub(super) fn heal(&mut self) {
        self.healing = true;
        self.healed_at = self.now();
        self.clients.quiet = true;
        self.choose_absent();
        self.shared.faults.borrow_mut().stop();
        self.shared.lan.borrow_mut().heal();
        let absent = self.absent.iter().filter(|absent| **absent).count() as u32;
        // Whoever is admitted after that comes into the circle by a ballot as well.
        let outside = self.outsiders();
        let nodes = u32::from(self.plan.nodes);
        let most = BALLOTS_AFTER_HEAL * (1 + absent + outside) * nodes;
        let ballots = if self.plan.beyond { u32::MAX } else { most };
        self.shared.observer.borrow_mut().healed(ballots);
        let now = self.now();
        (0..self.plan.nodes).for_each(|node| self.correct(node));
        for sim in &mut self.nodes {
            sim.disk.set_rates(Rates::default());
            sim.disk.set_capacity(u64::MAX);
            sim.disk.drag(0);
            sim.aim = None;
            sim.paused_until = sim.paused_until.min(now);
            sim.recall(&self.shared);
        }
        for node in 0..self.plan.nodes {
            if self.is_absent(node) && self.nodes[usize::from(node)].alive.is_some() {
                self.crash(node, true, ABSENT_US);
            }
        }
        self.put(now + LOOK_US, What::Phase);
    }

    /// Some of the minority stay down, where that may happen.
    fn choose_absent(&mut self) {
        let now = self.now();
        let mut faults = self.shared.faults.borrow_mut();
        for node in (0..self.plan.nodes).filter(|node| self.plan.absent[usize::from(*node)]) {
            if faults.allows(Kind::Absent, u64::from(node)) {
                faults.happened((Kind::Absent, u64::from(node)), now, Where::Node(node));
                self.absent[usize::from(node)] = true;
            }
        }
    }

    /// True if the node stays down for now, though all else is healed.
    pub(super) fn is_absent(&self, node: u8) -> bool {
        self.absent[usize::from(node)]
    }

    /// The others have come to rest without them: who was absent starts. False if nobody was.
    fn bring_back(&mut self) -> bool {
        if !self.absent.contains(&true) {
            return false;
        }
        let now = self.now();
        let none = vec![false; self.absent.len()];
        let absent = std::mem::replace(&mut self.absent, none);
        for node in (0..self.plan.nodes).filter(|node| absent[usize::from(*node)]) {
            self.put(now, What::Boot { node });
        }
        (self.healed_at, self.last_requests) = (now, false);
        self.put(now + LOOK_US, What::Phase);
        true
    }

    /// All nodes run, have delivered the same, know so, and have it in their logs. Where a majority
    /// has forgotten, what is equal need not be all that there was.
    fn are_equal(&self) -> bool {
        let present = || self.nodes.iter().zip(&self.absent).filter(|(_, absent)| !**absent);
        let mut cores = present().map(|(sim, _)| Some(sim.alive.as_ref()?.shard.core()));
        let Some(Some(first)) = cores.next() else { return false };
        let position = first.delivered();
        let same = |core: Option<&Core>| {
            core.is_some_and(|core| core.delivered() == position && !core.is_forgotten())
        };
        let shown = |sim: &crate::sim::node::SimNode| {
            let alive = sim.alive.as_ref();
            alive.is_some_and(|alive| {
                alive.clerk.catalog.borrow().delivered() == position && alive.shard.is_written()
            })
        };
        same(Some(first))
            && cores.all(same)
            && present().all(|(sim, _)| shown(sim))
            && self.members_are_whole()
    }

    fn say_unsettled(&mut self) {
        let mut what = format!("{} requests are open;", self.clients.open);
        for sim in &self.nodes {
            let state = match &sim.alive {
                Some(alive) => {
                    let (core, standing) = (say(alive.shard.core()), alive.shard.standing());
                    format!("{core}, {standing}, {:?}", alive.problems())
                }
                None => "down".to_owned(),
            };
            what.push_str(&format!(" node {}: {state};", sim.id().0));
        }
        let (invariant, at_us, node) = (Invariant::L1, self.now(), None);
        self.violation = Some(Violation { invariant, at_us, node, what });
    }

    /// Reads every log back and compares all: also where the world was worse than the fault model
    /// and did not settle, what is there must be right.
    pub(super) fn compare(&mut self) {
        if self.equal_at.is_some() {
            self.scrub();
        }
        (0..self.plan.nodes).for_each(|node| self.read_all(node));
        let living = || self.nodes.iter().filter_map(|sim| Some((sim.id(), sim.alive.as_ref()?)));
        let ends: Vec<Vec<u64>> = living()
            .map(|(_, alive)| alive.clerk.catalog.borrow().topics().map(|t| t.end).collect())
            .collect();
        let list: Vec<FinalNode<'_>> = living()
            .zip(&ends)
            .map(|((node, alive), ends)| {
                let (shard, told) = (&alive.shard, alive.clerk.catalog.borrow().delivered());
                FinalNode { node, core: shard.core(), digest: shard.digest(), told, ends }
            })
            .collect();
        let whole = self.equal_at.is_some();
        self.shared.observer.borrow_mut().finish(&list, whole);
    }

    pub(super) fn read_topic(&mut self, node: u8, topic: TopicId, first: u64, end: u64) {
        let mut at = first;
        while at < end {
            match self.read_record(node, topic, at) {
                // Rot that only the next start repairs.
                0 if self.is_spoilt(node, topic, at) => {
                    // Where nobody else holds it, it is lost, and nothing else is said.
                    if self.plan.nodes == 1 {
                        self.shared.observer.borrow_mut().rotten(topic, at);
                    }
                    at += 1;
                }
                // Perhaps it is not written yet, or the read failed for once.
                0 if self.equal_at.is_none() => at += 1,
                0 => {
                    let what = format!("topic {} offset {at} cannot be read any more", topic.0);
                    let (invariant, at_us) = (Invariant::D7, self.now());
                    let node = Some(self.nodes[usize::from(node)].id());
                    self.violation.get_or_insert(Violation { invariant, at_us, node, what });
                    break;
                }
                count => at += count,
            }
        }
    }

    /// True if the disk does not hold what was written to the place of a record, and no look over
    /// the log could have brought it back.
    fn is_spoilt(&self, node: u8, topic: TopicId, offset: u64) -> bool {
        let sim = &self.nodes[usize::from(node)];
        let Some(alive) = sim.alive.as_ref().filter(|alive| alive.clerk.reads_disk()) else {
            return false;
        };
        let Located::Run(run) = alive.clerk.catalog.borrow().locate(topic, offset) else {
            return false;
        };
        let place = Place { at: run.place.at, bytes: run.place.bytes };
        let from = u64::from(place.offset());
        let path = segment_path(&sim.config.node.dir, place.segment());
        let spoilt = sim.disk.is_spoilt(&path, &(from..from + u64::from(place.bytes)));
        let at_rest = self.equal_at.is_some();
        spoilt && !(at_rest && self.is_repairable(node, run.id, run.place))
    }
}

fn say(core: &Core) -> String {
    let Ballot { round, node, incarnation } = core.promised();
    format!(
        "ballot {round}.{}.{}, received {}, durable {}, claim {}, delivered {}",
        node.0,
        incarnation.0,
        core.received().0,
        core.durable().0,
        core.claim().position.0,
        core.delivered().0
    )
}
