//! The `chainring` command: arguments, and which function does what.
//!
//! Invariants: every command has an example in its help; every one takes `--format`; nothing but
//! its result is printed on stdout.

pub mod config;
pub mod demo;
pub mod inspect;
pub mod make;
pub mod member;
pub mod out;
pub mod run;
pub mod sim;
pub mod status;
pub mod verify;

use clap::{Args, Parser, Subcommand, error::ErrorKind};
use out::{Exit, Failure, Format, finish};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Features compiled in. A release has none; a test compares this with Cargo.toml.
pub const FEATURES: &[&str] = match (cfg!(feature = "mutants"), cfg!(feature = "chaos")) {
    (false, false) => &[],
    (true, false) => &["mutants"],
    (false, true) => &["chaos"],
    (true, true) => &["chaos", "mutants"],
};
/// What `--version` prints behind the name.
const VERSION: &str = match (cfg!(feature = "mutants"), cfg!(feature = "chaos")) {
    (false, false) => concat!(env!("CARGO_PKG_VERSION"), "\nfeatures: none"),
    (true, false) => concat!(env!("CARGO_PKG_VERSION"), "\nfeatures: mutants"),
    (false, true) => concat!(env!("CARGO_PKG_VERSION"), "\nfeatures: chaos"),
    (true, true) => concat!(env!("CARGO_PKG_VERSION"), "\nfeatures: chaos, mutants"),
};

