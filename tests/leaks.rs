//! Sessions that hold a server connection and ask nothing: suspected, shown, logged, and cleared of
//! it when they ask again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use serde_json::{Value, json};
use support::session::place;
use support::{Raw, SOON, Sidecar, eventually};

/// Waits until so many sessions are suspected.
async fn suspects(sidecar: &Sidecar, wanted: usize) -> Vec<Value> {
    eventually(SOON, "so many are suspected", async || {
        let list = sidecar.get("/v1/sessions?suspect=true").await;
        let list = list.as_array().unwrap().clone();
        match list.len() == wanted {
            true => Ok(list),
            false => Err(list),
        }
    })
    .await
}

/// What the log has by this event's name.
fn events(sidecar: &Sidecar, event: &str) -> Vec<Value> {
    let log = sidecar.log();
    let lines = log
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["event"] == event)
        .collect()
}

async fn leaks(sidecar: &Sidecar) -> Value {
    let status = sidecar.get("/v1/status").await;
    let sessions = &status["sessions"];
    json!([
        sessions["leak_suspects"],
        sessions["leaks"]["suspect"],
        sessions["leaks"]["recovered"],
        sessions["leaks"]["reclaimed"],
        sessions["leaks"]["ended"],
    ])
}

/// A session that has queried, so that it holds a server connection.
async fn holding(sidecar: &Sidecar, execution: &str, sql: &str) -> Raw {
    let mut raw = sidecar.session("app", execution).await;
    raw.query(sql).await;
    raw
}

#[tokio::test]
async fn who_holds_a_connection_and_asks_nothing_is_suspected_until_it_asks() {
    let (_database, sidecar) = place("asks_nothing", "session: {leak_after: 300ms}\n").await;
    let named = [
        ("execpool.execution_id", "run"),
        ("execpool.caller", "agent.py:7 run"),
        ("application_name", "tool"),
    ];
    let (mut raw, _) = sidecar.started("app", &named).await;
    raw.query("SELECT 'secret', 4711").await;
    let found = suspects(&sidecar, 1).await;
    let session = &found[0];
    assert_eq!(session["execution"], "run", "{session}");
    assert_eq!(session["leak_suspect"], true, "{session}");
    assert_eq!(session["leaks"], 1, "{session}");
    assert!(session["idle_for_seconds"].as_f64().unwrap() >= 0.3);
    let parts = ["active", "idle_in_transaction", "idle"];
    let part = |name: &str| session[format!("{name}_seconds")].as_f64().unwrap();
    let sum: f64 = parts.iter().map(|name| part(name)).sum();
    assert!((sum - part("held")).abs() < 0.001, "{session}");
    assert!(part("idle") >= 0.3, "{session}");
    assert_eq!(leaks(&sidecar).await, json!([1, 1, 0, 0, 0]));

    let told = eventually(SOON, "it is logged", async || {
        events(&sidecar, "session.leak_suspect").pop().ok_or(())
    })
    .await;
    for (field, value) in [
        ("execution_id", json!("run")),
        ("session_id", session["id"].clone()),
        ("state", json!("idle")),
        ("caller", json!("agent.py:7 run")),
        ("application_name", json!("tool")),
        ("statement", json!("SELECT ?, ?")),
        ("server_pid", session["server_pid"].clone()),
        ("level", json!("WARN")),
    ] {
        assert_eq!(told[field], value, "{field}: {told}");
    }
    assert!(told["idle_for_seconds"].as_f64().unwrap() >= 0.3, "{told}");
    // Some sweeps later it has been told once.
    raw.expect_silence(Duration::from_millis(2500)).await;
    assert_eq!(events(&sidecar, "session.leak_suspect").len(), 1);

    assert_eq!(raw.ask("SELECT 1").await, "1", "it has lost nothing");
    // On a busy machine it may be one again by now.
    let told = leaks(&sidecar).await;
    let again = [json!([0, 1, 1, 0, 0]), json!([1, 2, 1, 0, 0])];
    assert!(again.contains(&told), "{told}");
    let told = eventually(SOON, "its recovery is logged", async || {
        events(&sidecar, "session.leak_recovered").pop().ok_or(())
    })
    .await;
    assert_eq!(told["session_id"], session["id"], "{told}");
    // Again, and to its end.
    suspects(&sidecar, 1).await;
    drop(raw);
    sidecar.settles().await;
    assert_eq!(leaks(&sidecar).await, json!([0, 2, 1, 0, 1]));
    eventually(SOON, "both are logged", async || {
        let told = events(&sidecar, "session.leak_suspect");
        (told.len() == 2).then_some(()).ok_or(told)
    })
    .await;
    assert!(!sidecar.log().join("\n").contains("4711"));
}

