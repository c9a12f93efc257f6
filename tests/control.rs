//! The control API over a real socket, real executions and a real database: it begins and ends
//! executions, tells what is there while everything is exhausted, and is harmed by nobody.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::http::header;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::api::{Api, ApiOptions, POOLED};
use support::{Database, Fault, Postgres, Proxy, SOON, eventually, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// What an answer that waits for nothing may take, on a machine that stands still now and then.
const AT_ONCE: Duration = Duration::from_secs(30);

async fn api(name: &str) -> (Api, Database) {
    with(name, ApiOptions::default()).await
}

async fn with(name: &str, options: ApiOptions) -> (Api, Database) {
    let postgres = Postgres::shared();
    let database = postgres.database(name).await;
    (Api::with(postgres, &database, options).await, database)
}

/// The pooled backends in a database, by the server's word.
async fn pooled(database: &Database) -> usize {
    let filter = format!(
        "datname = '{}' AND application_name = '{POOLED}'",
        database.name
    );
    Postgres::shared().activity(&filter).await.len()
}

/// The problem that a request must come to.
async fn refused(api: &Api, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
    let (status, problem) = api.ask(method, path, body).await;
    assert_eq!(problem["status"], status, "{problem}");
    for text in ["type", "title", "detail", "hint"] {
        assert!(problem[text].is_string(), "{text}: {problem}");
    }
    (status, problem["code"].as_str().unwrap().to_owned())
}

async fn create(api: &Api, id: &str) -> Value {
    let (status, body) = api
        .ask("POST", "/v1/executions", Some(json!({"id": id})))
        .await;
    assert_eq!(status, 201, "{body}");
    body
}

#[tokio::test]
async fn status_answers_at_once_while_everything_is_exhausted() {
    let options = ApiOptions {
        budget: (2, 0),
        ..ApiOptions::default()
    };
    let (api, _database) = with("exhausted", options).await;
    let _held = [
        api.session(Some("a"), "SELECT 1", false).await,
        api.session(None, "SELECT 1", false).await,
    ];
    let mut waiter = Box::pin(api.session(Some("b"), "SELECT 1", false));
    let waits = tokio::time::timeout(Duration::from_millis(300), &mut waiter).await;
    assert!(waits.is_err(), "the budget is used up");
    // What it waits for is never given back: neither would be an answer that waited, too.
    let status = eventually(SOON, "it has waited", async || {
        let status = api.get("/v1/status").await;
        let waited = status["budget"]["oldest_wait_seconds"].as_f64();
        (waited > Some(0.2)).then_some(status.clone()).ok_or(status)
    })
    .await;
    let budget = &status["budget"];
    for (name, count) in [
        ("size", 2),
        ("limit", 2),
        ("effective", 2),
        ("used", 2),
        ("open", 2),
        ("idle", 0),
        ("connecting", 0),
        ("reserve", 0),
        ("waiting", 1),
    ] {
        assert_eq!(budget[name], count, "{name}: {status}");
    }
    assert_eq!(budget["limited_by_database"], false);
    assert_eq!(status["sessions"]["waiting"], 1, "{status}");
    assert_eq!(status["sessions"]["idle"], 2, "{status}");
    assert_eq!(status["sessions"]["total"], 3, "{status}");
    // The standing one, a and b.
    assert_eq!(status["executions"]["active"], 3, "{status}");
    assert_eq!(status["executions"]["ended"]["deadline"], 0, "{status}");
    assert!(status["memory"]["resident_bytes"].as_u64().unwrap() > 1 << 20);
}

#[tokio::test]
async fn status_tells_what_was_last_seen_of_the_database() {
    let (api, _database) = api("seen").await;
    let upstream = eventually(SOON, "the database was asked of late", async || {
        let upstream = api.get("/v1/status").await["upstreams"][0].clone();
        let ago = upstream["checked_seconds_ago"].as_f64();
        let lately = ago.is_some_and(|ago| ago < 10.0);
        (upstream["reachable"] == true && lately)
            .then_some(upstream.clone())
            .ok_or(upstream)
    })
    .await;
    assert_eq!(upstream["name"], "app");
    assert!(upstream["latency_seconds"].is_f64() && upstream["error"].is_null());
}

#[tokio::test]
async fn an_execution_is_begun_seen_and_ended_and_its_end_is_told_again() {
    let (api, database) = api("cycle").await;
    let body = json!({
        "id": "run-1", "deadline": "20m", "labels": {"agent": "a"},
        "pool": {"size": 1, "overflow": 1}, "mode": "session",
    });
    let (status, created) = api.ask("POST", "/v1/executions", Some(body)).await;
    assert_eq!((status, &created["id"]), (201, &json!("run-1")));
    assert_eq!(
        (&created["generation"], &created["kind"]),
        (&json!(1), &json!("explicit"))
    );
    let left = created["deadline_seconds"].as_f64().unwrap();
    assert!((1140.0..=1200.0).contains(&left), "{left}");
    assert_eq!(
        created["url"],
        format!(
            "postgresql://app@/app?host={}&port=5432&options=-c%20execpool.execution_id%3Drun-1",
            api.dir().display()
        )
    );
    assert_eq!(
        created["parameters"],
        json!({"execpool.execution_id": "run-1"})
    );

    let _session = api.session(Some("run-1"), "SELECT 'secret'", false).await;
    let seen = api.get("/v1/executions/run-1").await;
    assert_eq!(
        (&seen["state"], &seen["sessions"]),
        (&json!("active"), &json!(1))
    );
    assert_eq!(seen["labels"], json!({"agent": "a"}));
    let pool = &seen["pools"][0];
    assert_eq!((&pool["lent"], &pool["size"]), (&json!(1), &json!(1)));

    let again = refused(&api, "POST", "/v1/executions", Some(json!({"id": "run-1"}))).await;
    assert_eq!(again, (409, "execution_exists".to_owned()));

    let path = "/v1/executions/run-1?reason=done%20with%20it";
    let (status, ended) = api.ask("DELETE", path, None).await;
    assert_eq!(
        pooled(&database).await,
        0,
        "nothing is left when it answers"
    );
    assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
    assert_eq!(
        (&ended["state"], &ended["reason"], &ended["reason_text"]),
        (&json!("ended"), &json!("deleted"), &json!("done with it"))
    );
    assert_eq!(
        (&ended["queries"], &ended["peak_connections"]),
        (&json!(1), &json!(1))
    );
    assert!(ended.get("remaining_pids").is_none(), "{ended}");

    let (status, again) = api.ask("DELETE", path, None).await;
    assert_eq!((status, &again["complete"]), (200, &json!(true)), "{again}");
    assert_eq!(again["duration_seconds"], ended["duration_seconds"]);
    let seen = api.get("/v1/executions/run-1").await;
    assert_eq!(seen["state"], "ended", "{seen}");
    assert_eq!(create(&api, "run-1").await["generation"], 2);
}

#[tokio::test]
async fn an_implicit_execution_is_adopted_once() {
    let (api, _database) = api("adopted").await;
    let _session = api.session(Some("run"), "SELECT 1", false).await;
    let kind = |seen: &Value| seen["kind"].as_str().unwrap().to_owned();
    assert_eq!(kind(&api.get("/v1/executions/run").await), "implicit");
    let body = json!({"id": "run", "deadline": "1m"});
    let (status, adopted) = api.ask("POST", "/v1/executions", Some(body)).await;
    assert_eq!((status, kind(&adopted).as_str()), (200, "explicit"));
    assert!(adopted["deadline_seconds"].as_f64().unwrap() <= 60.0);
    let again = refused(&api, "POST", "/v1/executions", Some(json!({"id": "run"}))).await;
    assert_eq!(again.0, 409);
}

#[tokio::test]
async fn a_name_is_made_up_where_none_is_given_and_shared_is_nobodys() {
    let (api, _database) = api("names").await;
    let (status, first) = api.ask("POST", "/v1/executions", None).await;
    let (_, second) = api.ask("POST", "/v1/executions", Some(json!({}))).await;
    assert_eq!(status, 201, "{first}");
    assert_ne!(first["id"], second["id"]);
    let shared = refused(
        &api,
        "POST",
        "/v1/executions",
        Some(json!({"id": "shared"})),
    )
    .await;
    assert_eq!(shared, (409, "execution_exists".to_owned()));
    for (body, field) in [
        (json!({"id": "session-1"}), "session-"),
        (json!({"deadlin": "1s"}), "deadline"),
        (json!([]), "object"),
    ] {
        let (status, problem) = api.ask("POST", "/v1/executions", Some(body)).await;
        assert_eq!((status, &problem["code"]), (422, &json!("invalid_field")));
        assert!(problem.to_string().contains(field), "{problem}");
    }
    let (status, wrong) = api.ask("POST", "/v1/executions?upstream=ap", None).await;
    assert_eq!((status, &wrong["code"]), (400, &json!("invalid_parameter")));
    assert!(wrong["hint"].as_str().unwrap().contains("app"), "{wrong}");
}

#[tokio::test]
async fn what_is_not_there_is_404_with_what_to_do() {
    let (api, _database) = api("missing").await;
    for method in ["GET", "DELETE"] {
        let none = refused(&api, method, "/v1/executions/nobody", None).await;
        assert_eq!(none, (404, "no_such_execution".to_owned()));
    }
    let hold = refused(&api, "GET", "/v1/executions/nobody/hold", None).await;
    assert_eq!(hold.0, 404);
    let (status, problem) = api.ask("GET", "/v1/execution", None).await;
    assert_eq!(status, 404);
    assert!(problem["hint"].as_str().unwrap().contains("/v1/executions"));
    let method = refused(&api, "PUT", "/v1/status", None).await;
    assert_eq!(method, (405, "method_not_allowed".to_owned()));
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body() {
    let (api, _database) = api("head").await;
    let answer = http::open(&api.socket(), "HEAD", "/v1/status", None)
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
    let length = answer.headers()[header::CONTENT_LENGTH].to_str().unwrap();
    assert!(length.parse::<usize>().unwrap() > 100);
    assert!(
        answer
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );
}

#[tokio::test]
async fn ended_executions_are_listed_where_they_are_asked_for() {
    let (api, _database) = api("listed").await;
    create(&api, "a").await;
    create(&api, "b").await;
    api.ask("DELETE", "/v1/executions/a", None).await;
    let ids = |list: Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|one| {
            format!(
                "{}:{}",
                one["id"].as_str().unwrap(),
                one["state"].as_str().unwrap()
            )
        })
        .collect()
    };
    let alive = ids(api.get("/v1/executions").await);
    assert_eq!(alive, ["shared:active", "b:active"]);
    let all = ids(api.get("/v1/executions?ended=true").await);
    assert_eq!(all, ["shared:active", "b:active", "a:ended"]);
}

