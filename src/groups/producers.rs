//! Producers: which of their records are in the log already, and at which offsets.
//!
//! Replicated state: a function of the delivered prefix, equal at all nodes and part of the digest.
//! Invariants: of a producer's epoch the records come in order of sequence, each once; whatever
//! cannot be told from a repetition is refused, never appended; memory is bounded, and forgotten
//! is what was used least recently, by position in the log. Nothing is allocated after `new`.

use crate::mail::TopicId;
use crate::records::Stamp;
use chainring_ring::{mark, mutant};
use std::collections::HashMap;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_128;

/// Producers that are remembered. Not a setting: what is delivered must not depend on the node,
/// and a log that is replayed under another limit would give other offsets. 1.6 KiB each: 16 MiB,
/// reserved at the start and touched as they are used.
pub const PRODUCERS_MAX: u32 = 10_000;
/// Stretches of records, each side by side in one topic, that are remembered of a producer.
pub const SPANS_MAX: usize = 64;
/// The ids that a registration gives, counted from the first: unique for ever. They are exact in
/// every JSON reader, and a producer that draws 64 bits by chance meets one in 65,536 times.
pub const GIVEN: Range<u64> = 1 << 52..(1 << 52) + (1 << 48);

/// No place in the list.
const NONE: u32 = u32::MAX;

/// Why records of a producer got no offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Records before them are missing.
    Gap {
        /// The sequence that comes next.
        expected: u64,
    },
    /// The producer has begun a newer epoch.
    OldEpoch {
        /// It.
        epoch: u32,
    },
    /// They are in the log; where is not remembered any more.
    Forgotten {
        /// The first sequence that is.
        first: u64,
    },
    /// The producer is not remembered, if it ever was: they may be in the log.
    UnknownProducer,
    /// Their sequences belong to records of another topic.
    OtherTopic,
}

/// Where the records of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// So many of them were in the log before.
    pub repeated: u32,
    /// Offset of the first.
    pub first: u64,
    /// Offset of the last.
    pub last: u64,
}

/// A stretch of records with rising sequences and offsets in one topic; it ends where the next
/// one begins.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    sequence: u64,
    offset: u64,
    topic: TopicId,
}

#[derive(Clone, Debug)]
struct Producer {
    id: u64,
    epoch: u32,
    /// The sequence that comes next.
    next: u64,
    /// A ring: the oldest lies at `first`.
    spans: [Span; SPANS_MAX],
    first: usize,
    count: usize,
    /// Neighbours by use.
    older: u32,
    newer: u32,
}

/// See the file's head.
#[derive(Clone, Debug)]
pub struct Producers {
    list: Vec<Producer>,
    by_id: HashMap<u64, u32>,
    oldest: u32,
    newest: u32,
    limit: usize,
    /// Ids given.
    given: u64,
    /// Producers forgotten.
    forgotten: u64,
    digest: u128,
}

/// What a run of a known producer would do.
struct Judged {
    slot: Option<u32>,
    repeated: u32,
}

impl Default for Producers {
    fn default() -> Producers {
        Producers::new()
    }
}

impl Producers {
    /// None; room for [`PRODUCERS_MAX`].
    pub fn new() -> Producers {
        Producers::with_limit(PRODUCERS_MAX as usize)
    }

    pub(in crate::groups) fn with_limit(limit: usize) -> Producers {
        Producers {
            list: Vec::with_capacity(limit),
            // Twice: a full map makes room of what was removed without growing.
            by_id: HashMap::with_capacity(2 * limit + 2),
            oldest: NONE,
            newest: NONE,
            limit,
            given: 0,
            forgotten: 0,
            digest: 0,
        }
    }

    /// The id of a new producer; `None` when all are given.
    pub fn register(&mut self) -> Option<u64> {
        let id = GIVEN.start.checked_add(self.given).filter(|id| GIVEN.contains(id))?;
        self.given += 1;
        self.insert(id, 0);
        self.note(id, 0, &[self.given]);
        Some(id)
    }

