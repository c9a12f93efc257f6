//! A real PgBouncer as the upstream.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::{Duration, Instant};

use support::pgbouncer::PgBouncer;
use support::session::{error, kinds, told_pid};
use support::sidecar::upstream;
use support::{Database, Postgres, PostgresOptions, SOON, Sidecar, eventually};

/// A server that logs each statement, and a database of it.
async fn server() -> (Postgres, Database) {
    let postgres = Postgres::start(PostgresOptions {
        settings: vec![("log_statement".to_owned(), "all".to_owned())],
        ..PostgresOptions::default()
    });
    let database = postgres.database("pooled").await;
    (postgres, database)
}

/// In front of a PgBouncer that is said to be one.
async fn over(pgbouncer: &PgBouncer, more: &str) -> Sidecar {
    let url = pgbouncer.url();
    Sidecar::start(format!("{}    kind: pooler\n{more}", upstream("app", &url))).await
}

/// Waits until the pooler has so many clients.
async fn has_clients(pgbouncer: &PgBouncer, count: usize) {
    eventually(SOON, "the pooler's clients", async || {
        let found = pgbouncer.clients().await;
        (found == count).then_some(()).ok_or(found)
    })
    .await;
}

#[tokio::test]
async fn sessions_work_through_a_pooler_and_nothing_is_done_that_it_does_not_know() {
    let (postgres, database) = server().await;
    for mode in ["session", "transaction"] {
        let pgbouncer = PgBouncer::start(&database, &[&format!("pool_mode = {mode}")]);
        let sidecar = over(&pgbouncer, "").await;
        for round in 0..3 {
            let mut client = sidecar.client("app", "a").await.unwrap();
            client
                .batch_execute("SET work_mem = '1234kB'")
                .await
                .unwrap();
            let transaction = client.transaction().await.unwrap();
            let row = transaction
                .query_one("SELECT $1::int4 + 1", &[&round])
                .await;
            assert_eq!(row.unwrap().get::<_, i32>(0), round + 1, "{mode}");
            transaction.commit().await.unwrap();
            drop(client);
            // Nothing undoes what it has set: its connection is closed. Only the monitor's stays.
            sidecar.settles().await;
            has_clients(&pgbouncer, 1).await;
        }
        let health = sidecar.control("GET", "/v1/database/health", None).await;
        assert_eq!(health.0, 200, "{health:?}");
        let log = pgbouncer.log();
        assert!(!log.contains("unsupported startup"), "{log}");
    }
    let log = postgres.log();
    assert!(log.contains("1234kB"), "statements are logged");
    // PgBouncer itself resets in mode `session`.
    let resets = log.matches("DISCARD ALL").count();
    assert!(
        resets <= 4,
        "{resets} resets are not PgBouncer's alone:\n{log}"
    );
    for word in ["client_connection_check_interval", "pg_terminate_backend"] {
        assert!(!log.contains(word), "{word} in\n{log}");
    }
}

#[tokio::test]
async fn a_connection_that_was_told_to_one_session_is_not_told_to_another() {
    let (_postgres, database) = server().await;
    let pgbouncer = PgBouncer::start(&database, &[]);
    let sidecar = over(&pgbouncer, "").await;
    let named = [("execpool.execution_id", "a")];
    let mut told_before = Vec::new();
    for _ in 0..3 {
        let (raw, told) = sidecar.started("app", &named).await;
        let pid = told_pid(&told);
        assert!(!told_before.contains(&pid), "{pid} of {told_before:?}");
        told_before.push(pid);
        // It has asked nothing.
        drop(raw);
        sidecar.settles().await;
        has_clients(&pgbouncer, 1).await;
    }
}

