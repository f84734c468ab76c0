//! Foreign, missing, misleading and growing files.

use crate::common::{Kept, Node, TestDir, config, identity, poke, ten_groups};
use chainring_ring::header::Header;
use chainring_ring::ids::{ClusterId, NodeId};
use chainring_storage::config::address;
use chainring_storage::segment::segment_path;
use chainring_storage::{DamageState, Identity, LogError, ScanInput, inspect, scan};

#[test]
fn another_nodes_log_is_refused() {
    let dir = TestDir::new();
    drop(ten_groups(&dir));
    let others = [
        Identity { node: NodeId(3), ..identity() },
        Identity { cluster: ClusterId(9), ..identity() },
    ];
    for other in others {
        let config = chainring_storage::LogConfig { identity: other, ..config(&dir.0) };
        let refused = Node::start_as(&dir.0, config.clone(), 3).map(|_| ());
        assert!(matches!(refused, Err(LogError::Foreign { .. })), "{refused:?}");
        // With a superblock of its own over our segments.
        let aside = dir.0.join("aside");
        std::fs::rename(dir.0.join("superblock"), &aside).unwrap();
        let refused = Node::start_as(&dir.0, config.clone(), 3).map(|_| ());
        assert!(matches!(refused, Err(LogError::Foreign { .. })), "{refused:?}");
        std::fs::rename(aside, dir.0.join("superblock")).unwrap();
        // A segment of another log that holds no group yet.
        let empty = TestDir::new();
        chainring_storage::create_segment(&empty.0, &config, 0).unwrap();
        let refused = Node::start(&empty.0).map(|_| ());
        assert!(matches!(refused, Err(LogError::Foreign { .. })), "{refused:?}");
    }
    Node::start(&dir.0).unwrap();
}

#[test]
fn a_missing_segment_is_unknown() {
    for missing in 0..4u32 {
        let dir = TestDir::new();
        let mut node = Node::start(&dir.0).unwrap();
        while node.writer.segment() < 3 {
            node.append(&[7168]);
        }
        node.append(&[7168]);
        node.seal();
        node.superblock.sealed = node.writer.durable();
        node.file.write(&node.superblock).unwrap();
        let kept = node.kept.clone();
        drop(node);
        std::fs::remove_file(segment_path(&dir.0, missing)).unwrap();
        let left = |group: &&Kept| group.values[0].0.segment() != missing;
        let mut left: Vec<Kept> = kept.iter().filter(left).cloned().collect();
        for life in 0..3 {
            let mut node = Node::start(&dir.0).unwrap();
            assert_eq!(node.kept, left, "segment {missing}, life {life}");
            assert_eq!(node.recovered.unknowns.len(), 1, "segment {missing}, life {life}");
            let range = node.recovered.unknowns[0];
            assert!(range.from <= address(missing, 4096), "{range:x?}");
            assert!(range.to >= address(missing, 4096), "{range:x?}");
            node.append(&[1024]);
            left = node.kept;
        }
    }
}

/// The newest segment in use is missing and no seal speaks of it, for its seals are gone with it.
/// The segments made ahead show that it was there: what it held is unknown, not 'never had'.
#[test]
fn a_missing_last_segment_is_unknown() {
    let dir = TestDir::new();
    let mut node = Node::start(&dir.0).unwrap();
    while node.writer.segment() < 3 {
        node.append(&[7168]);
    }
    node.append(&[7168]);
    let mut left = node.kept.clone();
    drop(node);
    assert!(segment_path(&dir.0, 4).exists(), "made ahead");
    std::fs::remove_file(segment_path(&dir.0, 3)).unwrap();
    left.retain(|group| group.values[0].0.segment() != 3);
    for life in 0..3 {
        let mut node = Node::start(&dir.0).unwrap();
        assert_eq!(node.kept, left, "life {life}");
        assert!(node.recovered.damaged, "life {life}");
        node.append(&[1024]);
        left = node.kept;
    }
}

