//! Cancel requests hit the session that they are for and nobody else, also while server
//! connections change hands.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postgres_protocol::message::frontend;
use support::sidecar::upstream;
use support::{Message, Postgres, Raw, SOON, Sidecar, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// What a session is told to be cancelled by: process and key.
type Key = (i32, i32);

/// A session of the raw protocol that has come in.
async fn enter(socket: &Path, database: &str) -> (Raw, Key) {
    let mut raw = Raw::connect(socket).await;
    let parameters = [("user", "app"), ("database", database)];
    raw.send_with(|out| frontend::startup_message(parameters, out).unwrap())
        .await;
    let messages = raw.read_until(b'Z').await;
    let key = messages.iter().find(|message| message.kind == b'K');
    let key = key.unwrap_or_else(|| panic!("it is not let in: {messages:?}"));
    (raw, key.key())
}

/// A cancel request whose packet is still to be sent.
struct Request(UnixStream);

impl Request {
    async fn open(socket: &Path) -> Self {
        Self(UnixStream::connect(socket).await.expect("it is accepted"))
    }

    async fn send(&mut self, (pid, key): Key) {
        let mut packet = bytes::BytesMut::new();
        frontend::cancel_request(pid, key, &mut packet);
        self.0.write_all(&packet).await.expect("it is taken");
    }

    /// Waits until it was dealt with.
    async fn seen(mut self) {
        let read = self.0.read(&mut [0]).await;
        assert_eq!(
            read.expect("it is closed in order"),
            0,
            "nothing is answered"
        );
    }
}

/// Sends a cancel request and waits until it was dealt with.
async fn cancel(socket: &Path, key: Key) {
    let mut request = Request::open(socket).await;
    request.send(key).await;
    request.seen().await;
}

/// What a query has come to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Row(String),
    Cancelled,
}

/// The outcome in the answer to a query of one row; anything else fails.
fn outcome(messages: &[Message]) -> Outcome {
    let error = messages.iter().find(|message| message.kind == b'E');
    let row = messages.iter().find(|message| message.kind == b'D');
    match (error, row) {
        (Some(error), _) => {
            let fields = error.fields();
            assert_eq!(fields[&'C'], "57014", "{fields:?}");
            Outcome::Cancelled
        }
        (None, Some(row)) => Outcome::Row(row.columns()[0].clone().expect("no null")),
        (None, None) => panic!("neither row nor error: {messages:?}"),
    }
}

async fn ask(raw: &mut Raw, sql: &str) -> Outcome {
    outcome(&raw.query(sql).await)
}

async fn send_query(raw: &mut Raw, sql: &str) {
    raw.send_with(|out| frontend::query(sql, out).unwrap())
        .await;
}

/// A sidecar over a database of its own, with so many server connections.
async fn sidecar(name: &str, budget: usize) -> Sidecar {
    let database = Postgres::shared().database(name).await;
    let config = format!(
        "{}budget: {{size: {budget}, overflow: 0}}\n\
         pool: {{timeout: 10m}}\n\
         log: {{level: 'warn,execpool::execution::cancel=debug,execpool::pool::barrier=debug', \
                format: json}}\n",
        upstream(name, &database.url())
    );
    Sidecar::start(config).await
}

/// Waits until the one query that a database is asked for sleeps there: a request that comes before
/// cancels nothing.
async fn sleeps(name: &str) {
    let postgres = Postgres::shared();
    let database = postgres.existing_database(name);
    postgres.waits_in(&database, "PgSleep").await;
}

const REQUESTS: u64 = 100_000;

/// What the storm's sessions share.
struct Storm {
    sidecar: Sidecar,
    sent: AtomicU64,
    tokens: AtomicU64,
    cancelled: AtomicU64,
    /// Keys of sessions that have gone, the latest last.
    old: Mutex<VecDeque<Key>>,
}

impl Storm {
    async fn cancel(&self, key: Key) {
        self.sent.fetch_add(1, Relaxed);
        cancel(&self.sidecar.socket(), key).await;
    }

    fn old_key(&self) -> Option<Key> {
        let mut old = self.old.lock().unwrap();
        let key = old.pop_front()?;
        old.push_back(key);
        Some(key)
    }

