//! A story for each kind of entry.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::proxy::{Fault, Proxy};
use super::support::session::{error, place, told_pid};
use super::support::sidecar::upstream;
use super::support::{Postgres, Raw, Sidecar, eventually};
use super::{SOON, Told, seconds, until};
use postgres_protocol::message::frontend;

/// A session that has queried, so that it holds a server connection.
async fn holding(sidecar: &Sidecar, execution: &str) -> Raw {
    let mut raw = sidecar.session("app", execution).await;
    raw.query("SELECT 1").await;
    raw
}

async fn post(sidecar: &Sidecar, path: &str, body: Option<Value>) -> Value {
    let (status, answer) = sidecar.control("POST", path, body).await;
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

#[tokio::test]
async fn a_session_is_told_from_its_coming_to_its_going() {
    let (_database, sidecar) = place("coming", "").await;
    let named = [
        ("execpool.execution_id", "run"),
        ("execpool.caller", "agent.py:7 run"),
        ("execpool.label", "search"),
        ("application_name", "tool"),
    ];
    let (mut raw, told) = sidecar.started("app", &named).await;
    let pid = told_pid(&told);
    for _ in 0..3 {
        raw.query("SELECT 1").await;
    }
    let told = Told::of(&sidecar, "run").await;
    let queries = told.one("session.queries");
    assert_eq!(queries["queries"], 3, "{queries}");
    assert_eq!(queries["ongoing"], true, "{queries}");
    raw.send_with(frontend::terminate).await;
    raw.expect_closed().await;
    let told = until(&sidecar, "run", "session.left").await;
    assert_eq!(
        told.names(),
        [
            "execution.began",
            "session.joined",
            "checkout.waiting",
            "checkout.ready",
            "checkout.lent",
            "session.queries",
            "checkout.returned",
            "session.left",
        ]
    );
    assert_eq!(told.answer["events_dropped"], 0);
    let began = told.one("execution.began");
    assert_eq!(
        (&began["kind"], seconds(began, "offset_seconds")),
        (&json!("implicit"), 0.0)
    );
    assert_eq!(seconds(began, "deadline_seconds"), 1800.0);
    assert_eq!(began.get("session_id"), None, "{began}");
    let joined = told.one("session.joined");
    for (field, value) in [
        ("caller", json!("agent.py:7 run")),
        ("label", json!("search")),
        ("application_name", json!("tool")),
        ("peer_pid", json!(std::process::id())),
    ] {
        assert_eq!(joined[field], value, "{joined}");
    }
    // Who it is is told once; which session, always.
    for event in &told.events[2..] {
        assert_eq!(event["session_id"], joined["session_id"], "{event}");
        assert_eq!(event.get("caller"), None, "{event}");
        assert!(event["at"].as_str().unwrap().ends_with('Z'), "{event}");
    }
    assert_eq!(told.one("checkout.waiting")["limit"], "dialling");
    for name in ["checkout.ready", "checkout.lent"] {
        assert_eq!(told.one(name)["server_pid"], pid);
    }
    let queries = told.one("session.queries");
    assert_eq!(queries["queries"], 3, "{queries}");
    assert_eq!(queries.get("ongoing"), None, "{queries}");
    assert!(seconds(queries, "active_seconds") > 0.0, "{queries}");
    assert!(
        seconds(queries, "seconds") >= seconds(queries, "active_seconds"),
        "{queries}"
    );
    assert_eq!(told.one("checkout.returned")["how"], "clean");
    let left = told.one("session.left");
    assert_eq!(left["queries"], 3, "{left}");
    assert!(seconds(left, "held_seconds") > 0.0, "{left}");
}

#[tokio::test]
async fn how_a_connection_came_back_is_told() {
    let database = Postgres::shared().database("came_back").await;
    let yaml = upstream("app", &database.url())
        + &upstream("broken", &database.url()).replace("upstreams:\n", "")
        + "    pool: {reset: 'SELECT 1/0'}\n";
    let sidecar = Sidecar::start(yaml).await;
    let mut raw = holding(&sidecar, "open").await;
    raw.query("BEGIN").await;
    drop(raw);
    let told = until(&sidecar, "open", "checkout.returned").await;
    assert_eq!(told.one("checkout.returned")["how"], "rolled_back");
    let mut raw = sidecar.session("broken", "unclean").await;
    raw.query("SELECT 1").await;
    drop(raw);
    let told = until(&sidecar, "unclean", "checkout.returned").await;
    assert_eq!(told.one("checkout.returned")["how"], "reset_failed");
    let mut raw = holding(&sidecar, "killed").await;
    raw.query("SELECT pg_terminate_backend(pg_backend_pid())")
        .await;
    let told = until(&sidecar, "killed", "checkout.returned").await;
    assert_eq!(told.one("checkout.returned")["how"], "closed");
    assert_eq!(told.one("session.errors")["sqlstate"], "57P01");
}

#[tokio::test]
async fn a_wait_is_told_with_what_it_is_for_and_how_it_ended() {
    let (database, sidecar) = place("waits", "pool: {size: 1, overflow: 0}\n").await;
    let holder = holding(&sidecar, "run").await;
    let waits = async |pool: &str| {
        let pool = format!("pool: {{size: 1, overflow: 0, {pool}}}\n");
        let yaml = upstream("app", &database.url()) + &pool;
        sidecar.reload(&yaml).await
    };
    waits("timeout: 1s, notice_after: 50ms").await;
    let mut late = sidecar.session("app", "run").await;
    late.send_with(|out| frontend::query("SELECT 1", out).unwrap())
        .await;
    let told = until(&sidecar, "run", "checkout.notice").await;
    let notice = told.one("checkout.notice");
    assert_eq!(notice["limit"], "pool", "{notice}");
    assert!(seconds(notice, "waited_seconds") >= 0.05, "{notice}");
    let refused = error(&late.read_until(b'Z').await);
    assert_eq!(refused[&'C'], "53300");
    let told = until(&sidecar, "run", "checkout.refused").await;
    let refused = told.one("checkout.refused");
    assert_eq!(
        (&refused["limit"], &refused["sqlstate"]),
        (&json!("pool"), &json!("53300"))
    );
    assert!(seconds(refused, "waited_seconds") >= 1.0, "{refused}");
    // Again, and this time it gets it.
    waits("timeout: 5m").await;
    late.send_with(|out| frontend::query("SELECT 1", out).unwrap())
        .await;
    sidecar.session_is("run", "waiting").await;
    drop(holder);
    late.read_until(b'Z').await;
    let told = Told::of(&sidecar, "run").await;
    told.assert_in_order(&["checkout.refused", "checkout.waiting", "checkout.lent"]);
    let lent = told.all("checkout.lent");
    assert!(seconds(lent[1], "waited_seconds") > 0.0, "{}", lent[1]);
}

#[tokio::test]
async fn a_dial_that_fails_is_told() {
    let database = Postgres::shared().database("fails").await;
    let url = database.url().replace("/fails", "/nowhere");
    let sidecar = Sidecar::start(upstream("app", &url)).await;
    let (_raw, told) = sidecar
        .started("app", &[("execpool.execution_id", "run")])
        .await;
    assert_eq!(error(&told)[&'C'], "3D000");
    let told = until(&sidecar, "run", "session.left").await;
    assert_eq!(told.one("checkout.failed")["sqlstate"], "3D000");
}

#[tokio::test]
async fn errors_of_the_server_are_codes_that_are_counted() {
    let (_database, sidecar) = place("codes", "").await;
    let mut raw = sidecar.session("app", "run").await;
    for sql in ["SELECT 1/0", "SELECT nothing", "SELECT 1", "SELECT 1/0"] {
        raw.query(sql).await;
    }
    drop(raw);
    let told = until(&sidecar, "run", "session.left").await;
    let queries = told.one("session.queries");
    assert_eq!(
        (&queries["queries"], &queries["class"]),
        (&json!(4), &json!("22"))
    );
    let errors = told.one("session.errors");
    assert_eq!(
        (&errors["sqlstate"], &errors["count"], &errors["phase"]),
        (&json!("22012"), &json!(3), &json!("relay"))
    );
}

#[tokio::test]
async fn a_transaction_that_is_left_open_is_told_while_it_is_and_after() {
    let more = "session:\n  idle_in_transaction: {notice: 1500ms}\n  leak_after: 1500ms\n";
    let (_database, sidecar) = place("left_open", more).await;
    let mut raw = sidecar.session("app", "run").await;
    // At once: what a busy machine adds between them would be told, too.
    let statements = ["SELECT 1", "BEGIN", "SELECT 'secret'"];
    raw.send_with(|out| {
        for sql in statements {
            frontend::query(sql, out).unwrap();
        }
    })
    .await;
    for _ in statements {
        raw.read_until(b'Z').await;
    }
    let told = until(&sidecar, "run", "session.idle_in_transaction").await;
    let idle = told.one("session.idle_in_transaction");
    assert_eq!(idle["ongoing"], true, "{idle}");
    assert!(seconds(idle, "seconds") >= 1.0, "{idle}");
    told.assert_in_order(&["session.queries", "session.idle_in_transaction"]);
    assert_eq!(told.one("session.transaction_began")["ongoing"], true);
    until(&sidecar, "run", "session.limit").await;
    until(&sidecar, "run", "session.leak_suspect").await;
    raw.query("COMMIT").await;
    raw.query("SELECT 1").await;
    let told = Told::of(&sidecar, "run").await;
    told.assert_in_order(&[
        "checkout.lent",
        "session.transaction_began",
        "session.idle_in_transaction",
        "session.limit",
        "session.leak_recovered",
        "session.transaction_ended",
        "session.queries",
    ]);
    let limit = told.one("session.limit");
    assert_eq!(limit["limit"], "session.idle_in_transaction.notice");
    assert!(seconds(limit, "seconds") >= 1.5, "{limit}");
    // A busy machine may make it one again before it asks.
    for name in ["session.leak_suspect", "session.leak_recovered"] {
        let told = told.all(name).into_iter();
        assert!(
            told.map(|leak| seconds(leak, "seconds"))
                .all(|it| it >= 1.5)
        );
    }
    let idle = told.one("session.idle_in_transaction");
    assert_eq!(idle.get("ongoing"), None, "{idle}");
    let ended = told.one("session.transaction_ended");
    assert!(
        seconds(ended, "seconds") >= seconds(idle, "seconds"),
        "{ended}"
    );
    // Outside of a transaction, too.
    eventually(SOON, "it is idle", async || {
        let told = Told::of(&sidecar, "run").await;
        let last = told.all("session.idle").pop().cloned();
        let is_idle = last.is_some_and(|idle| idle["ongoing"] == true);
        is_idle.then_some(()).ok_or(told.answer)
    })
    .await;
}

#[tokio::test]
async fn who_cancels_is_told() {
    let (database, sidecar) = place("cancels", "").await;
    let working = async |execution: &'static str| {
        let named = [("execpool.execution_id", execution)];
        let (mut raw, told) = sidecar.started("app", &named).await;
        let key = told.iter().find(|message| message.kind == b'K').unwrap();
        let key = key.key();
        raw.send_with(|out| frontend::query("SELECT pg_sleep(60)", out).unwrap())
            .await;
        // A server that has not begun with it ignores a cancel request.
        eventually(SOON, "the server runs it", async || {
            let filter = format!(
                "datname = '{}' AND state = 'active' AND query LIKE 'SELECT pg_sleep%'",
                database.name
            );
            let active = Postgres::shared().activity(&filter).await;
            (active.len() == 1).then_some(()).ok_or(active)
        })
        .await;
        (raw, key)
    };
    let (mut raw, (pid, key)) = working("client").await;
    let mut request = sidecar.raw().await;
    request
        .send_with(|out| frontend::cancel_request(pid, key, out))
        .await;
    assert_eq!(error(&raw.read_until(b'Z').await)[&'C'], "57014");
    let told = until(&sidecar, "client", "session.cancelled").await;
    assert_eq!(told.one("session.cancelled")["origin"], "client");
    drop(raw);
    sidecar.settles().await;

    let (mut raw, _) = working("request").await;
    let id = sidecar.sessions_of("request").await[0]["id"].clone();
    post(&sidecar, &format!("/v1/sessions/{id}/cancel"), None).await;
    assert_eq!(error(&raw.read_until(b'Z').await)[&'C'], "57014");
    let told = until(&sidecar, "request", "session.cancelled").await;
    assert_eq!(told.one("session.cancelled")["origin"], "request");
    drop(raw);
    sidecar.settles().await;

    let (raw, _) = working("disconnect").await;
    drop(raw);
    let told = until(&sidecar, "disconnect", "session.left").await;
    assert_eq!(told.one("session.cancelled")["origin"], "disconnect");
    sidecar.settles().await;

    let (_raw, _) = working("ended").await;
    let id = sidecar.sessions_of("ended").await[0]["id"].clone();
    let (status, _) = sidecar
        .control("DELETE", &format!("/v1/sessions/{id}"), None)
        .await;
    assert_eq!(status, 200);
    let told = until(&sidecar, "ended", "session.left").await;
    told.assert_in_order(&[
        "session.dismissed",
        "session.cancelled",
        "checkout.returned",
    ]);
    assert_eq!(told.one("session.cancelled")["origin"], "ended");
}

