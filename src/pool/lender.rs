//! Lending: carries out what the gate decides, on real connections.
//!
//! All state is under one lock, taken on the data plane's thread alone and never across
//! an await. bb8 stores what is idle, with its reaper, tests and retries off: the gate has
//! decided before bb8 is asked, so bb8's own wait is never used.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::budget::Budget;
use crate::server::{ConnectError, Connection};

use super::checkout::Checkout;
use super::dialer::{Slot, Target};
use super::gate::{Counts, Decision, Gate};
use super::key::{Key, KeySpec, Keys};
use super::shortage::{Queue, Shortage};
use super::stock::{Place, Stock, Store, slot_out, taken_out};
use super::{KeyId, PoolId, PoolLimits, WaiterId};

/// How long the server's end of a closing connection is waited for; its permit is given
/// up for free after that, as a server that never answers would keep it for ever. Longer than
/// the end of an execution waits, which must see what remains.
const CLOSING: Duration = Duration::from_secs(8);

/// How long a dial may go on whose pool was shut. One that succeeds is closed properly, so
/// that its permit covers it in the server's own log.
const ABANDONED: Duration = Duration::from_millis(500);

/// Why a checkout got nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The pool's execution has ended.
    #[error("the execution has ended")]
    Ended,
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
    keys: Keys,
    stock: Stock,
    waiting: HashMap<WaiterId, Waiter>,
    doors: HashMap<PoolId, Door>,
    /// Pools that may have lost their last connection by the change under way.
    maybe_gone: Vec<PoolId>,
}

/// Who waits for a checkout.
#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Result<Checkout, Refused>>,
    since: Instant,
}

/// What is known of a pool besides its counts.
#[derive(Debug, Default)]
struct Door {
    /// Told when the pool is shut.
    shutting: Arc<Notify>,
    /// The backends of its connections.
    pids: BTreeSet<i32>,
    /// Told when its last connection is gone.
    emptied: Vec<oneshot::Sender<()>>,
}

