//! The monitor asks over one connection of its own, tells how the server is, survives
//! whatever becomes of that connection, and says why where it can't.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use execpool::config::{Host, PasswordSource, Secret, Sources, Upstream, load};
use execpool::monitor::{APPLICATION_NAME, ErrorKind, Monitor, MonitorError};
use execpool::server;
use support::postgres::{Backend, PASSWORD};
use support::{Database, Fault, Postgres, PostgresOptions, Proxy, SOON, eventually};
use tokio::net::TcpListener;

/// What a URL says, as an upstream `main` with all the time to connect.
fn upstream(url: &str) -> Upstream {
    let loaded = load(&Sources {
        file: None,
        env: vec![("DATABASE_URL".to_owned(), url.to_owned())],
        flags: Vec::new(),
    });
    let mut upstream = loaded.expect("the URL is good").config.upstreams.remove(0);
    upstream.name = "main".to_owned();
    upstream.connect_timeout = SOON;
    upstream
}

/// A monitor that gives up after 2 s.
fn impatient(url: &str) -> Monitor {
    let mut upstream = upstream(url);
    upstream.connect_timeout = Duration::from_secs(2);
    Monitor::new(&upstream)
}

/// Asks until it is answered in time.
async fn is_answered(monitor: &Monitor) {
    eventually(SOON, "it is answered", async || {
        monitor.health().await.map(drop)
    })
    .await;
}

fn monitor(url: &str) -> Monitor {
    Monitor::new(&upstream(url))
}

/// The monitor's own backends in `database`.
async fn own(postgres: &Postgres, database: &Database) -> Vec<Backend> {
    let name = &database.name;
    let filter = format!("application_name = '{APPLICATION_NAME}' AND datname = '{name}'");
    postgres.activity(&filter).await
}

/// Waits until `database` has `count` backends of the monitor.
async fn has_own(postgres: &Postgres, database: &Database, count: usize) {
    eventually(SOON, "the monitor's connections", async || {
        let found = own(postgres, database).await;
        (found.len() == count).then_some(()).ok_or(found)
    })
    .await;
}

#[tokio::test]
async fn health_is_what_the_server_says_of_itself() {
    let postgres = Postgres::start(PostgresOptions {
        max_connections: 47,
        ..PostgresOptions::default()
    });
    let database = postgres.database("health").await;
    let monitor = monitor(&database.url());
    // Those of another role, which an ordinary role sees less of.
    let _others = [postgres.admin().await, database.client_as("postgres").await];
    let health = monitor.health().await.unwrap();

    let version: String = value(&postgres, "SELECT current_setting('server_version')").await;
    assert_eq!(health.server_version, version);
    assert_eq!(health.max_connections, 47);
    let reserved = "SELECT sum(setting::int) FROM pg_settings \
         WHERE name IN ('superuser_reserved_connections', 'reserved_connections')";
    let reserved: i64 = value(&postgres, reserved).await;
    assert_eq!(i64::from(health.reserved), reserved);
    assert!(!health.in_recovery);
    assert!(health.latency > Duration::ZERO && health.latency < SOON);

    // Connections of the tests may still be on their way out.
    eventually(SOON, "the counts agree", async || {
        let health = monitor.health().await.unwrap();
        let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
        let counted: i64 = value(&postgres, count).await;
        // Of those, one was only there to count.
        let seen = i64::from(health.connections) + 1;
        (seen == counted).then_some(()).ok_or((seen, counted))
    })
    .await;
}

async fn value<T>(postgres: &Postgres, sql: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    let row = postgres.admin().await.query_one(sql, &[]).await;
    row.expect("the server answers").get(0)
}

#[tokio::test]
async fn nothing_is_dialled_before_the_first_question() {
    let monitor = monitor("postgresql://app@127.0.0.1:1/nowhere");
    assert_eq!(monitor.upstream(), "main");
}

