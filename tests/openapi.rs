//! `GET /openapi.json`: it describes what is served, and would notice what is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use serde_json::{Value, json};
use support::Sidecar;
use support::schema::{complaint, mutants};
use support::session::place;

/// Answers of every route that answers JSON, while a session works, with who was asked.
async fn answers(sidecar: &Sidecar) -> Vec<(&'static str, String, u16, Value)> {
    let mut answers = Vec::new();
    let mut ask = async |method: &'static str, path: &str, body: Option<Value>| {
        let (status, body) = sidecar.control(method, path, body).await;
        answers.push((method, path.to_owned(), status, body));
    };
    let begin = json!({"id": "a", "labels": {"agent": "sales"}, "deadline": "5m"});
    ask("POST", "/v1/executions", Some(begin.clone())).await;
    ask("POST", "/v1/executions", Some(begin)).await;
    let mut session = sidecar.session("app", "a").await;
    session.query("BEGIN").await;
    ask("GET", "/v1/status", None).await;
    ask("GET", "/v1/status?include=executions,sessions", None).await;
    ask("GET", "/v1/status?include=backends", None).await;
    ask("GET", "/v1/executions", None).await;
    ask("GET", "/v1/executions/a", None).await;
    ask("GET", "/v1/executions/nobody", None).await;
    ask(
        "POST",
        "/v1/executions/a/heartbeat",
        Some(json!({"extend": "1m"})),
    )
    .await;
    ask("GET", "/v1/sessions", None).await;
    ask("GET", "/v1/sessions?state=sleeping", None).await;
    ask("GET", "/v1/database/health", None).await;
    ask("GET", "/v1/config", None).await;
    ask("POST", "/v1/reload", None).await;
    ask("POST", "/v1/pause?timeout=0s", None).await;
    ask("GET", "/v1/status", None).await;
    ask("POST", "/v1/resume", None).await;
    ask("POST", "/v1/reconnect", None).await;
    ask("GET", "/api/memory/debug/connections/status", None).await;
    ask("POST", "/api/memory/debug/connections/cleanup", None).await;
    ask("DELETE", "/v1/executions/a?reason=done", None).await;
    ask("GET", "/v1/executions?ended=true", None).await;
    ask("POST", "/v1/drain", None).await;
    ask("POST", "/quitquitquit", None).await;
    answers
}

/// Properties that may be missing: their descriptions say when. Entries of maps, whose names are
/// data, may be missing as well.
fn may_be_missing(what: &str) -> bool {
    let (at, name) = what.split_once(" - ").unwrap_or((what, ""));
    let is_map = [
        "/knobs",
        "/labels",
        "/parameters",
        "/ended",
        "/refused",
        "/executions",
    ]
    .iter()
    .any(|map| at.ends_with(map));
    let is_included = at.ends_with("/included");
    is_map || is_included || ["remaining_pids", "errors", "tcp", "included"].contains(&name)
}

#[tokio::test]
async fn every_answer_is_as_described_and_a_changed_one_is_noticed() {
    let (_database, sidecar) = place("described", "").await;
    let served = sidecar.get("/openapi.json").await;
    assert_eq!(served, execpool::control::openapi::document());
    assert_eq!(served["openapi"], "3.1.0");
    let mut tried = 0;
    for (method, path, status, body) in answers(&sidecar).await {
        assert_eq!(complaint(method, &path, status, &body), None);
        for (what, mutant) in mutants("", &body) {
            let noticed = complaint(method, &path, status, &mutant).is_some();
            assert!(
                noticed || may_be_missing(&what),
                "{method} {path}: {what} is not noticed"
            );
            tried += 1;
        }
        let other = complaint(method, &path, 418, &body);
        assert!(
            other.is_some_and(|why| why.contains("not described")),
            "{path}"
        );
    }
    assert!(tried > 300, "{tried} mutants");
}
