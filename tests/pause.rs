//! Pause and resume: at transaction boundaries, never under a transaction, under load and with no
//! query failing; and a database that is restarted meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use postgres_protocol::message::frontend;
use serde_json::{Value, json};
use support::load::{pgbench, prepare, psycopg};
use support::session::{assert_in, batch, error, kinds, nothing_left, place, rows};
use support::sidecar::upstream;
use support::{Postgres, PostgresOptions, Raw, SOON, Sidecar, eventually};

/// Long enough for what must not happen to happen.
const WHILE: Duration = Duration::from_millis(200);

async fn post(sidecar: &Sidecar, path: &str) -> Value {
    match sidecar.control("POST", path, None).await {
        (200, body) => body,
        (status, body) => panic!("POST {path}: {status} {body}"),
    }
}

/// Pauses; nothing may run any more.
async fn pause(sidecar: &Sidecar) {
    let answer = post(sidecar, "/v1/pause").await;
    assert_eq!(answer["complete"], true, "{answer}");
}

async fn resume(sidecar: &Sidecar) {
    let answer = post(sidecar, "/v1/resume").await;
    assert_eq!(answer["was_paused"], true, "{answer}");
}

/// A pause that is not complete: what it names.
async fn pause_in_vain(sidecar: &Sidecar) -> Vec<Value> {
    let answer = post(sidecar, "/v1/pause?timeout=100ms").await;
    assert_eq!(
        (&answer["paused"], &answer["complete"]),
        (&json!(true), &json!(false)),
        "{answer}"
    );
    answer["running"].as_array().unwrap().clone()
}

/// Waits until the pause that is in force is complete.
async fn completes(sidecar: &Sidecar) {
    pause(sidecar).await;
}

async fn send_query(raw: &mut Raw, sql: &str) {
    raw.send_with(|buffer| frontend::query(sql, buffer).unwrap())
        .await;
}

/// A session that holds a connection and is idle.
async fn bound(sidecar: &Sidecar, execution: &str) -> Raw {
    let mut raw = sidecar.session("app", execution).await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    raw
}

const A_SECOND: Duration = Duration::from_secs(1);

/// A client of the pools, not the monitor's and not of the tests.
fn ours(database: &str) -> String {
    format!("datname = '{database}' AND application_name <> 'execpool monitor'")
}

