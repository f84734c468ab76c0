//! Appends: from a request to what the shard made of it.
//!
//! Invariant: a request is given to the shard once, and whoever waits for it gets one answer.

use super::refusal::{not_now, refused};
use super::wait::Slot;
use super::{AppendError, Control, Outcome, Pending};
use crate::gauges::{Halt, State};
use crate::http::Permit;
use crate::mail::{Append, Command, Refusal, TopicId};
use crate::records::Stamp;
use async_io::Timer;
use bytes::Bytes;
use futures_lite::FutureExt;
use std::time::{Duration, Instant};

/// A creation entry that has not come out is proposed again: the session may have been closed
/// under it. A second entry for a name counts as nothing.
const CREATE_AGAIN: Duration = Duration::from_secs(2);

impl Control {
    /// Appends records, in order, creating the topic if need be; the first and last offset.
    ///
    /// `ends` are the ends of the records in `body`; without any, only the topic is created.
    /// With a stamp they are a producer's, and those that are in the log already stay where they
    /// are.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(
        &self,
        topic: &str,
        body: Bytes,
        ends: Vec<u32>,
        stamp: Option<Stamp>,
        permit: Permit,
    ) -> Result<Option<(u64, u64)>, AppendError> {
        let deadline = self.append_deadline();
        self.check_open()?;
        let topic = self.topic_for(topic, deadline).await?;
        if ends.is_empty() {
            return Ok(None);
        }
        let append = Append::new(self.next_token(), topic, body, ends).stamped(stamp);
        match self.outcome_of(append, permit, deadline).await? {
            Outcome::Appended(first, last) => Ok(Some((first, last))),
            Outcome::Fenced(fence) => Err(AppendError::Fenced(fence)),
            _ => unreachable!("records get offsets"),
        }
    }

    /// The id of a new producer.
    ///
    /// # Errors
    /// [`AppendError`]. Whether an id was given to nobody or not is no matter.
    pub async fn register(&self) -> Result<u64, AppendError> {
        let append = Append::registration(self.next_token());
        let deadline = self.append_deadline();
        match self.outcome_of(append, self.budget.permit(), deadline).await? {
            Outcome::Registered(id) => Ok(id),
            _ => unreachable!("a registration gets an id"),
        }
    }

    fn append_deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.config.limits.append_timeout_ms.into())
    }

    /// Hands a request to the shard and waits for what becomes of it.
    async fn outcome_of(
        &self,
        append: Append,
        permit: Permit,
        deadline: Instant,
    ) -> Result<Outcome, AppendError> {
        self.check_open()?;
        let token = append.token;
        if self.try_send(Command::Append(Box::new(append))).is_err() {
            return Err(not_now("busy", "the shard has no room for another append"));
        }
        let slot = Slot::default();
        let pending = Pending { slot: slot.clone(), _permit: permit };
        self.appends.borrow_mut().insert(token, pending);
        let late = async {
            Timer::at(deadline).await;
            None
        };
        match async { Some(slot.take().await) }.or(late).await {
            Some(Outcome::Refused(refusal)) => Err(refused(refusal)),
            Some(Outcome::Unknown) => {
                Err(AppendError::Unknown { reason: "the node's session was closed meanwhile" })
            }
            Some(outcome) => Ok(outcome),
            None => Err(AppendError::Unknown { reason: "not delivered within append_timeout_ms" }),
        }
    }

    /// Why an append would be refused now.
    fn check_open(&self) -> Result<(), AppendError> {
        let state = self.gauges.state.get();
        if self.draining.get() || state == State::Draining as u64 || state == State::Stopped as u64
        {
            return Err(refused(Refusal::Draining));
        }
        if state == State::Halted as u64 || self.gauges.halt.get() != Halt::None as u64 {
            return Err(refused(Refusal::Halted));
        }
        if self.gauges.log_full.get() != 0 {
            return Err(refused(Refusal::LogFull));
        }
        if state == State::Starting as u64 {
            return Err(not_now("starting", "the node is starting"));
        }
        Ok(())
    }

    /// The id of a topic, which is proposed if there is none.
    async fn topic_for(&self, name: &str, deadline: Instant) -> Result<TopicId, AppendError> {
        loop {
            let seen = self.changed.generation();
            if let Some(id) = self.catalog.borrow().topic(name) {
                return Ok(id);
            }
            if Instant::now() >= deadline {
                self.creating.borrow_mut().remove(name);
                return Err(not_now("no_topic_yet", "the topic was not created in time"));
            }
            self.check_open()?;
            self.propose_topic(name)?;
            let again = deadline.min(Instant::now() + CREATE_AGAIN);
            let late = async {
                Timer::at(again).await;
            };
            self.changed.beyond(seen).or(late).await;
        }
    }

    fn propose_topic(&self, name: &str) -> Result<(), AppendError> {
        let mut creating = self.creating.borrow_mut();
        if creating.get(name).is_some_and(|at| at.elapsed() < CREATE_AGAIN) {
            return Ok(());
        }
        let limit = self.topics_max;
        let topics = self.catalog.borrow().topics().len() + creating.len();
        if topics >= limit as usize && !creating.contains_key(name) {
            return Err(AppendError::TooManyTopics { limit });
        }
        if self.try_send(Command::CreateTopic { name: name.into() }).is_err() {
            return Err(not_now("busy", "the shard has no room for another topic"));
        }
        creating.insert(name.to_owned(), Instant::now());
        Ok(())
    }
}
