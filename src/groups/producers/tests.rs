//! Tests of the producers, against a model that remembers everything and looks through all of it.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Producers in the tests' tables.
const LIMIT: usize = 3;
const A: TopicId = TopicId(0);
const B: TopicId = TopicId(1);

fn stamp(producer: u64, epoch: u32, sequence: u64) -> Stamp {
    Stamp { producer, epoch, sequence }
}

fn placed(repeated: u32, first: u64, last: u64) -> Result<Placed, Fence> {
    Ok(Placed { repeated, first, last })
}

fn bytes(producers: &Producers) -> Vec<u8> {
    let mut out = Vec::new();
    producers.encode(&mut out);
    out
}

#[test]
fn a_retry_gets_its_first_offsets_and_appends_only_the_rest() {
    let mut producers = Producers::with_limit(LIMIT);
    assert_eq!(producers.deliver(stamp(7, 0, 0), A, 3, 10), placed(0, 10, 12));
    assert_eq!(producers.deliver(stamp(7, 0, 0), A, 3, 20), placed(3, 10, 12));
    assert_eq!(producers.deliver(stamp(7, 0, 1), A, 1, 20), placed(1, 11, 11));
    assert_eq!(producers.deliver(stamp(7, 0, 1), A, 4, 20), placed(2, 11, 21), "two are new");
    assert_eq!(producers.deliver(stamp(7, 0, 4), A, 1, 22), placed(1, 21, 21));
    assert_eq!(producers.look(stamp(7, 0, 0), A, 5), Some(placed(5, 10, 21)));
    assert_eq!(producers.look(stamp(7, 0, 0), A, 6), None, "one would be new");
}

#[test]
fn what_may_not_be_appended_changes_nothing() {
    let mut producers = Producers::with_limit(LIMIT);
    producers.deliver(stamp(7, 2, 0), A, 3, 0).unwrap();
    let before = bytes(&producers);
    for (stamp, topic, fence) in [
        (stamp(7, 2, 4), A, Fence::Gap { expected: 3 }),
        (stamp(7, 3, 1), A, Fence::Gap { expected: 0 }),
        (stamp(7, 1, 0), A, Fence::OldEpoch { epoch: 2 }),
        (stamp(7, 1, 99), A, Fence::OldEpoch { epoch: 2 }),
        (stamp(7, 2, 2), B, Fence::OtherTopic),
        (stamp(8, 0, 1), A, Fence::Gap { expected: 0 }),
        (stamp(GIVEN.start, 0, 0), A, Fence::UnknownProducer),
        (stamp(7, 2, u64::MAX), A, Fence::Gap { expected: 3 }),
    ] {
        assert_eq!(producers.deliver(stamp, topic, 2, 3), Err(fence), "{stamp:?}");
        let sure = !matches!(fence, Fence::Gap { .. } | Fence::UnknownProducer);
        assert_eq!(producers.look(stamp, topic, 2), sure.then_some(Err(fence)), "{stamp:?}");
    }
    assert_eq!(bytes(&producers), before);
    assert_eq!(producers.deliver(stamp(7, 3, 0), A, 1, 3), placed(0, 3, 3), "a new epoch");
    assert_eq!(producers.deliver(stamp(7, 2, 3), A, 1, 4), Err(Fence::OldEpoch { epoch: 3 }));
}

#[test]
fn below_the_window_is_an_error_and_never_an_append() {
    let mut producers = Producers::with_limit(LIMIT);
    // Every second offset is somebody else's: no two records lie side by side.
    let last = SPANS_MAX as u64 + 4;
    for sequence in 0..=last {
        producers.deliver(stamp(7, 0, sequence), A, 1, 2 * sequence).unwrap();
    }
    let first = last + 1 - SPANS_MAX as u64;
    let gone = Err(Fence::Forgotten { first });
    assert_eq!(producers.deliver(stamp(7, 0, first - 1), A, 2, 999), gone);
    assert_eq!(producers.deliver(stamp(7, 0, first - 1), A, 99, 999), gone, "with new ones, too");
    assert_eq!(producers.deliver(stamp(7, 0, first), A, 1, 999), placed(1, 2 * first, 2 * first));
    // Side by side they are one stretch, however many.
    for sequence in 0..1000 {
        producers.deliver(stamp(8, 0, sequence), B, 1, sequence).unwrap();
    }
    assert_eq!(producers.look(stamp(8, 0, 0), B, 1000), Some(placed(1000, 0, 999)));
}

