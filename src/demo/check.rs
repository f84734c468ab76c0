//! Comparing what the nodes kept with what was shipped, record by record.
//!
//! Invariants: what is compared comes from the node's log: on disk as a stopped node left it, or
//! from the memory log of a running one, through its own HTTP port; a log that ends early, or has
//! more than was shipped, is a problem; every problem names node, topic and offset.

use super::feed::Shared;
use super::parts::{Part, Reader};
use super::{DemoError, system};
use crate::cli::verify::log::{NodeLog, Value};
use crate::http::client::{Answer, get};
use crate::records::{Digest, Run, records, runs};
use chainring_ring::ids::{Entry, Instance};
use chainring_ring::sequences::Sequences;
use chainring_storage::DamageState;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// Problems named for one node; the rest would say the same.
const PROBLEMS_MAX: usize = 5;
/// Records of one HTTP answer.
const ANSWER_RECORDS: u64 = 1_000_000;
/// A node's readers may be so far behind its shard.
const LAG: Duration = Duration::from_secs(20);

/// The digest over what was shipped: the same sum that nodes keep, topic by topic.
pub fn digest(parts: &[Part], shared: &Shared) -> Digest {
    let mut digest = Digest::default();
    for (index, part) in parts.iter().enumerate() {
        let Some(topic) = shared.topic(index) else { continue };
        let mut reader = part.content.reader();
        let mut offset = 0;
        while let Some(record) = reader.peek() {
            digest.add(topic, offset, record);
            offset += 1;
            reader.advance();
        }
    }
    digest
}

/// Compares the log that a stopped node has on disk.
pub fn disk(node: usize, dir: &Path, parts: &[Part]) -> Result<Vec<String>, DemoError> {
    let mut log = NodeLog::open(dir)?;
    let mut compared = Compared::new(node, parts);
    for damage in &log.damage {
        if damage.state == DamageState::Unknown {
            compared.problem("its log is damaged".to_owned());
        }
    }
    let mut sequences = Sequences::default();
    for position in 0..log.decided.0 {
        let Some(entry) = log.entry(Instance(position)) else {
            compared.problem(format!("its log has no order for instance {position}"));
            break;
        };
        let (true, Entry::Value(id)) = (sequences.apply(&entry), entry) else { continue };
        match log.value(id) {
            Value::Intact { body, .. } => compared.take(&body),
            Value::Damaged { reason, .. } => {
                compared.problem(format!("the value of instance {position}: {reason}"));
            }
        }
    }
    Ok(compared.end())
}

/// What is left to be compared of a node's log.
struct Compared<'a> {
    node: usize,
    parts: &'a [Part],
    names: HashMap<&'a str, usize>,
    readers: Vec<Reader>,
    /// By topic id, the part.
    topics: Vec<Option<usize>>,
    seen: HashSet<String>,
    problems: Vec<String>,
}

impl<'a> Compared<'a> {
    fn new(node: usize, parts: &'a [Part]) -> Compared<'a> {
        Compared {
            node,
            parts,
            names: parts.iter().enumerate().map(|(i, part)| (part.topic.as_str(), i)).collect(),
            readers: parts.iter().map(|part| part.content.reader()).collect(),
            topics: Vec::new(),
            seen: HashSet::new(),
            problems: Vec::new(),
        }
    }

    fn problem(&mut self, what: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(format!("node {}: {what}", self.node + 1));
        }
    }

    /// Takes the body of the next delivered value.
    fn take(&mut self, body: &[u8]) {
        for run in runs(body) {
            match run {
                Ok(Run::Create { name, .. }) => {
                    if self.seen.insert(name.to_owned()) {
                        self.topics.push(self.names.get(name).copied());
                    }
                }
                Ok(Run::Records { topic, bytes, .. }) => {
                    match self.topics.get(topic.0 as usize).copied().flatten() {
                        Some(part) => self.take_records(part, bytes),
                        None => self.problem(format!("topic {} is nobody's", topic.0)),
                    }
                }
                Ok(Run::Register { .. }) => {}
                Err(error) => self.problem(error.to_string()),
            }
        }
    }

    fn take_records(&mut self, part: usize, bytes: &[u8]) {
        let reader = &mut self.readers[part];
        for record in records(bytes) {
            let same = reader.peek() == Some(record);
            let offset = reader.index();
            reader.advance();
            if !same {
                let topic = &self.parts[part].topic;
                let what = format!("topic {topic} offset {offset} is not what was shipped");
                return self.problem(what);
            }
        }
    }

    /// Everything that was shipped has to be there.
    fn end(mut self) -> Vec<String> {
        for index in 0..self.readers.len() {
            if self.readers[index].peek().is_some() {
                let (topic, offset) = (&self.parts[index].topic, self.readers[index].index());
                self.problem(format!("topic {topic} ends at offset {offset}, more was shipped"));
            }
        }
        self.problems
    }
}

/// Compares the memory log of a running node, from the first record that it still has.
pub fn memory(
    node: usize,
    url: &str,
    parts: &[Part],
    first_kept: &mut u64,
) -> Result<Vec<String>, DemoError> {
    let mut problems = Vec::new();
    let until = Instant::now() + LAG;
    for part in parts {
        let mut reader = part.content.reader();
        let end = part.content.sum().0;
        while reader.index() < end && problems.len() < PROBLEMS_MAX {
            let offset = reader.index();
            let path = format!("/v1/logs/{}?offset={offset}&limit={ANSWER_RECORDS}", part.topic);
            let answer = get(url, &path, LAG).map_err(|error| {
                system(format!("read back from node {}", node + 1))(std::io::Error::other(error))
            })?;
            let outcome = take_answer(&answer, &mut reader, first_kept);
            let what = match outcome {
                Taken::Some => continue,
                Taken::Nothing if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                Taken::Nothing => "the node does not serve it".to_owned(),
                Taken::Differs => "it is not what was shipped".to_owned(),
                Taken::Status(status) => format!("the node answers {status}"),
            };
            let (node, topic, offset) = (node + 1, &part.topic, reader.index());
            problems.push(format!("node {node}: topic {topic} offset {offset}: {what}"));
            break;
        }
    }
    Ok(problems)
}

/// What an answer brought.
enum Taken {
    /// Records, or the place of the first that is left.
    Some,
    /// Nothing yet.
    Nothing,
    /// Other bytes than those shipped.
    Differs,
    /// Something else.
    Status(u16),
}

fn take_answer(answer: &Answer, reader: &mut Reader, dropped: &mut u64) -> Taken {
    match answer.status {
        404 => Taken::Nothing,
        410 => {
            let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
            let first = body.as_ref().and_then(first_offset);
            match first {
                Some(first) if first > reader.index() => {
                    *dropped += first - reader.index();
                    reader.skip_to(first);
                    Taken::Some
                }
                _ => Taken::Status(410),
            }
        }
        200 if answer.body.is_empty() => Taken::Nothing,
        200 => take_bytes(&answer.body, reader),
        status => Taken::Status(status),
    }
}

/// Where an answer 410 says that the log begins.
fn first_offset(body: &serde_json::Value) -> Option<u64> {
    body.get("first_offset").or_else(|| body.get("error")?.get("first_offset"))?.as_u64()
}

fn take_bytes(mut bytes: &[u8], reader: &mut Reader) -> Taken {
    while !bytes.is_empty() {
        let Some(record) = reader.peek() else { return Taken::Differs };
        let Some(rest) = bytes.strip_prefix(record) else { return Taken::Differs };
        bytes = rest;
        reader.advance();
    }
    Taken::Some
}
