//! `POST /v1/cleanup`: room is made by ending sessions that ask nothing.

use http::StatusCode;
use serde_json::Value;

use crate::execution::cleanup::Scope;
use crate::execution::tidying::{self, Order, Origin};
use crate::protocol::startup::ExecutionId;

use super::Control;
use super::create::{field, invalid, object};
use super::executions::none;
use super::problem::{Kind, Problem};
use super::query::Query;
use super::router::{Answer, Asked, execution_named, invalid_id, json};
use super::sessions;
use super::types::{Cleanup, Closed};

/// What a body may say.
const FIELDS: [&str; 2] = ["dry_run", "execution"];

pub(super) async fn post(control: &Control, asked: &Asked) -> Answer {
    Query::parse(asked.query.as_deref(), &[])?;
    let order = parse(&asked.body)?;
    if let Scope::Execution(id) = &order.scope {
        is_known(control, id).await?;
    }
    let dry_run = order.dry_run;
    let cleaned = control
        .remote
        .ask(move |executions| executions.clean_up(order));
    // Dropped untold only where the data plane ends.
    let cleaned = cleaned.await?.await.map_err(|_| crate::execution::Gone)?;
    let remaining = cleaned.remaining.iter().map(|id| id.0).collect();
    let answer = Cleanup {
        dry_run,
        nobody_waits: cleaned.waited == 0,
        complete: cleaned.waiting == 0 && cleaned.remaining.is_empty(),
        closed: cleaned.closed.into_iter().map(closed).collect(),
        waiting: cleaned.waiting,
        spared: cleaned.spared,
        remaining_sessions: remaining,
    };
    json(StatusCode::OK, &answer)
}

/// Whether there is such an execution, or was one that may have left something behind: a slip of the
/// pen is told, instead of that nothing was to be done.
async fn is_known(control: &Control, id: &ExecutionId) -> Result<(), Problem> {
    let asked = id.clone();
    let known = control.remote.ask(move |all| all.view(&asked).is_some());
    if known.await? || control.summary(id).await?.is_some() {
        return Ok(());
    }
    Err(none(id))
}

fn closed(closed: tidying::Closed) -> Closed {
    match closed {
        tidying::Closed::Leftover(leftover) => Closed {
            why: crate::execution::cleanup::Why::Leftover.as_str(),
            execution: leftover.execution.to_string(),
            server_pid: Some(leftover.backend.pid),
            session: None,
        },
        tidying::Closed::Session(snapshot, why) => Closed {
            why: why.as_str(),
            execution: snapshot.identity.execution.to_string(),
            server_pid: snapshot.server_pid,
            session: Some(sessions::session(&snapshot)),
        },
    }
}

fn parse(body: &[u8]) -> Result<Order, Problem> {
    let mut order = Order {
        dry_run: false,
        scope: Scope::All,
        origin: Origin::Asked,
    };
    if body.trim_ascii().is_empty() {
        return Ok(order);
    }
    let value: Value =
        serde_json::from_slice(body).map_err(|error| invalid(&error, "{\"dry_run\": true}"))?;
    let fields = object("the body", &value, &FIELDS)?;
    order.dry_run = match fields.get("dry_run") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(dry_run)) => *dry_run,
        Some(_) => {
            let hint = "Say {\"dry_run\": true} to be told what would be done.";
            return Err(field("dry_run is not true or false".to_owned(), hint));
        }
    };
    order.scope = match fields.get("execution") {
        None | Some(Value::Null) => Scope::All,
        Some(Value::String(id)) => {
            let id = execution_named(id);
            Scope::Execution(id.map_err(|error| invalid_id(Kind::InvalidField, &error))?)
        }
        Some(_) => {
            let hint = "Leave it out, and the cleanup is about all of them.";
            return Err(field("execution is not a string".to_owned(), hint));
        }
    };
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_cleaned_is_read_and_nonsense_is_refused() {
        for nothing in ["", "{}", r#"{"dry_run":null,"execution":null}"#] {
            let order = parse(nothing.as_bytes()).unwrap();
            assert_eq!((order.dry_run, order.scope), (false, Scope::All));
        }
        for id in ["run", "shared", "session-7"] {
            let body = format!(r#"{{"dry_run":true,"execution":"{id}"}}"#);
            let order = parse(body.as_bytes()).unwrap();
            let Scope::Execution(read) = order.scope else {
                panic!("of one execution")
            };
            assert_eq!((order.dry_run, read.as_str()), (true, id));
        }
        for (body, kind, told) in [
            ("{", Kind::InvalidBody, "not JSON"),
            (
                r#"{"dry":true}"#,
                Kind::InvalidField,
                "Did you mean dry_run?",
            ),
            (r#"{"dry_run":"yes"}"#, Kind::InvalidField, "true or false"),
            (r#"{"execution":7}"#, Kind::InvalidField, "not a string"),
            (r#"{"execution":"a b"}"#, Kind::InvalidField, "1 to 128"),
        ] {
            let problem = parse(body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind(), kind, "{body}");
            assert!(format!("{problem:?}").contains(told), "{body}: {problem:?}");
        }
    }
}
