//! How a pod with the sidecar begins, ends, is replaced, and lives on when the sidecar dies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stage::{Stage, annotation, ask, events, name, seconds, status};
use crate::support::SOON;

/// What the app needs of its grace period: more than the default, so that the sidecar has to know of another one.
const LINGER: f64 = 35.0;

/// The grace period, with room for a machine that stands still.
const GRACE: u32 = 60;

/// An app that queries all the time, by four workers, and goes on after it was told to end.
fn busy(linger: f64) -> Value {
    json!([
        {"name": "LOAD", "value": "4"},
        {"name": "LINGER", "value": linger.to_string()},
    ])
}

/// Values of the library for that grace period.
fn grace() -> Value {
    json!({"terminationGracePeriodSeconds": GRACE})
}

/// How many queries of a pod's app went well so far.
fn well(pod: &Value) -> Result<i64, String> {
    let (_, counts) = ask(pod, 8080, "/queries")?;
    counts["ok"].as_i64().ok_or_else(|| counts.to_string())
}

#[tokio::test]
async fn the_app_starts_after_the_sidecar_and_reads_rows_through_its_socket() {
    let Some(stage) = Stage::new("starts").await else {
        return;
    };
    stage.run(&json!({}));
    let pod = stage.pod();

    let sidecar = status(&pod, "execpool");
    assert_eq!(sidecar["started"], true, "{sidecar:#}");
    let serves = stage.says(name(&pod), "execpool", "start");
    let begins = stage.says(name(&pod), "app", "started");
    let (sidecar_at, app_at) = (
        seconds(&serves["timestamp"]),
        begins["at"].as_f64().unwrap(),
    );
    #[allow(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let is_later = app_at >= sidecar_at as f64;
    assert!(is_later, "{serves} {begins}");

    let (code, rows) = ask(&pod, 8080, "/rows?n=3").unwrap();
    assert_eq!(
        (code, &rows["rows"]),
        (200, &json!([[1, 1], [2, 4], [3, 9]]))
    );
    let app = &pod["spec"]["containers"][0];
    let url = app["env"].as_array().unwrap().iter();
    let url = url
        .clone()
        .find(|one| one["name"] == "DATABASE_URL")
        .unwrap();
    let url = url["value"].as_str().unwrap();
    assert!(url.contains("host=/run/execpool"), "{url}");
    let status = stage.kubectl(&[
        "exec",
        name(&pod),
        "--container=execpool",
        "--",
        "/execpool",
        "status",
        "--json",
    ]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["not_ready"], Value::Null, "{status:#}");
    assert_eq!(status["sessions"]["opened"], 1, "{status:#}");
}

#[tokio::test]
async fn the_app_does_not_start_while_the_sidecar_can_not() {
    let Some(stage) = Stage::new("waits").await else {
        return;
    };
    let wrong = json!([{"name": "EXECPOOL_BUDGET__SIZE", "value": "many"}]);
    stage.install(&json!({"execpool": {"extraEnv": wrong}}));
    let pod = stage.cluster().eventually(SOON, "the sidecar fails", |_| {
        let pods = stage.pods();
        let pod = pods.first().ok_or_else(|| "no pod".to_owned())?;
        match status(pod, "execpool")["restartCount"].as_i64() {
            Some(1..) => Ok(pod.clone()),
            _ => Err(pod["status"].to_string()),
        }
    });
    let app = &status(&pod, "app")["state"];
    assert_eq!(app["waiting"]["reason"], "PodInitializing", "{app}");
    // The one that was just started may not have said it yet.
    stage.cluster().eventually(SOON, "it says why", |_| {
        let said = stage.log(name(&pod), "execpool");
        said.contains("budget.size").then_some(()).ok_or(said)
    });
}

#[tokio::test]
async fn an_app_of_another_user_reaches_the_socket_by_each_way_of_access() {
    let Some(stage) = Stage::new("access").await else {
        return;
    };
    for access in ["fsGroup", "group", "mode"] {
        stage.run(&json!({"runAsUser": 1234, "execpool": {"socket": {"access": access}}}));
        let pod = stage.pod();
        let (code, rows) = ask(&pod, 8080, "/rows?n=1").unwrap();
        assert_eq!(code, 200, "{access}: {rows}");
        let id = "import os; print(os.getuid(), os.stat('/run/execpool/.s.PGSQL.5432').st_uid)";
        let script = ["--", "/usr/bin/python3", "-c", id];
        let mut arguments = vec!["exec", name(&pod), "--container=app"];
        arguments.extend(script);
        assert_eq!(stage.kubectl(&arguments).trim(), "1234 65532", "{access}");
    }
}

