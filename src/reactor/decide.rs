//! What is to be done.

use std::time::{Duration, Instant};

use crate::budget::State;

use super::action::{Action, Change, Reason, Rung};
use super::guard::{Guard, against_both, against_restart};
use super::history::{Found, Streak, go_on, is_stuck};
use super::report::Why;
use super::{History, Policy, Snapshot};

/// Between two reports of a state that goes on.
const MINUTE: Duration = Duration::from_secs(60);

/// Between two reports of which the condition is another.
const BETWEEN_CONDITIONS: Duration = Duration::from_secs(10);

/// What is to be done, after `history`, about what `snapshot` shows. Values alone: the same history and
/// the same look give the same actions. The caller then has [`History::record`] keep both, and does them in
/// this order.
#[must_use]
pub fn decide(
    history: &History,
    snapshot: &Snapshot,
    policy: &Policy,
    now: Instant,
) -> Vec<Action> {
    let look = Look {
        history,
        snapshot,
        policy,
        now,
        found: found(history, snapshot, policy, now),
    };
    let to = next(history.now.state, &look.found, policy);
    let mut actions = Vec::new();
    actions.extend(look.tell(to));
    actions.extend(look.publish(to));
    actions.extend(look.announce(to));
    actions.extend(look.objection());
    actions.extend(look.remedy(to));
    actions
}

/// What is decided upon.
struct Look<'a> {
    history: &'a History,
    snapshot: &'a Snapshot,
    policy: &'a Policy,
    now: Instant,
    found: Found,
}

impl Look<'_> {
    /// Rung 1: each change.
    fn tell(&self, to: State) -> Option<Action> {
        let from = self.history.now.state;
        let cause = match (to < from, self.history.now.cause) {
            (true, Some(cause)) => cause,
            _ => self.snapshot.cause(),
        };
        (to != from).then_some(Action::Tell(Change { from, to, cause }))
    }

    /// Rung 2: at the first look, at each change, after each restart, and once a minute for as long as it is
    /// not well. That the condition is another is told sooner.
    fn publish(&self, to: State) -> Option<Action> {
        let Some((at, before)) = self.history.done.published else {
            return Some(Action::Publish);
        };
        let why = Why::of(to, &self.found, self.snapshot, self.policy);
        let is_older = |than: Duration| self.now.saturating_duration_since(at) >= than;
        let done = &self.history.done;
        let is_due = to != self.history.now.state
            || done.restarted != done.published_restarts
            || why.status() != before.status() && is_older(BETWEEN_CONDITIONS)
            || (to != State::Healthy || why != before) && is_older(MINUTE);
        is_due.then_some(Action::Publish)
    }

    /// Rung 2: worse is told each time, better once.
    fn announce(&self, to: State) -> Option<Action> {
        let from = self.history.now.state;
        let reason = match to {
            to if to == from => return None,
            State::Warning if to > from => Reason::PoolWarning,
            State::Exhausted | State::Sustained => Reason::PoolExhausted,
            State::Healthy | State::Warning => Reason::PoolRecovered,
        };
        let is_again = self.history.done.announced == Some(reason);
        let is_news = reason != Reason::PoolRecovered || !is_again;
        is_news.then_some(Action::Announce(reason))
    }

    /// What whoever carries restarts out has found against the last one.
    fn objection(&self) -> Option<Action> {
        let guard = self.history.done.objection?;
        self.refuse(Rung::Restart, guard)
    }

    /// Rungs 3 and 4: while it is sustained and not about to pass, one thing at a time.
    fn remedy(&self, to: State) -> Option<Action> {
        let done = &self.history.done;
        let is_busy = self.snapshot.circumstances.restarting
            || done.cleanup.is_under_way(self.now)
            || done.restart.is_under_way(self.now);
        if to != State::Sustained || self.found.calm.is_some() || is_busy {
            return None;
        }
        self.restart().or_else(|| self.clean_up())
    }

    /// Rung 4: somebody waits long, has at this look and in all the time since it is sustained, and nothing
    /// is against it. That somebody waited in vain since the last look is not enough: he may be gone, and all that
    /// was held with him. At the look at which it becomes sustained the turn is the cleanup's.
    fn restart(&self) -> Option<Action> {
        let Self {
            history,
            snapshot,
            policy,
            found,
            now,
        } = self;
        let way = policy.restart?;
        let due = policy.restart_after.saturating_add(policy.jitter);
        let is_due = history.now.state == State::Sustained
            && found.sustained >= due
            && found.starved.is_some()
            && snapshot.waiting > 0
            && history.done.restart.may_restart(*now);
        if !is_due {
            return None;
        }
        let ages = history.done.ages(*now);
        if let Some(guard) = against_restart(way, snapshot, policy, &ages) {
            return self.refuse(Rung::Restart, guard);
        }
        let is_stuck = found.is_stuck(policy.stuck_for(policy.restart_after));
        is_stuck.then_some(Action::Restart(way))
    }

    /// Rung 3: somebody waits, and nothing is against it.
    fn clean_up(&self) -> Option<Action> {
        let is_due = self.policy.cleanup
            && self.snapshot.waiting > 0
            && self.history.done.cleanup.may_clean_up(self.now);
        if !is_due {
            return None;
        }
        match against_both(self.snapshot) {
            Some(guard) => self.refuse(Rung::CleanUp, guard),
            None => Some(Action::CleanUp),
        }
    }

    /// It is said once that something is not done.
    fn refuse(&self, rung: Rung, guard: Guard) -> Option<Action> {
        let is_news = !self.history.done.was_refused(rung, guard);
        is_news.then_some(Action::Refuse { rung, guard })
    }
}

