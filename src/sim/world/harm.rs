//! Faults of what lies on disks, at rest or below a running node.
//!
//! Invariants: what can be spoilt is what the plan names; what a recovery is bound to notice
//! excuses nobody, and the observer is told of the rest; a start that must be refused is judged.

use super::World;
use crate::sim::disk::{Bad, DiskHandle, Rates, Rot};
use crate::sim::faults::Kind;
use crate::sim::journal::Place;
use crate::sim::kernel::Placed;
use crate::sim::observer::Stopped;
use chainring_ring::ids::{Durability, Incarnation};
use chainring_storage::superblock::SUPERBLOCK_BYTES;
use chainring_storage::superfile::{COPIES, COPY_DISTANCE, read_superblock_on, superblock_path};
use chainring_storage::{Superblock, SuperblockFile, list_segments, segment_path};
use std::path::PathBuf;

/// Places of one node that are spoilt: a superblock lists no more than twice as many.
const SPOILT_MAX: u32 = 6;
/// Groups that count as written just now.
const RECENT: usize = 8;
/// Groups begin at a multiple of this.
const GROUP_ALIGN: u64 = 4096;

impl World {
    /// The disk of a node that is down is lost, or of no use. A start without it must be refused;
    /// then the node gets an empty one and comes back as a new incarnation.
    pub(super) fn lose_disk(&mut self, node: u8) {
        let sim = &mut self.nodes[usize::from(node)];
        sim.disk.lose();
        sim.disk.set_capacity(u64::MAX);
        let id = sim.id();
        self.shared.observer.borrow_mut().stopped(id, Stopped::DiskLost);
        let sim = &mut self.nodes[usize::from(node)];
        if sim.boot(&self.plan, &self.shared).is_ok() {
            // It was told what has become of the node's memory.
            return;
        }
        (sim.incarnation, sim.rotten) = (sim.incarnation + 1, 0);
        let config = &sim.config;
        let made = Superblock::new(
            crate::recover::identity(config),
            self.plan.durability,
            self.plan.block,
            self.plan.nodes,
        );
        let superblock = Superblock {
            configuration: config.config_hash(),
            incarnation: Incarnation(sim.incarnation),
            remembers: false,
            ..made
        };
        let disk = sim.disk.shared();
        let dir = &config.node.dir;
        // Whoever replaces a disk takes one that works.
        let rates = sim.disk.set_rates(Rates::default());
        disk.create_dir_all(dir).expect("an empty disk takes a directory");
        SuperblockFile::create(&*disk, dir, &superblock, false).expect("an empty disk has room");
        sim.disk.set_rates(rates);
    }

    /// True if one more place of this node's log may be spoilt. Alone it has one: of two, the
    /// second may be the only word of the first.
    pub(super) fn may_spoil(&self, node: u8) -> bool {
        let most = if self.plan.nodes == 1 { 1 } else { SPOILT_MAX };
        self.plan.may_spoil(node) && self.nodes[usize::from(node)].rotten < most
    }

    /// Groups on stable media of which a later one says that they are complete.
    pub(super) fn sealed(&self, node: u8) -> Vec<Placed> {
        let Some(alive) = &self.nodes[usize::from(node)].alive else { return Vec::new() };
        let desk = alive.ground.desk.borrow();
        desk.placed.iter().filter(|placed| placed.number <= desk.sealed).copied().collect()
    }

    fn segment(&self, node: u8, number: u32) -> PathBuf {
        segment_path(&self.nodes[usize::from(node)].config.node.dir, number)
    }

    /// The segments that a node has, but for the last.
    fn segments(&self, node: u8) -> Vec<u32> {
        let sim = &self.nodes[usize::from(node)];
        let list = list_segments(&sim.disk, &sim.config.node.dir).unwrap_or_default();
        let but_last = list.len().saturating_sub(1);
        list[..but_last].iter().map(|(number, _)| *number).collect()
    }

    /// A place of a node's log is spoilt, and something left says that it was whole.
    fn harmed(&mut self, node: u8) {
        let sim = &mut self.nodes[usize::from(node)];
        sim.rotten += 1;
        self.shared.observer.borrow_mut().disk_harmed(sim.id());
    }

    /// Sealed sectors of a node's log rot at rest; readers come across them at once.
    pub(super) fn rot(&mut self, node: u8, detail: u64) -> bool {
        let sealed = self.sealed(node);
        let mut any = false;
        for _ in 0..1 + detail % 4 {
            if sealed.is_empty() || !self.may_spoil(node) {
                break;
            }
            let placed = self.pick_of(&sealed, detail >> 8);
            if self.rot_in(node, &placed) {
                self.harmed(node);
                any = true;
            }
        }
        if any {
            self.read_all(node);
        }
        any
    }

