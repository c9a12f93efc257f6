//! What was read at one moment, and the observable instruments that tell it.
//!
//! Instruments are asked on the thread of an exporter or a scraper, which must not wait: they tell the
//! last reading, whoever makes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use parking_lot::RwLock;

use super::catalogue::{Instrument, Metric, SNAPSHOT_AGE, Values};

/// One value of an attribute.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// A word of the closed set.
    Word(&'static str),
    /// What the configuration names, or an execution of the few that are told.
    Name(&'a str),
}

#[derive(Debug, Clone)]
struct Point {
    amount: f64,
    attributes: Vec<KeyValue>,
}

/// All that was read at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    at: Instant,
    points: HashMap<&'static str, Vec<Point>>,
}

impl Reading {
    /// Nothing yet, at this moment.
    #[must_use]
    pub fn at(at: Instant) -> Self {
        Self {
            at,
            points: HashMap::new(),
        }
    }

    /// Adds a value of a metric, with the values of its attributes in their order. A word that is none
    /// of the attribute's is `other`.
    pub fn put(&mut self, metric: &'static Metric, amount: f64, values: &[Value<'_>]) {
        debug_assert_eq!(metric.attributes.len(), values.len(), "{}", metric.name);
        let pairs = metric.attributes.iter().zip(values);
        let attributes = pairs.map(|(attribute, value)| match (attribute.values, value) {
            (Values::Words(known), Value::Word(word)) if known.contains(word) => {
                KeyValue::new(attribute.name, *word)
            }
            (Values::Words(_), _) => KeyValue::new(attribute.name, OTHER),
            (_, Value::Word(word)) => KeyValue::new(attribute.name, *word),
            (_, Value::Name(name)) => KeyValue::new(attribute.name, (*name).to_owned()),
        });
        let point = Point {
            amount,
            attributes: attributes.collect(),
        };
        self.points.entry(metric.name).or_default().push(point);
    }

    /// What is told of a metric: the values of its attributes, joined by a comma, with the amount.
    #[must_use]
    pub fn told(&self, metric: &Metric) -> Vec<(String, f64)> {
        let points = self.of(metric).iter();
        let all = points.map(|point| {
            let values = point.attributes.iter().map(|pair| pair.value.to_string());
            (values.collect::<Vec<_>>().join(","), point.amount)
        });
        all.collect()
    }

    fn of(&self, metric: &Metric) -> &[Point] {
        self.points.get(metric.name).map_or(&[], Vec::as_slice)
    }
}

/// The word for all that has none of its own.
const OTHER: &str = "other";

/// The last reading: written by one, read by many, and nobody waits for longer than it takes to copy
/// a pointer.
#[derive(Debug, Clone)]
pub struct Last(Arc<RwLock<Arc<Reading>>>);

impl Default for Last {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Arc::new(Reading::at(Instant::now())))))
    }
}

impl Last {
    /// This is the last one from now on.
    pub fn publish(&self, reading: Reading) {
        *self.0.write() = Arc::new(reading);
    }

    /// The last one.
    #[must_use]
    pub fn get(&self) -> Arc<Reading> {
        Arc::clone(&self.0.read())
    }

    /// Registers the observable ones of `metrics` on `meter`: they tell the last reading.
    pub fn observe(&self, meter: &Meter, metrics: &[&'static Metric]) {
        for metric in metrics {
            self.observe_one(meter, metric);
        }
    }

    fn observe_one(&self, meter: &Meter, metric: &'static Metric) {
        let last = self.clone();
        let (name, unit, told) = (metric.name, metric.unit, metric.description);
        if *metric == SNAPSHOT_AGE {
            let gauge = meter.f64_observable_gauge(name);
            let age = move |to: &dyn AsyncInstrument<f64>| {
                to.observe(last.get().at.elapsed().as_secs_f64(), &[]);
            };
            gauge
                .with_unit(unit)
                .with_description(told)
                .with_callback(age)
                .build();
            return;
        }
        // Seconds have fractions, and what is counted has none.
        let seconds = move |to: &dyn AsyncInstrument<f64>| {
            for point in last.get().of(metric) {
                to.observe(point.amount, &point.attributes);
            }
        };
        let last = self.clone();
        let count = move |to: &dyn AsyncInstrument<u64>| {
            for point in last.get().of(metric) {
                to.observe(point.amount as u64, &point.attributes);
            }
        };
        let last = self.clone();
        let sum = move |to: &dyn AsyncInstrument<i64>| {
            for point in last.get().of(metric) {
                to.observe(point.amount as i64, &point.attributes);
            }
        };
        macro_rules! build {
            ($builder:expr, $callback:expr) => {{
                let builder = $builder.with_unit(unit).with_description(told);
                builder.with_callback($callback).build();
            }};
        }
        match (metric.instrument, unit) {
            (Instrument::Counter, "s") => build!(meter.f64_observable_counter(name), seconds),
            (Instrument::Counter, _) => build!(meter.u64_observable_counter(name), count),
            (Instrument::UpDownCounter, _) => {
                build!(meter.i64_observable_up_down_counter(name), sum)
            }
            (Instrument::Gauge, "s") => build!(meter.f64_observable_gauge(name), seconds),
            (Instrument::Gauge, _) => build!(meter.u64_observable_gauge(name), count),
            (Instrument::Histogram(_), _) => {}
        }
    }
}
