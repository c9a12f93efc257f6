//! What the reactor does for an app that leaks its connections, and for one whose database is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stage::{Stage, annotation, ask, available, events, name, status};
use crate::support::SOON;

/// From a leak to a restart, with seconds for what takes minutes by default; the probe that asks for
/// the kubelet gives up after one.
const RESTART: Duration = Duration::from_secs(300);

/// An app that leaks again and again, until this is dropped: three requests at a time, each of which
/// opens a session, leaves a transaction open and forgets it.
struct Leak {
    is_over: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Leak {
    fn of(pod: &Value) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let worker = || {
            let (pod, is_over) = (pod.clone(), Arc::clone(&is_over));
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    if ask(&pod, 8080, "/leak?n=1").is_err() {
                        std::thread::sleep(Duration::from_millis(200));
                    }
                }
            })
        };
        let workers = (0..3).map(|_| worker()).collect();
        Self { is_over, workers }
    }
}

impl Drop for Leak {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// A small budget, short times, and a restart of a kind. The pod need not be old for one.
fn values(restart: &str) -> Value {
    json!({
        "platform": {"enabled": true, "reactor": {"restart": restart}},
        "execpool": {
            "serviceAccountName": "execpool-example",
            "budget": {"size": 4, "overflow": 0},
            "pool": {"timeout": "5s"},
            "exhaustion": {"wait": "500ms", "after": "2s", "sustained_after": "3s"},
            "cleanup": {"idle_in_transaction": "4s"},
            // Time to look at the pod before it is restarted, and again before the next restart. One
            // that is evicted forgets, so it must be as old as the next restart would be away: a minute,
            // at this rate.
            "reactor": {"restart": restart, "restart_after": "25s", "cooldown": "60s",
                "max_restarts_per_hour": 60},
        },
    })
}

/// How often the sidecar and the app have been restarted.
fn restarts(pod: &Value) -> (i64, i64) {
    let count = |container| {
        status(pod, container)["restartCount"]
            .as_i64()
            .unwrap_or(-1)
    };
    (count("execpool"), count("app"))
}

/// Waits until the pod, which is looked at again and again, is as it is wanted.
#[track_caller]
fn becomes(stage: &Stage, within: Duration, claim: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    stage.cluster().eventually(within, claim, |_| {
        let pods = stage.pods();
        match pods.iter().find(|pod| wanted(pod)) {
            Some(pod) => Ok(pod.clone()),
            None => Err(json!(pods).to_string()),
        }
    })
}

/// A leak from its beginning until the pod says that it is exhausted for good, with all that shows.
fn leaks(stage: &Stage, pod: &Value) -> Leak {
    becomes(stage, SOON, "it says that it is well", |pod| {
        annotation(pod, "state") == "healthy" && available(pod) == ("True", "PoolAvailable")
    });
    let leak = Leak::of(pod);
    becomes(stage, SOON * 2, "it says that it is exhausted", |pod| {
        annotation(pod, "state") == "sustained"
            && available(pod) == ("False", "PoolSustained")
            && ["used", "limit", "holder"].map(|word| annotation(pod, word)) == ["4", "4", "shared"]
    });
    stage.cluster().eventually(SOON, "an Event", |_| {
        // The one of its beginning, and the one that it does not pass.
        match stage.told(pod, "PoolExhausted").as_slice() {
            [_, event, ..] => Ok(event.clone()),
            _ => Err(stage.kubectl(&["get", "events"])),
        }
    });
    reads_exhausted(stage, pod);
    stage.screens("exhausted", pod);
    leak
}

/// What kubectl prints for a person comes to have all of these words, whatever room is between them.
#[track_caller]
fn reads(stage: &Stage, arguments: &[&str], told: &[&str]) {
    let claim = format!("{arguments:?} has all of {told:?}");
    stage.cluster().eventually(SOON, &claim, |_| {
        let printed = stage.kubectl(arguments);
        let words = printed.split_whitespace().collect::<Vec<_>>().join(" ");
        match told.iter().find(|one| !words.contains(**one)) {
            None => Ok(()),
            Some(one) => Err(format!("it lacks {one:?}:\n{printed}")),
        }
    });
}

/// A person sees what is wrong, who holds the connections and what to type next.
#[track_caller]
fn reads_exhausted(stage: &Stage, pod: &Value) {
    let name = name(pod);
    let look = format!(
        "Held longest by sessions that name no execution (shared), nor where they were opened (execpool.caller). \
         Look with: kubectl exec -n {} {name} -c execpool -- /execpool sessions",
        stage.name
    );
    let event = [
        "Warning PoolExhausted",
        "Server connections have run out, and it does not pass: 4 of 4 in use, ",
        &look,
    ];
    let pod = [
        "execpool.dev/state: sustained",
        "execpool.dev/used: 4",
        "execpool.dev/limit: 4",
        "execpool.dev/holder: shared",
        "execpool.dev/PoolAvailable False",
    ];
    reads(stage, &["describe", "pod", name], &pod);
    reads(stage, &["describe", "pod", name], &event);
    let about = format!("pod/{name}");
    let object = format!("Pod/{name} {}", event[1]);
    let event = [event[0], &object, event[2]];
    reads(stage, &["events", "--for", &about], &event);
}

/// A person sees that the app was restarted, and not the sidecar, when, and that it is well again.
#[track_caller]
fn reads_recovered(stage: &Stage, pod: &Value) {
    let described = [
        "execpool.dev/state: healthy",
        "execpool.dev/restarts: 1",
        "execpool.dev/last-restart: 20",
        "execpool.dev/PoolAvailable True",
        "Normal PoolRecovered",
        "There are server connections again: ",
        "Container app failed liveness probe, will be restarted",
        "Warning PoolRestart",
        "Restart by liveness, as nothing else has helped: /livez/app answers 503 until ",
        "Restarts within an hour, with this one: 1 of at most 60.",
    ];
    reads(stage, &["describe", "pod", name(pod)], &described);
    let line = format!("{} 2/2 Running 1 (", name(pod));
    reads(stage, &["get", "pod", "-o", "wide"], &[&line]);
}

/// After the leak has ended: the app serves, and the pod says so.
fn recovers(stage: &Stage) -> Value {
    becomes(stage, SOON * 2, "it says that it is well again", |pod| {
        annotation(pod, "state") == "healthy"
            && available(pod) == ("True", "PoolAvailable")
            && matches!(ask(pod, 8080, "/rows"), Ok((200, _)))
    })
}

#[tokio::test]
async fn a_leaking_app_is_cleaned_up_and_then_restarted_alone() {
    let Some(stage) = Stage::new("leaks").await else {
        return;
    };
    stage.run(&values("liveness"));
    let pod = stage.pod();
    let leak = leaks(&stage, &pod);
    stage.cluster().eventually(SOON, "a cleanup", |_| {
        let log = stage.log(name(&pod), "execpool");
        match events(&log, "reactor.cleanup").first() {
            Some(_) => Ok(()),
            None => Err(log),
        }
    });

    becomes(&stage, RESTART, "the app is restarted", |pod| {
        restarts(pod) == (0, 1)
    });
    drop(leak);
    let again = recovers(&stage);
    assert_eq!(again["metadata"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(restarts(&again), (0, 1), "{again:#}");
    assert_eq!(annotation(&again, "restarts"), "1");
    assert_ne!(annotation(&again, "last-restart"), "");
    stage.cluster().eventually(SOON, "an Event of it", |_| {
        let (_, forgotten) = ask(&again, 8080, "/forgotten").unwrap();
        match stage.told(&pod, "PoolRecovered").is_empty() {
            false => Ok(()),
            true => Err(format!("{forgotten} {}", stage.kubectl(&["get", "events"]))),
        }
    });
    reads_recovered(&stage, &pod);
    stage.screens("recovered", &pod);
}

#[tokio::test]
async fn a_leaking_app_is_restarted_with_all_containers_by_the_exit_code() {
    let Some(stage) = Stage::new("exits").await else {
        return;
    };
    stage.run(&values("exit-code"));
    let pod = stage.pod();
    let leak = leaks(&stage, &pod);
    becomes(&stage, RESTART, "all are restarted", |pod| {
        restarts(pod) == (1, 1)
    });
    drop(leak);
    let again = recovers(&stage);
    assert_eq!(again["metadata"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(restarts(&again), (1, 1), "{again:#}");
    assert_eq!(annotation(&again, "restarts"), "1");
}

#[tokio::test]
async fn a_leaking_apps_pod_is_evicted_once_its_disruption_budget_allows_it() {
    let Some(stage) = Stage::new("evicts").await else {
        return;
    };
    let mut values = values("evict");
    values["podDisruptionBudget"] = json!({"enabled": true, "minAvailable": 1});
    stage.run(&values);
    let pod = stage.pod();
    let leak = leaks(&stage, &pod);
    // The only pod may not go.
    stage
        .cluster()
        .eventually(RESTART, "it is told that it may not", |_| {
            let log = stage.log(name(&pod), "execpool");
            match log.contains("PodDisruptionBudget forbids") {
                true => Ok(()),
                false => Err(log),
            }
        });
    stage
        .cluster()
        .eventually(SOON, "the pod tells it too", |_| {
            match stage.told(&pod, "PoolRestartRefused").as_slice() {
                [] => Err(stage.kubectl(&["get", "events"])),
                _ => Ok(()),
            }
        });
    assert_eq!(stage.pod()["metadata"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(restarts(&stage.pod()), (0, 0));

    values["podDisruptionBudget"] = json!({"enabled": true, "minAvailable": 0});
    stage.install(&values);
    becomes(&stage, RESTART, "another pod is there", |other| {
        other["metadata"]["uid"] != pod["metadata"]["uid"]
    });
    drop(leak);
    recovers(&stage);
}

#[tokio::test]
async fn a_leaking_apps_deployment_is_rolled_out() {
    let Some(stage) = Stage::new("rolls-out").await else {
        return;
    };
    let mut values = values("rollout");
    values["platform"]["reactor"]["owners"] = json!([{"kind": "Deployment", "name": "example"}]);
    stage.run(&values);
    let pod = stage.pod();
    let before = stage.get(&["deployment", "example"])["spec"]["template"].clone();
    let leak = leaks(&stage, &pod);
    becomes(&stage, RESTART, "another pod is there", |other| {
        other["metadata"]["uid"] != pod["metadata"]["uid"]
    });
    drop(leak);
    stage.rolled_out();
    let owner = stage.get(&["deployment", "example"]);
    assert_ne!(owner["spec"]["template"], before);
    recovers(&stage);
    assert_eq!(
        owner["metadata"]["generation"], 2,
        "one rollout, not two: {owner:#}"
    );
}

#[tokio::test]
async fn a_database_that_is_away_restarts_nothing_and_is_told_as_such() {
    let Some(stage) = Stage::new("away").await else {
        return;
    };
    let mut postgres = stage.own_postgres();
    let database = postgres.database("away").await;
    let mut values = values("liveness");
    values["execpool"]["upstreams"] = json!([stage.upstream(&postgres)]);
    values["execpool"]["upstreams"][0]["connect_timeout"] = json!("3s");
    // More clients than connections, on a machine that may stand still: no wait is long before it is away.
    values["execpool"]["exhaustion"]["wait"] = json!("3s");
    values["execpool"]["reactor"]["restart_after"] = json!("6s");
    values["env"] = json!([{"name": "LOAD", "value": "8"}]);
    stage.run(&values);
    becomes(&stage, SOON, "it says that it is well", |pod| {
        available(pod) == ("True", "PoolAvailable")
    });
    drop(database);
    postgres.stop();
    becomes(&stage, SOON, "it says that the database is away", |pod| {
        available(pod) == ("True", "DatabaseUnreachable")
    });
    // Longer than all that leads to a restart, the probe included.
    for _ in 0..30 {
        std::thread::sleep(Duration::from_secs(3));
        let pod = stage.pod();
        assert_eq!(available(&pod), ("True", "DatabaseUnreachable"), "{pod:#}");
        assert_eq!(restarts(&pod), (0, 0), "{pod:#}");
    }
    let pod = stage.pod();
    let (code, answer) = ask(&pod, 9464, "/livez/app").unwrap();
    assert_eq!(code, 200, "{answer}");

    postgres.start_again();
    let again = recovers(&stage);
    assert_eq!(restarts(&again), (0, 0), "{again:#}");
}
