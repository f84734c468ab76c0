//! Chainring: the appliance around the replicated log.
//!
//! [`config`] is one file with every limit; [`records`] is what a value packet holds; [`mail`] is
//! what a node's shard and its control thread say to each other; [`gauges`] is what it publishes;
//! [`peers`] keeps the connections to the other nodes.

#[cfg(feature = "chaos")]
pub mod chaos;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod device;
pub mod gauges;
pub mod groups;
pub mod http;
pub mod keep;
pub mod mail;
pub mod node;
pub mod peers;
pub mod records;
pub mod recover;
pub mod shard;
pub mod sim;
pub mod source;
