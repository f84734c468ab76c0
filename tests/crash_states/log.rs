//! A log as a shard writes it, on a simulated disk, and beside it what a crash must leave of it.
//!
//! Invariant: the oracle knows bytes and acknowledgements and nothing of checksums, seals or the
//! recovery table: what was acknowledged is there, and behind it the groups that are whole on the
//! disk, up to the first that is not.

use super::samples::{ballot, identity, order, value};
use chainring::sim::disk::{Completion, DiskHandle, WriteId};
use chainring::sim::random::Random;
use chainring_ring::header::Header;
use chainring_ring::ids::*;
use chainring_storage::superfile::read_superblock_on;
use chainring_storage::{
    Disk, Group, GroupPlan, LogConfig, LogError, LogWriter, Place, Start, Superblock,
    SuperblockFile, Values, create_segment, order_block_bytes, recover, segment_path,
};
use std::path::Path;
use std::rc::Rc;

/// A group as it was written.
#[derive(Debug)]
pub struct Written {
    pub plan: GroupPlan,
    pub session: Session,
    pub claim: Claim,
    pub orders: Vec<Order>,
    pub values: Vec<(Place, u32, u32)>,
    /// The whole run.
    pub bytes: Vec<u8>,
}

impl Written {
    pub fn is_seal(&self) -> bool {
        self.orders.is_empty() && self.values.is_empty()
    }
}

/// What a crash must leave.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// In the order in which they were planned; dropped ones are taken out.
    pub groups: Vec<Rc<Written>>,
    /// So many of them were acknowledged.
    pub acknowledged: usize,
    /// Of the superblock, acknowledged.
    pub start: u32,
    pub promised: Ballot,
    /// A crash in the middle of a recovery has gone before: part of what was cut may be cleared.
    pub again: bool,
}

impl Oracle {
    /// How many groups a disk must give back.
    pub fn kept(&self, disk: &DiskHandle) -> usize {
        let whole = |group: &&Rc<Written>| on_disk(disk, group) == group.bytes;
        self.acknowledged + self.groups[self.acknowledged..].iter().take_while(whole).count()
    }

    /// As it goes on behind a recovery: what was kept is acknowledged.
    pub fn recovered(&self, disk: &DiskHandle) -> Oracle {
        let kept = self.kept(disk);
        let groups = self.groups[..kept].to_vec();
        Oracle { groups, acknowledged: kept, again: true, ..*self }
    }
}

pub fn on_disk(disk: &DiskHandle, group: &Written) -> Vec<u8> {
    let mut bytes = vec![0; group.bytes.len()];
    let path = segment_path(dir(), group.plan.segment);
    disk.read_stable(&path, u64::from(group.plan.offset), &mut bytes);
    bytes
}

/// What lets one history differ from another.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub nodes: u8,
    pub durability: Durability,
    pub groups_in_flight: u32,
    pub preallocate: usize,
}

pub fn dir() -> &'static Path {
    Path::new("/data")
}

/// Segments of 68 KiB: sixteen groups.
pub fn config(disk: &DiskHandle, shape: Shape) -> LogConfig {
    LogConfig {
        segment_bytes: 68 << 10,
        group_bytes_max: 4096,
        groups_in_flight: shape.groups_in_flight,
        preallocate: shape.preallocate,
        disk: disk.shared(),
        ..LogConfig::new(identity(), 512)
    }
}

/// A running log.
pub struct Log {
    pub disk: DiskHandle,
    pub config: LogConfig,
    pub file: SuperblockFile,
    pub superblock: Superblock,
    pub writer: LogWriter,
    pub oracle: Oracle,
    /// Writes under way.
    pub flying: Vec<(WriteId, u64)>,
    sequence: u64,
}

/// What a start found.
struct Started {
    file: SuperblockFile,
    superblock: Superblock,
    writer: LogWriter,
}

impl Log {
    /// The log of a new node.
    pub fn new(shape: Shape) -> Log {
        let disk = DiskHandle::new(Random::new(0));
        disk.create_dir_all(dir()).unwrap();
        let new = Superblock::new(identity(), shape.durability, 512, shape.nodes);
        SuperblockFile::create(&disk, dir(), &new, false).unwrap();
        Log::start(&disk, shape, &Oracle::default()).unwrap()
    }