    /// One of these groups: of the last ones, which others may not know yet; of those by which an
    /// older order comes to light again; or any.
    fn pick_of(&mut self, sealed: &[Placed], how: u64) -> Placed {
        let overwrites: Vec<Placed> = sealed.iter().filter(|p| p.overwrites).copied().collect();
        let list = match how % 4 {
            0 => &sealed[sealed.len().saturating_sub(RECENT)..],
            2 if !overwrites.is_empty() => &overwrites[..],
            _ => sealed,
        };
        *self.random.pick(list)
    }

    fn rot_in(&mut self, node: u8, placed: &Placed) -> bool {
        let at = placed.at + self.random.below(u64::from(placed.bytes));
        let rot = [Rot::Flip, Rot::Zero, Rot::Garbage, Rot::Latent][self.random.below(4) as usize];
        let path = self.segment(node, placed.segment);
        let hit = self.nodes[usize::from(node)].disk.rot(&path, at, rot, &mut self.random);
        if hit && rot == Rot::Latent {
            self.shared.faults.borrow_mut().count(Kind::Latent, 1);
        }
        hit
    }

    /// The header of a segment rots, which costs nothing: every group names its log.
    pub(super) fn rot_head(&mut self, node: u8) -> bool {
        let segments = self.segments(node);
        if segments.is_empty() || !self.plan.may_spoil(node) {
            return false;
        }
        let number = *self.random.pick(&segments);
        let path = self.segment(node, number);
        self.nodes[usize::from(node)].disk.rot(&path, 0, Rot::Garbage, &mut self.random)
    }

    /// A copy of a node's superblock is bad for good, once all four hold the same.
    pub(super) fn spoil_copy(&mut self, node: u8, detail: u64) -> bool {
        let sim = &self.nodes[usize::from(node)];
        let dir = &sim.config.node.dir;
        let Ok(superblock) = read_superblock_on(&sim.disk, dir) else { return false };
        if sim.disk.stable_superblocks(dir, &superblock) < COPIES {
            return false;
        }
        let at = detail % COPIES as u64 * COPY_DISTANCE;
        let how = Bad::ALL[(detail >> 8) as usize % Bad::ALL.len()];
        sim.disk.set_bad(&superblock_path(dir), Some((at..at + SUPERBLOCK_BYTES as u64, how)))
    }

    /// Copies of the superblock of a node that is down rot, if none is bad for good. Two that agree
    /// are left, or none is, and with them the node has lost its memory.
    pub(super) fn rot_copies(&mut self, node: u8, detail: u64) -> bool {
        let sim = &mut self.nodes[usize::from(node)];
        let path = superblock_path(&sim.config.node.dir);
        if sim.disk.is_bad(&path) {
            return false;
        }
        let (count, first) = (1 + detail % COPIES as u64, detail >> 16);
        let rot = match detail >> 8 & 3 {
            0 => Rot::Zero,
            // It may pass: no reason to say that a memory is lost.
            1 if count <= 2 => Rot::Latent,
            _ => Rot::Garbage,
        };
        let copies = (0..count).map(|copy| (first + copy) % COPIES as u64);
        let mut spoilt = 0;
        for copy in copies {
            spoilt += usize::from(sim.disk.rot(&path, copy * COPY_DISTANCE, rot, &mut self.random));
        }
        if spoilt > COPIES - 2 {
            self.shared.observer.borrow_mut().stopped(sim.id(), Stopped::DiskLost);
        }
        spoilt > 0
    }

    /// A segment of a node that is down is gone, below one that is there: so it is noticed.
    pub(super) fn lose_segment(&mut self, node: u8, detail: u64) -> bool {
        let segments = self.segments(node);
        let Some(last) = segments.last() else { return false };
        // Mostly the one that was written last: no later group says that it was there.
        let number = if detail.is_multiple_of(3) { *self.random.pick(&segments) } else { *last };
        let path = self.segment(node, number);
        let hit = self.nodes[usize::from(node)].disk.lose_file(&path);
        if hit {
            self.harmed(node);
        }
        hit
    }

    /// A group of a node that is down lies where another one should: an old one behind the end of
    /// the log, or a later one in the place of the one before it.
    pub(super) fn misplace(&mut self, node: u8, sealed: &[Placed], detail: u64) -> bool {
        let Some(last) = self.nodes[usize::from(node)].last else { return false };
        let here = |placed: &&Placed| placed.segment == last.segment;
        let end =
            |placed: &Placed| (placed.at + u64::from(placed.bytes)).next_multiple_of(GROUP_ALIGN);
        let run = |placed: &Placed| placed.at..end(placed);
        let list: Vec<Placed> = sealed.iter().filter(here).copied().collect();
        if list.len() < 2 {
            return false;
        }
        let path = self.segment(node, last.segment);
        let disk = &self.nodes[usize::from(node)].disk;
        if detail.is_multiple_of(2) {
            // It says itself that it is an old one: no excuse.
            return disk.misplace(&path, run(&list[0]), end(&last));
        }
        let index = (detail >> 8) as usize % (list.len() - 1);
        let (one, next) = (list[index], list[index + 1]);
        let hit = next.number == one.number + 1 && disk.misplace(&path, run(&next), one.at);
        if hit {
            self.harmed(node);
        }
        hit
    }

