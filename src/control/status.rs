//! What a node says of itself: status, readiness with reasons, metrics.
//!
//! Invariant: one list of reasons; `/readyz`, `/status` and the exit code of `chainring status`
//! all read it.

use super::Control;
use crate::config::{Member, durability_name};
use crate::gauges::{Gauge, Gauges, Halt, State};
use crate::http::Response;
use crate::records::Digest;
use chainring_ring::layout::Layout;
use serde_json::{Value, json};
use std::fmt::Write;

/// Why a node is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Code for programs.
    pub code: &'static str,
    /// For people: what, and what to do.
    pub message: String,
    /// True if the node cannot serve because of it; false if it serves with less than it should
    /// have.
    pub blocks: bool,
}

/// Figures that only rise; the others go up and down.
const COUNTERS: &[&str] = &[
    "records",
    "bytes",
    "proposed",
    "bad_frames",
    "data_in_bytes",
    "data_out_bytes",
    "groups",
    "log_bytes",
    "enters",
    "fetched",
    "scrubbed_bytes",
    "scrub_rounds",
    "damaged_values",
    "repaired_values",
    "damaged_groups",
];

/// Name of a state, as in JSON.
pub fn state_name(state: u64) -> &'static str {
    const NAMES: [&str; 8] = [
        "starting",
        "follower",
        "coordinator",
        "candidate",
        "catching_up",
        "draining",
        "stopped",
        "halted",
    ];
    NAMES.get(state as usize).copied().unwrap_or("unknown")
}

/// Code and text of a reason to halt, with the remedy; none for 0.
pub fn halt_reason(halt: u64) -> Option<(&'static str, &'static str)> {
    const AMNESIA: u64 = Halt::Amnesia as u64;
    const LOG_FAILED: u64 = Halt::LogFailed as u64;
    const TRIMMED: u64 = Halt::Trimmed as u64;
    match halt {
        AMNESIA => Some((
            "amnesia",
            "fewer than a quorum of nodes remember their votes, the ring can never go on; what it holds can still be read. For a new, empty log: stop it, then `chainring up` with --new-epoch; or on every node set a higher cluster.epoch in its configuration and start `chainring node` with --new-epoch",
        )),
        LOG_FAILED => Some((
            "log_failed",
            "a write or flush of the log failed: check the disk, then restart this node",
        )),
        TRIMMED => {
            Some(("trimmed", "no peer holds all entries that this node needs: it can not catch up"))
        }
        _ => None,
    }
}

impl Control {
    /// Everything that is wrong now.
    pub fn reasons(&self) -> Vec<Reason> {
        let gauges = &*self.gauges;
        let mut reasons = Vec::new();
        let mut add = |blocks, code, message: &str| {
            reasons.push(Reason { code, message: message.to_owned(), blocks });
        };
        if let Some((code, message)) = halt_reason(gauges.halt.get()) {
            add(true, code, message);
        }
        let state = gauges.state.get();
        match state {
            s if s == State::Starting as u64 => add(true, "starting", "the node is starting"),
            s if s == State::CatchingUp as u64 => {
                add(true, "catching_up", "the node fetches what was decided without it");
            }
            s if s == State::Stopped as u64 => add(true, "stopped", "the node has stopped"),
            s if s == State::Halted as u64 && gauges.halt.get() == 0 => {
                add(true, "halted", "the node halted");
            }
            _ => {}
        }
        if gauges.ready.get() == 0 {
            let message = "the node has not delivered yet what was decided before it started";
            add(true, "learning", message);
        }
        if self.is_draining() || state == State::Draining as u64 {
            add(true, "draining", "the node is stopping");
        }
        if gauges.coordinator.get() == 0 {
            add(true, "no_coordinator", "no coordinator is known");
        }
        if gauges.log_full.get() != 0 {
            let message = "the log has no room: free disk space or raise limits.log_bytes";
            add(true, "log_full", message);
        }
        let circle = circle(gauges);
        if circle.nodes().is_empty() && gauges.coordinator.get() != 0 {
            let message = "the node is outside the ring; it is taken back once it has caught up";
            add(true, "outside", message);
        }
        if circle.nodes().len() > 1 {
            for (code, gauge, message) in links(gauges) {
                if gauge.get() == 0 {
                    add(true, code, message);
                }
            }
        }
        if gauges.votes.get() == 0 {
            let message = "the node does not vote in this life: it learns; `chainring member list` \
                           says whether it is admitted, `chainring member replace` admits it";
            add(false, "forgot_votes", message);
        }
        if gauges.damaged.get() != 0 {
            let message = "a part of the log was damaged: what the node does not hold of it counts \
                           as unknown until it has voted for the barrier of a later ballot; while a \
                           quorum is not free of this, no ballot opens";
            add(false, "damaged", message);
        }
        for problem in self.problems() {
            add(false, "problem", &problem);
        }
        reasons
    }

    /// `/livez`: the process works, whatever the ring does.
    pub(super) fn livez(&self) -> Response {
        if self.gauges.state.get() == State::Stopped as u64 {
            return Response::error(503, "stopped", "the shard has ended");
        }
        Response::json(200, &json!({ "v": 1, "live": true }))
    }

    /// `/readyz`: the node takes appends and serves reads; or why not.
    pub(super) fn readyz(&self) -> Response {
        let blocking: Vec<Value> =
            self.reasons().iter().filter(|reason| reason.blocks).map(reason_json).collect();
        let ready = blocking.is_empty();
        let body = json!({ "v": 1, "ready": ready, "reasons": blocking });
        let response = Response::json(if ready { 200 } else { 503 }, &body);
        if ready { response } else { response.with("Retry-After", 1) }
    }

