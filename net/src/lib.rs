//! The wire: everything between the pure core and the kernel's sockets and files.
//!
//! One shard thread owns one [`wire::Wire`]: a kernel, in production the uring, the packet memory
//! registered with it, and the four links to the neighbours. Nothing here allocates, locks or
//! formats after start; every buffer has a stated limit. `unsafe` lives in `uring`, `pool` and
//! `mailbox` alone.

pub mod declare;
mod event;
pub mod hello;
pub mod inbound;
pub mod kernel;
pub mod link;
pub mod mailbox;
mod outbound;
pub mod pool;
mod refusal;
pub mod socket;
mod sync;
pub mod uring;
pub mod wire;
