//! What the port and the device report.
//!
//! Invariant: every packet handed out by the port is asked about once, and its memory goes back
//! whatever the answer.

use super::forward::DECLARE;
use super::packets::{FORWARD, Home, PacketIx};
use super::{Shard, links};
use crate::device::Machine;
use chainring_net::declare::Declare;
use chainring_net::pool::Range;
use chainring_net::wire::{Event, LinkKind};
use chainring_ring::actions::Input;
use chainring_ring::header::{HEADER_BYTES, Header, Kind};
use chainring_ring::mark;

impl<M: Machine> Shard<M> {
    pub(super) fn take_events(&mut self) {
        loop {
            // Without room only what makes room: the log moves on by writes that are done, and what
            // fills the outbox may wait for the log.
            let room = self.has_room();
            let event = match room {
                true => self.machine.next_event(),
                false => {
                    mark!(LoopHasNoRoom);
                    self.machine.next_done()
                }
            };
            let Some(event) = event else { return self.listened |= room };
            self.inputs += 1;
            self.busy = true;
            match event {
                Event::Packet { header, range, position } => {
                    self.take_packet(&header, range, position);
                }
                Event::Control { header, range } => self.take_control(&header, range),
                Event::LinkDown { kind, .. } => self.link_broke(kind),
                Event::Forwarded { token, .. } => self.forwarded(token),
                Event::Written { token, result } => self.written(token, result),
                Event::Woken => {}
            }
        }
    }

    /// A link that broke by itself says something of who is at its other end.
    fn link_broke(&mut self, kind: LinkKind) {
        self.link_down(kind);
        let other = match kind {
            LinkKind::DataIn | LinkKind::ControlIn => self.core.predecessor(),
            LinkKind::DataOut | LinkKind::ControlOut => self.core.successor(),
        };
        if let Some(node) = other {
            self.step(Input::Hint(node));
        }
    }

    fn take_packet(&mut self, header: &Header, range: Range, position: u64) {
        let behind = position + u64::from(header.size);
        let id = header.value_id();
        let ix = self.packets.insert(id, range, Home::Received, behind);
        match header.kind {
            Kind::Value => self.judge(ix, Input::Value(id)),
            _ => self.take_declare(header, range, ix),
        }
    }

    fn take_declare(&mut self, header: &Header, range: Range, ix: PacketIx) {
        let body = &self.machine.bytes(range)[HEADER_BYTES..][..header.length as usize];
        let declare = Declare::decode(body);
        self.packets.settle(ix);
        match declare {
            Ok(Declare { origin, session, to, .. }) => {
                self.step(Input::Missing { origin, session, to });
            }
            Err(_) => {
                self.bad_frames += 1;
                self.reset(LinkKind::DataIn);
            }
        }
    }

    fn take_control(&mut self, header: &Header, range: Range) {
        // What a step brings may use the port, so the (small) frame is copied out of it first.
        let mut body = std::mem::take(&mut self.control_body);
        body.clear();
        body.extend_from_slice(
            &self.machine.bytes(range)[HEADER_BYTES..][..header.length as usize],
        );
        let parsed = links::inputs(header, &body, |input| self.step(input));
        self.control_body = body;
        if parsed.is_err() {
            self.bad_frames += 1;
            self.reset(LinkKind::ControlIn);
        }
    }

    fn forwarded(&mut self, token: u64) {
        if token & DECLARE != 0 {
            let bytes = self.superblock.block;
            return self.side.give_back(Range { offset: (token & !DECLARE) as u32, bytes });
        }
        self.release(token as PacketIx, FORWARD);
    }

    fn written(&mut self, token: u64, result: Result<u32, i32>) {
        let journal = self.journal.as_mut().expect("only a journal writes");
        let side = &mut self.side;
        let done = journal.written(token, result, &mut self.packets, |range| side.give_back(range));
        match done {
            Ok(Some(ticket)) => {
                if ticket > self.last_persisted {
                    self.last_persisted = ticket;
                    self.step(Input::Persisted(ticket));
                }
            }
            Ok(None) => {}
            Err(error) => self.failure = Some(error.into()),
        }
    }
}
