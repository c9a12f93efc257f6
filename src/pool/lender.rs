//! Lending: carries out what the gate decides, on real connections.
//!
//! All state is under one lock, taken on the data plane's thread alone and never across
//! an await. bb8 stores what is idle, with its reaper, tests and retries off: the gate has
//! decided before bb8 is asked, so bb8's own wait is never used.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::budget::Budget;
use crate::events::Events;
use crate::metrics::{Counters, Timings};
use crate::server::{Backend, ConnectError};
use crate::session::Gatepost;

use super::checkout::Checkout;
use super::dialer::Target;
use super::gate::{Counts, Decision, Flow};
use super::key::{Key, KeySpec};
use super::ledger::{After, Ledger, Waiter, trace};
use super::shortage::{Limit, Pressure, Queue, Shortage};
use super::stock::{Place, taken_out};
use super::{KeyId, PoolId, PoolLimits, UpstreamNumber, WaiterId};

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
    pub(super) ledger: Mutex<Ledger>,
    pub(super) gatepost: Gatepost,
    /// Told when a pause begins, or is to end at another time.
    pub(super) pause_moves: Notify,
    /// Raised when all connections are to be replaced.
    pub(super) epoch: AtomicU64,
    pub(super) runtime: Handle,
    pub(super) events: Arc<Events>,
    pub(super) counters: Arc<Counters>,
}

impl Lender {
    /// A lender within `budget`, whose dials and goodbyes run on `runtime`, and that tells `events`.
    #[must_use]
    pub fn new(budget: Budget, runtime: Handle, events: Arc<Events>) -> Arc<Self> {
        Arc::new(Self {
            ledger: Mutex::new(Ledger::new(budget)),
            gatepost: Gatepost::default(),
            pause_moves: Notify::new(),
            epoch: AtomicU64::new(0),
            runtime,
            events,
            counters: Arc::default(),
        })
    }

    /// What is counted of failures, cancels and remedies.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// How long things take is told by these from now on, given by the numbers of the upstreams; where
    /// there are none it is not looked at.
    pub fn time(&self, timings: Vec<Arc<Timings>>) {
        self.ledger.lock().timings = timings;
    }

    /// How long things take at an upstream is told by these; none: nobody wants to know.
    #[must_use]
    pub fn timings(&self, upstream: UpstreamNumber) -> Option<Arc<Timings>> {
        let inner = self.ledger.lock();
        inner.timings.get(upstream.0 as usize).cloned()
    }

    /// Somebody has waited in vain, for so long as one may.
    pub fn timed_out(&self, upstream: UpstreamNumber) {
        *self.ledger.lock().timeouts.entry(upstream).or_default() += 1;
    }

    /// Each upstream that was used, by its number: what goes on there, and how many have waited in
    /// vain.
    #[must_use]
    pub fn flows(&self) -> Vec<(Flow, u64)> {
        let inner = self.ledger.lock();
        let flows = (0..).map(UpstreamNumber).zip(inner.gate.flows());
        let timeouts = |upstream| inner.timeouts.get(&upstream).copied().unwrap_or(0);
        flows
            .map(|(upstream, flow)| (*flow, timeouts(upstream)))
            .collect()
    }

    /// The key of this spec; `target` says where one that is new leads.
    pub fn key(&self, spec: KeySpec, target: impl FnOnce() -> Target) -> Arc<Key> {
        self.ledger.lock().keys.of(spec, target)
    }

    /// Gives the budget other limits; what is above lower ones is closed when nobody uses it.
    pub fn resize(self: &Arc<Self>, size: usize, overflow: usize, warm: usize) {
        self.change(|inner| inner.gate.resize(size, overflow, warm), None);
    }

    /// An upstream leads elsewhere from now on: its idle connections are closed, and those that are
    /// lent when they come back. `target` says where a key that somebody waits for leads now; where
    /// it says nothing, who waits is served as before.
    pub fn retire(
        self: &Arc<Self>,
        upstream: UpstreamNumber,
        target: impl Fn(&KeySpec) -> Option<Target>,
    ) {
        self.change(|inner| inner.retire(upstream, target), None);
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
            let mut inner = self.ledger.lock();
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
        self.ledger.lock().gate.taint(pool);
    }

