//! Large faults: a node or part of the network is struck, and mended later.
//!
//! Invariants: what would cost a node its votes meets only the minority that the plan names; a
//! strike counts only if it took effect, and when it does: power when it fails, a partition if it
//! cut a way that was open; after healing there are none.

use super::{DARK_US, World};
use crate::mail::Command;
use crate::recover::RecoverError;
use crate::sim::agenda::What;
use crate::sim::disk::CrashPlan;
use crate::sim::faults::Kind;
use crate::sim::journal::Place;
use crate::sim::node::Turned;
use crate::sim::observer::Stopped;
use crate::sim::plan::{STOP_US, Strike};
use chainring_ring::ids::Durability;
use chainring_storage::LogError;
use chainring_storage::superfile::read_superblock_on;

/// A node that could not start is started again after this.
const BOOT_AGAIN_US: u64 = 300_000;
/// So often the power fails in the middle of a start, in a million.
const START_POWER: u32 = 125_000;
/// At which of its operations that change something, at most.
const START_OPERATIONS: u64 = 20;

/// What became of a strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Took {
    /// Nothing.
    Not,
    /// It is under way, or had another effect than its own.
    Armed,
    /// It took effect.
    Effect,
}

impl Took {
    fn effect(hit: bool) -> Took {
        if hit { Took::Effect } else { Took::Not }
    }
}

impl World {
    /// A large fault of the plan.
    pub(super) fn on_strike(&mut self, index: u32) {
        let strike = self.plan.strikes[index as usize];
        if let Some(next) = self.plan.strikes.get(index as usize + 1) {
            self.put(next.at, What::Strike { index: index + 1 });
        }
        if self.healing || !self.shared.faults.borrow_mut().allows(strike.kind, u64::from(index)) {
            return;
        }
        let took = self.strike(&strike, index);
        if took == Took::Not {
            return;
        }
        let (now, place) = (self.now(), Place::Node(strike.node));
        let mut faults = self.shared.faults.borrow_mut();
        faults.armed(strike.kind, u64::from(index), now, place);
        faults.count(strike.kind, u64::from(took == Took::Effect));
    }

    fn strike(&mut self, strike: &Strike, index: u32) -> Took {
        let node = strike.node;
        let sim = &self.nodes[usize::from(node)];
        let (up, victim) = (sim.alive.is_some(), sim.victim);
        // Whoever forgets its votes by a crash may crash only if it is of the minority.
        let may_crash = self.plan.durability == Durability::Sync || victim;
        match strike.kind {
            Kind::Crash | Kind::Power if up && may_crash => return self.strike_down(strike, index),
            Kind::Stop if up && self.plan.durability != Durability::Memory => {
                self.nodes[usize::from(node)].unplugged =
                    may_crash && strike.detail.is_multiple_of(2);
                self.stop(node);
            }
            Kind::Pause if up && self.now() + strike.lasts > sim.paused_until => {
                let until = self.now() + strike.lasts;
                self.nodes[usize::from(node)].pause(&self.shared, until);
            }
            // One that stands still would take all orders at once, perhaps when all is healed.
            Kind::Campaign if up && self.nodes[usize::from(node)].paused_until <= self.now() => {
                self.nodes[usize::from(node)].order(&self.shared, Command::Campaign);
            }
            Kind::Drag => {
                sim.disk.drag(1_000_000 + strike.detail % 2_000_000);
                self.shared.observer.borrow_mut().dragged(sim.id());
                self.mend_later(strike, index);
            }
            Kind::Clock if up => {
                self.nodes[usize::from(node)].clock.ahead += 1 + strike.detail % 5_000_000;
            }
            Kind::Part if self.plan.nodes > 1 => {
                self.mend_later(strike, index);
                return if self.part(strike) { Took::Effect } else { Took::Armed };
            }
            Kind::Rot if up => return Took::effect(self.rot(node, strike.detail)),
            Kind::CopyBad => return Took::effect(self.spoil_copy(node, strike.detail)),
            Kind::HeadRot if up => return Took::effect(self.rot_head(node)),
            Kind::CopyRot | Kind::SegmentLost | Kind::Misplaced | Kind::Foreign
                if up && may_crash =>
            {
                return self.harm(strike);
            }
            // A log that is full cannot be marked as closed: a stop is as a crash.
            Kind::Full if up && may_crash && self.plan.durability != Durability::Memory => {
                let room = strike.detail % 3 * 8192;
                self.nodes[usize::from(node)].disk.leave_room(room);
                self.mend_later(strike, index);
                // Counted by the writes that find no room.
                return Took::Armed;
            }
            Kind::Mistake if up && may_crash && self.plan.nodes > 1 => {
                self.crash(node, false, 10_000);
                let other = usize::from(node + 1) % usize::from(self.plan.nodes);
                let config = &mut self.nodes[usize::from(node)].config;
                config.cluster.nodes[other].address.push('1');
                self.mend_later(strike, index);
            }
            Kind::Stranger => self.visit(strike),
            Kind::Rush => self.rush(),
            Kind::Member => return Took::effect(self.change_members(node, strike.detail)),
            Kind::DiskLoss if victim && up => {
                self.crash(node, true, strike.lasts + 100_000);
                self.lose_disk(node);
            }
            _ => return Took::Not,
        }
        Took::Effect
    }

