//! The look over the logs of a world that came to rest, and what can be repaired then.
//!
//! Invariants: walk and repair are those of production; a node is first offered its own rotten
//! bytes as a good copy. What is damaged afterwards, though another node has it whole, is no longer
//! excused.

use super::World;
use crate::control::catalog::Run;
use crate::mail::Place;
use crate::recover;
use chainring_ring::ids::ValueId;
use chainring_storage::scrub::{Log, Scrub, Seen, put_back};
use chainring_storage::{Place as Frame, segment_path};
use core::ops::Range;

impl World {
    /// Every node looks over its full segments once.
    pub(super) fn scrub(&self) {
        for node in 0..self.plan.nodes {
            let Some((log, end)) = self.log_of(node) else { continue };
            let mut walk = Scrub::new(log.clone());
            while let Ok(Some((seen, _))) = walk.step(end) {
                if let Seen::Values(range) | Seen::Group(range) = seen {
                    self.mend(node, &log, &range);
                }
            }
        }
    }

    /// The log of a node that runs, and its first segment that is not full.
    fn log_of(&self, node: u8) -> Option<(Log, u32)> {
        let sim = &self.nodes[usize::from(node)];
        let alive = sim.alive.as_ref().filter(|alive| alive.clerk.reads_disk())?;
        let log = Log {
            disk: sim.disk.shared(),
            dir: sim.config.node.dir.clone(),
            identity: recover::identity(&sim.config),
            development: sim.config.node.development,
        };
        let end = alive.clerk.catalog.borrow().last_segment();
        Some((log, end))
    }

    fn mend(&self, node: u8, log: &Log, range: &Range<u64>) {
        let sim = &self.nodes[usize::from(node)];
        let alive = sim.alive.as_ref().expect("its log was looked at");
        let values = alive.clerk.catalog.borrow().values_in(range);
        for (id, place) in values {
            let held = alive.clerk.read_disk(place);
            if held.is_some_and(|frame| Run::is_value(&frame, id)) {
                continue;
            }
            let mut rotten = vec![0; place.bytes as usize];
            let at = Frame { at: place.at, bytes: place.bytes };
            let path = segment_path(&sim.config.node.dir, at.segment());
            sim.disk.read_stable(&path, u64::from(at.offset()), &mut rotten);
            for copy in core::iter::once(rotten).chain(self.copies(node, id)) {
                if put_back(log, at, id, &copy).is_ok() {
                    break;
                }
            }
        }
    }

    /// A value as other nodes have it.
    fn copies(&self, node: u8, id: ValueId) -> impl Iterator<Item = Vec<u8>> + '_ {
        let others = (0..self.plan.nodes).filter(move |other| *other != node);
        others.filter_map(move |other| {
            let alive = self.nodes[usize::from(other)].alive.as_ref()?;
            let found = alive.clerk.catalog.borrow().find(id);
            let (_, place) = found?;
            alive.clerk.read_disk(place).filter(|frame| Run::is_value(frame, id))
        })
    }

    /// Whether a value that is damaged here could have been repaired: another node has it, it lies
    /// in a full segment, and what shares its blocks can be read.
    pub(super) fn is_repairable(&self, node: u8, id: ValueId, place: Place) -> bool {
        let Some((log, end)) = self.log_of(node) else { return false };
        let sim = &self.nodes[usize::from(node)];
        let at = Frame { at: place.at, bytes: place.bytes };
        let path = segment_path(&sim.config.node.dir, at.segment());
        let (from, to) =
            (at.offset() / 4096 * 4096, (at.offset() + at.bytes).next_multiple_of(4096));
        let mut blocks = vec![0; (to - from) as usize];
        let file = log.disk.open(&path, chainring_storage::Access::Read, log.development);
        let readable = file.is_ok_and(|file| file.read_exact_at(&mut blocks, from.into()).is_ok());
        let writable = !sim.disk.is_bad(&path);
        at.segment() < end && readable && writable && self.copies(node, id).next().is_some()
    }
}
