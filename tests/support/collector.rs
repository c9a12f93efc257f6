//! A real OpenTelemetry Collector: it takes OTLP, and writes down what it took.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::port::Port;
use super::{guard, tools};

/// A running collector. Its file exporters write a line of JSON per request; its page for Prometheus
/// has the same metrics, those of the resource among the labels.
pub(crate) struct Collector {
    daemon: Daemon,
    port: u16,
    page: u16,
}

/// One point of a metric, as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) description: String,
    /// `sum`, `gauge`, `histogram` or `exponentialHistogram`.
    pub(crate) kind: String,
    /// 1 for delta, 2 for cumulative; none for gauges.
    pub(crate) temporality: Option<u64>,
    /// Whether it only ever grows: a counter. False for all but sums.
    pub(crate) is_monotonic: bool,
    /// By name, each value as JSON has it.
    pub(crate) attributes: Value,
    /// The number; the count of a histogram.
    pub(crate) value: f64,
    /// The sum of a histogram.
    pub(crate) sum: Option<f64>,
    /// The upper bounds of a histogram's buckets, without the last, which has none.
    pub(crate) bounds: Vec<f64>,
    /// Since when it counts, in nanoseconds since 1970; 0 for gauges.
    pub(crate) start: u64,
    /// When it was read, in nanoseconds since 1970.
    pub(crate) time: u64,
    /// The attributes of who sent it.
    pub(crate) resource: Value,
}

/// A span, as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) parent_span_id: String,
    /// In nanoseconds since 1970.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The names and values of its own.
    pub(crate) attributes: Value,
    /// Those of who sent it.
    pub(crate) resource: Value,
    pub(crate) status: Value,
    pub(crate) events: Value,
}

/// How a collector differs from the usual one. `{dir}` in a setting is its directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct CollectorOptions {
    port: Option<u16>,
    receiver: Value,
    from_headers: Vec<String>,
    files: Vec<(String, String)>,
    configuration: Option<PathBuf>,
    over: Value,
}

impl CollectorOptions {
    /// On this port, which must be free.
    pub(crate) fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// More settings of the gRPC receiver, such as `{"tls": {…}}`.
    pub(crate) fn receiver(mut self, settings: Value) -> Self {
        self.receiver = settings;
        self
    }

    /// Writes down a header of each request as an attribute of the resource, `header.NAME`.
    pub(crate) fn header(mut self, name: &str) -> Self {
        self.from_headers.push(name.to_owned());
        self
    }

    /// A file in its directory.
    pub(crate) fn file(mut self, name: &str, text: impl Into<String>) -> Self {
        self.files.push((name.to_owned(), text.into()));
        self
    }

    /// Takes this file as its configuration, with these settings over it. It writes nothing down then,
    /// unless the file says so; its gRPC receiver is moved to a free port.
    pub(crate) fn configuration(mut self, file: &Path, over: Value) -> Self {
        self.configuration = Some(file.to_owned());
        self.over = over;
        self
    }

    /// Starts it and waits until it takes connections.
    pub(crate) async fn start(self) -> Collector {
        let directory = guard::short_directory();
        let port = self.port.unwrap_or_else(Port::for_good);
        let page = Port::for_good();
        for (name, text) in &self.files {
            std::fs::write(directory.path().join(name), text).expect("the directory was just made");
        }
        let path = directory.path().join("config.yaml");
        let place = directory.path().display().to_string();
        let text = match &self.configuration {
            None => self.usual(port, page).to_string(),
            Some(_) => self.over(port).to_string(),
        };
        std::fs::write(&path, text.replace("{dir}", &place)).expect("the directory was just made");
        let mut command = Command::new(tools::otelcol());
        // What comes later goes over what came before.
        for file in self.configuration.iter().chain([&path]) {
            command.arg(format!("--config={}", file.display()));
        }
        let daemon = Daemon::start("the collector", directory, &mut command, port).await;
        Collector { daemon, port, page }
    }

    /// What goes over the configuration that was given.
    fn over(&self, port: u16) -> Value {
        let mut over = self.over.clone();
        over["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] =
            json!(format!("127.0.0.1:{port}"));
        over["service"]["telemetry"] = json!({"metrics": {"level": "none"}});
        over
    }

    /// The configuration file: JSON is YAML.
    fn usual(&self, port: u16, page: u16) -> Value {
        let mut grpc = json!({"endpoint": format!("127.0.0.1:{port}"), "include_metadata": true});
        for (name, value) in self.receiver.as_object().into_iter().flatten() {
            grpc[name] = value.clone();
        }
        let actions = self.from_headers.iter().map(|name| {
            let from = format!("metadata.{name}");
            json!({"key": format!("header.{name}"), "from_context": from, "action": "upsert"})
        });
        let (mut processors, mut used) = (json!({}), json!([]));
        if !self.from_headers.is_empty() {
            processors["resource"] = json!({"attributes": actions.collect::<Vec<_>>()});
            used = json!(["resource"]);
        }
        let out = |name: &str| json!({"path": format!("{{dir}}/{name}"), "format": "json", "flush_interval": "100ms"});
        json!({
            "receivers": {"otlp": {"protocols": {"grpc": grpc}}},
            "processors": processors,
            "exporters": {
                "file/metrics": out("metrics"),
                "file/traces": out("traces"),
                "prometheus": {
                    "endpoint": format!("127.0.0.1:{page}"),
                    "resource_to_telemetry_conversion": {"enabled": true},
                },
            },
            "service": {
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
                "pipelines": {
                    "metrics": {
                        "receivers": ["otlp"],
                        "processors": used,
                        "exporters": ["file/metrics", "prometheus"],
                    },
                    "traces": {
                        "receivers": ["otlp"],
                        "processors": used,
                        "exporters": ["file/traces"],
                    },
                },
            },
        })
    }
}

impl Collector {
    /// The usual one, on a free port.
    pub(crate) async fn start() -> Self {
        CollectorOptions::default().start().await
    }

