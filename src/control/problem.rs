//! Why a request is refused: one kind each, from which status, code and title derive.

use http::{HeaderValue, Response, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::distance;
use crate::execution::Gone;

use super::router::{Body, full};

/// The media type of problems.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// How much of a text from a request is repeated and compared.
const REPEATED: usize = 64;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The body is not JSON, or could not be read.
    InvalidBody,
    /// The body's JSON is not what the route takes.
    InvalidField,
    /// A parameter of the query string is unknown or wrong.
    InvalidParameter,
    /// An execution's name is none.
    InvalidExecutionId,
    /// There is no such route.
    NoSuchRoute,
    /// The route is there, but not for this method.
    MethodNotAllowed,
    /// There is no execution of that name.
    NoSuchExecution,
    /// The execution has no such resource.
    NoSuchResource,
    /// There is no session of that number.
    NoSuchSession,
    /// The session runs nothing.
    NothingToCancel,
    /// An explicit execution of that name is active.
    ExecutionExists,
    /// The execution has as many resources as it may have.
    TooManyResources,
    /// The execution has ended.
    ExecutionEnded,
    /// The database refuses the query.
    QueryFailed,
    /// The query took too long, and was cancelled.
    QueryTimeout,
    /// No server connection was free in time.
    NoConnection,
    /// As many queries are under way as may be.
    TooManyQueries,
    /// The database can't be reached, or has gone.
    DatabaseUnavailable,
    /// The user of the process may not connect.
    UserNotAllowed,
    /// It takes administrative rights.
    AdminOff,
    /// The body is too large.
    BodyTooLarge,
    /// The body did not come in time.
    BodyTimeout,
    /// There are as many `hold` streams as there may be.
    TooManyHolds,
    /// There are as many readers of events as there may be.
    TooManyReaders,
    /// The process is about to end.
    ShuttingDown,
    /// The configuration is wrong, and not what runs.
    InvalidConfiguration,
    /// A fault of ours.
    Internal,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::InvalidBody,
        Self::InvalidField,
        Self::InvalidParameter,
        Self::InvalidExecutionId,
        Self::NoSuchRoute,
        Self::MethodNotAllowed,
        Self::NoSuchExecution,
        Self::NoSuchResource,
        Self::NoSuchSession,
        Self::NothingToCancel,
        Self::ExecutionExists,
        Self::TooManyResources,
        Self::ExecutionEnded,
        Self::QueryFailed,
        Self::QueryTimeout,
        Self::NoConnection,
        Self::TooManyQueries,
        Self::DatabaseUnavailable,
        Self::UserNotAllowed,
        Self::AdminOff,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::TooManyHolds,
        Self::TooManyReaders,
        Self::ShuttingDown,
        Self::InvalidConfiguration,
        Self::Internal,
    ];

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidBody | Self::InvalidParameter => StatusCode::BAD_REQUEST,
            Self::InvalidField
            | Self::InvalidExecutionId
            | Self::InvalidConfiguration
            | Self::QueryFailed => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoSuchRoute
            | Self::NoSuchExecution
            | Self::NoSuchResource
            | Self::NoSuchSession => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ExecutionExists
            | Self::NothingToCancel
            | Self::TooManyResources
            | Self::ExecutionEnded => StatusCode::CONFLICT,
            Self::UserNotAllowed | Self::AdminOff => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::QueryTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::TooManyHolds
            | Self::TooManyReaders
            | Self::ShuttingDown
            | Self::NoConnection
            | Self::TooManyQueries
            | Self::DatabaseUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The word for programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidBody => "invalid_body",
            Self::InvalidField => "invalid_field",
            Self::InvalidParameter => "invalid_parameter",
            Self::InvalidExecutionId => "invalid_execution_id",
            Self::NoSuchRoute => "no_such_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NoSuchExecution => "no_such_execution",
            Self::NoSuchResource => "no_such_resource",
            Self::NoSuchSession => "no_such_session",
            Self::NothingToCancel => "nothing_to_cancel",
            Self::ExecutionExists => "execution_exists",
            Self::TooManyResources => "too_many_resources",
            Self::ExecutionEnded => "execution_ended",
            Self::QueryFailed => "query_failed",
            Self::QueryTimeout => "query_timeout",
            Self::NoConnection => "no_connection",
            Self::TooManyQueries => "too_many_queries",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::UserNotAllowed => "user_not_allowed",
            Self::AdminOff => "admin_off",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::TooManyHolds => "too_many_holds",
            Self::TooManyReaders => "too_many_readers",
            Self::ShuttingDown => "shutting_down",
            Self::InvalidConfiguration => "invalid_configuration",
            Self::Internal => "internal",
        }
    }

    /// After how many seconds it may be tried again; none where that would not help.
    #[must_use]
    pub fn retry_after(self) -> Option<u32> {
        let is_passing = matches!(
            self,
            Self::NoConnection | Self::TooManyQueries | Self::DatabaseUnavailable
        );
        is_passing.then_some(1)
    }

    /// What it is, the same each time.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::InvalidBody => "The body could not be read",
            Self::InvalidField => "The body has a wrong field",
            Self::InvalidParameter => "The query string has a wrong parameter",
            Self::InvalidExecutionId => "Not the name of an execution",
            Self::NoSuchRoute => "No such route",
            Self::MethodNotAllowed => "Method not allowed",
            Self::NoSuchExecution => "No such execution",
            Self::NoSuchResource => "No such resource",
            Self::NoSuchSession => "No such session",
            Self::NothingToCancel => "Nothing to cancel",
            Self::ExecutionExists => "The execution is active already",
            Self::TooManyResources => "Too many resources",
            Self::ExecutionEnded => "The execution has ended",
            Self::QueryFailed => "The query failed",
            Self::QueryTimeout => "The query took too long",
            Self::NoConnection => "No server connection was free in time",
            Self::TooManyQueries => "Too many queries at once",
            Self::DatabaseUnavailable => "The database is unavailable",
            Self::UserNotAllowed => "User not allowed",
            Self::AdminOff => "Administrative routes are off",
            Self::BodyTooLarge => "The body is too large",
            Self::BodyTimeout => "The body did not come in time",
            Self::TooManyHolds => "Too many hold streams",
            Self::TooManyReaders => "Too many readers of events",
            Self::ShuttingDown => "execpool is shutting down",
            Self::InvalidConfiguration => "The configuration is refused",
            Self::Internal => "A fault of execpool",
        }
    }
}

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .kind.title())]
pub struct Problem {
    kind: Kind,
    detail: String,
    hint: String,
    allow: Option<String>,
    errors: Vec<String>,
    sql: Option<Box<SqlError>>,
}

