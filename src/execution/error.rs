//! Why a session or a request does not get its execution.

use super::Reason;
use crate::protocol::message::{Report, Severity, SqlState};
use crate::protocol::startup::ExecutionId;
use std::time::Duration;

/// Why a session may not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The execution has ended, and a straggler must not bring it back.
    #[error("execpool: execution {id} has ended")]
    Ended {
        /// Its name.
        id: ExecutionId,
        /// Why it ended.
        reason: Reason,
        /// How long ago.
        ago: Duration,
    },
    /// The session names no execution, and this configuration demands one.
    #[error("execpool: the session names no execution")]
    Untagged,
}

impl Refused {
    /// What the client is told before the session closes.
    pub fn report(&self) -> Report {
        let fatal = |state| Report::new(Severity::Fatal, state, self.to_string());
        match self {
            Self::Ended { reason, ago, .. } => fatal(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE)
                .with_detail(format!("It ended {} s ago: {reason}.", ago.as_secs()))
                .with_hint("Use a new execution id, or begin it anew with POST /v1/executions."),
            Self::Untagged => fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION).with_hint(
                "Name one with the startup parameter execpool.execution_id, with options=-c execpool.execution_id=ID, or with application_name=execpool:ID.",
            ),
        }
    }
}

/// An explicit execution of that name is active already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("execution {0} is active already")]
pub struct Conflict(pub ExecutionId);
