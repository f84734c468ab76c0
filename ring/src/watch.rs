//! How long somebody may be silent before it is missed.
//!
//! Invariant: the longer its pauses were of late, the longer it is waited for; of somebody new
//! nothing is known.

/// A silence is never judged before so many ticks...
const SILENCE_MIN: u32 = 15;
/// ...and always after so many.
pub(crate) const SILENCE_MAX: u32 = 60;
/// Of somebody new: a link that is refused once or twice takes as long.
const NEW_TICKS: u32 = 30;
/// Parts of a tick in which a pause is counted: in so many ticks it is forgotten by two thirds.
const PAUSE_UNIT: u32 = 1024;
/// Of a silence so many ticks are left once a connection broke.
const HINT_TICKS: u32 = 5;

/// How long somebody has been silent, and how long it was silent lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Watch {
    pub(crate) silence: u32,
    /// The longest pause lately, in parts of a tick; a part is forgotten in each tick.
    pause: u32,
    /// It was heard since it is watched.
    known: bool,
}

impl Watch {
    /// One that was never heard, and is missed.
    pub(crate) fn silent() -> Watch {
        Watch { silence: SILENCE_MAX, ..Watch::default() }
    }

    pub(crate) fn tick(&mut self) {
        self.silence = self.silence.saturating_add(1);
        self.pause -= self.pause / PAUSE_UNIT;
    }

    /// Somebody else is watched from now on.
    pub(crate) fn begin(&mut self) {
        (self.silence, self.known) = (0, false);
    }

    pub(crate) fn heard(&mut self) {
        let silence = core::mem::take(&mut self.silence).min(SILENCE_MAX);
        self.pause = (PAUSE_UNIT * silence).max(self.pause);
        self.known = true;
    }

    pub(crate) fn patience(&self) -> u32 {
        // Of somebody new nothing is known yet.
        match self.known {
            true => (3 * self.pause / PAUSE_UNIT + 6).clamp(SILENCE_MIN, SILENCE_MAX),
            false => NEW_TICKS,
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.silence >= self.patience()
    }

    pub(crate) fn hint(&mut self) {
        self.silence = self.silence.max(self.patience() - HINT_TICKS);
    }
}