/// The state after one that has found this.
fn next(from: State, found: &Found, policy: &Policy) -> State {
    let lasts = |streak: Streak, long: Duration| streak.is_some_and(|streak| streak >= long);
    let below = match found.is_warned {
        true => State::Warning,
        false => State::Healthy,
    };
    match from {
        State::Healthy | State::Warning if lasts(found.starved, policy.after) => State::Exhausted,
        State::Healthy | State::Warning => below,
        State::Exhausted | State::Sustained if lasts(found.calm, policy.hold) => below,
        // One that is about to pass is not sustained.
        State::Exhausted if found.exhausted >= policy.sustained_after && found.calm.is_none() => {
            State::Sustained
        }
        State::Exhausted | State::Sustained => from,
    }
}

/// What a look adds to what was found before.
pub(super) fn found(
    history: &History,
    snapshot: &Snapshot,
    policy: &Policy,
    now: Instant,
) -> Found {
    let before = &history.found;
    let step = before.step(now);
    let is_high = policy.is_high(snapshot.used, snapshot.limit);
    // What was in vain before the first look is not known.
    let was_in_vain = before.at.is_some() && snapshot.timed_out > before.timed_out;
    let starves = was_in_vain || snapshot.oldest_wait > policy.wait;
    // A warning that is about to be worse is not over.
    let is_low = !starves && policy.is_low(snapshot.used, snapshot.limit);
    let is_quiet =
        !was_in_vain && policy.is_short(snapshot.oldest_of_all.max(snapshot.oldest_wait));
    let is_calm = is_quiet && !is_high;
    let quiet = go_on(before.quiet, is_quiet, step);
    let high = go_on(before.high, is_high, step);
    let low = go_on(before.low, is_low, step);
    let lasts = |streak: Streak| streak.is_some_and(|streak| streak >= policy.hold);
    let is_exhausted = history.now.state >= State::Exhausted;
    Found {
        at: Some(now),
        timed_out: snapshot.timed_out,
        high,
        low,
        is_warned: lasts(high) || before.is_warned && !lasts(low),
        starved: go_on(before.starved, starves, step),
        calm: go_on(before.calm, is_calm, step),
        exhausted: match is_exhausted {
            true => before.exhausted.saturating_add(step),
            false => Duration::ZERO,
        },
        quiet,
        // Much in use is no reason for a restart, where nobody waits for it.
        sustained: match history.now.state == State::Sustained && !lasts(quiet) {
            true => before.sustained.saturating_add(step),
            false => Duration::ZERO,
        },
        stuck: go_on(before.stuck, is_stuck(snapshot), step),
    }
}
