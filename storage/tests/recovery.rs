//! Recovery of a log from real files: what was acknowledged is kept, what was torn is cut and does
//! not come back, what is damaged is unknown.

mod common;

use chainring_ring::header::Header;
use chainring_ring::ids::{ClusterId, NodeId};
use chainring_storage::config::address;
use chainring_storage::segment::segment_path;
use chainring_storage::superfile::read_superblock;
use chainring_storage::{AlignedBuf, DamageState, Identity, LogError, LogReader, inspect};
use common::{Kept, Node, TestDir, ballot, config, identity, poke};

#[test]
fn a_log_over_many_segments_comes_back_whole() {
    let dir = TestDir::new();
    let mut kept: Vec<Kept> = Vec::new();
    for life in 0..4u32 {
        let mut node = Node::start(&dir.0).unwrap();
        assert_eq!(node.kept, kept, "life {life}");
        assert!(!node.recovered.damaged && node.recovered.cuts.is_empty());
        for group in 0..60u32 {
            let size = 512 * (1 + (group * 7 + life) % 12);
            match group % 3 {
                0 => node.append(&[size]),
                1 => node.append(&[512, 1024, size.min(4096)]),
                _ => {
                    node.append(&[size]);
                    node.seal();
                }
            }
        }
        kept = node.kept;
    }
    let report = inspect(&dir.0).unwrap();
    assert!(report.segments.len() > 5 && report.log.damage.is_empty());
    assert_eq!(report.log.ballot, ballot());
    assert_eq!(report.segments.iter().map(|s| s.groups).sum::<u64>(), 240);
    let mut reader = LogReader::new(&dir.0, identity(), config(&dir.0).development);
    let mut buf = AlignedBuf::new(0);
    for (place, frame) in kept.iter().flat_map(|group| &group.values).rev() {
        let (header, bytes) = reader.read(*place, &mut buf).unwrap();
        assert_eq!((bytes, header.size), (&frame[..], place.bytes));
    }
    let (mut wrong, _) = kept[0].values[0].clone();
    wrong.at += 512;
    assert!(matches!(reader.read(wrong, &mut buf), Err(LogError::Frame { .. })));
}

/// The last write may have landed in any prefix or suffix of its sectors: only the whole counts,
/// and what is written after the cut is all that is found behind it.
#[test]
fn a_torn_tail_at_every_sector() {
    let sectors = 16;
    for landed in 0..=sectors {
        for suffix in [false, true] {
            let dir = TestDir::new();
            let mut node = Node::start(&dir.0).unwrap();
            node.append(&[1024]);
            let last = node.plan(&[1024, 512, 6144]);
            assert_eq!(last.bytes.len(), sectors * 512);
            let part =
                if suffix { (sectors - landed) * 512..sectors * 512 } else { 0..landed * 512 };
            node.write_part(&last, part);
            let mut kept = node.kept.clone();
            if landed == sectors {
                kept.push(last.kept.clone());
            }
            drop(node);
            let mut node = Node::start(&dir.0).unwrap();
            assert_eq!(node.kept, kept, "{landed} sectors, suffix {suffix}");
            let cut = landed != 0 && landed != sectors;
            assert_eq!(node.recovered.cuts.len(), usize::from(cut));
            assert_eq!(read_superblock(&dir.0).unwrap().damage, node.recovered.cuts);
            assert!(!node.recovered.damaged);
            let bytes = std::fs::read(segment_path(&dir.0, 0)).unwrap();
            let seal = last.plan.offset as usize + if landed == sectors { 8192 } else { 0 };
            assert!(bytes[seal + 512..].iter().all(|byte| *byte == 0), "cleared behind the seal");
            node.append(&[1024, 512, 6144]);
            let kept = node.kept;
            let node = Node::start(&dir.0).unwrap();
            assert_eq!(node.kept, kept, "after new appends");
            assert!(node.recovered.cuts.is_empty(), "a cut is made once");
        }
    }
}

/// Two groups in flight, the second landed: neither was acknowledged. New groups of the same sizes
/// end exactly where the dropped one begins, and still it stays dropped.
#[test]
fn a_dropped_group_does_not_come_back() {
    for partly_cleared in [false, true] {
        let dir = TestDir::new();
        let mut node = Node::start(&dir.0).unwrap();
        node.append(&[1024]);
        let (torn, landed) = (node.plan(&[3072]), node.plan(&[3072]));
        node.write_part(&torn, 0..1024);
        node.write_part(&landed, 0..landed.bytes.len());
        let kept = node.kept.clone();
        drop(node);
        let mut node = Node::start(&dir.0).unwrap();
        assert_eq!(node.kept, kept);
        assert_eq!(node.recovered.cuts.len(), 1);
        if partly_cleared {
            // The disk lost the zeros: leftovers of an earlier life lie behind the new end.
            let at = u64::from(landed.plan.offset);
            poke(&dir.0, landed.plan.segment, at, &landed.bytes);
            let far = at + 40960;
            poke(&dir.0, landed.plan.segment, far, &landed.bytes);
        }
        // The recovery seal takes the torn group's place, this group that of the landed one.
        node.append(&[3072]);
        let kept = node.kept;
        let node = Node::start(&dir.0).unwrap();
        assert_eq!(node.kept, kept);
        let node = Node::start(&dir.0).map(|node| node.kept).unwrap();
        assert_eq!(node, kept);
    }
}

