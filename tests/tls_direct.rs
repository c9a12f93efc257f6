//! TLS that begins at once, without PostgreSQL's question: `sslnegotiation=direct`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "tls/certificates.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod certificates;
#[path = "tls/relay.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod relay;
mod support;

use std::process::Command;

use certificates::{Authority, Files, params};
use relay::{Behind, Opening, Purpose, Relay, Seen};
use support::session::error;
use support::sidecar::upstream;
use support::{Postgres, PostgresOptions, Sidecar};

/// What a client is told in front of a server that is spoken to directly; none: it is let in.
async fn told(port: u16, database: &str, parameters: &str) -> (Sidecar, Option<String>) {
    let url =
        format!("postgresql://app@localhost:{port}/{database}?sslnegotiation=direct&{parameters}");
    let sidecar = Sidecar::start(upstream(database, &url) + "    connect_timeout: 60s\n").await;
    let (mut raw, told) = sidecar.started(database, &[]).await;
    if told.last().is_some_and(|last| last.kind == b'Z') {
        assert_eq!(raw.ask("SELECT 1").await, "1");
        return (sidecar, None);
    }
    let error = error(&told);
    (sidecar, Some(format!("{} ({})", error[&'M'], error[&'H'])))
}

#[tokio::test]
async fn tls_begins_at_once_and_names_the_protocol() {
    let files = Files::new();
    let authority = Authority::root("an authority");
    let own = authority.signed(&params("relay", &["localhost"]));
    let root = files.write("root.crt", &authority.certificate);
    let postgres = Postgres::shared();
    let database = postgres.database("direct").await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let behind = Behind::Socket(postgres.socket());
        let relay = Relay::start(&own, &["http/1.1", "postgresql"], behind).await;
        let parameters = format!("sslmode={mode}&sslrootcert={root}");
        let (sidecar, refused) = told(relay.port(), &database.name, &parameters).await;
        assert_eq!(refused, None, "{mode}");
        let health = sidecar.control("GET", "/v1/database/health", None).await;
        assert_eq!(health.0, 200, "{health:?}");
        let seen = relay.seen();
        let expected = Seen {
            opening: Opening::Direct,
            alpn: Some("postgresql".to_owned()),
            purpose: Purpose::Session,
        };
        assert!(seen.len() >= 2, "the monitor's and a session's: {seen:?}");
        assert!(seen.iter().all(|one| *one == expected), "{seen:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_choose_the_protocol_is_refused_and_the_parameter_named() {
    let own = Authority::root("an authority").signed(&params("relay", &["localhost"]));
    let postgres = Postgres::shared();
    let database = postgres.database("undecided").await;
    for protocols in [&[][..], &["http/1.1"]] {
        let behind = Behind::Socket(postgres.socket());
        let relay = Relay::start(&own, protocols, behind).await;
        let (_sidecar, refused) = told(relay.port(), &database.name, "sslmode=require").await;
        let why = refused.expect("it is refused");
        assert!(
            why.contains("did not choose the protocol"),
            "{protocols:?}: {why}"
        );
        assert!(
            why.contains("sslnegotiation=postgres"),
            "{protocols:?}: {why}"
        );
        assert_eq!(relay.seen(), [], "nothing was said in it");
    }
}

#[tokio::test]
async fn a_server_that_knows_no_direct_tls_is_refused_and_the_parameter_named() {
    // This one does, since version 17; then there is nothing to refuse.
    let files = Files::new();
    let own = Authority::root("an authority").signed(&params("server", &["localhost"]));
    let (postgres, database) = files
        .server("older", &own, PostgresOptions::default())
        .await;
    let admin = postgres.admin().await;
    let version = admin.query_one("SHOW server_version_num", &[]).await;
    let version: String = version.unwrap().get(0);
    let (_sidecar, refused) = told(postgres.port(), &database.name, "sslmode=require").await;
    if version.parse::<u32>().unwrap() >= 170_000 {
        assert_eq!(refused, None);
        return;
    }
    let why = refused.expect("it is refused");
    assert!(why.contains("sslnegotiation=postgres"), "{why}");
}

#[test]
fn check_refuses_a_sslmode_that_does_without_tls() {
    for (mode, is_strong) in [
        ("", false),
        ("&sslmode=disable", false),
        ("&sslmode=allow", false),
        ("&sslmode=prefer", false),
        ("&sslmode=require", true),
        ("&sslmode=verify-full&sslrootcert=/ca.pem", true),
        ("&sslrootcert=system", true),
    ] {
        let url = format!("postgresql://app@db.internal/app?sslnegotiation=direct{mode}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_execpool"));
        command.arg("check").env_clear().env("DATABASE_URL", url);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_strong, "{mode}: {told}");
        let says = told.contains("require, verify-ca or verify-full with sslnegotiation=direct");
        assert_eq!(says, !is_strong, "{mode}: {told}");
    }
}
