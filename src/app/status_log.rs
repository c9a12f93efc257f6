//! How everything is, into the log, every few minutes.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::config::Running;
use crate::execution::Remote;
use crate::metrics::resident_bytes;
use crate::session::State;

/// Logs the status every `telemetry.status_log`, until the data plane ends.
pub(super) async fn run(
    remote: Remote,
    mut running: watch::Receiver<Arc<Running>>,
    started: Instant,
) {
    let (mut opened_before, mut closed_before) = (0, 0);
    let mut last = Instant::now();
    loop {
        let interval = running
            .borrow_and_update()
            .loaded
            .config
            .telemetry
            .status_log;
        let due = async {
            match interval.and_then(|interval| last.checked_add(interval)) {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            changed = running.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        let asked = remote
            .ask(|executions| {
                let holders = executions.sessions().holders(None, 1, Instant::now());
                (
                    executions.lender().budget(),
                    executions.counts(),
                    executions.sessions().counts(),
                    holders.into_iter().next(),
                    executions.resources(),
                )
            })
            .await;
        let Ok(((budget, queue), executions, sessions, holder, (resources, expired))) = asked
        else {
            return;
        };
        let minutes = last.elapsed().as_secs_f64() / 60.0;
        last = Instant::now();
        let per_minute = |now: u64, before: u64| (now - before) as f64 / minutes;
        tracing::info!(
            executions_active = executions.active,
            sessions = sessions.by_state.iter().sum::<usize>(),
            sessions_holding = sessions.bound(),
            sessions_idle_in_transaction = sessions.of(State::InTransaction),
            sessions_waiting = sessions.of(State::Waiting),
            sessions_opened_per_minute = per_minute(sessions.opened, opened_before),
            sessions_closed_per_minute = per_minute(sessions.closed, closed_before),
            budget_open = budget.open(),
            budget_effective = budget.effective(),
            budget_limit = budget.limit(),
            budget_waiting = queue.waiting,
            oldest_wait_seconds = queue.oldest.as_secs_f64(),
            oldest_held_seconds = holder
                .as_ref()
                .and_then(|holder| holder.bound_age)
                .map(|age| age.as_secs_f64()),
            oldest_holder = holder.map(|holder| holder.identity.execution.to_string()),
            resources = resources.total(),
            resources_expired = expired,
            resident_bytes = resident_bytes(),
            uptime_seconds = started.elapsed().as_secs(),
            "status"
        );
        (opened_before, closed_before) = (sessions.opened, sessions.closed);
    }
}
