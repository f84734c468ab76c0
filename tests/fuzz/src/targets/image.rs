//! A whole store: any bytes in its segments, any numbers in its superblock, looked at and recovered
//! by the production code over a disk in memory.
//!
//! ```text
//! 0 flags 1, start 1, sealed 8, damage count 1, damage 3 x 4 (segment, page, pages, state), zeros
//! 32 first pages of segment 0, then of segment 1
//! ```

use super::disk::identity;
use super::frames::check_order;
use super::{BALLOT, header};
use crate::random::Random;
use crate::{Target, mutate};
use chainring::sim::disk::DiskHandle;
use chainring::sim::random::Random as SimRandom;
use chainring_ring::codec::POSITION_MAX;
use chainring_ring::header::{HEADER_BYTES, Header, Kind, u32_at, u64_at, u128_at};
use chainring_ring::ids::{Claim, Durability, Entry, Instance, Order, Sequence, Session, ValueId};
use chainring_storage::block::{Values, order_block_bytes};
use chainring_storage::config::{address, offset_of};
use chainring_storage::inspect::inspect_on;
use chainring_storage::{
    Access, Damage, DamageState, Disk, Group, LogConfig, LogError, LogWriter, Place, ScanInput,
    Superblock, SuperblockFile, create_segment, recover, scan, segment_path,
};
use std::cell::OnceCell;
use std::path::Path;

/// Any store.
pub const IMAGE: Target = Target {
    name: "image",
    run,
    seeds,
    repair,
    words: &[],
    bytes_max: IMAGE_BYTES,
    memory_max: 8 << 20,
};

const DIR: &str = "/store";
const PAGE: usize = 4096;
const PREFIX: usize = 32;
/// Pages of each segment that an input covers; the rest of the segment is zeros.
const PAGES: [usize; 2] = [8, 4];
const IMAGE_BYTES: usize = PREFIX + (PAGES[0] + PAGES[1]) * PAGE;
/// The smallest segment that the limits allow.
const SEGMENT_BYTES: u32 = 68 << 10;

/// Numbers of groups end here: a log is not meant to go on from the last number there is.
const NUMBER_MAX: u64 = POSITION_MAX / 2;

const ALONE: u8 = 1;
const FORGOTTEN: u8 = 2;
const ONE_SEGMENT: u8 = 4;
const SHORT: [u8; 2] = [8, 16];

thread_local! {
    static EMPTY: OnceCell<DiskHandle> = const { OnceCell::new() };
}

/// A disk with a superblock and nothing else, of its own.
fn empty() -> DiskHandle {
    let make = || {
        let disk = DiskHandle::new(SimRandom::new(1));
        disk.create_dir_all(Path::new(DIR)).expect("an empty disk");
        let superblock = Superblock::new(identity(), Durability::Sync, 512, 3);
        SuperblockFile::create(&disk, Path::new(DIR), &superblock, false).expect("room");
        disk
    };
    EMPTY.with(|empty| empty.get_or_init(make).fork())
}

fn config(disk: &DiskHandle) -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT_BYTES,
        group_bytes_max: 4096,
        disk: disk.shared(),
        ..LogConfig::new(identity(), 512)
    }
}

/// What an input says beside the bytes of segments.
struct Facts {
    flags: u8,
    superblock: Superblock,
}

fn facts(prefix: &[u8]) -> Facts {
    let sealed = u64::from_le_bytes(prefix[2..10].try_into().expect("eight bytes"));
    let damage = |bytes: &[u8]| {
        let page = |page: u64| address(u32::from(bytes[0] & 1), 0) + page * PAGE as u64;
        let from = page(u64::from(bytes[1] % 17));
        let states = [DamageState::Cut, DamageState::Unknown, DamageState::Repaired];
        let to = from + u64::from(bytes[2]) * PAGE as u64;
        Damage { from, to, state: states[usize::from(bytes[3]) % 3] }
    };
    let count = usize::from(prefix[10] % 4);
    let nodes = if prefix[0] & ALONE != 0 { 1 } else { 3 };
    let superblock = Superblock {
        start: u32::from(prefix[1]),
        sealed: sealed.min(NUMBER_MAX),
        damage: prefix[11..23].chunks(4).take(count).map(damage).collect(),
        ..Superblock::new(identity(), Durability::Sync, 512, nodes)
    };
    Facts { flags: prefix[0], superblock }
}

fn put_segment(disk: &DiskHandle, number: u32, bytes: &[u8], short: bool) {
    let path = segment_path(Path::new(DIR), number);
    let file = disk.open(&path, Access::Create, true).expect("a new file");
    file.write_all_at(bytes, 0).expect("room");
    if !short {
        let last = u64::from(SEGMENT_BYTES) - PAGE as u64;
        file.write_all_at(&[0; PAGE], last).expect("room");
    }
    file.sync().expect("a good disk");
}

/// A group that was kept: number, place, orders, values.
type Kept = (u64, Place, Vec<Order>, Vec<Place>);

