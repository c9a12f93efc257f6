//! How often the same may be told: an app in a storm of failures must not drive everything else out
//! of what is kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Event, Text};

/// How often at most, for each name and execution.
const EVERY: Duration = Duration::from_secs(1);

/// How many executions are remembered at most.
const MOST: usize = 1024;

/// What was told lately of what may come at any rate.
#[derive(Debug, Default)]
pub(super) struct Spare(BTreeMap<(&'static str, Text), Told>);

#[derive(Debug)]
struct Told {
    at: Instant,
    /// How many came since then.
    unsaid: u64,
}

impl Spare {
    /// Whether an event is to be told now. One that is says how many were not before it.
    pub(super) fn lets(&mut self, event: &mut Event, now: Instant) -> bool {
        let Some(execution) = event.execution().cloned() else {
            return true;
        };
        let name = event.name();
        let Some(unsaid) = event.unsaid() else {
            return true;
        };
        let told = self.0.get_mut(&(name, execution.clone()));
        if let Some(told) = told {
            if now.saturating_duration_since(told.at) < EVERY {
                told.unsaid += 1;
                return false;
            }
            *unsaid = told.unsaid;
        } else if self.0.len() >= MOST {
            self.0
                .retain(|_, told| now.saturating_duration_since(told.at) < EVERY);
        }
        if self.0.len() < MOST {
            self.0
                .insert((name, execution), Told { at: now, unsaid: 0 });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(execution: &str) -> Event {
        Event::CheckoutFailed {
            execution_id: Text::name(execution),
            session_id: 1,
            upstream: Text::name("app"),
            sqlstate: Text::name("53300"),
            error: Text::name("no"),
            unsaid: 0,
        }
    }

    #[test]
    fn a_storm_is_told_once_a_second_for_each_execution_and_counted() {
        let mut spare = Spare::default();
        let start = Instant::now();
        let mut told = |execution: &str, after: u64| {
            let mut event = refused(execution);
            let lets = spare.lets(&mut event, start + Duration::from_millis(after));
            lets.then(|| *event.unsaid().unwrap())
        };
        assert_eq!(told("a", 0), Some(0));
        assert_eq!((told("a", 1), told("a", 999)), (None, None));
        assert_eq!(told("b", 2), Some(0));
        assert_eq!(told("a", 1000), Some(2));
        assert_eq!(told("a", 2001), Some(0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut spare = Spare::default();
        let now = Instant::now();
        for n in 0..3000 {
            assert!(spare.lets(&mut refused(&n.to_string()), now));
        }
        assert!(spare.0.len() <= MOST);
        spare.lets(&mut refused("late"), now + EVERY);
        assert_eq!(spare.0.len(), 1);
    }
}
