//! What an order block may say is delivered: what lies in the log up to it.

use chainring_ring::actions::{Actions, Input};
use chainring_ring::core::{Core, Recovered, Settings};
use chainring_ring::ids::{
    Ballot, Durability, Entry, Incarnation, Instance, NodeId, Order, Session,
};
use chainring_ring::window::WINDOW_MIN;

/// In async durability memory is ahead of the log, here by more than a window: of what the window
/// let go nothing says any more whether it is in the log.
#[test]
fn a_block_does_not_speak_of_what_only_memory_holds() {
    const ENTRIES: u64 = 3 * WINDOW_MIN;
    let me = NodeId(1);
    let settings = Settings {
        nodes: vec![me, NodeId(2), NodeId(3)],
        voters: vec![Incarnation(1); 3],
        me,
        incarnation: Incarnation(1),
        session: Session::FIRST,
        durability: Durability::Async,
        window: WINDOW_MIN,
        seed: 0,
        patience: 0,
    };
    let mut core = Core::new(settings, Recovered::default());
    let ballot = Ballot { round: 1, node: NodeId(2), incarnation: Incarnation(1) };
    for at in (0..ENTRIES).map(Instance) {
        let (base, entry) = (Instance(0), Entry::Noop);
        let order = Order { instance: at, ballot, base, entry, decided: true };
        let mut out = Actions::new();
        core.step(Input::Decided { order, ballot }, &mut out);
        core.step(Input::Persisted(core.appended()), &mut out);
    }
    assert!(core.window().first() > Instance(0));
    assert_eq!(core.claim_to_log(Instance(0), 3).position, Instance(0));
    assert_eq!(core.claim_to_log(Instance(0), ENTRIES - 1).position, Instance(ENTRIES - 1));
    assert_eq!(core.claim_to_log(Instance(0), ENTRIES).position, Instance(ENTRIES));
}
