//! Reconnect: every server connection is replaced, and no query is harmed by it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use support::load::{pgbench, prepare, psycopg};
use support::session::{place, told_pid};
use support::{Database, Postgres, SOON, Sidecar, eventually};

async fn reconnect(sidecar: &Sidecar) -> Value {
    match sidecar.control("POST", "/v1/reconnect", None).await {
        (200, body) => body,
        (status, body) => panic!("{status} {body}"),
    }
}

/// The backends of the pools.
async fn backends(database: &Database) -> BTreeSet<i32> {
    let all = Postgres::shared().pooled(database).await;
    all.into_iter().map(|backend| backend.pid).collect()
}

#[tokio::test]
async fn under_load_no_query_fails_and_every_backend_is_another_one_in_the_end() {
    let more = "budget: {size: 30, overflow: 10}\n";
    let (database, sidecar) = place("under_load", more).await;
    prepare(&database).await;
    let host = sidecar.pg_host();
    let loads = [
        pgbench(host, "app", 600, &["-c", "4", "-M", "simple"]),
        pgbench(host, "app", 600, &["-c", "2", "-M", "prepared"]),
        pgbench(host, "app", 600, &["-c", "3", "-C"]),
        psycopg(&sidecar.url("app"), 600),
    ];
    eventually(SOON, "all of them work", async || {
        let used = sidecar.get("/v1/status").await["budget"]["used"].clone();
        if used.as_u64() >= Some(12) {
            Ok(())
        } else {
            Err(used)
        }
    })
    .await;
    let before = backends(&database).await;
    assert!(before.len() >= 9, "{before:?}");
    for _ in 0..5 {
        let answer = reconnect(&sidecar).await;
        assert!(answer["lent"].as_u64() >= Some(9), "{answer}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for load in &loads {
        load.stop();
    }
    for load in loads {
        load.succeeds().await;
    }
    sidecar.settles().await;
    let mut client = sidecar.session("app", "last").await;
    assert_eq!(client.ask("SELECT 1").await, "1");
    eventually(SOON, "none of those before is still there", async || {
        let after = backends(&database).await;
        let stayed: Vec<i32> = before.intersection(&after).copied().collect();
        if stayed.is_empty() {
            Ok(())
        } else {
            Err(stayed)
        }
    })
    .await;
}

#[tokio::test]
async fn idle_connections_are_closed_at_once_and_lent_ones_when_they_come_back() {
    let (database, sidecar) = place("idle_and_lent", "").await;
    let mut holds = sidecar.session("app", "a").await;
    let held = holds.backend().await;
    let idle = sidecar.session("app", "a").await.backend().await;
    eventually(SOON, "one is given back", async || {
        let status = sidecar.get("/v1/status").await;
        if status["budget"]["idle"] == 1 {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    let answer = reconnect(&sidecar).await;
    assert_eq!(
        (&answer["closed"], &answer["lent"]),
        (&1.into(), &1.into()),
        "{answer}"
    );
    eventually(SOON, "the idle one is gone", async || {
        let left = backends(&database).await;
        if left == BTreeSet::from([held]) {
            Ok(())
        } else {
            Err((left, held, idle))
        }
    })
    .await;
    // In session mode its session keeps it.
    assert_eq!(holds.backend().await, held);
    let fresh = sidecar.session("app", "a").await.backend().await;
    assert!(fresh != held && fresh != idle);
    drop(holds);
    eventually(SOON, "the lent one is gone as well", async || {
        let left = backends(&database).await;
        if left.contains(&held) {
            Err(left)
        } else {
            Ok(())
        }
    })
    .await;
    sidecar.settles().await;
    assert_eq!(sidecar.session("app", "a").await.backend().await, fresh);
}

#[tokio::test]
async fn a_session_that_has_not_queried_is_bound_anew_and_can_still_be_cancelled() {
    let (database, sidecar) = place("parked", "").await;
    let named = [("execpool.execution_id", "a")];
    let (mut raw, told) = sidecar.started("app", &named).await;
    let parked = told_pid(&told);
    assert_eq!(reconnect(&sidecar).await["closed"], 1);
    let backend = raw.backend().await;
    assert_ne!(backend, parked);
    raw.send(b"Q\0\0\0\x18SELECT pg_sleep(60)\0").await;
    Postgres::shared().waits_in(&database, "PgSleep").await;
    let (pid, key) = told.iter().find(|one| one.kind == b'K').unwrap().key();
    let mut cancel = sidecar.raw().await;
    cancel
        .send_with(|buffer| postgres_protocol::message::frontend::cancel_request(pid, key, buffer))
        .await;
    assert_eq!(raw.expect_error().await[&'C'], "57014");
}

#[tokio::test]
async fn the_reserve_is_replaced_as_well() {
    let more = "budget: {size: 5, overflow: 0, warm: 2}\n";
    let (database, sidecar) = place("reserve", more).await;
    let mut raw = sidecar.session("app", "a").await;
    let old = raw.backend().await;
    drop(raw);
    sidecar.settles().await;
    sidecar.control("DELETE", "/v1/executions/a", None).await;
    let reserve = sidecar.get("/v1/status").await["budget"]["reserve"].clone();
    reconnect(&sidecar).await;
    let fresh = sidecar.session("app", "b").await.backend().await;
    assert_ne!(fresh, old, "the reserve had {reserve}");
    eventually(SOON, "the old one is gone", async || {
        let left = backends(&database).await;
        if left.contains(&old) {
            Err(left)
        } else {
            Ok(())
        }
    })
    .await;
}