    /// `count` records of a producer are delivered to `topic`, whose next offset is `end`: those
    /// that are new take the offsets from there on.
    ///
    /// # Errors
    /// Why not; nothing has changed.
    pub fn deliver(
        &mut self,
        stamp: Stamp,
        topic: TopicId,
        count: u32,
        end: u64,
    ) -> Result<Placed, Fence> {
        let Judged { slot, repeated } = self.judge(stamp, topic, count)?;
        let placed = self.placed(slot, stamp, topic, count, repeated, end);
        if repeated < count {
            let slot = match slot {
                Some(slot) => self.use_again(slot, stamp.epoch),
                None => self.insert(stamp.producer, stamp.epoch),
            };
            let new = stamp.after(repeated);
            self.list[slot as usize].append(new.sequence, topic, count - repeated, end);
            let place = [new.sequence, u64::from(topic.0), end, u64::from(count - repeated)];
            self.note(stamp.producer, stamp.epoch, &place);
        }
        match repeated {
            0 => {}
            _ if repeated == count => mark!(ProducerRepeats),
            _ => mark!(ProducerOverlaps),
        }
        Ok(placed)
    }

    /// What is known for sure before records are delivered: their offsets, if all are in the log;
    /// or why they will never get any. A gap may still be filled by what is under way.
    pub fn look(&self, stamp: Stamp, topic: TopicId, count: u32) -> Option<Result<Placed, Fence>> {
        match self.judge(stamp, topic, count) {
            Ok(Judged { slot, repeated }) if repeated == count => {
                Some(Ok(self.placed(slot, stamp, topic, count, repeated, 0)))
            }
            Ok(_) | Err(Fence::Gap { .. } | Fence::UnknownProducer) => None,
            Err(fence) => Some(Err(fence)),
        }
    }

    fn judge(&self, stamp: Stamp, topic: TopicId, count: u32) -> Result<Judged, Fence> {
        let Some(slot) = self.by_id.get(&stamp.producer).copied() else {
            return self.judge_unknown(stamp);
        };
        let known = &self.list[slot as usize];
        if stamp.epoch < known.epoch && !mutant!(OldEpochAppended) {
            mark!(ProducerOfOldEpoch);
            return Err(Fence::OldEpoch { epoch: known.epoch });
        }
        let expected = if stamp.epoch > known.epoch { 0 } else { known.next };
        let before = expected.checked_sub(stamp.sequence).ok_or(Fence::Gap { expected })?;
        let repeated = before.min(u64::from(count)) as u32;
        let forget = mutant!(RepeatAppended) && repeated == count;
        let forget = forget || mutant!(OverlapAppended) && repeated < count;
        if forget || repeated == 0 {
            return Ok(Judged { slot: Some(slot), repeated: 0 });
        }
        for sequence in [stamp.sequence, stamp.after(repeated - 1).sequence] {
            known.offset_of(topic, sequence)?;
        }
        Ok(Judged { slot: Some(slot), repeated })
    }

    /// Who is not remembered begins at 0, with an id of its own choice. One that was given is
    /// remembered from the start: it is forgotten. So may be who goes on in the middle, once
    /// anybody was.
    fn judge_unknown(&self, stamp: Stamp) -> Result<Judged, Fence> {
        if GIVEN.contains(&stamp.producer) || stamp.sequence > 0 && self.forgotten > 0 {
            return Err(Fence::UnknownProducer);
        }
        if stamp.sequence > 0 {
            return Err(Fence::Gap { expected: 0 });
        }
        Ok(Judged { slot: None, repeated: 0 })
    }

    fn placed(
        &self,
        slot: Option<u32>,
        stamp: Stamp,
        topic: TopicId,
        count: u32,
        repeated: u32,
        end: u64,
    ) -> Placed {
        let known = |sequence| {
            let producer = &self.list[slot.expect("who repeats is known") as usize];
            producer.offset_of(topic, sequence).expect("judged before")
        };
        let moved = mutant!(RepeatMoved);
        let first = if repeated > 0 && !moved { known(stamp.sequence) } else { end };
        let last = match count - repeated {
            0 if !moved => known(stamp.after(count - 1).sequence),
            0 => end + u64::from(count) - 1,
            new => end + u64::from(new) - 1,
        };
        Placed { repeated, first, last }
    }

