//! Every invariant: a history that breaks exactly it, and the same history unbroken.
//!
//! The histories are those of three real cores, so that the unbroken ones are what a cluster does;
//! what breaks them is a fact that the observer is told wrongly, or not told.

mod agreement;
mod clients;
mod durability;
mod producers;
mod ring;

use super::{Invariant, Violation};
use chainring_ring::ids::{Durability, NodeId};
use ring::Ring;

/// Plays `history` twice, unbroken and broken: the first must be clean, the second violate
/// `invariant`.
fn pair(invariant: Invariant, durability: Durability, history: impl Fn(&mut Ring, bool)) {
    let play = |broken| {
        let mut ring = Ring::new(durability);
        history(&mut ring, broken);
        ring.observer.violation().cloned()
    };
    assert_eq!(play(false), None, "the legal history");
    let found: Option<Violation> = play(true);
    let named = found.as_ref().map(|violation| violation.invariant);
    assert_eq!(named, Some(invariant), "the broken history: {found:?}");
}

/// The names here and in the documentation are the same.
#[test]
fn the_documentation_names_them_all() {
    let text = include_str!("../../../../docs/TESTING.md");
    let section = text.split("\n## ").find(|section| section.starts_with("Invariants\n"));
    let section = section.expect("docs/TESTING.md has a section \"Invariants\"");
    for invariant in Invariant::ALL {
        let row = format!("| {} |", invariant.name());
        assert!(section.contains(&row), "docs/TESTING.md does not name {}", invariant.name());
        assert!(!invariant.text().is_empty());
    }
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains(" | `"));
    assert_eq!(rows.count(), Invariant::ALL.len(), "docs/TESTING.md names what is not watched");
}

/// What is found first stands, and is told with name, time and node.
#[test]
fn the_first_violation_stands() {
    let mut ring = Ring::new(Durability::Sync);
    ring.observer.now(77);
    ring.observer.queue(NodeId(2), "outbox", 3, 2);
    ring.observer.queue(NodeId(1), "backlog", 9, 2);
    let violation = ring.observer.violation().expect("found").to_string();
    assert!(violation.starts_with("L3 at 77 us, node 2: outbox: 3 of 2"), "{violation}");
}