/// A replicated log appliance: one order of records at wire speed, in memory or on disk.
#[derive(Debug, Parser)]
#[command(
    name = "chainring",
    version = VERSION,
    after_help = "Example:\n  chainring up --nodes 3 --dir /var/tmp/ring\n  curl --data-binary @app.log http://127.0.0.1:8081/v1/logs/app\n  curl http://127.0.0.1:8082/v1/logs/app"
)]
pub struct Cli {
    /// How to print: text for people, json for programs.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub format: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ship files through a cluster in this process, and compare every node's log with them.
    #[command(
        after_help = "Example:\n  chainring demo /var/log/syslog\n  chainring demo --nodes 5 --durability memory --records 2000000 --size 200"
    )]
    Demo(DemoArgs),
    /// Run a cluster in the foreground, all nodes in this process, on this machine's loopback.
    #[command(
        after_help = "Example:\n  chainring up --nodes 3 --dir /var/tmp/ring --durability sync"
    )]
    Up(UpArgs),
    /// Write the configuration of a new cluster: DIR/1/chainring.toml and so on.
    #[command(
        after_help = "Example:\n  chainring init --dir ring --node 1=10.0.0.1:9081,8081 --node 2=10.0.0.2:9081,8081 --node 3=10.0.0.3:9081,8081\n  chainring init --dir ring --nodes 3"
    )]
    Init(InitArgs),
    /// Run one node in the foreground.
    #[command(after_help = "Example:\n  chainring node --config ring/1/chainring.toml")]
    Node(NodeArgs),
    /// Look at configurations.
    #[command(subcommand, after_help = "Example:\n  chainring config check ring/1/chainring.toml")]
    Config(ConfigCommand),
    /// Show what each node is and how far it is; ends with 3 if none answers, 6 if something is
    /// wrong.
    #[command(
        after_help = "Example:\n  chainring status --cluster http://10.0.0.1:8081,http://10.0.0.2:8081"
    )]
    Status(StatusArgs),
    /// Show who votes, and change it: one node comes or goes at a time, while the ring runs.
    #[command(subcommand, after_help = "Example:\n  chainring member replace 2 --dry-run")]
    Member(member::MemberCommand),
    /// Look at a node's log on disk, read only, beside a running node too.
    #[command(after_help = "Example:\n  chainring inspect ring/1")]
    Inspect(InspectArgs),
    /// Run clusters in a simulated world that tries to break them; ends with 1 if it could.
    #[command(after_help = sim::HELP)]
    Sim(sim::SimArgs),
    /// Compare the decided logs of nodes by content.
    #[command(after_help = "Example:\n  chainring verify ring/1 ring/2 ring/3")]
    Verify(VerifyArgs),
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Files whose lines are the records; without any, a built-in sample.
    pub files: Vec<PathBuf>,
    /// Nodes, 1 to 7.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub nodes: u8,
    /// When a node votes for an entry: memory, async or sync.
    #[arg(long, default_value = "sync", value_parser = ["memory", "async", "sync"])]
    pub durability: String,
    /// Ship so many records of random bytes instead of files.
    #[arg(long, conflicts_with = "files")]
    pub records: Option<u64>,
    /// Bytes of such a record, 1 to 1048576.
    #[arg(long, default_value_t = 200, conflicts_with = "files",
        value_parser = clap::value_parser!(u32)
            .range(1..=i64::from(crate::demo::RECORD_BYTES_MAX)))]
    pub size: u32,
    /// Ship random records for so many seconds, or until --records are shipped.
    #[arg(long, conflicts_with = "files", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// What a link is assumed to carry, as 1gbit, 2.5gbit or 100mbit; it is not measured.
    #[arg(long, default_value = "1gbit", value_parser = demo::link_rate)]
    pub link: f64,
    /// Where the logs go, an empty or new directory; they stay there.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Keep the logs of the temporary directory, and say where they are.
    #[arg(long)]
    pub keep: bool,
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Nodes, 1 to 7.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub nodes: u8,
    /// Directory of the cluster; made if missing.
    #[arg(long)]
    pub dir: PathBuf,
    /// When a node votes for an entry: memory, async or sync.
    #[arg(long, default_value = "sync", value_parser = ["memory", "async", "sync"])]
    pub durability: String,
    /// HTTP port of node 1; the others follow. Peers listen a thousand above, fixed when D is made.
    #[arg(long, default_value_t = 8081)]
    pub http_port: u16,
    /// Unit of data links and disk, bytes: 512 or 4096.
    #[arg(long, default_value_t = 512)]
    pub block: u32,
    /// Begin a new log in the next cluster epoch, for a ring that can never go on; the old one is
    /// kept beside it.
    #[arg(long)]
    pub new_epoch: bool,
    /// Accept a file system without O_DIRECT; what is acknowledged may be lost.
    #[arg(long)]
    pub development: bool,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to write.
    #[arg(long)]
    pub dir: PathBuf,
    /// A node: its id, its address for peers, its HTTP port. Repeated.
    #[arg(long, value_name = "ID=HOST:PORT,HTTP_PORT", conflicts_with = "nodes")]
    pub node: Vec<String>,
    /// So many nodes on loopback, HTTP on 8081 and up, peers on 9081 and up.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=7), required_unless_present = "node")]
    pub nodes: Option<u8>,
    /// When a node votes for an entry: memory, async or sync.
    #[arg(long, default_value = "sync", value_parser = ["memory", "async", "sync"])]
    pub durability: String,
    /// Unit of data links and disk, bytes: 512 or 4096.
    #[arg(long, default_value_t = 512)]
    pub block: u32,
    /// Accept a file system without O_DIRECT; what is acknowledged may be lost.
    #[arg(long)]
    pub development: bool,
}

/// Arguments of `node`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The node's configuration.
    #[arg(long)]
    pub config: PathBuf,
    /// Begin a new log at the higher cluster.epoch of the configuration; the old one is put aside.
    #[arg(long)]
    pub new_epoch: bool,
}

/// What to do with configurations.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration whole; say what it comes to.
    #[command(after_help = "Example:\n  chainring config check ring/1/chainring.toml")]
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Nodes to ask; of a single one, the others are learnt.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:8081")]
    pub cluster: Vec<String>,
    /// Longest wait for one node, seconds.
    #[arg(long, default_value_t = 3)]
    pub timeout: u64,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A node's directory: where its chainring.toml is, or its log.
    pub dir: PathBuf,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Nodes' directories: where their chainring.toml is, or their logs.
    #[arg(required = true)]
    pub dirs: Vec<PathBuf>,
}

