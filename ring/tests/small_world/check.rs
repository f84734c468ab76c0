//! What must be true of every state of the world: a function of what the nodes ever said and did.

use super::local::{Local, Violation};
use chainring_ring::ids::{Ballot, Entry, Instance};

/// Checks one state.
pub fn check(nodes: [&Local; 3]) -> Result<(), Violation> {
    let chosen = chosen(nodes);
    one_value_is_chosen(&chosen)?;
    later_ballots_propose_it(nodes, &chosen)?;
    claims_are_true(nodes, &chosen)?;
    logs_are_equal(nodes, &chosen)
}

/// What two of the three voted for at one ballot.
fn chosen(nodes: [&Local; 3]) -> Vec<(Instance, Ballot, Entry)> {
    let mut chosen = Vec::new();
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let other = &nodes[other].accepted;
        chosen.extend(nodes[one].accepted.iter().filter(|at| other.binary_search(at).is_ok()));
    }
    chosen
}

fn one_value_is_chosen(chosen: &[(Instance, Ballot, Entry)]) -> Result<(), Violation> {
    for (index, at) in chosen.iter().enumerate() {
        if let Some(other) = chosen[..index].iter().find(|one| one.0 == at.0 && one.2 != at.2) {
            return Err(Violation("A4", format!("chosen: {other:?} and {at:?}")));
        }
    }
    Ok(())
}

/// A3: what was voted for is what was proposed there. A5: once chosen, nothing else is proposed.
fn later_ballots_propose_it(
    nodes: [&Local; 3],
    chosen: &[(Instance, Ballot, Entry)],
) -> Result<(), Violation> {
    for proposed in nodes.iter().flat_map(|node| &node.proposed) {
        let there = |at: &&(Instance, Ballot, Entry)| at.0 == proposed.0 && at.2 != proposed.2;
        let votes = nodes.iter().flat_map(|node| &node.accepted);
        if let Some(vote) = votes.filter(there).find(|at| at.1 == proposed.1) {
            return Err(Violation("A3", format!("proposed {proposed:?}, accepted {vote:?}")));
        }
        if let Some(at) = chosen.iter().filter(there).find(|at| at.1 < proposed.1) {
            return Err(Violation("A5", format!("chosen {at:?}, then proposed {proposed:?}")));
        }
    }
    Ok(())
}

/// What anybody calls decided has a quorum at one ballot.
fn claims_are_true(
    nodes: [&Local; 3],
    chosen: &[(Instance, Ballot, Entry)],
) -> Result<(), Violation> {
    for node in nodes {
        let Some(core) = &node.core else { continue };
        for instance in (0..core.claim().position.0).map(Instance) {
            if !chosen.iter().any(|at| at.0 == instance) {
                let told = format!("node {:?} claims {:?}", node.id, core.claim());
                return Err(Violation("A6", told));
            }
        }
    }
    Ok(())
}

fn logs_are_equal(
    nodes: [&Local; 3],
    chosen: &[(Instance, Ballot, Entry)],
) -> Result<(), Violation> {
    let longest = nodes.iter().map(|node| &node.log).max_by_key(|log| log.len()).expect("three");
    for node in nodes {
        if node.log[..] != longest[..node.log.len()] {
            return Err(Violation("B2", format!("{:?} and {longest:?}", node.log)));
        }
    }
    for (index, (entry, _)) in longest.iter().enumerate() {
        let here = |at: &&(Instance, Ballot, Entry)| at.0 == Instance(index as u64);
        if chosen.iter().filter(here).all(|at| at.2 != *entry) {
            return Err(Violation("A4", format!("delivered at {index}, not chosen: {entry:?}")));
        }
    }
    Ok(())
}
