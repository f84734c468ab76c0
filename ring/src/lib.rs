//! The protocol: one pure Paxos core.
//!
//! No I/O, clock, thread, randomness or hash order is reachable from here: the crate is `no_std`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod actions;
pub mod codec;
pub mod configuration;
pub mod core;
pub mod damage;
pub mod failover;
pub mod header;
pub mod ids;
pub mod lanes;
pub mod layout;
pub mod sequences;
pub mod votes;
pub mod window;

mod acceptor;
mod canonical;
mod circle;
pub mod coordinator;
mod dead_links;
mod jump;
mod learner;
pub mod liveness;
pub mod marks;
mod membership;
pub mod mutants;
mod pace;
pub mod proposer;
mod quorum;
mod ready;
mod view;
mod watch;
