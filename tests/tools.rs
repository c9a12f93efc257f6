//! The tools that telemetry is tested with start, take and answer: what they are asked elsewhere can be
//! believed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::path::Path;
use std::process::Command;

use support::alertmanager::Alertmanager;
use support::collector::Collector;
use support::prometheus::Prometheus;
use support::{SOON, eventually, guard, tools};

/// Sends a span and a counter with OpenTelemetry's own SDK.
const SENDER: &str = r#"
import sys
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

resource = Resource.create({"service.name": "sender"})
traces = TracerProvider(resource=resource)
traces.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(sys.argv[1], insecure=True)))
with traces.get_tracer("t").start_as_current_span("outer"):
    with traces.get_tracer("t").start_as_current_span("inner", attributes={"a": "b"}):
        pass
reader = PeriodicExportingMetricReader(OTLPMetricExporter(sys.argv[1], insecure=True))
metrics = MeterProvider([reader], resource=resource)
metrics.get_meter("t").create_counter("sent", unit="{thing}").add(3, {"kind": "x"})
metrics.shutdown()
traces.shutdown()
"#;

/// Runs [`SENDER`] against a collector.
async fn send(collector: &Collector) {
    send_as(collector, &[]).await;
}

/// The same with variables of its own.
async fn send_as(collector: &Collector, variables: &[(&str, &str)]) {
    let mut python = Command::new(tools::python());
    python
        .args(["-c", SENDER, &collector.endpoint()])
        .envs(variables.iter().copied());
    tokio::task::spawn_blocking(move || guard::run(&mut python))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_collector_writes_down_what_a_sender_says() {
    let collector = Collector::start().await;
    send(&collector).await;
    let (spans, points) = eventually(SOON, "all has arrived", async || {
        let (spans, points) = (collector.spans(), collector.metrics());
        match spans.len() == 2 && !points.is_empty() {
            true => Ok((spans, points)),
            false => Err((spans, points)),
        }
    })
    .await;
    let [inner, outer] =
        ["inner", "outer"].map(|name| spans.iter().find(|s| s.name == name).unwrap());
    assert_eq!(inner.parent_span_id, outer.span_id);
    assert_eq!(inner.trace_id, outer.trace_id);
    assert_eq!(inner.attributes, serde_json::json!({"a": "b"}));
    assert_eq!(inner.resource["service.name"], "sender");
    assert!(outer.start <= inner.start && inner.end <= outer.end);
    let sent = points.iter().find(|point| point.metric == "sent").unwrap();
    assert_eq!(
        (sent.value, sent.unit.as_str(), sent.kind.as_str()),
        (3.0, "{thing}", "sum")
    );
    assert_eq!((sent.temporality, sent.is_monotonic), (Some(2), true));
    assert!(sent.start > 0 && sent.start < sent.time);
    assert_eq!(sent.attributes, serde_json::json!({"kind": "x"}));
    assert_eq!(sent.resource["service.name"], "sender");
}

#[tokio::test]
async fn a_collector_writes_down_headers_that_it_is_asked_for() {
    let collector = Collector::options().header("x-team").start().await;
    send_as(
        &collector,
        &[("OTEL_EXPORTER_OTLP_HEADERS", "x-team=agents")],
    )
    .await;
    let spans = eventually(SOON, "both spans have arrived", async || {
        Some(collector.spans())
            .filter(|spans| spans.len() == 2)
            .ok_or("not yet")
    })
    .await;
    assert_eq!(spans[0].resource["header.x-team"], "agents");
}

#[tokio::test]
async fn prometheus_scrapes_and_answers() {
    let collector = Collector::start().await;
    send(&collector).await;
    let prometheus = Prometheus::options()
        .scrape("page", &collector.page(), &[("pod", "p-1")])
        .start()
        .await;
    let sent = eventually(SOON, "the counter is there", async || {
        match prometheus.query("sent_total").await.as_slice() {
            [one] => Ok(one.clone()),
            other => Err(other.to_vec()),
        }
    })
    .await;
    assert_eq!(sent.value, 3.0);
    let label = |name: &str| sent.labels.get(name).map(String::as_str);
    assert_eq!(label("pod"), Some("p-1"));
    assert_eq!(label("job"), Some("page"));
    assert_eq!(label("kind"), Some("x"));
    prometheus.targets_are_up(1).await;
    assert_eq!(prometheus.value("1 + 1").await, Some(2.0));
    assert!(prometheus.query("nothing_of_this_name").await.is_empty());
    let refused = prometheus.try_query("sent_total{").await.unwrap_err();
    assert!(refused.contains("parse error"), "{refused}");
}

#[tokio::test]
async fn an_alert_goes_from_prometheus_to_alertmanager() {
    let alertmanager = Alertmanager::start().await;
    assert!(alertmanager.received().await.is_empty());
    let rules = serde_json::json!({"groups": [{"name": "g", "rules": [
        {"alert": "Always", "expr": "vector(7)", "labels": {"severity": "page"},
         "annotations": {"summary": "{{ $value }} of them"}},
    ]}]});
    let prometheus = Prometheus::options()
        .rule_text(rules.to_string())
        .alert(&alertmanager.address())
        .start()
        .await;
    let received = eventually(SOON, "Alertmanager has it", async || {
        match alertmanager.received().await.as_slice() {
            [one] => Ok(one.clone()),
            other => Err(other.to_vec()),
        }
    })
    .await;
    assert_eq!(received["labels"]["alertname"], "Always");
    assert_eq!(received["labels"]["severity"], "page");
    assert_eq!(received["annotations"]["summary"], "7 of them");
    assert_eq!(received["status"]["state"], "active");
    let alerts = prometheus.alerts().await;
    assert_eq!(alerts[0]["state"], "firing", "{alerts:?}");
}

#[tokio::test]
async fn the_example_of_a_collector_gives_series_the_labels_that_all_goes_by() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/collector");
    let prometheus = Prometheus::options()
        .configuration(&examples.join("prometheus.example.yaml"))
        .start()
        .await;
    let endpoint = serde_json::json!({"endpoint": prometheus.otlp_endpoint()});
    let collector = Collector::options()
        .configuration(
            &examples.join("collector.example.yaml"),
            serde_json::json!({"exporters": {"otlp_http/prometheus": endpoint}}),
        )
        .start()
        .await;
    let told = [
        "k8s.namespace.name=shop,k8s.pod.name=agents-1,k8s.container.name=execpool,k8s.deployment.name=agents",
        "k8s.namespace.name=shop,k8s.pod.name=lonely,k8s.container.name=execpool",
    ];
    for resource in told {
        send_as(&collector, &[("OTEL_RESOURCE_ATTRIBUTES", resource)]).await;
    }
    let series = eventually(SOON, "both are there", async || {
        let query = r#"sum by (namespace, pod, container, workload) (sent_total{kind="x"})"#;
        let series = prometheus.query(query).await;
        match series.len() {
            2 => Ok(series),
            _ => Err(series),
        }
    })
    .await;
    let mut labels: Vec<Vec<&str>> = series
        .iter()
        .map(|one| one.labels.values().map(String::as_str).collect())
        .collect();
    labels.sort();
    assert_eq!(
        labels,
        [
            ["execpool", "shop", "agents-1", "agents"],
            ["execpool", "shop", "lonely", "lonely"],
        ]
    );
}

#[test]
fn promtool_tells_a_good_file_of_rules_from_a_bad_one() {
    let directory = guard::short_directory();
    let file = directory.path().join("rules.yaml");
    let check = |expression: &str| {
        let rules = serde_json::json!({"groups": [{"name": "g", "rules": [
            {"alert": "Down", "expr": expression, "labels": {"severity": "page"}},
        ]}]});
        std::fs::write(&file, rules.to_string()).unwrap();
        let output = Command::new(tools::promtool())
            .args(["check", "rules"])
            .arg(&file)
            .output();
        output.unwrap().status.success()
    };
    assert!(check("up == 0"));
    assert!(!check("up == == 0"));
}
