//! How an execution ends: one function, called by everything that ends one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::events::{Event, Events, Seconds, Text};
use crate::metrics::Close;
use crate::pool::{ExecutionNumber, PoolId, UpstreamNumber};
use crate::protocol::message::{Report, Severity, SqlState};
use crate::protocol::startup::ExecutionId;
use crate::server::Backend;
use crate::session::{Ending, Grace};
use crate::story::What;

use super::telling::few;
use super::{Executions, Reason, ReasonText, Registered, Remains, Summary};

/// When backends are ended by force that have not gone by themselves: one that is blocked in
/// sending to its client looks at no cancel request.
const FORCE_AFTER: Duration = Duration::from_secs(1);

/// How long connections are waited for, beyond the grace. With the farewells it is less than the
/// 5 s after which whoever asked for the end is answered.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long sessions may take to tell their clients, once their connections are gone.
const FAREWELL: Duration = Duration::from_millis(500);

/// An execution that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What is kept of it.
    pub summary: Summary,
    /// The backends that were still there when it was no longer waited for.
    pub remaining: Vec<i32>,
    /// What was still registered, the oldest first.
    pub resources: Vec<Registered>,
}

impl Ended {
    /// Whether nothing of it is left at the database.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.remaining.is_empty()
    }
}

/// What a session is told whose execution ends.
pub(super) fn ending(id: &ExecutionId, reason: Reason, grace: Grace) -> Ending {
    let report = Report::new(
        Severity::Fatal,
        SqlState::ADMIN_SHUTDOWN,
        format!("execpool: execution {id} has ended: {reason}"),
    )
    .with_hint("Its connections are closed. Connect with another execution id.");
    Ending {
        report,
        grace,
        cause: Close::Execution,
    }
}

impl Executions {
    /// Carries out an end that the registry has begun: refuses who waits, cancels what runs (after
    /// the grace), closes every server connection, waits until their servers have closed them,
    /// and keeps the summary.
    pub(super) fn tear_down(
        self: &Arc<Self>,
        number: ExecutionNumber,
        reason: Reason,
        grace: Duration,
    ) {
        let (pools, peak, grace) = self.shut(number, reason, grace);
        let executions = Arc::clone(self);
        self.runtime.spawn(async move {
            let begun = Instant::now();
            executions.wait_for_end(number, &pools, &grace).await;
            executions.wait_for_farewells(number).await;
            let remaining: Vec<(UpstreamNumber, Backend)> = pools
                .iter()
                .flat_map(|pool| {
                    let backends = executions.lender.backends(*pool).into_iter();
                    backends.map(|backend| (pool.upstream, backend))
                })
                .collect();
            executions.concluded(number, remaining, peak, begun);
        });
    }

    /// Lets nobody in any more and tells all sessions. Answers the pools, their peak, and
    /// the grace that was given.
    fn shut(
        self: &Arc<Self>,
        number: ExecutionNumber,
        reason: Reason,
        grace: Duration,
    ) -> (Vec<PoolId>, usize, Grace) {
        let (pools, sessions, id, grace) = {
            let mut inner = self.inner.lock();
            let id = inner.registry.get(number).map(|run| run.id.clone());
            let room = inner.room(number);
            let pools: Vec<PoolId> = room.pools.iter().copied().collect();
            let sessions: Vec<_> = room.sessions.values().cloned().collect();
            (pools, sessions, id, room.grace.give(grace))
        };
        let peak = pools.iter().map(|pool| self.lender.peak(*pool)).sum();
        // First the sessions, so that who waits is told why, and then refused.
        for session in sessions {
            let id = id.as_ref().unwrap_or(&session.identity().execution);
            session.end(ending(id, reason, grace.clone()));
        }
        for pool in &pools {
            self.lender.shut(*pool);
        }
        (pools, peak, grace)
    }

    /// Waits, with a bound, until no pool has a connection; uses force on the way.
    async fn wait_for_end(&self, number: ExecutionNumber, pools: &[PoolId], grace: &Grace) {
        let all = async {
            for pool in pools {
                self.lender.emptied(*pool).await;
            }
        };
        let mut all = std::pin::pin!(all);
        let force = async {
            grace.over().await;
            tokio::time::sleep(FORCE_AFTER).await;
        };
        tokio::select! {
            () = &mut all => return,
            () = force => {}
        }
        for pool in pools {
            let backends = self.lender.backends(*pool);
            if !backends.is_empty() {
                let forced = What::Forced {
                    backends: few(backends.len()),
                };
                self.inner.lock().tell(number, forced, Instant::now());
                // Whether it could be asked shows by what remains.
                drop((self.terminate)(pool.upstream, backends, Duration::ZERO));
            }
        }
        let _ = tokio::time::timeout(PATIENCE - FORCE_AFTER, all).await;
    }

