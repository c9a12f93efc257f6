//! How long a session may keep a transaction open, and what it is told that does so for longer.

use std::time::Duration;

use crate::events::{self, Event, Seconds, Text};
use crate::protocol::message::{Report, Severity, SqlState, seconds};
use crate::protocol::statement::shown;

use super::{Identity, Session};

/// How much of a session's own last statement is quoted to it, in characters.
const QUOTED: usize = 200;

/// A limit in time: none of either means off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    /// When the client gets a NOTICE, once for each transaction.
    pub notice: Option<Duration>,
    /// When the session is ended.
    pub end: Option<Duration>,
}

/// The limits of sessions, which the periodic sweep looks after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// How long a session may wait inside a transaction.
    pub idle_in_transaction: Limit,
    /// How long a transaction may take.
    pub transaction: Limit,
    /// How long a session may hold a server connection and ask nothing before it is suspected of
    /// having been forgotten; none: for ever.
    pub leak_after: Option<Duration>,
}

impl Limits {
    /// Whether there is nothing to look after.
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn of(&self, which: Which) -> Limit {
        match which {
            Which::IdleInTransaction => self.idle_in_transaction,
            Which::Transaction => self.transaction,
        }
    }
}

/// Which limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    IdleInTransaction,
    Transaction,
}

/// What becomes of a session that is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Notice,
    End,
}

impl Act {
    /// The word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::End => "end",
        }
    }
}

/// A session that is over a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overdue {
    pub(super) which: Which,
    pub(super) act: Act,
    /// How long it has been so.
    pub(super) time: Duration,
    /// The beginning of its last statement, with its literals.
    pub(super) statement: Vec<u8>,
}

impl Overdue {
    /// The word for events and counts.
    pub(super) fn word(&self) -> &'static str {
        match (self.which, self.act) {
            (Which::IdleInTransaction, Act::Notice) => "session.idle_in_transaction.notice",
            (Which::IdleInTransaction, Act::End) => "session.idle_in_transaction.end",
            (Which::Transaction, Act::Notice) => "session.transaction.notice",
            (Which::Transaction, Act::End) => "session.transaction.end",
        }
    }

    /// The event; `report` is what the client is told.
    pub(super) fn event(&self, session: &Session, report: &Report) -> Event {
        Event::SessionLimit {
            session_id: session.id().0,
            execution_id: Text::name(session.identity().execution.as_str()),
            limit: Text::name(self.word()),
            act: match self.act {
                Act::Notice => events::Act::Notice,
                Act::End => events::Act::End,
            },
            seconds: Seconds(self.time),
            message: Text::sentence(&report.message),
            unsaid: 0,
        }
    }

    /// What the client is told, and the log. The statement is the session's own, so `errors.holders`,
    /// which is about what others learn, does not count here.
    pub(super) fn report(&self, identity: &Identity, limits: &Limits) -> Report {
        let execution = &identity.execution;
        let limit = limits.of(self.which);
        let time = seconds(self.time);
        let (sqlstate, what) = match self.which {
            Which::IdleInTransaction => (
                SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                format!("idle in transaction for {time}"),
            ),
            Which::Transaction => (
                SqlState::TRANSACTION_TIMEOUT,
                format!("in one transaction for {time}"),
            ),
        };
        let (severity, message) = match self.act {
            Act::Notice => (
                Severity::Notice,
                format!("execpool: a session of execution {execution} has been {what}"),
            ),
            Act::End => {
                let most = seconds(limit.end.unwrap_or_default());
                let knob = self.word();
                let message = format!(
                    "execpool: a session of execution {execution} was {what}: {knob} is {most}"
                );
                (Severity::Fatal, message)
            }
        };
        let report = Report::new(severity, sqlstate, message).with_hint(self.hint(limit));
        match self.statement.is_empty() {
            true => report,
            false => report.with_detail(format!(
                "Last statement: {}.",
                shown(&self.statement, QUOTED)
            )),
        }
    }

    fn hint(&self, limit: Limit) -> String {
        let advice = match self.which {
            Which::IdleInTransaction => {
                "Commit or roll back before waiting for anything but the database"
            }
            Which::Transaction => "Commit more often, or move what is not the database's out of it",
        };
        match (self.act, limit.end) {
            (Act::End, _) => {
                format!(
                    "The transaction was rolled back. {advice}, or raise {}.",
                    self.word()
                )
            }
            (Act::Notice, None) => {
                format!("{advice}: meanwhile its locks and its server connection are held.")
            }
            (Act::Notice, Some(end)) => {
                format!("{advice}: after {} the session is ended.", seconds(end))
            }
        }
    }
}
