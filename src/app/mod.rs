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
//! | `measuring` | what is measured of the data plane, and told by instruments |
//! | `monitors` | the monitor of each upstream |
//! | `remedies` | whether connections run out, every second, and what is done about it |
//! | `probing` | what probes are told |
//! | [`source`] | where the configuration comes from |
//! | `reload` `stage` | it is read anew, and applied |
//! | `status_log` | how everything is, into the log, every few minutes |
//! | `stop` `exit` | from a signal, or a decision, to the exit |

mod data;
pub mod error;
mod exit;
mod keeper;
mod measuring;
mod monitors;
mod probing;
mod reload;
mod remedies;
pub mod source;
mod stage;
mod status_log;
mod stop;

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};

use crate::budget::Exhaustion;
use crate::config::{Config, Loaded, Roots, Running};
use crate::control::{Configuration, Control, Facts, Shown, UpstreamFacts, Within};
use crate::events::{Event, Events, Text};
use crate::execution::Remote;
use crate::listener::{BoundSocket, Directory, bind_tcp};
use crate::monitor::Monitor;
use crate::shutdown::Life;
use crate::telemetry::{self, Environment, Exports, LogGuard, probes};

use data::DataPlane;
pub use error::StartError;
pub use exit::Ended;
use exit::Leave;
use measuring::{Measures, Measuring};
use monitors::Monitors;
use reload::Reloader;
use remedies::{Parts, Remedies, Shows, Vigil, Whereabouts};
pub use source::{Look, Source};
use stage::Stage;

/// How long the last export may take: so long where no time is left, and so long at most.
const LAST_EXPORT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// How many requests for a reload may wait for their turn.
const ASKING: usize = 16;

/// Runs until a signal ends it, or the reactor does. `loaded` is what `source` has given at that look. Answers how
/// it has ended.
///
/// # Errors
/// What keeps it from starting; nothing is left behind then.
pub fn run(loaded: Loaded, source: Source, look: Look) -> Result<Ended, StartError> {
    let log = Arc::new(telemetry::init(&loaded.config.log)?);
    telemetry::install_panic_hook();
    for warning in &loaded.warnings {
        tracing::warn!(event = "configuration.warning", "{warning}");
    }
    allow_all_descriptors();
    if loaded
        .config
        .upstreams
        .iter()
        .any(|u| u.target.tls.roots == Roots::System)
    {
        let authorities = crate::server::tls::system_roots();
        tracing::info!(
            event = "tls.system_roots",
            authorities,
            "sslrootcert=system"
        );
    }
    let (running, seen) = watch::channel(Arc::new(Running::new(loaded)));
    let now = Arc::clone(&seen.borrow());
    let config = &now.loaded.config;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let environment = Environment::new(&source.env);
    let exports = Exports::start(
        &environment,
        &config.telemetry,
        log.dropped(),
        runtime.handle(),
    )?;
    let at = Whereabouts::find(config.reactor.kubernetes, &source.env)?;
    // The directory first: a second execpool on it is told so, and not that the first one's port is in use.
    let directory = Directory::claim(&config.listen.dir)?;
    let probes = config.telemetry.listen.map(probes::bind).transpose()?;
    let access = stage::access(config);
    let (control_socket, control_place) = directory.bind("control.sock", &access)?;
    let name = format!(".s.PGSQL.{}", config.listen.port);
    let (postgres_socket, postgres_place) = directory.bind(&name, &access)?;
    let tcp = listen_on_tcp(config)?;
    let monitors = Arc::new(Monitors::default());
    let addresses = Addresses::of(probes.as_ref(), &tcp);
    let events = Arc::new(Events::default());
    let (main, sockets) = (runtime.handle(), (postgres_socket, tcp));
    // Where nobody reads it, nothing is measured.
    let measuring = exports.is_read().then(|| {
        let of_executions = exports.top_executions();
        Arc::new(Measuring::on(&exports.meter(), of_executions.as_ref()))
    });
    let outside = data::Outside {
        main,
        monitors: &monitors,
        events: Arc::clone(&events),
        measuring: measuring.as_deref(),
        traces: exports.traces(),
    };
    let data = DataPlane::start(seen, sockets, outside)?;
    let life = Arc::new(Life::default());
    life.is_bound_now();
    let event = Event::Start {
        version: Text::name(env!("CARGO_PKG_VERSION")),
        budget: u64::from(config.budget.total()),
    };
    tracing::info!(
        event = event.name(),
        version = env!("CARGO_PKG_VERSION"),
        socket = %config.listen.socket().display(),
        upstreams = %names(config),
        budget = config.budget.total(),
        telemetry = addresses.telemetry.map(|address| address.to_string()),
        "execpool serves"
    );
    events.tell(event);
    let house = House {
        running,
        source,
        look,
        log: Arc::clone(&log),
        monitors,
        measuring,
        places: Arc::new([control_place, postgres_place]),
        life,
        at,
        probes,
        addresses,
        exports,
    };
    Ok(runtime.block_on(watch(house, control_socket, data)))
}

