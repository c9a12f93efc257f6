//! What is answered where a query fails.

use std::io;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorResponseBody;

use crate::control::problem::{Kind, Problem, SqlError};
use crate::protocol::message::seconds;

/// The SQLSTATE of what was cancelled.
const CANCELLED: &str = "57014";

/// Why there is no answer to a query.
#[derive(Debug)]
pub(super) enum Failure {
    /// PostgreSQL says so, or execpool in its place.
    Sql(Box<SqlError>),
    /// It took longer than this, and was cancelled.
    Timeout(Duration),
    /// The statement is a COPY, which can't be answered as rows.
    Copy,
    /// The session has ended without a word, or said what can't be understood.
    Broken(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Failure {
    /// What an ErrorResponse says.
    pub(super) fn told(body: &ErrorResponseBody) -> Self {
        match read(body) {
            Ok(error) => Self::Sql(Box::new(error)),
            Err(error) => Self::Broken(error),
        }
    }

    /// What a query has come to that was cancelled after so long. What failed otherwise just then
    /// has failed.
    pub(super) fn after_cancel(self, after: Duration) -> Self {
        match self {
            Self::Sql(error) if error.sqlstate == CANCELLED => Self::Timeout(after),
            other => other,
        }
    }

    /// The problem of a session that was not let in.
    pub(super) fn at_startup(self) -> Problem {
        match self {
            Self::Sql(error) if error.sqlstate == "55000" => {
                Problem::of_sql(Kind::ExecutionEnded, error, "Use a new execution id.")
            }
            other => other.of_query(),
        }
    }

    /// The problem of a query.
    pub(super) fn of_query(self) -> Problem {
        match self {
            Self::Sql(error) => {
                let (kind, hint) = kind(&error);
                Problem::of_sql(kind, error, hint)
            }
            Self::Timeout(after) => timeout(after),
            Self::Copy => Problem::new(
                Kind::InvalidField,
                "COPY can't be answered as rows",
                "Use a driver or psql, or SELECT and INSERT.",
            ),
            Self::Broken(error) => Problem::new(
                Kind::DatabaseUnavailable,
                format!("the session broke: {error}"),
                "Try again. The log says more.",
            ),
        }
    }
}

/// Whether a message says of a session that its execution has ended.
fn is_of_execution(message: &str) -> bool {
    let ours = message.strip_prefix("execpool: ");
    ours.is_some_and(|ours| ours.starts_with("execution "))
}

fn kind(error: &SqlError) -> (Kind, &'static str) {
    match error.sqlstate.as_str() {
        "57P01" if is_of_execution(&error.message) => {
            (Kind::ExecutionEnded, "Use another execution id.")
        }
        "53300" => (
            Kind::NoConnection,
            "Try again, or end what is not needed: execpool sessions shows who holds what.",
        ),
        "57P01" | "57P02" | "57P03" => (Kind::DatabaseUnavailable, "Try again."),
        // What the protocol forbids is the statement's own, such as too few parameters.
        state if state.starts_with("08") && state != "08P01" => {
            (Kind::DatabaseUnavailable, "Try again.")
        }
        _ => (
            Kind::QueryFailed,
            "Correct the statement: PostgreSQL documents the SQLSTATE.",
        ),
    }
}

fn timeout(after: Duration) -> Problem {
    let error = SqlError {
        sqlstate: CANCELLED.to_owned(),
        message: format!(
            "the query took over {}, the wait for a server connection included, and was cancelled",
            seconds(after)
        ),
        ..SqlError::default()
    };
    let hint = "Say a longer timeout, or see with execpool sessions who holds the connections.";
    Problem::of_sql(Kind::QueryTimeout, Box::new(error), hint)
}

fn read(body: &ErrorResponseBody) -> io::Result<SqlError> {
    let mut error = SqlError::default();
    let mut fields = body.fields();
    while let Some(field) = fields.next()? {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => error.sqlstate = text,
            b'M' => error.message = text,
            b'D' => error.detail = Some(text),
            b'H' => error.hint = Some(text),
            b'P' => error.position = text.parse().ok(),
            _ => {}
        }
    }
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(sqlstate: &str, message: &str) -> Kind {
        let error = SqlError {
            sqlstate: sqlstate.to_owned(),
            message: message.to_owned(),
            ..SqlError::default()
        };
        Failure::Sql(Box::new(error)).of_query().kind()
    }

    #[test]
    fn the_sqlstate_says_what_kind_of_problem_it_is() {
        let ended = "execpool: execution a has ended: its deadline passed";
        for (sqlstate, message, kind) in [
            ("57P01", ended, Kind::ExecutionEnded),
            (
                "57P01",
                "terminating connection due to administrator command",
                Kind::DatabaseUnavailable,
            ),
            ("53300", "execpool: no server", Kind::NoConnection),
            ("08006", "broken", Kind::DatabaseUnavailable),
            ("08P01", "bind message supplies", Kind::QueryFailed),
            ("42601", "syntax error", Kind::QueryFailed),
            ("55000", "currval is not yet defined", Kind::QueryFailed),
            ("57014", "statement timeout", Kind::QueryFailed),
        ] {
            assert_eq!(problem(sqlstate, message), kind, "{sqlstate}");
        }
    }

    #[test]
    fn a_timeout_is_one_unless_the_query_has_failed_otherwise_just_then() {
        let of = |sqlstate: &str| {
            let error = SqlError {
                sqlstate: sqlstate.to_owned(),
                ..SqlError::default()
            };
            let failure = Failure::Sql(Box::new(error));
            failure
                .after_cancel(Duration::from_secs(1))
                .of_query()
                .kind()
        };
        assert_eq!(of("57014"), Kind::QueryTimeout);
        assert_eq!(of("23505"), Kind::QueryFailed);
    }
}
