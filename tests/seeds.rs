//! What agent backends test of their own connection cleanup holds here for psycopg and SQLAlchemy,
//! from outside their process: one execution, several at once, one that fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use support::sidecar::upstream;
use support::{Postgres, Sidecar, tools};

#[tokio::test]
async fn single_concurrent_and_failing_executions_are_cleaned_up() {
    let database = Postgres::shared().database("seeds").await;
    let sidecar = Sidecar::start(upstream("seeds", &database.url())).await;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/seeds.py");
    let output = tokio::process::Command::new(tools::python())
        .arg(program)
        .args([sidecar.pg_host(), "seeds"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(300), output).await;
    let output = output.expect("it ends").expect("python3 can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let seen: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");

    let single = &seen["single"];
    let counts = json!({"sql_engines": 2, "sql_databases": 2, "custom_connections": 0});
    assert_eq!(single["inside"], counts, "{single}");
    assert_eq!(
        (&single["before"], &single["after"]),
        (&json!(2), &json!(0)),
        "{single}"
    );
    assert_eq!(
        (&single["listed"], &single["complete"]),
        (&json!({}), &json!(true)),
        "{single}"
    );

    let concurrent = &seen["concurrent"];
    let isolated = json!({
        "one after": 0, "two before": 2, "three before": 2, "two": "works", "three": "works",
    });
    assert_eq!(concurrent["seen"], isolated, "{concurrent}");
    assert_eq!(concurrent["after"], json!([0, 0, 0]), "{concurrent}");

    let failed = json!({"raised": "the agent failed", "after": 0, "complete": true});
    assert_eq!(seen["exception"], failed);
    assert_eq!(seen["cleanup"], json!({}));
}

#[tokio::test]
async fn the_settings_of_such_backends_are_understood() {
    let database = Postgres::shared().database("seeds_settings").await;
    let sidecar = Sidecar::options()
        .env("DATABASE_URL", database.url())
        .env("DB_POOL_SIZE", "7")
        .env("DB_MAX_OVERFLOW", "4")
        .env("MAX_TASK_DURATION", "90")
        .env("RESOURCE_CLEANUP_INTERVAL", "60")
        .env("LOG_RESOURCE_USAGE", "false")
        .start()
        .await;
    let budget = &sidecar.get("/v1/status").await["budget"];
    assert_eq!(
        (&budget["size"], &budget["limit"]),
        (&json!(7), &json!(11)),
        "{budget}"
    );
    let id = json!({"id": "a"});
    let (status, created) = sidecar.control("POST", "/v1/executions", Some(id)).await;
    assert_eq!(status, 201, "{created}");
    let deadline = created["deadline_seconds"].as_f64().unwrap();
    assert!((80.0..=90.0).contains(&deadline), "{created}");
}
