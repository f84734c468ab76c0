//! The outbox: notices of what was delivered, in order, until the control thread takes them.
//!
//! Invariants: notices leave in order of delivery, those of an instance not before its place in
//! the log is known; answers to requests leave behind the records they speak of, so that who has
//! an answer can read what it says. A full mailbox holds the outbox back, a full outbox the loop.

use crate::mail::{Append, Notice, Place};
use crate::shard::packets::{NOTICE, PacketIx, Packets};
use chainring_net::mailbox::{Sender, Waker};
use chainring_ring::ids::Order;
use std::collections::VecDeque;

#[derive(Debug)]
enum Item {
    Instance(Order, Option<PacketIx>),
    Plain(Notice),
}

/// The outbox.
pub struct Outbox {
    items: VecDeque<Item>,
    notices: Sender<Notice>,
    waker: Waker,
    /// Notices that may wait.
    limit: usize,
    sent: bool,
}

impl Outbox {
    /// An outbox in front of a mailbox, for `limit` notices; `waker` wakes whoever reads it.
    pub fn new(notices: Sender<Notice>, waker: Waker, limit: usize) -> Outbox {
        Outbox { items: VecDeque::with_capacity(limit), notices, waker, limit, sent: false }
    }

    /// Free places.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.items.len())
    }

    /// An entry was delivered; its packet, if it has one, is needed until its place is told.
    pub fn instance(&mut self, order: Order, packet: Option<PacketIx>) {
        self.items.push_back(Item::Instance(order, packet));
    }

    /// A notice that follows what is there.
    pub fn push(&mut self, notice: Notice) {
        self.items.push_back(Item::Plain(notice));
    }

    /// A request is answered.
    pub fn answer(&mut self, append: Box<Append>) {
        self.push(Notice::Appended(append));
    }

    /// Sends what can be sent. A place counts as known when it is planned.
    pub fn flush(&mut self, packets: &mut Packets) {
        while let Some(item) = self.items.front() {
            if let Item::Instance(_, Some(ix)) = item
                && packets.get(*ix).place.is_none()
            {
                break;
            }
            if self.notices.room() == 0 {
                break;
            }
            let item = self.items.pop_front().expect("the front");
            let notice = match item {
                Item::Plain(notice) => notice,
                Item::Instance(order, packet) => {
                    let place = packet.map_or(Place::default(), |ix| {
                        let place = packets.get(ix).place.expect("checked above");
                        packets.done(ix, NOTICE);
                        place
                    });
                    Notice::Instance { order, place }
                }
            };
            self.sent = true;
            let taken = self.notices.try_send(notice);
            assert!(taken.is_ok(), "there was room");
        }
        if std::mem::take(&mut self.sent) {
            self.waker.wake();
        }
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
