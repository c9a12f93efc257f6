//! What is done about exhaustion, with the built program, a real database, real apps, and a kubelet that is played.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "remedies/kubelet.rs"]
mod kubelet;
mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kubelet::{App, Kubelet, Timing, port};
use serde_json::{Value, json};
use support::http::get_tcp;
use support::receiver::{Answer, Receiver};
use support::sidecar::{SidecarOptions, upstream};
use support::{Database, Fault, Postgres, Proxy, Raw, SOON, Sidecar, eventually, memory};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What takes minutes takes seconds. Restarts are put off by a second at most. What the database is given to
/// answer in is what a machine that stands still takes.
const SHORT: &str = "
exhaustion: {wait: 300ms, after: 1s, sustained_after: 1s}
budget: {size: 3, overflow: 0}
pool: {size: 3, overflow: 0, timeout: 180s}
";

/// A sidecar in a pod that has been there for two hours.
fn options(database: &Database, more: &str) -> SidecarOptions {
    over(&database.url(), more)
}

fn yaml(url: &str, more: &str) -> String {
    upstream("app", url) + "    connect_timeout: 10s\n" + SHORT + more
}

fn over(url: &str, more: &str) -> SidecarOptions {
    let memory = memory::of_pod_since(seconds(7200));
    Sidecar::options()
        .config(yaml(url, more))
        .file("restarts.json", memory.to_string())
        .env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0")
}

async fn start(name: &str, more: &str) -> (Database, Sidecar) {
    let database = Postgres::shared().database(name).await;
    let sidecar = options(&database, more).start().await;
    (database, sidecar)
}

async fn status(sidecar: &Sidecar) -> Value {
    sidecar.get("/v1/status").await
}

/// `/livez/app`.
async fn livez(address: &str) -> (u16, String) {
    let (status, body) = get_tcp(address, "/livez/app").await.unwrap();
    (status, body.trim_end().to_owned())
}

/// The lines of the log with this event.
fn told(sidecar: &Sidecar, event: &str) -> Vec<Value> {
    let log = sidecar.log();
    let lines = log.iter();
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event"] == event).collect()
}

/// The first line with this event.
async fn tells(sidecar: &Sidecar, event: &str, within: Duration) -> Value {
    eventually(within, &format!("it tells {event}"), async || {
        match told(sidecar, event).first() {
            Some(line) => Ok(line.clone()),
            None => Err(status(sidecar).await["exhaustion"].clone()),
        }
    })
    .await
}

/// The reactor as the status has it, once that is so. What is told of is in the status a moment later.
async fn stands(sidecar: &Sidecar, claim: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(SOON, claim, async || {
        let reactor = status(sidecar).await["reactor"].clone();
        if is_so(&reactor) {
            Ok(reactor)
        } else {
            Err(reactor)
        }
    })
    .await
}

async fn comes_to(sidecar: &Sidecar, state: &str) {
    eventually(SOON, &format!("it is {state}"), async || {
        let now = status(sidecar).await["exhaustion"].clone();
        (now["state"] == state).then_some(()).ok_or(now)
    })
    .await;
}

