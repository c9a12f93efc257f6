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
use support::session::{nothing_pooled_left, place};
use support::{Postgres, Raw, SOON, Sidecar, eventually};

const DEADLINE: Duration = Duration::from_millis(600);
/// What a machine with other work may add: whatever else ends these sessions takes ten minutes.
const SLACK: Duration = Duration::from_secs(30);

/// Begins an execution with this deadline. One that is far away leaves time to get all ready:
/// see [`due`].
async fn begin(sidecar: &Sidecar, id: &str, deadline: &str) {
    let body = json!({"id": id, "deadline": deadline});
    let (status, body) = sidecar.control("POST", "/v1/executions", Some(body)).await;
    assert_eq!(status, 201, "{body}");
}

/// Its deadline is so far from now on: answers since when.
async fn due(sidecar: &Sidecar, id: &str, after: Duration) -> Instant {
    let body = json!({"extend": format!("{}ms", after.as_millis())});
    let path = format!("/v1/executions/{id}/heartbeat");
    let begun = Instant::now();
    let (status, moved) = sidecar.control("POST", &path, Some(body)).await;
    assert_eq!(status, 200, "{moved}");
    begun
}

/// Waits until the states of its sessions are these, in the order of the alphabet.
async fn sessions_are(sidecar: &Sidecar, id: &str, states: &[&str]) {
    eventually(SOON, "each does what it is to", async || {
        let sessions = sidecar.sessions_of(id).await;
        let mut found: Vec<_> = sessions.iter().map(|one| one["state"].clone()).collect();
        found.sort_by_key(ToString::to_string);
        if found == states { Ok(()) } else { Err(found) }
    })
    .await;
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

#[tokio::test]
async fn nobody_waits_in_the_queue_past_it() {
    for (name, more) in [
        (
            "queue_budget",
            "budget: {size: 1, overflow: 0}\npool: {timeout: 10m}\n",
        ),
        ("queue_pool", "pool: {size: 1, overflow: 0, timeout: 10m}\n"),
    ] {
        let (_database, sidecar) = place(name, more).await;
        // Of another execution where the budget is full; of the same where the pool is.
        let holder = if name == "queue_budget" { "b" } else { "a" };
        begin(&sidecar, "a", "1h").await;
        let mut one = sidecar.session("app", holder).await;
        assert_eq!(one.ask("SELECT 1").await, "1");
        let mut late = sidecar.session("app", "a").await;
        send(&mut late, "SELECT 1").await;
        sidecar.session_is("a", "waiting").await;
        let begun = due(&sidecar, "a", DEADLINE).await;
        ended_on_time(&mut late, begun).await;
    }
}

#[tokio::test]
async fn nobody_waits_at_connect_past_it() {
    let more = "budget: {size: 1, overflow: 0}\npool: {timeout: 10m}\n";
    let (_database, sidecar) = place("connect", more).await;
    let mut one = sidecar.session("app", "b").await;
    assert_eq!(one.ask("SELECT 1").await, "1");
    begin(&sidecar, "a", "1h").await;
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
    sidecar.session_is("a", "startup").await;
    let begun = due(&sidecar, "a", DEADLINE).await;
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
    begin(&sidecar, "a", "1h").await;
    let mut sessions = Vec::new();
    for sql in [
        "SELECT pg_sleep(600)",
        "BEGIN",
        "COPY t FROM STDIN",
        "COPY (SELECT i, pg_sleep(0.01) FROM generate_series(1, 1000000) i) TO STDOUT",
    ] {
        let mut raw = sidecar.session("app", "a").await;
        send(&mut raw, sql).await;
        sessions.push(raw);
    }
    sessions.push(sidecar.session("app", "a").await);
    let states = [
        "active",
        "active",
        "active",
        "idle_in_transaction",
        "unbound",
    ];
    sessions_are(&sidecar, "a", &states).await;
    let begun = due(&sidecar, "a", DEADLINE).await;
    for raw in &mut sessions {
        ended_on_time(raw, begun).await;
    }
    nothing_pooled_left(&database).await;
}

#[tokio::test]
async fn a_grace_lets_what_runs_go_on() {
    let (database, sidecar) = place("grace", "execution: {grace: 10m}\n").await;
    let holder = database.client().await;
    let lock = "SELECT pg_advisory_lock(7)";
    holder.batch_execute(lock).await.unwrap();
    begin(&sidecar, "a", "1h").await;
    let mut raw = sidecar.session("app", "a").await;
    send(&mut raw, lock).await;
    Postgres::shared().waits_in(&database, "advisory").await;
    due(&sidecar, "a", DEADLINE).await;
    eventually(SOON, "its deadline has passed", async || {
        let seen = sidecar.get("/v1/executions/a").await;
        (seen["state"] == "ending").then_some(()).ok_or(seen)
    })
    .await;
    let unlock = "SELECT pg_advisory_unlock(7)";
    holder.batch_execute(unlock).await.unwrap();
    let told = raw.read_until(b'E').await;
    assert!(told.iter().any(|message| message.kind == b'C'), "{told:?}");
    assert_eq!(told.last().unwrap().fields()[&'C'], "57P01", "{told:?}");
}

#[tokio::test]
async fn every_session_is_told_once_when_four_fifths_of_it_have_passed() {
    let (_database, sidecar) = place("near", "").await;
    begin(&sidecar, "a", "1h").await;
    let mut unbound = sidecar.session("app", "a").await;
    let mut idle = sidecar.session("app", "a").await;
    assert_eq!(idle.ask("SELECT 1").await, "1");
    let mut busy = sidecar.session("app", "a").await;
    send(&mut busy, "SELECT pg_sleep(600)").await;
    // Who stands still from then to the deadline is told of that alone: the last fifth is long.
    let begun = due(&sidecar, "a", Duration::from_secs(20)).await;
    for raw in [&mut unbound, &mut idle, &mut busy] {
        let notice = raw.read().await.expect("a notice");
        let took = begun.elapsed();
        assert_eq!(notice.kind, b'N', "{notice:?}");
        let told = &notice.fields()[&'M'];
        let left = told.strip_prefix("execpool: execution a reaches its deadline in ");
        let left = left.and_then(|rest| rest.strip_suffix(" s")?.parse::<f64>().ok());
        assert!(left > Some(0.0) && left <= Some(4.0), "{told}");
        assert!(took >= Duration::from_secs(16), "{took:?}");
    }
    // And then nothing but the end.
    for raw in [&mut unbound, &mut idle] {
        assert_eq!(raw.read().await.expect("the end").kind, b'E');
    }
    sidecar.logged(&["execution.deadline_near"]).await;
    let near = |line: &&String| line.contains("execution.deadline_near");
    assert_eq!(sidecar.log().iter().filter(near).count(), 1);
}

#[tokio::test]
async fn a_heartbeat_moves_it_and_what_has_none_keeps_none() {
    let (_database, sidecar) = place("heartbeat", "").await;
    begin(&sidecar, "a", "5s").await;
    let beat = "/v1/executions/a/heartbeat";
    let (status, moved) = sidecar
        .control("POST", beat, Some(json!({"extend": "60s"})))
        .await;
    assert_eq!((status, moved["id"].as_str()), (200, Some("a")), "{moved}");
    assert!(
        moved["deadline_seconds"].as_f64().unwrap() > 59.0,
        "{moved}"
    );
    let mut raw = sidecar.session("app", "a").await;
    raw.expect_silence(Duration::from_millis(5500)).await;
    // Without a word by its original length.
    let begun = Instant::now();
    let (_, moved) = sidecar.control("POST", beat, None).await;
    assert!(
        moved["deadline_seconds"].as_f64().unwrap() <= 5.0,
        "{moved}"
    );
    // It is near again before, but for a machine that stands still in its last fifth.
    let mut told = raw.read().await.expect("a notice");
    if told.kind == b'N' {
        told = raw.read().await.expect("the end");
    }
    assert_eq!((told.kind, told.fields()[&'C'].as_str()), (b'E', "57P01"));
    assert!(begun.elapsed() >= Duration::from_secs(5));
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
