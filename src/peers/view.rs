//! How full the queues of the peers' connections are: for a simulator that watches them.
//!
//! Invariant: nothing here changes anything.

use super::accept::HALF_OPEN_MAX;
use super::fetch::{SEARCHES_MAX, WAITING_MAX};
use super::mesh::{DIRECTS_MAX, QUESTIONS_MAX};
use super::{Host, Peers};
use crate::gauges::Queue;

impl<H: Host> Peers<H> {
    /// All that may fill up.
    pub fn queues(&self) -> impl Iterator<Item = Queue> + '_ {
        let meshes = self.meshes.values().flat_map(|mesh| {
            let (directs, questions) = mesh.fill();
            [
                ("direct messages", directs, DIRECTS_MAX),
                ("questions to a peer", questions, QUESTIONS_MAX),
            ]
        });
        let [known, waiting, not_held] = self.fetches.fill();
        let own = [
            ("handshakes", self.accepting.fill(), HALF_OPEN_MAX),
            ("values that are sought", known, WAITING_MAX + SEARCHES_MAX),
            ("values to seek", waiting, WAITING_MAX),
            ("values that nobody held", not_held, WAITING_MAX),
        ];
        meshes.chain(own)
    }
}
