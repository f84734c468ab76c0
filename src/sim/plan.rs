//! The plan of a world: everything that its seed decides before it begins.
//!
//! Swarm testing: each seed takes part of the faults, each at a rate of its own, and sizes of its
//! own, mostly tiny, so that windows wrap and segments roll many times. Invariants: a plan is a
//! function of its seed; what it does to a cluster stays within the fault model (never more than a
//! minority loses its memory or its disk's content), so that every violation is a fault of ours.

use crate::config::{Cluster, Config, Limits, Member, Node, durability_name};
use crate::sim::disk::Rates;
use crate::sim::faults::Kind;
use crate::sim::lan::{BUFFER_BYTES, Spells, Weather};
use crate::sim::random::Random;
use chainring_net::wire::FORWARDS_MAX;
use chainring_ring::ids::{ClusterId, Durability, Epoch, NodeId};
use strikes::{add_bad_copies, add_changes, drags, strikes};

mod relay;
mod strikes;

pub use strikes::Strike;

/// Rates of storage faults, times in a million operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Microseconds of a write to the log: least.
    pub write_us: u32,
    /// Mean of what comes on top.
    pub jitter_us: u32,
    /// A write takes a hundred times as long.
    pub slow: u32,
    /// A write fails.
    pub write_error: u32,
    /// A write is cut short.
    pub write_short: u32,
    /// Blocking operations, and reads; see [`Plan::blocking`].
    pub blocking: Rates,
    /// A write is reported as done and is not; of a node that may be damaged only.
    pub write_lost: u32,
    /// A write lands elsewhere; the same.
    pub write_astray: u32,
    /// Sectors that rot at a time; the same.
    pub rot_sectors: u32,
    /// Times in a million that a sector of a write in flight is kept, when power fails.
    pub keep: u32,
    /// The same for torn.
    pub torn: u32,
    /// A write hangs for seconds.
    pub hang: u32,
    /// What was written last rots, when power fails in the middle of a start; of a node that may
    /// be damaged only.
    pub last_rot: u32,
}

/// What the clients of a world do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// How many.
    pub clients: u16,
    /// Producers beside them, who repeat what has an unknown outcome.
    pub producers: u16,
    /// Requests of one that are open at a time.
    pub open: u16,
    /// Most records of a request.
    pub records: u32,
    /// Bytes of a record, most.
    pub record_bytes: u32,
    /// Mean pause between requests of a client in a burst, microseconds.
    pub pause_us: u64,
    /// Mean pause between bursts.
    pub rest_us: u64,
    /// Requests of a burst, most.
    pub burst: u32,
    /// Topics.
    pub topics: u16,
}

/// Everything that a seed decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: u8,
    /// Its durability.
    pub durability: Durability,
    /// Its block.
    pub block: u32,
    /// Limits of every node.
    pub limits: Limits,
    /// The network.
    pub weather: Weather,
    /// The disks.
    pub storage: Storage,
    /// Which nodes' disks may lose or spoil what they hold: a minority.
    pub victims: Vec<bool>,
    /// Large faults, in order of time.
    pub strikes: Vec<Strike>,
    /// The clients.
    pub load: Load,
    /// The faults end after so long, microseconds...
    pub safety_us: u64,
    /// ...or after so many events.
    pub events: u64,
    /// A turn of a shard takes so long: least, and mean of what comes on top.
    pub turn_us: (u32, u32),
    /// Mail is taken after so long: least, and mean of what comes on top.
    pub mail_us: (u32, u32),
    /// Forwards that a data link queues.
    pub forwards: usize,
    /// How much faster each node's clock runs, in a million.
    pub drift: Vec<i32>,
    /// More goes wrong than the ring is made to bear: it may stand still for good, and no more.
    pub beyond: bool,
    /// Which nodes are down when all else is healed, until the others have come to rest: of the
    /// minority that may be damaged.
    pub absent: Vec<bool>,
}

