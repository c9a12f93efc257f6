//! Several hosts: which of them is taken, and what becomes of connections when their roles change.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use support::{Postgres, PostgresOptions, Proxy, Sidecar, eventually};
use tempfile::NamedTempFile;

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

/// Two servers at one port of two addresses, and a name that means what the test says.
struct Named {
    hosts: NamedTempFile,
    _doors: [Proxy; 2],
    port: u16,
}

const NAME: &str = "db.execpool.test";

impl Named {
    /// `None` where the tests may not give a process a hosts file of its own.
    async fn new(first: &Postgres, second: &Postgres) -> Option<Self> {
        if !geteuid().is_root() {
            println!("skipped: only root can give a process a hosts file of its own");
            return None;
        }
        let door = Proxy::tcp_at(Ipv4Addr::new(127, 0, 0, 2), 0, first).await;
        let port = door.port();
        let other = Proxy::tcp_at(Ipv4Addr::new(127, 0, 0, 3), port, second).await;
        Some(Self {
            hosts: NamedTempFile::new().unwrap(),
            _doors: [door, other],
            port,
        })
    }

    /// What the name means from now on.
    fn means(&self, addresses: &[&str]) {
        let lines = addresses
            .iter()
            .map(|address| format!("{address} {NAME}\n"));
        // In place, as the file itself is mounted.
        std::fs::write(self.hosts.path(), lines.collect::<String>()).unwrap();
    }

    async fn sidecar(&self, attrs: &str) -> Sidecar {
        let url = format!(
            "postgresql://app@{NAME}:{}/postgres?target_session_attrs={attrs}&sslmode=disable",
            self.port
        );
        Sidecar::options()
            .config(support::sidecar::upstream("app", &url))
            .hosts(self.hosts.path())
            .start()
            .await
    }
}

async fn monitors(postgres: &Postgres) -> usize {
    let filter = "application_name = 'execpool monitor'";
    postgres.activity(filter).await.len()
}

