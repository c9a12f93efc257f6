//! One provider of metrics for OTLP and `/metrics`, one of spans, and their end.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, PeriodicReader, SdkMeterProvider, Stream,
};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanLimits};
use prometheus::Registry;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::config;
use crate::metrics::catalogue::{self, METRICS};

use super::deliveries::{self, Deliveries, Tally};
use super::environment::{Environment, Signal};
use super::exporter::Exporter;
use super::otlp::{self, Line};
use super::process::{self, DroppedLines};
use super::resource::resource;
use super::scrape::{Scrape, ScrapeError};
use super::sender::Sender;
use super::spans::{self, Queue, Throughput};
use super::standard::{OfTraces, Otlp, Sampling, Standard, StandardError};
use super::traces::Traces;

/// Why nothing can be exported as it is wanted.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The variables ask for what can't be had.
    #[error("{}", sentences(.0))]
    Standard(Vec<StandardError>),
    /// TLS can't be had with the files.
    #[error(
        "OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY give no TLS for {endpoint}: {why}; name PEM files, the key as PKCS#8 or as openssl writes it"
    )]
    Tls {
        /// Where to.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// The metrics can't be registered for `/metrics`.
    #[error("metrics can't be prepared for /metrics: {0}; this is a bug in execpool")]
    Prometheus(String),
}

fn sentences(errors: &[StandardError]) -> String {
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    all.join("\nexecpool: ")
}

/// What the variables ask for, where all of it can be had.
///
/// # Errors
/// It can't.
pub fn standard(environment: &Environment) -> Result<Standard, ExportError> {
    let standard = Standard::read(environment).map_err(ExportError::Standard)?;
    if let Some(otlp) = &standard.otlp {
        otlp::endpoint(otlp).map_err(|error| no_tls(otlp, &error))?;
    }
    Ok(standard)
}

/// The same of traces, which are asked for by `telemetry.traces`.
///
/// # Errors
/// It can't.
pub fn of_traces(environment: &Environment) -> Result<OfTraces, ExportError> {
    let traces = OfTraces::read(environment).map_err(ExportError::Standard)?;
    if let Some(otlp) = &traces.otlp {
        otlp::endpoint(otlp).map_err(|error| no_tls(otlp, &error))?;
    }
    Ok(traces)
}

fn no_tls(otlp: &Otlp, error: &dyn std::error::Error) -> ExportError {
    let mut why = error.to_string();
    if let Some(source) = error.source() {
        why += &format!(": {source}");
    }
    ExportError::Tls {
        endpoint: otlp.endpoint.clone(),
        why,
    }
}

/// All that is exported, until it is dropped. It is to be [shut down](Exports::shutdown) before, so
/// that the last numbers arrive.
pub struct Exports {
    main: SdkMeterProvider,
    /// For OTLP alone: what has execution ids.
    top: Option<SdkMeterProvider>,
    scrape: Arc<Scrape>,
    /// Whether anybody can read what is recorded.
    is_read: bool,
    /// None where no spans are sent.
    spans: Option<SdkTracerProvider>,
    end: watch::Sender<Option<Instant>>,
}

impl std::fmt::Debug for Exports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exports").finish_non_exhaustive()
    }
}

