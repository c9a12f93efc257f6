//! The means of the tests do what they claim: a test can only be trusted as far as
//! what it looks through.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::postgres::{PASSWORD, ROLES};
use support::{Fault, Postgres, PostgresOptions, Proxy, Raw, SOON, eventually};
use tokio_postgres::{Client, NoTls};

/// What [`nothing_outlives_a_killed_test_program`] runs and kills.
#[test]
#[ignore = "a part of another test"]
fn start_a_server_and_hang() {
    let postgres = Postgres::start(PostgresOptions::default());
    println!("\nserver {}", postgres.directory().display());
    std::thread::sleep(Duration::from_secs(600));
}

#[tokio::test]
async fn nothing_outlives_a_killed_test_program() {
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "start_a_server_and_hang",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let directory = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("server ").map(str::to_owned))
        .expect("the program starts a server");
    let pid = std::fs::read_to_string(format!("{directory}/data/postmaster.pid")).unwrap();
    let process = format!("/proc/{}", pid.lines().next().unwrap());
    assert!(Path::new(&process).exists());

    program.kill().unwrap();
    program.wait().unwrap();
    eventually(SOON, "server and directory are gone", async || {
        let left = [process.as_str(), &directory].map(|path| Path::new(path).exists());
        if left == [false, false] {
            Ok(())
        } else {
            Err(left)
        }
    })
    .await;
}

#[tokio::test]
async fn the_connection_log_misses_nothing() {
    let postgres = Postgres::shared();
    let database = postgres.database("counted").await;
    let url = format!("{}&application_name=counted app", database.url());
    let (mut clients, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let (client, task) = connect(&url).await;
        clients.push(client);
        tasks.push(task);
    }
    drop(clients);
    for task in tasks {
        task.await.unwrap();
    }
    connect(&url)
        .await
        .0
        .simple_query("SELECT 1")
        .await
        .unwrap();
    let log = eventually(SOON, "the log shows the last end", async || {
        let log = postgres.connection_log().of_database("counted");
        if log.connected() == 6 && log.open() == 0 {
            Ok(log)
        } else {
            Err(log)
        }
    })
    .await;
    assert_eq!(log.events[0].user, "app");
    assert_eq!(log.events[0].application_name, "counted app");
    assert!(log.peak() >= 5, "{log:?}");
}

#[tokio::test]
async fn roles_with_a_password_need_it_everywhere() {
    let database = Postgres::shared().database("guarded").await;
    for (role, method) in ROLES {
        for url in [database.url_as(role), database.tcp_url_as(role)] {
            let mut config: tokio_postgres::Config = url.parse().unwrap();
            let refused = config
                .password("wrong")
                .connect(NoTls)
                .await
                .err()
                .expect(method);
            assert_eq!(refused.code().unwrap().code(), "28P01", "{method}");
            let accepted = config.password(PASSWORD).connect(NoTls).await;
            assert!(accepted.is_ok(), "{method} over {url}");
        }
    }
    assert!(
        connect(&database.tcp_url_as("app"))
            .await
            .0
            .simple_query("")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_server_of_ones_own_can_be_full_and_can_be_stopped() {
    let mut postgres = Postgres::start(PostgresOptions {
        max_connections: 5,
        ..PostgresOptions::default()
    });
    let database = postgres.database("small").await;
    let first = connect(&database.url()).await;
    let second = connect(&database.url()).await;
    let full = eventually(SOON, "two ordinary slots are all", async || {
        database
            .url()
            .parse::<tokio_postgres::Config>()
            .unwrap()
            .connect(NoTls)
            .await
            .err()
            .ok_or("not full")
    })
    .await;
    assert_eq!(full.code().unwrap().code(), "53300");
    eventually(SOON, "there are two backends", async || {
        let backends = postgres.activity("usename = 'app'").await;
        (backends.len() == 2).then_some(()).ok_or(backends)
    })
    .await;

    postgres.stop();
    assert!(first.0.simple_query("SELECT 1").await.is_err());
    drop(second);
    postgres.start_again();
    assert!(
        connect(&database.url())
            .await
            .0
            .simple_query("SELECT 1")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn the_raw_client_shows_each_message() {
    let postgres = Postgres::shared();
    let database = postgres.database("raw").await;
    let mut raw = Raw::connect(&postgres.socket()).await;
    let greeting = raw
        .startup(&[("user", "app"), ("database", &database.name)])
        .await;
    assert!(
        greeting
            .iter()
            .any(|message| message.kind == b'K' && message.key().0 > 0)
    );
    let parameter = greeting
        .iter()
        .find_map(|m| m.parameter().filter(|p| p.0 == "TimeZone"));
    assert!(parameter.is_some());
    assert_eq!(greeting.last().unwrap().transaction_status(), 'I');

    let answer = raw.query("BEGIN; SELECT 1, NULL, 'two'").await;
    let row = answer.iter().find(|message| message.kind == b'D').unwrap();
    assert_eq!(
        row.columns(),
        [Some("1".to_owned()), None, Some("two".to_owned())]
    );
    assert_eq!(answer.last().unwrap().transaction_status(), 'T');
    raw.send(b"?\0\0\0\x04").await;
    assert_eq!(raw.expect_error().await[&'C'], "08P01");
    raw.expect_closed().await;
}

#[tokio::test]
async fn the_proxy_is_faulty_as_it_is_told() {
    let postgres = Postgres::shared();
    let database = postgres.database("proxied").await;
    for proxy in [Proxy::unix(postgres).await, Proxy::tcp(postgres).await] {
        let url = proxy.url(&database);
        let (client, task) = connect(&url).await;
        assert_eq!(proxy.connections(), 1);

        proxy.set(Fault::Delay(Duration::from_millis(100)));
        let start = Instant::now();
        client.simple_query("SELECT 1").await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(200));

        proxy.set(Fault::Freeze);
        let mut query = Box::pin(client.simple_query("SELECT 1"));
        assert!(
            tokio::time::timeout(Duration::from_millis(100), &mut query)
                .await
                .is_err()
        );
        proxy.set(Fault::None);
        query.await.unwrap();

        proxy.set(Fault::Refuse);
        let refusing = async || match tokio_postgres::connect(&url, NoTls).await {
            Ok(_) => Err("it is accepted"),
            Err(_) => Ok(()),
        };
        eventually(SOON, "connections are refused", refusing).await;
        client.simple_query("SELECT 1").await.unwrap();
        proxy.set(Fault::None);
        let accepting = async || tokio_postgres::connect(&url, NoTls).await.map(|_| ());
        eventually(SOON, "connections are accepted again", accepting).await;

        proxy.set(Fault::CutAfter(100_000));
        client.simple_query("SELECT 1").await.unwrap();
        assert!(
            client
                .simple_query("SELECT repeat('x', 200000)")
                .await
                .is_err()
        );
        task.await.unwrap();
        proxy.set(Fault::None);
        let (client, _) = connect(&url).await;
        proxy.cut().await;
        assert!(client.simple_query("SELECT 1").await.is_err());
    }
}

/// A client and the task that ends with its connection.
async fn connect(url: &str) -> (Client, tokio::task::JoinHandle<()>) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect(url);
    let task = tokio::spawn(async move {
        // How it ends is for the client's caller to see.
        let _ = connection.await;
    });
    (client, task)
}