/// Waits until the monitor, which is asked meanwhile, is at one server and not at the other.
async fn monitor_is_at(sidecar: &Sidecar, here: &Postgres, not_here: &Postgres) {
    eventually(SOON, "the monitor is there", async || {
        sidecar.get("/v1/database/health").await;
        match (monitors(here).await, monitors(not_here).await) {
            (1, 0) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn new_connections_and_the_monitor_go_where_a_name_leads_by_now() {
    let first = Postgres::start(PostgresOptions::default());
    let second = Postgres::start(PostgresOptions::default());
    let Some(named) = Named::new(&first, &second).await else {
        return;
    };
    let (at_first, at_second) = (first.port().to_string(), second.port().to_string());
    named.means(&["127.0.0.2"]);
    let sidecar = named.sidecar("any").await;
    let mut there = sidecar.session("app", "a").await;
    assert_eq!(there.ask("SHOW port").await, at_first);
    monitor_is_at(&sidecar, &first, &second).await;

    named.means(&["127.0.0.3"]);
    let mut new = sidecar.session("app", "b").await;
    assert_eq!(new.ask("SHOW port").await, at_second);
    monitor_is_at(&sidecar, &second, &first).await;
    // Who is there stays, and so do idle connections until they are replaced.
    assert_eq!(there.ask("SHOW port").await, at_first);
    let (status, _) = sidecar.control("POST", "/v1/reconnect", None).await;
    assert_eq!(status, 200);
    drop(there);
    drop(new);
    sidecar.settles().await;
    let mut again = sidecar.session("app", "a").await;
    assert_eq!(again.ask("SHOW port").await, at_second);
}

#[tokio::test]
async fn every_address_of_a_name_is_asked_for_its_role_by_pool_and_monitor() {
    let primary = Postgres::start(PostgresOptions::default());
    let standby = primary.standby();
    let Some(named) = Named::new(&standby, &primary).await else {
        return;
    };
    // Nobody listens at the first.
    named.means(&["127.0.0.4", "127.0.0.2", "127.0.0.3"]);
    for (attrs, server, other) in [
        ("read-write", &primary, &standby),
        ("standby", &standby, &primary),
    ] {
        let sidecar = named.sidecar(attrs).await;
        let mut raw = sidecar.session("app", "a").await;
        assert_eq!(raw.ask("SHOW port").await, server.port().to_string());
        monitor_is_at(&sidecar, server, other).await;
    }
}

#[tokio::test]
async fn the_monitor_leaves_a_server_that_is_no_longer_what_is_asked_for() {
    let primary = Postgres::start(PostgresOptions::default());
    let (first, second) = (primary.standby(), primary.standby());
    let url = url(&[first.port(), second.port()], "standby");
    let sidecar = Sidecar::start(support::sidecar::upstream("app", &url)).await;
    monitor_is_at(&sidecar, &first, &second).await;
    first.promote().await;
    monitor_is_at(&sidecar, &second, &first).await;
}

/// What one writer of the failover was told.
#[derive(Debug, Default)]
struct Told {
    /// What the server has said it has written.
    written: BTreeSet<(i32, i32)>,
    /// What may have been written: the connection broke before an answer.
    unknown: BTreeSet<(i32, i32)>,
    /// SQLSTATEs of what failed.
    errors: BTreeSet<String>,
}

/// Writes one row after the other until one was written at port `new`.
async fn write_until(sidecar: Arc<Sidecar>, n: i32, new: String) -> Told {
    let mut told = Told::default();
    for seq in 0..20_000 {
        let connected = sidecar.client("app", &format!("w{n}")).await;
        let Ok(client) = connected else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let insert =
            format!("INSERT INTO written VALUES ({n}, {seq}) RETURNING inet_server_port()");
        match client.query_one(&insert, &[]).await {
            Ok(row) => {
                told.written.insert((n, seq));
                if row.get::<_, i32>(0).to_string() == new {
                    return told;
                }
            }
            Err(error) => {
                told.unknown.insert((n, seq));
                let code = error.code().map(|code| code.code().to_owned());
                told.errors.extend(code);
            }
        }
    }
    panic!("writer {n} never came to the new primary: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_in_the_middle_of_load_moves_every_execution_and_loses_no_write() {
    // What a client is told to be written is at the standby by then.
    let mut primary = Postgres::start(PostgresOptions {
        settings: vec![("synchronous_commit".to_owned(), "on".to_owned())],
        ..PostgresOptions::default()
    });
    let admin = primary.admin().await;
    let table = "CREATE TABLE written (n int, seq int); GRANT ALL ON written TO app";
    admin.batch_execute(table).await.unwrap();
    let standby = primary.standby();
    for sql in [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "SELECT pg_reload_conf()",
    ] {
        admin.batch_execute(sql).await.unwrap();
    }
    eventually(SOON, "commits wait for the standby", async || {
        let sql = "SELECT sync_state FROM pg_stat_replication";
        let rows = admin.query(sql, &[]).await.unwrap();
        let states: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        (states == ["sync"]).then_some(()).ok_or(states)
    })
    .await;
    let url = url(&[primary.port(), standby.port()], "read-write");
    let yaml = format!(
        "budget: {{size: 8, overflow: 0}}\nupstreams: [{{name: app, url: \"{url}\", connect_timeout: 2s}}]\n"
    );
    let sidecar = Arc::new(Sidecar::start(yaml).await);
    let writers: Vec<_> = (0..6)
        .map(|n| {
            let new = standby.port().to_string();
            tokio::spawn(write_until(Arc::clone(&sidecar), n, new))
        })
        .collect();
    eventually(SOON, "the old primary is written to", async || {
        let count = admin.query_one("SELECT count(*) FROM written", &[]).await;
        match count.unwrap().get::<_, i64>(0) {
            50.. => Ok(()),
            few => Err(few),
        }
    })
    .await;
    primary.stop();
    standby.promote().await;
    let mut all = Told::default();
    for writer in writers {
        let told = tokio::time::timeout(Duration::from_secs(30), writer).await;
        let told = told.expect("nobody hangs").unwrap();
        all.written.extend(told.written);
        all.unknown.extend(told.unknown);
        all.errors.extend(told.errors);
    }
    // Nobody was sent to a server that takes no writes, and none was tried there.
    assert!(!all.errors.contains("25006"), "{:?}", all.errors);
    let log = standby.log();
    assert!(!log.contains("cannot execute"), "{log}");
    let rows = standby
        .admin()
        .await
        .query("SELECT n, seq FROM written", &[])
        .await
        .unwrap();
    let found: BTreeSet<(i32, i32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found.len(), rows.len(), "nothing is written twice");
    let lost: Vec<_> = all.written.difference(&found).collect();
    assert!(
        lost.is_empty(),
        "written by the server's word, and not there: {lost:?}"
    );
    let others: Vec<_> = found.difference(&all.written).collect();
    assert!(
        others.iter().all(|row| all.unknown.contains(row)),
        "nobody wrote these: {others:?}"
    );
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
