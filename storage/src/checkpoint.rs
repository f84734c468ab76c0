//! Checkpoints: the state at a position, one file each, and from where the log goes on.
//!
//! ```text
//!   0  header (128), kind Checkpoint: origin = node, instance = position,
//!                                     ballot = that of the claim to the position
//! 128  from      8   the index covers the instances from here to the position
//! 136  parent   16   body checksum of the checkpoint at `from`; 0 if there is none
//! 152  segment   4   the log is replayed from here: first segment, ...
//! 156  start     4   ... start number of the life that wrote the group before it, ...
//! 160  number    8   ... that group's number ...
//! 168  checksum 16   ... and the checksum of its block's header
//! 184  flags     4   bit 0: that checksum counts
//! 188  state     4   bytes
//! 192  index     4   bytes
//! 196  zero      4
//! 200  time      8   milliseconds of the node's clock
//! 208  state, index, zeros to a multiple of 4096
//! ```
//! What state and index hold is the business of whoever has them written. Invariant: a file with
//! the name of a checkpoint was complete once; it is made under another name, and durable when it
//! has it.

use crate::block::{blank, identity_of};
use crate::config::{GROUP_ALIGN, LogConfig};
use crate::contents::Start;
use crate::direct::AlignedBuf;
use crate::disk::{Access, Disk, is_full, sync_dir};
use crate::error::LogError;
use chainring_ring::header::{FrameError, HEADER_BYTES, Header, Kind, u32_at, u64_at, u128_at};
use chainring_ring::ids::{Ballot, Instance};
use chainring_ring::mutant;
use std::path::{Path, PathBuf};

/// Largest checkpoint, bytes: the state of all producers and topics, and an index.
pub const CHECKPOINT_BYTES_MAX: u64 = 256 << 20;
const FIXED_BYTES: usize = 80;

/// See the file's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything below is in the state.
    pub position: Instance,
    /// Under this ballot the position is known to be decided.
    pub ballot: Ballot,
    /// Where the index begins.
    pub from: Instance,
    /// Checksum of the checkpoint there.
    pub parent: u128,
    /// From where the log is replayed.
    pub start: Start,
    /// When it was made.
    pub at_ms: u64,
    /// The state.
    pub state: Vec<u8>,
    /// The index.
    pub index: Vec<u8>,
}

/// The path of a checkpoint.
pub fn checkpoint_path(dir: &Path, position: Instance) -> PathBuf {
    dir.join(format!("checkpoint-{:020}.state", position.0))
}

impl Checkpoint {
    fn bytes(&self) -> usize {
        let used = HEADER_BYTES + FIXED_BYTES + self.state.len() + self.index.len();
        used.next_multiple_of(GROUP_ALIGN as usize)
    }

    /// Writes it into `out`, [`Checkpoint::bytes`] long; returns the checksum of its body.
    fn encode(&self, config: &LogConfig, out: &mut [u8]) -> u128 {
        let body = &mut out[HEADER_BYTES..];
        body[0..8].copy_from_slice(&self.from.0.to_le_bytes());
        body[8..24].copy_from_slice(&self.parent.to_le_bytes());
        body[24..28].copy_from_slice(&self.start.segment.to_le_bytes());
        body[28..32].copy_from_slice(&self.start.start.to_le_bytes());
        body[32..40].copy_from_slice(&self.start.number.to_le_bytes());
        body[40..56].copy_from_slice(&self.start.checksum.unwrap_or(0).to_le_bytes());
        body[56..60].copy_from_slice(&u32::from(self.start.checksum.is_some()).to_le_bytes());
        body[60..64].copy_from_slice(&(self.state.len() as u32).to_le_bytes());
        body[64..68].copy_from_slice(&(self.index.len() as u32).to_le_bytes());
        body[72..80].copy_from_slice(&self.at_ms.to_le_bytes());
        let index = FIXED_BYTES + self.state.len();
        body[FIXED_BYTES..index].copy_from_slice(&self.state);
        body[index..index + self.index.len()].copy_from_slice(&self.index);
        let header = Header {
            kind: Kind::Checkpoint,
            size: out.len() as u32,
            length: (index + self.index.len()) as u32,
            ballot: self.ballot,
            instance: self.position,
            ..blank(&config.identity)
        };
        header.seal(out);
        u128_at(out, 16)
    }

