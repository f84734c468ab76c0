//! The loop on a machine without a kernel: what leaves a shard whose disk fails.

use super::checks::{CHECK_BYTES, CHECK_EVERY, Check};
use super::packets::FORWARD;
use super::*;
use crate::device::{Device, Port, Probe};
use crate::mail::{Append, Note};
use crate::records::Digest;
use chainring_net::mailbox::{Waker, channel};
use chainring_net::wire::{Counters, Event, LinkKind, Refused};
use chainring_ring::actions::Action;
use chainring_ring::configuration::Configuration;
use chainring_ring::core::{Recovered, Settings};
use chainring_ring::header::{HEADER_BYTES, Kind};
use chainring_ring::ids::{Claim, ClusterId, Entry, Epoch, Incarnation, Instance, Order, RingId};
use chainring_ring::window::WINDOW_MAX;
use chainring_storage::{Identity, LogError};

/// No links, and a superblock that can be written or not.
struct Double {
    memory: Vec<u8>,
    regions: Regions,
    fails: bool,
    done: VecDeque<Event>,
    /// Superblocks written.
    written: u32,
    steps: u32,
    /// Times that the core was told to be deaf.
    deaf: u32,
    /// Superblocks that were written when a promise was asked for.
    promise_seen: Option<u32>,
}

impl Port for Double {
    type Handle = ();

    fn poll(&mut self, _: Wait) {}
    fn next_event(&mut self) -> Option<Event> {
        None
    }
    fn next_done(&mut self) -> Option<Event> {
        self.done.pop_front()
    }
    fn attach(&mut self, _: LinkKind, (): ()) {}
    fn detach(&mut self, _: LinkKind) {}
    fn attached(&self, _: LinkKind) -> bool {
        false
    }
    fn forward(&mut self, _: Range, _: u64) -> Result<(), Refused> {
        Err(Refused::Down)
    }
    fn control(&mut self, _: &mut dyn FnMut(&mut [u8]) -> usize) -> Result<(), Refused> {
        Err(Refused::Down)
    }
    fn control_waiting(&self) -> u32 {
        0
    }
    fn release_received(&mut self, _: u64) {}
    fn received_held(&self) -> u32 {
        0
    }
    fn bytes(&self, range: Range) -> &[u8] {
        &self.memory[range.offset as usize..range.end() as usize]
    }
    fn bytes_mut(&mut self, range: Range) -> &mut [u8] {
        &mut self.memory[range.offset as usize..range.end() as usize]
    }
    fn copy(&mut self, _: Range, _: Range) {}
    fn regions(&self) -> Regions {
        self.regions
    }
    fn counters(&self) -> Counters {
        Counters::default()
    }
}

impl Device for Double {
    fn add_segment(&mut self, _: u32, (): ()) {}
    fn drop_segments(&mut self, _: u32) {}
    fn write(&mut self, _: u64, _: u32, _: &[Range], _: u64) -> Result<(), Refused> {
        Err(Refused::Full)
    }
    fn write_superblock(&mut self, _: &Superblock) -> Result<(), LogError> {
        self.written += 1;
        if self.fails { Err(LogError::Poisoned) } else { Ok(()) }
    }
}

impl Probe for Double {
    fn stepped(&mut self, _: &Core, input: &Input<'_>, actions: &[Action]) {
        self.steps += 1;
        self.deaf += u32::from(matches!(input, Input::Deaf));
        if actions.iter().any(|action| matches!(action, Action::WritePromise(_))) {
            self.promise_seen = Some(self.written);
        }
    }
}

fn config() -> Config {
    let member = |id: u8| crate::config::Member {
        id: NodeId(id),
        address: format!("127.0.0.1:{}", 1000 + u16::from(id)),
        http: format!("127.0.0.1:{id}"),
        spare: false,
    };
    let cluster = crate::config::Cluster {
        id: ClusterId(5),
        epoch: Epoch(1),
        durability: Durability::Sync,
        block: 512,
        nodes: vec![member(1), member(2), member(3)],
    };
    let dir = "unused".into();
    let node = crate::config::Node { id: NodeId(2), dir, development: true, core: None };
    Config { cluster, node, limits: Limits::default() }
}

type Ends = (chainring_net::mailbox::Sender<Command<()>>, Receiver<Notice>);

/// A follower that has just started, without a log.
fn shard(fails: bool) -> (Shard<Double>, Ends) {
    shard_with(fails, Room::default())
}

fn shard_with(fails: bool, room: Room) -> (Shard<Double>, Ends) {
    shard_of(fails, room, Recovered::default())
}

