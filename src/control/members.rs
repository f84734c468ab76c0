//! `/v1/members`: who votes, and the orders of an operator to change that.
//!
//! Invariants: whether a change may be is the core's to say; nothing is proposed by a dry run; a
//! node that does not coordinate proposes nothing and names who does.

use super::Control;
use super::wait::Slot;
use crate::http::{Request, Response};
use crate::mail::{Change, Command};
use async_io::Timer;
use chainring_ring::configuration::{Configuration, Refusal, Step};
use chainring_ring::ids::{Incarnation, NODES_MAX, NodeId};
use futures_lite::FutureExt;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A shard answers within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What an operator asks for.
enum Order {
    Add(NodeId),
    Remove(NodeId),
    Replace(NodeId, NodeId),
}

impl Order {
    fn of(request: &Request) -> Result<Order, String> {
        let node = |name: &str| {
            let text = request.parameter(name).ok_or(format!("`{name}` is missing"))?;
            let id = text.parse().ok().filter(|id| (1..=NODES_MAX as u8).contains(id));
            id.map(NodeId).ok_or(format!("{name}={text}: wanted a node, 1 to {NODES_MAX}"))
        };
        match request.parameter("action").as_deref() {
            Some("add") => Ok(Order::Add(node("node")?)),
            Some("remove") => Ok(Order::Remove(node("node")?)),
            Some("replace") => {
                let out = node("node")?;
                let by = request.parameter("by").map_or(Ok(out), |_| node("by"))?;
                Ok(Order::Replace(out, by))
            }
            _ => Err("action: wanted add, remove or replace".to_owned()),
        }
    }

    /// The step that begins it. Whoever is admitted gets an incarnation that nobody had.
    fn step(&self, now: &Configuration) -> Step {
        let fresh = |node: NodeId| Incarnation(now.highest(node).0 + 1);
        match *self {
            Order::Add(node) => Step::Admit { node, incarnation: fresh(node), instead: None },
            Order::Replace(out, node) => {
                Step::Admit { node, incarnation: fresh(node), instead: Some(out) }
            }
            Order::Remove(node) if now.voter(node).is_none() => Step::Dismiss { node },
            Order::Remove(node) => {
                Step::Joint { voters: now.voters() & !(1 << (node.0 - 1)), fresh: 0 }
            }
        }
    }
}

impl Control {
    /// Asks the shard; `None` if it does not answer.
    async fn ask_change(&self, step: Option<Step>, dry: bool) -> Option<Box<Change>> {
        let token = self.next_token();
        let slot = Slot::default();
        self.changes.borrow_mut().insert(token, slot.clone());
        self.send(Command::Change(Box::new(Change::new(token, step, dry)))).await;
        let answer = async { Some(slot.take().await) };
        let late = async {
            Timer::after(ANSWER_WITHIN).await;
            None
        };
        let answer = answer.or(late).await;
        self.changes.borrow_mut().remove(&token);
        answer
    }

    pub(super) async fn list_members(&self) -> Response {
        match self.ask_change(None, true).await {
            Some(change) => Response::json(200, &self.change_json(&change)),
            None => no_answer(),
        }
    }

    pub(super) async fn change_members(&self, request: &Request) -> Response {
        let order = match Order::of(request) {
            Ok(order) => order,
            Err(message) => return Response::error(400, "bad_parameter", &message),
        };
        let dry = request.parameter("dry_run").is_some_and(|dry| dry != "0");
        let Some(known) = self.ask_change(None, true).await else { return no_answer() };
        let step = order.step(&known.now);
        let Some(change) = self.ask_change(Some(step), dry).await else { return no_answer() };
        let body = self.change_json(&change);
        match change.after {
            Some(Err(refusal)) => {
                let more = Map::from_iter([("members".to_owned(), body)]);
                Response::error_with(409, code(&refusal), &refusal.to_string(), more)
            }
            _ => Response::json(200, &body),
        }
    }

    fn change_json(&self, change: &Change) -> Value {
        let now = &change.now;
        let members = now.nodes().map(|node| self.member_json(now, node));
        let mut body = json!({
            "v": 1,
            "version": now.version(),
            "joint": now.is_joint(),
            "coordinator": Some(change.coordinator.0).filter(|node| *node != 0),
            "coordinator_http": self.http_of(change.coordinator),
            "members": members.collect::<Vec<_>>(),
            "quorum": quorum(now),
            "dry_run": change.dry,
        });
        let Some(step) = change.step else { return body };
        let admitted = match step {
            Step::Admit { node, incarnation, .. } => {
                json!({ "node": node.0, "incarnation": incarnation.0 })
            }
            _ => Value::Null,
        };
        body["admitted"] = admitted;
        if let Some(Ok(after)) = &change.after {
            let stages = stages(now, after);
            body["quorums"] = stages.iter().map(quorum).collect();
        }
        body
    }

    fn member_json(&self, now: &Configuration, node: NodeId) -> Value {
        let life = |life: Option<Incarnation>| life.map(|life| life.0);
        let learner = now.learner(node);
        json!({
            "id": node.0,
            "http": self.http_of(node),
            "votes": life(now.voter(node)),
            "will_vote": life(now.next(node)),
            "learns": life(learner.map(|(life, _)| life)),
            "instead_of": learner.and_then(|(_, instead)| instead).map(|node| node.0),
        })
    }

    fn http_of(&self, node: NodeId) -> Option<String> {
        let member = self.config.cluster.nodes.iter().find(|member| member.id == node)?;
        Some(format!("http://{}", member.http))
    }
}

/// What there is one after another until a change is done, the present first.
fn stages(now: &Configuration, after: &Configuration) -> Vec<Configuration> {
    let mut stages = vec![*now, *after];
    let mut add = |step| {
        let last = *stages.last().expect("two at least");
        stages.extend(last.after(&last.change(step)));
    };
    let learner = after
        .nodes()
        .find(|node| after.learner(*node).is_some() && after.learner(*node) != now.learner(*node));
    if let Some(node) = learner {
        let bit = |node: NodeId| 1u8 << (node.0 - 1);
        let gone = after.learner(node).and_then(|(_, instead)| instead).map_or(0, bit);
        add(Step::Joint { voters: after.voters() & !gone | bit(node), fresh: bit(node) });
    }
    add(Step::Leave);
    stages
}

/// The sets of voters, and how many of each decide.
fn quorum(of: &Configuration) -> Value {
    let set = |life: &dyn Fn(NodeId) -> Option<Incarnation>| {
        let voters: Vec<u8> =
            of.nodes().filter(|node| life(*node).is_some()).map(|node| node.0).collect();
        json!({ "of": voters, "need": voters.len() / 2 + 1 })
    };
    let mut sets = vec![set(&|node| of.voter(node))];
    if of.is_joint() {
        sets.push(set(&|node| of.next(node)));
    }
    sets.into()
}

fn code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotCoordinator { .. } => "not_coordinator",
        Refusal::UnderWay => "under_way",
        Refusal::Unknown => "unknown_member",
        Refusal::AlreadyMember => "already_member",
        Refusal::Incarnation { .. } => "incarnation",
        Refusal::Same => "same",
        Refusal::LastVoter => "last_voter",
        Refusal::NoQuorum => "no_quorum",
    }
}

fn no_answer() -> Response {
    Response::error(503, "busy", "the ring does not answer now; try again").with("Retry-After", 1)
}