#[tokio::test]
async fn a_pause_under_load_fails_no_query_and_lets_no_transaction_run() {
    let more = "budget: {size: 30, overflow: 10}\npool: {timeout: 10m}\n";
    let (database, sidecar) = place("load", more).await;
    prepare(&database).await;
    let host = sidecar.pg_host();
    let loads = [
        pgbench(host, "app", 600, &["-c", "4", "-M", "simple"]),
        pgbench(host, "app", 600, &["-c", "4", "-M", "prepared"]),
        pgbench(host, "app", 600, &["-c", "2", "-C"]),
        psycopg(&sidecar.url("app"), 600),
    ];
    eventually(SOON, "all of them work", async || {
        let held = sidecar.get("/v1/status").await["budget"]["used"].clone();
        if held.as_u64() >= Some(11) {
            Ok(())
        } else {
            Err(held)
        }
    })
    .await;
    let open = format!("{} AND xact_start IS NOT NULL", ours("load"));
    for round in 0..20 {
        pause(&sidecar).await;
        for _ in 0..3 {
            let running = Postgres::shared().activity(&open).await;
            assert!(running.is_empty(), "round {round}: {running:?}");
        }
        resume(&sidecar).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for load in loads {
        load.stop();
        load.succeeds().await;
    }
    sidecar.settles().await;
}

#[tokio::test]
async fn a_running_transaction_goes_on_to_its_end_and_then_its_session_stands_still() {
    let (_database, sidecar) = place("transaction", "").await;
    let mut raw = bound(&sidecar, "a").await;
    raw.query("BEGIN").await;
    sidecar.session_is("a", "idle_in_transaction").await;
    let running = pause_in_vain(&sidecar).await;
    assert_eq!(running.len(), 1, "{running:?}");
    assert_eq!(
        (&running[0]["execution"], &running[0]["state"]),
        (&json!("a"), &json!("idle_in_transaction"))
    );
    assert_eq!(raw.ask("SELECT 'still'").await, "still");
    raw.query("COMMIT").await;
    completes(&sidecar).await;
    send_query(&mut raw, "SELECT 'later'").await;
    raw.expect_silence(WHILE).await;
    resume(&sidecar).await;
    assert_eq!(rows(&raw.read_until(b'Z').await), ["later"]);
}

#[tokio::test]
async fn a_query_that_runs_is_waited_for_and_the_next_one_is_kept() {
    let (database, sidecar) = place("runs", "").await;
    let mut raw = bound(&sidecar, "a").await;
    let (lock, unlock) = ("SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)");
    let holder = database.client().await;
    holder.batch_execute(lock).await.unwrap();
    send_query(&mut raw, lock).await;
    sidecar.session_is("a", "active").await;
    let mut pausing = std::pin::pin!(pause(&sidecar));
    let early = tokio::time::timeout(WHILE, &mut pausing).await;
    assert!(early.is_err(), "it runs");
    holder.batch_execute(unlock).await.unwrap();
    pausing.await;
    raw.read_until(b'Z').await;
    send_query(&mut raw, "SELECT 1").await;
    raw.expect_silence(WHILE).await;
    resume(&sidecar).await;
    assert_eq!(kinds(&raw.read_until(b'Z').await), "TDCZ");
}

#[tokio::test]
async fn what_is_pipelined_behind_a_transaction_is_answered_in_its_order() {
    let (_database, sidecar) = place("pipelined", "").await;
    let mut raw = bound(&sidecar, "a").await;
    raw.query("BEGIN").await;
    pause_in_vain(&sidecar).await;
    raw.send_with(|buffer| {
        frontend::query("SELECT 1", buffer).unwrap();
        frontend::query("COMMIT", buffer).unwrap();
    })
    .await;
    raw.read_until(b'Z').await;
    raw.read_until(b'Z').await;
    completes(&sidecar).await;
    for number in 0..3 {
        send_query(&mut raw, &format!("SELECT {number}")).await;
    }
    raw.expect_silence(WHILE).await;
    resume(&sidecar).await;
    for number in 0..3 {
        assert_eq!(rows(&raw.read_until(b'Z').await), [number.to_string()]);
    }
}

#[tokio::test]
async fn a_batch_without_its_sync_counts_as_running() {
    let (_database, sidecar) = place("unsynced", "").await;
    let mut raw = bound(&sidecar, "a").await;
    // Behind a query, so that a ReadyForQuery comes that ends nothing.
    raw.send_with(|buffer| {
        frontend::query("SELECT 1", buffer).unwrap();
        batch("SELECT 2", buffer);
        frontend::flush(buffer);
    })
    .await;
    raw.read_until(b'Z').await;
    raw.read_until(b'C').await;
    assert_eq!(pause_in_vain(&sidecar).await.len(), 1);
    raw.send_with(|buffer| {
        batch("SELECT 3", buffer);
        frontend::sync(buffer);
    })
    .await;
    assert_eq!(rows(&raw.read_until(b'Z').await), ["3"]);
    completes(&sidecar).await;
    resume(&sidecar).await;
}

#[tokio::test]
async fn a_copy_counts_as_running_and_takes_its_rows() {
    let (database, sidecar) = place("copy", "").await;
    let mut raw = bound(&sidecar, "a").await;
    raw.query("CREATE TABLE t (x int)").await;
    send_query(&mut raw, "COPY t FROM STDIN").await;
    raw.read_until(b'G').await;
    assert_eq!(pause_in_vain(&sidecar).await.len(), 1);
    for number in 0..100 {
        let row = format!("{number}\n");
        let data = frontend::CopyData::new(row.as_bytes()).unwrap();
        raw.send_with(|buffer| data.write(buffer)).await;
    }
    raw.send_with(frontend::copy_done).await;
    assert_eq!(kinds(&raw.read_until(b'Z').await), "CZ");
    completes(&sidecar).await;
    let sql = "SELECT count(*) FROM t";
    let count: i64 = database
        .client()
        .await
        .query_one(sql, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 100);
    resume(&sidecar).await;
}

#[tokio::test]
async fn who_holds_nothing_waits_with_the_reason_and_in_vain_after_the_timeout() {
    let more = "pool: {notice_after: 100ms, timeout: 600ms}\n";
    let (_database, sidecar) = place("waits", more).await;
    bound(&sidecar, "a").await;
    sidecar.settles().await;
    pause(&sidecar).await;
    let mut raw = sidecar.session("app", "a").await;
    send_query(&mut raw, "SELECT 1").await;
    let told = raw.read_until(b'Z').await;
    assert_eq!(kinds(&told), "NEZ");
    let notice = told[0].fields();
    assert!(notice[&'M'].ends_with("execpool is paused"), "{notice:?}");
    let refused = error(&told);
    assert_eq!(refused[&'C'], "53300");
    assert!(refused[&'M'].ends_with("execpool is paused"), "{refused:?}");
    assert!(refused[&'H'].contains("execpool resume"), "{refused:?}");
    resume(&sidecar).await;
    assert_eq!(raw.ask("SELECT 'lives on'").await, "lives on");
}

#[tokio::test]
async fn those_that_waited_are_served_first_come_first_served() {
    let more = "pool: {size: 1, overflow: 0, timeout: 10m}\n";
    let (_database, sidecar) = place("in_turn", more).await;
    bound(&sidecar, "a")
        .await
        .query("CREATE SEQUENCE turn")
        .await;
    sidecar.settles().await;
    pause(&sidecar).await;
    let mut waiting = Vec::new();
    for number in 1..=5u64 {
        let mut raw = sidecar.session("app", "a").await;
        send_query(&mut raw, "SELECT nextval('turn')").await;
        eventually(SOON, "it waits", async || {
            let waits = sidecar.get("/v1/status").await["budget"]["waiting"].clone();
            if waits == number { Ok(()) } else { Err(waits) }
        })
        .await;
        waiting.push(raw);
    }
    resume(&sidecar).await;
    // The next one is served when the one before has gone.
    for (place, mut raw) in waiting.into_iter().enumerate() {
        assert_eq!(rows(&raw.read_until(b'Z').await), [(place + 1).to_string()]);
    }
}

#[tokio::test]
async fn pausing_twice_and_resuming_what_is_not_paused_change_nothing() {
    let (_database, sidecar) = place("twice", "").await;
    let mut raw = bound(&sidecar, "a").await;
    let answer = post(&sidecar, "/v1/resume").await;
    assert_eq!(answer["was_paused"], false);
    pause(&sidecar).await;
    pause(&sidecar).await;
    let status = sidecar.get("/v1/status").await;
    assert_eq!(status["paused"], true, "{status}");
    assert!(status["paused_seconds"].is_number() && status["resumes_in_seconds"].is_null());
    resume(&sidecar).await;
    assert_eq!(sidecar.get("/v1/status").await["paused"], false);
    assert_eq!(raw.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_pause_with_an_end_goes_on_by_itself_and_says_so() {
    let (_database, sidecar) = place("by_itself", "").await;
    let mut raw = bound(&sidecar, "a").await;
    let answer = post(&sidecar, "/v1/pause?for=1s").await;
    assert_eq!(answer["complete"], true, "{answer}");
    assert_eq!(raw.ask("SELECT 'by itself'").await, "by itself");
    sidecar.logged(&["\"resume\"", "\"by\":\"time\""]).await;
    assert_eq!(sidecar.get("/v1/status").await["paused"], false);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_stands_still_gives_its_connection_back() {
    let (_database, sidecar) = place("leaves", "").await;
    for way in 0..4 {
        let mut raw = bound(&sidecar, "a").await;
        pause(&sidecar).await;
        match way {
            // It vanishes.
            0 => {}
            1 => raw.send_with(frontend::terminate).await,
            // It vanishes with a query that nobody has begun.
            2 => {
                send_query(&mut raw, "SELECT 1").await;
                raw.expect_silence(WHILE).await;
            }
            // It vanishes amid a message.
            _ => {
                raw.send(b"Q\0\0\0\x0dSEL").await;
                raw.expect_silence(WHILE).await;
            }
        }
        drop(raw);
        sidecar.settles().await;
        let open = sidecar.get("/v1/status").await["budget"]["idle"].clone();
        assert_eq!(open, 1, "way {way}");
        resume(&sidecar).await;
    }
}

#[tokio::test]
async fn a_query_right_before_the_goodbye_is_done_after_the_pause() {
    let (database, sidecar) = place("goodbye", "").await;
    let mut raw = bound(&sidecar, "a").await;
    pause(&sidecar).await;
    raw.send_with(|buffer| {
        frontend::query("CREATE TABLE done ()", buffer).unwrap();
        frontend::terminate(buffer);
    })
    .await;
    drop(raw);
    tokio::time::sleep(WHILE).await;
    let exists = async || {
        let sql = "SELECT to_regclass('done') IS NOT NULL";
        let row = database.client().await.query_one(sql, &[]).await.unwrap();
        row.get::<_, bool>(0)
    };
    assert!(!exists().await);
    resume(&sidecar).await;
    sidecar.settles().await;
    assert!(exists().await);
}

#[tokio::test]
async fn a_cancel_request_is_honoured_for_what_waits_for_what_is_kept_and_for_what_runs() {
    let (database, sidecar) = place("cancel", "pool: {timeout: 10m}\n").await;
    let mut held = {
        let (raw, told) = sidecar
            .started("app", &[("execpool.execution_id", "a")])
            .await;
        (raw, told)
    };
    let key = |told: &[support::Message]| {
        told.iter()
            .find(|message| message.kind == b'K')
            .unwrap()
            .key()
    };
    assert_eq!(held.0.ask("SELECT 1").await, "1");
    let mut running = sidecar
        .started("app", &[("execpool.execution_id", "a")])
        .await;
    running.0.query("BEGIN").await;
    send_query(&mut running.0, "SELECT pg_sleep(600)").await;
    Postgres::shared().waits_in(&database, "PgSleep").await;
    pause_in_vain(&sidecar).await;
    let mut waiting = sidecar
        .started("app", &[("execpool.execution_id", "a")])
        .await;
    send_query(&mut waiting.0, "SELECT 1").await;
    sidecar.session_is("a", "waiting").await;
    send_query(&mut held.0, "SELECT 2").await;
    for (raw, told) in [&mut waiting, &mut held, &mut running] {
        let (pid, secret) = key(told);
        let mut answer = std::pin::pin!(raw.read_until(b'Z'));
        // What has just been sent may not have been kept yet, and then nothing is cancelled.
        let told = loop {
            let mut cancel = sidecar.raw().await;
            cancel
                .send_with(|buffer| frontend::cancel_request(pid, secret, buffer))
                .await;
            cancel.expect_closed().await;
            if let Ok(told) = tokio::time::timeout(A_SECOND, &mut answer).await {
                break told;
            }
        };
        assert_eq!(error(&told)[&'C'], "57014", "{told:?}");
    }
    running.0.query("ROLLBACK").await;
    completes(&sidecar).await;
    resume(&sidecar).await;
    for (raw, _) in [&mut waiting, &mut held, &mut running] {
        assert_eq!(raw.ask("SELECT 'well'").await, "well");
    }
}

#[tokio::test]
async fn an_execution_ends_while_it_is_paused() {
    let (database, sidecar) = place("ends", "").await;
    let mut raw = bound(&sidecar, "a").await;
    let mut other = bound(&sidecar, "b").await;
    pause(&sidecar).await;
    send_query(&mut raw, "SELECT 1").await;
    let mut waiting = sidecar.session("app", "a").await;
    send_query(&mut waiting, "SELECT 1").await;
    sidecar.session_is("a", "waiting").await;
    let (status, ended) = sidecar.control("DELETE", "/v1/executions/a", None).await;
    assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
    for raw in [&mut raw, &mut waiting] {
        assert_eq!(raw.expect_error().await[&'C'], "57P01");
        raw.expect_closed().await;
    }
    assert_eq!(
        Postgres::shared()
            .activity(&ours(&database.name))
            .await
            .len(),
        1
    );
    resume(&sidecar).await;
    assert_eq!(other.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn sigterm_ends_it_within_the_grace_while_it_is_paused() {
    let (database, mut sidecar) = place("sigterm", "shutdown: {grace: 3s}\n").await;
    let mut raw = bound(&sidecar, "a").await;
    pause(&sidecar).await;
    send_query(&mut raw, "SELECT 1").await;
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(raw.expect_error().await[&'C'], "57P01");
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
    nothing_left(&database).await;
}

#[tokio::test]
async fn a_database_is_restarted_under_a_pause_and_who_holds_nothing_notices_nothing() {
    let mut postgres = Postgres::start(PostgresOptions::default());
    let database = postgres.database("restarted").await;
    prepare(&database).await;
    let more = "    connect_timeout: 1m\npool: {timeout: 10m}\n";
    let yaml = upstream("app", &database.url()) + more;
    let sidecar = Sidecar::start(yaml).await;
    // Untagged and not bound: it has come in and has asked nothing.
    let (mut unbound, told) = sidecar.started("app", &[]).await;
    assert_in(&told);
    let load = pgbench(sidecar.pg_host(), "app", 600, &["-c", "3", "-C"]);
    eventually(SOON, "it works", async || {
        let opened = sidecar.get("/v1/status").await["sessions"]["opened"].clone();
        if opened.as_u64() > Some(10) {
            Ok(())
        } else {
            Err(opened)
        }
    })
    .await;
    // Sessions of -C come and go: those that hold a connection are let go first.
    pause(&sidecar).await;
    eventually(SOON, "nobody holds a connection", async || {
        let status = sidecar.get("/v1/status").await;
        if status["budget"]["used"] == 0 {
            return Ok(());
        }
        resume(&sidecar).await;
        pause(&sidecar).await;
        Err(status)
    })
    .await;
    postgres.stop();
    postgres.start_again();
    resume(&sidecar).await;
    assert_eq!(unbound.ask("SELECT 'unnoticed'").await, "unnoticed");
    load.stop();
    load.succeeds().await;
}

#[tokio::test]
async fn with_admin_off_nobody_pauses() {
    let (_database, sidecar) = place("admin", "control: {admin: off}\n").await;
    for path in [
        "/v1/pause",
        "/v1/resume",
        "/v1/reconnect",
        "/v1/drain",
        "/quitquitquit",
    ] {
        let (status, problem) = sidecar.control("POST", path, None).await;
        assert_eq!(
            (status, &problem["code"]),
            (403, &json!("admin_off")),
            "{path}"
        );
    }
    assert_eq!(bound(&sidecar, "a").await.ask("SELECT 1").await, "1");
}
