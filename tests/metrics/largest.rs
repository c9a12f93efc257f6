//! With `telemetry.top_executions` the largest executions are told by their ids, to a collector alone.

use crate::scraped::{SOON, scrape, scraping};
use crate::support::receiver::{Answer, Receiver};
use crate::support::sidecar::upstream;
use crate::support::{Postgres, eventually};

/// What the last export of a metric told.
fn told(receiver: &Receiver, name: &str) -> Vec<(String, f64)> {
    let received = receiver.received();
    let mut exports = received.iter().rev().map(|export| export.points(name));
    exports
        .find(|points| !points.is_empty())
        .unwrap_or_default()
}

fn of(told: &[(String, f64)], id: &str) -> Option<f64> {
    let wanted = format!("execpool.execution.id={id}");
    let mut points = told.iter();
    let (_, amount) = points.find(|(attributes, _)| *attributes == wanted)?;
    Some(*amount)
}

#[tokio::test]
async fn the_largest_executions_are_told_to_a_collector_and_on_no_port() {
    let database = Postgres::shared().database("largest").await;
    let receiver = Receiver::start(Answer::Takes).await;
    let sidecar = scraping(upstream("app", &database.url()))
        .env("EXECPOOL_TELEMETRY__TOP_EXECUTIONS", "2")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .start()
        .await;
    let mut sessions = Vec::new();
    for (id, count) in [("small", 1), ("large", 3), ("middle", 2)] {
        for _ in 0..count {
            let mut raw = sidecar.session("app", id).await;
            raw.query("SELECT 1").await;
            sessions.push(raw);
        }
    }
    let connections = "execpool.execution.connections";
    eventually(SOON, "the two largest are told", async || {
        let told = told(&receiver, connections);
        let found = ["large", "middle", "small"].map(|id| of(&told, id));
        match found == [Some(3.0), Some(2.0), None] {
            true => Ok(()),
            false => Err(told),
        }
    })
    .await;
    let held = told(&receiver, "execpool.execution.held");
    assert!(of(&held, "large").unwrap() > 0.0, "{held:?}");
    let port = scrape(&sidecar).await;
    let ids = port
        .series
        .keys()
        .find(|series| series.contains("execution_id"));
    assert_eq!(ids, None);
    sidecar
        .control("DELETE", "/v1/executions/large", None)
        .await;
    eventually(SOON, "one that has ended is not told", async || {
        let told = told(&receiver, connections);
        let found = ["large", "middle", "small"].map(|id| of(&told, id));
        match found == [None, Some(2.0), Some(1.0)] {
            true => Ok(()),
            false => Err(told),
        }
    })
    .await;
}