#[test]
fn who_is_used_least_is_forgotten_and_ids_that_were_given_do_not_begin_again() {
    let mut producers = Producers::with_limit(LIMIT);
    let given = producers.register().unwrap();
    assert_eq!(given, GIVEN.start);
    producers.deliver(stamp(given, 0, 0), A, 1, 0).unwrap();
    producers.deliver(stamp(1, 0, 0), A, 1, 1).unwrap();
    producers.deliver(stamp(2, 0, 0), A, 1, 2).unwrap();
    producers.deliver(stamp(given, 0, 1), A, 1, 3).unwrap();
    // A repetition is no use: every node would have to answer it in the same order.
    assert_eq!(producers.deliver(stamp(1, 0, 0), A, 1, 4), placed(1, 1, 1));
    producers.deliver(stamp(3, 0, 0), A, 1, 4).unwrap();
    assert_eq!(producers.deliver(stamp(1, 0, 1), A, 1, 5), Err(Fence::UnknownProducer));
    assert_eq!(producers.deliver(stamp(2, 0, 0), A, 1, 5), placed(1, 2, 2));
    for other in 4..7 {
        producers.deliver(stamp(other, 0, 0), A, 1, 5).unwrap();
    }
    assert_eq!(producers.deliver(stamp(given, 0, 0), A, 1, 8), Err(Fence::UnknownProducer));
    assert_eq!(producers.register(), Some(given + 1), "never the same again");
    assert_eq!(producers.count(), LIMIT);
}

#[test]
fn the_digest_tells_states_apart() {
    let run = |steps: &[Stamp]| {
        let mut producers = Producers::with_limit(LIMIT);
        for (offset, stamp) in (0..).zip(steps) {
            let _ = producers.deliver(*stamp, A, 1, offset);
        }
        producers.digest()
    };
    assert_eq!(run(&[]), 0);
    let base = run(&[stamp(1, 0, 0), stamp(2, 0, 0)]);
    assert_eq!(base, run(&[stamp(1, 0, 0), stamp(2, 0, 0), stamp(2, 0, 0)]), "a repetition");
    assert_ne!(base, run(&[stamp(2, 0, 0), stamp(1, 0, 0)]), "other order of use");
    assert_ne!(base, run(&[stamp(1, 0, 0), stamp(2, 1, 0)]), "other epoch");
}

#[test]
fn bytes_that_are_no_state() {
    let mut producers = Producers::with_limit(LIMIT);
    producers.deliver(stamp(7, 0, 0), A, 5, 0).unwrap();
    producers.deliver(stamp(7, 0, 5), A, 5, 9).unwrap();
    let good = bytes(&producers);
    assert!(Producers::decode(&good).is_ok());
    for end in 0..good.len() {
        assert_eq!(Producers::decode(&good[..end]).err(), Some(StateError), "cut at {end}");
    }
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        Producers::decode_with(LIMIT, &bad).is_none()
    };
    assert!(with(32, 4), "more producers than there may be");
    assert!(with(32, 0), "bytes behind the last");
    assert!(with(7, 1), "more ids than there are");
    assert!(with(52, SPANS_MAX as u8 + 1), "more stretches than are remembered");
    assert!(with(56, 5), "a stretch at the next sequence");
    assert!(with(88, 0), "two stretches from one sequence on");
    assert!(with(84, 1), "a reserved byte");
    let twice = [&good[..32], &[2, 0, 0, 0, 0, 0, 0, 0], &good[40..], &good[40..]].concat();
    assert_eq!(Producers::decode(&twice).err(), Some(StateError), "one producer twice");
}

/// Where each record of a producer is.
type Places = Vec<(TopicId, u64)>;

/// Remembers all records, and works out from them what the table may still know.
#[derive(Default)]
struct Model {
    /// Producers known, the one used least recently first: id, epoch, and each record's place.
    known: Vec<(u64, u32, Places)>,
    forgotten: bool,
    given: u64,
}

impl Model {
    fn bring(&mut self, id: u64, epoch: u32, records: Places) {
        self.known.retain(|known| known.0 != id);
        if self.known.len() == LIMIT {
            self.known.remove(0);
            self.forgotten = true;
        }
        self.known.push((id, epoch, records));
    }

    /// The first sequence whose place is remembered.
    fn first_remembered(records: &[(TopicId, u64)]) -> usize {
        let begins = |at: &usize| {
            let before = at.checked_sub(1).map(|before| records[before]);
            before.is_none_or(|(topic, offset)| records[*at] != (topic, offset + 1))
        };
        let begins: Vec<usize> = (0..records.len()).filter(begins).collect();
        begins[begins.len().saturating_sub(SPANS_MAX)]
    }

