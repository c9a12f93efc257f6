//! What is registered is what is served: through the SDK and the exporter for Prometheus.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use execpool::metrics::catalogue::{
    CHECKOUT_HELD, CONNECTION_COUNT, Instrument, METRICS, OF_EXECUTIONS, SERVER_ERRORS, Values,
};
use execpool::metrics::markdown::prometheus_name;
use execpool::metrics::{Code, Histograms, Last, Measured, Reading, Value};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality,
};
use prometheus::{Encoder, TextEncoder};

struct Served {
    _provider: SdkMeterProvider,
    registry: prometheus::Registry,
    last: Last,
    histograms: Histograms,
}

impl Served {
    fn new() -> Self {
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone());
        let exporter = exporter.scope_info_enabled(false).build().unwrap();
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("execpool");
        let last = Last::default();
        last.observe(&meter, METRICS);
        last.observe(&meter, OF_EXECUTIONS);
        Self {
            histograms: Histograms::on(&meter),
            _provider: provider,
            registry,
            last,
        }
    }

    fn text(&self) -> String {
        let mut out = Vec::new();
        let families = self.registry.gather();
        TextEncoder::new().encode(&families, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The value of the series that begins so.
    fn value(&self, series: &str) -> Option<f64> {
        let text = self.text();
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

fn app() -> Measured<'static> {
    Measured {
        name: "app",
        namespace: "main",
        servers: Box::leak(Box::new([
            ("db.internal".to_owned(), 5432),
            ("db.internal".to_owned(), 6432),
        ])),
    }
}

/// A value of every observed metric.
fn one_of_each() -> Reading {
    let mut reading = Reading::at(Instant::now());
    for metric in METRICS.iter().chain(OF_EXECUTIONS) {
        let values = metric.attributes.iter().map(|it| match it.values {
            Values::Words(words) => Value::Word(words[0]),
            Values::Configured(_) | Values::Executions => Value::Name("a"),
        });
        if !matches!(metric.instrument, Instrument::Histogram(_)) {
            reading.put(metric, 1.0, &values.collect::<Vec<_>>());
        }
    }
    reading
}

#[test]
fn every_metric_is_served_by_its_name_type_and_description() {
    let served = Served::new();
    served.last.publish(one_of_each());
    let _timings = served.histograms.of(app());
    let text = served.text();
    for metric in METRICS.iter().chain(OF_EXECUTIONS) {
        let name = prometheus_name(metric);
        let kind = match metric.instrument {
            Instrument::Counter => "counter",
            Instrument::UpDownCounter | Instrument::Gauge => "gauge",
            Instrument::Histogram(_) => "histogram",
        };
        let described = format!(
            "# HELP {name} {}\n# TYPE {name} {kind}\n",
            metric.description
        );
        assert!(text.contains(&described), "{described}{text}");
    }
    assert!(!text.contains("otel_scope"), "{text}");
}

#[test]
fn a_series_goes_with_what_it_was_of() {
    let served = Served::new();
    let with = |pools: &[&str]| {
        let mut reading = Reading::at(Instant::now());
        for pool in pools {
            let values = &[Value::Name(pool), Value::Word("idle")];
            reading.put(&CONNECTION_COUNT, 2.0, values);
        }
        served.last.publish(reading);
    };
    with(&["a", "b"]);
    let series = |pool: &str| {
        served.value(&format!(
            "db_client_connection_count{{db_client_connection_pool_name=\"{pool}\""
        ))
    };
    assert_eq!((series("a"), series("b")), (Some(2.0), Some(2.0)));
    with(&["b"]);
    assert_eq!((series("a"), series("b")), (None, Some(2.0)));
}

#[test]
fn what_is_no_word_of_an_attribute_is_other() {
    let served = Served::new();
    let mut reading = Reading::at(Instant::now());
    let values = &[Value::Word("relay"), Value::Name("ZZ\"\n{}")];
    reading.put(&SERVER_ERRORS, 1.0, values);
    reading.put(&CHECKOUT_HELD, 1.5, &[Value::Word("idle")]);
    served.last.publish(reading);
    let series = "execpool_server_errors_total{class=\"other\",phase=\"relay\"}";
    assert_eq!(served.value(series), Some(1.0));
    let held = "execpool_checkout_held_seconds_total{state=\"idle\"}";
    assert_eq!(served.value(held), Some(1.5));
}

#[test]
fn operations_are_told_by_server_and_by_what_they_failed_with() {
    let served = Served::new();
    let timings = served.histograms.of(app());
    let usual = timings.operations("db.internal", 5432).unwrap();
    let other = timings.operations("db.internal", 6432).unwrap();
    assert!(timings.operations("elsewhere", 5432).is_none());
    usual.answered(Duration::from_millis(20), None);
    other.answered(Duration::from_millis(20), None);
    other.answered(Duration::from_millis(20), None);
    for sqlstate in ["23505", "23505", "ZZ999", "YY888"] {
        usual.answered(Duration::from_millis(2), Some(Code::of(sqlstate)));
    }
    let count = |labels: &str| {
        served.value(&format!(
            "db_client_operation_duration_seconds_count{{{labels}}}"
        ))
    };
    let place = "db_system_name=\"postgresql\",";
    let well = "db_namespace=\"main\",";
    assert_eq!(
        count(&format!("{well}{place}server_address=\"db.internal\"")),
        Some(1.0)
    );
    let at_port = "server_address=\"db.internal\",server_port=\"6432\"";
    assert_eq!(count(&format!("{well}{place}{at_port}")), Some(2.0));
    for (code, times) in [("23505", 2.0), ("other", 2.0)] {
        let labels = format!(
            "{well}db_response_status_code=\"{code}\",{place}error_type=\"{code}\",server_address=\"db.internal\""
        );
        assert_eq!(count(&labels), Some(times), "{}", served.text());
    }
}

#[test]
fn series_are_bounded_whatever_sqlstates_come() {
    let served = Served::new();
    let timings = served.histograms.of(app());
    let operations = timings.operations("db.internal", 5432).unwrap();
    for number in 0..20_000 {
        let sqlstate = format!("{number:05}");
        operations.answered(Duration::from_millis(1), Some(Code::of(&sqlstate)));
    }
    let text = served.text();
    let series = text
        .lines()
        .filter(|line| line.contains("_duration_seconds_count"));
    let series = series.count();
    assert!(series <= 2 + Code::WORDS.len(), "{series}");
    assert!(!text.contains("overflow"), "{text}");
}

/// A reader that can be asked after the provider has it.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<ManualReader>);

impl MetricReader for Asked {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

#[test]
fn kinds_and_units_are_those_of_the_catalogue_also_where_prometheus_does_not_tell() {
    let reader = Asked::default();
    let provider = SdkMeterProvider::builder()
        .with_reader(reader.clone())
        .build();
    let meter = provider.meter("execpool");
    let last = Last::default();
    last.observe(&meter, METRICS);
    last.publish(one_of_each());
    let histograms = Histograms::on(&meter);
    let _timings = histograms.of(app());
    let mut told = ResourceMetrics::default();
    reader.collect(&mut told).unwrap();
    let scope = told.scope_metrics().next().unwrap();
    for metric in METRICS {
        let served = scope.metrics().find(|its| its.name() == metric.name);
        let served = served.unwrap_or_else(|| panic!("{} is not there", metric.name));
        assert_eq!(served.unit(), metric.unit, "{}", metric.name);
        assert_eq!(served.description(), metric.description);
        let data = format!("{:?}", served.data());
        let (numbers, kind) = match metric.instrument {
            Instrument::Counter => ("", "is_monotonic: true"),
            Instrument::UpDownCounter => ("I64", "is_monotonic: false"),
            Instrument::Gauge => ("", "Gauge("),
            Instrument::Histogram(_) => ("F64", "Histogram("),
        };
        let is_seconds = metric.unit == "s";
        assert!(
            data.contains(kind) && data.starts_with(numbers),
            "{} {data}",
            metric.name
        );
        assert_eq!(
            data.starts_with("F64"),
            is_seconds,
            "{} {data}",
            metric.name
        );
    }
}
