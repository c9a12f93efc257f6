//! What earlier looks have found.

use std::time::{Duration, Instant};

use crate::budget::{Exhaustion, State};

use super::decide::{Action, found};
use super::{Policy, Snapshot};

/// The most time that one look stands for. Looks come every second; where some were missed, as the data
/// plane was busy or the machine suspended, nobody knows what was in between, and it counts for nothing.
const LOOK: Duration = Duration::from_secs(2);

/// For how long something has been so at every look; none: it was not at the last one.
pub(super) type Streak = Option<Duration>;

/// What was found at the looks up to the last one.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    pub(super) now: Exhaustion,
    pub(super) found: Found,
}

/// What looks add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// When the last look was; none: there was none.
    pub(super) at: Option<Instant>,
    /// How many budget waits had ended in vain by then.
    pub(super) timed_out: u64,
    /// More of the budget is in use than is well.
    pub(super) high: Streak,
    /// So little is that a warning is over.
    pub(super) low: Streak,
    /// Whether it was high for long enough, and was not low for long enough since.
    pub(super) is_warned: bool,
    /// Somebody waits long, or in vain.
    pub(super) starved: Streak,
    /// Nobody does, and there is room.
    pub(super) calm: Streak,
    /// How long it has been exhausted, as far as looks know.
    pub(super) exhausted: Duration,
}

impl History {
    /// All was well before `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            now: Exhaustion::healthy(now),
            found: Found::default(),
        }
    }

    /// How it stands by now.
    #[must_use]
    pub fn exhaustion(&self) -> Exhaustion {
        self.now
    }

    /// A look was taken, and this was decided at it.
    pub fn record(
        &mut self,
        snapshot: &Snapshot,
        policy: &Policy,
        now: Instant,
        decided: &[Action],
    ) {
        self.found = found(self, snapshot, policy, now);
        for Action::Tell(change) in decided {
            self.now.state = change.to;
            self.now.since = now;
        }
        let is_well = self.now.state == State::Healthy;
        self.now.cause = (!is_well).then(|| snapshot.cause());
    }
}

impl Found {
    /// How much time a look at `now` stands for.
    pub(super) fn step(&self, now: Instant) -> Duration {
        let since = |at| now.saturating_duration_since(at);
        self.at.map_or(Duration::ZERO, since).min(LOOK)
    }
}

/// A streak after a look that stands for `step`, at which it is so or not.
pub(super) fn go_on(streak: Streak, is_so: bool, step: Duration) -> Streak {
    is_so.then(|| streak.map_or(Duration::ZERO, |streak| streak.saturating_add(step)))
}
