//! What runs, for whoever shows it.

use super::{Change, Loaded, Plan, render_json};
use serde_json::{Value, json};

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

    /// As one object, without secrets: what [`render_json`] says, and `waiting_for_restart`,
    /// `refused` and `reloads`.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = render_json(&self.loaded);
        value["waiting_for_restart"] = self.waiting.iter().map(Change::json).collect();
        value["refused"] = json!(self.refused);
        value["reloads"] = json!(self.reloads);
        value
    }
}

impl Plan {
    /// As one object: `applied` and `waiting_for_restart`.
    #[must_use]
    pub fn json(&self) -> Value {
        let list = |changes: &[Change]| -> Value { changes.iter().map(Change::json).collect() };
        json!({"applied": list(&self.applied), "waiting_for_restart": list(&self.waiting)})
    }
}
