//! What execpool itself has to say comes between two messages of the server's, wherever the
//! server's stream stands; where a message has begun and can't go on, the session is closed.
//!
//! Many sessions stand at once, each at another byte of the same answer: the name of its column
//! is as long as the others' are not, and the relay to the server holds all of them behind the
//! same number of bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::ops::RangeInclusive;

use postgres_protocol::message::frontend;
use serde_json::json;
use support::session::{assert_in, kinds, rows};
use support::sidecar::upstream;
use support::{Database, Fault, Message, Postgres, Proxy, Raw, SOON, Sidecar, eventually};

/// The lengths of the column's name: up to the longest that the server takes.
const NAMES: RangeInclusive<usize> = 13..=63;
/// RowDescription of the longest name: the others stand behind theirs.
const HELD_AFTER: usize = 26 + 63;
const VALUE: &str = "xxxxxxxxxxxxxxxxxxxx";
/// DataRow of the value.
const ROW: usize = 5 + 2 + 4 + 20;
/// CommandComplete, `SELECT 1`.
const COMPLETE: usize = 5 + 9;

/// One session, `stands` bytes behind its RowDescription.
struct Held {
    raw: Raw,
    stands: usize,
}

/// Sessions of execution `a`, in a transaction each, and one that waits for nothing.
struct Place {
    proxy: Proxy,
    database: Database,
    sidecar: Sidecar,
    held: Vec<Held>,
    twin: Raw,
}

fn config(proxy: &Proxy, database: &Database, more: &str) -> String {
    upstream("app", &proxy.url(database))
        + "budget: {size: 80, overflow: 0}\npool: {size: 80, overflow: 0}\n"
        + more
}

impl Place {
    async fn new(name: &str, more: &str) -> Self {
        let postgres = Postgres::shared();
        let database = postgres.database(name).await;
        let proxy = Proxy::unix(postgres).await;
        let sidecar = Sidecar::start(config(&proxy, &database, more)).await;
        let mut held = Vec::new();
        for name in NAMES {
            let mut raw = sidecar.session("app", "a").await;
            raw.backend().await;
            let stands = HELD_AFTER - (26 + name);
            held.push(Held { raw, stands });
        }
        let mut twin = sidecar.session("app", "a").await;
        twin.backend().await;
        Self {
            proxy,
            database,
            sidecar,
            held,
            twin,
        }
    }

    /// Each has asked in a transaction and stands where it is to; the twin has begun one last.
    async fn hold(&mut self) {
        for Held { raw, .. } in &mut self.held {
            raw.query("BEGIN").await;
        }
        self.twin.query("BEGIN").await;
        self.proxy.set(Fault::HoldAfter(HELD_AFTER));
        for Held { raw, stands } in &mut self.held {
            let name = "a".repeat(63 - *stands);
            let sql = format!("SELECT '{VALUE}' AS {name}");
            raw.send_with(|buffer| frontend::query(&sql, buffer).unwrap())
                .await;
        }
        let count = self.held.len();
        eventually(SOON, "each stands where it is to", async || {
            match self.proxy.held() {
                held if held == count => Ok(()),
                held => Err(held),
            }
        })
        .await;
        // What passes has come through.
        for Held { raw, stands } in &mut self.held {
            let described = raw.read().await.expect("a RowDescription");
            assert_eq!(described.body.len() + 5, 26 + 63 - *stands);
        }
    }

    /// Each is told the whole answer, and one NOTICE between two messages.
    async fn each_is_told_whole(&mut self, notice: impl Fn(&Message) -> bool) {
        self.proxy.set(Fault::None);
        for Held { raw, stands } in &mut self.held {
            let told = raw.read_until(b'Z').await;
            // At once, where nothing has begun to pass: a message that is looked into passes whole.
            let expected = match *stands {
                ..5 => "NDCZ",
                5.. if *stands < ROW + COMPLETE => "DNCZ",
                _ => "DCNZ",
            };
            assert_eq!(kinds(&told), expected, "at {stands}: {told:?}");
            assert_eq!(rows(&told), [VALUE], "at {stands}");
            let notices = told.iter().filter(|message| message.kind == b'N');
            assert!(notices.into_iter().all(&notice), "at {stands}: {told:?}");
            assert_eq!(told[3].transaction_status(), 'T');
        }
    }
}

