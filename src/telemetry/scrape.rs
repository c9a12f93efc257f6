//! What `/metrics` answers: all metrics as Prometheus reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::sync::Mutex;

/// How old an answer may be: who asks more often gets the same again.
const FRESH: Duration = Duration::from_millis(250);

/// How many may wait for an answer, or read one, at once.
const AT_ONCE: u64 = 16;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// Telemetry is off.
    #[error("OTEL_SDK_DISABLED is true: nothing is measured")]
    Disabled,
    /// It is not wanted.
    #[error("OTEL_METRICS_EXPORTER does not name prometheus")]
    NotWanted,
    /// Too many ask at once.
    #[error("{AT_ONCE} scrapes are under way already; scrape less often")]
    Busy,
    /// It could not be made.
    #[error("the metrics could not be rendered")]
    Failed,
}

/// Gives all metrics as text, made on a thread that nobody waits for but who asked.
#[derive(Debug)]
pub struct Scrape {
    source: Result<Registry, ScrapeError>,
    /// Held while the text is made, so that it is made once for all who wait.
    last: Mutex<Option<(Instant, Bytes)>>,
    counts: Arc<Counts>,
}

/// What becomes of scrapes that get no answer.
#[derive(Debug, Default)]
pub(super) struct Counts {
    under_way: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    failed: AtomicU64,
}

/// One who asks. Unless it is told that the answer was taken, dropping it counts it as cut.
#[must_use = "dropping it counts the scrape as cut"]
#[derive(Debug)]
pub(super) struct Visit {
    counts: Arc<Counts>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It goes on, or was left.
    Cut,
    /// It is over, and counted as it should be.
    Over,
}

impl Visit {
    /// The answer was taken.
    pub(super) fn over(mut self) {
        self.end = End::Over;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.counts.under_way.fetch_sub(1, Relaxed);
        if self.end == End::Cut {
            self.counts.cut.fetch_add(1, Relaxed);
        }
    }
}

impl Scrape {
    pub(super) fn new(source: Result<Registry, ScrapeError>) -> Self {
        Self {
            source,
            last: Mutex::default(),
            counts: Arc::default(),
        }
    }

    /// Someone asks.
    ///
    /// # Errors
    /// There is nothing to be had, or too many ask.
    pub(super) fn visit(&self) -> Result<Visit, ScrapeError> {
        self.source.as_ref().map_err(|why| *why)?;
        if self.counts.under_way.fetch_add(1, Relaxed) >= AT_ONCE {
            self.counts.under_way.fetch_sub(1, Relaxed);
            self.counts.refused.fetch_add(1, Relaxed);
            return Err(ScrapeError::Busy);
        }
        Ok(Visit {
            counts: Arc::clone(&self.counts),
            end: End::Cut,
        })
    }

    /// All metrics as text. Cancel safe.
    ///
    /// # Errors
    /// There is nothing to be had.
    pub async fn text(&self) -> Result<Bytes, ScrapeError> {
        let registry = self.source.clone()?;
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let made = tokio::task::spawn_blocking(move || render(&registry)).await;
        let Some(text) = made.ok().flatten() else {
            self.counts.failed.fetch_add(1, Relaxed);
            return Err(ScrapeError::Failed);
        };
        *last = Some((Instant::now(), text.clone()));
        Ok(text)
    }

    /// Shows what became of scrapes.
    pub(super) fn observe(&self, meter: &Meter) {
        let counts = Arc::clone(&self.counts);
        let reason = |name| [KeyValue::new("reason", name)];
        let (refused, cut, failed) = (reason("refused"), reason("cut"), reason("failed"));
        meter
            .u64_observable_counter("execpool.scrape.failed")
            .with_unit("{scrape}")
            .with_description("Scrapes of /metrics that got no answer, or did not read it")
            .with_callback(move |observer| {
                observer.observe(counts.refused.load(Relaxed), &refused);
                observer.observe(counts.cut.load(Relaxed), &cut);
                observer.observe(counts.failed.load(Relaxed), &failed);
            })
            .build();
    }
}

fn render(registry: &Registry) -> Option<Bytes> {
    let mut text = Vec::new();
    let encoded = TextEncoder::new().encode(&registry.gather(), &mut text);
    encoded.ok().map(|()| text.into())
}
