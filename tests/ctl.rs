//! The control API and the command line over it, against the built execpool: what a person and
//! an app see of executions that drivers are in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::sidecar::upstream;
use support::{Database, Postgres, SOON, Sidecar, eventually};
use tokio::process::Command;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

/// What a command has said: its exit code, standard output, standard error.
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs `execpool` with nothing in its environment but the socket directory.
async fn execpool(dir: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execpool"));
    command
        .args(args)
        .env_clear()
        .env("EXECPOOL_LISTEN__DIR", dir);
    let output = tokio::time::timeout(SOON, command.output()).await;
    let output = output.expect("in time").expect("the binary runs");
    Said {
        code: output.status.code().expect("it exits by itself"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

async fn over(name: &str) -> (Sidecar, Database) {
    let database = Postgres::shared().database(name).await;
    (Sidecar::over(&database).await, database)
}

/// The backends of the pools in a database, by the server's word.
async fn pooled(database: &Database) -> usize {
    let filter = format!(
        "datname = '{}' AND application_name NOT IN ('execpool monitor', 'execpool tests')",
        database.name
    );
    Postgres::shared().activity(&filter).await.len()
}

#[tokio::test]
async fn the_url_that_begins_an_execution_lets_a_driver_join_it() {
    let (sidecar, database) = over("joins").await;
    let body = json!({"id": "run@1.a", "deadline": "1m", "labels": {"agent": "a"}});
    let (status, created) = sidecar.control("POST", "/v1/executions", Some(body)).await;
    assert_eq!(status, 201, "{created}");
    let url = created["url"].as_str().unwrap();
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let driving = tokio::spawn(connection);
    client.simple_query("SELECT 'secret'").await.unwrap();
    let seen = sidecar.get("/v1/executions/run@1.a").await;
    assert_eq!(
        (&seen["kind"], &seen["sessions"]),
        (&json!("explicit"), &json!(1))
    );

    let sessions = sidecar.get("/v1/sessions?execution=run%401.a").await;
    let session = &sessions[0];
    assert_eq!(session["statement"], "SELECT ?", "{session}");
    assert_eq!(session["peer"]["pid"], std::process::id());
    assert_eq!(
        (&session["state"], &session["queries"]),
        (&json!("idle"), &json!(1))
    );

    let (status, ended) = sidecar
        .control("DELETE", "/v1/executions/run@1.a", None)
        .await;
    assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
    assert_eq!(
        pooled(&database).await,
        0,
        "nothing is left when it answers"
    );
    let end = driving.await.unwrap().unwrap_err();
    assert_eq!(end.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{end}");
}

#[tokio::test]
async fn a_running_query_is_ended_with_its_execution_at_once() {
    let (sidecar, database) = over("runs").await;
    let client = sidecar.client(&database.name, "busy").await.unwrap();
    let query = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(600)").await });
    eventually(SOON, "it runs", async || {
        let sessions = sidecar.get("/v1/sessions?state=active").await;
        (sessions.as_array().unwrap().len() == 1)
            .then_some(())
            .ok_or(sessions)
    })
    .await;
    // By itself the query would end after ten minutes.
    let said = execpool(sidecar.dir(), &["end", "busy", "--reason", "enough"]).await;
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.starts_with("busy ended (deleted)"), "{}", said.out);
    assert_eq!(pooled(&database).await, 0);
    query.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn status_answers_while_every_connection_is_lent_and_clients_wait() {
    let database = Postgres::shared().database("full").await;
    let yaml = upstream(&database.name, &database.url()) + "budget: {size: 2, overflow: 0}\n";
    let sidecar = Sidecar::start(yaml).await;
    let mut held = Vec::new();
    for execution in ["a", "b"] {
        let client = sidecar.client(&database.name, execution).await.unwrap();
        client.simple_query("SELECT 1").await.unwrap();
        held.push(client);
    }
    let third = sidecar.client(&database.name, "c").await.unwrap();
    let waiting = tokio::spawn(async move { third.simple_query("SELECT 1").await });
    eventually(SOON, "the third waits", async || {
        let status = sidecar.get("/v1/status").await;
        (status["budget"]["waiting"] == 1)
            .then_some(())
            .ok_or(status)
    })
    .await;
    let said = execpool(sidecar.dir(), &["status"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("2 of 2 used"), "{}", said.out);
    assert!(said.out.contains("1 waiting"), "{}", said.out);
    drop(held);
    waiting.await.unwrap().expect("it is its turn");
}

#[tokio::test]
async fn people_get_tables_without_colours_in_a_pipe_and_programs_get_json() {
    let (sidecar, database) = over("tables").await;
    let client = sidecar.client(&database.name, "run").await.unwrap();
    client.simple_query("SELECT 4711").await.unwrap();
    for (command, told) in [
        (&["status"][..], "upstream"),
        (&["executions"], "run"),
        (&["executions", "--ended"], "GEN"),
        (&["sessions", "--execution", "run"], "SELECT ?"),
    ] {
        let said = execpool(sidecar.dir(), command).await;
        assert_eq!(said.code, 0, "{command:?}: {}", said.err);
        assert!(said.out.contains(told), "{command:?}: {}", said.out);
        let forbidden = said.out.contains('\x1b') || said.out.contains("4711");
        assert!(!forbidden, "{command:?}: {}", said.out);
        let json = execpool(sidecar.dir(), &[command, &["--json"]].concat()).await;
        let parsed: Result<Value, _> = serde_json::from_str(&json.out);
        assert!(parsed.is_ok(), "{command:?}: {}", json.out);
    }
}

#[tokio::test]
async fn what_fails_says_what_to_do_and_exits_with_one() {
    let (sidecar, _database) = over("fails").await;
    let nowhere = tempfile::tempdir().unwrap();
    let postgres = Postgres::shared().socket();
    // As of a process that was killed.
    let dead = nowhere.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    for (dir, args, told) in [
        (sidecar.dir(), &["end", "nobody"][..], "no execution nobody"),
        (
            sidecar.dir(),
            &["sessions", "--state", "busy"],
            "idle_in_transaction",
        ),
        (nowhere.path(), &["status"], "Is execpool running"),
        (
            nowhere.path(),
            &["status", "--socket", "/dev/null"],
            "/dev/null",
        ),
        (
            nowhere.path(),
            &["status", "--socket", postgres.to_str().unwrap()],
            "not execpool",
        ),
        (
            nowhere.path(),
            &["status", "--socket", sidecar.pg_host()],
            "Is execpool running",
        ),
        (
            nowhere.path(),
            &["top", "--socket", dead.to_str().unwrap()],
            "Connection refused",
        ),
        (
            sidecar.dir(),
            &["end", "../../etc"],
            "An execution id is 1 to 128",
        ),
        (
            sidecar.dir(),
            &["cancel", "4711"],
            "GET /v1/sessions lists them",
        ),
    ] {
        let said = execpool(dir, args).await;
        assert_eq!(said.code, 1, "{args:?}: {}", said.out);
        assert!(said.err.contains(told), "{args:?}: {}", said.err);
        assert!(said.out.is_empty(), "{args:?}: {}", said.out);
    }
    for usage in [
        &["end"][..],
        &["end", "a", "--grace", "5"],
        &["status", "now"],
    ] {
        let said = execpool(sidecar.dir(), usage).await;
        assert_eq!(said.code, 2, "{usage:?}");
        assert!(!said.err.is_empty(), "{usage:?}");
    }
}

#[tokio::test]
async fn what_a_client_says_of_itself_moves_no_cursor_and_breaks_no_line() {
    let (sidecar, database) = over("ansi").await;
    let caller = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}東京.py:7\t".repeat(80);
    let parameters = [
        ("execpool.execution_id", "run"),
        ("execpool.caller", &caller),
        ("execpool.label", "\u{9b}31mred\r"),
        ("application_name", "a\u{1b}[31m"),
    ];
    let (mut raw, told) = sidecar.started(&database.name, &parameters).await;
    support::session::assert_in(&told);
    raw.ask("SELECT 1").await;
    for command in ["sessions", "executions", "top"] {
        let args: &[&str] = match command {
            "top" => &["top", "--once"],
            command => &[command],
        };
        let said = execpool(sidecar.dir(), args).await;
        assert_eq!(said.code, 0, "{command}: {}", said.err);
        let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!said.out.contains(obeyed), "{command}: {:?}", said.out);
        assert!(said.out.lines().count() < 20, "{command}: {}", said.out);
    }
    let said = execpool(sidecar.dir(), &["sessions", "--json"]).await;
    let list: Value = serde_json::from_str(&said.out).unwrap();
    let told = list[0]["caller"].as_str().unwrap();
    assert!(told.contains("東京.py:7") && told.len() <= 4096, "{told:?}");
    assert!(!told.contains('\u{1b}'), "{told:?}");
    assert_eq!(list[0]["peer"]["gid"], nix::unistd::getegid().as_raw());
}

#[tokio::test]
async fn an_app_that_is_killed_takes_its_execution_with_it() {
    let database = Postgres::shared().database("killed").await;
    let yaml = upstream(&database.name, &database.url()) + "hold: {grace: 200ms}\n";
    let sidecar = Sidecar::start(yaml).await;
    let body = json!({"id": "run"});
    let (status, _) = sidecar.control("POST", "/v1/executions", Some(body)).await;
    assert_eq!(status, 201);
    let hold = sidecar.stream("/v1/executions/run/hold").await;
    assert_eq!(hold.status(), 200);
    let client = sidecar.client(&database.name, "run").await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
    assert_eq!(pooled(&database).await, 1);
    drop(hold);
    eventually(SOON, "its execution has ended", async || {
        let seen = sidecar.get("/v1/executions/run").await;
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
    let Err(late) = sidecar.client(&database.name, "run").await else {
        panic!("it has ended");
    };
    let state = &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
    assert_eq!(late.code(), Some(state), "{late}");
}

#[tokio::test]
async fn without_descriptors_the_control_socket_waits_for_some_and_does_not_spin() {
    let (sidecar, _database) = over("descriptors").await;
    let pid = sidecar.pid().to_string();
    let limit = async |count: usize| {
        let limit = format!("--nofile={count}:1024");
        let mut set = Command::new("prlimit");
        set.args(["--pid", &pid, &limit]);
        assert!(set.status().await.expect("prlimit runs").success());
    };
    let before = sidecar.descriptors();
    limit(before + 5).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let socket = sidecar.control_socket();
        open.push(tokio::net::UnixStream::connect(socket).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (begun, start) = (Instant::now(), cpu(&pid));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = cpu(&pid) - start;
    let took = begun.elapsed();
    assert!(
        u128::from(used) * 40 < took.as_millis(),
        "{used} hundredths of a second in {took:?}"
    );
    drop(open);
    let status = sidecar.get("/v1/status").await;
    assert_eq!(status["sessions"]["total"], 0, "{status}");
    sidecar.logged(&["cannot accept"]).await;
}

#[tokio::test]
async fn a_pause_is_commanded_shown_and_ended_and_one_that_is_not_complete_is_no_success() {
    let (sidecar, database) = over("commanded").await;
    let client = sidecar.client(&database.name, "busy").await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    let said = execpool(sidecar.dir(), &["pause", "--timeout", "100ms"]).await;
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    let named = said.out.contains("1 connections still work") && said.out.contains("of busy,");
    assert!(named, "{}", said.out);
    client.batch_execute("COMMIT").await.unwrap();
    let said = execpool(sidecar.dir(), &["pause", "--for", "1h", "--json"]).await;
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&json["complete"], &json["held"]),
        (&json!(true), &json!(1)),
        "{json}"
    );
    let said = execpool(sidecar.dir(), &["status"]).await;
    assert!(said.out.contains("paused"), "{}", said.out);
    for told in ["Resumed.", "It was not paused."] {
        let said = execpool(sidecar.dir(), &["resume"]).await;
        assert_eq!((said.code, said.out.trim_end()), (0, told), "{}", said.err);
    }
    let said = execpool(sidecar.dir(), &["reconnect"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("1 are lent"), "{}", said.out);
    client.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn sessions_are_cancelled_ended_and_cleaned_up_by_command() {
    let database = Postgres::shared().database("by_command").await;
    let yaml = upstream(&database.name, &database.url()) + "session: {leak_after: 300ms}\n";
    let sidecar = Sidecar::start(yaml).await;
    let client = sidecar.client(&database.name, "run").await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
    let id = sidecar.sessions_of("run").await[0]["id"].to_string();
    let said = execpool(sidecar.dir(), &["cancel", &id]).await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(
        said.err.contains("runs nothing: it is idle"),
        "{}",
        said.err
    );
    eventually(SOON, "it is a suspect", async || {
        let said = execpool(sidecar.dir(), &["sessions", "--suspect"]).await;
        let told = said.out.contains("idle, suspect");
        told.then_some(()).ok_or(said.out)
    })
    .await;
    let said = execpool(sidecar.dir(), &["cleanup"]).await;
    let told = "Nothing was closed; nobody waited for the budget.\n";
    assert_eq!((said.code, said.out.as_str()), (0, told), "{}", said.err);
    let named = ["cleanup", "--execution", "run"];
    for (dry, told) in [(true, "would end session"), (false, "ended session")] {
        let args = [&named[..], if dry { &["--dry-run"] } else { &[] }].concat();
        let said = execpool(sidecar.dir(), &args).await;
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        assert!(said.out.starts_with(told), "{}", said.out);
        assert!(said.out.contains("leak_suspect"), "{}", said.out);
    }
    let client = sidecar.client(&database.name, "run").await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
    let id = sidecar.sessions_of("run").await[0]["id"].to_string();
    let said = execpool(sidecar.dir(), &["end", "--session", &id, "--json"]).await;
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["complete"], true, "{json}");
    let said = execpool(sidecar.dir(), &["end", "--session", &id]).await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.err.contains("there is no session"), "{}", said.err);
}

/// The processor time of a process, in hundredths of a second.
fn cpu(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<u64> = fields
        .split(' ')
        .map(|it| it.parse().unwrap_or(0))
        .collect();
    fields[11] + fields[12]
}

#[tokio::test]
async fn top_shows_all_of_it_who_holds_most_first() {
    let (sidecar, _database) = over("top").await;
    let mut busy = sidecar.session("top", "busy").await;
    assert_eq!(busy.ask("SELECT 1").await, "1");
    let said = execpool(sidecar.dir(), &["top", "--once"]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    for part in ["budget ", "EXECUTION", "busy", "SELECT ?"] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    let said = execpool(sidecar.dir(), &["top", "--once", "--json"]).await;
    let seen: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(seen["sessions"][0]["execution"], "busy");
    let nowhere = execpool(Path::new("/nowhere"), &["top"]).await;
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.err.contains("no execpool at"), "{}", nowhere.err);
}

#[tokio::test]
async fn shells_are_told_how_to_complete_it() {
    for shell in ["bash", "zsh", "fish"] {
        let said = execpool(Path::new("/nowhere"), &["completion", shell]).await;
        assert_eq!(said.code, 0, "{}", said.err);
        for word in ["doctor", "cleanup", "sessions"] {
            assert!(said.out.contains(word), "{shell}: {word}");
        }
    }
}