#[test]
fn a_monitor_can_be_made_outside_a_runtime() {
    assert_eq!(monitor("postgresql://app@127.0.0.1:1/x").upstream(), "main");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_often_it_is_asked_there_is_one_connection() {
    let postgres = Postgres::shared();
    let database = postgres.database("one_connection").await;
    let monitor = std::sync::Arc::new(monitor(&database.url()));
    for _ in 0..3 {
        let asking: Vec<_> = (0..20)
            .map(|_| {
                let monitor = std::sync::Arc::clone(&monitor);
                tokio::spawn(async move { monitor.health().await.map(drop) })
            })
            .collect();
        assert_eq!(own(postgres, &database).await.len().max(1), 1);
        for asked in asking {
            asked.await.unwrap().unwrap();
        }
    }
    assert_eq!(own(postgres, &database).await.len(), 1);
    assert_eq!(logged_in(postgres, &database), 1);

    drop(monitor);
    has_own(postgres, &database, 0).await;
}

/// How often a connection of the monitor to `database` was let in.
fn logged_in(postgres: &Postgres, database: &Database) -> usize {
    let mark = format!(
        "database={} application_name={APPLICATION_NAME}",
        database.name
    );
    postgres.log().matches(&mark).count()
}

#[tokio::test]
async fn a_connection_that_the_server_ended_is_replaced() {
    let postgres = Postgres::shared();
    let database = postgres.database("ended").await;
    let monitor = monitor(&database.url());
    for _ in 0..3 {
        monitor.health().await.unwrap();
        let before = own(postgres, &database).await[0].pid;
        let end = format!("SELECT pg_terminate_backend({before}, 60000)");
        assert!(value::<bool>(postgres, &end).await);
        monitor.health().await.unwrap();
        assert_ne!(own(postgres, &database).await[0].pid, before);
    }
    has_own(postgres, &database, 1).await;
}

#[tokio::test]
async fn a_server_that_was_away_is_asked_again() {
    let mut postgres = Postgres::start(PostgresOptions::default());
    let monitor = monitor(&postgres.existing_database("postgres").url());
    monitor.health().await.unwrap();
    postgres.stop();
    let away = monitor.health().await.unwrap_err();
    assert_eq!(away.kind(), ErrorKind::Unreachable, "{away}");
    postgres.start_again();
    monitor.health().await.unwrap();
}

#[tokio::test]
async fn a_frozen_server_is_given_up_in_time_and_leaves_no_connection_behind() {
    let postgres = Postgres::shared();
    let database = postgres.database("frozen").await;
    let proxy = Proxy::tcp(postgres).await;
    let monitor = impatient(&proxy.url(&database));
    is_answered(&monitor).await;

    proxy.set(Fault::Freeze);
    for _ in 0..2 {
        let one = over_the_socket(&[1]);
        let both =
            async { tokio::join!(monitor.health(), monitor.terminate(&one, Duration::ZERO)) };
        let both = tokio::time::timeout(SOON, both).await;
        let (first, second) = both.expect("they are given up");
        let (first, second) = (first.unwrap_err(), second.unwrap_err());
        assert_eq!(first.kind(), ErrorKind::Timeout, "{first}");
        assert_eq!(second.kind(), ErrorKind::Timeout, "{second}");
    }

    proxy.set(Fault::None);
    is_answered(&monitor).await;
    has_own(postgres, &database, 1).await;
    eventually(SOON, "one is relayed", async || {
        let count = proxy.connections();
        (count == 1).then_some(()).ok_or(count)
    })
    .await;
}

#[tokio::test]
async fn a_question_that_is_not_awaited_closes_its_connection() {
    let postgres = Postgres::shared();
    let database = postgres.database("not_awaited").await;
    let proxy = Proxy::unix(postgres).await;
    let monitor = monitor(&proxy.url(&database));
    monitor.health().await.unwrap();
    proxy.set(Fault::Freeze);
    let tasks = tokio::runtime::Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    let dropped = tokio::time::timeout(Duration::from_millis(50), monitor.health()).await;
    assert!(dropped.is_err());
    eventually(SOON, "its task is gone, answer or not", async || {
        let now = tasks.num_alive_tasks();
        (now == before - 1).then_some(()).ok_or((before, now))
    })
    .await;
    proxy.set(Fault::None);
    has_own(postgres, &database, 0).await;
    monitor.health().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_told_in_the_servers_own_words_and_not_shown() {
    let database = Postgres::shared().existing_database("postgres");
    let mut upstream = upstream(&database.tcp_url_as("scram_user"));
    upstream.target.password = PasswordSource::Given(Secret::new("not-this-one"));
    let monitor = Monitor::new(&upstream);
    let refused = monitor.health().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    let text = refused.to_string();
    let own_words = "FATAL: password authentication failed for user \"scram_user\"";
    assert!(text.contains(own_words), "{text}");
    assert!(text.starts_with("upstream main: "), "{text}");
    for shown in [text, format!("{refused:?}"), format!("{monitor:?}")] {
        assert!(!shown.contains("not-this-one"), "{shown}");
        assert!(!shown.contains("postgresql://"), "{shown}");
    }
}

#[tokio::test]
async fn the_password_file_is_read_anew_at_each_connect() {
    let postgres = Postgres::shared();
    let database = postgres.database("rotated").await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    let mut upstream = upstream(&database.url_as("scram_user"));
    upstream.target.password = PasswordSource::File(file.clone());
    let monitor = Monitor::new(&upstream);
    let kind_with = async |password: Option<&str>| {
        put(&file, password);
        monitor.health().await.err().map(|error| error.kind())
    };

    assert_eq!(kind_with(None).await, Some(ErrorKind::Password));
    assert_eq!(kind_with(Some("old")).await, Some(ErrorKind::Refused));
    assert_eq!(kind_with(Some(PASSWORD)).await, None);
    // The open connection needs no password.
    assert_eq!(kind_with(None).await, None);
}

fn put(file: &Path, password: Option<&str>) {
    match password {
        Some(password) => fs::write(file, format!("{password}\n")).unwrap(),
        None => drop(fs::remove_file(file)),
    }
}

#[tokio::test]
async fn every_served_method_logs_in() {
    let database = Postgres::shared().existing_database("postgres");
    for url in [
        database.url_as("clear_user"),
        database.url_as("md5_user"),
        database.tcp_url_as("md5_user"),
        database.tcp_url_as("scram_user"),
    ] {
        let mut upstream = upstream(&url);
        let missing = Monitor::new(&upstream).health().await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Login, "{missing}");
        assert!(missing.to_string().contains("none is configured"));
        upstream.target.password = PasswordSource::Given(Secret::new(PASSWORD));
        let asked = Monitor::new(&upstream).health().await;
        asked.unwrap_or_else(|error| panic!("{url}: {error}"));
    }
}

#[tokio::test]
async fn a_password_in_clear_text_is_not_sent_over_tcp() {
    let database = Postgres::shared().existing_database("postgres");
    let mut upstream = upstream(&database.tcp_url_as("clear_user"));
    upstream.target.password = PasswordSource::Given(Secret::new(PASSWORD));
    let refused = Monitor::new(&upstream).health().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Login, "{refused}");
    assert!(refused.to_string().contains("clear text"), "{refused}");
}