    fn deliver(
        &mut self,
        stamp: Stamp,
        topic: TopicId,
        count: u32,
        end: u64,
    ) -> Result<Placed, Fence> {
        let known = self.known.iter().find(|known| known.0 == stamp.producer).cloned();
        if known.is_none() && (GIVEN.contains(&stamp.producer) || stamp.sequence > 0) {
            let unknown = GIVEN.contains(&stamp.producer) || self.forgotten;
            return Err(if unknown { Fence::UnknownProducer } else { Fence::Gap { expected: 0 } });
        }
        let (_, epoch, mut records) = known.unwrap_or((0, stamp.epoch, Vec::new()));
        if stamp.epoch < epoch {
            return Err(Fence::OldEpoch { epoch });
        }
        if stamp.epoch > epoch {
            records.clear();
        }
        let (from, to) = (stamp.sequence as usize, stamp.sequence as usize + count as usize);
        if from > records.len() {
            return Err(Fence::Gap { expected: records.len() as u64 });
        }
        let repeated = to.min(records.len()) - from;
        for at in [from, from + repeated.max(1) - 1].into_iter().filter(|_| repeated > 0) {
            let first = Model::first_remembered(&records);
            if at < first {
                return Err(Fence::Forgotten { first: first as u64 });
            }
            if records[at].0 != topic {
                return Err(Fence::OtherTopic);
            }
        }
        let new = count as usize - repeated;
        records.extend((end..).take(new).map(|offset| (topic, offset)));
        let placed =
            Placed { repeated: repeated as u32, first: records[from].1, last: records[to - 1].1 };
        if new > 0 {
            self.bring(stamp.producer, stamp.epoch, records);
        }
        Ok(placed)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Register,
    /// Whose, its epoch, how far below or above the next sequence, how many, where to.
    Deliver(u8, u32, i64, u32, u8),
    /// Somebody else's records come between.
    Between(u8),
    /// As a snapshot carries it.
    Carry,
}

fn step() -> impl Strategy<Value = Step> {
    let back = prop_oneof![6 => Just(0i64), 3 => -6..0i64, 1 => -200..0i64, 1 => 1..3i64];
    let epoch = prop_oneof![12 => Just(0u32), 1 => 1..3u32];
    prop_oneof![
        1 => Just(Step::Register),
        20 => (0..6u8, epoch, back, 1..5u32, 0..2u8)
            .prop_map(|(who, epoch, back, count, topic)| {
                Step::Deliver(who, epoch, back, count, topic)
            }),
        6 => (0..2u8).prop_map(Step::Between),
        1 => Just(Step::Carry),
    ]
}

proptest! {
    #[test]
    fn as_one_who_remembers_everything(steps in proptest::collection::vec(step(), 1..400)) {
        let mut producers = Producers::with_limit(LIMIT);
        let (mut model, mut ends) = (Model::default(), [0u64; 2]);
        let mut appended = BTreeSet::new();
        for step in steps {
            match step {
                Step::Register => {
                    let id = producers.register().unwrap();
                    prop_assert_eq!(id, GIVEN.start + model.given);
                    model.given += 1;
                    model.bring(id, 0, Vec::new());
                }
                Step::Between(topic) => ends[usize::from(topic)] += 1,
                Step::Carry => {
                    let before = bytes(&producers);
                    producers = Producers::decode_with(LIMIT, &before).unwrap();
                    prop_assert_eq!(bytes(&producers), before);
                }
                Step::Deliver(who, epoch, back, count, topic) => {
                    let id = match who {
                        0..3 => u64::from(who),
                        _ => GIVEN.start + u64::from(who - 3),
                    };
                    let known = model.known.iter().find(|known| known.0 == id);
                    let next = known.map_or(0, |known| known.2.len() as i64);
                    let stamp = stamp(id, epoch, (next + back).max(0) as u64);
                    let (end, topic) = (ends[usize::from(topic)], TopicId(topic.into()));
                    let sure = producers.look(stamp, topic, count);
                    let told = producers.deliver(stamp, topic, count, end);
                    prop_assert_eq!(told, model.deliver(stamp, topic, count, end), "{:?}", stamp);
                    prop_assert!(sure.is_none_or(|sure| sure == told));
                    let repeats = told.is_ok_and(|placed| placed.repeated == count);
                    prop_assert!(sure.is_some() || !repeats, "known before");
                    let Ok(placed) = told else { continue };
                    ends[topic.0 as usize] += u64::from(count - placed.repeated);
                    for index in placed.repeated..count {
                        let record = (id, epoch, stamp.after(index).sequence);
                        // Who chose its id and was forgotten may begin again; nobody else.
                        let new = appended.insert(record);
                        prop_assert!(new || model.forgotten && !GIVEN.contains(&id));
                    }
                }
            }
            prop_assert_eq!(producers.count(), model.known.len());
        }
    }
}