/// How often the reactor has acted so, as `/metrics` tells.
async fn acted(address: &str, action: &str, outcome: &str) -> f64 {
    let (_, page) = get_tcp(address, "/metrics").await.unwrap();
    let series =
        format!("execpool_reactor_actions_total{{action=\"{action}\",outcome=\"{outcome}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&series));
    let value = value.unwrap_or_else(|| panic!("{series} is not in {page}"));
    value.parse().unwrap()
}

/// Waits until it has acted so often.
async fn counts(address: &str, action: &str, outcome: &str, many: f64) {
    let claim = format!("{action} was {outcome} {many} times");
    eventually(SOON, &claim, async || {
        let now = acted(address, action, outcome).await;
        if now == many { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Sessions of `execution` that hold the whole budget and ask nothing.
async fn leak(sidecar: &Sidecar, execution: &str) -> Vec<Raw> {
    let mut leaked = Vec::new();
    for _ in 0..3 {
        let named = [
            ("execpool.execution_id", execution),
            ("execpool.caller", "agent.py:7 run"),
        ];
        let (mut raw, told) = sidecar.started("app", &named).await;
        support::session::assert_in(&told);
        raw.query("SELECT 1").await;
        leaked.push(raw);
    }
    leaked
}

/// Waits until all that leaks is suspected of it.
async fn are_suspected(sidecar: &Sidecar) {
    eventually(SOON, "all are suspects", async || {
        let sessions = status(sidecar).await["sessions"].clone();
        (sessions["leak_suspects"] == 3)
            .then_some(())
            .ok_or(sessions)
    })
    .await;
}

/// Somebody who needs one more connection.
fn needs(sidecar: &Sidecar) -> JoinHandle<Result<(), tokio_postgres::Error>> {
    asks(sidecar, "SELECT 1")
}

fn asks(sidecar: &Sidecar, sql: &'static str) -> JoinHandle<Result<(), tokio_postgres::Error>> {
    let url = sidecar.url("app");
    tokio::spawn(async move {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.simple_query(sql).await.map(drop)
    })
}

/// An app that names no execution, and forgets all connections that there are.
fn app(sidecar: &Sidecar, learns: bool) -> App {
    App {
        forgotten: sidecar.url("app"),
        many: 3,
        needed: sidecar.url("app"),
        learns,
        mark: sidecar.dir().join("mark"),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const LIVENESS: &str = "reactor: {restart: liveness, restart_after: 1s, cooldown: 10m}\n";

/// The same, with time for a cleanup to help before that.
const LATER: &str = "reactor: {restart: liveness, restart_after: 10s, cooldown: 10m}\n";

/// By then there would have been a restart: it is put off by as long again at most.
const LATEST: Duration = Duration::from_secs(23);

/// Until a restart, and long enough after it for a second one.
async fn is_restarted_once(name: &str, timing: Timing, learns: bool) {
    let (_database, sidecar) = start(name, LIVENESS).await;
    let address = port(&sidecar).await;
    let kubelet = Kubelet::start(&address, app(&sidecar, learns), timing);
    let patience = SOON * 2 + timing.period * timing.threshold + timing.dying;
    eventually(
        patience,
        &format!("{timing:?}: it is restarted"),
        async || match kubelet.restarts() {
            0 => Err(told(&sidecar, "reactor.restart")),
            _ => Ok(()),
        },
    )
    .await;
    if learns {
        let claim = "an app that has learned is served";
        eventually(SOON, claim, async || {
            kubelet.is_served().then_some(()).ok_or(())
        })
        .await;
    } else {
        // It is as bad as before, and is let be.
        let refused = tells(&sidecar, "reactor.refused", SOON).await;
        assert_eq!(
            (&refused["action"], &refused["guard"]),
            (&json!("restart"), &json!("cooldown")),
            "{timing:?}"
        );
    }
    sleep(timing.period * timing.threshold + seconds(5)).await;
    assert_eq!(kubelet.restarts(), 1, "{timing:?}: once");
    let over = told(&sidecar, "reactor.restart_over");
    assert_eq!(over.len(), 1, "{timing:?}: {over:?}");
    // Sessions go one after the other, and it may be seen that there is room before the last has gone.
    let outcome = over[0]["outcome"].as_str().unwrap();
    assert!(
        ["gone", "recovered"].contains(&outcome),
        "{timing:?}: {outcome}"
    );
    assert_eq!(told(&sidecar, "reactor.restart").len(), 1, "{timing:?}");
    let seen = kubelet.seen.lock().unwrap();
    let restarted = seen.restarts[0];
    for (at, status, body) in &seen.answers {
        if *at > restarted {
            assert_eq!((*status, body.as_str()), (200, "ok\n"), "{timing:?}");
        }
    }
    let failed: Vec<&String> = seen
        .answers
        .iter()
        .filter(|it| it.1 == 503)
        .map(|it| &it.2)
        .collect();
    assert_eq!(
        failed.len(),
        timing.threshold as usize,
        "{timing:?}: {failed:?}"
    );
    assert!(failed[0].contains("to be restarted"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_leaks_is_restarted_once_whatever_the_timing_of_its_probe() {
    let timing = |period, threshold, dying, grace| Timing {
        period: seconds(period),
        threshold,
        dying: seconds(dying),
        grace: seconds(grace),
    };
    tokio::join!(
        is_restarted_once("at_once", timing(4, 1, 0, 30), false),
        is_restarted_once("learns", timing(4, 3, 0, 30), true),
        is_restarted_once("dies_late", timing(4, 1, 8, 30), false),
        is_restarted_once("is_killed", timing(5, 2, 60, 4), false),
        // As the chart has it.
        is_restarted_once("the_chart", timing(10, 6, 0, 30), false),
    );
}

#[tokio::test]
async fn a_restart_by_liveness_is_told_remembered_and_counted() {
    let (_database, sidecar) = start("told", LIVENESS).await;
    let address = port(&sidecar).await;
    assert_eq!(livez(&address).await, (200, "ok".to_owned()));
    let leaked = leak(&sidecar, "shared").await;
    let waiting = needs(&sidecar);
    let line = tells(&sidecar, "reactor.restart", SOON).await;
    for (field, value) in [
        ("mode", json!("liveness")),
        ("dry_run", json!(false)),
        ("level", json!("ERROR")),
        ("used", json!(3)),
        ("limit", json!(3)),
        ("waiting", json!(1)),
        ("sessions", json!(4)),
        ("holder", json!("shared")),
        ("holder_caller", json!("agent.py:7 run")),
        ("restarts_last_hour", json!(1)),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    // Whatever is exhausted, it answers at once; the quickest of some tells, on a machine that is busy.
    let mut quickest = SOON;
    let mut body = String::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let answer = livez(&address).await;
        quickest = quickest.min(begun.elapsed());
        assert_eq!(answer.0, 503, "{answer:?}");
        body = answer.1;
    }
    assert!(quickest < Duration::from_millis(250), "{quickest:?}");
    assert!(body.ends_with("are left: 4"), "{body}");
    let path = sidecar.dir().join("restarts.json");
    let memory: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(memory["total"], 1, "{memory}");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let reactor = stands(&sidecar, "it is counted", |reactor| {
        reactor["restarts"] == 1
    })
    .await;
    assert_eq!(
        (&reactor["restart"], &reactor["pending"]["mode"]),
        (&json!("liveness"), &json!("liveness")),
        "{reactor}"
    );
    assert_eq!(reactor["pending"]["sessions"], 4, "{reactor}");
    assert!(
        reactor["cooldown_left_seconds"].as_f64() > Some(500.0),
        "{reactor}"
    );
    let said = tokio::process::Command::new(env!("CARGO_BIN_EXE_execpool"))
        .args(["status", "--socket"])
        .arg(sidecar.control_socket())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("restart by liveness under way"), "{said}");
    counts(&address, "restart", "ok", 1.0).await;

    // It lets go by itself, though somebody else's session stays: that is well, and counts.
    let _stranger = sidecar.session("app", "stranger").await;
    drop(leaked);
    waiting.await.unwrap().expect("it is its turn");
    let over = tells(&sidecar, "reactor.restart_over", SOON).await;
    assert_eq!(over["mode"], "liveness", "{over}");
    assert_eq!(livez(&address).await, (200, "ok".to_owned()));
    let claim = "nothing is pending";
    let reactor = stands(&sidecar, claim, |reactor| reactor["pending"].is_null()).await;
    assert_eq!(reactor["restarts"], 1, "{reactor}");
}

/// Who stays keeps an idle session open for all the time.
#[tokio::test]
async fn an_app_that_recovers_before_its_probe_gives_up_is_let_be_though_a_stranger_stays() {
    let (_database, sidecar) = start("recovers", LIVENESS).await;
    let address = port(&sidecar).await;
    let _stranger = sidecar.session("app", "stranger").await;
    let leaked = leak(&sidecar, "shared").await;
    let waiting = needs(&sidecar);
    tells(&sidecar, "reactor.restart", SOON).await;
    assert_eq!(livez(&address).await.0, 503);
    drop(leaked);
    waiting.await.unwrap().expect("it is its turn");
    let over = tells(&sidecar, "reactor.restart_over", SOON).await;
    assert_eq!(over["outcome"], "recovered", "{over}");
    assert_eq!(livez(&address).await, (200, "ok".to_owned()));
}

#[tokio::test]
async fn what_a_named_execution_has_forgotten_is_cleaned_up_and_nothing_is_restarted() {
    let more = "session: {leak_after: 1s}\n".to_owned() + LATER;
    let (_database, sidecar) = start("named", &more).await;
    let address = port(&sidecar).await;
    let _leaked = leak(&sidecar, "run-1").await;
    are_suspected(&sidecar).await;
    needs(&sidecar).await.unwrap().expect("room is made");
    let line = tells(&sidecar, "reactor.cleanup", SOON).await;
    assert_eq!(
        (&line["closed"], &line["dry_run"], &line["waiting"]),
        (&json!(1), &json!(false), &json!(0)),
        "only as many as waited: {line}"
    );
    let what = line["what"].as_str().unwrap();
    assert!(
        what.starts_with("sessions ") && what.contains("leak_suspect"),
        "{line}"
    );
    assert!(
        told(&sidecar, "cleanup").is_empty(),
        "nobody has asked for it"
    );
    counts(&address, "cleanup", "ok", 1.0).await;
    let left = sidecar.sessions_of("run-1").await;
    assert_eq!(left.len(), 2, "the others live on: {left:?}");
    sleep(LATEST).await;
    assert!(told(&sidecar, "reactor.restart").is_empty());
    assert_eq!(acted(&address, "restart", "ok").await, 0.0);
}

#[tokio::test]
async fn what_nobody_has_named_is_cleaned_up_only_where_that_is_allowed_and_else_restarted() {
    let strict = async {
        let more = "session: {leak_after: 1s}\n".to_owned() + LIVENESS;
        let (_database, sidecar) = start("unnamed", &more).await;
        let _leaked = leak(&sidecar, "shared").await;
        are_suspected(&sidecar).await;
        let _waiting = needs(&sidecar);
        let line = tells(&sidecar, "reactor.cleanup", SOON).await;
        assert_eq!(
            (&line["closed"], &line["spared"]),
            (&json!(0), &json!(3)),
            "{line}"
        );
        tells(&sidecar, "reactor.restart", SOON).await;
    };
    let loose = async {
        let more = "session: {leak_after: 1s, reclaim_leaks: true}\n".to_owned() + LATER;
        let (_database, sidecar) = start("loose", &more).await;
        let _leaked = leak(&sidecar, "shared").await;
        are_suspected(&sidecar).await;
        needs(&sidecar).await.unwrap().expect("room is made");
        let line = tells(&sidecar, "reactor.cleanup", SOON).await;
        assert_eq!(line["closed"], 1, "{line}");
        sleep(LATEST).await;
        assert!(told(&sidecar, "reactor.restart").is_empty());
    };
    tokio::join!(strict, loose);
}

const EXIT: &str = "reactor: {restart: exit-code, restart_after: 1s, kubernetes: off}\n";

#[tokio::test]
async fn by_exit_code_the_process_ends_with_88_and_the_next_one_remembers() {
    let database = Postgres::shared().database("exits").await;
    let mut sidecar = options(&database, EXIT).start().await;
    let leaked = leak(&sidecar, "shared").await;
    let waiting = needs(&sidecar);
    let begun = Instant::now();
    let ended = sidecar.exited(SOON).await;
    assert_eq!(ended.code(), Some(88), "after {:?}", begun.elapsed());
    assert!(!sidecar.socket().exists() && !sidecar.control_socket().exists());
    let line = &told(&sidecar, "reactor.restart")[0];
    assert_eq!(line["mode"], "exit-code", "{line}");
    assert!(
        line["what"].as_str().unwrap().contains("cuts off"),
        "{line}"
    );
    assert_eq!(told(&sidecar, "end")[0]["code"], 88);
    support::session::nothing_pooled_left(&database).await;
    drop(leaked);
    waiting.await.unwrap().unwrap_err();

    let sidecar = sidecar.replaced().await;
    let reactor = status(&sidecar).await["reactor"].clone();
    assert_eq!(
        (&reactor["restarts"], &reactor["restarts_last_hour"]),
        (&json!(1), &json!(1)),
        "{reactor}"
    );
    let _leaked = leak(&sidecar, "shared").await;
    let _waiting = needs(&sidecar);
    let refused = tells(&sidecar, "reactor.refused", SOON).await;
    assert_eq!(refused["guard"], "cooldown", "{refused}");
    sleep(seconds(3)).await;
    assert_eq!(told(&sidecar, "reactor.refused").len(), 1);
    assert!(told(&sidecar, "reactor.restart").is_empty());
}

/// It has a second for that, in which a machine may stand still: one of some has told.
#[tokio::test]
async fn who_ends_with_88_exports_before_what_was_counted_last() {
    let database = Postgres::shared().database("exports").await;
    let mut exported = Vec::new();
    for _ in 0..5 {
        let receiver = Receiver::start(Answer::Takes).await;
        let mut sidecar = options(&database, EXIT)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
            .env("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
            .start()
            .await;
        let _leaked = leak(&sidecar, "shared").await;
        let _waiting = needs(&sidecar);
        assert_eq!(sidecar.exited(SOON).await.code(), Some(88));
        // The interval is an hour: only what is told at the end is told.
        let points = receiver
            .received()
            .last()
            .map(|export| export.points("execpool.reactor.actions"));
        let restarted = ("action=restart,outcome=ok".to_owned(), 1.0);
        if points.iter().flatten().any(|point| *point == restarted) {
            return;
        }
        exported.push(points);
    }
    panic!("none has told of its restart: {exported:?}");
}

/// Each way of being no fault of the app's: refused once per rung, and nothing is done.
#[tokio::test]
async fn nothing_is_done_about_a_database_that_is_away_or_slow() {
    let away = async {
        let database = Postgres::shared().database("away").await;
        let proxy = Proxy::tcp(Postgres::shared()).await;
        let url = format!(
            "postgresql://app@127.0.0.1:{}/{}?sslmode=disable",
            proxy.port(),
            database.name
        );
        let more = "session: {leak_after: 1s}\n".to_owned() + LIVENESS;
        // It takes the monitor a while to know: ten seconds to ask, and three to give up.
        let yaml = yaml(&url, &more)
            .replace("sustained_after: 1s", "sustained_after: 40s")
            .replace("connect_timeout: 10s", "connect_timeout: 3s");
        let sidecar = over(&url, &more).config(yaml).start().await;
        let _leaked = leak(&sidecar, "run-1").await;
        are_suspected(&sidecar).await;
        proxy.set(Fault::Freeze);
        let _waiting = needs(&sidecar);
        is_refused(&sidecar, "database_unreachable").await;
    };
    let slow = async {
        let (_database, sidecar) = start("slow", LIVENESS).await;
        let _busy = [(); 4].map(|()| asks(&sidecar, "SELECT pg_sleep(180)"));
        is_refused(&sidecar, "queries").await;
    };
    tokio::join!(away, slow);
}

async fn is_refused(sidecar: &Sidecar, guard: &str) {
    let address = port(sidecar).await;
    eventually(
        SOON * 2,
        &format!("{guard} is told for both rungs"),
        async || {
            let lines = told(sidecar, "reactor.refused");
            if lines.len() == 2 { Ok(()) } else { Err(lines) }
        },
    )
    .await;
    sleep(seconds(5)).await;
    let lines = told(sidecar, "reactor.refused");
    let mut rungs: Vec<&str> = lines
        .iter()
        .map(|line| line["action"].as_str().unwrap())
        .collect();
    rungs.sort_unstable();
    assert_eq!(rungs, ["cleanup", "restart"], "once each: {lines:?}");
    for line in &lines {
        assert_eq!(line["guard"], guard, "{line}");
        assert!(line["why"].as_str().unwrap().contains("database"), "{line}");
    }
    for event in ["reactor.restart", "reactor.cleanup"] {
        assert!(told(sidecar, event).is_empty(), "{event}");
    }
    assert_eq!(livez(&address).await.0, 200);
    stands(sidecar, guard, |reactor| {
        reactor["refused"]["guard"] == guard
    })
    .await;
    for rung in ["cleanup", "restart"] {
        counts(&address, rung, "refused", 1.0).await;
    }
}

/// The alert goes by the counter, and is to stay for as long as it is held back.
#[tokio::test]
async fn each_try_of_a_restart_that_is_refused_counts_though_it_is_told_once() {
    let more = "reactor: {restart: evict, restart_after: 1s, cleanup: false}\n";
    let (_database, sidecar) = start("tries", more).await;
    let address = port(&sidecar).await;
    let _leaked = leak(&sidecar, "shared").await;
    let begun = Instant::now();
    let _waiting = needs(&sidecar);
    let line = tells(&sidecar, "reactor.refused", SOON).await;
    assert_eq!(line["guard"], "no_kubernetes", "{line}");
    counts(&address, "restart", "refused", 1.0).await;
    // Tried again after half a minute.
    counts(&address, "restart", "refused", 2.0).await;
    assert!(begun.elapsed() > seconds(30), "{:?}", begun.elapsed());
    assert_eq!(told(&sidecar, "reactor.refused").len(), 1);
}

#[tokio::test]
async fn a_dry_run_says_exactly_what_would_be_done_and_does_nothing() {
    let more = "session: {leak_after: 1s}\n\
        reactor: {restart: liveness, restart_after: 1s, dry_run: true}\n";
    let (_database, sidecar) = start("dry", more).await;
    let address = port(&sidecar).await;
    let mut leaked = leak(&sidecar, "run-1").await;
    let ids: Vec<u64> = sidecar
        .sessions_of("run-1")
        .await
        .iter()
        .map(|session| session["id"].as_u64().unwrap())
        .collect();
    are_suspected(&sidecar).await;
    let waiting = needs(&sidecar);
    let line = tells(&sidecar, "reactor.cleanup", SOON).await;
    assert_eq!(
        (&line["dry_run"], &line["closed"]),
        (&json!(true), &json!(1)),
        "{line}"
    );
    let what = line["what"].as_str().unwrap();
    let first = format!("sessions {} (leak_suspect)", ids[0]);
    assert_eq!(what, first, "the one that was idle for longest of {ids:?}");
    let line = tells(&sidecar, "reactor.restart", SOON).await;
    assert_eq!(
        (&line["dry_run"], &line["level"]),
        (&json!(true), &json!("WARN")),
        "{line}"
    );
    let what = line["what"].as_str().unwrap();
    assert!(
        what.contains(&format!("{}, {}, {}", ids[0], ids[1], ids[2])),
        "{what}"
    );
    assert!(
        what.starts_with("would have /livez/app answer 503"),
        "{what}"
    );
    sleep(seconds(3)).await;
    assert_eq!(livez(&address).await, (200, "ok".to_owned()));
    assert_eq!(
        told(&sidecar, "reactor.restart").len(),
        1,
        "once for a cool-down"
    );
    for raw in &mut leaked {
        assert_eq!(raw.ask("SELECT 'alive'").await, "alive");
    }
    counts(&address, "cleanup", "dry_run", 1.0).await;
    counts(&address, "restart", "dry_run", 1.0).await;
    for action in ["cleanup", "restart"] {
        assert_eq!(acted(&address, action, "ok").await, 0.0);
    }
    let memory = std::fs::read_to_string(sidecar.dir().join("restarts.json")).unwrap();
    assert!(memory.contains("\"total\":0"), "{memory}");
    assert!(!waiting.is_finished());
}

#[tokio::test]
async fn a_pod_on_its_way_out_is_not_restarted_and_a_young_one_neither() {
    let draining = async {
        let (_database, sidecar) = start("draining", LIVENESS).await;
        sidecar.control("POST", "/v1/drain", None).await;
        let _leaked = leak(&sidecar, "shared").await;
        let _waiting = needs(&sidecar);
        let refused = tells(&sidecar, "reactor.refused", SOON).await;
        assert_eq!(refused["guard"], "draining", "{refused}");
    };
    let young = async {
        let database = Postgres::shared().database("young").await;
        let options = Sidecar::options().config(yaml(&database.url(), LIVENESS));
        let options = options.env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0");
        let sidecar = options.start().await;
        let _leaked = leak(&sidecar, "shared").await;
        let _waiting = needs(&sidecar);
        let refused = tells(&sidecar, "reactor.refused", SOON).await;
        assert_eq!(refused["guard"], "pod_young", "{refused}");
        // The next process of the pod knows how old that is.
        let written = std::fs::read_to_string(sidecar.dir().join("restarts.json")).unwrap();
        sleep(seconds(2)).await;
        let sidecar = sidecar.replaced().await;
        let kept = std::fs::read_to_string(sidecar.dir().join("restarts.json")).unwrap();
        assert_eq!(written, kept);
    };
    let garbled = async {
        let database = Postgres::shared().database("garbled").await;
        let options = options(&database, LIVENESS).file("restarts.json", "{\"version\": 9");
        let sidecar = options.start().await;
        tells(&sidecar, "restarts.unreadable", SOON).await;
        let _leaked = leak(&sidecar, "shared").await;
        let _waiting = needs(&sidecar);
        let refused = tells(&sidecar, "reactor.refused", SOON).await;
        assert_eq!(refused["guard"], "pod_young", "{refused}");
    };
    tokio::join!(draining, young, garbled);
}

/// A sidecar that finds a memory in which a clock was as it should not be; `ago` is when what it tells of was.
async fn set_clock(
    name: &str,
    ahead: i64,
    ago: u64,
    restarts: &[u64],
    boot: Option<&str>,
) -> Sidecar {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let wrong = now.as_secs().saturating_add_signed(ahead);
    let mut clock = memory::clock(wrong);
    if let Some(boot) = boot {
        clock["boot"] = json!(boot);
    }
    let times: Vec<u64> = restarts.iter().map(|ago| wrong - ago).collect();
    let memory = json!({
        "version": 1, "total": times.len(), "times": times,
        "pod_since": wrong - ago, "clock": clock,
    });
    let database = Postgres::shared().database(name).await;
    let options = options(&database, LIVENESS).file("restarts.json", memory.to_string());
    options.start().await
}

#[tokio::test]
async fn a_clock_that_was_set_between_two_processes_neither_opens_a_guard_nor_shuts_it() {
    const YEAR: i64 = 31_536_000;
    let refused = async |name: &str, ahead, ago, restarts: &[u64], boot, guard: &str| {
        let sidecar = set_clock(name, ahead, ago, restarts, boot).await;
        let _leaked = leak(&sidecar, "shared").await;
        let _waiting = needs(&sidecar);
        let refused = tells(&sidecar, "reactor.refused", SOON).await;
        assert_eq!(refused["guard"], guard, "{name}: {refused}");
    };
    let restarted = async |name: &str, ahead, ago, restarts: &[u64]| {
        let sidecar = set_clock(name, ahead, ago, restarts, None).await;
        let _leaked = leak(&sidecar, "shared").await;
        let _waiting = needs(&sidecar);
        tells(&sidecar, "reactor.restart", SOON).await;
        assert!(told(&sidecar, "reactor.refused").is_empty(), "{name}");
    };
    tokio::join!(
        // The machine began in the past, and learned what time it is.
        refused("behind_young", -20 * YEAR, 5, &[], None, "pod_young"),
        refused(
            "behind_restarted",
            -20 * YEAR,
            7200,
            &[60],
            None,
            "cooldown"
        ),
        restarted("behind_old", -20 * YEAR, 7200, &[4000]),
        // Or ahead of it.
        refused("ahead_young", YEAR, 5, &[], None, "pod_young"),
        restarted("ahead_old", YEAR, 7200, &[4000]),
        // It was started anew, with all that is in the pod.
        refused("other_boot", 0, 7200, &[], Some("another"), "pod_young"),
    );
}

#[tokio::test]
async fn its_knobs_are_reloaded_and_a_restart_that_is_switched_off_is_taken_back() {
    let database = Postgres::shared().database("reloaded").await;
    let yaml = |restart: &str| {
        let more = format!("reactor: {{restart: {restart}, restart_after: 1s, cooldown: 10m}}\n");
        yaml(&database.url(), &more)
    };
    let sidecar = options(&database, "").config(yaml("off")).start().await;
    let address = port(&sidecar).await;
    let _leaked = leak(&sidecar, "shared").await;
    let _waiting = needs(&sidecar);
    comes_to(&sidecar, "sustained").await;
    sleep(seconds(4)).await;
    assert_eq!(livez(&address).await.0, 200);
    assert_eq!(status(&sidecar).await["reactor"]["restart"], "off");
    sidecar.reload(&yaml("liveness")).await;
    tells(&sidecar, "reactor.restart", SOON).await;
    assert_eq!(livez(&address).await.0, 503);
    sidecar.reload(&yaml("off")).await;
    livez_says(&address, 200, "ok").await;
    let over = tells(&sidecar, "reactor.restart_over", SOON).await;
    assert_eq!(over["outcome"], "withdrawn", "{over}");
}

#[tokio::test]
async fn a_restart_is_taken_back_where_only_the_monitor_knows_that_the_database_is_away() {
    let database = Postgres::shared().database("silent").await;
    let proxy = Proxy::tcp(Postgres::shared()).await;
    let url = format!(
        "postgresql://app@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        database.name
    );
    let sidecar = over(&url, LIVENESS).start().await;
    let address = port(&sidecar).await;
    let _leaked = leak(&sidecar, "shared").await;
    let _waiting = needs(&sidecar);
    tells(&sidecar, "reactor.restart", SOON).await;
    assert_eq!(livez(&address).await.0, 503);
    // Nobody dials, as the budget is full.
    proxy.set(Fault::Freeze);
    let over = tells(&sidecar, "reactor.restart_over", SOON).await;
    assert_eq!(over["outcome"], "withdrawn", "{over}");
    assert_eq!(livez(&address).await, (200, "ok".to_owned()));
}

/// An app that answers its own probe like this, each time.
async fn probed(answer: &'static str) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, answer));
    address
}

async fn serve(listener: tokio::net::TcpListener, answer: &'static str) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

/// Another container's sessions stay open while the one that is probed is restarted.
#[tokio::test]
async fn an_app_that_came_back_is_not_restarted_again_though_another_container_keeps_its_sessions()
{
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(listener, ok));
    let more = LIVENESS.replace('}', &format!(", app_probe: \"http://{app}/\"}}"));
    let (_database, sidecar) = start("came_back", &more).await;
    let address = port(&sidecar).await;
    let _others = leak(&sidecar, "shared").await;
    let _waiting = needs(&sidecar);
    tells(&sidecar, "reactor.restart", SOON).await;
    assert_eq!(livez(&address).await.0, 503);
    // Nobody has restarted it so far.
    sleep(seconds(6)).await;
    assert_eq!(livez(&address).await.0, 503);
    serving.abort();
    let _ = serving.await;
    sleep(seconds(6)).await;
    assert_eq!(livez(&address).await.0, 503, "it is not back");
    let back = Instant::now();
    let listener = tokio::net::TcpListener::bind(app).await.unwrap();
    tokio::spawn(serve(listener, ok));
    let over = tells(&sidecar, "reactor.restart_over", SOON).await;
    assert_eq!(over["outcome"], "came_back", "{over}");
    // For the containers of which nothing is known it goes on for a third of the time that it took.
    let took = back.elapsed();
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    livez_says(&address, 200, "ok: the app's own probe answers 200 OK").await;
}

/// Waits until it answers so: an app that has no processor for a second is as sick as any.
async fn livez_says(address: &str, status: u16, body: &str) {
    eventually(SOON, body, async || {
        let told = livez(address).await;
        let is_so = told.0 == status && told.1.contains(body);
        is_so.then_some(()).ok_or(told)
    })
    .await;
}

#[tokio::test]
async fn the_apps_own_probe_is_asked_on_its_behalf() {
    let well = probed("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let sick = probed("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n").await;
    let database = Postgres::shared().database("own_probe").await;
    let yaml = |probe: &str| {
        let more = format!("restart: liveness, restart_after: 1s, app_probe: \"{probe}\"");
        yaml(&database.url(), &format!("reactor: {{{more}}}\n"))
    };
    let sidecar = options(&database, "")
        .config(yaml(&format!("http://{well}/healthz")))
        .start()
        .await;
    let address = port(&sidecar).await;
    livez_says(&address, 200, "ok: the app's own probe answers 200 OK").await;
    sidecar
        .reload(&yaml(&format!("http://{sick}/healthz")))
        .await;
    let body = "the app's own probe answers 500 Internal Server Error";
    livez_says(&address, 503, body).await;
    sidecar.reload(&yaml(&format!("tcp://{sick}"))).await;
    livez_says(&address, 200, "ok: the app's own probe answers connected").await;
    sidecar.reload(&yaml("http://127.0.0.1:1/healthz")).await;
    let body = "not reached: http://127.0.0.1:1/healthz";
    livez_says(&address, 503, body).await;
    // A restart that is pending comes first: it is not asked any more.
    sidecar
        .reload(&yaml(&format!("http://{well}/healthz")))
        .await;
    let _leaked = leak(&sidecar, "shared").await;
    let _waiting = needs(&sidecar);
    tells(&sidecar, "reactor.restart", SOON).await;
    let (status, body) = livez(&address).await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("to be restarted"), "{body}");
}
