//! Carrying out what the core says, in its order.
//!
//! Invariant: an action is carried out in the turn in which it is given; what must be durable
//! before it the core has made sure of.

use super::packets::{DELIVERY, FORWARD, PLAN, PacketIx};
use super::{Forward, Shard};
use crate::device::Machine;
use crate::mail::Notice;
use chainring_net::declare::Declare;
use chainring_net::hello;
use chainring_net::wire::{LinkKind, Refused};
use chainring_ring::actions::Action;
use chainring_ring::header::Kind;
use chainring_ring::ids::{Ballot, Durability, NodeId, RingId, Sequence, Session, ValueId};
use chainring_ring::{mark, mutant};
use chainring_storage::DamageState;

impl<M: Machine> Shard<M> {
    pub(super) fn carry_out(&mut self) {
        for index in 0..self.actions.as_slice().len() {
            let action = self.actions.as_slice()[index];
            self.act(action);
        }
        self.actions.clear();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Keep { id, forward } => self.keep(id, forward),
            Action::Drop(_) => self.drop_judged(),
            Action::AppendOrder(order) => {
                if let Some(journal) = &mut self.journal {
                    journal.push_order(order, self.now_us);
                }
            }
            Action::WritePromise(ballot) => self.write_promise(ballot),
            Action::Deliver { order, counts } => {
                self.deliver(order, counts);
                self.machine.delivered(order.instance.next(), self.groups.digest());
                self.note_digest(order.instance);
            }
            Action::Free { origin, below } => self.free_sessions(origin, below),
            Action::Prepare { to } => {
                let frame = self.sender.prepare(self.core.promised());
                self.outbox.push(Notice::Direct { to, frame });
            }
            Action::Answer { to, ballot } => {
                let frame = self.sender.promise(&self.core, ballot);
                self.outbox.push(Notice::Direct { to, frame });
            }
            Action::Reject { to, promised } => {
                let frame = self.sender.reject(promised);
                self.outbox.push(Notice::Direct { to, frame });
            }
            Action::Open { to } => {
                if let Some(frame) = self.sender.open(&self.core) {
                    self.outbox.push(Notice::Direct { to, frame });
                }
            }
            Action::Present { to, asks } => {
                let frame = self.sender.present(&self.core, asks);
                self.outbox.push(Notice::Direct { to, frame });
            }
            Action::Missed { to, node } => {
                let frame = self.sender.missed(self.core.promised(), node);
                self.outbox.push(Notice::Direct { to, frame });
            }
            Action::Ask { to } => {
                let frame = self.sender.coordinator_missed(Kind::Ask, self.core.promised());
                self.outbox.push(Notice::Direct { to, frame });
            }
            Action::Lost { to, ballot } => {
                let frame = self.sender.coordinator_missed(Kind::Lost, ballot);
                self.outbox.push(Notice::Direct { to, frame });
            }
            // Not while a step is carried out: what a link gives back is taken in by steps.
            Action::Relink => self.relink = true,
            Action::Fetch(id) => self.outbox.push(Notice::FetchValue { id }),
            Action::CatchUp { from } => self.outbox.push(Notice::CatchUp { from }),
            Action::Declare { origin, session, to } => {
                self.declare(origin, session, (Sequence(0), to));
            }
            Action::ResetData => self.reset(LinkKind::DataIn),
            Action::ResetControl => self.reset(LinkKind::ControlIn),
            Action::Resend => self.reset(LinkKind::DataOut),
            Action::Mended => self.mended(),
            Action::NewSession => self.new_session(),
        }
    }

    fn keep(&mut self, id: ValueId, forward: bool) {
        let ix = self.judged.take().expect("asked about a packet");
        assert_eq!(self.packets.get(ix).id, id);
        self.packets.hold(ix);
        let bytes = self.packets.get(ix).range.bytes;
        if let Some(journal) = &mut self.journal {
            self.packets.need(ix, PLAN);
            journal.push_value(ix, bytes, self.now_us);
        }
        if forward {
            self.forward(ix);
        }
    }

    /// Passes a packet on; without a link it is found again by the next resume.
    pub(super) fn forward(&mut self, ix: PacketIx) {
        if self.packets.get(ix).needs & FORWARD != 0 {
            return;
        }
        let range = self.packets.get(ix).range;
        if self.backlog.is_empty() {
            match self.machine.forward(range, u64::from(ix)) {
                Ok(()) => return self.packets.need(ix, FORWARD),
                Err(Refused::Down) => return mark!(ForwardHasNoLink),
                Err(Refused::Full) => {}
            }
        }
        mark!(ForwardWaits);
        self.packets.need(ix, FORWARD);
        self.backlog.push_back(Forward::Packet(ix));
    }

    fn drop_judged(&mut self) {
        let ix = self.judged.take().expect("asked about a packet");
        if let Some(range) = self.packets.settle(ix) {
            self.side.give_back(range);
        }
    }

    fn write_promise(&mut self, ballot: Ballot) {
        self.promise_written = Some(ballot);
        if mutant!(PromiseNotPersisted) {
            return;
        }
        self.superblock.promised = ballot;
        // A restart in memory durability forgets the promise with the votes: a new incarnation.
        if self.durability != Durability::Memory {
            self.write_superblock();
        }
    }

    pub(super) fn write_superblock(&mut self) {
        if let Some(journal) = &self.journal {
            self.superblock.sealed = journal.sealed();
            self.superblock.claim = journal.claimed();
        }
        if let Err(error) = self.machine.write_superblock(&self.superblock) {
            mark!(SuperblockWriteFailed);
            self.failure = Some(error.into());
        }
    }

    /// Tells the successor, in the order of the values, what will not come.
    pub(super) fn declare(
        &mut self,
        origin: NodeId,
        session: Session,
        (from, to): (Sequence, Sequence),
    ) {
        if !self.machine.attached(LinkKind::DataOut) {
            return;
        }
        let block = self.superblock.block;
        let Some(range) = self.side.take(block) else {
            // Without room the link starts over: its resume declares again.
            mark!(DeclarationHasNoRoom);
            return self.reset(LinkKind::DataOut);
        };
        let cluster = (self.sender.cluster, self.sender.epoch, RingId(0));
        let declare = Declare { origin, session, from, to };
        let size = declare.encode(cluster, self.sender.node, block, self.machine.bytes_mut(range));
        assert_eq!(size, block as usize);
        self.backlog.push_back(Forward::Declare(range));
    }

    /// Closes a link, so that it resumes.
    pub(super) fn reset(&mut self, kind: LinkKind) {
        if self.machine.attached(kind) {
            mark!(LinkReset);
            self.machine.detach(kind);
            self.link_down(kind);
        }
    }

    pub(super) fn link_down(&mut self, kind: LinkKind) {
        let purpose = match kind {
            LinkKind::DataIn | LinkKind::DataOut => hello::Purpose::Data,
            LinkKind::ControlIn | LinkKind::ControlOut => hello::Purpose::Control,
        };
        let outgoing = matches!(kind, LinkKind::DataOut | LinkKind::ControlOut);
        self.outbox.push(Notice::LinkDown { kind: purpose, outgoing });
    }

    /// What was damaged lies in the log again: the next start need not call it unknown.
    fn mended(&mut self) {
        for damage in &mut self.superblock.damage {
            if damage.state == DamageState::Unknown {
                damage.state = DamageState::Repaired;
            }
        }
        self.write_superblock();
    }

    /// The own session was closed under this node: its values under way will not come out.
    fn new_session(&mut self) {
        let outbox = &mut self.outbox;
        self.batcher.session_closed(|append| outbox.push(Notice::Unknown(append)));
        self.superblock.start += 1;
        self.write_superblock();
        let session = self.superblock.session();
        // Told to the core in a step of its own: this one is still being carried out.
        self.session_taken = Some(session);
        self.outbox.push(Notice::Session(session));
    }

    /// A packet that was delivered is not held any more.
    pub(super) fn is_held(&self, ix: PacketIx) -> bool {
        self.packets.get(ix).needs & DELIVERY != 0
    }
}
