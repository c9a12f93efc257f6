//! TLS to a real PostgreSQL, with certificates made here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "tls/certificates.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod certificates;
mod support;

use std::process::Command;

use certificates::{Authority, Files, params};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use support::sidecar::upstream;
use support::{Database, Postgres, PostgresOptions, Sidecar};

const SQL: &str = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";

/// Asserts that execpool and its monitor come in where libpq does, and with TLS where it has it.
/// Answers what libpq found, and why execpool did not come in.
async fn agrees(
    host: &str,
    postgres: &Postgres,
    database: &Database,
    parameters: &str,
) -> (Option<bool>, String) {
    let (port, name) = (postgres.port(), &database.name);
    let url = format!("postgresql://app@{host}:{port}/{name}?{parameters}");
    let direct = Command::new("psql")
        .args([&url, "-XAtc", SQL])
        .output()
        .unwrap();
    let expected = direct
        .status
        .success()
        .then(|| String::from_utf8_lossy(&direct.stdout).trim() == "t");
    let sidecar = Sidecar::start(upstream(name, &url) + "    connect_timeout: 60s\n").await;
    let mut why = String::new();
    let found = match sidecar.client(name, "a").await {
        Ok(client) => Some(client.query_one(SQL, &[]).await.unwrap().get::<_, bool>(0)),
        Err(error) => {
            why = format!("{error:?}");
            None
        }
    };
    let said = String::from_utf8_lossy(&direct.stderr);
    assert_eq!(found, expected, "{url}: {why}; libpq: {said}");
    let upstreams = sidecar.control("GET", "/v1/database/health", None).await;
    assert_eq!(upstreams.0 == 200, expected.is_some(), "{upstreams:?}");
    (expected, why)
}

#[tokio::test]
async fn each_sslmode_answers_as_libpq_does() {
    let files = Files::new();
    let root = Authority::root("an authority");
    let own = root.signed(&params("server", &["localhost"]));
    let (secured, with) = files.server("with", &own, PostgresOptions::default()).await;
    let plain = Postgres::start(PostgresOptions::default());
    let without = plain.database("without").await;
    let other = Authority::root("another authority").certificate;
    let (root, other) = (
        files.write("root.crt", &root.certificate),
        files.write("other.crt", &other),
    );
    for (host, parameters) in [
        ("localhost", "sslmode=disable".to_owned()),
        ("localhost", "sslmode=allow".to_owned()),
        ("localhost", "sslmode=prefer".to_owned()),
        ("localhost", "sslmode=require".to_owned()),
        ("localhost", format!("sslmode=require&sslrootcert={root}")),
        ("localhost", format!("sslmode=require&sslrootcert={other}")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={root}")),
        (
            "localhost",
            format!("sslmode=verify-ca&sslrootcert={other}"),
        ),
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={root}"),
        ),
        (
            "127.0.0.1",
            format!("sslmode=verify-full&sslrootcert={root}"),
        ),
    ] {
        agrees(host, &secured, &with, &parameters).await;
        agrees(host, &plain, &without, &parameters).await;
    }
}

