//! The window: the fixed circular buffer of instances whose orders a node still has at hand.
//!
//! Invariant: slots cover `[first, first + span)`; a slot outside is gone. A node lets go only
//! of what it has delivered, and keeps orders until every node has delivered them while there is
//! room, so that a neighbour that comes back can be sent what it lacks.

use crate::ids::{Ballot, Instance, Order};
use alloc::boxed::Box;
use alloc::vec;

/// Most instances that a window holds, and what production uses.
pub const WINDOW_MAX: u64 = 4096;
/// Fewest: below, there is no room for what a new ballot adds.
pub const WINDOW_MIN: u64 = 16;

/// One instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The order accepted last.
    pub order: Order,
    /// Log ticket: the order is durable when this is persisted; once delivered, the value too.
    pub ticket: u64,
}

/// The circular buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    first: Instance,
    slots: Box<[Option<Slot>]>,
    /// Log ticket at which all that was let go is durable.
    let_go: u64,
}

impl Window {
    /// A window of `span` instances whose first one is `first`.
    ///
    /// # Panics
    /// If the span is not a power of two from [`WINDOW_MIN`] to [`WINDOW_MAX`].
    pub fn new(first: Instance, span: u64) -> Window {
        assert!(span.is_power_of_two() && (WINDOW_MIN..=WINDOW_MAX).contains(&span));
        Window { first, slots: vec![None; span as usize].into_boxed_slice(), let_go: 0 }
    }

    /// Instances that it holds.
    pub fn span(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Where an instance lies; the span is a power of two.
    fn place(&self, instance: Instance) -> usize {
        instance.0 as usize & (self.slots.len() - 1)
    }

    /// First instance covered.
    pub fn first(&self) -> Instance {
        self.first
    }

    /// Log ticket at which all that was let go is durable.
    pub fn let_go(&self) -> u64 {
        self.let_go
    }

    /// First instance beyond.
    pub fn end(&self) -> Instance {
        Instance(self.first.0 + self.span())
    }

    /// The slot of `instance`, if covered and filled.
    pub fn get(&self, instance: Instance) -> Option<&Slot> {
        if instance < self.first || instance >= self.end() {
            return None;
        }
        self.slots[self.place(instance)].as_ref()
    }

    /// The slot of `instance`, to change it.
    pub fn get_mut(&mut self, instance: Instance) -> Option<&mut Slot> {
        if instance < self.first || instance >= self.end() {
            return None;
        }
        let place = self.place(instance);
        self.slots[place].as_mut()
    }

    /// True if the slot holds an order of exactly this ballot.
    pub fn holds_at(&self, instance: Instance, ballot: Ballot) -> bool {
        self.get(instance).is_some_and(|slot| slot.order.ballot == ballot)
    }

    /// Fills a slot.
    ///
    /// # Panics
    /// If the window does not cover it.
    pub fn put(&mut self, slot: Slot) {
        let instance = slot.order.instance;
        assert!(instance >= self.first && instance < self.end());
        let place = self.place(instance);
        self.slots[place] = Some(slot);
    }

    /// Counts tickets from `persisted` on.
    pub(crate) fn rebase(&mut self, persisted: u64) {
        for slot in self.slots.iter_mut().flatten() {
            slot.ticket = slot.ticket.saturating_sub(persisted);
        }
        self.let_go = self.let_go.saturating_sub(persisted);
    }

    /// Lets go of everything below `first`.
    pub fn advance(&mut self, first: Instance) {
        let steps = first.0.saturating_sub(self.first.0).min(self.span());
        for step in 0..steps {
            let place = self.place(Instance(self.first.0 + step));
            let slot = self.slots[place].take();
            self.let_go = self.let_go.max(slot.map_or(0, |slot| slot.ticket));
        }
        self.first = self.first.max(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Entry;

    fn slot(instance: u64) -> Slot {
        let (ballot, base) = (Ballot::ZERO, Instance(0));
        let instance = Instance(instance);
        Slot {
            order: Order { instance, ballot, base, entry: Entry::Noop, decided: false },
            ticket: 0,
        }
    }

    #[test]
    fn covers_exactly_its_span() {
        for span in [WINDOW_MIN, 256, WINDOW_MAX] {
            covers(span);
        }
    }

    fn covers(span: u64) {
        let mut window = Window::new(Instance(10), span);
        window.put(slot(10));
        window.put(slot(10 + span - 1));
        assert!(window.get(Instance(9)).is_none() && window.get(Instance(10)).is_some());
        window.advance(Instance(11));
        assert!(window.get(Instance(10)).is_none());
        assert!(window.get(Instance(10 + span)).is_none(), "the old slot does not shine through");
        window.put(slot(10 + span));
        window.advance(Instance(5));
        assert_eq!(window.first(), Instance(11), "never back");
        window.advance(Instance(1 << 40));
        assert!(window.get(Instance((1 << 40) + 10)).is_none());
    }
}
