//! The release build has no feature compiled in, and says so.

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
