//! Whether connections run out: what is seen of it in status, events and log, with a real app, a real
//! database, and the built program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::sidecar::upstream;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use support::{Fault, Postgres, PostgresOptions, Proxy, Raw, SOON, Sidecar, eventually, load};

/// A warning takes 30 s, and so does recovery.
const HOLD: Duration = Duration::from_secs(30);

/// More than a hold, on a machine that is busy.
const LONG: Duration = Duration::from_secs(120);

/// Nothing is done about it: what is done is looked at in `remedies.rs`.
const SHORT: &str =
    "exhaustion: {wait: 1s, after: 2s, sustained_after: 8s}\nreactor: {cleanup: false}\n";

async fn exhaustion(sidecar: &Sidecar) -> Value {
    sidecar.get("/v1/status").await["exhaustion"].clone()
}

async fn comes_to(sidecar: &Sidecar, state: &str, within: Duration) -> Value {
    eventually(within, &format!("it is {state}"), async || {
        let status = sidecar.get("/v1/status").await;
        match status["exhaustion"]["state"] == state {
            true => Ok(status["exhaustion"].clone()),
            false => Err(status),
        }
    })
    .await
}

/// Waits until it has come to a state, from which it may have gone on since.
async fn has_come_to(sidecar: &Sidecar, state: &str) {
    let state = format!("\"state\":\"{state}\"");
    sidecar.logged(&["\"exhaustion.changed\"", &state]).await;
}

/// Waits until connections are exhausted, and have been for long or not, for this reason.
async fn is_exhausted_by(sidecar: &Sidecar, cause: &str) {
    eventually(SOON, cause, async || {
        let now = exhaustion(sidecar).await;
        let is_so = now["state"] == "exhausted" || now["state"] == "sustained";
        match is_so && now["cause"] == cause {
            true => Ok(()),
            false => Err(now),
        }
    })
    .await;
}

/// Lines of the log that speak of it.
fn told(sidecar: &Sidecar) -> Vec<Value> {
    let log = sidecar.log();
    let lines = log
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["event"] == "exhaustion.changed")
        .collect()
}

/// The events of it: so many, and those that come within a moment.
async fn events(sidecar: &Sidecar, count: usize) -> Vec<Value> {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(["events", "--since", "0", "--json", "--socket"])
        .arg(sidecar.control_socket())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut read = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut events = Vec::new();
    loop {
        let patience = match events.len() < count {
            true => SOON,
            false => Duration::from_secs(2),
        };
        let Ok(Ok(Some(line))) = timeout(patience, read.next_line()).await else {
            return events;
        };
        let event = serde_json::from_str::<Value>(&line).ok();
        events.extend(event.filter(|event| event["event"] == "exhaustion.changed"));
    }
}

/// A session that holds a connection in a transaction.
async fn holder(sidecar: &Sidecar, caller: &str) -> Raw {
    let named = [
        ("execpool.execution_id", "greedy"),
        ("execpool.caller", caller),
    ];
    let (mut raw, told) = sidecar.started("app", &named).await;
    support::session::assert_in(&told);
    raw.query("BEGIN").await;
    raw
}

/// Connects and asks something.
async fn ask(url: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.simple_query(sql).await.map(drop)
}

/// The same in the background, wherever it has to wait.
fn asks(
    sidecar: &Sidecar,
    execution: &str,
    sql: &'static str,
) -> JoinHandle<Result<(), tokio_postgres::Error>> {
    let url = sidecar.url_in("app", execution);
    tokio::spawn(async move { ask(&url, sql).await })
}

