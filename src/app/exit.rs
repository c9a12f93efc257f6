//! How the process ends, and who decides that all containers are to be restarted.

use tokio::sync::watch;

/// The exit code for which a pod may have the rule `RestartAllContainers`.
const RESTART_ALL: u8 = 88;

/// How the process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By a signal, or as it was asked to.
    Asked,
    /// So that all containers of the pod are restarted.
    ForRestart,
}

impl Ended {
    /// The exit code of the process: 0, or 88 for a restart of all containers.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Asked => 0,
            Self::ForRestart => RESTART_ALL,
        }
    }
}

/// A decision that is told once and never taken back: the process ends, so that all containers are restarted.
#[derive(Debug, Clone, Default)]
pub(super) struct Leave(watch::Sender<bool>);

impl Leave {
    /// It is decided.
    pub(super) fn decide(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is decided. Cancel safe.
    pub(super) async fn decided(&self) {
        // The sender is ours.
        let _ = self.0.subscribe().wait_for(|decided| *decided).await;
    }
}
