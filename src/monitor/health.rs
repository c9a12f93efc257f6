//! How a server is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error, Row};

use super::Question;

/// How a server is, as far as an ordinary role may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The round trip of a trivial query on the open connection.
    pub latency: Duration,
    /// The server's version in its own words, such as `16.4 (Debian 16.4-1)`.
    pub server_version: String,
    /// The server's `max_connections`.
    pub max_connections: u32,
    /// How many of these are kept from ordinary roles: `superuser_reserved_connections`,
    /// and from PostgreSQL 16 on `reserved_connections`.
    pub reserved: u32,
    /// The clients' backends of the whole server, the monitor's own among them. A role that
    /// may not read all statistics takes other roles' background workers for clients.
    pub connections: u32,
    /// Whether it is a standby.
    pub in_recovery: bool,
}

/// All of a [`Health`] but the latency.
///
/// To an ordinary role, `pg_stat_activity` does not say what other roles' backends are. It
/// shows their user, which the server's own processes have none of, and their database,
/// which a physical WAL sender has none of; a logical one is in `pg_stat_replication`.
const FACTS: &str = "
    SELECT pg_catalog.current_setting('server_version'),
           pg_catalog.current_setting('max_connections')::int4,
           pg_catalog.current_setting('superuser_reserved_connections')::int4
             + coalesce(pg_catalog.current_setting('reserved_connections', true)::int4, 0),
           (SELECT count(*)::int4 FROM pg_catalog.pg_stat_activity
             WHERE backend_type = 'client backend'
                OR backend_type IS NULL AND usesysid IS NOT NULL AND datid IS NOT NULL
                   AND pid NOT IN (SELECT pid FROM pg_catalog.pg_stat_replication)),
           pg_catalog.pg_is_in_recovery()";

/// The question for [`Health`].
pub(super) struct HowAreYou;

impl Question for HowAreYou {
    type Answer = Health;

    async fn put(&self, client: &Client, _: Option<SocketAddr>) -> Result<Health, Error> {
        let start = Instant::now();
        client.simple_query("SELECT 1").await?;
        let latency = start.elapsed();
        // Typed, so that nothing is prepared: a pooler in between may not keep it.
        let row = client.query_typed_one(FACTS, &[]).await?;
        Ok(Health {
            latency,
            server_version: row.try_get(0)?,
            max_connections: count(&row, 1)?,
            reserved: count(&row, 2)?,
            connections: count(&row, 3)?,
            in_recovery: row.try_get(4)?,
        })
    }
}

/// A count, which is never below zero.
fn count(row: &Row, column: usize) -> Result<u32, Error> {
    let count: i32 = row.try_get(column)?;
    Ok(count.max(0).unsigned_abs())
}
