//! A configuration as the text that `init` writes: every key, every comment.
//!
//! Invariant: what is written reads back as the same configuration.

use super::{Config, durability_name};
use std::fmt::Write;

impl Config {
    /// The configuration as TOML, with comments.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("a string takes all");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let cluster = &self.cluster;
        writeln!(
            out,
            "# Chainring node {}. `chainring config check FILE` checks it.",
            self.node.id.0
        )?;
        writeln!(out, "\n# Equal on all nodes; peers refuse each other where it differs.")?;
        writeln!(out, "[cluster]")?;
        writeln!(out, "id = \"{:032x}\"", cluster.id.0)?;
        writeln!(out, "# A higher epoch is a new log.")?;
        writeln!(out, "epoch = {}", cluster.epoch.0)?;
        writeln!(out, "# A node votes for an entry: memory, async = when it is in memory (async")?;
        writeln!(out, "# writes it behind); sync = when it is on stable media.")?;
        writeln!(out, "durability = \"{}\"", durability_name(cluster.durability))?;
        writeln!(
            out,
            "# Unit of data links and disk, bytes: 4096 where one node's disk demands it, or 512."
        )?;
        writeln!(out, "block = {}", cluster.block)?;
        writeln!(
            out,
            "# address: for peers. http: for clients. spare = true: the log does not begin"
        )?;
        writeln!(
            out,
            "# with it; `chainring member add` admits it. Spares may differ for a while."
        )?;
        writeln!(out, "nodes = [")?;
        for member in &cluster.nodes {
            let (address, http) = (quoted(&member.address), quoted(&member.http));
            let spare = if member.spare { ", spare = true" } else { "" };
            let id = member.id.0;
            writeln!(out, "  {{ id = {id}, address = {address}, http = {http}{spare} }},")?;
        }
        writeln!(out, "]\n")?;
        writeln!(out, "# This node's own.")?;
        writeln!(out, "[node]")?;
        writeln!(out, "id = {}", self.node.id.0)?;
        writeln!(out, "# Directory of the log; relative to this file.")?;
        writeln!(out, "dir = {}", quoted(&self.node.dir.to_string_lossy()))?;
        writeln!(out, "# true: a file system without O_DIRECT is accepted.")?;
        writeln!(out, "development = {}", self.node.development)?;
        writeln!(
            out,
            "# Processor that the shard thread is pinned to; without it, the system chooses."
        )?;
        match self.node.core {
            Some(core) => writeln!(out, "core = {core}")?,
            None => writeln!(out, "# core = 0")?,
        }
        writeln!(out, "\n# Bytes unless the name ends otherwise.")?;
        writeln!(out, "[limits]")?;
        self.limits.each(|key, value, comment| {
            for line in comment {
                let _ = writeln!(out, "#{line}");
            }
            let _ = writeln!(out, "{} = {value}", key.trim_start_matches("limits."));
        });
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
