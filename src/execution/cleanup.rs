//! Emergency cleanup: which sessions are ended to make room, in which order, and why.
//!
//! [`decide`] is a pure function over a [`Scene`]; what carries it out is in
//! [`tidying`](super::tidying).

use std::cmp::Reverse;
use std::time::Duration;

use crate::protocol::startup::ExecutionId;
use crate::session::{SessionId, State};

/// What a cleanup may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Sessions that have been idle within a transaction for so long.
    pub idle_in_transaction: Duration,
    /// Whether leak suspects may be ended that belong to no named execution.
    pub reclaim_leaks: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            idle_in_transaction: Duration::from_secs(60),
            reclaim_leaks: false,
        }
    }
}

/// Whom a cleanup is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All, as far as somebody waits for the budget.
    All,
    /// One execution, whether anybody waits or not.
    Execution(ExecutionId),
}

impl Scope {
    pub(super) fn covers(&self, execution: &ExecutionId) -> bool {
        match self {
            Self::All => true,
            Self::Execution(id) => id == execution,
        }
    }
}

/// Why something is closed, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A backend that its ended execution has left behind.
    Leftover,
    /// A session that has been idle within a transaction for too long.
    IdleInTransaction,
    /// A session of a named execution that is suspected of having been forgotten.
    LeakSuspect,
    /// The same of no named execution.
    UnnamedLeakSuspect,
}

impl Why {
    /// The word for it in answers and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leftover => "leftover",
            Self::IdleInTransaction => "idle_in_transaction",
            Self::LeakSuspect => "leak_suspect",
            Self::UnnamedLeakSuspect => "unnamed_leak_suspect",
        }
    }
}

/// A session that holds a server connection and asks nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Which.
    pub session: SessionId,
    /// Its execution.
    pub execution: ExecutionId,
    /// Whether the app has named that.
    pub is_named: bool,
    /// Where it stands.
    pub state: State,
    /// How long it has asked nothing.
    pub idle_for: Duration,
    /// Whether it is suspected of having been forgotten.
    pub is_suspect: bool,
}

/// What there is to be decided about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scene {
    /// Whose backends are left over, once for each.
    pub leftovers: Vec<ExecutionId>,
    /// Who holds a server connection and asks nothing.
    pub holders: Vec<Holder>,
    /// How many wait for the budget, each of whom one connection less would help.
    pub waiting: usize,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// How many leftovers are to be ended: all that it is about.
    pub leftovers: usize,
    /// Which sessions, in this order, and why.
    pub sessions: Vec<(SessionId, Why)>,
    /// How many suspects of no named execution are spared, as the policy says.
    pub spared: usize,
}

impl Plan {
    /// How many connections it frees.
    #[must_use]
    pub fn frees(&self) -> usize {
        self.leftovers + self.sessions.len()
    }

    /// The sessions of its first rung.
    #[must_use]
    pub fn first_rung(&self) -> &[(SessionId, Why)] {
        let first = self.sessions.first().map(|(_, why)| *why);
        let end = self
            .sessions
            .iter()
            .position(|(_, why)| Some(*why) != first);
        &self.sessions[..end.unwrap_or(self.sessions.len())]
    }
}

/// What a cleanup does: leftovers of ended executions first; then sessions that are idle in a
/// transaction, then suspects of named executions, then other suspects where the policy allows it.
/// Within each the longest idle first, and, unless it is about one execution, only as many as wait
/// for the budget.
#[must_use]
pub fn decide(scene: &Scene, policy: &Policy, scope: &Scope) -> Plan {
    let leftovers = scene.leftovers.iter();
    let mut plan = Plan {
        leftovers: leftovers
            .filter(|execution| scope.covers(execution))
            .count(),
        ..Plan::default()
    };
    let mut candidates: Vec<(Why, &Holder)> = scene
        .holders
        .iter()
        .filter(|holder| scope.covers(&holder.execution))
        .filter_map(|holder| Some((why(holder, policy)?, holder)))
        .collect();
    let before = candidates.len();
    if !policy.reclaim_leaks {
        candidates.retain(|(why, _)| *why != Why::UnnamedLeakSuspect);
    }
    plan.spared = before - candidates.len();
    candidates.sort_by_key(|(why, holder)| (*why, Reverse(holder.idle_for), holder.session));
    let most = match scope {
        Scope::All => scene.waiting.saturating_sub(plan.leftovers),
        Scope::Execution(_) => usize::MAX,
    };
    let chosen = candidates.into_iter().take(most);
    plan.sessions = chosen.map(|(why, holder)| (holder.session, why)).collect();
    plan
}

/// On which rung a session is, if on any.
fn why(holder: &Holder, policy: &Policy) -> Option<Why> {
    let is_idle = holder.state == State::InTransaction;
    if is_idle && holder.idle_for >= policy.idle_in_transaction {
        return Some(Why::IdleInTransaction);
    }
    match (holder.is_suspect, holder.is_named) {
        (false, _) => None,
        (true, true) => Some(Why::LeakSuspect),
        (true, false) => Some(Why::UnnamedLeakSuspect),
    }
}

#[cfg(test)]
mod tests;
