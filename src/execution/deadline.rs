//! What time alone does to executions: their ends, on time, and the warning before a deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::events::{Event, Seconds, Text};
use crate::pool::ExecutionNumber;
use crate::protocol::message::{Report, Severity, SqlState, seconds};
use crate::protocol::startup::ExecutionId;
use crate::session::Session;
use crate::story::{Span, What};

use super::executions::Inner;
use super::telling::{few, heartbeat};
use super::{Executions, View};

impl Executions {
    /// Ends whatever time alone ends by now, warns whose deadline is near, and forgets resources whose
    /// time is over. Answers when it should
    /// be asked again at the latest; that it is to be asked earlier is told by
    /// [`Executions::sooner`].
    pub fn end_due(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        self.expire_resources(now);
        let (near, due) = {
            let mut inner = self.inner.lock();
            (inner.registry.nearing(now), inner.registry.due(now))
        };
        for number in near {
            self.warn(number, now);
        }
        for (number, reason) in due {
            self.end_number(number, reason, None, None);
        }
        let mut inner = self.inner.lock();
        inner.looks_at = inner.next_turn();
        inner.looks_at
    }

    /// Waits until time has something to do earlier than [`Executions::end_due`] has answered. For
    /// one who waits, and cancel safe.
    pub async fn sooner(&self) {
        self.sooner.notified().await;
    }

    /// Moves the deadline of an active execution: to `extend` from now, or by its original length.
    /// One without a deadline keeps none. Answers it as it is then; none if it is not active.
    pub fn heartbeat(&self, id: &ExecutionId, extend: Option<Duration>) -> Option<View> {
        let number = {
            let mut inner = self.inner.lock();
            let number = inner.registry.find(id)?;
            let now = Instant::now();
            inner.registry.heartbeat(number, extend, now);
            inner.tell(number, heartbeat(), now);
            self.rescheduled(&mut inner);
            number
        };
        self.view_number(number)
    }

    /// The schedule has changed: wakes who keeps the time, where that looks too late.
    pub(super) fn rescheduled(&self, inner: &mut Inner) {
        let next = inner.next_turn();
        let looks_at = inner.looks_at;
        if next.is_some_and(|next| looks_at.is_none_or(|at| next < at)) {
            inner.looks_at = next;
            self.sooner.notify_one();
        }
    }

    /// Tells the sessions of an execution, and the log, that its deadline is near.
    fn warn(&self, number: ExecutionNumber, now: Instant) {
        let inner = self.inner.lock();
        let Some(run) = inner.registry.get(number) else {
            return;
        };
        let (id, generation) = (run.id.clone(), run.generation);
        let left = run.deadline.map(|at| at.saturating_duration_since(now));
        let left = left.unwrap_or_default();
        let room = inner.rooms.get(&number);
        let sessions: Vec<Arc<Session>> =
            room.map_or_else(Vec::new, |room| room.sessions.values().cloned().collect());
        let near = What::DeadlineNear {
            left: Span::of(left),
            sessions: few(sessions.len()),
        };
        inner.tell(number, near, now);
        drop(inner);
        let report = warning(&id, left);
        let event = Event::ExecutionDeadlineNear {
            execution_id: Text::name(id.as_str()),
            generation,
            deadline_seconds: Seconds(left),
            sessions: sessions.len() as u64,
        };
        tracing::warn!(
            event = event.name(),
            execution_id = %id,
            generation,
            deadline_seconds = left.as_secs_f64(),
            sessions = sessions.len(),
            "{}", report.message
        );
        self.events().tell(event);
        for session in sessions {
            session.notice(report.clone());
        }
    }
}

/// What a session is told whose execution's deadline is near: with the code of the end that comes.
fn warning(id: &ExecutionId, left: Duration) -> Report {
    let left = seconds(left);
    Report::new(
        Severity::Notice,
        SqlState::ADMIN_SHUTDOWN,
        format!("execpool: execution {id} reaches its deadline in {left}"),
    )
    .with_detail("Its statements are cancelled then, and its sessions are ended.")
    .with_hint(format!(
        "POST /v1/executions/{id}/heartbeat moves the deadline; execution.max_duration is the default."
    ))
}
