//! Why a checkout waits, as it can be told.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::budget::Budget;

use super::gate::Counts;
use super::{PoolLimits, UpstreamNumber};

/// The limit that keeps a waiter waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Its own pool's.
    Pool,
    /// The pod's budget.
    Budget,
    /// The database's own, which is below the budget.
    Database,
    /// None: an operator has paused everything.
    Paused,
    /// None: there is no database to connect to, where there was one.
    Away,
    /// None: a connection is on its way.
    Dialling,
}

impl Limit {
    /// The word for events and counts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Budget => "budget",
            Self::Database => "database",
            Self::Paused => "paused",
            Self::Away => "away",
            Self::Dialling => "dialling",
        }
    }
}

/// Who waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    /// How many.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub oldest: Duration,
}

/// How much the pod's connections are in demand, at one moment.
#[derive(Debug, Clone)]
pub struct Pressure {
    /// The pod's connections.
    pub budget: Budget,
    /// Who waits for the budget alone, or for what the database leaves of it.
    pub starving: Queue,
    /// How long anybody has waited whom no pool's own limit keeps waiting.
    pub oldest: Duration,
    /// Budget waits that were in vain, since the start.
    pub timed_out: u64,
    /// Whether anybody waits for a database that is away.
    pub is_away: bool,
    /// The upstreams whose connections anybody has or waits for.
    pub in_demand: BTreeSet<UpstreamNumber>,
}

/// How full everything is, seen from one pool.
#[derive(Debug, Clone)]
pub struct Shortage {
    /// What keeps its waiters waiting.
    pub limit: Limit,
    /// The pool's connections.
    pub counts: Counts,
    /// The pool's limits; none but the budget's for the standing execution.
    pub limits: Option<PoolLimits>,
    /// The pod's connections.
    pub budget: Budget,
    /// Who waits in the pool.
    pub queue: Queue,
    /// Why the upstream's database can't be reached, where it could be before.
    pub away: Option<String>,
    /// The asking waiter's place in the pool's queue, from 1.
    pub position: Option<usize>,
}
