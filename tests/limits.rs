//! What becomes of sessions that keep a transaction open for too long.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::Duration;

use postgres_protocol::message::frontend;
use support::session::{kinds, rows};
use support::sidecar::upstream;
use support::{Database, Postgres, Raw, SOON, Sidecar, eventually};

/// Longer than any limit here, and the sweep that looks for it.
const WHILE: Duration = Duration::from_millis(2500);

async fn place(name: &str, limits: &str) -> (Database, Sidecar) {
    let database = Postgres::shared().database(name).await;
    let sidecar = Sidecar::start(config(&database, limits)).await;
    (database, sidecar)
}

fn config(database: &Database, limits: &str) -> String {
    upstream("app", &database.url()) + &format!("session: {{{limits}}}\n")
}

/// Begins a transaction with a statement right behind it, so that no limit is over in between; up to
/// the answer of the BEGIN.
async fn begin(raw: &mut Raw, sql: &str) {
    raw.send_with(|buffer| {
        frontend::query("BEGIN", buffer).unwrap();
        frontend::query(sql, buffer).unwrap();
    })
    .await;
    assert_eq!(kinds(&raw.read_until(b'Z').await), "CZ");
}

async fn send(raw: &mut Raw, sql: &str) {
    raw.send_with(|buffer| frontend::query(sql, buffer).unwrap())
        .await;
}

/// Waits until a backend is gone.
async fn gone(database: &Database, pid: &str) {
    let client = database.client().await;
    eventually(SOON, "its backend is gone", async || {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        match client.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0) {
            0 => Ok(()),
            count => Err(count),
        }
    })
    .await;
}

#[tokio::test]
async fn who_is_idle_in_a_transaction_gets_one_notice_for_each() {
    let limits = "idle_in_transaction: {notice: 300ms}, transaction: {notice: off}";
    let (_database, sidecar) = place("idle_notice", limits).await;
    let mut raw = sidecar.session("app", "a").await;
    for _ in 0..2 {
        begin(&mut raw, "SELECT 'hidden'").await;
        assert_eq!(kinds(&raw.read_until(b'Z').await), "TDCZ");
        let notice = raw.read().await.expect("a notice");
        let fields = notice.fields();
        assert_eq!((notice.kind, fields[&'C'].as_str()), (b'N', "25P03"));
        let begin = "execpool: a session of execution a has been idle in transaction for ";
        assert!(fields[&'M'].starts_with(begin), "{fields:?}");
        assert_eq!(fields[&'D'], "Last statement: SELECT ?.");
        assert_eq!(kinds(&raw.query("SELECT 1").await), "TDCZ");
        raw.expect_silence(WHILE).await;
        raw.query("COMMIT").await;
    }
    eventually(SOON, "it is in no transaction", async || {
        let sessions = sidecar.sessions_of("a").await;
        let is_out = sessions[0]["transaction_seconds"].is_null();
        is_out.then_some(()).ok_or(sessions)
    })
    .await;
}

#[tokio::test]
async fn who_is_idle_in_a_transaction_for_too_long_is_ended_and_lets_its_locks_go() {
    let limits = "idle_in_transaction: {notice: off, end: 300ms}";
    let (database, sidecar) = place("idle_end", limits).await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("CREATE TABLE t AS SELECT 1 AS x").await;
    let pid = raw.ask("SELECT pg_backend_pid()").await;
    begin(&mut raw, "UPDATE t SET x = 2").await;
    assert_eq!(kinds(&raw.read_until(b'Z').await), "CZ");
    let mut other = sidecar.session("app", "b").await;
    send(&mut other, "UPDATE t SET x = x + 10 RETURNING x").await;
    let told = raw.expect_error().await;
    assert_eq!(
        (told[&'C'].as_str(), told[&'S'].as_str()),
        ("25P03", "FATAL")
    );
    let end = ": session.idle_in_transaction.end is 0.3 s";
    assert!(told[&'M'].ends_with(end), "{told:?}");
    raw.expect_closed().await;
    assert_eq!(
        rows(&other.read_until(b'Z').await),
        ["11"],
        "rolled back, and unlocked"
    );
    gone(&database, &pid).await;
}

