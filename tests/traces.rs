//! Spans of checkouts and executions, as a real collector gets them: whose they are, what they tell, which
//! are made, and that nobody waits for whoever takes them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

#[path = "traces/joined.rs"]
mod joined;
#[path = "traces/lost.rs"]
mod lost;
#[path = "traces/parents.rs"]
mod parents;
#[path = "traces/sampled.rs"]
mod sampled;
#[path = "traces/told.rs"]
mod told;

use std::time::Duration;

use support::collector::{Collector, Span};
use support::session::assert_in;
use support::sidecar::{SidecarOptions, upstream};
use support::{Postgres, Raw, SOON, Sidecar, eventually};

const CHECKOUT: &str = "execpool.checkout";
const EXECUTION: &str = "execpool.execution";

/// A trace that somebody has begun, and a span in it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Traces, to there, often; with more configuration.
async fn options(name: &str, endpoint: &str, more: &str) -> SidecarOptions {
    let database = Postgres::shared().database(name).await;
    Sidecar::options()
        .config(upstream("app", &database.url()) + more)
        .env("EXECPOOL_TELEMETRY__TRACES", "on")
        .env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0")
        .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        // Each span arrives, also where the machine stands still for a while.
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")
}

/// The span that asks, sampled or not.
fn traceparent(is_sampled: bool) -> String {
    format!("00-{TRACE}-{SPAN}-0{}", u8::from(is_sampled))
}

/// A session of `execution` that belongs to a trace, which asks something and is gone.
async fn visit(sidecar: &Sidecar, execution: &str, traceparent: &str) {
    let mut session = enter(sidecar, execution, traceparent).await;
    assert_eq!(session.ask("SELECT 7").await, "7");
    drop(session);
}

/// The same without its question and its end. An empty traceparent is none.
async fn enter(sidecar: &Sidecar, execution: &str, traceparent: &str) -> Raw {
    let all = [
        ("execpool.execution_id", execution),
        ("execpool.traceparent", traceparent),
    ];
    let said: Vec<_> = all
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let (raw, told) = sidecar.started("app", &said).await;
    assert_in(&told);
    raw
}

/// Waits until there are so many spans of that name; there must not be more.
async fn spans(collector: &Collector, name: &str, count: usize) -> Vec<Span> {
    let claim = format!("{count} of {name} arrive");
    let found = eventually(SOON, &claim, async || {
        let all = collector.spans();
        let found: Vec<Span> = all.into_iter().filter(|span| span.name == name).collect();
        match found.len() >= count {
            true => Ok(found),
            false => Err(found),
        }
    })
    .await;
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

/// The one checkout of an execution.
fn of<'a>(spans: &'a [Span], execution: &str) -> &'a Span {
    let mut found = spans
        .iter()
        .filter(|span| span.attributes["execpool.execution.id"] == execution);
    match (found.next(), found.next()) {
        (Some(span), None) => span,
        _ => panic!("not one span of {execution}: {spans:#?}"),
    }
}

/// A number of seconds.
fn seconds(span: &Span, name: &str) -> f64 {
    let told = span.attributes[name].as_f64();
    told.unwrap_or_else(|| panic!("no {name}: {:#}", span.attributes))
}

fn lasted(span: &Span) -> f64 {
    Duration::from_nanos(span.end - span.start).as_secs_f64()
}
