//! What is done about exhaustion where there is a Kubernetes: the built program, a real API server with the rights and
//! the admission policy of the chart, a real database. What the calls are in each of their cases is in `api.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::cluster::{Cluster, Part};
use support::helm::{Charts, Helm};
use support::sidecar::upstream;
use support::{Postgres, Raw, SOON, Sidecar, eventually, memory};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Recovery takes half a minute of calm.
const LONG: Duration = Duration::from_secs(180);

const SHORT: &str = "
exhaustion: {wait: 300ms, after: 1s, sustained_after: 1s}
cleanup: {idle_in_transaction: 1s}
budget: {size: 3, overflow: 0}
pool: {size: 3, overflow: 0, timeout: 300s}
";

/// The namespace, with the chart's rights and its admission policy: a service account for each way to restart
/// that has rights of its own.
fn ground(cluster: &Cluster) {
    cluster.apply(r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}"#);
    let charts = Charts::new();
    let owners = json!([{"kind": "Deployment", "name": "rolled"}]);
    for (account, reactor) in [
        ("usual", json!({})),
        ("evicting", json!({"restart": "evict"})),
        ("rolling", json!({"restart": "rollout", "owners": owners})),
    ] {
        let chart = charts.chart("execpool").release(account).namespace("shop");
        let values = json!({"serviceAccount": {"name": account}, "reactor": reactor});
        cluster.apply(&chart.values(values).text(Helm::Four).unwrap());
    }
    // A policy holds a moment after it was made.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any", "namespace": "shop"},
        "spec": spec("usual"),
    });
    cluster.apply(&pod.to_string());
    for account in ["usual", "evicting", "rolling"] {
        let somebody = format!("--as=system:serviceaccount:shop:{account}");
        let patch = [
            "patch",
            "pod",
            "any",
            "--namespace=shop",
            "--dry-run=server",
            &somebody,
        ];
        let patch = [
            &patch[..],
            &["--patch", r#"{"metadata": {"annotations": {"a": "b"}}}"#],
        ];
        cluster.eventually(SOON, "the policy holds", |cluster| {
            let said = cluster.try_kubectl(&patch.concat());
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            if why.contains("belongs to no pod") {
                Ok(())
            } else {
                Err(why)
            }
        });
    }
}

/// Whose rights fit to this `reactor`.
fn account(reactor: &str) -> &'static str {
    match (reactor.contains("evict"), reactor.contains("rollout")) {
        (true, _) => "evicting",
        (_, true) => "rolling",
        _ => "usual",
    }
}

fn spec(account: &str) -> Value {
    json!({
        "serviceAccountName": account,
        "terminationGracePeriodSeconds": 0,
        "initContainers": [
            {"name": "execpool", "image": "localhost/none", "restartPolicy": "Always"},
        ],
        "containers": [{"name": "app", "image": "localhost/none"}],
    })
}

/// A sidecar in a pod, as the API has it.
struct Pod<'a> {
    cluster: &'a Cluster,
    name: String,
    sidecar: Sidecar,
    _mount: TempDir,
}

