//! What the catalog knows of a stretch of the log, as bytes: the part of a checkpoint that a start
//! reads instead of the log.
//!
//! ```text
//! 0 entries  4      entry, 60: order 48, place 8, bytes 4
//! 4 runs     4      run, 32:   entry 4 (from 0), topic 4, first offset 8, count 4, skip 4, at 4,
//!                              zero 4
//! 8 entries, then runs in the order of their entries
//! ```
//! Invariant: what is read back is contiguous, and fits what was known before; else nothing of it
//! is taken.

use super::catalog::Catalog;
use crate::groups::{State, StateError};
use crate::mail::{Place, TopicId};
use chainring_ring::codec::{ORDER_BYTES, order_at, put_order};
use chainring_ring::header::{u32_at, u64_at};
use chainring_ring::ids::{Entry, Instance, Order};

const HEAD_BYTES: usize = 8;
const ENTRY_BYTES: usize = ORDER_BYTES + 12;
const RUN_BYTES: usize = 32;

/// Writes what the catalog knows of the instances from `from` to before `to`.
pub fn encode(catalog: &Catalog, from: Instance, to: Instance) -> Vec<u8> {
    let entries = (from.0..to.0).map_while(|at| catalog.entry(Instance(at)));
    let mut out = vec![0; HEAD_BYTES];
    let mut count = 0u32;
    for (order, place) in entries {
        let start = out.len();
        out.resize(start + ENTRY_BYTES, 0);
        put_order(&order, &mut out[start..]);
        out[start + 48..start + 56].copy_from_slice(&place.at.to_le_bytes());
        out[start + 56..].copy_from_slice(&place.bytes.to_le_bytes());
        count += 1;
    }
    let runs = catalog.runs(from, to);
    for (instance, topic, run) in &runs {
        out.extend_from_slice(&((instance.0 - from.0) as u32).to_le_bytes());
        out.extend_from_slice(&topic.0.to_le_bytes());
        out.extend_from_slice(&run.first_offset.to_le_bytes());
        for number in [run.count, run.skip, run.at, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    out[0..4].copy_from_slice(&count.to_le_bytes());
    out[4..8].copy_from_slice(&(runs.len() as u32).to_le_bytes());
    out
}

/// What is written where nothing is known before the state.
pub fn none() -> Vec<u8> {
    vec![0; HEAD_BYTES]
}

/// The highest place of a value that is named.
pub fn head(index: &[u8]) -> u64 {
    let entries = index.get(..HEAD_BYTES).map_or(0, |head| u32_at(head, 0) as usize);
    let entries =
        index.get(HEAD_BYTES..).unwrap_or_default().chunks_exact(ENTRY_BYTES).take(entries);
    entries.map(|entry| u64_at(entry, 48)).max().unwrap_or(0)
}

struct Run {
    entry: usize,
    topic: TopicId,
    first_offset: u64,
    count: u32,
    place: (u32, u32),
}

/// Adds to the catalog what was written; `state` is the one behind it.
///
/// # Errors
/// [`StateError`]: the catalog is as it was.
pub fn restore(catalog: &mut Catalog, index: &[u8], state: &State) -> Result<(), StateError> {
    let (entries, runs) = read(index).ok_or(StateError)?;
    check(catalog, &entries, &runs, state).ok_or(StateError)?;
    let known = catalog.topics().len();
    for (id, name) in (0..).zip(&state.names).skip(known) {
        catalog.on_topic(TopicId(id), name);
    }
    let mut runs = runs.into_iter().peekable();
    for (index, (order, place)) in entries.into_iter().enumerate() {
        catalog.on_instance(order, place);
        while let Some(run) = runs.next_if(|run| run.entry == index) {
            catalog.on_run(run.topic, run.first_offset, run.count, run.place);
        }
    }
    Ok(())
}

type Read = (Vec<(Order, Place)>, Vec<Run>);

fn read(bytes: &[u8]) -> Option<Read> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (entries, runs) = rest.split_at_checked(u32_at(head, 0) as usize * ENTRY_BYTES)?;
    if runs.len() != u32_at(head, 4) as usize * RUN_BYTES {
        return None;
    }
    let entry = |bytes: &[u8]| {
        let place = Place { at: u64_at(bytes, 48), bytes: u32_at(bytes, 56) };
        Some((order_at(bytes).ok()?, place))
    };
    let run = |bytes: &[u8]| Run {
        entry: u32_at(bytes, 0) as usize,
        topic: TopicId(u32_at(bytes, 4)),
        first_offset: u64_at(bytes, 8),
        count: u32_at(bytes, 16),
        place: (u32_at(bytes, 20), u32_at(bytes, 24)),
    };
    let entries: Option<Vec<_>> = entries.chunks_exact(ENTRY_BYTES).map(entry).collect();
    Some((entries?, runs.chunks_exact(RUN_BYTES).map(run).collect()))
}

/// Whether all of it goes on from what the catalog has, and ends as the state says.
fn check(catalog: &Catalog, entries: &[(Order, Place)], runs: &[Run], state: &State) -> Option<()> {
    let mut at = catalog.delivered();
    for (order, _) in entries {
        (order.instance == at).then_some(())?;
        at = at.next();
    }
    let known = catalog.topics().len();
    let named = catalog.topics().zip(&state.names).all(|(topic, name)| *topic.name == **name);
    (at == state.position && known <= state.names.len() && named).then_some(())?;
    let mut ends: Vec<u64> = catalog.topics().map(|topic| topic.end).collect();
    ends.resize(state.names.len(), 0);
    let mut last = 0;
    for run in runs {
        let (order, _) = entries.get(run.entry).filter(|_| run.entry >= last)?;
        last = run.entry;
        let end = ends.get_mut(run.topic.0 as usize)?;
        let fits = *end == run.first_offset && matches!(order.entry, Entry::Value(_));
        fits.then_some(())?;
        *end = end.checked_add(u64::from(run.count))?;
    }
    let same = |(index, end): (usize, &u64)| state.groups.end(TopicId(index as u32)) == Some(*end);
    ends.iter().enumerate().all(same).then_some(())
}
