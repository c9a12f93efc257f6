//! How long an execution lives: its deadline reaches whatever it does, its limits are its own, and
//! holds keep it for as long as one of them is open.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use serde_json::{Value, json};
use support::session::error;
use support::sidecar::upstream;
use support::{Postgres, Raw, SOON, Sidecar, eventually};

async fn place(name: &str, more: &str) -> Sidecar {
    let database = Postgres::shared().database(name).await;
    Sidecar::start(upstream("app", &database.url()) + more).await
}

async fn create(sidecar: &Sidecar, body: Value) -> Value {
    let (status, created) = sidecar.control("POST", "/v1/executions", Some(body)).await;
    assert_eq!(status, 201, "{created}");
    created
}

/// From now on it has this deadline.
async fn due_in(sidecar: &Sidecar, id: &str, time: &str) {
    let path = format!("/v1/executions/{id}/heartbeat");
    let body = json!({"extend": time});
    let (status, moved) = sidecar.control("POST", &path, Some(body)).await;
    assert_eq!(status, 200, "{moved}");
}

async fn send_query(raw: &mut Raw, sql: &str) {
    raw.send_with(|out| frontend::query(sql, out).unwrap())
        .await;
}

/// The session is told that it has ended for this reason, and closed.
async fn is_told(raw: &mut Raw, reason: &str) {
    let fields = raw.expect_error().await;
    assert_eq!(fields[&'C'], "57P01", "{fields:?}");
    assert!(fields[&'M'].contains(reason), "{fields:?}");
    raw.expect_closed().await;
}

async fn ended(sidecar: &Sidecar, id: &str, reason: &str) {
    eventually(SOON, reason, async || {
        let seen = sidecar
            .control("GET", &format!("/v1/executions/{id}"), None)
            .await;
        let fits = seen.1["state"] == "ended" && seen.1["reason"] == reason;
        fits.then_some(()).ok_or(seen)
    })
    .await;
}

#[tokio::test]
async fn a_deadline_reaches_sessions_that_query_wait_idle_and_have_not_begun() {
    let sidecar = place("deadline", "pool: {size: 1, overflow: 1, timeout: 10m}\n").await;
    create(&sidecar, json!({"id": "a", "deadline": "1h"})).await;
    let mut unbound = sidecar.session("app", "a").await;
    let mut querying = sidecar.session("app", "a").await;
    send_query(&mut querying, "SELECT pg_sleep(600)").await;
    let mut idle = sidecar.session("app", "a").await;
    idle.query("BEGIN").await;
    let mut waiting = sidecar.session("app", "a").await;
    send_query(&mut waiting, "SELECT 1").await;
    sidecar.session_is("a", "waiting").await;
    let started = Instant::now();
    due_in(&sidecar, "a", "1500ms").await;
    for raw in [&mut querying, &mut waiting, &mut idle, &mut unbound] {
        is_told(raw, "its deadline passed").await;
    }
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(1500) && took < Duration::from_secs(30),
        "{took:?}"
    );
    ended(&sidecar, "a", "deadline").await;
    let named = [("execpool.execution_id", "a")];
    let (_, told) = sidecar.started("app", &named).await;
    let fields = error(&told);
    assert_eq!(fields[&'C'], "55000");
    assert!(fields[&'D'].contains("its deadline passed"), "{fields:?}");
    let again = create(&sidecar, json!({"id": "a"})).await;
    assert_eq!(again["generation"], 2, "{again}");
    assert_eq!(sidecar.session("app", "a").await.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn the_default_deadline_holds_for_implicit_executions() {
    let sidecar = place("default_deadline", "execution: {max_duration: 5s}\n").await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    is_told(&mut raw, "its deadline passed").await;
    ended(&sidecar, "a", "deadline").await;
}

#[tokio::test]
async fn limits_of_an_execution_are_its_own() {
    let more = "pool: {notice_after: 100ms, timeout: 10m}\n";
    let sidecar = place("own_limits", more).await;
    create(
        &sidecar,
        json!({"id": "a", "pool": {"size": 1, "overflow": 0}}),
    )
    .await;
    let mut first = sidecar.session("app", "a").await;
    assert_eq!(first.ask("SELECT 1").await, "1");
    let mut second = sidecar.session("app", "a").await;
    send_query(&mut second, "SELECT 1").await;
    let fields = second.read().await.expect("it waits").fields();
    assert!(
        fields[&'M'].contains("its pool of 1 is in use"),
        "{fields:?}"
    );
    let mut others = Vec::new();
    for _ in 0..5 {
        let mut other = sidecar.session("app", "b").await;
        assert_eq!(other.ask("SELECT 1").await, "1");
        others.push(other);
    }
}

#[tokio::test]
async fn an_execution_is_held_for_as_long_as_one_hold_is_open() {
    let sidecar = place("holds", "hold: {grace: 300ms}\n").await;
    create(&sidecar, json!({"id": "a"})).await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    let path = "/v1/executions/a/hold";
    let (one, two) = (sidecar.stream(path).await, sidecar.stream(path).await);
    assert_eq!(
        (one.status(), two.status()),
        (http::StatusCode::OK, http::StatusCode::OK)
    );
    drop(one);
    raw.expect_silence(Duration::from_secs(1)).await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    drop(two);
    is_told(&mut raw, "the application that held it went away").await;
    ended(&sidecar, "a", "hold_lost").await;
}

#[tokio::test]
async fn a_hold_that_comes_back_within_the_grace_keeps_it() {
    let sidecar = place("hold_again", "hold: {grace: 6s}\n").await;
    create(&sidecar, json!({"id": "a"})).await;
    let path = "/v1/executions/a/hold";
    drop(sidecar.stream(path).await);
    let _again = sidecar.stream(path).await;
    let mut raw = sidecar.session("app", "a").await;
    raw.expect_silence(Duration::from_millis(6500)).await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn an_execution_of_one_session_ends_with_it() {
    let sidecar = place("alone", "execution: {untagged: session}\n").await;
    let (mut raw, _) = sidecar.started("app", &[]).await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    let sessions = sidecar.sessions_of("session-1").await;
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    drop(raw);
    ended(&sidecar, "session-1", "session_ended").await;
    let budget = &sidecar.get("/v1/status").await["budget"];
    assert_eq!(budget["open"], 0, "{budget}");
}
