//! Ending backends of one's own user.

use std::net::SocketAddr;
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use crate::server::Backend;

use super::Question;

/// Signals the clients' backends with these process ids that are at least so old. A number may
/// have passed to another backend meanwhile, to another user's, or to no client's. They are chosen before any is signalled: as
/// one more condition, the planner could put the signal before the others.
const SIGNAL: &str = "
    WITH chosen AS MATERIALIZED (
        SELECT pid FROM pg_catalog.pg_stat_activity
         WHERE pid = ANY ($1) AND backend_start <= now() - $2 * interval '1 second'
           AND pid <> pg_catalog.pg_backend_pid()
           AND usename = session_user AND backend_type = 'client backend')
    SELECT pid FROM chosen WHERE pg_catalog.pg_terminate_backend(pid)";

/// The demand that these backends end; answered by how many were signalled.
pub(super) struct Terminate<'a> {
    pub(super) backends: &'a [Backend],
    /// Those that have begun since are others.
    pub(super) older_than: Duration,
}

impl Question for Terminate<'_> {
    type Answer = usize;

    async fn put(&self, client: &Client, machine: Option<SocketAddr>) -> Result<usize, Error> {
        let here = self
            .backends
            .iter()
            .filter(|known| known.machine == machine);
        let pids: Vec<i32> = here.map(|backend| backend.pid).collect();
        let elsewhere = self.backends.len() - pids.len();
        if elsewhere > 0 {
            tracing::warn!(
                event = "backends.elsewhere",
                elsewhere,
                "backends are on another server than the one that is asked; they are not signalled"
            );
        }
        let signalled = client
            .query_typed(
                SIGNAL,
                &[
                    (&pids, Type::INT4_ARRAY),
                    (&self.older_than.as_secs_f64(), Type::FLOAT8),
                ],
            )
            .await?;
        Ok(signalled.len())
    }
}
