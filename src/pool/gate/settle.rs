//! Settling: after each event, what can be had is dealt to those who wait, turn by turn.

use super::{Decision, Gate, Members, Phase, Waiting, Wants};
use crate::pool::{ExecutionNumber, KeyId, PoolId};
use std::collections::{HashMap, VecDeque};

/// What one settling has dealt so far.
#[derive(Default)]
struct Deal {
    /// Where each pool's next waiter is looked for.
    from: HashMap<PoolId, u64>,
    /// Waiters that a dial in flight is for.
    awaited: HashMap<(PoolId, KeyId), usize>,
    /// Room that closings will make and that is spoken for: by pool, and in all.
    promised: HashMap<PoolId, usize>,
    promises: usize,
}

/// How one turn went.
enum Turn {
    /// Something was dealt: the execution may have another turn after the others.
    Had,
    /// Room was promised that a closing will make: likewise, and it is owed until then.
    Promised,
    /// Nobody of it can be helped further now.
    Over,
}

impl Gate {
    /// Deals idle connections, room, and the room that closings under way will make, one to each
    /// waiting execution in turn; closes idle ones where that is not enough. `hand` is the
    /// idle connection that came with the event; it is taken when that is lent or closed.
    pub(super) fn settle(
        &mut self,
        hand: &mut Option<(PoolId, KeyId)>,
        mut decisions: Vec<Decision>,
    ) -> Vec<Decision> {
        self.drain(hand, &mut decisions);
        if self.is_paused {
            // Room that has come meanwhile was nobody's turn: it is dealt anew.
            self.owed.truncate(self.budget.closing());
            debug_assert!(self.consistent(), "{self:?}");
            return decisions;
        }
        let mut deal = Deal::default();
        // Those whose turn it was already, and who wait for the room.
        for execution in std::mem::take(&mut self.owed) {
            match self.turn(execution, &mut deal, hand, &mut decisions) {
                Turn::Promised => self.owed.push(execution),
                Turn::Had | Turn::Over => {}
            }
        }
        let mut round: VecDeque<ExecutionNumber> = self.turns.iter().collect();
        while let Some(execution) = round.pop_front() {
            match self.turn(execution, &mut deal, hand, &mut decisions) {
                Turn::Had => {}
                Turn::Promised => self.owed.push(execution),
                Turn::Over => continue,
            }
            tracing::debug!(execution_number = execution.0, "turn");
            self.turns.granted(execution);
            round.push_back(execution);
        }
        debug_assert!(self.consistent(), "{self:?}");
        decisions
    }

    /// Closes idle connections above a lowered budget.
    fn drain(&mut self, hand: &mut Option<(PoolId, KeyId)>, decisions: &mut Vec<Decision>) {
        while self.budget.staying() > self.budget.effective() {
            let Some(stamp) = self.longest_idle() else {
                return;
            };
            self.evict(stamp, hand, decisions);
        }
        // The same of a pool whose limit was lowered: only what comes back to it can be idle.
        while let Some((pool, _)) = *hand
            && let Some(members) = self.pools.get(&pool)
            && members.counts.staying() > members.limit()
            && let Some(stamp) = members.longest_idle()
        {
            self.evict(stamp, hand, decisions);
        }
    }

    /// Deals to one waiter of the execution: the first, over its pools, that can be helped.
    fn turn(
        &mut self,
        execution: ExecutionNumber,
        deal: &mut Deal,
        hand: &mut Option<(PoolId, KeyId)>,
        decisions: &mut Vec<Decision>,
    ) -> Turn {
        while let Some((pool, place, waiting)) = self.next_waiting(execution, deal) {
            let idle = self
                .pools
                .get(&pool)
                .map_or(0, |members| members.idle(waiting.key));
            let came = *hand == Some((pool, waiting.key));
            let leaves_idle = waiting.wants == Wants::New
                && !came
                && (self.has_free_dial(pool, waiting.key, deal) || self.has_room_to_stay(pool));
            if idle > 0 && !leaves_idle {
                deal.from.insert(pool, place + 1);
                let lend = self.lend(pool, waiting.key, waiting.waiter);
                // The newest is lent first: the one in the hand is gone.
                hand.take_if(|held| *held == (pool, waiting.key));
                decisions.push(lend);
                return Turn::Had;
            }
            if self.awaits_a_dial(pool, waiting.key, deal) {
                deal.from.insert(pool, place + 1);
            } else if self.take_over(pool, waiting.key, deal, hand, decisions) {
                deal.from.insert(pool, place + 1);
                // The first in line gets it, even if a dial was for him: that is for this one now.
                let first = self
                    .pools
                    .get(&pool)
                    .and_then(|members| members.first(waiting.key));
                let first = first.map_or(waiting.waiter, |(_, waiter)| waiter);
                let lend = self.lend(pool, waiting.key, first);
                decisions.push(lend);
                return Turn::Had;
            } else if self.must_not_dial(pool.upstream) {
                // Somebody behind may want what is idle of another key.
                deal.from.insert(pool, place + 1);
            } else if self.make_room(pool, deal, hand, decisions) {
                deal.from.insert(pool, place + 1);
                return self.dial_or_promise(pool, waiting.key, deal, decisions);
            } else {
                // Nothing can be had for this pool, and no connection in it is idle (else room
                // could be made): who is behind could not be helped either.
                deal.from.insert(pool, u64::MAX);
            }
        }
        Turn::Over
    }

