//! Several hosts: which of them is taken, and what becomes of connections when their roles change.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Postgres, PostgresOptions, Sidecar, eventually};

const SOON: Duration = Duration::from_secs(10);
/// A port where nothing listens.
const NOBODY: u16 = 1;

const ATTRS: [&str; 6] = [
    "any",
    "read-write",
    "read-only",
    "primary",
    "standby",
    "prefer-standby",
];

fn url(ports: &[u16], attrs: &str) -> String {
    let hosts = ports.iter().map(|port| format!("127.0.0.1:{port}"));
    let hosts = hosts.collect::<Vec<_>>().join(",");
    format!("postgresql://app@{hosts}/postgres?target_session_attrs={attrs}&sslmode=disable")
}

/// Which server libpq takes.
fn by_libpq(url: &str) -> Option<String> {
    let psql = Command::new("psql")
        .args(["-XAtq", "-d", url, "-c", "SELECT inet_server_port()"])
        .output()
        .expect("psql can be run");
    let answer = String::from_utf8(psql.stdout).unwrap();
    psql.status.success().then(|| answer.trim().to_owned())
}

async fn by_execpool(sidecar: &Sidecar, upstream: &str) -> Result<String, String> {
    let mut raw = sidecar.raw().await;
    let told = raw
        .startup(&[("user", "app"), ("database", upstream)])
        .await;
    match told.iter().find(|message| message.kind == b'E') {
        Some(error) => Err(error.fields()[&'M'].clone()),
        None => Ok(raw.ask("SELECT inet_server_port()").await),
    }
}

