//! A node's log driven by hand: what a shard does, with plain writes.

pub use super::samples::{ballot, identity};
use super::samples::{order, value};
use chainring_ring::header::Header;
use chainring_ring::ids::{Claim, Durability, Instance, Order};
use chainring_storage::block::order_block_bytes;
use chainring_storage::segment::segment_path;
use chainring_storage::{
    Disk, FileSystem, GroupPlan, LogConfig, LogError, LogWriter, Place, Recovered, Superblock,
    SuperblockFile, Values, recover,
};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of its own for a test, removed with it.
pub struct TestDir(pub PathBuf);

impl TestDir {
    pub fn new() -> TestDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chainring-recovery-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        TestDir(path)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Segments of 132 KiB, groups to 8 KiB: a few groups fill a segment.
pub fn config(dir: &Path) -> LogConfig {
    LogConfig {
        segment_bytes: 132 << 10,
        group_bytes_max: 8 << 10,
        development: !FileSystem.check_direct(dir, true).unwrap(),
        ..LogConfig::new(identity(), 512)
    }
}

/// A group as recovery shows it, or as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub number: u64,
    pub orders: Vec<Order>,
    pub values: Vec<(Place, Vec<u8>)>,
}

/// A running log.
pub struct Node {
    pub dir: PathBuf,
    pub config: LogConfig,
    pub file: SuperblockFile,
    pub superblock: Superblock,
    pub writer: LogWriter,
    pub recovered: Recovered,
    /// What recovery showed, and what was written since.
    pub kept: Vec<Kept>,
    sequence: u64,
}

/// A group planned but not written.
pub struct Write {
    pub plan: GroupPlan,
    pub bytes: Vec<u8>,
    pub kept: Kept,
}

impl Node {
    /// Starts over what lies in `dir`; a new store is made of three nodes.
    pub fn start(dir: &Path) -> Result<Node, LogError> {
        Node::start_as(dir, config(dir), 3)
    }

    pub fn start_as(dir: &Path, config: LogConfig, nodes: u8) -> Result<Node, LogError> {
        let development = config.development;
        let (mut file, mut superblock) =
            match SuperblockFile::open(&FileSystem, dir, &config.identity, development) {
                Err(LogError::NoSuperblock { .. }) => {
                    let new = Superblock::new(config.identity, Durability::Sync, 512, nodes);
                    (SuperblockFile::create(&FileSystem, dir, &new, development)?, new)
                }
                opened => opened?,
            };
        superblock.nodes = nodes;
        superblock.start += 1;
        file.write(&superblock)?;
        let mut kept = Vec::new();
        let (recovered, writer) = recover(
            dir,
            &config,
            &mut file,
            &mut superblock,
            chainring_storage::Start::of_log(0),
            &mut |group| {
                let frame = |(header, place): &(Header, Place)| {
                    assert_eq!(header.size, place.bytes);
                    (*place, group.frame(*place).to_vec())
                };
                kept.push(Kept {
                    number: group.number,
                    orders: group.orders.to_vec(),
                    values: group.values.iter().map(frame).collect(),
                });
            },
        )?;
        let sequence = 1000 * u64::from(superblock.start);
        let dir = dir.to_path_buf();
        Ok(Node { dir, config, file, superblock, writer, recovered, kept, sequence })
    }

    /// Plans a group with one order and one value for each size.
    pub fn plan(&mut self, sizes: &[u32]) -> Write {
        let (mut values, mut frames, mut orders) = (Values::default(), Vec::new(), Vec::new());
        for size in sizes {
            self.sequence += 1;
            let frame = value(self.sequence, *size);
            values.push(&frame);
            orders.push(order(self.sequence));
            frames.push(frame);
        }
        let mut block = vec![0; order_block_bytes(orders.len(), 512)];
        while let Some(number) = self.writer.segment_wanted() {
            chainring_storage::create_segment(&self.dir, &self.config, number).unwrap();
            self.writer.add_segment(number).unwrap();
        }
        let plan = self.writer.plan(&orders, &values, claim(), &mut block).unwrap();
        let mut before = 0;
        let mut kept = Kept { number: plan.group, orders, values: Vec::new() };
        for frame in frames {
            let place = plan.value_place(before, frame.len() as u32);
            before += place.bytes;
            block.extend_from_slice(&frame);
            kept.values.push((place, frame));
        }
        assert_eq!(block.len(), plan.bytes as usize);
        Write { plan, bytes: block, kept }
    }

    /// Writes a part of a planned group.
    pub fn write_part(&self, write: &Write, part: std::ops::Range<usize>) {
        let at = u64::from(write.plan.offset) + part.start as u64;
        poke(&self.dir, write.plan.segment, at, &write.bytes[part]);
    }

    /// Writes a planned group and completes it.
    pub fn write(&mut self, write: Write) {
        self.write_part(&write, 0..write.bytes.len());
        self.writer.complete(write.plan.group).unwrap();
        self.kept.push(write.kept);
    }

    /// Plans, writes and completes a group.
    pub fn append(&mut self, sizes: &[u32]) {
        let write = self.plan(sizes);
        self.write(write);
    }

    pub fn seal(&mut self) {
        let mut block = vec![0; 512];
        let plan = self.writer.plan_seal(claim(), &mut block).unwrap();
        poke(&self.dir, plan.segment, u64::from(plan.offset), &block);
        self.writer.complete(plan.group).unwrap();
    }

    /// The place of the first block of a group, by that of its first value.
    pub fn block_of(&self, index: usize) -> (u32, u32) {
        let place = self.kept[index].values[0].0;
        (place.segment(), place.offset() / 4096 * 4096)
    }
}

/// Ten complete groups and a seal over them.
pub fn ten_groups(dir: &TestDir) -> Node {
    let mut node = Node::start(&dir.0).unwrap();
    (0..10).for_each(|_| node.append(&[1024, 2048]));
    node.seal();
    node
}

/// Overwrites bytes of a segment, durably.
pub fn poke(dir: &Path, segment: u32, at: u64, bytes: &[u8]) {
    let path = segment_path(dir, segment);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.sync_all().unwrap();
}

fn claim() -> Claim {
    Claim { ballot: ballot(), position: Instance(5) }
}
