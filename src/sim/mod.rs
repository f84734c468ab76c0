//! The simulator: the production code in a world that can be replayed.
//!
//! Invariant: nothing in here is reached by a node in production.

pub mod observer;
