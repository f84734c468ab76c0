//! The routes: records in and out, status, health, metrics.
//!
//! Invariants: a body is checked whole before anything of it is appended; a reader sees only what
//! the catalog has, and so only what is delivered here; an answer is made in memory that the
//! budget paid for.

use super::catalog::Located;
use super::producer::{Sender, fenced};
use super::{AppendError, Control};
use crate::http::server::{Handler, Server};
use crate::http::{Permit, Request, Response};
use crate::mail::TopicId;
use crate::records::{
    LineTooLong, Run, Stamp, is_topic_name, line_ends, line_ends_bytes, records, run_at,
};
use async_io::Timer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chainring_ring::header::{HEADER_BYTES, Header};
use futures_lite::FutureExt;
use futures_lite::future::yield_now;
use serde_json::{Map, json};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Records of one answer without `limit`.
const LIMIT_DEFAULT: u64 = 1000;
/// Most records of one answer.
const LIMIT_MAX: u64 = 1_000_000;
/// Longest `wait_ms`.
const WAIT_MS_MAX: u64 = 600_000;

/// The HTTP server in front of a control thread.
pub(super) fn server(control: &Rc<Control>) -> Rc<Server> {
    let shared = Rc::clone(control);
    let handler: Handler = Rc::new(move |request| {
        let control = Rc::clone(&shared);
        Box::pin(async move { control.route(request).await })
    });
    Rc::new(Server {
        limits: control.config.limits.clone(),
        budget: control.budget.clone(),
        counters: Rc::clone(&control.http),
        handler,
    })
}

impl Control {
    async fn route(&self, request: Request) -> Response {
        let reads = matches!(request.method.as_str(), "GET" | "HEAD");
        if let Some(topic) = request.path.strip_prefix("/v1/logs/") {
            let topic = topic.to_owned();
            if !is_topic_name(&topic) {
                let message = "a topic is named by 1 to 249 of A-Z a-z 0-9 . _ -";
                return Response::error(400, "bad_topic", message);
            }
            return match request.method.as_str() {
                "POST" => self.post(&topic, request).await,
                _ if reads => self.get(&topic, &request).await,
                _ => not_allowed("GET, HEAD, POST"),
            };
        }
        if request.path == "/v1/members" {
            return match request.method.as_str() {
                "POST" => self.change_members(&request).await,
                _ if reads => self.list_members().await,
                _ => not_allowed("GET, HEAD, POST"),
            };
        }
        let known = ["/status", "/livez", "/readyz", "/metrics"].contains(&request.path.as_str());
        match request.path.as_str() {
            _ if known && !reads => not_allowed("GET, HEAD"),
            "/status" => Response::json(200, &self.status()),
            "/livez" => self.livez(),
            "/readyz" => self.readyz(),
            "/metrics" => self.metrics(),
            _ => Response::error(404, "not_found", "no such path"),
        }
    }

    async fn post(&self, topic: &str, request: Request) -> Response {
        let Request { body, mut permit, producer, .. } = request;
        let need = body.capacity() as u64 + line_ends_bytes(&body);
        if permit.never(need) {
            let message = "too many lines for one body; send it in parts";
            return Response::error(413, "body_too_large", message);
        }
        if !permit.cover(need) {
            return unavailable("busy", "no memory for the body now; nothing was appended");
        }
        let ends = match line_ends(&body, self.config.limits.record_bytes) {
            Ok(ends) => ends,
            Err(error @ LineTooLong { line, .. }) => {
                let message = format!("{error}; nothing was appended");
                let more = Map::from_iter([("line".to_owned(), line.into())]);
                return Response::error_with(413, "record_too_large", &message, more);
            }
        };
        let (stamp, new) = match Sender::of(&producer, ends.len()) {
            Ok(Sender::Anyone) => (None, None),
            Ok(Sender::Known(stamp)) => (Some(stamp), None),
            Ok(Sender::New(stamp)) => match self.register().await {
                Ok(producer) => (Some(Stamp { producer, ..stamp }), Some(producer)),
                Err(error) => return append_error(&error),
            },
            Err(message) => return Response::error(400, "bad_producer", &message),
        };
        let response = self.post_records(topic, body, ends, stamp, permit).await;
        // Also with an error: whoever sends the same again needs the id.
        match new {
            Some(producer) => response.with("Chainring-Producer", producer),
            None => response,
        }
    }

    async fn post_records(
        &self,
        topic: &str,
        body: Vec<u8>,
        ends: Vec<u32>,
        stamp: Option<Stamp>,
        permit: Permit,
    ) -> Response {
        let count = ends.len();
        let offsets = match self.append(topic, Bytes::from(body), ends, stamp, permit).await {
            Ok(offsets) => offsets,
            Err(error) => return append_error(&error),
        };
        let (first, last) = offsets.unzip();
        let mut answer = json!({
            "v": 1, "topic": topic, "first_offset": first, "last_offset": last, "count": count,
        });
        if let Some(stamp) = stamp {
            answer["producer"] = stamp.producer.into();
        }
        Response::json(200, &answer)
    }

