//! With a reserve allowed, a short execution need not pay for a connect, and a full budget hands
//! idle connections over; what a session left that a reset does not undo never travels.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use support::sidecar::upstream;
use support::{Database, Postgres, SOON, Sidecar, eventually};

/// A sidecar with a budget of three, and `warm` in the reserve.
async fn sidecar(name: &str, warm: usize) -> (Sidecar, Database) {
    let database = Postgres::shared().database(name).await;
    let budget = format!("budget: {{size: 3, overflow: 0, warm: {warm}}}\n");
    let yaml = upstream(&database.name, &database.url()) + &budget;
    (Sidecar::start(yaml).await, database)
}

/// The backend that a session of this execution gets; it runs `sql` and is gone.
async fn backend(sidecar: &Sidecar, database: &Database, execution: &str, sql: &str) -> i32 {
    let url = format!(
        "{}&application_name=execpool:{execution}:same",
        sidecar.url(&database.name)
    );
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .expect("let in");
    let driver = tokio::spawn(connection);
    client.batch_execute(sql).await.expect("it runs");
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await;
    drop(client);
    driver.await.expect("no panic").expect("it closes well");
    row.expect("a row").get(0)
}

async fn end(sidecar: &Sidecar, execution: &str) {
    let path = format!("/v1/executions/{execution}");
    let (status, answer) = sidecar.control("DELETE", &path, None).await;
    assert_eq!(
        (status, &answer["complete"]),
        (200, &true.into()),
        "{answer}"
    );
}

/// Waits until as many connections as that are in the reserve, and no more are idle than those.
async fn settled(sidecar: &Sidecar, reserve: u64, idle: u64) {
    eventually(SOON, "the connections are where they belong", async || {
        let budget = &sidecar.get("/v1/status").await["budget"];
        let found = (budget["reserve"].as_u64(), budget["idle"].as_u64());
        (found == (Some(reserve), Some(idle)))
            .then_some(())
            .ok_or(found)
    })
    .await;
}

#[tokio::test]
async fn a_connection_of_an_ended_execution_serves_the_next_one() {
    let (sidecar, database) = sidecar("travels", 1).await;
    let first = backend(&sidecar, &database, "a", "SET work_mem = '1MB'").await;
    settled(&sidecar, 0, 1).await;
    end(&sidecar, "a").await;
    settled(&sidecar, 1, 1).await;
    let sql = "DO $$ BEGIN ASSERT current_setting('work_mem') <> '1MB'; END $$";
    let second = backend(&sidecar, &database, "b", sql).await;
    assert_eq!(second, first);
}

#[tokio::test]
async fn without_a_reserve_none_does() {
    let (sidecar, database) = sidecar("stays", 0).await;
    let first = backend(&sidecar, &database, "a", "SELECT 1").await;
    settled(&sidecar, 0, 1).await;
    end(&sidecar, "a").await;
    settled(&sidecar, 0, 0).await;
    let second = backend(&sidecar, &database, "b", "SELECT 1").await;
    assert_ne!(second, first);
}

#[tokio::test]
async fn what_a_reset_does_not_undo_keeps_its_connection_from_travelling() {
    let (sidecar, database) = sidecar("tainted", 1).await;
    let first = backend(&sidecar, &database, "a", "SET my.tenant = '7'").await;
    settled(&sidecar, 0, 1).await;
    end(&sidecar, "a").await;
    settled(&sidecar, 0, 0).await;
    let second = backend(&sidecar, &database, "b", "SELECT 1").await;
    assert_ne!(second, first);
}

#[tokio::test]
async fn a_full_budget_hands_an_idle_connection_over() {
    let (sidecar, database) = sidecar("handed", 1).await;
    let mut backends = Vec::new();
    for (idle, execution) in (1..).zip(["a", "b", "c"]) {
        backends.push(backend(&sidecar, &database, execution, "SELECT 1").await);
        // The next one begins when this one's connection is back.
        settled(&sidecar, 0, idle).await;
    }
    let fourth = backend(&sidecar, &database, "d", "SELECT 1").await;
    assert_eq!(
        fourth, backends[0],
        "the one that was idle longest of {backends:?}"
    );
}