#[tokio::test]
async fn the_end_of_the_last_hold_ends_the_execution_after_its_grace() {
    let (api, database) = api("hold").await;
    create(&api, "held").await;
    let _session = api.session(Some("held"), "SELECT 1", false).await;
    let first = http::open(&api.socket(), "GET", "/v1/executions/held/hold", None)
        .await
        .unwrap();
    let mut second = http::open(&api.socket(), "GET", "/v1/executions/held/hold", None)
        .await
        .unwrap();
    assert_eq!(second.status(), 200);
    let byte = second.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(byte.into_data().unwrap().len(), 1, "one comes at once");
    drop(first);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let seen = api.get("/v1/executions/held").await;
    assert_eq!(
        (&seen["state"], &seen["holds"]),
        (&json!("active"), &json!(1))
    );
    drop(second);
    eventually(SOON, "the execution ends", async || {
        let seen = api.get("/v1/executions/held").await;
        (seen["reason"] == "hold_lost" && seen["state"] == "ended")
            .then_some(())
            .ok_or(seen)
    })
    .await;
    eventually(SOON, "nothing is left", async || {
        let left = pooled(&database).await;
        (left == 0).then_some(()).ok_or(left)
    })
    .await;
    let hold = refused(&api, "GET", "/v1/executions/held/hold", None).await;
    assert_eq!(hold, (404, "no_such_execution".to_owned()));
}

