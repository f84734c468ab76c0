//! Packets: which value frames lie in memory, where, and who still needs them.
//!
//! A packet is written once and never changed. It is held while it is to be forwarded, while it is
//! to be written, and until it is delivered; release never waits for an order. Invariants: a
//! packet's memory is given back once, when nobody needs it; received packets are given back in
//! the order in which they came; a table finds the undelivered packet of a value id.

use crate::gauges::Queue;
use crate::mail::Place;
use chainring_net::pool::Range;
use chainring_ring::ids::{NODES_MAX, NodeId, Session, ValueId};
use chainring_ring::lanes::LANE_PACKETS_MAX;
use chainring_ring::mark;
use std::collections::VecDeque;

/// Names a packet while it lives.
pub type PacketIx = u32;

/// Where a packet's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// The receive buffer; goes back in order.
    Received,
    /// The own pool; goes back in order.
    Own,
    /// The side pool.
    Side,
    /// Nowhere: moved to the side pool, or gone.
    Gone,
}

/// One value frame in memory.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// The value.
    pub id: ValueId,
    /// Its frame.
    pub range: Range,
    /// Whose memory.
    pub home: Home,
    /// Where it is in the log, once that is planned.
    pub place: Option<Place>,
    /// Users: see the constants.
    pub needs: u8,
}

/// The value is not delivered.
pub const DELIVERY: u8 = 1;
/// It waits for its place in the log.
pub const PLAN: u8 = 2;
/// A write of it is under way.
pub const WRITE: u8 = 4;
/// It is queued for, or being sent to, the successor.
pub const FORWARD: u8 = 8;
/// The control thread is to be told its place.
pub const NOTICE: u8 = 16;

/// Users for whose sake memory is held; the others need the entry alone.
const MEMORY: u8 = DELIVERY | PLAN | WRITE | FORWARD;
/// Users that hold a range fast: the kernel reads it.
const KERNEL: u8 = WRITE | FORWARD;

/// Packets held beside that have room without growing: answers of a catch-up, taken one by one.
const BESIDE: usize = 64;

/// All packets of a shard.
#[derive(Debug)]
pub struct Packets {
    slab: Vec<Packet>,
    free: Vec<PacketIx>,
    /// By origin and sequence, the undelivered packet.
    held: Box<[Option<PacketIx>]>,
    /// Undelivered packets whose place in `held` another one has: a node that lags is brought
    /// values of an old session, or of long ago, while new ones of the same origin come in. They
    /// are delivered as they come, so there are few.
    beside: Vec<PacketIx>,
    /// Received packets in order of arrival: position behind it, and which one; `None` once the
    /// memory is not needed.
    received: VecDeque<(u64, Option<PacketIx>)>,
    own: VecDeque<(u32, Option<PacketIx>)>,
}

impl Packets {
    /// Room for `limit` packets at a time.
    pub fn new(limit: usize) -> Packets {
        let lanes = NODES_MAX * LANE_PACKETS_MAX as usize;
        Packets {
            slab: Vec::with_capacity(limit),
            free: Vec::with_capacity(limit),
            held: vec![None; lanes].into_boxed_slice(),
            beside: Vec::with_capacity(BESIDE),
            received: VecDeque::with_capacity(limit),
            own: VecDeque::with_capacity(limit),
        }
    }

    /// Room for further packets.
    pub fn room(&self) -> usize {
        self.slab.capacity() - self.slab.len() + self.free.len()
    }

    /// Takes in a packet that nobody needs yet. `behind` is the position behind it in its home's
    /// order: stream position of the receive buffer, offset in the own pool.
    pub fn insert(&mut self, id: ValueId, range: Range, home: Home, behind: u64) -> PacketIx {
        let packet = Packet { id, range, home, place: None, needs: 0 };
        let ix = match self.free.pop() {
            Some(ix) => {
                self.slab[ix as usize] = packet;
                ix
            }
            None => {
                assert!(self.slab.len() < self.slab.capacity(), "checked by the caller");
                self.slab.push(packet);
                (self.slab.len() - 1) as PacketIx
            }
        };
        match home {
            Home::Received => self.received.push_back((behind, Some(ix))),
            Home::Own => self.own.push_back((behind as u32, Some(ix))),
            Home::Side | Home::Gone => {}
        }
        ix
    }

    /// Packets that there is room for.
    pub fn limit(&self) -> usize {
        self.slab.capacity()
    }