/// The superblock alone knows that the last groups were complete: they are unknown, never cut, and
/// the log goes on in another segment, the next one too, and the gap is found at every start.
#[test]
fn a_lost_tail_below_the_seal_of_the_superblock() {
    for made_ahead in [false, true] {
        let dir = TestDir::new();
        let mut node = ten_groups(&dir);
        node.superblock.sealed = node.writer.durable();
        node.file.write(&node.superblock).unwrap();
        let (mut kept, (segment, at)) = (node.kept.clone(), node.block_of(8));
        drop(node);
        poke(&dir.0, segment, u64::from(at), &vec![0; (132 << 10) - at as usize]);
        if !made_ahead {
            std::fs::remove_file(segment_path(&dir.0, segment + 1)).unwrap();
        }
        kept.truncate(8);
        for life in 0..3 {
            let mut node = Node::start(&dir.0).unwrap();
            assert_eq!(node.kept, kept, "life {life}");
            assert!(node.recovered.damaged && node.recovered.cuts.is_empty(), "life {life}");
            assert!(node.writer.segment() > segment, "what may be repaired is not overwritten");
            node.append(&[1024]);
            kept = node.kept;
        }
    }
}

/// A block that is intact but not the one that was written there: the next group does not follow
/// it. Everything can be read, and still something is wrong at or below a seal.
#[test]
fn a_group_that_does_not_follow_is_damage() {
    let dir = TestDir::new();
    let node = ten_groups(&dir);
    let (kept, (segment, at)) = (node.kept.clone(), node.block_of(4));
    drop(node);
    let file = std::fs::read(segment_path(&dir.0, segment)).unwrap();
    let mut block = file[at as usize..at as usize + 512].to_vec();
    block[184] ^= 1;
    Header::decode(&block, 512).unwrap().seal(&mut block);
    poke(&dir.0, segment, u64::from(at), &block);
    let node = Node::start(&dir.0).unwrap();
    assert_eq!(node.kept, kept);
    let from = address(segment, at + 4096);
    assert_eq!(node.recovered.unknowns.len(), 1);
    assert_eq!(node.recovered.unknowns[0].from, from);
}

#[test]
fn a_damaged_segment_header_costs_nothing() {
    let dir = TestDir::new();
    let node = ten_groups(&dir);
    let kept = node.kept.clone();
    drop(node);
    poke(&dir.0, 0, 0, &[0xa5; 300]);
    assert_eq!(Node::start(&dir.0).unwrap().kept, kept);
    assert_eq!(inspect(&dir.0).unwrap().log.headers_damaged, 1);
}

#[test]
fn a_superblock_older_than_the_log_is_refused() {
    let dir = TestDir::new();
    drop(Node::start(&dir.0).unwrap());
    let old = std::fs::read(dir.0.join("superblock")).unwrap();
    drop(ten_groups(&dir));
    drop(ten_groups(&dir));
    std::fs::write(dir.0.join("superblock"), old).unwrap();
    let refused = Node::start(&dir.0).map(|_| ());
    assert!(matches!(refused, Err(LogError::StartNotRaised { found: 2, start: 2 })), "{refused:?}");
}

/// Records may carry the bytes of a segment. They are never taken for groups, even next to damage.
#[test]
fn groups_inside_records_are_not_groups() {
    let dir = TestDir::new();
    let mut node = ten_groups(&dir);
    let (segment, at) = node.block_of(2);
    let old = std::fs::read(segment_path(&dir.0, segment)).unwrap();
    let torn = node.plan(&[7168]);
    node.write_part(&torn, 0..512);
    // As if the torn group's values held an old group, at a multiple of 4096.
    let old = &old[at as usize..at as usize + 2048];
    poke(&dir.0, torn.plan.segment, u64::from(torn.plan.offset) + 4096, old);
    let kept = node.kept.clone();
    drop(node);
    let node = Node::start(&dir.0).unwrap();
    assert_eq!(node.kept, kept);
    assert_eq!((node.recovered.cuts.len(), node.recovered.damaged), (1, false));
}

