//! Failover, case by case: who is asked for, who is waited for, which links a circle uses.

use chainring_ring::actions::{Action, Actions, Input, PromiseFrom};
use chainring_ring::codec::{ORDER_BYTES, put_order};
use chainring_ring::coordinator::Role;
use chainring_ring::core::{Core, Recovered, Settings};
use chainring_ring::ids::{
    Ballot, Claim, Durability, Entry, Incarnation, Instance, NodeId, Order, Sequence, Session,
    ValueId,
};
use chainring_ring::layout::Layout;
use chainring_ring::votes::Vote;
use chainring_ring::window::WINDOW_MAX;

const NODES: u8 = 3;

/// One node of three, and what it wants done.
struct Node {
    core: Core,
    out: Actions,
    /// Its disk writes nothing any more.
    stands: bool,
}

fn ballot(round: u32, node: u8) -> Ballot {
    Ballot { round, node: NodeId(node), incarnation: Incarnation(1) }
}

impl Node {
    fn new(me: u8) -> Node {
        let settings = Settings {
            nodes: (1..=NODES).map(NodeId).collect(),
            voters: vec![Incarnation(1); usize::from(NODES)],
            me: NodeId(me),
            incarnation: Incarnation(1),
            session: Session::FIRST,
            durability: Durability::Sync,
            window: WINDOW_MAX,
            seed: 7,
            patience: 5,
        };
        Node { core: Core::new(settings, Recovered::default()), out: Actions::new(), stands: false }
    }

    /// What a step brings; what it writes is durable at once.
    fn step(&mut self, input: Input<'_>) -> Vec<Action> {
        self.core.step(input, &mut self.out);
        let mut all = Vec::new();
        loop {
            let actions = self.out.as_slice().to_vec();
            self.out.clear();
            let promised = actions.iter().find_map(|action| match action {
                Action::WritePromise(ballot) => Some(*ballot),
                _ => None,
            });
            all.extend(actions);
            if let Some(ballot) = promised {
                self.core.step(Input::Promised(ballot), &mut self.out);
            } else if !self.stands {
                let appended = self.core.appended();
                self.core.step(Input::Persisted(appended), &mut self.out);
            }
            if self.out.as_slice().is_empty() {
                return all;
            }
        }
    }

    fn ticks(&mut self, ticks: u32) -> Vec<Action> {
        (0..ticks).flat_map(|_| self.step(Input::Tick)).collect()
    }

    /// Ticks until this node asks for the coordinator.
    fn ticks_to_ask(&mut self) -> u32 {
        (1..200).find(|_| asks(&self.step(Input::Tick))).expect("it asks at last")
    }

    fn answer(&mut self, from: u8, orders: &[Order]) -> Vec<Action> {
        let mut bytes = vec![0; orders.len() * ORDER_BYTES];
        for (order, bytes) in orders.iter().zip(bytes.chunks_mut(ORDER_BYTES)) {
            put_order(order, bytes);
        }
        let promise = PromiseFrom {
            from: NodeId(from),
            incarnation: Incarnation(1),
            ballot: self.core.promised(),
            before: Ballot::ZERO,
            damaged: false,
            first: Instance(0),
            delivered: Instance(0),
            orders: &bytes,
        };
        self.step(Input::Promise(promise))
    }

    /// The vote of another node at the ballot in force, that has all there is.
    fn vote_of(&mut self, node: u8) -> Vote {
        let own = *self.core.votes().of(self.core.settings().me).expect("the own vote");
        Vote { node: NodeId(node), ..own }
    }

    /// Opens a ballot that all answer; then both others vote for all there is.
    fn lead(&mut self) {
        self.step(Input::Campaign);
        self.answer(2, &[]);
        self.answer(3, &[]);
        for node in [2, 3, 2, 3] {
            let vote = self.vote_of(node);
            self.step(Input::Vote(vote));
        }
        assert_eq!(self.circle(), [1, 2, 3]);
        assert!(self.core.delivered() > Instance(0), "the barrier is delivered");
    }

    /// A value of this node's, which these nodes vote for and deliver.
    fn propose(&mut self, voters: &[u8]) {
        let before = self.core.received();
        let id = self.core.next_own_id().expect("an open session");
        self.step(Input::Value(id));
        assert!(self.core.received() > before);
        let all = self.core.received();
        for node in voters {
            let vote = Vote { received: all, durable: all, delivered: all, ..self.vote_of(*node) };
            self.step(Input::Vote(vote));
        }
    }

    fn circle(&self) -> Vec<u8> {
        assert!(matches!(self.core.role(), Role::Coordinator(_)));
        self.core.layout().nodes().iter().map(|node| node.0).collect()
    }

    /// Node 3 misses node 2; `answering` answer the ballot that follows.
    fn misses_two(&mut self, answering: &[u8]) {
        self.quiet(25);
        let (from, ballot, node) = (NodeId(3), self.core.promised(), NodeId(2));
        self.step(Input::Missed { from, ballot, node });
        assert!(matches!(self.core.role(), Role::Candidate(_)));
        for node in answering {
            self.answer(*node, &[]);
        }
        self.ticks(6);
    }