    /// One session: asks for its token, first with nobody out to cancel it, then under fire.
    async fn visit(&self) {
        let socket = self.sidecar.socket();
        let (mut raw, key) = enter(&socket, "storm").await;
        let number = self.tokens.fetch_add(1, Relaxed);
        let token = number.to_string();
        let own = Outcome::Row(token.clone());
        let brief = format!("SELECT '{token}' FROM pg_sleep(0.001)");
        for _ in 0..2 {
            let outcome = ask(&mut raw, &brief).await;
            assert_eq!(outcome, own, "nobody has cancelled session {token}");
        }
        // Requests for sessions that have gone, some of which had this server connection.
        for _ in 0..4 {
            if let Some(key) = self.old_key() {
                self.cancel(key).await;
            }
        }
        assert_eq!(ask(&mut raw, &brief).await, own, "old requests hit {token}");
        // A server that waits for its client is not asked.
        for _ in 0..6 {
            self.cancel(key).await;
        }
        assert_eq!(ask(&mut raw, &brief).await, own, "idle, {token} was hit");

        // Some requests come while the last query runs, most when the session has said goodbye.
        let mut requests = Vec::new();
        for _ in 0..10 {
            requests.push(Request::open(&socket).await);
        }
        let last = format!("SELECT '{token}' FROM pg_sleep(0.003)");
        send_query(&mut raw, &last).await;
        tokio::time::sleep(Duration::from_millis(number % 4)).await;
        for (count, request) in requests.iter_mut().enumerate() {
            if count == 2 {
                tokio::time::sleep(Duration::from_millis(number % 3 / 2)).await;
                raw.send_with(frontend::terminate).await;
            }
            request.send(key).await;
            self.sent.fetch_add(1, Relaxed);
        }
        // Those of a session that has said goodbye may stay away.
        let last = raw.read_until(b'Z').await;
        if last
            .iter()
            .any(|message| matches!(message.kind, b'D' | b'E'))
        {
            let outcome = outcome(&last);
            assert!(
                outcome == own || outcome == Outcome::Cancelled,
                "{outcome:?}"
            );
            self.cancelled
                .fetch_add(u64::from(outcome == Outcome::Cancelled), Relaxed);
        }
        drop(raw);
        for request in requests {
            request.seen().await;
        }
        let mut old = self.old.lock().unwrap();
        old.push_back(key);
        if old.len() > 50 {
            old.pop_front();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_100_000_cancel_requests_none_hits_a_session_that_it_is_not_for() {
    let storm = Arc::new(Storm {
        sidecar: sidecar("storm", 3).await,
        sent: AtomicU64::new(0),
        tokens: AtomicU64::new(0),
        cancelled: AtomicU64::new(0),
        old: Mutex::default(),
    });
    let mut sessions = JoinSet::new();
    for _ in 0..8 {
        let storm = Arc::clone(&storm);
        sessions.spawn(async move {
            while storm.sent.load(Relaxed) < REQUESTS {
                storm.visit().await;
            }
        });
    }
    while let Some(done) = sessions.join_next().await {
        done.expect("no session is hit by another's request");
    }
    let log = storm.sidecar.log();
    let told = |words: &str| log.iter().filter(|line| line.contains(words)).count();
    let closing = told(r#""state":"closing""#);
    let (barrier, late) = (told("waits for cancel requests"), told("too late"));
    let summary = format!(
        "{} requests, {} sessions, {} cancelled; while the connection changed hands: {closing} \
         found the session closing, {late} were too late, {barrier} returns waited",
        storm.sent.load(Relaxed),
        storm.tokens.load(Relaxed),
        storm.cancelled.load(Relaxed),
    );
    println!("{summary}");
    assert!(closing + late + barrier >= 1_000, "{summary}");
    assert!(barrier >= 100, "{summary}");
    assert!(told(r#""state":"active""#) >= 1_000, "{summary}");
}

#[tokio::test]
async fn a_wrong_key_cancels_nothing_and_the_right_one_what_runs() {
    let sidecar = sidecar("wrong_key", 2).await;
    let socket = sidecar.socket();
    let (mut raw, (pid, key)) = enter(&socket, "wrong_key").await;
    send_query(&mut raw, "SELECT 'whole' FROM pg_sleep(1)").await;
    for wrong in [
        (pid, key ^ 1),
        (pid, !key),
        (pid, 0),
        (pid + 1, key),
        (0, key),
    ] {
        cancel(&socket, wrong).await;
    }
    let whole = Outcome::Row("whole".to_owned());
    assert_eq!(outcome(&raw.read_until(b'Z').await), whole);
    send_query(&mut raw, "SELECT 'whole' FROM pg_sleep(600)").await;
    sleeps("wrong_key").await;
    cancel(&socket, (pid, key)).await;
    assert_eq!(outcome(&raw.read_until(b'Z').await), Outcome::Cancelled);
}

#[tokio::test]
async fn another_session_that_was_told_the_same_pid_is_not_hit() {
    let sidecar = sidecar("same_pid", 1).await;
    let socket = sidecar.socket();
    let (mut first, first_key) = enter(&socket, "same_pid").await;
    // Takes the connection that the first was told of, and brings it back.
    let (mut other, _) = enter(&socket, "same_pid").await;
    ask(&mut other, "SELECT '1'").await;
    other.send_with(frontend::terminate).await;
    other.expect_closed().await;
    let second = eventually(SOON, "it is back", async || {
        let (raw, key) = enter(&socket, "same_pid").await;
        (key.0 == first_key.0).then_some((raw, key)).ok_or(key)
    });
    let (mut second, second_key) = second.await;
    assert_ne!(first_key.1, second_key.1, "each has a key of its own");

    send_query(&mut second, "SELECT 'whole' FROM pg_sleep(0.3)").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..30 {
        cancel(&socket, first_key).await;
    }
    let whole = Outcome::Row("whole".to_owned());
    assert_eq!(outcome(&second.read_until(b'Z').await), whole);
    // Nor do the first one's requests count as guesses at the second one's key.
    send_query(&mut second, "SELECT 'whole' FROM pg_sleep(600)").await;
    sleeps("same_pid").await;
    for _ in 0..30 {
        cancel(&socket, first_key).await;
    }
    cancel(&socket, second_key).await;
    assert_eq!(outcome(&second.read_until(b'Z').await), Outcome::Cancelled);
    drop(second);
    assert_eq!(
        ask(&mut first, "SELECT '1'").await,
        Outcome::Row("1".to_owned())
    );
}

#[tokio::test]
async fn a_cancel_request_for_an_idle_session_harms_no_later_query() {
    let sidecar = sidecar("idle", 1).await;
    let socket = sidecar.socket();
    let (mut raw, key) = enter(&socket, "idle").await;
    for number in 0..300 {
        let sql = format!("SELECT '{number}' FROM pg_sleep(0.001)");
        let answer = ask(&mut raw, &sql).await;
        assert_eq!(answer, Outcome::Row(number.to_string()));
        cancel(&socket, key).await;
    }
    // Within a transaction that waits as well.
    raw.query("BEGIN").await;
    cancel(&socket, key).await;
    assert_eq!(
        ask(&mut raw, "SELECT 'in'").await,
        Outcome::Row("in".to_owned())
    );
}