    /// Starts over a disk, and holds what is found against the oracle.
    pub fn start(disk: &DiskHandle, shape: Shape, oracle: &Oracle) -> Result<Log, String> {
        let kept = oracle.kept(disk);
        let started = check(disk, shape, oracle, kept)?;
        let Started { file, superblock, writer } = started;
        let oracle = Oracle {
            groups: oracle.groups[..kept].to_vec(),
            acknowledged: kept,
            start: superblock.start,
            promised: superblock.promised,
            again: false,
        };
        Ok(Log {
            disk: disk.clone(),
            config: config(disk, shape),
            file,
            sequence: u64::from(superblock.start) * 1000,
            superblock,
            writer,
            oracle,
            flying: Vec::new(),
        })
    }

    /// Starts over a disk and forgets it again: holds what is found against the oracle.
    pub fn verify(disk: &DiskHandle, shape: Shape, oracle: &Oracle) -> Result<(), String> {
        check(disk, shape, oracle, oracle.kept(disk)).map(|_| ())
    }

    /// Starts over a disk whose power fails on the way. True if it got to the end before.
    pub fn try_start(disk: &DiskHandle, shape: Shape) -> bool {
        open(disk, shape, &mut |_| {}).is_ok()
    }

    /// Plans a group of so many orders, and of values of so many sectors, and begins its write.
    pub fn submit(&mut self, orders: usize, sectors: &[u32]) {
        let (mut values, mut frames, mut list) = (Values::default(), Vec::new(), Vec::new());
        for sectors in sectors {
            self.sequence += 1;
            let frame = value(self.sequence, sectors * 512);
            values.push(&frame);
            frames.push(frame);
        }
        list.extend((0..orders as u64).map(|index| order(self.sequence * 10 + index)));
        let mut block = vec![0; order_block_bytes(orders, 512)];
        let claim = self.claim();
        let plan = self.writer.plan(&list, &values, claim, &mut block).unwrap();
        let (mut before, mut places) = (0, Vec::new());
        for frame in frames {
            let bytes = frame.len() as u32;
            places.push((plan.value_place(before, bytes), block.len() as u32, bytes));
            before += bytes;
            block.extend_from_slice(&frame);
        }
        self.write(plan, claim, list, places, block);
    }

    /// Plans a seal and begins its write.
    pub fn submit_seal(&mut self) {
        let mut block = vec![0; 512];
        let claim = self.claim();
        let plan = self.writer.plan_seal(claim, &mut block).unwrap();
        self.write(plan, claim, Vec::new(), Vec::new(), block);
    }

    fn claim(&self) -> Claim {
        Claim { ballot: ballot(), position: Instance(self.sequence) }
    }

    fn write(
        &mut self,
        plan: GroupPlan,
        claim: Claim,
        orders: Vec<Order>,
        values: Vec<(Place, u32, u32)>,
        bytes: Vec<u8>,
    ) {
        assert_eq!(bytes.len(), plan.bytes as usize);
        let target = self.disk.segment(dir(), plan.segment).unwrap();
        let id = self.disk.submit_write(target, u64::from(plan.offset), bytes.clone(), true);
        self.flying.push((id, plan.group));
        let session = self.superblock.session();
        let written = Written { plan, session, claim, orders, values, bytes };
        self.oracle.groups.push(Rc::new(written));
    }

    /// Lets the write with that index among those under way end.
    pub fn complete(&mut self, index: usize) {
        let (id, number) = self.flying.remove(index);
        assert!(self.disk.complete_write(id, Completion::Done) > 0);
        let durable = self.writer.complete(number).unwrap();
        let acknowledged = self.oracle.groups.iter().filter(|group| group.plan.group <= durable);
        self.oracle.acknowledged = acknowledged.count();
    }

    /// Sectors under way.
    pub fn sectors(&self) -> u32 {
        let of = |number: u64| self.oracle.groups.iter().rev().find(|g| g.plan.group == number);
        self.flying.iter().map(|(_, number)| of(*number).unwrap().plan.bytes / 512).sum()
    }

    /// The superblock that raises the promise, as the shard writes it.
    pub fn promise(&self) -> Superblock {
        let mut next = self.superblock.clone();
        next.promised.round += 1;
        next.promised.node = NodeId(1);
        next.sealed = self.writer.durable();
        next
    }

    /// Writes it.
    pub fn write_superblock(&mut self) {
        self.superblock = self.promise();
        self.file.write(&self.superblock).unwrap();
        self.oracle.promised = self.superblock.promised;
    }

    /// Makes the next segment.
    pub fn make_segment(&mut self, number: u32) {
        create_segment(dir(), &self.config, number).unwrap();
        self.writer.add_segment(number).unwrap();
    }
}

