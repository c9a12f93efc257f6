//! What an app registers with its execution, beside its sessions: it is counted and shown while it is
//! there, forgotten when its time is over, and told to whoever can close it when it is left.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::session::place;
use support::{SOON, Sidecar, eventually};

async fn begin(sidecar: &Sidecar, id: &str) {
    let begun = sidecar.control("POST", "/v1/executions", Some(json!({"id": id})));
    let (status, created) = begun.await;
    assert_eq!(status, 201, "{created}");
}

/// Asks for a resource.
async fn post(sidecar: &Sidecar, execution: &str, body: Value) -> (u16, Value) {
    let path = format!("/v1/executions/{execution}/resources");
    sidecar.control("POST", &path, Some(body)).await
}

/// Registers a resource, and answers its number.
async fn register(sidecar: &Sidecar, execution: &str, kind: &str, name: &str) -> u64 {
    let (status, one) = post(sidecar, execution, json!({"kind": kind, "name": name})).await;
    assert_eq!(status, 201, "{one}");
    one["id"].as_u64().expect("a number")
}

async fn release(sidecar: &Sidecar, execution: &str, id: u64) -> (u16, Value) {
    let path = format!("/v1/executions/{execution}/resources/{id}");
    sidecar.control("DELETE", &path, None).await
}

/// Counts by kind, of which all but these are none.
fn counts(some: Value) -> Value {
    let mut all = json!({"connection": 0, "browser": 0, "http": 0, "file": 0, "other": 0});
    for (kind, count) in some.as_object().expect("an object") {
        all[kind] = count.clone();
    }
    all
}

async fn end(sidecar: &Sidecar, id: &str) -> Value {
    let path = format!("/v1/executions/{id}");
    let (status, ended) = sidecar.control("DELETE", &path, None).await;
    assert_eq!(status, 200, "{ended}");
    ended
}

#[tokio::test]
async fn a_resource_is_listed_with_its_age_until_it_is_released_once() {
    let (_database, sidecar) = place("resources", "").await;
    begin(&sidecar, "run").await;
    let start = Instant::now();
    let (status, page) = post(
        &sidecar,
        "run",
        json!({"kind": "browser", "name": "checkout page", "ttl": "10m"}),
    )
    .await;
    assert_eq!((status, &page["kind"]), (201, &json!("browser")), "{page}");
    let http = register(&sidecar, "run", "http", "session").await;
    assert_ne!(page["id"], http);
    let seen = sidecar.get("/v1/executions/run").await;
    assert_eq!(
        seen["resources"],
        counts(json!({"browser": 1, "http": 1})),
        "{seen}"
    );
    let first = &seen["registered"][0];
    assert_eq!(
        (&first["id"], &first["name"]),
        (&page["id"], &json!("checkout page"))
    );
    let age = first["age_seconds"].as_f64().unwrap();
    assert!(
        (0.0..=start.elapsed().as_secs_f64()).contains(&age),
        "{seen}"
    );
    let left = first["expires_in_seconds"].as_f64().unwrap();
    assert!((540.0..=600.0).contains(&left), "{seen}");
    assert_eq!(seen["registered"][1]["expires_in_seconds"], Value::Null);
    let listed = sidecar.get("/v1/executions").await;
    let listed = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["id"] == "run");
    assert_eq!(listed.unwrap()["resources"], seen["resources"]);

    begin(&sidecar, "other").await;
    let (status, problem) = release(&sidecar, "other", http).await;
    assert_eq!(
        (status, &problem["code"]),
        (404, &json!("no_such_resource"))
    );
    assert_eq!(release(&sidecar, "run", http).await, (204, Value::Null));
    let (status, problem) = release(&sidecar, "run", http).await;
    assert_eq!(
        (status, &problem["code"]),
        (404, &json!("no_such_resource"))
    );
    let seen = sidecar.get("/v1/executions/run").await;
    assert_eq!(seen["resources"], counts(json!({"browser": 1})), "{seen}");
}

