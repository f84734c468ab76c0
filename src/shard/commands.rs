//! What the control thread asks for.
//!
//! Invariant: a command is answered or has no answer; one that finds no room in the loop stays in
//! the mailbox.

use super::packets::{Home, PacketIx};
use super::{Journal, Shard, direct, lanes_of};
use crate::device::Machine;
use crate::mail::{Append, Change, Command, Notice, Place, Refusal};
use chainring_net::hello::{self, Purpose, Resume};
use chainring_net::wire::LinkKind;
use chainring_ring::actions::{ACTIONS_MAX, Input};
use chainring_ring::header::{Header, Kind};
use chainring_ring::ids::{
    Durability, Entry, NODES_MAX, NodeId, Order, Sequence, Session, ValueId,
};
use chainring_ring::lanes::LANE_PACKETS_MAX;
use chainring_ring::{mark, mutant};

/// Answers of peers that wait. A catch-up has fewer under way, but one that sees nothing delivered
/// fetches again.
pub(super) const ENTRIES_MAX: usize = 8;

/// Decided entries from a peer, taken in as there is room.
#[derive(Debug)]
pub(super) struct Entries {
    orders: Vec<Order>,
    frames: Vec<u8>,
    /// Entries taken in.
    taken: usize,
    /// Where the next frame begins.
    at: usize,
}

impl<M: Machine> Shard<M> {
    pub(super) fn take_commands(&mut self) {
        self.take_entries();
        // Only what adds to the log waits for its room: a segment, or the word to stop, must pass.
        while self.stop.is_none() && self.outbox.room() > ACTIONS_MAX {
            let Some(command) = self.commands.try_recv() else { return };
            self.inputs += 1;
            self.busy = true;
            self.take_command(command);
        }
    }

    fn take_command(&mut self, command: Command<M::Handle>) {
        match command {
            Command::Append(append) => self.take_append(append),
            Command::CreateTopic { name } => self.batcher.create(name),
            Command::Load(source) => self.batcher.load(source),
            Command::PrepareIncoming { kind, token } => self.prepare_incoming(kind, token),
            Command::Incoming { kind, from, handle } => self.take_incoming(kind, from, handle),
            Command::Outgoing { kind, to, handle, resume } => {
                self.machine.detach(outgoing(kind));
                // Only of this link: what a resume of the other has just queued must go out.
                if kind == Purpose::Data {
                    self.take_reports();
                }
                self.machine.attach(outgoing(kind), handle);
                match self.core.successor() == Some(to) {
                    true => self.resume(to, &resume),
                    // The circle has changed meanwhile, and the control thread will be told.
                    false => self.machine.detach(outgoing(kind)),
                }
            }
            Command::Direct { from, frame } => self.take_direct(from, &frame),
            Command::Entries { orders, frames, .. } => {
                // Beyond that they are forgotten: who does not see them delivered fetches again.
                if self.entries.len() < ENTRIES_MAX {
                    self.entries.push_back(Entries { orders, frames, taken: 0, at: 0 });
                } else {
                    mark!(EntriesForgotten);
                }
                self.take_entries();
            }
            Command::Value { frame } => self.take_value(&frame),
            Command::NotHeld { .. } => {}
            Command::ReadMemory { token, place, buffer } => self.read_memory(token, place, buffer),
            Command::ReadHeld { token, id, mut buffer } => {
                let found = self.read_held(&id, &mut buffer);
                self.outbox.push(Notice::Read { token, buffer, found });
            }
            command @ (Command::TakeState { .. }
            | Command::Note { .. }
            | Command::Arrive { .. }
            | Command::Trim { .. }) => self.take_state_command(command),
            Command::Segment { number, handle } => self.take_segment(number, handle),
            Command::NoSegment => {
                if let Some(journal) = &mut self.journal {
                    mark!(LogFull);
                    journal.full = true;
                }
            }
            Command::Hint { node } => self.step(Input::Hint(node)),
            Command::Campaign => self.step(Input::Campaign),
            Command::Change(change) => self.take_change(change),
            Command::Drain => {
                self.draining = true;
                self.batcher.draining = true;
            }
            Command::Stop => self.stop = Some(self.finish()),
        }
    }

