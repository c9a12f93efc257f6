//! Lending: carries out what the gate decides, on real connections.
//!
//! All state is under one lock, taken on the data plane's thread alone and never across
//! an await. bb8 stores what is idle, one pool per (execution, key), with its reaper,
//! tests and retries off: the gate has decided before bb8 is asked, so bb8's own wait is
//! never used.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bb8::{PooledConnection, QueueStrategy};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::budget::Budget;
use crate::server::{ConnectError, Connection};

use super::checkout::{Checkout, taken_out};
use super::dialer::{Dialer, Slot, Target};
use super::gate::{Counts, Decision, Gate};
use super::{KeyId, PoolId, PoolLimits, WaiterId};

/// How long the server's end of a closing connection is waited for; its permit is given
/// up for free after that, as a server that never answers would keep it for ever.
const CLOSING: Duration = Duration::from_secs(5);

type Store = bb8::Pool<Dialer>;
type Place = PooledConnection<'static, Dialer>;

/// Why a checkout got nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The pool's execution has ended.
    #[error("the execution has ended")]
    Ended,
    /// Nothing came within the time.
    #[error("no server connection within {} s", .waited.as_secs_f32())]
    TimedOut {
        /// How long it was waited.
        waited: Duration,
        /// Whether the database itself refuses more connections.
        limited_by_database: bool,
    },
    /// The dial that was for this checkout failed.
    #[error(transparent)]
    Dial(#[from] ConnectError),
}

/// Lends server connections to those whom the gate lets through.
#[derive(Debug)]
pub struct Lender {
    inner: Mutex<Inner>,
    runtime: Handle,
}

#[derive(Debug)]
struct Inner {
    gate: Gate,
    targets: HashMap<KeyId, Arc<Target>>,
    stores: HashMap<(PoolId, KeyId), Store>,
    waiting: HashMap<WaiterId, oneshot::Sender<Result<Checkout, Refused>>>,
    next_waiter: u64,
}

/// What a change under the lock leaves to be done outside it.
#[must_use]
#[derive(Default)]
struct After {
    dials: Vec<(PoolId, KeyId, Store)>,
    closings: Vec<(PoolId, KeyId, Option<Connection>)>,
    /// Checkouts whose waiter has gone: dropping them lends them on.
    undelivered: Vec<Checkout>,
}

