//! `chainring sim` as a process: worlds that are clean, the same in every build, and what is said
//! of one that is not.
//!
//! `CHAINRING_DIGESTS=100` compares so many seeds between the two builds (G5); short by default.

#[path = "common/release.rs"]
mod release;

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Worlds that need little time in a build for tests.
const EVENTS: &str = "6000";

/// Runs `sim` with these arguments; the exit code and the object printed.
fn sim(binary: &Path, arguments: &[&str]) -> (i32, Value) {
    let all = [&["sim", "--format", "json"], arguments].concat();
    let output = Command::new(binary).args(all).output().unwrap();
    let value = serde_json::from_slice(&output.stdout);
    let value = value.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().unwrap(), value)
}

fn ours() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_chainring"))
}

#[test]
fn worlds_are_clean_and_counted() {
    let arguments = ["--seeds", "12", "--first-seed", "1000", "--events", EVENTS];
    let (code, said) = sim(ours(), &arguments);
    assert_eq!((code, &said["violations"]), (0, &Value::from(0)), "{said}");
    assert_eq!((&said["v"], &said["first_seed"]), (&Value::from(1), &Value::from(1000)));
    assert_eq!(said["seeds"], 12);
    let number = |name: &str| said[name].as_f64().unwrap_or_else(|| panic!("{name}: {said}"));
    assert!(number("events") > 12.0 * 3000.0 && number("events_per_s") > 0.0, "{said}");
    assert!(number("simulated_hours") > 0.0 && number("threads") >= 1.0, "{said}");
    assert!(number("marks_hit") > 50.0 && number("marks_hit") < number("marks_total"), "{said}");
    for class in ["packet", "storage", "macro"] {
        assert!(said["faults"][class].as_u64().unwrap() > 0, "{class}: {said}");
    }
}

/// L6, and more: another build, another optimization, another number of threads.
#[test]
fn a_seed_has_one_course_in_every_build() {
    let seeds = std::env::var("CHAINRING_DIGESTS").unwrap_or_else(|_| "8".to_owned());
    let release = release::binary();
    for first in 0..seeds.parse::<u64>().unwrap() {
        let seed = (first + 1).to_string();
        let one = ["--seed", &seed, "--events", EVENTS, "--shrink-seconds", "0"];
        let (_, debug) = sim(ours(), &one);
        let (_, again) = sim(&release, &[&one[..], &["--threads", "1"]].concat());
        for what in ["digest", "events", "simulated_hours", "faults_by_kind", "violations"] {
            assert_eq!(debug[what], again[what], "{what} of seed {seed}");
        }
    }
}

#[test]
fn text_says_the_first_seed_and_what_happened() {
    let output = Command::new(ours())
        .args(["sim", "--seeds", "2", "--first-seed", "1000", "--events", "2000"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for words in ["2 worlds, first seed 1000: ", " faults: ", "marks: ", "0 violations; digest "] {
        let words = words.trim_start();
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    // Said at once, so that a run that is cut short is not lost; progress is for terminals.
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "chainring: first seed 1000\n");
}

/// A build with planted faults shows all that is said of a failure; see `.ci/run`.
#[cfg(feature = "mutants")]
#[test]
fn a_failure_is_caught_replayed_and_made_small() {
    let planted = ["--mutant", "VoteBeforeFlush", "--first-seed", "1", "--seeds", "50"];
    let (code, said) = sim(ours(), &planted);
    let hunt = &said["mutants"][0];
    assert_eq!((code, &said["caught"]), (0, &Value::from(1)), "{said}");
    let (by, seed) = (hunt["caught"]["by"].clone(), hunt["caught"]["seed"].to_string());
    let again = ["--mutant", "VoteBeforeFlush", "--seed", &seed, "--shrink-seconds", "5"];
    let (code, said) = sim(ours(), &again);
    assert_eq!((code, &said["violations"]), (1, &Value::from(1)), "{said}");
    let (failure, shrunk) = (&said["failures"][0], &said["shrunk"]);
    assert_eq!((&failure["invariant"], &shrunk["invariant"]), (&by, &by), "{said}");
    assert_eq!(failure["what"], hunt["caught"]["what"], "a replay is exact");
    let faults = shrunk["faults"].as_array().unwrap().len() as u64;
    let before = shrunk["faults_before"].as_u64().unwrap();
    assert!(faults < before || before == 0, "{faults} of {before} faults are left");
    assert!(shrunk["events"].as_u64() <= said["events"].as_u64(), "{said}");
    assert!(!shrunk["steps"].as_array().unwrap().is_empty(), "{said}");
    let (code, said) = sim(ours(), &["--mutant", "none", "--seeds", "2", "--first-seed", "1000"]);
    assert_eq!((code, &said["violations"]), (0, &Value::from(0)), "{said}");
}
