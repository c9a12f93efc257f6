//! The data plane: its thread, and what lives on it.

use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, watch};

use crate::budget::Budget;
use crate::client::{Served, Service, Serving, Settings, Standing};
use crate::config::{self, Config, Running};
use crate::events::Events;
use crate::execution::cleanup::Policy;
use crate::execution::{Executions, Rules, Untagged, Upstream};
use crate::pool::{Lender, PoolLimits, UpstreamNumber};
use crate::server::Password;
use crate::session::{Limit, Limits, Table};
use crate::telemetry::Traces;

use super::measuring::Measuring;
use super::monitors::Monitors;
use super::{StartError, keeper};

/// The thread on which sessions and pools live.
pub(super) struct DataPlane {
    executions: Arc<Executions>,
    service: Arc<Service>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What the data plane knows of the rest of the process.
pub(super) struct Outside<'a> {
    /// The main thread's runtime.
    pub(super) main: &'a Handle,
    /// Through these backends are ended by force, on the main thread.
    pub(super) monitors: &'a Arc<Monitors>,
    /// Where it is told what happens.
    pub(super) events: Arc<Events>,
    /// How long things take; none: nobody wants to know.
    pub(super) measuring: Option<&'a Measuring>,
    /// What makes spans; none: nobody wants any.
    pub(super) traces: Option<Traces>,
}

impl DataPlane {
    /// Starts it, serving the socket.
    pub(super) fn start(
        running: watch::Receiver<Arc<Running>>,
        sockets: (StdListener, Vec<StdTcpListener>),
        outside: Outside<'_>,
    ) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let now = Arc::clone(&running.borrow());
        let config = &now.loaded.config;
        let lender = Lender::new(budget(config), runtime.handle().clone(), outside.events);
        let upstreams = numbered(config, &[]);
        if let Some(measuring) = outside.measuring {
            lender.time(measuring.timings(&upstreams));
        }
        let executions = Executions::new(
            rules(config),
            config.execution.grace,
            upstreams.iter().map(upstream).collect(),
            lender,
            Arc::new(Table::default()),
            outside.monitors.terminate(outside.main),
            runtime.handle().clone(),
        )
        .traced(outside.traces);
        executions.set_cleanup(cleanup(config));
        let serving = Serving {
            upstreams,
            settings: settings(config),
        };
        let service = Service::new(Arc::clone(&executions), serving);
        let (stop, stopped) = oneshot::channel();
        let keeper = keeper::run(Arc::clone(&executions), running);
        let serves = Arc::clone(&service);
        let thread = std::thread::Builder::new()
            .name("data".to_owned())
            .spawn(move || serve(&runtime, serves, sockets, keeper, stopped))
            .map_err(StartError::Runtime)?;
        Ok(Self {
            executions,
            service,
            stop,
            thread,
        })
    }

    /// Who serves the PostgreSQL socket.
    pub(super) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// What it has.
    pub(super) fn executions(&self) -> &Arc<Executions> {
        &self.executions
    }

    /// Ends it; sessions that are still there are cut off.
    pub(super) fn stop(self) {
        // A thread that has panicked needs no word, and its panic was logged.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

fn serve(
    runtime: &Runtime,
    service: Arc<Service>,
    (listener, tcp): (StdListener, Vec<StdTcpListener>),
    keeper: impl Future<Output = ()> + Send + 'static,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        tokio::spawn(keeper);
        let shutdown = async {
            let _ = stopped.await;
        };
        let tcp: Result<Vec<TcpListener>, _> = tcp.into_iter().map(TcpListener::from_std).collect();
        match UnixListener::from_std(listener).and_then(|unix| Ok((unix, tcp?))) {
            Ok((unix, tcp)) => service.serve(unix, tcp, shutdown).await,
            Err(error) => tracing::error!(event = "listen.failed", %error, "cannot listen on the PostgreSQL socket"),
        }
    });
}