/// The same inside a group that was complete and is damaged: what lies in it is looked through for
/// the next group, and an older one is not it.
#[test]
fn an_old_group_inside_a_damaged_one_is_not_taken() {
    let dir = TestDir::new();
    let mut node = ten_groups(&dir);
    let (segment, at) = node.block_of(2);
    let old = std::fs::read(segment_path(&dir.0, segment)).unwrap();
    let write = node.plan(&[7168]);
    let (segment, start) = (write.plan.segment, u64::from(write.plan.offset));
    let mut kept = node.kept.clone();
    node.write(write);
    node.append(&[512]);
    node.seal();
    kept.push(node.kept.last().unwrap().clone());
    drop(node);
    poke(&dir.0, segment, start, &[0xa5; 64]);
    poke(&dir.0, segment, start + 4096, &old[at as usize..at as usize + 4096]);
    let node = Node::start(&dir.0).unwrap();
    assert_eq!(node.kept, kept);
    assert_eq!(node.recovered.unknowns.len(), 1);
    assert_eq!(node.recovered.unknowns[0].to, address(segment, start as u32 + 8192));
}

/// A group and its seal are written after the walk has read that part of the file: no damage.
#[test]
fn a_walk_beside_a_writer_looks_twice() {
    let dir = TestDir::new();
    let mut node = ten_groups(&dir);
    let mut flying = Some(node.plan(&[1024]));
    let config = node.config.clone();
    let input = ScanInput {
        dir: &dir.0,
        config: &config,
        sealed: 0,
        from: chainring_storage::Start::of_log(0),
        start: None,
        alone: true,
        damage: &[],
    };
    let mut groups = 0;
    let scanned = scan(&input, &mut |_| {
        groups += 1;
        if let Some(write) = flying.take() {
            node.write(write);
            node.seal();
        }
    });
    assert_eq!((groups, scanned.unwrap().damage), (11, vec![]));
}

/// More damage than the superblock can record is refused, not forgotten.
#[test]
fn too_much_damage_is_refused() {
    let dir = TestDir::new();
    let mut node = Node::start(&dir.0).unwrap();
    (0..40).for_each(|_| node.append(&[1024]));
    node.seal();
    let damaged: Vec<(u32, u32)> = (0..34).step_by(2).map(|index| node.block_of(index)).collect();
    drop(node);
    for (segment, at) in &damaged[1..] {
        poke(&dir.0, *segment, u64::from(*at), &[0xa5; 64]);
    }
    assert_eq!(Node::start(&dir.0).unwrap().recovered.unknowns.len(), 16);
    let (segment, at) = damaged[0];
    poke(&dir.0, segment, u64::from(at), &[0xa5; 64]);
    let refused = Node::start(&dir.0).map(|_| ());
    assert!(matches!(refused, Err(LogError::TooMuchDamage { limit: 16 })), "{refused:?}");
}

/// The disk reported a write as done and kept what lay there before: intact values, but older ones.
#[test]
fn a_lost_write_of_values_shows() {
    let dir = TestDir::new();
    let mut node = Node::start(&dir.0).unwrap();
    node.append(&[1024]);
    let write = node.plan(&[1024, 1024]);
    let mut swapped = write.bytes.clone();
    swapped[512..].rotate_left(1024);
    let at = u64::from(write.plan.offset);
    let segment = write.plan.segment;
    node.write(write);
    node.seal();
    drop(node);
    poke(&dir.0, segment, at, &swapped);
    let node = Node::start(&dir.0).unwrap();
    assert!(node.recovered.damaged);
    assert_eq!(node.kept[1].orders.len(), 2);
}

/// Inspection beside a running node changes nothing and shows what is complete.
#[test]
fn inspection_beside_a_writer() {
    let dir = TestDir::new();
    let mut node = ten_groups(&dir);
    let flying = node.plan(&[4096]);
    node.write_part(&flying, 0..1024);
    let report = inspect(&dir.0).unwrap();
    assert_eq!(report.segments[0].groups, 10);
    assert_eq!(report.log.damage.len(), 1, "the write on its way looks torn");
    assert_eq!(report.log.damage[0].state, DamageState::Cut);
    node.write(flying);
    node.seal();
    let report = inspect(&dir.0).unwrap();
    assert_eq!((report.segments[0].groups, report.log.damage.len()), (11, 0));
    let (low, high) = report.segments[0].instances.unwrap();
    assert_eq!(high.0 - low.0, 20);
    std::fs::remove_file(dir.0.join("superblock")).unwrap();
    let report = inspect(&dir.0).unwrap();
    assert!(matches!(report.superblock, Err(LogError::NoSuperblock { .. })));
    assert_eq!((report.identity, report.log.groups), (identity(), 14));
}
