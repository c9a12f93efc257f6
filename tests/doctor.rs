//! `execpool doctor`, well and with each of its checks provoked to fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::process::Command;

use serde_json::Value;
use support::pgbouncer::PgBouncer;
use support::session::place;
use support::sidecar::upstream;
use support::{Postgres, PostgresOptions, SOON, Sidecar, eventually};

/// What the doctor says of whoever has this directory: its exit status, and each check with its
/// outcome and what it tells.
async fn examined(sidecar: &Sidecar, more: &[&str]) -> (i32, Vec<(String, String, String)>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execpool"));
    command
        .args(["doctor", "--json"])
        .args(more)
        .env("EXECPOOL_LISTEN__DIR", sidecar.dir());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = found.as_array().unwrap().iter().map(|one| {
        let told = format!("{} | {}", text(&one["detail"]), text(&one["hint"]));
        (text(&one["check"]), text(&one["outcome"]), told)
    });
    (output.status.code().unwrap(), checks.collect())
}

/// Asserts that a check has this outcome and tells that.
async fn finds(sidecar: &Sidecar, more: &[&str], check: &str, outcome: &str, told: &str) {
    let (status, found) = examined(sidecar, more).await;
    assert_found(status, &found, (check, outcome, told));
}

/// The same as soon as it is so.
async fn comes_to_find(sidecar: &Sidecar, check: &str, outcome: &str, told: &str) {
    let claim = format!("{check} {outcome} {told}");
    let (status, found) = eventually(SOON, &claim, async || {
        let (status, found) = examined(sidecar, &[]).await;
        match is_found(&found, (check, outcome, told)) {
            true => Ok((status, found)),
            false => Err(found),
        }
    })
    .await;
    assert_found(status, &found, (check, outcome, told));
}

fn is_found(found: &[(String, String, String)], wanted: (&str, &str, &str)) -> bool {
    let (check, outcome, told) = wanted;
    let mut found = found.iter();
    found.any(|(of, how, what)| of == check && how == outcome && what.contains(told))
}

#[track_caller]
fn assert_found(status: i32, found: &[(String, String, String)], wanted: (&str, &str, &str)) {
    assert!(is_found(found, wanted), "{wanted:?}: {found:#?}");
    let failed = found.iter().any(|(_, how, _)| how == "failed");
    assert_eq!(status, i32::from(failed), "{found:#?}");
}

#[tokio::test]
async fn all_is_well_and_nothing_is_left_of_the_examination() {
    let (_database, sidecar) = place(
        "well",
        "telemetry: {listen: \"127.0.0.1:0\"}\nlisten: {dir: \"{dir}\"}\n",
    )
    .await;
    eventually(SOON, "it is ready", async || {
        let status = sidecar.get("/v1/status").await;
        (status["not_ready"].is_null()).then_some(()).ok_or(status)
    })
    .await;
    // It tells of an answer that took a second, as one may on a busy machine.
    let found = eventually(SOON, "all is well", async || {
        let (status, found) = examined(&sidecar, &[]).await;
        let is_well = status == 0 && found.iter().all(|(_, how, _)| how == "ok");
        is_well.then_some(found.clone()).ok_or(found)
    })
    .await;
    let checks: Vec<&str> = found.iter().map(|(check, ..)| check.as_str()).collect();
    let all = [
        "control",
        "configuration",
        "readiness",
        "budget",
        "telemetry",
        "database",
        "execution",
        "connect",
        "query",
        "tracker",
        "end",
        "pg_stat_activity",
    ];
    assert_eq!(checks, all);
    sidecar.settles().await;
    let executions = sidecar.get("/v1/executions").await;
    assert_eq!(executions.as_array().unwrap().len(), 1, "{executions}");
    // For people.
    let output = Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(["doctor"])
        .env("EXECPOOL_LISTEN__DIR", sidecar.dir())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("All is well.\n"), "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("ok  tracker")),
        "{text}"
    );
}

#[tokio::test]
async fn nobody_at_the_socket_is_told() {
    let (_database, sidecar) = place("nobody", "").await;
    let nowhere = ["--socket", "/nowhere/control.sock"];
    finds(
        &sidecar,
        &nowhere,
        "control",
        "failed",
        "no execpool at /nowhere/control.sock",
    )
    .await;
}