#[tokio::test]
async fn a_hold_beats_and_says_why_its_execution_has_ended() {
    let (api, _database) = api("farewell").await;
    create(&api, "run").await;
    let start = Instant::now();
    let stream = http::open(&api.socket(), "GET", "/v1/executions/run/hold", None)
        .await
        .unwrap();
    let mut stream = stream.into_body();
    let mut beats = 0;
    while beats < 2 {
        let frame = tokio::time::timeout(SOON, stream.frame()).await;
        let bytes = frame.expect("it beats").unwrap().unwrap().into_data();
        let bytes = bytes.unwrap();
        assert!(bytes.iter().all(|byte| *byte == b'\n'), "{bytes:?}");
        beats += bytes.len();
    }
    // At once, and after 2 s.
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let (status, _) = api.ask("DELETE", "/v1/executions/run", None).await;
    assert_eq!(status, 200);
    let told = tokio::time::timeout(SOON, stream.collect()).await.unwrap();
    let told = String::from_utf8(told.unwrap().to_bytes().to_vec()).unwrap();
    let last = "{\"event\":\"ended\",\"reason\":\"deleted\"}\n";
    let more = told
        .strip_suffix(last)
        .unwrap_or_else(|| panic!("{told:?}"));
    beats += more.len();
    assert!(more.chars().all(|byte| byte == '\n'), "{more:?}");
    let most = 1 + start.elapsed().as_secs() / 2;
    assert!(beats as u64 <= most, "{beats} beats, not {most}");
}

