//! What a simulated node is made of, as far as its configuration says so.
//!
//! Invariant: all of it follows from the configuration; nothing here is drawn.

use super::*;

pub(super) fn peers_options(config: &Config, identity: Identity) -> PeersOptions {
    let nodes = config.cluster.nodes.iter().map(|node| (node.id, node.address.clone())).collect();
    let (packet_max, fetch_bytes_per_s) = (config.packet_max(), config.limits.fetch_bytes_per_s);
    PeersOptions { identity, nodes, packet_max, fetch_bytes_per_s }
}

pub(super) fn wire_options(config: &Config, forwards: usize) -> WireOptions {
    WireOptions {
        cluster: config.cluster.id,
        epoch: config.cluster.epoch,
        block: config.cluster.block,
        packet_max: config.packet_max(),
        control_max: links::CONTROL_MAX,
        forwards,
        spin: Duration::ZERO,
        uring: UringOptions { fixed: false },
    }
}

/// Room for everything that the packet memory of a small node can hold.
pub(super) fn room(config: &Config) -> Room {
    let limits = &config.limits;
    let pools = config.own_pool_bytes() + u64::from(limits.side_pool_bytes);
    let packets = ((config.receive_bytes() + pools) / 512) as usize + 64;
    let windows = 4 * limits.window_instances as usize;
    let (notices, log_items) = (windows + ACTIONS_MAX, windows + packets + 1024);
    Room { packets, notices, log_items, sparse: true }
}
