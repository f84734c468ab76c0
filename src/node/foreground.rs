//! Nodes in the foreground: until a signal, or until a log fails.
//!
//! Invariant: the first signal drains, the second stops at once; every node that was started is
//! waited for.

use super::{Node, NodeError, Options, system};
use crate::config::Config;
use crate::control::status::halt_reason;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::time::Duration;

/// How often signals and readiness are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Starts all nodes, calls `ready` when each takes records, and runs until a signal has stopped
/// them. Remarks on their start go to stderr.
///
/// # Errors
/// [`NodeError`] of the start, or of a log that failed.
pub fn run(configs: Vec<Config>, ready: Box<dyn FnOnce() + Send>) -> Result<(), NodeError> {
    let signals = Signals::new([SIGINT, SIGTERM]);
    let mut signals = signals.map_err(|source| system("signals", source))?;
    // A lone node of a cluster is ready when it answers: its ring may need the others.
    let alone = configs.len() == 1;
    let mut nodes = Vec::new();
    for config in configs {
        match Node::start(config, Options::default()) {
            Ok(node) => {
                for remark in &node.remarks {
                    eprintln!("chainring: node {}: {remark}", node.config.node.id.0);
                }
                nodes.push(node);
            }
            Err(error) => {
                nodes.iter().for_each(Node::stop);
                let _ = join(nodes);
                return Err(error);
            }
        }
    }
    let mut ready = Some(ready);
    let (mut asked, mut halted) = (0, false);
    while !nodes.iter().any(Node::has_ended) {
        for _ in signals.pending() {
            asked += 1;
            match asked {
                1 => nodes.iter().for_each(Node::drain),
                _ => nodes.iter().for_each(Node::stop),
            }
        }
        tell_halts(&nodes, &mut halted);
        let open = alone || nodes.iter().all(|node| node.gauges.open.get() == 1);
        if let Some(ready) = ready.take_if(|_| open) {
            ready();
        }
        std::thread::sleep(LOOK);
    }
    if asked == 0 {
        // One failed: the others of this process end too, cleanly if they can.
        nodes.iter().for_each(Node::drain);
    }
    join(nodes)
}

/// Says once, whatever stderr is, that a ring can never go on.
fn tell_halts(nodes: &[Node], told: &mut bool) {
    let halt = nodes.iter().find_map(|node| halt_reason(node.gauges.halt.get()));
    if let Some((_, reason)) = halt.filter(|_| !*told) {
        *told = true;
        eprintln!("chainring: halted: {reason}");
    }
}

/// Waits for all; the first failure.
fn join(nodes: Vec<Node>) -> Result<(), NodeError> {
    let ends: Vec<_> = nodes.into_iter().map(Node::join).collect();
    ends.into_iter().try_for_each(|end| end.map(drop))
}
