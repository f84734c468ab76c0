//! What a node says of its start.

use super::{Node, Options};
use crate::config::{Cluster, Config, Limits, Member, Node as Own};
use crate::recover;
use chainring_ring::ids::{ClusterId, Durability, Epoch, NodeId};
use std::path::PathBuf;

/// A lone node of a memory cluster, on ports that are free now.
fn config(dir: PathBuf, core: usize) -> Config {
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let nodes = vec![Member { id: NodeId(1), address: free(), http: free(), spare: false }];
    let (id, epoch, block) = (ClusterId(7), Epoch(1), 512);
    Config {
        cluster: Cluster { id, epoch, durability: Durability::Memory, block, nodes },
        node: Own { id: NodeId(1), dir, development: true, core: Some(core) },
        limits: Limits { memory_log_bytes: 64 << 20, ..Limits::default() },
    }
}

#[test]
fn a_shard_that_cannot_be_pinned_is_remarked_and_runs() {
    let here = chainring_tuning::cores::Cores::offered().unwrap().core_for(0);
    for (core, pinned) in [(here, true), (100_000, false)] {
        let name = format!("chainring-node-{}-{core}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let config = config(dir.clone(), core);
        recover::format(&config).unwrap();
        let node = Node::start(config, Options::default()).unwrap();
        let remarks = node.remarks.clone();
        assert!(!node.has_ended());
        node.stop();
        node.join().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let told: Vec<_> = remarks.iter().filter(|r| r.contains("not pinned")).collect();
        assert_eq!(told.is_empty(), pinned, "{remarks:?}");
        assert!(told.iter().all(|remark| remark.contains("core 100000")), "{told:?}");
    }
}
