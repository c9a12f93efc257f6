//! How fast sessions and executions come and go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long.
const SPAN: Duration = Duration::from_secs(60);

/// More samples than one a second makes.
const MOST: usize = 128;

/// How many there ever were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ever {
    /// Sessions that were opened.
    pub sessions_opened: u64,
    /// Sessions that were closed.
    pub sessions_closed: u64,
    /// Executions that began.
    pub executions_begun: u64,
    /// Executions that ended.
    pub executions_ended: u64,
}

/// How many there were per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PerSecond {
    /// Over how long: a minute, or less after the start.
    pub over: Duration,
    /// Sessions that were opened.
    pub sessions_opened: f64,
    /// Sessions that were closed.
    pub sessions_closed: f64,
    /// Executions that began.
    pub executions_begun: f64,
    /// Executions that ended.
    pub executions_ended: f64,
}

/// What there was at moments of the last minute, the earliest first.
#[derive(Debug, Default)]
pub struct Rates {
    samples: VecDeque<(Instant, Ever)>,
}

impl Rates {
    /// Keeps what there is now; forgets what is not needed any more.
    pub fn sample(&mut self, ever: Ever, now: Instant) {
        self.samples.push_back((now, ever));
        // One that is a minute old, or a little older, is where the last minute began.
        let is_old = |at: Instant| now.saturating_duration_since(at) >= SPAN;
        while self.samples.get(1).is_some_and(|(at, _)| is_old(*at)) || self.samples.len() > MOST {
            self.samples.pop_front();
        }
    }

    /// How fast it went from the first moment that is kept to now, when there is this much.
    #[must_use]
    pub fn per_second(&self, ever: Ever, now: Instant) -> PerSecond {
        let Some((at, first)) = self.samples.front() else {
            return PerSecond::default();
        };
        let over = now.saturating_duration_since(*at);
        if over.is_zero() {
            return PerSecond::default();
        }
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / over.as_secs_f64();
        PerSecond {
            over,
            sessions_opened: rate(ever.sessions_opened, first.sessions_opened),
            sessions_closed: rate(ever.sessions_closed, first.sessions_closed),
            executions_begun: rate(ever.executions_begun, first.executions_begun),
            executions_ended: rate(ever.executions_ended, first.executions_ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(count: u64) -> Ever {
        Ever {
            sessions_opened: count,
            ..Ever::default()
        }
    }

    #[test]
    fn a_rate_is_that_of_the_last_minute_and_of_less_after_the_start() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut rates = Rates::default();
        assert_eq!(rates.per_second(opened(9), start), PerSecond::default());
        // Two a second for two minutes, then none.
        for second in 0..=180 {
            rates.sample(opened(2 * second.min(120)), at(second));
            assert!(rates.samples.len() <= 62, "{}", rates.samples.len());
            let rate = rates.per_second(opened(2 * second.min(120)), at(second));
            let expected = match second {
                0 => 0.0,
                1..=120 => 2.0,
                _ => 2.0 * (180 - second) as f64 / 60.0,
            };
            let off = (rate.sessions_opened - expected).abs();
            assert!(off < 0.001, "{second}: {rate:?}");
            assert_eq!(rate.over.as_secs(), second.min(60));
        }
    }

    #[test]
    fn samples_that_come_too_often_are_bounded() {
        let mut rates = Rates::default();
        for _ in 0..10_000 {
            rates.sample(Ever::default(), Instant::now());
        }
        assert!(rates.samples.len() <= MOST);
    }
}
