//! Inputs that ever failed, and a short pass over all targets that is the same every time.

use chainring_fuzz::counting::Counting;
use chainring_fuzz::drive::{Plan, drive};
use chainring_fuzz::trial::judge;
use chainring_fuzz::{TARGETS, regressions};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn what_failed_once_holds() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let folders = std::fs::read_dir(root).unwrap().flatten().filter(|entry| entry.path().is_dir());
    for folder in folders {
        let name = folder.file_name().into_string().unwrap();
        assert!(chainring_fuzz::target(&name).is_some(), "no target for the inputs of {name}");
    }
    let mut count = 0;
    for target in TARGETS {
        for (name, bytes) in regressions::of(target) {
            judge(target, &bytes).unwrap_or_else(|f| panic!("{} {name}: {f:?}", target.name));
            count += 1;
        }
    }
    assert!(count > 0, "no input was found");
}

#[test]
fn seeds_hold() {
    for target in TARGETS {
        for (index, bytes) in (target.seeds)().iter().enumerate() {
            assert!(bytes.len() <= target.bytes_max, "{} seed {index} is too long", target.name);
            judge(target, bytes).unwrap_or_else(|f| panic!("{} seed {index}: {f:?}", target.name));
            assert!(!bytes.is_empty(), "{} seed {index} is empty", target.name);
        }
    }
}

/// Short: the long form is a command of its own, see docs/TESTING.md.
#[test]
fn a_short_pass_finds_nothing() {
    let plan = Plan { seed: 1, threads: 2, time: None, executions: Some(2048) };
    let targets: Vec<_> = TARGETS.iter().collect();
    let (done, found) = drive(&plan, &targets);
    if let Some(found) = found {
        panic!("{}: {:?}, input {:02x?}", found.target, found.failure, found.bytes);
    }
    for (target, done) in TARGETS.iter().zip(done) {
        assert!(done.executions >= 2048);
        // Otherwise all inputs end at the first check, and what lies behind it is not met.
        assert!(done.accepted * 100 >= done.executions, "{}: {} good", target.name, done.accepted);
    }
}
