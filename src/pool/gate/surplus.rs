//! Who lacks room, and who takes up more than may stay.

use super::{Decision, Gate, Members};
use crate::pool::PoolId;

impl Gate {
    /// How many wait for the budget alone: their pools have room, and the budget, or what the
    /// database leaves of it, has none. Each of them would be helped by one connection less.
    pub fn starving(&self) -> usize {
        if self.is_paused || self.budget.room() > 0 {
            return 0;
        }
        let starving = |(pool, members): (&PoolId, &Members)| {
            if self.is_away(pool.upstream) {
                return 0;
            }
            let unserved = members
                .queue
                .len()
                .saturating_sub(members.counts.connecting);
            let room = members.limit().saturating_sub(members.counts.staying());
            unserved.min(room)
        };
        self.pools.iter().map(starving).sum()
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