#[tokio::test]
async fn who_works_who_asks_on_and_who_holds_nothing_is_not_suspected() {
    // Far longer than what is asked every now and then may take on a busy machine.
    let (_database, sidecar) = place("not_suspected", "session: {leak_after: 10s}\n").await;
    let mut works = sidecar.session("app", "works").await;
    works
        .send_with(|buffer| frontend::query("SELECT pg_sleep(600)", buffer).unwrap())
        .await;
    let _unbound = sidecar.session("app", "unbound").await;
    let mut asks = holding(&sidecar, "asks", "SELECT 1").await;
    let _open = holding(&sidecar, "open", "BEGIN").await;
    let begun = Instant::now();
    let found = loop {
        asks.query("SELECT 1").await;
        asks.expect_silence(Duration::from_millis(100)).await;
        let found = sidecar.get("/v1/sessions?suspect=true").await;
        if found != json!([]) {
            break found;
        }
        assert!(begun.elapsed() < SOON, "nobody is suspected");
    };
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found[0]["execution"], "open", "idle in transaction counts");
    let rest = sidecar.get("/v1/sessions?suspect=false").await;
    assert_eq!(rest.as_array().unwrap().len(), 3, "{rest}");
    assert_eq!(leaks(&sidecar).await, json!([1, 1, 0, 0, 0]));
}

#[tokio::test]
async fn an_ended_execution_tells_how_often_it_was_suspected() {
    let (_database, sidecar) = place("summary", "session: {leak_after: 200ms}\n").await;
    let _held = holding(&sidecar, "run", "SELECT 1").await;
    suspects(&sidecar, 1).await;
    assert_eq!(sidecar.get("/v1/executions/run").await["leaks"], 1);
    let (status, ended) = sidecar.control("DELETE", "/v1/executions/run", None).await;
    assert_eq!((status, &ended["leaks"]), (200, &json!(1)), "{ended}");
    eventually(SOON, "it is counted as ended", async || {
        let told = leaks(&sidecar).await;
        (told == json!([0, 1, 0, 0, 1])).then_some(()).ok_or(told)
    })
    .await;
}

#[tokio::test]
async fn off_suspects_nobody_and_a_changed_knob_counts_at_once() {
    let (database, sidecar) = place("leaks_off", "session: {leak_after: off}\n").await;
    let mut raw = holding(&sidecar, "run", "SELECT 1").await;
    raw.expect_silence(Duration::from_millis(2500)).await;
    assert_eq!(leaks(&sidecar).await, json!([0, 0, 0, 0, 0]));
    let yaml = support::sidecar::upstream("app", &database.url()) + "session: {leak_after: 1s}\n";
    sidecar.reload(&yaml).await;
    suspects(&sidecar, 1).await;
}

#[tokio::test]
async fn who_stands_still_in_a_pause_is_not_suspected() {
    let (database, sidecar) = place("leaks_pause", "session: {leak_after: off}\n").await;
    let mut raw = holding(&sidecar, "run", "SELECT 1").await;
    assert_eq!(sidecar.control("POST", "/v1/pause", None).await.0, 200);
    raw.send_with(|buffer| frontend::query("SELECT 2", buffer).unwrap())
        .await;
    // Only now, as it could be one before it stands still.
    let yaml =
        support::sidecar::upstream("app", &database.url()) + "session: {leak_after: 300ms}\n";
    sidecar.reload(&yaml).await;
    raw.expect_silence(Duration::from_millis(2500)).await;
    assert_eq!(leaks(&sidecar).await, json!([0, 0, 0, 0, 0]));
    assert_eq!(sidecar.control("POST", "/v1/resume", None).await.0, 200);
    raw.read_until(b'Z').await;
}

#[tokio::test]
async fn status_tells_the_oldest_of_each_state_and_how_fast_they_come_and_go() {
    let (_database, sidecar) = place("oldest", "").await;
    let _first = holding(&sidecar, "first", "BEGIN").await;
    let _second = holding(&sidecar, "second", "BEGIN").await;
    let mut closed = holding(&sidecar, "third", "SELECT 1").await;
    closed.send(b"X\0\0\0\x04").await;
    let status = eventually(SOON, "the rates show it", async || {
        let status = sidecar.get("/v1/status").await;
        let rates = &status["rates"];
        match rates["sessions_closed_per_second"].as_f64() > Some(0.0) {
            true => Ok(status),
            false => Err(status),
        }
    })
    .await;
    let oldest = &status["sessions"]["oldest"];
    assert_eq!(
        oldest["idle_in_transaction"]["execution"], "first",
        "{status}"
    );
    assert!(oldest["active"].is_null(), "{status}");
    assert_eq!(oldest.as_object().unwrap().len(), 7, "{status}");
    let rates = &status["rates"];
    let [opened, closed, begun] = ["sessions_opened", "sessions_closed", "executions_begun"]
        .map(|name| rates[format!("{name}_per_second")].as_f64().unwrap());
    assert!(opened > closed && begun > 0.0, "{rates}");
    let over = rates["over_seconds"].as_f64().unwrap();
    assert!((opened * over - 3.0).abs() < 0.01, "three in all: {rates}");
    assert_eq!(rates["executions_ended_per_second"], 0.0, "{rates}");
}
