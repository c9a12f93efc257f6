//! How everything is, into the log, every few minutes.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::budget::{Budget, Exhaustion};
use crate::config::Running;
use crate::execution::{Counts, Ever, Executions, Remote, ResourceCounts, ResourceKind};
use crate::metrics::{cpu_seconds, resident_bytes};
use crate::pool::Queue;
use crate::session::{Counts as SessionCounts, Oldest, Snapshot, State};

/// Logs the status every `telemetry.status_log`, until the data plane ends.
pub(super) async fn run(
    remote: Remote,
    mut running: watch::Receiver<Arc<Running>>,
    exhaustion: watch::Receiver<Exhaustion>,
    started: Instant,
) {
    let mut last = Mark::at_start();
    while is_due(&mut running, last.at).await {
        let Ok(look) = remote.ask(|executions| Look::at(executions)).await else {
            return;
        };
        let now = Mark::of(&look);
        tell(&look, &last.until(&now), *exhaustion.borrow(), started);
        last = now;
    }
}

/// Waits until the next line is due after one at `last`, by the interval of that moment; false once
/// nobody configures any more. Cancel safe.
async fn is_due(running: &mut watch::Receiver<Arc<Running>>, last: Instant) -> bool {
    loop {
        let now = Arc::clone(&running.borrow_and_update());
        let interval = now.loaded.config.telemetry.status_log;
        let due = async {
            match interval.and_then(|interval| last.checked_add(interval)) {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => return true,
            changed = running.changed() => if changed.is_err() {
                return false;
            },
        }
    }
}

/// What the data plane tells, in one turn.
struct Look {
    budget: Budget,
    queue: Queue,
    executions: Counts,
    sessions: SessionCounts,
    holder: Option<Snapshot>,
    resources: ResourceCounts,
    expired: u64,
    oldest: [Option<Oldest>; State::ALL.len()],
}

impl Look {
    fn at(executions: &Executions) -> Self {
        let now = Instant::now();
        let (budget, queue) = executions.lender().budget();
        let (resources, expired) = executions.resources();
        let holders = executions.sessions().holders(None, 1, now);
        Self {
            budget,
            queue,
            executions: executions.counts(),
            sessions: executions.sessions().counts(),
            holder: holders.into_iter().next(),
            resources,
            expired,
            oldest: executions.sessions().oldest(now),
        }
    }

    /// For how long the oldest one has stood in a state.
    fn oldest(&self, state: State) -> Option<f64> {
        let oldest = self.oldest[state as usize].as_ref();
        oldest.map(|oldest| oldest.state_age.as_secs_f64())
    }
}

/// What has been counted up to a moment.
struct Mark {
    at: Instant,
    ever: Ever,
    /// Processor time of the process, in seconds.
    cpu: Option<f64>,
}

/// What has come between two of them, per minute.
struct PerMinute {
    ever: [f64; 4],
    /// Processor time per time: 1 is one core.
    cpu: Option<f64>,
}

impl Mark {
    /// Nothing yet; what the start has cost is no part of the first line.
    fn at_start() -> Self {
        Self {
            at: Instant::now(),
            ever: Ever::default(),
            cpu: cpu_seconds().map(|[user, system]| user + system),
        }
    }

    fn of(look: &Look) -> Self {
        let ever = Ever {
            sessions_opened: look.sessions.opened,
            sessions_closed: look.sessions.closed(),
            executions_begun: look.executions.begun(),
            executions_ended: look.executions.over(),
        };
        Self {
            at: Instant::now(),
            ever,
            cpu: cpu_seconds().map(|[user, system]| user + system),
        }
    }

    fn until(&self, now: &Self) -> PerMinute {
        let passed = now.at.saturating_duration_since(self.at).as_secs_f64();
        let passed = passed.max(f64::EPSILON);
        let rate = |of: fn(&Ever) -> u64| {
            let more = of(&now.ever).saturating_sub(of(&self.ever));
            more as f64 * 60.0 / passed
        };
        let cpu = now.cpu.zip(self.cpu);
        PerMinute {
            ever: [
                rate(|ever| ever.executions_begun),
                rate(|ever| ever.executions_ended),
                rate(|ever| ever.sessions_opened),
                rate(|ever| ever.sessions_closed),
            ],
            cpu: cpu.map(|(now, then)| (now - then).max(0.0) / passed),
        }
    }
}

/// A number that is read by people: to the hundredth.
fn short(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// The line.
fn tell(look: &Look, rates: &PerMinute, exhaustion: Exhaustion, started: Instant) {
    let [begun, ended, opened, closed] = rates.ever.map(short);
    let (budget, sessions) = (&look.budget, &look.sessions);
    let oldest = |state| look.oldest(state).map(short);
    let held = look.holder.as_ref().and_then(|holder| holder.bound_age);
    let resources = |kind| look.resources.of(kind);
    tracing::info!(
        event = "status",
        exhaustion = exhaustion.state.as_str(),
        exhaustion_cause = exhaustion.cause.map(|cause| cause.as_str()),
        exhaustion_age_seconds = short(exhaustion.since.elapsed().as_secs_f64()),
        budget_used = sessions.bound(),
        budget_open = budget.open(),
        budget_effective = budget.effective(),
        budget_limit = budget.limit(),
        budget_waiting = look.queue.waiting,
        oldest_wait_seconds = short(look.queue.oldest.as_secs_f64()),
        executions_active = look.executions.active,
        executions_begun_per_minute = begun,
        executions_ended_per_minute = ended,
        sessions = sessions.by_state.iter().sum::<usize>(),
        sessions_holding = sessions.bound(),
        sessions_active = sessions.of(State::Active),
        sessions_idle_in_transaction = sessions.of(State::InTransaction),
        sessions_idle = sessions.of(State::Idle),
        sessions_waiting = sessions.of(State::Waiting),
        sessions_opened_per_minute = opened,
        sessions_closed_per_minute = closed,
        leak_suspects = sessions.suspects(),
        oldest_active_seconds = oldest(State::Active),
        oldest_idle_in_transaction_seconds = oldest(State::InTransaction),
        oldest_idle_seconds = oldest(State::Idle),
        oldest_waiting_seconds = oldest(State::Waiting),
        oldest_held_seconds = held.map(|held| short(held.as_secs_f64())),
        oldest_holder = look
            .holder
            .as_ref()
            .map(|it| it.identity.execution.as_str()),
        resources = look.resources.total(),
        resources_connection = resources(ResourceKind::Connection),
        resources_browser = resources(ResourceKind::Browser),
        resources_http = resources(ResourceKind::Http),
        resources_file = resources(ResourceKind::File),
        resources_other = resources(ResourceKind::Other),
        resources_expired = look.expired,
        resident_bytes = resident_bytes(),
        cpu_cores = rates.cpu.map(|cores| (cores * 10_000.0).round() / 10_000.0),
        uptime_seconds = started.elapsed().as_secs(),
        "status"
    );
}
