//! `chainring verify`: compares the decided logs of nodes by content, instance by instance.
//!
//! Invariants: only what a node itself knows to be decided is compared; a value counts as the next
//! of its origin or not at all, as at delivery; the first difference is named by node, topic and
//! offset, where one intact copy says which they are. A verification that compared nothing while
//! there is data has failed.
//!
//! Memory: about 150 bytes per order of each log; values are read as they are compared.

pub(crate) mod log;

use super::inspect::{damage_json, damage_name, failure, log_dir};
use super::out::{Exit, Failure, Output, progress, table};
use crate::groups::{Delivered as Told, Groups};
use crate::records::{RECORD_PREFIX_BYTES, Run, records, runs};
use chainring_ring::ids::{Durability, Entry, Instance, ValueId};
use chainring_ring::sequences::Sequences;
use chainring_storage::config::{offset_of, segment_of};
use chainring_storage::{Damage, DamageState};
use log::{NodeLog, Value};
use serde_json::json;
use std::path::PathBuf;

/// The first difference.
#[derive(Debug)]
struct Difference {
    /// Index of the log.
    log: usize,
    instance: Instance,
    topic: Option<String>,
    offset: Option<u64>,
    what: String,
}

/// What came before: topics, offsets, producers and figures.
#[derive(Default)]
struct Delivered {
    sequences: Sequences,
    groups: Groups,
    names: Vec<String>,
    instances: u64,
}

/// `chainring verify`.
pub(super) fn verify(dirs: &[PathBuf]) -> Result<Output, Failure> {
    let dirs = dirs.iter().map(|dir| log_dir(dir)).collect::<Result<Vec<_>, _>>()?;
    let mut logs = Vec::new();
    for dir in &dirs {
        progress(&format!("reading {}", dir.display()));
        let log = NodeLog::open(dir).map_err(|error| failure(&error))?;
        if log.durability == Durability::Memory {
            let message = format!(
                "{}: memory durability keeps no log on disk; compare digest in `chainring status`",
                dir.display()
            );
            return Err(Failure::new(Exit::NotFound, "no_log", message));
        }
        logs.push(log);
    }
    let same = |a: &PathBuf, b: &PathBuf| a.canonicalize().ok() == b.canonicalize().ok();
    let twice = (1..dirs.len()).any(|at| dirs[..at].iter().any(|other| same(other, &dirs[at])));
    if dirs.len() < 2 || twice {
        let message = "name the directories of two nodes or more, each once: logs are compared";
        return Err(Failure::new(Exit::Usage, "usage", message));
    }
    let first = logs[0].identity;
    for log in &logs[1..] {
        if (log.identity.cluster, log.identity.epoch) != (first.cluster, first.epoch) {
            let message = format!(
                "{} is of {}, {} of {first}: name nodes of one cluster and epoch",
                log.dir.display(),
                log.identity,
                logs[0].dir.display()
            );
            return Err(Failure::new(Exit::Failed, "other_cluster", message));
        }
    }
    let (delivered, difference) = compare(&mut logs);
    let data: u64 = logs.iter().map(|log| log.orders).sum();
    if delivered.instances == 0 && data > 0 && difference.is_none() {
        let message = format!(
            "nothing was compared, though the logs hold {data} orders: at least one node knows nothing to be decided yet"
        );
        return Err(Failure::new(Exit::Failed, "nothing_compared", message));
    }
    Ok(show(&logs, &delivered, difference.as_ref()))
}

/// Compares until the first difference or the shortest log's end.
fn compare(logs: &mut [NodeLog]) -> (Delivered, Option<Difference>) {
    let mut delivered = Delivered::default();
    let end = logs.iter().map(|log| log.decided).min().unwrap_or_default();
    for position in 0..end.0 {
        let instance = Instance(position);
        let entry = match agreed(logs, instance) {
            Ok(entry) => entry,
            Err((log, what)) => {
                let (topic, offset) = where_by_others(logs, log, instance, &delivered);
                let difference = Difference { log, instance, topic, offset, what };
                return (delivered, Some(difference));
            }
        };
        if let (true, Entry::Value(id)) = (delivered.sequences.apply(&entry), entry) {
            match same_value(logs, id) {
                Ok(body) => delivered.deliver(&body),
                Err(unequal) => {
                    let difference = unequal.locate(instance, &delivered);
                    return (delivered, Some(difference));
                }
            }
        }
        delivered.instances += 1;
    }
    // Damage may hide how far a log went; it must not pass for a short log.
    let unknown = |damage: &&Damage| damage.state == DamageState::Unknown;
    let damaged = |log: &NodeLog| log.damage.iter().find(unknown).copied();
    let found = logs.iter().enumerate().find_map(|(index, log)| Some((index, damaged(log)?)));
    let difference = found.map(|(log, damage)| {
        let (topic, offset) = where_by_others(logs, log, end, &delivered);
        let what = format!(
            "its log is damaged in segment {} from byte {} on",
            segment_of(damage.from),
            offset_of(damage.from)
        );
        Difference { log, instance: end, topic, offset, what }
    });
    (delivered, difference)
}