#[tokio::test]
async fn certificates_are_accepted_and_refused_as_libpq_does_and_the_reason_is_told() {
    let files = Files::new();
    let root = Authority::root("an authority");
    let between = root.between("between");
    let mut expired = params("expired", &["localhost"]);
    (expired.not_before, expired.not_after) =
        (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let mut alone = params("alone", &["localhost"]);
    alone.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut old = alone.clone();
    (old.not_before, old.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let self_signed = |params: &CertificateParams| {
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let chained = {
        let (own, key) = between.signed(&params("chained", &["localhost"]));
        (own + &between.certificate, key)
    };
    let (alone, old) = (self_signed(&alone), self_signed(&old));
    let trusted = files.write("root.crt", &root.certificate);
    let cases = [
        (
            "good",
            root.signed(&params("good", &["localhost"])),
            &trusted,
            None,
        ),
        ("chained", chained, &trusted, None),
        ("expired", root.signed(&expired), &trusted, Some("expired")),
        (
            "elsewhere",
            root.signed(&params("elsewhere", &["db.example"])),
            &trusted,
            Some("db.example"),
        ),
        (
            "alone",
            alone.clone(),
            &files.write("alone.pem", &alone.0),
            None,
        ),
        (
            "old",
            old.clone(),
            &files.write("old.pem", &old.0),
            Some("expired"),
        ),
    ];
    for (name, own, trusted, problem) in cases {
        let (postgres, database) = files.server(name, &own, PostgresOptions::default()).await;
        let parameters = format!("sslmode=verify-full&sslrootcert={trusted}");
        let (libpq, why) = agrees("localhost", &postgres, &database, &parameters).await;
        assert_eq!(libpq, problem.is_none().then_some(true), "{name}");
        assert!(why.contains(problem.unwrap_or_default()), "{name}: {why}");
        let parameters = format!("sslmode=verify-ca&sslrootcert={trusted}");
        agrees("localhost", &postgres, &database, &parameters).await;
    }
}

#[tokio::test]
async fn a_client_certificate_that_is_demanded_is_shown() {
    let files = Files::new();
    let root = Authority::root("an authority");
    let trusted = files.write("root.crt", &root.certificate);
    let own = root.signed(&params("server", &["localhost"]));
    let demands = PostgresOptions {
        settings: vec![("ssl_ca_file".to_owned(), trusted.clone())],
        hba: vec!["hostssl all app 127.0.0.1/32 cert".to_owned()],
        ..PostgresOptions::default()
    };
    let (postgres, database) = files.server("demands", &own, demands).await;
    let shown = |name: &str, (certificate, key): (String, String)| {
        let certificate = files.write(&format!("{name}.crt"), &certificate);
        let key = files.write(&format!("{name}.client.key"), &key);
        format!("&sslcert={certificate}&sslkey={key}")
    };
    let known = shown("app", root.signed(&params("app", &[])));
    let stranger = Authority::root("another authority");
    let stranger = shown("stranger", stranger.signed(&params("app", &[])));
    let somebody = shown("somebody", root.signed(&params("somebody", &[])));
    for (who, lets_in) in [
        (known.as_str(), true),
        ("", false),
        (&stranger, false),
        (&somebody, false),
    ] {
        let parameters = format!("sslmode=verify-full&sslrootcert={trusted}{who}");
        let (libpq, why) = agrees(
            "127.0.0.1",
            &postgres,
            &database,
            &parameters.replace("verify-full", "verify-ca"),
        )
        .await;
        assert_eq!(libpq, lets_in.then_some(true), "{who}: {why}");
    }
}

#[tokio::test]
async fn scram_is_bound_to_the_channel_where_that_is_demanded() {
    let files = Files::new();
    let root = Authority::root("an authority");
    let own = root.signed(&params("server", &["localhost"]));
    let (postgres, database) = files
        .server("bound", &own, PostgresOptions::default())
        .await;
    let password = "pa%3As%2Fs%40w%25rd";
    for (parameters, lets_in) in [
        ("sslmode=require&channel_binding=require", true),
        ("sslmode=require&channel_binding=prefer", true),
        ("sslmode=require&channel_binding=disable", true),
        ("sslmode=disable&channel_binding=prefer", true),
    ] {
        let (port, name) = (postgres.port(), &database.name);
        let url =
            format!("postgresql://scram_user:{password}@127.0.0.1:{port}/{name}?{parameters}");
        let direct = Command::new("psql").args([&url, "-XAtc", SQL]).output();
        assert_eq!(direct.unwrap().status.success(), lets_in, "{parameters}");
        let sidecar = Sidecar::start(upstream(name, &url) + "    connect_timeout: 60s\n").await;
        let mut raw = sidecar.raw().await;
        let told = raw
            .startup(&[("user", "scram_user"), ("database", name)])
            .await;
        assert_eq!(
            told.last().unwrap().kind == b'Z',
            lets_in,
            "{parameters}: {told:?}"
        );
        let upstreams = sidecar.control("GET", "/v1/database/health", None).await;
        assert_eq!(upstreams.0 == 200, lets_in, "{upstreams:?}");
    }
    // Without TLS there is no channel; nor is there one where no password is asked for.
    let plain = Postgres::start(PostgresOptions::default());
    let unbound = plain.database("unbound").await;
    let (libpq, why) = agrees("127.0.0.1", &plain, &unbound, "channel_binding=require").await;
    assert_eq!(libpq, None, "{why}");
}
