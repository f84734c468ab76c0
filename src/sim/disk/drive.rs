//! The state of a simulated disk: its files, their names, and the power.
//!
//! Invariants: a name is durable only after its directory was synced, whatever was done to the
//! file; after the power failed no handle of the life before does anything any more.

use super::crash::Fates;
use super::faults::{Counts, Rates};
use super::file::{Bytes, File, Pending};
use crate::sim::faults::{Dice, Kind, Name};
use crate::sim::random::Random;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// A change of a directory that a crash can undo.
#[derive(Clone, Debug)]
enum NameChange {
    Made { path: PathBuf, file: usize },
    Removed { path: PathBuf },
    Renamed { from: PathBuf, to: PathBuf, file: usize },
}

impl NameChange {
    fn lies_in(&self, dir: &Path) -> bool {
        let (NameChange::Made { path, .. }
        | NameChange::Removed { path }
        | NameChange::Renamed { to: path, .. }) = self;
        path.parent() == Some(dir)
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Made { path, file } => {
                names.insert(path, file);
            }
            NameChange::Removed { path } => {
                names.remove(&path);
            }
            NameChange::Renamed { from, to, file } => {
                if names.get(&from) == Some(&file) {
                    names.remove(&from);
                }
                names.insert(to, file);
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Drive {
    pub files: Vec<File>,
    /// As the running process sees them.
    pub names: BTreeMap<PathBuf, usize>,
    /// On stable media.
    durable_names: BTreeMap<PathBuf, usize>,
    changes: Vec<NameChange>,
    /// Directories are durable at once: a store makes its own only when it is formatted.
    pub dirs: BTreeSet<PathBuf>,
    /// Rises when the power fails; handles of an older one are dead.
    pub life: u64,
    pub capacity: u64,
    /// Operations that changed something, so far.
    pub operations: u64,
    /// The operation at which the power fails.
    pub fuse: Option<u64>,
    /// What a write to the log takes more, microseconds.
    pub drag_us: u64,
    pub dark: bool,
    pub next_write: u64,
    pub rates: Rates,
    pub random: Random,
    /// Decides which operations fail.
    pub dice: Dice,
    /// What went wrong and was not told yet.
    pub mishaps: Vec<Name>,
    /// All reads may fail.
    pub exposed: bool,
    pub counts: Counts,
}

impl Drive {
    pub fn new(random: Random) -> Drive {
        Drive {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            dirs: BTreeSet::new(),
            life: 0,
            capacity: u64::MAX,
            operations: 0,
            fuse: None,
            drag_us: 0,
            dark: false,
            next_write: 0,
            rates: Rates::default(),
            dice: Dice::new(&random, 0, None),
            random,
            mishaps: Vec::new(),
            exposed: false,
            counts: Counts::default(),
        }
    }

    /// Refuses what a process does that is dead, or has no power.
    pub fn alive(&self, life: u64) -> io::Result<()> {
        if self.dark || life != self.life { Err(Errno::IO.into()) } else { Ok(()) }
    }

    /// Counts an operation. True if the power fails in the middle of it.
    pub fn strike(&mut self) -> bool {
        self.operations += 1;
        self.dark |= self.fuse.is_some_and(|at| self.operations >= at);
        self.dark
    }

    /// As [`Drive::alive`] and [`Drive::strike`], for a change whose first half is harmless; it may
    /// be refused.
    fn change(&mut self, life: u64) -> io::Result<bool> {
        self.alive(life)?;
        let dark = self.strike();
        match !dark && self.drawn(Kind::NameError, self.rates.name_error) {
            true => Err(Errno::IO.into()),
            false => Ok(dark),
        }
    }

    pub fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| Errno::NOENT.into())
    }

    pub fn create(&mut self, path: &Path) -> io::Result<usize> {
        let dark = self.change(self.life)?;
        if self.names.contains_key(path) {
            return Err(Errno::EXIST.into());
        }
        if !path.parent().is_some_and(|dir| self.dirs.contains(dir)) {
            return Err(Errno::NOENT.into());
        }
        let file = self.files.len();
        self.files.push(File::default());
        self.rename_with(NameChange::Made { path: path.into(), file }, dark)?;
        Ok(file)
    }

    /// Makes a change visible; durable it becomes later.
    fn rename_with(&mut self, change: NameChange, dark: bool) -> io::Result<()> {
        change.clone().apply(&mut self.names);
        self.changes.push(change);
        if dark { Err(Errno::IO.into()) } else { Ok(()) }
    }

    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.alive(self.life)?;
        self.find(path)?;
        let dark = self.change(self.life)?;
        self.rename_with(NameChange::Removed { path: path.into() }, dark)
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.alive(self.life)?;
        if self.dirs.contains(from) {
            return self.rename_dir(from, to);
        }
        let file = self.find(from)?;
        let dark = self.change(self.life)?;
        self.rename_with(NameChange::Renamed { from: from.into(), to: to.into(), file }, dark)
    }