fn shard_of(fails: bool, room: Room, recovered: Recovered) -> (Shard<Double>, Ends) {
    let config = config();
    let side = Range { offset: 0, bytes: 1 << 16 };
    let none = Range::default();
    let regions = Regions {
        receive: none,
        own: none,
        side,
        blocks: none,
        control_in: none,
        control_out: [none; 2],
    };
    let machine = Double {
        memory: vec![0; 1 << 16],
        regions,
        fails,
        done: VecDeque::new(),
        written: 0,
        steps: 0,
        deaf: 0,
        promise_seen: None,
    };
    let nodes = [1, 2, 3].map(NodeId).to_vec();
    let settings = Settings {
        voters: vec![Incarnation(1); 3],
        nodes,
        me: NodeId(2),
        incarnation: Incarnation(1),
        session: Session::FIRST,
        durability: Durability::Sync,
        window: WINDOW_MAX,
        seed: 0,
        patience: 0,
    };
    let identity =
        Identity { cluster: ClusterId(5), epoch: Epoch(1), node: NodeId(2), ring: RingId(0) };
    let (to_shard, commands) = channel(64);
    let (notices, told) = channel(1024);
    let parts = ShardParts {
        machine,
        core: Core::new(settings, recovered),
        groups: Groups::new(),
        superblock: Superblock::new(identity, Durability::Sync, 512, 3),
        log: None,
        segments: chainring_storage::Segments::default(),
        held: Vec::new(),
        commands,
        notices,
        control_waker: Waker::new().unwrap(),
        gauges: Arc::default(),
        room,
    };
    (Shard::new(&config, parts), (to_shard, told))
}

/// The control thread begins with the circle of all that the configuration lists; where the log
/// says that one of them is gone, it is told at once (seed 52 of the simulator stood still).
#[test]
fn who_is_gone_is_no_neighbour_after_a_restart() {
    let neighbours = |voters: &[u8]| {
        let voters = voters.iter().map(|id| (NodeId(*id), Incarnation(1)));
        let configuration = Some(Configuration::first(voters));
        let recovered = Recovered { configuration, ..Recovered::default() };
        let (mut shard, (_commands, mut told)) = shard_of(false, Room::default(), recovered);
        shard.turn(1);
        std::iter::from_fn(|| told.try_recv()).find_map(|notice| match notice {
            Notice::Neighbours { predecessor, successor } => Some((predecessor, successor)),
            _ => None,
        })
    };
    assert_eq!(neighbours(&[1, 2, 3]), None, "it knows");
    assert_eq!(neighbours(&[2, 3]), Some((Some(NodeId(3)), Some(NodeId(3)))));
}

/// With places for fewer than may be undelivered, or than two windows, it would stand for ever.
#[test]
fn a_shard_is_not_made_with_too_little_room() {
    let enough = Room { packets: 129, notices: 8193, log_items: 0, sparse: true };
    shard_with(false, enough);
    for little in [Room { packets: 128, ..enough }, Room { notices: 8192, ..enough }] {
        assert!(std::panic::catch_unwind(|| shard_with(false, little)).is_err(), "{little:?}");
    }
}

/// What goes in is counted, and a probe sees each step with what it brought, before it is done.
#[test]
fn steps_are_seen_and_inputs_counted() {
    let (mut shard, (mut to_shard, _told)) = shard(false);
    shard.turn(1);
    let (inputs, steps) = (shard.inputs(), shard.machine().steps);
    assert_eq!((inputs, steps > 0), (1, true), "the first tick");
    assert!(to_shard.try_send(Command::Campaign).is_ok());
    shard.machine.written = 0;
    shard.turn(2);
    assert_eq!(shard.inputs(), inputs + 1);
    assert!(shard.machine().steps > steps);
    assert_eq!(shard.machine().promise_seen, Some(0), "seen before it was written");
    assert_eq!(shard.machine().written, 1);
}

/// What a loop without room leaves untaken is no silence: its core is told so before each tick.
#[test]
fn a_loop_without_room_says_that_it_is_deaf() {
    let room = Room { packets: 129, notices: 8193, log_items: 0, sparse: true };
    let (mut shard, (mut to_shard, mut told)) = shard_with(false, room);
    let mut now = 0;
    let mut tick = |shard: &mut Shard<Double>| {
        now += TICK_US;
        let before = shard.machine().deaf;
        shard.turn(now);
        shard.machine().deaf - before
    };
    assert_eq!(tick(&mut shard), 0);
    // Each campaign has something to say, and nobody reads it.
    for _ in 0..2000 {
        let _ = to_shard.try_send(Command::Campaign);
        tick(&mut shard);
    }
    assert_eq!((tick(&mut shard), tick(&mut shard)), (1, 1));
    for _ in 0..20 {
        while told.try_recv().is_some() {}
        tick(&mut shard);
    }
    assert_eq!((tick(&mut shard), tick(&mut shard)), (0, 0));
}

