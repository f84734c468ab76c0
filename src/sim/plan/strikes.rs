//! The large faults of a plan: what strikes whom, when and for how long.
//!
//! Invariant: those that would cost a node its memory of votes are left to the world, which knows
//! the minority that may lose it.

use super::{Plan, STOP_US, relay};
use crate::peers::DIRECTS_MAX;
use crate::sim::faults::Kind;
use crate::sim::random::Random;

/// So often a node campaigns that insists: more than a peer's direct messages that wait.
const INSIST: u64 = DIRECTS_MAX as u64 + 16;

/// All links are up by then.
const DRAG_AFTER_US: u64 = 8_000_000;
/// From the beginning of a slow disk to that of the next, at least.
const DRAG_EVERY_US: u64 = 25_000_000;
const DRAGS_MAX: usize = 8;

/// A large fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// When, microseconds.
    pub at: u64,
    /// For how long.
    pub lasts: u64,
    /// What.
    pub kind: Kind,
    /// To whom: an index into the nodes.
    pub node: u8,
    /// Drawn for it: the shape of a partition, the size of a jump.
    pub detail: u64,
}

impl Plan {
    /// The ways that a partition cuts, in one of the shapes that networks are cut in.
    pub fn cut_by(&self, strike: &Strike) -> impl Iterator<Item = (u8, u8)> + use<> {
        let (nodes, detail, one) = (self.nodes, strike.detail, strike.node);
        let next = (one + 1) % nodes;
        let group = move |node: u8| detail >> 8 >> node & 1 == 1;
        let hit = move |from: u8, to: u8| match detail % 7 {
            // One node alone; deaf; mute.
            0 => from == one || to == one,
            1 => to == one,
            2 => from == one,
            // The ring between neighbours; one way of it.
            3 => (from, to) == (one, next) || (from, to) == (next, one),
            4 => (from, to) == (one, next),
            // Two groups; two groups with one node between them.
            5 => group(from) != group(to),
            _ => group(from) != group(to) && from != one && to != one,
        };
        let ways = (0..nodes).flat_map(move |from| (0..nodes).map(move |to| (from, to)));
        ways.filter(move |(from, to)| from != to && hit(*from, *to))
    }
}

/// What just crashed crashes again and again, sometimes as soon as it has started.
fn storm(random: &mut Random, strikes: &mut Vec<Strike>) {
    let mut strike = *strikes.last().expect("the first of them");
    for _ in 0..1 + random.below(6) {
        let mean = 20_000 << random.below(4);
        strike.at += strike.lasts + 200 + random.exponential(mean);
        (strike.lasts, strike.detail) = (2_000 + random.exponential(20_000), random.bits());
        strikes.push(strike);
    }
}

/// Seldom a crash comes alone.
fn crash_more(random: &mut Random, plan: &Plan, strikes: &mut Vec<Strike>) {
    if random.below(6) == 0 {
        storm(random, strikes);
    } else if plan.nodes > 1 && random.below(8) == 0 {
        insist(random, plan, strikes);
    }
}

/// While one is down another campaigns over and over, more often than what it says can wait for
/// who is down; who comes back meanwhile catches up across ballots.
fn insist(random: &mut Random, plan: &Plan, strikes: &mut Vec<Strike>) {
    let down = *strikes.last().expect("the one that is down");
    let node = (down.node + 1 + random.below(u64::from(plan.nodes - 1)) as u8) % plan.nodes;
    let pause = 1_000 + random.below(5_000);
    for number in 1..=INSIST {
        let (at, kind) = (down.at + number * pause, Kind::Campaign);
        strikes.push(Strike { at, lasts: 0, kind, node, detail: 0 });
    }
}

