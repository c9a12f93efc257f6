//! How it stands with the API: what fails and why, told once per change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::Counters;
use crate::metrics::words::{Action, Outcome};

use super::failure::{Cause, Deed, Failure};

/// Whether the Kubernetes API does what it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the last call of some deed has failed.
    pub is_away: bool,
    /// For how long it has been so; null before the first call.
    pub age: Option<Duration>,
    /// What failed last while it is so: cause and sentence.
    pub failure: Option<Failure>,
}

/// Keeps the standing, counts outcomes, and writes the lines of the log.
#[derive(Debug)]
pub(super) struct Keeper {
    counters: Arc<Counters>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failing: BTreeMap<Deed, Failure>,
    /// What has been told since all was well.
    told: BTreeSet<(Option<Deed>, Cause)>,
    last: Option<Failure>,
    since: Option<Instant>,
}

impl State {
    /// Whether it is news.
    fn failed(&mut self, failure: &Failure, now: Instant) -> bool {
        if self.failing.is_empty() {
            self.since = Some(now);
        }
        self.failing.insert(failure.deed, failure.clone());
        self.last = Some(failure.clone());
        let deed = (!failure.cause.is_of_all()).then_some(failure.deed);
        self.told.insert((deed, failure.cause))
    }

    /// Nothing is asked of it any more, and so nothing fails.
    fn forget(&mut self, is_forgotten: impl Fn(Deed) -> bool, now: Instant) {
        let was_failing = !self.failing.is_empty();
        self.failing.retain(|deed, _| !is_forgotten(*deed));
        if was_failing && self.failing.is_empty() {
            *self = Self {
                since: Some(now),
                ..Self::default()
            };
        }
    }

    /// For how long something has failed, where nothing does any more by this.
    fn succeeded(&mut self, deed: Deed, now: Instant) -> Option<Duration> {
        let was_failing = self.failing.remove(&deed).is_some();
        let is_over = was_failing && self.failing.is_empty();
        let since = self.since.unwrap_or(now);
        if is_over || self.since.is_none() {
            self.since = Some(now);
        }
        if is_over {
            self.told.clear();
            self.last = None;
        }
        is_over.then(|| now.saturating_duration_since(since))
    }
}

impl Keeper {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            state: Mutex::default(),
        }
    }

    /// A call has failed: counted, and told unless its cause has been since all was well.
    pub(super) fn failed(&self, failure: &Failure) {
        self.count(failure.deed, Outcome::Error);
        if self.state.lock().failed(failure, Instant::now()) {
            tracing::warn!(
                event = "kubernetes.failing",
                cause = failure.cause.as_str(),
                deed = failure.deed.as_str(),
                reason = %failure,
                "the Kubernetes API does not do what it is asked; pooling goes on"
            );
        }
    }

    /// A call has succeeded: counted, and told where nothing fails any more.
    pub(super) fn succeeded(&self, deed: Deed) {
        self.count(deed, Outcome::Ok);
        if let Some(lasted) = self.state.lock().succeeded(deed, Instant::now()) {
            tracing::info!(
                event = "kubernetes.recovered",
                failed_seconds = lasted.as_secs_f64(),
                "the Kubernetes API does what it is asked again"
            );
        }
    }

    /// There is nothing to be asked for at present.
    pub(super) fn idle(&self, deed: Deed) {
        self.state
            .lock()
            .forget(|known| known == deed, Instant::now());
    }

    /// Somebody else owned fields of ours.
    pub(super) fn taken(&self, failure: &Failure) {
        tracing::warn!(
            event = "kubernetes.taken",
            deed = failure.deed.as_str(),
            reason = failure.words(),
            "another manager owned fields of execpool's; they are written all the same: find who \
             else writes execpool.dev/* of this pod"
        );
    }

    /// The pod is no more: nothing is written from now on.
    pub(super) fn gone(&self, pod: &str, failure: &Failure) {
        self.state
            .lock()
            .forget(|known| known != Deed::Event, Instant::now());
        tracing::info!(
            event = "kubernetes.gone",
            pod,
            deed = failure.deed.as_str(),
            reason = failure.words(),
            "the pod is no more in the Kubernetes API: nothing is written there from now on"
        );
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        let state = self.state.lock();
        let is_away = !state.failing.is_empty();
        Standing {
            is_away,
            age: state.since.map(|since| since.elapsed()),
            failure: state.last.clone().filter(|_| is_away),
        }
    }

    fn count(&self, deed: Deed, outcome: Outcome) {
        let action = match deed {
            Deed::Annotate => Action::Annotate,
            Deed::Condition => Action::Condition,
            Deed::Event => Action::Event,
            // Restarts are counted by who has decided on them.
            Deed::Read | Deed::Evict | Deed::Owner | Deed::Rollout => return,
        };
        self.counters.acted(action, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(deed: Deed, cause: Cause) -> Failure {
        Failure::new(deed, cause, "x")
    }

    #[test]
    fn what_is_of_the_whole_server_is_news_once_whoever_finds_it() {
        let mut state = State::default();
        let now = Instant::now();
        assert!(state.failed(&failure(Deed::Annotate, Cause::Away), now));
        assert!(!state.failed(&failure(Deed::Condition, Cause::Away), now));
        assert!(!state.failed(&failure(Deed::Annotate, Cause::Away), now));
        assert!(state.failed(&failure(Deed::Annotate, Cause::Slow), now));
        assert!(
            !state.failed(&failure(Deed::Annotate, Cause::Away), now),
            "told before"
        );
    }

    #[test]
    fn a_missing_right_is_news_for_each_deed() {
        let mut state = State::default();
        let now = Instant::now();
        assert!(state.failed(&failure(Deed::Annotate, Cause::Forbidden), now));
        assert!(state.failed(&failure(Deed::Condition, Cause::Forbidden), now));
        assert!(!state.failed(&failure(Deed::Condition, Cause::Forbidden), now));
    }

    #[test]
    fn what_is_not_asked_for_any_more_does_not_fail_any_more() {
        let mut state = State::default();
        let now = Instant::now();
        state.failed(&failure(Deed::Event, Cause::Forbidden), now);
        state.failed(&failure(Deed::Annotate, Cause::Away), now);
        state.forget(|deed| deed == Deed::Event, now);
        assert!(state.last.is_some() && state.failing.len() == 1);
        state.forget(|deed| deed == Deed::Annotate, now);
        assert!(state.last.is_none() && state.failing.is_empty());
        assert!(
            state.failed(&failure(Deed::Event, Cause::Forbidden), now),
            "news again"
        );
    }

    #[test]
    fn it_is_over_when_nothing_fails_any_more_and_then_all_is_news_again() {
        let mut state = State::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        state.failed(&failure(Deed::Annotate, Cause::Away), now);
        state.failed(&failure(Deed::Condition, Cause::Away), now);
        assert_eq!(state.succeeded(Deed::Annotate, later), None);
        assert_eq!(state.succeeded(Deed::Annotate, later), None);
        assert_eq!(
            state.succeeded(Deed::Condition, later),
            Some(Duration::from_secs(9))
        );
        assert_eq!(state.succeeded(Deed::Condition, later), None, "told once");
        assert!(state.failed(&failure(Deed::Annotate, Cause::Away), later));
    }
}