#[tokio::test]
async fn a_configuration_that_is_refused_or_waits_is_told() {
    let database = Postgres::shared().database("refused").await;
    let yaml = upstream("app", &database.url());
    let sidecar = Sidecar::start(yaml.clone()).await;
    sidecar
        .reload(&format!("{yaml}listen: {{port: 6000}}\n"))
        .await;
    finds(
        &sidecar,
        &[],
        "configuration",
        "warning",
        "waits for a restart: listen.port",
    )
    .await;
    sidecar.configure(&format!("{yaml}budgte: {{}}\n"));
    sidecar.control("POST", "/v1/reload", None).await;
    finds(
        &sidecar,
        &[],
        "configuration",
        "failed",
        "did you mean budget?",
    )
    .await;
}

#[tokio::test]
async fn a_pause_is_told_and_what_it_does_to_a_query() {
    let (database, sidecar) = place("paused", "").await;
    // Its key is known: connecting does not wait.
    sidecar.session("app", "a").await;
    let hasty = upstream("app", &database.url()) + "pool: {timeout: 300ms}\n";
    sidecar.reload(&hasty).await;
    sidecar.control("POST", "/v1/pause", None).await;
    finds(&sidecar, &[], "readiness", "failed", "it is paused").await;
    finds(&sidecar, &[], "connect", "failed", "execpool is paused").await;
}

#[tokio::test]
async fn a_full_budget_is_told_and_what_it_does_to_a_query() {
    // Who waits does so still when that is asked, and the doctor waits for longer.
    let more = "budget: {size: 1, overflow: 0}\npool: {timeout: 15s}\n";
    let (_database, sidecar) = place("full", more).await;
    let mut holder = sidecar.session("app", "holder").await;
    holder.query("BEGIN").await;
    let mut waits = sidecar.session("app", "waits").await;
    waits.send(b"Q\0\0\0\x0dSELECT 7\0").await;
    sidecar.session_is("waits", "waiting").await;
    let (status, found) = examined(&sidecar, &[]).await;
    for wanted in [
        ("budget", "warning", "1 of 1 used, 1 waiting"),
        ("connect", "failed", "the pod's budget of 1 is in use"),
    ] {
        assert_found(status, &found, wanted);
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_told() {
    let mut postgres = Postgres::start(PostgresOptions::default());
    let database = postgres.database("away").await;
    let sidecar = Sidecar::start(upstream("app", &database.url())).await;
    postgres.stop();
    finds(&sidecar, &[], "database", "failed", "app: ").await;
    finds(
        &sidecar,
        &[],
        "connect",
        "failed",
        "cannot reach PostgreSQL",
    )
    .await;
}

#[tokio::test]
async fn a_database_without_room_is_told() {
    let postgres = Postgres::start(PostgresOptions {
        max_connections: 5,
        ..PostgresOptions::default()
    });
    let database = postgres.database("roomless").await;
    let yaml = upstream("app", &database.url()) + "pool: {timeout: 300ms}\n";
    let sidecar = Sidecar::start(yaml).await;
    eventually(SOON, "the monitor has its connection", async || {
        let status = sidecar.get("/v1/status").await;
        (status["upstreams"][0]["reachable"] == true)
            .then_some(())
            .ok_or(status)
    })
    .await;
    let _other = database.client().await;
    comes_to_find(&sidecar, "database", "failed", "0 of 5 connections left").await;
    let limited = "the database takes no more than";
    comes_to_find(&sidecar, "budget", "failed", limited).await;
}

#[tokio::test]
async fn an_unknown_upstream_and_a_socket_that_is_barred_are_told() {
    let (_database, sidecar) = place("barred", "listen: {allow_uids: 4242}\n").await;
    let wrong = ["--upstream", "nonsense"];
    finds(
        &sidecar,
        &wrong,
        "execution",
        "failed",
        "there is no upstream \"nonsense\"",
    )
    .await;
    finds(
        &sidecar,
        &[],
        "connect",
        "failed",
        "may not connect to this socket",
    )
    .await;
}

#[tokio::test]
async fn a_pooler_is_known_by_its_numbers() {
    let database = Postgres::shared().database("kept").await;
    let pgbouncer = PgBouncer::start(&database, &["pool_mode = transaction"]);
    let url = pgbouncer.url();
    let sidecar = Sidecar::start(format!("{}    kind: pooler\n", upstream("app", &url))).await;
    finds(&sidecar, &[], "tracker", "ok", "behind a pooler").await;
}

#[tokio::test]
async fn a_database_that_does_not_tell_who_is_there_is_told() {
    let (database, sidecar) = place("untold", "").await;
    let admin = database.client_as("postgres").await;
    let revoke = "REVOKE SELECT ON pg_catalog.pg_stat_activity FROM PUBLIC";
    admin.batch_execute(revoke).await.unwrap();
    finds(
        &sidecar,
        &[],
        "pg_stat_activity",
        "failed",
        "permission denied",
    )
    .await;
}
