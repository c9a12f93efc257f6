//! Whether what is sent arrives: counted, and said when it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, OTEL_COMPONENT_NAME, OTEL_COMPONENT_TYPE,
};
use parking_lot::Mutex;

use super::environment::Signal;
use super::otlp::{Failure, FailureKind};

/// How many of what was sent arrived, and how many did not, by why.
#[derive(Debug, Default)]
pub(super) struct Tally {
    arrived: AtomicU64,
    failed: [AtomicU64; FailureKind::COUNT],
}

/// What one exporter has delivered.
#[derive(Debug)]
pub(super) struct Deliveries {
    signal: Signal,
    endpoint: String,
    tally: Arc<Tally>,
    /// Taken for a moment only.
    state: Mutex<State>,
}

/// How it is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// All arrives, as far as is known. Left at the first failure.
    Working,
    /// Not all of it, or nothing, arrives, since then. Left when all of something has arrived.
    Failing {
        since: Instant,
        failures: u64,
        /// The kinds of failure so far, each a bit.
        kinds: u32,
    },
}

/// What came of one export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// How many arrived.
    pub(super) arrived: u64,
    /// How many did not, and why.
    pub(super) failed: Option<(u64, Failure)>,
}

impl Deliveries {
    /// Of an exporter that sends to `endpoint`, which holds no credentials.
    pub(super) fn new(signal: Signal, endpoint: String) -> Self {
        Self {
            signal,
            endpoint,
            tally: Arc::default(),
            state: Mutex::new(State::Working),
        }
    }

    /// The counts, for who shows them.
    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Whether the last export failed.
    pub(super) fn is_failing(&self) -> bool {
        matches!(*self.state.lock(), State::Failing { .. })
    }

    /// Counts what came of an export, and logs it where that is another state than before.
    pub(super) fn tell(&self, outcome: &Outcome) {
        self.tally.arrived.fetch_add(outcome.arrived, Relaxed);
        if let Some((count, failure)) = &outcome.failed {
            self.tally.failed[failure.kind.index()].fetch_add(*count, Relaxed);
        }
        let failure = outcome.failed.as_ref().map(|(_, failure)| failure);
        let before = self.transition(failure.map(|failure| failure.kind));
        let (signal, endpoint) = (self.signal.name(), self.endpoint.as_str());
        match (before, failure) {
            (State::Working, Some(failure)) => tracing::warn!(
                event = "export.failing",
                signal,
                endpoint,
                error_type = failure.kind.name(),
                reason = failure.reason,
                "telemetry does not arrive; the next line is when it does, or fails for another reason"
            ),
            // Each reason once, also where two take turns.
            (State::Failing { since, kinds, .. }, Some(failure))
                if kinds & bit(failure.kind) == 0 =>
            {
                tracing::warn!(
                    event = "export.failing",
                    signal,
                    endpoint,
                    error_type = failure.kind.name(),
                    reason = failure.reason,
                    failing_for_seconds = since.elapsed().as_secs(),
                    "telemetry still does not arrive, for another reason"
                );
            }
            (
                State::Failing {
                    since, failures, ..
                },
                None,
            ) => tracing::info!(
                event = "export.recovered",
                signal,
                endpoint,
                failed_exports = failures,
                failed_for_seconds = since.elapsed().as_secs(),
                "telemetry arrives again"
            ),
            _ => {}
        }
    }

    /// Goes to the state that this failure, or none, leads to; gives the one before.
    fn transition(&self, failure: Option<FailureKind>) -> State {
        let mut state = self.state.lock();
        let before = *state;
        *state = match (before, failure) {
            (_, None) => State::Working,
            (State::Working, Some(kind)) => State::Failing {
                since: Instant::now(),
                failures: 1,
                kinds: bit(kind),
            },
            (
                State::Failing {
                    since,
                    failures,
                    kinds,
                },
                Some(kind),
            ) => State::Failing {
                since,
                failures: failures + 1,
                kinds: kinds | bit(kind),
            },
        };
        before
    }
}

fn bit(kind: FailureKind) -> u32 {
    1 << kind.index()
}

/// Shows the counts of a signal's exporters, each with the number that names it.
pub(super) fn observe(meter: &Meter, signal: Signal, exporters: Vec<Arc<Tally>>) {
    if exporters.is_empty() {
        return;
    }
    let (component, metric, unit, description) = match signal {
        Signal::Metrics => (
            "otlp_grpc_metric_exporter",
            "otel.sdk.exporter.metric_data_point.exported",
            "{data_point}",
            "Data points that arrived at the collector, or, with error.type, did not",
        ),
        Signal::Traces => (
            "otlp_grpc_span_exporter",
            "otel.sdk.exporter.span.exported",
            "{span}",
            "Spans that arrived at the collector, or, with error.type, did not",
        ),
    };
    let all: Vec<_> = exporters
        .into_iter()
        .enumerate()
        .map(|(number, tally)| {
            let own = vec![
                KeyValue::new(OTEL_COMPONENT_TYPE, component),
                KeyValue::new(OTEL_COMPONENT_NAME, format!("{component}/{number}")),
            ];
            let failed: Vec<_> = FailureKind::all()
                .map(|kind| {
                    let mut attributes = own.clone();
                    attributes.push(KeyValue::new(ERROR_TYPE, kind.name()));
                    (kind.index(), attributes)
                })
                .collect();
            (tally, own, failed)
        })
        .collect();
    meter
        .u64_observable_counter(metric)
        .with_unit(unit)
        .with_description(description)
        .with_callback(move |observer| {
            for (tally, own, failed) in &all {
                observer.observe(tally.arrived.load(Relaxed), own);
                for (index, attributes) in failed {
                    // A series begins with the first failure of its kind.
                    let count = tally.failed[*index].load(Relaxed);
                    if count > 0 {
                        observer.observe(count, attributes);
                    }
                }
            }
        })
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_place_of_its_own() {
        let places: Vec<usize> = FailureKind::all().map(FailureKind::index).collect();
        assert_eq!(places, (0..FailureKind::COUNT).collect::<Vec<_>>());
        let mut names: Vec<_> = FailureKind::all().map(FailureKind::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FailureKind::COUNT);
    }
}
