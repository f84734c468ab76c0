//! The body of a value packet: runs of records, and the digest over what was delivered.
//!
//! ```text
//! body = runs, one after another            run, 16 bytes and what follows
//!   [run][run] ... [run]                      0 topic   4  id; 0 if not of records
//!                                             4 kind    1  1 = records, 2 = creation of a topic,
//! record = length u32, bytes                               3 = records of a producer,
//! name   = the bytes of the run                            4 = registration of a producer
//! stamp, 24 bytes before the records          5 zero    3
//!   0 producer u64, 8 sequence u64,           8 count   4  records; 0 if not of records
//!   16 epoch u32, 20 zero                    12 bytes   4  of what follows
//! ```
//!
//! The stamp of a producer's run names the sequence of its first record; each takes the next.
//!
//! Invariants: little-endian; a body is checked run by run before any record of the run is seen,
//! and hostile bytes end in a [`RunError`], never in a panic. The header of the run being written
//! is right after every record, so a packet can be sent at any time.

use crate::mail::TopicId;
use chainring_ring::header::{u32_at, u64_at};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of a run's header.
pub const RUN_HEADER_BYTES: usize = 16;
/// Bytes in front of each record: its length.
pub const RECORD_PREFIX_BYTES: usize = 4;
/// Bytes of a stamp, between the header of a producer's run and its records.
pub const STAMP_BYTES: usize = 24;
/// Longest topic name, bytes.
pub const TOPIC_NAME_MAX: usize = 249;

const RECORDS: u8 = 1;
const CREATE: u8 = 2;
const STAMPED: u8 = 3;
const REGISTER: u8 = 4;

/// Whose records these are, and which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The producer.
    pub producer: u64,
    /// Its epoch: a newer one begins anew at sequence 0, and an older one is over.
    pub epoch: u32,
    /// Sequence of the first record.
    pub sequence: u64,
}

impl Stamp {
    /// The stamp of the record that comes `count` later.
    #[must_use]
    pub fn after(self, count: u32) -> Stamp {
        Stamp { sequence: self.sequence.saturating_add(u64::from(count)), ..self }
    }

    fn encode(self, out: &mut [u8]) {
        out[0..8].copy_from_slice(&self.producer.to_le_bytes());
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..20].copy_from_slice(&self.epoch.to_le_bytes());
        out[20..24].fill(0);
    }

    fn decode(bytes: &[u8]) -> Option<Stamp> {
        let (producer, sequence) = (u64_at(bytes, 0), u64_at(bytes, 8));
        (bytes[20..24] == [0; 4]).then_some(Stamp { producer, epoch: u32_at(bytes, 16), sequence })
    }
}

/// True for what may name a topic: `[A-Za-z0-9._-]{1,249}`.
pub fn is_topic_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=TOPIC_NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// Fills a body. It holds positions only: the body is passed to every call and must be the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunWriter {
    /// End of what is written.
    at: usize,
    /// The run that goes on.
    run: Option<OpenRun>,
}

/// A run that may go on.
#[derive(Clone, Copy, Debug)]
struct OpenRun {
    header: usize,
    topic: TopicId,
    count: u32,
    /// The stamp that the next record must have.
    next: Option<Stamp>,
}

impl RunWriter {
    /// Nothing written.
    pub const fn new() -> RunWriter {
        RunWriter { at: 0, run: None }
    }

    /// Bytes written: the `length` of the frame.
    pub fn bytes(&self) -> usize {
        self.at
    }

    /// Bytes that one more record of `length` bytes takes.
    pub fn need(&self, topic: TopicId, stamp: Option<Stamp>, length: usize) -> usize {
        let head = RUN_HEADER_BYTES + stamp.map_or(0, |_| STAMP_BYTES);
        length + RECORD_PREFIX_BYTES + self.going_on(topic, stamp).map_or(head, |_| 0)
    }

    fn going_on(&self, topic: TopicId, stamp: Option<Stamp>) -> Option<OpenRun> {
        self.run.filter(|run| run.topic == topic && run.next == stamp)
    }

    /// What follows begins a run of its own: a request of a producer is judged by itself.
    pub fn end_run(&mut self) {
        self.run = None;
    }

    /// Appends a record; false, and nothing written, if it does not fit into `body`.
    pub fn push(&mut self, body: &mut [u8], topic: TopicId, record: &[u8]) -> bool {
        self.push_as(body, topic, None, record)
    }

    /// Appends a record that may be a producer's.
    pub fn push_as(
        &mut self,
        body: &mut [u8],
        topic: TopicId,
        stamp: Option<Stamp>,
        record: &[u8],
    ) -> bool {
        if self.need(topic, stamp, record.len()) > body.len() - self.at {
            return false;
        }
        let run = self.going_on(topic, stamp).unwrap_or_else(|| {
            let header = self.at;
            self.at += RUN_HEADER_BYTES;
            if let Some(stamp) = stamp {
                stamp.encode(&mut body[self.at..][..STAMP_BYTES]);
                self.at += STAMP_BYTES;
            }
            OpenRun { header, topic, count: 0, next: stamp }
        });
        let bytes = &mut body[self.at..][..RECORD_PREFIX_BYTES + record.len()];
        bytes[..RECORD_PREFIX_BYTES].copy_from_slice(&(record.len() as u32).to_le_bytes());
        bytes[RECORD_PREFIX_BYTES..].copy_from_slice(record);
        self.at += bytes.len();
        let (count, next) = (run.count + 1, stamp.map(|stamp| stamp.after(1)));
        self.run = Some(OpenRun { count, next, ..run });
        let kind = if stamp.is_some() { STAMPED } else { RECORDS };
        put_run(body, run.header, topic, kind, count, self.at);
        true
    }