#[tokio::test]
async fn many_holds_keep_nobody_from_asking() {
    let (api, _database) = api("many").await;
    create(&api, "run").await;
    let (socket, mut holds) = (api.socket(), Vec::new());
    for _ in 0..300 {
        let path = "/v1/executions/run/hold";
        let hold = tokio::time::timeout(SOON, http::open(&socket, "GET", path, None));
        holds.push(hold.await.expect("in time").unwrap());
    }
    assert_eq!(api.get("/v1/executions/run").await["holds"], 300);
}

#[tokio::test]
async fn an_end_that_takes_too_long_tells_what_remains_and_a_cleanup_removes_it() {
    let options = ApiOptions {
        force: false,
        ..ApiOptions::default()
    };
    let (api, database) = with("remains", options).await;
    create(&api, "stuck").await;
    let stuck = api.session(Some("stuck"), "SELECT 1", true).await;
    let alive = api.session(Some("alive"), "SELECT 1", false).await;
    // It never goes: an answer that waited for it would not come.
    let (status, ended) = api.ask("DELETE", "/v1/executions/stuck", None).await;
    assert_eq!((status, &ended["complete"]), (200, &json!(false)));
    assert_eq!(ended["remaining_pids"], json!([stuck.pid]), "{ended}");

    let concluded = eventually(SOON, "it is no longer waited for", async || {
        let (_, again) = api.ask("DELETE", "/v1/executions/stuck", None).await;
        (again["state"] == "ended")
            .then_some(again.clone())
            .ok_or(again)
    });
    let again = concluded.await;
    assert_eq!(
        (&again["complete"], &again["leftovers"]),
        (&json!(false), &json!(1))
    );
    assert_eq!(pooled(&database).await, 2);

    api.force.store(true, Ordering::Relaxed);
    let cleanup = "/api/memory/debug/connections/cleanup";
    assert_eq!(api.ask("POST", cleanup, None).await.0, 200);
    eventually(SOON, "the leftover alone is removed", async || {
        let left = pooled(&database).await;
        (left == 1).then_some(()).ok_or(left)
    })
    .await;
    let sessions = api.get("/v1/sessions?execution=alive").await;
    assert_eq!(sessions[0]["server_pid"], alive.pid);
}

#[tokio::test]
async fn sessions_are_shown_without_literals_and_filtered() {
    let (api, _database) = api("sessions").await;
    let first = api
        .session(Some("a"), "SELECT 'secret', 4711 AS number", false)
        .await;
    let _second = api.session(None, "SELECT 1", false).await;
    let all = api.get("/v1/sessions").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let of_a = api.get("/v1/sessions?execution=a&state=idle").await;
    let session = &of_a[0];
    assert_eq!(of_a.as_array().unwrap().len(), 1);
    let text = of_a.to_string();
    assert!(!text.contains("secret") && !text.contains("4711"), "{text}");
    assert_eq!(session["statement"], "SELECT ?, ? AS number");
    assert_eq!(
        (&session["server_pid"], &session["queries"]),
        (&json!(first.pid), &json!(1))
    );
    assert_eq!(session["peer"], json!({"uid": 1000, "gid": 1000, "pid": 7}));
    assert_eq!(session["caller"], "agent.py:7 run");
    assert!(session["hold_efficiency"].as_f64().unwrap() <= 1.0);
    assert_eq!(api.get("/v1/sessions?older_than=1h").await, json!([]));
    assert_eq!(api.get("/v1/sessions?state=active").await, json!([]));
    for wrong in [
        "state=busy",
        "older_than=9",
        "executions=a",
        "execution=a%2Fb",
    ] {
        let path = format!("/v1/sessions?{wrong}");
        let problem = refused(&api, "GET", &path, None).await;
        assert_eq!(problem, (400, "invalid_parameter".to_owned()), "{wrong}");
    }
}

