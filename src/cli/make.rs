//! Making clusters: `chainring init`, and the directory of `chainring up` with its mark.
//!
//! Invariants: nothing that exists is overwritten by `init`; `up` takes an empty directory or one
//! with its mark, and a mark that says other than the options is refused, naming both.

use super::out::{Exit, Failure, Output};
use super::{InitArgs, UpArgs};
use crate::config::{Cluster, Config, ConfigError, Limits, Member, Node, durability_of};
use crate::recover;
use chainring_ring::ids::{ClusterId, Durability, Epoch, NodeId};
use chainring_tuning::cores::Cores;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// Name of a node's configuration file.
pub const CONFIG_FILE: &str = "chainring.toml";
/// Name of the mark in a directory of `up`.
pub const MARK_FILE: &str = "chainring-up.toml";
/// Peers of a loopback cluster listen so far above the HTTP ports.
const PEER_PORT_ABOVE: u16 = 1000;

/// `chainring init`.
pub(super) fn init(args: &InitArgs) -> Result<Output, Failure> {
    let members = match args.nodes {
        Some(nodes) => loopback(nodes, 8081, 8081 + PEER_PORT_ABOVE),
        None => args.node.iter().map(|text| member(text)).collect::<Result<_, _>>()?,
    };
    let durability = durability_of(&args.durability).expect("clap checked it");
    let cluster =
        Cluster { id: draw_id()?, epoch: Epoch(1), durability, block: args.block, nodes: members };
    let mut files = Vec::new();
    for member in &cluster.nodes {
        let dir = PathBuf::from("log");
        let node = Node { id: member.id, dir, development: args.development, core: None };
        let config = Config { cluster: cluster.clone(), node, limits: Limits::default() };
        config.check().map_err(|error| usage(&error))?;
        let file = args.dir.join(member.id.0.to_string()).join(CONFIG_FILE);
        if file.exists() {
            let message = format!("{} exists; name another --dir", file.display());
            return Err(Failure::new(Exit::NotFound, "exists", message));
        }
        files.push((file, config.to_toml()));
    }
    for (file, text) in &files {
        let parent = file.parent().expect("joined above");
        std::fs::create_dir_all(parent).map_err(|error| io(parent, &error))?;
        std::fs::write(file, text).map_err(|error| io(file, &error))?;
        // Made here, once: a node whose store is missing later has lost its memory, and says so.
        let config = Config::load(file).map_err(|error| usage(&error))?;
        format_store(&config)?;
    }
    let names: Vec<String> = files.iter().map(|(file, _)| file.display().to_string()).collect();
    let json = json!({ "cluster": format!("{:032x}", cluster.id.0), "files": names });
    Ok(Output::new(names.join("\n"), json))
}

/// `ID=HOST:PORT,HTTP_PORT`.
fn member(text: &str) -> Result<Member, Failure> {
    let parse = || {
        let (id, rest) = text.split_once('=')?;
        let (address, http_port) = rest.rsplit_once(',')?;
        let (host, _) = address.rsplit_once(':')?;
        let http_port: u16 = http_port.parse().ok()?;
        let http = format!("{host}:{http_port}");
        Some(Member {
            id: NodeId(id.parse().ok()?),
            address: address.to_owned(),
            http,
            spare: false,
        })
    };
    parse().ok_or_else(|| {
        let message = format!("--node {text}: wanted ID=HOST:PORT,HTTP_PORT");
        Failure::new(Exit::Usage, "usage", message)
    })
}

fn loopback(nodes: u8, http_port: u16, peer_port: u16) -> Vec<Member> {
    let member = |id: u8| Member {
        id: NodeId(id),
        address: format!("127.0.0.1:{}", u32::from(peer_port) + u32::from(id) - 1),
        http: format!("127.0.0.1:{}", u32::from(http_port) + u32::from(id) - 1),
        spare: false,
    };
    (1..=nodes).map(member).collect()
}