    fn take_incoming(&mut self, kind: Purpose, from: NodeId, handle: M::Handle) {
        self.machine.attach(incoming(kind), handle);
        if self.core.predecessor() != Some(from) {
            mark!(LinkOfNoNeighbour);
            self.machine.detach(incoming(kind));
        }
    }

    /// What a producer repeats, or may not append, is answered at once where that is known: by
    /// what is delivered here, so the answer is as good as one at delivery.
    fn answered_before(&self, append: &mut Append) -> bool {
        let count = append.ends.len() as u32;
        let Some(stamp) = append.stamp.filter(|_| count > 0) else { return false };
        match self.groups.producers().look(stamp, append.topic, count) {
            Some(Ok(placed)) => append.number(placed.first, placed.last),
            Some(Err(fence)) => append.fence = Some(fence),
            None => return false,
        }
        mark!(ProducerAnsweredAtOnce);
        true
    }

    fn read_memory(&mut self, token: u64, place: Place, mut buffer: Vec<u8>) {
        let place = chainring_storage::Place { at: place.at, bytes: place.bytes };
        let frame = self.memory.as_ref().and_then(|memory| memory.get(place));
        buffer.clear();
        let found = frame.is_some_and(|frame| buffer.capacity() >= frame.len());
        if found {
            buffer.extend_from_slice(frame.unwrap_or_default());
        }
        self.outbox.push(Notice::Read { token, buffer, found });
    }

    fn take_change(&mut self, mut change: Box<Change>) {
        change.now = *self.core.configuration();
        change.coordinator = self.core.promised().node;
        if let Some(step) = change.step {
            let after = self.core.judge(step);
            if after.is_ok() && !change.dry {
                self.step(Input::Change(step));
            }
            change.after = Some(after);
        }
        self.outbox.push(Notice::Changed(change));
    }

    fn take_append(&mut self, mut append: Box<Append>) {
        if self.answered_before(&mut append) {
            return self.outbox.answer(append);
        }
        let log_full = self.journal.as_ref().is_some_and(|journal| journal.full);
        let refusal = if self.core.is_forgotten() {
            mark!(AppendMeetsHalt);
            Some(Refusal::Halted)
        } else if self.core.is_removed() {
            Some(Refusal::Removed)
        } else if log_full {
            mark!(AppendMeetsFullLog);
            Some(Refusal::LogFull)
        } else {
            None
        };
        let refused = match refusal {
            Some(refusal) => Err((append, refusal)),
            None => self.batcher.append(append),
        };
        if let Err((append, refusal)) = refused {
            self.outbox.push(Notice::Refused(append, refusal));
        }
    }

    /// Drops the incoming link, so that what is held does not change before the peer is told.
    fn prepare_incoming(&mut self, kind: Purpose, token: u64) {
        self.machine.detach(incoming(kind));
        let resume = match kind {
            Purpose::Data => {
                let mut held = [hello::Held::default(); NODES_MAX];
                let mut count = 0;
                for (origin, session, next) in lanes_of(&self.core) {
                    held[usize::from(count)] = hello::Held { origin, session, next };
                    count += 1;
                }
                Resume::Data { count, held }
            }
            _ => {
                let received = self.core.received().max(self.core.delivered());
                Resume::Control { ballot: self.core.promised(), received }
            }
        };
        self.outbox.push(Notice::Resume { token, resume });
    }

    /// The circle has changed: links to who is no neighbour any more go down.
    pub(super) fn relink(&mut self) {
        if !std::mem::take(&mut self.relink) {
            return;
        }
        let [predecessor, successor] = [self.core.predecessor(), self.core.successor()];
        let before = std::mem::replace(&mut self.neighbours, [predecessor, successor]);
        if before == self.neighbours {
            return;
        }
        mark!(CircleChanged);
        if before[0] != predecessor {
            self.machine.detach(LinkKind::DataIn);
            self.machine.detach(LinkKind::ControlIn);
        }
        if before[1] != successor {
            self.machine.detach(LinkKind::ControlOut);
            self.machine.detach(LinkKind::DataOut);
            self.take_reports();
        }
        self.outbox.push(Notice::Neighbours { predecessor, successor });
    }

    /// After a detach, forwards come back before anything new is queued.
    fn take_reports(&mut self) {
        self.forget_backlog();
        self.take_events();
    }

