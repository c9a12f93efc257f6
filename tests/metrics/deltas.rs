//! What is done is counted: each action, and the series that it changes.

use std::process::{Command, Stdio};

use postgres_protocol::message::frontend;
use serde_json::json;

use crate::scraped::{SOON, Scraped, changes, scrape, scraping};
use crate::support::session::batch;
use crate::support::sidecar::upstream;
use crate::support::tools::{postgres_program, python};
use crate::support::{Database, Postgres, Raw, Sidecar, eventually};

const UNBOUND: &str = "execpool_session_count{state=\"unbound\"}";
const IDLE: &str = "execpool_session_count{state=\"idle\"}";
const ACTIVE: &str = "execpool_session_count{state=\"active\"}";
const IN_TRANSACTION: &str = "execpool_session_count{state=\"idle_in_transaction\"}";
const WAITING: &str = "execpool_session_count{state=\"waiting\"}";
const OPENED: &str = "execpool_session_opened_total";
const OPEN: &str = "execpool_budget_open";
const USED: &str = "execpool_budget_used";

fn pool(name: &str, more: &str) -> String {
    format!("db_client_connection_{name}{{db_client_connection_pool_name=\"app\"{more}}}")
}

fn closed(reason: &str) -> String {
    format!("execpool_session_closed_total{{reason=\"{reason}\"}}")
}

fn cancelled(origin: &str) -> String {
    format!("execpool_cancels_total{{origin=\"{origin}\"}}")
}

fn failed(phase: &str, class: &str) -> String {
    format!("execpool_server_errors_total{{class=\"{class}\",phase=\"{phase}\"}}")
}

/// The sidecar, its database, and the last scrape.
struct Place {
    sidecar: Sidecar,
    database: Database,
    last: Scraped,
}

impl Place {
    async fn new(name: &str, more: &str) -> Self {
        let database = Postgres::shared().database(name).await;
        let yaml = format!("{}{more}", upstream("app", &database.url()));
        let sidecar = scraping(yaml).start().await;
        let last = eventually(SOON, "a first look", async || {
            let now = scrape(&sidecar).await;
            match now.value("execpool_budget_limit") > 0.0 {
                true => Ok(now),
                false => Err(now),
            }
        })
        .await;
        Self {
            sidecar,
            database,
            last,
        }
    }

    /// How operations are told that ended so: well, or with a code.
    fn operations(&self, code: &str) -> String {
        let url = self.database.url();
        let operation = self.last.series.keys().find(|series| {
            series.starts_with("db_client_operation_duration_seconds_count")
                && !series.contains("error_type")
        });
        let well = operation
            .unwrap_or_else(|| panic!("no operations of {url}"))
            .clone();
        if code.is_empty() {
            return well;
        }
        let (before, after) = well.split_once("db_system_name").unwrap();
        let (system, rest) = after.split_once("server_address").unwrap();
        format!(
            "{before}db_response_status_code=\"{code}\",db_system_name{system}error_type=\"{code}\",server_address{rest}"
        )
    }

    /// Waits for these changes since the last.
    async fn expect(&mut self, action: &str, deltas: &[(&str, f64)]) {
        self.last = changes(&self.sidecar, &self.last, action, deltas).await;
    }
}

async fn send(raw: &mut Raw, sql: &str) {
    raw.send_with(|buffer| frontend::query(sql, buffer).unwrap())
        .await;
}

