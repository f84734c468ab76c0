//! One node's log, as `verify` reads it: what the node ordered, what it knows to be decided, and
//! where the values lie.
//!
//! Invariant: read only, and without the recovery that a start would do: what is damaged stays
//! visible.

use chainring_ring::header::{BLOCK_BYTES_MIN, HEADER_BYTES, Header, Kind};
use chainring_ring::ids::{Durability, Entry, Instance, Order, ValueId};
use chainring_storage::config::{address, offset_of, segment_of};
use chainring_storage::scan::{ScanInput, scan};
use chainring_storage::superfile::read_superblock;
use chainring_storage::{
    AlignedBuf, Damage, DamageState, Identity, LogConfig, LogError, LogReader, Place, Start,
    segment_path,
};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Largest frame that is looked for in a damaged range, bytes.
const FRAME_MAX: u32 = 64 << 20;

/// See the file's head.
#[derive(Debug)]
pub struct NodeLog {
    pub dir: PathBuf,
    pub identity: Identity,
    pub durability: Durability,
    /// Everything below is decided, held, and known to be so by the node itself.
    pub decided: Instance,
    /// One above the highest instance ordered.
    pub end: Instance,
    /// Orders in the log, superseded ones among them.
    pub orders: u64,
    pub damage: Vec<Damage>,
    /// By instance. Not a list: what a damaged log names as an instance may be any number.
    entries: BTreeMap<Instance, Order>,
    values: HashMap<ValueId, Place>,
    reader: LogReader,
    buffer: AlignedBuf,
}

/// A node's copy of a value.
#[derive(Debug)]
pub enum Value {
    /// Header and body verify.
    Intact { checksum: u128, body: Vec<u8> },
    /// They do not, or the value is not there; what could be read of its body.
    Damaged { body: Option<Vec<u8>>, reason: String },
}

impl NodeLog {
    /// Reads the orders of a log and where its values lie.
    pub fn open(dir: &Path) -> Result<NodeLog, LogError> {
        let superblock = read_superblock(dir)?;
        let identity = superblock.identity;
        // Cached reads see what a writer beside wrote directly.
        let config = LogConfig { development: true, ..LogConfig::new(identity, superblock.block) };
        let input = ScanInput {
            dir,
            config: &config,
            sealed: superblock.sealed,
            from: Start::of_log(superblock.first_segment),
            start: None,
            alone: false,
            damage: &superblock.damage,
        };
        let mut entries = BTreeMap::new();
        let mut values = HashMap::new();
        let scanned = scan(&input, &mut |group| {
            for order in group.orders {
                take(&mut entries, order);
            }
            for (header, place) in group.values {
                values.insert(header.value_id(), *place);
            }
        })?;
        let end = entries.last_key_value().map_or(Instance(0), |(last, _)| last.next());
        let claim = if superblock.claim.position > scanned.claim.position {
            superblock.claim
        } else {
            scanned.claim
        };
        // Where the end of the log is lost, what the claim covers is missing, not beyond.
        let lost = scanned.damage.iter().any(|damage| damage.state == DamageState::Unknown);
        // In a whole log the newest order of an instance below the claim is the decided one. In a
        // damaged one it may be an older one that was left: there the claim authorises only what
        // was accepted at its ballot or later, or marked decided.
        let authorised = |order: &Order| !lost || order.decided || order.ballot >= claim.ballot;
        let most = if lost { claim.position } else { claim.position.min(end) };
        let doubtful = entries.range(..most).find(|(_, order)| !authorised(order));
        let decided = doubtful.map_or(most, |(instance, _)| *instance);
        Ok(NodeLog {
            dir: dir.to_owned(),
            identity,
            durability: superblock.durability,
            decided,
            end,
            orders: scanned.orders,
            damage: scanned.damage,
            entries,
            values,
            reader: LogReader::new(dir, identity, true),
            buffer: AlignedBuf::new(0),
        })
    }

    /// What the node has at an instance.
    pub fn entry(&self, instance: Instance) -> Option<Entry> {
        self.entries.get(&instance).map(|order| order.entry)
    }

    /// The node's copy of a value.
    pub fn value(&mut self, id: ValueId) -> Value {
        let Some(place) = self.values.get(&id).copied() else {
            let body = self.find_damaged(id);
            return Value::Damaged { body, reason: "its copy is missing or damaged".to_owned() };
        };
        match self.reader.read(place, &mut self.buffer) {
            Ok((header, frame)) => {
                let body = frame[HEADER_BYTES..][..header.length as usize].to_vec();
                Value::Intact { checksum: header.checksum_body, body }
            }
            Err(error) => {
                let body = self.raw(place.at, place.bytes).and_then(|frame| raw_body(&frame, id));
                Value::Damaged { body, reason: error.to_string() }
            }
        }
    }

    /// Looks for a value whose header is intact in the damaged ranges.
    fn find_damaged(&self, id: ValueId) -> Option<Vec<u8>> {
        for damage in &self.damage {
            let segment = segment_of(damage.from);
            let last =
                if segment_of(damage.to) == segment { offset_of(damage.to) } else { u32::MAX };
            let mut offset = offset_of(damage.from);
            while offset < last {
                let at = address(segment, offset);
                let Some(head) = self.raw(at, HEADER_BYTES as u32) else { break };
                match Header::decode(&head, FRAME_MAX) {
                    Ok(header) if header.kind == Kind::Value && header.value_id() == id => {
                        return raw_body(&self.raw(at, header.size)?, id);
                    }
                    _ => offset += BLOCK_BYTES_MIN,
                }
            }
        }
        None
    }

    /// Bytes of a segment, unverified.
    fn raw(&self, at: u64, bytes: u32) -> Option<Vec<u8>> {
        let mut file = std::fs::File::open(segment_path(&self.dir, segment_of(at))).ok()?;
        file.seek(SeekFrom::Start(offset_of(at).into())).ok()?;
        // What a damaged header says of its size may be more than there is.
        if u64::from(bytes) > file.metadata().ok()?.len() {
            return None;
        }
        let mut out = vec![0; bytes as usize];
        file.read_exact(&mut out).ok()?;
        Some(out)
    }
}

/// The body of a frame whose header is intact.
fn raw_body(frame: &[u8], id: ValueId) -> Option<Vec<u8>> {
    let header = Header::decode(frame, FRAME_MAX).ok()?;
    let body = frame.get(HEADER_BYTES..HEADER_BYTES + header.length as usize)?;
    (header.value_id() == id).then(|| body.to_vec())
}

/// Keeps the order that counts: a decided one for good, else the highest ballot's.
fn take(entries: &mut BTreeMap<Instance, Order>, order: &Order) {
    let counts = |old: &Order| !old.decided && (order.decided || order.ballot >= old.ballot);
    if entries.get(&order.instance).is_none_or(counts) {
        entries.insert(order.instance, *order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainring_ring::ids::Ballot;

    /// An order far beyond all others, as only damage or other code makes it, costs nothing.
    #[test]
    fn an_instance_may_be_any_number() {
        let order = |instance, decided| Order {
            instance: Instance(instance),
            ballot: Ballot::ZERO,
            base: Instance(0),
            entry: Entry::Noop,
            decided,
        };
        let mut entries = BTreeMap::new();
        for (instance, decided) in [(5, true), (1 << 62, false), (5, false)] {
            take(&mut entries, &order(instance, decided));
        }
        assert_eq!(entries.len(), 2);
        assert!(entries[&Instance(5)].decided, "a decided one counts for good");
    }
}
