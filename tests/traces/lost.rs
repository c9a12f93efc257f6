//! A collector that is away, or never answers: nobody waits, nothing grows, and it is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::port::Port;
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

/// Runs more sessions than there is room for spans, until some were dropped.
async fn overrun(sidecar: &Sidecar) {
    let begun = Instant::now();
    while counted(sidecar, PROCESSED, "queue_full").await < 10 {
        assert!(begun.elapsed() < SOON, "none is dropped");
        for _ in 0..10 {
            visit(sidecar, "run-1", "").await;
        }
    }
}

/// What was logged about traces.
fn told(sidecar: &Sidecar) -> Vec<Value> {
    let lines = sidecar.log().into_iter();
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    lines.filter(|line| line["signal"] == "traces").collect()
}

const PROCESSED: &str = "otel_sdk_processor_span_processed_total{";
const EXPORTED: &str = "otel_sdk_exporter_span_exported_total{";

#[tokio::test]
async fn a_collector_that_never_answers_costs_spans_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Whoever waited for an export would wait for longer than the test does.
    let sidecar = options("mute_collector", &endpoint, "")
        .await
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "600000")
        .env("OTEL_BSP_EXPORT_TIMEOUT", "600000")
        .start()
        .await;
    overrun(&sidecar).await;
    sidecar.logged(&["spans.dropped", "\"waiting\":8"]).await;
    assert_eq!(counted(&sidecar, EXPORTED, "error_type").await, 0);
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_collector_that_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let options = options("mute_at_the_end", &endpoint, "")
        .await
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "600000")
        .env("OTEL_BSP_EXPORT_TIMEOUT", "600000");
    // As fast as it can: the machine may stand still while it ends.
    eventually(SOON, "it ends in time", async || {
        let mut sidecar = options.clone().start().await;
        visit(&sidecar, "run-1", "").await;
        sidecar.settles().await;
        let begun = Instant::now();
        sidecar.signal(nix::sys::signal::Signal::SIGTERM);
        sidecar.exited(SOON).await;
        let took = begun.elapsed();
        match took < Duration::from_secs(3) {
            true => Ok(()),
            false => Err(took),
        }
    })
    .await;
}

#[tokio::test]
async fn spans_that_a_collector_never_answers_for_are_counted_as_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let sidecar = options("mute_again", &endpoint, "")
        .await
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "400")
        .start()
        .await;
    eventually(SOON, "failures are counted", async || {
        visit(&sidecar, "run-1", "").await;
        match counted(&sidecar, EXPORTED, "error_type=\"timeout\"").await {
            0 => Err(()),
            _ => Ok(()),
        }
    })
    .await;
    sidecar.logged(&["export.failing", "traces"]).await;
}

#[tokio::test]
async fn a_collector_that_is_away_is_one_line_and_so_is_its_return() {
    let port = Port::for_good();
    let sidecar = options("no_collector", &format!("http://127.0.0.1:{port}"), "")
        .await
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "400")
        .start()
        .await;
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
    sidecar.logged(&["UNAVAILABLE", "traces"]).await;
    // A machine that stands still may add one that there was no answer in time.
    let away = || told(&sidecar).into_iter().filter(is_away).count();
    assert_eq!(away(), 1, "{:#?}", told(&sidecar));
    let collector = crate::support::collector::Collector::options()
        .port(port)
        .start()
        .await;
    eventually(SOON, "it arrives again", async || {
        visit(&sidecar, "run-1", "").await;
        let lines = told(&sidecar);
        let is_told = lines.iter().any(|line| line["event"] == "export.recovered");
        if is_told && !collector.spans().is_empty() {
            Ok(())
        } else {
            Err(lines)
        }
    })
    .await;
    assert_eq!(away(), 1, "{:#?}", told(&sidecar));
}

fn is_away(line: &Value) -> bool {
    line["error_type"] == "UNAVAILABLE"
}