#[tokio::test]
async fn a_long_transaction_is_told_and_ended_amid_its_statement() {
    let (database, sidecar) = place("long", "transaction: {notice: 200ms}").await;
    let mut raw = sidecar.session("app", "a").await;
    let pid = raw.ask("SELECT pg_backend_pid()").await;
    begin(&mut raw, "SELECT pg_sleep(600)").await;
    let notice = raw.read().await.expect("a notice");
    let fields = notice.fields();
    assert_eq!((notice.kind, fields[&'C'].as_str()), (b'N', "25P04"));
    Postgres::shared().waits_in(&database, "PgSleep").await;
    let limits = "transaction: {notice: 200ms, end: 300ms}";
    sidecar.reload(&config(&database, limits)).await;
    let told = raw.expect_error().await;
    // The statement's own error may come first.
    let told = match told[&'C'].as_str() {
        "57014" => raw.expect_error().await,
        _ => told,
    };
    assert_eq!(
        (told[&'C'].as_str(), told[&'S'].as_str()),
        ("25P04", "FATAL")
    );
    gone(&database, &pid).await;
}

#[tokio::test]
async fn a_notice_in_the_middle_of_rows_comes_between_two_messages() {
    let (database, sidecar) = place("rows", "transaction: {notice: off}").await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("BEGIN").await;
    // Rows of many lengths, none of which ends where a read does.
    send(
        &mut raw,
        "SELECT repeat('x', 40000 + i) FROM generate_series(1, 1000) i",
    )
    .await;
    // Nobody reads them yet: they stand still in the middle when its time comes.
    Postgres::shared().waits_in(&database, "ClientWrite").await;
    let limits = "transaction: {notice: 100ms}";
    sidecar.reload(&config(&database, limits)).await;
    sidecar.logged(&["\"session.transaction.notice\""]).await;
    let told = raw.read_until(b'Z').await;
    let notices = told.iter().filter(|message| message.kind == b'N').count();
    assert_eq!(notices, 1, "whole, and once");
    let rows = rows(&told);
    assert_eq!(rows.len(), 1000);
    for (row, number) in rows.iter().zip(1..) {
        assert!(row.len() == 40000 + number && row.bytes().all(|byte| byte == b'x'));
    }
    let at = told
        .iter()
        .position(|message| message.kind == b'N')
        .unwrap();
    assert!(at > 1 && at < 1000, "amid the rows: {at}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_waited_for_and_gets_whole_messages() {
    let limits = "transaction: {notice: 100ms, end: 2200ms}";
    let (database, sidecar) = place("deaf", limits).await;
    let mut raw = sidecar.session("app", "a").await;
    let pid = raw.ask("SELECT pg_backend_pid()").await;
    let sql = "SELECT repeat('x', 40001) FROM generate_series(1, 1000)";
    begin(&mut raw, sql).await;
    gone(&database, &pid).await;
    // What it reads after all is whole up to where it was cut.
    while let Some(message) = raw.read().await {
        assert!(
            matches!(message.kind, b'T' | b'D' | b'N' | b'E'),
            "{message:?}"
        );
    }
}

#[tokio::test]
async fn sessions_outside_of_a_transaction_have_no_limit() {
    let limits = "idle_in_transaction: {notice: 100ms, end: 200ms}, \
                  transaction: {notice: 100ms, end: 200ms}";
    let (_database, sidecar) = place("autocommit", limits).await;
    let mut idle = sidecar.session("app", "a").await;
    assert_eq!(idle.ask("SELECT 1").await, "1");
    let mut busy = sidecar.session("app", "a").await;
    send(&mut busy, "SELECT pg_sleep(2.5), 'done'").await;
    let mut unbound = sidecar.session("app", "a").await;
    assert_eq!(kinds(&busy.read_until(b'Z').await), "TDCZ");
    unbound.expect_silence(Duration::from_millis(10)).await;
    assert_eq!(kinds(&idle.query("SELECT 1").await), "TDCZ");
    // A batch that began and ended one.
    busy.query("BEGIN; SELECT 1; COMMIT").await;
    busy.expect_silence(WHILE).await;
}

#[tokio::test]
async fn off_is_off() {
    let limits = "idle_in_transaction: {notice: off}, transaction: {notice: off}";
    let (_database, sidecar) = place("off", limits).await;
    let mut raw = sidecar.session("app", "a").await;
    raw.query("BEGIN").await;
    raw.expect_silence(WHILE).await;
    let sessions = sidecar.sessions_of("a").await;
    let open = sessions[0]["transaction_seconds"].as_f64();
    assert!(open.is_some_and(|open| open >= 2.0), "{sessions:?}");
}
