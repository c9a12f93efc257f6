//! `POST /v1/executions/{id}/query`: for callers without a driver. It runs as a session like any other,
//! over a connection from within: one budget, one list of sessions, nothing twice.
//!
//! The statement goes through the extended protocol: PostgreSQL refuses several at once, infers the
//! types of parameters, and tells those of columns; all values are text. Rows past the bounds are not
//! asked for, or read and thrown away, so that a statement that writes is never undone by that.
//!
//! | module | gives |
//! |---|---|
//! | `talk` | the conversation with the session |
//! | `value` | parameters as text, rows as JSON |
//! | `failure` | what is answered where it fails |

mod failure;
mod talk;
mod value;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::duration;
use crate::protocol::startup::ExecutionId;
use crate::session::Peer;

use super::Control;
use super::create::{field, invalid, object, upstream};
use super::problem::{Kind, Problem, repeated};
use super::query::{DURATION, Query};
use super::router::{Answer, Asked, invalid_id, json};
use super::server::Place;
use super::types::Queried;
use super::url;
use failure::Failure;
use talk::Talk;

/// What a body may say.
const FIELDS: [&str; 5] = ["sql", "params", "timeout", "max_rows", "upstream"];

/// How long a query may take, waits included, unless something else is said; and at most.
const PATIENCE: Duration = Duration::from_secs(30);
const MOST_PATIENCE: Duration = Duration::from_secs(3600);

/// How many rows are answered unless something else is said; and at most.
const ROWS: u32 = 1_000;
const MOST_ROWS: u32 = 10_000;

/// How long the end of a query is waited for that was cancelled.
const LAST: Duration = Duration::from_secs(2);

/// What the session calls itself.
const APPLICATION: &str = "execpool query";

/// The body of `POST /v1/executions/{id}/query`.
#[derive(Debug, PartialEq)]
struct Wanted {
    /// One statement.
    sql: String,
    /// The values of `$1`, `$2` and so on: null, strings, numbers, booleans; arrays for array types;
    /// objects and arrays for json and jsonb.
    params: Vec<Value>,
    /// How long it may take, waits included: 30 s without, an hour at most.
    timeout: Duration,
    /// How many rows are answered: 1,000 without, 10,000 at most.
    max_rows: u32,
    /// The upstream's name; the first without.
    upstream: Option<String>,
}

pub(super) async fn post(control: &Arc<Control>, asked: &Asked, place: &Place) -> Answer {
    let query = Query::parse(asked.query.as_deref(), &["upstream"])?;
    let id = joinable(&asked.execution()?)?;
    let mut wanted = parse(&asked.body)?;
    if let Some(name) = query.get("upstream") {
        if wanted.upstream.is_some() {
            let hint = "Say it in the body or in the query string.";
            return Err(field("upstream is there twice".to_owned(), hint));
        }
        wanted.upstream = Some(name.to_owned());
    }
    let peer = place.peer().ok_or_else(|| {
        let hint = "Report it: the system did not tell who has connected.";
        Problem::new(Kind::Internal, "a session belongs to a user", hint)
    })?;
    let Ok(_permit) = control.queries.try_acquire() else {
        return Err(Problem::new(
            Kind::TooManyQueries,
            "as many queries are under way as may be at once",
            "Try again soon, or connect with a driver, which waits in the queue.",
        ));
    };
    json(StatusCode::OK, &run(control, &id, &wanted, peer).await?)
}

/// The name, if sessions can join by it.
fn joinable(id: &ExecutionId) -> Result<ExecutionId, Problem> {
    let parsed = id.as_str().parse();
    parsed.map_err(|error| invalid_id(Kind::InvalidExecutionId, &error))
}

/// Runs the statement. Cancel safe: dropped, the session's client has vanished, which cancels it.
async fn run(
    control: &Control,
    id: &ExecutionId,
    wanted: &Wanted,
    peer: Peer,
) -> Result<Queried, Problem> {
    let deadline = Instant::now() + wanted.timeout;
    let (user, database) = {
        let outlook = control.outlook();
        let (upstream, database) = upstream(&outlook.facts, wanted.upstream.as_deref())?;
        (upstream.user.clone(), database.to_owned())
    };
    let parameters = [
        ("user", user.as_str()),
        ("database", &database),
        ("application_name", APPLICATION),
        ("client_encoding", "UTF8"),
        (url::PARAMETER, id.as_str()),
    ];
    let stream = control.come_in(peer).await?;
    let begun = timeout_at(deadline, Talk::begin(stream, &parameters)).await;
    let mut talk = match begun {
        Ok(begun) => begun.map_err(Failure::at_startup)?,
        Err(_) => return Err(Failure::Timeout(wanted.timeout).of_query()),
    };
    let key = talk.key();
    let answered = {
        let mut answering = std::pin::pin!(talk.query(wanted));
        match timeout_at(deadline, &mut answering).await {
            Ok(answered) => answered,
            Err(_) => {
                cancel(control, peer, key).await;
                // It may have ended just in time.
                match timeout(LAST, answering).await {
                    Ok(answered) => answered.map_err(|error| error.after_cancel(wanted.timeout)),
                    Err(_) => return Err(Failure::Timeout(wanted.timeout).of_query()),
                }
            }
        }
    };
    // Amid a COPY there is nothing to be said but by leaving.
    if !matches!(answered, Err(Failure::Copy)) {
        talk.say_goodbye();
    }
    answered.map_err(Failure::of_query)
}

