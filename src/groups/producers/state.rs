//! The producers as bytes, for whoever carries the replicated state.
//!
//! ```text
//!  0 given      8   ids                       each, the one used least recently first
//!  8 forgotten  8   producers                   0 id      8     16 next   8
//! 16 digest    16                               8 epoch   4     24 spans, 24 each:
//! 32 producers  4   count                      12 spans   4        0 sequence 8, 8 offset 8,
//! 36 zero       4                                                 16 topic 4, 20 zero 4
//! ```
//!
//! Invariant: equal states have equal bytes, and what [`Producers::decode`] takes goes on exactly
//! as the state did that was encoded.

use super::{GIVEN, PRODUCERS_MAX, Producer, Producers, SPANS_MAX, Span};
use crate::mail::TopicId;
use chainring_ring::header::{u32_at, u64_at};

const HEAD_BYTES: usize = 40;
const PRODUCER_BYTES: usize = 24;
const SPAN_BYTES: usize = 24;

/// Bytes that are no state of producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not the producers of a log: damaged, or of another release")]
pub struct StateError;

impl Producers {
    /// Bytes that [`Producers::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        let bytes = |producer: &Producer| PRODUCER_BYTES + producer.count * SPAN_BYTES;
        HEAD_BYTES + self.list.iter().map(bytes).sum::<usize>()
    }

    /// Appends the state to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.given.to_le_bytes());
        out.extend_from_slice(&self.forgotten.to_le_bytes());
        out.extend_from_slice(&self.digest.to_le_bytes());
        out.extend_from_slice(&(self.list.len() as u64).to_le_bytes());
        let mut slot = self.oldest;
        while let Some(producer) = self.list.get(slot as usize) {
            producer.encode(out);
            slot = producer.newer;
        }
    }

    /// The state that was encoded.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn decode(bytes: &[u8]) -> Result<Producers, StateError> {
        Producers::decode_with(PRODUCERS_MAX as usize, bytes).ok_or(StateError)
    }

    pub(super) fn decode_with(limit: usize, bytes: &[u8]) -> Option<Producers> {
        let (head, mut rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let mut producers = Producers::with_limit(limit);
        let count = u64_at(head, 32);
        if count > limit as u64 {
            return None;
        }
        for _ in 0..count {
            let (fixed, behind) = rest.split_at_checked(PRODUCER_BYTES)?;
            let spans = u32_at(fixed, 12) as usize;
            if spans > SPANS_MAX {
                return None;
            }
            let (spans, behind) = behind.split_at_checked(spans * SPAN_BYTES)?;
            let id = u64_at(fixed, 0);
            if producers.by_id.contains_key(&id) {
                return None;
            }
            let slot = producers.insert(id, u32_at(fixed, 8));
            producers.list[slot as usize].decode(u64_at(fixed, 16), spans)?;
            rest = behind;
        }
        (producers.given, producers.forgotten) = (u64_at(head, 0), u64_at(head, 8));
        producers.digest = u128::from(u64_at(head, 24)) << 64 | u128::from(u64_at(head, 16));
        let possible = producers.given <= GIVEN.end - GIVEN.start;
        (rest.is_empty() && possible).then_some(producers)
    }
}

impl Producer {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&(self.count as u32).to_le_bytes());
        out.extend_from_slice(&self.next.to_le_bytes());
        for span in (0..self.count).map(|index| self.span(index)) {
            out.extend_from_slice(&span.sequence.to_le_bytes());
            out.extend_from_slice(&span.offset.to_le_bytes());
            out.extend_from_slice(&u64::from(span.topic.0).to_le_bytes());
        }
    }

    /// Sequences rise from span to span, and end below the next one.
    fn decode(&mut self, next: u64, spans: &[u8]) -> Option<()> {
        self.next = next;
        let mut least = 0;
        for bytes in spans.chunks_exact(SPAN_BYTES) {
            let (sequence, offset) = (u64_at(bytes, 0), u64_at(bytes, 8));
            if sequence < least || sequence >= next || u32_at(bytes, 20) != 0 {
                return None;
            }
            least = sequence + 1;
            offset.checked_add(next - sequence)?;
            let topic = TopicId(u32_at(bytes, 16));
            self.spans[self.count] = Span { sequence, offset, topic };
            self.count += 1;
        }
        Some(())
    }
}
