//! One input, judged: it must not panic, nor take more memory or time than its target may.
//!
//! Invariant: a verdict does not depend on what else the machine does: what seems slow is tried
//! again, and the shortest of all counts.

use crate::{Target, counting};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Longest time of one input.
pub const TIME_MAX: Duration = Duration::from_millis(50);
/// An input that took longer is tried again: most often something else had the core.
const SLOW: Duration = Duration::from_millis(5);
/// How often.
const TRIES: u32 = 5;

/// What one execution took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Time.
    pub time: Duration,
    /// Most memory at a time, bytes.
    pub memory: usize,
    /// Whether the input was taken for a good one.
    pub accepted: bool,
}

/// Why an input failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It panicked, with these words.
    Panic(String),
    /// It held so many bytes.
    Memory(usize),
    /// It took so long, at best.
    Time(Duration),
}

impl Failure {
    /// Whether both are of the same kind: what a shorter input must still show.
    pub fn is_like(&self, other: &Failure) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Runs a target once.
///
/// # Errors
/// [`Failure`].
pub fn judge(target: &Target, bytes: &[u8]) -> Result<Taken, Failure> {
    let mut taken = once(target, bytes)?;
    for _ in 0..TRIES {
        if taken.time <= SLOW {
            break;
        }
        taken.time = taken.time.min(once(target, bytes)?.time);
    }
    if taken.memory > target.memory_max {
        return Err(Failure::Memory(taken.memory));
    }
    if taken.time > TIME_MAX { Err(Failure::Time(taken.time)) } else { Ok(taken) }
}

fn once(target: &Target, bytes: &[u8]) -> Result<Taken, Failure> {
    counting::reset();
    let begin = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    let time = begin.elapsed();
    let memory = counting::peak();
    let accepted = result.map_err(|words| Failure::Panic(words_of(words.as_ref())))?;
    Ok(Taken { time, memory, accepted })
}

fn words_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// A shorter input that fails in the same way.
pub fn shrink(target: &Target, bytes: &[u8], failure: &Failure, patience: Duration) -> Vec<u8> {
    let begin = Instant::now();
    let mut best = bytes.to_vec();
    let mut part = best.len().div_ceil(2);
    while part > 0 && begin.elapsed() < patience {
        let mut at = 0;
        while at < best.len() && begin.elapsed() < patience {
            let mut shorter = best[..at].to_vec();
            shorter.extend_from_slice(&best[(at + part).min(best.len())..]);
            match judge(target, &shorter) {
                Err(other) if other.is_like(failure) => best = shorter,
                _ => at += part,
            }
        }
        part /= 2;
    }
    best
}