    async fn get(&self, name: &str, request: &Request) -> Response {
        let query = match Query::of(request) {
            Ok(query) => query,
            Err(message) => return Response::error(400, "bad_parameter", &message),
        };
        let epoch = self.config.cluster.epoch.0;
        if query.epoch.is_some_and(|asked| asked != u64::from(epoch)) {
            return self.other_epoch();
        }
        let Some(topic) = self.catalog().topic(name) else {
            return Response::error(404, "unknown_topic", "no such topic");
        };
        self.wait_for(topic, &query).await;
        if let Some(response) = self.of_another_epoch(topic, &query) {
            return response;
        }
        let mut answer = Answer::new(&query, self.answers.permit());
        if let Err(response) = self.collect(topic, &query, &mut answer).await {
            return *response;
        }
        let end = self.catalog().view(topic).map_or(0, |view| view.end);
        answer.finish(end).with("Chainring-Epoch", epoch)
    }

    /// A reader beyond the end of a log that is not the cluster's first has offsets of the one
    /// before: it gets an error, never an empty log. At the end itself a reader just waits.
    fn of_another_epoch(&self, topic: TopicId, query: &Query) -> Option<Response> {
        let end = self.catalog().view(topic).map_or(0, |view| view.end);
        let told = query.epoch.is_some() || self.config.cluster.epoch.0 == 1;
        // A node that lags does not know its end yet.
        let lags = self.gauges.delivered.get() < self.gauges.decided.get();
        (!told && !lags && query.offset > end).then(|| self.other_epoch())
    }

    fn other_epoch(&self) -> Response {
        let epoch = self.config.cluster.epoch.0;
        let message = format!(
            "the log is of cluster epoch {epoch}: offsets of another one mean nothing here"
        );
        let more = Map::from_iter([("epoch".to_owned(), epoch.into())]);
        Response::error_with(410, "other_epoch", &message, more)
    }

    /// Waits until the offset exists, as long as the client allows.
    async fn wait_for(&self, topic: TopicId, query: &Query) {
        let deadline = Instant::now() + Duration::from_millis(query.wait_ms);
        loop {
            let seen = self.changed.generation();
            let end = self.catalog().view(topic).map_or(0, |view| view.end);
            if end > query.offset || self.is_draining() || Instant::now() >= deadline {
                return;
            }
            let late = async {
                Timer::at(deadline).await;
            };
            self.changed.beyond(seen).or(late).await;
        }
    }

    /// Puts records into the answer until one limit is met.
    async fn collect(
        &self,
        topic: TopicId,
        query: &Query,
        answer: &mut Answer,
    ) -> Result<(), Box<Response>> {
        let room = self.config.limits.http_answer_bytes as usize;
        let (mut frame, mut frame_at) = (Vec::new(), None);
        while answer.count < query.limit && answer.bytes.len() < room {
            let located = self.catalog().locate(topic, answer.next);
            let run = match located {
                Located::Above { .. } => break,
                Located::Below { .. } if answer.count > 0 => break,
                Located::Below { first } => return Err(gone(first)),
                Located::Run(run) => run,
            };
            // The frame, and its first record, which JSON makes longer by half.
            let need = answer.bytes.len() + 3 * run.place.bytes as usize;
            if !answer.permit.cover(need as u64) {
                if answer.count > 0 {
                    break;
                }
                return Err(Box::new(unavailable("busy", "no memory for the answer now")));
            }
            if frame_at != Some(run.place.at) {
                frame_at = Some(run.place.at);
                let intact = self.read(run.place, &mut frame).await && run.is_in(&frame);
                if !intact && !self.repair(run.id, run.place, &mut frame).await {
                    return self.unreadable(topic, answer);
                }
                yield_now().await;
            }
            let skip = u64::from(run.skip) + answer.next - run.first_offset;
            let Some(bytes) = run_bytes(&frame, run.at) else {
                return Err(Box::new(Response::error(500, "damaged", "the log is damaged here")));
            };
            for record in records(bytes).skip(skip as usize) {
                if answer.count == query.limit || !answer.push(record, room) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A frame that the catalog names cannot be read: dropped meanwhile, or damaged.
    fn unreadable(&self, topic: TopicId, answer: &Answer) -> Result<(), Box<Response>> {
        if answer.count > 0 {
            return Ok(());
        }
        match self.catalog().locate(topic, answer.next) {
            Located::Below { first } => Err(gone(first)),
            // The memory log dropped it and the notice is still on its way: everything up to
            // this run is going.
            Located::Run(run) if matches!(self.read, super::ReadPath::Memory) => {
                Err(gone(run.first_offset + u64::from(run.count)))
            }
            _ => Err(Box::new(Response::error(500, "unreadable", "the log cannot be read here"))),
        }
    }
}

/// Bytes of the run at `at` of a value frame.
fn run_bytes(frame: &[u8], at: u32) -> Option<&[u8]> {
    let header = Header::decode(frame, u32::MAX).ok()?;
    let body = frame.get(HEADER_BYTES..HEADER_BYTES + header.length as usize)?;
    match run_at(body, (at as usize).checked_sub(HEADER_BYTES)?).ok()? {
        Run::Records { bytes, .. } => Some(bytes),
        Run::Create { .. } | Run::Register { .. } => None,
    }
}

/// Parameters of a read.
struct Query {
    offset: u64,
    limit: u64,
    wait_ms: u64,
    epoch: Option<u64>,
    json: bool,
}

impl Query {
    fn of(request: &Request) -> Result<Query, String> {
        const KNOWN: [&str; 5] = ["offset", "limit", "wait_ms", "epoch", "format"];
        if let Some(unknown) = request.parameters().find(|name| !KNOWN.contains(name)) {
            return Err(format!("no parameter {unknown}: there are {}", KNOWN.join(", ")));
        }
        let number = |name: &str, default: Option<u64>, most: u64| match request.parameter(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) if number <= most => Ok(Some(number)),
                _ => Err(format!("{name} is a number from 0 to {most}")),
            },
        };
        let json = match request.parameter("format").as_deref() {
            None => request.accept_json,
            Some("json") => true,
            Some("raw") => false,
            Some(_) => return Err("format is json or raw".to_owned()),
        };
        Ok(Query {
            offset: number("offset", Some(0), u64::MAX)?.unwrap_or(0),
            limit: number("limit", Some(LIMIT_DEFAULT), LIMIT_MAX)?.unwrap_or(0),
            wait_ms: number("wait_ms", Some(0), WAIT_MS_MAX)?.unwrap_or(0),
            epoch: number("epoch", None, u64::from(u32::MAX))?,
            json,
        })
    }
}

/// An answer in the making.
struct Answer {
    json: bool,
    bytes: Vec<u8>,
    count: u64,
    /// Offset of the next record.
    next: u64,
    permit: Permit,
}

impl Answer {
    fn new(query: &Query, permit: Permit) -> Answer {
        let bytes = if query.json { b"{\"v\":1,\"records\":[".to_vec() } else { Vec::new() };
        Answer { json: query.json, bytes, count: 0, next: query.offset, permit }
    }

