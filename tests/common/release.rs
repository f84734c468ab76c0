//! The release build of the command, made once for all tests that need it.
//!
//! Invariants: it lies in the target folder of the running tests, so that a checkout has one
//! release build; cargo's own lock of that folder makes tests that ask at the same time wait for
//! one build; a build that fails fails the test with the compiler's words.
//!
//! Use: `#[path = "common/release.rs"] mod release;`, then `release::binary()`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of the `chainring` binary, built with `--release`.
pub fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build).clone()
}

fn build() -> PathBuf {
    // <target>/<profile>/chainring
    let ours = Path::new(env!("CARGO_BIN_EXE_chainring"));
    let target = ours.ancestors().nth(2).expect("a binary lies two folders below its target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--locked", "--package", "chainring", "--bin", "chainring"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // The commit of this test's own build, which would count as told from outside.
        .env_remove("CHAINRING_COMMIT")
        .output()
        .expect("cargo runs: it has built this test");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the release build failed:\n{words}");
    let binary = target.join("release/chainring");
    assert!(binary.is_file(), "no {} after the build", binary.display());
    binary
}
