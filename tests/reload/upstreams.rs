//! Upstreams that lead elsewhere, come and go, under sessions that are there.

use std::time::Duration;

use super::support::postgres::PASSWORD;
use super::support::session::{assert_in, error, rows};
use super::support::sidecar::upstream;
use super::support::{Database, Postgres, Raw, Sidecar, eventually};
use super::{SOON, place};

async fn serves(raw: &mut Raw) -> String {
    raw.ask("SELECT current_database()").await
}

/// Waits until none of our pooled backends is in a database.
async fn left(database: &Database) {
    let filter = format!("datname = '{}'", database.name);
    eventually(SOON, "no backend is left", async || {
        let left = Postgres::shared().activity(&filter).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test]
async fn another_url_leaves_sessions_alone_and_gets_every_connection_from_then_on() {
    let (old, sidecar, _) = place("url_old", "").await;
    let new = Postgres::shared().database("url_new").await;
    let mut held = sidecar.session("app", "a").await;
    assert_eq!(serves(&mut held).await, old.name);
    let mut unbound = sidecar.session("app", "a").await;
    let mut idle = sidecar.session("app", "b").await;
    idle.query("SELECT 1").await;
    drop(idle);
    sidecar.reload(&upstream("app", &new.url())).await;
    assert_eq!(serves(&mut held).await, old.name, "it goes on");
    assert_eq!(serves(&mut unbound).await, new.name);
    let mut young = sidecar.session("app", "b").await;
    assert_eq!(serves(&mut young).await, new.name);
    drop(held);
    left(&old).await;
    assert_eq!(serves(&mut young).await, new.name);
}

#[tokio::test]
async fn who_waits_while_the_url_changes_is_led_to_the_new_place() {
    let (old, sidecar, _) = place("wait_old", "pool: {size: 1, overflow: 0}\n").await;
    let new = Postgres::shared().database("wait_new").await;
    let mut held = sidecar.session("app", "a").await;
    assert_eq!(serves(&mut held).await, old.name);
    let mut waiting = sidecar.session("app", "a").await;
    let query = b"Q\0\0\0\x1eSELECT current_database()\0";
    waiting.send(query).await;
    sidecar.session_is("a", "waiting").await;
    let yaml = upstream("app", &new.url()) + "pool: {size: 1, overflow: 0}\n";
    sidecar.reload(&yaml).await;
    waiting.expect_silence(Duration::from_millis(200)).await;
    drop(held);
    let messages = waiting.read_until(b'Z').await;
    assert_eq!(rows(&messages), [new.name.as_str()], "{messages:?}");
    left(&old).await;
}

#[tokio::test]
async fn another_reset_or_age_replaces_idle_connections_and_lent_ones_when_they_come_back() {
    let (_database, sidecar, yaml) = place("upkeep", "").await;
    let mut held = sidecar.session("app", "a").await;
    let (lent, idle) = (held.backend().await, {
        let mut other = sidecar.session("app", "a").await;
        other.backend().await
    });
    sidecar
        .reload(&format!("{yaml}pool: {{reset: RESET ALL, recycle: 1h}}\n"))
        .await;
    eventually(SOON, "the idle one is closed", async || {
        let left = Postgres::shared().activity(&format!("pid = {idle}")).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(held.backend().await, lent);
    drop(held);
    eventually(SOON, "the lent one as well", async || {
        let left = Postgres::shared().activity(&format!("pid = {lent}")).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    // The new ones are kept.
    let mut first = sidecar.session("app", "a").await;
    let kept = first.backend().await;
    drop(first);
    sidecar.settles().await;
    assert_eq!(sidecar.session("app", "a").await.backend().await, kept);
}

#[tokio::test]
async fn a_password_that_is_configured_anew_is_used_at_the_next_connect() {
    let database = Postgres::shared().database("password").await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (wrong, right) = (file("wrong", "wrong"), file("right", PASSWORD));
    let yaml = |file: &str| {
        upstream("app", &database.url_as("scram_user")) + &format!("    password_file: {file}\n")
    };
    let sidecar = Sidecar::start(yaml(&wrong)).await;
    let begin = async || {
        let mut raw = sidecar.raw().await;
        raw.startup(&[("user", "scram_user"), ("database", "app")])
            .await
    };
    assert_eq!(error(&begin().await)[&'C'], "28P01");
    sidecar.reload(&yaml(&right)).await;
    assert_in(&begin().await);
    // In the URL it is a change that can't be seen, and is one all the same.
    let encoded = PASSWORD.replace('%', "%25").replace('@', "%40");
    let encoded = encoded.replace('/', "%2F").replace(':', "%3A");
    let with = |word: &str| {
        let url = database.url_as("scram_user");
        upstream(
            "app",
            &url.replacen("scram_user", &format!("scram_user:{word}"), 1),
        )
    };
    sidecar.reload(&with("wrong")).await;
    assert_eq!(error(&begin().await)[&'C'], "28P01");
    let changes = sidecar.reload(&with(&encoded)).await;
    assert_eq!(changes["applied"].as_array().unwrap().len(), 1, "{changes}");
    assert!(!changes.to_string().contains("wrong"), "{changes}");
    assert_in(&begin().await);
}

#[tokio::test]
async fn upstreams_come_and_go_and_come_back_under_their_sessions() {
    let (first, sidecar, yaml) = place("stays", "").await;
    let second = Postgres::shared().database("comes").await;
    let (_, refused) = sidecar.started("log", &[]).await;
    assert_eq!(error(&refused)[&'C'], "3D000");
    let both = format!("{yaml}  - name: log\n    url: \"{}\"\n", second.url());
    sidecar.reload(&both).await;
    let mut there = sidecar.session("log", "a").await;
    assert_eq!(serves(&mut there).await, second.name);
    let mut unbound = sidecar.session("log", "a").await;
    let names = async || {
        let status = sidecar.get("/v1/status").await;
        let upstreams = status["upstreams"].as_array().unwrap().clone();
        let names = upstreams.iter().map(|one| one["name"].to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["\"app\"", "\"log\""]);
    sidecar.reload(&yaml).await;
    assert_eq!(names().await, ["\"app\""]);
    let (_, refused) = sidecar.started("log", &[]).await;
    let refused = error(&refused);
    assert_eq!(refused[&'C'], "3D000", "{refused:?}");
    assert_eq!(serves(&mut there).await, second.name, "it lives on");
    assert_eq!(serves(&mut unbound).await, second.name, "and so does this");
    let mut other = sidecar.session("app", "a").await;
    assert_eq!(serves(&mut other).await, first.name);
    sidecar.reload(&both).await;
    let mut again = sidecar.session("log", "a").await;
    assert_eq!(serves(&mut again).await, second.name);
    sidecar.reload(&yaml).await;
    drop((there, unbound, again));
    left(&second).await;
    assert_eq!(serves(&mut other).await, first.name);
}

#[tokio::test]
async fn upstreams_that_change_places_are_the_same_ones() {
    let first = Postgres::shared().database("place_one").await;
    let second = Postgres::shared().database("place_two").await;
    let item = |name: &str, database: &Database| {
        format!("  - name: {name}\n    url: \"{}\"\n", database.url())
    };
    let (a, b) = (item("one", &first), item("two", &second));
    let sidecar = Sidecar::start(format!("upstreams:\n{a}{b}")).await;
    let mut one = sidecar.session("one", "a").await;
    let backend = one.backend().await;
    drop(one);
    sidecar.settles().await;
    let changes = sidecar.reload(&format!("upstreams:\n{b}{a}")).await;
    assert_eq!(changes["applied"].as_array().unwrap().len(), 0, "{changes}");
    let mut one = sidecar.session("one", "a").await;
    assert_eq!(one.backend().await, backend, "its connection was kept");
    let mut two = sidecar.session("two", "a").await;
    assert_eq!(serves(&mut two).await, second.name);
    let health = sidecar.get("/v1/database/health").await;
    let ours = |at: usize| health["upstreams"][at]["name"].clone();
    assert_eq!((ours(0), ours(1)), ("two".into(), "one".into()));
}
