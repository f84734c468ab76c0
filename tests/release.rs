//! The release build has no feature compiled in, and says so: none of the mutants is in it.

#[path = "common/release.rs"]
mod release;

use std::process::Command;

#[test]
fn a_release_has_no_features() {
    let output = Command::new(release::binary()).arg("--version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let version = concat!("chainring ", env!("CARGO_PKG_VERSION"));
    assert_eq!(lines, [version, "features: none"]);
}

/// The names are looked for as bytes: whatever could plant a fault would have to know them.
#[test]
fn a_release_holds_no_mutant() {
    let binary = std::fs::read(release::binary()).unwrap();
    let holds = |name: &str| memchr::memmem::find(&binary, name.as_bytes()).is_some();
    assert!(holds("features: none"), "a string of the program is found");
    let source = include_str!("../ring/src/mutants.rs");
    let list = source.split("list! {\n").nth(1).expect("the list of mutants");
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.trim().split_once(": \""))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() >= 30, "the list holds {} mutants", names.len());
    let found: Vec<&str> = names.into_iter().filter(|name| holds(name)).collect();
    assert!(found.is_empty(), "the release holds mutants: {found:?}");
}