/// A promise that did not reach the disk is not answered with, and ends the shard.
#[test]
fn no_answer_leaves_after_a_failed_promise() {
    for fails in [false, true] {
        let (mut shard, (mut to_shard, mut told)) = shard(fails);
        let candidate = Sender { cluster: ClusterId(5), epoch: Epoch(1), node: NodeId(1) };
        let ballot = Ballot { round: 1, node: NodeId(1), incarnation: Incarnation(1) };
        let frame = candidate.prepare(ballot);
        assert!(to_shard.try_send(Command::Direct { from: NodeId(1), frame }).is_ok());
        assert_eq!(shard.turn(1).is_none(), fails);
        let mut answers = 0;
        while let Some(notice) = told.try_recv() {
            answers += u32::from(matches!(notice, Notice::Direct { .. }));
        }
        assert_eq!(answers, u32::from(!fails), "superblock fails: {fails}");
    }
}

/// Nothing is let go for a superblock that could not be written.
#[test]
fn what_is_not_noted_is_not_called_noted() {
    for fails in [false, true] {
        let (mut shard, (mut to_shard, mut told)) = shard(fails);
        let checkpoint = (Instance(5), 7);
        let note = Note { checkpoint, base: Instance(5), first_segment: 1 };
        assert!(to_shard.try_send(Command::Note { token: 3, note }).is_ok());
        assert_eq!(shard.turn(1).is_none(), fails);
        shard.end();
        let mut noted = false;
        while let Some(notice) = told.try_recv() {
            noted |= matches!(notice, Notice::Noted { token: 3 });
        }
        assert_eq!(noted, !fails, "superblock fails: {fails}");
    }
}

/// What fills the outbox may wait for its place in the log, and so for writes: they are taken in
/// however full it is.
#[test]
fn what_makes_room_is_taken_without_room() {
    let (mut shard, _ends) = shard(false);
    let range = Range { offset: 0, bytes: 512 };
    let session = Session::FIRST;
    let id = ValueId { origin: NodeId(1), session, sequence: Sequence(0) };
    let ix = shard.packets.insert(id, range, Home::Received, 512);
    shard.packets.need(ix, FORWARD);
    while shard.has_room() {
        shard.outbox.push(Notice::Drained);
    }
    shard.machine.done.push_back(Event::Forwarded { token: u64::from(ix), sent: true });
    shard.take_events();
    assert!(shard.packets.is_empty());
}

/// Answers of a catch-up that cannot be taken in yet do not hold up the word to stop, nor the
/// segment that they wait for.
#[test]
fn answers_that_wait_hold_up_no_command() {
    let (mut shard, (mut to_shard, _told)) = shard(false);
    while shard.has_room() {
        shard.outbox.push(Notice::Drained);
    }
    let ballot = Ballot { round: 1, node: NodeId(1), incarnation: Incarnation(1) };
    let (instance, base) = (Instance(0), Instance(0));
    let order = Order { instance, ballot, base, entry: Entry::Noop, decided: true };
    for _ in 0..=commands::ENTRIES_MAX {
        let (orders, frames) = (vec![order], Vec::new());
        assert!(
            to_shard
                .try_send(Command::Entries { claim: Default::default(), orders, frames })
                .is_ok()
        );
    }
    assert!(to_shard.try_send(Command::Stop).is_ok());
    shard.take_commands();
    assert_eq!(shard.stop, Some(false));
    assert_eq!(shard.entries.len(), commands::ENTRIES_MAX);
}

/// Others may keep the log busy for as long as a drain lasts; without the links it comes to rest
/// all the same, and an async node does not lose its votes by being stopped in good order.
#[test]
fn a_drain_that_ran_out_of_time_stops_clean_all_the_same() {
    for draining in [false, true] {
        let (mut shard, (mut to_shard, _told)) = shard(false);
        if draining {
            assert!(to_shard.try_send(Command::Drain).is_ok());
        }
        assert!(to_shard.try_send(Command::Stop).is_ok());
        assert!(shard.turn(1).is_none());
        assert_eq!(shard.end().clean, draining);
    }
}