#[tokio::test]
async fn the_status_of_the_seeds_counts_them_as_custom_connections() {
    let (_database, sidecar) = place("resources_seeds", "").await;
    begin(&sidecar, "run").await;
    for kind in ["connection", "file"] {
        register(&sidecar, "run", kind, "x").await;
    }
    register(&sidecar, "shared", "other", "y").await;
    let status = sidecar.get("/api/memory/debug/connections/status").await;
    let stats = &status["data"]["connection_stats"];
    let run = json!({"sql_engines": 0, "sql_databases": 0, "custom_connections": 2});
    assert_eq!(stats["executions"], json!({"run": run}), "{stats}");
    assert_eq!(stats["total_tracked_connections"], 2, "{stats}");
    let status = sidecar.get("/v1/status").await;
    let registered = counts(json!({"connection": 1, "file": 1, "other": 1}));
    assert_eq!(status["resources"]["registered"], registered, "{status}");
}

#[tokio::test]
async fn one_whose_time_is_over_is_forgotten_logged_and_counted() {
    let (_database, sidecar) = place("resources_ttl", "").await;
    begin(&sidecar, "run").await;
    let kept = register(&sidecar, "run", "http", "kept").await;
    let short = json!({"kind": "file", "name": "short-lived", "ttl": "100ms"});
    assert_eq!(post(&sidecar, "run", short).await.0, 201);
    eventually(SOON, "it is forgotten", async || {
        let seen = sidecar.get("/v1/executions/run").await;
        let only = seen["registered"].as_array().unwrap().len() == 1;
        only.then_some(()).ok_or(seen)
    })
    .await;
    let seen = sidecar.get("/v1/executions/run").await;
    assert_eq!(seen["registered"][0]["id"], kept, "{seen}");
    let status = sidecar.get("/v1/status").await;
    assert_eq!(status["resources"]["expired"], 1, "{status}");
    eventually(SOON, "the log says so", async || {
        let log = sidecar.log();
        let said =
            |line: &String| line.contains("resource.expired") && line.contains("short-lived");
        log.iter().any(said).then_some(()).ok_or(log)
    })
    .await;
    let ended = end(&sidecar, "run").await;
    assert_eq!(ended["resources_left"], counts(json!({"http": 1})));
}

#[tokio::test]
async fn what_is_left_at_the_end_is_counted_logged_and_told_to_holds_before_the_last_line() {
    let (_database, sidecar) = place("resources_left", "").await;
    begin(&sidecar, "run").await;
    let mut holds = Vec::new();
    for _ in 0..2 {
        holds.push(sidecar.stream("/v1/executions/run/hold").await);
    }
    let page = register(&sidecar, "run", "browser", "checkout page").await;
    let released = register(&sidecar, "run", "http", "closed in time").await;
    assert_eq!(release(&sidecar, "run", released).await.0, 204);
    let ended = end(&sidecar, "run").await;
    assert_eq!(ended["resources_left"], counts(json!({"browser": 1})));
    assert_eq!(ended["leftovers"], 0, "of server connections: {ended}");
    assert_eq!(ended["complete"], true, "{ended}");
    for hold in holds {
        let text = hold.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        let lines = text.lines().filter(|line| !line.is_empty());
        let lines: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["event"], "resources_left", "{text}");
        let left = lines[0]["resources"].as_array().unwrap();
        assert_eq!(left.len(), 1, "{text}");
        assert_eq!(
            (&left[0]["id"], &left[0]["name"]),
            (&json!(page), &json!("checkout page"))
        );
        assert_eq!(lines[1], json!({"event": "ended", "reason": "deleted"}));
    }
    let kept = sidecar.get("/v1/executions/run").await;
    assert_eq!(kept["resources_left"], counts(json!({"browser": 1})));
    sidecar
        .logged(&["execution.resources_left", "browser checkout page"])
        .await;
    let log = sidecar.log();
    assert!(!log.iter().any(|line| line.contains("closed in time")));
    // Another generation of the name has none of them.
    begin(&sidecar, "run").await;
    let seen = sidecar.get("/v1/executions/run").await;
    assert_eq!(seen["resources"], counts(json!({})), "{seen}");
    assert_eq!(release(&sidecar, "run", page).await.0, 404);
    let status = sidecar.get("/v1/status").await;
    assert_eq!(status["resources"]["registered"], counts(json!({})));
}

