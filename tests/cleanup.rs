//! Single sessions are cancelled and ended, and an emergency cleanup makes room: whom it ends, in which
//! order, and whom it spares.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use serde_json::{Value, json};
use support::guard::Stopped;
use support::session::{error, place, rows};
use support::sidecar::upstream;
use support::{Database, Fault, Postgres, Proxy, Raw, SOON, Sidecar, eventually};

/// Everybody who asks nothing is soon a suspect, and a transaction soon idle for too long.
const HASTY: &str = "session: {leak_after: 300ms}\ncleanup: {idle_in_transaction: 300ms}\n";

async fn send(raw: &mut Raw, sql: &str) {
    raw.send_with(|buffer| frontend::query(sql, buffer).unwrap())
        .await;
}

/// A session that has queried, so that it holds a server connection; with its number.
async fn holding(sidecar: &Sidecar, execution: &str, sql: &str) -> (Raw, u64) {
    let mut raw = sidecar.session("app", execution).await;
    let pid = raw.backend().await;
    raw.query(sql).await;
    let sessions = sidecar.sessions_of(execution).await;
    let mut sessions = sessions.iter();
    let own = sessions.find(|session| session["server_pid"] == pid);
    (raw, own.unwrap()["id"].as_u64().unwrap())
}

/// A session whose query waits for the budget.
async fn waiting(sidecar: &Sidecar, execution: &str) -> Raw {
    let mut raw = sidecar.session("app", execution).await;
    send(&mut raw, "SELECT 'served'").await;
    sidecar.session_is(execution, "waiting").await;
    raw
}

async fn served(raw: &mut Raw) {
    assert_eq!(rows(&raw.read_until(b'Z').await), ["served"]);
}

/// Waits until so many are suspected.
async fn suspects(sidecar: &Sidecar, wanted: usize) {
    eventually(SOON, "so many are suspected", async || {
        let list = sidecar.get("/v1/sessions?suspect=true").await;
        match list.as_array().unwrap().len() == wanted {
            true => Ok(()),
            false => Err(list),
        }
    })
    .await;
}

/// Waits until the database works at what was sent: a cancellation that comes before cancels nothing.
async fn sleeps(pid: i32) {
    let filter = format!("pid = {pid} AND state = 'active' AND wait_event = 'PgSleep'");
    eventually(SOON, "the database works at it", async || {
        let now = Postgres::shared().activity(&filter).await;
        (!now.is_empty()).then_some(()).ok_or(now)
    })
    .await;
}

async fn clean_up(sidecar: &Sidecar, body: Value) -> Value {
    match sidecar.control("POST", "/v1/cleanup", Some(body)).await {
        (200, answer) => answer,
        (status, problem) => panic!("{status} {problem}"),
    }
}

/// What was closed: why, and which session (null for a leftover).
fn closed(answer: &Value) -> Vec<(String, Option<u64>)> {
    let closed = answer["closed"].as_array().unwrap().iter();
    closed
        .map(|one| {
            let why = one["why"].as_str().unwrap().to_owned();
            (why, one["session"]["id"].as_u64())
        })
        .collect()
}

fn because(why: &str, session: u64) -> (String, Option<u64>) {
    (why.to_owned(), Some(session))
}

async fn pooled(database: &Database) -> usize {
    let filter = format!(
        "datname = '{}' AND application_name NOT IN ('execpool monitor', 'execpool tests')",
        database.name
    );
    Postgres::shared().activity(&filter).await.len()
}

/// Two sessions that are idle in a transaction, two suspects of named executions and one of `shared`,
/// which have all connections that there may be.
struct Full {
    database: Database,
    sidecar: Sidecar,
    shared: (Raw, u64),
    named: [(Raw, u64); 2],
    open: [(Raw, u64); 2],
}

async fn full(name: &str, more: &str) -> Full {
    let (database, sidecar) =
        place(name, &format!("budget: {{size: 5, overflow: 0}}\n{more}")).await;
    let shared = holding(&sidecar, "shared", "SELECT 1").await;
    let named = [
        holding(&sidecar, "a", "SELECT 1").await,
        holding(&sidecar, "b", "SELECT 1").await,
    ];
    let open = [
        holding(&sidecar, "a", "BEGIN").await,
        holding(&sidecar, "shared", "BEGIN").await,
    ];
    suspects(&sidecar, 5).await;
    Full {
        database,
        sidecar,
        shared,
        named,
        open,
    }
}

