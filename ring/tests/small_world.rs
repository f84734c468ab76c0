//! Small worlds, exhaustively: three nodes, competing coordinators, a few instances, and every order
//! in which anything can happen. `CHAINRING_STATES` sets how many states are visited.

mod small_world {
    pub mod check;
    pub mod disk;
    pub mod local;
    pub mod message;
    pub mod search;

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
use small_world::search::Search;

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
    let memory = Scope { name: "memory", durability: Memory, ..PLAIN };
    let two = Scope { values: [1, 1, 0], ..memory.clone() };
    let crash = |name, node| Scope { name, crashes: 1, crashing: node, slow: node, ..PLAIN };
    let pick: Vec<Scope> = vec![
        memory.clone(),
        Scope { name: "values", ..two.clone() },
        Scope { name: "votes 3", votes: THREE, ..memory.clone() },
        Scope { name: "votes 2", votes: TWO, ..memory.clone() },
        Scope { name: "votes 1", votes: ONE, ..memory.clone() },
        Scope { name: "votes 1 slow", votes: ONE, slow: ALL, ..memory.clone() },
        Scope { name: "votes 2 claims", votes: TWO, claims: ALL, ..memory.clone() },
        Scope { name: "votes 2 catch", votes: TWO, catch_up: ALL, ..memory.clone() },
        Scope { name: "slow 3", slow: THREE, ..PLAIN },
        Scope { name: "slow 2", slow: TWO, ..PLAIN },
        crash("crash 3", THREE),
        crash("crash 2", TWO),
        crash("crash 1", ONE),
        Scope { name: "crash 3 -", slow: NONE, ..crash("", THREE) },
        Scope { name: "crash 2 -", slow: NONE, ..crash("", TWO) },
        Scope { name: "crash 1 -", slow: NONE, ..crash("", ONE) },
        Scope {
            name: "damage",
            slow: NONE,
            values: [1, 0, 0],
            campaigns: [2, 0, 1],
            damage: true,
            ..crash("", TWO)
        },
        Scope {
            name: "forget",
            durability: Memory,
            votes: ALL,
            sessions: true,
            ..crash("", THREE)
        },
    ];
    let only = std::env::var("ONLY").ok();
    pick.into_iter().filter(|s| only.as_ref().is_none_or(|o| o == s.name)).collect()
}

#[test]
fn no_state_breaks_an_invariant() {
    let text = std::env::var("CHAINRING_STATES").ok();
    let most = text.map_or(200_000, |text| text.parse().expect("CHAINRING_STATES is a number"));
    for scope in scopes() {
        let found = Search::new(&scope).run(most);
        let rate = found.transitions as f64 / found.took.as_secs_f64();
        println!(
            "{}: {} states{}, depth {}, {} transitions, {rate:.0}/s, {} local states, {} messages",
            scope.name,
            found.states,
            if found.complete { " (all)" } else { "" },
            found.depth,
            found.transitions,
            found.locals,
            found.messages,
        );
        if let Some((broken, steps)) = found.violation {
            panic!("{scope:?}\n{}\n{}: {}", steps.join("\n"), broken.0, broken.1);
        }
    }
}
