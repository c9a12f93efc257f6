//! The span of an execution: from its beginning to when nothing of it is left.

use std::time::{Instant, SystemTime};

use crate::pool::ExecutionNumber;
use crate::session::Session;
use crate::telemetry::{Parent, Span, Traces};

use super::executions::Inner;
use super::{Kind, Reason, Summary};

/// What its span is called.
const NAME: &str = "execpool.execution";

/// An execution's span, which begins with its first session: that says which trace it belongs to.
#[derive(Debug, Default)]
pub(super) struct Traced(Option<Begun>);

#[derive(Debug)]
struct Begun {
    span: Span,
    /// When the execution began.
    at: SystemTime,
}

impl Inner {
    /// The span of a generation that this session has joined; none of `shared`, which never ends, and
    /// of one that is over.
    pub(super) fn trace(
        &mut self,
        traces: &Traces,
        number: ExecutionNumber,
        session: &Session,
    ) -> Option<Parent> {
        let run = self.registry.get(number)?;
        if run.kind == Kind::Shared {
            return None;
        }
        let started = run.started;
        let Traced(traced) = &mut self.rooms.get_mut(&number)?.traced;
        let begun = traced.get_or_insert_with(|| {
            let at = wall(started);
            let parent = session.identity().trace().map(Parent::from);
            let span = traces.begin(NAME, parent.as_ref(), at);
            Begun { span, at }
        });
        Some(begun.span.as_parent())
    }
}

impl Traced {
    /// Ends it. An execution that had no session is the first of a trace.
    pub(super) fn end(self, traces: &Traces, summary: &Summary) {
        let begun = match self.0 {
            Some(begun) => begun,
            None if summary.id.is_shared() => return,
            None => {
                let at = wall(summary.started);
                let span = traces.begin(NAME, None, at);
                Begun { span, at }
            }
        };
        let Begun { mut span, at } = begun;
        if span.is_recorded() {
            describe(&mut span, summary);
        }
        let lasted = summary.ended.saturating_duration_since(summary.started);
        span.end(at + lasted);
    }
}

fn describe(span: &mut Span, summary: &Summary) {
    let (remains, reason) = (&summary.remains, summary.reason);
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let held = remains.totals.held;
    span.set_text("execpool.execution.id", summary.id.as_str());
    span.set("execpool.execution.generation", number(summary.generation));
    span.set("execpool.execution.reason", reason.as_str());
    span.set("execpool.execution.sessions", number(summary.sessions));
    span.set("execpool.execution.queries", number(remains.totals.queries));
    span.set("execpool.execution.held", held.total().as_secs_f64());
    span.set("execpool.execution.active", held.active.as_secs_f64());
    span.set(
        "execpool.execution.idle_in_transaction",
        held.in_transaction.as_secs_f64(),
    );
    span.set("execpool.execution.idle", held.idle.as_secs_f64());
    span.set(
        "execpool.execution.connections.peak",
        number(remains.peak as u64),
    );
    span.set(
        "execpool.execution.leftovers",
        number(remains.leftovers as u64),
    );
    // Nobody has asked for these.
    if let Reason::HoldLost | Reason::Deadline | Reason::Cleanup = reason {
        span.fail(reason.as_str(), reason.sentence().to_owned());
    }
}

/// When that was, by the clock on the wall.
fn wall(at: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(at.elapsed()).unwrap_or(now)
}
