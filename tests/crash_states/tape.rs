//! All the ways in which a crash can go, one after another.
//!
//! Invariant: a tape asks for nothing; it answers what the disk asks, remembers what was asked, and
//! changes its last answer that has another. So every sequence of answers comes up exactly once,
//! also where one answer changes what is asked next.

use chainring::sim::disk::{Fate, Fates, SECTOR};
use chainring::sim::random::Random;

/// What a sector can come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Kept or lost.
    KeptLost,
    /// Kept or torn.
    KeptTorn,
    /// Any of the three.
    All,
}

/// Answers.
pub struct Tape {
    mode: Mode,
    /// Where sectors are torn.
    salt: u64,
    /// Each answer, and how many there are.
    answers: Vec<(u8, u8)>,
    asked: usize,
    /// Answers by chance, so many times; none to go through all of them.
    chance: Option<(Random, u64)>,
}

impl Tape {
    /// All answers.
    pub fn all(mode: Mode, salt: u64) -> Tape {
        Tape { mode, salt, answers: Vec::new(), asked: 0, chance: None }
    }

    /// So many answers by chance.
    pub fn some(random: Random, salt: u64, times: u64) -> Tape {
        let chance = Some((random, times));
        Tape { mode: Mode::All, salt, answers: Vec::new(), asked: 0, chance }
    }

    /// Goes to the next answers; false if there are none.
    pub fn advance(&mut self) -> bool {
        self.asked = 0;
        if let Some((_, left)) = &mut self.chance {
            self.answers.clear();
            *left = left.saturating_sub(1);
            return *left > 0;
        }
        while let Some((answer, of)) = self.answers.pop() {
            if answer + 1 < of {
                self.answers.push((answer + 1, of));
                return true;
            }
        }
        false
    }

    /// How many ways there are, as far as the answers now show.
    pub fn ways(&self) -> u64 {
        self.answers.iter().fold(1, |ways: u64, (_, of)| ways.saturating_mul(u64::from(*of)))
    }

    /// The answers now, for a report.
    pub fn shown(&self) -> String {
        let answers: String = self.answers.iter().map(|(answer, _)| answer.to_string()).collect();
        format!("{:?} {answers}", self.mode)
    }

    fn ask(&mut self, of: u8) -> u8 {
        if self.asked == self.answers.len() {
            let answer = match &mut self.chance {
                Some((random, _)) => random.below(u64::from(of)) as u8,
                None => 0,
            };
            self.answers.push((answer, of));
        }
        self.asked += 1;
        self.answers[self.asked - 1].0
    }

    fn torn(&self, number: u64) -> Fate {
        let mixed = (number ^ self.salt << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let cut = 1 + (mixed >> 1) % (SECTOR as u64 - 1);
        match mixed & 1 {
            0 => Fate::Torn { from: 0, to: cut as u16 },
            _ => Fate::Torn { from: cut as u16, to: SECTOR as u16 },
        }
    }
}

impl Fates for Tape {
    fn sector(&mut self, number: u64) -> Fate {
        let of = if self.mode == Mode::All { 3 } else { 2 };
        match (self.mode, self.ask(of)) {
            (_, 0) => Fate::Kept,
            (Mode::KeptLost | Mode::All, 1) => Fate::Lost,
            _ => self.torn(number),
        }
    }

    fn name(&mut self) -> bool {
        self.ask(2) == 0
    }

    fn length(&mut self, stable: u64, latest: u64) -> u64 {
        if self.ask(2) == 0 { latest } else { stable }
    }
}

#[test]
fn every_answer_comes_up_once() {
    let mut tape = Tape::all(Mode::All, 0);
    let mut seen = std::collections::BTreeSet::new();
    loop {
        // The second sector is asked for only if the name was kept.
        let name = tape.name();
        let first = tape.sector(0);
        let second = name.then(|| tape.sector(1));
        assert!(seen.insert(format!("{name} {first:?} {second:?}")));
        if !tape.advance() {
            break;
        }
    }
    assert_eq!(seen.len(), 9 + 3);
}
