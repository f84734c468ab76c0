//! Tells the build of which commit it is, with `-dirty` behind it if what is built is not what was
//! committed. `CHAINRING_COMMIT` says so where there is no checkout, as in an archive; without it
//! the commit is `unknown` there.
//!
//! Invariant: a build is made again only when the commit or what is built is another one; without
//! the program git nothing is lost but the mark.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "CHAINRING_COMMIT";
/// What the command is built from: whenever it is built anew, its commit is asked for again. In a
/// target folder that comes from another checkout both are those of there, or both of here.
const SOURCES: [&str; 8] = [
    "src",
    "ring/src",
    "net/src",
    "storage/src",
    "tuning/src",
    "build.rs",
    "Cargo.toml",
    "Cargo.lock",
];

fn main() {
    let sources = SOURCES.iter().filter(|path| Path::new(path).exists());
    sources.for_each(|path| println!("cargo::rerun-if-changed={path}"));
    println!("cargo::rerun-if-env-changed={NAME}");
    let told = std::env::var(NAME).ok().filter(|commit| !commit.is_empty());
    let commit = || Some(commit()? + if is_dirty() { "-dirty" } else { "" });
    let commit = told.or_else(commit).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env={NAME}={commit}");
}

fn commit() -> Option<String> {
    let git = folder()?;
    // Of a branch, the file may be packed away and come again: whatever moves HEAD is logged here.
    let _ = read(&git.join("logs/HEAD"));
    let head = read(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head) };
    // Worktrees share the branches of their repository.
    let shared = read(&git.join("commondir")).map_or(git.clone(), |shared| git.join(shared));
    read(&shared.join(name)).or_else(|| {
        let packed = read(&shared.join("packed-refs"))?;
        let mut named = packed.lines().filter_map(|line| line.split_once(' '));
        named.find(|(_, at)| *at == name).map(|(commit, _)| commit.to_owned())
    })
}

/// Whether any source is another than the commit's; what git does not know of is none.
fn is_dirty() -> bool {
    let words = ["--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--"];
    let output = Command::new("git").args(words).args(SOURCES).output();
    output.is_ok_and(|output| !output.stdout.is_empty())
}

/// Where git keeps this checkout: `.git`, or what it names in a worktree.
fn folder() -> Option<PathBuf> {
    let git = Path::new(".git");
    if git.is_dir() {
        return Some(git.to_owned());
    }
    read(git)?.strip_prefix("gitdir: ").map(PathBuf::from)
}

/// The text of a file, trimmed. Of one that is not there nothing is watched: it would always count
/// as changed.
fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text.trim().to_owned())
}
