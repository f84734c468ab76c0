//! The log on disk: segments of commit groups, the superblock, recovery by a table, and the memory
//! log that serves readers in memory durability.
//!
//! The bytes are in `docs/FORMAT.md`, section "On disk". Three rules carry everything here:
//! * No block that holds acknowledged bytes is written again, but with the bytes that lay there
//!   when a value in it was damaged ([`scrub`]). Only a cut zeroes anything, and it is recorded in
//!   the superblock first.
//! * A group is acknowledged only when it and every group before it are complete, and a later group
//!   says so (`sealed`). So damage at or below the highest seal is corruption and is never cut;
//!   damage above it is a write that power failure tore.
//! * After a failed write nothing is accepted until the log was opened again.
//!
//! The writer plans and never does I/O: the shard submits what it plans. Everything else here
//! blocks and belongs to the start of a node or to the control thread; the one exception is
//! [`superfile::SuperblockFile::write`], which a shard calls when a ballot changes.
#![forbid(unsafe_code)]

pub mod block;
pub mod checkpoint;
pub mod config;
pub mod contents;
pub mod direct;
pub mod disk;
pub mod error;
pub mod inspect;
pub mod memory;
pub mod reader;
pub mod recover;
pub mod scan;
pub mod scrub;
pub mod segment;
pub mod superblock;
pub mod superfile;
pub mod table;
mod window;
pub mod writer;

pub use block::{Values, order_block_bytes};
pub use checkpoint::Checkpoint;
pub use config::{Identity, LogConfig, Place};
pub use contents::{Segments, Start};
pub use direct::{AlignedBuf, DirLock};
pub use disk::{Access, Disk, DiskFile, FileSystem, SharedDisk};
pub use error::LogError;
pub use inspect::{Report, SegmentReport, inspect, inspect_on};
pub use memory::MemoryLog;
pub use reader::{LogReader, ReadAhead};
pub use recover::{Recovered, recover};
pub use scan::{Group, ScanInput, Scanned, Tail, scan};
pub use segment::{create_segment, list_segments, open_segment, open_segments, segment_path};
pub use superblock::{Damage, DamageState, Superblock};
pub use superfile::SuperblockFile;
pub use writer::{GroupPlan, LogWriter};
