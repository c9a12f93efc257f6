//! What a changed configuration does to connections that are there: keys that are not kept, and
//! lower limits. A lent connection is never touched: it is closed when it comes back.

use super::{Decision, Gate, Members};
use crate::pool::{ExecutionNumber, KeyId, PoolId};

impl Gate {
    /// The budget has other limits from now on. Who waits gets what a larger one has room for; what
    /// is above a smaller one is closed, idle ones now and the others when they are returned. Where
    /// a reserve is allowed that was not, nobody has looked at what sessions leave behind: the pools
    /// that are there give nothing away.
    pub fn resize(&mut self, size: usize, overflow: usize, warm: usize) -> Vec<Decision> {
        if self.budget.warm() == 0 && warm > 0 {
            for (pool, members) in &mut self.pools {
                members.is_tainted |= !pool.is_reserve();
            }
        }
        self.budget.resize(size, overflow, warm);
        let mut decisions = self.settle(&mut None, Vec::new());
        while self.reserved() > self.budget.warm() {
            let Some(stamp) = self.longest_reserved() else {
                break;
            };
            self.evict(stamp, &mut None, &mut decisions);
        }
        decisions.extend(self.close_surplus());
        decisions
    }

    /// None of the key's connections is kept from now on: idle ones are closed, and the others when
    /// they come back. Who waits for one waits for one of `successor` instead, where there is any.
    pub fn retire(&mut self, key: KeyId, successor: Option<KeyId>) -> Vec<Decision> {
        self.retired.insert(key);
        if let Some(successor) = successor {
            let waiting = self
                .pools
                .values_mut()
                .flat_map(|members| &mut members.queue);
            for (_, waiting) in waiting.filter(|(_, waiting)| waiting.key == key) {
                waiting.key = successor;
            }
        }
        let mut decisions = Vec::new();
        let idle = self.idle.iter().filter(|(_, (_, of))| *of == key);
        let stamps: Vec<u64> = idle.map(|(stamp, _)| *stamp).collect();
        for stamp in stamps {
            self.evict(stamp, &mut None, &mut decisions);
        }
        self.settle(&mut None, decisions)
    }

    /// Nobody has the retired key any more.
    pub fn forget_key(&mut self, key: KeyId) {
        self.retired.remove(&key);
    }

    /// Whether a connection of the key is being dialled for a pool.
    pub fn is_dialling(&self, pool: PoolId, key: KeyId) -> bool {
        let members = self.pools.get(&pool);
        members.is_some_and(|members| members.dialling(key) > 0)
    }

    /// Closes what is idle in a pool above what `most` says of it.
    pub(super) fn trim(
        &mut self,
        pool: PoolId,
        most: impl Fn(&Members) -> usize,
        decisions: &mut Vec<Decision>,
    ) {
        while let Some(members) = self.pools.get(&pool)
            && members.counts.staying() > most(members)
            && let Some(stamp) = members.longest_idle()
        {
            self.evict(stamp, &mut None, decisions);
        }
    }

    fn longest_reserved(&self) -> Option<u64> {
        let reserved = self.pools_of(ExecutionNumber::RESERVE);
        reserved
            .filter_map(|(_, members)| members.longest_idle())
            .min()
    }
}
