//! The command as a process: exit codes, and JSON alone on stdout.

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

fn chainring(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chainring")).args(arguments).output().unwrap()
}

/// Runs with `--format json`; the exit code and the one object printed.
fn json(arguments: &[&str]) -> (i32, Value) {
    let output = chainring(&[arguments, &["--format", "json"]].concat());
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["v"], 1);
    (output.status.code().unwrap(), value)
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let name = format!("chainring-cli-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn join(&self, path: &str) -> String {
        self.0.join(path).display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn init_check_and_a_misspelt_key() {
    let dir = Dir::new("init");
    let root = dir.0.display().to_string();
    let (code, made) = json(&["init", "--dir", &root, "--nodes", "3"]);
    assert_eq!((code, made["files"].as_array().unwrap().len()), (0, 3));
    let file = dir.join("2/chainring.toml");
    let (code, checked) = json(&["config", "check", &file]);
    assert_eq!((code, &checked["node"]), (0, &Value::from(2)));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("http_idle_ms", "http_idel_ms")).unwrap();
    let output = chainring(&["config", "check", &file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("http_idel_ms") && said.contains("`http_idle_ms`"), "{said}");
    assert_eq!(json(&["init", "--dir", &root, "--nodes", "3"]).0, 4);
    assert_eq!(json(&["config", "check", &dir.join("none")]).0, 4);
}

#[test]
fn exit_codes() {
    let dir = Dir::new("codes");
    std::fs::write(dir.join("precious"), "x").unwrap();
    let root = dir.0.display().to_string();
    let (code, refused) = json(&["up", "--dir", &root]);
    assert_eq!((code, refused["error"]["code"].as_str()), (5, Some("not_ours")));
    assert_eq!(json(&["bogus"]).0, 2);
    assert_eq!(json(&["inspect", &root]).0, 4);
    assert_eq!(json(&["verify", &dir.join("none")]).0, 4);
    let (code, unreachable) = json(&["status", "--cluster", "http://127.0.0.1:1"]);
    assert_eq!((code, unreachable["error"]["code"].as_str()), (3, Some("unreachable")));
    assert_eq!(json(&["node", "--config", &dir.join("none")]).0, 4);
}

#[test]
fn version_and_help() {
    let version = chainring(&["--version"]);
    let text = String::from_utf8(version.stdout).unwrap();
    assert_eq!(version.status.code(), Some(0));
    assert!(text.starts_with("chainring ") && text.contains("features: none"), "{text}");
    let help = chainring(&["up", "--help"]);
    assert!(String::from_utf8(help.stdout).unwrap().contains("Example:"));
}
