//! A node's configuration: one TOML file, read once, checked whole.
//!
//! Invariants: a [`Config`] that exists has passed every check, so nothing behind it checks again;
//! [`Config::config_hash`] covers exactly what must be equal on all nodes, and peers refuse each
//! other when it differs.

mod keys;
mod limits;
mod text;

use chainring_ring::header::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, HEADER_BYTES, round_up};
use chainring_ring::ids::{ClusterId, Durability, Epoch, NODES_MAX, NodeId};
use chainring_ring::lanes::lane_packets;
use chainring_ring::window::{WINDOW_MAX, WINDOW_MIN};
use chainring_storage::block::ORDERS_PER_GROUP_MAX;
use chainring_storage::config::PREALLOCATE_MAX;
pub use limits::Limits;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

use crate::records::{RECORD_PREFIX_BYTES, RUN_HEADER_BYTES, STAMP_BYTES};

/// All packet memory of a shard lies in one registered range of at most this.
pub const ARENA_BYTES_MAX: u64 = 1 << 30;
/// Fewest groups that a segment must hold.
pub const SEGMENT_GROUPS_MIN: u64 = 16;

/// A node's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What all nodes have in common.
    pub cluster: Cluster,
    /// What is this node's own.
    pub node: Node,
    /// Limits.
    pub limits: Limits,
}

/// What all nodes of a cluster have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Identity, drawn when the cluster is made.
    pub id: ClusterId,
    /// Epoch: a higher one is a new log.
    pub epoch: Epoch,
    /// What must be true of an entry before a node votes for it.
    pub durability: Durability,
    /// Unit of alignment on data links and disk: 512 or 4096.
    pub block: u32,
    /// The ring, ascending by id.
    pub nodes: Vec<Member>,
}

/// One node of the cluster, as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// 1 to 7.
    pub id: NodeId,
    /// Where it listens for its peers, `HOST:PORT`.
    pub address: String,
    /// Where it serves HTTP, `HOST:PORT`.
    pub http: String,
    /// True: the log does not begin with it as a voter; `member add` admits it.
    pub spare: bool,
}

impl Cluster {
    /// The nodes that vote when the log begins, ascending by id.
    pub fn founders(&self) -> impl Iterator<Item = &Member> {
        self.nodes.iter().filter(|member| !member.spare)
    }
}

/// What is a node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Which of the cluster's nodes this is.
    pub id: NodeId,
    /// Directory of its log.
    pub dir: PathBuf,
    /// True: a file system without O_DIRECT is accepted.
    pub development: bool,
    /// Processor that the shard thread is pinned to.
    pub core: Option<usize>,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; name a file that `chainring init` wrote")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, or a value of another type.
    #[error("line {line}: {message}")]
    Syntax {
        /// From 1; 0 if unknown.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key that no code reads.
    #[error("line {line}: unknown key `{key}`; the nearest known one is `{nearest}`")]
    UnknownKey {
        /// From 1.
        line: usize,
        /// With its section.
        key: String,
        /// Known key of the same section.
        nearest: &'static str,
    },
    /// A value that cannot be.
    #[error("{key} = {value}: {wanted}")]
    Value {
        /// With its section.
        key: &'static str,
        /// What was found.
        value: String,
        /// What is accepted.
        wanted: String,
    },
    /// Two things that must differ do not.
    #[error("{key} = {value} is used twice; give each its own")]
    Twice {
        /// With its section.
        key: &'static str,
        /// What was found twice.
        value: String,
    },
}

/// Text of a durability, as in files, options and JSON.
pub fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Memory => "memory",
        Durability::Async => "async",
        Durability::Sync => "sync",
    }
}

/// The durability of a text.
///
/// # Errors
/// The accepted texts, if it is none of them.
pub fn durability_of(text: &str) -> Result<Durability, String> {
    match text {
        "memory" => Ok(Durability::Memory),
        "async" => Ok(Durability::Async),
        "sync" => Ok(Durability::Sync),
        _ => Err("wanted memory, async or sync".to_owned()),
    }
}

#[derive(Deserialize)]
struct Raw {
    cluster: RawCluster,
    node: RawNode,
    #[serde(default)]
    limits: Limits,
}

#[derive(Deserialize)]
struct RawCluster {
    id: String,
    epoch: u32,
    durability: String,
    block: u32,
    nodes: Vec<RawMember>,
}

