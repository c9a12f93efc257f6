//! How everything is, into the log, every few minutes.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::config::Running;
use crate::execution::{Ever, Remote};
use crate::metrics::resident_bytes;
use crate::session::State;

/// Logs the status every `telemetry.status_log`, until the data plane ends.
pub(super) async fn run(
    remote: Remote,
    mut running: watch::Receiver<Arc<Running>>,
    started: Instant,
) {
    let mut before = Ever::default();
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
                let now = Instant::now();
                let holders = executions.sessions().holders(None, 1, now);
                (
                    executions.lender().budget(),
                    executions.counts(),
                    executions.sessions().counts(),
                    holders.into_iter().next(),
                    executions.resources(),
                    executions.sessions().oldest(now),
                )
            })
            .await;
        let Ok(((budget, queue), executions, sessions, holder, (resources, expired), oldest)) =
            asked
        else {
            return;
        };
        let minutes = last.elapsed().as_secs_f64() / 60.0;
        last = Instant::now();
        let per_minute = |now: u64, before: u64| (now - before) as f64 / minutes;
        let oldest = |state: State| {
            let oldest = oldest[state as usize].as_ref();
            oldest.map(|oldest| oldest.state_age.as_secs_f64())
        };
        let ever = Ever {
            sessions_opened: sessions.opened,
            sessions_closed: sessions.closed(),
            executions_begun: executions.begun(),
            executions_ended: executions.over(),
        };
        tracing::info!(
            executions_active = executions.active,
            executions_begun_per_minute =
                per_minute(ever.executions_begun, before.executions_begun),
            executions_ended_per_minute =
                per_minute(ever.executions_ended, before.executions_ended),
            sessions = sessions.by_state.iter().sum::<usize>(),
            sessions_holding = sessions.bound(),
            sessions_idle_in_transaction = sessions.of(State::InTransaction),
            sessions_waiting = sessions.of(State::Waiting),
            sessions_opened_per_minute = per_minute(ever.sessions_opened, before.sessions_opened),
            sessions_closed_per_minute = per_minute(ever.sessions_closed, before.sessions_closed),
            leak_suspects = sessions.suspects(),
            budget_open = budget.open(),
            budget_effective = budget.effective(),
            budget_limit = budget.limit(),
            budget_waiting = queue.waiting,
            oldest_wait_seconds = queue.oldest.as_secs_f64(),
            oldest_active_seconds = oldest(State::Active),
            oldest_idle_in_transaction_seconds = oldest(State::InTransaction),
            oldest_idle_seconds = oldest(State::Idle),
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
        before = ever;
    }
}
