//! Each event is provoked, and told with its fields.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use execpool::events::NAMES;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::follow::has_begun;
use crate::reader::Reader;
use crate::support::schema::{complaint_of_event, mutants};
use crate::support::session::{assert_in, kinds, place};
use crate::support::sidecar::upstream;
use crate::support::{Fault, Postgres, PostgresOptions, Proxy, SOON, Sidecar, eventually, memory};

async fn post(sidecar: &Sidecar, path: &str, body: Option<Value>) -> Value {
    match sidecar.control("POST", path, body).await {
        (200 | 201, body) => body,
        (status, body) => panic!("POST {path}: {status} {body}"),
    }
}

/// A number of seconds in these bounds.
#[track_caller]
fn assert_seconds(value: &Value, from: f64, to: f64) {
    let seconds = value.as_f64().unwrap_or(f64::NAN);
    assert!((from..=to).contains(&seconds), "{value}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_told_when_it_is_provoked() {
    let scenarios = tokio::join!(
        a_life(),
        an_operator(),
        executions(),
        leftovers(),
        refusals(),
        nobody_there(),
        limits_of_sessions(),
        an_outage(),
        a_full_database(),
        configurations(),
        a_shortage(),
        sessions_forgotten(),
        sessions_dealt_with(),
        resources(),
        remedies(),
    );
    let (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o) = scenarios;
    let seen: Seen = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o]
        .into_iter()
        .flatten()
        .collect();
    let mut names = NAMES.to_vec();
    names.sort_unstable();
    assert_eq!(Vec::from_iter(seen.keys()), names);
    for (name, event) in &seen {
        let all = mutants("", event);
        assert!(all.len() > 6, "{name}: {}", all.len());
        for (what, mutant) in all {
            let noticed = complaint_of_event(&mutant).is_some();
            assert!(noticed, "{name}: {what} is not noticed");
        }
    }
}

/// One of each event that was told, by name.
type Seen = BTreeMap<String, Value>;

/// What a reader has seen. The log has the same with the same names of fields, but for those that
/// it leaves out as they say nothing.
async fn seen(reader: Reader, sidecar: &Sidecar) -> Seen {
    let loud = reader.firsts.iter();
    for (name, event) in loud.filter(|(name, _)| !QUIET.contains(&name.as_str())) {
        let word = format!("\"event\":\"{name}\"");
        let line = eventually(SOON, &format!("the log has {name}"), async || {
            let log = sidecar.log();
            let line = log.iter().find(|line| line.contains(&word)).cloned();
            line.ok_or(log)
        })
        .await;
        assert_alike(event, &line);
    }
    reader.firsts
}

/// Events whose lines are below the level `info`, as there may be many; and one whose first line is that
/// of the start.
const QUIET: [&str; 3] = ["execution.began", "execution.adopted", "monitor.answer"];

/// Fields of events that are several lines: one for what is applied and one for each change that waits,
/// one for each backend.
const IN_OTHER_WORDS: [(&str, &str); 3] = [
    ("configuration.reloaded", "applied"),
    ("configuration.reloaded", "waiting_for_restart"),
    ("execution.leftovers", "backends"),
];

#[track_caller]
fn assert_alike(event: &Value, line: &str) {
    let logged: Value = serde_json::from_str(line).unwrap();
    for (field, value) in event.as_object().unwrap() {
        let other = IN_OTHER_WORDS.contains(&(event["event"].as_str().unwrap(), field));
        let own = ["id", "time", "unsaid"].contains(&field.as_str());
        let is_there = logged.get(field).is_some();
        assert!(
            is_there || own || other || value.is_null(),
            "{field}: {line}\n{event}"
        );
    }
}

