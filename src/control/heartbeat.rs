//! `POST /v1/executions/{id}/heartbeat`.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::Control;
use super::create::{deadline, invalid, object};
use super::hold::not_active;
use super::problem::Problem;
use super::query::Query;
use super::router::{Answer, Asked, json};
use super::types::{Heartbeat, Seconds};

/// What a body may say.
const FIELDS: [&str; 1] = ["extend"];

pub(super) async fn post(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let id = asked.execution()?;
    let extend = parse(&asked.body)?;
    let known = id.clone();
    let view = control
        .remote
        .ask(move |executions| executions.heartbeat(&known, extend))
        .await?;
    let Some(view) = view else {
        return Err(not_active(control, &id).await);
    };
    let moved = Heartbeat {
        id: view.id.to_string(),
        generation: view.generation,
        deadline_seconds: view.deadline_in.map(Seconds),
    };
    json(StatusCode::OK, &moved)
}

/// How far from now on the deadline is to be; none: as far as at first.
fn parse(body: &[u8]) -> Result<Option<Duration>, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let value: Value =
        serde_json::from_slice(body).map_err(|error| invalid(&error, "{\"extend\": \"10m\"}"))?;
    let fields = object("the body", &value, &FIELDS)?;
    fields
        .get("extend")
        .map_or(Ok(None), |value| deadline("extend", value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::problem::Kind;

    #[test]
    fn how_far_it_is_moved_is_read_and_nonsense_is_refused() {
        for nothing in ["", " \n", "{}", r#"{"extend":null}"#] {
            assert_eq!(parse(nothing.as_bytes()).unwrap(), None);
        }
        let ten = parse(br#"{"extend":"10m"}"#).unwrap();
        assert_eq!(ten, Some(Duration::from_secs(600)));
        for (body, kind, told) in [
            ("{", Kind::InvalidBody, "not JSON"),
            (r#"{"extend":"0s"}"#, Kind::InvalidField, "extend is zero"),
            (r#"{"extend":20}"#, Kind::InvalidField, "not a string"),
            (
                r#"{"extends":"1s"}"#,
                Kind::InvalidField,
                "Did you mean extend?",
            ),
        ] {
            let problem = parse(body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind(), kind, "{body}");
            assert!(format!("{problem:?}").contains(told), "{body}: {problem:?}");
        }
    }
}
