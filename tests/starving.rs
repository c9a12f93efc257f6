//! Data plane, control plane and probes don't starve one another.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use support::load::{pgbench, prepare};
use support::sidecar::upstream;
use support::{Database, Postgres, SOON, Sidecar, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Much more than anything takes that does not wait, on a machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Asserts that nearly all took no time: a machine that stands still now and then holds up a few.
#[track_caller]
fn assert_at_once(took: &[Duration]) {
    let late = took.iter().filter(|took| **took >= AT_ONCE).count();
    assert!(late <= took.len() / 10, "{late} were late: {took:?}");
}

async fn place(name: &str) -> (Database, Sidecar) {
    let database = Postgres::shared().database(name).await;
    let yaml = upstream("app", &database.url()) + "pool: {size: 10, overflow: 0}\n";
    let options = Sidecar::options().config(yaml);
    let options = options.env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0");
    (database, options.start().await)
}

/// The first line of what a probe is answered.
async fn probe(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: pod\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

async fn telemetry(sidecar: &Sidecar) -> String {
    let status = sidecar.get("/v1/status").await;
    status["telemetry"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn status_and_probes_are_answered_while_the_data_plane_has_all_to_do() {
    let (database, sidecar) = place("busy_data").await;
    prepare(&database).await;
    let address = telemetry(&sidecar).await;
    let load = pgbench(
        sidecar.pg_host(),
        "app",
        600,
        &["-c", "10", "-M", "prepared"],
    );
    eventually(SOON, "it works", async || {
        let used = sidecar.get("/v1/status").await["budget"]["used"].clone();
        if used == 10 { Ok(()) } else { Err(used) }
    })
    .await;
    let mut took = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        sidecar.get("/v1/status").await;
        assert_eq!(probe(&address).await, "HTTP/1.1 200 OK");
        took.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_at_once(&took);
    load.stop();
    load.succeeds().await;
}

#[tokio::test]
async fn queries_are_answered_while_the_control_plane_and_the_probes_have_all_to_do() {
    let (_database, sidecar) = place("busy_control").await;
    let address = telemetry(&sidecar).await;
    let mut raw = sidecar.session("app", "a").await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let socket = sidecar.control_socket();
    let asking: Vec<_> = (0..16)
        .map(|number| {
            let (stop, asked, socket, address) = (
                Arc::clone(&stop),
                Arc::clone(&asked),
                socket.clone(),
                address.clone(),
            );
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    match number % 2 {
                        0 => drop(probe(&address).await),
                        _ => {
                            drop(support::http::request(&socket, "GET", "/v1/sessions", None).await)
                        }
                    }
                    asked.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    while took.len() < 100 || asked.load(Relaxed) <= 100 {
        let begun = Instant::now();
        let number = took.len();
        let answer = raw.ask(&format!("SELECT {number}")).await;
        assert_eq!(answer, number.to_string());
        took.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_at_once(&took);
    stop.store(true, Relaxed);
    for one in asking {
        one.await.unwrap();
    }
    assert!(asked.load(Relaxed) > 100, "{asked:?}");
}