    /// Adds the next record; false, and nothing added, if the room does not allow it. The first
    /// record always fits.
    fn push(&mut self, record: &[u8], room: usize) -> bool {
        let need = if self.json { record.len() / 3 * 4 + 48 } else { record.len() };
        let whole = self.bytes.len() + need;
        // Twice: the buffer doubles when it grows.
        if self.count > 0 && (whole > room || !self.permit.cover(2 * whole as u64)) {
            return false;
        }
        if self.json {
            let comma = if self.count > 0 { "," } else { "" };
            let offset = self.next;
            let head = format!("{comma}{{\"offset\":{offset},\"data\":\"");
            self.bytes.extend_from_slice(head.as_bytes());
            let start = self.bytes.len();
            self.bytes.resize(start + record.len().div_ceil(3) * 4, 0);
            let written = STANDARD.encode_slice(record, &mut self.bytes[start..]);
            debug_assert_eq!(written.ok(), Some(self.bytes.len() - start));
            self.bytes.extend_from_slice(b"\"}");
        } else {
            self.bytes.extend_from_slice(record);
        }
        self.count += 1;
        self.next += 1;
        true
    }

    fn finish(mut self, end: u64) -> Response {
        let next = self.next;
        let kind = if self.json { "application/json" } else { "application/octet-stream" };
        if self.json {
            let tail = format!("],\"next_offset\":{next},\"end_offset\":{end}}}\n");
            self.bytes.extend_from_slice(tail.as_bytes());
        }
        let mut response = Response::new(200, kind, self.bytes);
        response.permit = Some(self.permit);
        response.with("Chainring-Next-Offset", next).with("Chainring-End-Offset", end)
    }
}

fn gone(first: u64) -> Box<Response> {
    let message = format!("the log no longer holds this offset; the first one kept is {first}");
    let more = Map::from_iter([("first_offset".to_owned(), first.into())]);
    Box::new(Response::error_with(410, "gone", &message, more))
}

fn not_allowed(methods: &str) -> Response {
    let message = format!("this path takes {methods}");
    Response::error(405, "method_not_allowed", &message).with("Allow", methods)
}

fn unavailable(code: &str, message: &str) -> Response {
    Response::error(503, code, message).with("Retry-After", 1)
}

fn append_error(error: &AppendError) -> Response {
    match error {
        AppendError::NotNow { code, .. } => unavailable(code, &error.to_string()),
        AppendError::TooManyTopics { .. } => {
            Response::error(403, "too_many_topics", &error.to_string())
        }
        AppendError::Fenced(fence) => fenced(*fence, &error.to_string()),
        AppendError::Unknown { .. } => Response::error(504, "outcome_unknown", &error.to_string()),
    }
}

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
