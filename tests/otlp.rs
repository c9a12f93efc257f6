//! Each standard variable has the effect that it names, seen by a real OpenTelemetry Collector. What
//! becomes of a receiver that misbehaves is in `exports.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "tls/certificates.rs"]
#[allow(dead_code, reason = "PostgreSQL's are made elsewhere")]
mod certificates;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use certificates::{Authority, Files, params};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::collector::{Collector, Point};
use support::prometheus::Prometheus;
use support::sidecar::{SidecarOptions, upstream};
use support::{Postgres, SOON, Sidecar, eventually, http};
use tokio::net::{TcpListener, TcpStream};

const DELTA: Option<u64> = Some(1);
const CUMULATIVE: Option<u64> = Some(2);

/// A sidecar in front of a database of its own, which exports ten times a second once it has an endpoint.
async fn options(name: &str) -> SidecarOptions {
    let database = Postgres::shared().database(name).await;
    Sidecar::options()
        .config(upstream("app", &database.url()))
        .env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "100")
}

/// The same with an endpoint.
async fn exporting(name: &str, endpoint: &str) -> SidecarOptions {
    options(name)
        .await
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
}

/// Waits until `enough` answers something about the points that have arrived.
async fn arrived<T>(
    collector: &Collector,
    claim: &str,
    enough: impl Fn(&[Point]) -> Option<T>,
) -> T {
    eventually(SOON, claim, async || {
        let points = collector.metrics();
        let names: BTreeSet<_> = points.iter().map(|point| point.metric.clone()).collect();
        enough(&points).ok_or((points.len(), names))
    })
    .await
}

/// The resource of the first point that has arrived.
async fn resource(collector: &Collector) -> Value {
    arrived(collector, "a point arrives", |points| {
        points.first().map(|point| point.resource.clone())
    })
    .await
}

/// Who has sent anything yet, by `service.name`.
fn senders(collector: &Collector) -> BTreeSet<String> {
    let points = collector.metrics().into_iter();
    points
        .filter_map(|point| point.resource["service.name"].as_str().map(str::to_owned))
        .collect()
}

/// Waits until another sidecar, which exports for sure, has been heard several times since.
async fn a_while_by(collector: &Collector) {
    let before = collector.metric_requests();
    eventually(SOON, "the other is heard again and again", async || {
        let now = collector.metric_requests();
        if now >= before + 10 { Ok(()) } else { Err(now) }
    })
    .await;
}

/// What `/metrics` answers.
async fn page(sidecar: &Sidecar) -> String {
    let status = sidecar.get("/v1/status").await;
    let address = status["telemetry"].as_str().unwrap().to_owned();
    let (status, text) = http::get_tcp(&address, "/metrics").await.unwrap();
    assert_eq!(status, 200, "{text}");
    text
}

