//! Chainring: a replicated log appliance.
#![forbid(unsafe_code)]

pub mod gauges;
pub mod mail;
pub mod peers;
