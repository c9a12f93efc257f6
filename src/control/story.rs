//! The story of an execution, as it is told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use crate::events::time::instant;
use crate::story::{Entry, Span, Story, What, Who};

use super::types::{Seconds, StoryEvent};

/// The events of a story, in the order of their time; `now` is the same moment on both clocks.
pub(super) fn events(story: &Story, now: (Instant, SystemTime)) -> Vec<StoryEvent> {
    let mut known = BTreeSet::new();
    let told = story.told().into_iter();
    told.map(|(entry, lasts)| {
        let ago = story.ago(entry, now.0);
        let at = now.1.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut event = StoryEvent {
            at: instant(at),
            offset_seconds: Seconds(entry.offset()),
            session_id: entry.who.as_ref().map(|who| who.session),
            event: entry.what.name(),
            ongoing: lasts.then_some(true),
            ..StoryEvent::default()
        };
        // Who it is is told once.
        if let Some(who) = entry.who.as_deref().filter(|who| known.insert(who.session)) {
            introduce(&mut event, who);
        }
        fill(&mut event, entry);
        event
    })
    .collect()
}

fn introduce(event: &mut StoryEvent, who: &Who) {
    let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    event.peer_pid = who.peer_pid;
    event.caller = text(&who.caller);
    event.label = text(&who.label);
    event.application_name = text(&who.application_name);
}

fn seconds(time: Span) -> Option<Seconds> {
    Some(Seconds(time.duration()))
}

fn code(sqlstate: [u8; 5]) -> Option<String> {
    Some(sqlstate.iter().copied().map(char::from).collect())
}

/// What is told of this kind of entry alone.
fn fill(event: &mut StoryEvent, entry: &Entry) {
    match entry.what {
        What::Began { .. }
        | What::Adopted { .. }
        | What::Heartbeat { .. }
        | What::HoldOpened { .. }
        | What::HoldClosed { .. }
        | What::DeadlineNear { .. }
        | What::Ending { .. }
        | What::SessionsGone { .. }
        | What::Forced { .. }
        | What::Ended { .. }
        | What::ResourceRegistered { .. }
        | What::ResourceReleased { .. }
        | What::ResourceExpired { .. }
        | What::ResourcesLeft { .. } => of_the_whole(event, entry.what),
        _ => of_a_session(event, entry.what),
    }
}

fn of_the_whole(event: &mut StoryEvent, what: What) {
    match what {
        What::Began { kind, deadline } => {
            event.kind = Some(kind.as_str());
            event.deadline_seconds = deadline.and_then(seconds);
        }
        What::Adopted { deadline } => event.deadline_seconds = deadline.and_then(seconds),
        What::Heartbeat { count, last } | What::SessionsGone { count, last } => {
            event.count = Some(count);
            event.seconds = (last.duration() > Duration::ZERO).then_some(Seconds(last.duration()));
        }
        What::HoldOpened { holds } | What::HoldClosed { holds } => event.holds = Some(holds),
        What::DeadlineNear { left, sessions } => {
            event.deadline_seconds = seconds(left);
            event.count = Some(sessions);
        }
        What::Ending { reason } => event.reason = Some(reason.as_str()),
        What::Forced { backends } => event.count = Some(backends),
        What::Ended { reason, leftovers } => {
            event.reason = Some(reason.as_str());
            event.leftovers = Some(leftovers);
        }
        What::ResourceRegistered { kind, count } | What::ResourceExpired { kind, count } => {
            event.kind = Some(kind.as_str());
            event.count = Some(count);
        }
        What::ResourceReleased { count } | What::ResourcesLeft { count } => {
            event.count = Some(count);
        }
        _ => {}
    }
}

fn of_a_session(event: &mut StoryEvent, what: What) {
    match what {
        What::Waiting { limit } => event.limit = Some(limit.as_str()),
        What::Notice { limit, waited } => {
            event.limit = Some(limit.as_str());
            event.waited_seconds = seconds(waited);
        }
        What::Refused {
            limit,
            sqlstate,
            waited,
        } => {
            event.limit = Some(limit.as_str());
            event.sqlstate = code(sqlstate);
            event.waited_seconds = seconds(waited);
        }
        What::Failed { sqlstate, waited } => {
            event.sqlstate = code(sqlstate);
            event.waited_seconds = seconds(waited);
        }
        What::Ready { pid, waited } | What::Lent { pid, waited } => {
            event.server_pid = Some(pid);
            event.waited_seconds = seconds(waited);
        }
        What::Queries {
            count,
            span,
            active,
            class,
        } => {
            event.queries = Some(u64::from(count));
            event.seconds = seconds(span);
            event.active_seconds = seconds(active);
            let class = class.map(char::from);
            event.class = (class[0] != ' ').then(|| class.iter().collect());
        }
        What::Errors {
            sqlstate,
            phase,
            count,
        } => {
            event.sqlstate = code(sqlstate);
            event.phase = Some(phase.as_str());
            event.count = Some(count);
        }
        What::TransactionEnded { lasted } => event.seconds = seconds(lasted),
        What::Idle { time, .. } => event.seconds = seconds(time),
        What::Limit { limit, time } => {
            event.limit = Some(limit.as_str());
            event.seconds = seconds(time);
        }
        What::Suspect { idle } | What::Recovered { idle } => event.seconds = seconds(idle),
        What::Cancelled { origin } => event.origin = Some(origin.as_str()),
        What::Returned { how, held } => {
            event.how = Some(how.as_str());
            event.held_seconds = seconds(held);
        }
        What::Left { queries, held } => {
            event.queries = Some(u64::from(queries));
            event.held_seconds = seconds(held);
        }
        _ => {}
    }
}
