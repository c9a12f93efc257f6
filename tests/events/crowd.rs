//! A thousand readers at once, while load runs: all read everything, and nobody is held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Mutex;

use crate::follow::{has_begun, last};
use crate::leaving::{by_hand, descriptors, descriptors_are};
use crate::reader::{Reader, assert_gapless};
use crate::support::load::{pgbench, prepare};
use crate::support::session::place;
use crate::support::{SOON, Sidecar, eventually, http};

const READERS: usize = 1000;
/// What `status` may take at most, where the machine stands still, and as a rule.
const LONGEST: Duration = Duration::from_secs(30);
const USUAL: Duration = Duration::from_secs(1);
/// What a thousand readers may cost, in bytes each.
const EACH: u64 = 100 << 10;

/// One crowd at a time: each is measured.
static CROWDED: Mutex<()> = Mutex::const_new(());

/// Asks for the status again and again; answers how long each took.
async fn ask_status(sidecar: &Sidecar, stop: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while !stop.load(Relaxed) {
        let start = Instant::now();
        sidecar.get("/v1/status").await;
        took.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_read_everything_while_load_runs() {
    let _alone = CROWDED.lock().await;
    let (database, sidecar) = place("crowd", "").await;
    prepare(&database).await;
    has_begun(&sidecar).await;
    let sidecar = Arc::new(sidecar);
    let descriptors = descriptors(&sidecar).await;
    let before = sidecar.rss();
    let mut readers = Vec::with_capacity(READERS);
    for _ in 0..READERS {
        readers.push(Reader::of_all(&sidecar).await);
    }
    let now = sidecar.descriptors();
    assert!(now >= descriptors + READERS, "{now}, {descriptors} before");

    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let (sidecar, stop) = (Arc::clone(&sidecar), Arc::clone(&stop));
        tokio::spawn(async move { ask_status(&sidecar, &stop).await })
    };
    let load = pgbench(sidecar.pg_host(), "app", 6, &["-c", "4"]);
    // What of each reader is to be read by the end.
    let reading: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            tokio::spawn(async move {
                let mut all = Vec::new();
                loop {
                    let told = reader.next().await.expect("the stream goes on");
                    let is_last = told.data["execution_id"] == "last";
                    all.push(told);
                    if is_last {
                        return (reader, all);
                    }
                }
            })
        })
        .collect();
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed() < Duration::from_secs(4) || round < 6 {
        round += 1;
        let body = json!({"id": format!("e{round}")});
        sidecar.control("POST", "/v1/executions", Some(body)).await;
        let path = format!("/v1/executions/e{round}");
        sidecar.control("DELETE", &path, None).await;
    }
    let told = Instant::now();
    let body = json!({"id": "last"});
    sidecar.control("POST", "/v1/executions", Some(body)).await;
    let mut kept = Vec::new();
    let mut count = 0;
    for reading in reading {
        let (reader, all) = reading.await.unwrap();
        assert_gapless(&all, 0);
        count = all.len();
        kept.push(reader);
    }
    let took = told.elapsed();
    assert!(count > 2 * round, "{count} events");
    assert!(took < LONGEST, "the last event took {took:?}");
    let grown = sidecar.rss().saturating_sub(before);
    load.succeeds().await;
    stop.store(true, Relaxed);
    let status = asking.await.unwrap();
    let (usual, longest) = (status[status.len() / 2], status[status.len() - 1]);
    println!(
        "{count} events to {READERS} readers; the last within {took:?}; status {usual:?}, at most \
         {longest:?}; {grown} bytes"
    );
    assert!(usual < USUAL && longest < LONGEST, "{usual:?} {longest:?}");
    assert!(grown < READERS as u64 * EACH, "{grown} bytes more");
    assert!(last(&sidecar).await >= count as u64);
    drop(kept);
    // Its idle connections are the load's.
    sidecar
        .control("DELETE", "/v1/executions/shared", None)
        .await;
    descriptors_are(&sidecar, descriptors).await;
}

#[tokio::test]
async fn there_are_no_more_readers_than_may_be_and_the_api_serves_on() {
    const MOST: usize = 4096;
    let _alone = CROWDED.lock().await;
    let (_database, sidecar) = place("most", "").await;
    has_begun(&sidecar).await;
    let before = descriptors(&sidecar).await;
    let mut readers: Vec<_> = (0..MOST).map(|_| by_hand(&sidecar, "")).collect();
    let (status, problem) = sidecar.control("GET", "/v1/events", None).await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("too_many_readers"))
    );
    let start = Instant::now();
    sidecar.get("/v1/status").await;
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    // One that leaves makes room.
    readers.pop();
    descriptors_are(&sidecar, before + MOST - 1).await;
    eventually(SOON, "there is room for one more", async || {
        let socket = sidecar.control_socket();
        let answer = http::open(&socket, "GET", "/v1/events", None).await;
        let status = answer.unwrap().status().as_u16();
        (status == 200).then_some(()).ok_or(status)
    })
    .await;
    readers.clear();
    descriptors_are(&sidecar, before).await;
}