    /// `/status`.
    pub fn status(&self) -> Value {
        let g = &*self.gauges;
        let cluster = &self.config.cluster;
        let reasons = self.reasons();
        let catalog = self.catalog();
        let known = g.received.get().max(g.decided.get());
        let digest = Digest::from_halves(g.digest_low.get(), g.digest_high.get());
        json!({
            "v": 1,
            "node": self.config.node.id.0,
            "cluster": format!("{:032x}", cluster.id.0),
            "epoch": cluster.epoch.0,
            "nodes": cluster.nodes.len(),
            "durability": durability_name(cluster.durability),
            "block": cluster.block,
            "state": state_name(g.state.get()),
            "ready": !reasons.iter().any(|reason| reason.blocks),
            "reasons": reasons.iter().map(reason_json).collect::<Vec<_>>(),
            "halt": halt_reason(g.halt.get()).map(|(code, _)| code),
            "votes": g.votes.get() != 0,
            "incarnation": g.incarnation.get(),
            "start": g.start.get(),
            "coordinator": Some(g.coordinator.get()).filter(|node| *node != 0),
            "ballot": {
                "round": g.ballot_round.get(),
                "node": g.coordinator.get(),
                "incarnation": g.ballot_incarnation.get(),
            },
            "members": self.members_json(),
            "layout": circle(g).nodes().iter().map(|node| node.0).collect::<Vec<_>>(),
            "positions": {
                "received": g.received.get(),
                "durable": g.durable.get(),
                "decided": g.decided.get(),
                "delivered": g.delivered.get(),
                "delivered_everywhere": g.delivered_everywhere.get(),
                "first": catalog.first().0,
                "readable": catalog.delivered().0,
            },
            "lag": known.saturating_sub(g.delivered.get()),
            "records": g.records.get(),
            "bytes": g.bytes.get(),
            "digest": format!("{:032x}", digest.0),
            "topics": catalog.topics().len(),
            "log": log_json(g),
            "links": links_json(g),
            "bad_frames": g.bad_frames.get(),
            "open_appends": self.open_appends(),
            "http": self.http_json(),
        })
    }

    fn members_json(&self) -> Vec<Value> {
        let member = |member: &Member| json!({ "id": member.id.0, "http": format!("http://{}", member.http) });
        self.config.cluster.nodes.iter().map(member).collect()
    }

    fn http_json(&self) -> Value {
        json!({
            "connections": self.http.connections.get(),
            "requests": self.http.requests.get(),
            "bad": self.http.bad.get(),
            "timeouts": self.http.timeouts.get(),
            "refused": self.http.refused.get(),
            "memory_bytes": self.budget.used() + self.answers.used(),
        })
    }

    /// `/metrics`: Prometheus text.
    pub(super) fn metrics(&self) -> Response {
        let mut out = String::new();
        let node = self.config.node.id.0;
        self.gauges.each(|name, value| {
            metric(&mut out, name, COUNTERS.contains(&name), node, value);
        });
        let ready = u64::from(!self.reasons().iter().any(|reason| reason.blocks));
        let topics = self.catalog().topics().len() as u64;
        for (name, counter, value) in [
            ("ready", false, ready),
            ("topics", false, topics),
            ("open_appends", false, self.open_appends() as u64),
            ("http_connections", false, self.http.connections.get()),
            ("http_memory_bytes", false, self.budget.used() + self.answers.used()),
            ("http_requests", true, self.http.requests.get()),
            ("http_bad", true, self.http.bad.get()),
            ("http_timeouts", true, self.http.timeouts.get()),
            ("http_refused", true, self.http.refused.get()),
        ] {
            metric(&mut out, name, counter, node, value);
        }
        Response::new(200, "text/plain; version=0.0.4", out.into_bytes())
    }
}

fn metric(out: &mut String, name: &str, counter: bool, node: u8, value: u64) {
    let (kind, suffix) = if counter { ("counter", "_total") } else { ("gauge", "") };
    let _ = writeln!(out, "# TYPE chainring_{name}{suffix} {kind}");
    let _ = writeln!(out, "chainring_{name}{suffix}{{node=\"{node}\"}} {value}");
}

fn reason_json(reason: &Reason) -> Value {
    json!({ "code": reason.code, "message": reason.message, "blocks": reason.blocks })
}

fn log_json(g: &Gauges) -> Value {
    json!({
        "bytes": g.log_bytes.get(),
        "groups": g.groups.get(),
        "behind_bytes": g.log_behind_bytes.get(),
        "behind_us": g.log_behind_us.get(),
        "full": g.log_full.get() != 0,
        "scrubbed_bytes": g.scrubbed_bytes.get(),
        "scrub_rounds": g.scrub_rounds.get(),
        "damaged_values": g.damaged_values.get(),
        "repaired_values": g.repaired_values.get(),
        "damaged_groups": g.damaged_groups.get(),
    })
}

fn links_json(g: &Gauges) -> Value {
    json!({
        "data_in": g.data_in_up.get() != 0,
        "data_out": g.data_out_up.get() != 0,
        "control_in": g.control_in_up.get() != 0,
        "control_out": g.control_out_up.get() != 0,
    })
}

/// The circle that the node is in, the coordinator first; empty if it is in none.
fn circle(gauges: &Gauges) -> Layout {
    Layout::decode(gauges.circle.get() as u32).unwrap_or_default()
}

fn links(gauges: &Gauges) -> [(&'static str, &Gauge, &'static str); 4] {
    [
        ("data_in_down", &gauges.data_in_up, "no data link from the predecessor"),
        ("data_out_down", &gauges.data_out_up, "no data link to the successor"),
        ("control_in_down", &gauges.control_in_up, "no control link from the predecessor"),
        ("control_out_down", &gauges.control_out_up, "no control link to the successor"),
    ]
}
