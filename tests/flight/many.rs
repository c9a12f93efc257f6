//! Much happens: what is kept, what is drawn together, what it costs, and what never gets in.

use std::fmt::Write as _;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use serde_json::json;

use super::support::session::{batch, place};
use super::support::sidecar::upstream;
use super::{Told, until};

#[tokio::test]
async fn ten_thousand_queries_and_a_thousand_transactions_leave_the_checkout_visible() {
    let (_database, sidecar) = place("chatty", "").await;
    let mut raw = sidecar.session("app", "run").await;
    raw.query("SELECT 1").await;
    for _ in 0..100 {
        let mut many = BytesMut::new();
        for _ in 0..70 {
            frontend::query("SELECT 1", &mut many).unwrap();
        }
        for sql in ["BEGIN", "SELECT 1", "COMMIT"].repeat(10) {
            frontend::query(sql, &mut many).unwrap();
        }
        raw.send(&many).await;
        for _ in 0..100 {
            raw.read_until(b'Z').await;
        }
    }
    drop(raw);
    let told = until(&sidecar, "run", "session.left").await;
    assert_eq!(told.answer["events_dropped"], 0);
    // A few, and what a busy machine adds where it stands still for a second.
    assert!(told.events.len() < 150, "{:?}", told.names());
    told.assert_in_order(&["session.joined", "checkout.lent", "session.queries"]);
    let queries = told.all("session.queries");
    let sum: u64 = queries
        .iter()
        .filter_map(|run| run["queries"].as_u64())
        .sum();
    assert_eq!(sum, 10_001);
}

#[tokio::test]
async fn the_last_200_are_kept_and_the_others_are_counted() {
    let (_database, sidecar) = place("wraps", "").await;
    let body = json!({"id": "run"});
    sidecar.control("POST", "/v1/executions", Some(body)).await;
    for at in 0..250 {
        let kind = if at % 2 == 0 { "file" } else { "http" };
        let body = json!({"kind": kind, "name": "x"});
        let path = "/v1/executions/run/resources";
        let (status, _) = sidecar.control("POST", path, Some(body)).await;
        assert_eq!(status, 201);
    }
    let told = Told::of(&sidecar, "run").await;
    assert_eq!(told.events.len(), 200);
    assert_eq!(told.answer["events_dropped"], 51);
    assert!(told.all("execution.began").is_empty());
    assert_eq!(told.events[199]["kind"], "http");
}

#[tokio::test]
async fn many_at_once_are_each_told_in_their_order() {
    let (_database, sidecar) = place("at_once", "budget: {size: 4, overflow: 0}\n").await;
    let sidecar = &sidecar;
    let one = async |at: usize| {
        let execution = format!("run-{}", at % 5);
        for _ in 0..3 {
            let mut raw = sidecar.session("app", &execution).await;
            raw.query("SELECT 1").await;
            Told::of(sidecar, &execution).await;
        }
    };
    let all = (0..20).map(one);
    futures(all).await;
    sidecar.settles().await;
    for at in 0..5 {
        let told = Told::of(sidecar, &format!("run-{at}")).await;
        assert_eq!(told.all("session.joined").len(), 12);
        for joined in told.all("session.joined") {
            let of = told.events.iter();
            let of = of.filter(|event| event["session_id"] == joined["session_id"]);
            let names: Vec<_> = of.map(|event| event["event"].as_str().unwrap()).collect();
            assert_eq!(names.first(), Some(&"session.joined"), "{names:?}");
            assert_eq!(names.last(), Some(&"session.left"), "{names:?}");
            for name in ["checkout.lent", "session.queries", "checkout.returned"] {
                let count = names.iter().filter(|known| **known == name).count();
                assert_eq!(count, 1, "{name}: {names:?}");
            }
        }
    }
}

/// All of them, at once.
async fn futures<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        match all.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

#[tokio::test]
async fn no_statement_no_value_and_no_password_gets_in() {
    let (database, sidecar) = place("canary", "pool: {size: 1, overflow: 0}\n").await;
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    let canary = format!("canary{:016x}", u64::from_ne_bytes(bytes));
    let mut raw = sidecar.session("app", "run").await;
    for sql in [
        format!("SELECT '{canary}'"),
        format!("SELECT {canary}"),
        format!("SELECT '{canary}'::int"),
        format!("DO $$ BEGIN RAISE EXCEPTION '{canary}' USING DETAIL = '{canary}'; END $$"),
        format!("DO $$ BEGIN RAISE NOTICE '{canary}'; END $$"),
        format!("SET application_name = '{canary}'"),
        format!("CREATE ROLE {canary} PASSWORD '{canary}'"),
        format!("SET execpool.label = '{canary}'"),
    ] {
        raw.query(&sql).await;
    }
    raw.send_with(|out| {
        batch(&format!("SELECT '{canary}'"), out);
        frontend::sync(out);
    })
    .await;
    raw.read_until(b'Z').await;
    let hasty = "session: {leak_after: 300ms}\npool: {size: 1, overflow: 0, timeout: 200ms}\n";
    sidecar
        .reload(&(upstream("app", &database.url()) + hasty))
        .await;
    let mut late = sidecar.session("app", "run").await;
    late.query(&format!("SELECT '{canary}'")).await;
    raw.query("BEGIN").await;
    until(&sidecar, "run", "session.leak_suspect").await;
    let mut all = String::new();
    let told = Told::of(&sidecar, "run").await;
    assert!(!told.all("session.errors").is_empty(), "{:?}", told.names());
    write!(all, "{}", told.answer).unwrap();
    let (status, _) = sidecar.control("DELETE", "/v1/executions/run", None).await;
    assert_eq!(status, 200);
    let told = Told::ended(&sidecar, "run").await;
    assert!(told.events.len() > 5, "{:?}", told.names());
    write!(all, "{}", told.answer).unwrap();
    assert!(!all.to_lowercase().contains(&canary), "{all}");
    let admin = database.client().await;
    let _ = admin
        .execute(&format!("DROP ROLE IF EXISTS {canary}"), &[])
        .await;
}
