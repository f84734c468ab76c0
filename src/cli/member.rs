//! `chainring member`: who votes, and changes of that.
//!
//! Invariant: an order goes to the node that coordinates, once; what became of it is asked for
//! again, never guessed.

use super::out::{Exit, Failure, Output, progress, table};
use crate::config::Config;
use crate::http::client::{self, ClientError};
use crate::recover;
use chainring_ring::ids::Incarnation;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Between two looks at what became of a change.
const LOOK: Duration = Duration::from_millis(100);

/// Subcommands of `member`.
#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// Show who votes, learns, comes and goes.
    #[command(after_help = "Example:\n  chainring member list --cluster http://10.0.0.1:8081")]
    List(ClusterArgs),
    /// Admit a node that the configurations list as `spare`: it learns, then votes.
    #[command(after_help = "Example:\n  chainring member add 4 --dry-run")]
    Add(ChangeArgs),
    /// Take a node's vote, and let it go.
    #[command(after_help = "Example:\n  chainring member remove 2 --dry-run")]
    Remove(ChangeArgs),
    /// Give a node's vote to another, or to a new life of it whose store is empty.
    #[command(after_help = "Example:\n  chainring member replace 2 --dry-run")]
    Replace(ReplaceArgs),
    /// Make the empty store of a node that is to come, or to come back.
    #[command(after_help = "Example:\n  chainring member store --config ring/4/chainring.toml")]
    Store(StoreArgs),
}

/// Where to ask.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// Nodes to ask, one after another until one answers.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:8081")]
    pub cluster: Vec<String>,
    /// Longest wait for one answer, seconds.
    #[arg(long, default_value_t = 5)]
    pub timeout: u64,
}

/// Arguments of `member add` and `member remove`.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// The node.
    #[arg(value_parser = clap::value_parser!(u8).range(1..=7))]
    pub node: u8,
    /// Only show the quorums before and after.
    #[arg(long)]
    pub dry_run: bool,
    /// Where to ask.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Arguments of `member replace`.
#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// By which node; without it, by a new life of the same.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub by: Option<u8>,
    /// The rest.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Arguments of `member store`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The node's configuration.
    #[arg(long)]
    pub config: PathBuf,
    /// As `member add` or `member replace` named it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub incarnation: u32,
}

/// Runs a subcommand.
pub(super) fn run(command: &MemberCommand) -> Result<Output, Failure> {
    match command {
        MemberCommand::List(args) => {
            let members = ask(args, "GET", "/v1/members")?;
            Ok(Output::new(show(&members), members))
        }
        MemberCommand::Add(args) => change("add", args, ""),
        MemberCommand::Remove(args) => change("remove", args, ""),
        MemberCommand::Replace(ReplaceArgs { by, change: args }) => {
            let by = by.map_or_else(String::new, |by| format!("&by={by}"));
            change("replace", args, &by)
        }
        MemberCommand::Store(args) => store(args),
    }
}

fn store(args: &StoreArgs) -> Result<Output, Failure> {
    let config =
        Config::load(&args.config).map_err(|error| Failure::new(Exit::Usage, "config", error))?;
    let dir = config.node.dir.display().to_string();
    if recover::is_formatted(&config.node.dir) {
        let message =
            format!("{dir} holds a store; put it aside first, and never run a node on it again");
        return Err(Failure::new(Exit::Refused, "store_exists", message));
    }
    recover::format_life(&config, Incarnation(args.incarnation))
        .map_err(|error| Failure::new(Exit::Failed, "store", error))?;
    let node = config.node.id.0;
    let text = format!("{dir}: an empty store of node {node}, incarnation {}", args.incarnation);
    let json = json!({ "dir": dir, "node": node, "incarnation": args.incarnation });
    Ok(Output::new(text, json))
}

/// Asks one node after another until one answers, and from there the one that coordinates.
fn ask(args: &ClusterArgs, method: &str, path: &str) -> Result<Value, Failure> {
    let timeout = Duration::from_secs(args.timeout.clamp(1, 60));
    let mut urls: Vec<String> = args.cluster.clone();
    let mut failures = Vec::new();
    let mut at = 0;
    while let Some(url) = urls.get(at).cloned() {
        at += 1;
        progress(&format!("asking {url}"));
        let answer = match client::request(&url, method, path, &[], timeout) {
            Ok(answer) => answer,
            Err(error @ ClientError::Url { .. }) => {
                return Err(Failure::new(Exit::Usage, "usage", error));
            }
            Err(error) => {
                failures.push(error.to_string());
                continue;
            }
        };
        let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else {
            failures.push(format!("{url} answered {} and no JSON", answer.status));
            continue;
        };
        if answer.status == 200 {
            return Ok(body);
        }
        let error = &body["error"];
        let (code, message) = (error["code"].as_str(), error["message"].as_str());
        let coordinator = error["members"]["coordinator_http"].as_str().map(str::to_owned);
        match coordinator.filter(|_| code == Some("not_coordinator")) {
            // Also one that was asked before: it may coordinate by now.
            Some(coordinator) if urls.len() < 16 => urls.insert(at, coordinator),
            _ if answer.status == 503 => failures.push(message.unwrap_or("busy").to_owned()),
            _ => return Err(refused(code, message.unwrap_or("refused"))),
        }
    }
    Err(Failure::new(Exit::Unreachable, "unreachable", failures.join("; ")))
}

