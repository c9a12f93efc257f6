//! The gate: who gets a server connection, and when one is dialled or closed.
//!
//! Events go in, decisions come out; the caller carries them out in their order. Within a pool
//! first come is first served. When the budget is full, executions take turns at it. A connection
//! counts until its server's end was seen, so that the database never sees more than allowed.
//!
//! The life of a connection, with the event or decision that moves it:
//! `Dial` → connecting → [`Gate::opened`] → idle ⇄ lent (`Lend`, [`Gate::returned`]) → closing
//! (`Evict`, `CloseReturned`, [`Gate::discarded`], [`Gate::idle_closed`]) → [`Gate::closed`].

mod away;
mod members;
mod retire;
mod settle;
mod surplus;
#[cfg(test)]
mod tests;

use super::{ExecutionNumber, KeyId, Limit, PoolId, PoolLimits, UpstreamNumber, WaiterId};
use crate::budget::{Budget, Turns};
use away::Look;
pub use members::{Counts, Flow};
use members::{Door, Members, Phase, Waiting, Wants};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Give this waiter an idle connection of the key, the most recently used one (that may be the
    /// one that was just returned or opened). It waits no longer.
    Lend {
        /// Who gets it.
        waiter: WaiterId,
        /// From which pool.
        pool: PoolId,
        /// Of which key.
        key: KeyId,
    },
    /// Connect, and report [`Gate::opened`], [`Gate::dial_failed`], [`Gate::dial_postponed`] or
    /// [`Gate::database_full`].
    Dial {
        /// For which pool.
        pool: PoolId,
        /// With which key.
        key: KeyId,
    },
    /// Close the connection of the key that is idle longest, and report [`Gate::closed`].
    Evict {
        /// Of which pool.
        pool: PoolId,
        /// Of which key.
        key: KeyId,
    },
    /// Take the connection of the key that is idle longest over from one pool to another, one of
    /// which is a reserve or whose budget is full. It is idle there.
    Move {
        /// Whose it was.
        from: PoolId,
        /// Whose it is.
        to: PoolId,
        /// Its key.
        key: KeyId,
    },
    /// Close the connection that this event returned or opened, and report [`Gate::closed`].
    CloseReturned {
        /// Whose it is.
        pool: PoolId,
        /// Its key.
        key: KeyId,
    },
    /// This waiter gets nothing: its pool is shut, or the dial that was for it failed. It waits
    /// no longer.
    Refuse {
        /// Who.
        waiter: WaiterId,
    },
}

/// All pools, the budget and those who wait. Not shared: whoever owns it feeds it.
#[derive(Debug)]
pub struct Gate {
    budget: Budget,
    turns: Turns<ExecutionNumber>,
    /// Executions that had their turn and wait for the room that a closing will make, the first
    /// first: once for each such turn.
    owed: Vec<ExecutionNumber>,
    pools: BTreeMap<PoolId, Members>,
    waiters: HashMap<WaiterId, (PoolId, u64)>,
    /// By the numbers of upstreams, as far as they were used.
    flows: Vec<Flow>,
    /// Idle connections by stamp, the longest idle first.
    idle: BTreeMap<u64, (PoolId, KeyId)>,
    /// Keys whose connections are not kept: see [`Gate::retire`].
    retired: HashSet<KeyId>,
    /// Upstreams whose database is not there: see [`Gate::dial_postponed`].
    away: HashMap<UpstreamNumber, Look>,
    /// Orders arrivals and idle connections.
    stamp: u64,
    /// Whether nothing is lent and nothing dialled.
    is_paused: bool,
}

