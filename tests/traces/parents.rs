//! Under which span one is, whatever a client says.

use serde_json::json;

use crate::support::collector::Collector;
use crate::support::eventually;
use crate::{
    CHECKOUT, EXECUTION, SOON, SPAN, TRACE, enter, of, options, spans, traceparent, visit,
};

#[tokio::test]
async fn an_execution_is_a_span_and_checkouts_without_a_trace_are_its_children() {
    let collector = Collector::start().await;
    let sidecar = options("parents", &collector.endpoint(), "")
        .await
        .start()
        .await;
    visit(&sidecar, "first-named", &traceparent(true)).await;
    visit(&sidecar, "first-named", "").await;
    visit(&sidecar, "unnamed", "").await;
    visit(&sidecar, "shared", "").await;
    let created = sidecar.control(
        "POST",
        "/v1/executions",
        Some(json!({"id": "never-joined"})),
    );
    assert_eq!(created.await.0, 201);
    let checkouts = spans(&collector, CHECKOUT, 4).await;
    for id in ["first-named", "unnamed", "never-joined", "shared"] {
        let path = format!("/v1/executions/{id}");
        sidecar.control("DELETE", &path, None).await;
    }
    let executions = spans(&collector, EXECUTION, 3).await;

    let first = of(&executions, "first-named");
    assert_eq!((&*first.trace_id, &*first.parent_span_id), (TRACE, SPAN));
    assert_eq!(first.attributes["execpool.execution.sessions"], 2);
    assert_eq!(first.attributes["execpool.execution.queries"], 2);
    assert_eq!(first.attributes["execpool.execution.generation"], 1);
    let mut parents: Vec<_> = checkouts
        .iter()
        .filter(|span| span.attributes["execpool.execution.id"] == "first-named")
        .map(|span| (&*span.trace_id, &*span.parent_span_id))
        .collect();
    parents.sort_unstable();
    let mut expected = [(TRACE, SPAN), (TRACE, &*first.span_id)];
    expected.sort_unstable();
    assert_eq!(parents, expected);

    let (root, child) = (of(&executions, "unnamed"), of(&checkouts, "unnamed"));
    assert_eq!(root.parent_span_id, "");
    assert_eq!(
        (&child.trace_id, &child.parent_span_id),
        (&root.trace_id, &root.span_id)
    );
    assert_eq!(of(&executions, "never-joined").parent_span_id, "");
    // It never ends, and is no span.
    let shared = of(&checkouts, "shared");
    assert_eq!(shared.parent_span_id, "");
    assert!(![TRACE, &root.trace_id].contains(&&*shared.trace_id));
}

#[tokio::test]
async fn an_end_that_nobody_asked_for_is_an_error() {
    let collector = Collector::start().await;
    let more = "execution: {max_duration: 8s}\n";
    let sidecar = options("span_ends", &collector.endpoint(), more)
        .await
        .start()
        .await;
    let mut session = enter(&sidecar, "late", "").await;
    session.query("SELECT pg_sleep(60)").await;
    let execution = &spans(&collector, EXECUTION, 1).await[0];
    assert_eq!(execution.status["code"], 2, "{execution:#?}");
    assert_eq!(execution.attributes["error.type"], "deadline");
    let checkout = &spans(&collector, CHECKOUT, 1).await[0];
    assert_eq!(checkout.status["code"], 2, "{checkout:#?}");
    assert_eq!(checkout.attributes["error.type"], "57P01");
    assert_eq!(checkout.attributes["execpool.checkout.outcome"], "closed");
}

#[tokio::test]
async fn a_hostile_traceparent_is_ignored_and_nobody_is_refused_for_it() {
    let collector = Collector::start().await;
    let sidecar = options("hostile_parents", &collector.endpoint(), "")
        .await
        .env("EXECPOOL_LOG__LEVEL", "debug")
        .start()
        .await;
    let good = traceparent(true);
    let hostile = [
        "garbage".to_owned(),
        "x".repeat(9_000),
        good.to_uppercase(),
        format!("ff{}", &good[2..]),
        format!("{good}-more"),
        good.replace(TRACE, &"0".repeat(32)),
        good.replace(SPAN, &"0".repeat(16)),
        good.replace('-', "\n"),
        good.replace('-', "'; DROP TABLE x; --"),
        "🦀".repeat(20),
    ];
    for traceparent in &hostile {
        visit(&sidecar, "shared", traceparent).await;
    }
    for checkout in spans(&collector, CHECKOUT, hostile.len()).await {
        assert_eq!(checkout.parent_span_id, "", "{checkout:#?}");
        assert_ne!(checkout.trace_id, TRACE);
        assert_ne!(checkout.trace_id, "0".repeat(32));
    }
    eventually(SOON, "each is logged once", async || {
        let lines = sidecar.log().into_iter();
        let lines: Vec<_> = lines
            .filter(|line| line.contains("no traceparent"))
            .collect();
        if lines.len() == hostile.len() {
            Ok(())
        } else {
            Err(lines)
        }
    })
    .await;
}
