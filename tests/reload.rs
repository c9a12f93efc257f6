//! Live configuration: what a changed file, SIGHUP and `POST /v1/reload` do to a running sidecar, and
//! what they leave alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

#[path = "reload/every_knob.rs"]
mod every_knob;
#[path = "reload/pools.rs"]
mod pools;
#[path = "reload/rules.rs"]
mod rules;
#[path = "reload/triggers.rs"]
mod triggers;
#[path = "reload/under_load.rs"]
mod under_load;
#[path = "reload/upstreams.rs"]
mod upstreams;

use nix::unistd::geteuid;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use support::session::{assert_in, error};
use support::sidecar::upstream;
use support::{Database, Postgres, SOON, Sidecar, eventually};

/// A database, a sidecar before it, and its configuration, to which more can be added.
async fn place(name: &str, more: &str) -> (Database, Sidecar, String) {
    let database = Postgres::shared().database(name).await;
    let yaml = upstream("app", &database.url());
    let sidecar = Sidecar::start(yaml.clone() + more).await;
    (database, sidecar, yaml)
}

/// The knobs of a list of changes.
fn knobs(changes: &Value) -> Vec<String> {
    let changes = changes.as_array().expect("a list").iter();
    changes
        .map(|change| change["knob"].as_str().expect("a text").to_owned())
        .collect()
}

/// Waits until the running configuration has this value.
async fn runs(sidecar: &Sidecar, knob: &str, value: &str) {
    let claim = format!("{knob} is {value}");
    eventually(SOON, &claim, async || {
        let config = sidecar.get("/v1/config").await;
        match config["knobs"][knob]["value"] == value {
            true => Ok(()),
            false => Err(config["knobs"][knob].clone()),
        }
    })
    .await;
}