    /// How full it is.
    pub fn queues(&self) -> [Queue; 3] {
        let limit = self.limit();
        [
            ("packets received", self.received.len(), limit),
            ("own packets", self.own.len(), limit),
            ("packets held beside", self.beside.len(), BESIDE),
        ]
    }

    /// The packet.
    pub fn get(&self, ix: PacketIx) -> &Packet {
        &self.slab[ix as usize]
    }

    /// The packet, to note its place.
    pub fn get_mut(&mut self, ix: PacketIx) -> &mut Packet {
        &mut self.slab[ix as usize]
    }

    /// Somebody needs it.
    pub fn need(&mut self, ix: PacketIx, user: u8) {
        let packet = &mut self.slab[ix as usize];
        assert!(packet.needs & user == 0 || user == FORWARD);
        packet.needs |= user;
    }

    /// It is undelivered: found by its id from now on.
    pub fn hold(&mut self, ix: PacketIx) {
        let slot = slot(&self.slab[ix as usize].id);
        match self.held[slot] {
            None => self.held[slot] = Some(ix),
            Some(_) => {
                mark!(PacketHeldBeside);
                self.beside.push(ix);
            }
        }
        self.need(ix, DELIVERY);
    }

    /// The undelivered packet of a value.
    pub fn find(&self, id: &ValueId) -> Option<PacketIx> {
        let held = self.held[slot(id)]?;
        let is = |ix: &PacketIx| self.slab[*ix as usize].id == *id;
        Some(held).filter(is).or_else(|| self.beside.iter().copied().find(is))
    }

    /// It is delivered, or never will be.
    pub fn unhold(&mut self, ix: PacketIx) {
        let slot = slot(&self.slab[ix as usize].id);
        if let Some(index) = self.beside.iter().position(|beside| *beside == ix) {
            self.beside.swap_remove(index);
            return;
        }
        assert_eq!(self.held[slot], Some(ix));
        // Another one that was held beside it is found in its place.
        let next =
            self.beside.iter().position(|ix| slot == self::slot(&self.slab[*ix as usize].id));
        self.held[slot] = next.map(|index| self.beside.swap_remove(index));
    }

    /// The undelivered packets of an origin's sessions lower than `below`, one by one.
    pub fn next_of_closed(&self, origin: NodeId, below: Session) -> Option<PacketIx> {
        let first = (usize::from(origin.0) - 1) * LANE_PACKETS_MAX as usize;
        let lane = &self.held[first..first + LANE_PACKETS_MAX as usize];
        let id = |ix: &PacketIx| self.slab[*ix as usize].id;
        let closed = |ix: &PacketIx| id(ix).origin == origin && id(ix).session < below;
        lane.iter().flatten().chain(&self.beside).copied().find(closed)
    }

    /// An undelivered packet of which `past` is true.
    pub fn next_past(&self, past: impl Fn(&ValueId) -> bool) -> Option<PacketIx> {
        let is_past = |ix: &PacketIx| past(&self.slab[*ix as usize].id);
        self.held.iter().flatten().chain(&self.beside).copied().find(is_past)
    }

    /// A user is done with it. Returns the range if it goes back to the side pool.
    pub fn done(&mut self, ix: PacketIx, user: u8) -> Option<Range> {
        let packet = &mut self.slab[ix as usize];
        packet.needs &= !user;
        self.settle(ix)
    }

    /// Gives back what nobody needs. Returns the range if it goes back to the side pool.
    pub fn settle(&mut self, ix: PacketIx) -> Option<Range> {
        let packet = &mut self.slab[ix as usize];
        let mut side = None;
        if packet.needs & MEMORY == 0 && packet.home != Home::Gone {
            match packet.home {
                Home::Received => forget(&mut self.received, ix),
                Home::Own => forget(&mut self.own, ix),
                Home::Side => side = Some(packet.range),
                Home::Gone => {}
            }
            packet.home = Home::Gone;
        }
        if packet.needs == 0 {
            self.free.push(ix);
        }
        side
    }

    /// Position up to which the receive buffer is free again, if it moved.
    pub fn free_received(&mut self) -> Option<u64> {
        free_front(&mut self.received)
    }

    /// Offset up to which the own pool is free again, if it moved.
    pub fn free_own(&mut self) -> Option<u32> {
        free_front(&mut self.own)
    }

    /// The oldest received packet that holds up the buffer, if the kernel is not reading it.
    pub fn oldest_received(&self) -> Option<PacketIx> {
        let (_, ix) = self.received.front()?;
        let ix = (*ix)?;
        (self.slab[ix as usize].needs & KERNEL == 0).then_some(ix)
    }

