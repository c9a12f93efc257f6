//! What clients are told by us.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::config::Holders;
use crate::pool::{Limit, Shortage};
use crate::protocol::frame::Violation;
use crate::protocol::message::{Report, Severity, SqlState, seconds};
use crate::protocol::startup::ExecutionId;
use crate::protocol::statement;
use crate::session::{Snapshot, Table};

/// How much of a holder's statement is quoted, in characters.
const QUOTED: usize = 120;
/// How many holders are named.
const NAMED: usize = 3;

/// Who waits in vain, and for what.
pub(super) struct Wanting<'a> {
    pub(super) execution: &'a ExecutionId,
    pub(super) upstream: &'a str,
    pub(super) waited: Duration,
    pub(super) shortage: &'a Shortage,
}

impl Wanting<'_> {
    /// 53300, or 08001: nothing came in time.
    pub(super) fn refusal(&self, severity: Severity, sessions: &Table, tell: Holders) -> Report {
        let reached = self.reached();
        let message = format!(
            "execpool: no server connection for execution {} within {}: {reached}",
            self.execution,
            seconds(self.waited),
        );
        let mut detail = self.use_of_pool_and_budget();
        self.name_holders(sessions, tell, &mut detail);
        Report::new(severity, self.sqlstate(), message)
            .with_detail(detail)
            .with_hint(self.hint())
    }

    /// Too many connections, unless there is nobody to connect to.
    fn sqlstate(&self) -> SqlState {
        match self.shortage.limit {
            Limit::Away => SqlState::UNABLE_TO_CONNECT,
            _ => SqlState::TOO_MANY_CONNECTIONS,
        }
    }

    /// What a client is told that goes on waiting.
    pub(super) fn notice(&self) -> Report {
        let position = self.shortage.position.unwrap_or(1);
        let message = format!(
            "execpool: execution {} waits for a server connection, at position {position}: {}",
            self.execution,
            self.reached()
        );
        Report::new(Severity::Notice, self.sqlstate(), message)
            .with_detail(self.use_of_pool_and_budget())
    }

    /// Which limit it is.
    fn reached(&self) -> String {
        let budget = &self.shortage.budget;
        match (self.shortage.limit, self.shortage.limits) {
            (Limit::Pool, Some(limits)) => format!(
                "its pool of {} is in use",
                limits.size.saturating_add(limits.overflow)
            ),
            (Limit::Pool, None) => "its pool is in use".to_owned(),
            (Limit::Budget, _) => format!("the pod's budget of {} is in use", budget.limit()),
            (Limit::Database, _) => format!(
                "the database takes no more than {} connections (limited_by_database)",
                budget.effective()
            ),
            (Limit::Paused, _) => "execpool is paused".to_owned(),
            (Limit::Away, _) => {
                let why = self.shortage.away.as_deref();
                why.unwrap_or("the database can't be reached").to_owned()
            }
            (Limit::Dialling, _) => "the database has not answered yet".to_owned(),
        }
    }

    fn use_of_pool_and_budget(&self) -> String {
        let Shortage {
            counts,
            limits,
            budget,
            queue,
            ..
        } = self.shortage;
        let of = limits.map_or_else(String::new, |limits| {
            format!(" of {}", limits.size.saturating_add(limits.overflow))
        });
        format!(
            "Pool {}: {}{of} open, {} lent, {} waiting. Budget: {} of {} open.",
            self.upstream,
            counts.open(),
            counts.lent,
            queue.waiting,
            budget.open(),
            budget.limit(),
        )
    }

    /// Names who has held connections for longest: of the execution where its own pool is full.
    fn name_holders(&self, sessions: &Table, tell: Holders, out: &mut String) {
        let of = match self.shortage.limit {
            Limit::Pool => Some(self.execution),
            Limit::Budget | Limit::Database | Limit::Dialling => None,
            // They are not the reason.
            Limit::Paused | Limit::Away => return,
        };
        if tell == Holders::None {
            return;
        }
        let holders = sessions.holders(of, NAMED, Instant::now());
        if holders.is_empty() {
            return;
        }
        out.push_str(" Longest holders: ");
        for (place, holder) in holders.iter().enumerate() {
            let before = if place == 0 { "" } else { "; " };
            // Writing into a String does not fail.
            let _ = write!(out, "{before}{}", described(holder, tell));
        }
        out.push('.');
    }

    fn hint(&self) -> &'static str {
        match self.shortage.limit {
            Limit::Pool => {
                "Close connections that the execution no longer needs, give it fewer at once, or raise pool.size or pool.overflow. `execpool sessions` shows who holds what."
            }
            Limit::Budget => {
                "End executions that are done, close connections across long waits, or raise budget.size or budget.overflow if the database has room. `execpool sessions` shows who holds what."
            }
            Limit::Database => {
                "Others use the database's connections: raise its max_connections, or lower the budgets of what connects to it."
            }
            Limit::Paused => {
                "An operator has paused it, as for a restart of the database. `execpool status` shows since when, `execpool resume` goes on."
            }
            Limit::Away | Limit::Dialling => {
                "Check that the database is up and not overloaded: `execpool status` shows what it last answered."
            }
        }
    }
}

