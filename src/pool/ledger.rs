//! The ledger: who has what and who waits, under the lender's lock.
//!
//! What a decision of the gate's changes here is done at once; what takes time, dials and
//! goodbyes, is left in [`After`] for when the lock is free.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::budget::Budget;
use crate::metrics::Timings;
use crate::server::{Backend, ConnectError, Connection};

use super::checkout::Checkout;
use super::gate::{Decision, Gate};
use super::key::{Key, KeySpec, Keys};
use super::lender::{Lender, Refused};
use super::pause::Pause;
use super::reach::Reaches;
use super::shortage::{Limit, Pressure, Queue};
use super::stock::{Stock, Store, slot_out, taken_out};
use super::{KeyId, PoolId, Target, UpstreamNumber, WaiterId};

/// Who has what, and who waits. Every change goes through the gate.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) gate: Gate,
    pub(super) keys: Keys,
    pub(super) stock: Stock,
    pub(super) waiting: HashMap<WaiterId, Waiter>,
    pub(super) doors: HashMap<PoolId, Door>,
    /// Pools that may have lost their last connection by the change under way.
    pub(super) maybe_gone: Vec<PoolId>,
    pub(super) pause: Option<Pause>,
    pub(super) reaches: Reaches,
    /// The upstreams' names, by their numbers.
    pub(super) names: Vec<Arc<str>>,
    /// How many connections the database takes, as it was last told; none: as many as are wanted.
    pub(super) told_limit: Option<usize>,
    /// How many have waited in vain.
    pub(super) timeouts: BTreeMap<UpstreamNumber, u64>,
    /// By the numbers of upstreams; empty where nobody wants to know how long things take.
    pub(super) timings: Vec<Arc<Timings>>,
    /// Of which upstreams it was said, and why, that connections go without TLS.
    pub(super) told_plain: BTreeSet<(UpstreamNumber, &'static str)>,
    /// Budget waits that were in vain.
    pub(super) timed_out: u64,
}

/// Who waits for a checkout.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) answer: oneshot::Sender<Result<Checkout, Refused>>,
    pub(super) since: Instant,
    /// For which connections.
    pub(super) key: Arc<Key>,
}

/// What is known of a pool besides its counts.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// Told when the pool is shut.
    pub(super) shutting: Arc<Notify>,
    /// The backends of its connections.
    pub(super) backends: BTreeSet<Backend>,
    /// Told when its last connection is gone.
    pub(super) emptied: Vec<oneshot::Sender<()>>,
}

/// What a change under the lock leaves to be done outside it.
#[must_use]
#[derive(Default)]
pub(super) struct After {
    pub(super) dials: Vec<(PoolId, KeyId, Store, Arc<Notify>)>,
    pub(super) closings: Vec<(PoolId, KeyId, Option<Connection>)>,
    /// Checkouts whose waiter has gone: dropping them lends them on.
    pub(super) undelivered: Vec<Checkout>,
}

