//! The core under thousands of random schedules. `CHAINRING_SEEDS` sets how many per shape.

mod world;

use chainring_ring::ids::Durability;
use chainring_ring::window::{WINDOW_MAX, WINDOW_MIN};
use world::{Plan, World};

fn seeds(usual: u64) -> u64 {
    let text = std::env::var("CHAINRING_SEEDS").ok();
    text.map_or(usual, |text| text.parse().expect("CHAINRING_SEEDS is a number"))
}

fn first_seed() -> u64 {
    let text = std::env::var("CHAINRING_FIRST_SEED").ok();
    text.map_or(0, |text| text.parse().expect("CHAINRING_FIRST_SEED is a number"))
}

/// How many nodes there are, and how many of them the log begins with.
type Shape = (usize, usize);

fn run_all(shape: Shape, durability: Durability, damaged: usize, burst: u64, usual: u64) {
    let (nodes, founders) = shape;
    let (mut delivered, first) = (0, first_seed());
    let count = seeds(usual);
    for seed in first..first + count {
        let calm = [3, 10, 40][(seed % 3) as usize];
        // The least window turns over many times.
        let window = [WINDOW_MAX, 64, WINDOW_MIN][(seed / 3 % 3) as usize];
        let steps = if founders < nodes { 6000 } else { 1200 };
        let plan = Plan { seed, nodes, founders, durability, steps, calm, damaged, window, burst };
        let mut world = World::new(plan);
        let run = std::panic::AssertUnwindSafe(|| world.run());
        if let Err(fault) = std::panic::catch_unwind(run) {
            eprintln!("fault under {plan:?}");
            std::panic::resume_unwind(fault);
        }
        delivered += world.check.chosen.len();
    }
    println!(
        "{nodes} nodes {durability:?}: {count} seeds, {} entries a run",
        delivered as u64 / count
    );
}

macro_rules! shapes {
    ($(
        $name:ident: $nodes:expr, $durability:ident, $damaged:expr, $burst:expr, $usual:expr;
    )*) => {$(
        #[test]
        fn $name() {
            run_all(($nodes, $nodes), Durability::$durability, $damaged, $burst, $usual);
        }
    )*};
}

shapes! {
    one_node_sync: 1, Sync, 0, 1, 300;
    two_nodes_sync: 2, Sync, 0, 1, 300;
    three_nodes_sync: 3, Sync, 0, 1, 1000;
    three_nodes_sync_damaged: 3, Sync, 1, 1, 500;
    four_nodes_sync: 4, Sync, 0, 1, 200;
    five_nodes_sync: 5, Sync, 0, 1, 250;
    five_nodes_sync_damaged: 5, Sync, 2, 1, 200;
    seven_nodes_sync: 7, Sync, 0, 1, 100;
    one_node_sync_bursts: 1, Sync, 0, 64, 2;
    two_nodes_sync_bursts: 2, Sync, 0, 64, 2;
    three_nodes_sync_bursts: 3, Sync, 0, 64, 4;
    three_nodes_sync_damaged_bursts: 3, Sync, 1, 64, 2;
    five_nodes_sync_bursts: 5, Sync, 0, 64, 2;
    three_nodes_memory_bursts: 3, Memory, 0, 64, 3;
    one_node_memory: 1, Memory, 0, 1, 100;
    three_nodes_memory: 3, Memory, 0, 1, 300;
    five_nodes_memory: 5, Memory, 0, 1, 200;
}

macro_rules! changing {
    ($(
        $name:ident: $shape:expr, $durability:ident, $damaged:expr, $burst:expr, $usual:expr;
    )*) => {$(
        #[test]
        fn $name() {
            run_all($shape, Durability::$durability, $damaged, $burst, $usual);
        }
    )*};
}

changing! {
    one_becomes_more: (3, 1), Sync, 0, 1, 100;
    three_of_five_change: (5, 3), Sync, 0, 1, 200;
    three_of_five_change_damaged: (5, 3), Sync, 1, 1, 100;
    three_of_seven_change: (7, 3), Sync, 0, 1, 100;
    three_of_five_change_memory: (5, 3), Memory, 0, 1, 200;
    three_of_five_change_bursts: (5, 3), Sync, 0, 64, 2;
}
