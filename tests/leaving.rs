//! However a client leaves, its server connection ends clean: given back as new, or closed; and
//! however a server leaves, its client is told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use support::session::{assert_in, batch, error};
use support::sidecar::upstream;
use support::{Database, Postgres, PostgresOptions, Raw, SOON, Sidecar, eventually};

async fn place(name: &str) -> (Database, Sidecar) {
    let database = Postgres::shared().database(name).await;
    let sidecar = Sidecar::start(upstream("app", &database.url())).await;
    (database, sidecar)
}

fn query(sql: &str) -> BytesMut {
    let mut bytes = BytesMut::new();
    frontend::query(sql, &mut bytes).unwrap();
    bytes
}

async fn nothing_runs(database: &Database) {
    let filter = format!("datname = '{}' AND state <> 'idle'", database.name);
    eventually(SOON, "nothing runs", async || {
        let found = Postgres::shared().activity(&filter).await;
        if found.is_empty() { Ok(()) } else { Err(found) }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_vanishes_has_its_query_cancelled() {
    let (database, sidecar) = place("vanishes").await;
    let mut raw = sidecar.session("app", "a").await;
    let backend = raw.backend().await;
    raw.send(&query("SELECT pg_sleep(600)")).await;
    Postgres::shared().waits_in(&database, "PgSleep").await;
    drop(raw);
    nothing_runs(&database).await;
    sidecar.settles().await;
    let mut next = sidecar.session("app", "a").await;
    assert_eq!(
        next.backend().await,
        backend,
        "and its connection serves the next"
    );
}

#[tokio::test]
async fn a_query_right_before_the_goodbye_is_done() {
    let (database, sidecar) = place("goodbye").await;
    database
        .client()
        .await
        .batch_execute("CREATE TABLE t (x int)")
        .await
        .unwrap();
    for bound in [false, true] {
        let mut raw = sidecar.session("app", "a").await;
        if bound {
            raw.query("SELECT 1").await;
        }
        let mut bytes = query("INSERT INTO t SELECT 1 FROM pg_sleep(0.2)");
        frontend::terminate(&mut bytes);
        raw.send(&bytes).await;
        drop(raw);
        sidecar.settles().await;
    }
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT count(*) FROM t").await, "2");
}

#[tokio::test]
async fn a_goodbye_in_a_transaction_rolls_it_back() {
    let (database, sidecar) = place("rolls_back").await;
    database
        .client()
        .await
        .batch_execute("CREATE TABLE t (x int)")
        .await
        .unwrap();
    for vanishes in [false, true] {
        let mut raw = sidecar.session("app", "a").await;
        raw.query("BEGIN").await;
        raw.query("INSERT INTO t VALUES (1)").await;
        if !vanishes {
            raw.send_with(frontend::terminate).await;
        }
        drop(raw);
        sidecar.settles().await;
        let mut raw = sidecar.session("app", "a").await;
        assert_eq!(
            raw.ask("SELECT count(*) FROM t").await,
            "0",
            "vanishes: {vanishes}"
        );
    }
}

#[tokio::test]
async fn a_batch_without_its_sync_is_given_up_at_once() {
    let (database, sidecar) = place("no_sync").await;
    database
        .client()
        .await
        .batch_execute("CREATE TABLE t (x int)")
        .await
        .unwrap();
    let mut raw = sidecar.session("app", "a").await;
    let mut bytes = BytesMut::new();
    batch("INSERT INTO t VALUES (1)", &mut bytes);
    frontend::terminate(&mut bytes);
    raw.send(&bytes).await;
    drop(raw);
    sidecar.settles().await;
    // What a client leaves behind is waited for for 5 s. Between these two nobody else is asked.
    let execution = sidecar.get("/v1/executions/a?events=true").await;
    let events = execution["events"].as_array().unwrap();
    let [lent, cancelled] = ["checkout.lent", "session.cancelled"].map(|name| {
        let event = events.iter().find(|event| event["event"] == name);
        let event = event.unwrap_or_else(|| panic!("no {name}: {execution}"));
        event["offset_seconds"].as_f64().unwrap()
    });
    assert!(cancelled - lent < 4.0, "{execution}");
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn a_copy_that_is_cut_off_leaves_no_rows() {
    let (database, sidecar) = place("cut_off").await;
    database
        .client()
        .await
        .batch_execute("CREATE TABLE t (x int)")
        .await
        .unwrap();
    for says_goodbye in [false, true] {
        let mut raw = sidecar.session("app", "a").await;
        raw.send(&query("COPY t FROM STDIN")).await;
        assert_eq!(raw.read().await.unwrap().kind, b'G');
        raw.send(b"d\0\0\0\x061\n").await;
        if says_goodbye {
            raw.send_with(frontend::terminate).await;
        }
        drop(raw);
        nothing_runs(&database).await;
        sidecar.settles().await;
        let mut raw = sidecar.session("app", "a").await;
        assert_eq!(raw.ask("SELECT count(*) FROM t").await, "0");
    }
}

/// What a session can leave behind, and a question whose answer is `clean` without it.
const TRACES: [(&str, &str); 9] = [
    (
        "CREATE TEMP TABLE trace ()",
        "SELECT CASE WHEN to_regclass('pg_temp.trace') IS NULL THEN 'clean' END",
    ),
    (
        "SET work_mem = '7MB'",
        "SELECT CASE WHEN current_setting('work_mem') <> '7MB' THEN 'clean' END",
    ),
    (
        "SET search_path = pg_catalog",
        "SELECT CASE WHEN current_setting('search_path') <> 'pg_catalog' THEN 'clean' END",
    ),
    (
        "LISTEN trace",
        "SELECT CASE WHEN count(*) = 0 THEN 'clean' END FROM pg_listening_channels()",
    ),
    (
        "PREPARE trace AS SELECT 1",
        "SELECT CASE WHEN count(*) = 0 THEN 'clean' END FROM pg_prepared_statements",
    ),
    (
        "SELECT pg_advisory_lock(4711)",
        "SELECT CASE WHEN count(*) = 0 THEN 'clean' END FROM pg_locks WHERE locktype = 'advisory'",
    ),
    (
        "SET ROLE pg_read_all_settings",
        "SELECT CASE WHEN current_user = session_user THEN 'clean' END",
    ),
    (
        "DECLARE trace CURSOR WITH HOLD FOR SELECT 1",
        "SELECT CASE WHEN count(*) = 0 THEN 'clean' END FROM pg_cursors",
    ),
    (
        "BEGIN",
        "SELECT CASE WHEN now() = statement_timestamp() THEN 'clean' END",
    ),
];

#[tokio::test]
async fn a_connection_that_was_given_back_has_forgotten_its_session() {
    let (_database, sidecar) = place("forgets").await;
    let admin = Postgres::shared().admin().await;
    admin
        .batch_execute("GRANT pg_read_all_settings TO app")
        .await
        .unwrap();
    let mut first = sidecar.session("app", "a").await;
    let backend = first.backend().await;
    drop(first);
    for (trace, question) in TRACES {
        sidecar.settles().await;
        let mut raw = sidecar.session("app", "a").await;
        assert_eq!(raw.backend().await, backend, "the same connection");
        let told = raw.query(trace).await;
        assert!(
            told.iter().all(|message| message.kind != b'E'),
            "{trace}: {told:?}"
        );
        raw.send_with(frontend::terminate).await;
        sidecar.settles().await;
        let mut raw = sidecar.session("app", "a").await;
        assert_eq!(raw.ask(question).await, "clean", "{trace}");
        assert_eq!(raw.backend().await, backend, "{trace}");
    }
}

#[tokio::test]
async fn a_session_whose_backend_is_ended_is_told_in_the_servers_own_words() {
    let (_database, sidecar) = place("backend_ended").await;
    let mut raw = sidecar.session("app", "a").await;
    let pid = raw.backend().await;
    let admin = Postgres::shared().admin().await;
    admin
        .batch_execute(&format!("SELECT pg_terminate_backend({pid})"))
        .await
        .unwrap();
    let fields = raw.expect_error().await;
    assert_eq!(fields[&'C'], "57P01");
    assert_eq!(
        fields[&'M'],
        "terminating connection due to administrator command"
    );
    raw.expect_closed().await;
    let mut raw = sidecar.session("app", "a").await;
    assert_ne!(raw.backend().await, pid);
}

/// Ends a session by ending its server; answers what it is told.
async fn told_of_the_end(raw: &mut Raw, postgres: &mut Postgres) -> String {
    postgres.stop();
    let fields = raw.expect_error().await;
    raw.expect_closed().await;
    fields[&'C'].clone()
}

#[tokio::test]
async fn sessions_are_told_of_a_server_that_ends_and_work_when_it_is_back() {
    let mut postgres = Postgres::start(PostgresOptions::default());
    let database = postgres.database("restarts").await;
    let waiting = |timeout: &str| {
        upstream("app", &database.url()) + &format!("pool: {{timeout: {timeout}}}\n")
    };
    let sidecar = Sidecar::start(waiting("1m")).await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    let state = told_of_the_end(&mut raw, &mut postgres).await;
    // The server's own words, if it still had any, or ours.
    assert!(
        ["57P02", "57P01", "08006"].contains(&state.as_str()),
        "{state}"
    );
    let named = [("execpool.execution_id", "a")];
    // It is let in by what is known of the server, waits for it with its query, and lives on.
    let (mut raw, told) = sidecar.started("app", &named).await;
    assert_in(&told);
    sidecar.reload(&waiting("5s")).await;
    assert_eq!(error(&raw.query("SELECT 1").await)[&'C'], "08001");
    sidecar.reload(&waiting("1m")).await;
    postgres.start_again();
    assert_eq!(raw.ask("SELECT 2").await, "2");
    let (mut raw, told) = sidecar.started("app", &named).await;
    assert_in(&told);
    assert_eq!(raw.ask("SELECT 2").await, "2");
}

#[tokio::test]
async fn a_session_is_told_of_a_server_that_ends_amid_its_query() {
    let mut postgres = Postgres::start(PostgresOptions::default());
    let database = postgres.database("amid").await;
    let sidecar = Sidecar::start(upstream("app", &database.url())).await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    raw.send(&query("SELECT pg_sleep(600)")).await;
    sidecar.session_is("a", "active").await;
    let state = told_of_the_end(&mut raw, &mut postgres).await;
    assert!(
        ["57P02", "57P01", "08006"].contains(&state.as_str()),
        "{state}"
    );
    sidecar.settles().await;
    let budget = &sidecar.get("/v1/status").await["budget"];
    assert_eq!(budget["open"], 0, "{budget}");
}

/// As when an app is killed by the kernel: all of its connections break at one moment.
#[tokio::test]
async fn fifty_clients_that_vanish_at_once_leave_nothing_running() {
    let database = Postgres::shared().database("fifty").await;
    let more = "budget: {size: 20, overflow: 40}\npool: {size: 2, overflow: 10}\n";
    let sidecar = Sidecar::start(upstream("app", &database.url()) + more).await;
    let doings = [
        "SELECT pg_sleep(600)",
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT",
        "BEGIN; CREATE TABLE t ()",
        "COPY pg_temp.t FROM STDIN",
        "SELECT 1",
    ];
    let mut clients = Vec::new();
    for number in 0..50 {
        let mut raw = sidecar.session("app", &format!("e{}", number % 10)).await;
        raw.query("CREATE TEMP TABLE t (x int)").await;
        raw.send(&query(doings[number % doings.len()])).await;
        clients.push(raw);
    }
    drop(clients);
    nothing_runs(&database).await;
    sidecar.settles().await;
    for number in 0..10 {
        let mut raw = sidecar.session("app", &format!("e{number}")).await;
        assert_eq!(raw.ask("SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn a_client_that_vanishes_while_it_waits_leaves_its_place() {
    let database = Postgres::shared().database("place").await;
    let yaml = upstream("app", &database.url()) + "pool: {timeout: 10m}\n";
    let sidecar = Sidecar::start(yaml).await;
    let mut holders = Vec::new();
    for _ in 0..5 {
        let mut raw = sidecar.session("app", "a").await;
        raw.query("BEGIN").await;
        holders.push(raw);
    }
    let mut vanishing = sidecar.session("app", "a").await;
    vanishing.send(&query("SELECT 1")).await;
    let waiting = async |count: u64| {
        eventually(SOON, "so many wait", async || {
            let waiting = sidecar.get("/v1/status").await["budget"]["waiting"].clone();
            (waiting == count).then_some(()).ok_or(waiting)
        })
        .await;
    };
    waiting(1).await;
    let mut next = sidecar.session("app", "a").await;
    next.send(&query("SELECT 'served'")).await;
    waiting(2).await;
    drop(vanishing);
    waiting(1).await;
    holders.pop();
    let told = next.read_until(b'Z').await;
    assert_eq!(support::session::rows(&told), ["served"]);
}