/// Runs the command with the process's arguments.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => finish(cli.format, dispatch(cli)),
        Err(error) => refuse(&error, &arguments),
    }
}

fn dispatch(cli: Cli) -> Result<out::Output, Failure> {
    match cli.command {
        Command::Demo(args) => demo::demo(&args),
        Command::Up(args) => run::up(&args, cli.format),
        Command::Init(args) => make::init(&args),
        Command::Member(command) => member::run(&command),
        Command::Node(args) => run::node(&args, cli.format),
        Command::Config(ConfigCommand::Check { file }) => config::check(&file),
        Command::Status(args) => status::status(&args),
        Command::Inspect(args) => inspect::inspect(&args.dir),
        Command::Sim(args) => sim::sim(&args, cli.format),
        Command::Verify(args) => verify::verify(&args.dirs),
    }
}

/// Help and version go to stdout and end well; the rest is wrong usage, in the format asked for.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let json = arguments.iter().any(|argument| argument == "--format=json")
        || arguments.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json");
    if json {
        let message = error.render().to_string();
        return finish(Format::Json, Err(Failure::new(Exit::Usage, "usage", message.trim())));
    }
    let _ = error.print();
    ExitCode::from(Exit::Usage as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent_and_every_help_has_an_example() {
        Cli::command().debug_assert();
        fn walk(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("chainring {}", command.get_name().replace("chainring", ""));
            assert!(help.starts_with("Example:\n"), "{} has no example", command.get_name());
            let shown = help.contains(example.trim()) || help.contains(command.get_name());
            assert!(shown, "the example of {} shows another command", command.get_name());
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn the_features_that_the_version_lists_are_those_of_the_package() {
        let manifest = include_str!("../../Cargo.toml");
        let manifest: toml::Table = toml::from_str(manifest).unwrap();
        let features = manifest.get("features").and_then(toml::Value::as_table);
        let names: Vec<&str> =
            features.map(|table| table.keys().map(String::as_str).collect()).unwrap_or_default();
        assert_eq!(names, ["chaos", "mutants"], "every feature is listed by the version");
        let listed = if FEATURES.is_empty() { "none".to_owned() } else { FEATURES.join(", ") };
        assert!(VERSION.ends_with(&format!("features: {listed}")));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "demo --nodes 8",
            "demo --link fast",
            "demo --size 1048577",
            "demo --records 5 a.log",
            "up",
            "up --dir d --nodes 8",
            "up --dir d --durability fast",
            "init --dir d",
            "init --dir d --nodes 3 --node 1=a:1,2",
            "verify",
            "config",
            "sim --seed 1 --seeds 2",
            "sim --seed 1 --seconds 2",
            "sim --seeds 0",
            "sim --seeds 2 --trace",
            "sim --seconds 0",
            "sim --events 0",
            "sim --trace",
            "sim --plan nodes=2",
            "sim --faults Lose:1 --seconds 2",
            "sim --seed 1 --plan nodes",
            "sim --seed 1 --faults lose",
            "sim --threads 0",
        ] {
            let arguments = std::iter::once("chainring").chain(line.split(' '));
            assert!(Cli::try_parse_from(arguments).is_err(), "{line}");
        }
        #[cfg(feature = "mutants")]
        for line in ["sim --mutants --trace", "sim --mutants --seed 1", "sim --mutant A,B --trace"]
        {
            let arguments = std::iter::once("chainring").chain(line.split(' '));
            assert!(Cli::try_parse_from(arguments).is_err(), "{line}");
        }
        let line = "chainring status --cluster http://a:1,http://b:2 --format json";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(cli.format, Format::Json);
        let Command::Status(args) = cli.command else { panic!() };
        assert_eq!(args.cluster, ["http://a:1", "http://b:2"]);
    }
}
