//! What time and the maintenance pass do: leftovers of ended executions are ended, idle connections
//! are looked after, and the status is logged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::guard::Stopped;
use support::sidecar::upstream;
use support::{Database, Fault, Postgres, PostgresOptions, Proxy, SOON, Sidecar, eventually};

async fn pooled(database: &Database) -> usize {
    Postgres::shared().pooled(database).await.len()
}

async fn settles_at(database: &Database, wanted: usize, claim: &str) {
    eventually(SOON, claim, async || match pooled(database).await {
        found if found == wanted => Ok(()),
        found => Err(found),
    })
    .await;
}

/// A partition of the network: what is open now passes nothing on any more, in either direction,
/// and its server is not told; new connections pass.
#[tokio::test]
async fn the_pass_ends_what_a_partition_has_kept_from_ending() {
    let postgres = Postgres::shared();
    let database = postgres.database("partition").await;
    let proxy = Proxy::tcp(postgres).await;
    let yaml = upstream("app", &proxy.url(&database)) + "maintenance: {interval: 1s}\n";
    let sidecar = Sidecar::start(yaml).await;
    // The monitor's connection is one of the old ones.
    sidecar.get("/v1/database/health").await;
    let mut doomed = sidecar.session("app", "doomed").await;
    let pid = doomed.backend().await;
    let mut living = sidecar.session("app", "living").await;
    living.query("BEGIN").await;

    proxy.set(Fault::FreezeOld);
    let (status, ended) = sidecar
        .control("DELETE", "/v1/executions/doomed", None)
        .await;
    assert_eq!(
        (status, &ended["remaining_pids"]),
        (200, &json!([pid])),
        "{ended}"
    );
    assert_eq!(ended["complete"], false, "{ended}");
    settles_at(&database, 1, "the pass ends the leftover and nothing else").await;
    let forced = "a backend of an ended execution is ended by force";
    sidecar.logged(&[forced, "doomed"]).await;
    let filter = "datname = 'partition' AND state = 'idle in transaction'";
    assert_eq!(postgres.activity(filter).await.len(), 1, "the living one's");
}

#[tokio::test]
async fn a_backend_that_was_stopped_at_the_end_goes_when_it_can() {
    let database = Postgres::shared().database("stopped").await;
    let yaml = upstream("app", &database.url()) + "maintenance: {interval: 1s}\n";
    let sidecar = Sidecar::start(yaml).await;
    let mut doomed = sidecar.session("app", "doomed").await;
    let pid = doomed.backend().await;
    let mut living = sidecar.session("app", "living").await;
    let living_pid = living.backend().await;
    let stopped = Stopped::new(pid);
    let (_, ended) = sidecar
        .control("DELETE", "/v1/executions/doomed", None)
        .await;
    assert_eq!(
        (&ended["complete"], &ended["remaining_pids"]),
        (&json!(false), &json!([pid])),
        "{ended}"
    );
    drop(stopped);
    settles_at(&database, 1, "it is gone").await;
    assert_eq!(living.backend().await, living_pid);
}

