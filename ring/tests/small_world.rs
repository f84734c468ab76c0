//! Small worlds, exhaustively: three nodes, competing coordinators, a few instances, and every order
//! in which anything can happen. `CHAINRING_STATES` sets how many states are visited, `CHAINRING_SCOPE`
//! picks one scope.

mod small_world {
    pub mod check;
    pub mod disk;
    pub mod local;
    pub mod message;
    pub mod search;
    mod witness;

    use chainring_ring::ids::Durability;

    /// What a search covers.
    #[derive(Clone, Debug)]
    pub struct Scope {
        pub name: &'static str,
        pub durability: Durability,
        /// By node: how often it campaigns.
        pub campaigns: [u8; 3],
        /// By node: how many values it proposes.
        pub values: [u8; 3],
        /// Crashes in all, and by node whether it may.
        pub crashes: u8,
        pub crashing: [bool; 3],
        /// A crash may damage the log.
        pub damage: bool,
        /// Writes become durable item by item.
        pub fine: bool,
        /// Claims are written when there is nothing else to write.
        pub seals: bool,
        /// By node: its disk takes time; otherwise what it writes is durable at once.
        pub slow: [bool; 3],
        /// By node: it hears of votes, of claims, of decided entries. Who hears of none only votes:
        /// the observer sees what is chosen all the same.
        pub votes: [bool; 3],
        pub claims: [bool; 3],
        /// Votes say what is delivered and which session is open.
        pub sessions: bool,
        pub catch_up: [bool; 3],
    }
}

use chainring_ring::ids::Durability::{Memory, Sync};
use small_world::Scope;
use small_world::search::{Found, Search};
use std::sync::{Mutex, PoisonError};

const NONE: [bool; 3] = [false; 3];
const ALL: [bool; 3] = [true; 3];
const ONE: [bool; 3] = [true, false, false];
const TWO: [bool; 3] = [false, true, false];
const THREE: [bool; 3] = [false, false, true];

const PLAIN: Scope = Scope {
    name: "two coordinators",
    durability: Sync,
    campaigns: [1, 1, 0],
    values: [1, 0, 0],
    crashes: 0,
    crashing: NONE,
    damage: false,
    fine: false,
    seals: false,
    slow: NONE,
    votes: NONE,
    claims: NONE,
    sessions: false,
    catch_up: NONE,
};

fn scopes() -> Vec<Scope> {
    let memory = Scope { durability: Memory, ..PLAIN };
    let crash = |name, node| Scope { name, crashes: 1, crashing: node, ..PLAIN };
    let idle = [0; 3];
    let damage = |name, campaigns| Scope { campaigns, damage: true, ..crash(name, TWO) };
    vec![
        Scope { name: "two coordinators", ..memory.clone() },
        Scope { name: "three ballots", campaigns: [2, 1, 0], values: idle, ..memory.clone() },
        Scope { values: idle, ..damage("a log of one order is damaged", [1, 0, 1]) },
        crash("a follower crashes", THREE),
        crash("the first coordinator crashes", ONE),
        crash("the second coordinator crashes", TWO),
        Scope { name: "the second coordinator's disk is slow", slow: TWO, ..PLAIN },
        Scope { name: "the second coordinator learns", votes: TWO, ..memory.clone() },
        Scope { name: "a follower's disk is slow", slow: THREE, ..PLAIN },
        Scope { name: "two origins", values: [1, 1, 0], ..memory.clone() },
        damage("a log is damaged", [2, 0, 1]),
        Scope { name: "claims", votes: TWO, claims: ALL, catch_up: ALL, ..memory.clone() },
        Scope { name: "a learner", votes: THREE, ..memory.clone() },
        Scope { slow: ONE, ..crash("a coordinator with a slow disk crashes", ONE) },
        Scope { slow: THREE, ..crash("a follower with a slow disk crashes", THREE) },
        Scope { slow: THREE, fine: true, seals: true, votes: THREE, ..crash("items", THREE) },
        Scope { sessions: true, votes: ALL, ..crash("sessions", ONE) },
        Scope { durability: Memory, sessions: true, votes: ALL, ..crash("amnesia", THREE) },
    ]
}

/// How many states are visited in all. A scope gets a third of what those before it left, and at
/// least a fiftieth of all.
fn states(usual: usize) -> usize {
    let text = std::env::var("CHAINRING_STATES").ok();
    text.map_or(usual, |text| text.parse().expect("CHAINRING_STATES is a number"))
}

fn told(found: &Found) -> String {
    let rate = found.transitions as f64 / found.took.as_secs_f64();
    let all = if found.complete { ", all of them" } else { "" };
    format!(
        "{} states{all}, depth {}, {} transitions, {rate:.0} a second; {} local states, {} messages",
        found.states, found.depth, found.transitions, found.locals, found.messages
    )
}

/// A planted fault is planted for the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn no_state_breaks_an_invariant() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let only = std::env::var("CHAINRING_SCOPE").ok();
    let alone = only.is_some();
    let mut scopes = scopes();
    scopes.retain(|scope| only.as_ref().is_none_or(|name| name == scope.name));
    let (most, mut visited, mut complete) = (states(200_000), 0, 0);
    for scope in &scopes {
        let share = ((most - visited.min(most)) / 3).max(most / 50);
        let found = Search::new(scope).run(if alone { most } else { share });
        println!("{}: {}", scope.name, told(&found));
        (visited, complete) = (visited + found.states, complete + usize::from(found.complete));
        if let Some((broken, steps)) = found.violation {
            panic!("{scope:?}\n{}\n{}: {}", steps.join("\n"), broken.0, broken.1);
        }
    }
    let memory = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("");
    println!("{visited} states, {complete} of {} scopes complete; {peak}", scopes.len());
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::*;
    use chainring_ring::mutants::{Mutant, plant};

    /// Each planted fault of the core, and what finds it first in which scope.
    #[test]
    fn planted_faults_are_found() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let only = std::env::var("CHAINRING_MUTANT").ok();
        let chosen = |m: &&Mutant| only.as_ref().is_none_or(|name| name == m.name());
        let mut missed = Vec::new();
        for mutant in Mutant::ALL.iter().filter(chosen) {
            plant(Some(*mutant));
            match first_violation() {
                Some(told) => println!("{}: {told}", mutant.name()),
                None => missed.push(mutant.name()),
            }
            plant(None);
        }
        println!("missed: {missed:?}");
    }

    fn first_violation() -> Option<String> {
        let (most, mut visited) = (states(250_000), 0);
        for scope in scopes() {
            let found = Search::new(&scope).run(most);
            visited += found.states;
            if let Some((broken, steps)) = found.violation {
                let (name, steps) = (broken.0, steps.len());
                return Some(format!("{name} in {steps} steps, {visited} states, {}", scope.name));
            }
        }
        None
    }
}
