//! The recovery table: what is done with each thing that can be found where a group should begin.
//!
//! Invariant, shown by a test over all inputs: every case meets exactly one row. The reasons:
//! * A group is acknowledged only when all before it are complete, so a hole above the highest seal
//!   ends what was acknowledged, even where complete groups lie behind it.
//! * A seal speaks only of groups that were complete before it was submitted, so damage at or below
//!   the highest seal is corruption of what may have been voted for. It is never cut.

use chainring_ring::marks::{self, Mark};
use chainring_ring::{mark, mutant};

/// What lies where the next group should begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// An intact block that follows the group before it, and all its values.
    Complete,
    /// Such a block, but its values do not verify.
    BadValues,
    /// Bytes that are no first block of a group, or nothing but a block's remains behind it.
    Garbage,
    /// Zeros to the end of the log, or no room for a group.
    Empty,
    /// An intact block of an earlier life: what a cut left over.
    Stale,
    /// An intact block that does not follow the group before it.
    Unchained,
    /// Anything but a group that follows, and the next segment begins with one that does.
    Rolled,
    /// An intact block of another cluster, epoch, ring or node.
    Foreign,
}

/// Which seal says that the group expected here was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// None: it lies above the highest seal.
    None,
    /// One in the log.
    Log,
    /// The superblock alone.
    Superblock,
    /// None, but a segment is missing below one that is there. They are made in turn and removed
    /// from the end, so it was there, and what it held is gone.
    Gap,
}

/// Everything a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What lies there.
    pub found: Found,
    /// Whether it was known to be complete.
    pub cover: Cover,
    /// Whether an intact group of ours lies further on.
    pub later: bool,
    /// Whether the superblock says that this range was damaged and has been repaired by peers.
    pub repaired: bool,
    /// Whether this node is alone (n = 1).
    pub alone: bool,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take the group and go on behind it.
    Keep,
    /// Go on in the next segment.
    Roll,
    /// Take the orders and the values that verify, record the rest as unknown, go on behind.
    KeepPart,
    /// The same without recording: peers gave what was lost.
    KeepPartRepaired,
    /// Record as unknown all to the next intact group, or to the end, and go on there.
    Skip,
    /// The same without recording.
    SkipRepaired,
    /// Drop this and all behind it; recorded, then overwritten with zeros.
    Cut,
    /// The log ends here.
    End,
    /// Do not start: the files are not ours.
    RefuseForeign,
    /// Do not start: what was acknowledged is damaged and nobody else holds it.
    RefuseCorrupt,
}

/// A row; an empty condition (`None`) holds always.
#[derive(Debug)]
pub struct Row {
    /// Its number, for messages and the documentation.
    pub number: u8,
    /// One of these was found.
    pub found: &'static [Found],
    /// Whether a seal covers it.
    pub covered: Option<bool>,
    /// Whether an intact group lies further on.
    pub later: Option<bool>,
    /// Whether the range was repaired.
    pub repaired: Option<bool>,
    /// Whether the node is alone.
    pub alone: Option<bool>,
    /// What is done.
    pub action: Action,
    /// Why.
    pub why: &'static str,
}

const ANY: Row = Row {
    number: 0,
    found: &[],
    covered: None,
    later: None,
    repaired: None,
    alone: None,
    action: Action::End,
    why: "",
};
const NO_GROUP: &[Found] = &[Found::Garbage, Found::Empty, Found::Stale, Found::Unchained];
const DAMAGED: &[Found] =
    &[Found::Garbage, Found::Empty, Found::Stale, Found::Unchained, Found::BadValues];