/// The entry that all logs have at an instance; or the log that differs, and how.
fn agreed(logs: &[NodeLog], instance: Instance) -> Result<Entry, (usize, String)> {
    let entries: Vec<Option<Entry>> = logs.iter().map(|log| log.entry(instance)).collect();
    let most = majority(&entries);
    let Some(entry) = most else {
        return Err((0, "no node holds this instance's order".to_owned()));
    };
    for (index, other) in entries.iter().enumerate() {
        match other {
            None => return Err((index, "its order is missing or damaged".to_owned())),
            Some(other) if *other != entry => {
                return Err((index, format!("it has {other:?}, others {entry:?}")));
            }
            Some(_) => {}
        }
    }
    Ok(entry)
}

/// The most frequent of what is there; the first of equals.
fn majority<T: Copy + PartialEq>(all: &[Option<T>]) -> Option<T> {
    let count = |wanted: &T| all.iter().flatten().filter(|other| *other == wanted).count();
    let mut best = None;
    for candidate in all.iter().flatten() {
        if best.is_none_or(|best| count(candidate) > count(&best)) {
            best = Some(*candidate);
        }
    }
    best
}

/// A log whose copy of a value is not what the others have.
struct Unequal {
    log: usize,
    /// An intact copy that is taken for right, if there is one.
    good: Option<Vec<u8>>,
    /// What could be read, damaged or not.
    bad: Option<Vec<u8>>,
    what: String,
}

/// The body of a value, if all logs have the same.
fn same_value(logs: &mut [NodeLog], id: ValueId) -> Result<Vec<u8>, Unequal> {
    let mut good: Vec<Option<u128>> = Vec::new();
    let mut bodies: Vec<Option<Vec<u8>>> = Vec::new();
    let mut first_bad = None;
    for (index, log) in logs.iter_mut().enumerate() {
        match log.value(id) {
            Value::Intact { checksum, body } => {
                // Bodies are kept only where they may have to be shown.
                let known = good.contains(&Some(checksum));
                good.push(Some(checksum));
                bodies.push((!known).then_some(body));
            }
            Value::Damaged { body, reason } => {
                good.push(None);
                bodies.push(None);
                first_bad.get_or_insert((index, body, reason));
            }
        }
    }
    let most = majority(&good);
    let taken = good.iter().position(|checksum| checksum.is_some() && *checksum == most);
    let body = taken.and_then(|index| bodies[index].take());
    if let Some((log, bad, what)) = first_bad {
        return Err(Unequal { log, good: body, bad, what });
    }
    if let Some(log) = good.iter().position(|checksum| *checksum != most) {
        let index = good.iter().position(|checksum| *checksum == good[log]).unwrap_or(log);
        let what = "its bytes differ, though their checksum holds".to_owned();
        return Err(Unequal { log, good: body, bad: bodies[index].take(), what });
    }
    Ok(body.expect("every log has it, and the first one kept it"))
}

impl Unequal {
    /// Names the record with the first differing byte.
    fn locate(self, instance: Instance, delivered: &Delivered) -> Difference {
        let Unequal { log, good, bad, what } = self;
        let differs = |(good, bad): (&Vec<u8>, &Vec<u8>)| {
            let at = good.iter().zip(bad).position(|(a, b)| a != b);
            at.or((good.len() != bad.len()).then_some(good.len().min(bad.len())))
        };
        let byte = good.as_ref().zip(bad.as_ref()).and_then(differs);
        let shown = good.as_ref().or(bad.as_ref());
        let (topic, offset) =
            shown.map_or((None, None), |body| delivered.locate(body, byte.unwrap_or(0)));
        Difference { log, instance, topic, offset, what }
    }
}

/// Topic and offset of an instance that `log` has not or has otherwise, by the first other log
/// whose value can be read.
fn where_by_others(
    logs: &mut [NodeLog],
    log: usize,
    instance: Instance,
    delivered: &Delivered,
) -> (Option<String>, Option<u64>) {
    for (index, other) in logs.iter_mut().enumerate() {
        let Some(Entry::Value(id)) = other.entry(instance) else { continue };
        if index == log {
            continue;
        }
        if let Value::Intact { body, .. } = other.value(id) {
            return delivered.locate(&body, 0);
        }
    }
    (None, None)
}