#[tokio::test]
async fn health_agrees_with_the_server() {
    let (api, database) = api("health").await;
    let _held = api.session(None, "SELECT 1", false).await;
    let (status, health) = api.ask("GET", "/v1/database/health", None).await;
    let upstream = &health["upstreams"][0];
    assert_eq!(
        (status, &upstream["reachable"]),
        (200, &json!(true)),
        "{health}"
    );
    let client = database.client().await;
    let shown = async |name: &str| -> String {
        let row = client.query_one(&format!("SHOW {name}"), &[]).await;
        row.unwrap().get(0)
    };
    assert_eq!(upstream["server_version"], shown("server_version").await);
    assert_eq!(
        upstream["max_connections"].to_string(),
        shown("max_connections").await
    );
    assert_eq!(upstream["in_recovery"], false);
    // The session's and the monitor's.
    assert_eq!(upstream["ours"], 2, "{health}");
    assert!(upstream["others"].is_u64() && upstream["latency_seconds"].is_f64());
}

#[tokio::test]
async fn health_of_a_database_that_does_not_answer_is_503_in_bounded_time() {
    let postgres = Postgres::shared();
    let database = postgres.database("away").await;
    let proxy = Proxy::tcp(postgres).await;
    let options = ApiOptions {
        monitored: Some(proxy.url(&database)),
        patience: Duration::from_secs(2),
        ..ApiOptions::default()
    };
    let api = Api::with(postgres, &database, options).await;
    eventually(SOON, "it answers", async || {
        let (status, health) = api.ask("GET", "/v1/database/health", None).await;
        (status == 200).then_some(()).ok_or(health)
    })
    .await;
    for fault in [Fault::Freeze, Fault::CutAfter(0)] {
        proxy.set(fault);
        let start = Instant::now();
        let (status, health) = api.ask("GET", "/v1/database/health", None).await;
        assert_eq!(status, 503, "{health}");
        assert!(start.elapsed() < Duration::from_secs(30));
        let upstream = &health["upstreams"][0];
        assert_eq!(upstream["reachable"], false);
        assert!(upstream["error"].is_string() && upstream["ours"].is_null());
        let seen = &api.get("/v1/status").await["upstreams"][0];
        assert_eq!(seen["reachable"], false, "status has seen it too");
    }
}

#[tokio::test]
async fn the_seeds_routes_count_named_executions_and_touch_nothing_that_lives() {
    let (api, database) = api("seeds").await;
    let _sessions = [
        api.session(Some("a"), "SELECT 1", false).await,
        api.session(Some("a"), "SELECT 1", false).await,
        api.session(None, "SELECT 1", false).await,
    ];
    let expected = json!({
        "active_executions": 1,
        "total_tracked_connections": 4,
        "executions": {"a": {"sql_engines": 2, "sql_databases": 2, "custom_connections": 0}},
    });
    let base = "/api/memory/debug/connections";
    let status = api.get(&format!("{base}/status")).await;
    assert_eq!(status["success"], true);
    assert_eq!(status["data"]["connection_stats"], expected);
    assert_eq!(status["data"]["timestamp"].as_str().unwrap().len(), 19);
    let (code, cleaned) = api.ask("POST", &format!("{base}/cleanup"), None).await;
    assert_eq!(
        (code, &cleaned["data"]["connection_stats"]),
        (200, &expected)
    );
    assert_eq!(pooled(&database).await, 3);
}

#[tokio::test]
async fn with_admin_off_shared_can_not_be_ended_and_others_can() {
    let options = ApiOptions {
        admin: false,
        ..ApiOptions::default()
    };
    let (api, _database) = with("admin", options).await;
    create(&api, "a").await;
    let shared = refused(&api, "DELETE", "/v1/executions/shared", None).await;
    assert_eq!(shared, (403, "admin_off".to_owned()));
    assert_eq!(api.ask("DELETE", "/v1/executions/a", None).await.0, 200);
}

#[tokio::test]
async fn shared_is_ended_and_lives_on() {
    let (api, database) = api("standing").await;
    let _session = api.session(None, "SELECT 1", false).await;
    let (status, ended) = api.ask("DELETE", "/v1/executions/shared", None).await;
    assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
    assert_eq!(pooled(&database).await, 0);
    let seen = api.get("/v1/executions/shared").await;
    assert_eq!(
        (&seen["state"], &seen["sessions"]),
        (&json!("active"), &json!(0))
    );
    let _session = api.session(None, "SELECT 1", false).await;
}