/// The table. `FORMAT.md` carries the same rows.
pub const TABLE: &[Row] = &[
    Row {
        number: 1,
        found: &[Found::Complete],
        action: Action::Keep,
        why: "A complete group may have been voted for, sealed or not.",
        ..ANY
    },
    Row {
        number: 2,
        found: &[Found::Rolled],
        action: Action::Roll,
        why: "The next group follows by its checksum of this one, so nothing was ever here: it \
              did not fit, and what lies here is older or was torn and never counted.",
        ..ANY
    },
    Row {
        number: 3,
        found: &[Found::Foreign],
        action: Action::RefuseForeign,
        why: "A disk or directory of another node: using it would speak with its votes.",
        ..ANY
    },
    Row {
        number: 4,
        found: DAMAGED,
        covered: Some(true),
        repaired: Some(false),
        alone: Some(true),
        action: Action::RefuseCorrupt,
        why: "Acknowledged, and no peer to fetch it from. The range is named.",
        ..ANY
    },
    Row {
        number: 5,
        found: &[Found::BadValues],
        covered: Some(true),
        repaired: Some(false),
        alone: Some(false),
        action: Action::KeepPart,
        why: "The orders are intact and chained, so the next group's place is known. The values \
              were there once: unknown until peers give them back.",
        ..ANY
    },
    Row {
        number: 6,
        found: NO_GROUP,
        covered: Some(true),
        repaired: Some(false),
        alone: Some(false),
        action: Action::Skip,
        why: "A completed group is gone: damage, a lost write or a lost segment. Its orders may \
              have been voted for, so it is unknown, never 'never had', and is never cut.",
        ..ANY
    },
    Row {
        number: 7,
        found: &[Found::BadValues],
        covered: Some(true),
        repaired: Some(true),
        action: Action::KeepPartRepaired,
        why: "As 5, and peers gave back what it can have held; it lies further on in the log.",
        ..ANY
    },
    Row {
        number: 8,
        found: NO_GROUP,
        covered: Some(true),
        repaired: Some(true),
        action: Action::SkipRepaired,
        why: "As 6, and peers gave back what it can have held.",
        ..ANY
    },
    Row {
        number: 9,
        found: &[Found::Empty],
        covered: Some(false),
        later: Some(false),
        action: Action::End,
        why: "Never written, and nothing behind it.",
        ..ANY
    },
    Row {
        number: 10,
        found: &[Found::Garbage, Found::Stale, Found::Unchained, Found::BadValues],
        covered: Some(false),
        later: Some(false),
        action: Action::Cut,
        why: "The last write, torn: no vote covered it, since none had been sealed or could be \
              completed. 'Never had'.",
        ..ANY
    },
    Row {
        number: 11,
        found: DAMAGED,
        covered: Some(false),
        later: Some(true),
        action: Action::Cut,
        why: "Several writes were in flight and a later one landed. Votes cover a contiguous \
              prefix, so neither this one nor any behind it was voted for.",
        ..ANY
    },
];

impl Row {
    fn holds(&self, case: &Case) -> bool {
        let fits = |wanted: Option<bool>, given| wanted.is_none_or(|wanted| wanted == given);
        self.found.contains(&case.found)
            && fits(self.covered, case.cover != Cover::None && !mutant!(CutBelowSeal))
            && fits(self.later, case.later)
            && fits(self.repaired, case.repaired)
            && fits(self.alone, case.alone)
    }
}

/// By number of the row.
const MARKS: [Mark; 11] = [
    Mark::Row1Kept,
    Mark::Row2Rolled,
    Mark::Row3Foreign,
    Mark::Row4Alone,
    Mark::Row5ValuesLost,
    Mark::Row6GroupLost,
    Mark::Row7ValuesRepaired,
    Mark::Row8GroupRepaired,
    Mark::Row9End,
    Mark::Row10Torn,
    Mark::Row11Hole,
];
const _: () = assert!(MARKS.len() == TABLE.len());

/// The row that a case meets.
pub fn decide(case: &Case) -> &'static Row {
    let found = TABLE.iter().position(|row| row.holds(case));
    let index = found.expect("a test shows that every case meets a row");
    marks::hit(MARKS[index]);
    match case.cover {
        Cover::None => {}
        Cover::Log => mark!(CoveredByLog),
        Cover::Superblock => mark!(CoveredBySuperblock),
        Cover::Gap => mark!(CoveredByGap),
    }
    match case.found {
        Found::Garbage => mark!(FoundGarbage),
        Found::Empty => mark!(FoundEmpty),
        Found::Stale => mark!(FoundStale),
        Found::Unchained => mark!(FoundUnchained),
        _ => {}
    }
    &TABLE[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_cases() -> Vec<Case> {
        use Found::*;
        let mut cases = Vec::new();
        for found in [Complete, BadValues, Garbage, Empty, Stale, Unchained, Rolled, Foreign] {
            for cover in [Cover::None, Cover::Log, Cover::Superblock, Cover::Gap] {
                for bits in 0..8 {
                    let (later, repaired, alone) = (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
                    cases.push(Case { found, cover, later, repaired, alone });
                }
            }
        }
        cases
    }

    #[test]
    fn every_case_meets_exactly_one_row_and_every_row_a_case() {
        let cases = all_cases();
        assert_eq!(cases.len(), 8 * 4 * 8);
        for case in &cases {
            let rows: Vec<u8> =
                TABLE.iter().filter(|row| row.holds(case)).map(|row| row.number).collect();
            assert_eq!(rows.len(), 1, "{case:?} meets rows {rows:?}");
        }
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.number as usize, index + 1);
            assert!(cases.iter().any(|case| row.holds(case)), "row {} is dead", row.number);
            assert!(!row.why.is_empty());
        }
    }

    /// The two rules of design §6, whatever the rows say.
    #[test]
    fn what_is_sealed_is_never_cut_and_what_is_not_never_unknown() {
        use Action::*;
        for case in all_cases() {
            let action = decide(&case).action;
            if case.cover != Cover::None {
                assert!(!matches!(action, Cut | End), "{case:?}");
            } else {
                let unknown = [KeepPart, KeepPartRepaired, Skip, SkipRepaired, RefuseCorrupt];
                assert!(!unknown.contains(&action), "{case:?}");
            }
        }
    }
}
