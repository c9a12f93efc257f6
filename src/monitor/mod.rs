//! What execpool itself asks a database, over one connection per upstream and outside the
//! budget: how the server is, and to end a backend.
//!
//! | module | gives |
//! |---|---|
//! | [`health`] | what is asked of a server, and its answer |
//! | `termination` | ending backends of one's own user |
//! | `dialer` | how bb8 opens the connection: the password read anew, one host after the other |
//! | `line` | the connection and the task that drives it |
//! | `wary` | a login that does not give the password away |
//! | [`error`] | why there is no answer |

mod dialer;
pub mod error;
pub mod health;
mod line;
mod termination;
mod wary;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bb8::PooledConnection;
use tokio::sync::{Mutex, OnceCell};
use tokio_postgres::Client;

use crate::config::{Upstream, UpstreamKind};
use crate::server::{Backend, Password};

use dialer::Dialer;
use error::Problem;
use health::HowAreYou;
use termination::Terminate;

pub use error::{ErrorKind, MonitorError};
pub use health::Health;

/// The `application_name` of the connection.
pub const APPLICATION_NAME: &str = "execpool monitor";

/// The idleness at which the connection is closed.
const IDLE: Duration = Duration::from_secs(60);

/// How often its idleness is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Asks one upstream's database, over one connection that is opened when first needed.
///
/// Callers may ask at the same time; they are answered one after the other. Every question
/// is answered within the upstream's `connect_timeout`, the wait for the others included.
#[derive(Debug)]
pub struct Monitor {
    dialer: Dialer,
    kind: UpstreamKind,
    timeout: Duration,
    /// Who holds it has the connection to itself.
    turn: Mutex<()>,
    /// Made at the first question: bb8's sweep needs a runtime to live on.
    pool: OnceCell<bb8::Pool<Dialer>>,
}

/// Something that a server can be asked, more than once if need be.
trait Question: Sync {
    type Answer: Send;

    fn put(
        &self,
        client: &Client,
        machine: Option<SocketAddr>,
    ) -> impl Future<Output = Result<Self::Answer, tokio_postgres::Error>> + Send;
}

impl Monitor {
    /// The monitor of `upstream`. Nothing is dialled yet.
    #[must_use]
    pub fn new(upstream: &Upstream) -> Self {
        Self {
            dialer: Dialer::new(upstream),
            kind: upstream.kind,
            timeout: upstream.connect_timeout,
            turn: Mutex::new(()),
            pool: OnceCell::new(),
        }
    }

    /// The same, with a password that others ask for as well: its command is run once for all.
    #[must_use]
    pub fn sharing(mut self, password: Password) -> Self {
        self.dialer.password = password;
        self
    }

    /// The name of the upstream.
    #[must_use]
    pub fn upstream(&self) -> &str {
        self.dialer.upstream()
    }

    /// How the server is.
    ///
    /// Cancel safe: a connection whose question was dropped is closed.
    ///
    /// # Errors
    /// See [`MonitorError`].
    pub async fn health(&self) -> Result<Health, MonitorError> {
        self.ask(&HowAreYou).await
    }

    /// Ends those of `backends` that are still backends of this upstream's user and at least so old,
    /// and answers how many were signalled. A backend notices the signal a little later. One on
    /// another machine than the one that is asked, as after a failover, is left alone: there the
    /// number may be anybody's. At a pooler none is ended.
    ///
    /// Cancel safe: the backends may have been signalled all the same.
    ///
    /// # Errors
    /// See [`MonitorError`].
    pub async fn terminate(
        &self,
        backends: &[Backend],
        older_than: Duration,
    ) -> Result<usize, MonitorError> {
        // A pooler makes its numbers up: at the server they are anybody's.
        if backends.is_empty() || self.kind == UpstreamKind::Pooler {
            return Ok(0);
        }
        self.ask(&Terminate {
            backends,
            older_than,
        })
        .await
    }

    async fn ask<Q: Question>(&self, question: &Q) -> Result<Q::Answer, MonitorError> {
        let answer = tokio::time::timeout(self.timeout, self.answer(question)).await;
        answer
            .unwrap_or(Err(Problem::Timeout(self.timeout)))
            .map_err(|problem| MonitorError::new(self.upstream(), problem))
    }

    /// Asks over the open connection. One that turns out to be dead is replaced, once: its
    /// end may have been under way when it was asked.
    async fn answer<Q: Question>(&self, question: &Q) -> Result<Q::Answer, Problem> {
        let _turn = self.turn.lock().await;
        let pool = self.pool.get_or_init(async || self.build()).await;
        if let Some(mut open) = self.kept(pool).await {
            match open.ask(question).await {
                Err(Problem::Ended(_)) => {}
                answer => return answer,
            }
        }
        dialled(pool).await?.ask(question).await
    }

    /// The connection, if it is open, not known to be dead, and leads where it should.
    async fn kept<'a>(&self, pool: &'a bb8::Pool<Dialer>) -> Option<PooledConnection<'a, Dialer>> {
        if pool.state().idle_connections == 0 {
            return None;
        }
        let mut place = pool.get().await.ok()?;
        // One that is not kept leaves bb8 as it is dropped.
        let is_kept = !place.is_over() && self.dialer.still_leads_well(&mut place).await;
        is_kept.then_some(place)
    }

    fn build(&self) -> bb8::Pool<Dialer> {
        bb8::Pool::builder()
            .max_size(1)
            .max_lifetime(None)
            .idle_timeout(IDLE)
            .reaper_rate(LOOK)
            .connection_timeout(self.timeout)
            .test_on_check_out(false)
            .retry_connection(false)
            .build_unchecked(self.dialer.clone())
    }
}

/// A new connection. bb8 would hide why there is none, so it is dialled beside bb8 and then
/// handed over; it comes back at once, as this is the only caller.
async fn dialled(pool: &bb8::Pool<Dialer>) -> Result<PooledConnection<'_, Dialer>, Problem> {
    let slot = pool.dedicated_connection().await?;
    // One that has broken meanwhile is refused, and so is one for which there is no room as
    // bb8 has opened one: in both cases it is dropped, and bb8 asked for its own.
    let _ = pool.add(slot);
    pool.get().await.map_err(|_| Problem::Ended(None))
}