/// What a change under the lock leaves to be done outside it.
#[must_use]
#[derive(Default)]
struct After {
    dials: Vec<(PoolId, KeyId, Store, Arc<Notify>)>,
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
                keys: Keys::default(),
                stock: Stock::default(),
                waiting: HashMap::new(),
                doors: HashMap::new(),
                maybe_gone: Vec::new(),
            }),
            runtime,
        })
    }

    /// The key of this spec; `target` says where one that is new leads.
    pub fn key(&self, spec: KeySpec, target: impl FnOnce() -> Target) -> Arc<Key> {
        self.inner.lock().keys.of(spec, target)
    }

    /// Opens a pool, or changes its limits; `None` is no limit but the budget's.
    pub fn admit(self: &Arc<Self>, pool: PoolId, limits: Option<PoolLimits>) {
        self.change(
            |inner| {
                inner.doors.entry(pool).or_default();
                inner.gate.admit(pool, limits)
            },
            None,
        );
    }

    /// Ends a pool: who waits is refused, dials are given up, what is idle is closed, and
    /// what is lent is closed when it comes back.
    pub fn shut(self: &Arc<Self>, pool: PoolId) {
        self.change(
            |inner| {
                if let Some(door) = inner.doors.get(&pool) {
                    door.shutting.notify_waiters();
                }
                inner.gone(pool, |gate| gate.shut(pool))
            },
            None,
        );
    }

    /// Waits until a shut pool has no connection left. Cancel safe.
    pub async fn emptied(&self, pool: PoolId) {
        let told = {
            let mut inner = self.inner.lock();
            let Some(door) = inner.doors.get_mut(&pool) else {
                return;
            };
            let (sender, receiver) = oneshot::channel();
            door.emptied.push(sender);
            receiver
        };
        // Dropped unsent, the pool is gone as well.
        let _ = told.await;
    }

    /// A session of the pool has left something in its connection that a reset does not undo: none
    /// of the pool's connections reaches another execution from now on.
    pub fn taint(&self, pool: PoolId) {
        self.inner.lock().gate.taint(pool);
    }

    /// How many idle connections wait in the reserve.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.inner.lock().gate.reserved()
    }

    /// Allows one connection more than the database last refused.
    pub fn probe(self: &Arc<Self>) {
        self.change(|inner| inner.gate.probe(), None);
    }

    /// Closes idle connections that are too old or were idle for too long.
    pub fn sweep(self: &Arc<Self>, now: Instant) {
        let overdue = self.inner.lock().stock.take_overdue(now);
        for (pool, key, place) in overdue {
            let connection = taken_out(place);
            self.change(|inner| inner.gate.idle_closed(pool, key), None);
            self.close(pool, key, connection);
        }
    }

    /// Counts of a pool; none once it is shut and empty.
    #[must_use]
    pub fn counts(&self, pool: PoolId) -> Option<Counts> {
        self.inner.lock().gate.counts(pool)
    }

    /// A pool's counts, limits, queue and peak at one moment.
    #[must_use]
    pub fn look(&self, pool: PoolId) -> (Counts, Option<PoolLimits>, Queue, usize) {
        let inner = self.inner.lock();
        (
            inner.gate.counts(pool).unwrap_or_default(),
            inner.gate.limits(pool),
            inner.queue(Some(pool)),
            inner.gate.peak(pool),
        )
    }

    /// The most connections that a pool ever had at once; 0 once it is shut and empty.
    #[must_use]
    pub fn peak(&self, pool: PoolId) -> usize {
        self.inner.lock().gate.peak(pool)
    }

    /// The backends of a pool's connections, those that are closing among them.
    #[must_use]
    pub fn pids(&self, pool: PoolId) -> Vec<i32> {
        let inner = self.inner.lock();
        let door = inner.doors.get(&pool);
        door.map_or_else(Vec::new, |door| door.pids.iter().copied().collect())
    }

    /// The budget's counts, and how many of its connections are idle, lent and waited for.
    #[must_use]
    pub fn budget(&self) -> (Budget, Queue) {
        let inner = self.inner.lock();
        (inner.gate.budget().clone(), inner.queue(None))
    }

    /// Why somebody waits in this pool: which limit is reached, and how full all is.
    #[must_use]
    pub fn shortage(&self, pool: PoolId, waiter: WaiterId) -> Shortage {
        let inner = self.inner.lock();
        Shortage {
            limit: inner.gate.reached(pool),
            counts: inner.gate.counts(pool).unwrap_or_default(),
            limits: inner.gate.limits(pool),
            budget: inner.gate.budget().clone(),
            queue: inner.queue(Some(pool)),
            position: inner.gate.position(waiter),
        }
    }

    /// Whether a checkout could be had at once and its connection could stay open idle: then
    /// it costs nobody anything to have it before it is needed.
    #[must_use]
    pub fn has_at_once(&self, pool: PoolId, key: &Key) -> bool {
        let inner = self.inner.lock();
        !inner.gate.anybody_waits()
            && (inner.stock.has_stored(pool, key.id()) || inner.gate.has_room_to_stay(pool))
    }

    /// A server connection of `key` for `pool`. One whose server has gone meanwhile is
    /// replaced unseen; one that was parked for this waiter is preferred. A waiter waits in
    /// one place at a time.
    ///
    /// Cancel safe: a waiter that is dropped leaves its queue, and what was lent to it
    /// goes to the next.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn checkout(
        self: &Arc<Self>,
        pool: PoolId,
        key: &Arc<Key>,
        waiter: WaiterId,
    ) -> Result<Checkout, Refused> {
        loop {
            let mut checkout = self.wait(pool, key, waiter).await?;
            if checkout.is_alive() && checkout.answers().await {
                return Ok(checkout);
            }
            checkout.discard();
        }
    }

    async fn wait(
        self: &Arc<Self>,
        pool: PoolId,
        key: &Arc<Key>,
        waiter: WaiterId,
    ) -> Result<Checkout, Refused> {
        let (answer, receiver) = oneshot::channel();
        let _place = InQueue {
            lender: Arc::clone(self),
            waiter,
        };
        self.change(
            |inner| {
                let since = Instant::now();
                inner.waiting.insert(waiter, Waiter { answer, since });
                trace(pool, waiter, "waits");
                inner.gate.arrive(pool, key.id(), waiter)
            },
            None,
        );
        // The sender is dropped unanswered only by a lender that is being torn down.
        receiver.await.unwrap_or(Err(Refused::Ended))
    }

    /// What was parked for a session is anybody's: it has gone, or queries elsewhere.
    pub fn unpark(&self, pool: PoolId, key: &Key, session: WaiterId) {
        self.inner.lock().stock.unpark(pool, key.id(), session);
    }

    /// A clean connection comes back.
    pub(super) fn returned(self: &Arc<Self>, pool: PoolId, key: &Key, place: Place) {
        // Back into bb8, where the decision finds it.
        drop(place);
        self.change(|inner| inner.gate.returned(pool, key.id()), None);
    }

    /// An unused connection comes back, to be kept for a session.
    pub(super) fn parked(
        self: &Arc<Self>,
        pool: PoolId,
        key: &Key,
        session: WaiterId,
        place: Place,
    ) {
        self.change(
            |inner| {
                inner.stock.park(pool, key.id(), session, place);
                inner.gate.returned(pool, key.id())
            },
            None,
        );
    }

    /// A connection that must not be lent again.
    pub(super) fn discarded(self: &Arc<Self>, pool: PoolId, key: &Key, place: Place) {
        let connection = taken_out(place);
        self.change(|inner| inner.gate.discarded(pool, key.id()), None);
        self.close(pool, key.id(), connection);
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
            inner.forget_gone();
        }
        for (pool, key, store, shutting) in after.dials {
            self.dial(pool, key, store, shutting);
        }
        for (pool, key, connection) in after.closings {
            self.close(pool, key, connection);
        }
        drop(after.undelivered);
    }

    fn dial(self: &Arc<Self>, pool: PoolId, key: KeyId, store: Store, shutting: Arc<Notify>) {
        let lender = Arc::clone(self);
        // Made here, so that a shut before the task's first turn is not missed.
        let shut = shutting.notified_owned();
        self.runtime.spawn(async move {
            let abandoned = async {
                shut.await;
                tokio::time::sleep(ABANDONED).await;
            };
            let dialled = tokio::select! {
                dialled = store.dedicated_connection() => Some(dialled),
                () = abandoned => None,
            };
            match dialled {
                Some(Ok(slot)) => lender.opened(pool, key, &store, slot),
                Some(Err(error)) if error.is_limited_by_database() => {
                    tracing::warn!(%error, "the database has no connection left");
                    lender.change(|inner| inner.database_full(pool, key), None);
                }
                Some(Err(error)) => lender.change(
                    |inner| inner.gone(pool, |gate| gate.dial_failed(pool, key)),
                    Some(error),
                ),
                None => lender.change(
                    |inner| inner.gone(pool, |gate| gate.dial_failed(pool, key)),
                    None,
                ),
            }
        });
    }

    fn opened(self: &Arc<Self>, pool: PoolId, key: KeyId, store: &Store, slot: Slot) {
        let pid = slot.connection.as_ref().map(Connection::pid);
        // A store has room for all that the gate may ever let through.
        match store.add(slot) {
            Ok(()) => self.change(
                |inner| {
                    if let (Some(door), Some(pid)) = (inner.doors.get_mut(&pool), pid) {
                        door.pids.insert(pid);
                    }
                    let PoolId {
                        execution,
                        upstream,
                    } = pool;
                    tracing::debug!(
                        execution = execution.0,
                        upstream = upstream.0,
                        pid,
                        "opened"
                    );
                    inner.gate.opened(pool, key)
                },
                None,
            ),
            Err(_) => self.change(
                |inner| inner.gone(pool, |gate| gate.dial_failed(pool, key)),
                None,
            ),
        }
    }

    /// Says goodbye in the background; its room is free when the server's end was seen.
    fn close(self: &Arc<Self>, pool: PoolId, key: KeyId, connection: Option<Connection>) {
        let lender = Arc::clone(self);
        self.runtime.spawn(async move {
            let pid = connection.as_ref().map(Connection::pid);
            if let Some(connection) = connection {
                let _ = tokio::time::timeout(CLOSING, connection.terminate()).await;
            }
            lender.change(|inner| inner.closed(pool, key, pid), None);
        });
    }
}

