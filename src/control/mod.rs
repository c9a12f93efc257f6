//! The control API: HTTP over a Unix socket, for whoever begins, ends and inspects executions.
//!
//! Nothing here touches the data plane's locks: every look goes by way of
//! [`Remote::ask`](crate::execution::Remote::ask), one turn of its loop. Statements are made
//! presentable on this side.
//!
//! | module | gives |
//! |---|---|
//! | `server` `stall` | connections: who may connect, how many, how long they may take |
//! | [`router`] | from a request to its answer |
//! | [`problem`] | what is said when something is refused (RFC 9457) |
//! | [`types`] | what is answered otherwise |
//! | [`remedies`] | what is done about exhaustion, as the status tells it |
//! | `status` `include` `executions` `create` `hold` `events` `resources` `sessions` `session` `cleanup` `health` `seeds` `pause` `life` [`configuration`] | the routes |
//! | `sql` | `POST /v1/executions/{id}/query`, over a session of our own |
//! | [`within`] | how control gets such a session |
//! | `body` `query` `url` | what is read of requests, and the URL that is answered |

mod body;
mod cleanup;
pub mod configuration;
mod create;
mod events;
mod executions;
mod health;
mod heartbeat;
mod hold;
mod include;
mod life;
pub mod openapi;
mod pause;
pub mod problem;
mod query;
pub mod remedies;
mod resources;
pub mod router;
mod seeds;
mod server;
mod session;
mod sessions;
mod sql;
mod stall;
mod status;
mod story;
pub mod types;
mod url;
pub mod within;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use tokio::sync::{Notify, Semaphore, watch};

use crate::budget::Exhaustion;
use crate::execution::Remote;
use crate::monitor::Monitor;
use crate::pool::{PoolLimits, UpstreamNumber};
use crate::shutdown::Life;

pub use configuration::Configuration;
pub use health::Room;
use health::Watched;
pub use remedies::Reactor;
pub use within::Within;

/// How many `hold` streams may be open at once.
const HOLDS: usize = 4096;

/// How many queries may be under way at once: each may wait for long, and hold some megabytes. Far
/// fewer than the connections that may ask, so that who asks something else is answered.
const QUERIES: usize = 32;
/// How many streams of events may be open at once.
const READERS: usize = 4096;

/// What the API tells of the process and its configuration.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The directory of the PostgreSQL socket.
    pub socket_dir: PathBuf,
    /// The number in its name.
    pub port: u16,
    /// The upstreams, in the order of the configuration; at least one.
    pub upstreams: Vec<UpstreamFacts>,
    /// The version of execpool.
    pub version: &'static str,
    /// When the process began.
    pub started: Instant,
    /// Whether the administrative routes are there.
    pub admin: bool,
    /// The users that may connect; none: any that the permissions let in.
    pub allow_uids: Option<Vec<u32>>,
    /// Where probes are answered; none: nowhere.
    pub telemetry: Option<SocketAddr>,
    /// Where PostgreSQL clients come in over TCP; none where that is off.
    pub tcp: Vec<SocketAddr>,
    /// What the process has come to.
    pub life: Arc<Life>,
}

/// What the API tells of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamFacts {
    /// What clients name as their database; `*` takes every other name.
    pub name: String,
    /// The database at the server.
    pub database: String,
    /// The user that clients name.
    pub user: String,
    /// The limits of a pool that has none of its own.
    pub limits: PoolLimits,
}

/// The control API.
#[derive(Debug)]
pub struct Control {
    remote: Remote,
    configuration: Configuration,
    /// Exchanged as a whole; locked for as long as it takes to copy a pointer.
    outlook: RwLock<Arc<Outlook>>,
    /// Told when there are other databases to look after.
    changed: Notify,
    /// Told when they are to be asked at once.
    sooner: Arc<Notify>,
    /// The places of `hold` streams.
    holds: Arc<Semaphore>,
    /// The places of queries.
    queries: Arc<Semaphore>,
    within: Within,
    /// The places of readers of events.
    readers: Arc<Semaphore>,
    shown: Shown,
}

/// What is shown of who looks for exhaustion, and does something about it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Whether connections run out.
    pub exhaustion: watch::Receiver<Exhaustion>,
    /// What is done about it.
    pub reactor: watch::Receiver<Arc<Reactor>>,
}

impl Shown {
    /// Connections never run out, and nothing is done.
    #[must_use]
    pub fn healthy(now: Instant) -> Self {
        Self {
            exhaustion: watch::channel(Exhaustion::healthy(now)).1,
            reactor: watch::channel(Arc::default()).1,
        }
    }
}

/// What is configured of the API, at one moment.
#[derive(Debug)]
struct Outlook {
    facts: Facts,
    /// One for each upstream, in the order of the configuration.
    watched: Vec<Arc<Watched>>,
}

impl Control {
    /// The API over these executions; `monitors` has one for each upstream, in the order of the
    /// configuration, which is that of their numbers. The configuration is nobody's to see, and queries
    /// are not served; connections never run out.
    #[must_use]
    pub fn new(remote: Remote, monitors: Vec<Arc<Monitor>>, facts: Facts) -> Arc<Self> {
        let (unseen, closed) = (Configuration::unseen(), Within::closed());
        let well = Shown::healthy(facts.started);
        Self::over(remote, monitors, facts, unseen, closed, well)
    }

    /// The same, with routes for the configuration, and with queries over sessions of our own.
    #[must_use]
    pub fn over(
        remote: Remote,
        monitors: Vec<Arc<Monitor>>,
        facts: Facts,
        configuration: Configuration,
        within: Within,
        shown: Shown,
    ) -> Arc<Self> {
        let numbered = (0..).map(UpstreamNumber).zip(monitors);
        let watched = numbered.map(|(number, monitor)| Arc::new(Watched::new(number, monitor)));
        Arc::new(Self {
            outlook: RwLock::new(Arc::new(Outlook {
                facts,
                watched: watched.collect(),
            })),
            changed: Notify::new(),
            sooner: Arc::default(),
            holds: Arc::new(Semaphore::new(HOLDS)),
            queries: Arc::new(Semaphore::new(QUERIES)),
            within,
            readers: Arc::new(Semaphore::new(READERS)),
            shown,
            remote,
            configuration,
        })
    }

    /// Tells other facts from now on, and looks after these databases, in the order of the
    /// configuration; what was seen of those that stay is kept.
    pub fn reconfigure(&self, monitors: Vec<(UpstreamNumber, Arc<Monitor>)>, facts: Facts) {
        let before = self.outlook();
        let watched = monitors.into_iter().map(|(number, monitor)| {
            let mut known = before.watched.iter();
            let known = known.find(|known| known.is(number, &monitor)).cloned();
            known.unwrap_or_else(|| Arc::new(Watched::new(number, monitor)))
        });
        let watched = watched.collect();
        *self.outlook.write() = Arc::new(Outlook { facts, watched });
        self.changed.notify_one();
    }

    /// What is configured now.
    fn outlook(&self) -> Arc<Outlook> {
        Arc::clone(&self.outlook.read())
    }
}