impl Lender {
    /// A lender within `budget`, whose dials and goodbyes run on `runtime`.
    #[must_use]
    pub fn new(budget: Budget, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                gate: Gate::new(budget),
                targets: HashMap::new(),
                stores: HashMap::new(),
                waiting: HashMap::new(),
                next_waiter: 0,
            }),
            runtime,
        })
    }

    /// Says what connections of `key` are.
    pub fn define(&self, key: KeyId, target: Target) {
        self.inner.lock().targets.insert(key, Arc::new(target));
    }

    /// Opens a pool, or changes its limits; `None` is no limit but the budget's.
    pub fn admit(self: &Arc<Self>, pool: PoolId, limits: Option<PoolLimits>) {
        self.change(|inner| inner.gate.admit(pool, limits), None);
    }

    /// Ends a pool: who waits is refused, what is idle is closed, and what is lent is
    /// closed when it comes back.
    pub fn shut(self: &Arc<Self>, pool: PoolId) {
        self.change(|inner| inner.gate.shut(pool), None);
    }

    /// Allows one connection more than the database last refused.
    pub fn probe(self: &Arc<Self>) {
        self.change(|inner| inner.gate.probe(), None);
    }

    /// Counts of a pool; none once it is shut and empty.
    #[must_use]
    pub fn counts(&self, pool: PoolId) -> Option<Counts> {
        self.inner.lock().gate.counts(pool)
    }

    /// Server connections that are open, those connecting and closing among them, and
    /// how many there may be now.
    #[must_use]
    pub fn open_and_effective(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.gate.budget().open(), inner.gate.budget().effective())
    }

    /// A server connection of `key` for `pool`, waited for at most `patience`. One whose
    /// server has gone meanwhile is replaced unseen.
    ///
    /// Cancel safe: a waiter that is dropped leaves its queue, and what was lent to it
    /// goes to the next.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn checkout(
        self: &Arc<Self>,
        pool: PoolId,
        key: KeyId,
        patience: Duration,
    ) -> Result<Checkout, Refused> {
        let wait = async {
            loop {
                let checkout = self.wait(pool, key).await?;
                if checkout.is_alive() {
                    return Ok(checkout);
                }
                checkout.discard();
            }
        };
        let waited = tokio::time::timeout(patience, wait).await;
        waited.unwrap_or_else(|_| {
            let limited_by_database = self.inner.lock().gate.budget().limited_by_database();
            Err(Refused::TimedOut {
                waited: patience,
                limited_by_database,
            })
        })
    }

    async fn wait(self: &Arc<Self>, pool: PoolId, key: KeyId) -> Result<Checkout, Refused> {
        let (sender, receiver) = oneshot::channel();
        let waiter = self.inner.lock().register(sender);
        let _place = InQueue {
            lender: Arc::clone(self),
            waiter,
        };
        self.change(|inner| inner.gate.arrive(pool, key, waiter), None);
        // The sender is dropped unanswered only by a lender that is being torn down.
        receiver.await.unwrap_or(Err(Refused::Ended))
    }

    /// What connections of a key are.
    pub(super) fn target_of(&self, key: KeyId) -> Option<Arc<Target>> {
        self.inner.lock().targets.get(&key).cloned()
    }

    /// A clean connection comes back.
    pub(super) fn returned(self: &Arc<Self>, pool: PoolId, key: KeyId, place: Place) {
        // Back into bb8, where the decision finds it.
        drop(place);
        self.change(|inner| inner.gate.returned(pool, key), None);
    }

    /// A connection that must not be lent again.
    pub(super) fn discarded(self: &Arc<Self>, pool: PoolId, key: KeyId, place: Place) {
        let connection = taken_out(place);
        self.change(|inner| inner.gate.discarded(pool, key), None);
        self.close(pool, key, connection);
    }

    /// Feeds the gate and carries out what it decides; `failed` is why a dial failed, for
    /// the one whom it is refused.
    fn change(
        self: &Arc<Self>,
        event: impl FnOnce(&mut Inner) -> Vec<Decision>,
        failed: Option<ConnectError>,
    ) {
        let mut failed = failed;
        let mut after = After::default();
        {
            let mut inner = self.inner.lock();
            for decision in event(&mut inner) {
                inner.carry_out(self, decision, &mut failed, &mut after);
            }
        }
        for (pool, key, store) in after.dials {
            self.dial(pool, key, store);
        }
        for (pool, key, connection) in after.closings {
            self.close(pool, key, connection);
        }
        drop(after.undelivered);
    }

    fn dial(self: &Arc<Self>, pool: PoolId, key: KeyId, store: Store) {
        let lender = Arc::clone(self);
        self.runtime.spawn(async move {
            let dialled = store.dedicated_connection().await;
            match dialled {
                Ok(slot) => lender.opened(pool, key, &store, slot),
                Err(error) if error.is_limited_by_database() => {
                    lender.change(|inner| inner.gate.database_full(pool, key), None);
                }
                Err(error) => {
                    lender.change(|inner| inner.gate.dial_failed(pool, key), Some(error));
                }
            }
        });
    }

    fn opened(self: &Arc<Self>, pool: PoolId, key: KeyId, store: &Store, slot: Slot) {
        // A store has room for all that the gate may ever let through.
        debug_assert!(store.state().connections < u32::MAX);
        match store.add(slot) {
            Ok(()) => self.change(|inner| inner.gate.opened(pool, key), None),
            Err(_) => self.change(|inner| inner.gate.dial_failed(pool, key), None),
        }
    }

    /// Says goodbye in the background; its room is free when the server's end was seen.
    fn close(self: &Arc<Self>, pool: PoolId, key: KeyId, connection: Option<Connection>) {
        let lender = Arc::clone(self);
        self.runtime.spawn(async move {
            if let Some(connection) = connection {
                let _ = tokio::time::timeout(CLOSING, connection.terminate()).await;
            }
            lender.change(|inner| inner.closed(pool, key), None);
        });
    }
}