    /// Somebody connects and says nothing; seldom more than a node keeps in a handshake.
    fn visit(&self, strike: &Strike) {
        let from = (strike.node + 1) % self.plan.nodes;
        for _ in 0..if strike.detail.is_multiple_of(8) { 70 } else { 1 } {
            self.shared.lan.borrow_mut().dial(from, strike.node);
        }
    }

    /// A process is killed, or a machine loses power: now, in the middle of the next blocking
    /// operation, or about when the next write of the log ends.
    fn strike_down(&mut self, strike: &Strike, index: u32) -> Took {
        let node = usize::from(strike.node);
        let power = strike.kind == Kind::Power;
        let memory = self.plan.durability == Durability::Memory;
        match (power, strike.detail % 4) {
            (true, 0) => self.nodes[node].disk.fail_after(1 + strike.detail / 4 % 12),
            (true, 1..3) | (false, 1..) if !memory => self.nodes[node].aim = Some(index),
            _ => {
                self.crash(strike.node, power, strike.lasts);
                return Took::Effect;
            }
        }
        Took::Armed
    }

    /// A write of a node that is aimed at ends: the blow falls before it does, or a moment later.
    /// True if the write is no more.
    pub(super) fn on_aimed(&mut self, node: u8, life: u32, index: u32) -> bool {
        let Strike { detail, .. } = self.plan.strikes[index as usize];
        let before = !(detail >> 4).is_multiple_of(4);
        match before {
            true => self.on_blow(node, life, index),
            false => {
                let at = self.now() + (detail >> 8) % 64;
                self.put(at, What::Blow { node, life, index });
            }
        }
        before
    }

    /// A blow that was aimed falls.
    pub(super) fn on_blow(&mut self, node: u8, life: u32, index: u32) {
        if self.healing || self.living(node, life).is_none() {
            return;
        }
        let Strike { kind, lasts, .. } = self.plan.strikes[index as usize];
        self.shared.faults.borrow_mut().count(kind, 1);
        self.crash(node, kind == Kind::Power, lasts);
    }

    /// All nodes get requests at once.
    fn rush(&mut self) {
        for node in 0..self.plan.nodes {
            self.request(node, None);
        }
    }

    /// A node's machine goes down, and something happens to its disk meanwhile.
    fn harm(&mut self, strike: &Strike) -> Took {
        let Strike { node, kind, lasts, detail, .. } = *strike;
        if kind != Kind::Foreign && !self.may_spoil(node) {
            return Took::Not;
        }
        let sealed = self.sealed(node);
        self.crash(node, true, lasts + 50_000);
        self.shared.faults.borrow_mut().count(Kind::Power, 1);
        let hit = match kind {
            Kind::CopyRot => self.rot_copies(node, detail),
            Kind::SegmentLost => self.lose_segment(node, detail),
            Kind::Misplaced => self.misplace(node, &sealed, detail),
            _ => self.start_as_another(node, detail),
        };
        if hit { Took::Effect } else { Took::Armed }
    }

    fn mend_later(&self, strike: &Strike, index: u32) {
        self.put(self.now() + strike.lasts, What::Mend { index });
    }

    /// A large fault is over.
    pub(super) fn on_mend(&mut self, index: u32) {
        let strike = self.plan.strikes[index as usize];
        match strike.kind {
            Kind::Full => self.nodes[usize::from(strike.node)].disk.set_capacity(u64::MAX),
            Kind::Mistake => self.correct(strike.node),
            Kind::Drag => self.nodes[usize::from(strike.node)].disk.drag(0),
            _ => {
                let mut lan = self.shared.lan.borrow_mut();
                self.plan.cut_by(&strike).for_each(|(from, to)| lan.mend(from, to));
            }
        }
    }

