//! Delivery: offsets, the digest, the memory log, answers.
//!
//! Invariant: every node does the same with the same entry; only answers and times are local.

use crate::device::Machine;
use crate::groups::Delivered;
use crate::mail::{Notice, Place};
use crate::shard::Shard;
use crate::shard::packets::{DELIVERY, NOTICE, PacketIx};
use chainring_ring::header::{HEADER_BYTES, u32_at};
use chainring_ring::ids::{Entry, NodeId, Order, Session, ValueId};
use chainring_ring::{mark, mutant};

impl<M: Machine> Shard<M> {
    /// The core delivers an entry.
    pub(super) fn deliver(&mut self, order: Order, counts: bool) {
        let Entry::Value(id) = order.entry else { return self.outbox.instance(order, None) };
        if !counts {
            if let Some(ix) = self.packets.find(&id).filter(|_| mutant!(DuplicateDelivered)) {
                self.deliver_records(ix);
            }
            return self.outbox.instance(order, None);
        }
        let ix = self.packets.find(&id).expect("a value that counts is held");
        self.packets.need(ix, NOTICE);
        if let Some(memory) = &mut self.memory {
            let frame = self.machine.bytes(self.packets.get(ix).range);
            memory.keep_from(memory.head());
            let place = memory.append(frame).expect("larger than the largest packet");
            let place = Place { at: place.at, bytes: place.bytes };
            self.packets.get_mut(ix).place = Some(place);
        }
        self.outbox.instance(order, Some(ix));
        self.deliver_records(ix);
        if id.origin == self.sender.node {
            self.delivered_own(order);
        }
        self.packets.unhold(ix);
        self.release(ix, DELIVERY);
        self.times.delivered();
    }

    fn deliver_records(&mut self, ix: PacketIx) {
        let packet = self.packets.get(ix);
        let frame = self.machine.bytes(packet.range);
        let length = u32_at(frame, 60) as usize;
        let body = &frame[HEADER_BYTES..HEADER_BYTES + length];
        let own = packet.id.origin == self.sender.node;
        let (outbox, batcher, id) = (&mut self.outbox, &mut self.batcher, packet.id);
        let told = self.groups.deliver(body, |delivered| match delivered {
            Delivered::Run { topic, first_offset, count, skip, at } => {
                let at = at + HEADER_BYTES as u32;
                outbox.push(Notice::Run { topic, first_offset, count, skip, at });
            }
            Delivered::Answer { count, offsets } if own => batcher.number(id, count, offsets),
            Delivered::Producer { id: producer } if own => batcher.registered(id, producer),
            Delivered::Answer { .. } | Delivered::Producer { .. } => {}
            Delivered::Topic { id, name } => {
                outbox.push(Notice::Topic { id, name: name.into() });
                if let Some(source) = batcher.source() {
                    source.topic(name, id);
                }
            }
        });
        // A body that does not parse counts at no node: all stop at the same byte.
        self.bad_bodies += u64::from(told.is_err());
    }

    fn delivered_own(&mut self, order: Order) {
        if let Some((since_us, records)) = self.batcher.delivered(order.instance) {
            self.times.delivered_own(since_us, records);
        }
        while let Some(append) = self.batcher.answered() {
            self.outbox.answer(append);
        }
    }

    /// Values of closed sessions are freed.
    pub(super) fn free_sessions(&mut self, origin: NodeId, below: Session) {
        while let Some(ix) = self.packets.next_of_closed(origin, below) {
            mark!(ClosedValueFreed);
            self.packets.unhold(ix);
            self.release(ix, DELIVERY);
        }
    }

    /// A user of a packet is done.
    pub(super) fn release(&mut self, ix: PacketIx, user: u8) {
        if let Some(range) = self.packets.done(ix, user) {
            self.side.give_back(range);
        }
    }

    /// The undelivered packet of a value, for whoever fetches it.
    pub(super) fn read_held(&self, id: &ValueId, buffer: &mut Vec<u8>) -> bool {
        let Some(ix) = self.packets.find(id) else {
            mark!(AskedForValueNotHeld);
            return false;
        };
        mark!(AskedForValueHeld);
        let frame = self.machine.bytes(self.packets.get(ix).range);
        buffer.clear();
        let fits = buffer.capacity() >= frame.len();
        if fits {
            buffer.extend_from_slice(frame);
        }
        fits
    }
}
