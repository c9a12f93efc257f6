//! Asking the data plane from another thread.

use std::sync::Arc;

use crate::events::Events;
use crate::metrics::Counters;

use super::Executions;

/// The executions, for who is not on the data plane's thread. Each question is one turn of its
/// loop: no session waits for a lock that another thread holds.
#[derive(Debug, Clone)]
pub struct Remote {
    executions: Arc<Executions>,
}

/// The data plane has ended: the process is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("execpool is shutting down")]
pub struct Gone;

impl Remote {
    /// Asks these.
    #[must_use]
    pub fn new(executions: Arc<Executions>) -> Self {
        Self { executions }
    }

    /// Where events are told, from any thread.
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        self.executions.events()
    }

    /// What is counted and belongs to nobody, from any thread.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        self.executions.lender().counters()
    }

    /// Runs `question` on the data plane's thread. It must not block. Dropped before its answer,
    /// it may or may not have run.
    ///
    /// # Errors
    /// The data plane has ended, or the question panicked.
    pub async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&Arc<Executions>) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        let executions = Arc::clone(&self.executions);
        let asked = self
            .executions
            .runtime
            .spawn(async move { question(&executions) });
        asked.await.map_err(|_| Gone)
    }
}
