//! How executions come and go as an app sees it: by request, by a name, without one; and what
//! ends them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::session::{assert_in, error, place};
use support::sidecar::upstream;
use support::{Database, Postgres, SOON, Sidecar, eventually, tools};
use tokio::process::{Child, Command};

async fn post(sidecar: &Sidecar, body: Value) -> (u16, Value) {
    sidecar.control("POST", "/v1/executions", Some(body)).await
}

async fn seen(sidecar: &Sidecar, id: &str) -> Value {
    sidecar.get(&format!("/v1/executions/{id}")).await
}

async fn ends(sidecar: &Sidecar, id: &str, reason: &str) {
    eventually(SOON, reason, async || {
        let seen = seen(sidecar, id).await;
        let fits = seen["state"] == "ended" && seen["reason"] == reason;
        fits.then_some(()).ok_or(seen)
    })
    .await;
}

async fn backends(database: &Database) -> usize {
    Postgres::shared().pooled(database).await.len()
}

#[tokio::test]
async fn the_url_of_an_execution_works_in_psql_as_it_is() {
    let (_database, sidecar) = place("in_psql", "").await;
    let (status, created) = post(&sidecar, json!({"id": "run-1@tool.a"})).await;
    assert_eq!(status, 201, "{created}");
    let said = Command::new(tools::postgres_program("psql"))
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command"])
        .arg("SELECT 'in psql'")
        .arg(created["url"].as_str().unwrap())
        .env("PGPORT", "1")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "in psql\n");
    let execution = seen(&sidecar, "run-1@tool.a").await;
    assert_eq!(
        (&execution["sessions_joined"], &execution["queries"]),
        (&json!(1), &json!(1)),
        "{execution}"
    );
}

#[tokio::test]
async fn a_name_is_the_same_execution_however_it_is_given() {
    let (_database, sidecar) = place("names", "").await;
    let ways: [&[(&str, &str)]; 4] = [
        &[("execpool.execution_id", "run")],
        &[("options", "-c execpool.execution_id=run")],
        &[("application_name", "execpool:run")],
        &[("application_name", "execpool:run:a tool")],
    ];
    let mut sessions = Vec::new();
    for way in ways {
        let (mut raw, told) = sidecar.started("app", way).await;
        assert_in(&told);
        let name = raw.ask("SHOW application_name").await;
        assert!(["", "a tool"].contains(&name.as_str()), "{way:?}: {name}");
        sessions.push(raw);
    }
    let execution = seen(&sidecar, "run").await;
    assert_eq!(
        (&execution["kind"], &execution["sessions"]),
        (&json!("implicit"), &json!(4)),
        "{execution}"
    );
}

#[tokio::test]
async fn an_implicit_execution_ends_when_idle_and_comes_back_as_the_next_generation() {
    let more = "execution: {idle_timeout: 500ms}\n";
    let (database, sidecar) = place("idle", more).await;
    for generation in 1..=2 {
        let mut raw = sidecar.session("app", "thinks").await;
        assert_eq!(raw.ask("SELECT 1").await, "1");
        let execution = seen(&sidecar, "thinks").await;
        assert_eq!(
            (&execution["kind"], &execution["generation"]),
            (&json!("implicit"), &json!(generation)),
            "{execution}"
        );
        // A session that is there, however silent, keeps it.
        raw.expect_silence(Duration::from_millis(1200)).await;
        drop(raw);
        ends(&sidecar, "thinks", "idle").await;
        assert_eq!(backends(&database).await, 0, "its connections are closed");
    }
    let list = sidecar.get("/v1/executions").await;
    assert_eq!(list.as_array().unwrap().len(), 1, "shared alone: {list}");
}

