//! The deterministic driver's command; see docs/TESTING.md, "Fuzzing".

use chainring_fuzz::counting::Counting;
use chainring_fuzz::drive::{Done, Found, Plan, drive};
use chainring_fuzz::trial::{Failure, judge, shrink};
use chainring_fuzz::{TARGETS, Target, regressions, target};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const USAGE: &str = "usage: [--seconds S] [--executions N] [--target T]... [--seed X] [--threads N]
       [--input FILE --target T] [--seeds DIR --target T] [--list]

Without an end: 10 seconds. --executions are of each target. --input judges one file, --seeds
writes the target's seeds as files (and DIR.bytes, its longest input), --list names the targets.
Ends with 1 if an input failed; it is kept in tests/fuzz/regressions/TARGET.";

struct Arguments {
    plan: Plan,
    targets: Vec<&'static Target>,
    input: Option<String>,
    seeds: Option<PathBuf>,
}

fn arguments() -> Option<Arguments> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut plan = Plan { seed: 1, threads, time: None, executions: None };
    let (mut targets, mut input, mut seeds) = (Vec::new(), None, None);
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let value = words.next()?;
        match name.as_str() {
            "--seconds" => plan.time = Some(Duration::from_secs(value.parse().ok()?)),
            "--executions" => plan.executions = Some(value.parse().ok()?),
            "--seed" => plan.seed = value.parse().ok()?,
            "--threads" => plan.threads = value.parse().ok()?,
            "--target" => targets.push(target(&value)?),
            "--input" => input = Some(value),
            "--seeds" => seeds = Some(value.into()),
            _ => return None,
        }
    }
    if plan.time.is_none() && plan.executions.is_none() {
        plan.time = Some(Duration::from_secs(10));
    }
    if targets.is_empty() {
        targets = TARGETS.iter().collect();
    }
    Some(Arguments { plan, targets, input, seeds })
}

fn names() -> String {
    TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(" ")
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--list") {
        println!("{}", names());
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        eprintln!("targets: {}", names());
        return ExitCode::from(2);
    };
    if let Some(path) = &arguments.input {
        return input(arguments.targets[0], path);
    }
    if let Some(dir) = &arguments.seeds {
        write_seeds(arguments.targets[0], dir).expect("the folder takes files");
        return ExitCode::SUCCESS;
    }
    // A panic is an answer here, and is printed with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let begin = Instant::now();
    let (done, found) = drive(&arguments.plan, &arguments.targets);
    show(&arguments, &done, begin.elapsed());
    match found {
        Some(found) => {
            keep(&found);
            ExitCode::from(1)
        }
        None => ExitCode::SUCCESS,
    }
}

fn write_seeds(target: &Target, dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for (index, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{index}")), seed)?;
    }
    std::fs::write(dir.with_extension("bytes"), target.bytes_max.to_string())
}

fn input(target: &Target, path: &str) -> ExitCode {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("{path}: {error}");
            return ExitCode::from(2);
        }
    };
    match judge(target, &bytes) {
        Ok(taken) => {
            println!("{}: {:?}, {} bytes of memory", target.name, taken.time, taken.memory);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}: {failure:?}", target.name);
            ExitCode::from(1)
        }
    }
}

fn show(arguments: &Arguments, done: &[Done], elapsed: Duration) {
    println!(
        "target       executions   accepted   per second     worst us    worst bytes    at most"
    );
    for (target, done) in arguments.targets.iter().zip(done) {
        let rate = done.executions as f64 / done.spent.as_secs_f64().max(1e-9);
        println!(
            "{:<10} {:>12} {:>8.1} % {:>12.0} {:>12} {:>14} {:>10}",
            target.name,
            done.executions,
            100.0 * done.accepted as f64 / done.executions.max(1) as f64,
            rate,
            done.time.as_micros(),
            done.memory,
            target.memory_max
        );
    }
    let all: u64 = done.iter().map(|done| done.executions).sum();
    let (seconds, threads) = (elapsed.as_secs_f64(), arguments.plan.threads);
    let targets = done.len();
    println!(
        "{all} executions of {targets} targets in {seconds:.1} s on {threads} threads, seed {}",
        arguments.plan.seed
    );
}

/// Makes the input short and keeps it as a test.
fn keep(found: &Found) {
    let target = target(found.target).expect("it ran");
    let bytes = shrink(target, &found.bytes, &found.failure, Duration::from_secs(5));
    let what = match &found.failure {
        Failure::Panic(words) => format!("panic: {words}"),
        Failure::Memory(bytes) => format!("held {bytes} bytes"),
        Failure::Time(time) => format!("took {time:?}"),
    };
    println!("FAILED {}: {what}", target.name);
    let folder = regressions::folder(target);
    let name = format!("{:016x}", chainring_fuzz::targets::digest(&bytes));
    let path = folder.join(name);
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, &bytes));
    match kept {
        Ok(()) => println!("kept: {} ({} bytes)", path.display(), bytes.len()),
        Err(error) => println!("cannot keep it: {error}; bytes: {bytes:02x?}"),
    }
}
