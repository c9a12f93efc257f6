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
//! | `status` `executions` `create` `hold` `sessions` `health` `seeds` | the routes |
//! | `body` `query` `url` | what is read of requests, and the URL that is answered |

mod body;
mod create;
mod executions;
mod health;
mod heartbeat;
mod hold;
pub mod problem;
mod query;
pub mod router;
mod seeds;
mod server;
mod sessions;
mod stall;
mod status;
pub mod types;
mod url;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::execution::Remote;
use crate::monitor::Monitor;
use crate::pool::PoolLimits;

use health::Seen;

/// How many `hold` streams may be open at once.
const HOLDS: usize = 4096;

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
    monitors: Vec<Arc<Monitor>>,
    facts: Facts,
    /// What each monitor last told, in their order. Taken on this side alone, for a few
    /// instructions.
    seen: Mutex<Vec<Option<Seen>>>,
    /// The places of `hold` streams.
    holds: Arc<Semaphore>,
}

impl Control {
    /// The API over these executions; `monitors` has one for each upstream, in the order of the
    /// configuration.
    #[must_use]
    pub fn new(remote: Remote, monitors: Vec<Arc<Monitor>>, facts: Facts) -> Arc<Self> {
        Arc::new(Self {
            seen: Mutex::new(vec![None; monitors.len()]),
            holds: Arc::new(Semaphore::new(HOLDS)),
            remote,
            monitors,
            facts,
        })
    }
}