/// A query in an execution, so that all is counted that comes of one.
async fn query(sidecar: &Sidecar) {
    let client = sidecar.client("app", "worker").await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn the_endpoint_is_where_metrics_go_and_the_one_for_metrics_alone_wins() {
    let (first, second) = (Collector::start().await, Collector::start().await);
    let options = exporting("endpoint", &first.endpoint()).await;
    let sidecar = options.clone().start().await;
    assert_eq!(resource(&first).await["service.name"], "execpool");
    assert!(second.metrics().is_empty());
    drop(sidecar);
    let _sidecar = options
        .env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", second.endpoint())
        .env("OTEL_SERVICE_NAME", "second")
        .start()
        .await;
    assert_eq!(resource(&second).await["service.name"], "second");
    assert!(!senders(&first).contains("second"));
}

#[tokio::test]
async fn an_endpoint_without_a_scheme_is_plain_text_where_it_is_said_to_be_insecure() {
    let collector = Collector::start().await;
    let _sidecar = exporting("schemeless", &format!("127.0.0.1:{}", collector.port()))
        .await
        .env("OTEL_EXPORTER_OTLP_INSECURE", "true")
        .start()
        .await;
    resource(&collector).await;
}

#[tokio::test]
async fn the_resource_tells_the_pod_and_what_the_variables_say() {
    let collector = Collector::start().await;
    let _sidecar = exporting("resource", &collector.endpoint())
        .await
        .env("POD_NAME", "agents-0")
        .env("POD_NAMESPACE", "shop")
        .env("POD_UID", "8f1c")
        .env("NODE_NAME", "n1")
        .env("CONTAINER_NAME", "execpool")
        .env("OTEL_SERVICE_NAME", "shop-agents")
        .env(
            "OTEL_RESOURCE_ATTRIBUTES",
            "k8s.deployment.name=agents,team=a%2Cb,service.name=loses,k8s.node.name=n2",
        )
        .start()
        .await;
    let resource = resource(&collector).await;
    for (name, value) in [
        ("service.name", "shop-agents"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", "8f1c"),
        ("k8s.pod.name", "agents-0"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.uid", "8f1c"),
        ("k8s.node.name", "n2"),
        ("k8s.container.name", "execpool"),
        ("k8s.deployment.name", "agents"),
        ("team", "a,b"),
        ("telemetry.sdk.language", "rust"),
    ] {
        assert_eq!(resource[name], value, "{name} of {resource}");
    }
}

#[tokio::test]
async fn headers_go_with_each_request() {
    let collector = Collector::options()
        .header("authorization")
        .header("x-team")
        .start()
        .await;
    let options = exporting("headers", &collector.endpoint()).await;
    let sidecar = options
        .clone()
        .env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20abc%3D,x-team=agents",
        )
        .start()
        .await;
    let found = resource(&collector).await;
    assert_eq!(found["header.authorization"], "Bearer abc=");
    assert_eq!(found["header.x-team"], "agents");
    drop(sidecar);
    let endpoint = format!("http://me:secret@127.0.0.1:{}", collector.port());
    let _sidecar = options
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-team=loses")
        .env("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-team=metrics")
        .env("OTEL_SERVICE_NAME", "second")
        .start()
        .await;
    let of_second = |point: &Point| {
        (point.resource["service.name"] == "second").then(|| point.resource.clone())
    };
    let found = arrived(&collector, "the second is heard", |points| {
        points.iter().find_map(of_second)
    })
    .await;
    // "me:secret" in Base64.
    assert_eq!(found["header.authorization"], "Basic bWU6c2VjcmV0");
    assert_eq!(found["header.x-team"], "metrics");
}

/// Passes connections on to a port, and counts the bytes that go there.
async fn counting(port: u16) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (near, far) = (near.into_split(), far.into_split());
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let (mut from, mut to) = (near.0, far.1);
                let mut buffer = [0; 16 * 1024];
                while let Ok(length @ 1..) =
                    tokio::io::AsyncReadExt::read(&mut from, &mut buffer).await
                {
                    counter.fetch_add(length as u64, Ordering::SeqCst);
                    let part = buffer.get(..length).unwrap();
                    if tokio::io::AsyncWriteExt::write_all(&mut to, part)
                        .await
                        .is_err()
                    {
                        break;
                    }
                }
            });
            let (mut from, mut to) = (far.0, near.1);
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
        }
    });
    (format!("http://{address}"), sent)
}