    /// Appends the registration of a producer; false, and nothing written, if it does not fit.
    pub fn register(&mut self, body: &mut [u8]) -> bool {
        if RUN_HEADER_BYTES > body.len() - self.at {
            return false;
        }
        let header = self.at;
        self.at += RUN_HEADER_BYTES;
        put_run(body, header, TopicId(0), REGISTER, 0, self.at);
        self.run = None;
        true
    }

    /// Appends the creation of a topic; false, and nothing written, if it does not fit.
    ///
    /// # Panics
    /// If `name` is longer than [`TOPIC_NAME_MAX`].
    pub fn create(&mut self, body: &mut [u8], name: &str) -> bool {
        assert!(name.len() <= TOPIC_NAME_MAX);
        if RUN_HEADER_BYTES + name.len() > body.len() - self.at {
            return false;
        }
        let header = self.at;
        self.at += RUN_HEADER_BYTES + name.len();
        body[header + RUN_HEADER_BYTES..self.at].copy_from_slice(name.as_bytes());
        put_run(body, header, TopicId(0), CREATE, 0, self.at);
        self.run = None;
        true
    }
}

fn put_run(body: &mut [u8], header: usize, topic: TopicId, kind: u8, count: u32, end: usize) {
    let bytes = (end - header - RUN_HEADER_BYTES) as u32;
    let out = &mut body[header..header + RUN_HEADER_BYTES];
    out[0..4].copy_from_slice(&topic.0.to_le_bytes());
    out[4..8].copy_from_slice(&[kind, 0, 0, 0]);
    out[8..12].copy_from_slice(&count.to_le_bytes());
    out[12..16].copy_from_slice(&bytes.to_le_bytes());
}

/// Why bytes are not a body of runs. The packet is damaged or was made by another release; its
/// node is to be asked, not the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A run's header or bytes reach beyond the body.
    #[error("run at byte {at} reaches beyond the body")]
    Short {
        /// Byte offset of the run in the body.
        at: usize,
    },
    /// A kind that this version does not know, or a reserved byte that is not zero.
    #[error("run at byte {at} is of a kind that this release does not know")]
    Kind {
        /// Byte offset of the run in the body.
        at: usize,
    },
    /// The records do not fill the run, or are not as many as it says.
    #[error("records of the run at byte {at} do not add up")]
    Records {
        /// Byte offset of the run in the body.
        at: usize,
    },
    /// A creation entry with a name that is none.
    #[error("run at byte {at} creates a topic with an impossible name")]
    Name {
        /// Byte offset of the run in the body.
        at: usize,
    },
}

/// One run of a body, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run<'a> {
    /// Records of a topic, in order.
    Records {
        /// Byte offset of the run's header in the body.
        at: usize,
        /// Whose.
        topic: TopicId,
        /// How many; at least one.
        count: u32,
        /// Their bytes, lengths included; [`records`] takes them apart.
        bytes: &'a [u8],
        /// Of the first one, if they are a producer's.
        stamp: Option<Stamp>,
    },
    /// A topic is to be created.
    Create {
        /// Byte offset of the run's header in the body.
        at: usize,
        /// Its name.
        name: &'a str,
    },
    /// A producer wants an id.
    Register {
        /// Byte offset of the run's header in the body.
        at: usize,
    },
}

impl Run<'_> {
    /// Where the next run begins.
    pub fn end(&self) -> usize {
        match self {
            Run::Records { at, bytes, stamp, .. } => {
                at + RUN_HEADER_BYTES + stamp.map_or(0, |_| STAMP_BYTES) + bytes.len()
            }
            Run::Create { at, name } => at + RUN_HEADER_BYTES + name.len(),
            Run::Register { at } => at + RUN_HEADER_BYTES,
        }
    }
}

/// The runs of a body, in order. Ends behind the first error.
pub fn runs(body: &[u8]) -> Runs<'_> {
    Runs { body, at: 0 }
}

/// Iterator over the runs of a body.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Runs<'a> {
    type Item = Result<Run<'a>, RunError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.body.len() {
            return None;
        }
        let run = run_at(self.body, self.at);
        self.at = run.as_ref().map_or(self.body.len(), Run::end);
        Some(run)
    }
}

