//! What time it is, by a clock that may be set and by one that nobody sets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What the two clocks may differ by, in seconds, without the one having been set: it is read after the other.
const SAME: u64 = 2;

/// A moment: the time of day, which somebody may set, and how long the machine has been up, which nobody does. By
/// both it is known later by how much the time of day was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The time of day.
    pub time: SystemTime,
    /// How long the machine has been up; none where it does not tell.
    pub up: Option<Up>,
}

/// How long a machine has been up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// Which start of the machine it is.
    pub boot: String,
    /// For how long, suspension included.
    pub since: Duration,
}

/// A moment as it is written down.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Written {
    time: u64,
    boot: String,
    up: u64,
}

/// By how much the time of day was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// In seconds; ahead if it is positive.
    by: i64,
}

impl Step {
    /// Whether that is more than two readings of two clocks may differ by.
    #[must_use]
    pub fn is_set(self) -> bool {
        self.by.unsigned_abs() >= SAME
    }

    /// By how much, in seconds; ahead if it is positive.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.by
    }

    /// What a time of before is by the clock as it is now.
    #[must_use]
    pub fn moves(self, time: SystemTime) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds(time).saturating_add_signed(self.by))
    }
}

impl Moment {
    /// By how much the time of day was set since `before`. None where nobody can tell: the machine was started anew
    /// since, or one of the moments does not say how long it was up.
    #[must_use]
    pub fn set_since(&self, before: &Self) -> Option<Step> {
        let (now, then) = (self.up.as_ref()?, before.up.as_ref()?);
        let passed = now.since.checked_sub(then.since)?.as_secs();
        let is_same = now.boot == then.boot;
        let should_be = seconds(before.time).checked_add(passed)?;
        let by = i128::from(seconds(self.time)) - i128::from(should_be);
        let by = i64::try_from(by).ok()?;
        is_same.then_some(Step { by })
    }

    pub(super) fn written(&self) -> Option<Written> {
        let up = self.up.as_ref()?;
        Some(Written {
            time: seconds(self.time),
            boot: up.boot.clone(),
            up: up.since.as_secs(),
        })
    }

    pub(super) fn read(written: Written) -> Option<Self> {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(written.time))?;
        let up = Up {
            boot: written.boot,
            since: Duration::from_secs(written.up),
        };
        Some(Self { time, up: Some(up) })
    }
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(time: u64, boot: &str, up: u64) -> Moment {
        Moment {
            time: UNIX_EPOCH + Duration::from_secs(time),
            up: Some(Up {
                boot: boot.to_owned(),
                since: Duration::from_secs(up),
            }),
        }
    }

    #[test]
    fn it_is_known_by_how_much_a_clock_was_set_as_long_as_the_machine_is_up() {
        const DAY: u64 = 86_400;
        for (before, now, by) in [
            (moment(1000, "a", 10), moment(1060, "a", 70), Some(0)),
            (
                moment(7, "a", 7),
                moment(20_000 * DAY + 5, "a", 12),
                Some(1_728_000_000 - 7),
            ),
            (
                moment(20_000 * DAY, "a", 7),
                moment(19_999 * DAY, "a", 7),
                Some(-86_400),
            ),
            (moment(1000, "a", 10), moment(1060, "b", 70), None),
            (moment(1000, "a", 10), moment(1060, "a", 9), None),
            (
                moment(u64::MAX >> 8, "a", 0),
                moment(0, "a", 0),
                Some(-(i64::MAX >> 7)),
            ),
        ] {
            let step = now.set_since(&before);
            assert_eq!(step.map(Step::seconds), by, "{before:?} {now:?}");
            if let Some(step) = step {
                assert_eq!(step.is_set(), by != Some(0));
                assert_eq!(
                    step.moves(before.time) + (now.up.unwrap().since - before.up.unwrap().since),
                    now.time
                );
            }
        }
        let unknown = Moment {
            up: None,
            ..moment(1000, "a", 10)
        };
        assert_eq!(moment(1060, "a", 70).set_since(&unknown), None);
        assert_eq!(unknown.set_since(&moment(1060, "a", 70)), None);
    }

    #[test]
    fn two_readings_that_are_not_of_one_moment_are_no_step() {
        let before = moment(1000, "a", 10);
        for (time, is_set) in [
            (1069, false),
            (1070, false),
            (1071, false),
            (1072, true),
            (1067, true),
        ] {
            let step = moment(time, "a", 80).set_since(&before).unwrap();
            assert_eq!(step.is_set(), is_set, "{time}");
        }
    }
}