/// How many lines of the log say this.
fn told(sidecar: &Sidecar, text: &str) -> usize {
    let log = sidecar.log();
    log.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn who_may_connect_changes_for_those_who_come_and_not_for_those_who_are_there() {
    let (_database, sidecar, yaml) = place("uids", "").await;
    let mut there = sidecar.session("app", "a").await;
    let other = geteuid().as_raw() + 1;
    sidecar
        .reload(&format!("{yaml}listen: {{allow_uids: {other}}}\n"))
        .await;
    let (_, refused) = sidecar.started("app", &[]).await;
    assert_eq!(error(&refused)[&'C'], "28000");
    assert_eq!(there.ask("SELECT 1").await, "1");
    sidecar.reload(&yaml).await;
    assert_in(&sidecar.started("app", &[]).await.1);
    sidecar
        .reload(&format!("{yaml}listen: {{max_sessions: 1}}\n"))
        .await;
    let (_, refused) = sidecar.started("app", &[]).await;
    assert_eq!(error(&refused)[&'C'], "53300");
}

#[tokio::test]
async fn who_may_use_the_control_socket_changes_with_the_next_request() {
    let (_database, sidecar, yaml) = place("control_uids", "").await;
    let other = geteuid().as_raw() + 1;
    sidecar
        .reload(&format!("{yaml}control: {{allow_uids: {other}}}\n"))
        .await;
    assert_eq!(sidecar.control("GET", "/v1/status", None).await.0, 403);
    sidecar.configure(&yaml);
    eventually(
        SOON,
        "the file alone lets us in again",
        async || match sidecar.control("GET", "/v1/status", None).await {
            (200, _) => Ok(()),
            other => Err(other),
        },
    )
    .await;
    sidecar
        .reload(&format!("{yaml}control: {{admin: off}}\n"))
        .await;
    let (status, problem) = sidecar.control("POST", "/v1/reload", None).await;
    assert_eq!((status, &problem["code"]), (403, &"admin_off".into()));
}

#[tokio::test]
async fn both_sockets_take_other_permissions_and_a_group_that_is_none_changes_nothing() {
    let (_database, sidecar, yaml) = place("mode", "").await;
    let modes = || {
        [sidecar.socket(), sidecar.control_socket()].map(|socket| {
            let found = std::fs::metadata(socket).unwrap();
            found.permissions().mode() & 0o777
        })
    };
    assert_eq!(modes(), [0o660; 2]);
    sidecar
        .reload(&format!("{yaml}listen: {{mode: 0600}}\n"))
        .await;
    assert_eq!(modes(), [0o600; 2]);
    let wrong = "listen: {mode: 0666, group: no-such-group}\nbudget: {size: 3}\n";
    sidecar.configure(&format!("{yaml}{wrong}"));
    let (status, problem) = sidecar.control("POST", "/v1/reload", None).await;
    assert_eq!(status, 422, "{problem}");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("no-such-group"),
        "{problem}"
    );
    assert_eq!(modes(), [0o600; 2]);
    let config = sidecar.get("/v1/config").await;
    assert_eq!(config["knobs"]["budget.size"]["value"], "20");
    assert_eq!(config["refused"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_log_takes_another_level() {
    let (_database, sidecar, yaml) = place("level", "").await;
    sidecar.session("app", "a").await.ask("SELECT 1").await;
    assert_eq!(told(&sidecar, "\"DEBUG\""), 0);
    sidecar
        .reload(&format!("{yaml}log: {{level: debug}}\n"))
        .await;
    sidecar.session("app", "a").await.ask("SELECT 1").await;
    eventually(SOON, "it tells more", async || {
        let lines = told(&sidecar, "\"DEBUG\"");
        if lines > 0 { Ok(()) } else { Err(lines) }
    })
    .await;
    sidecar.settles().await;
    sidecar.reload(&yaml).await;
    // What was told before that is read by then.
    sidecar.logged(&["log.level: debug → info"]).await;
    let before = told(&sidecar, "\"DEBUG\"");
    sidecar.session("app", "a").await.ask("SELECT 1").await;
    assert!(told(&sidecar, "\"DEBUG\"") <= before + 1);
}

#[tokio::test]
async fn what_takes_a_restart_is_said_once_for_each_change_and_stays_as_it_is() {
    let (_database, sidecar, yaml) = place("restart", "").await;
    let said = || told(&sidecar, "takes a restart");
    let port = |port: u32| format!("{yaml}listen: {{port: {port}}}\n");
    for _ in 0..3 {
        let changes = sidecar.reload(&port(6000)).await;
        assert_eq!(knobs(&changes["waiting_for_restart"]), ["listen.port"]);
        assert_eq!(knobs(&changes["applied"]), [""; 0]);
    }
    eventually(SOON, "it is said", async || {
        if said() == 1 { Ok(()) } else { Err(said()) }
    })
    .await;
    let config = sidecar.get("/v1/config").await;
    assert_eq!(config["knobs"]["listen.port"]["value"], "5432");
    assert_eq!(knobs(&config["waiting_for_restart"]), ["listen.port"]);
    let status = sidecar.get("/v1/status").await;
    assert_eq!(
        status["configuration"]["waiting_for_restart"][0],
        "listen.port"
    );
    sidecar.reload(&port(6001)).await;
    eventually(SOON, "another change is said, too", async || {
        if said() == 2 { Ok(()) } else { Err(said()) }
    })
    .await;
    let changes = sidecar.reload(&yaml).await;
    assert_eq!(knobs(&changes["waiting_for_restart"]), [""; 0]);
    assert!(sidecar.socket().exists());
    assert_in(&sidecar.started("app", &[]).await.1);
}

#[tokio::test]
async fn environment_and_flags_win_over_a_changed_file_as_they_did_at_the_start() {
    let database = Postgres::shared().database("layers").await;
    let yaml = upstream("app", &database.url());
    let sidecar = Sidecar::options()
        .config(yaml.clone())
        .env("EXECPOOL_BUDGET__SIZE", "6")
        .flag("--set=budget.overflow=1")
        .start()
        .await;
    let more = "budget: {size: 9, overflow: 9, warm: 2}\n";
    let changes = sidecar.reload(&format!("{yaml}{more}")).await;
    assert_eq!(knobs(&changes["applied"]), ["budget.warm"]);
    let budget = sidecar.get("/v1/status").await["budget"].clone();
    assert_eq!((&budget["size"], &budget["limit"]), (&6.into(), &7.into()));
}

#[tokio::test]
async fn an_execution_that_begins_later_has_the_new_deadline_and_an_old_one_its_own() {
    let (_database, sidecar, yaml) = place("deadline", "").await;
    let begin = async |id: &str| {
        let body = serde_json::json!({"id": id});
        let (_, created) = sidecar.control("POST", "/v1/executions", Some(body)).await;
        created["deadline_seconds"].as_f64().unwrap()
    };
    assert!(begin("old").await > 1700.0);
    let more = "execution: {max_duration: 60s, untagged: reject, tombstone: 1s}\n";
    sidecar.reload(&format!("{yaml}{more}")).await;
    assert!(begin("new").await <= 60.0);
    let old = sidecar.get("/v1/executions/old").await;
    assert!(old["deadline_seconds"].as_f64().unwrap() > 1700.0, "{old}");
    let (_, refused) = sidecar.started("app", &[]).await;
    assert_eq!(error(&refused)[&'C'], "28000");
}

#[tokio::test]
async fn the_command_line_tells_what_a_reload_changes_and_what_is_wrong() {
    let (_database, sidecar, yaml) = place("command", "").await;
    let run = || {
        let socket = sidecar.control_socket();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_execpool"));
        command.args(["reload", "--socket"]).arg(socket);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    sidecar.configure(&format!(
        "{yaml}budget: {{size: 5}}\nlog: {{format: text}}\n"
    ));
    let output = run().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("budget.size: 20 → 5 (at once)"), "{text}");
    assert!(
        text.contains("log.format: auto → text: this takes a restart"),
        "{text}"
    );
    sidecar.configure("budget: {sise: 5}\n");
    let output = run().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("did you mean budget.size?"), "{text}");
    assert!(text.contains("no upstream is named"), "{text}");
}