fn kept(group: &Group<'_>) -> Kept {
    let mut at = group.place.at;
    for (header, place) in group.values {
        let frame = group.frame(*place);
        assert!(place.at > at && place.bytes == header.size);
        header.check_body(frame).expect("values that are shown verify");
        at = place.at;
    }
    group.orders.iter().for_each(check_order);
    assert!(group.sealed < group.number);
    assert!(offset_of(group.place.at).is_multiple_of(PAGE as u32));
    let values = group.values.iter().map(|(_, place)| *place).collect();
    (group.number, group.place, group.orders.to_vec(), values)
}

fn run(bytes: &[u8]) -> bool {
    if bytes.len() < PREFIX {
        return false;
    }
    let (prefix, segments) = bytes.split_at(PREFIX);
    let number = |page: &[u8]| page.get(80..88).map_or(0, |_| u64_at(page, 80));
    if segments.chunks(PAGE).any(|page| number(page) > NUMBER_MAX) {
        return false;
    }
    let facts = facts(prefix);
    let disk = empty();
    let (first, second) = segments.split_at(segments.len().min(PAGES[0] * PAGE));
    put_segment(&disk, 0, first, facts.flags & SHORT[0] != 0);
    if facts.flags & ONE_SEGMENT == 0 {
        put_segment(&disk, 1, second, facts.flags & SHORT[1] != 0);
    }
    look(&disk, &facts.superblock);
    if facts.flags & FORGOTTEN != 0 {
        disk.remove(&chainring_storage::superfile::superblock_path(Path::new(DIR))).expect("there");
        let _ = inspect_on(&disk.shared(), Path::new(DIR));
        return false;
    }
    match start(&disk, Some(&facts.superblock)) {
        Ok((kept, mut writer)) => {
            go_on(&disk, &kept, &mut writer);
            !kept.is_empty()
        }
        Err(_) => false,
    }
}

/// The walk alone, and the report made of it.
fn look(disk: &DiskHandle, superblock: &Superblock) {
    let config = config(disk);
    let input = ScanInput {
        dir: Path::new(DIR),
        config: &config,
        sealed: superblock.sealed,
        from: chainring_storage::Start::of_log(0),
        start: None,
        alone: superblock.nodes == 1,
        damage: &superblock.damage,
    };
    let mut all = Vec::new();
    if let Ok(scanned) = scan(&input, &mut |group| all.push(kept(group))) {
        check_order_of(&all);
        let orders: usize = all.iter().map(|group| group.2.len()).sum();
        assert_eq!(scanned.orders, orders as u64);
        assert!(scanned.groups >= all.len() as u64);
        assert!(scanned.damage.iter().all(|damage| damage.from < damage.to));
        let end = all.last().map_or(0, |group| group.1.at + u64::from(group.1.bytes));
        assert!(scanned.end >= end);
    }
    if let Ok(report) = inspect_on(&disk.shared(), Path::new(DIR)) {
        assert!(report.segments.len() <= 2);
    }
}

/// Numbers and places rise.
fn check_order_of(all: &[Kept]) {
    for pair in all.windows(2) {
        assert!(pair[0].0 < pair[1].0, "numbers rise");
        assert!(pair[0].1.at + u64::from(pair[0].1.bytes) <= pair[1].1.at, "places rise");
    }
}

/// A start, as a node makes it: what was kept, and the writer. `superblock` replaces the one there.
fn start(
    disk: &DiskHandle,
    superblock: Option<&Superblock>,
) -> Result<(Vec<Kept>, LogWriter), LogError> {
    let (dir, config) = (Path::new(DIR), config(disk));
    let (mut file, mut current) = SuperblockFile::open(disk, dir, &identity(), false)?;
    current = superblock.cloned().unwrap_or(current);
    current.start += 1;
    file.write(&current)?;
    let mut all = Vec::new();
    let (recovered, writer) = recover(
        dir,
        &config,
        &mut file,
        &mut current,
        chainring_storage::Start::of_log(0),
        &mut |group| all.push(kept(group)),
    )?;
    check_order_of(&all);
    assert_eq!(recovered.damaged, !recovered.unknowns.is_empty());
    Ok((all, writer))
}

/// What was kept stays kept: at the next start, and behind what is written then.
fn go_on(disk: &DiskHandle, before: &[Kept], writer: &mut LogWriter) {
    let order = order(1000);
    let mut block = vec![0; order_block_bytes(1, 512)];
    let plan = writer.plan([&order], &Values::default(), Claim::default(), &mut block);
    let mut expected = before.to_vec();
    if let Ok(plan) = plan {
        let path = segment_path(Path::new(DIR), plan.segment);
        let file = disk.open(&path, Access::WriteDurable, true).expect("made by recovery");
        file.write_all_at(&block, u64::from(plan.offset)).expect("room");
        let _ = writer.complete(plan.group).expect("it was planned");
        let place = Place::on_disk(plan.segment, plan.offset, plan.bytes);
        expected.push((plan.group, place, vec![order], Vec::new()));
    }
    match start(disk, None) {
        Ok((again, _)) => assert_eq!(again, expected, "the second start finds the same"),
        Err(error) => panic!("the second start fails: {error}"),
    }
}

