//! When the person, or whoever started the demo, wants it to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// How often a wait looks.
const TICK: Duration = Duration::from_millis(10);

/// Becomes set by SIGINT, SIGTERM, SIGHUP, or when the parent has gone.
#[derive(Clone, Debug)]
pub(super) struct Interrupt {
    /// The number of the signal; 0 before one.
    signal: Arc<AtomicU8>,
    parent: u32,
}

/// The demo was asked to end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted {
    /// The signal that asked; SIGHUP where the parent has gone.
    pub(super) signal: u8,
}

const SIGHUP: u8 = 1;

impl Interrupt {
    /// Begins to listen. A second signal ends the process at once; the watchdog of the
    /// [`super::place::Place`] then clears up.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let this = Self {
            signal: Arc::default(),
            parent: std::os::unix::process::parent_id(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("cannot listen for signals")?;
        // Registered before this returns, so that no signal is missed.
        let mut listeners = {
            let _inside = runtime.enter();
            [
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
            ]
        };
        let seen = Arc::clone(&this.signal);
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    let [interrupt, terminate, hangup] = &mut listeners;
                    let number = tokio::select! {
                        () = next(interrupt) => 2,
                        () = next(terminate) => 15,
                        () = next(hangup) => SIGHUP,
                    };
                    if seen.swap(number, Ordering::Relaxed) != 0 {
                        std::process::exit(128 + i32::from(number));
                    }
                }
            });
        });
        Ok(this)
    }

    /// An error once the demo was asked to end.
    pub(super) fn check(&self) -> Result<(), Interrupted> {
        match self.signal.load(Ordering::Relaxed) {
            0 if std::os::unix::process::parent_id() == self.parent => Ok(()),
            0 => Err(Interrupted { signal: SIGHUP }),
            signal => Err(Interrupted { signal }),
        }
    }

    /// Sleeps, unless asked to end.
    pub(super) fn pause(&self, time: Duration) -> Result<(), Interrupted> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            std::thread::sleep(TICK.min(time));
        }
        self.check()
    }
}

async fn next(listener: &mut std::io::Result<tokio::signal::unix::Signal>) {
    match listener {
        Ok(listener) => {
            listener.recv().await;
        }
        // Where signals can't be listened for, the default ends the process.
        Err(_) => std::future::pending().await,
    }
}
