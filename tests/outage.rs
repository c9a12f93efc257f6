//! A database that goes away and comes back: who needs it waits, and nobody else is held up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use support::session::{error, kinds};
use support::sidecar::upstream;
use support::{Fault, Postgres, PostgresOptions, Proxy, SOON, Sidecar, eventually};

#[tokio::test]
async fn a_restart_of_the_database_is_a_wait_for_who_holds_nothing() {
    let mut postgres = Postgres::start(PostgresOptions::default());
    let database = postgres.database("restarted").await;
    let yaml = upstream("app", &database.url()) + "pool: {timeout: 10m, notice_after: 300ms}\n";
    let sidecar = Sidecar::start(yaml).await;
    let mut sessions = Vec::new();
    for execution in 0..6 {
        sessions.push(sidecar.session("app", &format!("e{execution}")).await);
    }
    // One holds a connection, and loses it as it would directly.
    let mut holder = sidecar.session("app", "holder").await;
    assert_eq!(holder.ask("SELECT 1").await, "1");
    postgres.stop();
    let lost = holder.expect_error().await;
    assert!(
        ["57P01", "57P02", "08006"].contains(&lost[&'C'].as_str()),
        "{lost:?}"
    );

    for raw in &mut sessions {
        raw.send(b"Q\0\0\0\x0dSELECT 1\0").await;
    }
    for raw in &mut sessions {
        let told = raw.read_until(b'N').await;
        let notice = format!("{told:?}");
        assert!(notice.contains("cannot reach PostgreSQL"), "{notice}");
    }
    postgres.start_again();
    for raw in &mut sessions {
        let told = raw.read_until(b'Z').await;
        assert_eq!(kinds(&told), "TDCZ", "{told:?}");
    }
    sidecar.logged(&["the database is back"]).await;
    let log = sidecar.log().join("\n");
    assert_eq!(log.matches("the database is away").count(), 1, "{log}");
}

#[tokio::test]
async fn who_waits_in_vain_is_told_that_the_database_cannot_be_reached() {
    let database = Postgres::shared().database("away").await;
    let proxy = Proxy::tcp(Postgres::shared()).await;
    let yaml =
        upstream("app", &proxy.url(&database)) + "pool: {timeout: 1s, size: 1, overflow: 0}\n";
    let sidecar = Sidecar::start(yaml).await;
    let mut raw = sidecar.enters("app", "a").await;
    proxy.cut().await;
    proxy.set(Fault::Refuse);
    let told = raw.query("SELECT 1").await;
    assert_eq!(kinds(&told), "EZ", "the session lives on: {told:?}");
    let refused = error(&told);
    assert_eq!(refused[&'C'], "08001", "{refused:?}");
    let told = refused[&'M'].strip_prefix("execpool: no server connection for execution a within ");
    let (waited, why) = told.unwrap().split_once(" s: ").unwrap();
    assert!(waited.parse::<f64>().unwrap() >= 1.0, "{refused:?}");
    let begins = "cannot reach PostgreSQL at 127.0.0.1:";
    assert!(why.starts_with(begins), "{refused:?}");
    assert!(refused[&'H'].contains("database is up"), "{refused:?}");
    proxy.set(Fault::None);
    eventually(SOON, "it is reached again", async || {
        let told = raw.query("SELECT 1").await;
        (kinds(&told) == "TDCZ").then_some(()).ok_or(told)
    })
    .await;
}

#[tokio::test]
async fn a_database_that_was_never_reached_is_told_at_once() {
    // Whoever waited for anything would wait longer than the test does.
    let yaml = upstream("app", "postgresql://app@127.0.0.1:1/app")
        + "    connect_timeout: 10m\npool: {timeout: 10m}\n";
    let sidecar = Sidecar::start(yaml).await;
    let (_, told) = sidecar.started("app", &[]).await;
    let refused = error(&told);
    assert_eq!(refused[&'C'], "08001", "{refused:?}");
}

#[tokio::test]
async fn those_who_wait_for_one_database_take_no_room_from_another() {
    let database = Postgres::shared().database("isolated").await;
    let proxy = Proxy::tcp(Postgres::shared()).await;
    let yaml = format!(
        "{}  - {{name: well, url: \"{}\"}}\nbudget: {{size: 2, overflow: 0}}\npool: {{timeout: 10m}}\n",
        upstream("away", &proxy.url(&database)),
        database.url()
    );
    let sidecar = Sidecar::start(yaml).await;
    let mut sessions = Vec::new();
    for execution in 0..10 {
        sessions.push(sidecar.session("away", &format!("e{execution}")).await);
    }
    proxy.cut().await;
    proxy.set(Fault::Refuse);
    for raw in &mut sessions {
        raw.send(b"Q\0\0\0\x0dSELECT 1\0").await;
    }
    eventually(SOON, "all wait", async || {
        let budget = sidecar.get("/v1/status").await["budget"].take();
        (budget["waiting"] == 10).then_some(()).ok_or(budget)
    })
    .await;
    for round in 0..20 {
        // Nobody reads for as long as one may wait here.
        let mut raw = sidecar.session("well", &format!("well{round}")).await;
        assert_eq!(raw.ask("SELECT 1").await, "1");
    }
    proxy.set(Fault::None);
    // Who has its answer goes, and makes room.
    let answers: Vec<_> = sessions
        .into_iter()
        .map(|mut raw| tokio::spawn(async move { raw.read_until(b'Z').await }))
        .collect();
    for answer in answers {
        let told = answer.await.unwrap();
        assert!(kinds(&told).ends_with("TDCZ"), "{told:?}");
    }
}
