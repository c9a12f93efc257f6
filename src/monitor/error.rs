//! Why a database gave no answer: the kind, and what people are told, derive from one value.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::server::{Address, ConnectError, PasswordError};

use super::wary::Demand;

/// A question to a database that was not answered. It shows neither password nor URL.
#[derive(Debug, thiserror::Error)]
#[error("upstream {upstream}: {problem}. {}", .problem.hint())]
pub struct MonitorError {
    upstream: String,
    problem: Problem,
}

/// What kept a database from answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The password file gives no password.
    Password,
    /// Nothing listens there, or the name does not resolve.
    Unreachable,
    /// The time was over.
    Timeout,
    /// The server refused the login, in its own words.
    Refused,
    /// The server demanded what it does not get.
    Login,
    /// The connection broke, at the login or later.
    Broken,
    /// The server answered the question with an error.
    Failed,
}

impl MonitorError {
    pub(super) fn new(upstream: &str, problem: Problem) -> Self {
        Self {
            upstream: upstream.to_owned(),
            problem,
        }
    }

    /// The name of the upstream.
    #[must_use]
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// What kept the database from answering.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &self.problem {
            Problem::Password(_) => ErrorKind::Password,
            Problem::Timeout(_) => ErrorKind::Timeout,
            Problem::Refused { .. } => ErrorKind::Refused,
            Problem::Ended(_) => ErrorKind::Broken,
            Problem::Failed(_) => ErrorKind::Failed,
            Problem::Connect(error) => match error {
                ConnectError::NoneSuits { .. }
                | ConnectError::NoAddress
                | ConnectError::Unreachable { .. } => ErrorKind::Unreachable,
                ConnectError::PasswordUnreadable(_) => ErrorKind::Password,
                ConnectError::Timeout { .. } => ErrorKind::Timeout,
                ConnectError::Refused(_) => ErrorKind::Refused,
                ConnectError::Broken { .. } | ConnectError::Tls { .. } => ErrorKind::Broken,
                ConnectError::PasswordMissing(_)
                | ConnectError::CleartextRefused(_)
                | ConnectError::MethodNotServed { .. }
                | ConnectError::ServerNotAuthentic(_) => ErrorKind::Login,
            },
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Password(#[from] Arc<PasswordError>),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("PostgreSQL at {address} refused the connection: {said}")]
    Refused { address: Address, said: Said },
    #[error("PostgreSQL did not answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("the connection ended before the answer came{}", Why(.0))]
    Ended(Option<String>),
    #[error("PostgreSQL answered with an error: {0}")]
    Failed(Said),
}

impl Problem {
    /// A login that `error` ended.
    pub(super) fn login(address: &Address, error: tokio_postgres::Error) -> Self {
        let address = address.clone();
        let why = chain(&error);
        let demand = error.source().and_then(demand);
        if let Some(broken) = error.source().and_then(tls) {
            let source = io::Error::new(io::ErrorKind::InvalidData, broken);
            return ConnectError::broken(&address, source).into();
        }
        match (demand, error.as_db_error()) {
            (Some(Demand::ClearText), _) => ConnectError::CleartextRefused(address).into(),
            (Some(Demand::Password), _) => ConnectError::PasswordMissing(address).into(),
            (None, Some(said)) => Self::Refused {
                address,
                said: said.into(),
            },
            (None, None) => ConnectError::Broken {
                address,
                source: io::Error::other(why),
            }
            .into(),
        }
    }

    /// A question that `error` answered. A server that says farewell ends the connection.
    pub(super) fn answered(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(said) if is_farewell(said) => Self::Ended(Some(Said::from(said).to_string())),
            Some(said) => Self::Failed(said.into()),
            None => Self::Ended(Some(chain(&error))),
        }
    }

    /// Whether the same server may let us in with TLS instead of without, or the other way around.
    pub(super) fn is_the_other_way_worth_a_try(&self) -> bool {
        match self {
            Self::Refused { said, .. } => {
                said.code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            }
            Self::Connect(error) => error.is_the_other_way_worth_a_try(),
            _ => false,
        }
    }

    /// Whether another host may do better: this one is not there, or is only starting.
    pub(super) fn may_be_the_hosts(&self) -> bool {
        match self {
            Self::Refused { said, .. } => said.code == SqlState::CANNOT_CONNECT_NOW,
            Self::Connect(error) => matches!(
                error,
                ConnectError::Unreachable { .. }
                    | ConnectError::Timeout { .. }
                    | ConnectError::Broken { .. }
            ),
            _ => false,
        }
    }

    /// Whether the server does not take the password: another one may do.
    pub(super) fn is_password_refused(&self) -> bool {
        match self {
            Self::Refused { said, .. } => said.code.code().starts_with("28"),
            _ => false,
        }
    }

    /// What to do.
    fn hint(&self) -> &'static str {
        match self {
            Self::Password(error) => error.hint().trim_end_matches('.'),
            Self::Connect(
                error @ (ConnectError::PasswordMissing(_) | ConnectError::Tls { .. }),
            ) => error.hint().trim_end_matches('.'),
            Self::Connect(ConnectError::CleartextRefused(_)) => {
                "Use scram-sha-256 in the server's pg_hba.conf, or connect over a Unix socket"
            }
            Self::Connect(_) | Self::Timeout(_) | Self::Ended(_) => {
                "Check that the database is up and that the upstream's host and port are right"
            }
            Self::Refused { .. } => "Check the upstream's user, password and database",
            Self::Failed(_) => "Check the server's log",
        }
    }
}

/// A server's own words.
#[derive(Debug)]
pub(super) struct Said {
    severity: String,
    message: String,
    code: SqlState,
}

impl From<&DbError> for Said {
    fn from(error: &DbError) -> Self {
        Self {
            severity: error.severity().to_owned(),
            message: error.message().to_owned(),
            code: error.code().clone(),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            message,
            code,
        } = self;
        write!(f, "{severity}: {message} (SQLSTATE {})", code.code())
    }
}

/// The reason at the end of a sentence, if it is known.
struct Why<'a>(&'a Option<String>);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|why| write!(f, ": {why}"))
    }
}

fn is_farewell(said: &DbError) -> bool {
    matches!(
        said.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    )
}

/// The demand that ended a login, if one did.
fn demand(source: &(dyn Error + 'static)) -> Option<Demand> {
    let error = source.downcast_ref::<io::Error>()?.get_ref()?;
    error.downcast_ref::<Demand>().copied()
}

/// What TLS said, if it ended a login.
fn tls(source: &(dyn Error + 'static)) -> Option<rustls::Error> {
    let error = source.downcast_ref::<io::Error>()?.get_ref()?;
    error.downcast_ref::<rustls::Error>().cloned()
}

/// An error and what caused it.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}