#[tokio::test]
async fn hosts_are_tried_in_order_and_a_silent_one_does_not_take_all_the_time() {
    let postgres = Postgres::shared();
    let database = postgres.database("hosts").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = |port| Host::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    };
    let mut upstream = upstream(&database.tcp_url_as("app"));
    let silent = host(silent.local_addr().unwrap().port());
    upstream.target.hosts = vec![host(1), silent, host(postgres.port())];
    // The silent one has a third of it.
    upstream.connect_timeout = Duration::from_secs(15);
    Monitor::new(&upstream).health().await.unwrap();

    // What the server itself refuses is not asked of the next.
    upstream.target.database = "no such".to_owned();
    upstream.target.hosts = vec![host(postgres.port()), host(1)];
    let refused = Monitor::new(&upstream).health().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
}

#[tokio::test]
async fn terminate_ends_a_backend_that_is_busy() {
    let postgres = Postgres::shared();
    let database = postgres.database("terminate").await;
    let monitor = monitor(&database.url());
    let busy = database.client().await;
    let pid = pid_of(&busy).await;
    let sleeping = tokio::spawn(async move { busy.batch_execute("SELECT pg_sleep(60)").await });
    eventually(SOON, "it sleeps", async || {
        let found = postgres_activity(postgres, pid).await;
        (found.as_deref() == Some("PgSleep"))
            .then_some(())
            .ok_or(found)
    })
    .await;

    assert_eq!(
        monitor
            .terminate(&over_the_socket(&[pid]), Duration::ZERO)
            .await
            .unwrap(),
        1
    );
    let ended = sleeping.await.unwrap().unwrap_err();
    assert_eq!(ended.code().unwrap().code(), "57P01");
    eventually(SOON, "it is nobody any more", async || {
        let signalled = monitor
            .terminate(&over_the_socket(&[pid]), Duration::ZERO)
            .await
            .unwrap();
        (signalled == 0).then_some(()).ok_or(signalled)
    })
    .await;
}

