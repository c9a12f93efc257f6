//! The house: all that there is before anybody looks.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::{Config, Loaded, Running};
use crate::events::{Event, Events, Text};
use crate::shutdown::Life;
use crate::telemetry::{Environment, Exports, LogGuard};

use super::StartError;
use super::data::{DataPlane, Outside};
use super::doors::{Addresses, Doors, Places};
use super::measuring::Measuring;
use super::monitors::Monitors;
use super::remedies::Whereabouts;
use super::source::{Look, Source};

/// A data plane that serves, and what the main thread needs to look after it.
pub(super) struct House {
    pub(super) data: DataPlane,
    pub(super) running: watch::Sender<Arc<Running>>,
    /// Where the configuration comes from, and what it said there.
    pub(super) source: (Source, Look),
    pub(super) log: Arc<LogGuard>,
    pub(super) monitors: Arc<Monitors>,
    /// None where nothing is measured for others.
    pub(super) measuring: Option<Arc<Measuring>>,
    pub(super) life: Arc<Life>,
    /// Where Kubernetes' API is.
    pub(super) at: Whereabouts,
    pub(super) exports: Exports,
    pub(super) control: UnixListener,
    /// None where probes are not answered.
    pub(super) probes: Option<TcpListener>,
    pub(super) places: Arc<Places>,
    pub(super) addresses: Addresses,
}

impl House {
    /// Builds it; `main` is the main thread's runtime. PostgreSQL clients are served from then on.
    ///
    /// # Errors
    /// What keeps it from starting; nothing is left behind then.
    pub(super) fn build(
        loaded: Loaded,
        source: (Source, Look),
        log: Arc<LogGuard>,
        main: &Handle,
    ) -> Result<Self, StartError> {
        let (running, seen) = watch::channel(Arc::new(Running::new(loaded)));
        let now = Arc::clone(&seen.borrow());
        let (config, env) = (&now.loaded.config, &source.0.env);
        let environment = Environment::new(env);
        let exports = Exports::start(&environment, &config.telemetry, log.dropped(), main)?;
        let at = Whereabouts::find(config.reactor.kubernetes, env)?;
        let doors = Doors::open(config)?;
        let (monitors, events) = (Arc::default(), Arc::new(Events::default()));
        let measuring = measuring(&exports);
        let outside = Outside {
            main,
            monitors: &monitors,
            events: Arc::clone(&events),
            measuring: measuring.as_deref(),
            traces: exports.traces(),
        };
        let data = DataPlane::start(seen, doors.clients, outside)?;
        let life = Arc::new(Life::default());
        life.is_bound_now();
        serves(config, &doors.addresses, &events);
        Ok(Self {
            data,
            running,
            source,
            log,
            monitors,
            measuring,
            life,
            at,
            exports,
            control: doors.control,
            probes: doors.probes,
            places: doors.places,
            addresses: doors.addresses,
        })
    }
}

/// Where nobody reads it, nothing is measured.
fn measuring(exports: &Exports) -> Option<Arc<Measuring>> {
    exports.is_read().then(|| {
        let of_executions = exports.top_executions();
        Arc::new(Measuring::on(&exports.meter(), of_executions.as_ref()))
    })
}

/// Says that clients are served, and where.
fn serves(config: &Config, addresses: &Addresses, events: &Events) {
    let event = Event::Start {
        version: Text::name(env!("CARGO_PKG_VERSION")),
        budget: u64::from(config.budget.total()),
    };
    let upstreams = config.upstreams.iter();
    let upstreams: Vec<&str> = upstreams.map(|upstream| upstream.name.as_str()).collect();
    tracing::info!(
        event = event.name(),
        version = env!("CARGO_PKG_VERSION"),
        socket = %config.listen.socket().display(),
        upstreams = %upstreams.join(", "),
        budget = config.budget.total(),
        telemetry = addresses.telemetry.map(|address| address.to_string()),
        "execpool serves"
    );
    events.tell(event);
}
