//! The data plane: its thread, and what lives on it.

use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::budget::Budget;
use crate::client::{Served, Service, Settings};
use crate::config::{self, Config};
use crate::execution::{Executions, Rules, Untagged, Upstream};
use crate::listener::BoundSocket;
use crate::monitor::Monitor;
use crate::pool::{Lender, PoolLimits, UpstreamNumber};
use crate::session::Table;

use super::{StartError, keeper, terminate};

/// A socket that is listened on, and its place in the directory.
pub(super) type Bound = (StdListener, BoundSocket);

/// The thread on which sessions and pools live.
pub(super) struct DataPlane {
    executions: Arc<Executions>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl DataPlane {
    /// Starts it, serving the socket. Backends are ended by force through `monitors`, on `main`.
    pub(super) fn start(
        config: &Config,
        socket: Bound,
        tcp: Vec<StdTcpListener>,
        main: &Handle,
        monitors: &[Arc<Monitor>],
    ) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let lender = Lender::new(budget(config), runtime.handle().clone());
        let executions = Executions::new(
            rules(config),
            config.execution.grace,
            config.upstreams.iter().map(upstream).collect(),
            lender,
            Arc::new(Table::default()),
            terminate(monitors, main),
            runtime.handle().clone(),
        );
        let service = Service::new(Arc::clone(&executions), served(config), settings(config));
        let (stop, stopped) = oneshot::channel();
        let keeper = keeper::run(Arc::clone(&executions), config.maintenance.interval);
        let thread = std::thread::Builder::new()
            .name("data".to_owned())
            .spawn(move || serve(&runtime, service, (socket, tcp), keeper, stopped))
            .map_err(StartError::Runtime)?;
        Ok(Self {
            executions,
            stop,
            thread,
        })
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
    ((listener, _place), tcp): (Bound, Vec<StdTcpListener>),
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
            Err(error) => tracing::error!(%error, "cannot listen on the PostgreSQL socket"),
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

fn upstream(upstream: &config::Upstream) -> Upstream {
    Upstream {
        name: upstream.name.as_str().into(),
        limits: limits(upstream),
    }
}

/// The limits of a pool that has none of its own.
pub(super) fn limits(upstream: &config::Upstream) -> PoolLimits {
    PoolLimits {
        size: upstream.pool.size as usize,
        overflow: upstream.pool.overflow as usize,
    }
}

fn served(config: &Config) -> Vec<Served> {
    let numbered = (0..).zip(&config.upstreams);
    numbered
        .map(|(number, upstream)| Served {
            number: UpstreamNumber(number),
            name: upstream.name.as_str().into(),
            config: upstream.clone(),
        })
        .collect()
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
