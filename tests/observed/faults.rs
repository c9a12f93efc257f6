//! What goes wrong in the run.

use std::time::Duration;

use postgres_protocol::message::frontend;
use serde_json::json;
use tokio::net::TcpStream;

use crate::fleet::{Fleet, narrow, page};
use crate::support::collector::Collector;
use crate::support::session::assert_in;
use crate::support::{Raw, Sidecar, eventually, load};
use crate::{LONG, SOON};

/// All of it, to the recovery and to the end of one pod.
pub(crate) async fn all(fleet: &mut Fleet) {
    let scraped = &fleet.scraped;
    tokio::join!(
        work(scraped),
        executions_end(scraped),
        queries_fail(fleet),
        sessions_are_forgotten(fleet),
        logins_fail(scraped),
        a_database_is_away(fleet),
        a_database_is_full(fleet),
        scrapes_fail(fleet),
    );
    let holders = exhaust(&fleet.scraped).await;
    fleet.prometheus.has(FIRING).await;
    drop(holders);
    // What an execution leaves is kept for others.
    fleet.scraped.settles().await;
    end(&fleet.scraped, "greedy").await;
    let _collector = Collector::options().port(fleet.late).start().await;
    for exported in ["metric_data_point", "span"] {
        let arrived = format!("otel_sdk_exporter_{exported}_exported_total{{error_type=\"\"}} > 0");
        fleet.prometheus.has(&arrived).await;
    }
    drop(fleet.cut_off.take());
    fleet.prometheus.has("up == 0").await;
    eventually(LONG, "it has recovered", async || {
        let state = fleet.prometheus.query(STATE).await;
        match state.as_slice() {
            [one] if one.value < 2.0 => Ok(()),
            other => Err(other.to_vec()),
        }
    })
    .await;
}

const FIRING: &str = r#"ALERTS{alertname="ExecpoolBudgetExhausted", alertstate="firing"}"#;
const STATE: &str = r#"execpool_exhaustion_state{pod="agent-0"}"#;

/// A load that works, and what it registers.
async fn work(sidecar: &Sidecar) {
    begin(sidecar, "works", None).await;
    for kind in ["browser", "file"] {
        let resource = json!({"kind": kind, "name": "one"});
        let path = "/v1/executions/works/resources";
        let (status, told) = sidecar.control("POST", path, Some(resource)).await;
        assert_eq!(status, 201, "{told}");
    }
    let client = sidecar.client("app", "works").await.unwrap();
    let tables = "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
        INSERT INTO accounts SELECT id, 0 FROM generate_series(1, 100) id";
    client.batch_execute(tables).await.unwrap();
    drop(client);
    let flags = ["-c", "2"];
    load::pgbench(sidecar.pg_host(), "app", 6, &flags)
        .succeeds()
        .await;
}

async fn end(sidecar: &Sidecar, id: &str) {
    let path = format!("/v1/executions/{id}");
    let (status, told) = sidecar.control("DELETE", &path, None).await;
    assert!((200..300).contains(&status), "{told}");
}

async fn begin(sidecar: &Sidecar, id: &str, deadline: Option<&str>) {
    let body = json!({"id": id, "deadline": deadline});
    let (status, told) = sidecar.control("POST", "/v1/executions", Some(body)).await;
    assert_eq!(status, 201, "{told}");
}

