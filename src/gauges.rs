//! Figures that a shard publishes and anybody may read: plain atomics, one writer, sampled.
//!
//! Invariant: nothing decides by them; they are for status, metrics and the demo's progress.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! gauges {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A node's figures. Positions are exclusive.
        #[derive(Debug, Default)]
        pub struct Gauges { $($(#[$doc])* pub $name: Gauge),* }
        impl Gauges {
            /// Name and value of every figure, in the order of declaration.
            pub fn each(&self, mut f: impl FnMut(&'static str, u64)) {
                $(f(stringify!($name), self.$name.get());)*
            }
        }
    };
}

gauges! {
    /// What the node is: see [`State`].
    state,
    /// Why the ring cannot go on: see [`Halt`].
    halt,
    /// Incarnation of the node as acceptor.
    incarnation,
    /// Start number of its session.
    start,
    /// 1 if the node votes, 0 if it has forgotten its votes and only learns.
    votes,
    /// Node that owns the ballot in force here, 0 for none.
    coordinator,
    /// Round of that ballot.
    ballot_round,
    /// Incarnation of that ballot's owner.
    ballot_incarnation,
    /// The circle of that ballot, encoded; 0 while this node is not in it.
    circle,
    /// 1 once the node has everything that was decided before it started.
    ready,
    /// 1 while the node may have lost, with a part of its log, what it voted for.
    damaged,
    /// Position received at that ballot.
    received,
    /// Position voted for at that ballot.
    durable,
    /// Position known to be decided.
    decided,
    /// Position delivered.
    delivered,
    /// Position that every node has delivered.
    delivered_everywhere,
    /// First instance that the node can still serve.
    first,
    /// Records delivered.
    records,
    /// Bytes of records delivered.
    bytes,
    /// Low half of the running digest.
    digest_low,
    /// High half of the running digest.
    digest_high,
    /// Own values proposed.
    proposed,
    /// Own bytes proposed and not yet delivered everywhere.
    in_flight_bytes,
    /// 1 while the link is up.
    data_in_up,
    /// 1 while the link is up.
    data_out_up,
    /// 1 while the link is up.
    control_in_up,
    /// 1 while the link is up.
    control_out_up,
    /// 1 once all memory of the log is ready: nothing has to be waited for under load.
    warm,
    /// 1 while the node's session is open: it takes records.
    open,
    /// Time of the newest delivery, microseconds since the start of the process.
    last_delivery_us,
    /// Frames on links that were damaged, foreign or impossible; each closed its connection.
    bad_shard_frames,
    /// The same for connections before and beside the links.
    bad_frames,
    /// Bytes received on the data link.
    data_in_bytes,
    /// Bytes sent on the data link.
    data_out_bytes,
    /// Commit groups completed.
    groups,
    /// Bytes written to the log.
    log_bytes,
    /// Bytes of the log that wait for stable media.
    log_behind_bytes,
    /// Age of the oldest of them, microseconds.
    log_behind_us,
    /// 1 while the log has no room.
    log_full,
    /// System calls that entered the uring.
    enters,
    /// Longest turn of the loop, microseconds.
    turn_us_max,
    /// Packets kept in the side pool.
    side_packets,
    /// Values fetched from peers.
    fetched,
    /// Bytes of full segments that were looked over.
    scrubbed_bytes,
    /// How often all of them were.
    scrub_rounds,
    /// Delivered values that did not verify when they were read.
    damaged_values,
    /// Of these, values that were put back as a peer had them.
    repaired_values,
    /// Groups of the log whose orders are gone.
    damaged_groups,
}

/// How full a queue is: its name, what it holds, and the most that it may hold.
pub type Queue = (&'static str, usize, usize);

/// One figure.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// The newest value published.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Publishes a value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds to the value. Only the one writer may.
    pub fn add(&self, value: u64) {
        self.set(self.get().wrapping_add(value));
    }
}

/// What a node is at the moment, as [`Gauges::state`] says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// Recovering or connecting.
    Starting = 0,
    /// In the ring, at the ballot in force.
    Follower = 1,
    /// Owns the ballot in force.
    Coordinator = 2,
    /// Gathers promises.
    Candidate = 3,
    /// Catching up with decided entries.
    CatchingUp = 4,
    /// Takes no new records.
    Draining = 5,
    /// The shard has ended.
    Stopped = 6,
    /// Cannot go on; see [`Halt`].
    Halted = 7,
}

/// Why a ring cannot go on, as [`Gauges::halt`] says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Halt {
    /// It can.
    None = 0,
    /// Fewer than a quorum of nodes remember their votes.
    Amnesia = 1,
    /// A write or flush failed: the log is poisoned until reopened.
    LogFailed = 2,
    /// A peer no longer holds entries that this node needs.
    Trimmed = 3,
}
