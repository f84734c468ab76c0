//! The model itself: what a crash may leave, and what each fault does.

use super::*;
use chainring_storage::{Access, Disk};
use rustix::io::Errno;
use std::collections::BTreeSet;

fn disk() -> DiskHandle {
    let disk = DiskHandle::new(Random::new(1));
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk
}

fn path(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

fn read(disk: &DiskHandle, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(&path(name), Access::Read, true).ok()?;
    let mut bytes = vec![0; file.length().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

/// A durable file of eight sectors, each full of its number.
fn numbered(disk: &DiskHandle, name: &str) -> Vec<u8> {
    let bytes: Vec<u8> = (0..8u8).flat_map(|sector| [sector + 1; SECTOR]).collect();
    let file = disk.open(&path(name), Access::Create, false).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    bytes
}

/// Zeros behind what is written are not kept; a crash decides of each sector of them all the same.
#[test]
fn zeros_behind_what_is_written_are_written() {
    let disk = disk();
    let old: Vec<u8> = (0..40).flat_map(|sector| [sector as u8 + 1; SECTOR]).collect();
    let file = disk.open(&path("a"), Access::Create, false).unwrap();
    file.write_all_at(&old, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    let file = disk.open(&path("a"), Access::Write, false).unwrap();
    let mut new = vec![0; 36 * SECTOR];
    new[..100].fill(7);
    file.write_all_at(&new, 512).unwrap();
    let seen = [&old[..512], &new, &old[37 * SECTOR..]].concat();
    assert_eq!(read(&disk, "a").unwrap(), seen);
    let (kept, lost) = (disk.fork(), disk.fork());
    kept.crash_by(&mut List(Vec::new(), 0, true));
    assert_eq!(read(&kept, "a").unwrap(), seen);
    // All but the third sector of it, and the last.
    let mut fates = List(vec![Fate::Kept; 36], 0, true);
    (fates.0[2], fates.0[35]) = (Fate::Lost, Fate::Torn { from: 0, to: 100 });
    lost.crash_by(&mut fates);
    let mut torn = seen;
    torn[3 * SECTOR..4 * SECTOR].fill(4);
    torn[36 * SECTOR + 100..37 * SECTOR].fill(37);
    assert_eq!(read(&lost, "a").unwrap(), torn);
}

/// Fates from a list, one after another; everything behind its end is kept.
struct List(Vec<Fate>, usize, bool);

impl Fates for List {
    fn sector(&mut self, _number: u64) -> Fate {
        self.1 += 1;
        self.0.get(self.1 - 1).copied().unwrap_or(Fate::Kept)
    }
    fn name(&mut self) -> bool {
        self.2
    }
    fn length(&mut self, stable: u64, latest: u64) -> u64 {
        if self.2 { latest } else { stable }
    }
}

fn lose_all() -> List {
    List(vec![Fate::Lost; 1000], 0, false)
}

#[test]
fn what_was_flushed_stays_and_what_was_not_is_seen_until_the_power_fails() {
    let disk = disk();
    let before = numbered(&disk, "a");
    let file = disk.open(&path("a"), Access::Write, false).unwrap();
    file.write_all_at(&[9; 1024], 512).unwrap();
    let mut after = before.clone();
    after[512..1536].fill(9);
    assert_eq!(read(&disk, "a").unwrap(), after);
    let mut stable = vec![0; 4096];
    assert!(disk.read_stable(&path("a"), 0, &mut stable) && stable == before);
    let lost = disk.fork();
    assert_eq!(lost.crash_by(&mut lose_all()), 1);
    assert_eq!(read(&lost, "a").unwrap(), before);
    file.sync().unwrap();
    assert_eq!(disk.crash_by(&mut lose_all()), 0);
    assert_eq!(read(&disk, "a").unwrap(), after);
    // A durable write needs no flush, and takes what was written before it along.
    let file = disk.open(&path("a"), Access::Write, false).unwrap();
    file.write_all_at(&[7; 512], 0).unwrap();
    let durable = disk.open(&path("a"), Access::WriteDurable, false).unwrap();
    durable.write_all_at(&[8; 512], 3584).unwrap();
    after[..512].fill(7);
    after[3584..].fill(8);
    assert_eq!(disk.crash_by(&mut lose_all()), 0);
    assert_eq!(read(&disk, "a").unwrap(), after);
}

#[test]
fn every_sector_is_decided_by_itself() {
    let mut seen = BTreeSet::new();
    for mask in 0..16u32 {
        let disk = disk();
        let before = numbered(&disk, "a");
        let target = disk.target(&path("a")).unwrap();
        disk.submit_write(target, 1024, vec![9; 2048], true);
        assert_eq!(read(&disk, "a").unwrap(), before, "under way, seen by nobody");
        let fate = |bit: u32| if mask >> bit & 1 == 1 { Fate::Kept } else { Fate::Lost };
        let altered = disk.crash_by(&mut List((0..4).map(fate).collect(), 0, true));
        assert_eq!(altered, u64::from(mask != 15));
        let after = read(&disk, "a").unwrap();
        for sector in 0..8 {
            let new = (2..6).contains(&sector) && mask >> (sector - 2) & 1 == 1;
            let expected = if new { 9 } else { before[sector * SECTOR] };
            assert!(after[sector * SECTOR..][..SECTOR].iter().all(|byte| *byte == expected));
        }
        seen.insert(after);
    }
    assert_eq!(seen.len(), 16);
    let disk = disk();
    numbered(&disk, "a");
    let target = disk.target(&path("a")).unwrap();
    disk.submit_write(target, 512, vec![9; 512], true);
    disk.crash_by(&mut List(vec![Fate::Torn { from: 10, to: 20 }], 0, true));
    let after = read(&disk, "a").unwrap();
    assert_eq!((after[512 + 9], after[512 + 10], after[512 + 19], after[512 + 20]), (2, 9, 9, 2));
    // What is there already is not asked for, and not altered.
    let target = disk.target(&path("a")).unwrap();
    disk.submit_write(target, 0, after[..1024].to_vec(), true);
    let mut fates = lose_all();
    assert_eq!((disk.crash_by(&mut fates), fates.1), (0, 0));
}

/// By chance, all of it happens: kept whole, lost, mixed.
#[test]
fn a_crash_by_chance_reaches_every_kind_of_state() {
    let mut random = Random::new(2);
    let (mut whole, mut none, mut mixed, mut torn) = (0, 0, 0, 0);
    for _ in 0..500 {
        let disk = disk();
        numbered(&disk, "a");
        let target = disk.target(&path("a")).unwrap();
        disk.submit_write(target, 0, vec![9; 1024], true);
        let altered = disk.crash(&mut random, CrashPlan::default());
        let after = read(&disk, "a").unwrap();
        let sector = |at: usize| {
            let new = after[at..at + SECTOR].iter().filter(|byte| **byte == 9).count();
            (new == SECTOR, new == 0)
        };
        let sectors = [sector(0), sector(512)];
        let kept = sectors.iter().filter(|sector| sector.0).count();
        let lost = sectors.iter().filter(|sector| sector.1).count();
        assert_eq!(altered == 0, kept == 2);
        whole += usize::from(kept == 2);
        none += usize::from(lost == 2);
        mixed += usize::from(kept == 1 && lost == 1);
        torn += usize::from(kept + lost < 2);
    }
    assert!(whole > 50 && none > 25 && mixed > 50 && torn > 25, "{whole} {none} {mixed} {torn}");
}

#[test]
fn names_are_durable_with_their_directory_only() {
    let disk = disk();
    let made = numbered(&disk, "old");
    let file = disk.open(&path("new"), Access::Create, false).unwrap();
    file.write_all_at(&[1; 512], 0).unwrap();
    file.sync().unwrap();
    disk.remove(&path("old")).unwrap();
    assert!(disk.exists(&path("new")) && !disk.exists(&path("old")));
    let undone = disk.fork();
    assert_eq!(undone.crash_by(&mut lose_all()), 2);
    assert!(!undone.exists(&path("new")));
    assert_eq!(read(&undone, "old").unwrap(), made, "a removal that did not last");
    disk.rename(&path("new"), &path("newer")).unwrap();
    let undone = disk.fork();
    undone.crash_by(&mut lose_all());
    assert_eq!(undone.files(), [(path("old"), 4096)]);
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.crash_by(&mut lose_all());
    assert_eq!(disk.files(), [(path("newer"), 512)]);
    assert_eq!((disk.used(), read(&disk, "newer").unwrap()), (512, vec![1; 512]));
    let list = disk.list(Path::new("/d")).unwrap();
    assert_eq!(list, [(std::ffi::OsString::from("newer"), 512)]);
    assert!(disk.open(&path("newer"), Access::Create, false).is_err());
    let missing = disk.open(&path("old"), Access::Read, false).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_power_fails_in_the_middle_of_an_operation() {
    let lives = |operations: u64| {
        let disk = disk();
        numbered(&disk, "a");
        disk.fail_after(operations);
        let steps = || {
            let file = disk.open(&path("b"), Access::Create, false)?;
            file.write_all_at(&[5; 512], 0)?;
            file.sync()?;
            disk.rename(&path("b"), &path("c"))?;
            disk.sync_dir(Path::new("/d"))?;
            let durable = disk.open(&path("c"), Access::WriteDurable, false)?;
            durable.write_all_at(&[6; 512], 0)
        };
        let done = steps().is_ok();
        assert_eq!(disk.is_dark(), !done);
        assert_eq!(read(&disk, "a").is_none(), !done, "nothing answers without power");
        // All that can have happened, or nothing that need not have.
        let states = [true, false].map(|all| {
            let disk = disk.fork();
            let fates = if all { Vec::new() } else { vec![Fate::Lost; 1000] };
            disk.crash_by(&mut List(fates, 0, all));
            assert!(!disk.is_dark() && read(&disk, "a").is_some());
            ["b", "c"].map(|name| read(&disk, name).map(|bytes| bytes.first().copied()))
        });
        (done, states)
    };
    let (nothing, five, six) = ([None, None], Some(Some(5)), Some(Some(6)));
    assert_eq!(lives(1), (false, [[Some(None), None], nothing]));
    assert_eq!(lives(2), (false, [[five, None], nothing]));
    assert_eq!(lives(3), (false, [[five, None], nothing]));
    assert_eq!(lives(4), (false, [[None, five], nothing]));
    assert_eq!(lives(5), (false, [[None, five], nothing]));
    assert_eq!(lives(6), (false, [[None, six], [None, five]]));
    assert_eq!(lives(7), (true, [[None, six], [None, six]]));
}

#[test]
fn a_life_that_is_over_does_nothing_more() {
    let disk = disk();
    let before = numbered(&disk, "a");
    let file = disk.open(&path("a"), Access::WriteDurable, false).unwrap();
    let target = disk.target(&path("a")).unwrap();
    let id = disk.submit_write(target, 0, vec![9; 512], true);
    disk.crash_by(&mut lose_all());
    assert!(file.write_all_at(&[9; 512], 0).is_err() && file.sync().is_err());
    assert!(disk.complete_write(id, Completion::Done) < 0);
    let late = disk.submit_write(target, 0, vec![9; 512], true);
    assert!(disk.complete_write(late, Completion::Done) < 0);
    assert_eq!(read(&disk, "a").unwrap(), before);
    // A killed process leaves its cached writes; power can still take them.
    let file = disk.open(&path("a"), Access::Write, false).unwrap();
    file.write_all_at(&[9; 512], 0).unwrap();
    disk.kill(&mut Random::new(1), CrashPlan::default());
    assert_eq!(read(&disk, "a").unwrap()[..512], [9; 512]);
    disk.crash_by(&mut lose_all());
    assert_eq!(read(&disk, "a").unwrap(), before);
}

#[test]
fn a_write_of_the_shard_ends_in_each_way() {
    let disk = disk();
    let before = numbered(&disk, "a");
    numbered(&disk, "b");
    let target = disk.target(&path("a")).unwrap();
    let other = disk.target(&path("b")).unwrap();
    let write = |how| {
        let disk = disk.fork();
        let id = disk.submit_write(target, 512, vec![9; 1024], true);
        let result = disk.complete_write(id, how);
        let counts = disk.counts();
        assert_eq!(disk.crash_by(&mut lose_all()), 0, "nothing is under way any more");
        (result, read(&disk, "a").unwrap(), read(&disk, "b").unwrap(), counts)
    };
    let (result, a, b, counts) = write(Completion::Done);
    assert!(result == 1024 && a[512..1536] == [9; 1024] && b == before && counts.total() == 0);
    let (result, a, b, counts) = write(Completion::Lost);
    assert!(result == 1024 && a == before && b == before && counts.lost == 1);
    let (result, a, b, counts) = write(Completion::Misdirected { target: other, at: 3584 });
    assert!(result == 1024 && a == before && counts.misdirected == 1);
    assert!(b[3584..] == [9; 512] && b[..3584] == before[..3584], "cut at the end of the file");
    let (result, a, _, counts) = write(Completion::Short { bytes: 512 });
    assert!(result == 512 && a[512..1024] == [9; 512] && a[1024..] == before[1024..]);
    assert_eq!((counts.short, counts.total()), (1, 1));
    let (result, a, _, counts) = write(Completion::Failed(Errno::IO));
    assert!(result == -5 && counts.write_errors == 1);
    assert!(a[..512] == before[..512] && a[1536..] == before[1536..]);
    // What is there already is not lost.
    let id = disk.submit_write(target, 0, before[..512].to_vec(), true);
    disk.complete_write(id, Completion::Lost);
    assert_eq!(disk.counts().total(), 0);
}

#[test]
fn blocking_operations_fail_as_told() {
    let disk = disk();
    let before = numbered(&disk, "a");
    let file = disk.open(&path("a"), Access::Write, false).unwrap();
    let code = |result: io::Result<()>| result.unwrap_err().raw_os_error();
    let all = crate::sim::random::MILLION;
    disk.set_rates(Rates { sync_error: all, ..Rates::default() });
    file.write_all_at(&[9; 512], 0).unwrap();
    assert_eq!(code(file.sync()), Some(5));
    disk.set_rates(Rates::default());
    file.sync().unwrap();
    assert_eq!(read(&disk, "a").unwrap()[..512], [9; 512], "it is seen");
    disk.crash_by(&mut lose_all());
    assert_eq!(read(&disk, "a").unwrap(), before, "and no later flush brought it to stable media");
    let file = disk.open(&path("a"), Access::Write, false).unwrap();
    disk.set_rates(Rates { write_error: all, ..Rates::default() });
    assert_eq!(code(file.write_all_at(&before, 0)), Some(5));
    disk.set_rates(Rates { write_full: all, ..Rates::default() });
    assert_eq!(code(file.write_all_at(&before, 0)), Some(28));
    disk.set_rates(Rates { write_short: all, ..Rates::default() });
    let wrote = file.write_at(&before, 0).unwrap();
    assert!(wrote > 0 && wrote < before.len() && wrote.is_multiple_of(SECTOR));
    let target = disk.target(&path("a")).unwrap();
    disk.set_rates(Rates { read_error: all, ..Rates::default() });
    assert!(read(&disk, "a").is_some(), "nothing is exposed");
    disk.expose(target, 1024..1536);
    assert_eq!(code(file.read_exact_at(&mut [0; 1024], 512)), Some(5));
    file.read_exact_at(&mut [0; 1024], 2048).unwrap();
    disk.set_rates(Rates { read_garbage: all, ..Rates::default() });
    let mut bytes = vec![0; 4096];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let different: Vec<usize> = (0..4096).filter(|at| bytes[*at] != before[*at]).collect();
    assert!(different.len() == 1 && (1024..1536).contains(&different[0]));
    disk.shelter();
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == before);
    let counts = disk.counts();
    assert_eq!((counts.sync_errors, counts.write_errors, counts.full), (1, 1, 1));
    assert_eq!((counts.short, counts.read_errors, counts.read_garbage), (1, 1, 1));
    assert_eq!(code(file.write_all_at(&[0; 100], 0)), Some(22), "a direct file is aligned");
}

#[test]
fn sectors_rot() {
    let mut random = Random::new(4);
    for rot in [Rot::Flip, Rot::Zero, Rot::Garbage] {
        let disk = disk();
        let before = numbered(&disk, "a");
        assert!(disk.rot(&path("a"), 700, rot, &mut random));
        let after = read(&disk, "a").unwrap();
        assert!(after[512..1024] != before[512..1024], "{rot:?}");
        assert!(after[..512] == before[..512] && after[1024..] == before[1024..]);
        assert_eq!(disk.counts().rotten, 1);
        if rot == Rot::Zero {
            assert!(!disk.rot(&path("a"), 700, rot, &mut random), "it was zero already");
        }
        assert!(!disk.rot(&path("a"), 4096, rot, &mut random), "nothing there");
        assert!(!disk.rot(&path("b"), 0, rot, &mut random), "no such file");
    }
    let disk = disk();
    let before = numbered(&disk, "a");
    assert!(disk.rot(&path("a"), 700, Rot::Latent, &mut random));
    assert!(!disk.rot(&path("a"), 900, Rot::Latent, &mut random));
    assert!(read(&disk, "a").is_none());
    let file = disk.open(&path("a"), Access::WriteDurable, false).unwrap();
    file.read_exact_at(&mut [0; 512], 1024).unwrap();
    file.write_all_at(&before[512..1024], 512).unwrap();
    assert_eq!(read(&disk, "a").unwrap(), before, "a write gives the sector another place");
}

#[test]
fn full_lost_and_swapped() {
    let (disk, other) = (disk(), disk());
    let before = numbered(&disk, "a");
    disk.set_capacity(4096 + 1000);
    let file = disk.open(&path("a"), Access::Write, true).unwrap();
    assert_eq!(file.write_at(&[9; 2048], 4096).unwrap(), 1000);
    let error = file.write_all_at(&[9; 512], 5096).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(28));
    file.write_all_at(&[9; 512], 0).unwrap();
    assert_eq!((disk.used(), disk.counts().full, disk.counts().short), (5096, 1, 1));
    let refused = disk.check_direct(Path::new("/d"), false);
    assert!(matches!(refused, Err(chainring_storage::LogError::Full { .. })));
    disk.crash_by(&mut lose_all());
    disk.swap(&other);
    assert_eq!(read(&other, "a").unwrap()[..4096], before);
    assert!(read(&disk, "a").is_none() && disk.check_direct(Path::new("/d"), false).is_ok());
    assert!(other.lose() && !other.lose());
    assert!(read(&other, "a").is_none() && other.used() == 0);
}

/// What a disk changed by itself is known until it is written anew; what it does not give spoils
/// the whole block for a reader.
#[test]
fn what_is_spoilt_is_known_until_it_is_written_anew() {
    let (disk, mut random) = (disk(), Random::new(1));
    numbered(&disk, "a");
    let sector = SECTOR as u64;
    let spoilt =
        |number: u64| disk.is_spoilt(&path("a"), &(number * sector + 1..(number + 1) * sector));
    let all = || -> Vec<u64> { (0..8).filter(|number| spoilt(*number)).collect() };
    let target = disk.target(&path("a")).unwrap();
    let write = |at: u64, how| {
        let id = disk.submit_write(target, at * sector, vec![9; SECTOR], true);
        assert_eq!(disk.complete_write(id, how), SECTOR as i32);
    };
    assert!(disk.rot(&path("a"), 2 * sector, Rot::Flip, &mut random));
    assert!(disk.misplace(&path("a"), 0..sector, 4 * sector));
    write(5, Completion::Lost);
    write(6, Completion::Misdirected { target, at: 7 * sector });
    assert_eq!(all(), [2, 4, 5, 6, 7]);
    (2..8).for_each(|number| write(number, Completion::Done));
    assert!(all().is_empty());
    assert!(disk.rot(&path("a"), 0, Rot::Latent, &mut random));
    assert_eq!(all(), [0, 1, 2, 3, 4, 5, 6, 7]);
    write(0, Completion::Done);
    assert!(all().is_empty());
}

/// A superblock counts as much as a segment; what is being made counts nothing.
#[test]
fn a_disk_is_settled_with_its_superblock() {
    for (name, settled) in [("superblock", false), ("a.log", false), ("a.log.new", true)] {
        let disk = disk();
        numbered(&disk, name);
        assert!(disk.is_settled());
        let file = disk.open(&path(name), Access::Write, false).unwrap();
        file.write_all_at(&[7; SECTOR], 0).unwrap();
        assert_eq!(disk.is_settled(), settled, "{name}");
        file.sync().unwrap();
        assert!(disk.is_settled());
    }
}
