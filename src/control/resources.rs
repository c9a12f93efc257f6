//! `POST /v1/executions/{id}/resources`, and `DELETE /v1/executions/{id}/resources/{rid}`: what an app
//! has beside its sessions, for execpool to count and to remind it of.

use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::Value;

use crate::config::duration;
use crate::execution::ResourceKind;
use crate::execution::resources::MAX_RESOURCES;
use crate::protocol::startup::ExecutionId;

use super::Control;
use super::create::{field, invalid, object};
use super::hold::not_active;
use super::problem::{Kind, Problem, repeated};
use super::query::{DURATION, Query};
use super::router::{Answer, Asked, full, json};
use super::types::Resource;

/// What a body may say.
const FIELDS: [&str; 3] = ["kind", "name", "ttl"];

/// How long a name may be, in bytes.
const LONGEST_NAME: usize = 256;

/// The body of `POST /v1/executions/{id}/resources`.
#[derive(Debug, PartialEq, Eq)]
struct NewResource {
    /// What it is: connection, browser, http, file or other.
    kind: ResourceKind,
    /// What the app calls it: 1 to 256 bytes without control characters.
    name: String,
    /// After how long it is forgotten; absent or null: never.
    ttl: Option<Duration>,
}

pub(super) async fn post(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let id = asked.execution()?;
    let new = parse(&asked.body)?;
    let known = id.clone();
    let registered = control
        .remote
        .ask(move |executions| executions.register(&known, new.kind, new.name, new.ttl))
        .await?;
    match registered {
        None => Err(not_active(control, &id).await),
        Some(Err(_)) => Err(too_many(&id)),
        Some(Ok(one)) => json(StatusCode::CREATED, &Resource::from(one)),
    }
}

pub(super) async fn delete(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let id = asked.execution()?;
    let resource = asked.resource().ok_or_else(|| no_such(&id))?;
    let known = id.clone();
    let released = control
        .remote
        .ask(move |executions| executions.release(&known, resource))
        .await?;
    match released {
        None => Err(not_active(control, &id).await),
        Some(false) => Err(no_such(&id)),
        Some(true) => {
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
    }
}

fn no_such(id: &ExecutionId) -> Problem {
    Problem::new(
        Kind::NoSuchResource,
        format!("execution {id} has no resource of that number, or not any more"),
        "It was released before, or its ttl is over: nothing is left to do.",
    )
}

fn too_many(id: &ExecutionId) -> Problem {
    Problem::new(
        Kind::TooManyResources,
        format!("execution {id} has {MAX_RESOURCES} resources, as many as it may have"),
        "Release what is closed, with DELETE, or register with a ttl; a pool of things may be one.",
    )
}

fn parse(body: &[u8]) -> Result<NewResource, Problem> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        invalid(
            &error,
            "{\"kind\": \"browser\", \"name\": \"checkout page\"}",
        )
    })?;
    let fields = object("the body", &value, &FIELDS)?;
    Ok(NewResource {
        kind: kind(fields.get("kind"))?,
        name: name(fields.get("name"))?,
        ttl: ttl(fields.get("ttl"))?,
    })
}

fn kind(value: Option<&Value>) -> Result<ResourceKind, Problem> {
    let words = ResourceKind::ALL.map(ResourceKind::as_str).join(", ");
    let wrong = |what: String| field(what, format!("It is one of {words}."));
    match value {
        Some(Value::String(word)) => ResourceKind::of_word(word)
            .ok_or_else(|| wrong(format!("there is no kind {}", repeated(word)))),
        Some(_) => Err(wrong("kind is not a string".to_owned())),
        None => Err(wrong("kind is missing".to_owned())),
    }
}

fn name(value: Option<&Value>) -> Result<String, Problem> {
    let wrong = |what: &str| {
        let hint = format!("Say in 1 to {LONGEST_NAME} bytes what it is; it is logged as it is.");
        Err(field(format!("name {what}"), hint))
    };
    match value {
        Some(Value::String(name)) if name.trim().is_empty() => wrong("is empty"),
        Some(Value::String(name)) if name.len() > LONGEST_NAME => wrong("is too long"),
        Some(Value::String(name)) if name.chars().any(char::is_control) => {
            wrong("has a control character")
        }
        Some(Value::String(name)) => Ok(name.clone()),
        Some(_) => wrong("is not a string"),
        None => wrong("is missing"),
    }
}

fn ttl(value: Option<&Value>) -> Result<Option<Duration>, Problem> {
    let wrong = |what: String| {
        let hint = "Say for example \"10m\"; without it, it is registered until it is released.";
        Err(field(what, hint))
    };
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match duration(text) {
            None => wrong(format!("ttl {} is not {DURATION}", repeated(text))),
            Some(Duration::ZERO) => wrong("ttl is zero".to_owned()),
            some => Ok(some),
        },
        Some(_) => wrong(format!("ttl is not a string: it is {DURATION}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_can_be_said_is_taken() {
        let body = r#"{"kind":"http","name":"session ä","ttl":"1m30s"}"#;
        let expected = NewResource {
            kind: ResourceKind::Http,
            name: "session ä".to_owned(),
            ttl: Some(Duration::from_secs(90)),
        };
        assert_eq!(parse(body.as_bytes()), Ok(expected));
        let body = r#"{"kind":"other","name":"x","ttl":null}"#;
        assert_eq!(parse(body.as_bytes()).unwrap().ttl, None);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        let long = format!(r#"{{"kind":"file","name":"{}"}}"#, "x".repeat(257));
        for (body, kind, told) in [
            ("", Kind::InvalidBody, "not JSON"),
            ("{}", Kind::InvalidField, "kind is missing"),
            (
                r#"{"kind":"socket","name":"a"}"#,
                Kind::InvalidField,
                "connection, browser, http, file, other",
            ),
            (r#"{"kind":"file"}"#, Kind::InvalidField, "name is missing"),
            (
                r#"{"kind":"file","name":" "}"#,
                Kind::InvalidField,
                "name is empty",
            ),
            (
                r#"{"kind":"file","name":"a\nb"}"#,
                Kind::InvalidField,
                "control character",
            ),
            (long.as_str(), Kind::InvalidField, "too long"),
            (
                r#"{"kind":"file","name":"a","ttl":5}"#,
                Kind::InvalidField,
                "such as 250ms",
            ),
            (
                r#"{"kind":"file","name":"a","ttl":"0s"}"#,
                Kind::InvalidField,
                "ttl is zero",
            ),
            (
                r#"{"kind":"file","nam":"a"}"#,
                Kind::InvalidField,
                "Did you mean name?",
            ),
        ] {
            let problem = parse(body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind(), kind, "{body}");
            assert!(format!("{problem:?}").contains(told), "{body}: {problem:?}");
        }
    }
}
