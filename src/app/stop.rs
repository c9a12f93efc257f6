//! From a signal, or a decision of the reactor's, to the exit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Running, ShutdownMode};
use crate::events::{Event, Seconds};
use crate::execution::Remote;
use crate::shutdown::Life;

use super::exit::{Ended, Leave};

/// What of the grace is kept for ending what is left.
const LAST: Duration = Duration::from_secs(2);
/// How long the ends may take that a second signal demands, or a restart of all containers.
const AT_ONCE: Duration = Duration::from_millis(500);
/// What of the time a restart of all containers leaves to the last export.
const TO_TELL: Duration = Duration::from_secs(1);
/// How often it is looked whether anybody is left.
const LOOK: Duration = Duration::from_millis(50);

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for SIGTERM, SIGINT or `/quitquitquit`, serves who is left within the grace, then ends all
/// executions. A second signal cuts that short, and so does a restart of all containers that is decided before
/// the first: nobody is left whom to serve. Gives the time at which the process should have ended, and how it ends.
pub(super) async fn wait(
    running: &watch::Receiver<Arc<Running>>,
    remote: &Remote,
    life: &Life,
    leave: &Leave,
) -> (Instant, Ended) {
    tokio::select! {
        end = asked_to(running, remote, life) => (end, Ended::Asked),
        () = leave.decided() => {
            life.drain();
            end_all(remote, AT_ONCE).await;
            (Instant::now() + TO_TELL, Ended::ForRestart)
        }
    }
}

/// The same without a restart.
async fn asked_to(
    running: &watch::Receiver<Arc<Running>>,
    remote: &Remote,
    life: &Life,
) -> Instant {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(event = "signals.failed", %error, "cannot listen to signals");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        () = signals.next() => {}
        () = life.quits() => {}
    }
    life.drain();
    let _ = remote
        .ask(|executions| executions.lender().give_up_reserve())
        .await;
    let shutdown = running.borrow().loaded.config.shutdown.clone();
    let begun = Instant::now();
    let deadline = begun + shutdown.grace.saturating_sub(LAST);
    let event = Event::Shutdown {
        grace_seconds: Seconds(shutdown.grace),
    };
    tracing::info!(
        event = event.name(),
        grace_seconds = shutdown.grace.as_secs_f64(),
        "shutting down; a second signal ends everything at once"
    );
    remote.events().tell(event);
    tokio::select! {
        () = served(shutdown.mode, remote, life, deadline) => {}
        // At once, and yet no query is left behind at the database.
        () = signals.next() => {
            end_all(remote, AT_ONCE).await;
            return Instant::now();
        }
    }
    tokio::select! {
        () = end_all(remote, LAST) => begun + shutdown.grace,
        () = signals.next() => Instant::now(),
    }
}

/// Waits until nobody is left whom anybody serves, or the time is over. Beside a live app that may
/// connect again, the whole time is waited, unless it is told to quit.
async fn served(mode: ShutdownMode, remote: &Remote, life: &Life, deadline: Instant) {
    while Instant::now() < deadline {
        let left = remote
            .ask(|executions| {
                let holds: usize = executions.views().iter().map(|view| view.holds).sum();
                executions.sessions().len() + holds
            })
            .await;
        let may_end = mode == ShutdownMode::Sidecar || life.is_quitting();
        match left {
            Ok(0) if may_end => return,
            Err(_) => return,
            Ok(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Ends all executions and waits until nothing of them is left, for `patience` at most.
async fn end_all(remote: &Remote, patience: Duration) {
    let Ok(ends) = remote
        .ask(|executions| executions.end_all(Duration::ZERO))
        .await
    else {
        return;
    };
    let all = async {
        for mut end in ends {
            // Its sender goes with what it tells of.
            let _ = end.wait_for(Option::is_some).await;
        }
    };
    let _ = tokio::time::timeout(patience, all).await;
}
