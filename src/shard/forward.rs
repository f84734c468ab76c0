//! What goes on to the next node: packets, and words about what will not come.
//!
//! Invariants: they leave in the order in which they were put down; what waits while the link is
//! down is forgotten, for the next resume finds it again.

use super::Shard;
use super::packets::{FORWARD, PacketIx};
use crate::device::Machine;
use chainring_net::pool::Range;
use chainring_net::wire::Refused;
use chainring_ring::mark;

/// Something for the data link.
#[derive(Clone, Copy, Debug)]
pub(super) enum Forward {
    Packet(PacketIx),
    /// A frame that says what will not come, in the side pool.
    Declare(Range),
}

/// Marks the token of a declaration.
pub(super) const DECLARE: u64 = 1 << 63;

impl<M: Machine> Shard<M> {
    /// Forwards what waits, and flushes the control link.
    pub(super) fn send(&mut self) {
        while let Some(forward) = self.backlog.front().copied() {
            let (range, token) = match forward {
                Forward::Packet(ix) => (self.packets.get(ix).range, u64::from(ix)),
                Forward::Declare(range) => (range, DECLARE | u64::from(range.offset)),
            };
            match self.machine.forward(range, token) {
                Ok(()) => self.backlog.pop_front(),
                Err(Refused::Full) => break,
                Err(Refused::Down) => {
                    self.forget_backlog();
                    break;
                }
            };
        }
        self.control_out.flush(&self.core, &self.sender, &mut self.machine, self.now_us);
    }

    /// The link is down: what waits for it is found again by the next resume.
    pub(super) fn forget_backlog(&mut self) {
        while let Some(forward) = self.backlog.pop_front() {
            mark!(WaitingForwardForgotten);
            match forward {
                Forward::Packet(ix) => self.release(ix, FORWARD),
                Forward::Declare(range) => self.side.give_back(range),
            }
        }
    }
}
