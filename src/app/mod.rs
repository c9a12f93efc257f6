//! Wiring: from a configuration to a running process, and its end.
//!
//! Two threads, each with a runtime of its own: sessions and pools on the data plane's, everything
//! that looks at them from outside on the main one.
//!
//! | module | gives |
//! |---|---|
//! | [`error`] | why the process does not start |
//! | `data` | the data plane: its thread, what lives on it |
//! | `keeper` | what time alone does on the data plane |
//! | `status_log` | how everything is, into the log, every few minutes |
//! | `stop` | from a signal to the exit |

mod data;
pub mod error;
mod keeper;
mod status_log;
mod stop;

use std::sync::Arc;
use std::time::Instant;

use tokio::net::UnixListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::config::{Config, Loaded};
use crate::control::{Control, Facts, UpstreamFacts};
use crate::execution::Remote;
use crate::listener::{Access, Directory, bind_tcp};
use crate::monitor::Monitor;
use crate::telemetry;

use data::DataPlane;
pub use error::StartError;

/// Runs until a signal ends it.
///
/// # Errors
/// What keeps it from starting; nothing is left behind then.
pub fn run(loaded: &Loaded) -> Result<(), StartError> {
    let config = &loaded.config;
    let _log = telemetry::init(&config.log)?;
    telemetry::install_panic_hook();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    allow_all_descriptors();
    let directory = Directory::claim(&config.listen.dir)?;
    let access = Access {
        mode: config.listen.mode,
        group: config.listen.group.clone(),
    };
    let control_socket = directory.bind("control.sock", &access)?;
    let postgres_socket = directory.bind(&format!(".s.PGSQL.{}", config.listen.port), &access)?;
    let tcp = listen_on_tcp(config)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let monitors = monitors(config);
    let data = DataPlane::start(config, postgres_socket, tcp, runtime.handle(), &monitors)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %config.listen.socket().display(),
        upstreams = %names(config),
        budget = config.budget.total(),
        "execpool serves"
    );
    runtime.block_on(watch(config, control_socket, monitors, data));
    Ok(())
}

/// The main thread's part: looks at the data plane until a signal ends the process.
async fn watch(
    config: &Config,
    (control_socket, _place): data::Bound,
    monitors: Vec<Arc<Monitor>>,
    data: DataPlane,
) {
    let remote = Remote::new(Arc::clone(data.executions()));
    for monitor in &monitors {
        tokio::spawn(look_for(Arc::clone(monitor), config.budget.total()));
    }
    let started = Instant::now();
    let control = Control::new(remote.clone(), monitors, facts(config, started));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = match UnixListener::from_std(control_socket) {
        Ok(listener) => tokio::spawn(control.serve(listener, async {
            let _ = stopped.await;
        })),
        Err(error) => {
            tracing::error!(%error, "cannot listen on the control socket");
            return data.stop();
        }
    };
    if let Some(interval) = config.telemetry.status_log {
        tokio::spawn(status_log::run(remote.clone(), interval, started));
    }
    stop::wait(config, &remote).await;
    drop(stop);
    // Answers under way are finished, within a bound of its own; a panic in it was logged.
    let _ = serving.await;
    data.stop();
    tracing::info!("execpool ends");
}

/// The listeners on TCP, none where it is off; what is not on the loopback is no configuration.
fn listen_on_tcp(config: &Config) -> Result<Vec<std::net::TcpListener>, StartError> {
    let Some(tcp) = &config.listen.tcp else {
        return Ok(Vec::new());
    };
    let listeners = bind_tcp(tcp.at.first(), |port| tcp.at.second(port))?;
    for listener in &listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "execpool listens on TCP");
        }
    }
    Ok(listeners)
}

/// Each session needs a descriptor, each server connection another: the soft limit, often 1,024,
/// is raised to the hard one.
fn allow_all_descriptors() {
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    let raised =
        getrlimit(RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
}

/// What the control API tells of the process.
fn facts(config: &Config, started: Instant) -> Facts {
    let upstreams = config.upstreams.iter();
    Facts {
        socket_dir: config.listen.dir.clone(),
        port: config.listen.port,
        upstreams: upstreams
            .map(|upstream| UpstreamFacts {
                name: upstream.name.clone(),
                database: upstream.target.database.clone(),
                user: upstream.target.user.clone(),
                limits: data::limits(upstream),
            })
            .collect(),
        version: env!("CARGO_PKG_VERSION"),
        started,
        admin: config.control.admin,
        allow_uids: config.control.allow_uids.clone(),
    }
}

/// Says once whether an upstream can be reached, and whether one pod could take most of it.
async fn look_for(monitor: Arc<Monitor>, budget: u32) {
    let health = match monitor.health().await {
        Ok(health) => health,
        Err(error) => {
            return tracing::warn!(%error, "the database does not answer; sessions will be told");
        }
    };
    tracing::info!(
        upstream = monitor.upstream(),
        server_version = health.server_version,
        max_connections = health.max_connections,
        "the database answers"
    );
    if budget > health.max_connections / 2 {
        tracing::warn!(
            upstream = monitor.upstream(),
            budget,
            max_connections = health.max_connections,
            "the budget of this pod is over half of the database's max_connections; \
             lower budget.size and budget.overflow if others use it too"
        );
    }
}

fn monitors(config: &Config) -> Vec<Arc<Monitor>> {
    let upstreams = config.upstreams.iter();
    upstreams
        .map(|upstream| Arc::new(Monitor::new(upstream)))
        .collect()
}

fn names(config: &Config) -> String {
    let names: Vec<&str> = config
        .upstreams
        .iter()
        .map(|upstream| upstream.name.as_str())
        .collect();
    names.join(", ")
}

/// What `pg_terminate_backend` does, asked from the data plane and done on the main thread.
fn terminate(monitors: &[Arc<Monitor>], runtime: &Handle) -> crate::execution::Terminate {
    let (monitors, runtime) = (monitors.to_vec(), runtime.clone());
    Box::new(move |upstream, pids, older_than| {
        let (tell, asked) = oneshot::channel();
        if let Some(monitor) = monitors.get(upstream.0 as usize).cloned() {
            runtime.spawn(async move {
                let ended = monitor.terminate(&pids, older_than).await;
                match &ended {
                    Ok(count) => tracing::info!(count, ?pids, "backends ended by force"),
                    Err(error) => tracing::warn!(%error, ?pids, "backends could not be ended"),
                }
                // Who asked may not want to know.
                let _ = tell.send(ended.is_ok());
            });
        }
        asked
    })
}
