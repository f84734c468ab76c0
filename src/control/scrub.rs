//! Damage of delivered values: found by a look over the log that goes round for ever, or by a
//! reader; repaired with the value as a peer has it.
//!
//! Invariants: a value that does not verify is never served; what is put in its place is the same
//! value, by id, whole, and only in a segment that the shard does not write to any more; whatever
//! cannot be repaired stays as it is and is named by `/status`.

use super::Control;
use crate::mail::Place;
use async_io::Timer;
use chainring_ring::ids::ValueId;
use chainring_storage::scrub::{self, Log, Scrub, Seen};
use chainring_storage::{LogError, Place as Frame};
use core::ops::Range;
use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// Wait between two rounds, and after a failure to look.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait within a round.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Searches for good copies at a time.
const REPAIRS_MAX: usize = 16;

/// A value's frame as some peer has it.
type Found = Pin<Box<dyn Future<Output = Option<Vec<u8>>>>>;
/// Who looks for one.
type Finder = Box<dyn Fn(ValueId) -> Found>;

/// What the control thread knows of damage.
#[derive(Default)]
pub(super) struct Damage {
    log: OnceCell<Log>,
    finder: OnceCell<Finder>,
    /// Ranges of the log that the start found damaged, and whose entries came from peers.
    known: RefCell<Vec<Range<u64>>>,
    repairs: Cell<usize>,
    /// What was not repaired, and what was, last.
    told: RefCell<Option<String>>,
}

impl Damage {
    /// For `/status`.
    pub fn told(&self) -> Option<String> {
        self.told.borrow().clone()
    }

    fn tell(&self, at: u64, what: &str) {
        let (segment, byte) = (at >> 32, at & 0xffff_ffff);
        let told = format!("damage in the log, segment {segment} byte {byte}: {what}");
        *self.told.borrow_mut() = Some(told);
    }
}

impl Control {
    /// Repairs what is damaged in `log` with what `finder` finds. `known` are ranges that are
    /// damaged for good, their entries in the log once more.
    pub fn mend(&self, log: Log, known: Vec<Range<u64>>, finder: Finder) {
        let _ = (self.damage.log.set(log), self.damage.finder.set(finder));
        *self.damage.known.borrow_mut() = known;
    }

    /// Looks over the full segments of the log again and again, at the configured rate.
    pub async fn scrub(self: Rc<Self>) {
        let Some(log) = self.damage.log.get().cloned() else { return };
        let (mut walk, rate) = (Scrub::new(log), self.config.limits.scrub_bytes_per_s);
        loop {
            let end = self.catalog().last_segment();
            let pause = match walk.step(end) {
                Ok(Some((seen, bytes))) => {
                    self.gauges.scrubbed_bytes.add(bytes);
                    self.act(seen).await;
                    Duration::from_micros(bytes.saturating_mul(1_000_000) / rate).min(PAUSE_MAX)
                }
                Ok(None) => {
                    self.gauges.scrub_rounds.add(1);
                    ROUND_PAUSE
                }
                Err(error) => {
                    *self.damage.told.borrow_mut() = Some(error.to_string());
                    ROUND_PAUSE
                }
            };
            Timer::after(pause).await;
        }
    }

    async fn act(&self, seen: Seen) {
        let (range, group) = match seen {
            Seen::Intact => return,
            Seen::Values(range) => (range, false),
            Seen::Group(range) => (range, true),
        };
        let values = self.catalog().values_in(&range);
        let counts = !values.is_empty();
        for (id, place) in values {
            if !self.is_intact(id, place) {
                self.repair(id, place, &mut Vec::new()).await;
            }
        }
        let is_known = |known: &Range<u64>| known.start < range.end && range.start < known.end;
        if (group || !counts) && !self.damage.known.borrow().iter().any(is_known) {
            self.gauges.damaged_groups.add(1);
            let what = "entries that this node delivered long ago; what is read is not touched, \
                        and the next start takes them from peers";
            self.damage.tell(range.start, what);
        }
    }

    fn is_intact(&self, id: ValueId, place: Place) -> bool {
        let mut frame = Vec::new();
        let Some(log) = self.damage.log.get() else { return true };
        self.read_once(place, &mut frame).is_ok()
            && scrub::check(log, frame_at(place), id, &frame).is_ok()
    }

    /// Takes a value that does not verify here from a peer into `frame`, and puts it back. False
    /// if no peer has it.
    pub(super) async fn repair(&self, id: ValueId, place: Place, frame: &mut Vec<u8>) -> bool {
        let damage = &self.damage;
        let (Some(log), Some(finder)) = (damage.log.get(), damage.finder.get()) else {
            return false;
        };
        if damage.repairs.get() >= REPAIRS_MAX {
            return false;
        }
        damage.repairs.set(damage.repairs.get() + 1);
        let found = finder(id).await;
        damage.repairs.set(damage.repairs.get() - 1);
        self.gauges.damaged_values.add(1);
        let good = found.filter(|found| scrub::check(log, frame_at(place), id, found).is_ok());
        let Some(good) = good else {
            damage.tell(place.at, "a value that no peer has; it is not served");
            return false;
        };
        *frame = good;
        match self.put_back(log, place, id, frame) {
            Ok(true) => {
                self.gauges.repaired_values.add(1);
                damage.tell(place.at, "a value was damaged, and repaired with that of a peer");
            }
            Ok(false) => damage.tell(place.at, "a value of the segment that is being written"),
            Err(error) => damage.tell(place.at, &error.to_string()),
        }
        true
    }

    /// False where the shard may still write.
    fn put_back(
        &self,
        log: &Log,
        place: Place,
        id: ValueId,
        frame: &[u8],
    ) -> Result<bool, LogError> {
        if (place.at >> 32) as u32 >= self.catalog().last_segment() {
            return Ok(false);
        }
        scrub::put_back(log, frame_at(place), id, frame).map(|()| true)
    }
}

fn frame_at(place: Place) -> Frame {
    Frame { at: place.at, bytes: place.bytes }
}
