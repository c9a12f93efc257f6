//! The wait for a server connection: what a client is told meanwhile, how it ends in vain, and
//! that nothing of it is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use support::session::{assert_in, batch, error, kinds, place, rows};
use support::sidecar::upstream;
use support::{Database, Message, Postgres, PostgresOptions, Raw, SOON, Sidecar, eventually};

const TIMEOUT: Duration = Duration::from_millis(300);
/// What a wait in vain stays below even on a machine that stands still; the default is longer.
const LATE: Duration = Duration::from_secs(19);
/// A pool of one connection, and patience: see [`wait_only`].
const POOL_OF_ONE: &str = "pool: {size: 1, overflow: 0, timeout: 1m}\n";
/// A budget of one connection, and the same patience.
const BUDGET_OF_ONE: &str = "budget: {size: 1, overflow: 0}\npool: {timeout: 1m}\n";

/// From here on waits take no longer than `timeout`, where `more` says `1m`: what a test sets up
/// before must not wait in vain, however slow the machine is, nor what it does after.
async fn wait_only(timeout: &str, (database, sidecar): (&Database, &Sidecar), more: &str) {
    let more = more.replace("timeout: 1m", &format!("timeout: {timeout}"));
    sidecar
        .reload(&(upstream("app", &database.url()) + &more))
        .await;
}

/// A session that holds a server connection.
async fn holder(sidecar: &Sidecar, execution: &str) -> Raw {
    let mut raw = sidecar.session("app", execution).await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    raw
}

async fn send(raw: &mut Raw, sql: &str) {
    raw.send_with(|buffer| frontend::query(sql, buffer).unwrap())
        .await;
}

/// Parse, Bind, Execute and Sync of one statement.
fn segment(sql: &str, buffer: &mut BytesMut) {
    batch(sql, buffer);
    frontend::sync(buffer);
}

/// What a query is told that waits in vain.
async fn in_vain(raw: &mut Raw, sql: &str) -> BTreeMap<char, String> {
    let started = Instant::now();
    let told = raw.query(sql).await;
    let took = started.elapsed();
    assert!(took >= TIMEOUT && took < LATE, "{took:?}");
    assert_eq!(kinds(&told), "EZ", "{told:?}");
    assert_eq!(told[1].transaction_status(), 'I');
    let fields = error(&told);
    assert_eq!(
        (fields[&'C'].as_str(), fields[&'S'].as_str()),
        ("53300", "ERROR")
    );
    fields
}

/// Waits until so many waits of the sessions of `a` have been in vain, and asserts that there were no
/// more, nor any other wait of sessions that got nothing.
async fn refused(sidecar: &Sidecar, count: usize) {
    let told = async |name: &str| {
        let execution = sidecar.get("/v1/executions/a?events=true").await;
        let events = execution["events"].as_array().unwrap().clone();
        events.iter().filter(|event| event["event"] == name).count()
    };
    eventually(SOON, "so many waits were in vain", async || {
        let refused = told("checkout.refused").await;
        if refused >= count {
            Ok(())
        } else {
            Err(refused)
        }
    })
    .await;
    assert_eq!(told("checkout.refused").await, count);
}

async fn waiting(sidecar: &Sidecar, count: u64) {
    eventually(SOON, "so many wait", async || {
        let budget = sidecar.get("/v1/status").await["budget"].take();
        if budget["waiting"] == count {
            Ok(())
        } else {
            Err(budget)
        }
    })
    .await;
}

/// Asks for a cancel, as the session's client would.
async fn cancel(sidecar: &Sidecar, told: &[Message]) {
    let key = told.iter().find(|message| message.kind == b'K').unwrap();
    let mut request = vec![0, 0, 0, 16, 4, 210, 22, 46];
    request.extend_from_slice(&key.body);
    let mut raw = sidecar.raw().await;
    raw.send(&request).await;
    raw.expect_closed().await;
}