    /// Reads the bytes of a checkpoint; also returns the checksum of its body.
    ///
    /// # Errors
    /// Why they are none.
    pub fn decode(bytes: &[u8]) -> Result<(Checkpoint, Header), FrameError> {
        let header = Header::decode(bytes, bytes.len().try_into().unwrap_or(u32::MAX))?;
        if header.kind != Kind::Checkpoint || (header.length as usize) < FIXED_BYTES {
            return Err(FrameError::Body);
        }
        let body = header.check_body(bytes)?;
        let (state, index) = (u32_at(body, 60) as usize, u32_at(body, 64) as usize);
        let (from, number, flags) = (u64_at(body, 0), u64_at(body, 32), u32_at(body, 56));
        if flags > 1 || u32_at(body, 68) != 0 {
            return Err(FrameError::Reserved);
        }
        chainring_ring::codec::check_positions(&[from, number])?;
        if FIXED_BYTES + state + index != body.len() || from > header.instance.0 {
            return Err(FrameError::Body);
        }
        let checkpoint = Checkpoint {
            position: header.instance,
            ballot: header.ballot,
            from: Instance(from),
            parent: u128_at(body, 8),
            start: Start {
                segment: u32_at(body, 24),
                start: u32_at(body, 28),
                number,
                checksum: (flags == 1).then_some(u128_at(body, 40)),
            },
            at_ms: u64_at(body, 72),
            state: body[FIXED_BYTES..FIXED_BYTES + state].to_vec(),
            index: body[FIXED_BYTES + state..].to_vec(),
        };
        Ok((checkpoint, header))
    }

    /// Writes the file, durably, in place of one of the same position. Returns its checksum.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Io`]: there may be none of this position then.
    pub fn write(&self, dir: &Path, config: &LogConfig) -> Result<u128, LogError> {
        let (disk, path) = (&*config.disk, checkpoint_path(dir, self.position));
        let partial = path.with_extension("new");
        let mut buf = AlignedBuf::new(self.bytes());
        let checksum = self.encode(config, &mut buf);
        let _ = disk.remove(&partial);
        let written = disk.open(&partial, Access::Create, config.development).and_then(|file| {
            file.write_all_at(&buf, 0)?;
            if mutant!(CheckpointNotDurable) { Ok(()) } else { file.sync() }
        });
        let named = written.and_then(|()| disk.rename(&partial, &path));
        if let Err(source) = named {
            let _ = disk.remove(&partial);
            let bytes = buf.len() as u64;
            return Err(match is_full(&source) {
                true => LogError::Full { dir: dir.to_path_buf(), bytes },
                false => LogError::io("writing of", &path, source),
            });
        }
        sync_dir(disk, dir)?;
        Ok(checksum)
    }
}

/// Reads a checkpoint; also returns its checksum.
///
/// # Errors
/// [`LogError::Io`]; [`LogError::Checkpoint`] if the file is damaged, or another's.
pub fn read_checkpoint(
    dir: &Path,
    config: &LogConfig,
    position: Instance,
) -> Result<(Checkpoint, u128), LogError> {
    let path = checkpoint_path(dir, position);
    let error = |source| LogError::io("read of", &path, source);
    let bad = |source| LogError::Checkpoint { path: path.clone(), source };
    let file = config.disk.open(&path, Access::Read, config.development).map_err(error)?;
    let length = file.length().map_err(error)?;
    if length > CHECKPOINT_BYTES_MAX || !length.is_multiple_of(GROUP_ALIGN.into()) {
        return Err(bad(FrameError::Body));
    }
    let mut buf = AlignedBuf::new(length as usize);
    file.read_exact_at(&mut buf, 0).map_err(error)?;
    let (checkpoint, header) = Checkpoint::decode(&buf).map_err(bad)?;
    if identity_of(&header, None) != config.identity || checkpoint.position != position {
        return Err(bad(FrameError::Body));
    }
    Ok((checkpoint, header.checksum_body))
}

