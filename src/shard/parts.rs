//! What a shard begins with, and how it ended.

use super::checks::Divergence;
use super::times::Times;
use crate::device::Machine;
use crate::gauges::Gauges;
use crate::groups::Groups;
use crate::mail::{Command, Notice};
use chainring_net::mailbox::{Receiver, Sender as Mailbox, Waker};
use chainring_ring::core::Core;
use chainring_storage::{LogWriter, Segments, Superblock};
use hdrhistogram::Histogram;
use std::sync::Arc;

/// What a shard is made of.
pub struct ShardParts<M: Machine> {
    /// Port and device.
    pub machine: M,
    /// The protocol core, recovered.
    pub core: Core,
    /// Topics and offsets at the position that the core has delivered.
    pub groups: Groups,
    /// As last written.
    pub superblock: Superblock,
    /// The log's writer; none in memory durability.
    pub log: Option<LogWriter>,
    /// What its segments hold.
    pub segments: Segments,
    /// Undelivered value frames that recovery found, and where.
    pub held: Vec<(crate::mail::Place, Vec<u8>)>,
    /// From the control thread.
    pub commands: Receiver<Command<M::Handle>>,
    /// To the control thread.
    pub notices: Mailbox<Notice>,
    /// Wakes the control thread.
    pub control_waker: Waker,
    /// Published figures.
    pub gauges: Arc<Gauges>,
    /// How much it holds at a time.
    pub room: Room,
}

/// How much a shard holds at a time, beside bytes. A machine sets aside what its largest load can
/// need; small nodes are made and thrown away by the thousand in a simulator.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Packets in memory: as many of the smallest as fill the receive buffer; more than may be
    /// undelivered, a lane an origin.
    pub packets: usize,
    /// Notices that wait for the control thread. Events are taken in while two windows of places
    /// are free, commands while a step's actions have room.
    pub notices: usize,
    /// Items that wait for their place in the log; events as above. Commands and the clock do
    /// not wait for it, so it holds some windows more.
    pub log_items: usize,
    /// Pages of a memory log come with its frames; else they are made ready ahead.
    pub sparse: bool,
}

impl Default for Room {
    fn default() -> Room {
        Room { packets: 1 << 17, notices: 1 << 16, log_items: 1 << 16, sparse: false }
    }
}

/// What ends a shard that nobody told to stop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The log failed.
    #[error("{0}; the node stopped, start it again to recover")]
    Log(#[from] chainring_storage::LogError),
    /// Nodes delivered different things.
    #[error("{0}")]
    Diverged(Divergence),
}

/// How a shard ended.
pub struct Ended {
    /// True if everything is on stable media and the clean-stop mark is set.
    pub clean: bool,
    /// Batcher to delivery at the origin, microseconds, of all own records.
    pub latency: Histogram<u64>,
    /// What made it stop, if it did not stop by command.
    pub failure: Option<Failure>,
}

impl Ended {
    /// Of a shard that never ran.
    pub fn nothing() -> Ended {
        Ended { clean: false, latency: Times::new().latency, failure: None }
    }
}
