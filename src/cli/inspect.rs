//! `chainring inspect`: a node's log on disk, read only.

use super::out::{Exit, Failure, Output, table};
use super::{config, make::CONFIG_FILE};
use crate::config::durability_name;
use chainring_storage::config::{offset_of, segment_of};
use chainring_storage::superfile::superblock_path;
use chainring_storage::{Damage, DamageState, LogError, Report};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The log's directory: `dir` itself, or what the configuration in it names.
pub(super) fn log_dir(dir: &Path) -> Result<PathBuf, Failure> {
    if !dir.is_dir() {
        let message = format!("{} is not a directory", dir.display());
        return Err(Failure::new(Exit::NotFound, "not_found", message));
    }
    if superblock_path(dir).exists() || !dir.join(CONFIG_FILE).exists() {
        return Ok(dir.to_owned());
    }
    Ok(config::load(&dir.join(CONFIG_FILE))?.node.dir)
}

/// A failure of storage, as this command ends with it.
pub(super) fn failure(error: &LogError) -> Failure {
    let (exit, code) = match error {
        LogError::NoSuperblock { .. } => (Exit::NotFound, "no_log"),
        LogError::Foreign { .. } => (Exit::Refused, "foreign"),
        _ => (Exit::Failed, "log"),
    };
    Failure::new(exit, code, error)
}

/// What became of a damaged range, in a word.
pub(super) fn damage_name(state: DamageState) -> &'static str {
    match state {
        DamageState::Cut => "cut",
        DamageState::Unknown => "unknown",
        DamageState::Repaired => "repaired",
    }
}

/// A damaged range as JSON.
pub(super) fn damage_json(damage: &Damage) -> Value {
    json!({
        "from": { "segment": segment_of(damage.from), "offset": offset_of(damage.from) },
        "to": { "segment": segment_of(damage.to), "offset": offset_of(damage.to) },
        "state": damage_name(damage.state),
    })
}

/// `chainring inspect`. Ends with 6 if acknowledged bytes are damaged.
pub(super) fn inspect(dir: &Path) -> Result<Output, Failure> {
    let dir = log_dir(dir)?;
    let report = chainring_storage::inspect(&dir).map_err(|error| failure(&error))?;
    let unknown = |damage: &Damage| damage.state == DamageState::Unknown;
    let damaged = report.log.damage.iter().any(unknown) || report.superblock.is_err();
    let exit = if damaged { Exit::Degraded } else { Exit::Ok };
    Ok(Output::new(text(&dir, &report), to_json(&dir, &report)).ending(exit))
}

fn text(dir: &Path, report: &Report) -> String {
    let mut out = format!("{}: {}\n", dir.display(), report.identity);
    match &report.superblock {
        Ok(s) => out.push_str(&format!(
            "superblock: {}, block {}, {} nodes, incarnation {}, start {}, promised {}.{}, sealed {}, clean stop {}, remembers its votes {}\n",
            durability_name(s.durability), s.block, s.nodes, s.incarnation.0, s.start,
            s.promised.round, s.promised.node.0, s.sealed, yes(s.clean), yes(s.remembers),
        )),
        Err(error) => out.push_str(&format!("superblock: {error}\n")),
    }
    let log = &report.log;
    let full = groups_with_entries(report);
    out.push_str(&format!(
        "log: {full} groups with entries, {} without, {} orders, {} values, {} bytes; decided below {} at ballot {}.{}; ends at segment {} offset {} ({})\n",
        log.groups - full, log.orders, log.values, log.bytes, log.claim.position.0,
        log.claim.ballot.round, log.claim.ballot.node.0,
        segment_of(log.end), offset_of(log.end), format!("{:?}", log.tail).to_lowercase(),
    ));
    let head = ["SEGMENT", "BYTES", "USED", "GROUPS", "ORDERS", "VALUES", "INSTANCES"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for s in &report.segments {
        let instances =
            s.instances.map_or("-".to_owned(), |(low, high)| format!("{}..={}", low.0, high.0));
        let numbers =
            [u64::from(s.number), u64::from(s.bytes), s.used, s.groups, s.orders, s.values];
        let mut row: Vec<String> = numbers.iter().map(u64::to_string).collect();
        row.push(instances);
        rows.push(row);
    }
    out.push_str(&table(&rows));
    for d in &log.damage {
        out.push_str(&format!(
            "\ndamage: segment {} offset {} to segment {} offset {}: {}",
            segment_of(d.from),
            offset_of(d.from),
            segment_of(d.to),
            offset_of(d.to),
            damage_name(d.state),
        ));
    }
    out
}

/// Those that the segments count; the others say what is sealed and decided.
fn groups_with_entries(report: &Report) -> u64 {
    report.segments.iter().map(|segment| segment.groups).sum()
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn to_json(dir: &Path, report: &Report) -> Value {
    let identity = &report.identity;
    let superblock = match &report.superblock {
        Ok(s) => json!({
            "durability": durability_name(s.durability),
            "block": s.block,
            "nodes": s.nodes,
            "incarnation": s.incarnation.0,
            "start": s.start,
            "promised": { "round": s.promised.round, "node": s.promised.node.0, "incarnation": s.promised.incarnation.0 },
            "sealed": s.sealed,
            "clean": s.clean,
            "remembers": s.remembers,
        }),
        Err(error) => json!({ "error": error.to_string() }),
    };
    let log = &report.log;
    let segments: Vec<Value> = report
        .segments
        .iter()
        .map(|s| {
            json!({
                "number": s.number, "bytes": s.bytes, "used": s.used, "groups_with_entries": s.groups,
                "orders": s.orders, "values": s.values,
                "first_instance": s.instances.map(|(low, _)| low.0),
                "last_instance": s.instances.map(|(_, high)| high.0),
            })
        })
        .collect();
    json!({
        "dir": dir.display().to_string(),
        "cluster": format!("{:032x}", identity.cluster.0),
        "epoch": identity.epoch.0,
        "node": identity.node.0,
        "superblock": superblock,
        "groups": log.groups,
        "groups_with_entries": groups_with_entries(report),
        "orders": log.orders,
        "values": log.values,
        "bytes": log.bytes,
        "decided": log.claim.position.0,
        "end": { "segment": segment_of(log.end), "offset": offset_of(log.end) },
        "tail": format!("{:?}", log.tail).to_lowercase(),
        "segments": segments,
        "damage": log.damage.iter().map(damage_json).collect::<Vec<_>>(),
    })
}
