//! Where a new configuration is applied: all of it, or nothing.

use std::sync::Arc;
use std::time::Instant;

use crate::client::{Served, Service};
use crate::config::Config;
use crate::control::Control;
use crate::execution::Remote;
use crate::listener::{Access, BoundSocket};
use crate::shutdown::Life;
use crate::telemetry::LogGuard;

use super::measuring::Measuring;
use super::monitors::Monitors;
use super::{Addresses, data, facts, look_for};

/// All that a configuration changes while the process runs.
pub(super) struct Stage {
    pub(super) remote: Remote,
    pub(super) service: Arc<Service>,
    pub(super) control: Arc<Control>,
    pub(super) monitors: Arc<Monitors>,
    /// None where nothing is measured for others.
    pub(super) measuring: Option<Arc<Measuring>>,
    /// The sockets' places in the directory.
    pub(super) places: Arc<[BoundSocket; 2]>,
    pub(super) log: Arc<LogGuard>,
    /// All upstreams that there ever were, by their numbers.
    pub(super) upstreams: Vec<Served>,
    pub(super) started: Instant,
    /// Where it is reached over TCP.
    pub(super) addresses: Addresses,
    /// Where the process stands.
    pub(super) life: Arc<Life>,
}

impl Stage {
    /// Applies `new`, whose knobs that take a restart are those of `old`. Not cancel safe: half of it
    /// may be applied then.
    ///
    /// # Errors
    /// What is in the way, as a sentence; nothing is applied then.
    pub(super) async fn apply(&mut self, old: &Config, new: &Config) -> Result<(), String> {
        // What may fail comes first.
        self.permit(&access(old), &access(new))?;
        let upstreams = data::numbered(new, &self.upstreams);
        let (service, mut config) = (Arc::clone(&self.service), new.clone());
        if self.life.is_draining() {
            // The reserve was given up for good.
            config.budget.warm = 0;
        }
        let all = upstreams.clone();
        let measuring = self.measuring.as_ref();
        let timings = measuring.map(|measuring| measuring.timings(&all));
        let asked = self.remote.ask(move |executions| {
            executions.lender().time(timings.unwrap_or_default());
            data::reconfigure(executions, &service, &config, all);
        });
        asked.await.map_err(|gone| gone.to_string())?;
        self.upstreams = upstreams;
        for monitor in self.monitors.follow(&self.upstreams) {
            tokio::spawn(look_for(
                monitor,
                new.budget.total(),
                Arc::clone(&self.life),
                Arc::clone(self.remote.events()),
            ));
        }
        let monitors = self.monitors.configured(&self.upstreams, &new.upstreams);
        self.control.reconfigure(
            monitors,
            facts(new, self.started, &self.addresses, Arc::clone(&self.life)),
        );
        if old.log.level != new.log.level
            && let Err(error) = self.log.set_level(&new.log.level)
        {
            // The configuration was checked by the same parser.
            tracing::error!(event = "log.level_kept", %error, "the log keeps its level");
        }
        Ok(())
    }

    /// Lets others connect to the sockets than before, to both or to none.
    fn permit(&self, old: &Access, new: &Access) -> Result<(), String> {
        if old == new {
            return Ok(());
        }
        let permitted = self.places.iter().try_for_each(|place| place.permit(new));
        permitted.map_err(|error| {
            for place in self.places.iter() {
                // As it was until now, which the system had let us do.
                let _ = place.permit(old);
            }
            error.to_string()
        })
    }
}

/// Who may connect to the sockets.
pub(super) fn access(config: &Config) -> Access {
    Access {
        mode: config.listen.mode,
        group: config.listen.group.clone(),
    }
}