#[derive(Deserialize)]
struct RawMember {
    id: u8,
    address: String,
    http: String,
    #[serde(default)]
    spare: bool,
}

#[derive(Deserialize)]
struct RawNode {
    id: u8,
    dir: PathBuf,
    #[serde(default)]
    development: bool,
    core: Option<usize>,
}

impl Config {
    /// Reads and checks a file. A relative `node.dir` is relative to the file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config = Config::parse(&text)?;
        let base = path.parent().unwrap_or(Path::new(""));
        config.node.dir = base.join(&config.node.dir);
        Ok(config)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        keys::check_keys(text)?;
        let raw: Raw = toml::from_str(text).map_err(|error| keys::syntax(text, &error))?;
        let RawCluster { id, epoch, durability, block, nodes } = raw.cluster;
        let hex = id.len() <= 32 && !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit());
        let parsed = if hex { u128::from_str_radix(&id, 16).ok() } else { None };
        let wanted = "1 to 32 hexadecimal digits";
        let id = parsed.ok_or_else(|| value("cluster.id", &id, wanted))?;
        let durability = durability_of(&durability)
            .map_err(|wanted| value("cluster.durability", &durability, &wanted))?;
        let mut nodes: Vec<Member> = nodes
            .into_iter()
            .map(|RawMember { id, address, http, spare }| Member {
                id: NodeId(id),
                address,
                http,
                spare,
            })
            .collect();
        nodes.sort_by_key(|member| member.id);
        let RawNode { id: own, dir, development, core } = raw.node;
        let cluster = Cluster { id: ClusterId(id), epoch: Epoch(epoch), durability, block, nodes };
        let node = Node { id: NodeId(own), dir, development, core };
        let config = Config { cluster, node, limits: raw.limits };
        config.check()?;
        Ok(config)
    }

    /// Checks everything; for a configuration that was made by code.
    ///
    /// # Errors
    /// [`ConfigError::Value`] or [`ConfigError::Twice`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_cluster()?;
        self.check_addresses()?;
        self.check_limits()
    }

    fn check_cluster(&self) -> Result<(), ConfigError> {
        let Cluster { epoch, block, nodes, .. } = &self.cluster;
        if *epoch == Epoch(0) {
            return Err(value("cluster.epoch", epoch.0, "1 or more"));
        }
        if *block != BLOCK_BYTES_MIN && *block != BLOCK_BYTES_MAX {
            return Err(value("cluster.block", block, "512 or 4096"));
        }
        if nodes.is_empty() || nodes.len() > NODES_MAX {
            return Err(value("cluster.nodes", format!("{} nodes", nodes.len()), "1 to 7 nodes"));
        }
        if self.cluster.founders().next().is_none() {
            return Err(value("cluster.nodes.spare", "all", "one node or more that is no spare"));
        }
        for (index, member) in nodes.iter().enumerate() {
            if !(1..=NODES_MAX as u8).contains(&member.id.0) {
                return Err(value("cluster.nodes.id", member.id.0, "1 to 7"));
            }
            if nodes[..index].iter().any(|other| other.id == member.id) {
                let value = member.id.0.to_string();
                return Err(ConfigError::Twice { key: "cluster.nodes.id", value });
            }
        }
        if !nodes.iter().any(|member| member.id == self.node.id) {
            return Err(value("node.id", self.node.id.0, "the id of one of cluster.nodes"));
        }
        if self.node.dir.as_os_str().is_empty() {
            return Err(value("node.dir", "\"\"", "the directory of the node's log"));
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let mut seen: Vec<&str> = Vec::new();
        for member in &self.cluster.nodes {
            let pairs =
                [("cluster.nodes.address", &member.address), ("cluster.nodes.http", &member.http)];
            for (key, address) in pairs {
                if !is_address(address) {
                    return Err(value(key, address, "HOST:PORT, the port 1 to 65535"));
                }
                if seen.contains(&address.as_str()) {
                    return Err(ConfigError::Twice { key, value: address.clone() });
                }
                seen.push(address);
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let l = &self.limits;
        let mut zero = None;
        l.each(|key, value, _| {
            if value == 0 && !key.starts_with("limits.retention_") {
                zero = Some(key);
            }
        });
        if let Some(key) = zero {
            return Err(value(key, 0, "1 or more"));
        }
        let least = self.cluster.block * 2;
        for (key, bytes, from, to) in [
            ("limits.record_bytes", l.record_bytes, 1, 16 << 20),
            ("limits.packet_bytes", l.packet_bytes, least, 16 << 20),
            ("limits.window_bytes", l.window_bytes, least * 4, 64 << 20),
            ("limits.group_bytes", l.group_bytes, least, 16 << 20),
            ("limits.group_orders", l.group_orders, 64, ORDERS_PER_GROUP_MAX as u32),
            ("limits.groups_in_flight", l.groups_in_flight, 2, 16),
            ("limits.mailbox_letters", l.mailbox_letters, 64, 1 << 20),
            ("limits.segment_bytes", l.segment_bytes, 64 << 10, 1 << 30),
        ] {
            if !(from..=to).contains(&bytes) {
                return Err(value(key, bytes, format!("{from} to {to}")));
            }
        }
        let window = WINDOW_MIN as u32..=WINDOW_MAX as u32;
        if !l.window_instances.is_power_of_two() || !window.contains(&l.window_instances) {
            let wanted = format!("a power of two, {WINDOW_MIN} to {WINDOW_MAX}");
            return Err(value("limits.window_instances", l.window_instances, wanted));
        }
        self.check_sums()
    }

    /// Limits that are bound to each other.
    fn check_sums(&self) -> Result<(), ConfigError> {
        let l = &self.limits;
        if u64::from(l.packet_bytes) * 4 > u64::from(l.window_bytes) {
            let wanted = format!("at most a quarter of limits.window_bytes ({})", l.window_bytes);
            return Err(value("limits.packet_bytes", l.packet_bytes, wanted));
        }
        let most = u64::from(self.packet_max());
        let least = self.side_pool_least();
        if u64::from(l.side_pool_bytes) < least || !l.side_pool_bytes.is_multiple_of(1 << 12) {
            let wanted = format!(
                "a multiple of 4096, {least} or more: what all origins may have undelivered, and \
                 one largest packet"
            );
            return Err(value("limits.side_pool_bytes", l.side_pool_bytes, wanted));
        }
        // And the segment's header.
        let least = SEGMENT_GROUPS_MIN * self.group_max() + u64::from(BLOCK_BYTES_MAX);
        if u64::from(l.segment_bytes) < least || !l.segment_bytes.is_multiple_of(1 << 12) {
            let wanted = format!(
                "a multiple of 4096, {least} or more: 16 groups with one largest packet each"
            );
            return Err(value("limits.segment_bytes", l.segment_bytes, wanted));
        }
        if l.log_bytes < 2 * u64::from(l.segment_bytes) {
            return Err(value("limits.log_bytes", l.log_bytes, "two segments or more"));
        }
        let weekly = l.log_bytes.div_ceil(7 * 24 * 3600);
        if l.scrub_bytes_per_s < weekly {
            let wanted = format!("{weekly} or more: all of limits.log_bytes once a week");
            return Err(value("limits.scrub_bytes_per_s", l.scrub_bytes_per_s, wanted));
        }
        // A quarter is for answers; the first record of one may need three packets.
        let answer = u64::from(l.http_answer_bytes).max(3 * u64::from(self.packet_max()));
        if u64::from(l.http_memory_bytes) < 4 * answer {
            let wanted = format!("{} or more: four answers or twelve largest packets", 4 * answer);
            return Err(value("limits.http_memory_bytes", l.http_memory_bytes, wanted));
        }
        if l.memory_log_bytes < 4 * most {
            let wanted = format!("{} or more: four largest packets", 4 * most);
            return Err(value("limits.memory_log_bytes", l.memory_log_bytes, wanted));
        }
        let arena = self.arena_bytes();
        if arena > ARENA_BYTES_MAX {
            let wanted = format!(
                "packet memory would be {arena} bytes, at most {ARENA_BYTES_MAX}: lower window_bytes or side_pool_bytes"
            );
            return Err(value("limits.window_bytes", l.window_bytes, wanted));
        }
        Ok(())
    }

    /// Bytes of the largest value frame: the larger of a full packet and one with a record of
    /// the limit, padded to the block.
    pub fn packet_max(&self) -> u32 {
        let overhead = HEADER_BYTES + RUN_HEADER_BYTES + STAMP_BYTES + RECORD_PREFIX_BYTES;
        let body = self.limits.record_bytes as usize + overhead;
        round_up(body.max(self.limits.packet_bytes as usize), self.cluster.block) as u32
    }

    /// Fewest bytes of the side pool: of every origin a window of bytes, in as many packets as a
    /// lane holds, each rounded up to 4096; and one largest packet.
    pub fn side_pool_least(&self) -> u64 {
        let lane = lane_packets(u64::from(self.limits.window_instances)) * 4096;
        let origin = u64::from(self.limits.window_bytes) + lane;
        let largest = u64::from(self.packet_max()).next_multiple_of(4096);
        (self.cluster.nodes.len() as u64 * origin + largest).next_multiple_of(4096)
    }

    /// Bytes of the largest commit group: order block, values up to the limit, one packet more,
    /// each rounded to where a group may begin.
    pub fn group_max(&self) -> u64 {
        let orders = HEADER_BYTES as u64 + 256 + u64::from(self.limits.group_orders) * 48;
        let bytes = orders + u64::from(self.limits.group_bytes) + u64::from(self.packet_max());
        bytes.next_multiple_of(u64::from(BLOCK_BYTES_MAX))
    }

    /// Bytes of the receive buffer (mapped twice): two windows of every origin and one largest
    /// packet, at least four such packets, rounded up to a power of two.
    pub fn receive_bytes(&self) -> u64 {
        let origins = self.cluster.nodes.len() as u64;
        let windows = 2 * origins * u64::from(self.limits.window_bytes);
        let largest = u64::from(self.packet_max());
        (windows + largest).max(4 * largest).next_power_of_two()
    }

    /// Bytes for own packets: a window on its way, one filling, one largest packet.
    pub fn own_pool_bytes(&self) -> u64 {
        let bytes = 2 * u64::from(self.limits.window_bytes) + u64::from(self.packet_max());
        bytes.next_multiple_of(u64::from(BLOCK_BYTES_MAX))
    }

    /// All packet memory of a shard: the receive buffer twice (its mirror), own packets, side
    /// pool, an order block for each group in flight and one more, and 4 MiB of control buffers.
    pub fn arena_bytes(&self) -> u64 {
        let order_block = (384 + u64::from(self.limits.group_orders) * 48).next_multiple_of(4096);
        2 * self.receive_bytes()
            + self.own_pool_bytes()
            + u64::from(self.limits.side_pool_bytes)
            + (u64::from(self.limits.groups_in_flight) + 1) * order_block
            + (4 << 20)
    }

    /// Segments that a log can have at a time, and some that are made while others are freed.
    pub fn segments_max(&self) -> usize {
        let limits = &self.limits;
        (limits.log_bytes / u64::from(limits.segment_bytes)) as usize + 2 * PREALLOCATE_MAX
    }

    /// Hash over what must be equal on all nodes beside cluster id and epoch: the nodes that the
    /// log begins with and their peer addresses, durability, block, and the limits that say so.
    /// Spare nodes come into the files one by one.
    pub fn config_hash(&self) -> u128 {
        let l = &self.limits;
        let mut bytes = Vec::new();
        for member in self.cluster.founders() {
            bytes.push(member.id.0);
            bytes.extend_from_slice(&(member.address.len() as u32).to_le_bytes());
            bytes.extend_from_slice(member.address.as_bytes());
        }
        bytes.extend_from_slice(durability_name(self.cluster.durability).as_bytes());
        let numbers = [self.cluster.block, l.record_bytes, l.packet_bytes, l.window_bytes];
        for number in numbers.into_iter().chain([l.window_instances]) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        xxh3_128(&bytes)
    }

    /// This node's entry among the cluster's.
    pub fn member(&self) -> &Member {
        let own = self.cluster.nodes.iter().find(|member| member.id == self.node.id);
        own.expect("checked: node.id is one of cluster.nodes")
    }
}

fn value(key: &'static str, value: impl ToString, wanted: impl ToString) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), wanted: wanted.to_string() }
}

/// `HOST:PORT`, a port that is not 0; an IPv6 host in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bare = host.starts_with('[') && host.ends_with(']') || !host.contains(':');
    let clean = !host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/');
    !host.is_empty() && bare && clean && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
pub(crate) mod tests;
