//! What leaves the process over OTLP, and what becomes of it when who should take it is away,
//! refuses, takes a part, never answers, or comes back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "tls/certificates.rs"]
#[allow(dead_code, reason = "PostgreSQL's are made elsewhere")]
mod certificates;
mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certificates::{Authority, Files, Pair, params};
use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use support::port::Port;
use support::receiver::{Answer, Receiver};
use support::sidecar::{SidecarOptions, upstream};
use support::{Postgres, SOON, Sidecar, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const EXPORTED: &str = "otel.sdk.exporter.metric_data_point.exported";

/// Exports to there, often, and waits for no answer for long. A machine that stands still for a moment makes it fail
/// by that, too, where a test does not give it more time.
async fn options(name: &str, endpoint: &str) -> SidecarOptions {
    let database = Postgres::shared().database(name).await;
    Sidecar::options()
        .config(upstream("app", &database.url()))
        .env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_METRIC_EXPORT_INTERVAL", "100")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "400")
}

/// The lines about exporting, parsed.
fn told(sidecar: &Sidecar) -> Vec<Value> {
    let lines = sidecar.log().into_iter();
    lines
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter(|line| line["signal"] == "metrics")
        .collect()
}

/// Waits until it is logged that exports fail by this, or, without a kind, that all arrives again, and then a while for
/// more; answers the first of the lines that say so.
async fn line(sidecar: &Sidecar, kind: Option<&str>) -> Value {
    let says = |line: &Value| match kind {
        Some(kind) => line["error_type"] == kind,
        None => line["level"] == "INFO",
    };
    let claim = format!("the change is logged: {kind:?}");
    let found = eventually(SOON, &claim, async || {
        let told = told(sidecar);
        told.iter().find(|line| says(line)).cloned().ok_or(told)
    })
    .await;
    more_exports(sidecar).await;
    assert_changes(&told(sidecar));
    found
}

/// More exports come to the same, and are counted, not logged.
async fn more_exports(sidecar: &Sidecar) {
    let before = exports(&metrics(sidecar).await);
    eventually(SOON, "more exports are tried", async || {
        let now = exports(&metrics(sidecar).await);
        if now >= before + 100 {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;
}

/// Asserts that each line tells something new: a kind of failure once until all arrives again, and that once.
fn assert_changes(told: &[Value]) {
    let mut kinds = BTreeSet::new();
    for line in told {
        match line["error_type"].as_str() {
            Some(kind) => assert!(kinds.insert(kind), "{kind} twice: {told:#?}"),
            None => assert!(!kinds.is_empty(), "nothing has failed before: {told:#?}"),
        }
        if line["level"] == "INFO" {
            kinds.clear();
        }
    }
}

/// How many points were exported or failed to be.
fn exports(metrics: &str) -> u64 {
    let lines = metrics.lines();
    let own = lines.filter(|line| line.starts_with(EXPORTED_LINE));
    own.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum()
}

const EXPORTED_LINE: &str = "otel_sdk_exporter_metric_data_point_exported_total{";

async fn port(sidecar: &Sidecar) -> SocketAddr {
    let status = sidecar.get("/v1/status").await;
    status["telemetry"].as_str().unwrap().parse().unwrap()
}

/// What `/metrics` answers.
async fn metrics(sidecar: &Sidecar) -> String {
    let mut stream = TcpStream::connect(port(sidecar).await).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: pod\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn one_provider_feeds_otlp_and_the_port() {
    let receiver = Receiver::start(Answer::Takes).await;
    let sidecar = options("one_provider", &receiver.endpoint())
        .await
        .env("OTEL_RESOURCE_ATTRIBUTES", "team=agents")
        .env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20abc%3D,x-tenant=t1",
        )
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")
        .env("POD_NAME", "agents-0")
        .start()
        .await;
    let received = receiver
        .wait_for("exports are counted", |received| {
            let points = received.points(EXPORTED);
            points
                .iter()
                .any(|(_, count)| *count > 0.0)
                .then(|| received.clone())
        })
        .await;
    let resource = received.resource();
    for attribute in [
        "k8s.pod.name=agents-0",
        "service.name=execpool",
        "team=agents",
    ] {
        assert!(resource.contains(attribute), "{resource}");
    }
    assert_eq!(received.headers["authorization"], "Bearer abc=");
    assert_eq!(received.headers["x-tenant"], "t1");
    assert_eq!(received.headers["grpc-encoding"], "gzip");
    let text = metrics(&sidecar).await;
    for (own, theirs) in [
        (
            "process.cpu.time",
            "process_cpu_time_seconds_total{cpu_mode=\"user\"} ",
        ),
        ("process.memory.usage", "process_memory_usage_bytes "),
        (
            "process.open_file_descriptor.count",
            "process_open_file_descriptor_count ",
        ),
        ("execpool.log.dropped", "execpool_log_dropped_total 0"),
        (
            "execpool.scrape.failed",
            "execpool_scrape_failed_total{reason=\"cut\"} 0",
        ),
        (
            EXPORTED,
            "otel_sdk_exporter_metric_data_point_exported_total{",
        ),
    ] {
        assert!(
            !received.points(own).is_empty(),
            "{own}: {:?}",
            received.request
        );
        assert!(text.contains(&format!("\n{theirs}")), "{theirs}: {text}");
    }
    assert!(
        text.contains("content-type: text/plain; version=0.0.4"),
        "{text}"
    );
    assert!(!text.contains("otel_scope"), "{text}");
    let memory = received.points("process.memory.usage")[0].1;
    assert!(memory > 1e6 && memory < 1e9, "{memory}");
    assert!(told(&sidecar).is_empty(), "{:?}", told(&sidecar));
}

#[tokio::test]
async fn a_collector_that_is_away_is_told_once_and_told_again_when_it_is_back() {
    let address = SocketAddr::from(([127, 0, 0, 1], Port::for_good()));
    let endpoint = format!("http://user:hunter2@{address}");
    let sidecar = options("away", &endpoint).await.start().await;
    let told = line(&sidecar, Some("UNAVAILABLE")).await;
    assert_eq!(told["endpoint"], format!("http://{address}"));
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("Connection refused"), "{reason}");
    let text = metrics(&sidecar).await;
    assert!(text.contains("error_type=\"UNAVAILABLE\""), "{text}");

    let receiver = Receiver::at(address, Answer::Takes, None).await;
    let told = line(&sidecar, None).await;
    assert!(told["failed_exports"].as_u64().unwrap() >= 1);
    let got = receiver.received();
    assert_eq!(got[0].headers["authorization"], "Basic dXNlcjpodW50ZXIy");
    assert!(!sidecar.log().concat().contains("hunter2"));
}

#[tokio::test]
async fn each_way_to_fail_is_one_line_and_a_count_of_its_own() {
    let receiver = Receiver::start(Answer::Status(7, "no such tenant: t0k3n-of-ours")).await;
    let sidecar = options("ways", &receiver.endpoint())
        .await
        .env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer t0k3n-of-ours",
        )
        .start()
        .await;
    for (answer, kind, reason) in [
        (None, "PERMISSION_DENIED", "no such tenant: ***"),
        (
            Some(Answer::Rejects(2, "two too old")),
            "rejected",
            "two too old",
        ),
        (Some(Answer::Never), "timeout", "no answer in time"),
        (Some(Answer::Status(16, "who?")), "UNAUTHENTICATED", "who?"),
    ] {
        if let Some(answer) = answer {
            receiver.answers(answer);
        }
        let told = line(&sidecar, Some(kind)).await;
        assert_eq!(told["reason"], reason, "{told}");
        let text = metrics(&sidecar).await;
        assert!(text.contains(&format!("error_type=\"{kind}\"")), "{text}");
    }
    receiver.answers(Answer::Takes);
    line(&sidecar, None).await;
    assert!(!sidecar.log().concat().contains("t0k3n"));
}

/// Takes connections and does this to each.
async fn hostile(answer: &'static [u8], closes: bool) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(answer).await;
            if closes {
                let _ = stream.set_zero_linger();
            } else {
                open.push(stream);
                // The oldest go, as those of who is rebooted.
                if open.len() > 50 {
                    open.remove(0);
                }
            }
        }
    });
    (address, task)
}