#[tokio::test]
async fn the_notice_of_a_long_transaction_waits_for_the_message_that_has_begun() {
    let limits = |notice: &str| {
        format!(
            "session: {{idle_in_transaction: {{notice: off}}, transaction: {{notice: {notice}}}}}\n"
        )
    };
    let mut place = Place::new("between_transaction", &limits("off")).await;
    place.hold().await;
    let yaml = config(&place.proxy, &place.database, &limits("100ms"));
    place.sidecar.reload(&yaml).await;
    // It came last and began last, and so the others have been told by then.
    let notice = place.twin.read().await.expect("a notice");
    assert_eq!(notice.fields()[&'C'], "25P04", "{notice:?}");
    let is_it = |message: &Message| message.fields()[&'C'] == "25P04";
    place.each_is_told_whole(is_it).await;
}

#[tokio::test]
async fn the_notice_of_a_deadline_waits_for_the_message_that_has_begun() {
    let limits = "session: {idle_in_transaction: {notice: off}, transaction: {notice: off}}\n";
    let mut place = Place::new("between_deadline", limits).await;
    // The deadline is that of its next generation's beginning, or of its heartbeat.
    place.hold().await;
    let body = json!({"id": "a", "deadline": "20s"});
    let (status, told) = place
        .sidecar
        .control("POST", "/v1/executions", Some(body))
        .await;
    assert!(status == 200 || status == 201, "{status} {told}");
    let notice = place.twin.read().await.expect("a notice");
    let is_it =
        |message: &Message| message.fields()[&'M'].contains("execution a reaches its deadline");
    assert!(is_it(&notice), "{notice:?}");
    // It does not come before all have read.
    let beat = "/v1/executions/a/heartbeat";
    let extend = Some(json!({"extend": "1h"}));
    let (status, told) = place.sidecar.control("POST", beat, extend).await;
    assert_eq!(status, 200, "{told}");
    place.each_is_told_whole(is_it).await;
}

#[tokio::test]
async fn an_end_is_told_between_two_messages_and_closes_the_session_within_one() {
    let mut place = Place::new("between_end", "").await;
    place.hold().await;
    for Held { raw, stands } in &mut place.held {
        let passed = match *stands {
            // Its header is not whole.
            ..5 => 0,
            // What is looked into passes whole.
            ROW.. if *stands < ROW + COMPLETE => ROW,
            ROW.. => ROW + COMPLETE,
            stands => stands,
        };
        let before = raw.read_bytes(passed).await;
        assert_eq!(before.len(), passed, "at {stands}");
    }
    let (status, ended) = place
        .sidecar
        .control("DELETE", "/v1/executions/a", None)
        .await;
    assert_eq!(status, 200, "{ended}");
    for Held { raw, stands } in &mut place.held {
        let rest = raw.read_bytes(usize::MAX).await;
        if (5..ROW).contains(stands) {
            assert!(rest.is_empty(), "at {stands}: {}", rest.escape_ascii());
            continue;
        }
        assert_eq!(
            rest.first(),
            Some(&b'E'),
            "at {stands}: {}",
            rest.escape_ascii()
        );
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap());
        assert_eq!(length as usize + 1, rest.len(), "at {stands}: one message");
        let told = Message {
            kind: b'E',
            body: rest[5..].to_vec(),
        };
        let fields = told.fields();
        assert_eq!(
            (fields[&'S'].as_str(), fields[&'C'].as_str()),
            ("FATAL", "57P01")
        );
    }
}

#[tokio::test]
async fn who_waits_at_connect_is_told_before_the_servers_parameters_and_not_amid_them() {
    let postgres = Postgres::shared();
    let database = postgres.database("between_startup").await;
    let proxy = Proxy::unix(postgres).await;
    let yaml = upstream("app", &proxy.url(&database))
        + "    connect_timeout: 1m\npool: {notice_after: 100ms, timeout: 10m}\n";
    let sidecar = Sidecar::start(yaml).await;
    // What dials for the monitor has done so.
    sidecar.session("app", "a").await.backend().await;
    for held_after in [1, 20, 60, 300] {
        proxy.set(Fault::HoldAfter(held_after));
        let mut raw = sidecar.raw().await;
        raw.send_with(|buffer| {
            // Of a key that has never connected.
            let path = format!("p{held_after}");
            let named = [
                ("user", "app"),
                ("database", "app"),
                ("search_path", path.as_str()),
            ];
            frontend::startup_message(named, buffer).unwrap();
        })
        .await;
        let told = raw.read_until(b'N').await;
        assert_eq!(kinds(&told), "RN", "{told:?}");
        proxy.set(Fault::None);
        let told = raw.read_until(b'Z').await;
        assert_in(&told);
        let others = kinds(&told).replace('S', "");
        assert_eq!(others, "KZ", "{told:?}");
        assert_eq!(raw.ask("SELECT 1").await, "1");
    }
}
