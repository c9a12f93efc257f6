//! What spans tell, and what they never do.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::collector::Collector;
use crate::support::session::{assert_in, error};
use crate::{
    CHECKOUT, EXECUTION, SOON, SPAN, TRACE, enter, of, options, seconds, spans, traceparent, visit,
};

/// A pool of one, of which the second has too much.
const NARROW: &str = "pool: {size: 1, overflow: 0, timeout: 8s}\n";

#[tokio::test]
async fn a_wait_in_vain_is_a_span_that_says_why_and_its_log_line_names_the_trace() {
    let collector = Collector::start().await;
    let sidecar = options("refused_span", &collector.endpoint(), NARROW)
        .await
        .start()
        .await;
    let mut holder = enter(&sidecar, "narrow", "").await;
    holder.query("BEGIN").await;
    let mut second = enter(&sidecar, "narrow", &traceparent(true)).await;
    let told = error(&second.query("SELECT 'secret'").await);
    assert_eq!(told[&'C'], "53300");
    let refused = &spans(&collector, CHECKOUT, 1).await[0];
    assert_eq!(
        (&*refused.trace_id, &*refused.parent_span_id),
        (TRACE, SPAN)
    );
    assert_eq!(refused.status["code"], 2);
    assert_eq!(refused.status["message"], told[&'M']);
    for (name, value) in [
        ("db.response.status_code", json!("53300")),
        ("error.type", json!("53300")),
        ("execpool.checkout.outcome", json!("refused")),
        ("execpool.checkout.limit", json!("pool")),
        ("execpool.execution.id", json!("narrow")),
        ("server.address", Value::Null),
        ("execpool.checkout.held", Value::Null),
    ] {
        assert_eq!(refused.attributes[name], value, "{name}: {refused:#?}");
    }
    let waited = seconds(refused, "execpool.checkout.wait");
    assert!((8.0..80.0).contains(&waited), "{waited}");
    let line = sidecar.logged(&["\"checkout.refused\""]).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["trace_id"], TRACE);
    // Who waits long enough is told as one that waited.
    let waiter = tokio::spawn(async move {
        second.query("SELECT 1").await;
        second
    });
    sidecar.session_is("narrow", "waiting").await;
    holder.query("COMMIT").await;
    drop(holder);
    drop(waiter.await.unwrap());
    let all = spans(&collector, CHECKOUT, 3).await;
    let mut of_trace = all.iter().filter(|span| span.trace_id == TRACE);
    let granted = of_trace.next_back().unwrap();
    assert_eq!(
        granted.attributes["execpool.checkout.limit"], "pool",
        "{all:#?}"
    );
    assert_eq!(granted.attributes["execpool.checkout.outcome"], "returned");
    assert_eq!(granted.events[0]["name"], "execpool.checkout.granted");
}

#[tokio::test]
async fn a_cancelled_wait_and_one_whose_client_leaves_are_told_as_such() {
    let collector = Collector::start().await;
    let more = "pool: {size: 1, overflow: 0}\n";
    let sidecar = options("cancelled_span", &collector.endpoint(), more)
        .await
        .start()
        .await;
    // With these parameters, and with the driver's, sessions are let in at once from now on.
    visit(&sidecar, "narrow", "").await;
    let holder = sidecar.client("app", "narrow").await.unwrap();
    holder.simple_query("BEGIN").await.unwrap();
    let client = sidecar.client("app", "narrow").await.unwrap();
    let canceller = client.cancel_token();
    let query = tokio::spawn(async move { client.simple_query("SELECT 1").await.map(|_| ()) });
    sidecar.session_is("narrow", "waiting").await;
    canceller.cancel_query(tokio_postgres::NoTls).await.unwrap();
    assert!(query.await.unwrap().is_err());
    let cancelled = &spans(&collector, CHECKOUT, 2).await[1];
    assert_eq!(
        cancelled.attributes["execpool.checkout.outcome"],
        "cancelled"
    );
    assert_eq!(cancelled.attributes["error.type"], "57014");
    let mut leaver = enter(&sidecar, "narrow", "").await;
    leaver
        .send_with(|buffer| {
            postgres_protocol::message::frontend::query("SELECT 1", buffer).unwrap()
        })
        .await;
    sidecar.session_is("narrow", "waiting").await;
    drop(leaver);
    let left = &spans(&collector, CHECKOUT, 3).await[2];
    assert_eq!(left.attributes["execpool.checkout.outcome"], "left");
    assert_eq!(left.status.get("code"), None, "{left:#?}");
}