impl Inner {
    /// Numbers a waiter and keeps where its answer goes.
    fn register(&mut self, answer: oneshot::Sender<Result<Checkout, Refused>>) -> WaiterId {
        let waiter = WaiterId(self.next_waiter);
        self.next_waiter += 1;
        self.waiting.insert(waiter, answer);
        waiter
    }

    fn carry_out(
        &mut self,
        lender: &Arc<Lender>,
        decision: Decision,
        failed: &mut Option<ConnectError>,
        after: &mut After,
    ) {
        match decision {
            Decision::Lend { waiter, pool, key } => {
                let Some(place) = self.stored(pool, key) else {
                    debug_assert!(false, "the gate counts what bb8 does not have");
                    return;
                };
                let checkout = Checkout::new(Arc::clone(lender), pool, key, place);
                let undelivered = match self.waiting.remove(&waiter) {
                    Some(sender) => sender.send(Ok(checkout)).err().and_then(Result::ok),
                    None => Some(checkout),
                };
                after.undelivered.extend(undelivered);
            }
            Decision::Dial { pool, key } => {
                if let Some(store) = self.store(pool, key) {
                    after.dials.push((pool, key, store));
                }
            }
            Decision::Evict { pool, key } | Decision::CloseReturned { pool, key } => {
                let connection = self.stored(pool, key).and_then(taken_out);
                after.closings.push((pool, key, connection));
            }
            Decision::Refuse { waiter } => {
                let why = failed.take().map_or(Refused::Ended, Refused::Dial);
                if let Some(sender) = self.waiting.remove(&waiter) {
                    // A waiter that has gone needs no answer.
                    let _ = sender.send(Err(why));
                }
            }
        }
    }

    /// The store of a key in a pool, made when first dialled.
    fn store(&mut self, pool: PoolId, key: KeyId) -> Option<Store> {
        let target = self.targets.get(&key)?;
        let store = self.stores.entry((pool, key)).or_insert_with(|| {
            bb8::Pool::builder()
                .max_size(u32::MAX)
                .max_lifetime(None)
                .idle_timeout(None)
                .test_on_check_out(false)
                .retry_connection(false)
                .queue_strategy(QueueStrategy::Lifo)
                .build_unchecked(Dialer::new(Arc::clone(target)))
        });
        Some(store.clone())
    }

    /// The most recently stored connection of a key, without waiting.
    fn stored(&mut self, pool: PoolId, key: KeyId) -> Option<Place> {
        let store = self.stores.get(&(pool, key))?;
        if store.state().idle_connections == 0 {
            return None;
        }
        // With an idle connection, bb8 answers at the first poll.
        let mut get = std::pin::pin!(store.get_owned());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match get.as_mut().poll(&mut context) {
            std::task::Poll::Ready(place) => place.ok(),
            std::task::Poll::Pending => None,
        }
    }

    /// A closing connection's end was seen; the store of an ended pool goes with its last.
    fn closed(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        let decisions = self.gate.closed(pool, key);
        if self.gate.counts(pool).is_none() {
            self.stores.retain(|(of, _), _| *of != pool);
        }
        decisions
    }
}

/// A waiter's place in the queue: given up when it is dropped.
struct InQueue {
    lender: Arc<Lender>,
    waiter: WaiterId,
}

impl Drop for InQueue {
    fn drop(&mut self) {
        let waiter = self.waiter;
        self.lender.change(
            |inner| match inner.waiting.remove(&waiter) {
                Some(_) => inner.gate.leave(waiter),
                None => Vec::new(),
            },
            None,
        );
    }
}