#[tokio::test]
async fn who_waits_is_told_its_position_and_how_full_pool_and_budget_are() {
    let more = "budget: {size: 7, overflow: 1}\n\
                pool: {size: 1, overflow: 1, timeout: 10m, notice_after: 100ms}\n";
    let (_database, sidecar) = place("notices", more).await;
    let (one, _two) = (holder(&sidecar, "a").await, holder(&sidecar, "a").await);
    let mut first = sidecar.session("app", "a").await;
    let mut second = sidecar.session("app", "a").await;
    send(&mut first, "SELECT 1").await;
    waiting(&sidecar, 1).await;
    send(&mut second, "SELECT 2").await;
    // The second may come when the first has been told already.
    for (raw, position, so_far) in [(&mut first, 1, 1..=2), (&mut second, 2, 2..=2)] {
        let notice = raw.read().await.expect("a notice");
        assert_eq!(notice.kind, b'N');
        let fields = notice.fields();
        assert_eq!(
            (fields[&'S'].as_str(), fields[&'V'].as_str()),
            ("NOTICE", "NOTICE")
        );
        let expected = format!(
            "execpool: execution a waits for a server connection, at position {position}: its pool of 2 is in use"
        );
        assert_eq!(fields[&'M'], expected);
        let expected = so_far.map(|waiting| {
            format!("Pool app: 2 of 2 open, 2 lent, {waiting} waiting. Budget: 2 of 8 open.")
        });
        assert!(
            expected.into_iter().any(|it| it == fields[&'D']),
            "{fields:?}"
        );
    }
    // Once is enough; then the answer comes.
    first.expect_silence(TIMEOUT).await;
    drop(one);
    assert_eq!(rows(&first.read_until(b'Z').await), ["1"]);
    drop(first);
    assert_eq!(rows(&second.read_until(b'Z').await), ["2"]);
}