    /// How to start another one.
    pub(crate) fn options() -> CollectorOptions {
        CollectorOptions::default()
    }

    /// Where it takes OTLP over gRPC, in plain text.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port of that.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where Prometheus can scrape what has arrived: `127.0.0.1:PORT`, path `/metrics`.
    pub(crate) fn page(&self) -> String {
        format!("127.0.0.1:{}", self.page)
    }

    /// The process.
    pub(crate) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// All requests so far of a kind, `metrics` or `traces`.
    fn requests(&self, kind: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.daemon.directory().join(kind)).unwrap_or_default();
        // The last line may be half written.
        let lines = text.lines().map(serde_json::from_str);
        lines.filter_map(Result::ok).collect()
    }

    /// How many requests with metrics have arrived.
    pub(crate) fn metric_requests(&self) -> usize {
        self.requests("metrics").len()
    }

    /// Every point that has arrived, in this order.
    pub(crate) fn metrics(&self) -> Vec<Point> {
        let requests = self.requests("metrics");
        let resources = requests
            .iter()
            .flat_map(|request| list(&request["resourceMetrics"]));
        let metrics = resources.flat_map(|one| {
            let resource = attributes(&one["resource"]["attributes"]);
            let metrics = list(&one["scopeMetrics"]).flat_map(|scope| list(&scope["metrics"]));
            metrics.map(move |metric| (resource.clone(), metric))
        });
        metrics
            .flat_map(|(resource, metric)| points(&resource, metric))
            .collect()
    }

    /// Every span that has arrived, in this order.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.requests("traces");
        let resources = requests
            .iter()
            .flat_map(|request| list(&request["resourceSpans"]));
        let spans = resources.flat_map(|one| {
            let resource = attributes(&one["resource"]["attributes"]);
            let spans = list(&one["scopeSpans"]).flat_map(|scope| list(&scope["spans"]));
            spans.map(move |span| (resource.clone(), span))
        });
        spans
            .map(|(resource, span)| self::span(resource, span))
            .collect()
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Attributes as an object by name: OTLP has a list with the type beside each value.
fn attributes(value: &Value) -> Value {
    let pair = |one: &Value| {
        let (kind, value) = one["value"].as_object()?.iter().next()?;
        let value = match (kind.as_str(), value.as_str()) {
            ("intValue", Some(digits)) => json!(digits.parse::<i64>().ok()?),
            _ => value.clone(),
        };
        Some((one["key"].as_str()?.to_owned(), value))
    };
    Value::Object(list(value).filter_map(pair).collect())
}

/// Whole numbers of 64 bits are strings in OTLP's JSON.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(digits) => digits.parse().ok(),
        other => other.as_f64(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn nanoseconds(value: &Value) -> u64 {
    text(value).parse().unwrap_or_default()
}

fn points(resource: &Value, metric: &Value) -> Vec<Point> {
    let kinds = ["sum", "gauge", "histogram", "exponentialHistogram"];
    let kind = kinds.into_iter().find(|kind| metric[*kind].is_object());
    let kind = kind.unwrap_or_else(|| panic!("a metric of an unknown kind: {metric}"));
    let data = &metric[kind];
    let point = |one: &Value| Point {
        metric: text(&metric["name"]),
        unit: text(&metric["unit"]),
        description: text(&metric["description"]),
        kind: kind.to_owned(),
        temporality: data["aggregationTemporality"].as_u64(),
        is_monotonic: data["isMonotonic"].as_bool().unwrap_or_default(),
        attributes: attributes(&one["attributes"]),
        value: ["asInt", "asDouble", "count"]
            .into_iter()
            .find_map(|name| number(&one[name]))
            .unwrap_or_default(),
        sum: number(&one["sum"]),
        bounds: list(&one["explicitBounds"]).filter_map(number).collect(),
        start: nanoseconds(&one["startTimeUnixNano"]),
        time: nanoseconds(&one["timeUnixNano"]),
        resource: resource.clone(),
    };
    list(&data["dataPoints"]).map(point).collect()
}

fn span(resource: Value, span: &Value) -> Span {
    let text = |name: &str| text(&span[name]);
    Span {
        name: text("name"),
        trace_id: text("traceId"),
        span_id: text("spanId"),
        parent_span_id: text("parentSpanId"),
        start: nanoseconds(&span["startTimeUnixNano"]),
        end: nanoseconds(&span["endTimeUnixNano"]),
        attributes: attributes(&span["attributes"]),
        resource,
        status: span["status"].clone(),
        events: span["events"].clone(),
    }
}