impl<'a> Pod<'a> {
    /// One that is made here, with these annotations.
    async fn new(cluster: &'a Cluster, name: &str, annotations: Value, reactor: &str) -> Self {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
            "spec": spec(account(reactor)),
        });
        cluster.apply(&pod.to_string());
        Self::of(cluster, name, reactor).await
    }

    /// The sidecar of one that is there, which remembers that it has been there for two hours.
    async fn of(cluster: &'a Cluster, name: &str, reactor: &str) -> Self {
        let uid = cluster.get(&["pod", name, "--namespace=shop"])["metadata"]["uid"].clone();
        let uid = uid.as_str().unwrap().to_owned();
        let bound = [
            "create",
            "token",
            account(reactor),
            "--namespace=shop",
            "--bound-object-kind=Pod",
            "--bound-object-name",
            name,
            "--bound-object-uid",
            &uid,
        ];
        let mount = TempDir::new().unwrap();
        let put = |file: &str, text: &[u8]| std::fs::write(mount.path().join(file), text).unwrap();
        put("token", cluster.kubectl(&bound).trim().as_bytes());
        put("namespace", b"shop");
        put(
            "ca.crt",
            &std::fs::read(cluster.state().join("pki/ca.crt")).unwrap(),
        );
        let database = Postgres::shared().database(&name.replace('-', "_")).await;
        let memory = memory::of_pod_since(Duration::from_secs(7200));
        let (host, port) = cluster.api_address();
        let yaml = upstream("app", &database.url()) + SHORT + &format!("reactor: {{{reactor}}}\n");
        let sidecar = Sidecar::options()
            .config(yaml)
            .file("restarts.json", memory.to_string())
            .env("EXECPOOL_TELEMETRY__LISTEN", "127.0.0.1:0")
            .env("EXECPOOL_TOKEN_DIR", mount.path().to_str().unwrap())
            .env("KUBERNETES_SERVICE_HOST", host)
            .env("KUBERNETES_SERVICE_PORT", port.to_string())
            .env("POD_NAME", name)
            .env("POD_UID", uid)
            .env("CONTAINER_NAME", "execpool")
            .start()
            .await;
        Self {
            cluster,
            name: name.to_owned(),
            sidecar,
            _mount: mount,
        }
    }

    /// As the API has it; none where it has none.
    fn read(&self) -> Option<Value> {
        let got = self.cluster.try_kubectl(&[
            "get",
            "pod",
            &self.name,
            "--namespace=shop",
            "--output=json",
        ]);
        serde_json::from_slice(&got.stdout).ok()
    }

    fn annotation(&self, name: &str) -> Value {
        let pod = self.read().unwrap_or_default();
        pod["metadata"]["annotations"][format!("execpool.dev/{name}")].clone()
    }

    fn condition(&self) -> Value {
        let pod = self.read().unwrap_or_default();
        let all = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ours = |one: &Value| one["type"] == "execpool.dev/PoolAvailable";
        all.into_iter().find(ours).unwrap_or_default()
    }

    async fn is_annotated(&self, name: &str, value: &str, within: Duration) {
        let claim = format!("{}: execpool.dev/{name} is {value}", self.name);
        eventually(within, &claim, async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = self.annotation(name);
            if now == value { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// The notes of its Events of this reason, as soon as there is one.
    async fn notes(&self, reason: &str) -> Vec<String> {
        let claim = format!("{} has the Event {reason}", self.name);
        eventually(SOON, &claim, async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let events = self
                .cluster
                .get(&["events.events.k8s.io", "--namespace=shop"]);
            let all = events["items"].as_array().cloned().unwrap_or_default();
            let ours =
                |one: &Value| one["regarding"]["name"] == *self.name && one["reason"] == *reason;
            let notes = all.into_iter().filter(ours);
            let notes = notes.map(|one| one["note"].as_str().unwrap().to_owned());
            let notes: Vec<String> = notes.collect();
            match notes.is_empty() {
                true => Err(events),
                false => Ok(notes),
            }
        })
        .await
    }

    async fn status(&self) -> Value {
        self.sidecar.get("/v1/status").await
    }

    fn told(&self, event: &str) -> Vec<Value> {
        let log = self.sidecar.log();
        let lines = log.iter();
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == event).collect()
    }

    async fn tells(&self, event: &str) -> Value {
        let claim = format!("{} tells {event}", self.name);
        eventually(SOON, &claim, async || match self.told(event).first() {
            Some(line) => Ok(line.clone()),
            None => Err(self.status().await["exhaustion"].clone()),
        })
        .await
    }

    /// Sessions of no named execution that hold the whole budget, and somebody who waits.
    async fn leak(&self) -> (Vec<Raw>, JoinHandle<()>) {
        (self.holds().await, self.needs())
    }

    /// Sessions of no named execution that hold the whole budget.
    async fn holds(&self) -> Vec<Raw> {
        let mut leaked = Vec::new();
        for _ in 0..3 {
            let named = [
                ("execpool.execution_id", "shared"),
                ("execpool.caller", "agent.py:7 run"),
            ];
            let (mut raw, told) = self.sidecar.started("app", &named).await;
            support::session::assert_in(&told);
            raw.query("SELECT 1").await;
            leaked.push(raw);
        }
        leaked
    }

    /// Somebody who waits for one more.
    fn needs(&self) -> JoinHandle<()> {
        let url = self.sidecar.url("app");
        tokio::spawn(async move {
            if let Ok((client, connection)) =
                tokio_postgres::connect(&url, tokio_postgres::NoTls).await
            {
                tokio::spawn(connection);
                let _ = client.simple_query("SELECT 1").await;
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_found_is_brought_to_the_pod_and_the_pod_is_restarted_through_the_api() {
    let Some(cluster) = Cluster::api() else {
        return;
    };
    ground(&cluster);
    tokio::join!(
        evicts(&cluster),
        rolls_out(&cluster),
        has_no_rule(&cluster),
        cleans_up(&cluster),
        ends_with_88(&cluster),
        only_tells(&cluster),
        remembers(&cluster),
    );
    // Alone, as it takes the API away.
    tells_the_pod(&cluster).await;
}

/// Annotations, condition and Events, with the API gone in the middle of it.
async fn tells_the_pod(cluster: &Cluster) {
    let pod = Pod::new(cluster, "agent-tells", json!({}), "cleanup: false").await;
    pod.is_annotated("state", "healthy", SOON).await;
    eventually(
        SOON,
        "the condition is true, and the API heard",
        async || {
            let now = (pod.condition(), pod.status().await["reactor"].clone());
            let is_so = now.0["status"] == "True" && now.1["kubernetes"]["state"] == "on";
            if is_so { Ok(()) } else { Err(now) }
        },
    )
    .await;
    cluster.stop(Part::ApiServer);
    let (leaked, waits) = pod.leak().await;
    eventually(SOON, "it knows that the API is away", async || {
        let now = pod.status().await;
        let is_away = now["reactor"]["kubernetes"]["state"] == "away";
        let is_sustained = now["exhaustion"]["state"] == "sustained";
        if is_away && is_sustained {
            Ok(())
        } else {
            Err(now["reactor"].clone())
        }
    })
    .await;
    cluster.start_again(Part::ApiServer);
    pod.is_annotated("state", "sustained", LONG).await;
    let text = |value: &Value| value.to_string().trim_matches('"').to_owned();
    eventually(LONG, "the annotations are what is known", async || {
        let status = pod.status().await;
        let known = [
            ("state", &status["exhaustion"]["state"]),
            ("used", &status["budget"]["used"]),
            ("limit", &status["budget"]["limit"]),
            ("waiting", &status["budget"]["waiting"]),
            ("restarts", &status["reactor"]["restarts"]),
        ];
        let known = known.map(|(name, known)| (name, text(known)));
        let said = known
            .clone()
            .map(|(name, _)| (name, text(&pod.annotation(name))));
        if said == known {
            Ok(())
        } else {
            Err((said, known))
        }
    })
    .await;
    assert_eq!(pod.annotation("holder"), "shared");
    assert_eq!(pod.annotation("holder-caller"), "agent.py:7 run");
    eventually(LONG, "the condition and the Event are there", async || {
        let condition = pod.condition();
        let events = cluster.get(&["events.events.k8s.io", "--namespace=shop"]);
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let about = |one: &Value| {
            one["regarding"]["name"] == "agent-tells" && one["reason"] == "PoolExhausted"
        };
        match condition["status"] == "False" && events.iter().any(about) {
            true => Ok(()),
            false => Err((condition, events)),
        }
    })
    .await;
    drop((leaked, waits.await));
    pod.is_annotated("state", "healthy", LONG).await;
    assert_eq!(pod.annotation("holder"), Value::Null);
    eventually(SOON, "the condition is true again", async || {
        let condition = pod.condition();
        (condition["status"] == "True")
            .then_some(())
            .ok_or(condition)
    })
    .await;
    changes_are_told_once(&pod);
}

/// A line per change. An API that has just come may go once more; and a server that begins knows no Roles for a
/// moment, and each right is told by itself.
fn changes_are_told_once(pod: &Pod<'_>) {
    let log = pod.sidecar.log();
    let lines = log.iter();
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut told = Vec::new();
    let mut recovered = 0;
    for line in lines {
        match line["event"].as_str() {
            Some("kubernetes.failing") => {
                let what = match line["cause"].as_str() {
                    Some("forbidden") => line["deed"].clone(),
                    _ => line["cause"].clone(),
                };
                assert!(!told.contains(&what), "twice: {log:?}");
                told.push(what);
            }
            Some("kubernetes.recovered") => {
                assert!(!told.is_empty(), "of nothing: {log:?}");
                told.clear();
                recovered += 1;
            }
            _ => {}
        }
    }
    assert!(recovered >= 1, "{log:?}");
}

/// The pod of a Deployment of this name and service account.
async fn pod_of_deployment(cluster: &Cluster, owner: &str, account: &str) -> String {
    let labels = json!({"app": owner});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": owner, "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec(account)},
        },
    });
    cluster.apply(&deployment.to_string());
    let selector = format!("--selector=app={owner}");
    eventually(SOON, "the deployment has a pod", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let pods = cluster.get(&["pods", "--namespace=shop", &selector]);
        let name = pods["items"][0]["metadata"]["name"].as_str();
        name.map(str::to_owned).ok_or(pods)
    })
    .await
}

