//! Input: files, the built-in sample, or random records, cut into parts.
//!
//! Invariants: everything is read before a node starts, so that an unreadable file costs nothing;
//! what lies before a line that is too long is shipped.

use super::parts::{Content, Part, cut, mix, too_long};
use super::{DemoError, INPUT_BYTES_MAX, Load, RECORD_BYTES_MAX};
use crate::groups::TOPICS_MAX;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Lines of the built-in sample.
pub const SAMPLE_LINES: u64 = 20_000;
/// Everything made up comes from here, so that two runs ship the same.
const SEED: u64 = 0x6368_6169_6e72_696e;

/// What is to be shipped.
#[derive(Debug)]
pub struct Input {
    /// By file, and for each file by node.
    pub parts: Vec<Part>,
    /// No longer than this.
    pub time: Option<Duration>,
    /// What was left out.
    pub refused: Option<DemoError>,
}

impl Input {
    /// Reads the load and cuts it into parts for `nodes` nodes.
    pub fn read(load: &Load, nodes: u8) -> Result<Input, DemoError> {
        let mut input = Input { parts: Vec::new(), time: None, refused: None };
        match load {
            Load::Files(files) => {
                let most = TOPICS_MAX as usize / usize::from(nodes);
                if files.len() > most {
                    return Err(DemoError::TooManyFiles { files: files.len(), nodes, most });
                }
                input.read_files(files, nodes)?;
            }
            Load::Sample => input.add_text(1, sample(SAMPLE_LINES), nodes),
            Load::Random { records, size, time } => {
                input.time = *time;
                input.add_random(*records, *size, nodes);
            }
        }
        Ok(input)
    }

    fn read_files<P: AsRef<Path>>(&mut self, files: &[P], nodes: u8) -> Result<(), DemoError> {
        // All of them, before a line of one stops the rest: an unreadable file ships nothing.
        let mut texts = Vec::new();
        let mut total = 0;
        for path in files {
            let path = path.as_ref();
            let failed = |source| DemoError::Read { path: path.to_owned(), source };
            total += std::fs::metadata(path).map_err(failed)?.len();
            if total > INPUT_BYTES_MAX {
                return Err(DemoError::InputTooLarge);
            }
            texts.push((path, std::fs::read(path).map_err(failed)?));
        }
        for (number, (path, mut text)) in (1..).zip(texts) {
            if let Some((start, line)) = too_long(&text, RECORD_BYTES_MAX as usize) {
                text.truncate(start);
                self.refused = Some(DemoError::LineTooLong { path: path.to_owned(), line });
            }
            self.add_text(number, text, nodes);
            if self.refused.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn add_text(&mut self, number: usize, text: Vec<u8>, nodes: u8) {
        let ends = cut(&text, nodes.into());
        let text = Arc::new(text);
        let mut from = 0;
        for (node, to) in ends.into_iter().enumerate() {
            let content = Content::Lines { text: Arc::clone(&text), from, to };
            let topic = format!("demo.{number}.{}", node + 1);
            self.parts.push(Part { topic, node, content });
            from = to;
        }
    }

    fn add_random(&mut self, records: Option<u64>, size: u32, nodes: u8) {
        for node in 0..u64::from(nodes) {
            let until = |node: u64, all: u64| {
                (u128::from(all) * u128::from(node) / u128::from(nodes)) as u64
            };
            let count = records.map_or(u64::MAX, |all| until(node + 1, all) - until(node, all));
            let content = Content::Random { seed: mix(SEED ^ node), size, count };
            let topic = format!("demo.0.{}", node + 1);
            self.parts.push(Part { topic, node: node as usize, content });
        }
    }

    /// Number and bytes of all records; `None` if only the time limits them.
    pub fn sum(&self) -> Option<(u64, u64)> {
        let endless = |part: &Part| matches!(part.content, Content::Random { count: u64::MAX, .. });
        if self.parts.iter().any(endless) {
            return None;
        }
        let add = |(records, bytes): (u64, u64), part: &Part| {
            let (more, more_bytes) = part.content.sum();
            (records + more, bytes + more_bytes)
        };
        Some(self.parts.iter().fold((0, 0), add))
    }

    /// Time ended the load: each node shipped so many of its records.
    pub fn shipped(&mut self, records: &[u64]) {
        for part in &mut self.parts {
            if let Content::Random { count, .. } = &mut part.content {
                *count = records[part.node];
            }
        }
    }
}

/// Lines as a system log has them, made up from the seed.
pub fn sample(lines: u64) -> Vec<u8> {
    const HOSTS: [&str; 4] = ["web-1", "web-2", "db-1", "mail"];
    const PROGRAMS: [&str; 5] = ["sshd", "cron", "kernel", "nginx", "postfix/smtpd"];
    const EVENTS: [&str; 6] = [
        "Accepted publickey for deploy from 10.0.{a}.{b} port {c} ssh2",
        "Failed password for invalid user admin from 192.0.2.{b} port {c} ssh2",
        "(root) CMD (/usr/lib/cleanup --days {a})",
        "GET /item/{c} 200 {b} ms",
        "connect from unknown[198.51.100.{b}]",
        "eth0: link up, {a} errors, {c} packets",
    ];
    let mut text = String::new();
    for line in 0..lines {
        let draw = |what: u64, below: u64| mix(SEED ^ mix(line * 8 + what)) % below;
        let (a, b, c) = (draw(0, 250), draw(1, 250), 1024 + draw(2, 60_000));
        let host = HOSTS[draw(3, 4) as usize];
        let program = PROGRAMS[draw(4, 5) as usize];
        let event = EVENTS[draw(5, 6) as usize]
            .replace("{a}", &a.to_string())
            .replace("{b}", &b.to_string())
            .replace("{c}", &c.to_string());
        let (hour, minute, second) = (line / 3600 % 24, line / 60 % 60, line % 60);
        text.push_str(&format!(
            "Nov 20 {hour:02}:{minute:02}:{second:02} {host} {program}[{c}]: {event}\n"
        ));
    }
    text.into_bytes()
}
