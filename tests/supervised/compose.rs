//! The health check of `deploy/compose`, by which Docker restarts the app's container. A container's processes are in a
//! namespace of their own, where the first one is Docker's and ends with its child; here a shell plays it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::unistd::Uid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::place::{Place, SOON};
use crate::support::cluster::skipped;
use crate::support::guard::short_directory;
use crate::support::tools::python;
use crate::support::{Sidecar, eventually, http};

/// The first process of a container: hands SIGTERM on to its child, and ends with it. In `$STATE` it is written how far
/// they are: the app is asked nothing before it is `ready`, and knows when the check is `over`.
const INIT: &str = r#"
sh -c "$4; echo whole" & app=$!
trap 'kill "$app"' TERM
until [ -e "$STATE/ready" ]; do sleep 0.02; done
("$3" "$1" "$2"; echo "status $?"; : >"$STATE/over") &
wait "$app"
wait "$app"
"#;

/// An app that is done when the health check has ended nothing.
const SHORT: &str = r#": >"$STATE/ready"; until [ -e "$STATE/over" ]; do sleep 0.05; done"#;

/// Runs the health check beside an app in a container with this temporary directory, to the app's end, and answers
/// what both have said: `whole` is an app that came to its end by itself. Where execpool does not answer as soon as the
/// check wants it, it is checked again, as Docker does.
fn check(temporary: &TempDir, url: &str, app: &str) -> String {
    let begun = Instant::now();
    loop {
        let said = check_once(temporary, url, app);
        if !said.contains("does not answer") || begun.elapsed() > SOON {
            return said;
        }
    }
}