async fn evicts(cluster: &Cluster) {
    let reactor = "cleanup: false, restart: evict, restart_after: 1s";
    let name = pod_of_deployment(cluster, "evicted", "evicting").await;
    let pod = Pod::of(cluster, &name, reactor).await;
    let _leaked = pod.leak().await;
    let line = pod.tells("reactor.restart").await;
    assert_eq!(
        (&line["mode"], &line["what"]),
        (
            &json!("evict"),
            &json!(format!("the pod shop/{name} is evicted"))
        )
    );
    eventually(SOON, "the pod is gone", async || match pod.read() {
        None => Ok(()),
        Some(pod) if pod["metadata"]["deletionTimestamp"].is_string() => Ok(()),
        Some(pod) => Err(pod["metadata"].clone()),
    })
    .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(pod.told("reactor.restart").len(), 1);
}

async fn rolls_out(cluster: &Cluster) {
    let name = pod_of_deployment(cluster, "rolled", "rolling").await;
    let reactor = "cleanup: false, restart: rollout, restart_after: 1s";
    let pod = Pod::of(cluster, &name, reactor).await;
    let _leaked = pod.leak().await;
    let line = pod.tells("reactor.restart").await;
    assert_eq!(line["mode"], "rollout", "{line}");
    let notes = pod.notes("PoolRestart").await;
    let what =
        format!("Restart by rollout, as nothing else has helped: the owner of the pod shop/{name}");
    assert!(notes[0].starts_with(&what), "{notes:?}");
    let deployment = cluster.get(&["deployment", "rolled", "--namespace=shop"]);
    let stamps = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert!(
        stamps["kubectl.kubernetes.io/restartedAt"].is_string(),
        "{stamps}"
    );
}

