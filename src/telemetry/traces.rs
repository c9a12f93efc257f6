//! Spans, as the rest of the process makes them: none of it names OpenTelemetry.

use std::time::SystemTime;

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags,
    TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use crate::protocol::traceparent::Traceparent;

/// How much of a text a span has, in bytes: what waits to be sent has an end, and clients choose texts.
const LONGEST: usize = 1024;

/// Who makes spans. Made where `telemetry.traces` is on and somebody takes them.
#[derive(Debug, Clone)]
pub struct Traces(SdkTracer);

/// Where a span belongs: the span above it, here or elsewhere.
#[derive(Debug, Clone)]
pub struct Parent(SpanContext);

impl From<Traceparent> for Parent {
    fn from(it: Traceparent) -> Self {
        Self(SpanContext::new(
            TraceId::from_bytes(it.trace_id.0),
            SpanId::from_bytes(it.span_id),
            // Of the others nothing is known.
            TraceFlags::new(it.flags) & TraceFlags::SAMPLED,
            true,
            // `tracestate` is not passed on.
            TraceState::NONE,
        ))
    }
}

/// A span that has begun. It is sent when it is ended, or dropped, if it is recorded.
#[derive(Debug)]
pub struct Span(opentelemetry_sdk::trace::Span);

impl Traces {
    pub(super) fn new(tracer: SdkTracer) -> Self {
        Self(tracer)
    }

    /// Begins a span, at that time, under another one or as the first of a trace. The sampler decides
    /// whether it is recorded.
    #[must_use]
    pub fn begin(&self, name: &'static str, parent: Option<&Parent>, at: SystemTime) -> Span {
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent.0.clone()),
            None => Context::new(),
        };
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Internal)
            .with_start_time(at);
        Span(self.0.build_with_context(builder, &context))
    }
}

impl Span {
    /// Whether anybody will see it: without, nothing need be told of it.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_recording()
    }

    /// What its children belong to.
    #[must_use]
    pub fn as_parent(&self) -> Parent {
        Parent(self.0.span_context().clone())
    }

    /// Tells something of it.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(name, value));
    }

    /// Tells a text of it, cut at a kilobyte.
    pub fn set_text(&mut self, name: &'static str, text: &str) {
        // A character has at most four bytes, so that a boundary is near.
        let mut ends = (0..=text.len().min(LONGEST)).rev();
        let end = ends.find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.set(name, text[..end].to_owned());
    }

    /// Something happened in it, then.
    pub fn event(&mut self, name: &'static str, at: SystemTime) {
        self.0.add_event_with_timestamp(name, at, Vec::new());
    }

    /// It has failed: the kind, out of a closed set, and what people are told.
    pub fn fail(&mut self, kind: &str, message: String) {
        self.set("error.type", kind.to_owned());
        self.0.set_status(Status::error(message));
    }

    /// Ends it, at that time.
    pub fn end(mut self, at: SystemTime) {
        self.0.end_with_timestamp(at);
    }
}
