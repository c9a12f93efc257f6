//! What a client is told is what PostgreSQL itself tells it, byte by byte, however the bytes of
//! either side are cut.
//!
//! A conversation ([`states`]) is replayed at PostgreSQL and through execpool. What may differ is
//! listed in [`conversation::normalised`] and nowhere else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

#[path = "conformance/conversation.rs"]
mod conversation;
#[path = "conformance/endings.rs"]
mod endings;
#[path = "conformance/extended.rs"]
mod extended;
#[path = "conformance/messages.rs"]
mod messages;
#[path = "conformance/states.rs"]
mod states;

use std::time::Instant;

use conversation::{Conversation, Cut, assert_same};
use endings::ends_alike;
use support::session::{assert_in, told_pid};
use support::sidecar::upstream;
use support::{Database, Fault, Message, Postgres, Proxy, Raw, SOON, Sidecar, eventually};
use tokio_postgres::Client;

/// Above every process id that a server gives.
const SYNTHETIC: i32 = 4_194_304;

async fn enter(mut raw: Raw, database: &Database) -> Raw {
    assert_in(
        &raw.startup(&[("user", "app"), ("database", &database.name)])
            .await,
    );
    raw
}

/// Replays it, and forgets what it left in the session.
async fn replay(
    raw: &mut Raw,
    conversation: &Conversation,
    cut: Cut,
    other: &Client,
) -> Vec<Message> {
    let told = conversation.play(raw, cut, other).await;
    raw.query("DISCARD ALL").await;
    told
}

fn conversations() -> impl Iterator<Item = Conversation> {
    states::all().into_iter().chain(extended::all())
}

async fn each_is_answered_alike(name: &str, cuts: &[(Cut, Fault)], is_up: bool) {
    let postgres = Postgres::shared();
    let database = postgres.database(name).await;
    let proxy = Proxy::unix(postgres).await;
    let yaml = format!(
        "upstreams:\n  - name: {name}\n    url: \"{}\"\n",
        proxy.url(&database)
    );
    let sidecar = Sidecar::start(yaml).await;
    let mut direct = enter(Raw::connect(&postgres.socket()).await, &database).await;
    let mut proxied = enter(sidecar.raw().await, &database).await;
    let other = database.client().await;
    for conversation in conversations() {
        let expected = replay(&mut direct, &conversation, Cut::Nowhere, &other).await;
        let length = match is_up {
            true => conversation.length(),
            false => expected.iter().map(|told| told.body.len() + 5).sum(),
        };
        let each = (1..length).map(|at| match is_up {
            true => (Cut::At(at), Fault::None),
            false => (Cut::Nowhere, Fault::SplitAt(at)),
        });
        for (cut, fault) in cuts.iter().copied().chain(each) {
            proxy.set(fault);
            let told = conversation.play(&mut proxied, cut, &other).await;
            proxy.set(Fault::None);
            proxied.query("DISCARD ALL").await;
            assert_same(
                &expected,
                &told,
                &format!("{} {cut:?} {fault:?}", conversation.name),
            );
        }
    }
}

#[tokio::test]
async fn every_state_answers_as_the_server_does_with_the_clients_bytes_cut_anywhere() {
    let more = [(Cut::Nowhere, Fault::None), (Cut::EVERYWHERE, Fault::None)];
    each_is_answered_alike("cut_up", &more, true).await;
}

#[tokio::test]
async fn every_state_answers_as_the_server_does_with_the_servers_bytes_cut_anywhere() {
    let more = [(Cut::Nowhere, Fault::ByteByByte)];
    each_is_answered_alike("cut_down", &more, false).await;
}

#[tokio::test]
async fn every_end_of_a_session_is_told_as_the_server_tells_it_and_leaves_what_it_leaves() {
    let postgres = Postgres::shared();
    let database = postgres.database("endings").await;
    let sidecar = Sidecar::over(&database).await;
    let other = database.client().await;
    other
        .batch_execute("CREATE TABLE kept (a int)")
        .await
        .unwrap();
    for ending in endings::all() {
        let (conversation, rows) = (&ending.conversation, ending.rows);
        let mut direct = enter(Raw::connect(&postgres.socket()).await, &database).await;
        let expected = conversation.play(&mut direct, Cut::Nowhere, &other).await;
        left_behind(&other, rows, &conversation.name).await;
        let each = (1..conversation.length()).map(Cut::At);
        for cut in [Cut::Nowhere, Cut::EVERYWHERE].into_iter().chain(each) {
            let what = format!("{} {cut:?}", conversation.name);
            eventually(SOON, &what, async || {
                let mut proxied = enter(sidecar.raw().await, &database).await;
                let begun = Instant::now();
                let told = conversation.play(&mut proxied, cut, &other).await;
                let took = begun.elapsed();
                if ends_alike(conversation, &expected, &told) {
                    return Ok(());
                }
                // The machine may have stood still for all the time that there is for the end.
                assert!(
                    took >= ending.patience,
                    "{what}, {took:?}:\n directly {expected:?}\n  proxied {told:?}"
                );
                other.batch_execute("TRUNCATE kept").await.unwrap();
                Err(told)
            })
            .await;
            left_behind(&other, rows, &what).await;
        }
    }
}

/// Waits until the table has so many rows, as another session sees it, and empties it. What is
/// left at work in between would hold its lock.
async fn left_behind(other: &Client, rows: i64, what: &str) {
    let sql = "SELECT count(*) FROM kept";
    eventually(SOON, what, async || {
        match other.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) {
            seen if seen == rows => Ok(()),
            seen => Err(seen),
        }
    })
    .await;
    other.batch_execute("TRUNCATE kept").await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_bound_at_its_first_query_answers_as_the_server_does() {
    let postgres = Postgres::shared();
    let database = postgres.database("late").await;
    let yaml = upstream("late", &database.url()) + "budget: {size: 1, overflow: 0}\n";
    let sidecar = Sidecar::start(yaml).await;
    let other = database.client().await;
    let mut direct = enter(Raw::connect(&postgres.socket()).await, &database).await;
    let mut holder = enter(sidecar.raw().await, &database).await;
    holder.query("SELECT 1").await;
    for conversation in conversations() {
        let expected = replay(&mut direct, &conversation, Cut::Nowhere, &other).await;
        for cut in [Cut::Nowhere, Cut::EVERYWHERE, Cut::Each(7), Cut::Each(40)] {
            let (mut late, told) = sidecar.started("late", &[]).await;
            assert!(told_pid(&told) > SYNTHETIC, "bound early: {told:?}");
            // It waits with its first message until there is a server connection.
            let lets_go = async {
                sidecar.session_is("shared", "waiting").await;
                drop(holder);
            };
            let (told, ()) = tokio::join!(conversation.play(&mut late, cut, &other), lets_go);
            assert_same(&expected, &told, &format!("{} {cut:?}", conversation.name));
            holder = late;
        }
    }
}
