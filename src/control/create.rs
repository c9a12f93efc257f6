//! `POST /v1/executions`.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

use crate::config::duration;
use crate::execution::{self, Request, View};
use crate::pool::PoolLimits;
use crate::protocol::startup::ExecutionId;

use super::problem::{Kind, Problem, near, repeated};
use super::query::{DURATION, Query, wrong};
use super::router::{Answer, Asked, invalid_id, json};
use super::types::{self, Created, Seconds};
use super::{Control, Facts, UpstreamFacts, url};

/// What a body may say.
const FIELDS: [&str; 5] = ["id", "deadline", "labels", "pool", "mode"];
/// What it may say of pools.
const POOL_FIELDS: [&str; 2] = ["size", "overflow"];
/// The modes that are served.
const MODE: &str = "session";

/// The largest pool that can be asked for, as for the knobs.
const MOST_CONNECTIONS: u64 = 1_000_000;
/// How many labels an execution may have, and how long a name or a value may be, in bytes.
const MOST_LABELS: usize = 64;
const LONGEST_LABEL: usize = 1024;

pub(super) async fn post(control: &Control, asked: &Asked) -> Answer {
    let query = Query::parse(asked.query.as_deref(), &["upstream"])?;
    let outlook = control.outlook();
    let facts = &outlook.facts;
    let (upstream, database) = upstream(facts, query.get("upstream"))?;
    let request = parse(&asked.body, upstream.limits)?;
    let name = request.id.clone();
    let created = control.remote.ask(move |executions| {
        let created = executions.create(request)?;
        let (execution::Created::New(number) | execution::Created::Adopted(number)) = created;
        Ok((created, executions.view_number(number)))
    });
    let (created, view) = created
        .await?
        .map_err(|execution::Conflict(id)| conflict(&id))?;
    // It was begun in the same turn; nothing can have ended it.
    let view = view.ok_or_else(|| conflict(&name.unwrap_or_else(ExecutionId::shared)))?;
    let status = match created {
        execution::Created::New(_) => StatusCode::CREATED,
        execution::Created::Adopted(_) => StatusCode::OK,
    };
    let url = url::of(facts, database, &upstream.user, &view.id);
    json(status, &answer(&view, url))
}

fn answer(view: &View, url: String) -> Created {
    Created {
        id: view.id.to_string(),
        generation: view.generation,
        kind: types::kind(view.kind),
        url,
        parameters: BTreeMap::from([(url::PARAMETER, view.id.to_string())]),
        deadline_seconds: view.deadline_in.map(Seconds),
    }
}

/// The upstream whose URL is answered, and its database.
fn upstream<'a>(
    facts: &'a Facts,
    name: Option<&'a str>,
) -> Result<(&'a UpstreamFacts, &'a str), Problem> {
    let upstreams = &facts.upstreams;
    url::choose(upstreams, name).ok_or_else(|| {
        let names: Vec<&str> = upstreams.iter().map(|one| one.name.as_str()).collect();
        wrong(
            format!("there is no upstream {}", repeated(name.unwrap_or(""))),
            format!("Name one of {}.", names.join(", ")),
        )
    })
}

fn conflict(id: &ExecutionId) -> Problem {
    let hint = if id.is_shared() {
        "It is the standing execution and can't be begun: choose another id."
    } else {
        "DELETE it first, or choose another id, or none: then one is made up."
    };
    let detail = format!("execution {id} is active and not an implicit one");
    Problem::new(Kind::ExecutionExists, detail, hint)
}

/// Reads the body; `usual` is what a pool has that says nothing of it. An empty body asks for
/// nothing in particular.
fn parse(body: &[u8], usual: PoolLimits) -> Result<Request, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(Request::default());
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| invalid(&error, "{\"id\": \"run-1\", \"deadline\": \"20m\"}"))?;
    let fields = object("the body", &value, &FIELDS)?;
    mode(fields.get("mode"))?;
    Ok(Request {
        id: fields.get("id").map_or(Ok(None), id)?,
        deadline: fields
            .get("deadline")
            .map_or(Ok(None), |it| deadline("deadline", it))?,
        labels: fields.get("labels").map_or(Ok(BTreeMap::new()), labels)?,
        limits: fields.get("pool").map_or(Ok(None), |it| pool(it, usual))?,
    })
}

/// The body is not JSON; `example` is.
pub(super) fn invalid(error: &serde_json::Error, example: &str) -> Problem {
    let detail = format!("the body is not JSON: {error}");
    let hint = format!("Send a JSON object such as {example}.");
    Problem::new(Kind::InvalidBody, detail, hint)
}

/// A field is wrong.
pub(super) fn field(detail: String, hint: impl Into<String>) -> Problem {
    Problem::new(Kind::InvalidField, detail, hint)
}

/// An object of which these fields are known.
pub(super) fn object<'a>(
    name: &str,
    value: &'a Value,
    known: &[&'static str],
) -> Result<&'a Map<String, Value>, Problem> {
    let fields = value
        .as_object()
        .ok_or_else(|| field(format!("{name} is not an object"), known_fields(known)))?;
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(fields),
        Some(key) => {
            let nearest = near(key, known, 1).join("");
            let known = known_fields(known);
            Err(field(
                format!("{name} has an unknown field {}", repeated(key)),
                format!("Did you mean {nearest}? {known}"),
            ))
        }
    }
}

fn known_fields(known: &[&str]) -> String {
    format!("Its fields are {}.", known.join(", "))
}

