//! TLS to a real PostgreSQL, with certificates made here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use support::sidecar::upstream;
use support::{Postgres, PostgresOptions, Sidecar};

/// An authority's certificate, and a server's that it signed, with its key; all PEM.
fn certificates(name: &str) -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // With one name for both, OpenSSL takes the server's for self-signed.
    params
        .distinguished_name
        .push(DnType::CommonName, "an authority");
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&own, &issuer).unwrap().pem();
    (root, certificate, own.serialize_pem())
}

#[tokio::test]
async fn each_sslmode_answers_as_libpq_does() {
    let files = tempfile::tempdir().unwrap();
    std::fs::set_permissions(files.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (root, certificate, key) = certificates("localhost");
    let (other, _, _) = certificates("localhost");
    for (name, text) in [
        ("root", root),
        ("other", other),
        ("crt", certificate),
        ("key", key),
    ] {
        std::fs::write(at(name), text).unwrap();
    }
    std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let group = Command::new("chgrp")
        .arg("postgres")
        .arg(at("key"))
        .status();
    assert!(group.unwrap().success());
    let setting = |name: &str, value: String| (name.to_owned(), value);
    let secured = Postgres::start(PostgresOptions {
        settings: vec![
            setting("ssl", "on".to_owned()),
            setting("ssl_cert_file", at("crt")),
            setting("ssl_key_file", at("key")),
        ],
        ..PostgresOptions::default()
    });
    let plain = Postgres::start(PostgresOptions::default());
    let (with, without) = (
        secured.database("with").await,
        plain.database("without").await,
    );
    let (root, other) = (at("root"), at("other"));
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
        for (postgres, database) in [(&secured, &with), (&plain, &without)] {
            let (port, name) = (postgres.port(), &database.name);
            let url = format!("postgresql://app@{host}:{port}/{name}?{parameters}");
            let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
            let direct = Command::new("psql")
                .args([&url, "-XAtc", sql])
                .output()
                .unwrap();
            let expected = direct
                .status
                .success()
                .then(|| String::from_utf8_lossy(&direct.stdout).trim() == "t");
            let sidecar = Sidecar::start(upstream(name, &url)).await;
            let found = match sidecar.client(name, "a").await {
                Ok(client) => Some(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0)),
                Err(error) => {
                    println!("{parameters}: {error:?}");
                    None
                }
            };
            assert_eq!(found, expected, "{url}");
            let upstreams = sidecar.control("GET", "/v1/database/health", None).await;
            assert_eq!(upstreams.0 == 200, expected.is_some(), "{upstreams:?}");
        }
    }
}
