//! The search: breadth first over all states of the world, each visited once.
//!
//! A state of the world is three numbers of local states. Those are few and each step of one is
//! computed once; the states of the world are their combinations, and there are many. States are
//! compared whole, not by digest. A first violation is one of the shortest.

use super::Scope;
use super::check::check;
use super::local::{Act, Local, Violation};
use super::message::Messages;
use chainring_ring::ids::NodeId;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A state of the world.
type State = [u32; 3];

/// For keys that are small numbers.
#[derive(Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.chunks(4).for_each(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u32(u32::from_le_bytes(word));
        });
    }

    fn write_u32(&mut self, word: u32) {
        self.0 = (self.0.rotate_left(23) ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

type Mixed = BuildHasherDefault<Mix>;

/// What one node can do next: actions and where they lead.
struct Moves {
    acts: Rc<[(Act, u32)]>,
    crashes: Rc<[(Act, u32)]>,
    /// Numbers of messages that it has sent, by receiver.
    sent: [Rc<[u32]>; 3],
}

/// A search under way.
pub struct Search<'a> {
    scope: &'a Scope,
    messages: Messages,
    locals: Vec<Rc<Local>>,
    numbers: HashMap<Rc<Local>, u32>,
    moves: Vec<Option<Rc<Moves>>>,
    /// Local state and message, and the local state after it.
    received: HashMap<[u32; 2], u32, Mixed>,
    seen: HashSet<State, Mixed>,
    states: Vec<State>,
    parents: Vec<u32>,
    transitions: u64,
}

/// What a search came to.
pub struct Found {
    pub states: usize,
    pub locals: usize,
    pub messages: usize,
    pub transitions: u64,
    pub depth: usize,
    /// Every state was visited.
    pub complete: bool,
    pub took: Duration,
    pub violation: Option<(Violation, Vec<String>)>,
}

impl<'a> Search<'a> {
    pub fn new(scope: &'a Scope) -> Search<'a> {
        let mut search = Search {
            scope,
            messages: Messages::default(),
            locals: Vec::new(),
            numbers: HashMap::new(),
            moves: Vec::new(),
            received: HashMap::default(),
            seen: HashSet::default(),
            states: Vec::new(),
            parents: Vec::new(),
            transitions: 0,
        };
        let first = [1, 2, 3].map(|id| {
            let local = Local::new(NodeId(id), scope, &mut search.messages);
            search.number(local)
        });
        search.seen.insert(first);
        search.states.push(first);
        search.parents.push(0);
        search
    }

    /// Visits up to this many states.
    pub fn run(mut self, most: usize) -> Found {
        let began = Instant::now();
        let (mut at, mut depth, mut end) = (0, 0, 1);
        let mut violation = None;
        while at < self.states.len() && self.states.len() < most {
            if at == end {
                (depth, end) = (depth + 1, self.states.len());
            }
            if let Err((broken, last)) = self.expand(at) {
                violation = Some((broken, self.trace(at, last)));
                break;
            }
            at += 1;
        }
        Found {
            states: self.states.len(),
            locals: self.locals.len(),
            messages: self.messages.len(),
            transitions: self.transitions,
            depth,
            complete: at == self.states.len(),
            took: began.elapsed(),
            violation,
        }
    }

    /// All successors of a state; an error names the step that broke something.
    fn expand(&mut self, at: usize) -> Result<(), (Violation, String)> {
        let state = self.states[at];
        let crashes: u8 = state.iter().map(|local| self.locals[*local as usize].crashes).sum();
        for node in 0..3 {
            let local = state[node];
            let moves = self.moves_of(local).map_err(|(broken, act)| (broken, name(node, &act)))?;
            for (act, next) in moves.acts.iter() {
                self.arrive(at, node, *next, act)?;
            }
            if crashes < self.scope.crashes {
                for (act, next) in moves.crashes.iter() {
                    self.arrive(at, node, *next, act)?;
                }
            }
            for from in state {
                // Its own moves may not be known yet.
                let sent = self.moves_of(from).map_err(|(broken, act)| (broken, name(9, &act)))?;
                for message in sent.sent[node].iter() {
                    let act = Act::Receive(*message);
                    let next = match self.received.get(&[local, *message]) {
                        Some(next) => *next,
                        None => {
                            let next = self.step(local, &act).map_err(|broken| {
                                let told = format!("{:?}", self.messages.get(*message));
                                (broken, format!("node {} receives {told}", node + 1))
                            })?;
                            self.received.insert([local, *message], next);
                            next
                        }
                    };
                    if next != local {
                        self.arrive(at, node, next, &act)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn arrive(
        &mut self,
        from: usize,
        node: usize,
        next: u32,
        act: &Act,
    ) -> Result<(), (Violation, String)> {
        self.transitions += 1;
        let mut state = self.states[from];
        state[node] = next;
        if self.seen.insert(state) {
            let nodes = state.map(|local| &*self.locals[local as usize]);
            check(nodes).map_err(|broken| (broken, self.describe(node, act)))?;
            self.states.push(state);
            self.parents.push(from as u32);
        }
        Ok(())
    }

    fn moves_of(&mut self, local: u32) -> Result<Rc<Moves>, (Violation, Act)> {
        if let Some(moves) = &self.moves[local as usize] {
            return Ok(moves.clone());
        }
        let it = self.locals[local as usize].clone();
        let (acts, crashes) = (it.acts(self.scope), it.crashes(self.scope));
        let mut follow = |acts: Vec<Act>| {
            let step = |act: Act| match self.step(local, &act) {
                Ok(next) => Ok((act, next)),
                Err(broken) => Err((broken, act)),
            };
            acts.into_iter().map(step).collect::<Result<Vec<_>, _>>()
        };
        let (acts, crashes) = (follow(acts)?, follow(crashes)?);
        let sent = [1, 2, 3].map(|to| {
            let is_for =
                |number: &&u32| self.messages.is_for(**number, NodeId(to), it.id, self.scope);
            it.sent.iter().filter(is_for).copied().collect::<Rc<[u32]>>()
        });
        let moves = Rc::new(Moves { acts: acts.into(), crashes: crashes.into(), sent });
        self.moves[local as usize] = Some(moves.clone());
        Ok(moves)
    }

    /// One step of one node. An assertion of the core that fails is a violation too.
    fn step(&mut self, local: u32, act: &Act) -> Result<u32, Violation> {
        let it = self.locals[local as usize].clone();
        let step = || it.after(act, self.scope, &mut self.messages);
        let next = match catch_unwind(AssertUnwindSafe(step)) {
            Ok(next) => next?,
            Err(_) => return Err(Violation("assertion", format!("{act:?}"))),
        };
        Ok(if next == *it { local } else { self.number(next) })
    }

    fn number(&mut self, local: Local) -> u32 {
        if let Some(number) = self.numbers.get(&local) {
            return *number;
        }
        let (number, local) = (self.locals.len() as u32, Rc::new(local));
        self.locals.push(local.clone());
        self.moves.push(None);
        self.numbers.insert(local, number);
        number
    }

    /// The steps to a state, and the last one.
    fn trace(&mut self, at: usize, last: String) -> Vec<String> {
        let mut path = vec![at];
        while path[path.len() - 1] != 0 {
            path.push(self.parents[path[path.len() - 1]] as usize);
        }
        path.reverse();
        let mut steps: Vec<String> =
            path.windows(2).map(|pair| self.between(pair[0], pair[1])).collect();
        steps.push(last);
        steps
    }

    /// The step from one state to another.
    fn between(&mut self, from: usize, to: usize) -> String {
        let (from, to) = (self.states[from], self.states[to]);
        let node = (0..3).find(|node| from[*node] != to[*node]).expect("they differ");
        let moves = self.moves_of(from[node]).expect("known");
        let own = moves.acts.iter().chain(moves.crashes.iter());
        if let Some((act, _)) = own.clone().find(|(_, next)| *next == to[node]) {
            return self.describe(node, act);
        }
        for other in from {
            let sent = self.moves_of(other).expect("known").sent[node].clone();
            let leads = |message: &&u32| self.received.get(&[from[node], **message]);
            let message = sent.iter().find(|message| leads(message) == Some(&to[node]));
            if let Some(message) = message {
                return self.describe(node, &Act::Receive(*message));
            }
        }
        unreachable!("some step leads there")
    }

    fn describe(&self, node: usize, act: &Act) -> String {
        match act {
            Act::Receive(number) => {
                format!("node {} receives {:?}", node + 1, self.messages.get(*number))
            }
            act => name(node, act),
        }
    }
}

fn name(node: usize, act: &Act) -> String {
    format!("node {} does {act:?}", node + 1)
}
