//! How a batch gets to a collector, whatever is in it: within the runtime, within its time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::deliveries::{Deliveries, Outcome};
use super::otlp::{Failure, FailureKind, Line, no_answer};

/// How long the last export may take where the one before has failed.
const LAST_TRY: Duration = Duration::from_millis(300);

/// Sends to one collector, and tells what came of it.
pub(super) struct Sender {
    line: Line,
    deliveries: Arc<Deliveries>,
    /// How long one export may take.
    patience: Duration,
    /// Where the connection lives.
    runtime: Handle,
    /// When the process is about to end: no export goes on after that.
    end: watch::Receiver<Option<Instant>>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("otlp", self.line.otlp())
            .finish_non_exhaustive()
    }
}

impl Sender {
    pub(super) fn new(
        line: Line,
        deliveries: Arc<Deliveries>,
        patience: Duration,
        runtime: Handle,
        end: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let patience = patience.min(line.otlp().timeout);
        Self {
            line,
            deliveries,
            patience,
            runtime,
            end,
        }
    }

    /// Whether requests are compressed.
    pub(super) fn gzip(&self) -> bool {
        self.line.otlp().gzip
    }

    /// Sends `count` things in a message, and tells what came of it. `send` answers how many of them
    /// the collector has rejected, and why. May be polled by a thread without a runtime.
    pub(super) async fn export<T, F>(
        &self,
        message: T,
        count: u64,
        send: impl Fn(Channel, Request<T>) -> F + Send + Sync,
    ) -> OTelSdkResult
    where
        T: Clone + Send + Sync,
        F: Future<Output = Result<Option<(i64, String)>, Status>> + Send,
    {
        let outcome = Within {
            runtime: &self.runtime,
            future: Box::pin(self.send(&message, count, send)),
        };
        let outcome = outcome.await;
        self.deliveries.tell(&outcome);
        match outcome.failed {
            None => Ok(()),
            Some((_, failure)) => Err(OTelSdkError::InternalFailure(failure.reason)),
        }
    }

    async fn send<T, F>(
        &self,
        message: &T,
        count: u64,
        send: impl Fn(Channel, Request<T>) -> F,
    ) -> Outcome
    where
        T: Clone,
        F: Future<Output = Result<Option<(i64, String)>, Status>>,
    {
        let is_last = self.end.borrow().is_some();
        let patience = match is_last && self.deliveries.is_failing() {
            true => self.patience.min(LAST_TRY),
            false => self.patience,
        };
        let deadline = Instant::now() + patience;
        let delivered = tokio::select! {
            delivered = self.line.deliver(message, deadline, send) => delivered,
            () = ended(self.end.clone()) => Err(no_answer()),
        };
        match delivered {
            Ok(rejected) => self.arrived(rejected, count),
            Err(failure) => Outcome {
                arrived: 0,
                failed: Some((count, failure)),
            },
        }
    }

    /// All, or what the collector has not rejected.
    fn arrived(&self, rejected: Option<(i64, String)>, count: u64) -> Outcome {
        let rejected = rejected.and_then(|(rejected, message)| {
            // A collector may say more, or less than nothing.
            let rejected = u64::try_from(rejected).unwrap_or(0);
            (rejected > 0).then_some((rejected.min(count), message))
        });
        let failed = rejected.map(|(rejected, message)| {
            let failure = Failure {
                kind: FailureKind::Rejected,
                reason: self.line.told(&message),
            };
            (rejected, failure)
        });
        let lost = failed.as_ref().map_or(0, |(rejected, _)| *rejected);
        Outcome {
            arrived: count - lost,
            failed,
        }
    }
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
