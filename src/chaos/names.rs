//! Names in a directory, and which of their changes a power failure takes back.
//!
//! Invariants: a change is seen at once, and is durable when its directory was synced; changes are
//! kept in order, as a journal keeps them: of those not durable the last ones are lost. What was
//! removed lies hidden until that is durable.

use crate::sim::disk::crash::Fates;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What was removed and can come back begins like this.
const HIDDEN: &str = ".chaos-";

#[derive(Debug)]
enum Change {
    Made { path: PathBuf },
    Removed { path: PathBuf, hidden: PathBuf },
    Renamed { from: PathBuf, to: PathBuf, over: Option<PathBuf> },
}

/// Changes that are not durable, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Names {
    changes: Vec<Change>,
    hidden: u64,
}

impl Names {
    /// Forgets what a life before left hidden: that one was killed, and the power stayed.
    ///
    /// # Errors
    /// What the system says.
    pub fn sweep(dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(HIDDEN.as_bytes()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// A file was made.
    pub fn made(&mut self, path: &Path) {
        self.changes.push(Change::Made { path: path.into() });
    }

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let hidden = self.hide(path)?;
        self.changes.push(Change::Removed { path: path.into(), hidden });
        Ok(())
    }

    /// Renames a file, over what has that name.
    ///
    /// # Errors
    /// What the system says.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let over = if to.exists() { Some(self.hide(to)?) } else { None };
        fs::rename(from, to)?;
        self.changes.push(Change::Renamed { from: from.into(), to: to.into(), over });
        Ok(())
    }

    fn hide(&mut self, path: &Path) -> io::Result<PathBuf> {
        self.hidden += 1;
        let hidden = path.with_file_name(format!("{HIDDEN}{}", self.hidden));
        fs::rename(path, &hidden)?;
        Ok(hidden)
    }

    /// All changes are durable.
    ///
    /// # Errors
    /// What the system says.
    pub fn settle(&mut self) -> io::Result<()> {
        for change in self.changes.drain(..) {
            match change {
                Change::Removed { hidden, .. } | Change::Renamed { over: Some(hidden), .. } => {
                    fs::remove_file(hidden)?;
                }
                Change::Made { .. } | Change::Renamed { .. } => {}
            }
        }
        Ok(())
    }

    /// The power failed: the last ones are lost. Returns how many.
    ///
    /// # Errors
    /// What the system says.
    pub fn power_fails(&mut self, fates: &mut dyn Fates) -> io::Result<u64> {
        let mut lost = 0;
        while !self.changes.is_empty() && !fates.name() {
            match self.changes.pop().expect("there is one") {
                Change::Made { path } => fs::remove_file(path)?,
                Change::Removed { path, hidden } => fs::rename(hidden, path)?,
                Change::Renamed { from, to, over } => {
                    fs::rename(&to, from)?;
                    if let Some(hidden) = over {
                        fs::rename(hidden, to)?;
                    }
                }
            }
            lost += 1;
        }
        self.settle()?;
        Ok(lost)
    }
}
