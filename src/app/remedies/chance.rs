//! What is left to chance, so that pods that are stuck by the same do not restart together.

use std::time::Duration;

/// The most that a restart is put off by.
const MOST: Duration = Duration::from_secs(60);

/// A number from 0 to 1, drawn anew for each spell of exhaustion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chance(f64);

impl Chance {
    /// Draws one.
    pub(super) fn draw() -> Self {
        let mut random = [0; 4];
        // Without random numbers nothing is put off, which is no fault.
        let _ = getrandom::fill(&mut random);
        Self(f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX))
    }

    /// By how much a restart is put off that comes so long after exhaustion is sustained: by a minute at most, and
    /// never by more than that time itself.
    pub(super) fn puts_off(self, restart_after: Duration) -> Duration {
        restart_after.min(MOST).mul_f64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_put_off_by_a_minute_or_what_is_configured_at_most() {
        for (restart_after, most) in [(3600, 60), (60, 60), (7, 7), (0, 0)] {
            let puts_off =
                |chance: f64| Chance(chance).puts_off(Duration::from_secs(restart_after));
            assert_eq!(puts_off(1.0), Duration::from_secs(most));
            assert_eq!(puts_off(0.0), Duration::ZERO);
        }
        let drawn: Vec<f64> = (0..64).map(|_| Chance::draw().0).collect();
        assert!(drawn.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!(drawn.iter().any(|chance| *chance != drawn[0]));
    }
}