#[tokio::test]
async fn a_cleanup_ends_in_its_order_and_only_as_many_as_wait() {
    let mut full = full("order", HASTY).await;
    let sidecar = &full.sidecar;
    let mut waits = Vec::new();
    for execution in ["w1", "w2", "w3"] {
        waits.push(waiting(sidecar, execution).await);
    }
    let rehearsed = clean_up(sidecar, json!({"dry_run": true})).await;
    let expected = [
        because("idle_in_transaction", full.open[0].1),
        because("idle_in_transaction", full.open[1].1),
        because("leak_suspect", full.named[0].1),
    ];
    assert_eq!(closed(&rehearsed), expected, "{rehearsed}");
    assert_eq!(
        (
            &rehearsed["waiting"],
            &rehearsed["complete"],
            &rehearsed["spared"]
        ),
        (&json!(0), &json!(true), &json!(1)),
        "{rehearsed}"
    );
    // It has changed nothing.
    assert_eq!(sidecar.get("/v1/status").await["budget"]["waiting"], 3);
    assert_eq!(pooled(&full.database).await, 5);

    let answer = clean_up(sidecar, json!({})).await;
    assert_eq!(closed(&answer), expected, "{answer}");
    assert_eq!(
        (
            &answer["nobody_waits"],
            &answer["waiting"],
            &answer["complete"]
        ),
        (&json!(false), &json!(0), &json!(true)),
        "{answer}"
    );
    for raw in &mut waits {
        served(raw).await;
    }
    let [first, second] = &mut full.open;
    for (raw, what) in [
        (&mut first.0, "it was idle in transaction for "),
        (&mut second.0, "it was idle in transaction for "),
        (&mut full.named[0].0, "it asked nothing for "),
    ] {
        let told = raw.expect_error().await;
        assert_eq!(
            (told[&'C'].as_str(), told[&'S'].as_str()),
            ("57P01", "FATAL")
        );
        assert!(told[&'M'].contains(what), "{told:?}");
        raw.expect_closed().await;
    }
    // Those whose turn it was not live on, and so do the executions.
    for raw in [&mut full.shared.0, &mut full.named[1].0] {
        assert_eq!(raw.ask("SELECT 7").await, "7");
    }
    assert_eq!(sidecar.get("/v1/executions/a").await["state"], "active");
    let status = sidecar.get("/v1/status").await;
    assert_eq!(status["sessions"]["leaks"]["reclaimed"], 3, "{status}");
    sidecar.logged(&["session.reclaimed"]).await;
    sidecar.logged(&["emergency cleanup"]).await;
}

#[tokio::test]
async fn suspects_in_shared_are_spared_unless_the_knob_says_otherwise() {
    let mut full = full("spared", HASTY).await;
    let sidecar = &full.sidecar;
    // Those who are served go on working, so that none of them is ever a suspect.
    let mut work = Vec::new();
    for execution in ["w1", "w2", "w3", "w4"] {
        let mut raw = sidecar.session("app", execution).await;
        send(&mut raw, "SELECT pg_sleep(600)").await;
        sidecar.session_is(execution, "waiting").await;
        work.push(raw);
    }
    let mut last = waiting(sidecar, "w5").await;
    let answer = clean_up(sidecar, json!({})).await;
    assert_eq!(answer["closed"].as_array().unwrap().len(), 4, "{answer}");
    assert_eq!(
        (&answer["waiting"], &answer["complete"], &answer["spared"]),
        (&json!(1), &json!(false), &json!(1)),
        "{answer}"
    );
    let yaml = upstream("app", &full.database.url())
        + "budget: {size: 5, overflow: 0}\n"
        + "session: {leak_after: 300ms, reclaim_leaks: true}\n";
    sidecar.reload(&yaml).await;
    let answer = clean_up(sidecar, json!({})).await;
    let first = because("unnamed_leak_suspect", full.shared.1);
    assert_eq!(closed(&answer), [first], "{answer}");
    assert_eq!(
        (&answer["waiting"], &answer["spared"]),
        (&json!(0), &json!(0)),
        "{answer}"
    );
    served(&mut last).await;
    for execution in ["w1", "w2", "w3", "w4"] {
        sidecar.session_is(execution, "active").await;
    }
    assert_eq!(full.shared.0.expect_error().await[&'C'], "57P01");
}

