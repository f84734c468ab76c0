//! What is damaged at or below a seal is unknown, accounted for, and never cut.

use crate::common::{Kept, Node, TestDir, config, poke, ten_groups};
use chainring_storage::config::address;
use chainring_storage::segment::segment_path;
use chainring_storage::{DamageState, LogError, inspect};

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

/// What was repaired once says nothing of what is lost behind it later (simulator: a segment lost,
/// repaired, and then the one that held what was given back).
#[test]
fn what_is_lost_behind_a_repaired_range_is_unknown() {
    let dir = TestDir::new();
    let node = ten_groups(&dir);
    let ((segment, at), (_, behind)) = (node.block_of(4), node.block_of(5));
    drop(node);
    poke(&dir.0, segment, u64::from(at), &[0xa5; 64]);
    let mut node = Node::start(&dir.0).unwrap();
    node.superblock.damage[0].state = DamageState::Repaired;
    node.file.write(&node.superblock).unwrap();
    drop(node);
    poke(&dir.0, segment, u64::from(behind), &[0xa5; 64]);
    let node = Node::start(&dir.0).unwrap();
    assert!(node.recovered.damaged, "{:?}", node.recovered.unknowns);
    let lost = node.recovered.unknowns[0];
    assert!(lost.to > address(segment, behind), "{lost:x?}");
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

/// A group that could not be read was repaired, or not yet, and what was torn behind it was cut;
/// the log went on.
/// Then the group can be read again: what follows knows nothing of it, and nothing is lost
/// (simulator, seed 2741).
#[test]
fn a_group_may_come_back() {
    [true, false].into_iter().for_each(a_group_comes_back);
}

fn a_group_comes_back(repaired: bool) {
    let dir = TestDir::new();
    let mut node = ten_groups(&dir);
    (0..2).for_each(|_| node.append(&[512]));
    let ((segment, at), (_, torn)) = (node.block_of(10), node.block_of(11));
    drop(node);
    let before = std::fs::read(segment_path(&dir.0, segment)).unwrap();
    poke(&dir.0, segment, u64::from(at), &[0xa5; 64]);
    poke(&dir.0, segment, u64::from(torn) + 800, &[0xa5; 8]);
    let mut node = Node::start(&dir.0).unwrap();
    assert_eq!((node.recovered.unknowns.len(), node.recovered.cuts.len()), (1, 1));
    node.superblock.damage.iter_mut().for_each(|damage| {
        if damage.state == DamageState::Unknown && repaired {
            damage.state = DamageState::Repaired;
        }
    });
    node.file.write(&node.superblock).unwrap();
    (0..3).for_each(|_| node.append(&[512]));
    let kept = node.kept.clone();
    drop(node);
    poke(&dir.0, segment, u64::from(at), &before[at as usize..][..64]);
    let node = Node::start(&dir.0).unwrap();
    assert!(!node.recovered.damaged, "{:x?}", node.recovered.unknowns);
    assert_eq!(node.kept.len(), kept.len() + 1, "the one that came back");
    assert!(kept.iter().all(|group| node.kept.contains(group)));
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
    for sector in (0..end).step_by(512 * 7) {
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
