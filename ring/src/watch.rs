//! How long somebody may be silent before it is missed.
//!
//! Invariant: the longer its pauses were of late, the longer it is waited for; of somebody new
//! nothing is known.

/// A silence is never judged before so many ticks...
const SILENCE_MIN: u32 = 15;
/// ...and always after so many.
pub(crate) const SILENCE_MAX: u32 = 36;
/// Of a new neighbour: a link that is refused once or twice takes as long.
pub(crate) const NEW_TICKS: u32 = 30;
/// Of a candidate: one that is at work answers who asks for it.
pub(crate) const CANDIDATE_TICKS: u32 = 15;
/// Parts of a tick in which a pause is counted: in so many ticks it is forgotten by two thirds.
const PAUSE_UNIT: u32 = 1024;
/// Of a silence so many ticks are left once a connection broke.
const HINT_TICKS: u32 = 5;

/// How long somebody has been silent, and how long it was silent lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Watch {
    pub(crate) silence: u32,
    /// The longest pause lately, in parts of a tick; a part is forgotten in each tick.
    pause: u32,
    /// So long somebody new may be silent; 0 once it was heard.
    new: u32,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { silence: 0, pause: 0, new: NEW_TICKS }
    }
}

impl Watch {
    /// One that was never heard, and is missed.
    pub(crate) fn silent() -> Watch {
        Watch { silence: SILENCE_MAX, new: NEW_TICKS, ..Watch::default() }
    }

    pub(crate) fn tick(&mut self) {
        self.silence = self.silence.saturating_add(1);
        self.pause -= self.pause / PAUSE_UNIT;
    }

    /// Somebody else is watched from now on, and waited for so long at first.
    pub(crate) fn begin(&mut self, patience: u32) {
        (self.silence, self.new) = (0, patience);
    }

    /// It said itself that it is not what it is watched for.
    pub(crate) fn give_up(&mut self) {
        self.silence = SILENCE_MAX;
    }

    pub(crate) fn heard(&mut self) {
        let silence = core::mem::take(&mut self.silence).min(SILENCE_MAX);
        // What passed before somebody new said its first word is no pause.
        if core::mem::take(&mut self.new) == 0 {
            self.pause = (PAUSE_UNIT * silence).max(self.pause);
        }
    }

    pub(crate) fn patience(&self) -> u32 {
        match self.new {
            0 => (2 * self.pause / PAUSE_UNIT + 8).clamp(SILENCE_MIN, SILENCE_MAX),
            // Nothing is known of it yet.
            patience => patience,
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.silence >= self.patience()
    }

    pub(crate) fn hint(&mut self) {
        self.silence = self.silence.max(self.patience() - HINT_TICKS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks until it is lost.
    fn left(watch: &Watch) -> u32 {
        let (mut watch, mut ticks) = (*watch, 0);
        while !watch.is_lost() {
            watch.tick();
            ticks += 1;
        }
        ticks
    }

    #[test]
    fn who_pauses_is_waited_for_longer_and_who_is_new_is_not_known_to_pause() {
        let mut watch = Watch::default();
        assert_eq!(left(&watch), NEW_TICKS);
        (0..25).for_each(|_| watch.tick());
        watch.heard();
        assert_eq!(left(&watch), SILENCE_MIN, "its first word came late, no more");
        (0..10).for_each(|_| watch.tick());
        watch.heard();
        let patience = left(&watch);
        assert!((26..=28).contains(&patience), "{patience}");
        watch.begin(CANDIDATE_TICKS);
        assert_eq!(left(&watch), CANDIDATE_TICKS);
        assert_eq!(left(&Watch::silent()), 0);
    }
}