fn id(value: &Value) -> Result<Option<ExecutionId>, Problem> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => text
            .parse()
            .map(Some)
            .map_err(|error| invalid_id(Kind::InvalidField, &error)),
        _ => Err(field(
            "id is not a string".to_owned(),
            "Leave it out, and one is made up.",
        )),
    }
}

/// A time from now on, in the field `name`.
pub(super) fn deadline(name: &str, value: &Value) -> Result<Option<Duration>, Problem> {
    let wrong = |what: String| {
        let hint = "Say for example \"20m\"; without it, execution.max_duration counts.";
        Err(field(what, hint))
    };
    match value {
        Value::Null => Ok(None),
        Value::String(text) => match duration(text) {
            None => wrong(format!("{name} {} is not {DURATION}", repeated(text))),
            Some(Duration::ZERO) => wrong(format!("{name} is zero")),
            some => Ok(some),
        },
        _ => wrong(format!("{name} is not a string: it is {DURATION}")),
    }
}

fn labels(value: &Value) -> Result<BTreeMap<String, String>, Problem> {
    let hint = "Say for example {\"labels\": {\"agent\": \"research\"}}.";
    let fields = match value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(fields) => fields,
        _ => return Err(field("labels is not an object".to_owned(), hint)),
    };
    if fields.len() > MOST_LABELS {
        return Err(field(format!("there are over {MOST_LABELS} labels"), hint));
    }
    let label = |(name, value): (&String, &Value)| {
        let value = value
            .as_str()
            .ok_or_else(|| field(format!("label {} is not a string", repeated(name)), hint))?;
        if name.len().max(value.len()) > LONGEST_LABEL {
            let detail = format!("label {} is over {LONGEST_LABEL} bytes", repeated(name));
            return Err(field(detail, hint));
        }
        Ok((name.clone(), value.to_owned()))
    };
    fields.iter().map(label).collect()
}

fn pool(value: &Value, usual: PoolLimits) -> Result<Option<PoolLimits>, Problem> {
    if value.is_null() {
        return Ok(None);
    }
    let fields = object("pool", value, &POOL_FIELDS)?;
    let count = |name: &str, least: u64, usual: usize| match fields.get(name) {
        None | Some(Value::Null) => Ok(usual),
        Some(value) => value
            .as_u64()
            .filter(|count| (least..=MOST_CONNECTIONS).contains(count))
            .and_then(|count| usize::try_from(count).ok())
            .ok_or_else(|| {
                let hint = format!("It is a whole number from {least} to {MOST_CONNECTIONS}.");
                field(format!("pool.{name} is out of its range"), hint)
            }),
    };
    Ok(Some(PoolLimits {
        size: count("size", 1, usual.size)?,
        overflow: count("overflow", 0, usual.overflow)?,
    }))
}

fn mode(value: Option<&Value>) -> Result<(), Problem> {
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(mode)) if mode == MODE => Ok(()),
        Some(_) => Err(field(
            format!("mode is not {MODE:?}, the only choice"),
            "Leave it out.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: PoolLimits = PoolLimits {
        size: 2,
        overflow: 3,
    };

    #[test]
    fn an_empty_body_asks_for_nothing_in_particular() {
        for body in [
            "",
            " \n",
            "{}",
            r#"{"id":null,"deadline":null,"pool":null}"#,
        ] {
            let request = parse(body.as_bytes(), USUAL).unwrap();
            assert!(request.id.is_none() && request.limits.is_none(), "{body}");
            assert!(request.deadline.is_none() && request.labels.is_empty());
        }
    }

    #[test]
    fn everything_that_can_be_said_is_taken() {
        let body = r#"{"id":"run-1","deadline":"1m30s","labels":{"agent":"a"},
            "pool":{"size":7},"mode":"session"}"#;
        let request = parse(body.as_bytes(), USUAL).unwrap();
        assert_eq!(request.id.unwrap().as_str(), "run-1");
        assert_eq!(request.deadline, Some(Duration::from_secs(90)));
        assert_eq!(request.labels["agent"], "a");
        let limits = request.limits.unwrap();
        assert_eq!((limits.size, limits.overflow), (7, 3));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        for (body, kind, told) in [
            ("{", Kind::InvalidBody, "not JSON"),
            ("[]", Kind::InvalidField, "not an object"),
            (
                r#"{"deadlin":"1s"}"#,
                Kind::InvalidField,
                "Did you mean deadline?",
            ),
            (
                r#"{"pool":{"sise":1}}"#,
                Kind::InvalidField,
                "Did you mean size?",
            ),
            (r#"{"pool":{"size":0}}"#, Kind::InvalidField, "from 1 to"),
            (
                r#"{"pool":{"overflow":-1}}"#,
                Kind::InvalidField,
                "from 0 to",
            ),
            (r#"{"pool":2}"#, Kind::InvalidField, "not an object"),
            (r#"{"deadline":20}"#, Kind::InvalidField, "such as 250ms"),
            (r#"{"deadline":"20"}"#, Kind::InvalidField, "such as 250ms"),
            (r#"{"deadline":"0s"}"#, Kind::InvalidField, "zero"),
            (r#"{"id":"session-1"}"#, Kind::InvalidField, "session-"),
            (r#"{"id":7}"#, Kind::InvalidField, "not a string"),
            (r#"{"labels":{"a":1}}"#, Kind::InvalidField, "not a string"),
            (
                r#"{"mode":"transaction"}"#,
                Kind::InvalidField,
                "only choice",
            ),
        ] {
            let problem = parse(body.as_bytes(), USUAL).unwrap_err();
            assert_eq!(problem.kind(), kind, "{body}");
            assert!(format!("{problem:?}").contains(told), "{body}: {problem:?}");
        }
    }
}