fn refused(code: Option<&str>, message: &str) -> Failure {
    let known = ["under_way", "unknown_member", "already_member", "incarnation", "same"];
    let known = known.into_iter().chain(["last_voter", "no_quorum", "bad_parameter"]);
    let code = known.into_iter().find(|known| Some(*known) == code).unwrap_or("refused");
    Failure::new(Exit::Refused, code, message)
}

fn change(action: &str, args: &ChangeArgs, more: &str) -> Result<Output, Failure> {
    let dry = if args.dry_run { "&dry_run=1" } else { "" };
    let path = format!("/v1/members?action={action}&node={}{more}{dry}", args.node);
    let planned = ask(&args.cluster, "POST", &path)?;
    let mut text = stages(&planned);
    if args.dry_run {
        return Ok(Output::new(text, planned));
    }
    let members = await_change(&args.cluster, &planned)?;
    if let Some(life) = planned["admitted"]["incarnation"].as_u64() {
        let node = &planned["admitted"]["node"];
        text.push_str(&format!(
            "\nnode {node} is admitted as incarnation {life}; where its store is not made yet:\n  \
             chainring member store --config FILE --incarnation {life}\nIt votes once it runs and \
             has caught up: `chainring member list` tells."
        ));
    }
    let json = json!({ "planned": planned, "members": members });
    Ok(Output::new(text, json))
}

/// Waits until the first step is decided, and a joint change over.
fn await_change(args: &ClusterArgs, planned: &Value) -> Result<Value, Failure> {
    let until = Instant::now() + Duration::from_secs(args.timeout.clamp(1, 60));
    let version = planned["version"].as_u64();
    loop {
        let members = ask(args, "GET", "/v1/members")?;
        if members["version"].as_u64() > version && members["joint"] == false {
            return Ok(members);
        }
        if Instant::now() >= until {
            let message = "the change was proposed and is not decided yet; `chainring member list` \
                           tells what became of it";
            return Err(Failure::new(Exit::Timeout, "timeout", message));
        }
        std::thread::sleep(LOOK);
    }
}

fn show(members: &Value) -> String {
    let mut rows =
        vec![["NODE", "VOTES", "STATE", "INSTEAD OF", "HTTP"].map(str::to_owned).to_vec()];
    for member in members["members"].as_array().into_iter().flatten() {
        let state = match (&member["votes"], &member["will_vote"], &member["learns"]) {
            (_, _, learns) if !learns.is_null() => format!("learns as {learns}"),
            (Value::Null, next, _) => format!("joins as {next}"),
            (_, Value::Null, _) if members["joint"] == true => "leaves".to_owned(),
            _ => "votes".to_owned(),
        };
        let text = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let [id, votes, instead, http] =
            ["id", "votes", "instead_of", "http"].map(|k| text(&member[k]));
        rows.push(vec![id, votes, state, instead, http]);
    }
    let mut out = table(&rows);
    out.push_str(&format!("\nquorum: {}", quorum(&members["quorum"])));
    out
}

fn stages(planned: &Value) -> String {
    let stages = planned["quorums"].as_array().into_iter().flatten();
    let names = ["now", "then", "then", "at last"].into_iter().chain(std::iter::repeat("then"));
    let lines: Vec<String> =
        stages.zip(names).map(|(stage, name)| format!("{name:8}{}", quorum(stage))).collect();
    lines.join("\n")
}

/// "2 of 1 2 3 and 3 of 1 2 3 4"
fn quorum(sets: &Value) -> String {
    let set = |set: &Value| {
        let of = set["of"].as_array().into_iter().flatten();
        let of: Vec<String> = of.map(Value::to_string).collect();
        format!("{} of {}", set["need"], of.join(" "))
    };
    let sets: Vec<String> = sets.as_array().into_iter().flatten().map(set).collect();
    sets.join(" and ")
}
