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
#[path = "conformance/states.rs"]
mod states;

use conversation::{Conversation, Cut, assert_same};
use support::session::assert_in;
use support::{Database, Fault, Message, Postgres, Proxy, Raw, Sidecar};

async fn enter(mut raw: Raw, database: &Database) -> Raw {
    assert_in(
        &raw.startup(&[("user", "app"), ("database", &database.name)])
            .await,
    );
    raw
}

/// Replays it, and forgets what it left in the session.
async fn replay(raw: &mut Raw, conversation: &Conversation, cut: Cut) -> Vec<Message> {
    let told = conversation.play(raw, cut).await;
    raw.query("DISCARD ALL").await;
    told
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
    for conversation in states::all() {
        let expected = replay(&mut direct, &conversation, Cut::Nowhere).await;
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
            let told = conversation.play(&mut proxied, cut).await;
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
    let more = [(Cut::Nowhere, Fault::None), (Cut::Everywhere, Fault::None)];
    each_is_answered_alike("cut_up", &more, true).await;
}

#[tokio::test]
async fn every_state_answers_as_the_server_does_with_the_servers_bytes_cut_anywhere() {
    let more = [(Cut::Nowhere, Fault::ByteByByte)];
    each_is_answered_alike("cut_down", &more, false).await;
}
