//! The demonstration: a whole cluster in this process, real files in, identical logs out.
//!
//! Invariants: what is compared at the end is read back from each node's own log, never from what
//! was kept for the comparison; `identical` is true only if number, bytes and digest of the
//! records agree at every node and with what was shipped, and every comparison held; start,
//! preallocation and verification lie outside the measured time.

mod check;
mod cluster;
mod feed;
mod input;
mod parts;
mod room;
mod run;

use crate::config::ConfigError;
use crate::node::NodeError;
use crate::recover::RecoverError;
use chainring_ring::ids::Durability;
use std::path::PathBuf;
use std::time::Duration;

pub use run::run;

/// Largest record, its line feed counted.
pub const RECORD_BYTES_MAX: u32 = 1 << 20;
/// All files together are held in memory, up to this: 8 GiB.
pub const INPUT_BYTES_MAX: u64 = 8 << 30;

/// What is shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// Lines of files.
    Files(Vec<PathBuf>),
    /// Lines made up from a seed, as a system log has them.
    Sample,
    /// Bytes that no compression makes smaller, from a seed.
    Random {
        /// How many records; without a number, until the time is over.
        records: Option<u64>,
        /// Bytes of each.
        size: u32,
        /// No longer than this.
        time: Option<Duration>,
    },
}

/// What the demonstration is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is shipped.
    pub load: Load,
    /// Nodes, 1 to 7.
    pub nodes: u8,
    /// When a node votes for an entry.
    pub durability: Durability,
    /// What a link carries, bits per second: assumed, not measured.
    pub link_bits_per_s: f64,
    /// Where the logs go; they stay there. Without one, a temporary directory.
    pub dir: Option<PathBuf>,
    /// Keeps the temporary directory.
    pub keep: bool,
}

/// Time from the batcher to delivery at the origin, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half of the records took at most this.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p999: u64,
    /// All of them.
    pub max: u64,
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// Records delivered at each node.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Digest over what was shipped, and delivered if `problems` is empty.
    pub digest: u128,
    /// What did not agree; empty if everything did.
    pub problems: Vec<String>,
    /// What of the input could not be shipped, once all before it was.
    pub refused: Option<DemoError>,
    /// First record handed to a batcher to last delivery at the slowest node.
    pub seconds: f64,
    /// User and system time of the process meanwhile.
    pub cpu_seconds: f64,
    /// At the origins.
    pub latency: Latency,
    /// What should be known beside.
    pub remarks: Vec<String>,
    /// Where the logs are, if they were kept.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Payload delivered at each node over the time it took.
    pub fn delivered_bits_per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 * 8.0 / self.seconds } else { 0.0 }
    }

    /// Processor seconds per 10^9 bytes of payload, delivered bytes summed over `nodes`.
    pub fn cpu_s_per_gb(&self, nodes: u8) -> f64 {
        let delivered = self.bytes as f64 * f64::from(nodes) / 1e9;
        if delivered > 0.0 { self.cpu_seconds / delivered } else { 0.0 }
    }
}

/// Why the demonstration did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; nothing was shipped")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is too long for a record.
    #[error(
        "{path} line {line} has more than {RECORD_BYTES_MAX} bytes, its line feed counted; \
         everything before it was shipped, nothing from there on: split the line"
    )]
    LineTooLong {
        /// In which file.
        path: PathBuf,
        /// Its number, from 1.
        line: u64,
    },
    /// The files do not fit into memory.
    #[error("the files have more than {INPUT_BYTES_MAX} bytes together; name fewer")]
    InputTooLarge,
    /// More topics than a log may have.
    #[error("{files} files on {nodes} nodes are too many topics; name at most {most} files")]
    TooManyFiles {
        /// How many.
        files: usize,
        /// On how many nodes.
        nodes: u8,
        /// How many would do.
        most: usize,
    },
    /// The directory has something in it.
    #[error("{dir} is not empty; name an empty or a new directory")]
    NotEmpty {
        /// Which.
        dir: PathBuf,
    },
    /// Something of the system failed.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The logs would not fit.
    #[error("the logs need {wanted} bytes in {dir}, {free} are free; name another --dir")]
    NoRoom {
        /// Where.
        dir: PathBuf,
        /// Of all nodes together.
        wanted: u64,
        /// At the moment.
        free: u64,
    },
    /// The configuration is impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A store cannot be made.
    #[error("{0}; name another --dir")]
    Store(#[from] RecoverError),
    /// A node cannot start or go on.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A log cannot be read back.
    #[error("reading the log back: {0}")]
    Log(#[from] chainring_storage::LogError),
    /// Nothing went on for a long time.
    #[error("nothing was delivered for {seconds} s while {waiting}:\n{states}")]
    Stalled {
        /// How long.
        seconds: u64,
        /// For what the demonstration waited.
        waiting: &'static str,
        /// What each node says.
        states: String,
    },
    /// A node stopped by itself without saying why.
    #[error("node {node} stopped by itself")]
    Stopped {
        /// Which.
        node: u8,
    },
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
}

pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> DemoError {
    let what = what.into();
    move |source| DemoError::System { what, source }
}

#[cfg(test)]
mod tests;
