//! Makes a failure small: the same violation with fewer faults, fewer requests, fewer nodes.
//!
//! Delta debugging: parts are left out, and what still breaks the same invariant is gone on with.
//! First everything at once, then halves, then ever smaller parts; large faults before small ones;
//! between them the plan itself is made simpler, for a short run makes the rest cheap.
//!
//! Invariants: what is kept always fails by the same name; candidates run side by side, and of
//! those that fail the first is taken.

use crate::sim::course::{Course, Names, PARTS, Settings};
use crate::sim::faults::{Class, Name};
use crate::sim::journal::{Fault, Journal};
use crate::sim::observer::Invariant;
use crate::sim::plan::Plan;
use crate::sim::swarm::{Failure, Orders, run};
use crate::sim::world::{Outcome, Telling};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Steps that are shown of the shortest course.
const STEPS_SHOWN: usize = 40;

/// A run that fails.
#[derive(Clone, Debug)]
struct Trial {
    plan: Plan,
    /// Its faults; before the first run, those of the seed.
    only: Option<BTreeSet<Name>>,
}

/// How it failed.
#[derive(Debug)]
struct Failed {
    failure: Failure,
    /// None of a panic.
    outcome: Option<Outcome>,
    tape: Vec<Fault>,
    steps: Vec<String>,
}

impl Trial {
    fn run(&self, steps: usize) -> Option<Failed> {
        let journal = Journal::keeping(steps);
        let telling = Telling { only: self.only.clone(), journal: journal.clone(), blind: false };
        let (outcome, failure) = run(self.plan.clone(), telling);
        let (tape, steps) = (journal.tape(), journal.steps());
        Some(Failed { failure: failure?, outcome, tape, steps })
    }
}

/// The shortest course that was found.
#[derive(Debug)]
pub struct Shrunk {
    /// How it fails.
    pub failure: Failure,
    /// Its plan.
    pub plan: Plan,
    /// What is lower in it than the seed says.
    pub settings: Settings,
    /// The faults that it needs, in order of time.
    pub faults: Vec<Fault>,
    /// Of so many that the seed had.
    pub faults_before: usize,
    /// Inputs consumed, if it is known: a panic takes it along.
    pub events: Option<u64>,
    /// Simulated microseconds, in the same way.
    pub us: Option<u64>,
    /// Requests sent, in the same way.
    pub requests: Option<u64>,
    /// Its last steps.
    pub steps: Vec<String>,
    /// Runs that it took to find it.
    pub runs: usize,
    /// Time that it took.
    pub took: Duration,
}

impl Shrunk {
    /// What a replay has to be told beside the seed.
    pub fn course(&self) -> Course {
        let names = self.faults.iter().map(|fault| fault.name).collect();
        Course { settings: self.settings.clone(), only: Some(Names(names)) }
    }

    /// For how long a fault lasts, in words; nothing of one that is over at once.
    pub fn lasts(&self, fault: &Fault) -> String {
        let (kind, index) = fault.name;
        let strike = self.plan.strikes.get(index as usize).filter(|strike| strike.kind == kind);
        match strike {
            Some(strike) if strike.lasts > 0 => format!(", for {} us", strike.lasts),
            _ => String::new(),
        }
    }
}

/// Shrinks a failure of worlds run as ordered for at most so long.
///
/// # Errors
/// [`Failure`] of L6: the world does not fail in the same way again.
pub fn shrink(orders: &Orders, failure: &Failure, time: Duration) -> Result<Shrunk, Failure> {
    let began = Instant::now();
    let plan = orders.plan(failure.seed);
    let first = Trial { plan, only: orders.only() };
    let course = first.run(0).filter(|course| course.failure == *failure);
    let course = course.ok_or_else(|| differs(failure))?;
    let faults_before = course.tape.len();
    let (runs, until) = (AtomicUsize::new(1), began + time);
    let mut shrinker =
        Shrinker { best: first, tape: Vec::new(), name: &failure.name, until, orders, runs: &runs };
    shrinker.keep(shrinker.best.clone(), &course);
    shrinker.work();
    let trial = shrinker.best;
    let course = trial.run(STEPS_SHOWN).filter(|course| course.failure.name == failure.name);
    let course = course.ok_or_else(|| differs(failure))?;
    let of = |of: fn(&Outcome) -> u64| course.outcome.as_ref().map(of);
    Ok(Shrunk {
        faults_before,
        events: of(|outcome| outcome.events),
        us: of(|outcome| outcome.us),
        requests: of(|outcome| outcome.requests),
        failure: course.failure,
        settings: Settings::between(Plan::new(failure.seed, orders.events), &trial.plan),
        plan: trial.plan,
        faults: course.tape,
        steps: course.steps,
        runs: runs.into_inner(),
        took: began.elapsed(),
    })
}

