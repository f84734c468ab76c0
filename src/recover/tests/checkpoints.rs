//! Checkpoints that a start finds.

use super::*;
use crate::mail::Taken;
use chainring_storage::checkpoint::remove_checkpoint;
use chainring_storage::{Damage, Start, superfile::read_superblock};

/// A log with five entries, delivered, and a checkpoint of them that no superblock names: the life
/// ended in between. Returns its position and checksum.
fn not_named(config: &Config) -> (Instance, u128) {
    let (lock, opened) = open(config, 1).unwrap();
    let mut log = opened.log.unwrap();
    let orders: Vec<_> = (0..5).map(|instance| order(instance, Entry::Noop)).collect();
    append(config, &mut log, (&orders, &[]), claim(5));
    append(config, &mut log, (&[], &[]), claim(5));
    drop((log, lock));
    let (_lock, opened) = open(config, 1).unwrap();
    let (core, mut state) = (&opened.recovered, Vec::new());
    let members = core.configuration.as_ref().unwrap();
    opened.groups.encode(&core.table, members, &mut state);
    let taken = Taken { claim: claim(5), start: Start::of_log(0) };
    let keeper = opened.keeper.unwrap();
    let planned = keeper.plan(&opened.catalog, &taken, state, 0).unwrap();
    let checksum = planned.write(&config.node.dir, &opened.log.unwrap().1).unwrap();
    (planned.position, checksum)
}

/// What a start goes on from is named before anything else is repaired or told: its loss would
/// else pass unseen, and with it that what was repaired is unknown again.
#[test]
fn a_start_names_the_checkpoint_that_it_goes_on_from() {
    let (_dir, config) = store("names");
    let expected = not_named(&config);
    assert_eq!(read_superblock(&config.node.dir).unwrap().checkpoint, None);
    let (_lock, opened) = open(&config, 1).unwrap();
    assert_eq!(opened.keeper.unwrap().newest(), expected.0);
    assert_eq!(read_superblock(&config.node.dir).unwrap().checkpoint, Some(expected));
}

/// It was named by a start, and is gone: what was repaired meanwhile was repaired only behind it,
/// and does not count as repaired any more.
#[test]
fn a_checkpoint_that_a_start_named_is_missed() {
    let (_dir, config) = store("missed");
    let (position, _) = not_named(&config);
    drop(open(&config, 1).unwrap());
    let (dir, identity) = (&config.node.dir, identity(&config));
    let (mut file, mut superblock) =
        SuperblockFile::open(&FileSystem, dir, &identity, true).unwrap();
    superblock.damage.push(Damage { from: 512, to: 1024, state: DamageState::Repaired });
    file.write(&superblock).unwrap();
    drop(file);
    remove_checkpoint(&FileSystem, dir, position).unwrap();
    let (_lock, opened) = open(&config, 1).unwrap();
    assert_eq!(opened.recovered.delivered, position, "the log has it all");
    let repaired = |damage: &Damage| damage.state == DamageState::Repaired;
    assert!(!opened.superblock.damage.iter().any(repaired));
    assert_eq!(opened.superblock.checkpoint, None);
}
