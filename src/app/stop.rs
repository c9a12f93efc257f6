//! From a signal to the exit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Running, ShutdownMode};
use crate::execution::Remote;

/// What of the grace is kept for ending what is left.
const LAST: Duration = Duration::from_secs(2);
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

/// Waits for SIGTERM or SIGINT, serves who is left within the grace, then ends all executions. A
/// second signal cuts that short.
pub(super) async fn wait(running: &watch::Receiver<Arc<Running>>, remote: &Remote) {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot listen to signals");
            return std::future::pending().await;
        }
    };
    signals.next().await;
    let shutdown = running.borrow().loaded.config.shutdown.clone();
    let deadline = Instant::now() + shutdown.grace.saturating_sub(LAST);
    tracing::info!("shutting down; a second signal ends everything at once");
    tokio::select! {
        () = served(shutdown.mode, remote, deadline) => {}
        () = signals.next() => return,
    }
    tokio::select! {
        () = end_all(remote) => {}
        () = signals.next() => {}
    }
}

/// Waits until nobody is left whom anybody serves, or the time is over. Beside a live app that may
/// connect again, the whole time is waited.
async fn served(mode: ShutdownMode, remote: &Remote, deadline: Instant) {
    while Instant::now() < deadline {
        let left = remote
            .ask(|executions| {
                let holds: usize = executions.views().iter().map(|view| view.holds).sum();
                executions.sessions().len() + holds
            })
            .await;
        match (left, mode) {
            (Ok(0), ShutdownMode::Sidecar) | (Err(_), _) => return,
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Ends all executions and waits until nothing of them is left, but not for long.
async fn end_all(remote: &Remote) {
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
    let _ = tokio::time::timeout(LAST, all).await;
}