    /// Time passes in which the predecessor is heard.
    fn quiet(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.ticks(1);
            let (ballot, beat) = self.core.newest_beat();
            self.step(Input::Beat { ballot, beat });
        }
    }
}

fn asks(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Ask { .. }))
}

/// Node `me` at the ballot of node 1.
fn follower(me: u8) -> Node {
    let mut node = Node::new(me);
    let layout = Layout::new([1, 2, 3].map(NodeId));
    let claim = Claim { ballot: Ballot::ZERO, position: Instance(0) };
    let barrier = Instance(0);
    node.step(Input::Open { ballot: ballot(3, 1), layout, claim, barrier });
    node
}

/// Who cannot take in what the others say learns nothing from their silence.
#[test]
fn a_deaf_node_misses_nobody() {
    for deaf in [true, false] {
        let mut node = follower(3);
        let mut missing = Vec::new();
        for _ in 0..100 {
            if deaf {
                missing.extend(node.step(Input::Deaf));
            }
            missing.extend(node.step(Input::Tick));
        }
        let missed = |action: &Action| matches!(action, Action::Missed { .. });
        assert_eq!((asks(&missing), missing.iter().any(missed)), (!deaf, !deaf));
    }
}

/// A candidate that fetches what was reported to it is not overruled meanwhile.
#[test]
fn a_candidate_at_work_answers_who_asks_for_it() {
    let mut node = Node::new(1);
    node.step(Input::Campaign);
    let ask = Input::Ask { from: NodeId(3), ballot: node.core.promised() };
    let heard = [Action::Prepare { to: NodeId(3) }];
    assert_eq!(node.step(ask), heard);
    // Who asks is there, and may only be waiting for its log: another ballot would not help.
    (0..5).for_each(|_| {
        node.ticks(40);
        assert_eq!(node.step(ask), heard);
    });
    assert!(matches!(node.core.role(), Role::Candidate(_)));
    let id = ValueId { origin: NodeId(2), session: Session::FIRST, sequence: Sequence(0) };
    let (instance, entry, base) = (Instance(0), Entry::Value(id), Instance(0));
    node.answer(2, &[Order { instance, ballot: ballot(1, 2), base, entry, decided: false }]);
    node.ticks(10);
    assert!(matches!(node.core.role(), Role::Candidate(_)), "it fetches");
    assert_eq!(node.step(ask), heard);
}

#[test]
fn a_candidate_that_answers_is_waited_for_and_one_that_only_repeats_itself_is_not() {
    let prepare = Input::Prepare { ballot: ballot(4, 1) };
    let mut node = follower(2);
    node.step(prepare);
    let silent = node.ticks_to_ask();
    // It answers the question.
    node.step(prepare);
    assert!(node.ticks_to_ask() >= 15);

    let mut node = follower(2);
    node.step(prepare);
    let mut ticks = 1;
    while !asks(&node.step(Input::Tick)) {
        // Nobody asked for that.
        node.step(prepare);
        ticks += 1;
    }
    assert_eq!(ticks, silent);
}

/// Both ends answer, so the link itself carries nothing: no sign of life brings it back early.
#[test]
fn a_link_between_nodes_that_are_well_is_not_used_before_its_time() {
    let mut node = Node::new(1);
    node.lead();
    node.misses_two(&[2, 3]);
    assert_eq!(node.circle(), [1, 3, 2]);
    for from in [2, 3] {
        let vote = node.vote_of(from);
        node.step(Input::Present { vote, hears: 0b111, asks: true, damaged: false });
    }
    node.quiet(25);
    node.step(Input::Campaign);
    node.answer(2, &[]);
    node.answer(3, &[]);
    assert_eq!(node.circle(), [1, 3, 2], "the order that carried is kept");
    // The other order is due, and its link is still not used.
    let (from, ballot, missed) = (NodeId(2), node.core.promised(), NodeId(3));
    node.quiet(25);
    node.step(Input::Missed { from, ballot, node: missed });
    node.answer(2, &[]);
    node.answer(3, &[]);
    assert_eq!(node.circle().len(), 2, "no circle of three is left");
}

/// Who does not answer is to blame, not its link: that is used when the node is back.
#[test]
fn a_link_of_a_node_that_was_gone_is_used_again() {
    let mut node = Node::new(1);
    node.lead();
    node.misses_two(&[3]);
    assert_eq!(node.circle(), [1, 3]);
    for _ in 0..2 {
        let vote = node.vote_of(3);
        node.step(Input::Vote(vote));
    }
    node.quiet(25);
    let vote = Vote { node: NodeId(2), ..node.vote_of(3) };
    // It hears nobody: it would not answer.
    for _ in 0..20 {
        node.step(Input::Present { vote, hears: 0b100, asks: true, damaged: false });
        node.quiet(5);
        assert!(matches!(node.core.role(), Role::Coordinator(_)));
    }
    node.step(Input::Present { vote, hears: 0b101, asks: true, damaged: false });
    node.quiet(1);
    assert!(matches!(node.core.role(), Role::Candidate(_)));
    node.answer(2, &[]);
    node.answer(3, &[]);
    assert_eq!(node.circle(), [1, 3, 2]);
    // Now the link from 3 to 2 fails, and the one from 2 to 3 takes its place.
    let (from, ballot, missed) = (NodeId(2), node.core.promised(), NodeId(3));
    node.quiet(25);
    node.step(Input::Missed { from, ballot, node: missed });
    node.answer(2, &[]);
    node.answer(3, &[]);
    assert_eq!(node.circle(), [1, 2, 3]);
}