/// What PostgreSQL says of a query, or execpool in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlError {
    /// The SQLSTATE.
    pub sqlstate: String,
    /// The message.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the query, in characters from 1.
    pub position: Option<u32>,
}

/// What is sent of an error of a query.
#[derive(Serialize, JsonSchema)]
struct SentSql<'a> {
    /// The SQLSTATE; not there where it is about something else.
    sqlstate: &'a str,
    /// PostgreSQL's message; not there where it is about something else.
    message: &'a str,
    /// Where in the query, in characters from 1; null where that is not known, not there where it is
    /// about something else.
    position: Option<u32>,
}

/// What is sent of it: a problem of RFC 9457.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Sent<'a> {
    /// A URN of its kind.
    r#type: String,
    /// What it is, the same each time.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// The word for programs.
    code: &'a str,
    /// What happened.
    detail: &'a str,
    /// What to do.
    hint: &'a str,
    /// All that is wrong with a configuration; not there where it is about something else.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    errors: &'a [String],
    /// Only where a query has failed.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    sql: Option<SentSql<'a>>,
}

impl Problem {
    /// One of this kind: what happened, and what to do.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            hint: hint.into(),
            allow: None,
            errors: Vec::new(),
            sql: None,
        }
    }

    /// A query that has failed; `hint` is for where the error has none.
    #[must_use]
    pub fn of_sql(kind: Kind, error: Box<SqlError>, hint: &str) -> Self {
        let detail = error.detail.as_ref().unwrap_or(&error.message).clone();
        let hint = error.hint.as_deref().unwrap_or(hint).to_owned();
        Self {
            sql: Some(error),
            ..Self::new(kind, detail, hint)
        }
    }

    /// A configuration that is refused, with all that is wrong with it.
    #[must_use]
    pub fn invalid_configuration(errors: Vec<String>) -> Self {
        let hint = "What runs stays as it is. Correct this; execpool check tells the same.";
        Self {
            errors: errors.clone(),
            ..Self::new(Kind::InvalidConfiguration, errors.join("; "), hint)
        }
    }

    /// A method that a route does not serve.
    #[must_use]
    pub fn method_not_allowed(method: &str, path: &str, allowed: &str) -> Self {
        Self {
            allow: Some(allowed.to_owned()),
            ..Self::new(
                Kind::MethodNotAllowed,
                format!("{} is not served at {}", repeated(method), repeated(path)),
                format!("Use one of {allowed}."),
            )
        }
    }

    /// Why it is refused.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The answer that tells it.
    pub(super) fn response(&self) -> Response<Body> {
        let sent = Sent {
            r#type: format!("urn:execpool:problem:{}", self.kind.code()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            code: self.kind.code(),
            detail: &self.detail,
            hint: &self.hint,
            errors: &self.errors,
            sql: self.sql.as_ref().map(|error| SentSql {
                sqlstate: &error.sqlstate,
                message: &error.message,
                position: error.position,
            }),
        };
        // Plain texts and a number: JSON can say them.
        let body = serde_json::to_vec(&sent).unwrap_or_default();
        let mut response = Response::new(full(body));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.kind.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(Ok(allow)) = self.allow.as_deref().map(HeaderValue::from_str) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

impl From<Gone> for Problem {
    fn from(gone: Gone) -> Self {
        Self::new(
            Kind::ShuttingDown,
            gone.to_string(),
            "Ask the next instance.",
        )
    }
}

/// The beginning of a text from a request, quoted on one line.
pub(super) fn repeated(text: &str) -> String {
    let begin: String = text.chars().take(REPEATED).collect();
    let more = if begin.len() < text.len() { "…" } else { "" };
    format!("{begin:?}{more}")
}

/// The `most` names that are nearest to a word, the nearest first.
pub(super) fn near<'a>(word: &str, names: &[&'a str], most: usize) -> Vec<&'a str> {
    let word: String = word.chars().take(REPEATED).collect();
    let mut names = names.to_vec();
    names.sort_by_key(|name| distance(&word, name));
    names.truncate(most);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_a_code_and_a_title_of_its_own_and_is_an_error() {
        let codes: HashSet<_> = Kind::ALL.map(Kind::code).into_iter().collect();
        let titles: HashSet<_> = Kind::ALL.map(Kind::title).into_iter().collect();
        assert_eq!((codes.len(), titles.len()), (27, 27));
        assert!(Kind::ALL.iter().all(|kind| kind.status().as_u16() >= 400));
    }

    #[test]
    fn a_text_from_a_request_is_repeated_short_and_on_one_line() {
        assert_eq!(repeated("a\nb"), "\"a\\nb\"");
        assert!(repeated(&"ä".repeat(1 << 20)).len() < 200);
    }

    #[test]
    fn the_nearest_names_come_first() {
        let names = ["deadline", "id", "labels"];
        assert_eq!(near("deadlin", &names, 1), ["deadline"]);
        assert_eq!(near(&"x".repeat(1 << 20), &names, 9).len(), 3);
    }
}
