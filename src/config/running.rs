//! What runs, for whoever shows it.

use super::{Change, Loaded, Shown, show};
use schemars::JsonSchema;
use serde::Serialize;

/// The configuration that runs, and what else is known of it.
#[derive(Debug, Clone)]
pub struct Running {
    /// What runs.
    pub loaded: Loaded,
    /// What the sources say and only a restart will change.
    pub waiting: Vec<Change>,
    /// Why the sources, as they were last seen, are refused; empty: they are what runs.
    pub refused: Vec<String>,
    /// How often something was changed since the start.
    pub reloads: u64,
}

/// The configuration that runs, as it is shown, without secrets.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RunningShown {
    /// What runs.
    #[serde(flatten)]
    pub shown: Shown,
    /// What the sources say and only a restart will change.
    pub waiting_for_restart: Vec<Change>,
    /// Why the sources, as they were last seen, are refused; empty: they are what runs.
    pub refused: Vec<String>,
    /// How often something was changed since the start.
    pub reloads: u64,
}

impl Running {
    /// As it is at the start.
    #[must_use]
    pub fn new(loaded: Loaded) -> Self {
        Self {
            loaded,
            waiting: Vec::new(),
            refused: Vec::new(),
            reloads: 0,
        }
    }

    /// As it is shown.
    #[must_use]
    pub fn shown(&self) -> RunningShown {
        RunningShown {
            shown: show(&self.loaded),
            waiting_for_restart: self.waiting.clone(),
            refused: self.refused.clone(),
            reloads: self.reloads,
        }
    }
}
