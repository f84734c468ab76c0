//! `chainring up` and `chainring node`: nodes in the foreground until a signal.

use super::config::load;
use super::out::{Exit, Failure, Format, Output, print};
use super::{NodeArgs, UpArgs, make};
use crate::config::Config;
use crate::node::{self, NodeError};
use crate::recover;
use crate::shard::Failure as ShardFailure;
use serde_json::json;

/// `chainring up`.
pub(super) fn up(args: &UpArgs, format: Format) -> Result<Output, Failure> {
    let prepared = make::prepare(args)?;
    if let Some(epoch) = prepared.new_epoch {
        // Said on stderr whether it is a terminal or not: a log is gone.
        let why = match args.durability.as_str() {
            "memory" => "all nodes of this memory cluster had stopped, so its log is gone",
            _ => "as told by --new-epoch, the log of the epoch before is put aside",
        };
        eprintln!("chainring: {why}: this is cluster epoch {epoch}, a new log");
    }
    let urls: Vec<String> =
        prepared.configs.iter().map(|config| format!("http://{}", config.member().http)).collect();
    let epoch = prepared.configs[0].cluster.epoch.0;
    let new_epoch = prepared.new_epoch.is_some();
    let ready = move || match format {
        Format::Text => print(&format!("ready: {}", urls.join(" "))),
        Format::Json => print(
            &json!({ "v": 1, "ready": true, "http": urls, "epoch": epoch, "new_epoch": new_epoch })
                .to_string(),
        ),
    };
    run_nodes(prepared.configs, Box::new(ready))?;
    Ok(Output::nothing())
}

/// `chainring node`.
pub(super) fn node(args: &NodeArgs, format: Format) -> Result<Output, Failure> {
    let config = load(&args.config)?;
    if args.new_epoch {
        recover::new_epoch(&config).map_err(|error| Failure::new(Exit::Failed, "store", error))?;
    }
    let (id, url) = (config.node.id.0, format!("http://{}", config.member().http));
    let ready = move || match format {
        // Whether its ring takes records depends on the others: /readyz tells.
        Format::Text => print(&format!("listening: node {id} {url}")),
        Format::Json => {
            print(&json!({ "v": 1, "listening": true, "node": id, "http": [url] }).to_string());
        }
    };
    run_nodes(vec![config], Box::new(ready))?;
    Ok(Output::nothing())
}

/// Called when all nodes of the process are ready.
type Ready = Box<dyn FnOnce() + Send>;

/// Runs nodes until a signal has stopped them: the first drains, a second one stops at once.
fn run_nodes(configs: Vec<Config>, ready: Ready) -> Result<(), Failure> {
    node::run(configs, ready).map_err(|error| {
        let code = match &error {
            NodeError::Ended { source: ShardFailure::Log(_), .. } => "log",
            NodeError::Ended { source: ShardFailure::Diverged(_), .. } => "diverged",
            _ => "start",
        };
        Failure::new(Exit::Failed, code, error)
    })
}
