//! What sends metrics: the SDK's reader calls it on a thread of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest,
};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::deliveries::{Deliveries, Outcome};
use super::otlp::{Failure, FailureKind, LARGEST_ANSWER, Line, no_answer};

/// How long the last export may take where the one before has failed.
const LAST_TRY: Duration = Duration::from_millis(300);

/// Sends metrics to one collector.
pub(super) struct Exporter {
    line: Line,
    deliveries: Arc<Deliveries>,
    temporality: Temporality,
    /// How long one export may take.
    patience: Duration,
    /// Where the connection lives.
    runtime: Handle,
    /// When the process is about to end: no export goes on after that.
    end: watch::Receiver<Option<Instant>>,
}

impl Exporter {
    pub(super) fn new(
        line: Line,
        deliveries: Arc<Deliveries>,
        temporality: Temporality,
        patience: Duration,
        runtime: Handle,
        end: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let patience = patience.min(line.otlp().timeout);
        Self {
            line,
            deliveries,
            temporality,
            patience,
            runtime,
            end,
        }
    }

    async fn send(&self, request: ExportMetricsServiceRequest, points: u64) -> Outcome {
        let gzip = self.line.otlp().gzip;
        let send = |channel, request| one(channel, request, gzip);
        let is_last = self.end.borrow().is_some();
        let patience = match is_last && self.deliveries.is_failing() {
            true => self.patience.min(LAST_TRY),
            false => self.patience,
        };
        let deadline = Instant::now() + patience;
        let delivered = tokio::select! {
            delivered = self.line.deliver(&request, deadline, send) => delivered,
            () = ended(self.end.clone()) => Err(no_answer()),
        };
        match delivered {
            Ok(partly) => self.arrived(partly, points),
            Err(failure) => Outcome {
                arrived: 0,
                failed: Some((points, failure)),
            },
        }
    }

    /// All, or what the collector has not rejected.
    fn arrived(&self, partly: Option<ExportMetricsPartialSuccess>, points: u64) -> Outcome {
        let rejected = partly.and_then(|partly| {
            // A collector may say more, or less than nothing.
            let count = u64::try_from(partly.rejected_data_points).unwrap_or(0);
            (count > 0).then_some((count.min(points), partly.error_message))
        });
        let failed = rejected.map(|(count, message)| {
            let failure = Failure {
                kind: FailureKind::Rejected,
                reason: self.line.told(&message),
            };
            (count, failure)
        });
        let lost = failed.as_ref().map_or(0, |(count, _)| *count);
        Outcome {
            arrived: points - lost,
            failed,
        }
    }
}

/// One try.
async fn one(
    channel: Channel,
    request: Request<ExportMetricsServiceRequest>,
    gzip: bool,
) -> Result<Option<ExportMetricsPartialSuccess>, Status> {
    let mut client = MetricsServiceClient::new(channel)
        .max_decoding_message_size(LARGEST_ANSWER)
        .accept_compressed(CompressionEncoding::Gzip);
    if gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let answer = client.export(request).await?;
    Ok(answer.into_inner().partial_success)
}

/// Waits for the end, and until there is no time left.
async fn ended(mut end: watch::Receiver<Option<Instant>>) {
    let at = match end.wait_for(Option::is_some).await {
        Ok(at) => *at,
        // Who would say so is gone.
        Err(_) => None,
    };
    // Where that is over, no timer is asked: the runtime may turn no more.
    if let Some(at) = at
        && at > Instant::now()
    {
        tokio::time::sleep_until(at).await;
    }
}

impl PushMetricExporter for Exporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let points = points(metrics);
        let request = ExportMetricsServiceRequest::from(metrics);
        let sending = Within {
            runtime: &self.runtime,
            future: Box::pin(self.send(request, points)),
        };
        let outcome = sending.await;
        self.deliveries.tell(&outcome);
        match outcome.failed {
            None => Ok(()),
            Some((_, failure)) => Err(OTelSdkError::InternalFailure(failure.reason)),
        }
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

/// A future that is polled within the runtime, by a thread that has none: its timers are that
/// runtime's then.
struct Within<'a, F> {
    runtime: &'a Handle,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Within<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let runtime = self.runtime;
        let _within = runtime.enter();
        self.future.as_mut().poll(context)
    }
}
