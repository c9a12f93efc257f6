//! How long is waited between two tries.

use std::time::Duration;

/// The first pause, before it is spread.
const FIRST: Duration = Duration::from_secs(1);

/// The longest one, whatever the server asks for.
const LONGEST: Duration = Duration::from_secs(60);

/// Pauses of 1, 2, 4 … 60 seconds, each spread by up to a quarter to both sides so that the pods of
/// a cluster don't come back at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next pause. The server's own wish counts where it is the longer one, up to a minute.
    /// `random` is spread evenly over all numbers.
    pub(super) fn next(&mut self, wished: Option<Duration>, random: u32) -> Duration {
        let own = FIRST.saturating_mul(1 << self.tries.min(6)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        let spread = 0.75 + 0.5 * f64::from(random) / f64::from(u32::MAX);
        let own = own.mul_f64(spread).min(LONGEST);
        own.max(wished.unwrap_or_default().min(LONGEST))
    }

    /// It has succeeded.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// A random number, or one in the middle where the system has none.
pub(super) fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let middle = u32::MAX / 2;
        let pauses: Vec<_> = (0..8)
            .map(|_| backoff.next(None, middle).as_secs_f64().round())
            .collect();
        assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        backoff.reset();
        assert_eq!(backoff.next(None, middle).as_secs_f64().round(), 1.0);
    }

    #[test]
    fn pauses_are_spread_within_bounds() {
        for random in [0, 1, u32::MAX / 3, u32::MAX] {
            let mut backoff = Backoff::default();
            let first = backoff.next(None, random);
            assert!((0.75..=1.25).contains(&first.as_secs_f64()), "{first:?}");
            for _ in 0..100 {
                assert!(backoff.next(None, random) <= LONGEST);
            }
        }
        let ends = [0, u32::MAX].map(|random| Backoff::default().next(None, random));
        assert!(ends[0] < ends[1], "{ends:?}");
    }

    #[test]
    fn the_servers_wish_counts_up_to_a_minute() {
        let mut backoff = Backoff::default();
        let wish = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(backoff.next(wish(20), 0), Duration::from_secs(20));
        assert_eq!(backoff.next(wish(86_400), 0), LONGEST);
        assert!(backoff.next(wish(0), 0) >= Duration::from_secs(3));
    }
}
