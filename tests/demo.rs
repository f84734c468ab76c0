//! The demonstration as a person runs it: the binary, real files, what it prints, how it ends.
//!
//! Real logs are taken from the folder that `CHAINRING_LOGS` names; without it, the built-in
//! sample stands in, and the test says so.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Largest record, its line feed counted.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A directory of this test, below the build's own: there the file system takes O_DIRECT.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("demo-{}-{number}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the demonstration with its temporary files in `dir`.
fn demo(dir: &Dir, arguments: &[&str], files: &[PathBuf]) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_chainring"))
        .env("TMPDIR", &dir.0)
        .args(["demo", "--format", "json"])
        .args(arguments)
        .args(files)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    (output, json)
}

/// A run that has to end well, with so many records and bytes.
fn good(dir: &Dir, arguments: &[&str], files: &[PathBuf], records: u64, bytes: u64) -> Value {
    let (output, json) = demo(dir, arguments, files);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {json}");
    assert_eq!(json["v"], 1);
    assert_eq!(json["identical"], true, "{json}");
    assert_eq!(json["records"], records, "{json}");
    assert_eq!(json["bytes"], bytes, "{json}");
    json
}

#[test]
fn every_kind_of_line_comes_out_as_it_went_in() {
    let dir = Dir::new();
    let mut longest = vec![b'x'; RECORD_BYTES_MAX - 1];
    longest.push(b'\n');
    let inputs: [(&[u8], u64); 9] = [
        (b"", 0),
        (b"\n", 1),
        (b"\n\n\n\n\n\n\n", 7),
        (b"one\r\ntwo\r\n", 2),
        (b"a lone \r in a line\r\rand more\n", 1),
        (b"first\nno line feed at the end", 2),
        (b"\0\0\n\0", 2),
        (b"\xff\xfe\xc3\x28\n\x80\n", 2),
        (&longest, 1),
    ];
    let mut files = Vec::new();
    let (mut records, mut bytes) = (0, 0);
    for (number, (input, lines)) in inputs.iter().enumerate() {
        files.push(dir.file(&number.to_string(), input));
        records += lines;
        bytes += input.len() as u64;
    }
    for durability in ["memory", "sync"] {
        good(&dir, &["--durability", durability], &files, records, bytes);
    }
    let left: Vec<_> = std::fs::read_dir(&dir.0).unwrap().flatten().collect();
    assert_eq!(left.len(), files.len(), "the temporary directories are gone: {left:?}");
}

