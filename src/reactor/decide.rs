//! What is to be done.

use std::time::{Duration, Instant};

use crate::budget::{Cause, State};

use super::history::{Found, Streak, go_on};
use super::{History, Policy, Snapshot};

/// Something that is to be done. The rungs above the first will be further variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Log it, tell the event, and show it: always.
    Tell(Change),
}

/// It is another state from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What it was until now.
    pub from: State,
    /// What it is from now on.
    pub to: State,
    /// Why there was no room, at this look. Of what is over, if it is better now.
    pub cause: Cause,
}

/// What is to be done, after `history`, about what `snapshot` shows. Values alone: the same history and
/// the same look give the same actions. The caller then has [`History::record`] keep both.
#[must_use]
pub fn decide(
    history: &History,
    snapshot: &Snapshot,
    policy: &Policy,
    now: Instant,
) -> Vec<Action> {
    let from = history.now.state;
    let found = found(history, snapshot, policy, now);
    let to = next(from, &found, policy);
    if to == from {
        return Vec::new();
    }
    let cause = match (to < from, history.now.cause) {
        (true, Some(cause)) => cause,
        _ => snapshot.cause(),
    };
    vec![Action::Tell(Change { from, to, cause })]
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
    let is_calm = !was_in_vain
        && !is_high
        && policy.is_short(snapshot.oldest_of_all.max(snapshot.oldest_wait));
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
    }
}
