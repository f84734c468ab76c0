//! What becomes of everything that was not on stable media when the power failed.
//!
//! Invariant: each sector, each name and each length is decided by itself, in a fixed order, so
//! that all the states a crash can leave are all the answers that [`Fates`] can give.

use super::image::SECTOR;
use crate::sim::random::{MILLION, Random};

/// What becomes of a sector of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It holds what was written.
    Kept,
    /// It holds what it held before.
    Lost,
    /// The bytes `from..to` are the new ones.
    Torn {
        /// First new byte.
        from: u16,
        /// First old byte behind them.
        to: u16,
    },
}

/// Decides a crash.
pub trait Fates {
    /// The sectors that follow are those of another write.
    fn write(&mut self) {}
    /// What becomes of a sector, by its number in its file.
    fn sector(&mut self, number: u64) -> Fate;
    /// Whether a name was made, changed or removed on stable media as well.
    fn name(&mut self) -> bool;
    /// How long a file is that was growing.
    fn length(&mut self, stable: u64, latest: u64) -> u64;
}

/// How often what happens to writes under way, in a million.
#[derive(Clone, Copy, Debug)]
pub struct CrashPlan {
    /// Writes of which sectors can be lost or torn; the others land whole.
    pub affected: u32,
    /// Sectors of such a write that are lost.
    pub lost: u32,
    /// Sectors of such a write that are torn.
    pub torn: u32,
    /// Changes of names that are lost.
    pub names_lost: u32,
}

impl Default for CrashPlan {
    fn default() -> CrashPlan {
        let half = MILLION / 2;
        CrashPlan { affected: 900_000, lost: 400_000, torn: 100_000, names_lost: half }
    }
}

/// A crash by chance.
pub(crate) struct Chance<'a> {
    pub random: &'a mut Random,
    pub plan: CrashPlan,
    affected: bool,
}

impl Chance<'_> {
    pub fn new(random: &mut Random, plan: CrashPlan) -> Chance<'_> {
        Chance { random, plan, affected: true }
    }
}

impl Fates for Chance<'_> {
    fn write(&mut self) {
        self.affected = self.random.chance(self.plan.affected);
    }

    fn sector(&mut self, _number: u64) -> Fate {
        if !self.affected {
            return Fate::Kept;
        }
        let drawn = self.random.below(u64::from(MILLION)) as u32;
        if drawn < self.plan.lost {
            return Fate::Lost;
        }
        if drawn >= self.plan.lost.saturating_add(self.plan.torn) {
            return Fate::Kept;
        }
        let cut = self.random.range(1..SECTOR as u64) as u16;
        match self.random.coin() {
            true => Fate::Torn { from: 0, to: cut },
            false => Fate::Torn { from: cut, to: SECTOR as u16 },
        }
    }

    fn name(&mut self) -> bool {
        !self.random.chance(self.plan.names_lost)
    }

    fn length(&mut self, stable: u64, latest: u64) -> u64 {
        let sector = SECTOR as u64;
        match self.random.below(3) {
            0 => stable,
            1 => latest,
            _ => (stable + self.random.below(latest - stable) / sector * sector).min(latest),
        }
    }
}
