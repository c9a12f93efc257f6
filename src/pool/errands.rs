//! What the lender does outside its lock, each in a task of its own: dials and goodbyes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::metrics::Class;
use crate::server::{ConnectError, Connection};

use super::dialer::Slot;
use super::lender::Lender;
use super::stock::Store;
use super::{KeyId, PoolId};

/// How long the server's end of a closing connection is waited for; its permit is given
/// up for free after that, as a server that never answers would keep it for ever. Longer than
/// the end of an execution waits, which must see what remains.
const CLOSING: Duration = Duration::from_secs(8);

/// How long a dial may go on whose pool was shut. One that succeeds is closed properly, so
/// that its permit covers it in the server's own log.
const ABANDONED: Duration = Duration::from_millis(500);

impl Lender {
    /// Connects, and reports what came of it.
    pub(super) fn dial(
        self: &Arc<Self>,
        pool: PoolId,
        key: KeyId,
        store: Store,
        shutting: Arc<Notify>,
    ) {
        let lender = Arc::clone(self);
        let epoch = self.epoch();
        // Made here, so that a shut before the task's first turn is not missed.
        let shut = shutting.notified_owned();
        self.runtime.spawn(async move {
            let abandoned = async {
                shut.await;
                tokio::time::sleep(ABANDONED).await;
            };
            let timings = lender.timings(pool.upstream);
            let begun = timings.map(|timings| (timings, Instant::now()));
            let dialled = tokio::select! {
                dialled = store.dedicated_connection() => Some(dialled),
                () = abandoned => None,
            };
            if let (Some((timings, begun)), Some(Ok(_))) = (begun, &dialled) {
                timings.created(begun.elapsed());
            }
            if let Some(Err(error)) = &dialled {
                let class = Class::of(error.sqlstate().as_str());
                lender.counters.failed(error.phase(), class);
            }
            match dialled {
                Some(Ok(slot)) => lender.opened(pool, key, &store, Slot { epoch, ..slot }),
                Some(Err(error)) if error.is_limited_by_database() => {
                    lender.change(|inner| inner.database_full(pool, key), None);
                    lender.tell_full(pool.upstream, &error);
                }
                Some(Err(error)) => lender.failed(pool, key, error),
                None => lender.undialled(pool, key, None),
            }
        });
    }

    /// Nothing has come of a dial; `why` is for the one whom it is refused.
    fn undialled(self: &Arc<Self>, pool: PoolId, key: KeyId, why: Option<ConnectError>) {
        self.change(
            |inner| inner.gone(pool, |gate| gate.dial_failed(pool, key)),
            why,
        );
    }

    /// A dial has failed: who waits for it is told, or waits until somebody is there again.
    fn failed(self: &Arc<Self>, pool: PoolId, key: KeyId, error: ConnectError) {
        let (postponed, news) = {
            let mut inner = self.ledger.lock();
            let was_away = inner.reaches.away(pool.upstream).is_some();
            let postponed = inner.reaches.postponed(pool.upstream, &error);
            let is_news = !was_away && postponed.is_some();
            (postponed, is_news.then(|| inner.name(pool.upstream)))
        };
        if let Some(name) = news {
            self.tell_away(&name, &error);
        }
        let Some(pause) = postponed else {
            return self.undialled(pool, key, Some(error));
        };
        self.change(
            |inner| inner.gone(pool, |gate| gate.dial_postponed(pool, key)),
            None,
        );
        if let Some(pause) = pause {
            let lender = Arc::clone(self);
            self.runtime.spawn(async move {
                tokio::time::sleep(pause).await;
                lender.change(|inner| inner.gate.look_again(pool.upstream), None);
            });
        }
    }

    /// Says that connections of an upstream go without TLS that were meant to have it: once for
    /// each upstream and reason.
    fn warn_of_plain(&self, pool: PoolId, slot: &mut Slot) {
        let connection = slot.connection.as_mut();
        if let Some(error) = connection.and_then(Connection::take_failed_tls)
            && self
                .ledger
                .lock()
                .told_plain
                .insert((pool.upstream, error.hint()))
        {
            tracing::warn!(event = "tls.none", %error, "connections go without TLS, as sslmode=prefer allows for it");
        }
    }

    fn opened(self: &Arc<Self>, pool: PoolId, key: KeyId, store: &Store, mut slot: Slot) {
        self.warn_of_plain(pool, &mut slot);
        let backend = slot.connection.as_ref().map(Connection::backend);
        // A store has room for all that the gate may ever let through.
        match store.add(slot) {
            Ok(()) => {
                let mut back = None;
                self.change(
                    |inner| {
                        if let (Some(door), Some(backend)) = (inner.doors.get_mut(&pool), backend) {
                            door.backends.insert(backend);
                        }
                        let PoolId {
                            execution,
                            upstream,
                        } = pool;
                        tracing::debug!(
                            execution_number = execution.0,
                            upstream_number = upstream.0,
                            server_pid = backend.map(|backend| backend.pid),
                            "opened"
                        );
                        let away = inner.reaches.reached(upstream);
                        back = away.map(|away| (inner.name(upstream), away));
                        inner.gate.opened(pool, key)
                    },
                    None,
                );
                if let Some((name, away)) = back {
                    self.tell_back(&name, away);
                }
                self.tell_raised();
            }
            Err(_) => self.undialled(pool, key, None),
        }
    }

    /// Says goodbye in the background; its room is free when the server's end was seen.
    pub(super) fn close(
        self: &Arc<Self>,
        pool: PoolId,
        key: KeyId,
        connection: Option<Connection>,
    ) {
        let lender = Arc::clone(self);
        self.runtime.spawn(async move {
            let backend = connection.as_ref().map(Connection::backend);
            if let Some(connection) = connection {
                let _ = tokio::time::timeout(CLOSING, connection.terminate()).await;
            }
            lender.change(|inner| inner.closed(pool, key, backend), None);
        });
    }
}
