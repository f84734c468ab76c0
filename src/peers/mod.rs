//! Peers.
pub mod frames;
