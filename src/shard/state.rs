//! The replicated state: written down for the control thread, and taken over from a peer.
//!
//! Invariants: a state is told only when the log holds, durably, all that came to it; the
//! superblock names nothing that is not durable, and where the log begins never falls; a peer's
//! state is taken over only behind what is delivered here.

use super::Shard;
use super::packets::DELIVERY;
use crate::device::Machine;
use crate::mail::{Arrival, Command, Note, Notice, Taken};
use chainring_ring::actions::Input;
use chainring_ring::ids::{Claim, Instance, Sequence, Session};
use chainring_ring::mark;
use chainring_storage::config::segment_of;

/// A state that was taken.
#[derive(Debug)]
pub(super) struct Waiting {
    token: u64,
    /// The log holds what came to it when this is durable.
    ticket: u64,
    taken: Taken,
    buffer: Vec<u8>,
}

impl<M: Machine> Shard<M> {
    /// A command about the state.
    pub(super) fn take_state_command(&mut self, command: Command<M::Handle>) {
        match command {
            Command::TakeState { token, buffer } => self.take_state(token, buffer),
            Command::Note { token, note } => self.note(token, note),
            Command::Arrive { token, arrival } => self.arrive(token, arrival),
            Command::Trim { position, held } => self.step(Input::Trim { position, held }),
            _ => unreachable!("others are taken elsewhere"),
        }
    }

    fn take_state(&mut self, token: u64, mut buffer: Vec<u8>) {
        let needed = self.groups.encoded_bytes();
        if buffer.capacity() < needed || self.taken.is_some() {
            return self.outbox.push(Notice::State { token, taken: Err(needed), buffer });
        }
        buffer.clear();
        self.groups.encode(self.core.table(), self.core.configuration(), &mut buffer);
        let claim = Claim { ballot: self.core.claim().ballot, position: self.core.delivered() };
        let damage = &self.superblock.damage;
        let start = self.journal.as_ref().map(|journal| journal.replay_from(&self.core, damage));
        let taken = Taken { claim, start: start.unwrap_or_default() };
        let ticket = if self.journal.is_some() { self.core.appended() } else { 0 };
        self.taken = Some(Waiting { token, ticket, taken, buffer });
    }

    pub(super) fn tell_state(&mut self) {
        let durable = self.journal.as_ref().map_or(0, super::Journal::durable);
        if let Some(Waiting { token, taken, buffer, .. }) =
            self.taken.take_if(|waiting| waiting.ticket <= durable)
        {
            self.outbox.push(Notice::State { token, taken: Ok(taken), buffer });
        }
    }

    /// A checkpoint is durable, or the log begins later.
    fn note(&mut self, token: u64, note: Note) {
        let superblock = &mut self.superblock;
        let newer = superblock.checkpoint.is_none_or(|known| known.0 < note.checkpoint.0);
        if newer && note.checkpoint.0 >= superblock.base {
            superblock.checkpoint = Some(note.checkpoint);
        }
        if note.base > superblock.base {
            self.begin_at(note.base, note.first_segment);
        }
        self.write_superblock();
        // What is not noted is not to be let go while this life ends.
        if self.failure.is_none() {
            self.outbox.push(Notice::Noted { token });
        }
    }

    /// The log begins at `base`, and what lies below that segment is not needed.
    fn begin_at(&mut self, base: Instance, first_segment: u32) {
        let superblock = &mut self.superblock;
        superblock.base = base;
        superblock.first_segment = superblock.first_segment.max(first_segment);
        let first = superblock.first_segment;
        superblock.damage.retain(|damage| segment_of(damage.to) >= first);
        if let Some(journal) = &mut self.journal {
            journal.freed(first);
        }
    }

    /// A peer's state lies here, durably.
    fn arrive(&mut self, token: u64, mut arrival: Box<Arrival>) {
        let Arrival { claim, configuration, .. } = *arrival;
        let table = arrival.table.clone();
        let done = self.core.takes_jump(claim.position);
        if !done {
            return self.outbox.push(Notice::Arrived { token, arrival, done });
        }
        mark!(StateTakenOver);
        if let Some((checksum, first_segment)) = arrival.checkpoint {
            self.superblock.checkpoint = Some((claim.position, checksum));
            self.begin_at(claim.position, first_segment);
            self.write_superblock();
            if self.failure.is_some() {
                return;
            }
        }
        std::mem::swap(&mut self.groups, &mut arrival.groups);
        // What is told from here on is told behind the state.
        self.outbox.push(Notice::Arrived { token, arrival, done });
        self.machine.delivered(claim.position, self.groups.digest());
        let before = self.own_first();
        self.step(Input::Jump { claim, table: &table, configuration: &configuration });
        self.let_go_of_past(before, claim.position);
    }

    /// Session and sequence of the first own value that is not delivered.
    fn own_first(&self) -> (Session, Sequence) {
        let lane = self.core.lanes().of(self.sender.node).expect("a node of the cluster");
        (lane.session(), lane.first())
    }

    /// Frees the values that the state came from.
    fn let_go_of_past(&mut self, before: (Session, Sequence), position: Instance) {
        let core = &self.core;
        while let Some(ix) = self.packets.next_past(|id| core.table().is_past(id)) {
            mark!(PassedValueFreed);
            self.packets.unhold(ix);
            if let Some(range) = self.packets.done(ix, DELIVERY) {
                self.side.give_back(range);
            }
        }
        let (session, first) = self.own_first();
        let own = first.0.saturating_sub(before.1.0);
        if session == before.0 && own > 0 {
            mark!(OwnValuePassed);
            let outbox = &mut self.outbox;
            let last = Instance(position.0 - 1);
            self.batcher.passed(own, last, |append| outbox.push(Notice::Unknown(append)));
        }
    }
}
