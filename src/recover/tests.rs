//! Stores written by hand and opened again, as a node does it at its start.

use super::*;
use crate::config::{Cluster, Limits, Member, Node};
use chainring_ring::header::{Header, Kind};
use chainring_ring::ids::{ClusterId, Epoch, NodeId, Sequence, Session};
use chainring_storage::block::order_block_bytes;
use chainring_storage::{Access, Values, create_segment, segment_path};
use std::os::unix::fs::FileExt;

mod checkpoints;
mod faults;
mod power;

/// A directory that goes with the test.
struct TestDir(std::path::PathBuf);

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn store(name: &str) -> (TestDir, Config) {
    let dir = std::env::temp_dir().join(format!("chainring-recover-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let config = configured(dir.clone());
    config.check().unwrap();
    format(&config).unwrap();
    (TestDir(dir), config)
}

/// Opens it as a node does.
fn open(config: &Config, preallocate: usize) -> Result<(DirLock, Opened), RecoverError> {
    let lock = DirLock::acquire(&config.node.dir)?;
    Ok((lock, open_on(&FileSystem::shared(), config, preallocate)?))
}

fn configured(dir: std::path::PathBuf) -> Config {
    let member = |id: u8| {
        let (address, http) =
            (format!("127.0.0.1:{}", 1000 + u16::from(id)), format!("127.0.0.1:{id}"));
        Member { id: NodeId(id), address, http, spare: false }
    };
    let (id, epoch, durability, block) = (ClusterId(5), Epoch(1), Durability::Sync, 512);
    let nodes = vec![member(1), member(2), member(3)];
    Config {
        cluster: Cluster { id, epoch, durability, block, nodes },
        node: Node { id: NodeId(2), dir, development: true, core: None },
        limits: Limits::small(),
    }
}

fn ballot() -> Ballot {
    Ballot { round: 1, node: NodeId(1), incarnation: Incarnation(1) }
}

fn order(instance: u64, entry: Entry) -> Order {
    let instance = Instance(instance);
    Order { instance, ballot: ballot(), base: Instance(0), entry, decided: false }
}

fn claim(position: u64) -> Claim {
    Claim { ballot: ballot(), position: Instance(position) }
}

fn value(config: &Config, sequence: u64) -> (Entry, Vec<u8>) {
    let (origin, session, sequence) = (NodeId(1), Session::FIRST, Sequence(sequence));
    let mut frame = vec![0; 1024];
    let sender = crate::shard::direct::Sender {
        cluster: config.cluster.id,
        epoch: config.cluster.epoch,
        node: origin,
    };
    let header = sender.header(Kind::Value, 1024, 0);
    Header { session, sequence, ..header }.seal(&mut frame);
    (Entry::Value(ValueId { origin, session, sequence }), frame)
}

fn write(config: &Config, segment: u32, offset: u32, bytes: &[u8]) {
    let path = segment_path(&config.node.dir, segment);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, u64::from(offset)).unwrap();
    file.sync_all().unwrap();
}

/// Writes a group of orders and value frames; returns where its first value lies.
fn append(
    config: &Config,
    log: &mut (LogWriter, LogConfig),
    (orders, frames): (&[Order], &[Vec<u8>]),
    claim: Claim,
) -> (u32, u32) {
    let (writer, limits) = log;
    while let Some(number) = writer.segment_wanted() {
        create_segment(&config.node.dir, limits, number).unwrap();
        writer.add_segment(number).unwrap();
    }
    let mut values = Values::default();
    frames.iter().for_each(|frame| values.push(frame));
    let mut block = vec![0; order_block_bytes(orders.len(), 512)];
    let plan = match orders.is_empty() && frames.is_empty() {
        true => writer.plan_seal(claim, &mut block).unwrap(),
        false => writer.plan(orders, &values, claim, &mut block).unwrap(),
    };
    let bytes = [block, frames.concat()].concat();
    let path = segment_path(&config.node.dir, plan.segment);
    let file = limits.disk.open(&path, Access::WriteDurable, true).unwrap();
    file.write_all_at(&bytes, u64::from(plan.offset)).unwrap();
    writer.complete(plan.group).unwrap();
    (plan.segment, plan.offset + plan.order_block_bytes)
}

/// An idle log says how far it is delivered in a seal; that counts as any other block's word.
#[test]
fn what_a_seal_says_is_delivered_again() {
    let (_dir, config) = store("seal");
    let (lock, opened) = open(&config, 1).unwrap();
    let mut log = opened.log.unwrap();
    let orders: Vec<_> = (0..5).map(|instance| order(instance, Entry::Noop)).collect();
    append(&config, &mut log, (&orders, &[]), claim(2));
    append(&config, &mut log, (&[], &[]), claim(5));
    drop((log, lock));
    let (_lock, opened) = open(&config, 1).unwrap();
    assert_eq!(opened.recovered.delivered, Instance(5));
}

/// Behind damage everything seems undelivered, however long the log is: no more of it is brought
/// into memory than may be under way, and every start is as good as the first.
#[test]
fn behind_damage_no_more_is_held_than_a_window() {
    let (_dir, config) = store("damage");
    let (lock, opened) = open(&config, 1).unwrap();
    let mut log = opened.log.unwrap();
    let mut first = None;
    for instance in 0..100 {
        let (entry, frame) = value(&config, instance);
        let orders = [order(instance, entry)];
        let place = append(&config, &mut log, (&orders, &[frame]), claim(instance));
        first.get_or_insert(place);
    }
    append(&config, &mut log, (&[], &[]), claim(100));
    drop((log, lock));
    let (segment, offset) = first.unwrap();
    write(&config, segment, offset + 200, &[1]);
    for _ in 0..2 {
        let (_lock, opened) = open(&config, 1).unwrap();
        assert!(opened.recovered.damaged);
        assert_eq!(opened.recovered.delivered, Instance(0));
        let held: usize = opened.held.iter().map(|(_, frame)| frame.len()).sum();
        assert!(held > 0 && held as u64 <= held_most(&config), "{held}");
        assert_eq!(opened.recovered.values.len(), opened.held.len());
    }
}

/// A change of epoch that was cut short goes on; a store that was lost later is not made anew, or
/// the node would vote again in an epoch whose votes it has forgotten.
#[test]
fn a_store_lost_after_a_new_epoch_is_not_made_anew() {
    let (dir, mut config) = store("epoch");
    let others =
        ["epoch-1", "next"].map(|end| TestDir(format!("{}.{end}", dir.0.display()).into()));
    config.cluster.epoch = Epoch(2);
    new_epoch(&config).unwrap();
    assert_eq!(superfile::read_superblock(&dir.0).unwrap().identity, identity(&config));
    assert!(matches!(new_epoch(&config), Err(RecoverError::NotNewer { .. })));
    // Between the two renames.
    std::fs::rename(&dir.0, &others[1].0).unwrap();
    new_epoch(&config).unwrap();
    assert_eq!(superfile::read_superblock(&dir.0).unwrap().identity, identity(&config));
    std::fs::remove_dir_all(&dir.0).unwrap();
    assert!(new_epoch(&config).is_err());
    assert!(!is_formatted(&dir.0));
}
