//! The asking end of the mesh: one connection to every peer, kept up: that it breaks is a hint that
//! the peer is gone.
//!
//! Invariants: at most [`DIRECTS_MAX`] direct messages wait for a peer, the oldest is dropped, and
//! none is sent after [`DIRECT_TIME`]: its sender repeats what still matters. Answers come back in
//! the order of the requests; every request ends, with `None` if the connection fails first.

use crate::mail::Command;
use crate::peers::frames::{Ask, AskPart, Entries, Envelope, Part, decode_id, decode_part};
use crate::peers::net::Net;
use crate::peers::problems::About;
use crate::peers::stream::{StreamError, read_frame, write};
use crate::peers::wait::{Backoff, Bell, Giver, Later, later};
use crate::peers::{Host, Peers, StreamOf, dial};
use chainring_net::hello::Purpose;
use chainring_ring::header::{HEADER_BYTES, Header, Kind};
use chainring_ring::ids::{NodeId, ValueId};
use chainring_ring::mark;
use futures_lite::future::or;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// Most direct messages that wait for a peer.
pub const DIRECTS_MAX: usize = 64;
/// Longest time that one waits.
pub const DIRECT_TIME: Duration = Duration::from_secs(1);
/// Most questions that wait for a peer's answer. Beyond that none is put, as to one who cannot be
/// reached: who asks tries again, and elsewhere.
pub const QUESTIONS_MAX: usize = 256;
/// A connection that owes answers and shows none for so long is given up.
const STALL_TIME: Duration = Duration::from_secs(10);

/// What a peer answers.
#[derive(Debug)]
pub enum Answer {
    /// To an [`Ask`].
    Entries(Box<Entries>),
    /// The frame of the value that was asked for.
    Value(Vec<u8>),
    /// It does not hold it.
    NotHeld,
    /// A part of a state.
    Part(Part),
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Entries(Ask),
    Value(ValueId),
    Part(AskPart),
}

type Asked = (Question, Giver<Answer>);

/// The connection to one peer.
#[derive(Debug, Default)]
pub struct Mesh {
    directs: RefCell<VecDeque<(Duration, Vec<u8>)>>,
    questions: RefCell<VecDeque<Asked>>,
    /// Sent and not yet answered.
    owed: RefCell<VecDeque<Asked>>,
    /// When the peer last answered, or began to owe.
    moved: Cell<Option<Duration>>,
    bell: Bell,
}

impl Mesh {
    /// Direct messages that wait, and questions without an answer.
    pub fn fill(&self) -> (usize, usize) {
        let questions = self.questions.borrow().len() + self.owed.borrow().len();
        (self.directs.borrow().len(), questions)
    }

    /// Sends a direct message soon, or never.
    pub fn direct(&self, now: Duration, frame: Vec<u8>) {
        let mut directs = self.directs.borrow_mut();
        if directs.len() == DIRECTS_MAX {
            mark!(DirectPushedOut);
            directs.pop_front();
        }
        directs.push_back((now, frame));
        drop(directs);
        self.bell.ring();
    }

    /// Asks for entries. The request is on its way whether or not the answer is awaited.
    pub fn ask(&self, ask: Ask) -> Later<Answer> {
        self.question(Question::Entries(ask))
    }

    /// Asks for a value.
    pub fn fetch(&self, id: ValueId) -> Later<Answer> {
        self.question(Question::Value(id))
    }

    /// Asks for a part of a state.
    pub fn part(&self, ask: AskPart) -> Later<Answer> {
        self.question(Question::Part(ask))
    }

    fn question(&self, question: Question) -> Later<Answer> {
        let (giver, answer) = later();
        if self.fill().1 < QUESTIONS_MAX {
            self.questions.borrow_mut().push_back((question, giver));
            self.bell.ring();
        }
        answer
    }

    fn forget_old_directs(&self, now: Duration) {
        let young = |since: Duration| now.saturating_sub(since) < DIRECT_TIME;
        let before = self.directs.borrow().len();
        self.directs.borrow_mut().retain(|(since, _)| young(*since));
        if self.directs.borrow().len() < before {
            mark!(DirectTooOld);
        }
    }

    /// Everything asked ends without an answer.
    fn fail(&self) {
        // Taken out first: whoever is woken may ask again at once.
        let ended = (self.questions.take(), self.owed.take());
        drop(ended);
        self.moved.set(None);
    }

