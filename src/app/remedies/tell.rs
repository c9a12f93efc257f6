//! What is said of exhaustion and of what is done about it: a line of the log and an event each.

use crate::budget::State;
use crate::events::{Event, Events, Seconds, Text};
use crate::execution::tidying::{Cleaned, Closed};
use crate::reactor::{Change, Guard, Notice, Report, Rung, Snapshot};

/// How many sessions are named at most.
const NAMED: usize = 20;

/// The log line and the event of a change.
pub(super) fn change(change: &Change, snapshot: &Snapshot, events: &Events) {
    let holder = snapshot.holder.as_ref();
    let event = Event::ExhaustionChanged {
        from: Text::name(change.from.as_str()),
        state: Text::name(change.to.as_str()),
        cause: Text::name(change.cause.as_str()),
        used: snapshot.used as u64,
        limit: snapshot.limit as u64,
        waiting: snapshot.waiting as u64,
        oldest_wait_seconds: Seconds(snapshot.oldest_wait),
        holder: holder.map(|holder| Text::name(&holder.execution)),
        holder_caller: holder
            .and_then(|holder| holder.caller.as_deref())
            .map(Text::sentence),
        held_seconds: holder.map(|holder| Seconds(holder.held)),
    };
    // Once for each level, as that is no value but part of what a line is made of.
    macro_rules! log {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                event = event.name(),
                from = change.from.as_str(),
                state = change.to.as_str(),
                cause = change.cause.as_str(),
                used = snapshot.used,
                limit = snapshot.limit,
                waiting = snapshot.waiting,
                oldest_wait_seconds = snapshot.oldest_wait.as_secs_f64(),
                holder = holder.map(|holder| holder.execution.as_str()),
                holder_caller = holder.and_then(|holder| holder.caller.as_deref()),
                held_seconds = holder.map(|holder| holder.held.as_secs_f64()),
                $message
            )
        };
    }
    match (change.to, change.to < change.from) {
        (State::Sustained, _) => {
            log!(
                error,
                "server connections have run out, and it does not pass"
            )
        }
        (State::Exhausted, _) => log!(
            warn,
            "server connections have run out: who needs one waits long, or in vain"
        ),
        (State::Warning, false) => log!(warn, "server connections run short"),
        (State::Warning, true) => log!(
            info,
            "nobody waits for a server connection any more, but they are short"
        ),
        (State::Healthy, _) => log!(info, "there are server connections again"),
    }
    events.tell(event);
}

/// What a cleanup of the reactor's has closed, or would.
pub(super) fn cleaned(cleaned: &Cleaned, dry_run: bool, events: &Events) {
    let what = closed(cleaned);
    let event = Event::ReactorCleanup {
        dry_run,
        closed: cleaned.closed.len() as u64,
        what: Text::sentence(&what),
        waiting: cleaned.waiting as u64,
        spared: cleaned.spared as u64,
    };
    macro_rules! log {
        ($message:literal) => {
            tracing::warn!(
                event = event.name(),
                dry_run,
                closed = cleaned.closed.len(),
                what,
                waiting = cleaned.waiting,
                spared = cleaned.spared,
                $message
            )
        };
    }
    match (dry_run, cleaned.closed.is_empty()) {
        (true, false) => log!(
            "emergency cleanup: would end sessions to make room, were it not for reactor.dry_run"
        ),
        (false, false) => log!("emergency cleanup: sessions were ended to make room"),
        (_, true) => log!("emergency cleanup: there is nothing that may be ended"),
    }
    events.tell(event);
}

/// `sessions 3, 7; leftovers of run-1`: each is named, up to a bound.
pub(super) fn closed(cleaned: &Cleaned) -> String {
    let (mut sessions, mut leftovers) = (Vec::new(), Vec::new());
    for closed in &cleaned.closed {
        match closed {
            Closed::Session(session, why) => {
                sessions.push(format!("{} ({})", session.id, why.as_str()));
            }
            Closed::Leftover(leftover) => leftovers.push(leftover.execution.to_string()),
        }
    }
    let parts = [("sessions", sessions), ("leftovers of", leftovers)];
    let parts = parts.into_iter().filter(|(_, all)| !all.is_empty());
    let parts: Vec<String> = parts.map(|(what, all)| listed(what, &all)).collect();
    match parts.is_empty() {
        true => "nothing".to_owned(),
        false => parts.join("; "),
    }
}

fn listed(what: &str, all: &[String]) -> String {
    let named = &all[..all.len().min(NAMED)];
    let more = match all.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{what} {}{more}", named.join(", "))
}