/// The same, whatever comes of it.
fn check_once(temporary: &TempDir, url: &str, app: &str) -> String {
    let state = short_directory();
    let check = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/compose/livez.py");
    let mut container = Command::new("unshare");
    container
        .args(["--mount", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc"])
        .args(["sh", "-c", INIT, "init", check, url])
        .arg(python())
        .arg(app)
        .env("TMPDIR", temporary.path())
        .env("STATE", state.path());
    let output = container.output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Asks twice by what `agents-livez.service` runs, which restarts so often, and at a 200 forgets that it did.
fn asks_by_unit(place: &Place, answer: u16, restarts: usize) {
    let unit = include_str!("../../deploy/systemd/agents-livez.service");
    let (_, command) = unit.split_once("ExecStart=/bin/sh -c '").unwrap();
    let command = command.trim_end().strip_suffix('\'').unwrap();
    // As systemd reads it.
    let command = command
        .replace("\\\n", "")
        .replace("$$", "$")
        .replace("%%", "%")
        .replace("9464", &place.port.to_string());
    let runtime = short_directory();
    if answer == 200 {
        fs::write(runtime.path().join("restarted"), "").unwrap();
    }
    let systemctl = place.path("bin/systemctl");
    let called = runtime.path().join("called");
    let text = format!("#!/bin/sh\necho \"$@\" >> {}\n", called.display());
    fs::write(&systemctl, text).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", place.path("bin").display());
    for _ in 0..2 {
        let mut asks = Command::new("sh");
        asks.args(["-c", &command])
            .env("PATH", &path)
            .env("RUNTIME_DIRECTORY", runtime.path());
        assert!(asks.status().unwrap().success());
    }
    let called = fs::read_to_string(&called).unwrap_or_default();
    let wanted = "--no-block try-restart agents.service\n".repeat(restarts);
    assert_eq!(called, wanted);
    assert_eq!(runtime.path().join("restarted").exists(), answer == 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_ends_the_apps_container_at_a_503_and_at_nothing_else() {
    if !Uid::effective().is_root() {
        return skipped("namespaces take root");
    }
    let place = Place::new("in_a_container", "liveness").await;
    let url = format!("http://127.0.0.1:{}/livez/app", place.port);
    let container = short_directory();
    // Nobody is there yet.
    let said = check_once(&container, &url, SHORT);
    assert!(said.contains("does not answer"), "{said}");
    assert!(
        said.contains("status 1") && said.contains("whole"),
        "{said}"
    );

    let yaml = place.text("config.yaml");
    let memory = place.text("execpool/restarts.json");
    let sidecar = Sidecar::options()
        .config(yaml.replace(&place.path("execpool").display().to_string(), "\"{dir}\""))
        .file("restarts.json", memory)
        .start()
        .await;
    let said = check(&container, &url, SHORT);
    assert_eq!(said, "status 0\nwhole\n");

    let mut held = Vec::new();
    for _ in 0..3 {
        let client = sidecar.client("app", "a").await.unwrap();
        client.simple_query("SELECT 1").await.unwrap();
        held.push(client);
    }
    let waits = sidecar.client("app", "b").await.unwrap();
    let waiting = tokio::spawn(async move { waits.simple_query("SELECT 1").await.map(drop) });
    let address = format!("127.0.0.1:{}", place.port);
    eventually(
        SOON,
        "the reactor has decided",
        async || match http::get_tcp(&address, "/livez/app").await {
            Ok((503, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;

    // It is asked to go, and goes.
    let said = check(
        &container,
        &url,
        &format!("trap 'echo asked; exit' TERM; {SHORT}"),
    );
    assert!(
        said.contains("answers 503: the app is to be restarted"),
        "{said}"
    );
    assert!(said.contains("asked") && !said.contains("whole"), "{said}");
    // Started anew it is left alone, though what others hold keeps the 503.
    let said = check(&container, &url, SHORT);
    assert!(
        said.contains("answers 503") && said.contains("whole"),
        "{said}"
    );
    // One that does not hear is killed.
    let another = short_directory();
    let said = check(&another, &url, &format!("trap '' TERM; {SHORT}"));
    assert!(!said.contains("whole"), "{said}");
    asks_by_unit(&place, 503, 1);

    drop(held);
    eventually(SOON, "it is over", async || {
        match http::get_tcp(&address, "/livez/app").await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    check(&container, &url, SHORT);
    assert_eq!(std::fs::read_dir(container.path()).unwrap().count(), 0);
    asks_by_unit(&place, 200, 0);
    waiting.abort();
}

#[test]
fn the_compose_example_has_the_app_restarted_by_that_health_check() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose");
    let text = fs::read_to_string(folder.join("compose.yaml")).unwrap();
    let compose: Value = serde_saphyr::from_str(&text).unwrap();
    let (app, execpool) = (
        &compose["services"]["app"],
        &compose["services"]["execpool"],
    );
    assert_eq!(
        execpool["environment"]["EXECPOOL_REACTOR__RESTART"],
        "liveness"
    );
    assert_eq!(app["restart"], "always");
    // Without, its first process would not hear.
    assert_eq!(app["init"], true);
    let check = &app["healthcheck"]["test"];
    assert_eq!(
        *check,
        json!([
            "CMD",
            "python",
            "/livez.py",
            "http://execpool:9464/livez/app"
        ])
    );
    let mounts = app["volumes"].as_array().unwrap();
    assert!(
        mounts.contains(&json!("./livez.py:/livez.py:ro")),
        "{mounts:?}"
    );
    // It is not cut off before it has killed who does not go.
    let script = fs::read_to_string(folder.join("livez.py")).unwrap();
    let after = |text: &str, words: &str| -> f64 {
        let rest = text.split(words).nth(1).unwrap();
        let number = rest.split(|one: char| one != '.' && !one.is_ascii_digit());
        number.into_iter().next().unwrap().parse().unwrap()
    };
    let (asked, grace) = (after(&script, "timeout="), after(&script, "GRACE = "));
    let limit = app["healthcheck"]["timeout"].as_str().unwrap();
    let limit: f64 = limit.trim_end_matches('s').parse().unwrap();
    assert!(limit > asked + grace, "{limit} {asked} {grace}");
}