#[tokio::test]
async fn who_is_no_collector_blocks_nothing_and_nothing_grows() {
    const AWAY: &str = "UNAVAILABLE";
    for (name, answer, closes, kind) in [
        ("silent", &b""[..], false, "timeout"),
        ("resetting", b"", true, AWAY),
        ("garbage", b"HTTP/1.1 400 no\r\n\r\n\0\0\0\0", false, AWAY),
        ("tls_alert", b"\x15\x03\x03\x00\x02\x02\x46", true, AWAY),
    ] {
        let (address, task) = hostile(answer, closes).await;
        let options = options(name, &format!("http://{address}")).await;
        let mut sidecar = options
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
            .env("OTEL_METRIC_EXPORT_INTERVAL", "10")
            .start()
            .await;
        line(&sidecar, Some(kind)).await;
        let (memory, descriptors) = (sidecar.rss(), sidecar.descriptors());
        line(&sidecar, Some(kind)).await;
        let now = sidecar.rss();
        assert!(now < memory + (4 << 20), "{name}: {memory} {now}");
        // Those of connections that are given up go a moment later.
        eventually(SOON, name, async || {
            let now = sidecar.descriptors();
            match now < descriptors + 10 {
                true => Ok(()),
                false => Err((descriptors, now)),
            }
        })
        .await;
        sidecar.get("/v1/status").await;
        sidecar.signal(Signal::SIGTERM);
        sidecar.exited(SOON).await;
        task.abort();
    }
}