    pub(super) fn next_frame(&self, now: Duration, envelope: &Envelope) -> Option<Vec<u8>> {
        self.forget_old_directs(now);
        if let Some((_, frame)) = self.directs.borrow_mut().pop_front() {
            return Some(frame);
        }
        let (question, giver) = self.next_question()?;
        if self.owed.borrow().is_empty() {
            self.moved.set(Some(now));
        }
        self.owed.borrow_mut().push_back((question, giver));
        Some(match question {
            Question::Entries(ask) => envelope.ask(ask),
            Question::Value(id) => envelope.fetch_value(id),
            Question::Part(ask) => envelope.ask_part(ask),
        })
    }
}

impl Mesh {
    /// The next question whose answer is still awaited.
    fn next_question(&self) -> Option<Asked> {
        let mut questions = self.questions.borrow_mut();
        loop {
            let asked = questions.pop_front()?;
            if asked.1.is_awaited() {
                return Some(asked);
            }
        }
    }
}

/// Serves the connection to one peer for ever.
pub async fn run<H: Host>(peers: Rc<Peers<H>>, to: NodeId) {
    let Some(mesh) = peers.meshes.get(&to) else { return };
    let mut backoff = Backoff::new(dial::seed(&peers, to, Purpose::Peer));
    loop {
        match dial::dial(&peers, to, Purpose::Peer).await {
            Ok((stream, _)) => {
                let since = peers.net.now();
                let both = or(send(&peers, mesh, &stream), receive(&peers, mesh, &stream));
                let error = or(both, watch(&peers, mesh)).await;
                mesh.fail();
                peers.host.send(Command::Hint { node: to }).await;
                // One that breaks right after every handshake must not turn into a busy loop.
                if peers.net.since(since) > dial::STABLE_TIME {
                    backoff.reset();
                }
                peers.net.pause(backoff.next_delay()).await;
                if error.is_bad_frame() {
                    peers.gauges.bad_frames.add(1);
                    let text = format!("closed the connection to node {}: {error}", to.0);
                    peers.say(About::outgoing(to, Purpose::Peer), text);
                    peers.net.pause(dial::REFUSED_PAUSE).await;
                }
            }
            Err(error) => {
                mesh.fail();
                peers.net.pause(dial::wait_after(&error, &mut backoff)).await;
            }
        }
    }
}

async fn send<H: Host>(peers: &Peers<H>, mesh: &Mesh, stream: &StreamOf<H>) -> StreamError {
    loop {
        let frame = mesh.bell.until(|| mesh.next_frame(peers.net.now(), &peers.envelope())).await;
        if let Err(error) = write(&peers.net, stream, &frame).await {
            return error;
        }
    }
}

async fn receive<H: Host>(peers: &Peers<H>, mesh: &Mesh, stream: &StreamOf<H>) -> StreamError {
    loop {
        let envelope = peers.envelope();
        let (header, frame) =
            match read_frame(&peers.net, stream, &envelope, envelope.answer_limit()).await {
                Ok(read) => read,
                Err(error) => return error,
            };
        let unexpected = StreamError::Unexpected { code: header.kind as u8 };
        let Some((question, giver)) = mesh.owed.borrow_mut().pop_front() else {
            return unexpected;
        };
        mesh.moved.set(Some(peers.net.now()));
        match answer(&envelope, question, &header, frame) {
            Ok(Some(answer)) => giver.give(answer),
            Ok(None) => return unexpected,
            Err(error) => return error,
        }
    }
}

/// Reads an answer; `None` if it answers something else.
fn answer(
    envelope: &Envelope,
    question: Question,
    header: &Header,
    frame: Vec<u8>,
) -> Result<Option<Answer>, StreamError> {
    let body = &frame[HEADER_BYTES..HEADER_BYTES + header.length as usize];
    Ok(match (question, header.kind) {
        (Question::Entries(ask), Kind::Entries) => {
            let entries = envelope.decode_entries(body)?;
            (entries.from == ask.from).then(|| Answer::Entries(Box::new(entries)))
        }
        (Question::Part(ask), Kind::State) => {
            let part = decode_part(body)?;
            (part.total == 0 || part.offset == ask.offset).then_some(Answer::Part(part))
        }
        (Question::Value(id), Kind::NotHeld) => (decode_id(body)? == id).then_some(Answer::NotHeld),
        (Question::Value(id), Kind::Value) => {
            let found = envelope.value(&frame)?.value_id();
            (found == id).then_some(Answer::Value(frame))
        }
        _ => None,
    })
}

/// Ends when the peer owes an answer for too long.
async fn watch<H: Host>(peers: &Peers<H>, mesh: &Mesh) -> StreamError {
    loop {
        peers.net.pause(STALL_TIME / 10).await;
        let stalled = mesh.moved.get().is_some_and(|moved| peers.net.since(moved) > STALL_TIME);
        if stalled && !mesh.owed.borrow().is_empty() {
            mark!(PeerOwesTooLong);
            return StreamError::Slow;
        }
    }
}
