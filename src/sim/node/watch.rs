//! What a node hands to the observer from inside its shard.
//!
//! Invariant: nothing that the node believes is asked; of its disk only what is on stable media
//! counts.

use super::SimNode;
use crate::control::catalog::{Catalog, Located};
use crate::device::Probe;
use crate::records::Digest;
use crate::sim::disk::DiskHandle;
use crate::sim::faults::Name;
use crate::sim::journal::Place;
use crate::sim::kernel::Shared;
use chainring_ring::actions::{Action, Input};
use chainring_ring::core::Core;
use chainring_ring::header::{HEADER_BYTES, Header};
use chainring_ring::ids::{Instance, NodeId};
use chainring_storage::checkpoint::checkpoint_path;
use chainring_storage::superfile::COPIES_WRITTEN_MIN;
use chainring_storage::{Checkpoint, Superblock};
use std::path::PathBuf;

/// Hands every step of a core to the observer.
pub struct Watch {
    pub(super) node: NodeId,
    pub(super) shared: Shared,
    pub(super) disk: DiskHandle,
    pub(super) dir: PathBuf,
    /// Position of the checkpoint that was named last.
    pub(super) named: Option<Instance>,
}

impl Probe for Watch {
    fn stepped(&mut self, core: &Core, input: &Input<'_>, actions: &[Action]) {
        if self.shared.journal.wants_steps() {
            self.tell(core, input, actions);
        }
        self.shared.observer.borrow_mut().stepped(self.node, core, input, actions);
    }
    fn delivered(&mut self, position: Instance, digest: Digest) {
        self.shared.observer.borrow_mut().digest(self.node, position, digest);
    }
    /// Told only if the disk holds it: what the node believes is not asked.
    fn wrote_superblock(&mut self, superblock: &Superblock, done: bool) {
        if !done {
            // Without power nobody is told anything, and what was written may be there. The mark of
            // a clean stop is the last thing that a life writes.
            if !self.disk.is_dark() && !superblock.clean {
                self.shared.observer.borrow_mut().io_failed(self.node);
            }
        } else if self.disk.stable_superblocks(&self.dir, superblock) >= COPIES_WRITTEN_MIN {
            self.shared.observer.borrow_mut().wrote_superblock(self.node, superblock);
            self.check_named(superblock);
        }
    }
}

impl Watch {
    /// A checkpoint that is named from now on is on stable media.
    pub(super) fn check_named(&mut self, superblock: &Superblock) {
        let Some((position, checksum)) = superblock.checkpoint else { return };
        if self.named.replace(position) == Some(position) {
            return;
        }
        let path = checkpoint_path(&self.dir, position);
        let mut first = [0; HEADER_BYTES];
        let read = self.disk.read_stable(&path, 0, &mut first);
        let size = Header::decode(&first, u32::MAX).map_or(0, |header| header.size);
        let mut bytes = vec![0; size as usize];
        let holds = read
            && self.disk.read_stable(&path, 0, &mut bytes)
            && Checkpoint::decode(&bytes).is_ok_and(|(_, header)| header.checksum_body == checksum);
        if !holds {
            self.shared.observer.borrow_mut().checkpoint_volatile(self.node, position);
        }
    }

    /// What a step came to, but for those of no interest.
    fn tell(&self, core: &Core, input: &Input<'_>, actions: &[Action]) {
        use Input::{Beat, Claim, Continue, Tick, Vote};
        let idle = matches!(input, Tick | Continue | Vote(_) | Claim(_) | Beat { .. });
        if idle && actions.is_empty() {
            return;
        }
        let now = self.shared.agenda.borrow().now();
        let at = (core.received().0, core.durable().0, core.delivered().0);
        let node = self.node.0;
        let line = format!("{now:>12} us  node {node} {at:?} {input:?} -> {actions:?}");
        self.shared.journal.step(line);
    }
}

impl SimNode {
    /// Tells what went wrong with blocking operations since it was asked last.
    pub fn tell_mishaps(&mut self, shared: &Shared) -> Vec<Name> {
        let mishaps = self.disk.take_mishaps();
        let (now, place) = (shared.agenda.borrow().now(), Place::Node(self.index));
        let mut faults = shared.faults.borrow_mut();
        mishaps.iter().for_each(|name| faults.happened(*name, now, place));
        mishaps
    }

    /// The observer learns what a recovery came to.
    pub(super) fn tell_recovered(
        &self,
        shared: &Shared,
        core: &Core,
        (found, next, whole): (&Superblock, u64, bool),
    ) {
        let mut observer = shared.observer.borrow_mut();
        let copies = self.disk.stable_superblocks(&self.config.node.dir, found);
        let written = copies >= COPIES_WRITTEN_MIN;
        observer.recovered(self.id(), self.disk.is_settled() && written);
        observer.started(self.id(), core, found, (next, whole));
        if written {
            observer.names_checkpoint(self.id(), found);
        }
    }

    /// The observer learns what it delivered again.
    pub(super) fn tell_replayed(&self, shared: &Shared, digest: Digest, catalog: &Catalog) {
        let mut observer = shared.observer.borrow_mut();
        observer.digest(self.id(), catalog.delivered(), digest);
        for instance in 0..catalog.delivered().0 {
            let Some((order, _)) = catalog.entry(Instance(instance)) else { continue };
            observer.replayed_as(self.id(), &order);
        }
        for topic in catalog.topics() {
            let mut next = topic.first;
            while let Located::Run(run) = catalog.locate(topic.id, next) {
                if let Some((order, _)) = catalog.find(run.id) {
                    let place = (run.first_offset, order.instance);
                    observer.replayed_run(self.id(), topic.id, place, run.count);
                }
                next = run.first_offset + u64::from(run.count);
            }
        }
    }
}
