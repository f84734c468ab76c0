//! Load from inside a node: a source writes its records straight into the packets.
//!
//! For those who embed a node, and for demonstrations and measurements. Invariant: a source is
//! asked on the shard thread, so it neither waits nor allocates.

use crate::mail::TopicId;
use crate::records::RunWriter;

/// What a source answers when asked for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// The packet is full; there is more.
    More,
    /// Nothing now; ask again.
    Idle,
    /// Nothing for ever.
    Exhausted,
}

/// Where records come from.
pub trait Source: Send + core::fmt::Debug {
    /// Fills a packet as far as it goes or as there are records.
    fn fill(&mut self, packet: &mut Filling<'_>) -> Supply;

    /// Bytes of the record that comes next, 0 if that is not known: a packet that is opened now
    /// has to have room for it.
    fn next_bytes(&mut self) -> usize {
        0
    }

    /// A topic came into being.
    fn topic(&mut self, _name: &str, _id: TopicId) {}
}

/// A packet being filled.
#[derive(Debug)]
pub struct Filling<'a> {
    pub(crate) body: &'a mut [u8],
    pub(crate) writer: &'a mut RunWriter,
    pub(crate) records: u32,
}

impl Filling<'_> {
    /// Appends a record; false if the packet is full.
    pub fn push(&mut self, topic: TopicId, record: &[u8]) -> bool {
        let pushed = self.writer.push(self.body, topic, record);
        self.records += u32::from(pushed);
        pushed
    }

    /// Proposes a topic; false if the packet is full.
    pub fn create(&mut self, name: &str) -> bool {
        self.writer.create(self.body, name)
    }
}