async fn has_no_rule(cluster: &Cluster) {
    let reactor = "cleanup: false, restart: exit-code, restart_after: 1s";
    let pod = Pod::new(cluster, "agent-no-rule", json!({}), reactor).await;
    let _leaked = pod.leak().await;
    let line = pod.tells("reactor.refused").await;
    assert_eq!(
        (&line["action"], &line["guard"]),
        (&json!("restart"), &json!("no_rule_for_88")),
        "{line}"
    );
    eventually(SOON, "it lives on, and says so", async || {
        let refused = pod.status().await["reactor"]["refused"].clone();
        (refused["guard"] == "no_rule_for_88")
            .then_some(())
            .ok_or(refused)
    })
    .await;
    let memory = std::fs::read_to_string(pod.sidecar.dir().join("restarts.json")).unwrap();
    assert!(memory.contains("\"total\":0"), "{memory}");
    let notes = pod.notes("PoolRestartRefused").await;
    assert_eq!(notes.len(), 1, "{notes:?}");
    let why = line["why"].as_str().unwrap();
    assert!(notes[0].contains(why), "{notes:?} lacks {why}");
}

/// Sessions that are idle in a transaction are ended for who waits, and the pod tells how many.
async fn cleans_up(cluster: &Cluster) {
    let pod = Pod::new(cluster, "agent-cleans", json!({}), "cleanup: true").await;
    let mut leaked = pod.holds().await;
    for raw in &mut leaked {
        raw.query("BEGIN").await;
    }
    let waits = pod.needs();
    let line = pod.tells("reactor.cleanup").await;
    waits.await.unwrap();
    let notes = pod.notes("PoolCleanup").await;
    let what = line["what"].as_str().unwrap();
    let closed = line["closed"].as_u64().unwrap();
    assert_eq!(closed, 1, "only as many as waited: {line}");
    assert!(notes[0].contains("1 session was ended"), "{notes:?}");
    assert!(notes[0].contains(what), "{notes:?} lacks {what}");
}

