//! The outbox: notices of what was delivered, in order, until the control thread takes them.
//!
//! Invariants: notices leave in order of delivery, those of an instance not before its place in
//! the log is known; answers to requests leave behind the records they speak of, so that who has
//! an answer can read what it says. Whatever does not speak of deliveries overtakes them: a place
//! may wait for the very segment, or link, that it asks for. A full mailbox holds the outbox back,
//! a full outbox the loop. What the core says again by itself, as often as its timers like, is left
//! out while many words wait: a control thread that stands still costs no memory.

use crate::gauges::Queue;
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

/// Words that have room without growing; of each kind there are few at a time.
const WORDS: usize = 1024;
/// With so many that wait, nothing is added that will be said again; the others have the rest.
const WORDS_AGAIN: usize = WORDS / 2;

/// The outbox.
pub struct Outbox {
    items: VecDeque<Item>,
    /// What does not speak of deliveries.
    words: VecDeque<Notice>,
    notices: Sender<Notice>,
    waker: Waker,
    /// Notices that may wait.
    limit: usize,
    sent: bool,
}

impl Outbox {
    /// An outbox in front of a mailbox, for `limit` notices; `waker` wakes whoever reads it.
    pub fn new(notices: Sender<Notice>, waker: Waker, limit: usize) -> Outbox {
        let (items, words) = (VecDeque::with_capacity(limit), VecDeque::with_capacity(WORDS));
        Outbox { items, words, notices, waker, limit, sent: false }
    }

    /// Free places.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.items.len() + self.words.len())
    }

    /// An entry was delivered; its packet, if it has one, is needed until its place is told.
    pub fn instance(&mut self, order: Order, packet: Option<PacketIx>) {
        self.items.push_back(Item::Instance(order, packet));
    }

    /// A notice that follows those of its kind.
    pub fn push(&mut self, notice: Notice) {
        match notice {
            // Like a frame that a link loses.
            Notice::Direct { .. } | Notice::FetchValue { .. } | Notice::CatchUp { .. }
                if self.words.len() >= WORDS_AGAIN => {}
            Notice::NeedSegment { .. }
            | Notice::Resume { .. }
            | Notice::LinkDown { .. }
            | Notice::Neighbours { .. }
            | Notice::Direct { .. }
            | Notice::FetchValue { .. }
            | Notice::CatchUp { .. }
            | Notice::Read { .. }
            | Notice::Changed(_)
            | Notice::Noted { .. }
            | Notice::Session(_) => self.words.push_back(notice),
            _ => self.items.push_back(Item::Plain(notice)),
        }
    }

    /// A request is answered.
    pub fn answer(&mut self, append: Box<Append>) {
        self.push(Notice::Appended(append));
    }

    /// Sends what can be sent. A place counts as known when it is planned.
    pub fn flush(&mut self, packets: &mut Packets) {
        while let Some(notice) = self.words.pop_front() {
            if let Err(notice) = self.notices.try_send(notice) {
                self.words.push_front(notice);
                break;
            }
            self.sent = true;
        }
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

    /// How full it is.
    pub fn queues(&self) -> [Queue; 2] {
        let all = self.items.len() + self.words.len();
        [("notices", all, self.limit), ("words", self.words.len(), WORDS)]
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.words.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::packets::Home;
    use chainring_net::mailbox::channel;
    use chainring_ring::ids::{Ballot, Entry, Instance, NodeId, ValueId};

    /// A delivered value waits for its place in the log, and the log for a segment.
    #[test]
    fn the_word_for_a_segment_overtakes_what_waits_for_it() {
        let (notices, mut told) = channel(8);
        let mut outbox = Outbox::new(notices, Waker::new().unwrap(), 8);
        let mut packets = Packets::new(2);
        let ix = packets.insert(ValueId::default(), Default::default(), Home::Gone, 0);
        packets.need(ix, NOTICE);
        let (instance, base, ballot) = (Instance(0), Instance(0), Ballot::ZERO);
        let order = Order { instance, ballot, base, entry: Entry::Noop, decided: true };
        outbox.instance(order, Some(ix));
        outbox.push(Notice::Drained);
        outbox.push(Notice::NeedSegment { number: 7 });
        outbox.flush(&mut packets);
        assert!(matches!(told.try_recv(), Some(Notice::NeedSegment { number: 7 })));
        assert!(told.try_recv().is_none() && !outbox.is_empty());
        packets.get_mut(ix).place = Some(Place::default());
        outbox.flush(&mut packets);
        assert!(matches!(told.try_recv(), Some(Notice::Instance { .. })));
        assert!(matches!(told.try_recv(), Some(Notice::Drained)));
    }
    /// A control thread that stands still: what is said again by itself does not pile up, and
    /// what is said once is kept.
    #[test]
    fn what_is_said_again_does_not_pile_up() {
        let (notices, mut told) = channel(1);
        let mut outbox = Outbox::new(notices, Waker::new().unwrap(), 8);
        let mut packets = Packets::new(2);
        for _ in 0..2 * WORDS {
            outbox.push(Notice::Direct { to: NodeId(2), frame: Vec::new() });
            outbox.push(Notice::CatchUp { from: Instance(1) });
            outbox.flush(&mut packets);
        }
        outbox.push(Notice::NeedSegment { number: 7 });
        assert!(outbox.queues().iter().all(|(name, len, cap)| *name != "words" || len <= cap));
        let mut last = None;
        while let Some(notice) = told.try_recv() {
            last = Some(notice);
            outbox.flush(&mut packets);
        }
        assert!(matches!(last, Some(Notice::NeedSegment { number: 7 })) && outbox.is_empty());
    }
}