#[tokio::test]
async fn a_session_that_is_ended_to_make_room_or_over_a_limit_is_told() {
    let more = "cleanup: {idle_in_transaction: 100ms}\nsession: {leak_after: 1h}\n";
    let (_database, sidecar) = place("make_room", more).await;
    let mut raw = holding(&sidecar, "reclaimed").await;
    raw.query("BEGIN").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    post(
        &sidecar,
        "/v1/cleanup",
        Some(json!({"execution": "reclaimed"})),
    )
    .await;
    let told = until(&sidecar, "reclaimed", "session.left").await;
    told.assert_in_order(&["session.leak_suspect", "session.reclaimed", "session.left"]);
    let more = "session: {idle_in_transaction: {end: 1s}}\n";
    let (_database, sidecar) = place("over_a_limit", more).await;
    let mut raw = holding(&sidecar, "limited").await;
    raw.query("BEGIN").await;
    let told = until(&sidecar, "limited", "session.left").await;
    let limit = told.one("session.limit");
    assert_eq!(limit["limit"], "session.idle_in_transaction.end");
}

#[tokio::test]
async fn an_execution_is_told_from_its_beginning_to_its_end() {
    let (_database, sidecar) = place("beginning", "").await;
    let _first = holding(&sidecar, "run").await;
    let body = json!({"id": "run", "deadline": "1h"});
    post(&sidecar, "/v1/executions", Some(body)).await;
    for _ in 0..3 {
        post(&sidecar, "/v1/executions/run/heartbeat", None).await;
    }
    let _kept = sidecar.stream("/v1/executions/run/hold").await;
    let hold = sidecar.stream("/v1/executions/run/hold").await;
    until(&sidecar, "run", "execution.hold_opened").await;
    drop(hold);
    until(&sidecar, "run", "execution.hold_closed").await;
    let resources = "/v1/executions/run/resources";
    let register = async |kind: &str, ttl: Option<&str>| {
        let body = json!({"kind": kind, "name": "secret.txt", "ttl": ttl});
        post(&sidecar, resources, Some(body)).await
    };
    let file = register("file", None).await;
    register("file", None).await;
    let path = format!("{resources}/{}", file["id"]);
    sidecar.control("DELETE", &path, None).await;
    register("http", Some("100ms")).await;
    let told = until(&sidecar, "run", "resource.expired").await;
    assert_eq!(told.one("resource.expired")["kind"], "http");
    // That its deadline is near is told in its last fifth.
    let soon = json!({"extend": "15s"});
    post(&sidecar, "/v1/executions/run/heartbeat", Some(soon)).await;
    let told = Told::ended(&sidecar, "run").await;
    told.assert_in_order(&[
        "execution.began",
        "execution.adopted",
        "execution.heartbeat",
        "execution.hold_opened",
        "execution.hold_closed",
        "resource.registered",
        "resource.released",
        "resource.expired",
        "execution.deadline_near",
        "execution.ending",
        "execution.resources_left",
        "execution.ended",
    ]);
    assert_eq!(
        seconds(told.one("execution.adopted"), "deadline_seconds"),
        3600.0
    );
    assert_eq!(told.one("execution.heartbeat")["count"], 4);
    let opened = told.all("execution.hold_opened");
    assert_eq!(opened[1]["holds"], 2);
    assert_eq!(told.one("execution.hold_closed")["holds"], 1);
    let registered = told.all("resource.registered");
    assert_eq!(
        (&registered[0]["kind"], &registered[0]["count"]),
        (&json!("file"), &json!(2))
    );
    assert_eq!(told.one("execution.deadline_near")["count"], 1);
    assert_eq!(told.one("execution.sessions_gone")["count"], 1);
    assert_eq!(told.one("execution.resources_left")["count"], 1);
    for name in ["execution.ending", "execution.ended"] {
        assert_eq!(told.one(name)["reason"], "deadline");
    }
    assert!(
        !told.answer.to_string().contains("secret.txt"),
        "{}",
        told.answer
    );
}

