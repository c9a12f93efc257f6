//! What time alone does on the data plane: ends, the end of a pause, limits of sessions, upkeep of idle
//! connections, probes of a full database, the maintenance pass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::Running;
use crate::execution::Executions;

use super::data::session_limits;

/// How often idle connections, and sessions over a limit, are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// How often a full database is asked for one connection more, plus up to as much again.
const PROBE: Duration = Duration::from_secs(2);

/// Runs for ever. Holds no lock while it waits.
pub(super) async fn run(executions: Arc<Executions>, running: watch::Receiver<Arc<Running>>) {
    let configured = || running.borrow().loaded.config.maintenance.interval;
    let limits = || session_limits(&running.borrow().loaded.config);
    let mut maintenance = configured();
    let mut next_sweep = Instant::now();
    let mut next_probe = Instant::now();
    let mut next_pass = maintenance.map(|interval| Instant::now() + interval);
    loop {
        let now = Instant::now();
        let next_end = executions.end_due(now);
        let pause = executions.lender().watch_pause(now);
        if now >= next_sweep {
            executions.lender().sweep(now);
            let mut limits = limits();
            if executions.lender().paused().is_some() {
                // Whose query is kept back looks idle, and is not.
                limits.leak_after = None;
            }
            let sessions = executions.sessions();
            sessions.sweep(&limits, now, executions.events());
            executions.sample(now);
            next_sweep = now + SWEEP;
        }
        if now >= next_probe && executions.lender().budget().0.limited_by_database() {
            executions.lender().probe();
            next_probe = now + PROBE + jitter();
        }
        if maintenance != configured() {
            maintenance = configured();
            next_pass = maintenance.map(|interval| now + interval);
        }
        if let (Some(at), Some(interval)) = (next_pass, maintenance)
            && now >= at
        {
            executions.maintain();
            next_pass = Some(now + interval);
        }
        let wake = [next_end, pause].into_iter().flatten().min();
        let wake = wake.map_or(next_sweep, |at| at.min(next_sweep));
        tokio::select! {
            () = tokio::time::sleep_until(wake.into()) => {}
            () = executions.sooner() => {}
            () = executions.lender().pause_moves() => {}
        }
    }
}

/// Up to as much again as [`PROBE`], so that pods that share a database do not ask in step.
fn jitter() -> Duration {
    let mut random = [0; 2];
    // Without random numbers there is no jitter, which is no fault.
    let _ = getrandom::fill(&mut random);
    PROBE.mul_f64(f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX))
}