    /// The successor said what it holds: send what is above.
    fn resume(&mut self, to: NodeId, resume: &Resume) {
        match resume {
            Resume::Control { ballot, received } => {
                self.control_out.resume(&self.core, *ballot, *received);
            }
            Resume::Data { count, held } => {
                let held = &held[..usize::from(*count).min(NODES_MAX)];
                for node in 1..=NODES_MAX as u8 {
                    let node = NodeId(node);
                    if node != to {
                        let theirs = held.iter().find(|held| held.origin == node);
                        let theirs = theirs.map(|held| (held.session, held.next));
                        self.resume_origin(node, theirs.unwrap_or_default());
                    }
                }
            }
            Resume::Peer => {}
        }
    }

    fn resume_origin(&mut self, origin: NodeId, theirs: (Session, Sequence)) {
        let Some(lane) = self.core.lanes().of(origin) else { return };
        let (session, end) = (lane.session(), lane.next());
        if theirs.0 > session {
            mark!(SuccessorIsAhead);
        }
        if session == Session::NONE || theirs.0 > session {
            return;
        }
        let mut declared = if theirs.0 == session { theirs.1 } else { Sequence(0) };
        let first = Sequence(declared.0.max(end.0.saturating_sub(LANE_PACKETS_MAX)));
        for sequence in first.0..end.0 {
            let id = ValueId { origin, session, sequence: Sequence(sequence) };
            let Some(ix) = self.packets.find(&id).filter(|ix| self.is_held(*ix)) else { continue };
            mark!(ResumedFromMemory);
            if declared < id.sequence {
                mark!(ResumedBehindGap);
                self.declare(origin, session, (declared, id.sequence));
            }
            self.forward(ix);
            declared = id.sequence.next();
        }
        if declared < end {
            mark!(ResumedByDeclaring);
            self.declare(origin, session, (declared, end));
        }
    }

    fn take_direct(&mut self, from: NodeId, frame: &[u8]) {
        let parsed = Header::decode(frame, direct::DIRECT_MAX)
            .and_then(|header| Ok((header, header.check_body(frame)?)));
        let Ok((header, body)) = parsed else { return self.bad_frames += 1 };
        if header.kind == Kind::Check {
            return self.take_check(from, body);
        }
        match direct::input(&header, from, body) {
            Ok(input) => self.step(input),
            Err(_) => self.bad_frames += 1,
        }
    }

    /// A fetched value.
    fn take_value(&mut self, frame: &[u8]) {
        let Ok(header) = Header::decode(frame, u32::MAX) else { return self.bad_frames += 1 };
        let id = header.value_id();
        let next = self.core.window().get(self.core.delivered());
        let next = next.is_some_and(|slot| slot.order.entry == Entry::Value(id));
        if let Some(ix) = self.insert_fetched(&header, frame, next) {
            self.fetched += 1;
            self.judge(ix, Input::Fetched(id));
        }
    }

    /// Puts a fetched value into the side pool; for the one that is delivered next there is room.
    fn insert_fetched(&mut self, header: &Header, frame: &[u8], next: bool) -> Option<PacketIx> {
        if frame.len() != header.size as usize {
            self.bad_frames += 1;
            return None;
        }
        let range = match next {
            true => self.side.take_next(header.size),
            false => self.side.take(header.size),
        };
        let Some(range) = range else {
            mark!(FetchedHasNoRoom);
            return None;
        };
        self.machine.bytes_mut(range).copy_from_slice(frame);
        Some(self.packets.insert(header.value_id(), range, Home::Side, 0))
    }

    /// Decided entries from peers, as far as there is room.
    fn take_entries(&mut self) {
        while let Some(mut entries) = self.entries.pop_front() {
            while let Some(order) = entries.orders.get(entries.taken).copied() {
                if !self.has_room() || !self.take_entry(&order, &mut entries) {
                    mark!(EntryWaits);
                    return self.entries.push_front(entries);
                }
                entries.taken += 1;
                self.busy = true;
            }
        }
    }

