//! The cluster of a demonstration: its directory, its nodes on loopback, their start and end.
//!
//! Invariants: nothing that exists is overwritten; a temporary directory is gone at the end,
//! whichever way it comes, unless it was to be kept; no thread of a node outlives the cluster.

use super::feed::{Feed, Shared};
use super::input::Input;
use super::room::{Room, check_disk};
use super::{DemoError, Plan, system};
use crate::config::{Cluster as Common, Config, Limits, Member, Node as Own};
use crate::node::{Finished, Node, NodeError, Options};
use crate::recover;
use chainring_ring::ids::{ClusterId, Durability, Epoch, NodeId};
use chainring_tuning::cores::Cores;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the logs are.
#[derive(Debug)]
pub struct Home {
    /// The directory; node k's log is in `k/log`.
    pub dir: PathBuf,
    /// True if it goes when this does.
    pub temporary: bool,
}

impl Home {
    /// The directory of a plan, made if it is missing; it must be empty.
    pub fn make(plan: &Plan) -> Result<Home, DemoError> {
        let Some(dir) = &plan.dir else { return Home::temporary(plan.keep) };
        let failed = || system(format!("use the directory {}", dir.display()));
        std::fs::create_dir_all(dir).map_err(failed())?;
        if std::fs::read_dir(dir).map_err(failed())?.next().is_some() {
            return Err(DemoError::NotEmpty { dir: dir.clone() });
        }
        Ok(Home { dir: dir.clone(), temporary: false })
    }

    fn temporary(keep: bool) -> Result<Home, DemoError> {
        let name = format!("chainring-demo-{:016x}", random());
        let dir = std::env::temp_dir().join(name);
        // It must not be there: what is there is somebody else's.
        std::fs::create_dir(&dir).map_err(system(format!("make {}", dir.display())))?;
        Ok(Home { dir, temporary: !keep })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing can be done about a failure, and the result is known already.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Nodes that run.
pub struct Cluster {
    /// In order of id.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Makes stores and starts all nodes, each with its part of the load.
    pub fn start(
        plan: &Plan,
        home: &Path,
        room: &Room,
        input: &Input,
        shared: &Arc<Shared>,
    ) -> Result<Cluster, DemoError> {
        let configs = configs(plan, home, room)?;
        if plan.durability != Durability::Memory {
            check_disk(home, room.disk_bytes() * u64::from(plan.nodes))?;
        }
        let start = |(index, config): (usize, Config)| {
            write_config(&config)?;
            recover::format(&config)?;
            let feed = Feed::new(index, &input.parts, input.time, shared);
            let source = Some(Box::new(feed) as Box<dyn crate::source::Source>);
            let options = Options { preallocate: room.ahead, source, ..Options::default() };
            Ok::<Node, DemoError>(Node::start(config, options)?)
        };
        // At once: each writes its segments full of zeros first.
        let started: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = configs
                .into_iter()
                .enumerate()
                .map(|pair| scope.spawn(move || start(pair)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a start does not panic"))
                .collect()
        });
        let (mut nodes, mut failure) = (Vec::new(), None);
        for node in started {
            match node {
                Ok(node) => nodes.push(node),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let cluster = Cluster { nodes };
        match failure {
            Some(error) => {
                let _ = cluster.stop();
                Err(error)
            }
            None => Ok(cluster),
        }
    }

    /// Ends all nodes at once; the failure of the first that had one.
    pub fn stop(self) -> Result<(), NodeError> {
        self.nodes.iter().for_each(Node::stop);
        self.join().map(|_| ())
    }

    /// Lets all nodes come to rest together: none loses its neighbours before.
    pub fn drain(self) -> Result<Vec<Finished>, NodeError> {
        self.nodes.iter().for_each(Node::drain);
        self.join()
    }

    fn join(self) -> Result<Vec<Finished>, NodeError> {
        let ended: Vec<_> = self.nodes.into_iter().map(Node::join).collect();
        ended.into_iter().collect()
    }

    /// A line for each node: every figure that is not 0.
    pub fn states(&self) -> String {
        let line = |node: &Node| {
            let mut line = format!("  node {}:", node.config.node.id.0);
            node.gauges.each(|name, value| {
                if value != 0 {
                    line.push_str(&format!(" {name}={value}"));
                }
            });
            line
        };
        self.nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn configs(plan: &Plan, home: &Path, room: &Room) -> Result<Vec<Config>, DemoError> {
    let nodes = members(plan.nodes)?;
    let id = ClusterId(u128::from(random()) << 64 | u128::from(random()));
    let (epoch, block) = (Epoch(1), 512);
    let cluster = Common { id, epoch, durability: plan.durability, block, nodes };
    let defaults = Limits::default();
    let limits = Limits {
        segment_bytes: room.segment_bytes,
        log_bytes: room.log_bytes,
        memory_log_bytes: room.memory_log_bytes(plan.nodes),
        ..defaults
    };
    // Without an answer the shards stay where the system puts them.
    let cores = Cores::offered().ok();
    let mut configs = Vec::new();
    for index in 0..plan.nodes {
        let node = Own {
            id: NodeId(index + 1),
            dir: home.join((index + 1).to_string()).join("log"),
            // Nothing of a memory cluster has to outlive it, so any file system will do.
            development: plan.durability == Durability::Memory,
            core: cores.as_ref().map(|cores| cores.core_for(usize::from(index))),
        };
        let config = Config { cluster: cluster.clone(), node, limits: limits.clone() };
        config.check()?;
        configs.push(config);
    }
    Ok(configs)
}

/// Loopback addresses with ports that are free now. All are held until the last one is known.
fn members(nodes: u8) -> Result<Vec<Member>, DemoError> {
    let mut held = Vec::new();
    let mut free = || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        held.push(listener);
        Ok(address)
    };
    let mut members = Vec::new();
    for id in 1..=nodes {
        let pair = free().and_then(|address| Ok((address, free()?)));
        let (address, http) = pair.map_err(system("listen on 127.0.0.1"))?;
        members.push(Member { id: NodeId(id), address, http, spare: false });
    }
    Ok(members)
}

/// So that the commands find a log that is kept, and a node can be started on it.
fn write_config(config: &Config) -> Result<(), DemoError> {
    let mut written = config.clone();
    written.node.dir = "log".into();
    let dir = config.node.dir.parent().expect("joined in configs");
    let file = dir.join("chainring.toml");
    let write =
        std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&file, written.to_toml()));
    write.map_err(system(format!("write {}", file.display())))
}

/// A number that differs from run to run; nobody needs to fail to guess it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
