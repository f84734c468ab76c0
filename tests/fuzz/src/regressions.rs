//! Inputs that failed once: `regressions/TARGET/NAME`, each a test for ever, and seeds too.
//!
//! Invariant: they are read in order of their names, so that runs of one seed stay alike.

use crate::Target;
use std::path::{Path, PathBuf};

/// The folder of a target.
pub fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target.name)
}

/// Name and bytes of each.
pub fn of(target: &Target) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder(target)).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let bytes = std::fs::read(entry.path()).ok()?;
            Some((entry.file_name().into_string().ok()?, bytes))
        })
        .collect();
    found.sort();
    found
}
