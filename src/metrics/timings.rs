//! How long things take: histograms, bound to their attributes before the first is recorded, so that a
//! record costs no look-up and no allocation.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundHistogram, Histogram, Meter};
use opentelemetry_semantic_conventions::attribute;
use parking_lot::Mutex;

use super::catalogue::{
    CONNECTION_CREATE_TIME, CONNECTION_USE_TIME, CONNECTION_WAIT_TIME, Instrument, Metric,
    OPERATION_DURATION,
};
use super::words::Code;

/// PostgreSQL's usual port, which is not told.
const USUAL_PORT: u16 = 5432;

/// The histograms of all upstreams.
#[derive(Debug, Clone)]
pub struct Histograms {
    create: Histogram<f64>,
    wait: Histogram<f64>,
    used: Histogram<f64>,
    operation: Histogram<f64>,
}

/// An upstream, as its times are told.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// Its configured name.
    pub name: &'a str,
    /// Its database; `other` where clients name it.
    pub namespace: &'a str,
    /// Its hosts, or the directories of their sockets, and their ports.
    pub servers: &'a [(String, u16)],
}

impl Histograms {
    /// Registers them.
    #[must_use]
    pub fn on(meter: &Meter) -> Self {
        let of = |metric: &Metric| {
            let histogram = meter.f64_histogram(metric.name);
            let bounds = match metric.instrument {
                Instrument::Histogram(bounds) => bounds.to_vec(),
                _ => Vec::new(),
            };
            let histogram = histogram.with_unit(metric.unit).with_boundaries(bounds);
            histogram.with_description(metric.description).build()
        };
        Self {
            create: of(&CONNECTION_CREATE_TIME),
            wait: of(&CONNECTION_WAIT_TIME),
            used: of(&CONNECTION_USE_TIME),
            operation: of(&OPERATION_DURATION),
        }
    }

    /// Those of one upstream.
    #[must_use]
    pub fn of(&self, upstream: Measured<'_>) -> Arc<Timings> {
        let pool = [KeyValue::new(
            attribute::DB_CLIENT_CONNECTION_POOL_NAME,
            upstream.name.to_owned(),
        )];
        let servers = upstream.servers.iter().map(|(host, port)| {
            let mut attributes = vec![
                KeyValue::new(attribute::DB_SYSTEM_NAME, "postgresql"),
                KeyValue::new(attribute::DB_NAMESPACE, upstream.namespace.to_owned()),
                KeyValue::new(attribute::SERVER_ADDRESS, host.clone()),
            ];
            if *port != USUAL_PORT {
                attributes.push(KeyValue::new(attribute::SERVER_PORT, i64::from(*port)));
            }
            let operations = Operations {
                well: self.operation.bind(&attributes),
                failed: Mutex::new(vec![None; Code::WORDS.len()]),
                histogram: self.operation.clone(),
                attributes,
            };
            (host.clone(), *port, Arc::new(operations))
        });
        Arc::new(Timings {
            create: self.create.bind(&pool),
            wait: self.wait.bind(&pool),
            used: self.used.bind(&pool),
            servers: servers.collect(),
        })
    }
}

/// How long things take at one upstream.
#[derive(Debug)]
pub struct Timings {
    create: BoundHistogram<f64>,
    wait: BoundHistogram<f64>,
    used: BoundHistogram<f64>,
    servers: Vec<(String, u16, Arc<Operations>)>,
}

impl Timings {
    /// A server connection was opened.
    pub fn created(&self, took: Duration) {
        self.create.record(took.as_secs_f64());
    }

    /// Somebody was given a server connection.
    pub fn waited(&self, took: Duration) {
        self.wait.record(took.as_secs_f64());
    }

    /// A server connection was used, and is back or closed.
    pub fn used(&self, took: Duration) {
        self.used.record(took.as_secs_f64());
    }

    /// Those of a server; none where the upstream is not configured with it any more.
    #[must_use]
    pub fn operations(&self, host: &str, port: u16) -> Option<Arc<Operations>> {
        let mut servers = self.servers.iter();
        let found = servers.find(|(its, at, _)| its == host && *at == port);
        found.map(|(_, _, operations)| Arc::clone(operations))
    }
}

/// How long a server takes for what clients ask.
#[derive(Debug)]
pub struct Operations {
    well: BoundHistogram<f64>,
    /// By the place of the code, bound when the first fails so. Held for a few instructions.
    failed: Mutex<Vec<Option<BoundHistogram<f64>>>>,
    histogram: Histogram<f64>,
    attributes: Vec<KeyValue>,
}

impl Operations {
    /// One was answered; with an error where there is a code.
    #[inline]
    pub fn answered(&self, took: Duration, failed: Option<Code>) {
        match failed {
            None => self.well.record(took.as_secs_f64()),
            Some(code) => self.failed(took, code),
        }
    }

    #[cold]
    fn failed(&self, took: Duration, code: Code) {
        let mut failed = self.failed.lock();
        let bound = failed[code.place()].get_or_insert_with(|| {
            let mut attributes = self.attributes.clone();
            attributes.push(KeyValue::new(
                attribute::DB_RESPONSE_STATUS_CODE,
                code.as_str(),
            ));
            attributes.push(KeyValue::new(attribute::ERROR_TYPE, code.as_str()));
            self.histogram.bind(&attributes)
        });
        bound.record(took.as_secs_f64());
    }
}