fn order(sequence: u64) -> Order {
    let entry = Entry::Value(ValueId {
        origin: identity().node,
        session: Session::FIRST,
        sequence: Sequence(sequence),
    });
    let instance = Instance(sequence);
    Order { instance, ballot: BALLOT, base: Instance(0), entry, decided: false }
}

fn value(sequence: u64, size: usize) -> Vec<u8> {
    let mut frame = vec![sequence as u8; size];
    let header = header(Kind::Value, size, size - HEADER_BYTES);
    let sequence = Sequence(sequence);
    Header { session: Session::FIRST, sequence, instance: Instance(0), ..header }.seal(&mut frame);
    frame
}

/// Appends a group of values, each with its order.
fn append(disk: &DiskHandle, writer: &mut LogWriter, sequence: u64, sizes: &[usize]) {
    let frames: Vec<_> = (sequence..).zip(sizes).map(|(s, size)| value(s, *size)).collect();
    let orders: Vec<_> = (sequence..).take(sizes.len()).map(order).collect();
    let mut values = Values::default();
    frames.iter().for_each(|frame| values.push(frame));
    let mut block = vec![0; order_block_bytes(orders.len(), 512)];
    let claim = Claim { ballot: BALLOT, position: Instance(sequence) };
    while let Some(number) = writer.segment_wanted() {
        create_segment(Path::new(DIR), &config(disk), number).expect("room");
        writer.add_segment(number).expect("the next");
    }
    let plan = writer.plan(&orders, &values, claim, &mut block).expect("room");
    block.extend(frames.concat());
    let path = segment_path(Path::new(DIR), plan.segment);
    let file = disk.open(&path, Access::WriteDurable, true).expect("it is there");
    file.write_all_at(&block, u64::from(plan.offset)).expect("room");
    let _ = writer.complete(plan.group).expect("it was planned");
}

/// Stores as production writes them: two lives; one that rolled to the second segment.
fn seeds() -> Vec<Vec<u8>> {
    let build = |groups: u64, rolled: bool| {
        let disk = empty();
        let (_, mut writer) = start(&disk, None).expect("an empty store");
        (0..groups)
            .for_each(|n| append(&disk, &mut writer, 10 * n, &[512, 1024][..1 + n as usize % 2]));
        let (_, mut writer) = start(&disk, None).expect("a good store");
        append(&disk, &mut writer, 500, &[2048]);
        image(&disk, rolled)
    };
    vec![build(3, false), build(0, false), build(14, true)]
}

/// The input that stands for a store. Of one that rolled, the last pages of the first segment come
/// first: the walk then begins behind a gap.
fn image(disk: &DiskHandle, rolled: bool) -> Vec<u8> {
    let mut bytes = vec![0; IMAGE_BYTES];
    bytes[1] = 3;
    let (first, second) = bytes[PREFIX..].split_at_mut(PAGES[0] * PAGE);
    let skip = if rolled { u64::from(SEGMENT_BYTES) - first.len() as u64 } else { 0 };
    for (number, at, out) in [(0, skip, first), (1, 0, second)] {
        disk.read_stable(&segment_path(Path::new(DIR), number), at, out);
    }
    bytes
}

/// Checksums most times; often the chain between groups and what binds values to them, too.
fn repair(bytes: &mut Vec<u8>, random: &mut Random) {
    bytes.truncate(IMAGE_BYTES);
    if bytes.len() <= PREFIX || random.once_in(16) {
        return;
    }
    let segments = &mut bytes[PREFIX..];
    mutate::train(segments, 512, random);
    if random.once_in(2) {
        chain(segments);
    }
}

/// Makes every group follow the one before it, and own the frames behind it.
fn chain(bytes: &mut [u8]) {
    let mut previous = 0u128;
    let mut at = 0;
    while at + HEADER_BYTES <= bytes.len() {
        let size = u32_at(bytes, at + 56) as usize;
        let group = [Kind::OrderBlock as u8, Kind::Seal as u8].contains(&bytes[at + 54]);
        if !group || size < 512 || size > bytes.len() - at {
            at += PAGE;
            continue;
        }
        let (mut values, mut end) = (Values::default(), at + size);
        while end + HEADER_BYTES <= bytes.len() && bytes[end + 54] == Kind::Value as u8 {
            let size = u32_at(bytes, end + 56) as usize;
            if size < HEADER_BYTES || size > bytes.len() - end {
                break;
            }
            values.push(&bytes[end..]);
            end += size;
        }
        let body = at + HEADER_BYTES;
        bytes[body..body + 16].copy_from_slice(&previous.to_le_bytes());
        bytes[body + 16..body + 32].copy_from_slice(&values.digest.to_le_bytes());
        bytes[body + 68..body + 72].copy_from_slice(&values.count.to_le_bytes());
        bytes[body + 72..body + 76].copy_from_slice(&values.bytes.to_le_bytes());
        mutate::seal(&mut bytes[at..at + size]);
        previous = u128_at(bytes, at);
        at = end.next_multiple_of(PAGE);
    }
}
