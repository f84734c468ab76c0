//! What follows from which change, and who is a quorum.

use super::*;

fn voters(ids: &[u8]) -> Configuration {
    Configuration::first(ids.iter().map(|id| (NodeId(*id), Incarnation(1))))
}

/// Makes the step, which is possible.
fn step(configuration: &mut Configuration, step: Step) {
    assert!(configuration.apply(&configuration.change(step)), "{step:?} of {configuration:?}");
}

fn admit(node: u8, incarnation: u32, instead: Option<u8>) -> Step {
    let (node, instead) = (NodeId(node), instead.map(NodeId));
    Step::Admit { node, incarnation: Incarnation(incarnation), instead }
}

fn is_quorum(configuration: &Configuration, lives: &[(u8, u32)]) -> bool {
    configuration.is_quorum(|node, life| lives.contains(&(node.0, life.0)))
}

#[test]
fn a_quorum_is_a_majority_of_each_set() {
    let mut now = voters(&[1, 2, 3]);
    assert!(is_quorum(&now, &[(1, 1), (3, 1)]) && !is_quorum(&now, &[(2, 1)]));
    assert!(!is_quorum(&now, &[(1, 1), (2, 2)]), "another life");
    step(&mut now, admit(4, 1, None));
    step(&mut now, admit(5, 1, None));
    assert!(is_quorum(&now, &[(1, 1), (3, 1)]), "learners change no quorum");
    assert!(!is_quorum(&now, &[(1, 1), (4, 1), (5, 1)]));
    step(&mut now, Step::Joint { voters: 0b11011, fresh: 0b11000 });
    assert!(!is_quorum(&now, &[(1, 1), (3, 1)]), "not of the new ones");
    assert!(!is_quorum(&now, &[(1, 1), (4, 1), (5, 1)]), "not of the old ones");
    assert!(is_quorum(&now, &[(1, 1), (2, 1), (4, 1)]));
    step(&mut now, Step::Leave);
    assert!(is_quorum(&now, &[(1, 1), (4, 1), (5, 1)]) && !is_quorum(&now, &[(1, 1), (2, 1)]));
    assert_eq!(now.nodes().collect::<Vec<_>>(), [1, 2, 4, 5].map(NodeId));
}

#[test]
fn the_position_is_the_lower_of_both_sets() {
    let mut now = voters(&[1, 2, 3]);
    step(&mut now, admit(4, 1, Some(1)));
    step(&mut now, Step::Joint { voters: 0b1110, fresh: 0b1000 });
    let reached = |positions: [u64; 4]| now.reached(0, |n, _| Some(positions[n.0 as usize - 1]));
    assert_eq!(reached([9, 7, 5, 3]), Some(5));
    assert_eq!(reached([9, 8, 0, 0]), Some(0));
    assert_eq!(reached([1, 2, 3, 4]), Some(2));
}

#[test]
fn a_life_is_admitted_once() {
    let mut now = voters(&[1, 2, 3]);
    let refused = |now: &Configuration, step| now.after(&now.change(step)).unwrap_err();
    let least = |life| Refusal::Incarnation { least: Incarnation(life) };
    assert_eq!(refused(&now, admit(2, 2, None)), Refusal::AlreadyMember);
    assert_eq!(refused(&now, admit(2, 1, Some(2))), least(2));
    step(&mut now, admit(2, 6, Some(2)));
    assert!(now.lists(NodeId(2), Incarnation(6)) && !now.votes(NodeId(2), Incarnation(6)));
    step(&mut now, Step::Joint { voters: 0b111, fresh: 0b010 });
    step(&mut now, Step::Leave);
    assert_eq!((now.voter(NodeId(2)), now.learner(NodeId(2))), (Some(Incarnation(6)), None));
    step(&mut now, Step::Joint { voters: 0b101, fresh: 0 });
    step(&mut now, Step::Leave);
    assert_eq!(refused(&now, admit(2, 6, None)), least(7), "also after its removal");
    assert_eq!(refused(&now, admit(8, 1, None)), Refusal::Unknown);
    assert_eq!(refused(&now, admit(4, 1, Some(2))), Refusal::Unknown, "whose place?");
}

#[test]
fn what_does_not_follow_is_nothing() {
    let mut now = voters(&[1, 2, 3]);
    let early = Change { version: 2, step: Step::Joint { voters: 0b011, fresh: 0 } };
    assert!(!now.apply(&early));
    let refused = |now: &Configuration, step| now.after(&now.change(step)).unwrap_err();
    assert_eq!(refused(&now, Step::Leave), Refusal::Same);
    assert_eq!(refused(&now, Step::Joint { voters: 0b111, fresh: 0 }), Refusal::Same);
    assert_eq!(refused(&now, Step::Joint { voters: 0, fresh: 0 }), Refusal::LastVoter);
    for (voters, fresh) in [(0b1111, 0b1000), (0b1000_0001, 0), (0b011, 0b100)] {
        assert_eq!(refused(&now, Step::Joint { voters, fresh }), Refusal::Unknown);
    }
    assert_eq!(refused(&now, Step::Dismiss { node: NodeId(2) }), Refusal::Unknown);
    step(&mut now, Step::Joint { voters: 0b011, fresh: 0 });
    assert_eq!(refused(&now, admit(4, 1, None)), Refusal::UnderWay);
    assert_eq!(refused(&now, Step::Joint { voters: 0b001, fresh: 0 }), Refusal::UnderWay);
    let again = Change { version: 1, step: Step::Leave };
    assert!(!now.apply(&again));
}

#[test]
fn a_learner_may_be_dismissed_and_a_place_that_is_gone_is_nobodys() {
    let mut now = voters(&[1, 2, 3]);
    step(&mut now, admit(4, 1, Some(3)));
    step(&mut now, Step::Joint { voters: 0b011, fresh: 0 });
    step(&mut now, Step::Leave);
    assert_eq!(now.learner(NodeId(4)), Some((Incarnation(1), None)));
    step(&mut now, Step::Dismiss { node: NodeId(4) });
    assert_eq!(now.nodes().collect::<Vec<_>>(), [1, 2].map(NodeId));
}

#[test]
fn bytes_make_the_round_trip_and_others_are_refused() {
    let mut now = voters(&[1, 2, 3]);
    let mut bytes = [0xff; CONFIGURATION_BYTES];
    assert_eq!(Configuration::decode(&bytes), Err(FrameError::Body));
    for next in [admit(7, 3, Some(2)), Step::Joint { voters: 0b100_0101, fresh: 0b100_0000 }] {
        step(&mut now, next);
        now.encode(&mut bytes);
        assert_eq!(Configuration::decode(&bytes), Ok(now));
    }
    assert_eq!(Configuration::decode(&[0; CONFIGURATION_BYTES]), Err(FrameError::Body));
    assert_eq!(Configuration::decode(&bytes[1..]), Err(FrameError::Body));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes;
            other[at] ^= 1 << bit;
            // Another one, or none; never the same.
            assert_ne!(Configuration::decode(&other), Ok(now), "byte {at}");
        }
    }
}