/// Events of a world until its faults end, unless told otherwise.
pub const EVENTS: u64 = 200_000;
/// A node that is told to stop has so long to drain.
pub const STOP_US: u64 = 200_000;
/// One world of so many is without faults.
const CALM: u64 = 32;
/// ...and of those that may, one of so many has slow disks and nothing else.
const DRAG: u64 = 12;
/// The time in which they should have happened, at most.
const SAFETY_US: u64 = 4_000_000_000;

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, events: u64) -> Plan {
        let mut random = Random::stream(seed, "plan");
        let nodes = [3, 3, 3, 3, 5, 5, 1, 2, 4, 7][random.below(10) as usize];
        let durability = match random.below(8) {
            0..4 => Durability::Sync,
            4..6 => Durability::Async,
            _ => Durability::Memory,
        };
        let block = if random.below(6) == 0 { 4096 } else { 512 };
        let mut limits = limits(&mut random, block);
        let mut order: Vec<u8> = (0..nodes).collect();
        random.shuffle(&mut order);
        let most = usize::from(nodes - 1) / 2;
        let mut victims = vec![false; usize::from(nodes)];
        order[..most].iter().for_each(|node| victims[usize::from(*node)] = true);
        let mut load = load(&mut random, &limits, nodes);
        if random.below(10) == 0 && limits.record_bytes > 1000 {
            (load.record_bytes, load.records) = (limits.record_bytes, 3);
        }
        // Of a stream of their own: the other half of the worlds is as it was without them.
        let mut producers = Random::stream(seed, "producers");
        if producers.below(2) == 0 {
            load.producers = 1 + producers.below(3) as u16;
        }
        if durability == Durability::Memory {
            // Who was outside the circle learns all of it from what the others keep, until there
            // are snapshots.
            if random.below(4) == 0 {
                victims.fill(false);
            }
            let bytes = events * u64::from((block / 4).max(limits.packet_bytes / 8));
            limits.memory_log_bytes = bytes.next_power_of_two().max(1 << 20);
        }
        let mut plan = Plan {
            seed,
            nodes,
            durability,
            block,
            weather: weather(&mut random, &limits),
            limits,
            storage: storage(&mut random),
            victims,
            strikes: Vec::new(),
            load,
            safety_us: SAFETY_US,
            events,
            turn_us: (1 + random.below(10) as u32, random.below(30) as u32),
            mail_us: (1 + random.below(20) as u32, 1 + random.below(200) as u32),
            // Mostly few: the many of production are never full in a small world.
            forwards: [1 << random.below(6), FORWARDS_MAX][usize::from(random.below(3) == 0)],
            drift: (0..nodes).map(|_| random.below(2001) as i32 - 1000).collect(),
            beyond: false,
            absent: vec![false; usize::from(nodes)],
        };
        plan.keep();
        plan.go_beyond(&mut random);
        let least = plan.config(0).side_pool_least() as u32;
        plan.limits.side_pool_bytes = least << random.below(2);
        plan.strikes = strikes(&mut random, &plan);
        add_bad_copies(&mut plan);
        add_changes(&mut plan);
        plan.absent = plan.absentees();
        if Random::stream(seed, "calm").below(CALM) == 0 {
            plan.calm();
        } else if plan.may_drag() {
            plan.calm();
            plan.strikes = drags(&plan);
        }
        plan
    }

    /// How often the state is written down, and what is let go; of a stream of its own.
    fn keep(&mut self) {
        let mut random = Random::stream(self.seed, "keep");
        let segment = u64::from(self.limits.segment_bytes);
        self.limits.checkpoint_bytes = (segment / 4) << random.below(4);
        if random.coin() {
            self.limits.retention_bytes = segment << random.below(4);
        }
        if random.below(4) == 0 {
            self.limits.retention_seconds = 1 + random.below(100);
        }
    }

    /// One world of so many has nothing but disks that are slow now and then, one at a time: where
    /// answers wait for disks, and a quorum is enough.
    fn may_drag(&self) -> bool {
        let some = Random::stream(self.seed, "drag").below(DRAG) == 0;
        some && self.durability == Durability::Sync && self.nodes >= 3 && !self.beyond
    }

    /// True if nothing but slow disks goes wrong.
    pub fn is_drag(&self) -> bool {
        let dragged = !self.strikes.is_empty();
        let mut rest = self.clone();
        rest.strikes.retain(|strike| strike.kind != Kind::Drag);
        dragged && rest.is_fault_free()
    }

    /// In half of the worlds some of the minority are absent.
    fn absentees(&self) -> Vec<bool> {
        let mut random = Random::stream(self.seed, "absent");
        let some = random.coin() && !self.beyond;
        self.victims.iter().map(|victim| random.coin() && *victim && some).collect()
    }

    /// Nothing goes wrong: what must hold then, and only then, is watched in such a world.
    fn calm(&mut self) {
        let weather = &mut self.weather;
        for rate in [&mut weather.lose, &mut weather.double, &mut weather.hold, &mut weather.spoil]
        {
            *rate = 0;
        }
        (weather.broken, weather.late, weather.stall) = (0, 0, 0);
        weather.spells = Spells::default();
        let Storage { write_us, jitter_us, keep, torn, .. } = self.storage;
        self.storage = Storage { write_us, jitter_us, keep, torn, ..Storage::default() };
        self.strikes.clear();
        self.absent.fill(false);
    }

    /// Some worlds are worse than the fault model: all that is asked of them is that nothing false
    /// is ever said. A node alone has damage that nobody can mend; a majority forgets; a log has
    /// no room for good; the only copies of what somebody lacks are dropped.
    fn go_beyond(&mut self, random: &mut Random) {
        let alone = self.nodes == 1;
        let memory = self.durability == Durability::Memory;
        let one_in = if alone {
            3
        } else if memory {
            8
        } else {
            40
        };
        self.beyond = random.below(one_in) == 0;
        if !self.beyond {
            return;
        }
        self.safety_us = SAFETY_US / 4;
        let all = alone || (random.coin() && self.durability != Durability::Sync);
        let limits = &mut self.limits;
        match () {
            () if all => self.victims.fill(true),
            () if memory => {
                let packet = limits.packet_bytes.max(limits.record_bytes + 4096);
                limits.memory_log_bytes = u64::from(8 * packet);
            }
            () => limits.log_bytes = u64::from(limits.segment_bytes) * (2 + random.below(4)),
        }
    }

    /// True if the content of this node's disk may be spoilt at rest.
    pub fn may_spoil(&self, node: u8) -> bool {
        self.victims[usize::from(node)] && (!self.beyond || self.nodes == 1)
    }

    /// How often the blocking operations of a node fail. Only reads do, where a node that ends has
    /// forgotten its votes and is not of the minority.
    pub fn blocking(&self, node: u8) -> Rates {
        let rates = self.storage.blocking;
        match self.durability == Durability::Sync || self.victims[usize::from(node)] {
            true => rates,
            false => Rates {
                read_error: rates.read_error,
                read_garbage: rates.read_garbage,
                ..Rates::default()
            },
        }
    }

    /// The configuration of one node.
    pub fn config(&self, index: u8) -> Config {
        let member = |index: u8| Member {
            id: NodeId(index + 1),
            address: format!("10.0.0.{}:7000", index + 1),
            http: format!("10.0.0.{}:8000", index + 1),
            spare: false,
        };
        Config {
            cluster: Cluster {
                id: ClusterId(0x0c4a_1172_1736 + u128::from(self.seed)),
                epoch: Epoch(1),
                durability: self.durability,
                block: self.block,
                nodes: (0..self.nodes).map(member).collect(),
            },
            node: Node {
                id: NodeId(index + 1),
                dir: "/store".into(),
                development: false,
                core: None,
            },
            limits: self.limits.clone(),
        }
    }

    /// In a line.
    pub fn summary(&self) -> String {
        let l = &self.limits;
        format!(
            "{} nodes, {}, block {}, window {} entries {} B, packets {} B, segments {} B, victims {:?}",
            self.nodes,
            durability_name(self.durability),
            self.block,
            l.window_instances,
            l.window_bytes,
            l.packet_bytes,
            l.segment_bytes,
            self.victims.iter().enumerate().filter(|v| *v.1).map(|v| v.0 + 1).collect::<Vec<_>>()
        )
    }

    /// True if nothing goes wrong in it.
    pub fn is_fault_free(&self) -> bool {
        let Weather { lose, double, hold, spoil, broken, late, stall, spells, .. } = self.weather;
        let storage = &self.storage;
        let fails = [storage.write_error, storage.write_short, storage.write_lost];
        lose + double + hold + spoil + broken + late + stall == 0
            && fails.iter().all(|rate| *rate == 0)
            && (spells, storage.blocking) == (Spells::default(), Rates::default())
            && self.strikes.is_empty()
    }

    /// Votes that decide.
    pub fn quorum(&self) -> usize {
        usize::from(self.nodes) / 2 + 1
    }
}