impl Gate {
    /// A gate without pools.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            turns: Turns::default(),
            owed: Vec::new(),
            pools: BTreeMap::new(),
            waiters: HashMap::new(),
            flows: Vec::new(),
            idle: BTreeMap::new(),
            retired: HashSet::new(),
            away: HashMap::new(),
            stamp: 0,
            is_paused: false,
        }
    }

    /// The budget's counts.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// A pool's counts; none for one that is not known.
    pub fn counts(&self, pool: PoolId) -> Option<Counts> {
        self.pools.get(&pool).map(|members| members.counts)
    }

    /// What goes on at each upstream, by its number, as far as they were used.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// That of one of them.
    fn flow(&mut self, pool: PoolId) -> &mut Flow {
        let place = pool.upstream.0 as usize;
        if self.flows.len() <= place {
            self.flows.resize(place + 1, Flow::default());
        }
        &mut self.flows[place]
    }

    /// A pool's limits; none for one that is not known, or without limits.
    pub fn limits(&self, pool: PoolId) -> Option<PoolLimits> {
        self.pools.get(&pool)?.limits
    }

    /// The most connections that a pool had at once; 0 for one that is not known.
    pub fn peak(&self, pool: PoolId) -> usize {
        self.pools.get(&pool).map_or(0, |members| members.peak)
    }

    /// Who is served next in a pool.
    pub fn first_waiting(&self, pool: PoolId) -> Option<WaiterId> {
        let (_, first) = self.pools.get(&pool)?.queue.first_key_value()?;
        Some(first.waiter)
    }

    /// Who is served next in each pool that somebody waits in.
    pub fn firsts_waiting(&self) -> impl Iterator<Item = WaiterId> {
        let pools = self.pools.values();
        pools.filter_map(|members| Some(members.queue.first_key_value()?.1.waiter))
    }

    /// How many wait, over all pools.
    pub fn all_waiting(&self) -> usize {
        self.waiters.len()
    }

    /// The limit that keeps the waiters of a pool waiting.
    pub fn reached(&self, pool: PoolId) -> Limit {
        let full = |members: &Members| members.counts.open() >= members.limit();
        let in_use = |members: &Members| {
            members.counts.open() - members.counts.connecting >= members.limit()
        };
        if self.is_paused {
            Limit::Paused
        } else if self.is_away(pool.upstream) && !self.pools.get(&pool).is_some_and(in_use) {
            Limit::Away
        } else if self.pools.get(&pool).is_some_and(full) {
            Limit::Pool
        } else if self.budget.room() > 0 {
            Limit::Dialling
        } else if self.budget.limited_by_database() {
            Limit::Database
        } else {
            Limit::Budget
        }
    }

    /// From now on nothing is lent and nothing dialled: who waits goes on waiting. Dials in flight
    /// come to their end.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Lends again: those that have waited, in their order.
    pub fn resume(&mut self) -> Vec<Decision> {
        self.is_paused = false;
        self.settle(&mut None, Vec::new())
    }

    /// Whether nothing is lent.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The counts of all pools together, the reserve among them.
    pub fn totals(&self) -> Counts {
        let mut totals = Counts::default();
        for members in self.pools.values() {
            totals += members.counts;
        }
        totals
    }

    /// Keeps no reserve any more: what is in it is closed, and nothing enters it.
    pub fn give_up_reserve(&mut self) -> Vec<Decision> {
        self.budget.set_warm(0);
        let mut decisions = Vec::new();
        loop {
            let reserved = self.pools_of(ExecutionNumber::RESERVE);
            let stamp = reserved
                .filter_map(|(_, members)| members.longest_idle())
                .min();
            let Some(stamp) = stamp else {
                return self.settle(&mut None, decisions);
            };
            self.evict(stamp, &mut None, &mut decisions);
        }
    }

    /// Whether more wait, over all pools, than connections are being dialled for.
    pub fn anybody_is_unserved(&self) -> bool {
        self.waiters.len() > self.totals().connecting
    }

    /// Whether a newcomer's connection would be dialled at once and could stay open idle
    /// afterwards.
    pub fn has_room_to_stay(&self, pool: PoolId) -> bool {
        let stays = |members: &Members| {
            members.door == Door::Open && members.counts.staying() < members.size()
        };
        !self.is_paused
            && !self.is_away(pool.upstream)
            && self.budget.room() > 0
            && self.budget.staying() < self.budget.size()
            && self.pools.get(&pool).is_some_and(stays)
    }

    /// How many wait in a pool.
    pub fn waiting(&self, pool: PoolId) -> usize {
        self.pools
            .get(&pool)
            .map_or(0, |members| members.queue.len())
    }

    /// The place of a waiter in its pool's queue: 1 is served next. None if it does not wait.
    pub fn position(&self, waiter: WaiterId) -> Option<usize> {
        let (pool, place) = self.waiters.get(&waiter)?;
        Some(self.pools.get(pool)?.queue.range(..=place).count())
    }

    /// Makes a pool, or changes the limits of one; None is no limit but the budget's. A shut pool
    /// stays shut. What is above lower limits is closed when it is idle or returned.
    pub fn admit(&mut self, pool: PoolId, limits: Option<PoolLimits>) -> Vec<Decision> {
        let members = self
            .pools
            .entry(pool)
            .or_insert_with(|| Members::new(limits));
        members.limits = limits;
        let mut decisions = Vec::new();
        self.trim(pool, Members::limit, &mut decisions);
        let mut decisions = self.settle(&mut None, decisions);
        self.trim(pool, Members::size, &mut decisions);
        decisions
    }

    /// A session wants a connection. It is refused where its pool is unknown or shut. A waiter
    /// that waits already keeps its place.
    pub fn arrive(&mut self, pool: PoolId, key: KeyId, waiter: WaiterId) -> Vec<Decision> {
        let place = self.next_stamp();
        self.line_up(pool, place, Waiting::of(waiter, key, Wants::Any))
    }

    /// The same for one that leaves what is idle to others, while there is room for a connection
    /// more that could stay open.
    pub fn arrive_for_new(&mut self, pool: PoolId, key: KeyId, waiter: WaiterId) -> Vec<Decision> {
        let place = self.next_stamp();
        self.line_up(pool, place, Waiting::of(waiter, key, Wants::New))
    }

    /// Somebody whose turn it was got a connection that is no good, and wants another: that one is
    /// served next in its pool.
    pub fn arrive_again(&mut self, pool: PoolId, key: KeyId, waiter: WaiterId) -> Vec<Decision> {
        let first = self.pools.get(&pool).and_then(|members| {
            let (first, _) = members.queue.first_key_value()?;
            first.checked_sub(1)
        });
        let place = first.unwrap_or_else(|| self.next_stamp());
        self.line_up(pool, place, Waiting::of(waiter, key, Wants::Any))
    }

    fn line_up(&mut self, pool: PoolId, place: u64, waiting: Waiting) -> Vec<Decision> {
        let waiter = waiting.waiter;
        if self.waiters.contains_key(&waiter) {
            return Vec::new();
        }
        match self.pools.get_mut(&pool) {
            Some(members) if members.door == Door::Open => {
                members.queue.insert(place, waiting);
            }
            _ => return vec![Decision::Refuse { waiter }],
        }
        self.waiters.insert(waiter, (pool, place));
        self.flow(pool).waiting += 1;
        self.turns.join(pool.execution);
        self.settle(&mut None, Vec::new())
    }

    /// A session of the pool has left something in its connection that a reset does not undo. From
    /// now on none of the pool's connections is moved to another.
    pub fn taint(&mut self, pool: PoolId) {
        if let Some(members) = self.pools.get_mut(&pool) {
            members.is_tainted = true;
        }
    }

    /// How many connections wait in the reserve.
    pub fn reserved(&self) -> usize {
        self.pools_of(ExecutionNumber::RESERVE)
            .map(|(_, members)| members.counts.idle)
            .sum()
    }

    /// A waiter gives up: disconnect, cancel or timeout. A dial that was for it goes on and serves
    /// whoever is next.
    pub fn leave(&mut self, waiter: WaiterId) -> Vec<Decision> {
        self.dequeue(waiter);
        self.settle(&mut None, Vec::new())
    }

    /// A clean connection came back. Unless the answer is [`Decision::CloseReturned`] it is idle
    /// before the decisions are carried out.
    pub fn returned(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        self.transition(pool, key, Phase::Lent, Phase::Idle);
        self.take_in(pool, key)
    }

    /// The same for one that its session has not used and may need later: who wants a new one, and
    /// can have it, leaves it there.
    pub fn parked(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        self.transition(pool, key, Phase::Lent, Phase::Idle);
        let mut decisions = self.settle(&mut None, Vec::new());
        self.close_above(pool, key, &mut None, &mut decisions);
        decisions
    }

    /// A lent connection is not clean and is being closed.
    pub fn discarded(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        self.transition(pool, key, Phase::Lent, Phase::Closing);
        self.settle(&mut None, Vec::new())
    }

    /// A dial succeeded: the connection is idle, and goes to the first that waits for its key.
    /// That was its execution's turn when it was dialled.
    pub fn opened(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        self.away.remove(&pool.upstream);
        self.transition(pool, key, Phase::Connecting, Phase::Idle);
        let first = self.pools.get(&pool).and_then(|members| members.first(key));
        match first {
            Some((_, waiter)) if !self.is_paused => {
                let lend = self.lend(pool, key, waiter);
                self.settle(&mut None, vec![lend])
            }
            _ => self.take_in(pool, key),
        }
    }

    /// A dial failed for a reason of its own: the first that waits for its key is refused.
    pub fn dial_failed(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        let first = self.pools.get(&pool).and_then(|members| members.first(key));
        self.away.remove(&pool.upstream);
        self.transition(pool, key, Phase::Connecting, Phase::Absent);
        let refused = first.map(|(_, waiter)| {
            self.dequeue(waiter);
            Decision::Refuse { waiter }
        });
        self.settle(&mut None, refused.into_iter().collect())
    }

    /// A dial failed because the database takes no more: what is open is all that there is, until
    /// [`Gate::probe`]. Who waits goes on waiting.
    pub fn database_full(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        self.away.remove(&pool.upstream);
        self.transition(pool, key, Phase::Connecting, Phase::Absent);
        self.set_effective(self.budget.open().min(self.budget.effective()))
    }

    /// Allows one more than the database last refused, unless what it allowed is not used up or a
    /// dial is in flight. The caller sees to the interval.
    pub fn probe(&mut self) -> Vec<Decision> {
        let dialling = self
            .pools
            .values()
            .any(|members| members.counts.connecting > 0);
        if dialling || self.budget.room() > 0 {
            return Vec::new();
        }
        self.set_effective(self.budget.effective() + 1)
    }

    /// Allows `effective` connections, the configured limit at most. What is open above it is
    /// closed when idle or returned.
    pub fn set_effective(&mut self, effective: usize) -> Vec<Decision> {
        self.budget.set_effective(effective);
        self.settle(&mut None, Vec::new())
    }

    /// The caller closes an idle connection of its own accord: too old, too long idle, or dead.
    /// [`Gate::closed`] follows.
    pub fn idle_closed(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        self.transition(pool, key, Phase::Idle, Phase::Closing);
        self.settle(&mut None, Vec::new())
    }

    /// The server's end of a closing connection was seen: only now its room is free.
    pub fn closed(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        self.transition(pool, key, Phase::Closing, Phase::Absent);
        self.settle(&mut None, Vec::new())
    }

    /// Its execution ended: who waits is refused, idle connections are closed, and all others when
    /// they come back. The pool is forgotten with its last connection.
    pub fn shut(&mut self, pool: PoolId) -> Vec<Decision> {
        let Some(members) = self.pools.get_mut(&pool) else {
            return Vec::new();
        };
        members.door = Door::Shut;
        let refused: Vec<WaiterId> = members.queue.values().map(|w| w.waiter).collect();
        let mut decisions = Vec::new();
        for waiter in refused {
            self.dequeue(waiter);
            decisions.push(Decision::Refuse { waiter });
        }
        while let Some(stamp) = self.pools.get(&pool).and_then(Members::longest_idle) {
            self.dispose(stamp, &mut None, &mut decisions);
        }
        self.forget(pool);
        self.settle(&mut None, decisions)
    }

    /// An idle connection is in the caller's hand: settles, then closes one of its key if more are
    /// idle than may stay.
    fn take_in(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        let mut hand = Some((pool, key));
        let mut decisions = self.settle(&mut hand, Vec::new());
        if hand.is_some() {
            self.close_above(pool, key, &mut hand, &mut decisions);
        }
        decisions
    }

    /// Closes one idle connection of the key if more are idle than may stay.
    fn close_above(
        &mut self,
        pool: PoolId,
        key: KeyId,
        hand: &mut Option<(PoolId, KeyId)>,
        decisions: &mut Vec<Decision>,
    ) {
        let above = self.pools.get(&pool).filter(|members| {
            members.door == Door::Shut
                || self.retired.contains(&key)
                || members.counts.staying() > members.size()
                || self.budget.staying() > self.budget.size()
        });
        let stamp = above.and_then(|members| members.longest_idle_of(key));
        if let Some(stamp) = stamp {
            self.dispose(stamp, hand, decisions);
        }
    }

    /// Gives an idle connection of the key to `waiter`.
    fn lend(&mut self, pool: PoolId, key: KeyId, waiter: WaiterId) -> Decision {
        self.dequeue(waiter);
        self.transition(pool, key, Phase::Idle, Phase::Lent);
        Decision::Lend { waiter, pool, key }
    }

    /// Takes a waiter out of its queue, and its execution out of the ring with its last one.
    fn dequeue(&mut self, waiter: WaiterId) {
        let Some((pool, place)) = self.waiters.remove(&waiter) else {
            return;
        };
        self.flow(pool).waiting -= 1;
        if let Some(members) = self.pools.get_mut(&pool) {
            members.queue.remove(&place);
        }
        let waits = self
            .pools_of(pool.execution)
            .any(|(_, members)| !members.queue.is_empty());
        if !waits {
            self.turns.leave(pool.execution);
        }
    }

    /// The pools of an execution.
    fn pools_of(&self, execution: ExecutionNumber) -> impl Iterator<Item = (PoolId, &Members)> {
        let pool = |upstream| PoolId {
            execution,
            upstream: super::UpstreamNumber(upstream),
        };
        self.pools
            .range(pool(0)..=pool(u32::MAX))
            .map(|(id, members)| (*id, members))
    }

    /// Moves a connection from phase to phase. All that is counted is counted here.
    fn transition(&mut self, pool: PoolId, key: KeyId, from: Phase, to: Phase) {
        let stamp = self.next_stamp();
        let Some(members) = self.pools.get_mut(&pool) else {
            debug_assert!(false, "{pool:?} has no connection");
            return;
        };
        members.counts.shift(from, to);
        members.peak = members.peak.max(members.counts.staying());
        self.budget.recount(from.weight(), to.weight());
        self.flow(pool).counts.shift(from, to);
        let Some(members) = self.pools.get_mut(&pool) else {
            return;
        };
        match from {
            Phase::Connecting => count_down(&mut members.dials, key),
            Phase::Idle => {
                // Lent is the most recently used one, closed the longest idle.
                let stamps = members.idle.entry(key).or_default();
                let gone = match to {
                    Phase::Lent => stamps.pop_back(),
                    _ => stamps.pop_front(),
                };
                if stamps.is_empty() {
                    members.idle.remove(&key);
                }
                gone.map(|stamp| self.idle.remove(&stamp));
            }
            Phase::Absent | Phase::Lent | Phase::Closing => {}
        }
        match to {
            Phase::Connecting => *members.dials.entry(key).or_default() += 1,
            Phase::Idle => {
                members.idle.entry(key).or_default().push_back(stamp);
                self.idle.insert(stamp, (pool, key));
            }
            Phase::Absent | Phase::Lent | Phase::Closing => {}
        }
        self.forget(pool);
    }

    /// Forgets a pool that is shut and has no connection left.
    fn forget(&mut self, pool: PoolId) {
        let over = |m: &Members| m.door == Door::Shut && m.counts.open() == 0;
        if self.pools.get(&pool).is_some_and(over) {
            self.pools.remove(&pool);
        }
    }

    fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Whether all counts agree with each other.
    fn consistent(&self) -> bool {
        let sum =
            |f: fn(&Counts) -> usize| self.pools.values().map(|m| f(&m.counts)).sum::<usize>();
        let waiting: usize = self.pools.values().map(|m| m.queue.len()).sum();
        self.budget.open() == sum(Counts::open)
            && self.budget.closing() == sum(|counts| counts.closing)
            && self.idle.len() == sum(|counts| counts.idle)
            && self.waiters.len() == waiting
            && self.flows.iter().map(|flow| flow.waiting).sum::<usize>() == waiting
            && self
                .flows
                .iter()
                .map(|flow| flow.counts.lent)
                .sum::<usize>()
                == sum(|c| c.lent)
            && self
                .flows
                .iter()
                .map(|flow| flow.counts.idle)
                .sum::<usize>()
                == sum(|c| c.idle)
            && self.pools.values().all(|members| {
                members.dials.values().sum::<usize>() == members.counts.connecting
                    && members.idle.values().map(|s| s.len()).sum::<usize>() == members.counts.idle
            })
            && self.owed.len() <= self.budget.closing()
            && self.turns.iter().all(|execution| {
                self.pools_of(execution)
                    .any(|(_, members)| !members.queue.is_empty())
            })
    }
}

/// Counts one dial less.
fn count_down(dials: &mut HashMap<KeyId, usize>, key: KeyId) {
    if let Some(count) = dials.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            dials.remove(&key);
        }
    }
}