/// What the main thread keeps.
struct House {
    running: watch::Sender<Arc<Running>>,
    source: Source,
    look: Look,
    log: Arc<LogGuard>,
    monitors: Arc<Monitors>,
    /// None where nothing is measured for others.
    measuring: Option<Arc<Measuring>>,
    places: Arc<[BoundSocket; 2]>,
    life: Arc<Life>,
    /// Where Kubernetes' API is.
    at: Whereabouts,
    probes: Option<StdTcpListener>,
    addresses: Addresses,
    exports: Exports,
}

/// Where the process is reached over TCP.
#[derive(Debug, Clone)]
struct Addresses {
    /// Where probes are answered; none: nowhere.
    telemetry: Option<SocketAddr>,
    /// Where PostgreSQL clients come in.
    tcp: Vec<SocketAddr>,
}

impl Addresses {
    /// What is known of them once they are bound, also for port 0.
    fn of(probes: Option<&StdTcpListener>, tcp: &[StdTcpListener]) -> Self {
        let at = |listener: &StdTcpListener| listener.local_addr().ok();
        Self {
            telemetry: probes.and_then(at),
            tcp: tcp.iter().filter_map(at).collect(),
        }
    }
}

/// The main thread's part: looks at the data plane until a signal ends the process, or the reactor does.
async fn watch(house: House, control_socket: StdListener, data: DataPlane) -> Ended {
    let life = Arc::clone(&house.life);
    let remote = Remote::new(Arc::clone(data.executions()));
    let running = house.running.subscribe();
    let now = Arc::clone(&running.borrow());
    let config = &now.loaded.config;
    let started = Instant::now();
    let upstreams = data.service().upstreams();
    let monitors = house.monitors.follow(&upstreams);
    for monitor in &monitors {
        let (monitor, life) = (Arc::clone(monitor), Arc::clone(&life));
        let events = Arc::clone(remote.events());
        tokio::spawn(look_for(monitor, config.budget.total(), life, events));
    }
    let addresses = house.addresses;
    let vigil = Vigil::new(remote.clone(), running.clone(), Arc::clone(&life));
    if let Some(listener) = house.probes {
        let scrape = house.exports.scrape();
        let (life, app) = (Arc::clone(&life), vigil.probed());
        probing::begin(listener, remote.clone(), life, app, scrape);
    }
    let (ask, asked) = mpsc::channel(ASKING);
    let configuration = Configuration::new(running.clone(), ask);
    let facts = facts(config, started, &addresses, Arc::clone(&life));
    let service = Arc::clone(data.service());
    let within = Within::new(move |connection, peer| service.welcome(connection, peer));
    let (show_exhaustion, exhaustion) = watch::channel(Exhaustion::healthy(started));
    let (show_remedies, remedies) = watch::channel(Arc::default());
    let shown = Shown {
        exhaustion: exhaustion.clone(),
        remedies,
    };
    let control = Control::over(
        remote.clone(),
        monitors,
        facts,
        configuration,
        within,
        shown,
    );
    let leave = Leave::default();
    let remedies = Remedies::new(Parts {
        remote: remote.clone(),
        control: Arc::clone(&control),
        running: running.clone(),
        life: Arc::clone(&life),
        vigil,
        leave: leave.clone(),
        at: house.at,
        shows: Shows {
            exhaustion: show_exhaustion,
            remedies: show_remedies,
        },
    });
    tokio::spawn(remedies.run());
    let stage = Stage {
        remote: remote.clone(),
        service: Arc::clone(data.service()),
        control: Arc::clone(&control),
        monitors: house.monitors,
        measuring: house.measuring.clone(),
        places: Arc::clone(&house.places),
        log: house.log,
        upstreams,
        started,
        addresses,
        life: Arc::clone(&life),
    };
    let measures = house.measuring.map(|measuring| {
        let (remote, control) = (remote.clone(), Arc::clone(&control));
        Measures::new(
            measuring,
            remote,
            control,
            running.clone(),
            exhaustion.clone(),
        )
    });
    if let Some(measures) = measures.clone() {
        tokio::spawn(measures.run());
    }
    let reloader = Reloader::new(house.source, house.look, stage, house.running);
    tokio::spawn(reloader.run(asked));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = match UnixListener::from_std(control_socket) {
        Ok(listener) => tokio::spawn(control.serve(listener, async {
            let _ = stopped.await;
        })),
        Err(error) => {
            tracing::error!(event = "listen.failed", %error, "cannot listen on the control socket");
            data.stop();
            return Ended::Asked;
        }
    };
    let status = status_log::run(remote.clone(), running.clone(), exhaustion, started);
    tokio::spawn(status);
    let (end, ended) = stop::wait(&running, &remote, &life, &leave).await;
    drop(stop);
    // Answers under way are finished, within a bound of its own; a panic in it was logged.
    let _ = serving.await;
    if let Some(measures) = measures {
        // What was counted since the last second is exported as well: why it ends, above all.
        measures.look().await;
    }
    let left = end.saturating_duration_since(Instant::now());
    house
        .exports
        .shutdown(left.clamp(LAST_EXPORT.0, LAST_EXPORT.1))
        .await;
    data.stop();
    tracing::info!(event = "end", code = ended.code(), "execpool ends");
    ended
}

