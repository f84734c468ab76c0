//! What a shard begins with, and how it ended.

use super::times::Times;
use crate::gauges::Gauges;
use crate::groups::Groups;
use crate::mail::{Command, Notice};
use chainring_net::mailbox::{Receiver, Sender as Mailbox, Waker};
use chainring_ring::core::Core;
use chainring_storage::{LogWriter, Superblock};
use hdrhistogram::Histogram;
use std::sync::Arc;

/// What a shard is made of.
pub struct ShardParts<M> {
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
    /// Undelivered value frames that recovery found, and where.
    pub held: Vec<(crate::mail::Place, Vec<u8>)>,
    /// From the control thread.
    pub commands: Receiver<Command>,
    /// To the control thread.
    pub notices: Mailbox<Notice>,
    /// Wakes the control thread.
    pub control_waker: Waker,
    /// Published figures.
    pub gauges: Arc<Gauges>,
}

/// How a shard ended.
pub struct Ended {
    /// True if everything is on stable media and the clean-stop mark is set.
    pub clean: bool,
    /// Batcher to delivery at the origin, microseconds, of all own records.
    pub latency: Histogram<u64>,
    /// What made it stop, if it did not stop by command.
    pub failure: Option<chainring_storage::LogError>,
}

impl Ended {
    /// Of a shard that never ran.
    pub fn nothing() -> Ended {
        Ended { clean: false, latency: Times::new().latency, failure: None }
    }
}
