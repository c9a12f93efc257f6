//! Sessions that hold a server connection and ask nothing of it: whoever opened them may have
//! forgotten them.
//!
//! A session that works is never suspected, however long its query takes. The sweep of the
//! [`Table`](super::Table) finds them, so that no message costs a timer.

use std::time::{Duration, Instant};

use crate::events::{Event, Seconds, Text, Unsaid};
use crate::protocol::statement::shown;

use super::{Identity, SessionId, Snapshot, State};

/// How much of a statement is logged, in characters.
const QUOTED: usize = 200;

/// What happens to suspicions: a closed set, fit for counting by. Each that begins comes to one of the
/// other ends, or still lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leak {
    /// A session has asked nothing for too long.
    Suspect,
    /// It has asked something after all.
    Recovered,
    /// A cleanup has ended it.
    Reclaimed,
    /// It has ended otherwise, and was suspected to its end.
    Ended,
}

impl Leak {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 4] = [Self::Suspect, Self::Recovered, Self::Reclaimed, Self::Ended];

    /// The word for it in answers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspect => "suspect",
            Self::Recovered => "recovered",
            Self::Reclaimed => "reclaimed",
            Self::Ended => "ended",
        }
    }
}

/// Whether a session is thought to be forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// It is not. Left by the sweep.
    #[default]
    None,
    /// It is. Left by its next query, by a cleanup, or with its server connection.
    Suspected,
    /// It is, and a cleanup ends it. Left with its server connection.
    Reclaimed,
}

impl Suspicion {
    /// Whether there is one.
    #[inline]
    pub(super) fn is_some(self) -> bool {
        self != Self::None
    }

    /// Its session stands elsewhere now. Answers what that makes of the suspicion.
    #[cold]
    pub(super) fn moved(&mut self, to: State) -> Option<Leak> {
        let leak = match (*self, to) {
            (Self::Suspected, State::Active) => Leak::Recovered,
            (Self::Suspected, _) if !to.is_bound() => Leak::Ended,
            (Self::Reclaimed, _) if !to.is_bound() => Leak::Reclaimed,
            _ => return None,
        };
        *self = Self::None;
        Some(leak)
    }
}

/// Logs that a session has come under suspicion, if `line` lets, and how many others were left out.
/// Answers it as an event.
pub(super) fn log_suspect(suspect: &Snapshot, line: Option<Unsaid>) -> Event {
    let identity = &suspect.identity;
    let statement = &suspect.statement;
    let statement = (!statement.is_empty()).then(|| shown(statement, QUOTED));
    let event = Event::SessionLeakSuspect {
        session_id: suspect.id.0,
        execution_id: Text::name(identity.execution.as_str()),
        upstream: Text::word(&identity.upstream),
        state: Text::word(suspect.state.as_str()),
        idle_for_seconds: Seconds(suspect.idle_for.unwrap_or_default()),
        bound_for_seconds: Seconds(suspect.bound_age.unwrap_or_default()),
        server_pid: suspect.server_pid,
        peer: Text::word(&identity.peer.to_string()),
        caller: identity.caller.as_deref().map(Text::name),
        label: identity.label.as_deref().map(Text::word),
        application_name: identity.application_name.as_deref().map(Text::word),
        statement: statement.as_deref().map(Text::name),
        unsaid: 0,
    };
    if let Some(unsaid) = line {
        tracing::warn!(
            event = event.name(),
            session_id = suspect.id.0,
            execution_id = %identity.execution,
            trace_id = identity.trace_id(),
            upstream = &*identity.upstream,
            state = suspect.state.as_str(),
            idle_for_seconds = suspect.idle_for.map(|time| time.as_secs_f64()),
            bound_for_seconds = suspect.bound_age.map(|time| time.as_secs_f64()),
            server_pid = suspect.server_pid,
            peer = %identity.peer,
            caller = identity.caller.as_deref(),
            label = identity.label.as_deref(),
            application_name = identity.application_name.as_deref(),
            statement,
            unsaid,
            "a session holds a server connection and asks nothing: has it been forgotten?"
        );
    }
    event
}

/// Logs that a suspect has asked something after all, if `line` lets. Answers it as an event.
#[cold]
pub(super) fn log_recovered(
    id: SessionId,
    identity: &Identity,
    idle: Duration,
    line: Option<Unsaid>,
) -> Event {
    let event = Event::SessionLeakRecovered {
        session_id: id.0,
        execution_id: Text::name(identity.execution.as_str()),
        idle_for_seconds: Seconds(idle),
        unsaid: 0,
    };
    if let Some(unsaid) = line {
        tracing::info!(
            event = event.name(),
            session_id = id.0,
            execution_id = %identity.execution,
            trace_id = identity.trace_id(),
            upstream = &*identity.upstream,
            idle_for_seconds = idle.as_secs_f64(),
            unsaid,
            "a session that seemed forgotten is used again"
        );
    }
    event
}

/// How long a session that stands like this has asked nothing while it held a server connection;
/// none if it holds none, or if that works.
pub(super) fn idle_for(state: State, since: Instant, now: Instant) -> Option<Duration> {
    let idles = matches!(state, State::InTransaction | State::Idle);
    idles.then(|| now.saturating_duration_since(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaks_are_counted_in_the_order_in_which_they_are_listed() {
        for (place, leak) in Leak::ALL.into_iter().enumerate() {
            assert_eq!(leak as usize, place);
        }
    }

    #[test]
    fn a_suspicion_ends_by_a_query_or_with_the_server_connection() {
        for (from, to, leak) in [
            (Suspicion::None, State::Active, None),
            (Suspicion::None, State::Closing, None),
            (Suspicion::Suspected, State::Active, Some(Leak::Recovered)),
            (Suspicion::Suspected, State::Closing, Some(Leak::Ended)),
            (Suspicion::Suspected, State::Unbound, Some(Leak::Ended)),
            (Suspicion::Suspected, State::Idle, None),
            // It queries while it is told to end: it is ended all the same.
            (Suspicion::Reclaimed, State::Active, None),
            (Suspicion::Reclaimed, State::Closing, Some(Leak::Reclaimed)),
        ] {
            let mut suspicion = from;
            assert_eq!(suspicion.moved(to), leak, "{from:?} to {to:?}");
            assert_eq!(suspicion.is_some(), from.is_some() && leak.is_none());
        }
    }

    #[test]
    fn who_works_or_holds_nothing_is_not_idle() {
        let since = Instant::now();
        let now = since + Duration::from_secs(7);
        for state in State::ALL {
            let idle = idle_for(state, since, now);
            let idles = matches!(state, State::Idle | State::InTransaction);
            assert_eq!(idle.is_some(), idles, "{state:?}");
        }
    }
}
