//! The doors: every socket that the process is reached by, bound before anything is served.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use crate::config::Config;
use crate::listener::{Access, BoundSocket, Directory, bind_tcp};
use crate::telemetry::probes;

use super::StartError;

/// The sockets.
pub(super) struct Doors {
    /// The control API's.
    pub(super) control: UnixListener,
    /// For PostgreSQL clients: in the directory, and over TCP.
    pub(super) clients: (UnixListener, Vec<TcpListener>),
    /// For probes; none where they are not answered.
    pub(super) probes: Option<TcpListener>,
    /// Where those in the directory are.
    pub(super) places: Arc<Places>,
    /// Where the others are.
    pub(super) addresses: Addresses,
}

/// The sockets' places in the directory, which nobody else uses for as long as this is kept.
#[derive(Debug)]
pub(super) struct Places {
    sockets: [BoundSocket; 2],
    /// Given up after the sockets.
    _directory: Directory,
}

/// Where the process is reached over TCP.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    /// Where probes are answered; none: nowhere.
    pub(super) telemetry: Option<SocketAddr>,
    /// Where PostgreSQL clients come in.
    pub(super) tcp: Vec<SocketAddr>,
}

impl Doors {
    /// Binds them.
    ///
    /// # Errors
    /// One of them can't be had; then there is none.
    pub(super) fn open(config: &Config) -> Result<Self, StartError> {
        // The directory first: a second execpool on it is told so, and not that the first one's port is in use.
        let directory = Directory::claim(&config.listen.dir)?;
        let probes = config.telemetry.listen.map(probes::bind).transpose()?;
        let access = access(config);
        let (control, control_place) = directory.bind("control.sock", &access)?;
        let name = format!(".s.PGSQL.{}", config.listen.port);
        let (postgres, postgres_place) = directory.bind(&name, &access)?;
        let tcp = listen_on_tcp(config)?;
        let addresses = Addresses::of(probes.as_ref(), &tcp);
        Ok(Self {
            control,
            clients: (postgres, tcp),
            probes,
            places: Arc::new(Places {
                sockets: [control_place, postgres_place],
                _directory: directory,
            }),
            addresses,
        })
    }
}

impl Places {
    /// Lets others connect to the sockets than before, to both or to none.
    ///
    /// # Errors
    /// Why the system does not let us, as a sentence.
    pub(super) fn permit(&self, old: &Access, new: &Access) -> Result<(), String> {
        if old == new {
            return Ok(());
        }
        let permitted = self.sockets.iter().try_for_each(|place| place.permit(new));
        permitted.map_err(|error| {
            for place in &self.sockets {
                // As it was until now, which the system had let us do.
                let _ = place.permit(old);
            }
            error.to_string()
        })
    }
}

impl Addresses {
    /// What is known of them once they are bound, also for port 0.
    fn of(probes: Option<&TcpListener>, tcp: &[TcpListener]) -> Self {
        let at = |listener: &TcpListener| listener.local_addr().ok();
        Self {
            telemetry: probes.and_then(at),
            tcp: tcp.iter().filter_map(at).collect(),
        }
    }
}

/// Who may connect to the sockets in the directory.
pub(super) fn access(config: &Config) -> Access {
    Access {
        mode: config.listen.mode,
        group: config.listen.group.clone(),
    }
}

/// The listeners on TCP, none where it is off; what is not on the loopback is no configuration.
fn listen_on_tcp(config: &Config) -> Result<Vec<TcpListener>, StartError> {
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
