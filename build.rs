//! Tells the build of which commit it is: `CHAINRING_COMMIT`, or `unknown` outside of a checkout.
//!
//! Invariant: it reads what git keeps and runs nothing; a build is made again only when the commit
//! is another one.

use std::fs;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let commit = commit().unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=CHAINRING_COMMIT={commit}");
}

fn commit() -> Option<String> {
    let git = Path::new(".git");
    let head = read(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head) };
    read(&git.join(name)).or_else(|| {
        let packed = read(&git.join("packed-refs"))?;
        let line = packed.lines().find_map(|line| line.strip_suffix(name))?;
        Some(line.trim().to_owned())
    })
}

/// The text of a file, trimmed. Of one that is not there nothing is watched: it would always count
/// as changed.
fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text.trim().to_owned())
}