/// The older backends' route does what the pass does, on request; nothing that lives is touched.
#[tokio::test]
async fn a_cleanup_on_request_ends_leftovers_and_nothing_that_lives() {
    let postgres = Postgres::shared();
    let database = postgres.database("requested").await;
    let proxy = Proxy::tcp(postgres).await;
    let yaml = upstream("app", &proxy.url(&database)) + "maintenance: {interval: off}\n";
    let sidecar = Sidecar::start(yaml).await;
    sidecar.get("/v1/database/health").await;
    let mut doomed = sidecar.session("app", "doomed").await;
    doomed.query("BEGIN").await;
    proxy.set(Fault::FreezeOld);
    let mut working = sidecar.session("app", "working").await;
    assert_eq!(working.ask("SELECT 1").await, "1");
    let mut leaking = sidecar.session("app", "leaking").await;
    leaking.query("BEGIN").await;
    let path = "/api/memory/debug/connections/cleanup";
    assert_eq!(sidecar.control("POST", path, None).await.0, 200);
    assert_eq!(pooled(&database).await, 3, "nothing has ended yet");

    let (_, ended) = sidecar
        .control("DELETE", "/v1/executions/doomed", None)
        .await;
    assert_eq!(ended["complete"], false, "{ended}");
    settles_at(&database, 3, "it stays where nobody asks").await;
    let (status, answer) = sidecar.control("POST", path, None).await;
    assert_eq!(
        (status, &answer["success"]),
        (200, &json!(true)),
        "{answer}"
    );
    let executions = &answer["data"]["connection_stats"]["executions"];
    assert_eq!(executions["leaking"]["sql_databases"], 1, "{answer}");
    assert!(executions.get("doomed").is_none(), "{answer}");
    settles_at(&database, 2, "the leftover is ended").await;
    assert_eq!(working.ask("SELECT 2").await, "2");
    assert_eq!(leaking.ask("SELECT 3").await, "3", "in its transaction");
}

#[tokio::test]
async fn above_the_budgets_size_a_returned_connection_is_closed() {
    let database = Postgres::shared().database("above_budget").await;
    let yaml = upstream("app", &database.url()) + "budget: {size: 3, overflow: 9}\n";
    let sidecar = Sidecar::start(yaml).await;
    let mut sessions = Vec::new();
    for number in 0..12 {
        let mut raw = sidecar.session("app", &format!("e{}", number / 2)).await;
        assert_eq!(raw.ask("SELECT 1").await, "1");
        sessions.push(raw);
    }
    assert_eq!(pooled(&database).await, 12);
    drop(sessions);
    settles_at(&database, 3, "three stay, of whichever execution").await;
    sidecar.settles().await;
}

#[tokio::test]
async fn idle_connections_are_closed_when_they_are_idle_for_too_long_or_too_old() {
    for (name, knob) in [
        ("idle_too_long", "idle_timeout: 1s"),
        ("too_old", "recycle: 1s"),
    ] {
        let database = Postgres::shared().database(name).await;
        let yaml = upstream("app", &database.url()) + &format!("pool: {{{knob}}}\n");
        let sidecar = Sidecar::start(yaml).await;
        let mut raw = sidecar.session("app", "a").await;
        assert_eq!(raw.ask("SELECT 1").await, "1");
        let mut busy = sidecar.session("app", "a").await;
        assert_eq!(busy.ask("SELECT 1").await, "1");
        drop(raw);
        settles_at(&database, 1, name).await;
        assert_eq!(busy.ask("SELECT 2").await, "2", "one that is lent stays");
        drop(busy);
        settles_at(&database, 0, name).await;
    }
}

#[tokio::test]
async fn above_the_pools_size_a_returned_connection_is_closed() {
    let database = Postgres::shared().database("above_size").await;
    let sidecar = Sidecar::over(&database).await;
    let mut sessions = Vec::new();
    for _ in 0..5 {
        let mut raw = sidecar.session("above_size", "a").await;
        assert_eq!(raw.ask("SELECT 1").await, "1");
        sessions.push(raw);
    }
    assert_eq!(pooled(&database).await, 5);
    drop(sessions);
    settles_at(&database, 2, "two stay").await;
    sidecar.settles().await;
}

/// The events named `status` in a log of JSON lines.
fn statuses(log: &[String]) -> Vec<Value> {
    let lines = log
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|event| event["message"] == "status").collect()
}

