//! What everybody on the main thread has at hand.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::config::Running;
use crate::execution::Remote;
use crate::shutdown::Life;

use super::house::House;

/// What everybody on the main thread has at hand: a copy is the same thing.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// By which the data plane is asked.
    pub(super) remote: Remote,
    /// What is configured at each moment.
    pub(super) running: watch::Receiver<Arc<Running>>,
    /// What the process has come to.
    pub(super) life: Arc<Life>,
    /// Since when it is looked.
    pub(super) started: Instant,
}

impl Common {
    /// It is looked from now on.
    pub(super) fn of(house: &House) -> Self {
        Self {
            remote: Remote::new(Arc::clone(house.data.executions())),
            running: house.running.subscribe(),
            life: Arc::clone(&house.life),
            started: Instant::now(),
        }
    }

    /// What is configured at this moment.
    pub(super) fn now(&self) -> Arc<Running> {
        Arc::clone(&self.running.borrow())
    }
}
