//! A world: a cluster, its clients and everything that goes wrong, from a seed.
//!
//! ```text
//! plan ─▶ agenda ─▶ turn of a shard · mail of a control thread · bytes arrive · write done ·
//!                   timer · client · strike                    ─▶ observer
//! safety (faults) ─▶ liveness (healed, until all are equal) ─▶ compare of logs and histories
//! ```
//! Invariants: one thread, one agenda, and nothing but the plan decides what happens; the observer
//! is told and says nothing back but that it has seen a violation.

mod clients;
mod finish;
mod harm;
mod members;
mod producers;
mod scrub;
mod strikes;

use crate::mail::{Command, Notice};
use crate::sim::agenda::{Agenda, What};
use crate::sim::disk::Glance;
use crate::sim::faults::{Class, Faults, Kind, Name};
use crate::sim::journal::Journal;
use crate::sim::kernel::{Handle, Shared};
use crate::sim::lan::{Eyes, Lan};
use crate::sim::node::{SimNode, Turned};
use crate::sim::observer::{Observer, Setup, Violation};
use crate::sim::plan::Plan;
use crate::sim::random::Random;
use chainring_ring::header::{HEADER_BYTES, Header, Kind as FrameKind};
use chainring_ring::ids::NodeId;
use chainring_storage::{LogError, create_segment};
use clients::Clients;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// Microseconds from healing to all nodes being equal, at most.
pub const LIVENESS_US: u64 = 30_000_000;
/// How often a healing world is looked at.
const LOOK_US: u64 = 20_000;
/// Once healed, every node is sent a request after this.
const LAST_REQUESTS_US: u64 = 1_000_000;
/// A machine whose power failed in the middle of an operation is back after this.
const DARK_US: u64 = 50_000;
/// A segment that could not be made is tried again after this, as in production.
const SEGMENT_AGAIN_US: u64 = 2_000_000;
/// Ballots that each node may open after healing: the one that it was about to when the faults
/// ended, and one more, if that met a higher promise. From then on candidates wait in turn.
const BALLOTS_AFTER_HEAL: u32 = 2;

/// What became of a world.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Inputs that production loops consumed.
    pub events: u64,
    /// Simulated time.
    pub us: u64,
    /// From healing to all nodes being equal.
    pub healed_us: u64,
    /// Faults that took effect: packet, storage, macro.
    pub faults: [u64; 3],
    /// By kind, in the order of [`Kind::ALL`].
    pub by_kind: Vec<u64>,
    /// Requests that were sent.
    pub requests: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Starts that were refused, with the reason.
    pub refused: Vec<(u8, String)>,
    /// Digest of the whole course.
    pub digest: u64,
    /// The first violation.
    pub violation: Option<Violation>,
}

/// How a world is run.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    /// These faults happen, and no others.
    pub only: Option<BTreeSet<Name>>,
    /// What is written down.
    pub journal: Journal,
    /// Nobody watches: the course must be the same.
    pub blind: bool,
}

/// Hands frames to the observer.
struct Frames(Rc<RefCell<Observer>>);

impl Eyes for Frames {
    fn frame(&mut self, from: u8, to: u8, frame: &[u8]) {
        let Ok(header) = Header::decode(frame, u32::MAX) else { return };
        let (from, to) = (NodeId(from + 1), NodeId(to + 1));
        let mut observer = self.0.borrow_mut();
        match header.kind {
            FrameKind::Value => observer.value_frame(from, &header),
            FrameKind::Orders | FrameKind::Votes => {
                let body = &frame[HEADER_BYTES..HEADER_BYTES + header.length as usize];
                observer.control_frame(from, &header, body);
            }
            kind if kind.is_direct() => observer.direct_frame(from, to, frame),
            _ => {}
        }
    }
}

/// See the file's head.
pub struct World {
    plan: Plan,
    shared: Shared,
    nodes: Vec<SimNode>,
    clients: Clients,
    random: Random,
    /// Nodes that are to end, and when.
    stopping: Vec<(u64, u8)>,
    healing: bool,
    /// Nodes that stay down when the world is healed.
    absent: Vec<bool>,
    healed_at: u64,
    last_requests: bool,
    equal_at: Option<u64>,
    refused: Vec<(u8, String)>,
    answers: Vec<(u8, Notice)>,
    digest: u64,
    /// Inputs consumed so far.
    events: u64,
    /// What the world itself has seen: that it does not settle.
    violation: Option<Violation>,
}

