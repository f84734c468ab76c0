//! What may be seen of a shard from outside: for a simulator that plays its world and watches it.
//!
//! Invariant: nothing here changes anything.

use super::commands::ENTRIES_MAX;
use super::{Journal, Shard};
use crate::device::Machine;
use crate::gauges::Queue;
use crate::mail::Place;
use chainring_ring::core::Core;

impl<M: Machine> Shard<M> {
    /// The protocol core.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Digest of everything delivered.
    pub fn digest(&self) -> crate::records::Digest {
        self.groups.digest()
    }

    /// A delivered frame in the memory log, if that is there and still holds it.
    pub fn memory_frame(&self, place: Place) -> Option<&[u8]> {
        let place = chainring_storage::Place { at: place.at, bytes: place.bytes };
        self.memory.as_ref()?.get(place)
    }

    /// What it runs on.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// True if nothing waits for the log, and nothing is being written to it.
    pub fn is_written(&self) -> bool {
        self.journal.as_ref().is_none_or(Journal::is_idle)
    }

    /// What holds it up, for people.
    pub fn standing(&self) -> String {
        let next = self.core.window().get(self.core.delivered()).map(|slot| slot.order.entry);
        let log = self.journal.as_ref().map(|journal| {
            (journal.pending_orders(), journal.room(), journal.is_blocked(), journal.full)
        });
        format!(
            "next {next:?}, {} packets ({} aside), {} answers wait, room {}, notices {}, log {log:?}",
            self.packets.len(),
            self.side.count(),
            self.entries.len(),
            self.has_room(),
            self.outbox.room(),
        )
    }

    /// All that may fill up.
    pub fn queues(&self) -> impl Iterator<Item = Queue> + '_ {
        let regions = self.machine.regions();
        let own = [
            ("backlog", self.backlog.len(), self.packets.limit()),
            ("catch-up answers", self.entries.len(), ENTRIES_MAX),
            ("actions", self.actions.as_slice().len(), 0),
            (
                "control bytes that wait",
                self.machine.control_waiting() as usize,
                // One is filled while the other waits for its send.
                regions.control_out.iter().map(|buffer| buffer.bytes as usize).sum(),
            ),
            (
                "bytes received",
                self.machine.received_held() as usize,
                regions.receive.bytes as usize,
            ),
        ];
        let log = self.journal.iter().flat_map(Journal::queues);
        let own = own.into_iter().chain(self.packets.queues()).chain(self.outbox.queues());
        own.chain(self.batcher.queues()).chain(log)
    }

    /// Inputs consumed: events and commands taken, ticks that fired.
    pub fn inputs(&self) -> u64 {
        self.inputs
    }
}
