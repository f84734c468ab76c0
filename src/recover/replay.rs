//! What a log says again: the orders and values in it, and of them what is delivered.
//!
//! Invariant: nothing is delivered that the claim does not authorise; behind damage its word for
//! entries of older ballots is not enough.

use super::*;
use crate::groups::State;
use chainring_ring::configuration::Configuration;

/// What the walk over the log collects.
#[derive(Default)]
pub(super) struct Replay {
    /// The newest order of each instance.
    pub orders: BTreeMap<Instance, Order>,
    pub places: HashMap<ValueId, chainring_storage::Place>,
    pub claim: Claim,
    pub damaged: bool,
}

/// Values by id, and their frames.
pub(super) type Held = (Vec<ValueId>, Vec<(Place, Vec<u8>)>);

/// What replaying the claim delivers.
pub(super) struct Replayed {
    pub position: Instance,
    pub table: Sequences,
    pub configuration: Configuration,
    pub groups: Groups,
    pub catalog: Catalog,
}

impl Replay {
    pub fn take(&mut self, group: &Group<'_>) {
        for order in group.orders {
            self.orders.insert(order.instance, *order);
        }
        for (header, place) in group.values {
            self.places.insert(header.value_id(), *place);
        }
        if group.claim.position > self.claim.position {
            self.claim = group.claim;
        }
    }

    /// Delivers what the claim authorises behind a state, as far as orders and values are there.
    ///
    /// # Errors
    /// What the walk has just read cannot be read any more. Going on without it would say 'never
    /// had' of what was voted for; the next start finds it damaged.
    pub fn deliver(
        &self,
        reader: &mut ReadAhead,
        from: State,
        catalog: Catalog,
    ) -> Result<Replayed, LogError> {
        let State { position, table, configuration, groups, .. } = from;
        let mut replayed = Replayed { position, table, configuration, groups, catalog };
        while let Some(order) = self.orders.get(&replayed.position) {
            // A block vouches for all orders before it; behind damage an older order may have
            // become the newest one left, and the claim is a mere claim.
            let claimed = replayed.position < self.claim.position || mutant!(ReplayBeyondClaim);
            let vouched = !self.damaged || mutant!(ReplayTrustsDamage);
            let authorised = vouched || order.ballot >= self.claim.ballot;
            if claimed && !authorised {
                mark!(ReplayBehindDamage);
            }
            let decided = claimed && (authorised || order.decided);
            if !decided || !self.deliver_one(order, reader, &mut replayed)? {
                break;
            }
            replayed.position = replayed.position.next();
        }
        if mutant!(ProducersNotReplayed) {
            replayed.groups.forget_producers();
        }
        Ok(replayed)
    }

    fn deliver_one(
        &self,
        order: &Order,
        reader: &mut ReadAhead,
        to: &mut Replayed,
    ) -> Result<bool, LogError> {
        let value = match order.entry {
            Entry::Value(id) if to.table.counts(&id) => Some(id),
            Entry::Membership(change) => {
                to.configuration.apply(&change);
                None
            }
            _ => None,
        };
        let Some(id) = value else {
            to.table.apply(&order.entry);
            to.catalog.on_instance(*order, Place::default());
            return Ok(true);
        };
        let Some(place) = self.places.get(&id) else {
            mark!(ReplayLacksValue);
            return Ok(false);
        };
        let (header, frame) = reader.read(*place)?;
        let body = &frame[HEADER_BYTES..HEADER_BYTES + header.length as usize];
        to.table.apply(&order.entry);
        to.catalog.on_instance(*order, Place { at: place.at, bytes: place.bytes });
        let catalog = &mut to.catalog;
        // A body that does not parse stopped at the same byte when it was delivered first.
        let _ = to.groups.deliver(body, |delivered| match delivered {
            Delivered::Run { topic, first_offset, count, skip, at } => {
                let at = at + HEADER_BYTES as u32;
                catalog.on_run(topic, first_offset, count, (skip, at));
            }
            Delivered::Topic { id, name } => catalog.on_topic(id, name),
            Delivered::Answer { .. } | Delivered::Producer { .. } => {}
        });
        Ok(true)
    }

    /// Values that may still be delivered, ascending, with their frames.
    ///
    /// An origin never has more than a window of bytes on its way, so an intact log has no more of
    /// them. Behind damage delivery stops early and all that follows seems undelivered: of that,
    /// `most` bytes an origin are kept. The rest counts as unknown, as what is damaged does, and
    /// comes back by catch-up.
    pub fn held(
        &self,
        reader: &mut ReadAhead,
        table: &Sequences,
        most: u64,
    ) -> Result<Held, LogError> {
        let mut ids: Vec<_> = self.places.keys().filter(|id| !table.is_past(id)).copied().collect();
        ids.sort_unstable();
        let (mut values, mut held) = (Vec::new(), Vec::new());
        let (mut origin, mut bytes) = (NodeId(0), 0);
        for id in ids {
            let place = self.places[&id];
            if id.origin != origin {
                (origin, bytes) = (id.origin, 0);
            }
            bytes += u64::from(place.bytes.next_multiple_of(BLOCK_BYTES_MAX));
            if self.damaged && bytes > most || mutant!(RecoveredValuesForgotten) {
                mark!(ReplayHoldsTooMuch);
                continue;
            }
            let (_, frame) = reader.read(place)?;
            values.push(id);
            held.push((Place { at: place.at, bytes: place.bytes }, frame.to_vec()));
        }
        Ok((values, held))
    }
}
