//! Replay: who comes back with an id has lost nothing that is kept, in order and without gaps.

use std::time::{Duration, Instant};

use execpool::events::{Event, Events, KEPT};
use serde_json::json;

use crate::reader::{Reader, assert_gapless};
use crate::support::session::place;
use crate::support::{SOON, Sidecar, eventually};

/// Provokes so many events.
pub(crate) async fn provoke(sidecar: &Sidecar, count: usize) {
    for _ in 0..count {
        let (status, body) = sidecar.control("POST", "/v1/reconnect", None).await;
        assert_eq!(status, 200, "{body}");
    }
}

/// The id of the last event so far.
pub(crate) async fn last(sidecar: &Sidecar) -> u64 {
    Reader::open(sidecar, "").await.is_in().await
}

/// Waits until a started sidecar has told all that it tells by itself.
pub(crate) async fn has_begun(sidecar: &Sidecar) {
    eventually(SOON, "the database was found", async || {
        match last(sidecar).await {
            3.. => Ok(()),
            last => Err(last),
        }
    })
    .await;
}

#[tokio::test]
async fn who_comes_back_with_an_id_gets_what_came_after_it() {
    let (_database, sidecar) = place("replay", "").await;
    has_begun(&sidecar).await;
    provoke(&sidecar, 20).await;
    let newest = last(&sidecar).await;
    let all = Reader::of_all(&sidecar).await.reaches(newest).await;
    assert_gapless(&all, 0);
    let socket = sidecar.control_socket();
    let mut readers = Vec::new();
    for (query, header) in [
        ("last_event_id=10", None),
        ("", Some("10")),
        ("last_event_id=10", Some("")),
        // The header is what has been read since the address was made.
        ("last_event_id=1", Some("10")),
    ] {
        let mut reader = Reader::at(&socket, query, header).await;
        assert_eq!(
            reader.reaches(newest).await,
            all[10..],
            "{query} {header:?}"
        );
        readers.push(reader);
    }
    provoke(&sidecar, 1).await;
    for mut reader in readers {
        let next = reader.next().await.unwrap();
        assert_eq!(next.id, Some(newest + 1), "it goes on without a gap");
    }
}

#[tokio::test]
async fn what_is_not_kept_any_more_is_counted_first() {
    let (_database, sidecar) = place("lost", "").await;
    has_begun(&sidecar).await;
    provoke(&sidecar, KEPT + 10).await;
    let newest = last(&sidecar).await;
    let mut reader = Reader::open(&sidecar, "last_event_id=5").await;
    let lost = reader.next().await.unwrap();
    let gone = newest - KEPT as u64 - 5;
    assert_eq!(
        lost.data,
        json!({"event": "events.lost", "lost": gone, "restarted": false})
    );
    let rest = reader.reaches(newest).await;
    assert_eq!(rest.len(), KEPT);
    assert_gapless(&rest, newest - KEPT as u64);
    // An id that is none of this process's.
    let mut reader = Reader::open(&sidecar, "last_event_id=1000000").await;
    let lost = reader.next().await.unwrap();
    assert_eq!(
        (lost.id, &lost.data["restarted"]),
        (None, &json!(true)),
        "{lost:?}"
    );
    assert_eq!(lost.data["lost"], newest - KEPT as u64);
    assert_eq!(reader.reaches(newest).await.len(), KEPT);
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused() {
    let (_database, sidecar) = place("senseless", "").await;
    for query in [
        "last_event_id=-1",
        "last_event_id=x",
        "event=nothing",
        "execution=a%20b",
        "since=1",
    ] {
        let path = format!("/v1/events?{query}");
        let (status, problem) = sidecar.control("GET", &path, None).await;
        assert_eq!(
            (status, &problem["code"]),
            (400, &json!("invalid_parameter")),
            "{query}"
        );
    }
    let (status, problem) = sidecar.control("POST", "/v1/events", None).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (405, Some("method_not_allowed"))
    );
}

#[tokio::test]
async fn a_silent_stream_has_a_heartbeat_and_says_how_far_it_is() {
    let (_database, sidecar) = place("silent", "").await;
    has_begun(&sidecar).await;
    let start = Instant::now();
    let mut reader = Reader::open(&sidecar, "execution=nobody").await;
    let begun = reader.is_in().await;
    provoke(&sidecar, 1).await;
    reader.last = None;
    assert_eq!(reader.is_in().await, begun + 1);
    let silent = start.elapsed();
    assert!(
        silent > Duration::from_secs(14) && silent < Duration::from_secs(45),
        "{silent:?}"
    );
}

/// What it costs who tells an event; a debug build on a busy machine.
#[test]
fn to_tell_an_event_takes_microseconds_however_many_follow() {
    const MANY: u32 = 100;
    let events = std::sync::Arc::new(Events::default());
    // As a rule: the thread may stand still in any of these.
    let cost = || {
        let costs = (0..200).map(|_| {
            let start = Instant::now();
            for _ in 0..MANY {
                events.tell(Event::Reconnect { closed: 1, lent: 2 });
            }
            start.elapsed() / MANY
        });
        let mut costs: Vec<Duration> = costs.collect();
        costs.sort();
        costs[costs.len() / 2]
    };
    let alone = cost();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    for _ in 0..1000 {
        let mut tide = events.follow();
        runtime.spawn(async move { while tide.changed().await.is_ok() {} });
    }
    let herald = std::sync::Arc::clone(&events);
    runtime.spawn(async move { herald.herald().await });
    let followed = cost();
    for cost in [alone, followed] {
        assert!(cost < Duration::from_micros(100), "{alone:?} {followed:?}");
    }
    println!("{alone:?} alone, {followed:?} with a thousand followers");
    runtime.shutdown_background();
}

#[tokio::test]
async fn sessions_and_executions_of_one_session_come_and_go_without_an_event() {
    let (_database, sidecar) = place("quiet", "execution: {untagged: session}\n").await;
    has_begun(&sidecar).await;
    let before = last(&sidecar).await;
    for _ in 0..20 {
        let mut session = sidecar.started("app", &[]).await.0;
        assert_eq!(session.ask("SELECT 1").await, "1");
    }
    eventually(SOON, "all have ended", async || {
        let status = sidecar.get("/v1/status").await;
        let ended = status["executions"]["ended"]["session_ended"].clone();
        (ended == 20).then_some(()).ok_or(status)
    })
    .await;
    assert_eq!(last(&sidecar).await, before);
    // Somebody's deed is one.
    let mut session = sidecar.started("app", &[]).await.0;
    assert_eq!(session.ask("SELECT 1").await, "1");
    let path = "/v1/executions/session-21";
    assert_eq!(sidecar.control("DELETE", path, None).await.0, 200);
    let mut reader = Reader::open(&sidecar, &format!("last_event_id={before}")).await;
    let ended = reader.next().await.unwrap();
    assert_eq!(ended.data["execution_id"], "session-21", "{ended:?}");
}
