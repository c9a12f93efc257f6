//! The budget holds, by the server's own word: its log of connections, not samples of it, shows
//! never more at once than the budget, and for each execution never more than its pool.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use support::connection_log::ConnectionLog;
use support::sidecar::upstream;
use support::{Postgres, SOON, Sidecar, eventually};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

const EXECUTIONS: usize = 50;
const SESSIONS: usize = 8;

/// What clients met, so that it can be told that it was rough.
#[derive(Default)]
struct Met {
    served: AtomicUsize,
    killed: AtomicUsize,
    ended: AtomicUsize,
}

/// A client of an execution whose server connections bear its name.
async fn connect(
    sidecar: &Sidecar,
    upstream: &str,
    execution: &str,
) -> Option<(Client, tokio::task::JoinHandle<()>)> {
    let url = sidecar.url_in(upstream, &format!("{execution}:{execution}"));
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    Some((client, task))
}

/// One session: queries, sleeps, and goes in one of three ways. What it got first it keeps until
/// `full`.
async fn session(
    sidecar: &Sidecar,
    (upstream, execution): (&str, &str),
    number: usize,
    mut full: watch::Receiver<bool>,
    met: &Met,
) {
    let Some((client, task)) = connect(sidecar, upstream, execution).await else {
        met.ended.fetch_add(1, Relaxed);
        return;
    };
    for query in 0..3 {
        let sql = match (number + query) % 4 {
            0 => "BEGIN; SET LOCAL work_mem = '1MB'; SELECT 1",
            1 => "SELECT pg_sleep(0.02)",
            2 => "CREATE TEMP TABLE IF NOT EXISTS t (i int)",
            _ => "SELECT 1",
        };
        if client.simple_query(sql).await.is_err() {
            met.ended.fetch_add(1, Relaxed);
            return;
        }
        met.served.fetch_add(1, Relaxed);
        if full.wait_for(|full| *full).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis((number % 5) as u64 * 3)).await;
    }
    if number % 4 == 1 {
        // Killed: gone without a word, in the middle of a query.
        let running = client.simple_query("SELECT pg_sleep(10)");
        let _ = tokio::time::timeout(Duration::from_millis(10), running).await;
        task.abort();
        met.killed.fetch_add(1, Relaxed);
    }
    drop(client);
    let _ = task.await;
}

/// Whether an execution is ended half-way.
fn is_ended(execution: usize) -> bool {
    execution % 5 == 4
}

/// Whether an execution is known and has a session now.
async fn has_session(sidecar: &Sidecar, path: &str) -> bool {
    let (status, told) = sidecar.control("GET", path, None).await;
    status == 200 && told["sessions"].as_u64() > Some(0)
}

/// Fifty executions with eight sessions each, some of which are ended half-way. None goes before the
/// budget has been used up, so that its limit is tried on the slowest machine.
async fn rough(sidecar: &Arc<Sidecar>, upstream: &str, budget: usize) -> Arc<Met> {
    let met = Arc::new(Met::default());
    let (tell_full, full) = watch::channel(false);
    let mut running = JoinSet::new();
    for execution in 0..EXECUTIONS {
        for number in 0..SESSIONS {
            let (sidecar, upstream, met) =
                (Arc::clone(sidecar), upstream.to_owned(), Arc::clone(&met));
            let full = full.clone();
            running.spawn(async move {
                let name = format!("e{execution}");
                let place = (upstream.as_str(), name.as_str());
                session(&sidecar, place, execution + number, full, &met).await;
            });
        }
        if is_ended(execution) {
            let sidecar = Arc::clone(sidecar);
            running.spawn(async move {
                let path = format!("/v1/executions/e{execution}");
                let begins = async {
                    while !has_session(&sidecar, &path).await {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                let in_time = tokio::time::timeout(5 * SOON, begins).await;
                in_time.expect("it has a session");
                let (status, body) = sidecar.control("DELETE", &path, None).await;
                assert!(matches!(status, 200 | 202 | 404), "{status} {body}");
            });
        }
    }
    eventually(5 * SOON, "the budget is used up", async || {
        let counts = sidecar.get("/v1/status").await["budget"].take();
        (counts["used"] == budget).then_some(()).ok_or(counts)
    })
    .await;
    tell_full.send_replace(true);
    while let Some(done) = running.join_next().await {
        done.expect("no session panics");
    }
    met
}

/// The log of a database once all that is open there may stay open.
async fn settled(database: &str, size: usize) -> ConnectionLog {
    eventually(SOON, "what is above the size is closed", async || {
        let log = Postgres::shared().connection_log().of_database(database);
        match log.open() {
            open if open <= size => Ok(log),
            open => Err(open),
        }
    })
    .await
}

async fn holds(name: &str, more: &str, size: usize, budget: usize) {
    let database = Postgres::shared().database(name).await;
    let config = format!(
        "{}    connect_timeout: 1m\npool: {{timeout: 10m}}\n{more}",
        upstream(name, &database.url())
    );
    let sidecar = Arc::new(Sidecar::start(config).await);
    let met = rough(&sidecar, name, budget).await;
    let log = settled(name, size).await;

    assert_eq!(log.peak(), budget, "all of the budget, and no more");
    for execution in 0..EXECUTIONS {
        let own = log.only(|event| event.application_name == format!("e{execution}"));
        assert!(own.peak() <= 5, "e{execution} had {} at once", own.peak());
        let had_its_turn = own.connected() > 0;
        assert!(
            had_its_turn || is_ended(execution),
            "e{execution} got nothing"
        );
    }
    let [served, killed, ended] = [&met.served, &met.killed, &met.ended].map(|n| n.load(Relaxed));
    assert!(
        served > EXECUTIONS * SESSIONS,
        "{served} queries were served"
    );
    assert!(killed > EXECUTIONS / 2, "{killed} clients were killed");
    assert!(ended > 0, "an execution's end met its sessions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_executions_never_have_more_than_the_default_budget_of_20_and_10() {
    holds("budget_default", "", 20, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_executions_never_have_more_than_a_budget_of_3_and_2() {
    let more = "budget: {size: 3, overflow: 2}\n";
    holds("budget_small", more, 3, 5).await;
}

#[tokio::test]
async fn the_log_tells_a_budget_that_does_not_hold() {
    let database = Postgres::shared().database("beside").await;
    let config = format!(
        "{}budget: {{size: 1, overflow: 0}}\n",
        upstream("beside", &database.url())
    );
    let sidecar = Sidecar::start(config).await;
    let held = sidecar.client("beside", "a").await.unwrap();
    held.simple_query("SELECT 1").await.unwrap();
    // What goes past the sidecar counts as well: the log is the server's.
    let url = format!("{}&application_name=b", database.url());
    let (beside, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    beside.simple_query("SELECT 1").await.unwrap();
    let log = Postgres::shared().connection_log().of_database("beside");
    assert_eq!(log.peak(), 2);
}
