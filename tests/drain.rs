//! Drain, SIGTERM and quit: what a preStop hook and the end of a pod promise to the queries that
//! are there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use support::load::{pgbench, prepare, psycopg};
use support::session::{nothing_left, place};
use support::{SOON, Sidecar, eventually};
use tokio::process::Command;

/// Runs a command of the command line; its exit code and what it said.
async fn execpool(sidecar: &Sidecar, command: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(command.split(' '))
        .env_clear()
        .env("EXECPOOL_LISTEN__DIR", sidecar.dir())
        .output();
    let output = tokio::time::timeout(SOON, output).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_drain_marks_and_ends_nothing_and_may_be_repeated() {
    let (_database, sidecar) = place("marks", "").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("BEGIN").await;
    assert_eq!(sidecar.get("/v1/status").await["draining"], false);
    for _ in 0..2 {
        let (code, said) = execpool(&sidecar, "drain").await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("1 sessions are still served"), "{said}");
        let status = sidecar.get("/v1/status").await;
        assert_eq!(status["draining"], true, "{status}");
        assert_eq!(status["not_ready"], "it is draining", "{status}");
    }
    assert_eq!(raw.ask("SELECT 'served'").await, "served");
    let mut new = sidecar.session("app", "b").await;
    assert_eq!(new.ask("SELECT 'let in'").await, "let in");
}

#[tokio::test]
async fn a_drain_closes_the_reserve_and_lets_nothing_into_it() {
    let more = "budget: {size: 5, overflow: 0, warm: 2}\n";
    let (_database, sidecar) = place("no_reserve", more).await;
    let use_and_end = async |execution: &str| {
        let mut raw = sidecar.session("app", execution).await;
        raw.query("SELECT 1").await;
        drop(raw);
        sidecar.settles().await;
        let path = format!("/v1/executions/{execution}");
        let (status, _) = sidecar.control("DELETE", &path, None).await;
        assert_eq!(status, 200);
    };
    let budget_is = async |claim: &str, reserve: u64| {
        eventually(SOON, claim, async || {
            let budget = sidecar.get("/v1/status").await["budget"].clone();
            if budget["reserve"] == reserve && budget["open"] == reserve {
                Ok(())
            } else {
                Err(budget)
            }
        })
        .await;
    };
    use_and_end("a").await;
    budget_is("its connection is in the reserve", 1).await;
    let (status, _) = sidecar.control("POST", "/v1/drain", None).await;
    assert_eq!(status, 200);
    budget_is("the reserve is closed", 0).await;
    use_and_end("b").await;
    budget_is("nothing has come into it", 0).await;
}

#[tokio::test]
async fn under_load_drain_and_sigterm_fail_no_query_that_ends_within_the_grace() {
    let more = "shutdown: {grace: 10m}\nbudget: {size: 30, overflow: 10}\n";
    let (database, mut sidecar) = place("within", more).await;
    prepare(&database).await;
    let host = sidecar.pg_host();
    let loads = [
        pgbench(host, "app", 600, &["-c", "3", "-M", "simple"]),
        pgbench(host, "app", 600, &["-c", "3", "-M", "prepared"]),
        psycopg(&sidecar.url("app"), 600),
    ];
    eventually(SOON, "all of them work", async || {
        let used = sidecar.get("/v1/status").await["budget"]["used"].clone();
        if used.as_u64() >= Some(9) {
            Ok(())
        } else {
            Err(used)
        }
    })
    .await;
    let (code, said) = execpool(&sidecar, "drain").await;
    assert_eq!(code, Some(0), "{said}");
    sidecar.signal(Signal::SIGTERM);
    sidecar.drains().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for load in &loads {
        load.stop();
    }
    for load in loads {
        load.succeeds().await;
    }
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn a_second_sigterm_under_load_is_immediate_and_leaves_nothing() {
    let (database, mut sidecar) = place("second", "shutdown: {grace: 10m}\n").await;
    prepare(&database).await;
    let _load = pgbench(sidecar.pg_host(), "app", 600, &["-c", "4"]);
    let mut busy = sidecar.session("app", "a").await;
    busy.send(b"Q\0\0\0\x19SELECT pg_sleep(600)\0").await;
    sidecar.session_is("a", "active").await;
    sidecar.signal(Signal::SIGTERM);
    sidecar.drains().await;
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
    nothing_left(&database).await;
}

#[tokio::test]
async fn quit_ends_it_as_soon_as_nobody_is_left_also_beside_a_live_app() {
    let more = "shutdown: {grace: 10m, mode: plain}\n";
    let (_database, mut sidecar) = place("quit", more).await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("BEGIN").await;
    for _ in 0..2 {
        let (status, answer) = sidecar.control("POST", "/quitquitquit", None).await;
        assert_eq!((status, &answer["quitting"]), (200, &json!(true)));
    }
    raw.expect_silence(Duration::from_millis(300)).await;
    assert_eq!(raw.ask("SELECT 'served'").await, "served");
    raw.query("COMMIT").await;
    drop(raw);
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn quit_after_sigterm_cuts_the_wait_beside_a_live_app_short() {
    let more = "shutdown: {grace: 10m, mode: plain}\n";
    let (_database, mut sidecar) = place("quit_after", more).await;
    sidecar.signal(Signal::SIGTERM);
    sidecar.drains().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (status, _) = sidecar.control("POST", "/quitquitquit", None).await;
    assert_eq!(status, 200, "it still serves");
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn quit_with_a_session_that_stays_ends_it_within_the_grace() {
    let (_database, mut sidecar) = place("quit_stays", "shutdown: {grace: 3s}\n").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("BEGIN").await;
    sidecar.control("POST", "/quitquitquit", None).await;
    assert_eq!(raw.expect_error().await[&'C'], "57P01");
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
}