fn limits(random: &mut Random, block: u32) -> Limits {
    let record_bytes = [100, 300, 900, 2000, 100, 300, 900, 6000][random.below(8) as usize];
    let packet_bytes = 2 * block * (1 << random.below(3));
    let window_bytes = (4 * packet_bytes) << random.below(3);
    let group_bytes = 2 * block * (1 << random.below(4));
    let mut limits = Limits {
        record_bytes,
        packet_bytes,
        window_bytes,
        side_pool_bytes: 64 << 10,
        memory_log_bytes: 64 << 10 << random.below(6),
        group_bytes,
        group_orders: 64 << random.below(3),
        groups_in_flight: 2 + random.below(2) as u32,
        async_behind_ms: 5 + random.below(100) as u32,
        async_behind_bytes: 4096 << random.below(8),
        mailbox_letters: 64 << (2 * random.below(4)),
        fetch_bytes_per_s: 1_000_000 << random.below(8),
        ..Limits::default()
    };
    limits.window_instances = 32 << random.below(6);
    let overhead = 1024;
    let packet_max = packet_bytes.max((record_bytes + overhead).next_multiple_of(block));
    let group = 384 + limits.group_orders * 48 + group_bytes + packet_max + 4096;
    let least = (16 * group).next_multiple_of(4096).max(64 << 10);
    limits.segment_bytes = least << random.below(2);
    limits.memory_log_bytes = limits.memory_log_bytes.max(u64::from(4 * packet_max));
    limits
}