/// What came in the turn of the word to stop, before it, is not taken up behind the mark: it would
/// be told of as appended and not be on stable media (simulator seed 5733 of 3,000 events).
#[test]
fn nothing_is_taken_up_behind_the_mark() {
    let (mut shard, (mut to_shard, mut told)) = shard(false);
    let append = Append::new(1, crate::mail::TopicId(0), b"late".as_slice().into(), vec![4]);
    for command in [Command::Append(Box::new(append)), Command::Drain, Command::Stop] {
        assert!(to_shard.try_send(command).is_ok());
    }
    let before = shard.core().appended();
    assert!(shard.turn(1).is_none());
    assert_eq!(shard.core().appended(), before, "nothing was proposed behind the mark");
    while let Some(notice) = told.try_recv() {
        assert!(!matches!(notice, Notice::Appended(_)));
    }
}

/// A full log never comes to rest: the node stops without the mark, and at once.
#[test]
fn a_full_log_does_not_hold_up_the_end() {
    let (mut shard, (mut to_shard, _told)) = shard(false);
    let mut config = config();
    let dir = std::env::temp_dir().join(format!("chainring-full-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    config.node.dir.clone_from(&dir);
    config.limits = Limits::small();
    crate::recover::format(&config).unwrap();
    let disk = chainring_storage::FileSystem::shared();
    let opened = crate::recover::open_on(&disk, &config, 1).unwrap();
    let (mut writer, _) = opened.log.unwrap();
    let noop = |instance| {
        let (ballot, base) = (Ballot::default(), Instance(0));
        Order { instance, ballot, base, entry: Entry::Noop, decided: false }
    };
    let orders = [noop(Instance(0)); 64];
    let mut block = vec![0; 1 << 16];
    let values = chainring_storage::Values::default();
    while let Ok(plan) = writer.plan(&orders, &values, Claim::default(), &mut block) {
        writer.complete(plan.group).unwrap();
    }
    let (group_orders, group_bytes, groups_in_flight, block) = (64, 4096, 2, 512);
    let pending = Room::default().log_items;
    let limits = JournalLimits { group_orders, group_bytes, groups_in_flight, block, pending };
    let bytes = 3 * Journal::block_bytes(group_orders, block);
    shard.machine.memory = vec![0; bytes as usize];
    let segments = opened.segments;
    let mut journal = Journal::new(writer, segments, limits, Range { offset: 0, bytes });
    for instance in (0..64).map(Instance) {
        journal.push_order(noop(instance), 0);
    }
    shard.journal = Some(journal);
    shard.draining = true;
    to_shard.try_send(Command::NoSegment).ok().unwrap();
    let clean = shard.finish();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(!clean && shard.now_us < 100_000, "{clean} {}", shard.now_us);
}

/// Who delivered something else than another node says so, and goes no further.
#[test]
fn a_digest_that_differs_ends_the_shard() {
    for differs in [false, true] {
        let (mut shard, (mut to_shard, mut told)) = shard(false);
        let ballot = Ballot { round: 1, node: NodeId(1), incarnation: Incarnation(1) };
        for at in (0..CHECK_EVERY).map(Instance) {
            let (base, entry) = (Instance(0), Entry::Noop);
            let order = Order { instance: at, ballot, base, entry, decided: true };
            shard.step(Input::Decided { order, ballot });
        }
        let check = Check { position: Instance(CHECK_EVERY), digest: shard.groups.digest() };
        assert!(shard.turn(2_000_000).is_some());
        let mut notes = std::iter::from_fn(|| told.try_recv());
        assert!(notes.any(|notice| matches!(notice, Notice::Check(told) if told == check)));
        let digest = Digest(check.digest.0 + u128::from(differs));
        let sender = Sender { cluster: ClusterId(5), epoch: Epoch(1), node: NodeId(3) };
        let mut frame = vec![0; HEADER_BYTES + CHECK_BYTES];
        frame[HEADER_BYTES..].copy_from_slice(&Check { digest, ..check }.encode());
        let (size, length) = (frame.len() as u32, CHECK_BYTES as u32);
        sender.header(Kind::Check, size, length).seal(&mut frame);
        assert!(to_shard.try_send(Command::Direct { from: NodeId(3), frame }).is_ok());
        assert_eq!(shard.turn(2_000_001).is_none(), differs);
        let failure = shard.end().failure;
        assert_eq!(matches!(failure, Some(Failure::Diverged(_))), differs, "{failure:?}");
    }
}