#[tokio::test]
async fn the_host_that_libpq_takes_is_taken_for_every_attribute_and_order() {
    let primary = Postgres::start(PostgresOptions::default());
    let standby = primary.standby();
    let (p, s) = (primary.port(), standby.port());
    let orders: [&[u16]; 6] = [
        &[p, s],
        &[s, p],
        &[NOBODY, p, s],
        &[NOBODY, s, p],
        &[p],
        &[s],
    ];
    let mut cases = Vec::new();
    for order in orders {
        for attrs in ATTRS {
            cases.push((format!("u{}", cases.len()), url(order, attrs)));
        }
    }
    let upstreams = cases
        .iter()
        .map(|(name, url)| format!("  - {{name: {name}, url: \"{url}\"}}\n"));
    let yaml = format!(
        "budget: {{size: 100}}\nupstreams:\n{}",
        upstreams.collect::<String>()
    );
    let sidecar = Sidecar::start(yaml).await;
    for (name, url) in &cases {
        let took = by_execpool(&sidecar, name).await;
        match by_libpq(url) {
            Some(port) => assert_eq!(took, Ok(port), "{url}"),
            None => {
                let error = took.unwrap_err();
                let attrs = url.split("attrs=").nth(1).unwrap();
                let attrs = attrs.split('&').next().unwrap();
                assert!(error.contains(attrs), "{url}: {error}");
                assert!(error.contains("127.0.0.1:"), "{url}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_refused_a_write_is_left_by_its_connection() {
    let database = Postgres::shared().database("refused_write").await;
    let sidecar = Sidecar::over(&database).await;
    let pid_of = async |statements: &[&str]| {
        let mut raw = sidecar.session("refused_write", "a").await;
        for statement in statements {
            raw.query(statement).await;
        }
        let pid = raw.ask("SELECT pg_backend_pid()").await;
        raw.send(b"X\0\0\0\x04").await;
        sidecar.settles().await;
        pid
    };
    let first = pid_of(&["SELECT 1"]).await;
    let kept = pid_of(&["BEGIN READ ONLY", "CREATE TABLE t ()", "ROLLBACK"]).await;
    assert_eq!(first, kept, "one that served well is lent again");
    assert_ne!(pid_of(&[]).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_in_the_middle_of_load_moves_every_execution_to_the_new_primary() {
    let mut primary = Postgres::start(PostgresOptions::default());
    primary
        .admin()
        .await
        .batch_execute("CREATE TABLE written (n int); GRANT ALL ON written TO app")
        .await
        .unwrap();
    let standby = primary.standby();
    let url = url(&[primary.port(), standby.port()], "read-write");
    let yaml = format!(
        "budget: {{size: 8, overflow: 0}}\nupstreams: [{{name: app, url: \"{url}\", connect_timeout: 2s}}]\n"
    );
    let sidecar = std::sync::Arc::new(Sidecar::start(yaml).await);
    let new = standby.port().to_string();
    let writers = (0..6).map(|n| {
        let (sidecar, new) = (std::sync::Arc::clone(&sidecar), new.clone());
        tokio::spawn(async move {
            // Until each has written to the new primary, whatever happens on the way.
            for _ in 0..20_000 {
                let Ok(client) = sidecar.client("app", &format!("w{n}")).await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let insert = format!("INSERT INTO written VALUES ({n})");
                let wrote = client.batch_execute(&insert).await.is_ok();
                let port = client
                    .query_one("SELECT inet_server_port()::text", &[])
                    .await;
                if let (true, Ok(row)) = (wrote, port)
                    && row.get::<_, String>(0) == new
                {
                    return true;
                }
            }
            false
        })
    });
    let writers: Vec<_> = writers.collect();
    eventually(SOON, "the old primary is written to", async || {
        let rows = primary.admin().await;
        let count = rows.query_one("SELECT count(*) FROM written", &[]).await;
        match count.unwrap().get::<_, i64>(0) {
            50.. => Ok(()),
            few => Err(few),
        }
    })
    .await;
    primary.stop();
    standby.promote().await;
    for writer in writers {
        let moved = tokio::time::timeout(Duration::from_secs(30), writer).await;
        assert!(moved.expect("nobody hangs").unwrap());
    }
    let client = standby.admin().await;
    let all = client
        .query_one("SELECT count(DISTINCT n) FROM written", &[])
        .await
        .unwrap();
    assert_eq!(all.get::<_, i64>(0), 6);
    eventually(SOON, "nothing is lent any more", async || {
        let status = sidecar.get("/v1/status").await;
        match status["budget"]["used"] == 0 && status["budget"]["waiting"] == 0 {
            true => Ok(()),
            false => Err(status["budget"].clone()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_killed_sidecar_leaves_no_query_behind() {
    let database = Postgres::shared().database("killed").await;
    for (way, url) in [
        ("socket", database.url()),
        ("tcp", database.tcp_url_as("app")),
    ] {
        let mut sidecar = Sidecar::start(support::sidecar::upstream("app", &url)).await;
        let mut raw = sidecar.session("app", "a").await;
        let checks = raw.ask("SHOW client_connection_check_interval").await;
        assert_eq!(checks, "1s", "{way}");
        raw.send(b"Q\0\0\0\x19SELECT pg_sleep(600)\0").await;
        sidecar.session_is("a", "active").await;
        sidecar.signal(Signal::SIGKILL);
        sidecar.exited(SOON).await;
        eventually(Duration::from_secs(4), "its backend is gone", async || {
            let filter = "datname = 'killed' AND query LIKE '%pg_sleep(600)%'";
            let left = Postgres::shared().activity(filter).await;
            left.is_empty().then_some(()).ok_or(left)
        })
        .await;
    }
}

#[tokio::test]
async fn the_apps_own_word_on_the_check_wins() {
    let database = Postgres::shared().database("own_check").await;
    let sidecar = Sidecar::over(&database).await;
    for (name, value) in [
        ("client_connection_check_interval", "7s"),
        ("options", "-c client_connection_check_interval=7s"),
    ] {
        let mut raw = sidecar.raw().await;
        raw.startup(&[("user", "app"), ("database", "own_check"), (name, value)])
            .await;
        let checks = raw.ask("SHOW client_connection_check_interval").await;
        assert_eq!(checks, "7s", "{name}");
    }
}