impl Exports {
    /// Starts to export as the environment says. Connections live on `runtime`, which must turn; what
    /// is measured is collected and sent from a thread of its own.
    ///
    /// # Errors
    /// The environment asks for what can't be had.
    pub fn start(
        environment: &Environment,
        telemetry: &config::Telemetry,
        dropped: DroppedLines,
        runtime: &Handle,
    ) -> Result<Self, ExportError> {
        let standard = standard(environment)?;
        let of_traces = match telemetry.traces {
            true => Some(of_traces(environment)?),
            false => None,
        };
        let of_both = of_traces.iter().flat_map(|traces| &traces.warnings);
        let of_both = of_both.filter(|warning| !standard.warnings.contains(warning));
        for warning in standard.warnings.iter().chain(of_both) {
            tracing::warn!(event = "configuration.warning", "{warning}");
        }
        let (end, ending) = watch::channel(None);
        let mut starting = Starting {
            resource: resource(environment),
            standard,
            ending,
            runtime,
            tallies: Vec::new(),
        };
        let spans = match &of_traces {
            Some(traces) => starting.spans(traces)?,
            None => None,
        };
        let is_listening = telemetry.listen.is_some();
        let (main, scrape) = starting.main(is_listening)?;
        let is_read = starting.standard.otlp.is_some() || (is_listening && scrape.has_answers());
        let top = match telemetry.top_executions {
            0 => None,
            _ => starting.top()?,
        };
        let scrape = Arc::new(scrape);
        let tallies = starting.tallies;
        let (spans, counts) = spans.unzip();
        let exports = Self {
            main,
            top,
            scrape,
            is_read,
            spans,
            end,
        };
        let meter = exports.meter();
        process::observe(&meter, dropped);
        deliveries::observe(&meter, Signal::Metrics, tallies);
        if let Some((tally, throughput)) = counts {
            deliveries::observe(&meter, Signal::Traces, vec![tally]);
            spans::observe(&meter, throughput);
        }
        exports.scrape.observe(&meter);
        Ok(exports)
    }

    /// Where instruments are registered. Where nothing is exported, what they record goes nowhere.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.main.meter_with_scope(scope())
    }

    /// Whether anybody can read what is recorded: a collector that it is sent to, or who asks for
    /// `/metrics`. Where nobody can, it need not be measured.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_read
    }

    /// Where those with an execution's id are registered, which go over OTLP alone; none where
    /// `telemetry.top_executions` is 0 or nothing is sent.
    #[must_use]
    pub fn top_executions(&self) -> Option<Meter> {
        let top = self.top.as_ref()?;
        Some(top.meter_with_scope(scope()))
    }

    /// Who makes spans; none where none are sent.
    #[must_use]
    pub fn traces(&self) -> Option<Traces> {
        let tracer = self.spans.as_ref()?.tracer_with_scope(scope());
        Some(Traces::new(tracer))
    }

    /// What `/metrics` answers.
    #[must_use]
    pub fn scrape(&self) -> Arc<Scrape> {
        Arc::clone(&self.scrape)
    }

    /// Exports a last time and ends, within `grace`; what is under way then is left. The runtime
    /// must turn. Cancel safe: the rest is left.
    pub async fn shutdown(self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.end.send_replace(Some(deadline));
        let meters = [Some(self.main.clone()), self.top.clone()];
        let meters = meters.into_iter().flatten();
        // What fails is said by the exporter.
        let meters = meters.map(|provider| ended(move || drop(provider.shutdown())));
        let spans = self.spans.clone();
        let spans = spans.map(|provider| ended(move || drop(provider.shutdown())));
        let providers: Vec<_> = meters.chain(spans).collect();
        let all = async {
            for provider in providers {
                // Its thread may not have started: nothing more can be done then.
                let _ = provider.await;
            }
        };
        let _ = tokio::time::timeout_at(deadline, all).await;
    }
}

/// What was not shut down does not wait for a last export that nobody carries.
impl Drop for Exports {
    fn drop(&mut self) {
        self.end.send_if_modified(|end| {
            let now = end.is_none();
            *end = end.or(Some(Instant::now()));
            now
        });
    }
}

/// Shuts a provider down on a thread of its own, as it waits for exports that the runtime carries.
fn ended(shut_down: impl FnOnce() + Send + 'static) -> oneshot::Receiver<()> {
    let (done, is_done) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("last-export".to_owned())
        .spawn(move || {
            shut_down();
            let _ = done.send(());
        });
    if let Err(error) = spawned {
        tracing::warn!(event = "export.unfinished", %error, "what was measured last is not exported");
    }
    is_done
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("execpool")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

/// What both providers are made from.
struct Starting<'a> {
    resource: Resource,
    standard: Standard,
    ending: watch::Receiver<Option<Instant>>,
    runtime: &'a Handle,
    tallies: Vec<Arc<Tally>>,
}

