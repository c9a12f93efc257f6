//! `POST /v1/executions/{id}/query`: a session like any other for callers without a driver, whose rows
//! are JSON, bounded in rows, bytes and time, and of which nothing is left whatever ends it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::session::place;
use support::sidecar::upstream;
use support::{Database, Postgres, SOON, Sidecar, eventually, http};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::process::Command;

/// One connection for all.
const ONE: &str = "budget: {size: 1, overflow: 0}\n";

/// Nobody waits in vain as long as a test goes on.
const PATIENT: &str = "pool: {timeout: 5m}\n";

/// Asks in the execution `run`.
async fn ask(sidecar: &Sidecar, body: Value) -> (u16, Value) {
    ask_in(sidecar, "run", body).await
}

async fn ask_in(sidecar: &Sidecar, execution: &str, body: Value) -> (u16, Value) {
    let path = format!("/v1/executions/{execution}/query");
    sidecar.control("POST", &path, Some(body)).await
}

/// The answer to a statement that must succeed.
async fn answered(sidecar: &Sidecar, body: Value) -> Value {
    match ask(sidecar, body.clone()).await {
        (200, answer) => answer,
        (status, problem) => panic!("{body}: {status} {problem}"),
    }
}

/// Asks, and goes before the answer when `gone` says so.
async fn vanishes(sidecar: &Sidecar, body: Value, gone: impl AsyncFnOnce()) {
    let mut stream = UnixStream::connect(sidecar.control_socket()).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "POST /v1/executions/run/query HTTP/1.1\r\nhost: e\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    gone().await;
    drop(stream);
}

