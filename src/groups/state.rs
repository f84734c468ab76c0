//! The replicated state as bytes: what a node must know to go on from a position.
//!
//! ```text
//!   0 table          168  next sequences; see `ring/src/sequences.rs`
//! 168 configuration  148  who votes; see `ring/src/configuration.rs`
//! 316 topics         4    count
//! 320 records        8       then  the next offset of each topic, 8 each
//! 328 bytes          8             bytes of the producers, 8; the producers (`producers/state.rs`)
//! 336 digest        16             names: of each topic its length, 2, and it
//! ```
//! The shard knows topics by the hashes of their names; the names are added by the control thread.
//! Invariants: equal states have equal bytes, and what [`State::decode`] takes goes on exactly as
//! the state did that was encoded.

use super::producers::Producers;
use super::{Groups, TOPICS_MAX};
use crate::mail::TopicId;
use crate::records::Digest;
use chainring_ring::configuration::{CONFIGURATION_BYTES, Configuration};
use chainring_ring::header::{u32_at, u64_at, u128_at};
use chainring_ring::ids::Instance;
use chainring_ring::mutant;
use chainring_ring::sequences::{Sequences, TABLE_BYTES};

/// Where the topics are counted.
const TOPICS_AT: usize = TABLE_BYTES + CONFIGURATION_BYTES;
const HEAD_BYTES: usize = TOPICS_AT + 36;

/// Bytes that are no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not the state of a log: damaged, or of another release")]
pub struct StateError;

/// See the file's head.
#[derive(Clone, Debug)]
pub struct State {
    /// The position that it is of.
    pub position: Instance,
    /// Which occurrence of a value counts.
    pub table: Sequences,
    /// Who votes.
    pub configuration: Configuration,
    /// Topics, offsets, producers.
    pub groups: Groups,
    /// Names of the topics, in order of id.
    pub names: Vec<Box<str>>,
}

impl Groups {
    /// Bytes that [`Groups::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        HEAD_BYTES + 8 * self.next.len() + 8 + self.producers.encoded_bytes()
    }

    /// Appends the state but for the names. Allocates nothing if `out` has the room.
    pub fn encode(&self, table: &Sequences, configuration: &Configuration, out: &mut Vec<u8>) {
        let mut members = [0; CONFIGURATION_BYTES];
        configuration.encode(&mut members);
        out.extend_from_slice(&table.encode());
        out.extend_from_slice(&members);
        out.extend_from_slice(&(self.next.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.digest.0.to_le_bytes());
        for next in &self.next {
            out.extend_from_slice(&next.to_le_bytes());
        }
        let none;
        let producers = if mutant!(ProducersNotInState) {
            none = Producers::with_limit(0);
            &none
        } else {
            &self.producers
        };
        out.extend_from_slice(&(producers.encoded_bytes() as u64).to_le_bytes());
        producers.encode(out);
    }
}

/// Topics in what [`Groups::encode`] appended.
pub fn topics_in(state: &[u8]) -> usize {
    state.get(..HEAD_BYTES).map_or(0, |head| u32_at(head, TOPICS_AT) as usize)
}

/// Appends the names to what [`Groups::encode`] appended.
pub fn encode_names<'a>(names: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    for name in names {
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
    }
}

impl State {
    /// The state in which every log begins.
    pub fn empty(configuration: Configuration) -> State {
        let (position, table) = (Instance(0), Sequences::default());
        State { position, table, configuration, groups: Groups::new(), names: Vec::new() }
    }

    /// Reads a state.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn decode(position: Instance, bytes: &[u8]) -> Result<State, StateError> {
        State::read(position, bytes).ok_or(StateError)
    }

    fn read(position: Instance, bytes: &[u8]) -> Option<State> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let table = Sequences::decode(&head[..TABLE_BYTES]).ok()?;
        let configuration = Configuration::decode(&head[TABLE_BYTES..TOPICS_AT]).ok()?;
        let topics = topics_in(head);
        if topics > TOPICS_MAX as usize {
            return None;
        }
        let (ends, rest) = rest.split_at_checked(8 * topics)?;
        let (length, rest) = rest.split_at_checked(8)?;
        let length = usize::try_from(u64_at(length, 0)).ok()?;
        let (producers, mut rest) = rest.split_at_checked(length)?;
        let mut groups = Groups::new();
        let mut names = Vec::with_capacity(topics);
        for end in ends.chunks_exact(8) {
            let (length, behind) = rest.split_at_checked(2)?;
            let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
            let (name, behind) = behind.split_at_checked(length)?;
            let name = std::str::from_utf8(name).ok()?;
            let TopicId(id) = groups.create(name)?;
            groups.next[id as usize] = u64_at(end, 0);
            names.push(name.into());
            rest = behind;
        }
        groups.records = u64_at(head, TOPICS_AT + 4);
        groups.bytes = u64_at(head, TOPICS_AT + 12);
        groups.digest = Digest(u128_at(head, TOPICS_AT + 20));
        groups.producers = Producers::decode(producers).ok()?;
        rest.is_empty().then_some(State { position, table, configuration, groups, names })
    }

    /// Names of the topics and their next offsets.
    pub fn topics(&self) -> Vec<(Box<str>, u64)> {
        self.names.iter().cloned().zip(self.groups.next.iter().copied()).collect()
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.groups.encoded_bytes());
        self.groups.encode(&self.table, &self.configuration, &mut out);
        encode_names(self.names.iter().map(|name| &**name), &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{RunWriter, Stamp};
    use chainring_ring::ids::{Incarnation, NodeId};

    fn body(turn: u64) -> Vec<u8> {
        let mut body = vec![0; 4096];
        let mut writer = RunWriter::new();
        assert!(writer.create(&mut body, ["a", "b", "longer"][turn as usize % 3]));
        let stamp = Stamp { producer: 7, epoch: 1, sequence: turn };
        assert!(writer.push(&mut body, TopicId(0), b"x\n"));
        assert!(writer.push_as(&mut body, TopicId(0), Some(stamp), b"y\n"));
        body.truncate(writer.bytes());
        body
    }

    /// What was read goes on as what was written, and is written the same.
    #[test]
    fn a_state_goes_on() {
        let voters = [NodeId(1), NodeId(2)].map(|node| (node, Incarnation(1)));
        let mut state = State::empty(Configuration::first(voters));
        for turn in 0..5 {
            state.groups.deliver(&body(turn), |_| {}).unwrap();
        }
        state.names = ["a", "b", "longer"].map(Box::from).to_vec();
        state.position = Instance(5);
        let bytes = state.encode();
        let mut read = State::decode(Instance(5), &bytes).unwrap();
        assert_eq!(read.encode(), bytes);
        for groups in [&mut state.groups, &mut read.groups] {
            // One that is repeated, one that is new.
            groups.deliver(&body(4), |_| {}).unwrap();
            groups.deliver(&body(5), |_| {}).unwrap();
        }
        assert_eq!(read.groups.digest(), state.groups.digest());
        assert_eq!(read.groups.end(TopicId(0)), state.groups.end(TopicId(0)));
        assert_eq!(read.groups.end(TopicId(0)), Some(13), "of 7 turns the repeated one adds one");
        for cut in 0..bytes.len() {
            assert!(State::decode(Instance(5), &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