/// warning, exhausted, sustained, healthy: with the hold times that no knob changes.
#[tokio::test]
async fn an_app_that_holds_the_budget_is_warned_of_and_comes_back() {
    let (_database, sidecar) = support::session::place(
        "greedy",
        &format!("{SHORT}budget: {{size: 3, overflow: 2}}\npool: {{timeout: 180s}}\n"),
    )
    .await;
    assert_eq!(exhaustion(&sidecar).await["state"], "healthy");
    assert_eq!(exhaustion(&sidecar).await["cause"], Value::Null);
    let start = Instant::now();
    let mut holders = Vec::new();
    for number in 0..5 {
        holders.push(holder(&sidecar, &format!("agent.py:{number} run")).await);
    }
    let warning = comes_to(&sidecar, "warning", LONG).await;
    assert!(
        start.elapsed() >= HOLD - Duration::from_secs(1),
        "{warning}"
    );
    assert_eq!(warning["cause"], "held");
    assert!(warning["age_seconds"].as_f64().unwrap() < 20.0, "{warning}");

    let waiting = asks(&sidecar, "shared", "SELECT 1");
    has_come_to(&sidecar, "exhausted").await;
    let said = tokio::process::Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(["status", "--socket"])
        .arg(sidecar.control_socket())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("exhaustion") && said.contains("do nothing"),
        "{said}"
    );
    comes_to(&sidecar, "sustained", SOON).await;

    let back = Instant::now();
    drop(holders);
    waiting.await.unwrap().expect("it is its turn");
    let healthy = comes_to(&sidecar, "healthy", LONG).await;
    assert!(back.elapsed() >= HOLD - Duration::from_secs(1), "{healthy}");
    assert_eq!(healthy["cause"], Value::Null);

    has_come_to(&sidecar, "healthy").await;
    let lines = told(&sidecar);
    let told: Vec<_> = lines.iter().map(|line| &line["state"]).collect();
    assert_eq!(told, ["warning", "exhausted", "sustained", "healthy"]);
    let levels: Vec<_> = lines.iter().map(|line| &line["level"]).collect();
    assert_eq!(levels, ["WARN", "WARN", "ERROR", "INFO"]);
    let events = events(&sidecar, 4).await;
    assert_eq!(events.len(), 4, "{events:?}");
    for (event, line) in events.iter().zip(&lines) {
        for field in [
            "from",
            "state",
            "cause",
            "used",
            "limit",
            "waiting",
            "holder",
            "holder_caller",
        ] {
            // What is null is no field of a line.
            assert_eq!(event[field], line[field], "{field}: {event} {line}");
        }
        assert!(event["time"].is_string(), "{event}");
    }
    let sustained = &events[2];
    assert_eq!(
        (&sustained["used"], &sustained["limit"]),
        (&5.into(), &5.into())
    );
    assert_eq!(
        (&sustained["waiting"], &sustained["holder"]),
        (&1.into(), &"greedy".into())
    );
    assert_eq!(sustained["holder_caller"], "agent.py:0 run");
    assert!(sustained["oldest_wait_seconds"].as_f64().unwrap() > 2.0);
    assert!(sustained["held_seconds"].as_f64().unwrap() > 30.0);
    assert_eq!(events[3]["cause"], "held", "of what is over");
}

