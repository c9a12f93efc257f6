//! A server connection logs in by every served method, is cleaned between two sessions,
//! notices a server that is gone, and leaves nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use execpool::protocol::message::{Fields, Severity, SqlState};
use execpool::protocol::startup::Parameters;
use execpool::server::cancel::cancel;
use execpool::server::{Address, ConnectError, Connection, Login};
use support::guard::Stopped;
use support::{Database, Postgres, PostgresOptions, SOON, eventually, postgres::PASSWORD};

fn over_the_socket(postgres: &Postgres) -> Address {
    Address::Unix {
        dir: postgres.directory().to_owned(),
        port: postgres.port(),
    }
}

fn over_tcp(postgres: &Postgres) -> Address {
    Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port: postgres.port(),
    }
}

/// Logs `user` in to `database`, named `application` in `pg_stat_activity`.
async fn log_in(
    address: &Address,
    user: &str,
    password: Option<&str>,
    database: &str,
    application: &str,
) -> Result<Connection, ConnectError> {
    let name = (
        "application_name".to_owned(),
        application.as_bytes().to_vec(),
    );
    Connection::connect(&Login {
        address,
        user,
        database,
        password: password.map(str::as_bytes),
        machine: None,
        checks_client: false,
        tls: &Arc::default(),
        parameters: &Parameters::new(vec![name]),
        timeout: SOON,
        keepalive: SOON,
    })
    .await
}

async fn app(database: &Database, application: &str) -> Connection {
    let address = over_the_socket(Postgres::shared());
    let connection = log_in(&address, "app", None, &database.name, application).await;
    connection.expect("app is trusted")
}

#[tokio::test]
async fn every_served_method_logs_in() {
    let postgres = Postgres::shared();
    let database = postgres.database("every_method").await;
    let (socket, tcp) = (over_the_socket(postgres), over_tcp(postgres));
    for (address, user, password) in [
        (&socket, "app", None),
        (&socket, "clear_user", Some(PASSWORD)),
        (&socket, "md5_user", Some(PASSWORD)),
        (&socket, "scram_user", Some(PASSWORD)),
        (&tcp, "md5_user", Some(PASSWORD)),
        (&tcp, "scram_user", Some(PASSWORD)),
    ] {
        let connection = log_in(address, user, password, &database.name, "methods").await;
        let connection = connection.unwrap_or_else(|error| panic!("{user} at {address}: {error}"));
        assert!(connection.pid() > 0);
        assert_eq!(
            connection.reported("session_authorization"),
            Some(user.as_bytes())
        );
        assert_eq!(
            connection.reported("application_name"),
            Some(&b"methods"[..])
        );
        connection.terminate().await;
    }
}