#[tokio::test]
async fn force_and_what_it_leaves_is_told() {
    let postgres = Postgres::shared();
    let database = postgres.database("force").await;
    let proxy = Proxy::tcp(postgres).await;
    let sidecar = Sidecar::start(upstream("app", &proxy.url(&database))).await;
    let _raw = holding(&sidecar, "doomed").await;
    proxy.set(Fault::FreezeOld);
    let (status, _) = sidecar
        .control("DELETE", "/v1/executions/doomed", None)
        .await;
    assert_eq!(status, 200);
    let told = Told::ended(&sidecar, "doomed").await;
    assert_eq!(told.one("execution.forced")["count"], 1);
    assert_eq!(told.one("execution.ended")["leftovers"], 1);
    assert_eq!(told.answer["ended_badly"], true);
}

#[tokio::test]
async fn the_standing_execution_and_one_of_a_single_session_have_a_story() {
    let (_database, sidecar) = place("standing", "").await;
    let told = Told::of(&sidecar, "shared").await;
    assert_eq!(told.names(), ["execution.began"]);
    let (mut raw, _) = sidecar.started("app", &[]).await;
    raw.query("SELECT 1").await;
    let told = Told::of(&sidecar, "shared").await;
    assert_eq!(told.one("execution.began")["kind"], "shared");
    told.assert_in_order(&["session.joined", "checkout.lent", "session.queries"]);
    let more = "execution: {untagged: session}\n";
    let (_database, sidecar) = place("single", more).await;
    let (mut raw, _) = sidecar.started("app", &[]).await;
    raw.query("SELECT 1").await;
    let told = Told::of(&sidecar, "session-1").await;
    assert_eq!(told.one("execution.began")["kind"], "session");
    told.assert_in_order(&["session.joined", "checkout.lent", "session.queries"]);
}
