//! The protocol: one pure Paxos core.
//!
//! No I/O, clock, thread, randomness or hash order is reachable from here: the crate is `no_std`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod codec;
pub mod header;
pub mod ids;
pub mod votes;
