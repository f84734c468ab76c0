//! What is written down of a world: the faults that took effect, and its last steps.
//!
//! Invariants: a journal lies outside of its world, so that it outlives one that panics; nothing
//! in a world reads it, so that a run with one and without are the same run.

use crate::sim::faults::{Kind, Name};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::Write as _;
use std::rc::Rc;

/// Where a fault took effect. Nodes are numbered from 0, and shown from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a node.
    Node(u8),
    /// On the way from one node to another.
    Way(u8, u8),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Node(node) => write!(f, "node {}", node + 1),
            Place::Way(from, to) => write!(f, "node {} to {}", from + 1, to + 1),
        }
    }
}

/// A fault that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, microseconds.
    pub at: u64,
    /// Which.
    pub name: Name,
    /// Where.
    pub place: Place,
}

impl Fault {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.name.0
    }
}

/// In a line, by the name that a replay takes.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, (kind, number), text) = (self.at, self.name, self.kind().text());
        write!(f, "{at:>12} us  {kind:?}:{number}  {text}: {}", self.place)
    }
}

#[derive(Debug)]
struct Notes {
    tape: Vec<Fault>,
    steps: VecDeque<String>,
    /// Of the steps, so many are kept.
    keep: usize,
    /// They and the faults go to stderr as well.
    loud: bool,
}

/// A journal, or none: whoever made it holds it beside the world that writes in it.
#[derive(Clone, Debug, Default)]
pub struct Journal(Option<Rc<RefCell<Notes>>>);

/// On stderr; a reader that went away (`| head`) is no error.
fn say(line: &impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Journal {
    /// One for all faults and the last `keep` steps.
    pub fn keeping(keep: usize) -> Journal {
        let notes = Notes { tape: Vec::new(), steps: VecDeque::new(), keep, loud: false };
        Journal(Some(Rc::new(RefCell::new(notes))))
    }

    /// One that says every step and every fault on stderr.
    pub fn loud() -> Journal {
        let notes = Notes { tape: Vec::new(), steps: VecDeque::new(), keep: 0, loud: true };
        Journal(Some(Rc::new(RefCell::new(notes))))
    }

    /// A fault took effect.
    pub fn fault(&self, fault: Fault) {
        if let Some(notes) = &self.0 {
            let mut notes = notes.borrow_mut();
            if notes.loud {
                say(&fault);
            }
            notes.tape.push(fault);
        }
    }

    /// True if somebody wants to know the steps: they are put into words only then.
    pub fn wants_steps(&self) -> bool {
        self.0.as_ref().is_some_and(|notes| {
            let notes = notes.borrow();
            notes.loud || notes.keep > 0
        })
    }

    /// A step was taken.
    pub fn step(&self, line: String) {
        let Some(notes) = &self.0 else { return };
        let mut notes = notes.borrow_mut();
        if notes.loud {
            say(&line);
        }
        if notes.keep > 0 {
            if notes.steps.len() == notes.keep {
                notes.steps.pop_front();
            }
            notes.steps.push_back(line);
        }
    }

    /// The faults, in order.
    pub fn tape(&self) -> Vec<Fault> {
        self.0.as_ref().map_or(Vec::new(), |notes| notes.borrow().tape.clone())
    }

    /// The last steps, in order.
    pub fn steps(&self) -> Vec<String> {
        self.0.as_ref().map_or(Vec::new(), |notes| notes.borrow().steps.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_steps_are_kept_and_all_faults() {
        let journal = Journal::keeping(2);
        let fault = |at| Fault { at, name: (Kind::Lose, at), place: Place::Way(0, 1) };
        for at in 0..3 {
            journal.fault(fault(at));
            journal.clone().step(format!("step {at}"));
        }
        assert_eq!(journal.tape(), [fault(0), fault(1), fault(2)]);
        assert_eq!(journal.steps(), ["step 1", "step 2"]);
        assert!(journal.wants_steps() && !Journal::keeping(0).wants_steps());
        assert!(!Journal::default().wants_steps() && Journal::default().tape().is_empty());
    }
}
