//! Where a new configuration is applied: all of it, or nothing.

use std::sync::Arc;

use crate::client::{Served, Service};
use crate::config::Config;
use crate::control::Control;
use crate::telemetry::LogGuard;

use super::common::Common;
use super::desk::facts;
use super::doors::{Addresses, Places, access};
use super::measuring::Measuring;
use super::monitors::Monitors;
use super::{data, search};

/// All that a configuration changes while the process runs.
pub(super) struct Stage {
    pub(super) common: Common,
    pub(super) service: Arc<Service>,
    pub(super) control: Arc<Control>,
    pub(super) monitors: Arc<Monitors>,
    /// None where nothing is measured for others.
    pub(super) measuring: Option<Arc<Measuring>>,
    pub(super) places: Arc<Places>,
    pub(super) log: Arc<LogGuard>,
    /// All upstreams that there ever were, by their numbers.
    pub(super) upstreams: Vec<Served>,
    pub(super) addresses: Addresses,
}

impl Stage {
    /// Applies `new`, whose knobs that take a restart are those of `old`. Not cancel safe: half of it
    /// may be applied then.
    ///
    /// # Errors
    /// What is in the way, as a sentence; nothing is applied then.
    pub(super) async fn apply(&mut self, old: &Config, new: &Config) -> Result<(), String> {
        // What may fail comes first.
        self.places.permit(&access(old), &access(new))?;
        let upstreams = data::numbered(new, &self.upstreams);
        let (service, mut config) = (Arc::clone(&self.service), new.clone());
        if self.common.life.is_draining() {
            // The reserve was given up for good.
            config.budget.warm = 0;
        }
        let all = upstreams.clone();
        let measuring = self.measuring.as_ref();
        let timings = measuring.map(|measuring| measuring.timings(&all));
        let asked = self.common.remote.ask(move |executions| {
            executions.lender().time(timings.unwrap_or_default());
            data::reconfigure(executions, &service, &config, all);
        });
        asked.await.map_err(|gone| gone.to_string())?;
        self.upstreams = upstreams;
        let unknown = self.monitors.follow(&self.upstreams);
        search::begin(&unknown, new.budget.total(), &self.common);
        let monitors = self.monitors.configured(&self.upstreams, &new.upstreams);
        let facts = facts(new, &self.common, &self.addresses);
        self.control.reconfigure(monitors, facts);
        if old.log.level != new.log.level
            && let Err(error) = self.log.set_level(&new.log.level)
        {
            // The configuration was checked by the same parser.
            tracing::error!(event = "log.level_kept", %error, "the log keeps its level");
        }
        Ok(())
    }
}
