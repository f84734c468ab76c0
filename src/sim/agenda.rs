//! What is to happen, and when: the one queue that moves a simulated world.
//!
//! Invariants: time never goes back; things of one time happen in the order in which they were put
//! down, so that a seed has one course only.

use std::collections::BinaryHeap;

/// Something that happens at a time. Nodes are numbered from 0; a `life` that is over hears
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A shard takes a turn, unless it was called for another time since.
    Turn {
        /// Which node.
        node: u8,
        /// Of the call.
        stamp: u64,
    },
    /// The stand-in for the control thread takes its mail.
    Mail {
        /// Which node.
        node: u8,
        /// Of which life.
        life: u32,
    },
    /// Bytes, or the end, of a connection arrive.
    Arrive {
        /// Which connection.
        connection: u32,
        /// Sent by this side.
        from: u8,
    },
    /// A dialed connection comes about or not.
    Dialed {
        /// Which connection.
        connection: u32,
    },
    /// A connection that carried nothing for too long gives up.
    GiveUp {
        /// Which connection.
        connection: u32,
        /// Seen from this side.
        side: u8,
    },
    /// A write to a log is done.
    Written {
        /// Which node.
        node: u8,
        /// Of which life.
        life: u32,
        /// The disk's name for it.
        write: u64,
    },
    /// A timer of the peers' code fires.
    Timer {
        /// Which node.
        node: u8,
        /// Of which life.
        life: u32,
        /// Which timer.
        timer: u64,
    },
    /// A segment is made.
    Segment {
        /// Which node.
        node: u8,
        /// Of which life.
        life: u32,
        /// Its number.
        number: u32,
    },
    /// A client looks what to do.
    Client {
        /// Which client.
        client: u16,
    },
    /// A node starts.
    Boot {
        /// Which node.
        node: u8,
    },
    /// The next large fault, or the end of one.
    Strike {
        /// Index into the plan's list, or of one that ends.
        index: u32,
    },
    /// A large fault is over.
    Mend {
        /// Index into the plan's list.
        index: u32,
    },
    /// A blow that was aimed at a write of a node falls.
    Blow {
        /// Which node.
        node: u8,
        /// Of which life.
        life: u32,
        /// Index into the plan's list.
        index: u32,
    },
    /// A phase of the run ends.
    Phase,
}

/// Something put down: when, and in which order among all; of what it is the order knows nothing.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u128,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key == other.key
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The first comes last: the heap gives the greatest.
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        other.key.cmp(&self.key)
    }
}

/// The queue.
#[derive(Debug, Default)]
pub struct Agenda {
    heap: BinaryHeap<Entry>,
    now: u64,
    put: u64,
}

impl Agenda {
    /// Microseconds since the world began.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Puts something down; what lies in the past happens next.
    pub fn put(&mut self, at: u64, what: What) {
        self.put += 1;
        let key = u128::from(at.max(self.now)) << 64 | u128::from(self.put);
        self.heap.push(Entry { key, what });
    }

    /// Takes the next thing, and brings the time forward to it.
    pub fn take(&mut self) -> Option<What> {
        let Entry { key, what } = self.heap.pop()?;
        self.now = (key >> 64) as u64;
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_and_then_in_order() {
        let mut agenda = Agenda::default();
        for (at, node) in [(5, 1), (3, 2), (5, 0), (3, 1)] {
            agenda.put(at, What::Boot { node });
        }
        let taken: Vec<_> =
            std::iter::from_fn(|| agenda.take().map(|what| (agenda.now(), what))).collect();
        let boot = |node| What::Boot { node };
        assert_eq!(taken, [(3, boot(2)), (3, boot(1)), (5, boot(1)), (5, boot(0))]);
        agenda.put(1, boot(7));
        assert_eq!((agenda.take(), agenda.now()), (Some(boot(7)), 5), "never back");
    }
}
