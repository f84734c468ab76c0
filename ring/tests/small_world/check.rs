//! What must be true of every state of the world: a function of what the nodes ever said and did.

use super::local::{At, Local, Violation};
use chainring_ring::configuration::Configuration;
use chainring_ring::ids::{Ballot, Entry, Incarnation, Instance, NodeId};

/// Checks one state.
pub fn check(nodes: [&Local; 3]) -> Result<(), Violation> {
    let chosen = chosen(nodes);
    one_value_is_chosen(&chosen)?;
    later_ballots_propose_it(nodes, &chosen)?;
    claims_are_true(nodes, &chosen)?;
    logs_are_equal(nodes, &chosen)
}

/// What a quorum voted for at one ballot: of the configuration that governs the instance, and of a
/// change also of the one that it leads to.
fn chosen(nodes: [&Local; 3]) -> Vec<At> {
    let mut voted: Vec<At> = nodes.iter().flat_map(|node| node.accepted.iter().copied()).collect();
    voted.sort_unstable();
    voted.dedup();
    let mut governing = Configuration::first((1..=3).map(|id| (NodeId(id), Incarnation(1))));
    let (mut chosen, mut next) = (Vec::new(), governing);
    for (index, at) in voted.iter().enumerate() {
        // Changes govern what lies behind them.
        if index > 0 && voted[index - 1].0 != at.0 {
            governing = next;
        }
        let votes = |node: NodeId, _| nodes[usize::from(node.0) - 1].accepted.contains(at);
        let after = match at.2 {
            Entry::Membership(change) => governing.after(&change).ok(),
            _ => None,
        };
        if governing.is_quorum(votes) && after.is_none_or(|after| after.is_quorum(votes)) {
            chosen.push(*at);
            next = after.unwrap_or(next);
        }
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
