//! Groups: the topics of a log, their offsets, and the producers of its records.
//!
//! Replicated state: a function of the delivered prefix. Invariants: a topic's id is the place of
//! its creation entry among those that counted; offsets of a topic are given in order of delivery,
//! without a gap; a record that its producer repeats takes none; the digest covers every record
//! that got an offset, and the producers. Nothing is allocated after `new`.

pub mod producers;
mod state;

pub use state::{State, StateError, encode_names, topics_in};

use crate::mail::TopicId;
use crate::records::{Digest, Run, RunError, Stamp, records, runs};
use chainring_ring::mark;
use producers::{Fence, Producers};
use xxhash_rust::xxh3::xxh3_128;

/// Most topics of a log. Not a setting: what is delivered must not depend on the node.
pub const TOPICS_MAX: u32 = 10_000;

/// Topics and offsets.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Open addressing: hash of the name (its identity here) and id.
    names: Box<[Option<(u128, TopicId)>]>,
    /// By topic id, the offset of its next record.
    next: Vec<u64>,
    limit: usize,
    records: u64,
    bytes: u64,
    digest: Digest,
    producers: Producers,
}

impl Default for Groups {
    fn default() -> Groups {
        Groups::new()
    }
}

/// What the delivery of a value did.
#[derive(Debug)]
pub enum Delivered<'a> {
    /// Records got offsets.
    Run {
        /// Of which topic.
        topic: TopicId,
        /// Offset of the first.
        first_offset: u64,
        /// How many.
        count: u32,
        /// Records of the run in front of them, which were in the log before.
        skip: u32,
        /// Byte offset of the run in the body.
        at: u32,
    },
    /// What whoever sent a run is told: follows its [`Delivered::Run`], if there is one.
    Answer {
        /// Records of the run.
        count: u32,
        /// Offsets of the first and the last one.
        offsets: Result<(u64, u64), Fence>,
    },
    /// A producer got an id.
    Producer {
        /// It.
        id: u64,
    },
    /// A topic came into being.
    Topic {
        /// Its id.
        id: TopicId,
        /// Its name.
        name: &'a str,
    },
}

impl Groups {
    /// No topics; room for [`TOPICS_MAX`].
    pub fn new() -> Groups {
        Groups::with_limit(TOPICS_MAX as usize)
    }

    pub(super) fn with_limit(limit: usize) -> Groups {
        let slots = (2 * limit).next_power_of_two();
        Groups {
            names: vec![None; slots].into_boxed_slice(),
            next: Vec::with_capacity(limit),
            limit,
            records: 0,
            bytes: 0,
            digest: Digest(0),
            producers: Producers::new(),
        }
    }

    /// Delivers the body of a value; tells what it did, run by run.
    ///
    /// # Errors
    /// [`RunError`] for a body that no batcher of ours fills; what lies before is delivered.
    pub fn deliver(
        &mut self,
        body: &[u8],
        mut tell: impl FnMut(Delivered<'_>),
    ) -> Result<(), RunError> {
        for run in runs(body) {
            match run? {
                Run::Records { topic, count, bytes, at, stamp } => {
                    self.deliver_run(topic, count, bytes, at as u32, stamp, &mut tell);
                }
                Run::Register { .. } => {
                    if let Some(id) = self.producers.register() {
                        tell(Delivered::Producer { id });
                    }
                }
                Run::Create { name, .. } => {
                    if let Some(id) = self.create(name) {
                        tell(Delivered::Topic { id, name });
                    }
                }
            }
        }
        Ok(())
    }

    fn deliver_run(
        &mut self,
        topic: TopicId,
        count: u32,
        bytes: &[u8],
        at: u32,
        stamp: Option<Stamp>,
        tell: &mut impl FnMut(Delivered<'_>),
    ) {
        let Some(next) = self.next.get_mut(topic.0 as usize) else { return };
        let first_offset = *next;
        let placed = match stamp {
            None => Ok((0, first_offset, first_offset + u64::from(count) - 1)),
            Some(stamp) => self
                .producers
                .deliver(stamp, topic, count, first_offset)
                .map(|placed| (placed.repeated, placed.first, placed.last)),
        };
        let skip = placed.map_or(count, |(repeated, ..)| repeated);
        let new = count - skip;
        for (offset, record) in (first_offset..).zip(records(bytes).skip(skip as usize)) {
            self.digest.add(topic, offset, record);
            self.bytes += record.len() as u64;
        }
        *next += u64::from(new);
        self.records += u64::from(new);
        if new > 0 {
            tell(Delivered::Run { topic, first_offset, count: new, skip, at });
        }
        tell(Delivered::Answer { count, offsets: placed.map(|(_, first, last)| (first, last)) });
    }

    /// The id of a new topic; `None` if the name has one, or there are too many.
    fn create(&mut self, name: &str) -> Option<TopicId> {
        let hash = xxh3_128(name.as_bytes());
        let mask = self.names.len() - 1;
        let mut slot = hash as usize & mask;
        while let Some((known, _)) = self.names[slot] {
            if known == hash {
                mark!(TopicKnownAlready);
                return None;
            }
            slot = (slot + 1) & mask;
        }
        if self.next.len() == self.limit {
            return None;
        }
        let id = TopicId(self.next.len() as u32);
        self.names[slot] = Some((hash, id));
        self.next.push(0);
        Some(id)
    }

    /// Records delivered.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the records delivered.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The running digest.
    pub fn digest(&self) -> Digest {
        Digest(self.digest.0.wrapping_add(self.producers.digest()))
    }

    /// The producers.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Forgets all producers: what a replay must never do.
    pub fn forget_producers(&mut self) {
        self.producers = Producers::new();
    }

    /// Offset of a topic's next record.
    pub fn end(&self, topic: TopicId) -> Option<u64> {
        self.next.get(topic.0 as usize).copied()
    }

    /// True if no further topic can come into being.
    pub fn is_full(&self) -> bool {
        self.next.len() == self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::RunWriter;

    #[test]
    fn a_name_has_one_id_and_offsets_have_no_gap() {
        let mut body = [0u8; 4096];
        let mut writer = RunWriter::new();
        for name in ["a", "b", "a", "c"] {
            assert!(writer.create(&mut body, name));
        }
        for topic in [0, 1, 0] {
            assert!(writer.push(&mut body, TopicId(topic), b"x\n"));
        }
        assert!(writer.push(&mut body, TopicId(9), b"nobody's\n"));
        let mut groups = Groups::with_limit(2);
        let (mut ids, mut runs) = (vec![], vec![]);
        let told = groups.deliver(&body[..writer.bytes()], |delivered| match delivered {
            Delivered::Topic { id, name } => ids.push((id.0, name.to_owned())),
            Delivered::Run { topic, first_offset, count, .. } => {
                runs.push((topic.0, first_offset, count));
            }
            Delivered::Answer { .. } | Delivered::Producer { .. } => {}
        });
        assert!(told.is_ok());
        assert_eq!(ids, [(0, "a".to_owned()), (1, "b".to_owned())], "the third is one too many");
        assert_eq!(runs, [(0, 0, 1), (1, 0, 1), (0, 1, 1)]);
        assert_eq!((groups.records(), groups.bytes(), groups.is_full()), (3, 6, true));
    }
}