/// The positions of the checkpoints in a directory, ascending.
///
/// # Errors
/// [`LogError::Io`].
pub fn list_checkpoints(disk: &dyn Disk, dir: &Path) -> Result<Vec<Instance>, LogError> {
    let listed = disk.list(dir).map_err(|source| LogError::io("listing of", dir, source))?;
    let position = |name: &str| {
        let digits = name.strip_prefix("checkpoint-")?.strip_suffix(".state")?;
        (digits.len() == 20).then(|| digits.parse().ok().map(Instance))?
    };
    let mut found: Vec<Instance> =
        listed.iter().filter_map(|(name, _)| position(name.to_str()?)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Removes what crashes left of checkpoints that were being written.
///
/// # Errors
/// [`LogError::Io`].
pub fn remove_partial(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let listed = disk.list(dir).map_err(|source| LogError::io("listing of", dir, source))?;
    for (name, _) in listed {
        let partial = name
            .to_str()
            .is_some_and(|name| name.starts_with("checkpoint-") && name.ends_with(".new"));
        if partial {
            let path = dir.join(&name);
            disk.remove(&path).map_err(|source| LogError::io("removal of", &path, source))?;
            sync_dir(disk, dir)?;
        }
    }
    Ok(())
}

/// Removes a checkpoint, if it is there.
///
/// # Errors
/// [`LogError::Io`].
pub fn remove_checkpoint(disk: &dyn Disk, dir: &Path, position: Instance) -> Result<(), LogError> {
    let path = checkpoint_path(dir, position);
    match disk.remove(&path) {
        Ok(()) => sync_dir(disk, dir),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(LogError::io("removal of", &path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct::tests::TestDir;
    use crate::disk::FileSystem;
    use crate::segment::tests::small;

    fn sample(position: u64) -> Checkpoint {
        Checkpoint {
            position: Instance(position),
            from: Instance(3),
            parent: 1 << 99,
            start: Start { segment: 2, number: 77, checksum: Some(5), start: 4 },
            at_ms: 1 << 40,
            state: vec![7; 5000],
            index: vec![9; 11],
            ..Checkpoint::default()
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = TestDir::new();
        let config = small(&dir.0);
        for position in [70, 12] {
            let checksum = sample(position).write(&dir.0, &config).unwrap();
            let read = read_checkpoint(&dir.0, &config, Instance(position)).unwrap();
            assert_eq!(read, (sample(position), checksum));
        }
        assert_eq!(list_checkpoints(&FileSystem, &dir.0).unwrap(), [Instance(12), Instance(70)]);
        remove_checkpoint(&FileSystem, &dir.0, Instance(12)).unwrap();
        remove_checkpoint(&FileSystem, &dir.0, Instance(12)).unwrap();
        assert_eq!(list_checkpoints(&FileSystem, &dir.0).unwrap(), [Instance(70)]);
    }

    /// Every byte counts, and so does the name.
    #[test]
    fn what_is_damaged_is_refused() {
        let dir = TestDir::new();
        let config = small(&dir.0);
        sample(12).write(&dir.0, &config).unwrap();
        let path = checkpoint_path(&dir.0, Instance(12));
        let good = std::fs::read(&path).unwrap();
        std::fs::write(checkpoint_path(&dir.0, Instance(13)), &good).unwrap();
        assert!(read_checkpoint(&dir.0, &config, Instance(13)).is_err(), "another's name");
        for at in (0..good.len()).step_by(61) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(read_checkpoint(&dir.0, &config, Instance(12)).is_err(), "byte {at}");
        }
        std::fs::write(&path, &good[..4096]).unwrap();
        assert!(read_checkpoint(&dir.0, &config, Instance(12)).is_err(), "cut short");
    }
}