fn over_the_socket(pids: &[i32]) -> Vec<server::Backend> {
    let pids = pids.iter();
    pids.map(|pid| server::Backend {
        pid: *pid,
        machine: None,
    })
    .collect()
}

#[tokio::test]
async fn terminate_leaves_the_same_number_on_another_machine_alone() {
    let postgres = Postgres::shared();
    let database = postgres.database("elsewhere").await;
    let monitor = monitor(&database.tcp_url_as("app"));
    let client = database.client().await;
    let pid = pid_of(&client).await;
    let on = |port: u16| server::Backend {
        pid,
        machine: Some(([127, 0, 0, 1], port).into()),
    };
    let other = [on(postgres.port() ^ 1), over_the_socket(&[pid])[0]];
    assert_eq!(monitor.terminate(&other, Duration::ZERO).await.unwrap(), 0);
    client.query_one("SELECT 1", &[]).await.unwrap();
    let here = [on(postgres.port())];
    assert_eq!(monitor.terminate(&here, Duration::ZERO).await.unwrap(), 1);
}

async fn pid_of(client: &tokio_postgres::Client) -> i32 {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await;
    row.unwrap().get(0)
}

/// What a backend waits for.
async fn postgres_activity(postgres: &Postgres, pid: i32) -> Option<String> {
    let sql = format!("SELECT max(wait_event) FROM pg_stat_activity WHERE pid = {pid}");
    value(postgres, &sql).await
}

#[tokio::test]
async fn terminate_leaves_others_and_itself_alone() {
    let postgres = Postgres::shared();
    let database = postgres.database("others").await;
    let others = database.client_as("postgres").await;
    for user in ["app", "postgres"] {
        let monitor = monitor(&database.url_as(user));
        monitor.health().await.unwrap();
        let mut pids = vec![i32::MAX, own(postgres, &database).await[0].pid];
        if user == "app" {
            pids.push(pid_of(&others).await);
        } else {
            // A superuser could end any process of the server.
            let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
            pids.push(value(postgres, sql).await);
        }
        assert_eq!(
            monitor
                .terminate(&over_the_socket(&pids), Duration::ZERO)
                .await
                .unwrap(),
            0,
            "{user}"
        );
        assert_eq!(monitor.terminate(&[], Duration::ZERO).await.unwrap(), 0);
        drop(monitor);
        has_own(postgres, &database, 0).await;
    }
    others.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_server_without_a_free_slot_is_told_as_such() {
    let postgres = Postgres::start(PostgresOptions {
        max_connections: 5,
        ..PostgresOptions::default()
    });
    let database = postgres.existing_database("postgres");
    let _held = [database.client().await, database.client().await];
    let full: MonitorError = monitor(&database.url()).health().await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Refused);
    assert!(full.to_string().contains("SQLSTATE 53300"), "{full}");
}