#[tokio::test]
async fn a_password_in_clear_text_is_not_sent_over_tcp() {
    let postgres = Postgres::shared();
    let database = postgres.database("clear_text").await;
    let refused = log_in(
        &over_tcp(postgres),
        "clear_user",
        Some(PASSWORD),
        &database.name,
        "",
    )
    .await;
    assert!(
        matches!(refused, Err(ConnectError::CleartextRefused(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_servers_own_refusal_reaches_the_client_word_for_word() {
    let postgres = Postgres::shared();
    let socket = over_the_socket(postgres);
    for (user, password, database, sqlstate, text) in [
        (
            "scram_user",
            Some("wrong"),
            "postgres",
            SqlState::INVALID_PASSWORD,
            "password authentication failed",
        ),
        (
            "app",
            None,
            "no such",
            SqlState::INVALID_CATALOG_NAME,
            "database \"no such\" does not exist",
        ),
    ] {
        let refused = log_in(&socket, user, password, database, "")
            .await
            .unwrap_err();
        assert_eq!(refused.sqlstate(), sqlstate);
        let told = refused.to_client(Severity::Fatal);
        let fields = Fields::parse(&told[5..]).expect("an ErrorResponse");
        assert!(fields.message().contains(text), "{}", fields.message());
        assert_eq!(fields.get(b'V'), Some(&b"FATAL"[..]));
        assert!(!refused.is_limited_by_database());
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_silent_is_told_apart() {
    let nobody = Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 1,
    };
    let refused = log_in(&nobody, "app", None, "app", "").await.unwrap_err();
    assert!(
        matches!(refused, ConnectError::Unreachable { .. }),
        "{refused:?}"
    );
    assert_eq!(refused.sqlstate(), SqlState::UNABLE_TO_CONNECT);

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port: silent.local_addr().unwrap().port(),
    };
    let none = Parameters::new(Vec::new());
    let login = Login {
        address: &address,
        user: "app",
        database: "app",
        password: None,
        machine: None,
        checks_client: false,
        tls: &Arc::default(),
        parameters: &none,
        timeout: Duration::from_millis(200),
        keepalive: SOON,
    };
    let late = Connection::connect(&login).await.unwrap_err();
    assert!(matches!(late, ConnectError::Timeout { .. }), "{late:?}");
}

#[tokio::test]
async fn a_database_without_free_slots_is_recognised() {
    let postgres = Postgres::start(PostgresOptions {
        max_connections: 8,
        ..PostgresOptions::default()
    });
    let database = postgres.database("slots").await;
    let address = over_the_socket(&postgres);
    let mut held = Vec::new();
    let refused = loop {
        match log_in(&address, "app", None, &database.name, "slots").await {
            Ok(connection) => held.push(connection),
            Err(refused) => break refused,
        }
        assert!(held.len() < 9, "more connections than max_connections");
    };
    assert!(refused.is_limited_by_database(), "{refused}");
}

#[tokio::test]
async fn a_cleaned_connection_has_forgotten_its_session() {
    let postgres = Postgres::shared();
    let database = postgres.database("cleaned").await;
    let mut connection = app(&database, "cleaned").await;
    connection
        .clean("SET work_mem = '1234kB'")
        .await
        .expect("any statement without rows");
    connection
        .clean("CREATE TEMP TABLE kept ()")
        .await
        .expect("any statement without rows");
    connection.clean("DISCARD ALL").await.expect("clean");
    let again = connection.clean("DROP TABLE kept").await.unwrap_err();
    assert!(again.to_string().contains("42P01"), "{again}");
}

#[tokio::test]
async fn a_reset_that_opens_a_transaction_is_not_clean() {
    let database = Postgres::shared().database("not_clean").await;
    let mut connection = app(&database, "not clean").await;
    let unclean = connection.clean("BEGIN").await.unwrap_err();
    assert!(unclean.to_string().contains("not idle"), "{unclean}");
    connection
        .clean("DISCARD ALL")
        .await
        .expect("the next one rolls back first");
}

#[tokio::test]
async fn a_connection_whose_server_is_gone_is_noticed_without_a_round_trip() {
    let postgres = Postgres::shared();
    let database = postgres.database("gone").await;
    let mut connection = app(&database, "gone").await;
    assert!(connection.is_alive());
    connection.ping().await.expect("alive");
    assert!(connection.is_alive(), "a ping leaves nothing unread");
    let kill = format!("SELECT pg_terminate_backend({})", connection.pid());
    postgres
        .admin()
        .await
        .simple_query(&kill)
        .await
        .expect("killed");
    eventually(SOON, "the end is noticed", async || {
        (!connection.is_alive()).then_some(()).ok_or("still alive")
    })
    .await;
}

#[tokio::test]
async fn nothing_is_left_of_a_terminated_connection() {
    let postgres = Postgres::shared();
    let database = postgres.database("terminated").await;
    for _ in 0..20 {
        let connection = app(&database, "terminated").await;
        connection.terminate().await;
        let left = postgres.activity("application_name = 'terminated'").await;
        assert!(left.is_empty(), "a backend outlived the goodbye");
    }
    // However long it takes.
    let connection = app(&database, "terminated").await;
    let stopped = Stopped::new(connection.pid());
    let mut goodbye = std::pin::pin!(connection.terminate());
    let early = tokio::time::timeout(Duration::from_millis(300), &mut goodbye).await;
    assert!(early.is_err(), "its backend can't have gone");
    drop(stopped);
    goodbye.await;
    let left = postgres.activity("application_name = 'terminated'").await;
    assert!(left.is_empty(), "a backend outlived the goodbye");
}

#[tokio::test]
async fn a_cancel_request_ends_the_query_before_it_returns() {
    let postgres = Postgres::shared();
    let database = postgres.database("cancelled").await;
    let mut connection = app(&database, "cancelled").await;
    let (pid, key) = (connection.pid(), connection.key());
    let sleep = tokio::spawn(async move {
        let slept = connection
            .clean("DO $$ BEGIN PERFORM pg_sleep(60); END $$")
            .await;
        (slept, connection)
    });
    eventually(SOON, "the query runs", async || {
        let running = postgres
            .activity("application_name = 'cancelled' AND state = 'active'")
            .await;
        (!running.is_empty()).then_some(()).ok_or("not yet")
    })
    .await;
    cancel(
        &over_the_socket(postgres),
        None,
        &execpool::config::Tls::default(),
        execpool::server::Way::Plain,
        pid,
        key,
    )
    .await
    .expect("the server takes it");
    let (slept, _connection) = tokio::time::timeout(SOON, sleep)
        .await
        .expect("cancelled")
        .unwrap();
    assert!(slept.unwrap_err().to_string().contains("57014"));
}