#[tokio::test]
async fn a_hold_keeps_an_implicit_execution_from_being_idle() {
    let more = "execution: {idle_timeout: 300ms}\nhold: {grace: 100ms}\n";
    let (_database, sidecar) = place("idle_held", more).await;
    let mut raw = sidecar.session("app", "thinks").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    let hold = sidecar.stream("/v1/executions/thinks/hold").await;
    drop(raw);
    sidecar.settles().await;
    let mut other = sidecar.session("app", "other").await;
    other.expect_silence(Duration::from_millis(1500)).await;
    assert_eq!(seen(&sidecar, "thinks").await["state"], "active");
    drop(hold);
    ends(&sidecar, "thinks", "hold_lost").await;
}

#[tokio::test]
async fn an_implicit_execution_is_adopted_with_its_sessions_and_limits_and_then_no_more() {
    let more = "execution: {idle_timeout: 300ms}\npool: {notice_after: 100ms, timeout: 10m}\n";
    let (_database, sidecar) = place("adopted", more).await;
    let mut first = sidecar.session("app", "run").await;
    let backend = first.backend().await;
    let body = json!({
        "id": "run", "deadline": "1h", "labels": {"agent": "a"},
        "pool": {"size": 1, "overflow": 0},
    });
    let (status, adopted) = post(&sidecar, body.clone()).await;
    assert_eq!(
        (status, &adopted["kind"], &adopted["generation"]),
        (200, &json!("explicit"), &json!(1)),
        "{adopted}"
    );
    let left = adopted["deadline_seconds"].as_f64().unwrap();
    assert!((3590.0..=3600.0).contains(&left), "{adopted}");
    assert_eq!(first.backend().await, backend, "nothing happens to it");
    let mut second = sidecar.session("app", "run").await;
    second.send(b"Q\0\0\0\x0dSELECT 1\0").await;
    let notice = second.read().await.expect("it waits").fields();
    assert!(
        notice[&'M'].contains("its pool of 1 is in use"),
        "{notice:?}"
    );
    for id in ["run", "shared"] {
        let (status, problem) = post(&sidecar, json!({"id": id})).await;
        assert_eq!(status, 409, "{problem}");
        assert!(problem["hint"].is_string(), "{problem}");
    }
    drop((first, second));
    let mut other = sidecar.session("app", "other").await;
    other.expect_silence(Duration::from_millis(1500)).await;
    let execution = seen(&sidecar, "run").await;
    assert_eq!(
        (&execution["state"], &execution["labels"]["agent"]),
        (&json!("active"), &json!("a")),
        "one that was asked for stays without a session: {execution}"
    );
}

#[tokio::test]
async fn a_session_without_a_name_joins_shared_which_nothing_ends() {
    let more = "execution: {idle_timeout: 200ms, max_duration: 1s}\n";
    let (_database, sidecar) = place("untagged", more).await;
    let (mut raw, told) = sidecar.started("app", &[]).await;
    assert_in(&told);
    let (mut named, told) = sidecar
        .started("app", &[("execpool.execution_id", "shared")])
        .await;
    assert_in(&told);
    for session in [&mut raw, &mut named] {
        assert_eq!(session.ask("SELECT 1").await, "1");
    }
    raw.expect_silence(Duration::from_millis(2500)).await;
    assert_eq!(raw.ask("SELECT 2").await, "2");
    let shared = seen(&sidecar, "shared").await;
    assert_eq!(
        (&shared["kind"], &shared["sessions"], &shared["generation"]),
        (&json!("shared"), &json!(2), &json!(1)),
        "{shared}"
    );
    assert_eq!(shared["deadline_seconds"], Value::Null, "{shared}");
    drop((raw, named));
    sidecar.settles().await;
    assert_eq!(seen(&sidecar, "shared").await["state"], "active");
}

#[tokio::test]
async fn a_session_without_a_name_is_refused_where_one_is_demanded() {
    let more = "execution: {untagged: reject}\n";
    let (_database, sidecar) = place("demanded", more).await;
    let (_, told) = sidecar.started("app", &[]).await;
    let fields = error(&told);
    assert_eq!(fields[&'C'], "28000", "{fields:?}");
    assert!(fields[&'H'].contains("execpool.execution_id"), "{fields:?}");
    assert_eq!(
        sidecar.session("app", "run").await.ask("SELECT 1").await,
        "1"
    );
}

