//! `/metrics` under clients that ask too often, too many at once, by half, or never read: the probes
//! beside it answer, and nothing grows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::sidecar::upstream;
use support::{Postgres, SOON, Sidecar, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// What a kubelet waits for a probe by default.
const PROBE: Duration = Duration::from_secs(1);

async fn start(name: &str) -> (Sidecar, SocketAddr) {
    let database = Postgres::shared().database(name).await;
    let sidecar = Sidecar::options()
        .config(upstream("app", &database.url()))
        .env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0")
        .start()
        .await;
    let status = sidecar.get("/v1/status").await;
    let port = status["telemetry"].as_str().unwrap().parse().unwrap();
    (sidecar, port)
}

/// All that is answered to a request; what the system says where it is not.
async fn asked(port: SocketAddr, line: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(port).await?;
        let request = format!("{line} HTTP/1.1\r\nhost: pod\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(SOON, exchange).await.expect("in time");
    answer.unwrap_or_else(|error| error.to_string())
}

/// Whether a probe is answered in time. Where the machine stands still it is not, whoever else asks: it is to be tried
/// again, under the same load.
async fn is_healthy(port: SocketAddr) -> Result<(), String> {
    let start = Instant::now();
    let answer = asked(port, "GET /healthz").await;
    let took = start.elapsed();
    match answer.contains("200 OK") && took < PROBE {
        true => Ok(()),
        false => Err(format!("{took:?}: {answer}")),
    }
}

async fn becomes_healthy(port: SocketAddr) {
    let probe = async || is_healthy(port).await;
    eventually(SOON, "a probe is answered in time", probe).await;
}

/// A connection that has sent this and reads nothing, with the smallest of buffers.
async fn unread(port: SocketAddr, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let mut stream = socket.connect(port).await.unwrap();
    let _ = stream.write_all(bytes).await;
    stream
}

#[tokio::test]
async fn a_hundred_scrapes_a_second_are_answered_and_cost_little() {
    let (sidecar, port) = start("often").await;
    asked(port, "GET /metrics").await;
    let (before, start) = (sidecar.ticks(), Instant::now());
    let memory = sidecar.rss();
    let mut each = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..300 {
        each.tick().await;
        let answer = asked(port, "GET /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    becomes_healthy(port).await;
    let busy = (sidecar.ticks() - before) as f64 / 100.0 / start.elapsed().as_secs_f64();
    println!("{:.1} % of a CPU", busy * 100.0);
    assert!(busy < 0.5, "{busy}");
    assert!(
        sidecar.rss() < memory + (4 << 20),
        "{memory} {}",
        sidecar.rss()
    );
}

#[tokio::test]
async fn who_never_reads_or_asks_by_half_holds_nobody_up() {
    let (sidecar, port) = start("unread").await;
    eventually(SOON, "it has begun", async || {
        let answer = asked(port, "GET /readyz").await;
        answer.contains("200 OK").then_some(()).ok_or(answer)
    })
    .await;
    let (memory, descriptors) = (sidecar.rss(), sidecar.descriptors());
    let mut kept = Vec::new();
    for bytes in [
        &b"GET /metrics HTTP/1.1\r\nhost: pod\r\n\r\n"[..],
        b"GET /metri",
    ] {
        let mut crowd = Vec::new();
        eventually(SOON, "a probe is answered in time", async || {
            // They are let go after a while: each try has its own.
            crowd.clear();
            for _ in 0..500 {
                crowd.push(unread(port, bytes).await);
            }
            is_healthy(port).await
        })
        .await;
        kept.push(crowd);
    }
    assert!(
        sidecar.rss() < memory + (16 << 20),
        "{memory} {}",
        sidecar.rss()
    );
    // Of those that have not asked yet no more are kept.
    assert!(sidecar.descriptors() < descriptors + 300);
    sidecar.get("/v1/status").await;
    drop(kept);
    eventually(SOON, "all is given back", async || {
        let now = sidecar.descriptors();
        if now <= descriptors + 2 {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;
}

/// How many scrapes came to nothing, for this reason; the answer, where this one did as well.
async fn failed(port: SocketAddr, reason: &str) -> Result<u64, String> {
    let text = asked(port, "GET /metrics").await;
    let line = format!("execpool_scrape_failed_total{{reason=\"{reason}\"}} ");
    let found = text.lines().find_map(|found| found.strip_prefix(&line));
    let count = found.and_then(|count| count.parse().ok());
    count.ok_or(text)
}

#[tokio::test]
async fn a_thousand_at_once_are_answered_or_counted() {
    let (sidecar, port) = start("counted").await;
    let mut all = JoinSet::new();
    // Those whom the system keeps for it are there when it looks again, however slow we are.
    sidecar.signal(Signal::SIGSTOP);
    for _ in 0..1000 {
        all.spawn(async move { asked(port, "GET /metrics").await });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    sidecar.signal(Signal::SIGCONT);
    let answers = all.join_all().await;
    becomes_healthy(port).await;
    let taken = answers.iter().filter(|answer| answer.contains("200 OK"));
    let taken = taken.count() as u64;
    assert!(taken > 0 && taken < 1000, "{taken}");
    // A text may be of a moment ago.
    eventually(SOON, "those that were not are counted", async || {
        let mut counted = 0;
        for reason in ["crowded", "refused", "cut"] {
            counted += failed(port, reason).await?;
        }
        if counted + taken >= 1000 {
            Ok(())
        } else {
            Err(format!("{counted} and {taken}"))
        }
    })
    .await;
}

#[tokio::test]
async fn metrics_are_for_reading() {
    let (_sidecar, port) = start("reading").await;
    let answer = asked(port, "POST /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let answer = asked(port, "HEAD /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(!answer.contains("process_"), "{answer}");
}