#[tokio::test]
async fn where_nobody_waits_nobody_is_ended_unless_an_execution_is_named() {
    let mut full = full("nobody_waits", HASTY).await;
    let sidecar = &full.sidecar;
    let answer = clean_up(sidecar, json!({})).await;
    assert_eq!(
        (
            &answer["nobody_waits"],
            &answer["closed"],
            &answer["complete"]
        ),
        (&json!(true), &json!([]), &json!(true)),
        "{answer}"
    );
    assert_eq!(pooled(&full.database).await, 5);
    let answer = clean_up(sidecar, json!({"execution": "a"})).await;
    let expected = [
        because("idle_in_transaction", full.open[0].1),
        because("leak_suspect", full.named[0].1),
    ];
    assert_eq!(closed(&answer), expected, "{answer}");
    assert_eq!(answer["complete"], true, "{answer}");
    assert_eq!(pooled(&full.database).await, 3, "gone when it answers");
    let answer = clean_up(sidecar, json!({"execution": "shared"})).await;
    let expected = [because("idle_in_transaction", full.open[1].1)];
    assert_eq!(closed(&answer), expected, "{answer}");
    assert_eq!(answer["spared"], 1, "{answer}");
    assert_eq!(full.shared.0.ask("SELECT 7").await, "7");
}

#[tokio::test]
async fn who_works_who_was_idle_for_less_and_who_waits_for_its_own_pool_changes_nothing() {
    let more = "budget: {size: 3, overflow: 0}\npool: {size: 1, overflow: 0}\n\
                session: {leak_after: 1h}\ncleanup: {idle_in_transaction: 1h}\n";
    let (database, sidecar) = place("unharmed", more).await;
    let (mut works, _) = holding(&sidecar, "works", "SELECT 1").await;
    send(&mut works, "SELECT pg_sleep(600)").await;
    let (mut open, _) = holding(&sidecar, "open", "BEGIN").await;
    let _crowded = waiting(&sidecar, "works").await;
    let answer = clean_up(&sidecar, json!({})).await;
    assert_eq!(
        answer["nobody_waits"], true,
        "its own pool is full: {answer}"
    );
    let (mut idle, _) = holding(&sidecar, "idle", "SELECT 1").await;
    let _starved = waiting(&sidecar, "starved").await;
    let answer = clean_up(&sidecar, json!({})).await;
    assert_eq!(
        (
            &answer["nobody_waits"],
            &answer["waiting"],
            &answer["closed"]
        ),
        (&json!(false), &json!(1), &json!([])),
        "{answer}"
    );
    assert_eq!(answer["complete"], false, "{answer}");
    assert_eq!(open.ask("SELECT 7").await, "7");
    assert_eq!(idle.ask("SELECT 7").await, "7");
    assert_eq!(pooled(&database).await, 3);
}

#[tokio::test]
async fn leftovers_come_first_and_are_room_too() {
    let postgres = Postgres::shared();
    let database = postgres.database("leftovers").await;
    let proxy = Proxy::tcp(postgres).await;
    let yaml = upstream("app", &proxy.url(&database))
        + "maintenance: {interval: off}\nbudget: {size: 2, overflow: 0}\n"
        + HASTY;
    let sidecar = Sidecar::start(yaml).await;
    let (_doomed, _) = holding(&sidecar, "doomed", "SELECT 1").await;
    proxy.set(Fault::FreezeOld);
    let (mut suspect, suspected) = holding(&sidecar, "suspect", "SELECT 1").await;
    suspects(&sidecar, 2).await;
    let (_, ended) = sidecar
        .control("DELETE", "/v1/executions/doomed", None)
        .await;
    assert_eq!(ended["complete"], false, "{ended}");
    let mut waits = waiting(&sidecar, "waits").await;
    let rehearsed = clean_up(&sidecar, json!({"dry_run": true})).await;
    assert_eq!(
        closed(&rehearsed),
        [("leftover".to_owned(), None)],
        "{rehearsed}"
    );
    let answer = clean_up(&sidecar, json!({})).await;
    let all = closed(&answer);
    assert_eq!(all[0], ("leftover".to_owned(), None), "{answer}");
    // The partition keeps the server's end of it from being seen; then its room is not there.
    match all.get(1) {
        None => assert_eq!(suspect.ask("SELECT 7").await, "7"),
        Some(second) => assert_eq!(*second, because("leak_suspect", suspected)),
    }
    served(&mut waits).await;
}