#[test]
fn a_line_over_the_limit_is_named_and_nothing_before_it_is_lost() {
    let dir = Dir::new();
    let mut text = b"one\ntwo\n".to_vec();
    text.extend(std::iter::repeat_n(b'x', RECORD_BYTES_MAX));
    text.extend(b"\nfour\n");
    let files = [dir.file("before", b"zero\n"), dir.file("long", &text), dir.file("after", b"z\n")];
    let (output, json) = demo(&dir, &[], &files);
    assert_eq!(output.status.code(), Some(1), "{json}");
    assert_eq!(json["error"]["code"], "record_too_large", "{json}");
    let message = json["error"]["message"].as_str().unwrap();
    assert!(message.contains(&format!("{} line 3 ", files[1].display())), "{message}");
    assert_eq!((&json["records"], &json["identical"]), (&3.into(), &true.into()), "{json}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_before_anything_runs() {
    let dir = Dir::new();
    let files = [dir.file("good", b"one\n"), dir.0.join("missing")];
    let (output, json) = demo(&dir, &[], &files);
    assert_eq!(output.status.code(), Some(4), "{json}");
    let message = json["error"]["message"].as_str().unwrap();
    assert!(message.contains("missing") && message.contains("nothing was shipped"), "{message}");
    // A directory cannot be read either.
    let (output, json) = demo(&dir, &[], std::slice::from_ref(&dir.0));
    assert_eq!(output.status.code(), Some(4), "{json}");
}

#[test]
fn the_report_has_the_keys_that_programs_read() {
    let dir = Dir::new();
    let json = good(&dir, &["--nodes", "1", "--records", "50", "--size", "100"], &[], 50, 5000);
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = [
        "v",
        "nodes",
        "topology",
        "durability",
        "records",
        "bytes",
        "identical",
        "digest",
        "seconds",
        "delivered_bits_per_s",
        "link_bits_per_s",
        "efficiency",
        "latency_us",
        "cpu_s_per_gb",
    ];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert_eq!((&json["nodes"], &json["topology"]), (&1.into(), &"ring".into()));
    assert_eq!(json["durability"], "sync");
    assert_eq!((&json["link_bits_per_s"], &json["efficiency"]), (&Value::Null, &Value::Null));
    assert_eq!(json["digest"].as_str().unwrap().len(), 32);
    for key in ["p50", "p99", "p999", "max"] {
        assert!(json["latency_us"][key].is_u64(), "{key}");
    }
    let json = good(&dir, &["--records", "7", "--link", "10gbit"], &[], 7, 1400);
    assert_eq!(json["link_bits_per_s"], 1e10);
    assert!(json["efficiency"].is_f64());
}

/// The log and its segments count groups alike: those with entries, and all.
fn inspected(dir: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_chainring"))
        .args(["inspect", "--format", "json"])
        .arg(dir)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |value: &Value| value["groups_with_entries"].as_u64().unwrap();
    let sum: u64 = said["segments"].as_array().unwrap().iter().map(of).sum();
    assert!((1..=said["groups"].as_u64().unwrap()).contains(&sum), "{said}");
    assert_eq!(of(&said), sum, "{said}");
}

/// A kept log stands up to `verify`, and one byte of it flipped is found.
#[test]
fn a_flipped_byte_of_a_kept_log_is_named() {
    let dir = Dir::new();
    let home = dir.0.join("home");
    let home_name = home.to_str().unwrap();
    let line = b"a line that can be found again\n";
    let files = [dir.file("log", &line.repeat(300))];
    let bytes = 300 * line.len() as u64;
    let json = good(&dir, &["--dir", home_name], &files, 300, bytes);
    assert_eq!(json["dir"], home_name);
    let dirs: Vec<PathBuf> = (1..=3).map(|node| home.join(node.to_string())).collect();
    let verify = || {
        let command = Command::new(env!("CARGO_BIN_EXE_chainring"))
            .args(["verify", "--format", "json"])
            .args(&dirs)
            .output()
            .unwrap();
        (command.status.code(), serde_json::from_slice::<Value>(&command.stdout).unwrap())
    };
    inspected(&dirs[0]);
    let (code, verified) = verify();
    assert_eq!((code, &verified["digest"]), (Some(0), &json["digest"]), "{verified}");
    let segment = dirs[1].join("log");
    let segment = std::fs::read_dir(segment).unwrap().flatten().map(|entry| entry.path());
    let found = segment.filter_map(|path| {
        let bytes = std::fs::read(&path).ok()?;
        let at = bytes.windows(line.len()).position(|window| window == line)?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = { found }.next().expect("a segment holds the lines");
    bytes[at + 3] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let (code, verified) = verify();
    assert_eq!(code, Some(1), "{verified}");
    let difference = &verified["difference"];
    assert_eq!(difference["node"], 2, "{verified}");
    assert!(difference["topic"].as_str().unwrap().starts_with("demo.1."), "{verified}");
    assert!(difference["offset"].is_u64(), "{verified}");
    // What is there is not overwritten.
    let (output, json) = demo(&dir, &["--dir", home_name], &files);
    assert_eq!((output.status.code(), &json["error"]["code"]), (Some(5), &"not_empty".into()));
}

#[test]
fn real_logs_are_identical_in_every_durability_and_number_of_nodes() {
    let dir = Dir::new();
    let mut files = Vec::new();
    match std::env::var_os("CHAINRING_LOGS") {
        Some(folder) => {
            let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
            files = entries.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
            files.sort();
        }
        None => eprintln!("CHAINRING_LOGS is not set: using the built-in sample"),
    }
    let read = |path: &PathBuf| std::fs::read(path).unwrap();
    let texts: Vec<Vec<u8>> = files.iter().map(read).collect();
    let lines = |text: &Vec<u8>| {
        let open = text.last().is_some_and(|last| *last != b'\n');
        text.iter().filter(|byte| **byte == b'\n').count() as u64 + u64::from(open)
    };
    for (nodes, durability) in
        [("3", "memory"), ("3", "async"), ("3", "sync"), ("1", "sync"), ("5", "memory")]
    {
        let (output, json) = demo(&dir, &["--nodes", nodes, "--durability", durability], &files);
        assert_eq!(output.status.code(), Some(0), "{nodes} {durability}: {json}");
        let records = if files.is_empty() { 20_000 } else { texts.iter().map(lines).sum() };
        assert_eq!(json["records"], records, "{nodes} {durability}: {json}");
        assert_eq!(json["identical"], true, "{nodes} {durability}: {json}");
    }
}

#[test]
fn time_ends_a_load_without_number() {
    let dir = Dir::new();
    let start = std::time::Instant::now();
    let (output, json) = demo(&dir, &["--durability", "memory", "--seconds", "1"], &[]);
    assert!(start.elapsed().as_secs() >= 1, "{json}");
    assert_eq!(output.status.code(), Some(0), "{json}");
    assert_eq!(json["identical"], true, "{json}");
    // Up to the last delivery: a source that gets no processor before the end ships no more.
    assert!(json["seconds"].as_f64().unwrap() > 0.5, "{json}");
    let (records, bytes) = (json["records"].as_u64().unwrap(), json["bytes"].as_u64().unwrap());
    assert!(records > 0 && bytes == 200 * records, "{json}");
}