    /// The execution's first waiter that this settling has not looked at.
    fn next_waiting(
        &self,
        execution: ExecutionNumber,
        deal: &Deal,
    ) -> Option<(PoolId, u64, Waiting)> {
        self.pools_of(execution)
            .filter_map(|(pool, members)| {
                let from = deal.from.get(&pool).copied().unwrap_or(0);
                let (place, waiting) = members.queue.range(from..).next()?;
                Some((pool, *place, *waiting))
            })
            .min_by_key(|(_, place, _)| *place)
    }

    /// Whether a dial in flight, not yet another's, is for a waiter of this key.
    fn awaits_a_dial(&self, pool: PoolId, key: KeyId, deal: &mut Deal) -> bool {
        let free = self.has_free_dial(pool, key, deal);
        *deal.awaited.entry((pool, key)).or_default() += usize::from(free);
        free
    }

    /// Whether a dial in flight is nobody's yet.
    fn has_free_dial(&self, pool: PoolId, key: KeyId, deal: &Deal) -> bool {
        let members = self.pools.get(&pool);
        let dialling = members.map_or(0, |members| members.dialling(key));
        let awaited = deal.awaited.get(&(pool, key)).copied();
        awaited.unwrap_or_default() < dialling
    }

    /// Sees that the pool and the budget have room for one more, or will have when closings under
    /// way are done; closes idle connections where they don't. False: no room can be had.
    fn make_room(
        &mut self,
        pool: PoolId,
        deal: &Deal,
        hand: &mut Option<(PoolId, KeyId)>,
        decisions: &mut Vec<Decision>,
    ) -> bool {
        let promised = deal.promised.get(&pool).copied().unwrap_or(0);
        while let Some(members) = self.pools.get(&pool) {
            let full = members.counts.staying() + promised >= members.limit();
            let stamp = if full {
                members.longest_idle()
            } else if self.budget.staying() + deal.promises >= self.budget.effective() {
                self.longest_idle()
            } else {
                return true;
            };
            match stamp {
                Some(stamp) => self.evict(stamp, hand, decisions),
                None => return false,
            }
        }
        false
    }

    /// Dials if there is room now; else speaks for room that a closing will make.
    fn dial_or_promise(
        &mut self,
        pool: PoolId,
        key: KeyId,
        deal: &mut Deal,
        decisions: &mut Vec<Decision>,
    ) -> Turn {
        let slot = |members: &Members| members.counts.open() < members.limit();
        if self.budget.room() > 0 && self.pools.get(&pool).is_some_and(slot) {
            self.transition(pool, key, Phase::Absent, Phase::Connecting);
            self.looks(pool.upstream);
            *deal.awaited.entry((pool, key)).or_default() += 1;
            decisions.push(Decision::Dial { pool, key });
            Turn::Had
        } else {
            *deal.promised.entry(pool).or_default() += 1;
            deal.promises += 1;
            Turn::Promised
        }
    }

    /// The stamp of the connection that is idle longest; those of nobody first.
    pub(super) fn longest_idle(&self) -> Option<u64> {
        let reserved = self.pools_of(ExecutionNumber::RESERVE);
        let of_nobody = reserved.filter_map(|(_, members)| members.longest_idle());
        of_nobody.min().or_else(|| self.idle.keys().next().copied())
    }