/// What the last export may take.
const LAST_EXPORT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn what_was_measured_last_is_exported_before_the_end() {
    let options = options("last", "").await;
    let begun = Instant::now();
    loop {
        let receiver = Receiver::start(Answer::Takes).await;
        let mut sidecar = options
            .clone()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")
            .env("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
            .start()
            .await;
        assert!(receiver.received().is_empty());
        let asked = Instant::now();
        sidecar.signal(Signal::SIGTERM);
        assert!(sidecar.exited(SOON).await.success());
        match receiver.received().len() {
            1 => return,
            0 => {}
            more => panic!("{more} exports"),
        }
        // The machine may have stood still for all the time that there is for it.
        let took = asked.elapsed();
        assert!(took >= LAST_EXPORT && begun.elapsed() < SOON, "{took:?}");
    }
}

#[tokio::test]
async fn the_end_does_not_wait_for_who_does_not_answer() {
    let receiver = Receiver::start(Answer::Never).await;
    let options = options("never", &receiver.endpoint()).await;
    for interval in ["3600000", "10"] {
        let options = options
            .clone()
            .env("OTEL_METRIC_EXPORT_INTERVAL", interval)
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "600000")
            .env("OTEL_METRIC_EXPORT_TIMEOUT", "600000");
        // As fast as it can: the machine may stand still while it ends.
        eventually(SOON, "it ends in time", async || {
            let mut sidecar = options.clone().start().await;
            let start = Instant::now();
            sidecar.signal(Signal::SIGTERM);
            assert!(sidecar.exited(SOON).await.success());
            let took = start.elapsed();
            match took < Duration::from_secs(3) {
                true => Ok(()),
                false => Err(took),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn temporality_is_as_it_is_wanted() {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    let options = options("temporality", "").await;
    for (wanted, number) in [("delta", 1), ("cumulative", 2)] {
        let receiver = Receiver::start(Answer::Takes).await;
        let sidecar = options
            .clone()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
            .env("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", wanted)
            .start()
            .await;
        let found = receiver
            .wait_for("a sum", |received| {
                match received.metric("process.cpu.time")?.data.as_ref()? {
                    Data::Sum(sum) => Some(sum.aggregation_temporality),
                    _ => None,
                }
            })
            .await;
        assert_eq!(found, number, "{wanted}");
        drop(sidecar);
    }
}

#[tokio::test]
async fn nothing_is_exported_where_the_variables_say_so() {
    let receiver = Receiver::start(Answer::Takes).await;
    let options = options("off", &receiver.endpoint()).await;
    for (variable, value, answer) in [
        ("OTEL_SDK_DISABLED", "true", "404 Not Found"),
        ("OTEL_METRICS_EXPORTER", "none", "404 Not Found"),
        ("OTEL_METRICS_EXPORTER", "prometheus", "200 OK"),
    ] {
        let mut sidecar = options.clone().env(variable, value).start().await;
        let text = metrics(&sidecar).await;
        assert!(text.contains(answer), "{variable}: {text}");
        assert!(answer == "200 OK" || text.contains(variable), "{text}");
        sidecar.signal(Signal::SIGTERM);
        sidecar.exited(SOON).await;
        assert!(receiver.received().is_empty(), "{variable}");
    }
    let sidecar = options.env("OTEL_METRICS_EXPORTER", "otlp").start().await;
    receiver.wait_for("an export", |_| Some(())).await;
    assert!(metrics(&sidecar).await.contains("404 Not Found"));
}

#[tokio::test]
async fn what_is_not_served_is_told_at_the_start() {
    let options = options("refused", "http://127.0.0.1:1").await;
    for (variable, value, told) in [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/protobuf",
            "set it to grpc",
        ),
        (
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
            "nonsense",
            "set it to grpc",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://a:pass@",
            "http://collector:4317",
        ),
        (
            "OTEL_METRICS_EXPORTER",
            "console",
            "it serves otlp, prometheus",
        ),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/none.pem", "/none.pem"),
    ] {
        let refused = options.clone().env(variable, value).try_start().await;
        let refused = refused.err().expect(variable);
        assert!(refused.log.contains(told), "{variable}: {}", refused.log);
        assert!(
            refused.log.contains(variable),
            "{variable}: {}",
            refused.log
        );
        assert!(!refused.log.contains("pass"), "{}", refused.log);
        assert_eq!(refused.status.code(), Some(1));
    }
}

#[tokio::test]
async fn tls_is_verified_by_the_authority_that_is_named_and_asks_who_we_are() {
    let (authority, other) = (Authority::root("collectors"), Authority::root("others"));
    let files = Files::new();
    let trusted = files.write("ca.crt", &authority.certificate);
    let wrong = files.write("other.crt", &other.certificate);
    let (certificate, key) = authority.signed(&params("execpool", &[]));
    let (certificate, key) = (
        files.write("own.crt", &certificate),
        files.write("own.key", &key),
    );
    let server = authority.signed(&params("collector", &["localhost"]));
    let receiver = Receiver::over_tls(acceptor(&server, &authority)).await;
    let endpoint = format!("localhost:{}", receiver.address.port());
    let options = options("over_tls", &endpoint)
        .await
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "2000")
        .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate)
        .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", key);
    for (file, reason) in [(Some(&wrong), "UnknownIssuer"), (None, "UnknownIssuer")] {
        let mut options = options.clone();
        if let Some(file) = file {
            options = options.env("OTEL_EXPORTER_OTLP_CERTIFICATE", file);
        }
        let sidecar = options.start().await;
        let told = line(&sidecar, Some("UNAVAILABLE")).await;
        assert!(
            told["reason"].as_str().unwrap().contains(reason),
            "{told:?}"
        );
        assert!(receiver.received().is_empty());
    }
    let options = options.env("OTEL_EXPORTER_OTLP_CERTIFICATE", &trusted);
    let _sidecar = options.start().await;
    receiver.wait_for("an export", |_| Some(())).await;
}

/// Of a receiver with this certificate, for who has one of that authority.
fn acceptor((certificate, key): &Pair, clients: &Authority) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(clients.certificate.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(rustls::crypto::ring::default_provider()),
    );
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