/// The listeners on TCP, none where it is off; what is not on the loopback is no configuration.
fn listen_on_tcp(config: &Config) -> Result<Vec<std::net::TcpListener>, StartError> {
    let Some(tcp) = &config.listen.tcp else {
        return Ok(Vec::new());
    };
    let listeners = bind_tcp(tcp.at.first(), |port| tcp.at.second(port))?;
    for listener in &listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(event = "listen.tcp", %address, "execpool listens on TCP");
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
        tracing::warn!(event = "descriptors.few", %error, "cannot raise the limit of open descriptors");
    }
}

/// What the control API tells of the process.
fn facts(config: &Config, started: Instant, addresses: &Addresses, life: Arc<Life>) -> Facts {
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
        telemetry: addresses.telemetry,
        tcp: addresses.tcp.clone(),
        life,
    }
}

/// How often an upstream is looked for that has not been reached yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Looks for an upstream until it is reached; says whether it is, and whether one pod could take
/// most of it.
async fn look_for(monitor: Arc<Monitor>, budget: u32, life: Arc<Life>, events: Arc<Events>) {
    // That it does not answer is told by who asks it again and again: `monitor.no_answer`.
    let health = loop {
        match monitor.health().await {
            Ok(health) => break health,
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    };
    if life.has_reached() {
        let event = Event::Ready {
            upstream: Text::name(monitor.upstream()),
        };
        tracing::info!(event = event.name(), upstream = monitor.upstream(), "ready");
        events.tell(event);
    }
    tracing::info!(
        event = "monitor.answer",
        upstream = monitor.upstream(),
        server_version = health.server_version,
        max_connections = health.max_connections,
        "the database answers"
    );
    if budget > health.max_connections / 2 {
        tracing::warn!(
            event = "budget.large",
            upstream = monitor.upstream(),
            budget,
            max_connections = health.max_connections,
            "the budget of this pod is over half of the database's max_connections; \
             lower budget.size and budget.overflow if others use it too"
        );
    }
}

fn names(config: &Config) -> String {
    let names: Vec<&str> = config
        .upstreams
        .iter()
        .map(|upstream| upstream.name.as_str())
        .collect();
    names.join(", ")
}