#[tokio::test]
async fn a_session_is_cancelled_in_each_state_in_which_it_does_something() {
    let (_database, sidecar) = place("cancelled", "budget: {size: 2, overflow: 0}\n").await;
    let cancel = async |id: u64| {
        let path = format!("/v1/sessions/{id}/cancel");
        let (status, answer) = sidecar.control("POST", &path, None).await;
        let what = ["cancelled", "code"].map(|name| answer[name].as_str());
        (
            status,
            what.into_iter().flatten().next().unwrap().to_owned(),
        )
    };
    let nothing = (409, "nothing_to_cancel".to_owned());
    let (mut active, id) = holding(&sidecar, "a", "SELECT 1").await;
    let pid = active.backend().await;
    assert_eq!(cancel(id).await, nothing, "idle");
    send(&mut active, "SELECT pg_sleep(600)").await;
    sidecar.session_is("a", "active").await;
    sleeps(pid).await;
    assert_eq!(cancel(id).await, (202, "query".to_owned()));
    let told = active.read_until(b'Z').await;
    assert_eq!(error(&told)[&'C'], "57014");
    assert_eq!(active.ask("SELECT 7").await, "7", "it lives on");
    active.query("BEGIN").await;
    assert_eq!(cancel(id).await, nothing, "idle in transaction");

    let (_other, _) = holding(&sidecar, "b", "SELECT 1").await;
    let mut waits = waiting(&sidecar, "c").await;
    let id = sidecar.sessions_of("c").await[0]["id"].as_u64().unwrap();
    assert_eq!(cancel(id).await, (200, "wait".to_owned()));
    let told = waits.read_until(b'Z').await;
    assert_eq!(error(&told)[&'C'], "57014");
    assert_eq!(cancel(id).await, nothing, "unbound");
    assert_eq!(cancel(4711).await, (404, "no_such_session".to_owned()));
    let (status, problem) = sidecar.control("POST", "/v1/sessions/x/cancel", None).await;
    assert_eq!((status, &problem["code"]), (404, &json!("no_such_session")));
}

#[tokio::test]
async fn a_session_is_ended_in_each_state_and_its_connection_is_gone_when_it_is_answered() {
    let (_database, sidecar) = place("one_ended", "budget: {size: 2, overflow: 0}\n").await;
    let mut bystander = sidecar.session("app", "bystander").await;
    for (state, sql) in [
        ("idle", "SELECT 1"),
        ("idle_in_transaction", "BEGIN"),
        ("active", ""),
    ] {
        let (mut raw, id) = holding(&sidecar, "run", sql).await;
        let pid = sidecar.sessions_of("run").await[0]["server_pid"].clone();
        if state == "active" {
            send(&mut raw, "SELECT pg_sleep(600)").await;
        }
        sidecar.session_is("run", state).await;
        let path = format!("/v1/sessions/{id}?reason=too%20long");
        // Of one that is not gone in time it is said.
        let (status, answer) = sidecar.control("DELETE", &path, None).await;
        assert_eq!(
            (status, &answer["complete"]),
            (200, &json!(true)),
            "{answer}"
        );
        let left = Postgres::shared().activity(&format!("pid = {pid}")).await;
        assert!(left.is_empty(), "{state}: {left:?}");
        assert_eq!(
            (&answer["id"], &answer["state"], &answer["remaining_pid"]),
            (&json!(id), &json!(state), &Value::Null),
            "{answer}"
        );
        let told = loop {
            let told = raw.expect_error().await;
            // The statement's own end may come first.
            if told[&'C'] != "57014" {
                break told;
            }
        };
        assert_eq!(
            (told[&'C'].as_str(), told[&'S'].as_str()),
            ("57P01", "FATAL")
        );
        let who = format!("by user {}: too long", nix::unistd::geteuid());
        assert!(told[&'M'].ends_with(&who), "{told:?}");
        raw.expect_closed().await;
        let (status, problem) = sidecar.control("DELETE", &path, None).await;
        assert_eq!((status, &problem["code"]), (404, &json!("no_such_session")));
    }
    assert_eq!(sidecar.get("/v1/executions/run").await["state"], "active");
    assert_eq!(bystander.ask("SELECT 7").await, "7");

    let _other = holding(&sidecar, "other", "SELECT 1").await;
    for (execution, state) in [("waits", "waiting"), ("unbound", "unbound")] {
        let mut raw = match state {
            "waiting" => waiting(&sidecar, execution).await,
            _ => sidecar.session("app", execution).await,
        };
        let session = &sidecar.sessions_of(execution).await[0];
        assert_eq!(session["state"], state);
        let path = format!("/v1/sessions/{}", session["id"]);
        let (status, answer) = sidecar.control("DELETE", &path, None).await;
        assert_eq!(
            (status, &answer["complete"]),
            (200, &json!(true)),
            "{answer}"
        );
        assert_eq!(raw.expect_error().await[&'C'], "57P01", "{state}");
        raw.expect_closed().await;
    }
}