#[tokio::test]
async fn the_status_is_logged_at_its_interval() {
    let database = Postgres::shared().database("status_log").await;
    let yaml = upstream("app", &database.url()) + "telemetry: {status_log: 1s}\n";
    let sidecar = Sidecar::start(yaml).await;
    let mut raw = sidecar.session("app", "held").await;
    raw.query("BEGIN").await;
    let browser = serde_json::json!({"kind": "browser", "name": "page"});
    let made = sidecar.control("POST", "/v1/executions/held/resources", Some(browser));
    assert_eq!(made.await.0, 201);
    let status = eventually(SOON, "a status with the holder", async || {
        let found = statuses(&sidecar.log());
        let told = found
            .iter()
            .find(|event| event["oldest_holder"] == "held" && event["resources"] == 1);
        told.cloned().ok_or(found)
    })
    .await;
    assert_eq!(status["level"], "INFO", "{status}");
    assert_eq!(status["event"], "status", "{status}");
    assert_eq!(status["exhaustion"], "healthy", "{status}");
    assert_eq!(status["budget_used"], 1, "{status}");
    assert_eq!(status["resources_browser"], 1, "{status}");
    assert_eq!(status["executions_active"], 2, "{status}");
    assert_eq!(status["sessions_idle_in_transaction"], 1, "{status}");
    assert_eq!(status["budget_limit"], 30, "{status}");
    for number in [
        "sessions",
        "sessions_holding",
        "sessions_waiting",
        "exhaustion_age_seconds",
        "resources_connection",
        "resources_http",
        "resources_file",
        "resources_other",
        "cpu_cores",
        "sessions_opened_per_minute",
        "sessions_closed_per_minute",
        "executions_begun_per_minute",
        "executions_ended_per_minute",
        "leak_suspects",
        "oldest_idle_in_transaction_seconds",
        "budget_open",
        "budget_effective",
        "budget_waiting",
        "oldest_wait_seconds",
        "oldest_held_seconds",
        "resident_bytes",
        "uptime_seconds",
    ] {
        assert!(status[number].is_number(), "{number}: {status}");
    }
}

#[tokio::test]
async fn a_log_for_reading_has_no_json_and_a_silenced_status_is_silent() {
    let database = Postgres::shared().database("text_log").await;
    let yaml =
        upstream("app", &database.url()) + "telemetry: {status_log: 1s}\nlog: {format: text}\n";
    let text = Sidecar::start(yaml).await;
    eventually(SOON, "a line of text", async || {
        let log = text.log();
        let told = log.iter().any(|line| {
            line.contains("INFO") && line.contains("status") && line.contains("budget_limit=30")
        });
        told.then_some(()).ok_or(log)
    })
    .await;
    assert!(
        text.log().iter().all(|line| !line.starts_with('{')),
        "{:?}",
        text.log()
    );

    let silent = Sidecar::options()
        .env("DATABASE_URL", database.url())
        .env("LOG_RESOURCE_USAGE", "false")
        .start()
        .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(statuses(&silent.log()).is_empty(), "{:?}", silent.log());
    let off = std::process::Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(["check", "--json"])
        .env("DATABASE_URL", database.url())
        .env("LOG_RESOURCE_USAGE", "false")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&off.stdout);
    assert!(told.contains("LOG_RESOURCE_USAGE"), "{told}");
}

#[tokio::test]
async fn a_budget_over_half_of_what_the_database_allows_is_warned_of() {
    let options = PostgresOptions {
        max_connections: 40,
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start(options);
    let database = postgres.database("half").await;
    let over = Sidecar::over(&database).await;
    let warned = |log: &[String]| log.iter().any(|line| line.contains("over half of"));
    eventually(SOON, "it is said", async || {
        let log = over.log();
        if warned(&log) { Ok(()) } else { Err(log) }
    })
    .await;
    let small = upstream("app", &database.url()) + "budget: {size: 10, overflow: 10}\n";
    let within = Sidecar::start(small).await;
    eventually(SOON, "the database was asked", async || {
        let log = within.log();
        let asked = log.iter().any(|line| line.contains("the database answers"));
        if asked { Ok(()) } else { Err(log) }
    })
    .await;
    within.get("/v1/status").await;
    assert!(!warned(&within.log()), "{:?}", within.log());
}
