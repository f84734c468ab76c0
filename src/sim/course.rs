//! What is left of a world that was made small: numbers of its plan that are lower than those that
//! its seed says, and the faults that may happen.
//!
//! Both are written in a line (`nodes=2,events=300`, `Crash:3,Lose:12`) and read again, so that a
//! short course can be replayed. Invariants: parts of a plan are only ever lowered, in the order of
//! [`PARTS`], so that a plan is a function of its seed and of the line; what is written reads back
//! as the same.

use crate::sim::faults::{Kind, Name};
use crate::sim::journal::Fault;
use crate::sim::plan::Plan;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A number in a plan that can be lowered.
pub struct Part {
    /// As it is written.
    pub name: &'static str,
    /// The next lower value to try.
    pub less: fn(u64) -> u64,
    least: u64,
    get: fn(&Plan) -> u64,
    set: fn(&mut Plan, u64),
}

impl Part {
    /// Lowers it to a value, but not below its least; a plan that has less stays as it is.
    pub fn lower(&self, plan: &mut Plan, value: u64) {
        let value = value.max(self.least);
        if value < (self.get)(plan) {
            (self.set)(plan, value);
        }
    }

    /// Makes it less in that way.
    pub fn lessen(&self, plan: &mut Plan, less: fn(u64) -> u64) {
        self.lower(plan, less((self.get)(plan)));
    }
}

macro_rules! part {
    ($name:literal, $least:literal, $less:expr, $($field:ident).+) => {
        Part {
            name: $name,
            less: $less,
            least: $least,
            get: |plan| u64::from(plan.$($field).+),
            // It is lower than a value of this type.
            set: |plan, value| plan.$($field).+ = value as _,
        }
    };
}

/// Everything that can be lowered. The first is the number of events until the faults end.
pub const PARTS: &[Part] = &[
    part!("events", 1, half, events),
    part!("safety_us", 0, half, safety_us),
    Part {
        name: "nodes",
        less: |nodes| nodes.saturating_sub(1),
        least: 2,
        get: |plan| u64::from(plan.nodes),
        set: |plan, nodes| (nodes..u64::from(plan.nodes)).for_each(|_| one_node_less(plan)),
    },
    part!("read_error", 0, nothing, storage.blocking.read_error),
    part!("read_spoilt", 0, nothing, storage.blocking.read_garbage),
    part!("store_error", 0, nothing, storage.blocking.write_error),
    part!("store_short", 0, nothing, storage.blocking.write_short),
    part!("store_full", 0, nothing, storage.blocking.write_full),
    part!("sync_error", 0, nothing, storage.blocking.sync_error),
    part!("name_error", 0, nothing, storage.blocking.name_error),
    part!("spells_us", 0, nothing, weather.spells.lasts_us),
    Part {
        name: "dropped",
        less: nothing,
        least: 0,
        get: |plan| u64::from(MILLION - plan.storage.keep),
        set: |plan, dropped| plan.storage.keep = MILLION - dropped as u32,
    },
    part!("torn", 0, nothing, storage.torn),
    Part {
        name: "drift",
        less: nothing,
        least: 0,
        get: |plan| {
            plan.drift.iter().map(|drift| u64::from(drift.unsigned_abs())).max().unwrap_or(0)
        },
        set: |plan, most| {
            let most = most as i32;
            plan.drift.iter_mut().for_each(|drift| *drift = (*drift).clamp(-most, most));
        },
    },
    part!("clients", 1, half, load.clients),
    part!("producers", 0, half, load.producers),
    part!("topics", 1, nothing, load.topics),
    part!("open", 1, half, load.open),
    part!("burst", 1, half, load.burst),
    part!("records", 1, half, load.records),
    part!("record_bytes", 1, half, load.record_bytes),
    part!("write_jitter_us", 0, nothing, storage.jitter_us),
    part!("jitter_us", 1, nothing, weather.jitter_us),
];

/// Rates are times in so many.
const MILLION: u32 = 1_000_000;

fn half(value: u64) -> u64 {
    value / 2
}

fn nothing(_: u64) -> u64 {
    0
}

/// One node less; strikes at it meet another.
fn one_node_less(plan: &mut Plan) {
    plan.nodes -= 1;
    let nodes = usize::from(plan.nodes);
    plan.victims.truncate(nodes);
    plan.drift.truncate(nodes);
    let most = (nodes - 1) / 2;
    plan.victims.iter_mut().filter(|victim| **victim).skip(most).for_each(|v| *v = false);
    plan.strikes.iter_mut().for_each(|strike| strike.node %= plan.nodes);
}

/// Values to which parts of a plan are lowered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(Vec<(&'static str, u64)>);

impl Settings {
    /// What makes the one plan of the other.
    pub fn between(mut from: Plan, to: &Plan) -> Settings {
        let mut settings = Vec::new();
        for part in PARTS {
            let value = (part.get)(to);
            if value != (part.get)(&from) {
                settings.push((part.name, value));
                part.lower(&mut from, value);
            }
        }
        Settings(settings)
    }

    /// Lowers what they name.
    pub fn apply(&self, plan: &mut Plan) {
        for part in PARTS {
            let meant = self.0.iter().filter(|(name, _)| *name == part.name);
            meant.for_each(|(_, value)| part.lower(plan, *value));
        }
    }

    /// Whether each is at least what a world needs, and no more than what the plan has.
    ///
    /// # Errors
    /// Which is not, in words.
    pub fn check(&self, mut plan: Plan) -> Result<(), String> {
        for part in PARTS {
            for (name, value) in self.0.iter().filter(|(name, _)| *name == part.name) {
                let has = (part.get)(&plan);
                let least = part.least.min(has);
                if !(least..=has).contains(value) {
                    return Err(format!(
                        "{name}={value}: a plan is only ever lowered, and here {name} is {has}, \
                         at least {least}"
                    ));
                }
                part.lower(&mut plan, *value);
            }
        }
        Ok(())
    }