fn load(random: &mut Random, limits: &Limits, nodes: u8) -> Load {
    Load {
        clients: 1 + random.below(2 * u64::from(nodes)) as u16,
        open: 1 + random.below(8) as u16,
        records: 1 + random.below(20) as u32,
        record_bytes: limits.record_bytes.min(20 << random.below(8)),
        pause_us: 100 << random.below(8),
        rest_us: 500_000 << random.below(6),
        burst: 2 << random.below(7),
        topics: 1 + random.below(3) as u16,
        producers: 0,
    }
}

/// A rate of the swarm: sometimes none, sometimes little, mostly much.
fn rate(random: &mut Random, most: u32) -> u32 {
    match random.below(4) {
        0 => 0,
        1 => random.below(u64::from(most / 10) + 1) as u32,
        _ => random.below(u64::from(most) + 1) as u32,
    }
}

fn weather(random: &mut Random, limits: &Limits) -> Weather {
    let small = (16 << 10 << random.below(2)).max(8 * (limits.packet_bytes + limits.record_bytes));
    Weather {
        late: rate(random, 200_000),
        buffer_bytes: if random.below(4) == 0 { small } else { BUFFER_BYTES },
        delay_us: 5 + random.below(200) as u32,
        jitter_us: 1 + random.below(300) as u32,
        bytes_per_us: [10, 125, 1250][random.below(3) as usize],
        lose: rate(random, 1_500),
        double: rate(random, 150_000),
        hold: rate(random, 320_000),
        spoil: rate(random, 700),
        broken: rate(random, 700),
        stall: rate(random, 200),
        give_up_us: 200_000 << random.below(4),
        spells: if random.below(10) == 0 { spells(random) } else { Spells::default() },
    }
}

/// Up to 30 % of all frames are lost for a while, over and over.
fn spells(random: &mut Random) -> Spells {
    let lasts_us = 50_000 << random.below(6);
    Spells {
        every_us: lasts_us * (2 + random.below(8)),
        lasts_us,
        lose: random.below(300_001) as u32,
        spoil: rate(random, 100_000),
        broken: rate(random, 100_000),
    }
}

fn storage(random: &mut Random) -> Storage {
    Storage {
        write_us: 20 + random.below(300) as u32,
        jitter_us: 1 + random.below(500) as u32,
        slow: rate(random, 20_000),
        write_error: rate(random, 300),
        write_short: rate(random, 300),
        blocking: Rates {
            read_error: rate(random, 300_000),
            read_garbage: rate(random, 300_000),
            write_error: rate(random, 30_000),
            write_full: rate(random, 10_000),
            write_short: rate(random, 100_000),
            sync_error: rate(random, 30_000),
            name_error: rate(random, 30_000),
        },
        write_lost: rate(random, 300),
        write_astray: rate(random, 300),
        rot_sectors: random.below(8) as u32,
        keep: random.below(1_000_001) as u32,
        torn: random.below(300_000) as u32,
        hang: rate(random, 300),
        last_rot: 500_000 * (random.below(2) as u32),
    }
}
