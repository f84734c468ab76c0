//! What was acknowledged comes back; what was torn is cut and does not.

use crate::common::{Kept, Node, TestDir, ballot, config, identity, poke};
use chainring_storage::segment::segment_path;
use chainring_storage::superfile::read_superblock;
use chainring_storage::{AlignedBuf, LogError, LogReader, ReadAhead, inspect};

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
    read_ahead(&dir, &kept);
}

/// Whatever a read brings beyond its frame, every value is found, in any order.
fn read_ahead(dir: &TestDir, kept: &[Kept]) {
    let reader = || LogReader::new(&dir.0, identity(), config(&dir.0).development);
    let values: Vec<_> = kept.iter().flat_map(|group| &group.values).collect();
    for bytes in [1, 9_000, 1 << 20] {
        let mut ahead = ReadAhead::new(reader(), bytes);
        for (place, frame) in values.iter().chain(values.iter().rev()) {
            assert_eq!(ahead.read(*place).unwrap().1, &frame[..]);
        }
    }
    let (place, _) = values[values.len() - 1];
    let path = segment_path(&dir.0, place.segment());
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len((place.at & 0xffff_ffff) + 100).unwrap();
    let cut = ReadAhead::new(reader(), 1 << 20).read(*place).map(|_| ());
    assert!(matches!(cut, Err(LogError::Io { .. })), "{cut:?}");
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

/// A crash in the middle of recovery: the cut is recorded, and none, some or all of it is zeroed,
/// but the seal is not written. The next recovery decides the same.
#[test]
fn a_crash_during_recovery_changes_nothing() {
    for zeroed in 0..5u64 {
        let dir = TestDir::new();
        let mut node = Node::start(&dir.0).unwrap();
        node.append(&[1024]);
        let (torn, landed) = (node.plan(&[5120]), node.plan(&[5120]));
        node.write_part(&torn, 0..1024);
        node.write_part(&landed, 0..landed.bytes.len());
        let kept = node.kept.clone();
        drop(node);
        let before = std::fs::read(segment_path(&dir.0, 0)).unwrap();
        drop(Node::start(&dir.0).unwrap());
        poke(&dir.0, 0, 0, &before);
        let at = u64::from(torn.plan.offset);
        poke(&dir.0, 0, at, &vec![0; 4096 * zeroed as usize]);
        let mut node = Node::start(&dir.0).unwrap();
        assert_eq!(node.kept, kept, "{zeroed} sectors zeroed");
        assert!(!node.recovered.damaged);
        node.append(&[5120]);
        node.append(&[5120]);
        let kept = node.kept;
        let node = Node::start(&dir.0).unwrap();
        assert_eq!(node.kept, kept, "{zeroed} sectors zeroed");
        assert!(node.recovered.cuts.is_empty() && !node.recovered.damaged);
    }
}