/// The order of events of a node's start.
fn open(
    disk: &DiskHandle,
    shape: Shape,
    visitor: &mut dyn FnMut(&Group<'_>),
) -> Result<(Started, Superblock, chainring_storage::Recovered), LogError> {
    let (mut file, read) = SuperblockFile::open(disk, dir(), &identity(), false)?;
    let mut superblock = read.clone();
    superblock.start += 1;
    superblock.clean = false;
    file.write(&superblock)?;
    let config = config(disk, shape);
    let (recovered, writer) =
        recover(dir(), &config, &mut file, &mut superblock, Start::of_log(0), visitor)?;
    Ok((Started { file, superblock, writer }, read, recovered))
}

fn check(disk: &DiskHandle, shape: Shape, oracle: &Oracle, kept: usize) -> Result<Started, String> {
    let expected = &oracle.groups[..kept];
    let dropped = &oracle.groups[kept..];
    // Before the start clears it.
    let dirty = dropped.iter().any(|group| on_disk(disk, group).iter().any(|byte| *byte != 0));
    let mut shown = expected.iter().filter(|group| !group.is_seal());
    let mut wrong = None;
    let mut visitor = |group: &Group<'_>| {
        let next = shown.next();
        if wrong.is_none() && !next.is_some_and(|next| is_same(group, next)) {
            let next = next.map(|next| next.plan);
            wrong =
                Some(format!("found group {} at {:?}, not {next:?}", group.number, group.place));
        }
    };
    let (started, read, recovered) =
        open(disk, shape, &mut visitor).map_err(|error| format!("refused to start: {error}"))?;
    if let Some(next) = shown.next() {
        wrong = wrong.or(Some(format!("group {} is not found", next.plan.group)));
    }
    let claim = expected.iter().map(|group| group.claim.position).max().unwrap_or_default();
    let last = expected.last().map_or(0, |group| end(&group.plan));
    let highest = expected.last().map_or(0, |group| group.plan.group);
    let orders: usize = expected.iter().map(|group| group.orders.len()).sum();
    let rules = [
        (recovered.damaged || !recovered.unknowns.is_empty(), "a crash passes for damage"),
        (recovered.claim.position != claim, "not the last claim"),
        (recovered.orders != orders as u64, "another number of orders"),
        (orders > 0 && recovered.ballot != ballot(), "not the ballot of the orders"),
        (read.start < oracle.start, "the start number fell"),
        (read.promised < oracle.promised, "a promise is forgotten"),
        (!oracle.again && dirty == recovered.cuts.is_empty(), "a cut is not recorded, or none was"),
        (recovered.cuts.iter().any(|cut| cut.from < last), "a cut into what is kept"),
        (started.writer.durable() <= highest, "numbers of groups fell"),
        (recovered.full, "no room on an endless disk"),
    ];
    let written = read_superblock_on(disk, dir()).map_err(|error| error.to_string())?;
    let recorded = recovered.cuts.iter().all(|cut| written.damage.contains(cut));
    let kept_in_mind = written == started.superblock && recorded;
    let mut rules =
        rules.into_iter().chain([(!kept_in_mind, "the superblock says something else")]);
    let broken = rules.find(|(broken, _)| *broken).map(|(_, rule)| rule.to_owned());
    match wrong.or(broken) {
        Some(wrong) => Err(format!("{wrong}; {recovered:?}, read {read:?}")),
        None => Ok(started),
    }
}

/// The address behind a group.
fn end(plan: &GroupPlan) -> u64 {
    (u64::from(plan.segment) << 32 | u64::from(plan.offset)) + u64::from(plan.bytes)
}

fn is_same(found: &Group<'_>, written: &Written) -> bool {
    let at = u64::from(written.plan.segment) << 32 | u64::from(written.plan.offset);
    let values = written.values.iter().zip(found.values);
    let same =
        |((place, start, bytes), (header, found_place)): (&(Place, u32, u32), &(Header, Place))| {
            let (start, end) = (*start as usize, (start + bytes) as usize);
            place == found_place
                && header.size == *bytes
                && found.frame(*found_place) == &written.bytes[start..end]
        };
    found.number == written.plan.group
        && (found.place.at, found.place.bytes) == (at, written.plan.bytes)
        && found.session == written.session
        && found.claim == written.claim
        && found.orders == written.orders
        && found.values.len() == written.values.len()
        && { values }.all(same)
}
