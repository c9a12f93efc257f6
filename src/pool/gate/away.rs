//! Upstreams whose database is away: who needs it waits without holding room, and one dial at a time
//! looks whether it is back.

use super::{Decision, Gate, Phase};
use crate::pool::{KeyId, PoolId, UpstreamNumber};

/// What may be done about an upstream that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing. Left by [`Gate::look_again`].
    Later,
    /// The next that needs it may dial. Left by that dial.
    Now,
}

impl Gate {
    /// A dial has found nobody there. Who waits goes on waiting, and nothing is dialled for the
    /// upstream until [`Gate::look_again`].
    pub fn dial_postponed(&mut self, pool: PoolId, key: KeyId) -> Vec<Decision> {
        self.away.insert(pool.upstream, Look::Later);
        self.transition(pool, key, Phase::Connecting, Phase::Absent);
        self.settle(&mut None, Vec::new())
    }

    /// One dial for an upstream that is away: at once if anybody waits, else when somebody comes.
    pub fn look_again(&mut self, upstream: UpstreamNumber) -> Vec<Decision> {
        if let Some(look) = self.away.get_mut(&upstream) {
            *look = Look::Now;
        }
        self.settle(&mut None, Vec::new())
    }

    /// The upstream leads elsewhere.
    pub fn forget_away(&mut self, upstream: UpstreamNumber) {
        self.away.remove(&upstream);
    }

    /// Whether dials for the upstream found nobody.
    pub fn is_away(&self, upstream: UpstreamNumber) -> bool {
        self.away.contains_key(&upstream)
    }

    /// Whether a dial for the upstream must wait.
    pub(super) fn must_not_dial(&self, upstream: UpstreamNumber) -> bool {
        self.away.get(&upstream) == Some(&Look::Later)
    }

    /// A dial for the upstream begins.
    pub(super) fn looks(&mut self, upstream: UpstreamNumber) {
        if let Some(look) = self.away.get_mut(&upstream) {
            *look = Look::Later;
        }
    }
}
