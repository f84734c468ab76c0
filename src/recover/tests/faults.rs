//! Disks of which blocking operations fail, in a start and before it.

use super::power::{filled_log, torn_log};
use super::*;
use crate::sim::disk::{CrashPlan, DiskHandle, Rates, Rot};
use crate::sim::faults::Dice;
use crate::sim::random::{MILLION, Random};
use chainring_storage::superfile::{COPY_DISTANCE, superblock_path};

fn lose_all() -> CrashPlan {
    CrashPlan { affected: MILLION, lost: MILLION, torn: 0, names_lost: MILLION }
}

fn small() -> Config {
    let mut config = configured("/faults".into());
    config.limits.segment_bytes = 64 << 10;
    config
}

/// Whatever fails in one start after another, with or without a power failure behind it: the first
/// one in which nothing fails finds what was there before.
#[test]
fn starts_over_a_failing_disk_lose_nothing() {
    // Torn in the middle of a segment, and where one begins.
    (40..=56).step_by(2).for_each(lose_nothing);
}

fn lose_nothing(count: u64) {
    let config = small();
    let disk = torn_log(&config, count);
    let expected = open_on(&disk.fork().shared(), &config, 1).unwrap().recovered;
    let mut random = Random::new(3);
    let mut failed = 0;
    for case in 0..100 {
        let disk = disk.fork();
        disk.set_dice(Dice::new(&Random::new(case), 1, None));
        for _ in 0..1 + random.below(4) {
            let mut rate = || random.below(2) as u32 * random.below(400_000) as u32;
            disk.set_rates(Rates {
                read_error: rate() / 2,
                write_error: rate(),
                write_full: rate() / 4,
                write_short: rate(),
                sync_error: rate(),
                name_error: rate(),
                ..Rates::default()
            });
            disk.expose_all();
            failed += usize::from(open_on(&disk.shared(), &config, 1).is_err());
            match random.coin() {
                true => disk.crash(&mut random, CrashPlan::default()),
                false => disk.kill(&mut random, CrashPlan::default()),
            };
        }
        disk.shelter();
        disk.set_rates(Rates::default());
        let found = open_on(&disk.shared(), &config, 1);
        let found = found.unwrap_or_else(|error| panic!("case {case}: {error}")).recovered;
        assert!(disk.is_settled(), "case {case}: what it found may go with the power");
        assert_eq!(found.promised, expected.promised, "case {case}");
        assert_eq!(found.delivered, expected.delivered, "case {case}");
        assert_eq!((&found.orders, &found.values), (&expected.orders, &expected.values));
        assert!(!found.damaged, "case {case}");
    }
    assert!(failed > 50, "{failed}");
}

/// Two copies hold a superblock that was never acknowledged, and cannot be read: what is written
/// next must not carry its sequence, or the two contradict each other when both can be read again.
#[test]
fn what_cannot_be_read_uses_up_its_sequence() {
    let (config, mut random) = (small(), Random::new(4));
    let disk = DiskHandle::new(Random::new(1));
    format_on(&disk, &config).unwrap();
    let dir = &config.node.dir;
    let open = || SuperblockFile::open(&disk, dir, &identity(&config), true);
    let mut write = |start, copies: u64| {
        let (mut file, superblock) = open().unwrap();
        disk.fail_after(1 + copies);
        file.write(&Superblock { start, ..superblock }).unwrap_err();
        disk.crash(&mut random, lose_all());
    };
    write(7, 2);
    let mut random = Random::new(6);
    for copy in 0..2 {
        let at = copy * COPY_DISTANCE;
        assert!(disk.rot(&superblock_path(dir), at, Rot::Latent, &mut random));
    }
    write(8, 1);
    assert!(disk.cure_latent(), "the second copy holds what it held");
    assert_eq!(open().unwrap().1.start, 0);
}

/// Life after life is blind to one copy or another and fails to write: when all can be read again,
/// no two contradict each other.
#[test]
fn blind_lives_in_a_row_do_not_contradict_each_other() {
    let config = small();
    let whole = DiskHandle::new(Random::new(1));
    format_on(&whole, &config).unwrap();
    let dir = &config.node.dir;
    let mut random = Random::new(8);
    for case in 0..1000 {
        let disk = whole.fork();
        disk.set_dice(Dice::new(&Random::new(case), 1, None));
        for start in 1..=3 {
            let at = random.below(4) * COPY_DISTANCE;
            disk.rot(&superblock_path(dir), at, Rot::Latent, &mut random);
            let Ok((mut file, found)) = SuperblockFile::open(&disk, dir, &identity(&config), true)
            else {
                break;
            };
            disk.set_rates(Rates { write_error: 333_333, ..Rates::default() });
            let _ = file.write(&Superblock { start, ..found });
            disk.set_rates(Rates::default());
        }
        disk.cure_latent();
        let found = SuperblockFile::open(&disk, dir, &identity(&config), true);
        assert!(!matches!(found, Err(LogError::SuperblockFork { .. })), "case {case}");
    }
}

/// The name of a segment that could neither be made durable nor be taken back is there and counts:
/// so it is made durable before it is written to.
#[test]
fn a_segment_that_is_there_stays() {
    let (config, mut random) = (small(), Random::new(5));
    let disk = DiskHandle::new(Random::new(1));
    format_on(&disk, &config).unwrap();
    let limits = LogConfig { disk: disk.shared(), ..log_config(&config, 1) };
    let dir = &config.node.dir;
    for number in 0..100 {
        disk.set_rates(Rates { name_error: MILLION / 2, ..Rates::default() });
        let made = || create_segment(dir, &limits, number);
        while !matches!(made(), Ok(()) | Err(LogError::Exists { .. })) {}
        disk.crash(&mut random, lose_all());
        assert!(disk.exists(&segment_path(dir, number)), "segment {number}");
    }
}

/// The end of a log that the disk does not give may have been voted for: it is no torn write.
#[test]
fn what_cannot_be_read_is_not_cut() {
    let config = small();
    for count in 40..=56 {
        let (disk, path, at) = filled_log(&config, count);
        let expected = open_on(&disk.fork().shared(), &config, 1).unwrap().recovered;
        assert!(disk.rot(&path, at, Rot::Latent, &mut Random::new(1)));
        let refused = open_on(&disk.shared(), &config, 1).err();
        let unreadable = RecoverError::Log(LogError::Unreadable { from: 0 });
        let kind = |error: &RecoverError| error.to_string().split("from").next().map(str::to_owned);
        assert_eq!(refused.as_ref().and_then(kind), kind(&unreadable));
        assert!(disk.cure_latent());
        let found = open_on(&disk.shared(), &config, 1).unwrap().recovered;
        assert!(!found.damaged, "{count}");
        assert_eq!((&found.orders, &found.values), (&expected.orders, &expected.values));
    }
}

/// The header of a segment ahead that cannot be read says nothing of where the log ends.
#[test]
fn a_header_that_cannot_be_read_refuses_no_start() {
    let config = small();
    let (disk, ..) = filled_log(&config, 40);
    let expected = open_on(&disk.shared(), &config, 1).unwrap().recovered;
    let path = |number| segment_path(&config.node.dir, number);
    let last = (0..).take_while(|number| disk.exists(&path(*number))).last().expect("a log");
    assert!(disk.rot(&path(last), 0, Rot::Latent, &mut Random::new(1)));
    let found = open_on(&disk.shared(), &config, 1).unwrap().recovered;
    assert!(!found.damaged);
    assert_eq!((&found.orders, &found.values), (&expected.orders, &expected.values));
}