#[tokio::test]
async fn a_wait_for_the_right_to_come_in_is_told_too() {
    let collector = Collector::start().await;
    let sidecar = options("startup_span", &collector.endpoint(), NARROW)
        .await
        .start()
        .await;
    let mut holder = enter(&sidecar, "narrow", "").await;
    holder.query("BEGIN").await;
    // What has never connected with these parameters does so when it comes in.
    let trace = traceparent(true);
    let named = [
        ("execpool.execution_id", "narrow"),
        ("execpool.traceparent", &*trace),
        ("application_name", "another"),
    ];
    let (_, told) = sidecar.started("app", &named).await;
    assert_eq!(error(&told)[&'C'], "53300");
    let refused = &spans(&collector, CHECKOUT, 1).await[0];
    assert_eq!(
        (&*refused.trace_id, &*refused.parent_span_id),
        (TRACE, SPAN)
    );
    assert_eq!(refused.attributes["execpool.checkout.outcome"], "refused");
    let waiter = async {
        let (mut session, told) = sidecar.started("app", &named).await;
        assert_in(&told);
        session.ask("SELECT 1").await
    };
    let release = async {
        sidecar.session_is("narrow", "startup").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        drop(holder);
    };
    tokio::join!(waiter, release);
    let all = spans(&collector, CHECKOUT, 3).await;
    let mut granted = all
        .iter()
        .filter(|span| span.attributes["execpool.checkout.outcome"] == "returned");
    let granted = granted.find(|span| span.trace_id == TRACE).unwrap();
    let waited = seconds(granted, "execpool.checkout.startup_wait");
    assert!((3.0..80.0).contains(&waited), "{waited}");
    // That wait is told as that alone.
    assert!(
        seconds(granted, "execpool.checkout.wait") < waited,
        "{granted:#?}"
    );
}

#[tokio::test]
async fn a_checkout_tells_who_and_where_and_nothing_of_what_was_asked() {
    const CANARY: &str = "canary-8f1c";
    let collector = Collector::start().await;
    let sidecar = options("canary_span", &collector.endpoint(), "")
        .await
        .start()
        .await;
    let named = [
        ("execpool.execution_id", "run-1"),
        (
            "execpool.caller",
            "app/db.py:12 connect < app/run.py:7 main",
        ),
        ("execpool.label", "search"),
        ("application_name", "agent"),
    ];
    let (mut session, _) = sidecar.started("app", &named).await;
    session.query(&format!("SELECT '{CANARY}'")).await;
    session
        .query(&format!("SELECT no_such_function('{CANARY}')"))
        .await;
    session
        .query(&format!("SET application_name = '{CANARY}'"))
        .await;
    drop(session);
    let checkout = spans(&collector, CHECKOUT, 1).await.remove(0);
    sidecar
        .control(
            "DELETE",
            &format!("/v1/executions/run-1?reason={CANARY}"),
            None,
        )
        .await;
    let execution = spans(&collector, EXECUTION, 1).await.remove(0);
    let told = &checkout.attributes;
    for (name, value) in [
        ("db.system.name", json!("postgresql")),
        ("db.client.connection.pool.name", json!("app")),
        ("execpool.execution.id", json!("run-1")),
        ("execpool.label", json!("search")),
        ("code.file.path", json!("app/db.py")),
        ("code.line.number", json!(12)),
        ("code.function.name", json!("connect")),
        ("execpool.checkout.queries", json!(3)),
        ("execpool.checkout.leak_suspect", json!(false)),
    ] {
        assert_eq!(told[name], value, "{name}: {told:#}");
    }
    assert!(
        told["db.namespace"]
            .as_str()
            .unwrap()
            .contains("canary_span")
    );
    assert!(told["execpool.session.id"].as_i64().unwrap() > 0);
    assert!(told["server.port"].as_i64().unwrap() > 0);
    assert!(!told["server.address"].as_str().unwrap().is_empty());
    let all = format!("{checkout:?}{execution:?}");
    for secret in [CANARY, "SELECT", "no_such_function"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    // Of one that says nothing, nothing is made up.
    visit(&sidecar, "run-2", "").await;
    let plain = spans(&collector, CHECKOUT, 2).await;
    let plain = of(&plain, "run-2");
    assert_eq!(plain.attributes["execpool.label"], Value::Null);
    assert_eq!(plain.attributes["code.file.path"], Value::Null);
}

/// What the last export may take.
const LAST_EXPORT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn what_is_not_sent_yet_is_sent_at_the_end() {
    let options = options("last_spans", "", "")
        .await
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let begun = Instant::now();
    let collector = loop {
        let collector = Collector::start().await;
        let mut sidecar = options
            .clone()
            .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint())
            .start()
            .await;
        visit(&sidecar, "run-1", "").await;
        sidecar.settles().await;
        let asked = Instant::now();
        sidecar.signal(nix::sys::signal::Signal::SIGTERM);
        sidecar.exited(SOON).await;
        // The machine may stand still for all the time that there is for it.
        let took = asked.elapsed();
        if took < LAST_EXPORT || begun.elapsed() > SOON {
            break collector;
        }
    };
    spans(&collector, CHECKOUT, 1).await;
    let execution = &spans(&collector, EXECUTION, 1).await[0];
    assert_eq!(
        execution.attributes["execpool.execution.reason"],
        "shutdown"
    );
}