/// Asks for the cancellation of a session's query, as a client does. Whether that could be asked shows
/// by what the session says.
async fn cancel(control: &Control, peer: Peer, (pid, key): (i32, i32)) {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::cancel_request(pid, key, &mut request);
    if let Ok(mut stream) = control.come_in(peer).await {
        let _ = stream.write_all(&request).await;
    }
}

fn parse(body: &[u8]) -> Result<Wanted, Problem> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| invalid(&error, "{\"sql\": \"SELECT 1\"}"))?;
    let fields = object("the body", &value, &FIELDS)?;
    Ok(Wanted {
        sql: sql(fields.get("sql"))?,
        params: params(fields.get("params"))?,
        timeout: patience(fields.get("timeout"))?,
        max_rows: max_rows(fields.get("max_rows"))?,
        upstream: name(fields.get("upstream"))?,
    })
}

fn sql(value: Option<&Value>) -> Result<String, Problem> {
    let wrong = |what: &str| {
        let hint = "Say one statement, such as {\"sql\": \"SELECT 1\"}.";
        Err(field(format!("sql {what}"), hint))
    };
    match value {
        Some(Value::String(sql)) if sql.contains('\0') => wrong("has a zero byte"),
        Some(Value::String(sql)) => Ok(sql.clone()),
        Some(_) => wrong("is not a string"),
        None => wrong("is missing"),
    }
}

fn params(value: Option<&Value>) -> Result<Vec<Value>, Problem> {
    let wrong = |what: &str| {
        let hint = "Say for example {\"sql\": \"SELECT $1::int\", \"params\": [7]}.";
        Err(field(format!("params {what}"), hint))
    };
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(params)) if params.len() > usize::from(u16::MAX) => {
            wrong("are over 65,535")
        }
        Some(Value::Array(params)) => Ok(params.clone()),
        Some(_) => wrong("is not an array"),
    }
}

fn patience(value: Option<&Value>) -> Result<Duration, Problem> {
    let wrong = |what: String| {
        let hint = "Say for example \"5s\", at most \"1h\"; without it, it is 30 s.";
        Err(field(what, hint))
    };
    match value {
        None | Some(Value::Null) => Ok(PATIENCE),
        Some(Value::String(text)) => match duration(text) {
            None => wrong(format!("timeout {} is not {DURATION}", repeated(text))),
            Some(Duration::ZERO) => wrong("timeout is zero".to_owned()),
            Some(time) if time > MOST_PATIENCE => wrong("timeout is over an hour".to_owned()),
            Some(time) => Ok(time),
        },
        Some(_) => wrong(format!("timeout is not a string: it is {DURATION}")),
    }
}

fn max_rows(value: Option<&Value>) -> Result<u32, Problem> {
    let value = match value {
        None | Some(Value::Null) => return Ok(ROWS),
        Some(value) => value.as_u64().and_then(|rows| u32::try_from(rows).ok()),
    };
    let rows = value.filter(|rows| (1..=MOST_ROWS).contains(rows));
    rows.ok_or_else(|| {
        let hint = format!("It is a whole number from 1 to {MOST_ROWS}; {ROWS} without it.");
        field("max_rows is out of its range".to_owned(), hint)
    })
}

fn name(value: Option<&Value>) -> Result<Option<String>, Problem> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok(Some(name.clone())),
        Some(_) => Err(field(
            "upstream is not a string".to_owned(),
            "Leave it out, and the first one is meant.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_that_can_be_said_is_taken_and_all_but_the_statement_may_be_absent() {
        let body = r#"{"sql":"SELECT $1","params":[7,null],"timeout":"1m","max_rows":5,
            "upstream":"log"}"#;
        let wanted = parse(body.as_bytes()).unwrap();
        let expected = Wanted {
            sql: "SELECT $1".to_owned(),
            params: vec![json!(7), Value::Null],
            timeout: Duration::from_secs(60),
            max_rows: 5,
            upstream: Some("log".to_owned()),
        };
        assert_eq!(wanted, expected);
        let usual = parse(br#"{"sql":""}"#).unwrap();
        assert_eq!((usual.timeout, usual.max_rows), (PATIENCE, 1_000));
        assert!(usual.params.is_empty() && usual.upstream.is_none());
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        for (body, kind, told) in [
            ("", Kind::InvalidBody, "not JSON"),
            ("{}", Kind::InvalidField, "sql is missing"),
            (r#"{"sql":7}"#, Kind::InvalidField, "not a string"),
            (r#"{"sql":"a\u0000"}"#, Kind::InvalidField, "zero byte"),
            (
                r#"{"sql":"","params":{}}"#,
                Kind::InvalidField,
                "not an array",
            ),
            (
                r#"{"sql":"","timeout":5}"#,
                Kind::InvalidField,
                "such as 250ms",
            ),
            (
                r#"{"sql":"","timeout":"2h"}"#,
                Kind::InvalidField,
                "over an hour",
            ),
            (
                r#"{"sql":"","max_rows":0}"#,
                Kind::InvalidField,
                "from 1 to 10000",
            ),
            (
                r#"{"sql":"","max_rows":10001}"#,
                Kind::InvalidField,
                "from 1 to 10000",
            ),
            (
                r#"{"sql":"","limit":1}"#,
                Kind::InvalidField,
                "unknown field",
            ),
        ] {
            let problem = parse(body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind(), kind, "{body}");
            assert!(format!("{problem:?}").contains(told), "{body}: {problem:?}");
        }
    }

    #[test]
    fn an_execution_of_one_session_can_not_be_joined() {
        let refused = joinable(&ExecutionId::session(7)).unwrap_err();
        assert_eq!(refused.kind(), Kind::InvalidExecutionId);
        assert!(joinable(&ExecutionId::shared()).is_ok());
    }
}