    /// Takes an idle connection of the key over from the reserve or, where the budget is full,
    /// from another pool. Only where a reserve is allowed, and the pool has room.
    fn take_over(
        &mut self,
        pool: PoolId,
        key: KeyId,
        deal: &Deal,
        hand: &mut Option<(PoolId, KeyId)>,
        decisions: &mut Vec<Decision>,
    ) -> bool {
        let promised = deal.promised.get(&pool).copied().unwrap_or(0);
        let has_room = |members: &Members| members.counts.open() + promised < members.limit();
        if self.budget.warm() == 0 || !self.pools.get(&pool).is_some_and(has_room) {
            return false;
        }
        let reserve = PoolId::reserve(pool.upstream);
        let in_reserve = self.pools.get(&reserve);
        let from = if in_reserve.is_some_and(|members| members.idle(key) > 0) {
            Some(reserve)
        } else if self.budget.staying() + deal.promises >= self.budget.effective() {
            self.longest_idle_elsewhere(pool, key)
        } else {
            None
        };
        if let Some(from) = from {
            self.move_idle(from, pool, key, hand, decisions);
        }
        from.is_some()
    }

    /// The pool that has had an idle connection of the key for longest and may give it away.
    fn longest_idle_elsewhere(&self, pool: PoolId, key: KeyId) -> Option<PoolId> {
        let mut idle = self.idle.values();
        let found = idle.find(|(of, its)| {
            *its == key && of.upstream == pool.upstream && *of != pool && self.may_give_away(*of)
        });
        found.map(|(of, _)| *of)
    }

    /// Whether a pool's connections may reach another one.
    fn may_give_away(&self, pool: PoolId) -> bool {
        let members = self.pools.get(&pool);
        members.is_some_and(|members| !members.is_tainted)
    }

    /// Whether exactly one connection of the key is idle in a pool.
    fn has_one_idle(&self, pool: PoolId, key: KeyId) -> bool {
        let members = self.pools.get(&pool);
        members.is_some_and(|members| members.idle(key) == 1)
    }

    /// An idle connection is not needed where it is: into the reserve with it, or closed.
    pub(super) fn dispose(
        &mut self,
        stamp: u64,
        hand: &mut Option<(PoolId, KeyId)>,
        decisions: &mut Vec<Decision>,
    ) {
        let Some(&(pool, key)) = self.idle.get(&stamp) else {
            return;
        };
        let has_room = self.reserved() < self.budget.warm()
            && self.budget.staying() <= self.budget.size().min(self.budget.effective());
        let is_kept = !self.retired.contains(&key);
        if is_kept && self.may_give_away(pool) && has_room && !pool.is_reserve() {
            let reserve = PoolId::reserve(pool.upstream);
            let members = self.pools.entry(reserve);
            members.or_insert_with(|| Members::new(None));
            self.move_idle(pool, reserve, key, hand, decisions);
        } else {
            self.evict(stamp, hand, decisions);
        }
    }

    /// Moves the connection of the key that is idle longest from pool to pool.
    fn move_idle(
        &mut self,
        from: PoolId,
        to: PoolId,
        key: KeyId,
        hand: &mut Option<(PoolId, KeyId)>,
        decisions: &mut Vec<Decision>,
    ) {
        if self.has_one_idle(from, key) {
            hand.take_if(|held| *held == (from, key));
        }
        self.transition(from, key, Phase::Idle, Phase::Absent);
        self.transition(to, key, Phase::Absent, Phase::Idle);
        decisions.push(Decision::Move { from, to, key });
    }

    /// Closes the idle connection with this stamp, which is its key's longest idle one; if that is
    /// the one in the caller's hand, says so.
    pub(super) fn evict(
        &mut self,
        stamp: u64,
        hand: &mut Option<(PoolId, KeyId)>,
        decisions: &mut Vec<Decision>,
    ) {
        let Some(&(pool, key)) = self.idle.get(&stamp) else {
            return;
        };
        let only = self.has_one_idle(pool, key);
        self.transition(pool, key, Phase::Idle, Phase::Closing);
        if only && hand.take_if(|held| *held == (pool, key)).is_some() {
            decisions.push(Decision::CloseReturned { pool, key });
        } else {
            decisions.push(Decision::Evict { pool, key });
        }
    }
}
