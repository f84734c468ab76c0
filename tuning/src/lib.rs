//! The host: what it offers, and how threads are placed on it.
//!
//! [`cores`] are the cores that this process may use, which of them each shard gets, and pinning.
//! Invariant: nothing of the host is changed silently, and nothing that could not be done is
//! passed over: an error names cause and remedy.

pub mod cores;