    /// Waits, with a bound, until all sessions have left.
    async fn wait_for_farewells(&self, number: ExecutionNumber) {
        let wait = async {
            loop {
                let left = {
                    let inner = self.inner.lock();
                    match inner.rooms.get(&number) {
                        Some(room) if !room.sessions.is_empty() => {
                            Arc::clone(&room.left).notified_owned()
                        }
                        _ => return,
                    }
                };
                left.await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, wait).await;
    }

    /// Keeps the summary and tells it to whom it may concern.
    fn concluded(
        &self,
        number: ExecutionNumber,
        remaining: Vec<(UpstreamNumber, Backend)>,
        peak: usize,
        begun: Instant,
    ) {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let room = inner.rooms.remove(&number).unwrap_or_default();
        let remains = Remains {
            totals: room.totals(now),
            peak,
            leftovers: remaining.len(),
            resources: inner.resources.counts_of(number),
            is_troubled: room.recorder.is_troubled(),
        };
        let resources = inner.resources.take(number, now);
        let Some(summary) = inner.registry.closed(number, remains, now) else {
            return;
        };
        inner.conclude(&room.recorder, &summary, now);
        inner.leave_behind(&summary.id, &remaining);
        drop(inner);
        let remaining = remaining
            .into_iter()
            .map(|(_, backend)| backend.pid)
            .collect();
        let ended = Ended {
            summary,
            remaining,
            resources,
        };
        if let Some(traces) = self.traces() {
            room.traced.end(traces, &ended.summary);
        }
        self.tell_ended(&ended, now.saturating_duration_since(begun));
        if let Some(event) = log_resources(&ended) {
            self.events().tell(event);
        }
        room.ended.send_replace(Some(Arc::new(ended)));
    }
}

impl Executions {
    /// Tells the log and who follows the events. One that ends with its only session is no event:
    /// there may be thousands a second.
    fn tell_ended(&self, ended: &Ended, took: Duration) {
        let event = event(&ended.summary, took);
        log(ended, event.name(), took, self.events());
        if ended.summary.reason != Reason::SessionEnded {
            self.events().tell(event);
        }
    }
}

fn event(summary: &Summary, took: Duration) -> Event {
    let remains = &summary.remains;
    Event::ExecutionEnded {
        execution_id: Text::name(summary.id.as_str()),
        generation: summary.generation,
        reason: Text::name(summary.reason.as_str()),
        reason_text: summary
            .text
            .as_ref()
            .map(|text| Text::sentence(text.as_str())),
        duration_seconds: Seconds(summary.ended.saturating_duration_since(summary.started)),
        teardown_seconds: Seconds(took),
        sessions: summary.sessions,
        queries: remains.totals.queries,
        held_seconds: Seconds(remains.totals.held.total()),
        active_seconds: Seconds(remains.totals.held.active),
        peak_connections: remains.peak as u64,
        leftovers: remains.leftovers as u64,
    }
}

fn log(ended: &Ended, event: &'static str, took: Duration, events: &Events) {
    let summary = &ended.summary;
    let remains = &summary.remains;
    let duration = summary.ended.saturating_duration_since(summary.started);
    // The level is a part of the line's place in the code.
    macro_rules! tell {
        ($level:ident, $pids:expr, $unsaid:expr, $message:literal) => {
            tracing::$level!(
                event,
                execution_id = %summary.id,
                generation = summary.generation,
                reason = summary.reason.as_str(),
                reason_text = summary.text.as_ref().map(ReasonText::as_str),
                duration_seconds = duration.as_secs_f64(),
                teardown_seconds = took.as_secs_f64(),
                sessions = summary.sessions,
                queries = remains.totals.queries,
                held_seconds = remains.totals.held.total().as_secs_f64(),
                active_seconds = remains.totals.held.active.as_secs_f64(),
                peak_connections = remains.peak,
                leftovers = remains.leftovers,
                remaining_pids = $pids,
                unsaid = $unsaid,
                $message
            )
        };
    }
    if ended.is_complete() {
        if let Some(unsaid) = events.line(event, None) {
            tell!(info, None::<&str>, unsaid, "execution ended");
        }
    } else {
        let pids = format!("{:?}", ended.remaining);
        tell!(
            warn,
            pids,
            None::<u64>,
            "execution ended, but backends of it are still there; the maintenance pass ends them"
        );
    }
}

/// How many resources are named that were left.
const NAMED: usize = 20;

/// Says what the app has left registered. Answers it as an event.
fn log_resources(ended: &Ended) -> Option<Event> {
    if ended.resources.is_empty() {
        return None;
    }
    let named = ended.resources.iter().take(NAMED);
    let names = named.map(|one| format!("{} {}", one.kind.as_str(), one.name));
    let names = names.collect::<Vec<_>>().join(", ");
    let event = Event::ExecutionResourcesLeft {
        execution_id: Text::name(ended.summary.id.as_str()),
        generation: ended.summary.generation,
        count: ended.resources.len() as u64,
        resources: Text::sentence(&names),
    };
    tracing::warn!(
        event = event.name(),
        execution_id = %ended.summary.id,
        generation = ended.summary.generation,
        count = ended.resources.len(),
        resources = names,
        "execution ended with resources that were not released: the app is to close them"
    );
    Some(event)
}
