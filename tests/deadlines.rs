//! The deadline of an execution: whatever its sessions do, it ends them on time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use serde_json::json;
use support::session::place;
use support::{Database, Raw, Sidecar};

const DEADLINE: Duration = Duration::from_millis(600);
/// What a machine with other work may add.
const SLACK: Duration = Duration::from_secs(1);

/// Begins an execution that has this deadline from now on.
async fn begin(sidecar: &Sidecar, id: &str, deadline: &str) -> Instant {
    let body = json!({"id": id, "deadline": deadline});
    let begun = Instant::now();
    let (status, body) = sidecar.control("POST", "/v1/executions", Some(body)).await;
    assert_eq!(status, 201, "{body}");
    begun
}

async fn send(raw: &mut Raw, sql: &str) {
    raw.send_with(|buffer| frontend::query(sql, buffer).unwrap())
        .await;
}

/// Reads up to the end, which must come on time.
async fn ended_on_time(raw: &mut Raw, begun: Instant) {
    let told = loop {
        let told = raw.expect_error().await;
        // A statement that is cancelled may be told first.
        if told[&'S'] == "FATAL" {
            break told;
        }
    };
    let took = begun.elapsed();
    assert_eq!(told[&'C'], "57P01", "{told:?}");
    assert!(
        told[&'M'].ends_with("has ended: its deadline passed"),
        "{told:?}"
    );
    assert!(took >= DEADLINE && took < DEADLINE + SLACK, "{took:?}");
}

/// Nothing of the pool is left 100 ms after the end, as the server tells.
async fn nothing_left(database: &Database, begun: Instant) {
    let sure = DEADLINE + Duration::from_millis(100) + SLACK;
    tokio::time::sleep(sure.saturating_sub(begun.elapsed())).await;
    let client = database.client().await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
               AND pid <> pg_backend_pid() AND application_name <> 'execpool monitor'";
    let count: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(count, 0);
}

#[tokio::test]
async fn nobody_waits_in_the_queue_past_it() {
    for (name, more) in [
        ("queue_budget", "budget: {size: 1, overflow: 0}\n"),
        ("queue_pool", "pool: {size: 1, overflow: 0}\n"),
    ] {
        let (_database, sidecar) = place(name, more).await;
        // Of another execution where the budget is full; of the same where the pool is.
        let holder = if name == "queue_budget" { "b" } else { "a" };
        let begun = begin(&sidecar, "a", "600ms").await;
        let mut one = sidecar.session("app", holder).await;
        assert_eq!(one.ask("SELECT 1").await, "1");
        let mut late = sidecar.session("app", "a").await;
        send(&mut late, "SELECT 1").await;
        ended_on_time(&mut late, begun).await;
    }
}

#[tokio::test]
async fn nobody_waits_at_connect_past_it() {
    let (_database, sidecar) = place("connect", "budget: {size: 1, overflow: 0}\n").await;
    let mut one = sidecar.session("app", "b").await;
    assert_eq!(one.ask("SELECT 1").await, "1");
    let begun = begin(&sidecar, "a", "600ms").await;
    let mut raw = sidecar.raw().await;
    raw.send_with(|buffer| {
        // Of a key that has never connected.
        let named = [
            ("user", "app"),
            ("database", "app"),
            ("execpool.execution_id", "a"),
            ("search_path", "never"),
        ];
        frontend::startup_message(named, buffer).unwrap();
    })
    .await;
    ended_on_time(&mut raw, begun).await;
}

