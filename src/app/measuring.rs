//! What is measured of the data plane: looked at once a second, told by instruments.
//!
//! Nobody who exports or scrapes waits for the data plane: instruments tell the last look, and a gauge
//! how old that is.

mod look;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::budget::Exhaustion;
use crate::client::{Served, Standing};
use crate::config::Running;
use crate::control::Control;
use crate::execution::Remote;
use crate::metrics::catalogue::{METRICS, OF_EXECUTIONS};
use crate::metrics::{Histograms, Last, Measured, Meter, Timings};
use crate::server::Address;

use super::common::Common;
use look::Look;

/// How often the data plane is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// The instruments, and what they tell.
#[derive(Debug)]
pub(super) struct Measuring {
    last: Last,
    histograms: Histograms,
}

impl Measuring {
    /// Registers all instruments on `meter`, and those of single executions on `of_executions`.
    pub(super) fn on(meter: &Meter, of_executions: Option<&Meter>) -> Self {
        let last = Last::default();
        last.observe(meter, METRICS);
        if let Some(meter) = of_executions {
            last.observe(meter, OF_EXECUTIONS);
        }
        Self {
            last,
            histograms: Histograms::on(meter),
        }
    }

    /// How long things take at these upstreams is told by these, by their numbers.
    pub(super) fn timings(&self, upstreams: &[Served]) -> Vec<Arc<Timings>> {
        upstreams
            .iter()
            .map(|served| self.timings_of(served))
            .collect()
    }

    fn timings_of(&self, served: &Served) -> Arc<Timings> {
        let target = &served.config.target;
        let hosts = target.hosts.iter().map(Address::from);
        let servers: Vec<(String, u16)> = hosts.map(|address| address.place()).collect();
        self.histograms.of(Measured {
            name: &served.name,
            namespace: match &*served.name {
                "*" => "other",
                _ => &target.database,
            },
            servers: match served.standing {
                Standing::Open => &servers,
                Standing::Removed => &[],
            },
        })
    }
}

/// Who looks, and at what.
#[derive(Debug, Clone)]
pub(super) struct Measures {
    measuring: Arc<Measuring>,
    remote: Remote,
    control: Arc<Control>,
    running: watch::Receiver<Arc<Running>>,
    exhaustion: watch::Receiver<Exhaustion>,
}

impl Measures {
    /// These instruments tell of the data plane.
    pub(super) fn new(
        measuring: Arc<Measuring>,
        common: &Common,
        control: &Arc<Control>,
        exhaustion: &watch::Receiver<Exhaustion>,
    ) -> Self {
        Self {
            measuring,
            remote: common.remote.clone(),
            control: Arc::clone(control),
            running: common.running.clone(),
            exhaustion: exhaustion.clone(),
        }
    }

    /// Looks at the data plane once a second, until it ends.
    pub(super) async fn run(self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.look().await.is_none() {
                return;
            }
        }
    }

    /// Looks once. None: the data plane has ended. Cancel safe: what was told last is told on.
    pub(super) async fn look(&self) -> Option<()> {
        let now = Arc::clone(&self.running.borrow());
        let config = &now.loaded.config;
        let most = config.telemetry.top_executions as usize;
        let asked = self
            .remote
            .ask(move |executions| Look::at(executions, most));
        let look = asked.await.ok()?;
        let rooms = self.control.rooms(|number| look.pooled(number));
        let state = self.exhaustion.borrow().state;
        self.measuring
            .last
            .publish(tell::reading(&look, &rooms, state, config));
        Some(())
    }
}

#[cfg(test)]
mod tests;