/// Large faults: about one in seven seconds, and storms (more of them would spend the time on
/// starts). Of those that cost a node its memory of votes, no more than a minority's worth.
pub(super) fn strikes(random: &mut Random, plan: &Plan) -> Vec<Strike> {
    let kinds = [
        (Kind::Crash, 30),
        (Kind::Power, 30),
        (Kind::Pause, 15),
        (Kind::Part, 40),
        (Kind::Campaign, 40),
        (Kind::Clock, 5),
        (Kind::Stop, 15),
        (Kind::Rot, 20),
        (Kind::DiskLoss, 2),
        (Kind::HeadRot, 3),
        (Kind::CopyRot, 5),
        (Kind::SegmentLost, 5),
        (Kind::Misplaced, 10),
        (Kind::Full, 6),
        (Kind::Foreign, 4),
        (Kind::Mistake, 4),
        (Kind::Stranger, 5),
    ];
    // Each seed leaves some of them out.
    let weights = kinds.map(|(_, weight)| if random.below(4) == 0 { 0 } else { weight });
    if weights.iter().all(|weight| *weight == 0) {
        return Vec::new();
    }
    let mean = 4_000_000 << random.below(3);
    let relays = if random.coin() && plan.nodes > 2 { 4 } else { u64::MAX };
    let mut strikes = Vec::new();
    let mut at = 500_000 + random.exponential(mean);
    while at < plan.safety_us {
        if random.below(relays) == 0 {
            relay::relay(random, plan, at, &mut strikes);
            at = strikes.last().map_or(at, |strike| strike.at + strike.lasts);
            at += random.exponential(mean);
            continue;
        }
        let (kind, _) = kinds[random.weighted(&weights)];
        let lasts = match kind {
            Kind::Crash | Kind::Power | Kind::Stop => 20_000 + random.exponential(500_000),
            Kind::Pause if random.below(8) == 0 => 12_000_000 + random.exponential(3_000_000),
            Kind::Pause => 1_000 + random.exponential(1_500_000),
            Kind::Full => 500_000 + random.exponential(4_000_000),
            Kind::Mistake => 50_000 + random.exponential(2_000_000),
            Kind::Part => 10_000 + random.exponential(1_000_000),
            _ => 0,
        };
        let node = random.below(u64::from(plan.nodes)) as u8;
        strikes.push(Strike { at, lasts, kind, node, detail: random.bits() });
        if matches!(kind, Kind::Crash | Kind::Power) {
            crash_more(random, plan, &mut strikes);
        }
        if kind == Kind::Stop {
            // Just before the node ends, so that its log has something under way.
            let (at, lasts) = (at + STOP_US - random.below(2_000), 0);
            strikes.push(Strike { at, lasts, kind: Kind::Rush, node, detail: 0 });
        }
        if kind == Kind::Full {
            // The node is stopped, or starts, while its disk is full.
            let kind = [Kind::Stop, Kind::Crash, Kind::Power][random.below(3) as usize];
            let (at, lasts) = (at + lasts / 2, random.below(lasts / 4));
            strikes.push(Strike { at, lasts, kind, node, detail: random.bits() });
        }
        at = strikes.last().map_or(at, |strike| strike.at);
        at += random.exponential(mean);
    }
    strikes
}

/// In every other world members change: one of the minority that may lose its memory is removed,
/// and comes back with an empty store.
pub(super) fn add_changes(plan: &mut Plan) {
    let mut random = Random::stream(plan.seed, "members");
    if random.coin() || plan.nodes < 3 || plan.beyond {
        return;
    }
    let mean = 1_000_000 << random.below(5);
    let mut at = 500_000 + random.exponential(mean);
    while at < plan.safety_us {
        let node = random.below(u64::from(plan.nodes)) as u8;
        plan.strikes.push(Strike { at, lasts: 0, kind: Kind::Member, node, detail: random.bits() });
        at += random.exponential(mean);
    }
    plan.strikes.sort_by_key(|strike| strike.at);
}

/// In one world of three about half of the nodes get a copy of the superblock that is bad for good;
/// any of them may, since one each is within the fault model.
pub(super) fn add_bad_copies(plan: &mut Plan) {
    let mut random = Random::stream(plan.seed, "bad copies");
    if random.below(3) > 0 {
        return;
    }
    for node in 0..plan.nodes {
        if random.coin() {
            continue;
        }
        let at = 200_000 + random.exponential(4_000_000);
        let strike = Strike { at, lasts: 0, kind: Kind::CopyBad, node, detail: random.bits() };
        plan.strikes.push(strike);
    }
    plan.strikes.sort_by_key(|strike| strike.at);
}

/// Disks that are slow for some seconds, one after another: each write takes a second or more.
/// Between two of them there is time to become whole.
pub(super) fn drags(plan: &Plan) -> Vec<Strike> {
    let mut random = Random::stream(plan.seed, "drags");
    let mut at = DRAG_AFTER_US;
    let strike = |_| {
        at += random.exponential(DRAG_EVERY_US / 4);
        let (node, detail) = (random.below(u64::from(plan.nodes)) as u8, random.bits());
        let lasts = 3_000_000 + random.below(6_000_000);
        let strike = Strike { at, lasts, kind: Kind::Drag, node, detail };
        at += DRAG_EVERY_US;
        strike
    };
    (0..DRAGS_MAX).map(strike).collect()
}
