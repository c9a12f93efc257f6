//! One look at the data plane.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::execution::{Counts, Executions, Large, ResourceCounts};
use crate::metrics::Counters;
use crate::metrics::words::HeldState;
use crate::pool::{Flow, Queue, UpstreamNumber};
use crate::session::{Counts as SessionCounts, State};

/// What the data plane tells, in one turn of its loop.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) budget: Budget,
    pub(super) queue: Queue,
    pub(super) reserve: usize,
    /// The upstreams' names and what goes on there, by their numbers.
    pub(super) upstreams: Vec<(Arc<str>, Flow, u64)>,
    pub(super) executions: Counts,
    pub(super) sessions: SessionCounts,
    /// For how long the first of each state has stood in it.
    pub(super) oldest: [Option<Duration>; State::ALL.len()],
    pub(super) held: [Duration; HeldState::ALL.len()],
    pub(super) counters: Arc<Counters>,
    pub(super) resources: ResourceCounts,
    pub(super) largest: Vec<Large>,
}

impl Look {
    /// Looks, also at the `most` largest executions.
    pub(super) fn at(executions: &Executions, most: usize) -> Self {
        let now = Instant::now();
        let lender = executions.lender();
        let (budget, queue) = lender.budget();
        let mut flows = lender.flows().into_iter();
        let names = executions.upstreams().into_iter();
        let upstreams = names.map(|name| {
            // One that nobody has used yet has none.
            let (flow, timeouts) = flows.next().unwrap_or_default();
            (name, flow, timeouts)
        });
        let sessions = executions.sessions();
        let oldest = sessions.oldest(now);
        Self {
            at: now,
            budget,
            queue,
            reserve: lender.reserved(),
            upstreams: upstreams.collect(),
            executions: executions.counts(),
            sessions: sessions.counts(),
            oldest: oldest.map(|oldest| oldest.map(|oldest| oldest.state_age)),
            held: sessions.held(now),
            counters: Arc::clone(lender.counters()),
            resources: executions.resources().0,
            largest: executions.largest(most),
        }
    }

    /// How many connections our pools have at an upstream.
    pub(super) fn pooled(&self, upstream: UpstreamNumber) -> usize {
        let upstream = self.upstreams.get(upstream.0 as usize);
        upstream.map_or(0, |(_, flow, _)| flow.counts.open())
    }
}
