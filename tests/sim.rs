//! `chainring sim` as a process: worlds that are clean, the same in every build, and what is said
//! of one that is not.
//!
//! `CHAINRING_DIGESTS=100` compares so many seeds between the two builds (G5); short by default.

#[path = "common/release.rs"]
mod release;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

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

/// A hunt that is ended from outside still tells what it showed.
#[test]
fn a_signal_ends_a_hunt_with_its_report() {
    let mut hunt = Command::new(ours())
        .args(["sim", "--format", "json", "--seconds", "600", "--first-seed", "1000"])
        .args(["--events", "500"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Signals are listened to before this is said.
    let mut first = String::new();
    BufReader::new(hunt.stderr.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "chainring: first seed 1000\n");
    kill_process(Pid::from_child(&hunt), Signal::INT).unwrap();
    let output = hunt.wait_with_output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &said["violations"]), (Some(130), &Value::from(0)), "{said}");
    assert_eq!(said["interrupted"], true);
    assert!(said["seconds"].as_f64().unwrap() < 600.0, "{said}");
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    // A world of three nodes.
    for wrong in ["nodes=99", "nodes=0", "events=0", "events=501", "nodes=2,nodes=3"] {
        let (code, said) = sim(ours(), &["--seed", "1000", "--events", "500", "--plan", wrong]);
        assert_eq!((code, &said["error"]["code"]), (2, &Value::from("usage")), "{wrong}: {said}");
    }
}

#[test]
fn one_world_says_what_it_is_what_was_never_drawn_and_each_fault_as_it_comes() {
    let run = |more: &[&str]| {
        let all = [&["sim", "--seed", "1000", "--events", "2000"], more].concat();
        let output = Command::new(ours()).args(all).output().unwrap();
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap())
    };
    let [text, told] = run(&["--trace"]);
    assert!(text.contains("\nworld: ") && !text.contains("not hit"), "{text}");
    let faults = told.lines().filter(|line| !line.contains(" -> ")).skip(1);
    let names: Vec<&str> = faults.filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert!(!names.is_empty() && told.lines().skip(1).all(|line| line.contains(" us  ")), "{told}");
    let kind = names[0].split(':').next().unwrap();
    assert!(text.lines().any(|line| line.trim_start().starts_with(kind)), "{kind}: {text}");
    let [_, told] = run(&["--faults", "Lose:1,Crash:77"]);
    assert!(told.contains("did not take effect: Lose:1,Crash:77\n"), "{told}");
    let [_, told] = run(&["--faults", names[0]]);
    assert_eq!(told, "chainring: first seed 1000\n", "{}", names[0]);
}

#[cfg(not(feature = "mutants"))]
/// A reader that goes away is no error; a result that cannot be written is one.
#[test]
fn nobody_has_to_listen_but_the_disk_has_to_take_it() {
    let sim = |out: Stdio, err: Stdio| {
        let mut child = Command::new(ours())
            .args(["sim", "--seed", "17", "--events", "3000", "--trace"])
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        child.wait().unwrap().code()
    };
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(sim(Stdio::piped(), Stdio::piped()), Some(0));
    assert_eq!(sim(full.try_clone().unwrap().into(), Stdio::null()), Some(1));
    assert_eq!(sim(Stdio::null(), full.into()), Some(0));
}

#[test]
fn a_build_without_mutants_says_how_to_make_one_with_them() {
    let (code, said) = sim(ours(), &["--mutant", "list"]);
    assert_eq!(code, 2, "{said}");
    assert!(said["error"]["message"].as_str().unwrap().contains("--features mutants"), "{said}");
}

/// Whoever reads the help knows every key that is printed.
#[test]
fn the_help_names_every_key() {
    let output = Command::new(ours()).args(["sim", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, said) = sim(ours(), &["--seeds", "1", "--first-seed", "1000", "--events", "500"]);
    let known = |key: &&String| {
        help.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == **key)
    };
    let unknown: Vec<_> = said.as_object().unwrap().keys().filter(|key| !known(key)).collect();
    assert!(unknown.is_empty(), "sim --help does not name {unknown:?}");
}

/// A build with planted faults shows all that is said of a failure; see `tests/sim-short.sh`.
#[cfg(feature = "mutants")]
mod planted {
    use super::*;

    /// The arguments of a line that was printed to replay a world.
    fn arguments(replay: &Value) -> Vec<String> {
        let line = replay.as_str().unwrap_or_else(|| panic!("{replay} is no line"));
        let words = line.strip_prefix("chainring sim ").expect(line);
        words.split(' ').map(str::to_owned).collect()
    }

    fn replay(line: &Value, more: &[&str]) -> Value {
        let arguments = arguments(line);
        let words: Vec<&str> =
            arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let (code, said) = sim(ours(), &words);
        assert_eq!((code, &said["violations"]), (1, &Value::from(1)), "{said}");
        said
    }

    #[test]
    fn a_failure_is_caught_replayed_made_small_and_replayed_small() {
        let hunted = ["--mutant", "VoteBeforeFlush", "--first-seed", "1", "--seeds", "50"];
        let (code, said) = sim(ours(), &[&hunted[..], &["--events", "20000"]].concat());
        assert_eq!((code, &said["caught"]), (0, &Value::from(1)), "{said}");
        let caught = &said["mutants"][0]["caught"];
        let said = replay(&caught["replay"], &["--shrink-seconds", "5"]);
        let (failure, shrunk) = (&said["failures"][0], &said["shrunk"]);
        assert_eq!((&failure["invariant"], &shrunk["invariant"]), (&caught["by"], &caught["by"]));
        assert_eq!(failure["what"], caught["what"], "a replay is exact");
        let faults = shrunk["faults"].as_array().unwrap().len() as u64;
        let before = shrunk["faults_before"].as_u64().unwrap();
        assert!(faults < before || before == 0, "{faults} of {before} faults are left");
        assert!(shrunk["events"].as_u64() <= said["events"].as_u64(), "{said}");
        assert!(!shrunk["steps"].as_array().unwrap().is_empty(), "{said}");
        let small = replay(&shrunk["replay"], &["--shrink-seconds", "0"]);
        for what in ["invariant", "what"] {
            assert_eq!(small["failures"][0][what], shrunk[what], "of {}", shrunk["replay"]);
        }
        assert_eq!(small["events"], shrunk["events"], "the short course itself is replayed");
    }

    #[test]
    fn each_is_said_when_it_is_caught_and_none_is_clean() {
        let hunted = ["--mutant", "VoteBeforeFlush,PromiseNotPersisted", "--first-seed", "1"];
        let output = Command::new(ours())
            .args(["sim", "--seeds", "50", "--events", "20000"])
            .args(hunted)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        let [first, one, other] = lines[..] else { panic!("three lines: {said}") };
        assert_eq!(first, "chainring: first seed 1");
        assert!(one.starts_with("VoteBeforeFlush: D1 after "), "{one}");
        assert!(other.contains("chainring sim --seed ") && other.contains("PromiseNotPersisted"));
        let (code, said) =
            sim(ours(), &["--mutant", "none", "--seeds", "2", "--first-seed", "1000"]);
        assert_eq!((code, &said["violations"]), (0, &Value::from(0)), "{said}");
    }

    #[test]
    fn a_seed_replays_one_mutant() {
        for wrong in ["VoteBeforeFlush,VoteCountedTwice", "Nobody", "none,VoteBeforeFlush"] {
            let (code, said) = sim(ours(), &["--mutant", wrong, "--seed", "1"]);
            assert_eq!((code, &said["error"]["code"]), (2, &Value::from("usage")), "{said}");
        }
    }
}
