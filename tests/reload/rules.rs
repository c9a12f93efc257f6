//! What executions, errors, the log and the end of the process follow, changed while they go on.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use postgres_protocol::message::frontend;

use super::support::eventually;
use super::support::session::{assert_in, error};
use super::{SOON, place, told};

#[tokio::test]
async fn the_status_is_logged_as_often_as_is_said_now_and_no_more_when_it_is_off() {
    let (_database, sidecar, yaml) = place("status_log", "").await;
    let lines = || told(&sidecar, "\"message\":\"status\"");
    sidecar
        .reload(&format!("{yaml}telemetry: {{status_log: 1s}}\n"))
        .await;
    eventually(SOON, "it is logged again and again", async || {
        if lines() > 1 { Ok(()) } else { Err(lines()) }
    })
    .await;
    sidecar
        .reload(&format!("{yaml}telemetry: {{status_log: off}}\n"))
        .await;
    // What was told before that is read by then.
    sidecar.logged(&["telemetry.status_log: 1s → off"]).await;
    let before = lines();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    // One may have been on its way.
    assert!(lines() <= before + 1);
}

#[tokio::test]
async fn an_implicit_execution_that_is_idle_already_follows_the_new_time() {
    let (_database, sidecar, yaml) = place("idle", "").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("SELECT 1").await;
    drop(raw);
    sidecar.settles().await;
    sidecar
        .reload(&format!("{yaml}execution: {{idle_timeout: 100ms}}\n"))
        .await;
    eventually(SOON, "it has left", async || {
        let list = sidecar.get("/v1/executions").await.to_string();
        if list.contains("\"id\":\"a\"") {
            Err(list)
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test]
async fn a_hold_that_is_lost_later_has_the_new_grace() {
    let (_database, sidecar, yaml) = place("hold", "hold: {grace: 1h}\n").await;
    let id = serde_json::json!({"id": "a"});
    sidecar.control("POST", "/v1/executions", Some(id)).await;
    let hold = sidecar.stream("/v1/executions/a/hold").await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    sidecar
        .reload(&format!("{yaml}hold: {{grace: 0s}}\n"))
        .await;
    drop(hold);
    assert_eq!(raw.expect_error().await[&'C'], "57P01");
}

#[tokio::test]
async fn an_error_tells_of_holders_what_is_allowed_now() {
    let one = "budget: {size: 1, overflow: 0}\n";
    let (_database, sidecar, yaml) = place("holders", one).await;
    let mut holder = sidecar.session("app", "holder").await;
    holder.query("SELECT 1").await;
    let wait = format!("{one}pool: {{timeout: 100ms}}\n");
    sidecar.reload(&format!("{yaml}{wait}")).await;
    let mut raw = sidecar.session("app", "b").await;
    let detail = error(&raw.query("SELECT 1").await)[&'D'].clone();
    assert!(detail.contains("execution holder"), "{detail}");
    sidecar
        .reload(&format!("{yaml}{wait}errors: {{holders: none}}\n"))
        .await;
    let detail = error(&raw.query("SELECT 1").await)[&'D'].clone();
    assert!(!detail.contains("holder"), "{detail}");
}

#[tokio::test]
async fn any_user_is_let_in_from_when_it_is_allowed() {
    let (_database, sidecar, yaml) = place("any_user", "").await;
    let begin = async || {
        let mut raw = sidecar.raw().await;
        raw.startup(&[("user", "somebody"), ("database", "app")])
            .await
    };
    assert_eq!(error(&begin().await)[&'C'], "28000");
    sidecar.reload(&format!("{yaml}    any_user: true\n")).await;
    assert_in(&begin().await);
}

#[tokio::test]
async fn the_end_of_the_process_follows_the_grace_of_the_last_reload() {
    let (_database, mut sidecar, yaml) = place("grace", "shutdown: {grace: 1h}\n").await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    sidecar
        .reload(&format!("{yaml}shutdown: {{grace: 3s}}\n"))
        .await;
    let begun = Instant::now();
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(raw.expect_error().await[&'C'], "57P01");
    assert_eq!(sidecar.exited(SOON).await.code(), Some(0));
    assert!(begun.elapsed() > Duration::from_millis(900));
}

#[tokio::test]
async fn running_queries_get_the_grace_of_the_last_reload() {
    let (database, sidecar, yaml) = place("end_grace", "").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("SELECT 1").await;
    sidecar
        .reload(&format!("{yaml}execution: {{grace: 5m}}\n"))
        .await;
    // It goes on for as long as we hold the lock that it wants.
    let other = database.client().await;
    let lock = "SELECT pg_advisory_lock(7)";
    other.batch_execute(lock).await.unwrap();
    raw.send_with(|buffer| frontend::query(lock, buffer).unwrap())
        .await;
    sidecar.session_is("a", "active").await;
    let released = async {
        eventually(SOON, "it is ending", async || {
            let seen = sidecar.get("/v1/executions/a").await;
            (seen["state"] == "ending").then_some(()).ok_or(seen)
        })
        .await;
        let unlock = "SELECT pg_advisory_unlock(7)";
        other.batch_execute(unlock).await.unwrap();
    };
    let end = sidecar.control("DELETE", "/v1/executions/a", None);
    let ((status, ended), ()) = tokio::join!(end, released);
    assert_eq!((status, &ended["complete"]), (200, &true.into()), "{ended}");
    let messages = raw.read_until(b'Z').await;
    assert!(
        messages.iter().any(|message| message.kind == b'D'),
        "{messages:?}"
    );
}
