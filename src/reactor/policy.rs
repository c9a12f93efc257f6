//! From when on it is what.

use std::time::Duration;

use crate::config;

/// For how long most of the budget must be in use for a warning, and how long it must be quiet to be
/// well again.
const HOLD: Duration = Duration::from_secs(30);

/// What restarts are counted in.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

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
    /// Whether a cleanup may begin.
    pub cleanup: bool,
    /// How the app is restarted; none: never.
    pub restart: Option<config::Restart>,
    /// How long it must be sustained before that, without what is added by chance.
    pub restart_after: Duration,
    /// What is added by chance, so that pods that are stuck by the same do not restart together.
    pub jitter: Duration,
    /// The least time between two restarts, and the least age of the pod.
    pub cooldown: Duration,
    /// The most restarts within any hour.
    pub max_restarts_per_hour: u32,
    /// Whether it is only told what would be done. Nothing is decided otherwise by it.
    pub dry_run: bool,
}

impl Policy {
    /// What is configured. The caller draws `jitter`, from 0 to 60 s, for each spell of exhaustion anew.
    #[must_use]
    pub fn of(knobs: &config::Exhaustion, reactor: &config::Reactor, jitter: Duration) -> Self {
        Self {
            warning: knobs.warning.thousandths,
            hold: HOLD,
            wait: knobs.wait,
            after: knobs.after,
            sustained_after: knobs.sustained_after,
            cleanup: reactor.cleanup,
            restart: reactor.restart,
            restart_after: reactor.restart_after,
            jitter,
            cooldown: reactor.cooldown,
            max_restarts_per_hour: reactor.max_restarts_per_hour,
            dry_run: reactor.dry_run,
        }
    }

    /// How old the pod must be to be restarted in this way. With an eviction the pod's memory of restarts is gone:
    /// each that takes its place must be as old as the restarts of an hour are apart.
    pub(super) fn least_age(&self, restart: config::Restart) -> Duration {
        let apart = HOUR / self.max_restarts_per_hour.max(1);
        match restart {
            config::Restart::Evict => self.cooldown.max(apart),
            _ => self.cooldown,
        }
    }

    /// How long the app alone must be the cause, at every look, for something that is due after `due`: a
    /// database that is slow now and then is slow.
    pub(super) fn stuck_for(&self, due: Duration) -> Duration {
        self.hold.min(due)
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
