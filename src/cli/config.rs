//! `chainring config check`.

use super::out::{Exit, Failure, Output};
use crate::config::{Config, ConfigError, durability_name};
use serde_json::json;
use std::path::Path;

/// Loads a configuration for a command.
pub(super) fn load(file: &Path) -> Result<Config, Failure> {
    Config::load(file).map_err(|error| {
        let exit = match &error {
            ConfigError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Exit::NotFound
            }
            _ => Exit::Failed,
        };
        let message = match &error {
            ConfigError::Read { .. } => error.to_string(),
            _ => format!("{}: {error}", file.display()),
        };
        Failure::new(exit, "configuration", message)
    })
}

/// Checks a file whole; says what it comes to.
pub(super) fn check(file: &Path) -> Result<Output, Failure> {
    let config = load(file)?;
    let nodes = config.cluster.nodes.len();
    let durability = durability_name(config.cluster.durability);
    let hash = format!("{:032x}", config.config_hash());
    let arena = config.arena_bytes();
    let text = format!(
        "{}: node {} of {nodes}, {durability}, block {}, packet memory {} MiB, hash {hash}",
        file.display(),
        config.node.id.0,
        config.cluster.block,
        arena.div_ceil(1 << 20),
    );
    let json = json!({
        "ok": true,
        "file": file.display().to_string(),
        "node": config.node.id.0,
        "nodes": nodes,
        "durability": durability,
        "block": config.cluster.block,
        "packet_memory_bytes": arena,
        "packet_max_bytes": config.packet_max(),
        "hash": hash,
    });
    Ok(Output::new(text, json))
}