#[tokio::test]
async fn whatever_a_session_does_it_is_ended_on_time_and_nothing_is_left() {
    let (database, sidecar) = place("busy", "").await;
    let setup = database.client().await;
    setup
        .batch_execute("CREATE TABLE t (x text)")
        .await
        .unwrap();
    drop(setup);
    let begun = begin(&sidecar, "a", "600ms").await;
    let mut sessions = Vec::new();
    for sql in [
        "SELECT pg_sleep(600)",
        "BEGIN",
        "COPY t FROM STDIN",
        "COPY (SELECT i, pg_sleep(0.01) FROM generate_series(1, 100000) i) TO STDOUT",
    ] {
        let mut raw = sidecar.session("app", "a").await;
        send(&mut raw, sql).await;
        sessions.push(raw);
    }
    sessions.push(sidecar.session("app", "a").await);
    for raw in &mut sessions {
        ended_on_time(raw, begun).await;
    }
    nothing_left(&database, begun).await;
}

#[tokio::test]
async fn a_grace_lets_what_runs_go_on() {
    let (_database, sidecar) = place("grace", "execution: {grace: 5s}\n").await;
    begin(&sidecar, "a", "600ms").await;
    let mut raw = sidecar.session("app", "a").await;
    send(&mut raw, "SELECT pg_sleep(1.2)").await;
    let told = raw.read_until(b'E').await;
    assert!(told.iter().any(|message| message.kind == b'C'), "{told:?}");
}

#[tokio::test]
async fn every_session_is_told_once_when_four_fifths_of_it_have_passed() {
    let (_database, sidecar) = place("near", "").await;
    let begun = begin(&sidecar, "a", "2s").await;
    let mut unbound = sidecar.session("app", "a").await;
    let mut idle = sidecar.session("app", "a").await;
    assert_eq!(idle.ask("SELECT 1").await, "1");
    let mut busy = sidecar.session("app", "a").await;
    send(&mut busy, "SELECT pg_sleep(600)").await;
    for raw in [&mut unbound, &mut idle, &mut busy] {
        let notice = raw.read().await.expect("a notice");
        let took = begun.elapsed();
        assert_eq!(notice.kind, b'N', "{notice:?}");
        let told = &notice.fields()[&'M'];
        assert!(
            told.starts_with("execpool: execution a reaches its deadline in 0.4 s"),
            "{told}"
        );
        let near = Duration::from_millis(1600);
        assert!(took >= near && took < near + SLACK, "{took:?}");
    }
    // And then nothing but the end.
    for raw in [&mut unbound, &mut idle] {
        assert_eq!(raw.read().await.expect("the end").kind, b'E');
    }
    let near = |line: &&String| line.contains("execution.deadline_near");
    assert_eq!(sidecar.log().iter().filter(near).count(), 1);
}

#[tokio::test]
async fn a_heartbeat_moves_it_and_what_has_none_keeps_none() {
    let (_database, sidecar) = place("heartbeat", "").await;
    begin(&sidecar, "a", "1s").await;
    let mut raw = sidecar.session("app", "a").await;
    let beat = "/v1/executions/a/heartbeat";
    let (status, moved) = sidecar
        .control("POST", beat, Some(json!({"extend": "60s"})))
        .await;
    assert_eq!((status, moved["id"].as_str()), (200, Some("a")), "{moved}");
    assert!(
        moved["deadline_seconds"].as_f64().unwrap() > 59.0,
        "{moved}"
    );
    raw.expect_silence(Duration::from_millis(1500)).await;
    // Without a word by its original length.
    let begun = Instant::now();
    let (_, moved) = sidecar.control("POST", beat, None).await;
    assert!(
        moved["deadline_seconds"].as_f64().unwrap() <= 1.0,
        "{moved}"
    );
    assert_eq!(raw.read().await.expect("near again").kind, b'N');
    assert_eq!(raw.expect_error().await[&'C'], "57P01");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let (status, problem) = sidecar.control("POST", beat, None).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (404, Some("no_such_execution"))
    );
    let shared = "/v1/executions/shared/heartbeat";
    let (status, kept) = sidecar
        .control("POST", shared, Some(json!({"extend": "1s"})))
        .await;
    assert!(
        status == 200 && kept["deadline_seconds"].is_null(),
        "{kept}"
    );
}