fn draw_id() -> Result<ClusterId, Failure> {
    let mut bytes = [0; 16];
    let source = Path::new("/dev/urandom");
    let read = std::fs::File::open(source).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| io(source, &error))?;
    Ok(ClusterId(u128::from_le_bytes(bytes)))
}

/// What a directory of `up` was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    cluster: String,
    epoch: u32,
    nodes: u8,
    durability: String,
    block: u32,
    /// Of node 1; kept over restarts, as the nodes know each other by their addresses.
    peer_port: u16,
    /// Epoch whose stores are all made. One that is missing later was lost, and is not made anew.
    #[serde(default)]
    formatted: u32,
}

/// A cluster that `up` can start.
#[derive(Debug)]
pub(super) struct Prepared {
    /// One configuration a node.
    pub configs: Vec<Config>,
    /// The new epoch, if an old log was given up: all nodes of a memory cluster stopped, or the
    /// operator said so.
    pub new_epoch: Option<u32>,
}

/// Makes or checks the directory of `up`.
pub(super) fn prepare(args: &UpArgs) -> Result<Prepared, Failure> {
    let file = args.dir.join(MARK_FILE);
    let known = match std::fs::read_to_string(&file) {
        Ok(text) => Some(toml::from_str::<Mark>(&text).map_err(|error| {
            let message = format!("{}: {}", file.display(), error.message());
            Failure::new(Exit::Failed, "mark", message)
        })?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(io(&file, &error)),
    };
    let mut mark = match known {
        Some(mark) => {
            compare(args, &mark)?;
            mark
        }
        None => new_mark(args)?,
    };
    // In memory durability a node that stops has forgotten its log and its votes; with all of
    // them gone, the log is gone, and a new one must not pass for it.
    let durability = durability_of(&mark.durability).expect("compared with the options");
    let first_start = !file.exists();
    let mut new_epoch = None;
    if (durability == Durability::Memory || args.new_epoch) && !first_start {
        mark.epoch += 1;
        new_epoch = Some(mark.epoch);
    }
    let configs = configs(args, &mark, durability)?;
    check_ports(&configs)?;
    write_all(args, &mark, &configs)?;
    if mark.formatted < mark.epoch {
        configs.iter().try_for_each(format_store)?;
        mark.formatted = mark.epoch;
        write_mark(args, &mark)?;
    }
    if new_epoch.is_some() && durability == Durability::Memory {
        for id in 1..=mark.nodes {
            let old = args.dir.join(id.to_string()).join(log_name(mark.epoch - 1));
            // What stays is never read again: its epoch is another one.
            let _ = std::fs::remove_dir_all(old);
        }
    }
    Ok(Prepared { configs, new_epoch })
}

fn compare(args: &UpArgs, mark: &Mark) -> Result<(), Failure> {
    let pairs = [
        ("--nodes", mark.nodes.to_string(), args.nodes.to_string()),
        ("--durability", mark.durability.clone(), args.durability.clone()),
        ("--block", mark.block.to_string(), args.block.to_string()),
    ];
    for (option, made, asked) in pairs {
        if made != asked {
            let message = format!(
                "{} was made with {option} {made}, not {asked}: use {option} {made}, or another --dir",
                args.dir.display()
            );
            return Err(Failure::new(Exit::Refused, "other_options", message));
        }
    }
    Ok(())
}

fn new_mark(args: &UpArgs) -> Result<Mark, Failure> {
    let entries = match std::fs::read_dir(&args.dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(io(&args.dir, &error)),
    };
    if entries {
        let message = format!(
            "{} is not empty and has no {MARK_FILE}: name an empty or a new directory",
            args.dir.display()
        );
        return Err(Failure::new(Exit::Refused, "not_ours", message));
    }
    let peer_port = args.http_port.checked_add(PEER_PORT_ABOVE);
    let peer_port = peer_port.filter(|port| port.checked_add(u16::from(args.nodes)).is_some());
    let peer_port = peer_port.ok_or_else(|| {
        let message = format!("--http-port {}: at most 64528", args.http_port);
        Failure::new(Exit::Usage, "usage", message)
    })?;
    Ok(Mark {
        cluster: format!("{:032x}", draw_id()?.0),
        epoch: 1,
        nodes: args.nodes,
        durability: args.durability.clone(),
        block: args.block,
        peer_port,
        formatted: 0,
    })
}

fn log_name(epoch: u32) -> String {
    if epoch == 1 { "log".to_owned() } else { format!("log-{epoch}") }
}

fn configs(args: &UpArgs, mark: &Mark, durability: Durability) -> Result<Vec<Config>, Failure> {
    let id = u128::from_str_radix(&mark.cluster, 16).map_err(|error| {
        let message = format!("{MARK_FILE}: cluster = {}: {error}", mark.cluster);
        Failure::new(Exit::Failed, "mark", message)
    })?;
    let nodes = loopback(mark.nodes, args.http_port, mark.peer_port);
    let (id, epoch, block) = (ClusterId(id), Epoch(mark.epoch), mark.block);
    let cluster = Cluster { id, epoch, durability, block, nodes };
    // Without an answer the shards stay where the system puts them.
    let cores = Cores::offered().ok();
    let mut configs = Vec::new();
    for index in 0..mark.nodes {
        let node = Node {
            id: NodeId(index + 1),
            dir: args.dir.join((index + 1).to_string()).join(log_name(mark.epoch)),
            development: args.development,
            core: cores.as_ref().map(|cores| cores.core_for(usize::from(index))),
        };
        let config = Config { cluster: cluster.clone(), node, limits: Limits::default() };
        config.check().map_err(|error| usage(&error))?;
        configs.push(config);
    }
    Ok(configs)
}

/// Refuses ports that are in use before anything is written or started.
fn check_ports(configs: &[Config]) -> Result<(), Failure> {
    for member in &configs[0].cluster.nodes {
        for address in [&member.http, &member.address] {
            if let Err(error) = TcpListener::bind(address) {
                let message = format!(
                    "node {} cannot listen on {address}: {error}; stop what listens there, or name another --http-port with a new --dir",
                    member.id.0
                );
                return Err(Failure::new(Exit::Failed, "port_in_use", message));
            }
        }
    }
    Ok(())
}

fn write_all(args: &UpArgs, mark: &Mark, configs: &[Config]) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.dir).map_err(|error| io(&args.dir, &error))?;
    // The mark first: a directory with anything else but no mark would be refused for ever.
    write_mark(args, mark)?;
    for config in configs {
        let dir = args.dir.join(config.node.id.0.to_string());
        std::fs::create_dir_all(&config.node.dir).map_err(|error| io(&dir, &error))?;
        let mut written = config.clone();
        written.node.dir = log_name(mark.epoch).into();
        let file = dir.join(CONFIG_FILE);
        std::fs::write(&file, written.to_toml()).map_err(|error| io(&file, &error))?;
    }
    Ok(())
}

/// Replaces the mark whole or not at all.
fn write_mark(args: &UpArgs, mark: &Mark) -> Result<(), Failure> {
    let text = toml::to_string(mark).expect("a mark is plain");
    let (file, new) = (args.dir.join(MARK_FILE), args.dir.join("chainring-up.new"));
    std::fs::write(&new, text).map_err(|error| io(&new, &error))?;
    std::fs::rename(&new, &file).map_err(|error| io(&file, &error))
}

/// Makes a node's store, unless an earlier try made it.
fn format_store(config: &Config) -> Result<(), Failure> {
    if recover::is_formatted(&config.node.dir) {
        return Ok(());
    }
    recover::format(config).map_err(|error| Failure::new(Exit::Failed, "store", error))
}

fn usage(error: &ConfigError) -> Failure {
    Failure::new(Exit::Usage, "configuration", error)
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, "io", format!("{}: {error}", path.display()))
}

#[cfg(test)]
#[path = "make_tests.rs"]
mod tests;
