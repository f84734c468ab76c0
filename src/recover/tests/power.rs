//! Power that fails in the middle of making a store, or of a start.

use super::*;
use crate::sim::disk::{CrashPlan, DiskHandle};
use crate::sim::random::Random;
use std::path::PathBuf;

/// A log over several segments with a torn write at its end, so that a start has everything to do;
/// and how many of its instances were acknowledged.
pub(super) fn torn_log(config: &Config, count: u64) -> DiskHandle {
    let (disk, path, offset) = filled_log(config, count);
    let file = disk.open(&path, Access::WriteDurable, true).unwrap();
    // In a checksum, which is nowhere zero: half a cut does not mend it.
    file.write_all_at(&[0; 16], offset + 16).unwrap();
    disk
}

/// A log, and where the last of its groups lies; no seal speaks of that one.
pub(super) fn filled_log(config: &Config, count: u64) -> (DiskHandle, PathBuf, u64) {
    let disk = DiskHandle::new(Random::new(1));
    format_on(&disk, config).unwrap();
    let mut log = open_on(&disk.shared(), config, 1).unwrap().log.unwrap();
    let mut last = (PathBuf::new(), 0);
    for instance in 0..=count {
        let (entry, frame) = value(config, instance);
        let orders = [order(instance, entry)];
        let (segment, offset) = append(config, &mut log, (&orders, &[frame]), claim(instance));
        last = (segment_path(&config.node.dir, segment), u64::from(offset));
    }
    (disk, last.0, last.1)
}

/// However often and wherever a start is cut short, the next one that is not finds the same.
#[test]
fn a_start_cut_short_anywhere_is_begun_again() {
    let mut config = configured("/power".into());
    config.limits.segment_bytes = 64 << 10;
    let count = 40;
    let disk = torn_log(&config, count);
    let before = disk.operations();
    let whole = disk.fork();
    let expected = open_on(&whole.shared(), &config, 1).unwrap();
    assert!(
        expected.remarks.iter().any(|remark| remark.contains("torn")),
        "{:?}",
        expected.remarks
    );
    let last = expected.recovered.orders.last().unwrap();
    assert_eq!(last.instance, Instance(count - 1));
    let operations = whole.operations() - before;
    let mut random = Random::new(2);
    for cut in 1..=operations {
        for _ in 0..8 {
            let disk = disk.fork();
            // Twice in a row, the second time anywhere.
            let second = 1 + random.below(operations);
            for operation in [cut, second] {
                disk.fail_after(operation);
                // It may end well: of the last superblock one copy need not be written.
                drop(open_on(&disk.shared(), &config, 1));
                assert!(disk.is_dark() || operation == second, "operation {operation}");
                disk.crash(&mut random, CrashPlan::default());
            }
            let found = open_on(&disk.shared(), &config, 1).unwrap();
            let (found, expected) = (&found.recovered, &expected.recovered);
            assert_eq!(found.delivered, expected.delivered, "cut at {cut} and {second}");
            assert_eq!(found.promised, expected.promised);
            assert_eq!((&found.orders, &found.values), (&expected.orders, &expected.values));
            assert!(!found.damaged);
        }
    }
}

/// A store is there whole or not at all, and what is not there can be made.
#[test]
fn a_store_whose_making_is_cut_short_can_be_made() {
    let config = configured("/power".into());
    let whole = DiskHandle::new(Random::new(1));
    format_on(&whole, &config).unwrap();
    let mut random = Random::new(2);
    let (mut there, mut missing) = (0, 0);
    for cut in (1..=whole.operations()).cycle().take(20 * whole.operations() as usize) {
        let disk = DiskHandle::new(Random::new(1));
        disk.fail_after(cut);
        format_on(&disk, &config).unwrap_err();
        disk.crash(&mut random, CrashPlan::default());
        match open_on(&disk.shared(), &config, 1) {
            Ok(_) => there += 1,
            Err(RecoverError::Log(LogError::NoSuperblock { .. })) => {
                format_on(&disk, &config).unwrap();
                open_on(&disk.shared(), &config, 1).unwrap();
                missing += 1;
            }
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
    assert!(there > 0 && missing > 0, "{there} {missing}");
}