/// Far more clients than connections, and each waits a moment, while always somebody does, for longer than one may.
#[tokio::test]
async fn many_short_waits_are_healthy() {
    let (database, sidecar) = support::session::place(
        "busy",
        "exhaustion: {wait: 15s, after: 2s, warning: 1}\nbudget: {size: 2, overflow: 0}\n",
    )
    .await;
    load::prepare(&database).await;
    // Each transaction over a connection of its own, which it waits for.
    let flags = ["-c", "8", "-j", "2", "-C"];
    let running = tokio::spawn(load::pgbench(sidecar.pg_host(), "app", 20, &flags).succeeds());
    let mut waited = 0;
    while !running.is_finished() {
        let status = sidecar.get("/v1/status").await;
        waited += u64::from(status["budget"]["waiting"].as_u64() > Some(0));
        assert_eq!(status["exhaustion"]["state"], "healthy", "{status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.await.unwrap();
    assert!(waited > 2, "{waited} looks saw somebody wait");
    assert!(told(&sidecar).is_empty(), "{:?}", told(&sidecar));
}

/// Its waits are long, and in vain; the budget has room.
#[tokio::test]
async fn a_full_pool_of_one_execution_is_healthy() {
    let (_database, sidecar) = support::session::place(
        "own",
        &format!("{SHORT}pool: {{size: 1, overflow: 0, timeout: 6s}}\n"),
    )
    .await;
    let mut held = sidecar.session("app", "full").await;
    held.query("BEGIN").await;
    let ends = Instant::now() + Duration::from_secs(12);
    let mut waits = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let url = sidecar.url_in("app", "full");
        waits.spawn(async move {
            while Instant::now() < ends {
                ask(&url, "SELECT 1").await.expect_err("it is full");
            }
        });
    }
    while !waits.is_empty() {
        assert_eq!(exhaustion(&sidecar).await["state"], "healthy");
        let _ = tokio::time::timeout(Duration::from_millis(200), waits.join_next()).await;
    }
    assert!(told(&sidecar).is_empty(), "{:?}", told(&sidecar));
    // It is told all the same, as the execution's affair.
    sidecar.logged(&["\"checkout.refused\""]).await;
    let log = sidecar.log();
    let lines = log
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refused: Vec<Value> = lines
        .filter(|line| line["event"] == "checkout.refused")
        .collect();
    assert!(!refused.is_empty());
    for line in refused {
        assert_eq!(
            (&line["limit"], &line["execution_id"]),
            (&"pool".into(), &"full".into())
        );
    }
}

/// All is held when the database falls silent.
#[tokio::test]
async fn a_database_that_does_not_answer_is_the_cause() {
    let database = Postgres::shared().database("silent").await;
    let proxy = Proxy::tcp(Postgres::shared()).await;
    let url = format!(
        "postgresql://app@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        database.name
    );
    let yaml = upstream("app", &url)
        + "    connect_timeout: 8s\n"
        + SHORT
        + "budget: {size: 2, overflow: 0}\npool: {timeout: 180s}\n";
    let sidecar = Sidecar::start(yaml).await;
    let _held = [
        holder(&sidecar, "a.py:1").await,
        holder(&sidecar, "a.py:2").await,
    ];
    proxy.set(Fault::Freeze);
    let _waiting = asks(&sidecar, "shared", "SELECT 1");
    is_exhausted_by(&sidecar, "database_unreachable").await;
    proxy.set(Fault::None);
    is_exhausted_by(&sidecar, "held").await;
}

#[tokio::test]
async fn a_slow_database_and_a_small_one_are_causes() {
    let (_database, slow) = support::session::place(
        "slow",
        &format!("{SHORT}budget: {{size: 2, overflow: 0}}\npool: {{timeout: 180s}}\n"),
    )
    .await;
    let _working = [(); 3].map(|()| asks(&slow, "shared", "SELECT pg_sleep(180)"));
    is_exhausted_by(&slow, "queries").await;
    drop(slow);

    let options = PostgresOptions {
        max_connections: 12,
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start(options);
    let database = postgres.database("small").await;
    let yaml = upstream("app", &database.url())
        + "    pool: {size: 30}\n"
        + SHORT
        + "pool: {timeout: 180s}\nbudget: {size: 30, overflow: 0}\n";
    let small = Sidecar::start(yaml).await;
    let _holding = [(); 20].map(|()| asks(&small, "many", "SELECT pg_sleep(180)"));
    is_exhausted_by(&small, "limited_by_database").await;
}

/// What happens while nobody looks counts for nothing.
#[tokio::test]
async fn a_sidecar_that_was_stopped_has_found_nothing() {
    let (_database, sidecar) = support::session::place(
        "stopped",
        "exhaustion: {wait: 1s, after: 20s}\nbudget: {size: 1, overflow: 0}\npool: {timeout: 180s}\n",
    )
    .await;
    let held = holder(&sidecar, "a.py:1").await;
    let waiting = asks(&sidecar, "shared", "SELECT 1");
    eventually(SOON, "somebody waits", async || {
        let budget = sidecar.get("/v1/status").await["budget"].clone();
        (budget["waiting"] == 1).then_some(()).ok_or(budget)
    })
    .await;
    sidecar.signal(nix::sys::signal::Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(25)).await;
    sidecar.signal(nix::sys::signal::Signal::SIGCONT);
    // Some looks see a wait of 25 s.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(held);
    waiting.await.unwrap().expect("it is its turn");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(exhaustion(&sidecar).await["state"], "healthy");
    assert!(told(&sidecar).is_empty(), "{:?}", told(&sidecar));
}
