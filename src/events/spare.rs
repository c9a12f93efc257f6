//! How often the same may be told: an app in a storm of failures must not drive everything else out
//! of what is kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Event, Text};

/// For how long the same is not told again.
const WHILE: Duration = Duration::from_secs(1);

/// How many of a name are told meanwhile, of whatever execution.
const AT_ONCE: u64 = 10;

/// How many executions are remembered at most.
const MOST: usize = 1024;

/// What was told lately of what may come at any rate.
#[derive(Debug, Default)]
pub(super) struct Spare {
    names: BTreeMap<&'static str, Told>,
    executions: BTreeMap<(&'static str, Text), Told>,
}

#[derive(Debug)]
struct Told {
    since: Instant,
    /// How many were told since then.
    told: u64,
    /// How many came and were not told.
    unsaid: u64,
}

impl Told {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            told: 0,
            unsaid: 0,
        }
    }

    /// Whether one more may be told, of `most` for a while.
    fn lets(&mut self, most: u64, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WHILE {
            self.since = now;
            self.told = 0;
        }
        self.told < most
    }

    /// One is told: how many were not before it.
    fn tell(&mut self) -> u64 {
        self.told += 1;
        std::mem::take(&mut self.unsaid)
    }
}

impl Spare {
    /// Whether an event is to be told now. One that is says how many were not before it.
    pub(super) fn lets(&mut self, event: &mut Event, now: Instant) -> bool {
        if event.unsaid().is_none() {
            return true;
        }
        let by_execution = event.is_spared_by_execution();
        let execution = event.execution().filter(|_| by_execution).cloned();
        let Some(before) = self.may(event.name(), execution, now) else {
            return false;
        };
        if let Some(unsaid) = event.unsaid() {
            *unsaid = before;
        }
        true
    }

    /// Whether one more of a name is to be told now, of one execution or of whoever else; then, how many
    /// were not before it.
    pub(super) fn may(
        &mut self,
        name: &'static str,
        execution: Option<Text>,
        now: Instant,
    ) -> Option<u64> {
        let mut own = None;
        if let Some(execution) = execution {
            self.make_room(now);
            let told = self.executions.entry((name, execution));
            let told = told.or_insert_with(|| Told::new(now));
            if !told.lets(1, now) {
                told.unsaid += 1;
                return None;
            }
            own = Some(told);
        }
        let all = self.names.entry(name).or_insert_with(|| Told::new(now));
        if !all.lets(AT_ONCE, now) {
            all.unsaid += 1;
            return None;
        }
        Some(all.tell() + own.map_or(0, Told::tell))
    }

    /// How many of each name were not told and nothing of that name came since: they count as told from
    /// now on.
    pub(super) fn rest(&mut self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut rest = BTreeMap::new();
        let names = self.names.iter_mut().map(|(name, told)| (*name, told));
        let executions = self.executions.iter_mut();
        let executions = executions.map(|((name, _), told)| (*name, told));
        for (name, told) in names.chain(executions) {
            let is_quiet = now.saturating_duration_since(told.since) >= WHILE;
            if is_quiet && told.unsaid > 0 {
                *rest.entry(name).or_default() += std::mem::take(&mut told.unsaid);
            }
        }
        rest.into_iter().collect()
    }

    /// Forgets executions of which nothing came for a while; all, where that is not enough.
    fn make_room(&mut self, now: Instant) {
        if self.executions.len() < MOST {
            return;
        }
        let is_new = |told: &Told| now.saturating_duration_since(told.since) < WHILE;
        let keeps_new = self.executions.values().filter(|told| is_new(told)).count() < MOST;
        let names = &mut self.names;
        self.executions.retain(|(name, _), told| {
            let stays = keeps_new && is_new(told);
            if !stays {
                // Nobody is forgotten in the count.
                let all = names.entry(*name).or_insert_with(|| Told::new(now));
                all.unsaid += told.unsaid;
            }
            stays
        });
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
    fn a_storm_of_many_executions_is_bounded_in_what_is_told_and_in_what_is_remembered() {
        let mut spare = Spare::default();
        let now = Instant::now();
        let told = (0..3000).filter(|n| spare.lets(&mut refused(&n.to_string()), now));
        assert_eq!(told.count() as u64, AT_ONCE);
        assert!(spare.executions.len() <= MOST);
        let mut late = refused("late");
        assert!(spare.lets(&mut late, now + WHILE));
        assert_eq!(late.unsaid().copied(), Some(3000 - AT_ONCE));
        assert!(spare.lets(&mut Event::Drain {}, now));
    }
}