impl Delivered {
    /// Takes the next value.
    fn deliver(&mut self, body: &[u8]) {
        let names = &mut self.names;
        // A body that does not parse stopped at the same byte at every node.
        let _ = self.groups.deliver(body, |told| {
            if let Told::Topic { name, .. } = told {
                names.push(name.to_owned());
            }
        });
    }

    /// Topic and offset of the record at or behind a byte of the next value's body.
    fn locate(&self, body: &[u8], byte: usize) -> (Option<String>, Option<u64>) {
        let (mut names, mut new) = (self.names.clone(), Vec::new());
        let _ = self.groups.clone().deliver(body, |told| match told {
            Told::Topic { name, .. } => names.push(name.to_owned()),
            Told::Run { topic, first_offset, skip, at, .. } => {
                new.push((at as usize, topic, first_offset, skip));
            }
            Told::Answer { .. } | Told::Producer { .. } => {}
        });
        let mut last = (None, None);
        for run in runs(body).map_while(Result::ok) {
            match run {
                Run::Create { name, .. } => last = (Some(name.to_owned()), Some(0)),
                Run::Records { at, bytes, .. } => {
                    // One without new records has no offsets.
                    let Some((_, topic, first, skip)) = new.iter().find(|run| run.0 == at) else {
                        continue;
                    };
                    let mut behind = run.end() - bytes.len();
                    for (index, record) in (0..).zip(records(bytes)) {
                        behind += RECORD_PREFIX_BYTES + record.len();
                        let Some(above) = u64::checked_sub(index, (*skip).into()) else { continue };
                        last = (names.get(topic.0 as usize).cloned(), Some(first + above));
                        if byte < behind {
                            return last;
                        }
                    }
                }
                Run::Register { .. } => {}
            }
            if byte < run.end() {
                return last;
            }
        }
        last
    }
}

fn show(logs: &[NodeLog], delivered: &Delivered, difference: Option<&Difference>) -> Output {
    let mut rows = vec![
        ["NODE", "DIR", "DECIDED", "COMPARED", "BEYOND", "DAMAGE"].map(str::to_owned).to_vec(),
    ];
    let mut nodes = Vec::new();
    for log in logs {
        let beyond = log.end.0.saturating_sub(delivered.instances);
        let damage: Vec<String> =
            log.damage.iter().map(|damage| damage_name(damage.state).to_owned()).collect();
        rows.push(vec![
            log.identity.node.0.to_string(),
            log.dir.display().to_string(),
            log.decided.0.to_string(),
            delivered.instances.to_string(),
            beyond.to_string(),
            if damage.is_empty() { "none".to_owned() } else { damage.join(",") },
        ]);
        nodes.push(json!({
            "node": log.identity.node.0,
            "dir": log.dir.display().to_string(),
            "decided": log.decided.0,
            "compared": delivered.instances,
            "beyond": beyond,
            "damage": log.damage.iter().map(damage_json).collect::<Vec<_>>(),
        }));
    }
    let mut text = table(&rows);
    let groups = &delivered.groups;
    let (count, bytes) = (groups.records(), groups.bytes());
    text.push_str(&format!(
        "\ncompared {} instances, {count} records, {bytes} bytes, digest {:032x}",
        delivered.instances,
        groups.digest().0
    ));
    let shown = difference.map(|difference| {
        let node = logs[difference.log].identity.node.0;
        let topic = difference.topic.as_deref().unwrap_or("not known");
        let offset = difference.offset.map_or("not known".to_owned(), |offset| offset.to_string());
        text.push_str(&format!(
            "\nDIFFERENT: node {node}, topic {topic}, offset {offset} (instance {}): {}",
            difference.instance.0, difference.what
        ));
        json!({
            "node": node,
            "dir": logs[difference.log].dir.display().to_string(),
            "topic": difference.topic,
            "offset": difference.offset,
            "instance": difference.instance.0,
            "what": difference.what,
        })
    });
    if shown.is_none() {
        text.push_str("\nidentical");
    }
    let json = json!({
        "identical": shown.is_none(),
        "instances": delivered.instances,
        "records": count,
        "bytes": bytes,
        "digest": format!("{:032x}", groups.digest().0),
        "nodes": nodes,
        "difference": shown,
    });
    let exit = if difference.is_none() { Exit::Ok } else { Exit::Failed };
    Output::new(text, json).ending(exit)
}

#[cfg(test)]
pub(crate) mod tests;