    /// The packet lies in the side pool now.
    pub fn moved(&mut self, ix: PacketIx, range: Range) {
        mark!(PacketMovedAside);
        forget(&mut self.received, ix);
        let packet = &mut self.slab[ix as usize];
        packet.range = range;
        packet.home = Home::Side;
    }

    /// Packets in memory.
    pub fn len(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn slot(id: &ValueId) -> usize {
    let lane = usize::from(id.origin.0) - 1;
    lane * LANE_PACKETS_MAX as usize + (id.sequence.0 % LANE_PACKETS_MAX) as usize
}

fn forget<P>(order: &mut VecDeque<(P, Option<PacketIx>)>, ix: PacketIx) {
    // Nearly always the front; never deeper than the packets in memory.
    let entry = order.iter_mut().find(|(_, known)| *known == Some(ix));
    entry.expect("a packet of this home").1 = None;
}

fn free_front<P: Copy>(order: &mut VecDeque<(P, Option<PacketIx>)>) -> Option<P> {
    let mut freed = None;
    while let Some((position, None)) = order.front() {
        freed = Some(*position);
        order.pop_front();
    }
    freed
}

#[cfg(test)]
mod tests {
    use super::*;
    use chainring_ring::ids::{Incarnation, Sequence};

    fn id(sequence: u64) -> ValueId {
        let session = Session { incarnation: Incarnation(1), start: 1 };
        ValueId { origin: NodeId(1), session, sequence: Sequence(sequence) }
    }

    fn range(offset: u32) -> Range {
        Range { offset, bytes: 512 }
    }

    #[test]
    fn memory_goes_back_in_order_and_once() {
        let mut packets = Packets::new(8);
        let first = packets.insert(id(0), range(0), Home::Received, 512);
        let second = packets.insert(id(1), range(512), Home::Received, 1024);
        packets.hold(first);
        packets.need(first, FORWARD);
        packets.hold(second);
        packets.unhold(second);
        assert!(packets.done(second, DELIVERY).is_none());
        assert_eq!(packets.free_received(), None, "the first is still needed");
        assert_eq!(packets.find(&id(0)), Some(first));
        packets.unhold(first);
        packets.done(first, DELIVERY);
        assert_eq!(packets.free_received(), None);
        packets.done(first, FORWARD);
        assert_eq!(packets.free_received(), Some(1024));
        assert!(packets.is_empty());
    }

    /// A lagging node is brought a value of an old session while one of the new session waits.
    #[test]
    fn two_sessions_of_an_origin_are_held_at_a_time() {
        let mut packets = Packets::new(8);
        let older = id(5);
        let newer = ValueId { session: Session { start: 2, ..older.session }, ..older };
        let waiting = packets.insert(newer, range(0), Home::Received, 512);
        packets.hold(waiting);
        let brought = packets.insert(older, range(9000), Home::Side, 0);
        packets.hold(brought);
        assert_eq!((packets.find(&newer), packets.find(&older)), (Some(waiting), Some(brought)));
        assert_eq!(packets.next_of_closed(older.origin, newer.session), Some(brought));
        packets.unhold(waiting);
        assert_eq!((packets.find(&newer), packets.find(&older)), (None, Some(brought)));
        packets.unhold(brought);
        assert_eq!(packets.find(&older), None);
    }

    #[test]
    fn a_moved_packet_frees_the_buffer_and_goes_back_to_the_side_pool() {
        let mut packets = Packets::new(8);
        let ix = packets.insert(id(0), range(0), Home::Received, 512);
        packets.hold(ix);
        packets.need(ix, WRITE);
        assert_eq!(packets.oldest_received(), None, "the kernel reads it");
        packets.done(ix, WRITE);
        assert_eq!(packets.oldest_received(), Some(ix));
        packets.moved(ix, range(9000));
        assert_eq!(packets.free_received(), Some(512));
        packets.unhold(ix);
        assert_eq!(packets.done(ix, DELIVERY), Some(range(9000)));
    }

    #[test]
    fn a_notice_keeps_the_entry_but_not_the_memory() {
        let mut packets = Packets::new(1);
        let ix = packets.insert(id(3), range(0), Home::Received, 512);
        packets.need(ix, NOTICE);
        packets.need(ix, PLAN);
        packets.done(ix, PLAN);
        assert_eq!((packets.free_received(), packets.room()), (Some(512), 0));
        packets.done(ix, NOTICE);
        assert_eq!(packets.room(), 1);
    }
}