    /// A mistake in a node's configuration is corrected, and it is started again.
    pub(super) fn correct(&mut self, node: u8) {
        let right = self.plan.config(node);
        let sim = &mut self.nodes[usize::from(node)];
        if sim.config.cluster == right.cluster {
            return;
        }
        sim.config = right;
        if sim.alive.is_some() {
            self.crash(node, false, 10_000);
        }
    }

    /// Cuts the network. True if a way was open.
    fn part(&mut self, strike: &Strike) -> bool {
        let mut lan = self.shared.lan.borrow_mut();
        self.plan.cut_by(strike).filter(|(from, to)| lan.cut(*from, *to)).count() > 0
    }

    /// A node's process is gone, and with `power` its machine. It comes back after `lasts`.
    pub(super) fn crash(&mut self, node: u8, power: bool, lasts: u64) {
        self.go_down(node, power, lasts, false);
    }

    /// The power failed in the middle of an operation of a life. It may have been `ending`.
    pub(super) fn go_dark(&mut self, node: u8, ending: bool) {
        self.shared.faults.borrow_mut().count(Kind::Power, 1);
        self.go_down(node, true, DARK_US, ending);
    }

    /// As [`World::crash`]; a node that was `ending` may just have come to set its mark.
    fn go_down(&mut self, node: u8, power: bool, lasts: u64, ending: bool) {
        let sim = &mut self.nodes[usize::from(node)];
        let alive = sim.alive.take();
        if let Some(alive) = alive {
            let desk = alive.ground.desk.borrow();
            sim.last = desk.placed.iter().max_by_key(|placed| placed.number).copied();
        }
        (sim.booting, sim.aim) = (true, None);
        let storage = &self.plan.storage;
        let plan = CrashPlan {
            affected: 900_000,
            lost: 1_000_000 - storage.keep,
            torn: storage.torn.min(storage.keep),
            names_lost: 500_000,
        };
        let power = power || sim.disk.is_dark();
        // What could not be read may be read again once the machine was off.
        if power && self.random.below(4) == 0 {
            sim.disk.cure_latent();
        }
        let altered = match power {
            true => sim.disk.crash(&mut self.random, plan),
            false => sim.disk.kill(&mut self.random, plan),
        };
        self.shared.faults.borrow_mut().count(Kind::Tear, altered);
        self.shared.lan.borrow_mut().host_down(node, power);
        let sim = &self.nodes[usize::from(node)];
        let how = if ending && self.is_marked(node) { Stopped::Clean } else { Stopped::Crash };
        self.shared.observer.borrow_mut().stopped(sim.id(), how);
        self.forget_requests(node);
        let at = self.now() + lasts;
        self.put(at, What::Boot { node });
    }

    /// True if the next start will find the mark of a clean stop.
    fn is_marked(&self, node: u8) -> bool {
        let sim = &self.nodes[usize::from(node)];
        read_superblock_on(&sim.disk, &sim.config.node.dir).is_ok_and(|found| found.clean)
    }

    /// A node is told to stop in good order.
    fn stop(&mut self, node: u8) {
        self.nodes[usize::from(node)].order(&self.shared, Command::Drain);
        let at = self.now() + STOP_US;
        self.stopping.push((at, node));
        self.put(at, What::Phase);
    }

    /// Nodes that have drained, or had the time for it, end.
    pub(super) fn end_stopping(&mut self) {
        let now = self.now();
        let mut index = 0;
        while index < self.stopping.len() {
            let (at, node) = self.stopping[index];
            if at <= now {
                self.stopping.swap_remove(index);
                self.nodes[usize::from(node)].order(&self.shared, Command::Stop);
            } else {
                index += 1;
            }
        }
    }