impl World {
    /// A world before its beginning.
    pub fn new(plan: Plan, telling: Telling) -> World {
        let Telling { only, journal, blind } = telling;
        let only = only.map(Arc::new);
        let seed = plan.seed;
        let agenda = Rc::new(RefCell::new(Agenda::default()));
        let faults = Rc::new(RefCell::new(Faults::new(seed, only.clone(), journal.clone())));
        let observer = Rc::new(RefCell::new(Observer::new(Setup {
            nodes: (1..=plan.nodes).filter(|_| !blind).map(NodeId).collect(),
            durability: plan.durability,
            window: u64::from(plan.limits.window_instances),
            fault_free: plan.is_fault_free(),
            drag: plan.is_drag(),
        })));
        let eyes = Rc::new(RefCell::new(Frames(Rc::clone(&observer))));
        let weather = plan.weather.clone();
        let lan = Lan::new(seed, weather, Rc::clone(&agenda), Rc::clone(&faults), eyes);
        let lan = Rc::new(RefCell::new(lan));
        let shared = Shared { agenda, faults, lan, observer, journal };
        World {
            nodes: (0..plan.nodes).map(|index| SimNode::new(index, &plan, only.clone())).collect(),
            clients: Clients::new(&plan),
            absent: vec![false; usize::from(plan.nodes)],
            random: Random::stream(seed, "world"),
            shared,
            plan,
            stopping: Vec::new(),
            healing: false,
            healed_at: 0,
            last_requests: false,
            equal_at: None,
            refused: Vec::new(),
            answers: Vec::new(),
            digest: 0,
            events: 0,
            violation: None,
        }
    }

    /// Lets the world run its course.
    pub fn run(mut self) -> Outcome {
        if self.live() {
            self.compare();
        }
        self.outcome()
    }

    /// All but the compare at the end. False if something is violated already.
    fn live(&mut self) -> bool {
        self.begin();
        let mut over = false;
        while !over && self.shared.observer.borrow().violation().is_none() {
            let Some(what) = self.shared.agenda.borrow_mut().take() else { break };
            let now = self.now();
            self.shared.observer.borrow_mut().now(now);
            over = self.happen(what);
            self.look_around();
        }
        let seen = self.shared.observer.borrow().violation().is_some();
        over && !seen && self.violation.is_none()
    }

    fn begin(&mut self) {
        for node in 0..self.plan.nodes {
            let sim = &mut self.nodes[usize::from(node)];
            sim.disk.set_rates(self.plan.blocking(node));
            sim.booting = true;
            let at = self.random.below(100_000);
            self.put(at, What::Boot { node });
        }
        if let Some(first) = self.plan.strikes.first() {
            self.put(first.at, What::Strike { index: 0 });
        }
        self.put(self.plan.safety_us, What::Phase);
        self.start_clients();
    }

    fn now(&self) -> u64 {
        self.shared.agenda.borrow().now()
    }

    fn put(&self, at: u64, what: What) {
        self.shared.agenda.borrow_mut().put(at, what);
    }

    /// Something happens. True if that was the end.
    fn happen(&mut self, what: What) -> bool {
        match what {
            What::Turn { node, stamp } => self.on_turn(node, stamp),
            What::Mail { node, life } => self.on_mail(node, life),
            What::Arrive { connection, from } => {
                let reached = self.shared.lan.borrow_mut().on_arrive(connection, from);
                if let Some(node) = reached {
                    self.call(node);
                }
            }
            What::Dialed { connection } => self.shared.lan.borrow_mut().on_dialed(connection),
            What::GiveUp { connection, side } => {
                self.shared.lan.borrow_mut().on_give_up(connection, side);
            }
            What::Written { node, life, write } => self.on_written(node, life, write),
            What::Timer { node, life, timer } => {
                if let Some(alive) = self.living(node, life) {
                    alive.timers.fire(timer);
                }
            }
            What::Segment { node, life, number } => self.on_segment(node, life, number),
            What::Client { client } => self.on_client(client),
            What::Boot { node } => self.on_boot(node),
            What::Strike { index } => self.on_strike(index),
            What::Mend { index } => self.on_mend(index),
            What::Blow { node, life, index } => self.on_blow(node, life, index),
            What::Phase => return self.on_phase(),
        }
        false
    }

    /// The life of that number, if it is the one that the node has.
    fn living(&self, node: u8, life: u32) -> Option<&crate::sim::node::Alive> {
        let sim = &self.nodes[usize::from(node)];
        sim.alive.as_ref().filter(|_| sim.lives == life)
    }

    fn call(&mut self, node: u8) {
        let now = self.now();
        self.nodes[usize::from(node)].call(&self.shared, now);
    }

    /// Whoever was woken by what happened gets a turn.
    fn look_around(&mut self) {
        let stirred = self.shared.lan.borrow_mut().take_stirred();
        for node in 0..self.plan.nodes {
            if self.nodes[usize::from(node)].is_flagged() {
                self.nodes[usize::from(node)].mail_later(&self.shared);
            }
            if stirred >> node & 1 == 1 {
                self.call(node);
            }
        }
    }