/// From the start of a process to its end, and to that of the stream.
async fn a_life() -> Seen {
    let (_database, mut sidecar) = place("life", "shutdown: {grace: 3s}\n").await;
    let mut reader = Reader::of_all(&sidecar).await;
    let start = reader.next().await.unwrap();
    assert_eq!((start.id, start.name.as_str()), (Some(1), "start"));
    assert_eq!(start.data["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(start.data["budget"], 30);
    let time = start.data["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    // Two tasks find the database; either may be the first.
    let mut both = [reader.next().await.unwrap(), reader.next().await.unwrap()];
    both.sort_by_key(|told| told.name.clone());
    let [answer, ready] = both;
    assert_eq!(answer.name, "monitor.answer");
    assert_eq!(answer.data["max_connections"], 300);
    assert!(answer.data["server_version"].is_string(), "{answer:?}");
    assert_eq!(
        (ready.name.as_str(), &ready.data["upstream"]),
        ("ready", &json!("app"))
    );

    post(&sidecar, "/v1/drain", None).await;
    post(&sidecar, "/v1/drain", None).await;
    assert_eq!(reader.next().await.unwrap().name, "drain");
    let mut session = sidecar.session("app", "left").await;
    assert_eq!(session.ask("SELECT 1").await, "1");
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(reader.next().await.unwrap().name, "execution.began");
    let shutdown = reader.next().await.unwrap();
    assert_eq!(shutdown.name, "shutdown", "drain is told once");
    assert_seconds(&shutdown.data["grace_seconds"], 3.0, 3.0);
    // The standing one and the other, in any order.
    for _ in 0..2 {
        let ended = reader.next().await.unwrap();
        assert_eq!(ended.data["reason"], "shutdown", "{ended:?}");
    }
    assert_eq!(reader.next().await, None, "the stream ends in order");
    assert!(sidecar.exited(SOON).await.success());
    seen(reader, &sidecar).await
}

/// What an operator asks for.
async fn an_operator() -> Seen {
    let (_database, sidecar) = place("operator", "").await;
    has_begun(&sidecar).await;
    let mut session = sidecar.session("app", "a").await;
    assert_eq!(session.ask("SELECT 1").await, "1");
    let mut reader = Reader::open(&sidecar, "").await;
    reader.is_in().await;
    post(&sidecar, "/v1/pause?for=300ms", None).await;
    assert_seconds(&reader.until("pause").await["for_seconds"], 0.3, 0.3);
    let resume = reader.until("resume").await;
    assert_eq!(resume["by"], "time");
    assert_seconds(&resume["paused_seconds"], 0.3, 60.0);
    post(&sidecar, "/v1/pause", None).await;
    post(&sidecar, "/v1/pause", None).await;
    assert_eq!(reader.until("pause").await["for_seconds"], Value::Null);
    post(&sidecar, "/v1/resume", None).await;
    let resume = reader.next().await.unwrap();
    assert_eq!(resume.data["by"], "operator", "{resume:?}");
    post(&sidecar, "/v1/reconnect", None).await;
    let reconnect = reader.until("reconnect").await;
    assert_eq!(
        (&reconnect["closed"], &reconnect["lent"]),
        (&json!(0), &json!(1))
    );
    seen(reader, &sidecar).await
}

/// How executions begin and end; sessions alone are no events.
async fn executions() -> Seen {
    let (_database, sidecar) = place("executions", "").await;
    has_begun(&sidecar).await;
    let mut reader = Reader::open(&sidecar, "").await;
    let mut one = Reader::open(&sidecar, "execution=b&event=execution").await;
    reader.is_in().await;
    one.is_in().await;
    let mut shared = sidecar.started("app", &[]).await.0;
    assert_eq!(shared.ask("SELECT 1").await, "1");
    let mut session = sidecar.session("app", "a").await;
    assert_eq!(session.ask("SELECT 1").await, "1");
    let began = reader.next().await.unwrap();
    assert_eq!(began.name, "execution.began", "{began:?}");
    assert_eq!(
        (
            &began.data["execution_id"],
            &began.data["kind"],
            &began.data["generation"]
        ),
        (&json!("a"), &json!("implicit"), &json!(1))
    );
    assert_seconds(&began.data["deadline_seconds"], 1800.0, 1800.0);
    let _other = sidecar.session("app", "a").await;
    post(
        &sidecar,
        "/v1/executions",
        Some(json!({"id": "a", "deadline": "1m"})),
    )
    .await;
    let adopted = reader.next().await.unwrap();
    assert_eq!(adopted.name, "execution.adopted", "{adopted:?}");
    assert_seconds(&adopted.data["deadline_seconds"], 60.0, 60.0);
    let path = "/v1/executions/a?reason=he%20said%20%22no%22";
    assert_eq!(sidecar.control("DELETE", path, None).await.0, 200);
    let ended = reader.next().await.unwrap();
    assert_eq!(ended.name, "execution.ended", "{ended:?}");
    for (field, value) in [
        ("execution_id", json!("a")),
        ("generation", json!(1)),
        ("reason", json!("deleted")),
        ("reason_text", json!("he said \"no\"")),
        ("sessions", json!(2)),
        ("queries", json!(1)),
        ("peak_connections", json!(2)),
        ("leftovers", json!(0)),
    ] {
        assert_eq!(ended.data[field], value, "{field}: {ended:?}");
    }
    assert_seconds(&ended.data["duration_seconds"], 0.001, 60.0);
    assert_seconds(&ended.data["teardown_seconds"], 0.0, 60.0);
    assert_seconds(&ended.data["held_seconds"], 0.0, 60.0);
    assert_seconds(&ended.data["active_seconds"], 0.0, 60.0);

    let mut attempts = 0..10;
    let near = loop {
        assert!(attempts.next().is_some(), "no machine is so busy");
        let body = json!({"id": "b", "deadline": "5s"});
        post(&sidecar, "/v1/executions", Some(body)).await;
        assert_eq!(reader.next().await.unwrap().data["kind"], "explicit");
        let told = reader.next().await.unwrap();
        // It is not told where the machine stands still until it is over.
        if told.name != "execution.ended" {
            break told;
        }
        for name in ["execution.began", "execution.ended"] {
            assert_eq!(one.next().await.unwrap().name, name);
        }
    };
    assert_eq!(near.name, "execution.deadline_near", "{near:?}");
    assert_eq!(near.data["sessions"], 0);
    // A fifth of it is left when that is told, or less on a busy machine.
    assert_seconds(&near.data["deadline_seconds"], 0.0, 1.0);
    assert_eq!(reader.next().await.unwrap().data["reason"], "deadline");
    for name in [
        "execution.began",
        "execution.deadline_near",
        "execution.ended",
    ] {
        let told = one.next().await.unwrap();
        assert_eq!(
            (told.name.as_str(), &told.data["execution_id"]),
            (name, &json!("b"))
        );
    }
    seen(reader, &sidecar).await
}

/// A partition of the network keeps a backend from ending.
async fn leftovers() -> Seen {
    let postgres = Postgres::shared();
    let database = postgres.database("leftovers").await;
    let proxy = Proxy::tcp(postgres).await;
    let yaml = upstream("app", &proxy.url(&database)) + "maintenance: {interval: 1s}\n";
    let sidecar = Sidecar::start(yaml).await;
    let mut doomed = sidecar.session("app", "doomed").await;
    assert_eq!(doomed.ask("SELECT 1").await, "1");
    let mut reader = Reader::of_all(&sidecar).await;
    proxy.set(Fault::FreezeOld);
    let (status, _) = sidecar
        .control("DELETE", "/v1/executions/doomed", None)
        .await;
    assert_eq!(status, 200);
    assert_eq!(reader.until("execution.ended").await["leftovers"], 1);
    let told = reader.until("execution.leftovers").await;
    assert_eq!(
        (&told["execution_id"], &told["backends"]),
        (&json!("doomed"), &json!(1))
    );
    seen(reader, &sidecar).await
}

/// Who waits in vain; a storm of them drives nothing else out.
async fn refusals() -> Seen {
    let one = "budget: {size: 1, overflow: 0}\n";
    let (database, sidecar) = place("refusals", one).await;
    let mut holder = sidecar.session("app", "holder").await;
    assert_eq!(holder.ask("SELECT 1").await, "1");
    let hasty = format!("{one}pool: {{timeout: 300ms}}\n");
    sidecar
        .reload(&(upstream("app", &database.url()) + &hasty))
        .await;
    let mut reader = Reader::open(&sidecar, "event=checkout").await;
    reader.is_in().await;
    let mut late = sidecar.session("app", "late").await;
    let told = late.query("SELECT 1").await;
    assert_eq!(kinds(&told), "EZ", "{told:?}");
    let refused = reader.next().await.unwrap().data;
    for (field, value) in [
        ("execution_id", "late"),
        ("upstream", "app"),
        ("sqlstate", "53300"),
        ("limit", "budget"),
    ] {
        assert_eq!(refused[field], value, "{refused}");
    }
    // How long it was is a busy machine's to say.
    let message = refused["message"].as_str().unwrap();
    let begins = "execpool: no server connection for execution late within ";
    let (_, why) = message.split_once(" s: ").unwrap_or_default();
    assert!(message.starts_with(begins), "{refused}");
    assert!(why.starts_with("the pod's budget"), "{refused}");
    assert_seconds(&refused["waited_seconds"], 0.3, 60.0);
    let id = refused["session_id"].as_u64().unwrap();
    assert_eq!(sidecar.sessions_of("late").await[0]["id"], id);
    assert_eq!(refused["unsaid"], 0);
    let line = eventually(SOON, "the log has it as well", async || {
        let log = sidecar.log();
        let found = log
            .iter()
            .find(|line| line.contains("\"event\":\"checkout.refused\""));
        found.cloned().ok_or(log)
    })
    .await;
    assert!(line.contains("\"limit\":\"budget\""), "{line}");

    let mut storm = Vec::new();
    for _ in 0..20 {
        storm.push(sidecar.session("app", "late").await);
    }
    let begun = Instant::now();
    let waits: Vec<_> = storm
        .into_iter()
        .map(|mut session| tokio::spawn(async move { session.query("SELECT 1").await }))
        .collect();
    for wait in waits {
        assert_eq!(kinds(&wait.await.unwrap()), "EZ");
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    late.query("SELECT 1").await;
    let (mut told, mut unsaid) = (0, 0);
    while told + unsaid < 21 {
        let refused = reader.next().await.unwrap();
        (told, unsaid) = (told + 1, unsaid + refused.data["unsaid"].as_u64().unwrap());
    }
    // One a second of the same execution, however long it took.
    let most = 3 + begun.elapsed().as_secs();
    assert!(told <= most, "{told} were told of 21, not {most}");

    post(&sidecar, "/v1/pause?timeout=0s", None).await;
    let mut other = sidecar.session("app", "other").await;
    assert_eq!(kinds(&other.query("SELECT 1").await), "EZ");
    assert_eq!(reader.next().await.unwrap().data["limit"], "paused");
    seen(reader, &sidecar).await
}

/// A database that was never there.
async fn nobody_there() -> Seen {
    let sidecar = Sidecar::start(upstream("app", "postgresql://app@127.0.0.1:1/app")).await;
    let mut reader = Reader::of_all(&sidecar).await;
    let silent = reader.until("monitor.no_answer").await;
    assert_eq!(silent["upstream"], "app");
    assert!(
        silent["error"].as_str().unwrap().contains("127.0.0.1"),
        "{silent}"
    );
    drop(
        sidecar
            .started("app", &[("execpool.execution_id", "a")])
            .await,
    );
    let failed = reader.until("checkout.failed").await;
    assert_eq!(
        (&failed["sqlstate"], &failed["execution_id"]),
        (&json!("08001"), &json!("a"))
    );
    assert_eq!(
        (&failed["upstream"], &failed["unsaid"]),
        (&json!("app"), &json!(0))
    );
    assert!(
        failed["session_id"].is_u64() && failed["error"].is_string(),
        "{failed}"
    );
    seen(reader, &sidecar).await
}

/// Sessions that keep a transaction open.
async fn limits_of_sessions() -> Seen {
    let more = "session: {idle_in_transaction: {notice: 100ms, end: 5s}}\n";
    let (_database, sidecar) = place("limits", more).await;
    let mut reader = Reader::open(&sidecar, "execution=a&event=session").await;
    let mut session = sidecar.session("app", "a").await;
    let id = sidecar.sessions_of("a").await[0]["id"].clone();
    // At once: it is idle in the transaction from the answer on, and not before.
    session.query("BEGIN; SELECT 'hidden'").await;
    for (act, least) in [("notice", 0.1), ("end", 5.0)] {
        let told = reader.next().await.unwrap();
        assert_eq!(told.name, "session.limit");
        let limit = format!("session.idle_in_transaction.{act}");
        assert_eq!(told.data["limit"], limit, "{told:?}");
        assert_eq!(
            (&told.data["act"], &told.data["session_id"]),
            (&json!(act), &id)
        );
        assert_seconds(&told.data["seconds"], least, 60.0);
        let message = told.data["message"].as_str().unwrap();
        assert!(message.contains("idle in transaction"), "{message}");
        assert!(!told.data.to_string().contains("hidden"), "{told:?}");
    }
    seen(reader, &sidecar).await
}

/// A database that goes away and comes back.
async fn an_outage() -> Seen {
    let database = Postgres::shared().database("outage").await;
    let proxy = Proxy::tcp(Postgres::shared()).await;
    let yaml = upstream("app", &proxy.url(&database));
    let sidecar = Sidecar::start(yaml.clone()).await;
    let mut session = sidecar.session("app", "a").await;
    assert_eq!(session.ask("SELECT 1").await, "1");
    sidecar.reload(&(yaml + "pool: {timeout: 500ms}\n")).await;
    let mut reader = Reader::open(&sidecar, "event=database").await;
    reader.is_in().await;
    let begun = Instant::now();
    proxy.cut().await;
    proxy.set(Fault::Refuse);
    let mut late = sidecar.session("app", "b").await;
    assert_eq!(kinds(&late.query("SELECT 1").await), "EZ");
    let away = reader.next().await.unwrap();
    assert_eq!(
        (away.name.as_str(), &away.data["upstream"]),
        ("database.away", &json!("app"))
    );
    let error = away.data["error"].as_str().unwrap();
    // A dial that was under way just then is cut in the middle of it.
    let is_cut = error.contains("broke during start-up");
    assert!(
        is_cut || error.contains("cannot reach PostgreSQL"),
        "{error}"
    );
    proxy.set(Fault::None);
    eventually(SOON, "it is reached again", async || {
        let told = late.query("SELECT 1").await;
        (kinds(&told) == "TDCZ").then_some(()).ok_or(told)
    })
    .await;
    let back = reader.next().await.unwrap();
    assert_eq!(
        (back.name.as_str(), &back.data["upstream"]),
        ("database.back", &json!("app"))
    );
    let away = begun.elapsed().as_secs_f64();
    assert_seconds(&back.data["away_seconds"], 0.001, away);
    seen(reader, &sidecar).await
}

/// A database that takes no more connections, and then does again.
async fn a_full_database() -> Seen {
    let postgres = Postgres::start(PostgresOptions {
        max_connections: 8,
        ..PostgresOptions::default()
    });
    let database = postgres.database("full").await;
    let sidecar = Sidecar::start(upstream("app", &database.url())).await;
    let mut reader = Reader::open(&sidecar, "event=database.limit").await;
    let mut held = Vec::new();
    for execution in 0..4 {
        let mut session = sidecar.session("app", &format!("e{execution}")).await;
        let sent = tokio::spawn(async move {
            let told = session.query("SELECT 1").await;
            (session, told)
        });
        held.push(sent);
    }
    // With the monitor's there are five that are not for superusers.
    let mut beside = Vec::new();
    while let Ok(client) = try_client(&database.url()).await {
        beside.push(client);
        assert!(beside.len() < 9, "the server takes any number");
    }
    let more: Vec<_> = (4..7).map(|n| format!("e{n}")).collect();
    let mut waits = Vec::new();
    for execution in &more {
        let mut session = sidecar.session("app", execution).await;
        waits.push(tokio::spawn(async move {
            let told = session.query("SELECT 1").await;
            (session, told)
        }));
    }
    let limited = reader.until("database.limited").await;
    assert_eq!(
        (&limited["upstream"], &limited["budget_limit"]),
        (&json!("app"), &json!(30))
    );
    let effective = limited["budget_effective"].as_u64().unwrap();
    assert!(effective < 8, "{limited}");
    assert!(
        limited["error"].as_str().unwrap().contains("connection"),
        "{limited}"
    );
    beside.clear();
    for wait in held {
        // They make room.
        wait.abort();
    }
    let raised = reader.until("database.limit_raised").await;
    assert_eq!(raised["budget_limit"], 30, "{raised}");
    let now = raised["budget_effective"].as_u64().unwrap();
    assert!(
        now > effective || raised["limited_by_database"] == false,
        "{raised}"
    );
    drop(waits);
    seen(reader, &sidecar).await
}

async fn try_client(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A configuration that is read anew.
async fn configurations() -> Seen {
    let database = Postgres::shared().database("configurations").await;
    let yaml = upstream("app", &database.url());
    let sidecar = Sidecar::start(yaml.clone()).await;
    let mut reader = Reader::open(&sidecar, "event=configuration").await;
    reader.is_in().await;
    sidecar
        .reload(&format!(
            "{yaml}budget: {{size: 5}}\nlisten: {{port: 5499}}\n"
        ))
        .await;
    let told = reader.next().await.unwrap();
    assert_eq!(told.name, "configuration.reloaded");
    assert_eq!(
        (&told.data["applied"], &told.data["waiting_for_restart"]),
        (&json!(1), &json!(1))
    );
    let changes = told.data["changes"].as_str().unwrap();
    assert!(
        changes.contains("budget.size") && changes.contains("listen.port"),
        "{changes}"
    );
    sidecar.configure("budget: {size: minus}\n");
    assert_eq!(sidecar.control("POST", "/v1/reload", None).await.0, 422);
    // Where it took long, the file was looked at beside.
    let refused = reader.until("configuration.refused").await;
    let problems = refused["problems"].as_str().unwrap();
    assert!(problems.contains("budget.size"), "{refused}");
    seen(reader, &sidecar).await
}

/// Sessions that hold a server connection and ask nothing.
async fn sessions_forgotten() -> Seen {
    let (_database, sidecar) = place("forgotten", "session: {leak_after: 1s}\n").await;
    let mut reader = Reader::open(&sidecar, "execution=a&event=session").await;
    let mut cleanups = Reader::open(&sidecar, "event=cleanup").await;
    reader.is_in().await;
    cleanups.is_in().await;
    let parameters = [
        ("execpool.execution_id", "a"),
        ("execpool.caller", "agent.py:7 run"),
        ("execpool.label", "search"),
        ("application_name", "tool"),
    ];
    let (mut session, told) = sidecar.started("app", &parameters).await;
    assert_in(&told);
    session.ask("SELECT 'hidden'").await;
    let listed = sidecar.sessions_of("a").await.remove(0);
    let suspect = reader.next().await.unwrap();
    assert_eq!(suspect.name, "session.leak_suspect", "{suspect:?}");
    for (field, value) in [
        ("session_id", listed["id"].clone()),
        ("execution_id", json!("a")),
        ("upstream", json!("app")),
        ("state", json!("idle")),
        ("server_pid", listed["server_pid"].clone()),
        ("caller", json!("agent.py:7 run")),
        ("label", json!("search")),
        ("application_name", json!("tool")),
        ("statement", json!("SELECT ?")),
        ("unsaid", json!(0)),
    ] {
        assert_eq!(suspect.data[field], value, "{field}: {suspect:?}");
    }
    assert_seconds(&suspect.data["idle_for_seconds"], 1.0, 60.0);
    assert_seconds(&suspect.data["bound_for_seconds"], 1.0, 60.0);
    let peer = suspect.data["peer"].as_str().unwrap();
    let user = format!(
        "user {}, process {}",
        nix::unistd::geteuid(),
        std::process::id()
    );
    assert_eq!(peer, user);
    session.ask("SELECT 1").await;
    let recovered = reader.next().await.unwrap();
    assert_eq!(recovered.name, "session.leak_recovered", "{recovered:?}");
    assert_eq!(recovered.data["session_id"], listed["id"]);
    assert_seconds(&recovered.data["idle_for_seconds"], 1.0, 60.0);

    let again = reader.next().await.unwrap();
    assert_eq!(again.name, "session.leak_suspect", "{again:?}");
    post(&sidecar, "/v1/cleanup", Some(json!({"dry_run": true}))).await;
    let told = cleanups.next().await.unwrap();
    let (dry, whose) = (&told.data["dry_run"], &told.data["execution_id"]);
    assert_eq!((dry, whose), (&json!(true), &Value::Null), "{told:?}");
    post(&sidecar, "/v1/cleanup", Some(json!({"execution": "a"}))).await;
    let reclaimed = reader.next().await.unwrap();
    assert_eq!(reclaimed.name, "session.reclaimed", "{reclaimed:?}");
    for (field, value) in [
        ("session_id", listed["id"].clone()),
        ("upstream", json!("app")),
        ("why", json!("leak_suspect")),
        ("server_pid", listed["server_pid"].clone()),
        ("caller", json!("agent.py:7 run")),
        ("application_name", json!("tool")),
    ] {
        assert_eq!(reclaimed.data[field], value, "{field}: {reclaimed:?}");
    }
    assert_seconds(&reclaimed.data["idle_for_seconds"], 1.0, 60.0);
    let told = cleanups.next().await.unwrap();
    for (field, value) in [
        ("dry_run", json!(false)),
        ("execution_id", json!("a")),
        ("closed", json!(1)),
        ("waited", json!(0)),
        ("waiting", json!(0)),
        ("spared", json!(0)),
        ("remaining", json!(0)),
    ] {
        assert_eq!(told.data[field], value, "{field}: {told:?}");
    }
    let mut all = seen(reader, &sidecar).await;
    all.extend(cleanups.firsts);
    all
}

/// Sessions that an operator cancels and ends.
async fn sessions_dealt_with() -> Seen {
    let (database, sidecar) = place("dealt_with", "").await;
    let mut reader = Reader::open(&sidecar, "execution=a&event=session").await;
    reader.is_in().await;
    let mut session = sidecar.session("app", "a").await;
    let id = sidecar.sessions_of("a").await[0]["id"].clone();
    let sleeps = tokio::spawn(async move {
        let told = session.query("SELECT pg_sleep(60)").await;
        (session, told)
    });
    sidecar.session_is("a", "active").await;
    // A cancellation that comes before the database has the query cancels nothing.
    let sleeping = format!(
        "datname = '{}' AND state = 'active' AND wait_event = 'PgSleep'",
        database.name
    );
    eventually(SOON, "the database works at it", async || {
        let now = Postgres::shared().activity(&sleeping).await;
        (!now.is_empty()).then_some(()).ok_or(now)
    })
    .await;
    let path = format!("/v1/sessions/{id}/cancel");
    assert_eq!(sidecar.control("POST", &path, None).await.0, 202);
    let (_session, told) = sleeps.await.unwrap();
    assert_eq!(kinds(&told), "TEZ");
    let who = format!("user {}", nix::unistd::geteuid());
    let cancelled = reader.next().await.unwrap();
    assert_eq!(cancelled.name, "session.cancelled", "{cancelled:?}");
    for (field, value) in [
        ("session_id", id.clone()),
        ("cancelled", json!("query")),
        ("who", json!(who)),
    ] {
        assert_eq!(cancelled.data[field], value, "{field}: {cancelled:?}");
    }
    let path = format!("/v1/sessions/{id}?reason=holds%0Athe%20lock");
    assert_eq!(sidecar.control("DELETE", &path, None).await.0, 200);
    let ended = reader.next().await.unwrap();
    assert_eq!(ended.name, "session.ended", "{ended:?}");
    for (field, value) in [
        ("session_id", id.clone()),
        ("reason_text", json!("holds the lock")),
        ("who", json!(who)),
    ] {
        assert_eq!(ended.data[field], value, "{field}: {ended:?}");
    }
    seen(reader, &sidecar).await
}

/// What an app has registered; many that expire at once drive nothing else out.
async fn resources() -> Seen {
    let (_database, sidecar) = place("resources", "").await;
    let mut reader = Reader::open(&sidecar, "execution=a").await;
    reader.is_in().await;
    post(&sidecar, "/v1/executions", Some(json!({"id": "a"}))).await;
    let path = "/v1/executions/a/resources";
    let begun = Instant::now();
    for n in 0..60 {
        let one = json!({"kind": "file", "name": format!("/tmp/{n}"), "ttl": "700ms"});
        post(&sidecar, path, Some(one)).await;
    }
    let took = begun.elapsed();
    let first = reader.until("resource.expired").await;
    assert_eq!(
        (&first["kind"], &first["name"]),
        (&json!("file"), &json!("/tmp/0"))
    );
    assert_seconds(&first["age_seconds"], 0.7, 60.0);
    eventually(SOON, "all are expired", async || {
        let expired = sidecar.get("/v1/status").await["resources"]["expired"].clone();
        (expired == 60).then_some(()).ok_or(expired)
    })
    .await;
    // By then one more is told again, and how many were not.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let late = json!({"kind": "http", "name": "late", "ttl": "100ms"});
    post(&sidecar, path, Some(late)).await;
    let (mut told, mut unsaid, mut last) = (1, 0, first);
    while told + unsaid < 61 {
        last = reader.until("resource.expired").await;
        told += 1;
        unsaid += last["unsaid"].as_u64().unwrap();
    }
    assert_eq!(last["name"], "late");
    // Ten a second, for as long as it took to register them, and where the machine stands still once.
    let most = 10 * (took.as_secs() + 3) + 1;
    assert!(told <= most, "{told} were told of 61, not {most}");

    for (kind, name) in [("browser", "checkout page"), ("other", "a lock")] {
        post(&sidecar, path, Some(json!({"kind": kind, "name": name}))).await;
    }
    assert_eq!(
        sidecar.control("DELETE", "/v1/executions/a", None).await.0,
        200
    );
    let left = reader.until("execution.resources_left").await;
    for (field, value) in [
        ("generation", json!(1)),
        ("count", json!(2)),
        ("resources", json!("browser checkout page, other a lock")),
    ] {
        assert_eq!(left[field], value, "{field}: {left}");
    }
    seen(reader, &sidecar).await
}

/// Connections that run out.
async fn a_shortage() -> Seen {
    let one = "budget: {size: 1, overflow: 0}\n";
    let (database, sidecar) = place("shortage", one).await;
    has_begun(&sidecar).await;
    let mut held = sidecar.session("app", "holder").await;
    held.query("BEGIN").await;
    // Only now, as the holder may have waited for longer.
    let hasty = format!("{one}exhaustion: {{wait: 100ms, after: 100ms}}\n");
    sidecar
        .reload(&(upstream("app", &database.url()) + &hasty))
        .await;
    let mut reader = Reader::open(&sidecar, "event=exhaustion").await;
    reader.is_in().await;
    // It waits to be let in.
    let url = sidecar.url_in("app", "waiter");
    let waiting = tokio::spawn(async move { try_client(&url).await.map(drop) });
    let told = reader.until("exhaustion.changed").await;
    assert_eq!(
        (&told["from"], &told["state"], &told["cause"]),
        (&json!("healthy"), &json!("exhausted"), &json!("held"))
    );
    assert_eq!((&told["used"], &told["limit"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&told["waiting"], &told["holder"], &told["holder_caller"]),
        (&json!(1), &json!("holder"), &Value::Null)
    );
    assert_seconds(&told["oldest_wait_seconds"], 0.1, 60.0);
    assert_seconds(&told["held_seconds"], 0.1, 60.0);
    waiting.abort();
    seen(reader, &sidecar).await
}

/// What is done about connections that run out: a cleanup, a restart, and one that is refused.
async fn remedies() -> Seen {
    let database = Postgres::shared().database("remedies").await;
    let more = "exhaustion: {wait: 100ms, after: 100ms, sustained_after: 100ms}\n\
        budget: {size: 1, overflow: 0}\npool: {timeout: 60s}\nsession: {leak_after: 1s}\n\
        reactor: {restart: liveness, restart_after: 5s}\n";
    let sidecar = Sidecar::options()
        .config(upstream("app", &database.url()) + more)
        .env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0")
        .file(
            "restarts.json",
            memory::of_pod_since(Duration::from_secs(7200)).to_string(),
        )
        .start()
        .await;
    has_begun(&sidecar).await;
    let mut reader = Reader::open(&sidecar, "event=reactor").await;
    reader.is_in().await;
    // A suspect of a named execution makes room.
    let mut forgotten = sidecar.session("app", "forgotten").await;
    forgotten.query("SELECT 1").await;
    let id = sidecar.sessions_of("forgotten").await[0]["id"].clone();
    eventually(SOON, "it is a suspect", async || {
        let sessions = sidecar.get("/v1/status").await["sessions"].clone();
        (sessions["leak_suspects"] == 1)
            .then_some(())
            .ok_or(sessions)
    })
    .await;
    try_client(&sidecar.url_in("app", "waiter")).await.unwrap();
    let cleanup = reader.until("reactor.cleanup").await;
    for (field, value) in [
        ("dry_run", json!(false)),
        ("closed", json!(1)),
        ("what", json!(format!("sessions {id} (leak_suspect)"))),
        ("waiting", json!(0)),
        ("spared", json!(0)),
    ] {
        assert_eq!(cleanup[field], value, "{field}: {cleanup}");
    }
    // One of none does not: it takes a restart, and there is one alone.
    for expected in ["reactor.restart", "reactor.refused"] {
        let mut held = sidecar.session("app", "shared").await;
        held.query("SELECT 1").await;
        let url = sidecar.url_in("app", "waiter");
        // It is let in at once, and waits with its query.
        let waiting = tokio::spawn(async move {
            let client = try_client(&url).await?;
            client.simple_query("SELECT 1").await.map(drop)
        });
        let told = reader.until(expected).await;
        if expected == "reactor.restart" {
            for (field, value) in [
                ("dry_run", json!(false)),
                ("mode", json!("liveness")),
                ("used", json!(1)),
                ("limit", json!(1)),
                ("waiting", json!(1)),
                ("holder", json!("shared")),
                ("holder_caller", Value::Null),
                ("restarts_last_hour", json!(1)),
            ] {
                assert_eq!(told[field], value, "{field}: {told}");
            }
            drop(held);
            let over = reader.until("reactor.restart_over").await;
            let outcome = over["outcome"].as_str().unwrap();
            assert!(["gone", "recovered"].contains(&outcome), "{over}");
            assert_seconds(&over["after_seconds"], 0.0, 60.0);
        } else {
            assert_eq!(
                (&told["action"], &told["guard"]),
                (&json!("restart"), &json!("cooldown"))
            );
            assert!(
                told["why"].as_str().unwrap().contains("reactor.cooldown"),
                "{told}"
            );
        }
        waiting.abort();
    }
    seen(reader, &sidecar).await
}