    /// The machine lost its power in the middle of a start, and what was written last rots.
    pub(super) fn rot_last(&mut self, node: u8) {
        let sim = &self.nodes[usize::from(node)];
        let Some(last) = sim.last.filter(|_| self.may_spoil(node) && self.plan.nodes > 1) else {
            return;
        };
        let drawn = self.shared.faults.borrow_mut().draw(Kind::LastRot, self.plan.storage.last_rot);
        if drawn && self.rot_in(node, &last) {
            let now = self.now();
            self.shared.faults.borrow_mut().took(Kind::LastRot, now, Place::Node(node));
            let sim = &mut self.nodes[usize::from(node)];
            sim.rotten += 1;
            self.shared.observer.borrow_mut().disk_lied(sim.id());
        }
    }

    /// The end of a log rots that was closed in good order: groups of which the superblock alone
    /// says that they are complete.
    pub(super) fn rot_closed(&mut self, node: u8) {
        let sim = &mut self.nodes[usize::from(node)];
        let placed = std::mem::take(&mut sim.placed);
        let superblock = read_superblock_on(&sim.disk, &sim.config.node.dir);
        let sealed = superblock.map_or(0, |superblock| superblock.sealed);
        let covered = placed.iter().all(|placed| placed.number <= sealed);
        let rate = self.plan.storage.last_rot;
        if placed.is_empty() || !covered || self.plan.nodes == 1 || !self.may_spoil(node) {
            return;
        }
        if !self.shared.faults.borrow_mut().draw(Kind::LastRot, rate) {
            return;
        }
        let count = 1 + self.random.below(RECENT as u64) as usize;
        let mut hit = false;
        for placed in placed.iter().rev().take(count) {
            let path = self.segment(node, placed.segment);
            let rot = if self.random.coin() { Rot::Zero } else { Rot::Garbage };
            let disk = &self.nodes[usize::from(node)].disk;
            hit |= disk.rot(&path, placed.at, rot, &mut self.random);
        }
        if !hit {
            return;
        }
        // Side by side they are one place.
        self.harmed(node);
        let now = self.now();
        self.shared.faults.borrow_mut().took(Kind::LastRot, now, Place::Node(node));
    }

    /// A node that is down is started on what is another's, which must be refused; then it gets its
    /// own back.
    pub(super) fn start_as_another(&mut self, node: u8, detail: u64) -> bool {
        let other = (node + 1 + (detail >> 8) as u8 % self.plan.nodes) % self.plan.nodes;
        if other == node {
            return false;
        }
        let Some(disk) = self.disk_of_another(node, other, detail) else { return false };
        disk.set_rates(Rates::default());
        let sim = &mut self.nodes[usize::from(node)];
        let own = std::mem::replace(&mut sim.disk, disk);
        let booted = sim.boot(&self.plan, &self.shared).is_ok();
        sim.disk = own;
        if booted {
            self.shared.observer.borrow_mut().started_as_another(sim.id());
        }
        true
    }

    fn disk_of_another(&self, node: u8, other: u8, detail: u64) -> Option<DiskHandle> {
        let [own, other] = [node, other].map(|node| &self.nodes[usize::from(node)].disk);
        if detail.is_multiple_of(3) || self.plan.durability == Durability::Memory {
            return Some(other.fork());
        }
        // Its first segment alone, and with no header that says whose it is.
        let (disk, path) = (own.fork(), self.segment(node, 0));
        let taken = disk.take_file(other, &path);
        let mut random = self.random.clone();
        let spoilt = detail % 3 == 1 || disk.rot(&path, 0, Rot::Garbage, &mut random);
        (taken && spoilt).then_some(disk)
    }

    /// A reader reads all that a node serves.
    pub(super) fn read_all(&mut self, node: u8) {
        let Some(alive) = &self.nodes[usize::from(node)].alive else { return };
        let catalog = alive.clerk.catalog.borrow();
        let topics: Vec<_> =
            catalog.topics().map(|topic| (topic.id, topic.first, topic.end)).collect();
        drop(catalog);
        for (id, first, end) in topics {
            let name = self.nodes[usize::from(node)].id();
            self.shared.observer.borrow_mut().dropped(name, id, first);
            self.read_topic(node, id, first, end);
        }
    }
}