impl Inner {
    /// How many wait, of one pool or of all, and for how long the first has.
    fn queue(&self, pool: Option<PoolId>) -> Queue {
        let now = Instant::now();
        let waits = self.waiting.iter().filter(|(waiter, _)| match pool {
            None => self.gate.position(**waiter).is_some(),
            Some(pool) => self.gate.waits_in(**waiter) == Some(pool),
        });
        let mut queue = Queue::default();
        for (_, waiter) in waits {
            queue.waiting += 1;
            let waited = now.saturating_duration_since(waiter.since);
            queue.oldest = queue.oldest.max(waited);
        }
        queue
    }

    fn carry_out(
        &mut self,
        lender: &Arc<Lender>,
        decision: Decision,
        failed: &mut Option<ConnectError>,
        after: &mut After,
    ) {
        match decision {
            Decision::Lend { waiter, pool, key } => self.lend(lender, waiter, pool, key, after),
            Decision::Dial { pool, key } => {
                let known = self.keys.get(key).cloned();
                let door = self.doors.get(&pool);
                if let (Some(key), Some(door)) = (known, door) {
                    let shutting = Arc::clone(&door.shutting);
                    let store = self.stock.store(pool, &key);
                    after.dials.push((pool, key.id(), store, shutting));
                } else {
                    debug_assert!(false, "nobody waits for a key that nobody has");
                }
            }
            Decision::Evict { pool, key } | Decision::CloseReturned { pool, key } => {
                let connection = self.stock.take_oldest(pool, key).and_then(taken_out);
                after.closings.push((pool, key, connection));
            }
            Decision::Move { from, to, key } => self.move_idle(from, to, key),
            Decision::Refuse { waiter } => {
                let why = failed.take().map_or(Refused::Ended, Refused::Dial);
                if let Some(waiting) = self.waiting.remove(&waiter) {
                    tracing::debug!(session = waiter.0, "refused");
                    // A waiter that has gone needs no answer.
                    let _ = waiting.answer.send(Err(why));
                }
            }
        }
    }

