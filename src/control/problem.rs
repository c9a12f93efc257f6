//! Why a request is refused: one kind each, from which status, code and title derive.

use http::{HeaderValue, Response, StatusCode, header};
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
    /// There is no session of that number.
    NoSuchSession,
    /// The session runs nothing.
    NothingToCancel,
    /// An explicit execution of that name is active.
    ExecutionExists,
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
    /// The process is about to end.
    ShuttingDown,
    /// The configuration is wrong, and not what runs.
    InvalidConfiguration,
    /// A fault of ours.
    Internal,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::InvalidBody,
        Self::InvalidField,
        Self::InvalidParameter,
        Self::InvalidExecutionId,
        Self::NoSuchRoute,
        Self::MethodNotAllowed,
        Self::NoSuchExecution,
        Self::NoSuchSession,
        Self::NothingToCancel,
        Self::ExecutionExists,
        Self::UserNotAllowed,
        Self::AdminOff,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::TooManyHolds,
        Self::ShuttingDown,
        Self::InvalidConfiguration,
        Self::Internal,
    ];

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidBody | Self::InvalidParameter => StatusCode::BAD_REQUEST,
            Self::InvalidField | Self::InvalidExecutionId | Self::InvalidConfiguration => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::NoSuchRoute | Self::NoSuchExecution | Self::NoSuchSession => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ExecutionExists | Self::NothingToCancel => StatusCode::CONFLICT,
            Self::UserNotAllowed | Self::AdminOff => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyHolds | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
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
            Self::NoSuchSession => "no_such_session",
            Self::NothingToCancel => "nothing_to_cancel",
            Self::ExecutionExists => "execution_exists",
            Self::UserNotAllowed => "user_not_allowed",
            Self::AdminOff => "admin_off",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::TooManyHolds => "too_many_holds",
            Self::ShuttingDown => "shutting_down",
            Self::InvalidConfiguration => "invalid_configuration",
            Self::Internal => "internal",
        }
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
            Self::NoSuchSession => "No such session",
            Self::NothingToCancel => "Nothing to cancel",
            Self::ExecutionExists => "The execution is active already",
            Self::UserNotAllowed => "User not allowed",
            Self::AdminOff => "Administrative routes are off",
            Self::BodyTooLarge => "The body is too large",
            Self::BodyTimeout => "The body did not come in time",
            Self::TooManyHolds => "Too many hold streams",
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
}

/// What is sent of it.
#[derive(Serialize)]
struct Sent<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    hint: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    errors: &'a [String],
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
        };
        // Plain texts and a number: JSON can say them.
        let body = serde_json::to_vec(&sent).unwrap_or_default();
        let mut response = Response::new(full(body));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
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
        assert_eq!((codes.len(), titles.len()), (18, 18));
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