/// A process that holds an execution, and does nothing else.
async fn holder(sidecar: &Sidecar, id: &str) -> Child {
    const PROGRAM: &str = "
import socket, sys
hold = socket.socket(socket.AF_UNIX)
hold.connect(sys.argv[1] + '/control.sock')
hold.sendall(b'GET /v1/executions/%b/hold HTTP/1.1\\r\\nhost: e\\r\\n\\r\\n' % sys.argv[2].encode())
while hold.recv(4096):
    pass
";
    let before = seen(sidecar, id).await["holds"].as_u64().unwrap();
    let child = Command::new(tools::python())
        .args(["-c", PROGRAM, sidecar.pg_host(), id])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually(SOON, "it is held", async || {
        let seen = seen(sidecar, id).await;
        (seen["holds"] == before + 1).then_some(()).ok_or(seen)
    })
    .await;
    child
}

#[tokio::test]
async fn an_execution_ends_when_the_last_process_that_holds_it_is_killed() {
    let (database, sidecar) = place("processes", "hold: {grace: 200ms}\n").await;
    assert_eq!(post(&sidecar, json!({"id": "run"})).await.0, 201);
    let mut one = holder(&sidecar, "run").await;
    let mut two = holder(&sidecar, "run").await;
    let mut raw = sidecar.session("app", "run").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    one.kill().await.unwrap();
    raw.expect_silence(Duration::from_secs(1)).await;
    assert_eq!(raw.ask("SELECT 1").await, "1", "another one holds it");
    two.kill().await.unwrap();
    let fields = raw.expect_error().await;
    assert_eq!(fields[&'C'], "57P01", "{fields:?}");
    raw.expect_closed().await;
    ends(&sidecar, "run", "hold_lost").await;
    assert_eq!(backends(&database).await, 0);
}

#[tokio::test]
async fn ends_that_are_asked_for_at_once_are_one_end() {
    let (_database, sidecar) = place("twice", "").await;
    let mut raw = sidecar.session("app", "run").await;
    raw.query("BEGIN").await;
    let ends = (0..8).map(|_| sidecar.control("DELETE", "/v1/executions/run", None));
    for (status, ended) in futures_util::future::join_all(ends).await {
        assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
        assert_eq!(ended["generation"], 1, "{ended}");
    }
    let ended = &sidecar.get("/v1/status").await["executions"]["ended"];
    assert_eq!(ended["deleted"], 1, "{ended}");
    let (status, problem) = sidecar
        .control("DELETE", "/v1/executions/nobody", None)
        .await;
    assert_eq!(status, 404, "{problem}");
}

#[tokio::test]
async fn an_end_reaches_every_upstream() {
    let (one, two) = (
        Postgres::shared().database("one").await,
        Postgres::shared().database("two").await,
    );
    let yaml = format!(
        "{}  - name: \"two\"\n    url: \"{}\"\n",
        upstream("one", &one.url()),
        two.url()
    );
    let sidecar = Sidecar::start(yaml).await;
    let mut sessions = Vec::new();
    for name in ["one", "two", "one", "two"] {
        let mut raw = sidecar.session(name, "run").await;
        assert_eq!(raw.ask("SELECT current_database()").await, name);
        sessions.push(raw);
    }
    let (status, ended) = sidecar.control("DELETE", "/v1/executions/run", None).await;
    assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
    assert_eq!(ended["peak_connections"], 4, "{ended}");
    assert_eq!((backends(&one).await, backends(&two).await), (0, 0));
    for mut raw in sessions {
        assert_eq!(raw.expect_error().await[&'C'], "57P01");
    }
}