/// A restart that is carried out, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Restarting {
    /// How.
    pub(super) mode: &'static str,
    /// Whether it is only told.
    pub(super) dry_run: bool,
    /// What is done, or would be, as a sentence.
    pub(super) what: String,
    /// How many sessions are open.
    pub(super) sessions: usize,
    /// How many restarts there were within the hour, with this one.
    pub(super) in_last_hour: u32,
}

/// A restart.
pub(super) fn restart(restart: &Restarting, snapshot: &Snapshot, events: &Events) {
    let holder = snapshot.holder.as_ref();
    let caller = holder.and_then(|holder| holder.caller.as_deref());
    let event = Event::ReactorRestart {
        dry_run: restart.dry_run,
        mode: Text::name(restart.mode),
        what: Text::sentence(&restart.what),
        sessions: restart.sessions as u64,
        used: snapshot.used as u64,
        limit: snapshot.limit as u64,
        waiting: snapshot.waiting as u64,
        holder: holder.map(|holder| Text::name(&holder.execution)),
        holder_caller: caller.map(Text::name),
        restarts_last_hour: u64::from(restart.in_last_hour),
    };
    macro_rules! log {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                event = event.name(),
                dry_run = restart.dry_run,
                mode = restart.mode,
                what = restart.what,
                sessions = restart.sessions,
                used = snapshot.used,
                limit = snapshot.limit,
                waiting = snapshot.waiting,
                holder = holder.map(|holder| holder.execution.as_str()),
                holder_caller = caller,
                restarts_last_hour = restart.in_last_hour,
                $message
            )
        };
    }
    match restart.dry_run {
        true => log!(
            warn,
            "would have it restarted, were it not for reactor.dry_run"
        ),
        false => log!(error, "nothing else has helped: it is restarted"),
    }
    events.tell(event);
}

/// What came of a restart: a word for it, how long it took, and why it failed.
pub(super) fn restart_over(
    mode: &'static str,
    outcome: &'static str,
    after: std::time::Duration,
    why: Option<&str>,
    events: &Events,
) {
    let event = Event::ReactorRestartOver {
        mode: Text::name(mode),
        outcome: Text::name(outcome),
        after_seconds: Seconds(after),
        why: why.map(Text::sentence),
    };
    macro_rules! log {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                event = event.name(),
                mode,
                outcome,
                after_seconds = after.as_secs_f64(),
                why,
                $message
            )
        };
    }
    match outcome {
        "gone" => log!(
            info,
            "the sessions for which the app was to be restarted are gone"
        ),
        "came_back" => log!(
            info,
            "the app was restarted; sessions that were open at the decision are somebody else's"
        ),
        "recovered" => log!(
            info,
            "connections are free again: the app need not be restarted any more"
        ),
        "withdrawn" => log!(info, "the app is not to be restarted any more"),
        "in_vain" => log!(
            error,
            "nobody has restarted the app: let its liveness probe ask /livez/app, and give up in less than 120 s"
        ),
        _ => log!(error, "it could not be restarted"),
    }
    events.tell(event);
}

/// Something that is due and must not be.
pub(super) fn refused(rung: Rung, guard: &Guard, why: &str, events: &Events) {
    let action = rung.as_str();
    let event = Event::ReactorRefused {
        action: Text::name(action),
        guard: Text::name(guard.as_str()),
        why: Text::sentence(why),
    };
    tracing::warn!(
        event = event.name(),
        action,
        guard = guard.as_str(),
        why,
        "connections are exhausted, and this is not done about it"
    );
    events.tell(event);
}

/// What would be written to the pod.
pub(super) fn would_publish(report: &Report, with_condition: bool) {
    let annotations = report.annotations().into_iter();
    let annotations: Vec<String> = annotations
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let condition = report.condition();
    let condition = with_condition.then(|| {
        let status = if condition.status { "True" } else { "False" };
        format!(
            "execpool.dev/PoolAvailable={status}, {}: {}",
            condition.reason, condition.message
        )
    });
    tracing::info!(
        event = "kubernetes.dry_run",
        annotations = annotations.join(", "),
        condition,
        "would write this to the pod, were it not for reactor.dry_run"
    );
}

/// Which Event would be posted.
pub(super) fn would_announce(notice: &Notice) {
    tracing::info!(
        event = "kubernetes.dry_run",
        reason = notice.reason.as_str(),
        note = notice.words,
        "would post this Event, were it not for reactor.dry_run"
    );
}
