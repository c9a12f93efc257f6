//! `GET /v1/status?include=…`: one look at everything, of a bounded size.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use serde_json::{Value, json};
use support::session::place;

/// The names of the executions in a list of sessions or executions.
fn names<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    let list = list["listed"].as_array().unwrap();
    list.iter()
        .map(|one| one[field].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn one_request_tells_counts_executions_and_sessions_of_one_moment() {
    let (_database, sidecar) = place("one_moment", "").await;
    let mut first = sidecar.session("app", "first").await;
    first.query("BEGIN").await;
    let mut second = sidecar.session("app", "second").await;
    second.ask("SELECT 1").await;
    let status = sidecar.get("/v1/status?include=executions,sessions").await;
    let included = &status["included"];
    assert_eq!(status["sessions"]["total"], 2, "{status}");
    assert_eq!(status["budget"]["used"], 2, "{status}");
    // Who has held for longest comes first.
    assert_eq!(
        names(&included["sessions"], "execution"),
        ["first", "second"]
    );
    let mut executions = names(&included["executions"], "id");
    executions.retain(|id| *id != "shared");
    assert_eq!(executions, ["first", "second"]);
    assert_eq!(included["sessions"]["left_out"], 0);
    let session = &included["sessions"]["listed"][0];
    assert_eq!(session["statement"], "BEGIN", "{session}");

    let one = "/v1/status?include=sessions&execution=second";
    let included = &sidecar.get(one).await["included"];
    assert_eq!(names(&included["sessions"], "execution"), ["second"]);
    assert_eq!(included["executions"], Value::Null);
    assert_eq!(sidecar.get("/v1/status").await["included"], Value::Null);
    let (status, problem) = sidecar
        .control("GET", "/v1/status?include=pools", None)
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (400, &json!("invalid_parameter"))
    );
    assert!(
        problem["hint"]
            .as_str()
            .unwrap()
            .contains("executions, sessions"),
        "{problem}"
    );
}

#[tokio::test]
async fn no_more_than_500_are_listed_who_holds_first_and_the_rest_is_counted() {
    let (_database, sidecar) = place("bounded_list", "").await;
    let mut open = Vec::new();
    for _ in 0..510 {
        open.push(sidecar.session("app", "many").await);
    }
    let mut holder = sidecar.session("app", "holder").await;
    holder.ask("SELECT 1").await;
    let status = sidecar.get("/v1/status?include=sessions").await;
    let sessions = &status["included"]["sessions"];
    let names = names(sessions, "execution");
    assert_eq!((names[0], names.len()), ("holder", 500));
    assert_eq!(sessions["left_out"], 11);
    assert_eq!(status["sessions"]["total"], 511);
}