fn budget(config: &Config) -> Budget {
    // u32 fits into usize on every platform with sockets.
    let budget = &config.budget;
    Budget::new(budget.size as usize, budget.overflow as usize).with_reserve(budget.warm as usize)
}

fn rules(config: &Config) -> Rules {
    let execution = &config.execution;
    Rules {
        max_duration: execution.max_duration,
        idle_timeout: execution.idle_timeout,
        tombstone: execution.tombstone,
        hold_grace: config.hold.grace,
        untagged: match execution.untagged {
            config::Untagged::Shared => Untagged::Shared,
            config::Untagged::Session => Untagged::Session,
            config::Untagged::Reject => Untagged::Reject,
        },
    }
}

/// Other knobs from now on, in one turn of the data plane's loop: `upstreams` are all that there
/// ever were, by their numbers.
pub(super) fn reconfigure(
    executions: &Arc<Executions>,
    service: &Service,
    config: &Config,
    upstreams: Vec<Served>,
) {
    let limits = upstreams.iter().map(upstream).collect();
    // Before a reserve is allowed, so that sessions look at what they leave behind.
    service.reconfigure(Serving {
        upstreams,
        settings: settings(config),
    });
    executions.reconfigure(rules(config), config.execution.grace, limits);
    executions.set_cleanup(cleanup(config));
    let budget = &config.budget;
    // u32 fits into usize on every platform with sockets.
    let (size, overflow, warm) = (budget.size, budget.overflow, budget.warm);
    let lender = executions.lender();
    lender.resize(size as usize, overflow as usize, warm as usize);
}

/// The upstreams of a configuration with those that there were `before`: the same name keeps its
/// number for good, whatever is between its times.
pub(super) fn numbered(config: &Config, before: &[Served]) -> Vec<Served> {
    let mut all: Vec<Served> = before.to_vec();
    for served in &mut all {
        served.standing = Standing::Removed;
    }
    for upstream in &config.upstreams {
        let known = all.iter_mut().find(|served| *served.name == *upstream.name);
        match known {
            Some(served) => {
                let source = &upstream.target.password;
                if !served.password.is_of(source) {
                    served.password = Password::new(source.clone());
                }
                served.config = upstream.clone();
                served.standing = Standing::Open;
            }
            None => all.push(Served {
                // There are fewer than four billion.
                number: UpstreamNumber(u32::try_from(all.len()).unwrap_or(u32::MAX)),
                name: upstream.name.as_str().into(),
                config: upstream.clone(),
                password: Password::new(upstream.target.password.clone()),
                standing: Standing::Open,
            }),
        }
    }
    all
}

/// How long a session may keep a transaction open, or its server connection unused.
pub(super) fn session_limits(config: &Config) -> Limits {
    let limit = |limit: &config::Limit| Limit {
        notice: limit.notice,
        end: limit.end,
    };
    Limits {
        idle_in_transaction: limit(&config.session.idle_in_transaction),
        transaction: limit(&config.session.transaction),
        leak_after: config.session.leak_after,
    }
}

/// What an emergency cleanup may end.
fn cleanup(config: &Config) -> Policy {
    Policy {
        idle_in_transaction: config.cleanup.idle_in_transaction,
        reclaim_leaks: config.session.reclaim_leaks,
    }
}

fn upstream(served: &Served) -> Upstream {
    Upstream {
        name: Arc::clone(&served.name),
        limits: limits(&served.config),
    }
}

/// The limits of a pool that has none of its own.
pub(super) fn limits(upstream: &config::Upstream) -> PoolLimits {
    PoolLimits {
        size: upstream.pool.size as usize,
        overflow: upstream.pool.overflow as usize,
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        allow_uids: config.listen.allow_uids.clone(),
        tcp_password_file: config
            .listen
            .tcp
            .as_ref()
            .map(|tcp| tcp.password_file.clone()),
        max_sessions: config.listen.max_sessions,
        has_reserve: config.budget.warm > 0,
        holders: config.errors.holders,
    }
}