    /// One entry; false if it has to wait for room.
    fn take_entry(&mut self, order: &Order, entries: &mut Entries) -> bool {
        if order.instance == self.core.delivered() && !self.core.covers(order.instance) {
            mark!(EntryWaitsForLog);
            return false; // the log has to follow first
        }
        // What a peer delivered lies there at the ballot of its decision, or a later one.
        let input = Input::Decided { order: *order, ballot: order.ballot };
        let Entry::Value(id) = order.entry else {
            self.step(input);
            return true;
        };
        let frame = frame_at(&entries.frames, entries.at, id);
        if order.instance != self.core.delivered() || self.core.lanes().ticket(&id).is_some() {
            mark!(EntryOutrun);
            self.judge_absent(id, input);
        } else if let Some(header) = frame {
            let frame = &entries.frames[entries.at..][..header.size as usize];
            let Some(ix) = self.insert_fetched(&header, frame, true) else { return false };
            self.fetched += 1;
            self.judge(ix, input);
        } else if !self.core.table().counts(&id) {
            self.judge_absent(id, input);
        }
        entries.at += frame.map_or(0, |header| header.size as usize);
        true
    }

    /// A value that counts as nothing has no packet; the core still answers for it.
    fn judge_absent(&mut self, id: ValueId, input: Input<'_>) {
        let empty = chainring_net::pool::Range::default();
        let ix = self.packets.insert(id, empty, Home::Gone, 0);
        self.judge(ix, input);
    }

    fn take_segment(&mut self, number: u32, file: M::Handle) {
        let Some(journal) = &mut self.journal else { return };
        self.machine.add_segment(number, file);
        match journal.add_segment(number) {
            Ok(()) => {
                if journal.full {
                    mark!(LogFullNoMore);
                }
                journal.full = false;
            }
            Err(error) => self.failure = Some(error.into()),
        }
    }

    /// Nothing waits for the log, and it says itself that it is complete and how far delivered.
    fn is_sealed(&self) -> bool {
        let done = |journal: &Journal| {
            journal.is_idle() && !journal.needs_seal() && !journal.needs_claim(&self.core)
        };
        self.journal.as_ref().is_none_or(done)
    }

    pub(super) fn check_drained(&mut self) {
        let sealed = self.is_sealed();
        if self.draining && !self.drained && self.batcher.is_idle() && sealed {
            mark!(Drained);
            self.drained = true;
            self.outbox.push(Notice::Drained);
            self.outbox.flush(&mut self.packets);
        }
    }

    /// Closes the links and, if it was draining, brings everything to stable media and sets the
    /// clean-stop mark: also if the others kept the log busy to the end, so that it was never
    /// drained. A memory log has nothing to mark.
    pub(super) fn finish(&mut self) -> bool {
        for kind in LinkKind::ALL {
            self.machine.detach(kind);
        }
        if !self.draining || self.durability == Durability::Memory {
            return false;
        }
        for _ in 0..10_000 {
            // Of what was sent behind the word to stop, only the segment that the log may wait for.
            while let Some(command) = self.commands.try_recv() {
                if matches!(command, Command::Segment { .. } | Command::NoSegment) {
                    self.take_command(command);
                }
            }
            self.write();
            // It never comes to rest; the next start reads what is there.
            if self.journal.as_ref().is_some_and(Journal::is_stuck) {
                mark!(StopMeetsFullLog);
                return false;
            }
            self.outbox.flush(&mut self.packets);
            self.machine.poll(chainring_net::wire::Wait::UpTo(std::time::Duration::from_millis(1)));
            self.now_us += 1_000;
            self.take_events();
            if self.failure.is_some() {
                return false;
            }
            if self.is_sealed() || mutant!(CleanMarkTooEarly) {
                mark!(CleanStop);
                self.superblock.clean = true;
                self.write_superblock();
                return self.failure.is_none();
            }
        }
        false
    }
}

/// The header of the next value frame, if it is the one of this id.
fn frame_at(frames: &[u8], at: usize, id: ValueId) -> Option<Header> {
    let rest = frames.get(at..)?;
    let header = Header::decode(rest, u32::MAX).ok()?;
    (header.value_id() == id && rest.len() >= header.size as usize).then_some(header)
}

fn incoming(purpose: Purpose) -> LinkKind {
    if purpose == Purpose::Data { LinkKind::DataIn } else { LinkKind::ControlIn }
}

fn outgoing(purpose: Purpose) -> LinkKind {
    if purpose == Purpose::Data { LinkKind::DataOut } else { LinkKind::ControlOut }
}