/// How many points have arrived of a sidecar that is gone: it is written down a moment later.
async fn all_points(collector: &Collector) -> usize {
    let mut before = 0;
    loop {
        match collector.metrics().len() {
            now if now == before => return now,
            now => before = now,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn compression_makes_it_less_and_the_collector_reads_it() {
    let mut per_point = Vec::new();
    for compression in ["none", "gzip"] {
        let collector = Collector::start().await;
        let (endpoint, sent) = counting(collector.port()).await;
        let sidecar = exporting(&format!("compression_{compression}"), &endpoint)
            .await
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
            .start()
            .await;
        arrived(&collector, "several exports arrive", |_| {
            (collector.metric_requests() >= 10).then_some(())
        })
        .await;
        drop(sidecar);
        let points = all_points(&collector).await;
        per_point.push(sent.load(Ordering::SeqCst) as f64 / points as f64);
    }
    assert!(per_point[1] * 2.0 < per_point[0], "{per_point:?}");
}

#[tokio::test]
async fn tls_is_spoken_with_who_the_authority_vouches_for_and_shows_our_certificate() {
    let authority = Authority::root("collectors");
    let files = Files::new();
    let trusted = files.write("ca.crt", &authority.certificate);
    let other = files.write("other.crt", &Authority::root("others").certificate);
    let pair = |name: &str, hosts: &[&str]| {
        let (certificate, key) = authority.signed(&params(name, hosts));
        [("crt", certificate), ("key", key)]
            .map(|(kind, text)| files.write(&format!("{name}.{kind}"), &text))
    };
    let [server, server_key] = pair("collector", &["localhost"]);
    let [own, own_key] = pair("execpool", &[]);
    let tls = json!({"cert_file": server, "key_file": server_key, "client_ca_file": trusted});
    let collector = Collector::options()
        .receiver(json!({"tls": tls}))
        .start()
        .await;
    let options = exporting("tls", &format!("https://localhost:{}", collector.port())).await;
    let identity = |options: SidecarOptions| {
        options
            .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &own)
            .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", &own_key)
    };
    let trusting =
        |options: SidecarOptions, file: &str| options.env("OTEL_EXPORTER_OTLP_CERTIFICATE", file);
    // By whom the collector is not vouched for, without a certificate, and as it should be.
    let mut sidecars = Vec::new();
    for (name, options) in [
        ("stranger", trusting(identity(options.clone()), &other)),
        ("nameless", trusting(options.clone(), &trusted)),
        ("right", trusting(identity(options.clone()), &trusted)),
    ] {
        let options = options.env("OTEL_SERVICE_NAME", name);
        sidecars.push(options.start().await);
    }
    resource(&collector).await;
    a_while_by(&collector).await;
    assert_eq!(senders(&collector), BTreeSet::from(["right".to_owned()]));
}

#[tokio::test]
async fn the_interval_is_the_time_from_one_export_to_the_next() {
    for (interval, least, most) in [("250", 150, 600), ("1500", 1200, 3000)] {
        let collector = Collector::start().await;
        let _sidecar = exporting(&format!("interval_{interval}"), &collector.endpoint())
            .await
            .env("OTEL_METRIC_EXPORT_INTERVAL", interval)
            .start()
            .await;
        eventually(SOON, interval, async || {
            let points = collector.metrics().into_iter();
            let memory = points.filter(|point| point.metric == "process.memory.usage");
            let times: Vec<u64> = memory.map(|point| point.time).collect();
            let mut apart: Vec<u64> = times
                .windows(2)
                .map(|two| (two[1] - two[0]) / 1_000_000)
                .collect();
            apart.sort_unstable();
            // A machine that stands still makes some longer, and the next one shorter.
            let is_so = |median: u64| median >= least && apart[0] <= most;
            match apart.len() >= 5 && is_so(apart[apart.len() / 2]) {
                true => Ok(()),
                false => Err(apart),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn temporality_is_the_wanted_one_for_what_only_grows() {
    // What is asked for, and what counters, observed counters and histograms come in.
    let wanted = [
        (None, CUMULATIVE, CUMULATIVE),
        (Some("cumulative"), CUMULATIVE, CUMULATIVE),
        (Some("delta"), DELTA, DELTA),
        (Some("lowmemory"), CUMULATIVE, DELTA),
    ];
    for (said, observed, histogram) in wanted {
        let name = said.unwrap_or("unset");
        let collector = Collector::start().await;
        let mut options = exporting(&format!("temporality_{name}"), &collector.endpoint()).await;
        if let Some(said) = said {
            options = options.env("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", said);
        }
        let sidecar = options.start().await;
        query(&sidecar).await;
        let find = |points: &[Point], metric: &str| {
            points.iter().rev().find(|p| p.metric == metric).cloned()
        };
        let [cpu, memory, wait] = arrived(&collector, "all three kinds arrive", |points| {
            let [cpu, memory, wait] = [
                "process.cpu.time",
                "process.memory.usage",
                "db.client.connection.wait_time",
            ]
            .map(|metric| find(points, metric));
            Some([cpu?, memory?, wait?])
        })
        .await;
        assert_eq!(cpu.temporality, observed, "{name}");
        assert!(cpu.is_monotonic);
        assert_eq!(wait.temporality, histogram, "{name}");
        // What goes up and down is cumulative always.
        assert_eq!(
            (memory.temporality, memory.is_monotonic),
            (CUMULATIVE, false)
        );
        if observed == CUMULATIVE {
            continue;
        }
        // Each delta begins where the one before it ended.
        let follow = arrived(&collector, "several deltas arrive", |points| {
            let cpu: Vec<&Point> = points
                .iter()
                .filter(|p| p.metric == "process.cpu.time" && p.attributes["cpu.mode"] == "user")
                .collect();
            let follow = cpu.windows(2).all(|two| two[0].time == two[1].start);
            (cpu.len() >= 5).then_some(follow)
        })
        .await;
        assert!(follow, "time is missing between two deltas");
    }
}

#[tokio::test]
async fn nothing_is_sent_where_the_variables_say_so() {
    let collector = Collector::start().await;
    let options = exporting("silent", &collector.endpoint()).await;
    let mut sidecars = vec![options.clone().start().await];
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
    ] {
        let options = options.clone().env(name, value);
        let options = options.env("OTEL_SERVICE_NAME", format!("{name}={value}"));
        sidecars.push(options.start().await);
    }
    resource(&collector).await;
    a_while_by(&collector).await;
    assert_eq!(senders(&collector), BTreeSet::from(["execpool".to_owned()]));
    // By default, no span is sent either.
    query(&sidecars[0]).await;
    a_while_by(&collector).await;
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn the_timeout_ends_an_export_and_the_next_one_has_it_all() {
    let collector = Collector::start().await;
    let sidecar = exporting("timeout", &collector.endpoint())
        .await
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "300")
        .start()
        .await;
    resource(&collector).await;
    let told = async |count: usize| {
        eventually(SOON, "the change is logged", async || {
            let lines = sidecar.log().into_iter();
            let told: Vec<Value> = lines
                .filter_map(|line| serde_json::from_str(&line).ok())
                .filter(|line: &Value| line["signal"] == "metrics")
                .collect();
            if told.len() >= count {
                Ok(told)
            } else {
                Err(told)
            }
        })
        .await
    };
    collector.daemon().signal(Signal::SIGSTOP);
    query(&sidecar).await;
    let began = told(1).await;
    assert_eq!(began[0]["error_type"], "timeout", "{began:?}");
    collector.daemon().signal(Signal::SIGCONT);
    told(2).await;
    arrived(&collector, "the query is counted", |points| {
        let wait = |point: &&Point| point.metric == "db.client.connection.wait_time";
        points.iter().find(wait).map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn a_collector_that_was_replaced_is_found_again() {
    let collector = Collector::start().await;
    let port = collector.port();
    let _sidecar = exporting("replaced", &collector.endpoint())
        .await
        .start()
        .await;
    resource(&collector).await;
    drop(collector);
    let collector = Collector::options().port(port).start().await;
    resource(&collector).await;
}

/// The names and kinds of a page for Prometheus.
fn families(page: &str) -> BTreeSet<(String, String)> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let pairs = types.filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .filter(|(name, _)| name != "target_info")
        .collect()
}

#[tokio::test]
async fn a_collector_gives_prometheus_the_names_that_the_page_has() {
    let collector = Collector::start().await;
    let sidecar = exporting("names", &collector.endpoint())
        .await
        .start()
        .await;
    query(&sidecar).await;
    eventually(SOON, "both pages have the same families", async || {
        let own = families(&page(&sidecar).await);
        let (_, theirs) = http::get_tcp(&collector.page(), "/metrics").await?;
        let theirs = families(&theirs);
        if own == theirs && own.len() > 30 {
            return Ok(());
        }
        let differ: Vec<_> = own.symmetric_difference(&theirs).cloned().collect();
        Err(format!("{} and {}: {differ:?}", own.len(), theirs.len()))
    })
    .await;
}

#[tokio::test]
async fn through_the_example_of_a_collector_prometheus_has_the_same_series_as_by_scraping() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/collector");
    let prometheus = Prometheus::options()
        .configuration(&examples.join("prometheus.example.yaml"))
        .start()
        .await;
    let endpoint = json!({"endpoint": prometheus.otlp_endpoint()});
    let collector = Collector::options()
        .configuration(
            &examples.join("collector.example.yaml"),
            json!({"exporters": {"otlp_http/prometheus": endpoint}}),
        )
        .start()
        .await;
    let sidecar = exporting("example", &collector.endpoint())
        .await
        .env("POD_NAME", "agents-0")
        .env("POD_NAMESPACE", "shop")
        .env("CONTAINER_NAME", "execpool")
        .env("OTEL_RESOURCE_ATTRIBUTES", "k8s.deployment.name=agents")
        .start()
        .await;
    query(&sidecar).await;
    let labels = r#"namespace="shop", pod="agents-0", container="execpool", workload="agents""#;
    let of_pod = format!("{{{labels}}}");
    eventually(SOON, "Prometheus has what the page has", async || {
        let own = series(&page(&sidecar).await);
        let theirs = prometheus.query(&of_pod).await;
        let theirs: BTreeSet<String> = theirs
            .iter()
            .map(|sample| described(sample.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
            .filter(|one| !one.contains("target_info"))
            .collect();
        if own == theirs && own.len() > 100 {
            return Ok(());
        }
        let differ: Vec<_> = own.symmetric_difference(&theirs).take(20).collect();
        Err(format!("{} and {}: {differ:#?}", own.len(), theirs.len()))
    })
    .await;
}

/// A series in one form: without the labels that the scraper or the collector gives.
fn described<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    const THEIRS: [&str; 6] = [
        "namespace",
        "pod",
        "container",
        "workload",
        "job",
        "instance",
    ];
    let own = labels.filter(|(name, _)| !THEIRS.contains(name));
    let sorted: BTreeMap<_, _> = own.collect();
    format!("{sorted:?}")
}

/// Every series of a page for Prometheus.
fn series(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let one = |line: &str| {
        let (series, _) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let pairs = labels
            .trim_end_matches('}')
            .split("\",")
            .filter(|one| !one.is_empty());
        let pairs = pairs.filter_map(|pair| pair.split_once("=\""));
        let pairs = pairs.map(|(name, value)| (name, value.trim_end_matches('"')));
        Some(described(pairs.chain([("__name__", name)])))
    };
    let found = lines.filter_map(one);
    found.filter(|one| !one.contains("target_info")).collect()
}