#[tokio::test]
async fn a_cancel_and_the_end_of_an_execution_reach_the_query_behind_a_pooler() {
    let (postgres, database) = server().await;
    let pgbouncer = PgBouncer::start(&database, &["pool_mode = transaction"]);
    let sidecar = over(&pgbouncer, "").await;
    let runs = async |expected: usize| {
        eventually(SOON, "the queries that run", async || {
            let found = postgres
                .activity("state = 'active' AND wait_event = 'PgSleep'")
                .await;
            (found.len() == expected).then_some(()).ok_or(found)
        })
        .await;
    };
    let client = sidecar.client("app", "a").await.unwrap();
    let token = client.cancel_token();
    let query = tokio::spawn(async move {
        let answer = client.batch_execute("SELECT pg_sleep(600)").await;
        (client, answer)
    });
    runs(1).await;
    token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    let (client, answer) = query.await.unwrap();
    assert_eq!(answer.unwrap_err().code().unwrap().code(), "57014");
    client.batch_execute("SELECT 1").await.unwrap();

    let query = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(600)").await });
    runs(1).await;
    let start = Instant::now();
    let (status, ended) = sidecar.control("DELETE", "/v1/executions/a", None).await;
    assert_eq!((status, &ended["complete"]), (200, &true.into()), "{ended}");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(
        query.await.unwrap().unwrap_err().code().unwrap().code(),
        "57P01"
    );
    runs(0).await;
    // Its numbers are the pooler's own: by them, anybody's backend could be ended.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!postgres.log().contains("pg_terminate_backend"));
}

#[tokio::test]
async fn a_pooler_that_takes_no_more_clients_is_a_limit_that_is_waited_for() {
    let (_postgres, database) = server().await;
    // One of them is the monitor's.
    let pgbouncer = PgBouncer::start(&database, &["max_client_conn = 3"]);
    let more = "budget: {size: 10, overflow: 0}\npool: {size: 10, timeout: 5s}\n";
    let sidecar = over(&pgbouncer, more).await;
    sidecar.control("GET", "/v1/database/health", None).await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let mut raw = sidecar.session("app", "a").await;
        assert_eq!(raw.ask("SELECT 1").await, "1");
        sessions.push(raw);
    }
    let named = [("execpool.execution_id", "a")];
    let (mut raw, mut told) = sidecar.started("app", &named).await;
    if kinds(&told).ends_with('Z') {
        told = raw.query("SELECT 1").await;
    }
    let told = error(&told);
    assert_eq!(told[&'C'], "53300", "{told:?}");
    assert!(told[&'M'].contains("limited_by_database"), "{told:?}");
    let budget = sidecar.get("/v1/status").await["budget"].take();
    assert_eq!(budget["limited_by_database"], true, "{budget}");
    sessions.clear();
    eventually(SOON, "somebody comes in again", async || {
        let mut raw = sidecar.session("app", "b").await;
        let told = raw.query("SELECT 1").await;
        match kinds(&told).as_str() {
            "TDCZ" => Ok(()),
            _ => Err(told),
        }
    })
    .await;
}

#[tokio::test]
async fn a_parameter_that_the_pooler_does_not_know_is_refused_in_its_words() {
    let (_postgres, database) = server().await;
    let pgbouncer = PgBouncer::start(&database, &[]);
    let sidecar = over(&pgbouncer, "").await;
    let (_, told) = sidecar.started("app", &[("geqo", "off")]).await;
    let told = error(&told);
    assert!(
        told[&'M'].contains("unsupported startup parameter: geqo"),
        "{told:?}"
    );
    let known = [("application_name", "known"), ("TimeZone", "Asia/Tokyo")];
    let (mut raw, _) = sidecar.started("app", &known).await;
    assert_eq!(raw.ask("SHOW timezone").await, "Asia/Tokyo");
}

#[tokio::test]
async fn a_pooler_that_is_taken_for_postgresql_is_spoken_to_without_the_check() {
    let (postgres, database) = server().await;
    let pgbouncer = PgBouncer::start(&database, &["pool_mode = session"]);
    let sidecar = Sidecar::start(upstream("app", &pgbouncer.url())).await;
    for _ in 0..3 {
        let client = sidecar.client("app", "a").await.unwrap();
        client.batch_execute("SELECT 1").await.unwrap();
    }
    sidecar.settles().await;
    assert!(
        postgres.log().contains("DISCARD ALL"),
        "returned ones are reset"
    );
}