    /// How many idle connections wait in the reserve.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.ledger.lock().gate.reserved()
    }

    /// Allows one connection more than the database last refused.
    pub fn probe(self: &Arc<Self>) {
        self.change(|inner| inner.gate.probe(), None);
        self.tell_raised();
    }

    /// Closes idle connections that are too old, were idle for too long, or are to be replaced, and
    /// forgets what a changed configuration has left over.
    pub fn sweep(self: &Arc<Self>, now: Instant) {
        let overdue = {
            let mut inner = self.ledger.lock();
            inner.forget_retired();
            inner.stock.take_overdue(now, self.epoch())
        };
        self.close_idle(overdue);
    }

    /// Closes idle connections that were taken out of the stock.
    pub(super) fn close_idle(self: &Arc<Self>, places: Vec<(PoolId, KeyId, Place)>) {
        for (pool, key, place) in places {
            let connection = taken_out(place);
            self.change(|inner| inner.gate.idle_closed(pool, key), None);
            self.close(pool, key, connection);
        }
    }

    /// Closes idle connections for as long as more are open than the budget's size.
    pub fn close_surplus(self: &Arc<Self>) {
        self.change(|inner| inner.gate.close_surplus(), None);
    }

    /// How many wait for the budget alone, each of whom one connection less would help.
    #[must_use]
    pub fn starving(&self) -> usize {
        self.ledger.lock().gate.starving()
    }

    /// Counts of a pool; none once it is shut and empty.
    #[must_use]
    pub fn counts(&self, pool: PoolId) -> Option<Counts> {
        self.ledger.lock().gate.counts(pool)
    }

    /// A pool's counts, limits, queue and peak at one moment.
    #[must_use]
    pub fn look(&self, pool: PoolId) -> (Counts, Option<PoolLimits>, Queue, usize) {
        let inner = self.ledger.lock();
        (
            inner.gate.counts(pool).unwrap_or_default(),
            inner.gate.limits(pool),
            inner.queue_of(pool),
            inner.gate.peak(pool),
        )
    }

    /// The most connections that a pool ever had at once; 0 once it is shut and empty.
    #[must_use]
    pub fn peak(&self, pool: PoolId) -> usize {
        self.ledger.lock().gate.peak(pool)
    }

    /// The backends of a pool's connections, those that are closing among them.
    #[must_use]
    pub fn backends(&self, pool: PoolId) -> Vec<Backend> {
        let inner = self.ledger.lock();
        let door = inner.doors.get(&pool);
        door.map_or_else(Vec::new, |door| door.backends.iter().copied().collect())
    }

    /// Their process ids.
    #[must_use]
    pub fn pids(&self, pool: PoolId) -> Vec<i32> {
        let backends = self.backends(pool).into_iter();
        backends.map(|backend| backend.pid).collect()
    }

    /// The budget's counts, and how many of its connections are idle, lent and waited for.
    #[must_use]
    pub fn budget(&self) -> (Budget, Queue) {
        let inner = self.ledger.lock();
        (inner.gate.budget().clone(), inner.queue())
    }

    /// How much the pod's connections are in demand.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.ledger.lock().pressure()
    }

    /// Counts a wait that has ended in vain, as this limit was reached.
    pub fn waited_in_vain(&self, limit: Limit) {
        self.ledger.lock().waited_in_vain(limit);
    }

    /// Why somebody waits in this pool: which limit is reached, and how full all is.
    #[must_use]
    pub fn shortage(&self, pool: PoolId, waiter: WaiterId) -> Shortage {
        let inner = self.ledger.lock();
        Shortage {
            limit: inner.gate.reached(pool),
            counts: inner.gate.counts(pool).unwrap_or_default(),
            limits: inner.gate.limits(pool),
            budget: inner.gate.budget().clone(),
            queue: inner.queue_of(pool),
            away: inner.reaches.away(pool.upstream),
            position: inner.gate.position(waiter),
        }
    }

    /// What keeps the waiters of a pool waiting.
    #[must_use]
    pub fn limit(&self, pool: PoolId) -> super::Limit {
        self.ledger.lock().gate.reached(pool)
    }

    /// Whether a checkout could be had at once and its connection could stay open idle: then
    /// it costs nobody anything to have it before it is needed.
    #[must_use]
    pub fn has_at_once(&self, pool: PoolId, key: &Key) -> bool {
        let inner = self.ledger.lock();
        !inner.gate.is_paused()
            && !inner.gate.anybody_is_unserved()
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
        self.checkout_after(pool, key, waiter, Before::Nothing)
            .await
    }

    async fn checkout_after(
        self: &Arc<Self>,
        pool: PoolId,
        key: &Arc<Key>,
        waiter: WaiterId,
        mut before: Before,
    ) -> Result<Checkout, Refused> {
        loop {
            let mut checkout = self.wait(pool, key, waiter, before).await?;
            let is_well = checkout.is_current() && checkout.is_alive() && checkout.answers().await;
            before = match is_well {
                false => Before::Dead(checkout),
                // A pause has overtaken it on its way.
                true if self.gatepost.is_shut() => Before::Early(checkout),
                true => return Ok(checkout),
            };
        }
    }

    /// The same for a session that may need it later: what is kept for other sessions is left to
    /// them, as long as there is room for one more.
    ///
    /// Cancel safe, as [`Lender::checkout`].
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn checkout_early(
        self: &Arc<Self>,
        pool: PoolId,
        key: &Arc<Key>,
        waiter: WaiterId,
    ) -> Result<Checkout, Refused> {
        self.checkout_after(pool, key, waiter, Before::Query).await
    }

    /// Lines up and waits. Who was given one before that he can't use lines up at the front before
    /// that goes away, so that nobody overtakes him.
    async fn wait(
        self: &Arc<Self>,
        pool: PoolId,
        key: &Arc<Key>,
        waiter: WaiterId,
        before: Before,
    ) -> Result<Checkout, Refused> {
        let (answer, receiver) = oneshot::channel();
        let _place = InQueue {
            lender: Arc::clone(self),
            waiter,
        };
        self.change(
            |inner| {
                let key = inner.keys.current(key);
                let waiting = Waiter {
                    answer,
                    since: Instant::now(),
                    key: Arc::clone(&key),
                };
                inner.waiting.insert(waiter, waiting);
                trace(pool, waiter, "waits");
                match &before {
                    Before::Query if !inner.stock.has_stored(pool, key.id()) => {
                        inner.gate.arrive_for_new(pool, key.id(), waiter)
                    }
                    Before::Nothing | Before::Query => inner.gate.arrive(pool, key.id(), waiter),
                    Before::Dead(_) | Before::Early(_) => {
                        inner.gate.arrive_again(pool, key.id(), waiter)
                    }
                }
            },
            None,
        );
        match before {
            Before::Dead(dead) => drop(dead.discard()),
            Before::Early(early) => drop(early),
            Before::Nothing | Before::Query => {}
        }
        // The sender is dropped unanswered only by a lender that is being torn down.
        receiver.await.unwrap_or(Err(Refused::Ended))
    }

    /// What was parked for a session is anybody's: it has gone, or queries elsewhere. Where a
    /// connection is one session's alone, it is closed.
    pub fn unpark(self: &Arc<Self>, pool: PoolId, key: &Key, session: WaiterId) {
        let place = self.ledger.lock().stock.unpark(pool, key.id(), session);
        match place {
            Some(place) if key.target().reset.is_none() => {
                self.close_idle(vec![(pool, key.id(), place)]);
            }
            // Dropped, it goes back into bb8.
            other => drop(other),
        }
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
                inner.gate.parked(pool, key.id())
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
    pub(super) fn change(
        self: &Arc<Self>,
        event: impl FnOnce(&mut Ledger) -> Vec<Decision>,
        failed: Option<ConnectError>,
    ) {
        let mut failed = failed;
        let mut after = After::default();
        {
            let mut inner = self.ledger.lock();
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
}

/// What somebody was given that lines up.
enum Before {
    /// Nothing yet.
    Nothing,
    /// Its session has not asked anything yet.
    Query,
    /// A connection that is no good.
    Dead(Checkout),
    /// One that must not be used now.
    Early(Checkout),
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
                    tracing::debug!(session_id = waiter.0, "gave up");
                    inner.gate.leave(waiter)
                }
                None => Vec::new(),
            },
            None,
        );
    }
}