#[tokio::test]
async fn the_app_finds_no_token_and_the_sidecar_has_one() {
    let Some(stage) = Stage::new("token").await else {
        return;
    };
    stage.run(&json!({
        "platform": {"enabled": true},
        "execpool": {"serviceAccountName": "execpool-example"},
    }));
    let pod = stage.pod();
    let script = "import os; print([place for place, _, names in os.walk('/') \
        if 'token' in names and not place.startswith(('/proc', '/sys'))], \
        os.path.exists('/var/run/secrets'))";
    let app = [
        "exec",
        name(&pod),
        "--container=app",
        "--",
        "/usr/bin/python3",
        "-c",
        script,
    ];
    assert_eq!(stage.kubectl(&app).trim(), "[] False");
    // The sidecar's is used: the API has heard of it.
    stage
        .cluster()
        .eventually(SOON, "it says how it stands", |_| {
            match annotation(&stage.pod(), "state") {
                "healthy" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
}

#[tokio::test]
async fn a_deleted_pods_app_has_the_database_to_its_last_query_and_the_sidecar_outlives_it() {
    let Some(stage) = Stage::new("deleted").await else {
        return;
    };
    stage.run(&json!({"env": busy(LINGER), "execpool": grace()}));
    let pod = stage.pod();
    let (log, last) = deleted(&stage, &pod);

    let ends = app_ended_well(&log);
    // Neither was killed, as at the end of the grace period.
    let [app, sidecar] = ["app", "execpool"].map(|container| {
        let ended = &status(&last, container)["state"]["terminated"];
        assert_eq!(ended["exitCode"], 0, "{container}: {ended} {last:#}");
        seconds(&ended["finishedAt"])
    });
    assert!(sidecar >= app, "the sidecar went first: {last:#}");
    assert!(ends["ok"].as_i64().unwrap() > 50, "{ends}");
}

#[tokio::test]
async fn beside_a_plain_container_the_database_is_usable_to_the_apps_last_query() {
    let Some(stage) = Stage::new("plain").await else {
        return;
    };
    let mut plain = grace();
    plain["shutdown"] = json!({"mode": "plain"});
    stage.run(&json!({"env": busy(LINGER), "execpool": plain}));
    let pod = stage.pod();
    assert!(status(&pod, "execpool")["state"]["running"].is_object());
    assert!(pod["spec"]["initContainers"].is_null(), "it is a plain one");
    let (log, _) = deleted(&stage, &pod);
    app_ended_well(&log);
}

/// Deletes a pod: the app's log to its end, and the last that the API said of the pod.
fn deleted(stage: &Stage, pod: &Value) -> (String, Value) {
    stage
        .cluster()
        .eventually(SOON, "the load runs", |_| match well(pod) {
            Ok(50..) => Ok(()),
            other => Err(other),
        });
    let log = stage.follow(&["logs", "--follow", name(pod), "--container=app"]);
    let watch = ["get", "pod", name(pod), "--watch", "--output=json"];
    let watch = stage.follow(&[&watch[..], &["--output-watch-events"]].concat());
    stage.kubectl(&["delete", "pod", name(pod), "--wait=true"]);
    let log = log.end(|log| !events(log, "ends").is_empty());
    let seen = watch.end(|seen| last_of(seen)["type"] == "DELETED");
    let mut last = last_of(&seen);
    assert_eq!(last["type"], "DELETED", "{seen}");
    (log, last["object"].take())
}

/// The last whole object of a text.
fn last_of(text: &str) -> Value {
    let mut seen = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let last = std::iter::from_fn(|| seen.next()?.ok()).last();
    last.unwrap_or_default()
}

/// What the app said at its end: it queried for as long as it needed, and no query failed.
fn app_ended_well(log: &str) -> Value {
    let [told, ends] = ["told to end", "ends"].map(|event| {
        let found = events(log, event);
        assert_eq!(found.len(), 1, "{event}: {log}");
        found[0].clone()
    });
    assert_eq!(ends["failed"], 0, "{log}");
    assert_eq!(ends["retried"], 0, "{log}");
    let lasted = ends["last_ok"].as_f64().unwrap() - told["at"].as_f64().unwrap();
    // The last ones may have been under way while the machine stood still.
    assert!(lasted > LINGER - 5.0, "queried for {lasted} s: {log}");
    ends
}

#[tokio::test]
async fn a_job_completes_although_the_sidecar_is_there() {
    let Some(stage) = Stage::new("job").await else {
        return;
    };
    stage.run(&json!({"job": {"enabled": true}}));
    stage.kubectl(&[
        "wait",
        "--for=condition=Complete",
        "job/example-job",
        "--timeout=300s",
    ]);
    let pods = stage.get(&["pods", "--selector=app.kubernetes.io/component=job"]);
    let pod = &pods["items"][0];
    let ends = stage.says(name(pod), "app", "ends");
    assert_eq!((&ends["ok"], &ends["failed"]), (&json!(20), &json!(0)));
    let sidecar = &status(pod, "execpool")["state"]["terminated"];
    assert_eq!(sidecar["exitCode"], 0, "{sidecar}");
}

/// Within what time a sidecar that was killed serves again, on a machine that does not stand still.
const BACK: Duration = Duration::from_secs(3);

/// Kills the sidecar of a pod under load: how long it takes until the app reads rows through it again.
fn back_after_a_kill(stage: &Stage, pod: &Value) -> Duration {
    let cluster = stage.cluster();
    cluster.eventually(SOON, "the load runs", |_| match well(pod) {
        Ok(20..) => Ok(()),
        other => Err(other),
    });
    let id = status(pod, "execpool")["containerID"].as_str().unwrap();
    let id = id.strip_prefix("containerd://").unwrap();
    let start = Instant::now();
    cluster.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]);
    cluster.eventually(SOON, "it is gone", |cluster| {
        let tasks = cluster.ctr(&["tasks", "list"]);
        let is_there = tasks
            .lines()
            .any(|line| line.contains(id) && line.contains("RUNNING"));
        if is_there { Err(tasks) } else { Ok(()) }
    });
    cluster.eventually(SOON, "rows again", |_| match ask(pod, 8080, "/rows") {
        Ok((200, _)) => Ok(()),
        other => Err(other),
    });
    start.elapsed()
}

#[tokio::test]
async fn a_killed_sidecar_is_back_within_three_seconds_and_the_drivers_reconnect() {
    let Some(stage) = Stage::new("killed").await else {
        return;
    };
    let sessions = json!([
        {"name": "LOAD", "value": "2"},
        {"name": "LOAD_SESSIONS", "value": "once"},
    ]);
    stage.run(&json!({"env": sessions}));
    let mut pod = stage.pod();
    let mut took = vec![back_after_a_kill(&stage, &pod)];
    // Where the machine stood still it is another pod's turn: only the first restart in a pod is at once.
    while took.iter().all(|took| *took >= BACK) {
        assert!(took.len() < 5, "{took:?}");
        stage.kubectl(&["delete", "pod", name(&pod), "--wait=true"]);
        stage.rolled_out();
        pod = stage.pod();
        took.push(back_after_a_kill(&stage, &pod));
    }
    let before = well(&pod).unwrap();
    stage
        .cluster()
        .eventually(SOON, "its workers go on", |_| match well(&pod) {
            Ok(now) if now > before + 50 => Ok(()),
            other => Err(other),
        });
    let count = |container| status(&stage.pod(), container)["restartCount"].clone();
    stage
        .cluster()
        .eventually(SOON, "the kubelet says so", |_| {
            let counts = (count("execpool"), count("app"));
            if counts == (json!(1), json!(0)) {
                Ok(())
            } else {
                Err(counts)
            }
        });
}

#[tokio::test]
async fn a_rolling_update_under_load_fails_no_query() {
    let Some(stage) = Stage::new("rolling").await else {
        return;
    };
    let values = |version: &str| {
        json!({
            "replicaCount": 2, "env": busy(2.0), "podAnnotations": {"version": version},
        })
    };
    stage.run(&values("1"));
    let old = stage.pods();
    assert_eq!(old.len(), 2);
    for pod in &old {
        stage
            .cluster()
            .eventually(SOON, "the load runs", |_| match well(pod) {
                Ok(50..) => Ok(()),
                other => Err(other),
            });
    }
    let follow = |pod| stage.follow(&["logs", "--follow", name(pod), "--container=app"]);
    let logs: Vec<_> = old.iter().map(follow).collect();
    stage.run(&values("2"));
    for log in logs {
        let log = log.end(|log| !events(log, "ends").is_empty());
        let ends = events(&log, "ends");
        assert_eq!(ends.len(), 1, "{log}");
        assert_eq!(ends[0]["failed"], 0, "{log}");
    }
    let new = stage.pods();
    assert_eq!(new.len(), 2);
    for pod in &new {
        assert!(old.iter().all(|one| name(one) != name(pod)));
        stage
            .cluster()
            .eventually(SOON, "the load runs", |_| match well(pod) {
                Ok(50..) => Ok(()),
                other => Err(other),
            });
        let (_, counts) = ask(pod, 8080, "/queries").unwrap();
        assert_eq!(counts["failed"], 0, "{counts}");
    }
}
