//! A device that injects faults, between a real node and its files: for tests of real processes.
//!
//! It keeps what is not yet synced out of the files, so that a power failure can take it away; it
//! fails, slows down and hangs as it is told. The shard's writes go through io_uring to the file as
//! always; those under way when the power fails are put back and then decided sector by sector.
//! What becomes of a write, and what a cache is, is the simulator's own code (`sim::disk`), over
//! real files. Orders come by the socket `DIR/chaos`, a line each, or, before a start, by the
//! variable `CHAINRING_CHAOS`, separated by semicolons; see `orders.rs`.
//!
//! Invariants: nothing is in a file before it was synced or written durably, but for writes of the
//! shard that are under way; when the power fails the process ends before anybody is told of
//! anything that was not durable; never in a release (feature `chaos`, off by default, told by
//! `--version` and at every start).

mod desk;
mod disk;
mod drive;
mod kernel;
mod medium;
mod names;
mod orders;
#[cfg(test)]
mod tests;

pub use desk::Device;
pub use kernel::ChaosKernel;

/// Orders before a start.
pub const VARIABLE: &str = "CHAINRING_CHAOS";
/// The socket for orders, in the data directory.
pub const SOCKET: &str = "chaos";
