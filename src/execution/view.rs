//! Executions as they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::{
    Counts as PoolCounts, ExecutionNumber, PoolId, PoolLimits, Queue, UpstreamNumber,
};
use crate::protocol::startup::ExecutionId;
use crate::session::Totals;

use super::executions::{Executions, Inner};
use super::{Counts, Kind, Reason, ResourceCounts, State, Summary};

/// An execution that has not ended, as it is at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// Its name.
    pub id: ExecutionId,
    /// Which of that name.
    pub generation: u64,
    /// How it came to be.
    pub kind: Kind,
    /// Why it is ending; none while it is active.
    pub ending: Option<Reason>,
    /// How long it has been there.
    pub age: Duration,
    /// The time left until its deadline.
    pub deadline_in: Option<Duration>,
    /// Open streams that hold it.
    pub holds: usize,
    /// What the app wants to remember it by.
    pub labels: BTreeMap<String, String>,
    /// Sessions in it now.
    pub sessions: usize,
    /// Sessions that ever joined.
    pub joined: u64,
    /// What the app has registered with it.
    pub resources: ResourceCounts,
    /// What its sessions have done.
    pub totals: Totals,
    /// Its pools that have been used.
    pub pools: Vec<PoolView>,
}

/// A pool of an execution, as it is at one moment.
#[derive(Debug, Clone)]
pub struct PoolView {
    /// The name of its upstream.
    pub upstream: Arc<str>,
    /// Its connections.
    pub counts: PoolCounts,
    /// Its limits; none but the budget's for the standing execution.
    pub limits: Option<PoolLimits>,
    /// Who waits in it.
    pub queue: Queue,
    /// The most connections that it had at once.
    pub peak: usize,
    /// The backends of its connections.
    pub pids: Vec<i32>,
}

/// One of the executions with most connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Large {
    /// Its name.
    pub id: ExecutionId,
    /// Its server connections.
    pub connections: usize,
    /// How long its sessions have held any, in all.
    pub held: Duration,
}

impl Executions {
    /// All that have not ended, the oldest first.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        let inner = self.inner.lock();
        let mut numbers: Vec<ExecutionNumber> =
            inner.registry.runs().map(|(number, _)| number).collect();
        numbers.sort();
        let views = numbers.into_iter();
        views
            .filter_map(|number| self.view_of(&inner, number))
            .collect()
    }

    /// The active one of that name, or else the one that is ending.
    #[must_use]
    pub fn view(&self, id: &ExecutionId) -> Option<View> {
        let inner = self.inner.lock();
        let number = inner
            .registry
            .find(id)
            .or_else(|| inner.registry.ending(id))?;
        self.view_of(&inner, number)
    }

    /// This generation, if it has not ended.
    #[must_use]
    pub fn view_number(&self, number: ExecutionNumber) -> Option<View> {
        self.view_of(&self.inner.lock(), number)
    }

    /// How long running queries may go on at an end that says nothing about it.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.inner.lock().grace
    }

    /// The server connections of all pools and of the reserve, for each upstream by its number.
    #[must_use]
    pub fn connections(&self) -> Vec<PoolCounts> {
        let reserves = (0..).map(|number| PoolId::reserve(UpstreamNumber(number)));
        let inner = self.inner.lock();
        let mut sums: Vec<PoolCounts> = reserves
            .take(inner.upstreams.len())
            .map(|reserve| self.lender.counts(reserve).unwrap_or_default())
            .collect();
        for pool in inner.rooms.values().flat_map(|room| &room.pools) {
            let counts = self.lender.counts(*pool).unwrap_or_default();
            if let Some(sum) = sums.get_mut(pool.upstream.0 as usize) {
                *sum += counts;
            }
        }
        sums
    }

    /// Those that have ended, as far as they are remembered, the latest first.
    #[must_use]
    pub fn summaries(&self) -> Vec<Summary> {
        let inner = self.inner.lock();
        let mut summaries: Vec<Summary> = inner.registry.summaries().cloned().collect();
        summaries.reverse();
        summaries
    }

    /// The names of the upstreams, by their numbers.
    #[must_use]
    pub fn upstreams(&self) -> Vec<Arc<str>> {
        let inner = self.inner.lock();
        let all = inner.upstreams.iter();
        all.map(|upstream| Arc::clone(&upstream.name)).collect()
    }

    /// The `most` executions with most connections, the largest first; none of those without any.
    #[must_use]
    pub fn largest(&self, most: usize) -> Vec<Large> {
        if most == 0 {
            return Vec::new();
        }
        let now = Instant::now();
        let inner = self.inner.lock();
        let open = |pool: &PoolId| self.lender.counts(*pool).map_or(0, |counts| counts.open());
        let rooms = inner.rooms.iter();
        let sizes = rooms.map(|(number, room)| (room.pools.iter().map(open).sum(), *number));
        let mut sizes: Vec<(usize, ExecutionNumber)> =
            sizes.filter(|(size, _)| *size > 0).collect();
        // Of two like ones the older.
        sizes.sort_by_key(|(size, number)| (std::cmp::Reverse(*size), *number));
        sizes.truncate(most);
        let large = sizes.into_iter().filter_map(|(connections, number)| {
            let held = inner.rooms.get(&number)?.totals(now).held.total();
            let id = inner.registry.get(number)?.id.clone();
            Some(Large {
                id,
                connections,
                held,
            })
        });
        large.collect()
    }

    /// How many there are and were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.lock().registry.counts().clone()
    }

    fn view_of(&self, inner: &Inner, number: ExecutionNumber) -> Option<View> {
        let now = Instant::now();
        let run = inner.registry.get(number)?;
        let room = inner.rooms.get(&number);
        let pools = room.map(|room| room.pools.iter().map(|pool| self.pool_view(inner, *pool)));
        Some(View {
            id: run.id.clone(),
            generation: run.generation,
            kind: run.kind,
            ending: match &run.state {
                State::Active => None,
                State::Ending { reason, .. } => Some(*reason),
            },
            age: now.saturating_duration_since(run.started),
            deadline_in: run.deadline.map(|at| at.saturating_duration_since(now)),
            holds: run.holds,
            labels: room.map(|room| room.labels.clone()).unwrap_or_default(),
            sessions: run.sessions,
            joined: run.joined,
            resources: inner.resources.counts_of(number),
            totals: room.map(|room| room.totals(now)).unwrap_or_default(),
            pools: pools.into_iter().flatten().collect(),
        })
    }

    fn pool_view(&self, inner: &Inner, pool: PoolId) -> PoolView {
        let upstream = inner.upstreams.get(pool.upstream.0 as usize);
        let (counts, limits, queue, peak) = self.lender.look(pool);
        PoolView {
            upstream: upstream.map_or_else(|| "".into(), |upstream| Arc::clone(&upstream.name)),
            counts,
            limits,
            queue,
            peak,
            pids: self.lender.pids(pool),
        }
    }
}