fn differs(failure: &Failure) -> Failure {
    let what = format!("it failed by {}, and another time it did not", failure.name);
    Failure { seed: failure.seed, name: Invariant::L6.name().to_owned(), what }
}

struct Shrinker<'a> {
    best: Trial,
    /// Faults of the best.
    tape: Vec<Fault>,
    name: &'a str,
    until: Instant,
    orders: &'a Orders,
    runs: &'a AtomicUsize,
}

impl Shrinker<'_> {
    /// A trial that fails is the best from now on. What did not take effect in it is left out, and
    /// what comes behind its end: both leave it as it is.
    fn keep(&mut self, trial: Trial, course: &Failed) {
        self.best = trial;
        self.tape = course.tape.clone();
        self.best.only = Some(self.tape.iter().map(|fault| fault.name).collect());
        if let Some(outcome) = &course.outcome {
            self.best.plan.events = self.best.plan.events.min(outcome.events + 1);
        }
    }

    fn work(&mut self) {
        let mut grain = 4;
        while !self.is_late() {
            let before = self.size();
            self.leave_out(|fault| fault.kind().class() == Class::Macro, usize::MAX);
            self.simplify();
            self.leave_out(|fault| fault.kind().class() != Class::Macro, grain);
            if grain == usize::MAX && self.size() == before {
                return;
            }
            grain = grain.saturating_mul(8);
        }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.until || self.orders.has_ended()
    }

    fn size(&self) -> (usize, Plan) {
        (self.tape.len(), self.best.plan.clone())
    }

    /// Leaves out as many as it can of the faults that are meant, in no more than so many parts.
    fn leave_out(&mut self, meant: fn(&Fault) -> bool, grain: usize) {
        let names = |tape: &[Fault]| {
            tape.iter().filter(|fault| meant(fault)).map(|fault| fault.name).collect::<Vec<_>>()
        };
        let mut part = names(&self.tape).len();
        let finest = (part / grain).max(1);
        let mut done = 0;
        while part >= finest && !self.is_late() {
            let list = names(&self.tape);
            let rest = list.get(done..).unwrap_or_default();
            let candidates: Vec<Trial> = rest.chunks(part).map(|part| self.without(part)).collect();
            match self.first_failing(&candidates) {
                // What lies before it is needed, as things are.
                Some(index) => done += index * part,
                None => (part, done) = (part / 2, 0),
            }
        }
    }

    fn without(&self, part: &[Name]) -> Trial {
        let mut trial = self.best.clone();
        if let Some(only) = &mut trial.only {
            part.iter().for_each(|name| {
                only.remove(name);
            });
        }
        trial
    }

    /// Makes the plan simpler, one thing after another, each as often as it can.
    fn simplify(&mut self) {
        let mut from = 0;
        while !self.is_late() {
            let ways = PARTS.iter().map(|part| (part, part.less));
            let ways = ways.chain([(&PARTS[0], an_eighth_less as fn(u64) -> u64)]);
            let simpler = ways.enumerate().skip(from).filter_map(|(way, (part, less))| {
                let mut trial = self.best.clone();
                part.lessen(&mut trial.plan, less);
                (trial.plan != self.best.plan).then_some((way, trial))
            });
            let (ways, trials): (Vec<_>, Vec<_>) = simpler.unzip();
            match self.first_failing(&trials) {
                Some(index) => from = ways[index],
                None => return,
            }
        }
    }

    /// The first of these that fails by the same name is the best from now on. Returns which.
    fn first_failing(&mut self, trials: &[Trial]) -> Option<usize> {
        let (next, found) = (AtomicUsize::new(0), Mutex::new(None::<(usize, Failed)>));
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let over = |best: &Option<(usize, Failed)>| {
                    best.as_ref().is_some_and(|(best, _)| *best < index)
                };
                let late = self.is_late();
                if index >= trials.len() || late || over(&found.lock().expect("nobody panics")) {
                    return;
                }
                self.runs.fetch_add(1, Ordering::Relaxed);
                let course = trials[index].run(0);
                let Some(course) = course.filter(|course| course.failure.name == self.name) else {
                    continue;
                };
                let mut found = found.lock().expect("nobody panics");
                if !over(&found) {
                    *found = Some((index, course));
                }
            }
        };
        std::thread::scope(|scope| {
            let threads = self.orders.threads.clamp(1, trials.len().max(1));
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let (index, course) = found.into_inner().expect("nobody panics")?;
        self.keep(trials[index].clone(), &course);
        Some(index)
    }
}

/// Where nothing can be halved any more, an eighth of the events may still go.
fn an_eighth_less(events: u64) -> u64 {
    events - events / 8
}
