//! How long executions last, and what sessions without one get.

use std::time::Duration;

/// What becomes of a session that names no execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untagged {
    /// It joins the standing execution.
    Shared,
    /// It gets an execution of its own.
    Session,
    /// It is refused.
    Reject,
}

/// How long things last.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The default deadline, from the beginning; none: no deadline.
    pub max_duration: Option<Duration>,
    /// How long an implicit execution stays without a session.
    pub idle_timeout: Duration,
    /// How long an ended name is refused.
    pub tombstone: Duration,
    /// Between the last hold's close and the end.
    pub hold_grace: Duration,
    /// What becomes of sessions that name none.
    pub untagged: Untagged,
}