/// By their deadline, with their hold, deleted with a query that runs.
async fn executions_end(sidecar: &Sidecar) {
    begin(sidecar, "late", Some("1s")).await;
    begin(sidecar, "held", None).await;
    drop(sidecar.stream("/v1/executions/held/hold").await);
    let mut raw = sidecar.session("app", "deleted").await;
    send(&mut raw, "SELECT pg_sleep(60)").await;
    sidecar.session_is("deleted", "active").await;
    end(sidecar, "deleted").await;
    for id in ["late", "held", "deleted"] {
        let path = format!("/v1/executions/{id}?ended=true");
        eventually(SOON, "it has ended", async || {
            match sidecar.control("GET", &path, None).await {
                (200, _) => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
}

async fn send(raw: &mut Raw, sql: &str) {
    raw.send_with(|buffer| frontend::query(sql, buffer).unwrap())
        .await;
}

/// By themselves, by a cancel, and because nobody waits for them any more.
async fn queries_fail(fleet: &Fleet) {
    let sidecar = &fleet.scraped;
    let client = sidecar.client("app", "wrong").await.unwrap();
    // A series of an error is there from the first one on: only the next one makes it rise.
    for times in 1..=2 {
        for sql in ["SELECT 1/0", "SELECT * FROM nowhere", "SELEC"] {
            client.simple_query(sql).await.unwrap_err();
        }
        let counted = format!(
            "count(db_client_operation_duration_seconds_count{{db_response_status_code!=\"\"}} >= {times}) >= 3"
        );
        fleet.prometheus.has(&counted).await;
    }
    let token = client.cancel_token();
    let asks = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(60)").await });
    sidecar.session_is("wrong", "active").await;
    let stream = tokio::net::UnixStream::connect(sidecar.socket())
        .await
        .unwrap();
    let cancelled = token.cancel_query_raw(stream, tokio_postgres::NoTls).await;
    cancelled.unwrap();
    asks.await.unwrap().unwrap_err();
    let mut raw = sidecar.session("app", "leaves").await;
    send(&mut raw, "SELECT pg_sleep(60)").await;
    sidecar.session_is("leaves", "active").await;
}

/// Two that hold a connection and ask nothing; one asks again.
async fn sessions_are_forgotten(fleet: &Fleet) {
    let suspects = r#"execpool_session_leaks_total{pod="agent-0", kind="suspect"} >= 2"#;
    let recovered = r#"execpool_session_leaks_total{pod="agent-0", kind="recovered"} >= 1"#;
    let mut forgotten = Vec::new();
    for _ in 0..2 {
        let mut raw = fleet.scraped.session("app", "forgets").await;
        raw.query("SELECT 1").await;
        forgotten.push(raw);
    }
    fleet.prometheus.has(suspects).await;
    forgotten[0].query("SELECT 1").await;
    fleet.prometheus.has(recovered).await;
}

/// With a password that is not the one.
async fn logins_fail(sidecar: &Sidecar) {
    let url = sidecar
        .url_in("wrong", "stranger")
        .replace("app@", "scram_user@");
    for _ in 0..2 {
        let refused = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
        assert!(refused.is_err(), "the password is wrong");
    }
}

/// Whoever asks is told so, and no connection succeeds.
async fn a_database_is_away(fleet: &Fleet) {
    let sidecar = fleet.cut_off.as_ref().unwrap();
    let counted = r#"sum(execpool_server_errors_total{pod="agent-2", phase="connect"}) > 5"#;
    let tries = async {
        loop {
            if let Ok(client) = sidecar.client("app", "tries").await {
                client.simple_query("SELECT 1").await.unwrap_err();
            }
        }
    };
    tokio::select! {
        () = fleet.prometheus.has(counted) => {}
        () = tries => {}
    }
}

/// Others have all the connections that a database allows.
async fn a_database_is_full(fleet: &Fleet) {
    let first = fleet.heard.client("app", "first").await.unwrap();
    first.simple_query("SELECT 1").await.unwrap();
    let mut others = Vec::new();
    while let Ok((client, connection)) =
        tokio_postgres::connect(&fleet.narrow.url(), tokio_postgres::NoTls).await
    {
        tokio::spawn(connection);
        others.push(client);
    }
    assert!(!others.is_empty(), "there was room");
    if let Ok(second) = fleet.heard.client("app", "second").await {
        second.simple_query("SELECT 1").await.unwrap_err();
    }
    let less = r#"execpool_budget_effective{pod="agent-1"} < 16"#;
    fleet.prometheus.has(less).await;
    let told = r#"execpool_execution_connections{execpool_execution_id="first"} > 0"#;
    fleet.prometheus.has(told).await;
}

/// One execution holds the whole budget and asks nothing, until others have waited in vain for so long that
/// connections are exhausted. It holds them as long as what is returned.
pub(crate) async fn exhaust(sidecar: &Sidecar) -> Vec<Raw> {
    let mut holders = Vec::new();
    for _ in 0..6 {
        let named = [
            ("execpool.execution_id", "greedy"),
            ("execpool.caller", "agent.py:7 run"),
        ];
        let (mut raw, told) = sidecar.started("app", &named).await;
        assert_in(&told);
        raw.query("BEGIN").await;
        holders.push(raw);
    }
    narrow(sidecar).await;
    let waits = async {
        loop {
            if let Ok(client) = sidecar.client("app", "waits").await {
                // Until the reactor makes room, which it does once it is sustained.
                if let Err(told) = client.simple_query("SELECT 1").await {
                    let code = told.code().map(|code| code.code().to_owned());
                    assert_eq!(code.as_deref(), Some("53300"), "{told}");
                }
            }
        }
    };
    let exhausted = eventually(SOON, "it is sustained", async || {
        let status = sidecar.get("/v1/status").await;
        match status["exhaustion"]["state"] == "sustained" {
            true => Ok(()),
            false => Err(status),
        }
    });
    tokio::select! {
        () = exhausted => {}
        () = waits => {}
    }
    holders
}

/// More come at once, and say nothing, than there are places for those that have not asked yet.
async fn scrapes_fail(fleet: &Fleet) {
    let page = page(&fleet.heard).await;
    let failed = r#"sum(execpool_scrape_failed_total{pod="agent-1"}) > 0"#;
    let tries = async {
        loop {
            let mut silent = Vec::new();
            for _ in 0..300 {
                silent.push(TcpStream::connect(&page).await);
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = fleet.prometheus.has(failed) => {}
        () = tries => {}
    }
}
