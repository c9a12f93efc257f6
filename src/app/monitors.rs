//! The monitor of each upstream, by its number.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::client::{Served, Standing};
use crate::config::Upstream;
use crate::execution::Terminate;
use crate::monitor::Monitor;
use crate::pool::UpstreamNumber;

/// The monitor of each upstream, by its number; that of one that is no longer configured stays, for
/// what is still to be ended there.
#[derive(Debug, Default)]
pub(super) struct Monitors {
    all: Mutex<Vec<Asked>>,
}

#[derive(Debug)]
struct Asked {
    config: Upstream,
    standing: Standing,
    monitor: Arc<Monitor>,
}

impl Asked {
    /// Nothing is dialled yet.
    fn new(served: &Served) -> Self {
        Self {
            config: served.config.clone(),
            standing: served.standing,
            monitor: Arc::new(Monitor::new(&served.config).sharing(served.password.clone())),
        }
    }

    fn is_like(&self, served: &Served) -> bool {
        self.standing == served.standing && self.config.has_connections_like(&served.config)
    }
}

impl Monitors {
    /// Follows the upstreams, given by their numbers. Answers those that are configured anew or lead
    /// elsewhere. The connection of any that changes is closed.
    pub(super) fn follow(&self, upstreams: &[Served]) -> Vec<Arc<Monitor>> {
        let mut all = self.all.lock();
        let mut new = Vec::new();
        for (at, served) in upstreams.iter().enumerate() {
            if all.get(at).is_some_and(|known| known.is_like(served)) {
                continue;
            }
            let asked = Asked::new(served);
            if served.standing == Standing::Open {
                new.push(Arc::clone(&asked.monitor));
            }
            match all.get_mut(at) {
                Some(known) => *known = asked,
                None => all.push(asked),
            }
        }
        new
    }

    /// Those of the upstreams that are configured, in the configuration's order.
    pub(super) fn configured(
        &self,
        upstreams: &[Served],
        order: &[Upstream],
    ) -> Vec<(UpstreamNumber, Arc<Monitor>)> {
        let all = self.all.lock();
        let found = order.iter().filter_map(|upstream| {
            let open = |served: &&Served| {
                *served.name == *upstream.name && served.standing == Standing::Open
            };
            let number = upstreams.iter().find(open)?.number;
            let asked = all.get(number.0 as usize)?;
            Some((number, Arc::clone(&asked.monitor)))
        });
        found.collect()
    }

    /// What `pg_terminate_backend` does, asked from the data plane and done on the main thread.
    pub(super) fn terminate(self: &Arc<Self>, runtime: &Handle) -> Terminate {
        let (monitors, runtime) = (Arc::clone(self), runtime.clone());
        Box::new(move |upstream, backends, older_than| {
            let (tell, asked) = oneshot::channel();
            let all = monitors.all.lock();
            let monitor = all.get(upstream.0 as usize);
            if let Some(monitor) = monitor.map(|asked| Arc::clone(&asked.monitor)) {
                runtime.spawn(async move {
                    let ended = monitor.terminate(&backends, older_than).await;
                    match &ended {
                        Ok(count) => tracing::info!(event = "backends.terminated", count, ?backends, "backends ended by force"),
                        Err(error) => {
                            tracing::warn!(event = "backends.not_terminated", %error, ?backends, "backends could not be ended")
                        }
                    }
                    // Who asked may not want to know.
                    let _ = tell.send(ended.is_ok());
                });
            }
            asked
        })
    }
}
