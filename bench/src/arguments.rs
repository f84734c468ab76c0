//! What `chainring-bench` is asked.
//!
//! Invariants: every command has an example in its help; lists name no case twice.

use chainring::cli::out::Format;
use chainring::demo::RECORD_BYTES_MAX;
use clap::{Args, Parser, Subcommand};

/// Most bytes of one run, 1 TB. A log on disk has a lower limit, which depends on the record size.
const BYTES_MAX: u64 = 1_000_000_000_000;

/// Measures Chainring, and beside it what the machine gives at that time.
#[derive(Debug, Parser)]
#[command(
    name = "chainring-bench",
    version,
    after_help = "Example:\n  cargo run --release -p chainring-bench -- ring --repeat 5 --format json"
)]
pub struct Arguments {
    /// How to print: text for people, json for programs.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub format: Format,
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A ring over loopback under the demo's load, and a bare TCP stream in the same rounds.
    ///
    /// In every round, first a bare TCP stream carries --bytes over loopback, then each pair of
    /// durability and size does, through a new cluster whose logs are compared at the end. Printed
    /// are the median over the rounds, the least and the greatest. Logs go to TMPDIR.
    #[command(
        after_help = "Example:\n  chainring-bench ring --nodes 3 --durability memory,sync --size 200,32768 --bytes 1e9 --repeat 3"
    )]
    Ring(Ring),
}

/// Arguments of `ring`.
#[derive(Clone, Debug, Args)]
pub struct Ring {
    /// Nodes, 1 to 7; all of them propose.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub nodes: u8,
    /// When a node votes for an entry: memory, async, sync, or several of them.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "memory,sync",
        value_parser = ["memory", "async", "sync"])]
    pub durability: Vec<String>,
    /// Bytes of a record, 1 to 1048576, or several sizes.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "200,32768",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(RECORD_BYTES_MAX)))]
    pub size: Vec<u32>,
    /// Payload of each run, as 1000000000 or 1e9; rounded down to whole records, one at least.
    #[arg(long, value_name = "TOTAL", default_value = "1e9", value_parser = total)]
    pub bytes: u64,
    /// Rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
}

impl Ring {
    /// Every pair of durability and size, in the order given, each once.
    pub fn cases(&self) -> Vec<(&str, u32)> {
        let mut cases = Vec::new();
        for durability in &self.durability {
            for size in &self.size {
                let case = (durability.as_str(), *size);
                if !cases.contains(&case) {
                    cases.push(case);
                }
            }
        }
        cases
    }

    /// Records of one run.
    pub fn records(&self, size: u32) -> u64 {
        (self.bytes / u64::from(size)).max(1)
    }
}

/// A whole number of bytes, as `1000000` or `1e6`.
fn total(text: &str) -> Result<u64, String> {
    let (digits, power) = text.split_once('e').unwrap_or((text, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = (plain(digits) && plain(power)).then(|| {
        let scale = 10u64.checked_pow(power.parse().ok()?)?;
        digits.parse::<u64>().ok()?.checked_mul(scale)
    });
    let parsed = parsed.flatten().filter(|bytes| (1..=BYTES_MAX).contains(bytes));
    parsed.ok_or_else(|| format!("wanted a number such as 500000 or 1e9, 1 to {BYTES_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Ring, clap::Error> {
        let arguments = std::iter::once("chainring-bench").chain(line.split(' '));
        let Command::Ring(ring) = Arguments::try_parse_from(arguments)?.command;
        Ok(ring)
    }

    #[test]
    fn arguments_are_consistent_and_every_help_has_an_example() {
        Arguments::command().debug_assert();
        let mut commands: Vec<_> = Arguments::command().get_subcommands().cloned().collect();
        commands.push(Arguments::command());
        for command in commands {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = command.get_name().to_owned();
            assert!(help.starts_with("Example:\n") && help.contains(&name), "{name}: {help}");
        }
    }

    #[test]
    fn lists_become_pairs_each_once() {
        let ring = parse("ring --durability sync,memory,sync --size 8,300 --bytes 1000").unwrap();
        assert_eq!(ring.cases(), [("sync", 8), ("sync", 300), ("memory", 8), ("memory", 300)]);
        assert_eq!((ring.records(8), ring.records(300), ring.records(5000)), (125, 3, 1));
        let ring = parse("ring").unwrap();
        assert_eq!((ring.cases().len(), ring.bytes, ring.repeat), (4, 1_000_000_000, 3));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "ring --nodes 0",
            "ring --nodes 8",
            "ring --durability fast",
            "ring --durability memory,",
            "ring --size 0",
            "ring --size 200,1048577",
            "ring --bytes 0",
            "ring --bytes 1e",
            "ring --bytes -1",
            "ring --bytes 1e13",
            "ring --bytes 1e99",
            "ring --bytes 1.5e9",
            "ring --repeat 0",
            "star",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        for (text, bytes) in [("1", 1), ("25e3", 25_000), ("1e12", BYTES_MAX)] {
            assert_eq!(total(text), Ok(bytes));
        }
    }
}
