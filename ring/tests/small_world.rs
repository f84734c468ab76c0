//! Small worlds, exhaustively: three nodes, competing coordinators, a few instances, and every
//! order in which anything can happen. `CHAINRING_STATES` sets how many states are visited,
//! `CHAINRING_SCOPE` picks one scope.

mod small_world {
    pub mod check;
    pub mod disk;
    pub mod local;
    pub mod message;
    pub mod search;
    mod witness;

    use chainring_ring::configuration::Step;
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
        /// Changes that a coordinator proposes, each at most once in its life.
        pub changes: &'static [Step],
    }
}

use chainring_ring::configuration::Step;
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
    changes: &[],
};

/// Node 3 goes: from then on both of the others are needed.
const THREE_GOES: &[Step] = &[Step::Joint { voters: 0b011, fresh: 0 }, Step::Leave];

fn scopes() -> Vec<Scope> {
    let memory = Scope { durability: Memory, ..PLAIN };
    let crash = |name, node| Scope { name, crashes: 1, crashing: node, ..PLAIN };
    let idle = [0; 3];
    let two = [true, true, false];
    let change = Scope { votes: two, changes: THREE_GOES, ..memory.clone() };
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
        Scope { name: "a node is removed", values: idle, ..change.clone() },
        Scope { name: "a node is removed, and claims are heard", claims: ALL, ..change },
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

/// All scopes, or the one that is asked for.
fn picked() -> Vec<Scope> {
    let only = std::env::var("CHAINRING_SCOPE").ok();
    let mut scopes = scopes();
    scopes.retain(|scope| only.as_ref().is_none_or(|name| name == scope.name));
    assert!(!scopes.is_empty(), "no scope has this name");
    scopes
}

/// A planted fault is planted for the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn no_state_breaks_an_invariant() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let scopes = picked();
    let alone = scopes.len() == 1;
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

    const BALLOTS: &str = "two coordinators";
    const LEARNS: &str = "the second coordinator learns";
    const REMOVED: &str = "a node is removed";
    const DAMAGE: &str = "a log of one order is damaged";

    /// Planted faults, and the scope that is searched for each.
    const FOUND: [(Mutant, &str); 21] = [
        (Mutant::AcceptBelowPromise, BALLOTS),
        (Mutant::AcceptorSubstitutes, BALLOTS),
        (Mutant::HolesFilledBlindly, BALLOTS),
        (Mutant::PromiseCountedTwice, BALLOTS),
        (Mutant::RangeCutShort, BALLOTS),
        (Mutant::VoteCountedTwice, BALLOTS),
        (Mutant::VoteWithoutValue, BALLOTS),
        (Mutant::LowerReportWins, "three ballots"),
        (Mutant::DamageNotTold, DAMAGE),
        (Mutant::UnknownCounts, DAMAGE),
        (Mutant::VoteWithoutOrder, "the second coordinator's disk is slow"),
        (Mutant::ClaimAuthorisesAll, "claims"),
        (Mutant::CoordinatorDecidesAlone, LEARNS),
        (Mutant::DeliveredOnAccept, LEARNS),
        (Mutant::DeliverWithoutValue, LEARNS),
        (Mutant::OldOrdersVoted, LEARNS),
        (Mutant::QuorumAcrossBallots, LEARNS),
        (Mutant::VotesMergeAcrossBallots, LEARNS),
        (Mutant::AmnesiacAnswers, "amnesia"),
        (Mutant::AmnesiacVotesCount, "amnesia"),
        (Mutant::ChangeByOldQuorum, REMOVED),
    ];

    /// Found by an invariant, not by an assertion of the core.
    #[test]
    fn planted_faults_are_found() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let scopes = scopes();
        for (mutant, name) in FOUND {
            let scope = scopes.iter().find(|scope| scope.name == name).expect("a scope");
            plant(Some(mutant));
            let found = Search::new(scope).run(states(1_000_000));
            plant(None);
            let Some((broken, steps)) = found.violation else {
                panic!("{}: {}", mutant.name(), told(&found));
            };
            println!(
                "{}: {} in {} steps, {} states, {name}",
                mutant.name(),
                broken.0,
                steps.len(),
                found.states
            );
            assert_ne!(broken.0, "assertion", "{}: {}", mutant.name(), broken.1);
        }
    }
}