#[tokio::test]
async fn a_backend_that_does_not_go_is_named_after_five_seconds() {
    let (_database, sidecar) = place("stays", "").await;
    let (mut raw, id) = holding(&sidecar, "run", "SELECT 1").await;
    let pid = raw.backend().await;
    let stopped = Stopped::new(pid);
    let start = Instant::now();
    let path = format!("/v1/sessions/{id}");
    let (status, answer) = sidecar.control("DELETE", &path, None).await;
    let took = start.elapsed().as_secs_f64();
    // Five, and what a busy machine adds. It never goes by itself.
    assert!((4.0..50.0).contains(&took), "{took}");
    assert_eq!(
        (status, &answer["complete"], &answer["remaining_pid"]),
        (200, &json!(false), &json!(pid)),
        "{answer}"
    );
    drop(stopped);
    sidecar.settles().await;
}

#[tokio::test]
async fn without_administration_no_session_is_touched() {
    let (_database, sidecar) = place("no_admin", "control: {admin: off}\n").await;
    let (mut raw, id) = holding(&sidecar, "run", "BEGIN").await;
    for (method, path) in [
        ("POST", format!("/v1/sessions/{id}/cancel")),
        ("DELETE", format!("/v1/sessions/{id}")),
        ("POST", "/v1/cleanup".to_owned()),
    ] {
        let (status, problem) = sidecar.control(method, &path, None).await;
        assert_eq!(
            (status, &problem["code"]),
            (403, &json!("admin_off")),
            "{path}"
        );
    }
    assert_eq!(raw.ask("SELECT 7").await, "7");
}

#[tokio::test]
async fn the_pass_closes_idle_connections_above_the_budgets_size_and_ends_nobody() {
    let more = "budget: {size: 2, overflow: 3}\nmaintenance: {interval: 1s}\n";
    let (database, sidecar) = place("surplus", &format!("{HASTY}{more}")).await;
    let (idle, _) = holding(&sidecar, "idle", "SELECT 1").await;
    drop(idle);
    eventually(SOON, "it is idle in its pool", async || {
        let budget = sidecar.get("/v1/status").await["budget"].clone();
        (budget["idle"] == 1).then_some(()).ok_or(budget)
    })
    .await;
    let mut held = Vec::new();
    for (execution, sql) in [("a", "BEGIN"), ("b", "SELECT 1"), ("c", "SELECT 1")] {
        held.push(holding(&sidecar, execution, sql).await.0);
    }
    eventually(SOON, "the idle one is closed", async || {
        match pooled(&database).await {
            3 => Ok(()),
            found => Err(found),
        }
    })
    .await;
    suspects(&sidecar, 3).await;
    // Some passes later all sessions are there.
    held[0].expect_silence(Duration::from_millis(2500)).await;
    for raw in &mut held {
        assert_eq!(raw.ask("SELECT 7").await, "7");
    }
}
