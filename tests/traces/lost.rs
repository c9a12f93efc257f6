//! A collector that is away, or never answers: nobody waits, nothing grows, and it is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Sidecar, eventually};
use crate::{SOON, options, visit};

/// What a counter of spans stands at; 0 where it is not there.
async fn counted(sidecar: &Sidecar, name: &str, attribute: &str) -> u64 {
    let status = sidecar.get("/v1/status").await;
    let port: SocketAddr = status["telemetry"].as_str().unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(port).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: pod\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let lines = lines.filter(|line| line.contains(attribute));
    lines
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum()
}

/// Runs more sessions than there is room for spans, each in no time, until some were dropped; then
/// answers what was logged about that.
async fn overrun(sidecar: &Sidecar) -> Vec<Value> {
    let begun = Instant::now();
    let mut visits: u32 = 0;
    while counted(sidecar, PROCESSED, "queue_full").await < 10 {
        assert!(begun.elapsed() < SOON, "none is dropped");
        for _ in 0..10 {
            visit(sidecar, "run-1", "").await;
            visits += 1;
        }
    }
    let each = begun.elapsed() / visits;
    assert!(each < Duration::from_millis(200), "{each:?}");
    let lines = sidecar.log().into_iter();
    lines
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter(|line| line["signal"] == "traces")
        .collect()
}

const PROCESSED: &str = "otel_sdk_processor_span_processed_total{";
const EXPORTED: &str = "otel_sdk_exporter_span_exported_total{";

#[tokio::test]
async fn a_collector_that_never_answers_costs_spans_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut sidecar = options("mute_collector", &endpoint, "")
        .await
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        .start()
        .await;
    let lines = overrun(&sidecar).await;
    eventually(SOON, "failures are counted", async || {
        match counted(&sidecar, EXPORTED, "error_type").await {
            0 => Err(()),
            _ => Ok(()),
        }
    })
    .await;
    let dropping = lines.iter().filter(|line| line["waiting"] == 8);
    assert!(dropping.count() >= 1, "{lines:#?}");
    let begun = Instant::now();
    sidecar.signal(nix::sys::signal::Signal::SIGTERM);
    sidecar.exited(SOON).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_collector_that_is_away_is_one_line_and_so_is_its_return() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, endpoint) = {
        let address = listener.local_addr().unwrap();
        (address.port(), format!("http://{address}"))
    };
    drop(listener);
    let sidecar = options("no_collector", &endpoint, "").await.start().await;
    let told = |sidecar: &Sidecar| {
        let lines = sidecar.log().into_iter();
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let lines = lines.filter(|line| line["signal"] == "traces");
        lines.collect::<Vec<_>>()
    };
    let failures = async |count: u64| {
        eventually(SOON, "exports fail", async || {
            visit(&sidecar, "run-1", "").await;
            let failed = counted(&sidecar, EXPORTED, "UNAVAILABLE").await;
            if failed >= count {
                Ok(failed)
            } else {
                Err(failed)
            }
        })
        .await
    };
    let first = failures(1).await;
    failures(first + 5).await;
    let lines = told(&sidecar);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0]["error_type"], "UNAVAILABLE");
    let collector = crate::support::collector::Collector::options()
        .port(port)
        .start()
        .await;
    eventually(SOON, "it arrives again", async || {
        visit(&sidecar, "run-1", "").await;
        let lines = told(&sidecar);
        if lines.len() == 2 && !collector.spans().is_empty() {
            Ok(())
        } else {
            Err(lines)
        }
    })
    .await;
}
