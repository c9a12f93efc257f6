//! Clients over TCP prove a password before they learn anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use support::sidecar::upstream;
use support::{Postgres, Sidecar};
use tokio_postgres::NoTls;

#[tokio::test]
async fn who_knows_the_password_is_let_in_and_nobody_else_learns_a_name() {
    let database = Postgres::shared().database("tcp_login").await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "pencil\n").unwrap();
    let sidecar = Sidecar::start(format!(
        "{}listen: {{tcp: '127.0.0.1:0', tcp_password_file: {}}}\nlog: {{format: json}}\n",
        upstream(&database.name, &database.url()),
        file.display()
    ))
    .await;
    let log = sidecar.log();
    let line = log.iter().find(|line| line.contains("listens on TCP"));
    let (_, rest) = line.unwrap().split_once("127.0.0.1:").unwrap();
    let port: u16 = rest.split('"').next().unwrap().parse().unwrap();
    let config = |password: &str, name: &str| {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user("app");
        config.password(password).dbname(name);
        config
    };
    let (client, connection) = config("pencil", &database.name)
        .connect(NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client.query_one("SELECT 1", &[]).await.unwrap();
    for name in [database.name.as_str(), "nothing"] {
        let error = config("wrong", name).connect(NoTls).await.err().unwrap();
        assert_eq!(error.code().unwrap().code(), "28P01");
    }
    let error = config("pencil", "nothing")
        .connect(NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(error.code().unwrap().code(), "3D000");
}