impl Ledger {
    /// Nobody has anything yet.
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            gate: Gate::new(budget),
            keys: Keys::default(),
            stock: Stock::default(),
            waiting: HashMap::new(),
            doors: HashMap::new(),
            maybe_gone: Vec::new(),
            pause: None,
            reaches: Reaches::default(),
            names: Vec::new(),
            told_limit: None,
            timeouts: BTreeMap::new(),
            timings: Vec::new(),
            told_plain: BTreeSet::new(),
            timed_out: 0,
        }
    }

    /// Who waits in a pool.
    pub(super) fn queue_of(&self, pool: PoolId) -> Queue {
        Queue {
            waiting: self.gate.waiting(pool),
            oldest: self.waited(self.gate.first_waiting(pool)),
        }
    }

    /// Who waits at all.
    pub(super) fn queue(&self) -> Queue {
        let firsts = self.gate.firsts_waiting();
        Queue {
            waiting: self.gate.all_waiting(),
            oldest: firsts
                .map(|first| self.waited(Some(first)))
                .max()
                .unwrap_or_default(),
        }
    }

    /// How much the connections are in demand.
    pub(super) fn pressure(&self) -> Pressure {
        let mut starving = Queue::default();
        for (first, many) in self.gate.starving_pools() {
            starving.waiting += many;
            starving.oldest = starving.oldest.max(self.waited(Some(first)));
        }
        let beyond = self.gate.firsts_beyond_pools();
        let beyond = beyond.map(|first| self.waited(Some(first))).max();
        Pressure {
            budget: self.gate.budget().clone(),
            starving,
            oldest: beyond.unwrap_or_default(),
            timed_out: self.timed_out,
            is_away: self.gate.is_away_for_anybody(),
            in_demand: self.gate.in_demand(),
        }
    }

    /// A wait was in vain, as this limit was reached.
    pub(super) fn waited_in_vain(&mut self, limit: Limit) {
        if matches!(limit, Limit::Budget | Limit::Database) {
            self.timed_out += 1;
        }
    }

    /// How long somebody has waited.
    fn waited(&self, waiter: Option<WaiterId>) -> Duration {
        let waiter = waiter.and_then(|waiter| self.waiting.get(&waiter));
        waiter.map_or(Duration::ZERO, |waiter| waiter.since.elapsed())
    }

    /// Does what the gate has decided; `failed` is why a dial failed, for the one whom it is
    /// refused.
    pub(super) fn carry_out(
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
                    tracing::debug!(session_id = waiter.0, "refused");
                    // A waiter that has gone needs no answer.
                    let _ = waiting.answer.send(Err(why));
                }
            }
        }
    }

    pub(super) fn lend(
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
    pub(super) fn move_idle(&mut self, from: PoolId, to: PoolId, key: KeyId) {
        let slot = self.stock.take_oldest(from, key).and_then(slot_out);
        let (Some(slot), Some(key)) = (slot, self.keys.get(key).cloned()) else {
            debug_assert!(false, "the gate counts what is not in stock");
            return;
        };
        if let Some(backend) = slot.connection.as_ref().map(Connection::backend) {
            if let Some(door) = self.doors.get_mut(&from) {
                door.backends.remove(&backend);
            }
            self.doors.entry(to).or_default().backends.insert(backend);
        }
        // A store has room for all that the gate may ever let through.
        let stored = self.stock.store(to, &key).add(slot);
        debug_assert!(stored.is_ok());
    }

    /// A closing connection's end was seen.
    pub(super) fn closed(
        &mut self,
        pool: PoolId,
        key: KeyId,
        backend: Option<Backend>,
    ) -> Vec<Decision> {
        if let (Some(door), Some(backend)) = (self.doors.get_mut(&pool), backend) {
            door.backends.remove(&backend);
        }
        self.gone(pool, |gate| gate.closed(pool, key))
    }

    pub(super) fn database_full(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        self.gone(pool, |gate| gate.database_full(pool, key))
    }

    /// A connection less, which may have been a shut pool's last.
    pub(super) fn gone(
        &mut self,
        pool: PoolId,
        event: impl FnOnce(&mut Gate) -> Vec<Decision>,
    ) -> Vec<Decision> {
        self.maybe_gone.push(pool);
        event(&mut self.gate)
    }

    /// Retires all keys of an upstream; who waits for one waits for the one that `target` makes of
    /// its spec instead, where it makes any.
    pub(super) fn retire(
        &mut self,
        upstream: UpstreamNumber,
        target: impl Fn(&KeySpec) -> Option<Target>,
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        self.reaches.forget(upstream);
        self.gate.forget_away(upstream);
        for old in self.keys.retire(upstream) {
            let successor = target(old.spec()).and_then(|target| self.succeed(&old, target));
            decisions.extend(self.gate.retire(old.id(), successor));
        }
        decisions
    }

    /// The key that follows a retired one, where somebody waits for it or something is known of it.
    fn succeed(&mut self, old: &Arc<Key>, target: Target) -> Option<KeyId> {
        let waits = |waiter: &Waiter| waiter.key.id() == old.id();
        let leads_where = old.target().leads_where(&target);
        if !leads_where && !self.waiting.values().any(waits) {
            return None;
        }
        let new = self.keys.of(old.spec().clone(), || target);
        if leads_where {
            new.inherit(old);
        }
        for waiter in self.waiting.values_mut() {
            if waits(waiter) {
                waiter.key = Arc::clone(&new);
            }
        }
        Some(new.id())
    }

    /// Forgets retired keys that nobody has any more, and the empty stores of those that are left.
    pub(super) fn forget_retired(&mut self) {
        let gate = &mut self.gate;
        self.stock
            .forget_retired(|pool, key| gate.is_dialling(pool, key));
        for key in self.keys.forget_retired() {
            gate.forget_key(key);
        }
    }

    /// What is kept of a pool goes with its last connection.
    pub(super) fn forget_gone(&mut self) {
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
pub(super) fn trace(pool: PoolId, waiter: WaiterId, what: &'static str) {
    tracing::debug!(
        execution_number = pool.execution.0,
        upstream_number = pool.upstream.0,
        session_id = waiter.0,
        "{what}"
    );
}