#[tokio::test]
async fn only_listed_users_may_ask() {
    let own = nix::unistd::getuid().as_raw();
    for (name, uids, expected) in [
        ("stranger", vec![own + 1], 403),
        ("own", vec![own + 1, own], 200),
    ] {
        let options = ApiOptions {
            allow_uids: Some(uids),
            ..ApiOptions::default()
        };
        let (api, _database) = with(name, options).await;
        assert_eq!(api.ask("GET", "/v1/status", None).await.0, expected);
    }
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_413_wherever_it_goes() {
    let (api, _database) = api("large").await;
    let body = json!({"labels": {"a": "x".repeat(2 << 20)}});
    for path in ["/v1/executions", "/nowhere"] {
        let large = refused(&api, "POST", path, Some(body.clone())).await;
        assert_eq!(large, (413, "body_too_large".to_owned()));
    }
    let listed = api.get("/v1/executions").await;
    assert_eq!(listed.as_array().unwrap().len(), 1, "nothing was begun");
}

#[tokio::test]
async fn garbage_is_refused_and_the_next_one_is_served() {
    let (api, _database) = api("garbage").await;
    let head = "x".repeat(300_000);
    for garbage in [
        "\0\0\0\u{8}\u{4}\0\u{2}\u{2f}".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "nonsense\n".repeat(100),
        format!("GET /v1/status HTTP/1.1\r\nx: {head}\r\n\r\n"),
        "POST /v1/executions HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "POST /v1/executions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(),
    ] {
        let mut stream = UnixStream::connect(api.socket()).await.unwrap();
        // It may be refused before all of it is sent.
        let _ = stream.write_all(garbage.as_bytes()).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer));
        let ended = read.await;
        assert!(ended.is_ok(), "neither answered nor closed: {garbage:.40}");
        let answer = String::from_utf8_lossy(&answer);
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{answer}");
    }
    let mut early = UnixStream::connect(api.socket()).await.unwrap();
    early
        .write_all(b"GET /v1/status HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    drop(early);
    api.get("/v1/status").await;
}

#[tokio::test]
async fn clients_that_dawdle_harm_nobody_and_are_cut_off() {
    let (api, _database) = api("dawdle").await;
    let mut dawdling = Vec::new();
    for begun in [
        "G",
        "GET /v1/status HTTP/1.1\r\nhost",
        "",
        "POST /v1/executions HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{",
    ] {
        for _ in 0..50 {
            let mut stream = UnixStream::connect(api.socket()).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            dawdling.push(stream);
        }
    }
    // One after the other they would take half an hour.
    let start = Instant::now();
    api.get("/v1/status").await;
    assert!(start.elapsed() < AT_ONCE);
    for mut stream in dawdling {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer));
        let _ = read.await.expect("it is cut off");
    }
}

#[tokio::test]
async fn however_many_clients_are_silent_the_next_one_is_served() {
    let (api, _database) = api("silent").await;
    // After ten seconds each of them is cut off anyway. The quickest of some: a busy machine may stand
    // still for as long in any of them.
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let mut silent = Vec::new();
        for _ in 0..600 {
            silent.push(UnixStream::connect(api.socket()).await.unwrap());
            tokio::task::yield_now().await;
        }
        drop(silent.split_off(300));
        let start = Instant::now();
        api.get("/v1/status").await;
        quickest = quickest.min(start.elapsed());
        if quickest < Duration::from_secs(6) {
            return;
        }
    }
    panic!("it was served after {quickest:?}");
}

#[tokio::test]
async fn shutting_down_finishes_the_answer_under_way_and_waits_a_second_at_most() {
    let (mut api, _database) = api("shutdown").await;
    create(&api, "held").await;
    let hold = http::open(&api.socket(), "GET", "/v1/executions/held/hold", None)
        .await
        .unwrap();
    let idle = UnixStream::connect(api.socket()).await.unwrap();
    let mut asking = UnixStream::connect(api.socket()).await.unwrap();
    let head = "POST /v1/executions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\
        expect: 100-continue\r\n\r\n";
    asking.write_all(head.as_bytes()).await.unwrap();
    let mut goes_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    let read = tokio::time::timeout(SOON, asking.read_exact(&mut goes_on));
    read.await.expect("its body is waited for").unwrap();
    assert!(goes_on.starts_with(b"HTTP/1.1 100"), "{goes_on:?}");
    drop(api.stop.take());
    asking.write_all(b"{}").await.unwrap();
    // The hold would go on for ever.
    tokio::time::timeout(SOON, &mut api.serving)
        .await
        .unwrap()
        .unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(
        UnixStream::connect(api.socket()).await.is_err(),
        "nobody listens"
    );
    drop((hold, idle));
}