impl Starting<'_> {
    fn main(&mut self, is_listening: bool) -> Result<(SdkMeterProvider, Scrape), ExportError> {
        let mut provider = SdkMeterProvider::builder()
            .with_resource(self.resource.clone())
            .with_view(view);
        if let Some(reader) = self.reader()? {
            provider = provider.with_reader(reader);
        }
        let source = match (self.standard.is_disabled, self.standard.prometheus) {
            (true, _) => Err(ScrapeError::Disabled),
            (false, false) => Err(ScrapeError::NotWanted),
            (false, true) => Ok(Registry::new()),
        };
        if let (Ok(registry), true) = (&source, is_listening) {
            let reader = opentelemetry_prometheus::exporter()
                .with_registry(registry.clone())
                .scope_info_enabled(false)
                .build()
                .map_err(|error| ExportError::Prometheus(error.to_string()))?;
            provider = provider.with_reader(reader);
        }
        Ok((provider.build(), Scrape::new(source)))
    }

    /// None where nothing is sent.
    fn top(&mut self) -> Result<Option<SdkMeterProvider>, ExportError> {
        let Some(reader) = self.reader()? else {
            return Ok(None);
        };
        let provider = SdkMeterProvider::builder()
            .with_resource(self.resource.clone())
            .with_reader(reader);
        Ok(Some(provider.build()))
    }

    /// What collects and sends; none where nothing is sent.
    fn reader(&mut self) -> Result<Option<PeriodicReader<Exporter>>, ExportError> {
        let Some(otlp) = &self.standard.otlp else {
            return Ok(None);
        };
        let (sender, tally) = self.sender(Signal::Metrics, otlp, self.standard.patience)?;
        self.tallies.push(tally);
        let exporter = Exporter::new(sender, self.standard.temporality);
        let reader = PeriodicReader::builder(exporter).with_interval(self.standard.interval);
        Ok(Some(reader.build()))
    }

    /// What makes spans and sends them, and its counts; none where nothing is sent.
    fn spans(
        &self,
        traces: &OfTraces,
    ) -> Result<Option<(SdkTracerProvider, SpanCounts)>, ExportError> {
        let Some(otlp) = &traces.otlp else {
            return Ok(None);
        };
        let (sender, tally) = self.sender(Signal::Traces, otlp, traces.batch.patience)?;
        let queue = Queue::new(sender, &traces.batch);
        let counts = (tally, queue.throughput());
        let (attributes, events) = traces.limits;
        // All is said here that the SDK would read of the environment by itself.
        let limits = SpanLimits {
            max_attributes_per_span: attributes,
            max_events_per_span: events,
            ..SpanLimits::default()
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(self.resource.clone())
            .with_sampler(sampler(traces.sampling))
            .with_span_limits(limits)
            .with_span_processor(queue)
            .build();
        Ok(Some((provider, counts)))
    }

    fn sender(
        &self,
        signal: Signal,
        otlp: &Otlp,
        patience: Duration,
    ) -> Result<(Sender, Arc<Tally>), ExportError> {
        let _within = self.runtime.enter();
        let line = Line::new(otlp).map_err(|error| no_tls(otlp, &error))?;
        let deliveries = Arc::new(Deliveries::new(signal, otlp.endpoint.clone()));
        let tally = deliveries.tally();
        let (runtime, ending) = (self.runtime.clone(), self.ending.clone());
        let sender = Sender::new(line, deliveries, patience, runtime, ending);
        Ok((sender, tally))
    }
}

/// What arrived of spans, and what got so far.
type SpanCounts = (Arc<Tally>, Arc<Throughput>);