#[tokio::test]
async fn each_step_of_a_session_changes_the_series_that_tell_it() {
    let mut place = Place::new("steps", "").await;
    let (idle, used) = (
        pool("count", ",db_client_connection_state=\"idle\""),
        pool("count", ",db_client_connection_state=\"used\""),
    );
    let (create, wait, hold) = (
        pool("create_time_seconds_count", ""),
        pool("wait_time_seconds_count", ""),
        pool("use_time_seconds_count", ""),
    );
    let well = place.operations("");

    let mut raw = place.sidecar.session("app", "a").await;
    place
        .expect(
            "a session comes in, the first of its kind",
            &[
                (OPENED, 1.0),
                (UNBOUND, 1.0),
                ("execpool_execution_count{state=\"active\"}", 1.0),
                (&create, 1.0),
                (&wait, 1.0),
                (&idle, 1.0),
                (OPEN, 1.0),
                (USED, 0.0),
                (&well, 0.0),
            ],
        )
        .await;
    raw.query("SELECT 1").await;
    place
        .expect(
            "it queries",
            &[
                (&well, 1.0),
                (UNBOUND, -1.0),
                (IDLE, 1.0),
                (&idle, -1.0),
                (&used, 1.0),
                (USED, 1.0),
                (&wait, 1.0),
                (&create, 0.0),
                (&hold, 0.0),
            ],
        )
        .await;
    raw.query("SELECT 1/0").await;
    let (divided, class) = (place.operations("22012"), failed("relay", "22"));
    place
        .expect("it fails", &[(&divided, 1.0), (&class, 1.0), (&well, 0.0)])
        .await;
    raw.query("BEGIN; SELECT 1").await;
    place
        .expect(
            "it opens a transaction, two statements in one query",
            &[(IN_TRANSACTION, 1.0), (IDLE, -1.0), (&well, 1.0)],
        )
        .await;
    raw.query("COMMIT").await;
    raw.send_with(|buffer| {
        for number in 0..3 {
            batch(&format!("SELECT {number}"), buffer);
        }
        frontend::sync(buffer);
    })
    .await;
    raw.read_until(b'Z').await;
    place
        .expect(
            "a COMMIT, and three statements in one batch",
            &[(&well, 2.0)],
        )
        .await;
    raw.query("SELECT pg_sleep(0.3)").await;
    let held = "execpool_checkout_held_seconds_total{state=\"active\"}";
    let before = place.last.value(held);
    place.expect("it works for a while", &[(&well, 1.0)]).await;
    eventually(SOON, "the time is held", async || {
        let now = scrape(&place.sidecar).await.value(held);
        if now >= before + 0.3 {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;
    let sum = "db_client_operation_duration_seconds_sum";
    let sum = place
        .last
        .value(&well.replace("db_client_operation_duration_seconds_count", sum));
    // Seconds, and not milliseconds.
    assert!((0.3..100.0).contains(&sum), "{sum}");
    raw.send_with(frontend::terminate).await;
    drop(raw);
    place
        .expect(
            "it says goodbye",
            &[
                (&closed("terminated"), 1.0),
                (&hold, 1.0),
                (&used, -1.0),
                (&idle, 1.0),
                (IDLE, -1.0),
                (USED, -1.0),
            ],
        )
        .await;
}

#[tokio::test]
async fn cancels_ends_and_failures_are_told_by_whom_and_why() {
    let more = "pool: {size: 1, overflow: 0, timeout: 10s}\nsession: {leak_after: 200ms}\n\
        cleanup: {idle_in_transaction: 200ms}\n";
    let mut place = Place::new("causes", more).await;
    let sleeps = "SELECT pg_sleep(60)";

    let named = [("execpool.execution_id", "cancel")];
    let (mut raw, told) = place.sidecar.started("app", &named).await;
    let key = told
        .iter()
        .find(|message| message.kind == b'K')
        .unwrap()
        .key();
    send(&mut raw, sleeps).await;
    place.sidecar.session_is("cancel", "active").await;
    place.expect("it works", &[(ACTIVE, 1.0)]).await;
    let mut request = place.sidecar.raw().await;
    request
        .send_with(|buffer| frontend::cancel_request(key.0, key.1, buffer))
        .await;
    raw.read_until(b'Z').await;
    let (operation, class) = (place.operations("57014"), failed("relay", "57"));
    place
        .expect(
            "a client cancels",
            &[
                (&cancelled("client"), 1.0),
                (&operation, 1.0),
                (&class, 1.0),
            ],
        )
        .await;
    send(&mut raw, sleeps).await;
    place.sidecar.session_is("cancel", "active").await;
    drop(raw);
    place
        .expect(
            "a client vanishes amid its query",
            &[(&cancelled("disconnect"), 1.0), (&closed("vanished"), 1.0)],
        )
        .await;

    let mut first = place.sidecar.session("app", "ends").await;
    send(&mut first, sleeps).await;
    place.sidecar.session_is("ends", "active").await;
    let mut second = place.sidecar.session("app", "ends").await;
    send(&mut second, "SELECT 1").await;
    let (pending, timeouts) = (pool("pending_requests", ""), pool("timeouts_total", ""));
    second.read_until(b'Z').await;
    place
        .expect(
            "a wait in vain",
            &[(&timeouts, 1.0), (&pending, 0.0), (WAITING, 0.0)],
        )
        .await;
    place
        .sidecar
        .control("DELETE", "/v1/executions/ends", None)
        .await;
    let operation = place.operations("57P01");
    place
        .expect(
            "an execution is deleted",
            &[
                ("execpool_execution_ended_total{reason=\"deleted\"}", 1.0),
                (&cancelled("execution"), 1.0),
                (&closed("execution"), 2.0),
                (&operation, 1.0),
            ],
        )
        .await;

    let mut idle = place.sidecar.session("app", "cleaned").await;
    idle.query("BEGIN").await;
    place
        .expect(
            "a session is idle in transaction for too long",
            &[("execpool_session_leaks_total{kind=\"suspect\"}", 1.0)],
        )
        .await;
    let order = json!({"execution": "cleaned"});
    place
        .sidecar
        .control("POST", "/v1/cleanup", Some(order))
        .await;
    place
        .expect(
            "a cleanup ends it",
            &[
                (&closed("cleanup"), 1.0),
                ("execpool_session_leaks_total{kind=\"reclaimed\"}", 1.0),
            ],
        )
        .await;
    let resource = json!({"kind": "browser", "name": "page"});
    place
        .sidecar
        .control("POST", "/v1/executions/cleaned/resources", Some(resource))
        .await;
    place
        .expect(
            "an app registers a resource",
            &[("execpool_resources{kind=\"browser\"}", 1.0)],
        )
        .await;
}

#[tokio::test]
async fn a_database_that_can_not_be_had_is_told_by_phase_and_class() {
    let database = Postgres::shared().database("phases").await;
    let missing = database.url().replace("phases", "nowhere");
    let yaml = format!(
        "{}  - {{name: missing, url: \"{missing}\"}}\n",
        upstream("app", &database.url())
    );
    let sidecar = scraping(yaml).start().await;
    let before = scrape(&sidecar).await;
    let (_, told) = sidecar.started("missing", &[]).await;
    assert_eq!(told.last().unwrap().kind, b'E');
    changes(
        &sidecar,
        &before,
        "there is no such database",
        &[(&failed("connect", "3D"), 1.0), (&closed("refused"), 1.0)],
    )
    .await;
}

#[tokio::test]
async fn programs_that_are_known_are_counted_to_the_query() {
    let mut place = Place::new("programs", "").await;
    let well = place.operations("");
    let psql = Command::new(postgres_program("psql"))
        .args([
            &place.sidecar.url("app"),
            "-XAtq",
            "-c",
            "SELECT 1",
            "-c",
            "SELECT 2",
        ])
        .output()
        .unwrap();
    assert!(psql.status.success(), "{psql:?}");
    place.expect("psql runs two", &[(&well, 2.0)]).await;
    let script = place.sidecar.dir().join("one.sql");
    std::fs::write(&script, "SELECT 1;\n").unwrap();
    for protocol in ["simple", "prepared"] {
        let pgbench = Command::new(postgres_program("pgbench"))
            .args([
                "-n",
                "-h",
                place.sidecar.pg_host(),
                "-U",
                "app",
                "-t",
                "50",
                "-c",
                "2",
            ])
            .args(["-M", protocol, "-f"])
            .arg(&script)
            .arg("app")
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(pgbench.status.success(), "{pgbench:?}");
        // Each client prepares its statement once, in a round of its own.
        let wanted = if protocol == "simple" { 100.0 } else { 102.0 };
        place.expect(protocol, &[(&well, wanted)]).await;
    }
    let program = "import psycopg, sys\n\
        c = psycopg.connect(sys.argv[1], autocommit=True, prepare_threshold=None)\n\
        [c.execute('SELECT %s', [n]) for n in range(7)]\n\
        c.close()";
    let psycopg = Command::new(python())
        .args(["-c", program, &place.sidecar.url("app")])
        .output()
        .unwrap();
    assert!(psycopg.status.success(), "{psycopg:?}");
    place.expect("psycopg runs seven", &[(&well, 7.0)]).await;
}

#[tokio::test]
async fn an_upstream_that_is_removed_is_not_told_any_more() {
    let database = Postgres::shared().database("removed").await;
    let one = upstream("app", &database.url());
    let both = format!("{one}  - {{name: more, url: \"{}\"}}\n", database.url());
    let sidecar = scraping(both).start().await;
    let mut raw = sidecar.session("more", "a").await;
    raw.query("SELECT 1").await;
    let max = "db_client_connection_max{db_client_connection_pool_name=\"more\"}";
    let before = Scraped::default();
    changes(&sidecar, &before, "it is there", &[(max, 30.0)]).await;
    sidecar.reload(&one).await;
    raw.query("SELECT 1").await;
    changes(&sidecar, &before, "it is used", &[(max, 30.0)]).await;
    raw.send_with(frontend::terminate).await;
    drop(raw);
    changes(&sidecar, &before, "nothing is left of it", &[(max, 0.0)]).await;
}