/// The run whose header begins at `at`.
///
/// # Errors
/// [`RunError`].
pub fn run_at(body: &[u8], at: usize) -> Result<Run<'_>, RunError> {
    let rest = body.get(at..).ok_or(RunError::Short { at })?;
    if rest.len() < RUN_HEADER_BYTES {
        return Err(RunError::Short { at });
    }
    let (header, rest) = rest.split_at(RUN_HEADER_BYTES);
    if header[5..8] != [0; 3] {
        return Err(RunError::Kind { at });
    }
    let (topic, count) = (TopicId(u32_at(header, 0)), u32_at(header, 8));
    let bytes = rest.get(..u32_at(header, 12) as usize).ok_or(RunError::Short { at })?;
    match header[4] {
        RECORDS => records_run(at, topic, count, bytes, None),
        STAMPED => {
            let parts = bytes.split_at_checked(STAMP_BYTES).ok_or(RunError::Short { at })?;
            let stamp = Stamp::decode(parts.0).ok_or(RunError::Kind { at })?;
            records_run(at, topic, count, parts.1, Some(stamp))
        }
        REGISTER if count == 0 && topic == TopicId(0) && bytes.is_empty() => {
            Ok(Run::Register { at })
        }
        CREATE => {
            let name = core::str::from_utf8(bytes).ok().filter(|name| is_topic_name(name));
            let name = name.filter(|_| count == 0 && topic == TopicId(0));
            Ok(Run::Create { at, name: name.ok_or(RunError::Name { at })? })
        }
        _ => Err(RunError::Kind { at }),
    }
}

fn records_run(
    at: usize,
    topic: TopicId,
    count: u32,
    bytes: &[u8],
    stamp: Option<Stamp>,
) -> Result<Run<'_>, RunError> {
    if count == 0 || count_records(bytes) != Some(count) {
        return Err(RunError::Records { at });
    }
    Ok(Run::Records { at, topic, count, bytes, stamp })
}

fn count_records(mut bytes: &[u8]) -> Option<u32> {
    let mut count = 0;
    while !bytes.is_empty() {
        let (prefix, rest) = bytes.split_first_chunk::<RECORD_PREFIX_BYTES>()?;
        bytes = rest.get(u32::from_le_bytes(*prefix) as usize..)?;
        count += 1;
    }
    Some(count)
}

/// The records of a run, in order; `bytes` as [`Run::Records`] has them.
pub fn records(bytes: &[u8]) -> Records<'_> {
    Records { bytes }
}

/// Iterator over the records of a run. Ends early on bytes that [`runs`] did not check.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (prefix, rest) = self.bytes.split_first_chunk::<RECORD_PREFIX_BYTES>()?;
        let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*prefix) as usize)?;
        self.bytes = rest;
        Some(record)
    }
}

/// A line that is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} has more than {limit} bytes, its line feed counted")]
pub struct LineTooLong {
    /// From 1.
    pub line: u64,
    /// Largest record, bytes.
    pub limit: u32,
}

/// Ends (exclusive) of the records of a text: a record is the bytes of a line with its line feed;
/// only LF ends a line, and the last one may lack it. The text is checked whole.
///
/// # Errors
/// [`LineTooLong`] for the first line over `record_max`.
///
/// # Panics
/// If the text has 4 GiB or more.
pub fn line_ends(text: &[u8], record_max: u32) -> Result<Vec<u32>, LineTooLong> {
    assert!(text.len() <= u32::MAX as usize);
    let mut ends = Vec::with_capacity(line_ends_bytes(text) as usize / size_of::<u32>());
    let mut start = 0;
    let feeds = memchr::memchr_iter(b'\n', text).map(|at| at + 1);
    for end in feeds.chain(Some(text.len())) {
        if end - start > record_max as usize {
            return Err(LineTooLong { line: ends.len() as u64 + 1, limit: record_max });
        }
        if end > start {
            ends.push(end as u32);
        }
        start = end;
    }
    Ok(ends)
}

/// Memory that [`line_ends`] of a text takes, bytes.
pub fn line_ends_bytes(text: &[u8]) -> u64 {
    (memchr::memchr_iter(b'\n', text).count() as u64 + 1) * size_of::<u32>() as u64
}

/// The running digest over delivered records: equal positions, equal digests, at every node.
///
/// It is a sum, modulo 2^128, of one hash per record over (hash of its bytes, topic, length,
/// offset). A sum can be recomputed from what was shipped, topic by topic, whatever way the
/// topics were interleaved; topic and offset in each term still pin every record to its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u128);

impl Digest {
    /// Adds one record.
    pub fn add(&mut self, topic: TopicId, offset: u64, record: &[u8]) {
        let mut term = [0; 32];
        term[0..16].copy_from_slice(&xxh3_128(record).to_le_bytes());
        term[16..20].copy_from_slice(&topic.0.to_le_bytes());
        term[20..24].copy_from_slice(&(record.len() as u32).to_le_bytes());
        term[24..32].copy_from_slice(&offset.to_le_bytes());
        self.0 = self.0.wrapping_add(xxh3_128(&term));
    }

    /// The two halves that the gauges carry: low, high.
    pub fn halves(self) -> (u64, u64) {
        (self.0 as u64, (self.0 >> 64) as u64)
    }

    /// From the halves that the gauges carry.
    pub fn from_halves(low: u64, high: u64) -> Digest {
        Digest(u128::from(high) << 64 | u128::from(low))
    }
}

#[cfg(test)]
mod tests;