    fn rename_dir(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let moved = |path: &Path| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_path_buf(),
            Ok(rest) => to.join(rest),
            Err(_) => path.to_path_buf(),
        };
        if self.strike() {
            return Err(Errno::IO.into());
        }
        // Whatever was pending below it is made durable first.
        self.settle(|_| true);
        let names = |names: &BTreeMap<PathBuf, usize>| {
            names.iter().map(|(path, file)| (moved(path), *file)).collect()
        };
        (self.names, self.durable_names) = (names(&self.names), names(&self.durable_names));
        self.dirs = self.dirs.iter().map(|dir| moved(dir)).collect();
        Ok(())
    }

    pub fn remove_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        if self.change(self.life)? {
            return Err(Errno::IO.into());
        }
        self.settle(|_| true);
        self.names.retain(|path, _| !path.starts_with(dir));
        self.durable_names.retain(|path, _| !path.starts_with(dir));
        self.dirs.retain(|path| !path.starts_with(dir));
        self.sweep();
        Ok(())
    }

    pub fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        if self.change(self.life)? {
            return Err(Errno::IO.into());
        }
        self.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    pub fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.alive(self.life)?;
        if !self.dirs.contains(dir) {
            return Err(Errno::NOENT.into());
        }
        // Names are kept in a journal: what one sync does not bring there, the next one does.
        if self.change(self.life)? {
            return Err(Errno::IO.into());
        }
        self.settle(|change| change.lies_in(dir));
        self.sweep();
        Ok(())
    }

    fn settle(&mut self, which: impl Fn(&NameChange) -> bool) {
        for change in std::mem::take(&mut self.changes) {
            match which(&change) {
                true => change.apply(&mut self.durable_names),
                false => self.changes.push(change),
            }
        }
    }

    /// Empties files that no name can lead to any more.
    fn sweep(&mut self) {
        if !self.changes.is_empty() {
            return;
        }
        let mut used = vec![false; self.files.len()];
        let named = self.names.values().chain(self.durable_names.values());
        named.for_each(|file| used[*file] = true);
        for (file, used) in self.files.iter_mut().zip(used) {
            if !used && (file.length > 0 || !file.pending.is_empty()) {
                *file = File::default();
            }
        }
    }

    /// A file at rest is gone, its name with it.
    pub fn lose_file(&mut self, path: &Path) -> bool {
        self.settle(|_| true);
        let named = self.durable_names.remove(path).is_some();
        self.names.remove(path).is_some() || named
    }

    /// Another file takes the place of one.
    pub fn replace_file(&mut self, path: &Path, file: File) -> bool {
        let Some(place) = self.names.get(path) else { return false };
        self.files[*place] = file;
        true
    }

    pub fn digest(&self) -> u128 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for (path, file) in &self.durable_names {
            hash.update(path.as_os_str().as_encoded_bytes());
            let file = &self.files[*file];
            hash.update(&file.stable_length.to_le_bytes());
            hash.update(&file.stable.digest().to_le_bytes());
        }
        hash.digest128()
    }

    /// Whether all files for which `counts` says so are on stable media, under durable names.
    pub fn is_settled(&self, counts: impl Fn(&Path) -> bool) -> bool {
        let named = |names: &BTreeMap<PathBuf, usize>| -> Vec<_> {
            let counted = names.iter().filter(|(path, _)| counts(path));
            counted.map(|(path, file)| (path.clone(), *file)).collect()
        };
        let settled = |file: &File| {
            file.length == file.stable_length && file.pending.iter().all(|it| it.id.is_some())
        };
        let names = named(&self.names);
        names.iter().all(|(_, file)| settled(&self.files[*file]))
            && names == named(&self.durable_names)
    }

    /// Bytes that all files have together.
    pub fn used(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }

    /// How much of a write has room.
    pub fn room(&self, file: usize, at: u64, bytes: u64) -> u64 {
        let grows = (at + bytes).saturating_sub(self.files[file].length);
        if grows == 0 || self.capacity == u64::MAX {
            return bytes;
        }
        let free = self.capacity.saturating_sub(self.used());
        bytes - grows.saturating_sub(free).min(bytes)
    }

    /// A blocking write; the power may fail in the middle.
    pub fn write(
        &mut self,
        file: usize,
        at: u64,
        bytes: &[u8],
        durable: bool,
    ) -> io::Result<usize> {
        let dark = self.strike();
        let bytes = Bytes::of(bytes);
        let length = bytes.len();
        let held = &mut self.files[file];
        if durable && !dark && held.pending.is_empty() {
            held.land(at, &bytes);
            return Ok(length as usize);
        }
        held.length = held.length.max(at + length);
        held.pending.push(Pending { id: None, at, bytes, durable, clean: false });
        if dark {
            return Err(Errno::IO.into());
        }
        if durable {
            held.flush();
        }
        Ok(length as usize)
    }

    pub fn sync(&mut self, file: usize) -> io::Result<()> {
        if self.strike() {
            return Err(Errno::IO.into());
        }
        if self.sync_fails(file) {
            return Err(Errno::IO.into());
        }
        self.files[file].flush();
        Ok(())
    }

    /// The power failed, or fails now.
    pub fn power_fails(&mut self, fates: &mut dyn Fates) -> u64 {
        let mut altered = 0;
        for change in std::mem::take(&mut self.changes) {
            match fates.name() {
                true => change.apply(&mut self.durable_names),
                false => altered += 1,
            }
        }
        self.names.clone_from(&self.durable_names);
        // Only files that a name leads to: nobody sees the others.
        self.sweep();
        for file in &mut self.files {
            if !file.pending.is_empty() || file.length != file.stable_length {
                altered += file.power_fails(fates);
            }
        }
        self.next_life();
        altered
    }

    /// The process is killed, the power stays: what it had begun to write ends as `fates` says,
    /// what it had written stays in the cache.
    pub fn killed(&mut self, fates: &mut dyn Fates) -> u64 {
        let mut altered = 0;
        for file in &mut self.files {
            for pending in std::mem::take(&mut file.pending) {
                match pending.id {
                    None => file.pending.push(pending),
                    Some(_) => altered += u64::from(file.land_partly(&pending, fates)),
                }
            }
        }
        self.next_life();
        altered
    }

    fn next_life(&mut self) {
        self.life += 1;
        self.fuse = None;
        self.dark = false;
    }
}