    fn lend(
        &mut self,
        lender: &Arc<Lender>,
        waiter: WaiterId,
        pool: PoolId,
        key: KeyId,
        after: &mut After,
    ) {
        let place = self.stock.take_for(pool, key, waiter);
        let (Some(place), Some(key)) = (place, self.keys.get(key).cloned()) else {
            debug_assert!(false, "the gate counts what is not in stock");
            return;
        };
        trace(pool, waiter, "lent");
        let checkout = Checkout::new(Arc::clone(lender), pool, key, place);
        let undelivered = match self.waiting.remove(&waiter) {
            Some(waiter) => waiter.answer.send(Ok(checkout)).err().and_then(Result::ok),
            None => Some(checkout),
        };
        after.undelivered.extend(undelivered);
    }

    /// Takes a connection over from pool to pool, its backend with it.
    fn move_idle(&mut self, from: PoolId, to: PoolId, key: KeyId) {
        let slot = self.stock.take_oldest(from, key).and_then(slot_out);
        let (Some(slot), Some(key)) = (slot, self.keys.get(key).cloned()) else {
            debug_assert!(false, "the gate counts what is not in stock");
            return;
        };
        if let Some(pid) = slot.connection.as_ref().map(Connection::pid) {
            if let Some(door) = self.doors.get_mut(&from) {
                door.pids.remove(&pid);
            }
            self.doors.entry(to).or_default().pids.insert(pid);
        }
        // A store has room for all that the gate may ever let through.
        let stored = self.stock.store(to, &key).add(slot);
        debug_assert!(stored.is_ok());
    }

    /// A closing connection's end was seen.
    fn closed(&mut self, pool: PoolId, key: KeyId, pid: Option<i32>) -> Vec<Decision> {
        if let (Some(door), Some(pid)) = (self.doors.get_mut(&pool), pid) {
            door.pids.remove(&pid);
        }
        self.gone(pool, |gate| gate.closed(pool, key))
    }

    fn database_full(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        self.gone(pool, |gate| gate.database_full(pool, key))
    }

    /// A connection less, which may have been a shut pool's last.
    fn gone(
        &mut self,
        pool: PoolId,
        event: impl FnOnce(&mut Gate) -> Vec<Decision>,
    ) -> Vec<Decision> {
        self.maybe_gone.push(pool);
        event(&mut self.gate)
    }

    /// What is kept of a pool goes with its last connection.
    fn forget_gone(&mut self) {
        for pool in std::mem::take(&mut self.maybe_gone) {
            if self.gate.counts(pool).is_none() {
                self.stock.forget(pool);
                // Dropping the senders tells who waits for it.
                self.doors.remove(&pool);
            }
        }
    }
}

/// Tells the log what becomes of a waiter. Together with the gate's turns these events show who
/// was served before whom.
fn trace(pool: PoolId, waiter: WaiterId, what: &'static str) {
    tracing::debug!(
        execution = pool.execution.0,
        upstream = pool.upstream.0,
        session = waiter.0,
        "{what}"
    );
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
                Some(_) => {
                    tracing::debug!(session = waiter.0, "gave up");
                    inner.gate.leave(waiter)
                }
                None => Vec::new(),
            },
            None,
        );
    }
}
