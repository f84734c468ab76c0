//! The simulator: a world of nodes that run the production code on a simulated clock, network and
//! disk, every bit of it decided by a seed.
//!
//! Invariants: nothing in here is reached by a node in production; nothing inside a world asks a
//! clock, a thread, an address or the order of a hash map; whatever is random comes from a stream
//! of the seed ([`random`]).

pub mod disk;
pub mod observer;
pub mod random;
