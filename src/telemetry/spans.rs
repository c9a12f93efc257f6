//! What sends spans: a queue with an end, and behind it the SDK's processor on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry::metrics::Meter;
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, OTEL_COMPONENT_NAME, OTEL_COMPONENT_TYPE,
};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::otlp::LARGEST_ANSWER;
use super::sender::Sender;
use super::standard::Batch;

/// How many spans went which way.
#[derive(Debug, Default)]
pub(super) struct Throughput {
    /// Waiting to be sent, now.
    waiting: AtomicU64,
    /// Handed to the exporter, ever.
    sent: AtomicU64,
    /// Dropped as too many were waiting, ever.
    dropped: AtomicU64,
    /// Whether that was said since the queue was last empty.
    is_dropping: AtomicBool,
}

/// The SDK's batches behind a count of what waits: the SDK drops what it has no room for, too, but
/// tells nobody how much.
#[derive(Debug)]
pub(super) struct Queue {
    batches: BatchSpanProcessor,
    throughput: Arc<Throughput>,
    /// How many may wait.
    room: u64,
}

impl Queue {
    /// In front of an exporter, which is called on a thread that this starts.
    pub(super) fn new(sender: Sender, batch: &Batch) -> Self {
        let throughput = Arc::<Throughput>::default();
        let exporter = Exporter {
            sender,
            throughput: Arc::clone(&throughput),
            resource: ResourceAttributesWithSchema::default(),
        };
        // It would read the variables itself, and has been told them.
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(batch.queue as usize)
            .with_max_export_batch_size(batch.size as usize)
            .with_scheduled_delay(batch.delay)
            .build();
        Self {
            batches: BatchSpanProcessor::new(exporter, config),
            throughput,
            room: u64::from(batch.queue),
        }
    }

    /// The counts, for who shows them.
    pub(super) fn throughput(&self) -> Arc<Throughput> {
        Arc::clone(&self.throughput)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let counts = &self.throughput;
        if counts.waiting.fetch_add(1, Relaxed) < self.room {
            return self.batches.on_end(span);
        }
        counts.waiting.fetch_sub(1, Relaxed);
        counts.dropped.fetch_add(1, Relaxed);
        if !counts.is_dropping.swap(true, Relaxed) {
            tracing::warn!(
                event = "spans.dropped",
                signal = "traces",
                waiting = self.room,
                "spans are dropped, as too many wait for the collector; counted as queue_full"
            );
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Sends spans to one collector.
#[derive(Debug)]
struct Exporter {
    sender: Sender,
    throughput: Arc<Throughput>,
    resource: ResourceAttributesWithSchema,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (count, counts) = (batch.len() as u64, &self.throughput);
        counts.sent.fetch_add(count, Relaxed);
        if counts.waiting.fetch_sub(count, Relaxed) == count {
            counts.is_dropping.store(false, Relaxed);
        }
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let gzip = self.sender.gzip();
        let send = move |channel, request| one(channel, request, gzip);
        self.sender.export(request, count, send).await
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

/// One try. Answers how many spans were rejected, and why.
async fn one(
    channel: Channel,
    request: Request<ExportTraceServiceRequest>,
    gzip: bool,
) -> Result<Option<(i64, String)>, Status> {
    let mut client = TraceServiceClient::new(channel)
        .max_decoding_message_size(LARGEST_ANSWER)
        .accept_compressed(CompressionEncoding::Gzip);
    if gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let answer = client.export(request).await?.into_inner();
    let partly = answer.partial_success;
    Ok(partly.map(|partly| (partly.rejected_spans, partly.error_message)))
}

/// Shows how many spans were sent on, and how many had no room.
pub(super) fn observe(meter: &Meter, counts: Arc<Throughput>) {
    const COMPONENT: &str = "batching_span_processor";
    let own = vec![
        KeyValue::new(OTEL_COMPONENT_TYPE, COMPONENT),
        KeyValue::new(OTEL_COMPONENT_NAME, format!("{COMPONENT}/0")),
    ];
    let mut full = own.clone();
    full.push(KeyValue::new(ERROR_TYPE, "queue_full"));
    meter
        .u64_observable_counter("otel.sdk.processor.span.processed")
        .with_unit("{span}")
        .with_description("Spans handed to the exporter, or, with error.type, dropped before")
        .with_callback(move |observer| {
            observer.observe(counts.sent.load(Relaxed), &own);
            observer.observe(counts.dropped.load(Relaxed), &full);
        })
        .build();
}
