//! Where sessions stand still, between two transactions, while nothing is to run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Passed by each session before it takes something new from its client. Open at first.
#[derive(Debug, Default)]
pub struct Gatepost {
    shut: AtomicBool,
    opened: Arc<Notify>,
}

impl Gatepost {
    /// Whether nobody may pass: one load, for each read of a session.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.shut.load(Relaxed)
    }

    /// From now on nobody passes.
    pub fn shut(&self) {
        self.shut.store(true, Relaxed);
    }

    /// From now on everybody passes; those that stand still are woken.
    pub fn open(&self) {
        self.shut.store(false, Relaxed);
        self.opened.notify_waiters();
    }

    /// Waits for the next [`Gatepost::open`] after this call.
    pub fn opened(&self) -> OwnedNotified {
        Arc::clone(&self.opened).notified_owned()
    }
}
