//! The measure as a person runs it: the binary, a tiny load, what it prints, how it ends.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A directory of one test, below the build's own: there the file system takes O_DIRECT.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let name = format!("bench-{name}-{}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bench(dir: &Dir, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chainring-bench"));
    command.env("TMPDIR", &dir.0).args(line.split(' ')).output().unwrap()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr))
    })
}

/// A spread over rounds: in order, and of something that happened.
fn spread(value: &Value) -> (f64, f64, f64) {
    let part = |key: &str| value[key].as_f64().unwrap_or_else(|| panic!("no {key} in {value}"));
    let (min, median, max) = (part("min"), part("median"), part("max"));
    assert!(0.0 < min && min <= median && median <= max, "{value}");
    (min, median, max)
}

#[test]
fn a_tiny_load_gives_every_figure_and_identical_logs() {
    let dir = Dir::new("json");
    let line = "ring --nodes 2 --durability memory,sync --size 100,5000 --bytes 2e5 --repeat 2";
    let output = bench(&dir, &format!("{line} --format json"));
    let json = json(&output);
    assert_eq!(output.status.code(), Some(0), "{json}");
    assert_eq!((&json["v"], &json["identical"]), (&1.into(), &true.into()), "{json}");
    assert_eq!((&json["nodes"], &json["repeat"]), (&2.into(), &2.into()));
    for key in ["kernel", "commit", "date", "profile", "topology"] {
        assert!(json[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {json}");
    }
    assert!(json["machine"]["cpu"].is_string() && json["machine"]["cores"].is_u64());
    assert!(json["remarks"].is_array());
    let bare = &json["bare_stream"];
    let (slowest, _, fastest) = spread(&bare["bits_per_s"]);
    assert_eq!((&bare["bytes"], &bare["write_bytes"]), (&200_000.into(), &(1 << 20).into()));
    assert!(bare["congestion"].is_string());
    let cases = json["cases"].as_array().unwrap();
    let pairs: Vec<_> = cases.iter().map(|case| (&case["durability"], &case["size"])).collect();
    let wanted = [("memory", 100), ("memory", 5000), ("sync", 100), ("sync", 5000)];
    let wanted = wanted.map(|(durability, size)| (Value::from(durability), Value::from(size)));
    assert_eq!(pairs, wanted.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
    for case in cases {
        assert_eq!(case["identical"], true, "{case}");
        assert_eq!(case["bytes"], 200_000);
        assert_eq!(case["records"], 200_000 / case["size"].as_u64().unwrap());
        let (least, _, greatest) = spread(&case["delivered_bits_per_s"]);
        let (low, _, high) = spread(&case["ratio"]);
        // A ratio is of one round, so it lies within what the extremes allow.
        assert!(low >= 0.999 * least / fastest && high <= 1.001 * greatest / slowest, "{json}");
        let (_, p50, _) = spread(&case["latency_us"]["p50"]);
        let (_, p99, _) = spread(&case["latency_us"]["p99"]);
        assert!(p50 <= p99, "{case}");
        let cpu = &case["cpu_s_per_gb"];
        assert!(cpu["min"].as_f64() <= cpu["median"].as_f64() && cpu["max"].is_f64(), "{case}");
    }
    let left: Vec<_> = std::fs::read_dir(&dir.0).unwrap().collect();
    assert!(left.is_empty(), "logs were left behind: {left:?}");
}

#[test]
fn a_single_node_is_measured_too_and_told_as_text() {
    let dir = Dir::new("text");
    let line = "ring --nodes 1 --durability memory --size 300 --bytes 3000 --repeat 1";
    let output = bench(&dir, line);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in ["machine", "kernel", "commit", "bare stream", "of 1 rounds", "identical"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(output.stderr.is_empty(), "progress is for terminals");
}

#[test]
fn help_ends_well_and_wrong_usage_does_not() {
    let dir = Dir::new("usage");
    let help = bench(&dir, "ring --help");
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout).unwrap().contains("Example:\n  chainring-bench ring"));
    let wrong = bench(&dir, "ring --size 0 --format json");
    assert_eq!(wrong.status.code(), Some(2));
    assert_eq!(json(&wrong)["error"]["code"], "usage");
    let wrong = bench(&dir, "ring --bytes many");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stdout.is_empty() && !wrong.stderr.is_empty());
}

#[test]
fn what_cannot_run_says_why() {
    let dir = Dir::new("gone");
    let gone = Dir(dir.0.join("not/there"));
    let output = bench(&gone, "ring --bytes 100 --repeat 1 --format json");
    assert_eq!(output.status.code(), Some(1));
    let message = json(&output)["error"]["message"].to_string();
    assert!(message.contains("not/there"), "{message}");
    let output = bench(&dir, "ring --durability memory,sync --size 16 --bytes 5e9 --format json");
    assert_eq!(output.status.code(), Some(2));
    let message = json(&output)["error"]["message"].to_string();
    assert!(message.contains("at most 4720000000"), "{message}");
}

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    let dir = Dir::new("signal");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chainring-bench"));
    let line = "ring --nodes 1 --durability memory --bytes 1000 --repeat 1000 --format json";
    let child = command.env("TMPDIR", &dir.0).args(line.split(' ')).stdout(Stdio::piped());
    let child = child.stderr(Stdio::piped()).spawn().unwrap();
    // Once there is a directory of a run, it listens for signals.
    let begun = || std::fs::read_dir(&dir.0).unwrap().next().is_some();
    let limit = Instant::now() + Duration::from_secs(60);
    while !begun() {
        assert!(Instant::now() < limit, "no run begins");
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["error"]["code"], "interrupted");
    assert!(!begun(), "logs were left behind");
}
