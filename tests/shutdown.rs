//! The end of the process: who is left is served within the grace, then everything ends and nothing
//! stays; a sidecar that is killed leaves nothing running either; a log that nobody reads stalls
//! nobody.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::session::{nothing_left, place};
use support::sidecar::upstream;
use support::{Postgres, Raw, SOON, eventually};

async fn is_told(raw: &mut Raw) {
    let fields = raw.expect_error().await;
    assert_eq!(fields[&'C'], "57P01", "{fields:?}");
    assert!(
        fields[&'M'].contains("execpool is shutting down"),
        "{fields:?}"
    );
    raw.expect_closed().await;
}

#[tokio::test]
async fn without_a_session_it_ends_at_once_and_leaves_nothing() {
    let (database, mut sidecar) = place("at_once", "shutdown: {grace: 10m}\n").await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    drop(raw);
    sidecar.settles().await;
    sidecar.signal(Signal::SIGTERM);
    let status = sidecar.exited(SOON).await;
    assert_eq!(status.code(), Some(0));
    assert!(!sidecar.socket().exists() && !sidecar.control_socket().exists());
    nothing_left(&database).await;
}

#[tokio::test]
async fn a_session_that_is_left_is_served_until_it_goes() {
    let (_database, mut sidecar) = place("served", "shutdown: {grace: 10m}\n").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("BEGIN").await;
    sidecar.signal(Signal::SIGTERM);
    sidecar.drains().await;
    raw.expect_silence(Duration::from_millis(500)).await;
    assert_eq!(raw.ask("SELECT 'still served'").await, "still served");
    raw.query("COMMIT").await;
    drop(raw);
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn a_session_that_stays_is_ended_two_seconds_before_the_grace_is_over() {
    let mut longest = Duration::MAX;
    // A machine that stands still may lengthen it, but not time and again.
    for turn in 0..5 {
        let name = format!("stays_{turn}");
        let (database, mut sidecar) = place(&name, "shutdown: {grace: 3s}\n").await;
        let mut idle = sidecar.session("app", "a").await;
        assert_eq!(idle.ask("SELECT 1").await, "1");
        let mut busy = sidecar.session("app", "a").await;
        busy.send(b"Q\0\0\0\x19SELECT pg_sleep(600)\0").await;
        sidecar.session_is("a", "active").await;
        let started = Instant::now();
        sidecar.signal(Signal::SIGTERM);
        is_told(&mut idle).await;
        is_told(&mut busy).await;
        let took = started.elapsed();
        assert!(took > Duration::from_millis(900), "{took:?}");
        assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
        nothing_left(&database).await;
        longest = longest.min(took);
        if longest < Duration::from_secs(3) {
            return;
        }
    }
    panic!("it is at its shortest {longest:?}");
}

#[tokio::test]
async fn a_second_signal_ends_everything_at_once() {
    let (database, mut sidecar) = place("second_signal", "shutdown: {grace: 10m}\n").await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    sidecar.signal(Signal::SIGTERM);
    sidecar.drains().await;
    raw.expect_silence(Duration::from_millis(300)).await;
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
    nothing_left(&database).await;
}

#[tokio::test]
async fn beside_a_live_app_it_stays_for_the_whole_grace() {
    let more = "shutdown: {grace: 12s, mode: plain}\n";
    let (_database, mut sidecar) = place("plain", more).await;
    let started = Instant::now();
    sidecar.signal(Signal::SIGTERM);
    sidecar.drains().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 'served'").await, "served");
    drop(raw);
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
    assert!(
        started.elapsed() > Duration::from_millis(9900),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_hold_counts_as_somebody_who_is_left() {
    let (_database, mut sidecar) = place("held", "shutdown: {grace: 10m}\n").await;
    let id = serde_json::json!({"id": "a"});
    assert_eq!(
        sidecar.control("POST", "/v1/executions", Some(id)).await.0,
        201
    );
    let hold = sidecar.stream("/v1/executions/a/hold").await;
    sidecar.signal(Signal::SIGTERM);
    sidecar.drains().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(sidecar.session("app", "a").await.ask("SELECT 1").await, "1");
    drop(hold);
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn a_sidecar_that_is_killed_leaves_no_backend() {
    let (database, sidecar) = place("killed", "").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("BEGIN").await;
    sidecar.signal(Signal::SIGKILL);
    raw.expect_closed().await;
    nothing_left(&database).await;
}

#[tokio::test]
async fn a_sidecar_that_was_killed_is_in_nobodys_way() {
    let (_database, sidecar) = place("replaced", "").await;
    let sidecar = sidecar.replaced().await;
    assert_eq!(sidecar.session("app", "a").await.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn an_interrupt_ends_it_as_well() {
    let (database, mut sidecar) = place("interrupt", "shutdown: {grace: 10m}\n").await;
    assert_eq!(sidecar.session("app", "a").await.ask("SELECT 1").await, "1");
    sidecar.settles().await;
    sidecar.signal(Signal::SIGINT);
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
    nothing_left(&database).await;
}

#[tokio::test]
async fn an_end_that_is_under_way_does_not_outlast_the_process() {
    let (database, mut sidecar) = place("under_way", "shutdown: {grace: 3s}\n").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.send(b"Q\0\0\0\x19SELECT pg_sleep(600)\0").await;
    sidecar.session_is("a", "active").await;
    let path = "/v1/executions/a?grace=1h";
    let end = sidecar.control("DELETE", path, None);
    let _ = tokio::time::timeout(Duration::from_millis(200), end).await;
    eventually(SOON, "it is under way", async || {
        let execution = sidecar.get("/v1/executions/a").await;
        let is_ending = execution["state"] == "ending";
        is_ending.then_some(()).ok_or(execution)
    })
    .await;
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(raw.expect_error().await[&'C'], "57P01");
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
    nothing_left(&database).await;
}

#[tokio::test]
async fn the_control_socket_answers_until_the_end() {
    let (_database, mut sidecar) = place("answers", "shutdown: {grace: 10m}\n").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("BEGIN").await;
    sidecar.signal(Signal::SIGTERM);
    sidecar.drains().await;
    raw.expect_silence(Duration::from_millis(300)).await;
    let (status, ended) = sidecar.control("DELETE", "/v1/executions/a", None).await;
    assert_eq!(status, 200, "{ended}");
    assert_eq!(raw.expect_error().await[&'C'], "57P01");
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn a_log_that_nobody_reads_stalls_no_query() {
    let database = Postgres::shared().database("unread").await;
    let dir = tempfile::Builder::new()
        .prefix("ep-")
        .tempdir_in("/tmp")
        .unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_execpool"))
        .arg("run")
        .env("DATABASE_URL", database.url())
        .env("EXECPOOL_LISTEN__DIR", dir.path())
        .env("EXECPOOL_TELEMETRY__LISTEN", "off")
        .env("EXECPOOL_LOG__LEVEL", "trace")
        .stderr(std::process::Stdio::piped()) // and never read
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let url = format!("postgresql://app@/unread?host={}", dir.path().display());
    let visit = async || {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        client
            .simple_query("SELECT 1")
            .await
            .map_err(|error| error.to_string())
    };
    eventually(SOON, "it serves", &visit).await;
    // Each visit logs some lines: together much more than a pipe and the queue hold.
    for _ in 0..3000 {
        let visited = tokio::time::timeout(SOON, visit()).await;
        visited
            .expect("it does not stall")
            .expect("it goes on serving");
    }
    child.start_kill().unwrap();
    child.wait().await.unwrap();
}

#[tokio::test]
async fn a_hangup_ends_nothing() {
    let (database, sidecar) = place("hangup", "").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("BEGIN").await;
    let yaml = upstream("app", &database.url()) + "budget: {size: 7}\n";
    sidecar.configure(&yaml);
    sidecar.signal(Signal::SIGHUP);
    sidecar.logged(&["the configuration is applied"]).await;
    assert_eq!(raw.ask("SELECT 'served'").await, "served");
}
