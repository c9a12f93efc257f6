//! What sends metrics: the SDK's reader calls it on a thread of its own.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::otlp::LARGEST_ANSWER;
use super::sender::Sender;

/// Sends metrics to one collector.
pub(super) struct Exporter {
    sender: Sender,
    temporality: Temporality,
}

impl Exporter {
    pub(super) fn new(sender: Sender, temporality: Temporality) -> Self {
        Self {
            sender,
            temporality,
        }
    }
}

/// One try. Answers how many points were rejected, and why.
async fn one(
    channel: Channel,
    request: Request<ExportMetricsServiceRequest>,
    gzip: bool,
) -> Result<Option<(i64, String)>, Status> {
    let mut client = MetricsServiceClient::new(channel)
        .max_decoding_message_size(LARGEST_ANSWER)
        .accept_compressed(CompressionEncoding::Gzip);
    if gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let answer = client.export(request).await?.into_inner();
    let partly = answer.partial_success;
    Ok(partly.map(|partly| (partly.rejected_data_points, partly.error_message)))
}

impl PushMetricExporter for Exporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let points = points(metrics);
        let request = ExportMetricsServiceRequest::from(metrics);
        let gzip = self.sender.gzip();
        let send = move |channel, request| one(channel, request, gzip);
        self.sender.export(request, points, send).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

/// How many data points there are.
fn points(metrics: &ResourceMetrics) -> u64 {
    fn of<T>(data: &MetricData<T>) -> usize {
        match data {
            MetricData::Gauge(gauge) => gauge.data_points().count(),
            MetricData::Sum(sum) => sum.data_points().count(),
            MetricData::Histogram(histogram) => histogram.data_points().count(),
            MetricData::ExponentialHistogram(histogram) => histogram.data_points().count(),
        }
    }
    let metrics = metrics.scope_metrics().flat_map(|scope| scope.metrics());
    let counts = metrics.map(|metric| match metric.data() {
        AggregatedMetrics::F64(data) => of(data),
        AggregatedMetrics::U64(data) => of(data),
        AggregatedMetrics::I64(data) => of(data),
    });
    counts.sum::<usize>() as u64
}