/// A holder, as far as it is to be told.
fn described(holder: &Snapshot, tell: Holders) -> String {
    let id = &holder.identity;
    let mut text = format!("execution {}", id.execution);
    if tell != Holders::Full {
        return text;
    }
    if let Some(caller) = &id.caller {
        let _ = write!(text, ", opened at {caller}");
    }
    if let Some(label) = &id.label {
        let _ = write!(text, ", label {label}");
    }
    let state = holder.state.as_str().replace('_', " ");
    let held = seconds(holder.bound_age.unwrap_or_default());
    let _ = write!(
        text,
        ", {state} for {}, held for {held}",
        seconds(holder.state_age)
    );
    if !holder.statement.is_empty() {
        let shown = statement::shown(&holder.statement, QUOTED);
        let _ = write!(text, ", last statement: {shown}");
    }
    text
}

/// 57014: a cancel request freed the session from the queue.
pub(super) fn cancelled_while_waiting(severity: Severity) -> Report {
    Report::new(
        severity,
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    )
    .with_detail("execpool: it was waiting for a server connection.")
}

/// 57014: a cancel request for a query that a pause has kept from the server.
pub(super) fn cancelled_while_paused() -> Report {
    Report::new(
        Severity::Error,
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    )
    .with_detail("execpool: it had not begun, as execpool is paused.")
}

/// 55000: the execution of a session has ended; why comes by its own way where it is known.
pub(super) fn ended(execution: &ExecutionId) -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("execpool: execution {execution} has ended"),
    )
    .with_hint("Use a new execution id, or begin it anew with POST /v1/executions.")
}

/// 08P01: what the client sent is no message.
pub(super) fn violated(violation: Violation) -> Report {
    Report::new(
        Severity::Fatal,
        violation.sqlstate(),
        format!("execpool: {violation}"),
    )
    .with_hint("Does the client speak the PostgreSQL protocol?")
}

/// 08006: the server connection broke under a session.
pub(super) fn server_gone(upstream: &str) -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::CONNECTION_FAILURE,
        format!("execpool: the connection to the database of upstream {upstream} was lost"),
    )
    .with_hint("The database closed it, or cannot be reached. Connect again.")
}

/// 53300: the table of sessions is full.
pub(super) fn too_many_sessions(most: u32) -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::TOO_MANY_CONNECTIONS,
        format!("execpool: there are {most} sessions already, which is listen.max_sessions"),
    )
    .with_hint("Close connections that are not needed, or raise listen.max_sessions.")
}