/// A node that stands while the others deliver is left out; it comes back once it has kept up for
/// a time.
#[test]
fn who_holds_the_others_up_is_left_out() {
    let mut node = Node::new(1);
    node.lead();
    let behind = node.vote_of(3);
    node.propose(&[2]);
    assert!(node.core.delivered() > behind.delivered);
    node.quiet(40);
    assert!(matches!(node.core.role(), Role::Coordinator(_)), "it may be a moment's");
    node.quiet(30);
    assert!(matches!(node.core.role(), Role::Candidate(_)));
    node.answer(2, &[]);
    // It is not waited for, and not taken though it answers.
    assert_eq!(node.circle(), [1, 2]);
    let level = node.vote_of(2);
    node.step(Input::Vote(level));
    let level = Vote { node: NodeId(3), ..level };
    for _ in 0..18 {
        node.step(Input::Present { vote: level, hears: 0b111, asks: true, damaged: false });
        node.quiet(5);
        assert_eq!(node.circle(), [1, 2], "it has not kept up for long");
    }
    let returns = (0..50).any(|_| {
        node.step(Input::Present { vote: level, hears: 0b111, asks: true, damaged: false });
        node.quiet(1);
        matches!(node.core.role(), Role::Candidate(_))
    });
    assert!(returns);
    node.answer(2, &[]);
    node.answer(3, &[]);
    assert_eq!(node.circle(), [1, 2, 3]);
}

/// A coordinator whose own disk stands makes room, and leaves the others the time to take over.
#[test]
fn a_coordinator_that_holds_the_others_up_resigns() {
    let mut node = Node::new(1);
    node.lead();
    node.stands = true;
    node.propose(&[2, 3]);
    let mut said = Vec::new();
    let mut ticks = 0;
    while matches!(node.core.role(), Role::Coordinator(_)) {
        said = node.step(Input::Tick);
        let (ballot, beat) = node.core.newest_beat();
        node.step(Input::Beat { ballot, beat });
        ticks += 1;
    }
    assert!((50..80).contains(&ticks), "{ticks}");
    assert!(matches!(node.core.role(), Role::Follower) && asks(&said));
    assert!(!asks(&node.ticks(45)));
}

/// Who owns the ballot and asks for its coordinator is none: nobody waits to see it silent.
#[test]
fn a_coordinator_that_asks_for_itself_is_lost() {
    let mut node = follower(2);
    let ballot = node.core.promised();
    let lost = Action::Lost { to: NodeId(1), ballot };
    assert_eq!(node.step(Input::Ask { from: NodeId(1), ballot }), [lost]);
    assert_eq!(node.ticks_to_ask(), 1);
    let mut node = follower(2);
    assert!(node.step(Input::Ask { from: NodeId(3), ballot }).is_empty(), "it is heard");
    assert!(node.ticks_to_ask() > 10);
}

/// Where no other circle is possible another ballot is of no use.
#[test]
fn a_link_that_no_circle_can_do_without_opens_no_ballot() {
    let mut node = Node::new(1);
    node.lead();
    node.misses_two(&[3]);
    assert_eq!(node.circle(), [1, 3]);
    let missed = |node: &mut Node| {
        let (from, ballot, missed) = (NodeId(3), node.core.promised(), NodeId(1));
        node.step(Input::Missed { from, ballot, node: missed });
    };
    node.quiet(25);
    missed(&mut node);
    assert_eq!(node.circle(), [1, 3]);
    // Now there is one who could take the place.
    let vote = Vote { node: NodeId(2), ..node.vote_of(3) };
    node.step(Input::Present { vote, hears: 0b101, asks: true, damaged: false });
    missed(&mut node);
    assert!(matches!(node.core.role(), Role::Candidate(_)));
}

/// A log that is damaged stays so until a later ballot; who came back before it was missed gets
/// one.
#[test]
fn a_damaged_node_of_the_circle_gets_another_ballot() {
    for damaged in [false, true] {
        let mut node = Node::new(1);
        node.lead();
        node.quiet(25);
        let vote = node.vote_of(3);
        node.step(Input::Present { vote, hears: 0b111, asks: true, damaged });
        node.quiet(1);
        assert_eq!(matches!(node.core.role(), Role::Candidate(_)), damaged);
    }
}
