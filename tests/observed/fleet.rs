//! Three pods and what watches them: one is scraped, one tells over OTLP, one has a database that refuses.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::files::{path, text};
use crate::rules;
use crate::support::collector::Collector;
use crate::support::port::Port;
use crate::support::prometheus::Prometheus;
use crate::support::sidecar::{SidecarOptions, upstream};
use crate::support::{Database, Fault, Postgres, PostgresOptions, Proxy, Sidecar};

/// Room for all that goes on at once, on a machine that stands still at times.
const WIDE: &str = "
budget: {size: 12, overflow: 4, warm: 1}
pool: {size: 4, overflow: 2, timeout: 20s, notice_after: 300ms}
";

/// Room for what one execution can hold.
const NARROW: &str = "
budget: {size: 4, overflow: 2, warm: 1}
pool: {size: 4, overflow: 2, timeout: 1500ms, notice_after: 300ms}
";

/// What takes minutes takes a moment.
const SHORT: &str = "
exhaustion: {wait: 100ms, after: 1s, sustained_after: 2s}
session: {leak_after: 1s, idle_in_transaction: {notice: 500ms}}
hold: {grace: 100ms}
";

pub(crate) struct Fleet {
    /// Scraped; sends to a collector that is not there yet.
    pub(crate) scraped: Sidecar,
    /// Heard by way of the example of a collector, with its executions by their ids.
    pub(crate) heard: Sidecar,
    /// Scraped; nobody listens where its database should be. None once it has ended.
    pub(crate) cut_off: Option<Sidecar>,
    pub(crate) prometheus: Prometheus,
    /// The database of the one that is heard, which allows few connections.
    pub(crate) narrow: Database,
    /// Where the missing collector is expected.
    pub(crate) late: u16,
    _collector: Collector,
    _proxy: Proxy,
    _postgres: Postgres,
}

/// What the scraper says of a pod.
pub(crate) fn labels(pod: &str) -> [(&'static str, &str); 4] {
    [
        ("namespace", "shop"),
        ("workload", "agent"),
        ("pod", pod),
        ("container", "execpool"),
    ]
}

/// A sidecar with a port for scrapes, which exports each second once it has an endpoint.
pub(crate) fn options(upstreams: &str) -> SidecarOptions {
    Sidecar::options()
        .config(upstreams.to_owned() + WIDE + SHORT)
        .env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        .env("OTEL_BSP_SCHEDULE_DELAY", "200")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "400")
}

/// From now on there is less room.
pub(crate) async fn narrow(sidecar: &Sidecar) {
    let yaml = std::fs::read_to_string(sidecar.config_file()).unwrap();
    assert!(yaml.contains(WIDE), "{yaml}");
    sidecar.reload(&yaml.replace(WIDE, NARROW)).await;
}

/// Where it is scraped.
pub(crate) async fn page(sidecar: &Sidecar) -> String {
    let status = sidecar.get("/v1/status").await;
    status["telemetry"].as_str().expect("it listens").to_owned()
}

impl Fleet {
    /// Starts all, and waits until Prometheus has heard of each pod.
    pub(crate) async fn start() -> Self {
        let late = Port::for_good();
        let scraped = scraped(late).await;
        let proxy = Proxy::tcp(Postgres::shared()).await;
        proxy.set(Fault::Refuse);
        let nowhere = format!("postgresql://app@127.0.0.1:{}/nowhere", proxy.port());
        let cut_off = options(&upstream("app", &nowhere)).start().await;
        narrow(&cut_off).await;
        let example: Value =
            serde_saphyr::from_str(&text("deploy/collector/prometheus.example.yaml")).unwrap();
        let prometheus = Prometheus::options()
            .scrape("scraped", &page(&scraped).await, &labels("agent-0"))
            .scrape("cut off", &page(&cut_off).await, &labels("agent-2"))
            .otlp(example["otlp"].clone())
            .rule_text(rules::quick())
            .series(kubelet())
            .start()
            .await;
        let to = json!({"endpoint": prometheus.otlp_endpoint()});
        let collector = Collector::options()
            .configuration(
                &path("deploy/collector/collector.example.yaml"),
                json!({"exporters": {"otlp_http/prometheus": to}}),
            )
            .start()
            .await;
        let postgres = Postgres::start(PostgresOptions {
            max_connections: 10,
            ..PostgresOptions::default()
        });
        let narrow = postgres.database("narrow").await;
        let heard = heard(&narrow, &collector).await;
        for pod in ["agent-0", "agent-1", "agent-2"] {
            let limit = format!("execpool_budget_limit{{pod=\"{pod}\"}}");
            prometheus.has(&limit).await;
        }
        Self {
            scraped,
            heard,
            cut_off: Some(cut_off),
            prometheus,
            narrow,
            late,
            _collector: collector,
            _proxy: proxy,
            _postgres: postgres,
        }
    }
}

async fn scraped(late: u16) -> Sidecar {
    let database = Postgres::shared().database("scraped").await;
    let (directory, port) = database.address();
    // Its password is another one.
    let (name, directory) = (&database.name, directory.display());
    let wrong = format!("postgresql://scram_user:wrong@/{name}?host={directory}&port={port}");
    let second = upstream("wrong", &wrong).replace("upstreams:\n", "");
    options(&(upstream("app", &database.url()) + &second))
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://127.0.0.1:{late}"),
        )
        .env("EXECPOOL_TELEMETRY__TRACES", "on")
        .start()
        .await
}

async fn heard(database: &Database, collector: &Collector) -> Sidecar {
    options(&upstream("app", &database.url()))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .env("OTEL_METRICS_EXPORTER", "otlp")
        .env("EXECPOOL_TELEMETRY__TOP_EXECUTIONS", "5")
        .env("POD_NAME", "agent-1")
        .env("POD_NAMESPACE", "shop")
        .env("CONTAINER_NAME", "execpool")
        .env("OTEL_RESOURCE_ATTRIBUTES", "k8s.deployment.name=agent")
        .start()
        .await
}

/// What a kubelet has told of the pods up to now, for lack of one: Prometheus takes the last value for five
/// minutes. One container is full, and of one pod nothing else is known.
fn kubelet() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("it is later").as_secs();
    let containers = [
        ("agent-0", "app", 95e6),
        ("agent-0", "execpool", 2e7),
        ("agent-9", "execpool", 2e7),
    ];
    let mut lines = String::new();
    for (pod, container, used) in containers {
        for (metric, value) in [
            ("memory_working_set_bytes", used),
            ("spec_memory_limit_bytes", 1e8),
            ("start_time_seconds", now as f64 - 600.0),
        ] {
            let labels =
                format!("namespace=\"shop\",pod=\"{pod}\",container=\"{container}\",image=\"i\"");
            for ago in (0..=Duration::from_secs(60).as_secs()).rev().step_by(15) {
                let at = now - ago;
                lines += &format!("container_{metric}{{{labels}}} {value} {at}\n");
            }
        }
    }
    lines + "# EOF\n"
}