#[tokio::test]
async fn a_full_pool_is_told_with_its_longest_holders() {
    let more = "pool: {size: 4, overflow: 0, timeout: 1m}\n";
    let (database, sidecar) = place("full_pool", more).await;
    // Not of this execution, and so not in its way.
    let _other = holder(&sidecar, "other").await;
    let named = [
        ("execpool.execution_id", "run"),
        ("execpool.caller", "a.py:1 f < b.py:2 g"),
        ("execpool.label", "search"),
    ];
    let mut first = sidecar.started("app", &named).await.0;
    first.query("BEGIN").await;
    first.query("SELECT 'hidden', 4711").await;
    let mut second = holder(&sidecar, "run").await;
    send(&mut second, "SELECT pg_sleep(600)").await;
    sidecar.session_is("run", "active").await;
    let _third = holder(&sidecar, "run").await;
    let mut fourth = sidecar.session("app", "run").await;
    fourth.query("SELECT 'the shortest'  AS fourth").await;

    let mut late = sidecar.session("app", "run").await;
    wait_only("300ms", (&database, &sidecar), more).await;
    let told = in_vain(&mut late, "SELECT 1").await;
    let message = &told[&'M'];
    let (begin, end) = (
        "execpool: no server connection for execution run within ",
        " s: its pool of 4 is in use",
    );
    let within = message.strip_prefix(begin);
    let within = within.and_then(|rest| rest.strip_suffix(end)?.parse::<f64>().ok());
    assert!(within >= Some(0.3), "{message}");
    let detail = &told[&'D'];
    let begin = "Pool app: 4 of 4 open, 4 lent, 1 waiting. Budget: 5 of 30 open. Longest holders: \
                 execution run, opened at a.py:1 f < b.py:2 g, label search, idle in transaction for ";
    assert!(detail.starts_with(begin), "{detail}");
    assert!(detail.contains("last statement: SELECT ?, ?;"), "{detail}");
    assert!(detail.contains("; execution run, active for "), "{detail}");
    assert!(
        detail.contains("last statement: SELECT pg_sleep(?);"),
        "{detail}"
    );
    assert!(detail.ends_with("last statement: SELECT ?."), "{detail}");
    assert_eq!(detail.matches("execution run").count(), 3, "{detail}");
    assert!(
        !detail.contains("hidden") && !detail.contains("4711"),
        "{detail}"
    );
    assert!(told[&'H'].contains("pool.size"), "{told:?}");
    eventually(SOON, "the same sentence is in the log", async || {
        let log = sidecar.log().join("\n");
        if log.contains(message.as_str()) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_budget_is_told_with_holders_of_every_execution() {
    let more = "budget: {size: 1, overflow: 1}\npool: {timeout: 1m}\n";
    let (database, sidecar) = place("full_budget", more).await;
    let (_one, _two) = (holder(&sidecar, "one").await, holder(&sidecar, "two").await);
    let mut late = sidecar.session("app", "late").await;
    wait_only("300ms", (&database, &sidecar), more).await;
    let told = in_vain(&mut late, "SELECT 1").await;
    assert!(
        told[&'M'].ends_with("the pod's budget of 2 is in use"),
        "{told:?}"
    );
    let detail = &told[&'D'];
    assert!(detail.starts_with("Pool app: 0 of 5 open, 0 lent, 1 waiting. Budget: 2 of 2 open."));
    assert!(
        detail.contains("holders: execution one, idle for "),
        "{detail}"
    );
    assert!(detail.contains("; execution two, idle for "), "{detail}");
    assert!(told[&'H'].contains("budget.size"), "{told:?}");
}

#[tokio::test]
async fn as_much_is_told_of_holders_as_is_configured() {
    for (how, end) in [
        ("ids", "1 of 1 open. Longest holders: execution one."),
        ("none", "Budget: 1 of 1 open."),
    ] {
        let more = format!("{BUDGET_OF_ONE}errors: {{holders: {how}}}\n");
        let (database, sidecar) = place(&format!("holders_{how}"), &more).await;
        let _one = holder(&sidecar, "one").await;
        wait_only("300ms", (&database, &sidecar), &more).await;
        let told = in_vain(&mut sidecar.session("app", "late").await, "SELECT 1").await;
        assert!(told[&'D'].ends_with(end), "{told:?}");
    }
}

#[tokio::test]
async fn a_session_that_waited_in_vain_lives_on_and_works() {
    let (database, sidecar) = place("lives_on", POOL_OF_ONE).await;
    let one = holder(&sidecar, "a").await;
    let mut late = sidecar.session("app", "a").await;
    wait_only("300ms", (&database, &sidecar), POOL_OF_ONE).await;
    for _ in 0..2 {
        in_vain(&mut late, "SELECT 1").await;
    }
    assert_eq!(sidecar.get("/v1/status").await["budget"]["waiting"], 0);
    wait_only("1m", (&database, &sidecar), POOL_OF_ONE).await;
    drop(one);
    assert_eq!(late.ask("SELECT 7").await, "7");
}

#[tokio::test]
async fn each_segment_of_a_pipeline_fails_once_and_none_waits_again() {
    let (database, sidecar) = place("pipeline", POOL_OF_ONE).await;
    let one = holder(&sidecar, "a").await;
    let mut late = sidecar.session("app", "a").await;
    wait_only("300ms", (&database, &sidecar), POOL_OF_ONE).await;
    late.send_with(|buffer| {
        for number in 0..4 {
            segment(&format!("SELECT {number}"), buffer);
            frontend::query("SELECT 1", buffer).unwrap();
        }
        // One segment of several statements.
        for sql in ["SELECT 1", "SELECT 2"] {
            frontend::parse("", sql, [], buffer).unwrap();
        }
        frontend::sync(buffer);
    })
    .await;
    for _ in 0..9 {
        let told = late.read_until(b'Z').await;
        assert_eq!(kinds(&told), "EZ");
        assert_eq!(error(&told)[&'C'], "53300");
        assert_eq!(told[1].transaction_status(), 'I');
    }
    refused(&sidecar, 1).await;
    wait_only("1m", (&database, &sidecar), POOL_OF_ONE).await;
    drop(one);
    assert_eq!(late.ask("SELECT 7").await, "7");
}

#[tokio::test]
async fn a_long_pipeline_fails_whole_without_a_second_wait() {
    let (database, sidecar) = place("long_pipeline", POOL_OF_ONE).await;
    let one = holder(&sidecar, "a").await;
    let mut late = sidecar.session("app", "a").await;
    wait_only("300ms", (&database, &sidecar), POOL_OF_ONE).await;
    // More than is read at once, and messages that end where a read does.
    let sql = format!("SELECT 1 /* {} */", "x".repeat(64 - 1 - 4 - 1 - 15));
    let count = 3000;
    let mut all = BytesMut::new();
    for _ in 0..count {
        frontend::query(&sql, &mut all).unwrap();
    }
    assert_eq!(all.len(), count * 64);
    late.send(&all).await;
    for number in 0..count {
        let told = late.read_until(b'Z').await;
        assert_eq!(kinds(&told), "EZ", "{number}: {told:?}");
    }
    refused(&sidecar, 1).await;
    wait_only("1m", (&database, &sidecar), POOL_OF_ONE).await;
    drop(one);
    assert_eq!(late.ask("SELECT 7").await, "7");
}

#[tokio::test]
async fn a_message_that_comes_in_halves_across_the_timeout_fails_once() {
    let (database, sidecar) = place("halves", POOL_OF_ONE).await;
    let one = holder(&sidecar, "a").await;
    wait_only("300ms", (&database, &sidecar), POOL_OF_ONE).await;
    for (turn, length) in [10, 5000, 100_000].into_iter().enumerate() {
        let mut late = sidecar.session("app", "a").await;
        let mut whole = BytesMut::new();
        frontend::query(&format!("SELECT '{}'", "x".repeat(length)), &mut whole).unwrap();
        let (one_half, other_half) = whole.split_at(whole.len() / 2);
        late.send(one_half).await;
        // In each turn two waits are in vain, and this is the first of them.
        refused(&sidecar, 2 * turn + 1).await;
        waiting(&sidecar, 0).await;
        late.send(other_half).await;
        let told = late.read_until(b'Z').await;
        assert_eq!(kinds(&told), "EZ", "{length}: {told:?}");
        assert_eq!(error(&told)[&'C'], "53300");
        late.expect_silence(TIMEOUT).await;
        in_vain(&mut late, "SELECT 1").await;
    }
    wait_only("1m", (&database, &sidecar), POOL_OF_ONE).await;
    drop(one);
    let mut late = sidecar.session("app", "a").await;
    assert_eq!(late.ask("SELECT 7").await, "7");
}

#[tokio::test]
async fn a_segment_whose_sync_comes_after_the_timeout_fails_once() {
    let (database, sidecar) = place("late_sync", POOL_OF_ONE).await;
    let one = holder(&sidecar, "a").await;
    let mut late = sidecar.session("app", "a").await;
    wait_only("300ms", (&database, &sidecar), POOL_OF_ONE).await;
    let mut whole = BytesMut::new();
    segment("SELECT 1", &mut whole);
    let sync = whole.split_off(whole.len() - 5);
    late.send(&whole).await;
    let told = late.read().await.expect("an error");
    assert_eq!(told.fields()[&'C'], "53300");
    wait_only("1m", (&database, &sidecar), POOL_OF_ONE).await;
    drop(one);
    // What belongs to the failed segment is skipped, though there is room now.
    late.send(&whole).await;
    late.send(&sync).await;
    assert_eq!(kinds(&late.read_until(b'Z').await), "Z");
    assert_eq!(late.ask("SELECT 7").await, "7");
}

#[tokio::test]
async fn who_waits_is_served_in_order_and_who_leaves_frees_its_place() {
    let more = "pool: {size: 1, overflow: 0, timeout: 10m, notice_after: 10m}\n";
    let (_database, sidecar) = place("order", more).await;
    let one = holder(&sidecar, "a").await;
    let mut queue = Vec::new();
    for number in 0..5 {
        let mut raw = sidecar.session("app", "a").await;
        send(&mut raw, &format!("SELECT {number}")).await;
        waiting(&sidecar, number + 1).await;
        queue.push(raw);
    }
    for left in [3, 1, 0] {
        drop(queue.remove(left));
    }
    waiting(&sidecar, 2).await;
    drop(one);
    for (mut raw, number) in queue.into_iter().zip(["2", "4"]) {
        assert_eq!(rows(&raw.read_until(b'Z').await), [number]);
    }
    sidecar.settles().await;
}

#[tokio::test]
async fn a_query_with_a_goodbye_behind_it_is_done() {
    let more = "pool: {size: 1, overflow: 0, timeout: 10m}\n";
    let (database, sidecar) = place("goodbye", more).await;
    let mut one = sidecar.session("app", "a").await;
    one.query("CREATE TABLE t (x int)").await;
    drop(one);
    sidecar.settles().await;
    let count = async || {
        let client = database.client().await;
        client
            .query_one("SELECT count(*) FROM t", &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
    };
    let goodbye = async |sql: &str| {
        let mut raw = sidecar.session("app", "a").await;
        raw.send_with(|buffer| {
            frontend::query(sql, buffer).unwrap();
            frontend::terminate(buffer);
        })
        .await;
        // And the socket is closed at once.
        drop(raw);
    };
    for done in 1..=10 {
        goodbye("INSERT INTO t VALUES (1)").await;
        sidecar.settles().await;
        assert_eq!(count().await, done, "while a connection is free");
    }
    let one = holder(&sidecar, "a").await;
    goodbye("INSERT INTO t VALUES (2)").await;
    waiting(&sidecar, 1).await;
    drop(one);
    sidecar.settles().await;
    assert_eq!(count().await, 11, "as soon as one is free");
}

#[tokio::test]
async fn a_cancel_frees_who_waits_and_the_session_lives_on() {
    let more = "pool: {size: 1, overflow: 0, timeout: 10m, notice_after: 10m}\n";
    let (_database, sidecar) = place("cancel_wait", more).await;
    let one = holder(&sidecar, "a").await;
    let (mut late, told) = sidecar
        .started("app", &[("execpool.execution_id", "a")])
        .await;
    for _ in 0..2 {
        send(&mut late, "SELECT 1").await;
        waiting(&sidecar, 1).await;
        cancel(&sidecar, &told).await;
        let answer = late.read_until(b'Z').await;
        assert_eq!(kinds(&answer), "EZ");
        let fields = error(&answer);
        assert_eq!(
            (fields[&'C'].as_str(), fields[&'S'].as_str()),
            ("57014", "ERROR")
        );
        waiting(&sidecar, 0).await;
    }
    // With a wrong key it waits on.
    send(&mut late, "SELECT 7").await;
    waiting(&sidecar, 1).await;
    let mut wrong = told.clone();
    let key = wrong
        .iter_mut()
        .find(|message| message.kind == b'K')
        .unwrap();
    key.body[7] ^= 1;
    cancel(&sidecar, &wrong).await;
    waiting(&sidecar, 1).await;
    drop(one);
    assert_eq!(rows(&late.read_until(b'Z').await), ["7"]);
    // A cancel that comes when nothing runs harms nothing.
    cancel(&sidecar, &told).await;
    assert_eq!(late.ask("SELECT 8").await, "8");
}

#[tokio::test]
async fn the_first_connect_on_a_full_budget_waits_there_and_is_told() {
    let more = "budget: {size: 1, overflow: 0}\npool: {timeout: 1m, notice_after: 100ms}\n";
    let (database, sidecar) = place("first_connect", more).await;
    let one = holder(&sidecar, "a").await;
    wait_only("600ms", (&database, &sidecar), more).await;
    // Another key: it has never connected.
    let named = [("execpool.execution_id", "b"), ("application_name", "new")];
    let (mut raw, told) = sidecar.started("app", &named).await;
    assert_eq!(kinds(&told), "RNE", "{told:?}");
    assert_eq!(told[0].body, [0; 4], "AuthenticationOk");
    let notice = told[1].fields();
    assert!(
        notice[&'M'].contains("at position 1: the pod's budget of 1 is in use"),
        "{notice:?}"
    );
    let fields = error(&told);
    assert_eq!(
        (fields[&'C'].as_str(), fields[&'S'].as_str()),
        ("53300", "FATAL")
    );
    assert!(fields[&'D'].contains("execution a"), "{fields:?}");
    raw.expect_closed().await;

    // One that gets its connection after its notice comes in.
    wait_only("1m", (&database, &sidecar), more).await;
    let mut raw = sidecar.raw().await;
    raw.send_with(|buffer| {
        let all = [("user", "app"), ("database", "app"), named[0], named[1]];
        frontend::startup_message(all, buffer).unwrap();
    })
    .await;
    assert_eq!(raw.read().await.map(|message| message.kind), Some(b'R'));
    assert_eq!(raw.read().await.map(|message| message.kind), Some(b'N'));
    drop(one);
    let told = raw.read_until(b'Z').await;
    assert_in(&told);
    assert!(
        !kinds(&told).contains('R'),
        "AuthenticationOk comes once: {told:?}"
    );
    assert_eq!(raw.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn status_and_cancel_never_wait_while_all_is_exhausted() {
    let more = "budget: {size: 2, overflow: 0}\n\
                pool: {size: 1, overflow: 0, timeout: 10m, notice_after: 10m}\n";
    let (database, sidecar) = place("exhausted", more).await;
    let named = [("execpool.execution_id", "a")];
    let (mut busy, told) = sidecar.started("app", &named).await;
    send(&mut busy, "SELECT pg_sleep(600)").await;
    Postgres::shared().waits_in(&database, "PgSleep").await;
    let _other = holder(&sidecar, "b").await;
    let mut queue = Vec::new();
    for number in 0..50 {
        let mut raw = sidecar.session("app", ["a", "b", "c"][number % 3]).await;
        send(&mut raw, "SELECT 1").await;
        queue.push(raw);
    }
    waiting(&sidecar, 50).await;
    // Whoever waits waits for ten minutes; an answer is waited for for one.
    for path in [
        "/v1/status",
        "/v1/sessions",
        "/v1/executions",
        "/v1/executions/a",
    ] {
        sidecar.get(path).await;
    }
    cancel(&sidecar, &told).await;
    assert_eq!(error(&busy.read_until(b'Z').await)[&'C'], "57014");
    // All of them still wait.
    waiting(&sidecar, 50).await;
    drop((busy, queue));
}

#[tokio::test]
async fn the_databases_own_limit_is_told_as_such_and_lifted_again() {
    let options = PostgresOptions {
        // Three of them are for superusers; execpool's monitor has one, too.
        max_connections: 7,
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start(options);
    let database = postgres.database("few").await;
    let yaml = upstream("app", &database.url())
        + "budget: {size: 10, overflow: 0}\npool: {size: 10, timeout: 500ms, notice_after: 20s}\n";
    let sidecar = Sidecar::start(yaml).await;
    // Somebody else has one of the four.
    let other = database.client().await;
    // The monitor has its connection before the others take all.
    eventually(SOON, "the database is known to answer", async || {
        let status = sidecar.get("/v1/status").await;
        if status["upstreams"][0]["reachable"] == true {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    let mut holders = Vec::new();
    let told = eventually(SOON, "the database's limit is told", async || {
        let named = [("execpool.execution_id", "a")];
        let (mut raw, mut told) = sidecar.started("app", &named).await;
        if kinds(&told).ends_with('Z') {
            told = raw.query("SELECT 1").await;
        }
        if kinds(&told) == "TDCZ" {
            holders.push(raw);
            return Err(told);
        }
        // A dial that is slow is waited for in vain as well.
        let fields = error(&told);
        let is_limit = fields[&'M'].contains("limited_by_database");
        is_limit.then_some(fields).ok_or(told)
    })
    .await;
    let open = holders.len();
    assert!((1..=2).contains(&open), "{open}");
    assert_eq!(told[&'C'], "53300");
    // A probe may have just allowed one more, for a moment.
    let limit = [open, open + 1].map(|most| {
        format!("the database takes no more than {most} connections (limited_by_database)")
    });
    let is_told = limit.iter().any(|limit| told[&'M'].ends_with(limit));
    assert!(is_told, "{told:?}");
    assert!(
        told[&'D'].contains("Longest holders: execution a, "),
        "{told:?}"
    );
    assert!(told[&'H'].contains("max_connections"), "{told:?}");
    let budget = sidecar.get("/v1/status").await["budget"].take();
    assert_eq!(budget["limited_by_database"], true, "{budget}");
    let effective = budget["effective"].as_u64().unwrap() as usize;
    assert!((open..=open + 1).contains(&effective), "{budget}");
    assert_eq!(budget["limit"], 10);

    // More room, and somebody who wants it: a probe finds it while the others stay.
    drop(other);
    eventually(SOON, "one more comes in", async || {
        let mut raw = sidecar.session("app", "a").await;
        let told = raw.query("SELECT 1").await;
        match kinds(&told).as_str() {
            "TDCZ" => Ok(()),
            _ => Err(told),
        }
    })
    .await;
    let budget = sidecar.get("/v1/status").await["budget"].take();
    assert!(budget["effective"].as_u64() > Some(open as u64), "{budget}");
}
