//! Who lacks room, and who takes up more than may stay.

use super::{Decision, Gate};
use crate::pool::{Limit, UpstreamNumber, WaiterId};
use std::collections::BTreeSet;

impl Gate {
    /// How many wait for the budget alone: their pools have room, and the budget, or what the
    /// database leaves of it, has none. Each of them would be helped by one connection less.
    pub fn starving(&self) -> usize {
        self.starving_pools().map(|(_, many)| many).sum()
    }

    /// The same by pools: who has waited longest in each for the budget alone, and how many do.
    pub fn starving_pools(&self) -> impl Iterator<Item = (WaiterId, usize)> {
        let is_full = !self.is_paused && self.budget.room() == 0;
        let pools = self.pools.iter().filter(move |_| is_full);
        pools.filter_map(|(pool, members)| {
            if self.is_away(pool.upstream) {
                return None;
            }
            // A dial under way is for the first.
            let served = members.counts.connecting;
            let first = members.queue.values().nth(served)?.waiter;
            let unserved = members.queue.len() - served;
            let room = members.limit().saturating_sub(members.counts.staying());
            let many = unserved.min(room);
            (many > 0).then_some((first, many))
        })
    }

    /// Who has waited longest in each pool whose own limit is not what keeps them waiting.
    pub fn firsts_beyond_pools(&self) -> impl Iterator<Item = WaiterId> {
        let pools = self.pools.iter();
        let waited = pools.filter_map(|(pool, members)| {
            let (_, first) = members.queue.first_key_value()?;
            Some((*pool, first.waiter))
        });
        waited
            .filter(|(pool, _)| self.reached(*pool) != Limit::Pool)
            .map(|(_, first)| first)
    }

    /// Whether anybody waits for an upstream that is away.
    pub fn is_away_for_anybody(&self) -> bool {
        let mut pools = self.pools.iter();
        pools.any(|(pool, members)| !members.queue.is_empty() && self.is_away(pool.upstream))
    }

    /// The upstreams whose connections anybody has or waits for.
    pub fn in_demand(&self) -> BTreeSet<UpstreamNumber> {
        let pools = self.pools.iter();
        let wanted = pools.filter(|(_, it)| it.counts.lent > 0 || !it.queue.is_empty());
        wanted.map(|(pool, _)| pool.upstream).collect()
    }

    /// Closes idle connections for as long as more are open than may stay, the longest idle first.
    pub fn close_surplus(&mut self) -> Vec<Decision> {
        let mut decisions = Vec::new();
        while self.budget.staying() > self.budget.size() {
            let Some(stamp) = self.longest_idle() else {
                break;
            };
            self.evict(stamp, &mut None, &mut decisions);
        }
        decisions
    }
}