#[tokio::test]
async fn a_hold_of_an_execution_that_leaves_nothing_is_told_its_end_alone() {
    let (_database, sidecar) = place("resources_none", "").await;
    begin(&sidecar, "run").await;
    let hold = sidecar.stream("/v1/executions/run/hold").await;
    end(&sidecar, "run").await;
    let text = hold.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert_eq!(text.trim(), "{\"event\":\"ended\",\"reason\":\"deleted\"}");
}

#[tokio::test]
async fn resources_keep_no_implicit_execution_alive_and_begin_none() {
    let more = "execution: {idle_timeout: 200ms}\n";
    let (database, sidecar) = place("resources_implicit", more).await;
    let body = json!({"kind": "http", "name": "client"});
    let (status, problem) = post(&sidecar, "thinks", body).await;
    assert_eq!(
        (status, &problem["code"]),
        (404, &json!("no_such_execution"))
    );
    let client = sidecar.client("app", "thinks").await.unwrap();
    register(&sidecar, "thinks", "http", "client").await;
    drop(client);
    eventually(SOON, "it leaves", async || {
        let seen = sidecar.get("/v1/executions/thinks").await;
        (seen["state"] == "ended").then_some(()).ok_or(seen)
    })
    .await;
    let ended = sidecar.get("/v1/executions/thinks").await;
    assert_eq!(ended["reason"], "idle", "{ended}");
    assert_eq!(ended["resources_left"], counts(json!({"http": 1})));
    drop(database);
}

#[tokio::test]
async fn the_thousand_and_first_is_refused_with_what_to_do_and_status_stays_quick() {
    let (_database, sidecar) = place("resources_many", "").await;
    begin(&sidecar, "run").await;
    let mut first = None;
    for _ in 0..1000 {
        let id = register(&sidecar, "run", "other", &"x".repeat(256)).await;
        first.get_or_insert(id);
    }
    let more = json!({"kind": "other", "name": "one more"});
    let (status, problem) = post(&sidecar, "run", more.clone()).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("too_many_resources"))
    );
    assert!(
        problem["hint"].as_str().unwrap().contains("DELETE"),
        "{problem}"
    );
    // The quickest of some: a busy machine may stand still in any of them.
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        sidecar.get("/v1/status").await;
        quickest = quickest.min(start.elapsed());
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    release(&sidecar, "run", first.unwrap()).await;
    assert_eq!(post(&sidecar, "run", more).await.0, 201);
    let ended = end(&sidecar, "run").await;
    assert_eq!(ended["resources_left"], counts(json!({"other": 1000})));
}

#[tokio::test]
async fn nonsense_is_refused_and_administrative_rights_are_not_needed() {
    let (_database, sidecar) = place("resources_refused", "control: {admin: off}\n").await;
    begin(&sidecar, "run").await;
    for body in [
        json!({"kind": "socket", "name": "x"}),
        json!({"kind": "http"}),
        json!({"kind": "http", "name": "x".repeat(257)}),
        json!({"kind": "http", "name": "x", "ttl": "5"}),
    ] {
        let (status, problem) = post(&sidecar, "run", body).await;
        assert_eq!((status, &problem["code"]), (422, &json!("invalid_field")));
    }
    let id = register(&sidecar, "run", "connection", "redis").await;
    assert_eq!(release(&sidecar, "run", id).await.0, 204);
    let path = "/v1/executions/run/resources/x";
    assert_eq!(sidecar.control("DELETE", path, None).await.0, 404);
}