fn sampler(sampling: Sampling) -> Sampler {
    let own = match sampling.ratio {
        1.0 => Sampler::AlwaysOn,
        0.0 => Sampler::AlwaysOff,
        ratio => Sampler::TraceIdRatioBased(ratio),
    };
    match sampling.is_parent_based {
        true => Sampler::ParentBased(Box::new(own)),
        false => own,
    }
}

/// The buckets of durations, as the SDK's own are of milliseconds.
fn view(instrument: &Instrument) -> Option<Stream> {
    let mut metrics = METRICS.iter();
    let metric = metrics.find(|metric| metric.name == instrument.name())?;
    let catalogue::Instrument::Histogram(boundaries) = metric.instrument else {
        return None;
    };
    let aggregation = Aggregation::ExplicitBucketHistogram {
        boundaries: boundaries.to_vec(),
        // They would be those of the whole life of the process.
        record_min_max: false,
    };
    // It can fail on boundaries out of order alone.
    Stream::builder().with_aggregation(aggregation).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Telemetry;
    use opentelemetry_semantic_conventions::metric::{
        DB_CLIENT_CONNECTION_USE_TIME, DB_CLIENT_OPERATION_DURATION,
    };

    /// What goes to where nobody is, hourly.
    fn exports(top_executions: u32, more: &[(&str, &str)]) -> Exports {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        let interval = ("OTEL_METRIC_EXPORT_INTERVAL", "3600000");
        let all = [endpoint, interval].into_iter().chain(more.iter().copied());
        let all: Vec<_> = all
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let telemetry = Telemetry {
            listen: Some(([127, 0, 0, 1], 0).into()),
            status_log: None,
            top_executions,
            traces: false,
        };
        let environment = Environment::new(&all);
        Exports::start(
            &environment,
            &telemetry,
            DroppedLines::default(),
            &Handle::current(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn what_has_an_executions_id_goes_over_otlp_alone_and_only_when_it_is_wanted() {
        assert!(exports(0, &[]).top_executions().is_none());
        let unsent = exports(5, &[("OTEL_METRICS_EXPORTER", "prometheus")]);
        assert!(unsent.top_executions().is_none());
        let exports = exports(5, &[]);
        let meter = exports.top_executions().unwrap();
        let gauge = meter.u64_gauge("execpool.execution.connections").build();
        gauge.record(
            1,
            &[opentelemetry::KeyValue::new(
                "execpool.execution.id",
                "run-42",
            )],
        );
        let text = exports.scrape().text().await.unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.contains("process_cpu_time_seconds_total"), "{text}");
        assert!(!text.contains("run-42"), "{text}");
        exports.shutdown(Duration::from_secs(1)).await;
    }

    #[tokio::test]
    async fn one_that_is_dropped_without_a_word_waits_for_nobody() {
        // The quickest of some: a busy machine may stand still in any of them.
        let drops = (0..5).map(|_| {
            let exports = exports(5, &[]);
            let start = Instant::now();
            drop(exports);
            start.elapsed()
        });
        let quickest = drops.min().unwrap();
        assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    }

    #[tokio::test]
    async fn durations_have_the_buckets_of_the_conventions() {
        let exports = exports(0, &[]);
        let meter = exports.meter();
        let unit = |name: &'static str| meter.f64_histogram(name).with_unit("s").build();
        unit(DB_CLIENT_OPERATION_DURATION).record(0.002, &[]);
        unit(DB_CLIENT_CONNECTION_USE_TIME).record(100.0, &[]);
        let text = exports.scrape().text().await.unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        let buckets = |name: &str| {
            let prefix = format!("{name}_seconds_bucket{{le=\"");
            let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
            let found = lines.filter_map(|line| line.split_once('"'));
            found
                .map(|(le, _)| le.to_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let usual = "0.001 0.005 0.01 0.05 0.1 0.5 1 5 10";
        assert_eq!(
            buckets("db_client_operation_duration"),
            format!("{usual} +Inf")
        );
        let held = format!("{usual} 30 60 300 1800 +Inf");
        assert_eq!(buckets("db_client_connection_use_time"), held);
    }
}
