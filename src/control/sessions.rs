//! `GET /v1/sessions`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::protocol::statement::shown;
use crate::session::{self, Snapshot, State};

use super::Control;
use super::problem::{Kind, Problem, repeated};
use super::query::{Query, wrong};
use super::router::{Answer, Asked, invalid_id, json};
use super::types::{Peer, Seconds, Session};

/// How much of a statement is shown, in characters.
const MAX_STATEMENT: usize = 500;

/// How many sessions are looked at in one turn of the data plane.
const AT_ONCE: usize = 256;

/// Which sessions are asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    execution: Option<String>,
    state: Option<State>,
    older_than: Option<Duration>,
    suspect: Option<bool>,
}

impl Filter {
    fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let query = Query::parse(query, &["execution", "state", "older_than", "suspect"])?;
        Ok(Self {
            execution: query.get("execution").map(execution).transpose()?,
            state: query.get("state").map(state).transpose()?,
            older_than: query.duration("older_than")?,
            suspect: match query.get("suspect") {
                None => None,
                Some(_) => Some(query.flag("suspect")?),
            },
        })
    }

    /// Whether it wants a session, as far as that is known without a snapshot.
    fn wants(&self, session: &session::Session) -> bool {
        let execution = session.identity().execution.as_str();
        self.execution.as_deref().is_none_or(|id| id == execution)
            && self.state.is_none_or(|state| state == session.state())
    }
}

pub(super) async fn get(control: &Control, asked: &Asked) -> Answer {
    let filter = Filter::parse(asked.query.as_deref())?;
    let (older_than, suspect) = (filter.older_than.unwrap_or_default(), filter.suspect);
    let found = control.remote.ask(move |executions| {
        let mut sessions = executions.sessions().all();
        sessions.retain(|session| filter.wants(session));
        sessions
    });
    let found = found.await?;
    let mut sessions = Vec::new();
    for some in found.chunks(AT_ONCE) {
        let some: Vec<Arc<session::Session>> = some.to_vec();
        let snapshots = control.remote.ask(move |_| {
            let now = Instant::now();
            let snapshots = some.iter().map(|session| session.snapshot(now));
            snapshots.collect::<Vec<Snapshot>>()
        });
        let snapshots = snapshots.await?.into_iter();
        let wanted = snapshots.filter(|snapshot| {
            snapshot.age >= older_than
                && suspect.is_none_or(|suspect| suspect == snapshot.is_suspect)
        });
        sessions.extend(wanted.map(|snapshot| session(&snapshot)));
        tokio::task::yield_now().await;
    }
    json(StatusCode::OK, &sessions)
}

/// What is shown of a session.
pub(super) fn session(snapshot: &Snapshot) -> Session {
    let identity = &snapshot.identity;
    let statement = &snapshot.statement;
    Session {
        id: snapshot.id.0,
        execution: identity.execution.to_string(),
        upstream: identity.upstream.to_string(),
        database: identity.database.clone(),
        application_name: identity.application_name.clone(),
        state: snapshot.state.as_str(),
        age_seconds: Seconds(snapshot.age),
        state_age_seconds: Seconds(snapshot.state_age),
        idle_for_seconds: snapshot.idle_for.map(Seconds),
        leak_suspect: snapshot.is_suspect,
        transaction_seconds: snapshot.transaction_age.map(Seconds),
        work: snapshot.totals.into(),
        caller: identity.caller.clone(),
        label: identity.label.clone(),
        traceparent: identity.traceparent.clone(),
        peer: match identity.peer {
            session::Peer::Unix { uid, gid, pid } => Peer::Unix { uid, gid, pid },
            session::Peer::Tcp(address) => Peer::Tcp {
                address: address.to_string(),
            },
        },
        server_pid: snapshot.server_pid,
        statement: (!statement.is_empty()).then(|| shown(statement, MAX_STATEMENT)),
    }
}

/// An execution's name; those that belong to one session among them.
pub(super) fn execution(text: &str) -> Result<String, Problem> {
    match text.parse::<crate::protocol::startup::ExecutionId>() {
        Err(error) if !text.starts_with("session-") => {
            Err(invalid_id(Kind::InvalidParameter, &error))
        }
        _ => Ok(text.to_owned()),
    }
}

fn state(word: &str) -> Result<State, Problem> {
    State::of_word(word).ok_or_else(|| {
        let words = State::ALL.map(State::as_str).join(", ");
        wrong(
            format!("there is no state {}", repeated(word)),
            format!("The states are {words}."),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        let filter = Filter::parse(Some("execution=a&state=idle&older_than=2m&suspect")).unwrap();
        let expected = Filter {
            execution: Some("a".to_owned()),
            state: Some(State::Idle),
            older_than: Some(Duration::from_secs(120)),
            suspect: Some(true),
        };
        assert_eq!(filter, expected);
        let of_one = Filter::parse(Some("execution=session-3")).unwrap();
        assert_eq!(of_one.execution.as_deref(), Some("session-3"));
    }

    #[test]
    fn a_wrong_filter_names_what_is_allowed() {
        for (query, told) in [
            ("state=sleeping", "idle_in_transaction"),
            ("older_than=5", "such as 250ms"),
            ("execution=a%20b", "1 to 128"),
            ("suspect=maybe", "true or false"),
            ("stat=idle", "Did you mean state?"),
        ] {
            let problem = Filter::parse(Some(query)).unwrap_err();
            assert_eq!(problem.kind(), Kind::InvalidParameter);
            assert!(format!("{problem:?}").contains(told), "{problem:?}");
        }
    }
}
