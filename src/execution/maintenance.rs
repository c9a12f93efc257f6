//! What is done about what an end has left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::events::{Event, Text};
use crate::pool::{PoolId, UpstreamNumber};
use crate::protocol::startup::ExecutionId;
use crate::server::Backend;

use super::Executions;
use super::cleanup::Scope;
use super::executions::Inner;

/// How many backends are remembered at most, the oldest forgotten first: as many as anybody's
/// server has.
const MOST: usize = 10_000;

/// A backend that was still there when the end of its execution was no longer waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Whose it was.
    pub execution: ExecutionId,
    /// Of which upstream.
    pub upstream: UpstreamNumber,
    /// The backend.
    pub backend: Backend,
    /// When it was no longer waited for.
    pub since: Instant,
}

impl Inner {
    /// Remembers what an ended execution has left behind.
    pub(super) fn leave_behind(
        &mut self,
        id: &ExecutionId,
        backends: &[(UpstreamNumber, Backend)],
    ) {
        let left = backends.iter().map(|(upstream, backend)| Leftover {
            execution: id.clone(),
            upstream: *upstream,
            backend: *backend,
            since: Instant::now(),
        });
        self.remember(left);
    }

    fn remember(&mut self, leftovers: impl IntoIterator<Item = Leftover>) {
        self.leftovers.extend(leftovers);
        let too_many = self.leftovers.len().saturating_sub(MOST);
        self.leftovers.drain(..too_many);
    }
}

impl Executions {
    /// The maintenance pass: leftovers of ended executions are ended, and idle connections above the
    /// budget's size closed. No session notices.
    pub fn maintain(self: &Arc<Self>) {
        self.end_leftovers(&Scope::All);
        self.lender.close_surplus();
    }

    /// What ended executions have left behind, as far as it is known.
    #[must_use]
    pub fn leftovers_of(&self, scope: &Scope) -> Vec<Leftover> {
        let alive = self.alive();
        let inner = self.inner.lock();
        let leftovers = inner.leftovers.iter();
        let left = leftovers.filter(|one| scope.covers(&one.execution));
        left.filter(|one| !alive.contains(&(one.upstream, one.backend)))
            .cloned()
            .collect()
    }

    /// The backends of live executions and of the reserve.
    fn alive(&self) -> BTreeSet<(UpstreamNumber, Backend)> {
        let (pools, upstreams) = {
            let inner = self.inner.lock();
            let rooms = inner.rooms.values();
            let pools: Vec<PoolId> = rooms.flat_map(|room| room.pools.iter().copied()).collect();
            (pools, inner.upstreams.len())
        };
        let reserves = (0..).map(|number| PoolId::reserve(UpstreamNumber(number)));
        let reserves = reserves.take(upstreams);
        reserves
            .chain(pools)
            .flat_map(|pool| {
                let backends = self.lender.backends(pool).into_iter();
                backends.map(move |backend| (pool.upstream, backend))
            })
            .collect()
    }

    /// Ends leftovers of ended executions by force, in the background, and answers them. It never
    /// touches what a live execution or the reserve has: a process id that has passed to one of their
    /// backends meanwhile is left alone. What the server could not be asked for is remembered.
    pub fn end_leftovers(self: &Arc<Self>, scope: &Scope) -> Vec<Leftover> {
        let mut leftovers: Vec<Leftover> = {
            let mut inner = self.inner.lock();
            let known = std::mem::take(&mut inner.leftovers);
            let (left, others) = known
                .into_iter()
                .partition(|one| scope.covers(&one.execution));
            inner.leftovers = others;
            left
        };
        if leftovers.is_empty() {
            return leftovers;
        }
        let alive = self.alive();
        leftovers.retain(|leftover| !alive.contains(&(leftover.upstream, leftover.backend)));
        self.tell_leftovers(&leftovers);
        for leftover in &leftovers {
            tracing::warn!(
                event = "execution.leftovers",
                execution_id = %leftover.execution,
                server_pid = leftover.backend.pid,
                "a backend of an ended execution is ended by force"
            );
            let age = leftover.since.elapsed();
            let asked = (self.terminate)(leftover.upstream, vec![leftover.backend], age);
            self.remember_unless(asked, leftover.clone());
        }
        leftovers
    }

    /// Tells who follows the events, once for each execution.
    fn tell_leftovers(&self, leftovers: &[Leftover]) {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for leftover in leftovers {
            *counts.entry(leftover.execution.as_str()).or_default() += 1;
        }
        for (id, backends) in counts {
            self.events().tell(Event::ExecutionLeftovers {
                execution_id: Text::name(id),
                backends,
            });
        }
    }

    /// Remembers a leftover again, unless its server could be asked to end it.
    fn remember_unless(self: &Arc<Self>, asked: oneshot::Receiver<bool>, leftover: Leftover) {
        let executions = Arc::clone(self);
        self.runtime.spawn(async move {
            if !asked.await.unwrap_or(false) {
                executions.inner.lock().remember([leftover]);
            }
        });
    }
}