    /// A shard ended by itself.
    pub(super) fn on_ended(&mut self, node: u8, turned: Turned) {
        let id = self.nodes[usize::from(node)].id();
        if self.nodes[usize::from(node)].disk.is_dark() {
            return self.go_dark(node, true);
        }
        let unplugged = std::mem::take(&mut self.nodes[usize::from(node)].unplugged);
        let sim = &self.nodes[usize::from(node)];
        if turned != Turned::Clean && self.plan.durability != Durability::Sync && !sim.victim {
            // A stop that ran out of time costs a node its votes: more than the model allows.
            self.plan.beyond = true;
        }
        let how = match turned {
            Turned::Clean => Stopped::Clean,
            Turned::Unclean => Stopped::Crash,
            // Of the mark's own write enough may be there.
            Turned::Failed | Turned::On if self.is_marked(node) => Stopped::Clean,
            Turned::Failed | Turned::On => Stopped::Failure,
        };
        let disk = &self.nodes[usize::from(node)].disk;
        let altered = match unplugged {
            true => disk.crash(&mut self.random, CrashPlan::default()),
            false => disk.kill(&mut self.random, CrashPlan::default()),
        };
        self.shared.faults.borrow_mut().count(Kind::Tear, altered);
        self.shared.faults.borrow_mut().count(Kind::Power, u64::from(unplugged));
        self.shared.lan.borrow_mut().host_down(node, unplugged);
        self.shared.observer.borrow_mut().stopped(id, how);
        if how == Stopped::Clean {
            self.rot_closed(node);
        }
        self.forget_requests(node);
        let sim = &mut self.nodes[usize::from(node)];
        (sim.booting, sim.aim) = (true, None);
        let at = self.now() + 100_000;
        self.put(at, What::Boot { node });
    }

    /// What may go wrong with the start of a node: its power fails once more, or reads do.
    fn endanger(&mut self, node: u8) {
        let exposed = self.random.below(8) == 0;
        let sim = &self.nodes[usize::from(node)];
        let sync = self.plan.durability == Durability::Sync;
        if self.healing || self.plan.is_fault_free() {
            return;
        }
        if sync {
            let mut faults = self.shared.faults.borrow_mut();
            let drawn = faults.draw(Kind::StartPower, START_POWER);
            // Drawn in any case, so that a fault left out moves no other.
            let operations = 1 + faults.stream(Kind::StartPower).below(START_OPERATIONS);
            if drawn {
                return sim.disk.fail_after(operations);
            }
        }
        if exposed && (sync || sim.victim) {
            sim.disk.expose_all();
        }
    }

    /// A node outside the minority calls itself damaged for reads that failed once: one damaged
    /// node more than the fault model allows, and with it a ring may stand until somebody acts
    /// (seed 63 without this). Who runs it starts it again, and the disk reads well.
    fn start_again(&mut self, node: u8, misread: bool) {
        let sim = &mut self.nodes[usize::from(node)];
        let damaged = sim.alive.as_ref().is_some_and(|alive| alive.shard.core().is_damaged());
        if damaged && misread && !sim.victim {
            self.crash(node, false, BOOT_AGAIN_US);
        }
    }

    /// A node starts.
    pub(super) fn on_boot(&mut self, node: u8) {
        let sim = &mut self.nodes[usize::from(node)];
        if sim.alive.is_some() || !sim.booting || self.absent[usize::from(node)] {
            return;
        }
        sim.booting = false;
        self.shared.lan.borrow_mut().host_powered(node);
        self.endanger(node);
        let sim = &mut self.nodes[usize::from(node)];
        let booted = sim.boot(&self.plan, &self.shared);
        sim.disk.shelter();
        sim.disk.fail_no_more();
        let misread = sim.disk.has_misread();
        let mishaps = sim.tell_mishaps(&self.shared);
        // Also behind a start that came to its end: a copy of the superblock may fail.
        if sim.disk.is_dark() {
            let now = self.now();
            self.shared.faults.borrow_mut().took(Kind::StartPower, now, Place::Node(node));
            self.crash(node, true, BOOT_AGAIN_US);
            return self.rot_last(node);
        }
        let Err(error) = booted else { return self.start_again(node, misread) };
        self.refused.push((node, error.to_string()));
        let full = matches!(error, RecoverError::Log(LogError::Full { .. }));
        // What may pass is tried again.
        if self.nodes[usize::from(node)].victim && !full && mishaps.is_empty() {
            // The operator gives it an empty disk and a new incarnation.
            self.lose_disk(node);
            if self.nodes[usize::from(node)].alive.is_some() {
                return;
            }
        }
        self.nodes[usize::from(node)].booting = true;
        let at = self.now() + BOOT_AGAIN_US;
        self.put(at, What::Boot { node });
    }
}