    /// True if everything is as the seed says.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Settings {
    type Err = String;

    fn from_str(text: &str) -> Result<Settings, String> {
        let setting = |text: &str| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            let part = PARTS.iter().find(|part| part.name == name).ok_or_else(|| {
                let names: Vec<_> = PARTS.iter().map(|part| part.name).collect();
                format!("a plan has no {name:?}; it has {}", names.join(" "))
            })?;
            let value = value.parse().map_err(|_| format!("{text:?} is not {name}=NUMBER"))?;
            Ok((part.name, value))
        };
        text.split(',').map(setting).collect::<Result<_, String>>().map(Settings)
    }
}

/// Names of faults; [`NONE`] if there is no one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub BTreeSet<Name>);

impl Names {
    /// Those of them that no fault on the tape has.
    pub fn missing(&self, tape: &[Fault]) -> Names {
        let seen: BTreeSet<Name> = tape.iter().map(|fault| fault.name).collect();
        Names(self.0.difference(&seen).copied().collect())
    }
}

/// How an empty list of names is written.
const NONE: &str = "none";

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            self.0.iter().map(|(kind, number)| format!("{kind:?}:{number}")).collect();
        f.write_str(if names.is_empty() { NONE.to_owned() } else { names.join(",") }.as_str())
    }
}

impl FromStr for Names {
    type Err = String;

    fn from_str(text: &str) -> Result<Names, String> {
        if text == NONE {
            return Ok(Names::default());
        }
        let name = |text: &str| {
            let (kind, number) = text.split_once(':').unwrap_or((text, ""));
            let known = Kind::ALL.iter().find(|known| format!("{known:?}") == kind);
            let kind = *known.ok_or_else(|| {
                let kinds: Vec<_> = Kind::ALL.iter().map(|kind| format!("{kind:?}")).collect();
                format!("no fault is called {kind:?}; there are {}", kinds.join(" "))
            })?;
            let number = number.parse().map_err(|_| format!("{text:?} is not {kind:?}:NUMBER"))?;
            Ok((kind, number))
        };
        text.split(',').map(name).collect::<Result<_, String>>().map(Names)
    }
}

/// What is left of a seed's world; by default all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Lowered in its plan.
    pub settings: Settings,
    /// These faults happen, and no others.
    pub only: Option<Names>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_with_less_is_a_plan_comes_to_an_end_and_is_made_again_from_its_line() {
        for seed in 0..50 {
            let (first, mut plan) = (Plan::new(seed, 1000), Plan::new(seed, 1000));
            for (index, part) in PARTS.iter().enumerate() {
                for _ in 0..=(seed as usize * 7 + index) % 100 {
                    part.lessen(&mut plan, part.less);
                }
                let line = Settings::between(first.clone(), &plan).to_string();
                let mut again = first.clone();
                if !line.is_empty() {
                    let settings = line.parse::<Settings>().unwrap();
                    assert_eq!(settings.check(first.clone()), Ok(()), "{line}");
                    settings.apply(&mut again);
                }
                assert_eq!(again, plan, "{line}");
            }
            for part in PARTS {
                (0..100).for_each(|_| part.lessen(&mut plan, part.less));
                let before = plan.clone();
                part.lessen(&mut plan, part.less);
                assert_eq!(before, plan, "it comes to an end");
            }
            let nodes = usize::from(plan.nodes);
            assert_eq!((plan.victims.len(), plan.drift.len()), (nodes, nodes));
            let victims = plan.victims.iter().filter(|victim| **victim).count();
            assert!(plan.beyond || victims * 2 < nodes);
            assert!(plan.strikes.iter().all(|strike| strike.node < plan.nodes));
            assert!(plan.load.clients > 0 && plan.load.burst > 0 && plan.load.open > 0);
        }
    }

    #[test]
    fn lists_read_back_and_wrong_ones_are_refused() {
        let names = Names([(Kind::Crash, 3), (Kind::Lose, 12), (Kind::Lose, 2)].into());
        assert_eq!(names.to_string(), "Lose:2,Lose:12,Crash:3");
        for names in [names, Names::default()] {
            assert_eq!(names.to_string().parse(), Ok(names));
        }
        for wrong in ["", "Lose", "Lose:", "Lose:x", "lose:1", "Lose:1,", "none,Lose:1"] {
            assert!(wrong.parse::<Names>().is_err(), "{wrong:?}");
        }
        for wrong in ["", "nodes", "nodes=", "nodes=-1", "seed=3", "nodes=2,"] {
            assert!(wrong.parse::<Settings>().is_err(), "{wrong:?}");
        }
        // Nothing is raised, and nothing falls below what a world needs.
        let (mut plan, first) = (Plan::new(1, 1000), Plan::new(1, 1000));
        "events=5000,nodes=9,clients=65535".parse::<Settings>().unwrap().apply(&mut plan);
        assert_eq!(plan, first);
        "clients=0,nodes=0".parse::<Settings>().unwrap().apply(&mut plan);
        assert!(plan.load.clients == 1 && (1..=2).contains(&plan.nodes));
        let check = |line: &str| line.parse::<Settings>().unwrap().check(first.clone());
        for wrong in
            ["events=1001", "nodes=99", "nodes=0", "events=0", "clients=0", "events=1,nodes=8"]
        {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        assert_eq!(check(&format!("events=1000,nodes={},clients=1", first.nodes)), Ok(()));
    }
}