    fn on_turn(&mut self, node: u8, stamp: u64) {
        let sim = &mut self.nodes[usize::from(node)];
        let before = sim.inputs;
        let turned = sim.on_turn(&self.shared, stamp);
        let taken = sim.inputs - before;
        self.events += taken;
        let mark = taken + (u64::from(node) << 32);
        self.digest = (self.digest ^ mark ^ self.shared.agenda.borrow().now())
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
        if turned != Turned::On {
            self.on_ended(node, turned);
        }
        self.notice_disk(node);
        if self.events >= self.plan.events && !self.healing {
            self.heal();
        }
    }

    /// Power that failed in the middle of an operation takes the whole machine; what else went
    /// wrong is told.
    fn notice_disk(&mut self, node: u8) {
        let sim = &mut self.nodes[usize::from(node)];
        let Glance { dark, mishaps } = sim.disk.glance();
        if mishaps {
            sim.tell_mishaps(&self.shared);
        }
        if sim.alive.is_some() && dark {
            self.go_dark(node, false);
        }
    }

    fn on_mail(&mut self, node: u8, life: u32) {
        if self.living(node, life).is_none() {
            return;
        }
        let mut given = std::mem::take(&mut self.answers);
        let sim = &mut self.nodes[usize::from(node)];
        sim.on_mail(&self.shared, &mut |notice| given.push((node, notice)));
        for (node, notice) in given.drain(..) {
            match notice {
                Notice::NeedSegment { number } => {
                    let at = self.now() + 200 + self.random.below(5_000);
                    let life = self.nodes[usize::from(node)].lives;
                    self.put(at, What::Segment { node, life, number });
                }
                notice => self.on_answer(notice),
            }
        }
        self.answers = given;
        self.notice_disk(node);
    }

    fn on_written(&mut self, node: u8, life: u32, write: u64) {
        if self.living(node, life).is_none() {
            return;
        }
        if let Some(index) = self.nodes[usize::from(node)].aim.take()
            && self.on_aimed(node, life, index)
        {
            return;
        }
        let Some(alive) = self.living(node, life) else { return };
        let ground = alive.ground.clone();
        if ground.complete(write, &mut self.random) {
            self.call(node);
        }
    }

    /// A segment is made, or not.
    fn on_segment(&mut self, node: u8, life: u32, number: u32) {
        let Some(alive) = self.living(node, life) else { return };
        let Some(config) = alive.log.clone() else { return };
        let kept = number.saturating_sub(alive.clerk.first_segment());
        let sim = &mut self.nodes[usize::from(node)];
        let dir = sim.config.node.dir.clone();
        let over = (u64::from(kept) + 1) * u64::from(config.segment_bytes);
        let made = match over > sim.config.limits.log_bytes {
            true => Err(LogError::Full { dir: dir.clone(), bytes: over }),
            false => create_segment(&dir, &config, number),
        };
        let target = match made {
            Ok(()) | Err(LogError::Exists { .. }) => sim.disk.segment(&dir, number).ok(),
            Err(_) => None,
        };
        let command = match target {
            Some(target) => Command::Segment { number, handle: Handle::Segment { number, target } },
            None => {
                let at = self.now() + SEGMENT_AGAIN_US;
                self.put(at, What::Segment { node, life, number });
                Command::NoSegment
            }
        };
        self.nodes[usize::from(node)].order(&self.shared, command);
        self.notice_disk(node);
    }

    fn outcome(mut self) -> Outcome {
        self.nodes.iter_mut().for_each(|sim| drop(sim.tell_mishaps(&self.shared)));
        let mut faults = self.shared.faults.borrow_mut();
        let counts: Vec<_> = self.nodes.iter().map(|sim| sim.disk.counts()).collect();
        // Reads that met a sector which the disk does not give, and writes that met a full disk,
        // are drawn by nobody.
        let latent: u64 = counts.iter().map(|counts| counts.latent_reads).sum();
        let full: u64 = counts.iter().map(|counts| counts.full).sum();
        faults.count(Kind::ReadError, latent);
        let drawn = faults.counted_of(Kind::StoreFull);
        faults.count(Kind::Full, full.saturating_sub(drawn));
        let of = |class| faults.counted(class);
        let classes = [of(Class::Packet), of(Class::Storage), of(Class::Macro)];
        Outcome {
            seed: self.plan.seed,
            events: self.events,
            us: self.now(),
            healed_us: self.equal_at.map_or(0, |at| at - self.healed_at),
            faults: classes,
            by_kind: Kind::ALL.iter().map(|kind| faults.counted_of(*kind)).collect(),
            requests: self.clients.answered + self.clients.open as u64,
            answered: self.clients.answered,
            refused: self.refused.clone(),
            digest: self.digest ^ self.shared.lan.borrow().digest,
            violation: self.violation.or(self.shared.observer.borrow().violation().cloned()),
        }
    }
}

#[cfg(test)]
mod tests;