/// 53300: too many are at their login, and this one took long.
pub(super) fn crowded(after: Duration) -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::TOO_MANY_CONNECTIONS,
        format!(
            "execpool: too many connections were being opened at once, and this one took over {} s",
            after.as_secs()
        ),
    )
    .with_hint("Connect again. The limit is listen.max_sessions, over TCP at most 1000.")
}

/// 28000: this user of the system may not connect.
pub(super) fn uid_not_allowed(uid: u32) -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        format!("execpool: user id {uid} may not connect to this socket"),
    )
    .with_hint("Add it to listen.allow_uids.")
}

/// Nobody proves a password within the time.
pub(super) fn login_timeout(after: Duration) -> Report {
    let after = after.as_secs();
    Report::new(
        Severity::Fatal,
        SqlState::PROTOCOL_VIOLATION,
        format!("execpool: the login was not finished within {after} s"),
    )
    .with_hint("Connect again. If it goes on, the client is stuck or overloaded.")
}

/// 28P01: the password is wrong, or the user.
pub(super) fn wrong_password(user: &str) -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::INVALID_PASSWORD,
        format!("execpool: password authentication failed for user \"{user}\""),
    )
    .with_hint("Over TCP the password is execpool's own, of listen.tcp_password_file, and not the database's.")
}

/// F0000: there is no password that could be right. Where it should be is for the log.
pub(super) fn no_password_to_prove() -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::CONFIG_FILE_ERROR,
        "execpool: nobody can connect over TCP: the file of listen.tcp_password_file gives no password",
    )
    .with_hint("execpool's log says why. Its Unix socket needs no password.")
}

/// 0A000: a replication connection can't be pooled.
pub(super) fn replication() -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::FEATURE_NOT_SUPPORTED,
        "execpool: replication connections are not pooled",
    )
    .with_hint("Connect to the database directly.")
}

/// 3D000: no upstream serves this database.
pub(super) fn unknown_database(name: &str, known: &[&str]) -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::INVALID_CATALOG_NAME,
        format!("execpool: no upstream serves database \"{name}\""),
    )
    .with_hint(format!("Those served here are: {}.", known.join(", ")))
}

/// 28000: the upstream connects as somebody else.
pub(super) fn wrong_user(user: &str, upstream: &str, serves: &str) -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        format!("execpool: upstream {upstream} serves user \"{serves}\", not \"{user}\""),
    )
    .with_hint(format!(
        "Connect as {serves}, or set any_user: true for this upstream, which then ignores the name."
    ))
}

/// Nobody says who he is within the time.
pub(super) fn startup_timeout(after: Duration) -> Report {
    Report::new(
        Severity::Fatal,
        SqlState::PROTOCOL_VIOLATION,
        format!(
            "execpool: no whole startup packet came within {} s",
            after.as_secs()
        ),
    )
    .with_hint("What only looks whether it is up should ask /readyz of telemetry.listen.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_sent_away_is_told_what_to_do() {
        let execution = ExecutionId::shared();
        let time = Duration::from_secs(10);
        for report in [
            ended(&execution),
            violated(Violation::UnknownType { kind: 0 }),
            server_gone("app"),
            too_many_sessions(1),
            crowded(time),
            uid_not_allowed(1),
            login_timeout(time),
            wrong_password("app"),
            no_password_to_prove(),
            replication(),
            unknown_database("a", &["b"]),
            wrong_user("a", "b", "c"),
            startup_timeout(time),
        ] {
            assert_eq!(report.severity, Severity::Fatal, "{report:?}");
            assert!(report.hint.is_some(), "{report:?}");
        }
    }

    #[test]
    fn times_are_told_as_people_read_them() {
        for (millis, told) in [
            (0, "0.0 s"),
            (1234, "1.2 s"),
            (9949, "9.9 s"),
            (20_000, "20 s"),
        ] {
            assert_eq!(seconds(Duration::from_millis(millis)), told);
        }
    }
}
