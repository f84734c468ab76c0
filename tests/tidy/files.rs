//! The files of the checkout that the rules speak of: text that people wrote.
//!
//! Invariants: paths are relative to the checkout, with `/`, sorted; build output, hidden folders
//! but `.ci`, and what is not text are left out.

use std::fs;
use std::path::Path;

/// A file.
pub struct File {
    /// Relative to the checkout.
    pub path: String,
    /// What it holds.
    pub text: String,
}

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Folders and files at the top that belong to the project.
const PARTS: [&str; 14] = [
    ".ci",
    "bench",
    "docs",
    "net",
    "ring",
    "src",
    "storage",
    "tests",
    "tuning",
    "Cargo.toml",
    "CHANGELOG.md",
    "README.md",
    "build.rs",
    "rustfmt.toml",
];
const ENDINGS: [&str; 6] = [".rs", ".toml", ".md", ".sh", ".py", "/run"];

/// One file, which must exist.
pub fn read(path: &str) -> File {
    let text = fs::read_to_string(Path::new(ROOT).join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    File { path: path.to_owned(), text }
}

/// All text.
pub fn text() -> Vec<File> {
    let mut found = Vec::new();
    PARTS.iter().for_each(|part| walk(part, &mut found));
    assert!(found.len() > 50, "only {} files found", found.len());
    found
}

/// All Rust.
pub fn rust() -> Vec<File> {
    text().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// All Rust below a folder.
pub fn below(folder: &str) -> Vec<File> {
    let prefix = format!("{folder}/");
    let files: Vec<_> = rust().into_iter().filter(|f| f.path.starts_with(&prefix)).collect();
    assert!(!files.is_empty(), "nothing below {folder}");
    files
}

/// True for files that are built into tests only.
pub fn is_test(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let (name, folders) = parts.split_last().expect("split gives at least one part");
    let tests = |name: &str| matches!(name, "tests" | "examples") || name.ends_with("_tests");
    folders.iter().any(|folder| tests(folder)) || *name == "tests.rs" || name.ends_with("_tests.rs")
}

fn walk(path: &str, found: &mut Vec<File>) {
    let full = Path::new(ROOT).join(path);
    if full.is_dir() {
        let entries = fs::read_dir(&full).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.retain(|name| !name.starts_with('.') && name != "target");
        names.iter().for_each(|name| walk(&format!("{path}/{name}"), found));
    } else if ENDINGS.iter().any(|ending| path.ends_with(ending)) {
        found.push(read(path));
    }
}