    /// A producer appends once more: it is the one used last.
    fn use_again(&mut self, slot: u32, epoch: u32) -> u32 {
        let producer = &mut self.list[slot as usize];
        if epoch > producer.epoch {
            mark!(ProducerBeginsEpoch);
            (producer.epoch, producer.next, producer.count) = (epoch, 0, 0);
        }
        self.unlink(slot);
        self.link(slot);
        slot
    }

    fn insert(&mut self, id: u64, epoch: u32) -> u32 {
        let (first, count, next) = (0, 0, 0);
        let spans = [Span::default(); SPANS_MAX];
        let new = Producer { id, epoch, next, spans, first, count, older: NONE, newer: NONE };
        let slot = if self.list.len() < self.limit {
            self.list.push(new);
            self.list.len() as u32 - 1
        } else {
            let slot = self.oldest;
            self.unlink(slot);
            self.by_id.remove(&self.list[slot as usize].id);
            self.forgotten += 1;
            self.list[slot as usize] = new;
            slot
        };
        self.by_id.insert(id, slot);
        self.link(slot);
        slot
    }

    fn link(&mut self, slot: u32) {
        let last = std::mem::replace(&mut self.newest, slot);
        let producer = &mut self.list[slot as usize];
        (producer.older, producer.newer) = (last, NONE);
        match self.list.get_mut(last as usize) {
            Some(last) => last.newer = slot,
            None => self.oldest = slot,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let (older, newer) = (self.list[slot as usize].older, self.list[slot as usize].newer);
        match self.list.get_mut(older as usize) {
            Some(producer) => producer.newer = newer,
            None => self.oldest = newer,
        }
        match self.list.get_mut(newer as usize) {
            Some(producer) => producer.older = older,
            None => self.newest = older,
        }
    }

    /// The digest pins every change to its place among all: it decides who is forgotten when.
    fn note(&mut self, id: u64, epoch: u32, more: &[u64]) {
        let mut bytes = [0; 64];
        let numbers = [self.digest as u64, (self.digest >> 64) as u64, id, u64::from(epoch)];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers.iter().chain(more)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.digest = xxh3_128(&bytes);
    }

    /// Running digest over all that changed; 0 in a log without producers.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// Producers that are remembered.
    pub fn count(&self) -> usize {
        self.list.len()
    }
}

impl Producer {
    fn span(&self, index: usize) -> Span {
        self.spans[(self.first + index) % SPANS_MAX]
    }

    /// `count` records from `sequence` on are in the topic from `offset` on.
    fn append(&mut self, sequence: u64, topic: TopicId, count: u32, offset: u64) {
        self.next = sequence.saturating_add(u64::from(count));
        let last = self.count.checked_sub(1).map(|last| self.span(last));
        let goes_on = last.is_some_and(|last| {
            last.topic == topic && offset - last.offset.min(offset) == sequence - last.sequence
        });
        if goes_on {
            return;
        }
        if self.count == SPANS_MAX {
            mark!(ProducerForgetsSpan);
            self.first = (self.first + 1) % SPANS_MAX;
            self.count -= 1;
        }
        self.spans[(self.first + self.count) % SPANS_MAX] = Span { sequence, offset, topic };
        self.count += 1;
    }

    /// Where a record below `next` is.
    fn offset_of(&self, topic: TopicId, sequence: u64) -> Result<u64, Fence> {
        let later = (0..self.count).find(|index| self.span(*index).sequence > sequence);
        let Some(index) = later.unwrap_or(self.count).checked_sub(1) else {
            let first = if self.count > 0 { self.span(0).sequence } else { self.next };
            return Err(Fence::Forgotten { first });
        };
        let span = self.span(index);
        if span.topic != topic {
            return Err(Fence::OtherTopic);
        }
        Ok(span.offset + (sequence - span.sequence))
    }
}

mod state;
pub use state::StateError;
#[cfg(test)]
mod tests;
