//! The simulator: the production code in a world that can be replayed.
//!
//! A [world](world::World) is a cluster on a simulated clock, network and disk. Under the
//! production shard lies the production wire, under that a simulated [kernel]; under recovery and
//! the readers a simulated [disk]; under the peers' connections a simulated [network](peernet). A
//! [plan](plan::Plan), made from a seed, says how large everything is and what goes wrong; the
//! [observer] watches. Invariants: nothing in here is reached by a node in production; a seed has
//! one course, on every machine and in every build.

pub mod agenda;
pub mod clerk;
pub mod course;
pub mod disk;
pub mod faults;
pub mod journal;
pub mod kernel;
pub mod lan;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod node;
pub mod observer;
pub mod peernet;
pub mod plan;
pub mod random;
pub mod shrink;
pub mod swarm;
pub mod world;
