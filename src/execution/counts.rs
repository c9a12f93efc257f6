//! How many executions there are and were.

use super::Reason;

/// How many generations there are and were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions may join them.
    pub active: usize,
    /// They are on their way out.
    pub ending: usize,
    /// Ended since the start, in the order of [`Reason::ALL`].
    pub ended: [u64; Reason::ALL.len()],
}

/// What a generation is counted as.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    Unborn,
    Active,
    Ending,
    Ended(Reason),
}

impl Counts {
    /// How many there ever were.
    #[must_use]
    pub fn begun(&self) -> u64 {
        (self.active + self.ending) as u64 + self.over()
    }

    /// How many have ended.
    #[must_use]
    pub fn over(&self) -> u64 {
        self.ended.iter().sum()
    }

    /// Counts every change of a generation's state, and nothing else does.
    pub(super) fn transition(&mut self, from: Stage, to: Stage) {
        match from {
            Stage::Active => self.active -= 1,
            Stage::Ending => self.ending -= 1,
            Stage::Unborn | Stage::Ended(_) => {}
        }
        match to {
            Stage::Active => self.active += 1,
            Stage::Ending => self.ending += 1,
            Stage::Ended(reason) => self.ended[reason as usize] += 1,
            Stage::Unborn => {}
        }
    }
}
