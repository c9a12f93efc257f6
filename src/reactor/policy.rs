//! From when on it is what.

use std::time::Duration;

use crate::config;

/// For how long most of the budget must be in use for a warning, and how long it must be quiet to be
/// well again.
const HOLD: Duration = Duration::from_secs(30);

/// A wait that is short, at the most.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// From when on it is what: the knobs, and what no knob changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The share of the budget, in thousandths, above which it is a warning.
    pub warning: u32,
    /// For how long it must be above, or below.
    pub hold: Duration,
    /// The budget wait above which somebody waits long.
    pub wait: Duration,
    /// How long somebody must, at every look.
    pub after: Duration,
    /// How long it must last to be sustained.
    pub sustained_after: Duration,
}

impl Policy {
    /// What is configured.
    #[must_use]
    pub fn of(knobs: &config::Exhaustion) -> Self {
        Self {
            warning: knobs.warning.thousandths,
            hold: HOLD,
            wait: knobs.wait,
            after: knobs.after,
            sustained_after: knobs.sustained_after,
        }
    }

    /// Whether so many in use are a warning.
    pub(super) fn is_high(&self, used: usize, limit: usize) -> bool {
        let (used, limit) = (used as u128, limit as u128);
        used * 1000 > limit * u128::from(self.warning)
    }

    /// Whether so few in use end a warning: seven eighths of what makes one, which is 0.7 of the budget
    /// where that is 0.8.
    pub(super) fn is_low(&self, used: usize, limit: usize) -> bool {
        let (used, limit) = (used as u128, limit as u128);
        used * 8000 <= limit * u128::from(self.warning) * 7
    }

    /// Whether a wait is so short that it does not keep a shortage going: never one that begins it.
    pub(super) fn is_short(&self, wait: Duration) -> bool {
        wait <= self.wait.min(SHORT_WAIT)
    }
}
