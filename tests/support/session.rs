//! Sessions over the raw protocol, and what they are told.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use serde_json::Value;

use super::postgres::{Database, Postgres};
use super::raw::{Message, Raw};
use super::sidecar::{Sidecar, upstream};
use super::wait::{SOON, eventually};

impl Sidecar {
    /// What a client is told that begins as `app` with these parameters besides.
    pub(crate) async fn started(
        &self,
        database: &str,
        parameters: &[(&str, &str)],
    ) -> (Raw, Vec<Message>) {
        let mut raw = self.raw().await;
        let all = [&[("user", "app"), ("database", database)][..], parameters].concat();
        let told = raw.startup(&all).await;
        (raw, told)
    }

    /// A session in an execution that was let in.
    pub(crate) async fn session(&self, database: &str, execution: &str) -> Raw {
        let named = [("execpool.execution_id", execution)];
        let (raw, told) = self.started(database, &named).await;
        assert_in(&told);
        raw
    }

    /// The same where a first connect may take longer than the configuration lets it wait.
    pub(crate) async fn enters(&self, database: &str, execution: &str) -> Raw {
        eventually(SOON, "it is let in", async || {
            let named = [("execpool.execution_id", execution)];
            let (raw, told) = self.started(database, &named).await;
            match told.last().is_some_and(|last| last.kind == b'Z') {
                true => Ok(raw),
                false => Err(told),
            }
        })
        .await
    }

    /// The sessions of an execution, as the control socket tells.
    pub(crate) async fn sessions_of(&self, execution: &str) -> Vec<Value> {
        let sessions = self
            .get(&format!("/v1/sessions?execution={execution}"))
            .await;
        sessions.as_array().expect("a list").clone()
    }

    /// Waits until one session of an execution is in a state.
    pub(crate) async fn session_is(&self, execution: &str, state: &str) {
        let claim = format!("a session of {execution} is {state}");
        eventually(SOON, &claim, async || {
            let sessions = self.sessions_of(execution).await;
            match sessions.iter().any(|session| session["state"] == state) {
                true => Ok(()),
                false => Err(sessions),
            }
        })
        .await;
    }

    /// Waits until it drains: it has heard a first signal, and would hear a second one.
    pub(crate) async fn drains(&self) {
        eventually(SOON, "it drains", async || {
            let status = self.get("/v1/status").await;
            let drains = status["draining"] == true;
            drains.then_some(()).ok_or(status)
        })
        .await;
    }

    /// Waits until `GET /v1/status` shows no session, and no server connection in use.
    pub(crate) async fn settles(&self) {
        eventually(SOON, "all is given back", async || {
            let status = self.get("/v1/status").await;
            let (sessions, budget) = (&status["sessions"], &status["budget"]);
            let over = sessions["total"] == 0
                && ["used", "waiting", "connecting"]
                    .iter()
                    .all(|count| budget[count] == 0)
                && budget["open"] == budget["idle"];
            if over { Ok(()) } else { Err(status) }
        })
        .await;
    }
}

/// Asserts that a startup ended with ReadyForQuery.
#[track_caller]
pub(crate) fn assert_in(told: &[Message]) {
    assert_eq!(told.last().map(|last| last.kind), Some(b'Z'), "{told:?}");
}

/// The types of messages, as one text.
pub(crate) fn kinds(messages: &[Message]) -> String {
    let kinds = messages.iter().map(|message| char::from(message.kind));
    kinds.collect()
}

/// The fields of the one error among the messages.
#[track_caller]
pub(crate) fn error(messages: &[Message]) -> BTreeMap<char, String> {
    let mut errors = messages.iter().filter(|message| message.kind == b'E');
    match (errors.next(), errors.next()) {
        (Some(error), None) => error.fields(),
        _ => panic!("not one error: {messages:?}"),
    }
}

/// The first column of each row.
pub(crate) fn rows(messages: &[Message]) -> Vec<String> {
    let rows = messages.iter().filter(|message| message.kind == b'D');
    rows.map(|row| row.columns()[0].clone().unwrap_or_default())
        .collect()
}

/// The process id that a client was told.
#[track_caller]
pub(crate) fn told_pid(told: &[Message]) -> i32 {
    let key = told.iter().find(|message| message.kind == b'K');
    key.unwrap_or_else(|| panic!("no BackendKeyData: {told:?}"))
        .key()
        .0
}

/// Parse, Bind and Execute of one statement.
pub(crate) fn batch(sql: &str, buffer: &mut BytesMut) {
    frontend::parse("", sql, [], buffer).unwrap();
    let no_values: [&str; 0] = [];
    let bound = frontend::bind("", "", [], no_values, |_, _| Ok(IsNull::Yes), [], buffer);
    assert!(bound.is_ok(), "{sql}");
    frontend::execute("", 0, buffer).unwrap();
}

impl Raw {
    /// The first column of the one row that a query gives.
    pub(crate) async fn ask(&mut self, sql: &str) -> String {
        let messages = self.query(sql).await;
        match rows(&messages).as_slice() {
            [row] => row.clone(),
            _ => panic!("{sql}: {messages:?}"),
        }
    }

    /// The backend that serves this session.
    pub(crate) async fn backend(&mut self) -> i32 {
        let pid = self.ask("SELECT pg_backend_pid()").await;
        pid.parse().expect("a number")
    }
}

/// A fresh database and a sidecar in front of it, with more configuration; it is called `app` there.
pub(crate) async fn place(name: &str, more: &str) -> (Database, Sidecar) {
    let database = Postgres::shared().database(name).await;
    let yaml = upstream("app", &database.url()) + more;
    (database, Sidecar::start(yaml).await)
}

/// Waits until no backend serves a database of the shared server.
pub(crate) async fn nothing_left(database: &Database) {
    let filter = format!("datname = '{}'", database.name);
    eventually(SOON, "no backend is left", async || {
        let left = Postgres::shared().activity(&filter).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// The same but for the sidecar's own question whether the database lives.
pub(crate) async fn nothing_pooled_left(database: &Database) {
    eventually(SOON, "no backend of a pool is left", async || {
        let left = Postgres::shared().pooled(database).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}
