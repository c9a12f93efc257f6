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
    crowded: AtomicU64,
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

    /// Whether there is anything to be had.
    pub(super) fn has_answers(&self) -> bool {
        self.source.is_ok()
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

    /// A connection had to go for a newer one, whatever it wanted.
    pub(super) fn is_crowded_out(&self) {
        self.counts.crowded.fetch_add(1, Relaxed);
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
        let crowded = reason("crowded");
        meter
            .u64_observable_counter("execpool.scrape.failed")
            .with_unit("{scrape}")
            .with_description("Scrapes of /metrics that got no answer or did not read it, and connections to the port that had to go for newer ones (crowded)")
            .with_callback(move |observer| {
                observer.observe(counts.refused.load(Relaxed), &refused);
                observer.observe(counts.cut.load(Relaxed), &cut);
                observer.observe(counts.failed.load(Relaxed), &failed);
                observer.observe(counts.crowded.load(Relaxed), &crowded);
            })
            .build();
    }
}

fn render(registry: &Registry) -> Option<Bytes> {
    let mut text = Vec::new();
    let encoded = TextEncoder::new().encode(&registry.gather(), &mut text);
    encoded.ok().map(|()| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    fn scrape() -> (Scrape, SdkMeterProvider) {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .unwrap();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        (Scrape::new(Ok(registry)), provider)
    }

    #[tokio::test]
    async fn the_loop_turns_while_metrics_are_rendered_and_all_who_wait_get_one_text() {
        let (scrape, provider) = scrape();
        const SOON: Duration = Duration::from_secs(60);
        let rendered = Arc::new(AtomicU64::default());
        let turns = Arc::new(AtomicU64::default());
        let (count, turned) = (Arc::clone(&rendered), Arc::clone(&turns));
        let meter = provider.meter("test");
        meter
            .u64_observable_gauge("slow")
            .with_callback(move |observer| {
                let begun = Instant::now();
                while turned.load(Relaxed) < 5 && begun.elapsed() < SOON {
                    std::thread::sleep(Duration::from_millis(1));
                }
                observer.observe(count.fetch_add(1, Relaxed), &[]);
            })
            .build();
        let all = async { tokio::join!(scrape.text(), scrape.text(), scrape.text()) };
        let count_turns = async {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                turns.fetch_add(1, Relaxed);
            }
        };
        let all = tokio::select! {
            all = all => all,
            () = count_turns => unreachable!("it counts for ever"),
        };
        let turns = turns.load(Relaxed);
        assert!(turns >= 5, "{turns}");
        assert_eq!(rendered.load(Relaxed), 1);
        assert!(all.0.is_ok() && all.0 == all.1 && all.1 == all.2);
    }

    #[test]
    fn who_leaves_is_cut_and_who_comes_too_many_is_refused() {
        let (scrape, _provider) = scrape();
        let visits: Vec<Visit> = (0..AT_ONCE).map(|_| scrape.visit().unwrap()).collect();
        assert_eq!(scrape.visit().unwrap_err(), ScrapeError::Busy);
        let mut visits = visits.into_iter();
        visits.next().unwrap().over();
        scrape.visit().unwrap().over();
        drop(visits);
        let counts = &scrape.counts;
        let count = |count: &AtomicU64| count.load(Relaxed);
        assert_eq!(count(&counts.under_way), 0);
        assert_eq!(
            (count(&counts.refused), count(&counts.cut)),
            (1, AT_ONCE - 1)
        );
    }

    #[tokio::test]
    async fn a_label_with_anything_in_it_is_one_line() {
        let (scrape, provider) = scrape();
        let gauge = provider.meter("test").u64_gauge("odd").build();
        gauge.record(1, &[KeyValue::new("key", "a\"b\\c\nd\u{fffd}")]);
        let text = scrape.text().await.unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        let line = "odd{key=\"a\\\"b\\\\c\\nd\u{fffd}\"} 1";
        assert!(text.lines().any(|found| found == line), "{text}");
    }

    /// What a scrape costs where everything is measured of 20 upstreams: told with `--nocapture`.
    #[tokio::test]
    async fn many_series_are_rendered_in_a_moment() {
        let (scrape, provider) = scrape();
        let meter = provider.meter("test");
        for instrument in 0..50 {
            let counter = meter.u64_counter(format!("counter.{instrument}")).build();
            let histogram = (instrument < 4).then(|| {
                meter
                    .f64_histogram(format!("histogram.{instrument}"))
                    .build()
            });
            for upstream in 0..20 {
                let own = [KeyValue::new("db.client.connection.pool.name", upstream)];
                counter.add(1, &own);
                if let Some(histogram) = &histogram {
                    histogram.record(1.0, &own);
                }
            }
        }
        // The quickest of some: a busy machine may stand still in any of them.
        let (mut quickest, mut bytes) = (Duration::MAX, 0);
        for _ in 0..5 {
            let start = Instant::now();
            bytes = scrape.text().await.unwrap().len();
            quickest = quickest.min(start.elapsed());
        }
        println!("{bytes} bytes in {quickest:?}");
        assert!(
            bytes > 50_000 && quickest < Duration::from_secs(1),
            "{bytes} bytes in {quickest:?}"
        );
    }
}