/// Waits until so many backends of a database run `pg_sleep`.
async fn sleeping(database: &Database, count: usize) {
    let filter = format!(
        "datname = '{}' AND state = 'active' AND query LIKE '%pg_sleep%'",
        database.name
    );
    let claim = format!("{count} backends sleep");
    eventually(SOON, &claim, async || {
        let seen = Postgres::shared().activity(&filter).await;
        if seen.len() == count {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
}

/// Waits until so many checkouts wait.
async fn waiting(sidecar: &Sidecar, count: u64) {
    let claim = format!("{count} wait");
    eventually(SOON, &claim, async || {
        let status = sidecar.get("/v1/status").await;
        let waits = status["budget"]["waiting"] == count;
        waits.then_some(()).ok_or(status)
    })
    .await;
}

#[tokio::test]
async fn values_are_json_where_that_loses_nothing_and_text_otherwise() {
    let (_database, sidecar) = place("query_types", "").await;
    for sql in [
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TYPE pair AS (a int, b text)",
    ] {
        answered(&sidecar, json!({"sql": sql})).await;
    }
    let columns = [
        ("NULL::int", "int4", json!(null)),
        ("true", "bool", json!(true)),
        ("(-7)::int2", "int2", json!(-7)),
        ("2147483647", "int4", json!(2_147_483_647)),
        (
            "9223372036854775807",
            "int8",
            json!(9_223_372_036_854_775_807_i64),
        ),
        ("0.1::float4", "float4", json!(0.1)),
        ("1.5e300::float8", "float8", json!(1.5e300)),
        ("'NaN'::float8", "float8", json!("NaN")),
        ("'-Infinity'::float4", "float4", json!("-Infinity")),
        ("1.50::numeric", "numeric", json!("1.50")),
        (
            "'{\"b\": [1, null]}'::jsonb",
            "jsonb",
            json!({"b": [1, null]}),
        ),
        ("'[1 ,2]'::json", "json", json!([1, 2])),
        ("E'a\"\\nä'::text", "text", json!("a\"\nä")),
        ("'\\x00ff'::bytea", "bytea", json!("\\x00ff")),
        ("'2024-01-15'::date", "date", json!("2024-01-15")),
        ("ARRAY[1, 2]", "_int4", json!("{1,2}")),
        ("'ok'::mood", "mood", json!("ok")),
        ("ROW(1, 'x')::pair", "pair", json!("(1,x)")),
    ];
    let list: Vec<&str> = columns.iter().map(|(sql, ..)| *sql).collect();
    let answer = answered(
        &sidecar,
        json!({"sql": format!("SELECT {}", list.join(", "))}),
    )
    .await;
    for (at, (sql, name, value)) in columns.iter().enumerate() {
        assert_eq!(answer["columns"][at]["type"], *name, "{sql}: {answer}");
        assert_eq!(answer["rows"][0][at], *value, "{sql}: {answer}");
    }
    assert_eq!(answer["rows"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&answer["command"], &answer["truncated"]),
        (&json!("SELECT 1"), &json!(false))
    );
    let named = answered(&sidecar, json!({"sql": "SELECT 1 AS \"One more\""})).await;
    assert_eq!(named["columns"][0]["name"], "One more");
    let none = answered(&sidecar, json!({"sql": "CREATE TABLE t (a int)"})).await;
    let expected =
        json!({"columns": [], "rows": [], "command": "CREATE TABLE", "truncated": false});
    assert_eq!(none, expected);
    let empty = answered(&sidecar, json!({"sql": " -- nothing"})).await;
    assert_eq!(empty["command"], Value::Null);
    let vacuum = answered(&sidecar, json!({"sql": "VACUUM t"})).await;
    assert_eq!(
        vacuum["command"], "VACUUM",
        "no transaction is put around it"
    );
}

#[tokio::test]
async fn parameters_are_read_by_the_types_that_the_server_infers() {
    let (_database, sidecar) = place("query_params", "").await;
    for (sql, params, row) in [
        ("SELECT $1::int + 1", json!([7]), json!([8])),
        ("SELECT $1::int + 1", json!(["7"]), json!([8])),
        ("SELECT $1::text IS NULL", json!([null]), json!([true])),
        ("SELECT NOT $1", json!([true]), json!([false])),
        (
            "SELECT $1 || $2",
            json!(["it's \"", "ä"]),
            json!(["it's \"ä"]),
        ),
        ("SELECT 7 = ANY($1)", json!([[1, 7, null]]), json!([true])),
        (
            "SELECT ($1::text[])[1], ($1::text[])[2]",
            json!([["a\"\\", ""]]),
            json!(["a\"\\", ""]),
        ),
        (
            "SELECT $1::jsonb -> 'a', $2::jsonb -> 0",
            json!([{"a": [1]}, [2]]),
            json!([[1], 2]),
        ),
        ("SELECT $1::numeric", json!([0.25]), json!(["0.25"])),
    ] {
        let answer = answered(&sidecar, json!({"sql": sql, "params": params})).await;
        assert_eq!(answer["rows"], json!([row]), "{sql}");
    }
    for params in [json!([1]), json!([1, 2, 3])] {
        let body = json!({"sql": "SELECT $1::int, $2::int", "params": params});
        let (status, problem) = ask(&sidecar, body).await;
        assert_eq!(
            (status, &problem["sqlstate"]),
            (422, &json!("08P01")),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn an_error_is_told_with_all_that_postgresql_says_of_it() {
    let (_database, sidecar) = place("query_errors", "").await;
    let (status, problem) = ask(&sidecar, json!({"sql": "SELECT 1 FROM nowhere"})).await;
    assert_eq!((status, &problem["code"]), (422, &json!("query_failed")));
    assert_eq!(problem["sqlstate"], "42P01", "{problem}");
    assert_eq!(problem["message"], "relation \"nowhere\" does not exist");
    assert_eq!(problem["detail"], problem["message"], "there is no other");
    assert_eq!(problem["position"], 15, "{problem}");
    let raise =
        "DO $$ BEGIN RAISE 'told' USING DETAIL = 'more', HINT = 'do', ERRCODE = 'ZZ001'; END $$";
    let (status, problem) = ask(&sidecar, json!({"sql": raise})).await;
    assert_eq!(status, 422);
    let expected = json!(["ZZ001", "told", "more", "do", null]);
    let fields = ["sqlstate", "message", "detail", "hint", "position"];
    assert_eq!(
        json!(fields.map(|name| &problem[name])),
        expected,
        "{problem}"
    );
    let (status, problem) = ask(&sidecar, json!({"sql": "SELECT 1; SELECT 2"})).await;
    assert_eq!(
        (status, &problem["sqlstate"]),
        (422, &json!("42601")),
        "{problem}"
    );
    // What fails only when it is committed has failed.
    let table = "CREATE TABLE once (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
    answered(&sidecar, json!({"sql": table})).await;
    let late = json!({"sql": "INSERT INTO once VALUES (1), (1) RETURNING a"});
    let (status, problem) = ask(&sidecar, late).await;
    assert_eq!(
        (status, &problem["sqlstate"]),
        (422, &json!("23505")),
        "{problem}"
    );
    for sql in ["COPY once FROM STDIN", "COPY once TO STDOUT"] {
        let (status, problem) = ask(&sidecar, json!({"sql": sql})).await;
        assert_eq!(
            (status, &problem["code"]),
            (422, &json!("invalid_field")),
            "{sql}"
        );
        assert!(problem["detail"].as_str().unwrap().contains("COPY"));
    }
    sidecar.settles().await;
}

/// The most memory that a sidecar has had resident, in bytes.
fn peak(sidecar: &Sidecar) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kilobytes.parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn rows_beyond_the_bounds_are_left_out_and_a_statement_that_writes_is_done_all_the_same() {
    let (_database, sidecar) = place("query_bounds", "").await;
    let series = "SELECT generate_series(1, 100000)";
    let length = |answer: &Value| answer["rows"].as_array().unwrap().len();
    let usual = answered(&sidecar, json!({"sql": series})).await;
    assert_eq!((length(&usual), &usual["truncated"]), (1000, &json!(true)));
    assert_eq!(usual["command"], Value::Null);
    let most = answered(&sidecar, json!({"sql": series, "max_rows": 10_000})).await;
    assert_eq!(
        (length(&most), &most["rows"][9999]),
        (10_000, &json!([10_000]))
    );
    let exact = json!({"sql": "SELECT generate_series(1, 7)", "max_rows": 7});
    let exact = answered(&sidecar, exact).await;
    assert_eq!((length(&exact), &exact["truncated"]), (7, &json!(false)));
    assert_eq!(exact["command"], "SELECT 7");

    let wide = "SELECT repeat('x', 10000) FROM generate_series(1, 500)";
    let wide = answered(&sidecar, json!({"sql": wide})).await;
    assert_eq!((length(&wide), &wide["truncated"]), (104, &json!(true)));
    let giant = "SELECT repeat('x', n) FROM (VALUES (1), (300000000), (2)) v (n)";
    let before = peak(&sidecar);
    let giant = answered(&sidecar, json!({"sql": giant})).await;
    assert_eq!(
        (&giant["rows"], &giant["truncated"]),
        (&json!([["x"]]), &json!(true))
    );
    assert_eq!(giant["command"], "SELECT 3");
    let grown = peak(&sidecar) - before;
    assert!(grown < 64 << 20, "{grown} bytes for a row that is left out");

    answered(&sidecar, json!({"sql": "CREATE TABLE t (a int)"})).await;
    let insert = "INSERT INTO t SELECT generate_series(1, 5000) RETURNING a";
    let insert = answered(&sidecar, json!({"sql": insert, "max_rows": 1})).await;
    assert_eq!(
        (&insert["rows"], &insert["truncated"]),
        (&json!([[1]]), &json!(true))
    );
    let count = answered(&sidecar, json!({"sql": "SELECT count(*) FROM t"})).await;
    assert_eq!(count["rows"], json!([[5000]]));
    sidecar.settles().await;
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_refused_and_one_below_is_run() {
    let (_database, sidecar) = place("query_body", "").await;
    let sql = |length: usize| json!({"sql": format!("SELECT length('{}')", "x".repeat(length))});
    let length = 1_000_000;
    assert_eq!(
        answered(&sidecar, sql(length)).await["rows"],
        json!([[length]])
    );
    let (status, problem) = ask(&sidecar, sql(1 << 20)).await;
    assert_eq!((status, &problem["code"]), (413, &json!("body_too_large")));
}

#[tokio::test]
async fn it_is_a_session_of_the_caller_in_the_execution_that_the_path_names() {
    let (database, sidecar) = place("query_session", "control: {admin: off}\n").await;
    let socket = sidecar.control_socket();
    let body = json!({"sql": "SELECT pg_sleep(60), 'hidden'"});
    let asked = tokio::spawn(async move {
        http::request(&socket, "POST", "/v1/executions/run/query", Some(&body)).await
    });
    sleeping(&database, 1).await;
    let sessions = sidecar.sessions_of("run").await;
    let session = &sessions[0];
    assert_eq!(session["application_name"], "execpool query", "{session}");
    assert_eq!(session["peer"]["pid"], std::process::id(), "{session}");
    assert_eq!(session["statement"], "SELECT pg_sleep(?), ?", "{session}");
    let seen = sidecar.get("/v1/executions/run").await;
    assert_eq!(
        (&seen["kind"], &seen["sessions"]),
        (&json!("implicit"), &json!(1))
    );
    asked.abort();
    let of_other = answered(&sidecar, json!({"sql": "SELECT 1", "upstream": "app"})).await;
    assert_eq!(of_other["rows"], json!([[1]]));
    // What one leaves open is rolled back, and the next one has nothing of it.
    for sql in ["CREATE TEMPORARY TABLE mine (a int)", "BEGIN"] {
        answered(&sidecar, json!({"sql": sql})).await;
    }
    let (status, problem) = ask(&sidecar, json!({"sql": "SELECT * FROM mine"})).await;
    assert_eq!((status, &problem["sqlstate"]), (422, &json!("42P01")));
    for (path, status, code) in [
        (
            "/v1/executions/session-1/query",
            422,
            "invalid_execution_id",
        ),
        (
            "/v1/executions/run/query?upstream=lag",
            400,
            "invalid_parameter",
        ),
    ] {
        let asked = sidecar.control("POST", path, Some(json!({"sql": "SELECT 1"})));
        let (told, problem) = asked.await;
        assert_eq!(
            (told, &problem["code"]),
            (status, &json!(code)),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn an_execution_that_has_ended_takes_no_query_and_one_that_ends_cuts_it_short() {
    let (database, sidecar) = place("query_ended", "").await;
    let socket = sidecar.control_socket();
    let asked = tokio::spawn(async move {
        let body = json!({"sql": "SELECT pg_sleep(60)"});
        http::request(&socket, "POST", "/v1/executions/run/query", Some(&body)).await
    });
    sleeping(&database, 1).await;
    let (status, ended) = sidecar.control("DELETE", "/v1/executions/run", None).await;
    assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
    let (status, problem) = asked.await.unwrap().unwrap();
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("execution_ended")),
        "{problem}"
    );
    assert_eq!(problem["sqlstate"], "57P01", "{problem}");
    let (status, problem) = ask(&sidecar, json!({"sql": "SELECT 1"})).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("execution_ended")),
        "{problem}"
    );
    assert_eq!(problem["sqlstate"], "55000", "{problem}");
    assert_eq!(problem["message"], "execpool: execution run has ended");
    sleeping(&database, 0).await;
    sidecar.settles().await;

    let deadline = json!({"id": "short", "deadline": "300ms"});
    let (status, _) = sidecar
        .control("POST", "/v1/executions", Some(deadline))
        .await;
    assert_eq!(status, 201);
    // Its deadline bounds it.
    let (status, problem) = ask_in(&sidecar, "short", json!({"sql": "SELECT pg_sleep(600)"})).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("execution_ended")),
        "{problem}"
    );
}

#[tokio::test]
async fn a_timeout_cancels_what_runs_and_what_waits() {
    let (database, sidecar) = place("query_timeout", ONE).await;
    let backend = json!({"sql": "SELECT pg_backend_pid()"});
    let before = answered(&sidecar, backend.clone()).await["rows"].clone();
    let slow = json!({"sql": "SELECT pg_sleep(600)", "timeout": "300ms"});
    let (status, problem) = ask(&sidecar, slow).await;
    assert_eq!(
        (status, &problem["code"]),
        (504, &json!("query_timeout")),
        "{problem}"
    );
    assert_eq!(problem["sqlstate"], "57014", "{problem}");
    sleeping(&database, 0).await;
    sidecar.settles().await;
    // By a cancel request: the connection was not harmed by it.
    let after = answered(&sidecar, backend).await["rows"].clone();
    assert_eq!(before, after);

    let holder = sidecar.client("app", "holder").await.unwrap();
    holder.batch_execute("BEGIN").await.unwrap();
    let (status, problem) = ask(&sidecar, json!({"sql": "SELECT 1", "timeout": "300ms"})).await;
    assert_eq!(
        (status, &problem["sqlstate"]),
        (504, &json!("57014")),
        "{problem}"
    );
    waiting(&sidecar, 0).await;
    drop(holder);
    sidecar.settles().await;
}

#[tokio::test]
async fn of_a_caller_who_has_gone_nothing_is_left_whether_it_ran_or_waited() {
    let (database, sidecar) = place("query_vanishes", ONE).await;
    let slow = json!({"sql": "SELECT pg_sleep(60)"});
    vanishes(&sidecar, slow.clone(), async || {
        sleeping(&database, 1).await
    })
    .await;
    sleeping(&database, 0).await;
    sidecar.settles().await;
    let holder = sidecar.client("app", "holder").await.unwrap();
    holder.batch_execute("BEGIN").await.unwrap();
    vanishes(&sidecar, slow, async || waiting(&sidecar, 1).await).await;
    waiting(&sidecar, 0).await;
    eventually(SOON, "its session has left", async || {
        let left = sidecar.sessions_of("run").await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    drop(holder);
    sidecar.settles().await;
}

#[tokio::test]
async fn queries_that_wait_keep_nobody_from_asking_and_are_told_why_they_wait_in_vain() {
    let (database, sidecar) = place("query_exhausted", &format!("{ONE}{PATIENT}")).await;
    let holder = sidecar.client("app", "holder").await.unwrap();
    holder.batch_execute("BEGIN").await.unwrap();
    let open = |count: usize| {
        let mut asked = Vec::new();
        for _ in 0..count {
            let socket = sidecar.control_socket();
            asked.push(tokio::spawn(async move {
                let body = json!({"sql": "SELECT 1"});
                let path = "/v1/executions/run/query";
                let answer = http::open(&socket, "POST", path, Some(&body))
                    .await
                    .unwrap();
                let (head, body) = answer.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                (head, serde_json::from_slice::<Value>(&body).unwrap())
            }));
        }
        asked
    };
    let asked = open(32);
    waiting(&sidecar, 32).await;
    let (status, problem) = ask(&sidecar, json!({"sql": "SELECT 1"})).await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("too_many_queries")),
        "{problem}"
    );
    waiting(&sidecar, 32).await;
    drop(holder);
    for asked in asked {
        let (head, answer) = asked.await.unwrap();
        assert_eq!(head.status.as_u16(), 200, "it is its turn: {answer}");
    }
    let holder = sidecar.client("app", "holder").await.unwrap();
    holder.batch_execute("BEGIN").await.unwrap();
    let hasty = format!("{ONE}pool: {{timeout: 2s}}\n");
    sidecar
        .reload(&(upstream("app", &database.url()) + &hasty))
        .await;
    for asked in open(8) {
        let (head, problem) = asked.await.unwrap();
        assert_eq!(
            (head.status.as_u16(), &problem["code"]),
            (503, &json!("no_connection"))
        );
        assert_eq!(head.headers["retry-after"], "1", "{problem}");
        assert_eq!(problem["sqlstate"], "53300", "{problem}");
        assert!(
            problem["message"].as_str().unwrap().contains("budget of 1"),
            "{problem}"
        );
    }
    drop(holder);
    assert_eq!(
        answered(&sidecar, json!({"sql": "SELECT 1"})).await["rows"],
        json!([[1]])
    );
    sidecar.settles().await;
}

#[tokio::test]
async fn a_database_that_is_away_is_told_as_such() {
    let (database, sidecar) = place("query_away", "").await;
    answered(&sidecar, json!({"sql": "SELECT 1"})).await;
    let filter = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = '{}' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()",
        database.name
    );
    let socket = sidecar.control_socket();
    let asked = tokio::spawn(async move {
        let body = json!({"sql": "SELECT pg_sleep(60)"});
        http::request(&socket, "POST", "/v1/executions/run/query", Some(&body)).await
    });
    sleeping(&database, 1).await;
    // From another session: by its own right.
    answered(&sidecar, json!({"sql": filter})).await;
    let (status, problem) = asked.await.unwrap().unwrap();
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("database_unavailable")),
        "{problem}"
    );
    assert_eq!(problem["sqlstate"], "57P01", "{problem}");
    sidecar.settles().await;
}

#[tokio::test]
async fn a_user_who_may_not_use_the_postgresql_socket_may_not_query_either() {
    let more = "listen: {allow_uids: [4294967294], dir: '{dir}'}\ntelemetry: {listen: off}\n";
    let (_database, sidecar) = place("query_uids", more).await;
    let (status, problem) = ask(&sidecar, json!({"sql": "SELECT 1"})).await;
    assert_eq!(
        (status, &problem["sqlstate"]),
        (422, &json!("28000")),
        "{problem}"
    );
    assert!(
        problem["hint"]
            .as_str()
            .unwrap()
            .contains("listen.allow_uids")
    );
}

#[tokio::test]
async fn literals_and_parameters_are_in_no_log_and_no_other_answer() {
    let more = "log: {level: trace}\nbudget: {size: 2, overflow: 0}\n";
    let (database, sidecar) = place("query_canary", more).await;
    let canary = "canary0f63b1";
    let slow = format!("SELECT pg_sleep(60), '{canary}', $1::text");
    let body = json!({"sql": slow, "params": [canary]});
    let mut seen = String::new();
    vanishes(&sidecar, body.clone(), async || {
        sleeping(&database, 1).await;
        for path in [
            "/v1/status",
            "/v1/executions",
            "/v1/executions/run",
            "/v1/sessions",
        ] {
            seen += &sidecar.get(path).await.to_string();
        }
    })
    .await;
    assert!(seen.contains("SELECT pg_sleep(?), ?, $1::text"), "{seen}");
    sidecar.settles().await;
    for sql in [
        format!("SELECT '{canary}'::int"),
        format!("SELEC '{canary}'"),
        format!("COPY (SELECT '{canary}') TO STDOUT"),
        format!("SELECT repeat('{canary}', 1000000)"),
    ] {
        ask(&sidecar, json!({"sql": sql})).await;
    }
    ask(
        &sidecar,
        json!({"sql": "SELECT $1::int", "params": [canary]}),
    )
    .await;
    ask(
        &sidecar,
        json!({"sql": slow, "params": [canary], "timeout": "200ms"}),
    )
    .await;
    let mut holders = Vec::new();
    for _ in 0..2 {
        let holder = sidecar.client("app", "holder").await.unwrap();
        holder.batch_execute("BEGIN").await.unwrap();
        holders.push(holder);
    }
    let hasty = format!("{more}pool: {{timeout: 300ms}}\n");
    sidecar
        .reload(&(upstream("app", &database.url()) + &hasty))
        .await;
    assert_eq!(ask(&sidecar, body).await.0, 503);
    drop(holders);
    sidecar.settles().await;
    seen += &sidecar.get("/v1/executions?ended=true").await.to_string();
    seen += &sidecar.log().join("\n");
    assert!(!seen.contains(canary), "{seen}");
}

/// Runs `execpool query` in the execution `run`: its exit code, standard output, standard error.
async fn execpool(sidecar: &Sidecar, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execpool"));
    command
        .args(["query", "--execution", "run"])
        .args(args)
        .env_clear()
        .env("EXECPOOL_LISTEN__DIR", sidecar.dir());
    let output = tokio::time::timeout(SOON, command.output()).await;
    let output = output.expect("in time").expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn people_get_a_table_programs_get_json_and_both_are_told_what_fails() {
    let (_database, sidecar) = place("query_ctl", "").await;
    let sql = "SELECT $1::int AS id, NULL AS nothing, $2::text AS name";
    let args = [sql, "--param", "-7", "--param", "ä"];
    let (code, out, err) = execpool(&sidecar, &args).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(out, "id  nothing  name\n-7  NULL     ä\nSELECT 1\n");
    let (code, out, _) = execpool(&sidecar, &[&args[..], &["--json"]].concat()).await;
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["rows"]), (0, &json!([[-7, null, "ä"]])));
    let (code, out, err) = execpool(&sidecar, &["SELECT 1 FROM nowhere"]).await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    let told = "relation \"nowhere\" does not exist (42P01)";
    assert!(err.contains(told), "{err}");
    let (code, out, _) = execpool(&sidecar, &["SELECT 1 FROM nowhere", "--json"]).await;
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["sqlstate"]), (1, &json!("42P01")));
    let (code, out, _) = execpool(&sidecar, &["SELECT 1", "--max-rows", "0"]).await;
    assert_eq!((code, out.as_str()), (2, ""));
}