/// The torn group is the last of its segment, the one that landed the first of the next.
#[test]
fn a_cut_over_the_end_of_a_segment() {
    let dir = TestDir::new();
    let mut node = Node::start(&dir.0).unwrap();
    loop {
        let write = node.plan(&[7168]);
        if write.plan.offset + 2 * 8192 > 132 << 10 {
            let next = node.plan(&[7168]);
            assert_eq!((write.plan.segment, next.plan.segment), (0, 1));
            node.write_part(&next, 0..next.bytes.len());
            break;
        }
        node.write(write);
    }
    let kept = node.kept.clone();
    drop(node);
    let mut node = Node::start(&dir.0).unwrap();
    assert_eq!(node.kept, kept);
    let behind = std::fs::read(segment_path(&dir.0, 1)).unwrap();
    assert!(behind[4096..].iter().all(|byte| *byte == 0), "made anew");
    for _ in 0..20 {
        node.append(&[7168]);
    }
    let kept = node.kept;
    assert_eq!(Node::start(&dir.0).unwrap().kept, kept);
}

fn ten_groups(dir: &TestDir) -> Node {
    let mut node = Node::start(&dir.0).unwrap();
    (0..10).for_each(|_| node.append(&[1024, 2048]));
    node.seal();
    node
}

/// Every kind of damage to a sealed group in the middle: it alone is unknown, and a node alone
/// refuses and names the range.
#[test]
fn damage_in_the_middle_is_unknown_and_never_cut() {
    // Offset in the group and bytes: header, body of the block, value header, value body, all.
    let cases = [(0, 16), (54, 1), (200, 8), (512, 8), (1000, 1), (512 + 1024, 512), (0, 4096)];
    for (offset, bytes) in cases {
        for zeros in [false, true] {
            let dir = TestDir::new();
            let node = ten_groups(&dir);
            let (kept, (segment, at)) = (node.kept.clone(), node.block_of(4));
            drop(node);
            let fill = vec![if zeros { 0 } else { 0xa5 }; bytes];
            poke(&dir.0, segment, u64::from(at + offset), &fill);
            let alone = Node::start_as(&dir.0, config(&dir.0), 1).map(|_| ());
            let Err(LogError::Corrupt { from, to }) = alone else { panic!("{alone:?}") };
            let group = address(segment, at)..address(segment, at + 4096);
            assert!(group.contains(&from) && to <= group.end, "{from:x} {to:x} {group:x?}");

            let node = Node::start(&dir.0).unwrap();
            assert!(node.recovered.damaged && node.recovered.cuts.is_empty());
            assert_eq!(node.recovered.unknowns.len(), 1);
            assert_eq!(node.superblock.damage, node.recovered.unknowns);
            let orders_kept = offset >= 512;
            for group in &kept {
                let found = node.kept.iter().find(|found| found.number == group.number);
                match found {
                    Some(found) if group.number != kept[4].number => assert_eq!(found, group),
                    Some(found) => {
                        assert!(orders_kept);
                        assert_eq!(found.orders, group.orders);
                        assert!(found.values.iter().all(|value| group.values.contains(value)));
                        assert!(found.values.len() < group.values.len());
                    }
                    None => assert!(group.number == kept[4].number && !orders_kept),
                }
            }
        }
    }
}

#[test]
fn a_repaired_range_is_passed_over() {
    let dir = TestDir::new();
    let node = ten_groups(&dir);
    let (segment, at) = node.block_of(4);
    drop(node);
    poke(&dir.0, segment, u64::from(at), &[0xa5; 64]);
    let mut node = Node::start(&dir.0).unwrap();
    assert!(node.recovered.damaged);
    node.superblock.damage[0].state = DamageState::Repaired;
    node.file.write(&node.superblock).unwrap();
    node.append(&[512]);
    let kept = node.kept;
    let node = Node::start(&dir.0).unwrap();
    assert!(!node.recovered.damaged && node.recovered.unknowns.is_empty());
    assert_eq!(node.kept, kept);
    assert_eq!(node.superblock.damage.len(), 1, "it stays recorded");
}

/// Any single damaged sector of a sealed log: every group is kept as it was or lies in an unknown
/// range. Nothing is cut, nothing else appears.
#[test]
fn any_damaged_sector_is_accounted_for() {
    let base = TestDir::new();
    let mut node = ten_groups(&base);
    (0..30).for_each(|_| node.append(&[512, 5120]));
    node.seal();
    let (kept, groups) = (node.kept.clone(), node.kept.len());
    // The last seal itself is above every seal: damage to it is a torn write.
    let last = kept[groups - 1].values[1].0;
    let end = last.segment() as usize * (132 << 10) + last.offset() as usize + 5120;
    drop(node);
    for sector in (0..end).step_by(512 * 3) {
        let (segment, at) = (sector / (132 << 10), sector % (132 << 10));
        let path = segment_path(&base.0, segment as u32);
        let before = std::fs::read(&path).unwrap();
        poke(&base.0, segment as u32, at as u64, &[0x5a; 512]);
        let report = inspect(&base.0).unwrap();
        let damage = &report.log.damage;
        assert!(damage.iter().all(|damage| damage.state == DamageState::Unknown), "{damage:?}");
        let hit = |group: &&Kept| {
            let start = address(group.values[0].0.segment(), group.values[0].0.offset() - 512);
            let end = group.values[1].0.at + u64::from(group.values[1].0.bytes);
            (start..end).contains(&address(segment as u32, at as u32))
        };
        let lost = kept.iter().filter(hit).count();
        assert!(damage.len() >= lost, "sector {sector}: {lost} hit, {damage:?}");
        let orders: u64 = report.log.orders;
        assert!(orders + 2 * lost as u64 >= 2 * groups as u64, "sector {sector}");
        poke(&base.0, segment as u32, 0, &before);
    }
    assert!(inspect(&base.0).unwrap().log.damage.is_empty());
}

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