/// Who ends says so before: nobody else would.
async fn ends_with_88(cluster: &Cluster) {
    let spec = spec("usual");
    let rule = json!({
        "action": "RestartAllContainers",
        "exitCodes": {"operator": "In", "values": [88]},
    });
    let mut with_rule = spec.clone();
    with_rule["initContainers"][0]["restartPolicyRules"] = json!([rule]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "agent-ends", "namespace": "shop"},
        "spec": with_rule,
    });
    cluster.apply(&pod.to_string());
    let reactor = "cleanup: false, restart: exit-code, restart_after: 1s";
    let pod = Pod::of(cluster, "agent-ends", reactor).await;
    let _leaked = pod.leak().await;
    let notes = pod.notes("PoolRestart").await;
    let expected = [
        "Restart by exit-code",
        "it ends with exit code 88",
        "3 of 3 server connections are in use",
        "(shared), most of them opened at agent.py:7 run.",
        "with this one: 1 of at most 2.",
    ];
    for part in expected {
        assert!(notes[0].contains(part), "{part}: {notes:?}");
    }
}

async fn only_tells(cluster: &Cluster) {
    let reactor = "cleanup: false, restart: evict, restart_after: 1s, dry_run: true";
    let pod = Pod::new(cluster, "agent-dry", json!({}), reactor).await;
    let _leaked = pod.leak().await;
    let line = pod.tells("reactor.restart").await;
    assert_eq!(
        (&line["dry_run"], &line["what"]),
        (&json!(true), &json!("would evict the pod shop/agent-dry"))
    );
    for part in [
        "execpool.dev/state=sustained",
        "PoolAvailable=False",
        "Server connections have run out, and it does not pass",
        "would evict the pod shop/agent-dry",
        "PoolRestart",
    ] {
        pod.sidecar.logged(&["\"kubernetes.dry_run\"", part]).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(pod.annotation("state"), Value::Null);
    assert!(pod.read().unwrap()["metadata"]["deletionTimestamp"].is_null());
}

/// What the annotations say of a restart counts, though the directory knows of none.
async fn remembers(cluster: &Cluster) {
    let now = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    let now = String::from_utf8(now.unwrap().stdout).unwrap();
    let annotations = json!({
        "execpool.dev/restarts": "1",
        "execpool.dev/last-restart": now.trim(),
    });
    let reactor = "cleanup: false, restart: liveness, restart_after: 1s";
    let pod = Pod::new(cluster, "agent-remembers", annotations, reactor).await;
    let _leaked = pod.leak().await;
    let line = pod.tells("reactor.refused").await;
    assert_eq!(line["guard"], "cooldown", "{line}");
    let reactor = pod.status().await["reactor"].clone();
    assert_eq!(
        (&reactor["restarts"], &reactor["last_restart"]),
        (&json!(1), &json!(now.trim())),
        "{reactor}"
    );
    pod.is_annotated("restarts", "1", SOON).await;
    let notes = pod.notes("PoolRestartRefused").await;
    assert!(notes[0].contains("(reactor.cooldown)"), "{notes:?}");
}
