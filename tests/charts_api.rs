//! The charts on a real API server: it takes what they come to, and the policy holds a sidecar's token to
//! its own pod.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

#[path = "charts_api/releases.rs"]
mod releases;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use support::SOON;
use support::cluster::Cluster;
use support::helm::{Charts, Helm, NAMESPACE, Objects, container, source};

/// The Deployment of `charts/example`.
const OWNER: &str = "demo-example";

/// A namespace in which only pods that are restricted may be.
fn restricted(cluster: &Cluster, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {
        "pod-security.kubernetes.io/enforce": "restricted",
    }}});
    cluster.apply(&object.to_string());
}

/// A pod as the template of an owner has it.
fn pod_of(owner: &Value, name: &str) -> Value {
    let template = &owner["spec"]["template"];
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"]});
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(NAMESPACE);
    pod["spec"] = template["spec"].clone();
    pod
}

/// Objects that an API server without the Prometheus Operator knows.
fn known(objects: Objects) -> Vec<Value> {
    let objects = objects.0.into_iter();
    objects
        .filter(|one| one["apiVersion"] != "monitoring.coreos.com/v1")
        .collect()
}

#[test]
fn an_api_server_takes_what_the_charts_come_to_and_their_pods_are_restricted() {
    let Some(cluster) = Cluster::api() else {
        return;
    };
    restricted(&cluster, NAMESPACE);
    restricted(&cluster, "monitoring");
    let charts = Charts::new();
    let mut all = Vec::new();
    for chart in ["example", "execpool"] {
        for entry in fs::read_dir(source().join(chart).join("ci")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            all.extend(known(charts.chart(chart).values_text(&text).objects()));
        }
    }
    for entry in
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/manifests")).unwrap()
    {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        all.extend(known(Objects::parse(&text)));
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
        "name": "execpool-example", "namespace": NAMESPACE,
    }});
    cluster.apply(&account.to_string());
    cluster.apply(&account.to_string().replace("execpool-example", "execpool"));
    let mut pods = Vec::new();
    for (number, one) in all.iter().enumerate() {
        if one["kind"] == "Deployment" || one["kind"] == "Job" {
            pods.push(pod_of(one, &format!("pod-{number}")));
        }
    }
    assert!(
        all.len() > 50 && pods.len() > 12,
        "{} {}",
        all.len(),
        pods.len()
    );
    // As one list, in which each is by itself, though some are there more than once.
    let items: Vec<&Value> = all.iter().chain(&pods).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), list.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let said = cluster.try_kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "--filename",
        path,
    ]);
    let why = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{why}");
    assert!(!why.contains("Warning"), "{why}");
    // It does look: a pod that is not restricted is refused.
    let mut loose = pods[0].clone();
    loose["spec"]["containers"][0]["securityContext"] = json!({});
    let why = cluster.try_apply(&loose.to_string()).unwrap_err();
    assert!(why.contains("violates PodSecurity"), "{why}");
}

/// A pod's name and uid, and a token that is bound to it.
struct Sidecar {
    name: String,
    uid: String,
    token: String,
}

impl Sidecar {
    fn of(cluster: &Cluster, pod: &Value, account: &str) -> Self {
        let text = |name: &str| pod["metadata"][name].as_str().unwrap().to_owned();
        let (name, uid) = (text("name"), text("uid"));
        let token = cluster.kubectl(&[
            "--namespace",
            NAMESPACE,
            "create",
            "token",
            account,
            "--bound-object-kind=Pod",
            &format!("--bound-object-name={name}"),
            &format!("--bound-object-uid={uid}"),
        ]);
        let token = token.trim().to_owned();
        Self { name, uid, token }
    }
}

/// One request with somebody's token: the status and the answer.
fn ask(
    cluster: &Cluster,
    token: &str,
    (method, path, kind): (&str, &str, &str),
    body: &Value,
) -> (u16, Value) {
    let (host, port) = cluster.api_address();
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--request",
            method,
        ])
        .arg("--cacert")
        .arg(cluster.state().join("pki/ca.crt"))
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--header", &format!("Content-Type: application/{kind}")])
        .args(["--data", &body.to_string(), "--write-out", "\n%{http_code}"])
        .arg(format!("https://{host}:{port}{path}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let (answer, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{error}"));
    let answer = serde_json::from_str(answer).unwrap_or_else(|why| panic!("{why}: {text}{error}"));
    (status.parse().unwrap(), answer)
}

const MERGE: &str = "merge-patch+json";
const STRATEGIC: &str = "strategic-merge-patch+json";
const APPLY: &str = "apply-patch+yaml";

fn pods(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}")
}

fn owner(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}")
}

fn annotations(pairs: &Value) -> Value {
    json!({"metadata": {"annotations": pairs}})
}

fn template(metadata: &Value) -> Value {
    json!({"spec": {"template": {"metadata": metadata}}})
}

fn daemon_set(name: &str) -> String {
    let labels = json!({"app": name});
    let security = json!({
        "allowPrivilegeEscalation": false,
        "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let container = json!({"name": "app", "image": "keeper", "securityContext": security});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
    .to_string()
}

/// Installs both charts, waits for two pods, and makes a token for each.
fn installed(cluster: &Cluster, values: &Value) -> [Sidecar; 2] {
    restricted(cluster, NAMESPACE);
    let charts = Charts::new();
    let rendered = charts.chart("example").values(json!({"replicaCount": 2}));
    let rendered = rendered.values(values.clone()).text(Helm::Four).unwrap();
    cluster.apply(&rendered);
    let found = cluster.eventually(SOON, "two pods are there", |cluster| {
        let found = cluster.get(&["--namespace", NAMESPACE, "pods"]);
        let found = found["items"].as_array().unwrap().clone();
        match <[Value; 2]>::try_from(found) {
            Ok(two) => Ok(two),
            Err(other) => Err(other.len()),
        }
    });
    for pod in &found {
        assert_only_the_sidecar_has_a_token(&pod["spec"]);
    }
    found.map(|pod| Sidecar::of(cluster, &pod, "execpool-example"))
}

/// In a pod as it was admitted: a service account's own mount is put there by the API server.
fn assert_only_the_sidecar_has_a_token(pod: &Value) {
    let place = "/var/run/secrets/kubernetes.io/serviceaccount";
    let has_token = |name: &str| {
        let mounts = container(pod, name)["volumeMounts"].as_array().unwrap();
        mounts.iter().any(|one| one["mountPath"] == place)
    };
    assert_eq!(
        (has_token("app"), has_token("execpool")),
        (false, true),
        "{pod}"
    );
}

/// A policy holds a moment after it was made.
fn wait_for_the_policy(cluster: &Cluster, of: &Sidecar) {
    cluster.eventually(SOON, "the policy holds", |cluster| {
        let patch = annotations(&json!({"not-ours": "1"}));
        match ask(
            cluster,
            &of.token,
            ("PATCH", &format!("{}?dryRun=All", pods(&of.name)), MERGE),
            &patch,
        ) {
            // Before its Role is known, that is what refuses it.
            (403, why) if why.to_string().contains("execpool.dev/") => Ok(()),
            other => Err(other),
        }
    });
}

fn rollout() -> Value {
    json!({
        "execpool": {"reactor": {"restart": "rollout"}},
        "platform": {"reactor": {
            "restart": "rollout",
            "owners": [{"kind": "Deployment", "name": OWNER}, {"kind": "DaemonSet", "name": "keeper"}],
        }},
    })
}

#[test]
fn a_sidecars_token_changes_what_is_its_own_and_nothing_else() {
    let Some(cluster) = Cluster::api() else {
        return;
    };
    let [mine, other] = installed(&cluster, &rollout());
    wait_for_the_policy(&cluster, &mine);
    let send = |path: &str, kind: &str, body: &Value| {
        ask(&cluster, &mine.token, ("PATCH", path, kind), body)
    };
    let allowed = |path: &str, kind: &str, body: &Value| {
        let (status, answer) = send(path, kind, body);
        assert_eq!(status, 200, "{path} {body}: {answer}");
        answer
    };
    let refused = |path: &str, kind: &str, body: &Value, why: &str| {
        let (status, answer) = send(path, kind, body);
        assert_eq!(status, 403, "{path} {body}: {answer}");
        let said = answer["message"].as_str().unwrap();
        assert!(said.contains(why), "{why:?} is not in {said:?}");
    };
    let pod = pods(&mine.name);
    let status = format!("{pod}/status");
    let own = |more: &Value| {
        let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": mine.name, "uid": mine.uid}});
        for (name, value) in more.as_object().unwrap() {
            match name.as_str() {
                "annotations" => object["metadata"]["annotations"] = value.clone(),
                _ => object[name] = value.clone(),
            }
        }
        object
    };
    let manager = "?fieldManager=execpool&force=true";

    // Its annotations and its condition, by server-side apply and by patches, there and back.
    let applied =
        own(&json!({"annotations": {"execpool.dev/state": "exhausted", "execpool.dev/used": "3"}}));
    let answer = allowed(&format!("{pod}{manager}"), APPLY, &applied);
    assert_eq!(answer["metadata"]["annotations"]["execpool.dev/used"], "3");
    allowed(
        &pod,
        MERGE,
        &annotations(&json!({"execpool.dev/used": null})),
    );
    let condition = |state: &str, more: &str| {
        own(&json!({"status": {"conditions": [{
            "type": "execpool.dev/PoolAvailable", "status": state, "reason": "It", "message": more,
        }]}}))
    };
    for state in ["False", "True"] {
        let answer = allowed(&format!("{status}{manager}"), APPLY, &condition(state, "x"));
        assert_eq!(answer["status"]["conditions"][0]["status"], state);
    }
    allowed(&status, STRATEGIC, &condition("False", "y"));

    // Nothing else of its own pod.
    let alone = "annotations that begin with execpool.dev/";
    refused(&pod, MERGE, &annotations(&json!({"other": "1"})), alone);
    refused(
        &pod,
        MERGE,
        &annotations(&json!({"execpool.dev.evil/a": "1"})),
        alone,
    );
    refused(&status, MERGE, &annotations(&json!({"other": "1"})), alone);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    refused(&pod, MERGE, &labels, "annotations alone");
    refused(&status, MERGE, &labels, "annotations alone");
    let finalizers = json!({"metadata": {"finalizers": ["a.b/c"]}});
    refused(&pod, MERGE, &finalizers, "annotations alone");
    let image = json!({"spec": {"containers": [{"name": "app", "image": "evil"}]}});
    refused(&pod, STRATEGIC, &image, "may not change a pod's spec");
    refused(
        &pod,
        MERGE,
        &json!({"spec": {"activeDeadlineSeconds": 1}}),
        "pod's spec",
    );
    refused(
        &status,
        MERGE,
        &json!({"status": {"phase": "Failed"}}),
        "a condition alone",
    );
    refused(
        &status,
        MERGE,
        &json!({"status": {"podIP": "10.0.0.1"}}),
        "a condition alone",
    );
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    refused(
        &status,
        STRATEGIC,
        &ready,
        "the condition execpool.dev/PoolAvailable",
    );
    let none = json!({"status": {"conditions": []}});
    allowed(&status, MERGE, &none); // there was none but ours

    // No other pod.
    let mark = annotations(&json!({"execpool.dev/state": "exhausted"}));
    let why = format!("may not touch pod {}", other.name);
    refused(&pods(&other.name), MERGE, &mark, &why);
    refused(
        &format!("{}/status", pods(&other.name)),
        STRATEGIC,
        &ready,
        &why,
    );

    // Events about its own pod, and about nothing else.
    let events = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
    let event = |name: &str, kind: &str, about: (&str, &str)| {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name},
            "eventTime": "2026-01-02T03:04:05.000000Z", "type": "Warning", "reason": "PoolWarning",
            "action": "WatchingPool", "note": "x", "reportingController": "execpool.dev/execpool",
            "reportingInstance": mine.name,
            "regarding": {
                "apiVersion": "v1", "kind": kind, "namespace": NAMESPACE, "name": about.0, "uid": about.1,
            },
        })
    };
    let post = |event: &Value| ask(&cluster, &mine.token, ("POST", &events, "json"), event);
    let (code, answer) = post(&event("mine", "Pod", (&mine.name, &mine.uid)));
    assert_eq!(code, 201, "{answer}");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000000Z"}});
    allowed(&format!("{events}/mine"), MERGE, &series);
    let own_alone = "may post Events about that pod, and no other";
    for (name, kind, about) in [
        ("a", "Pod", (other.name.as_str(), other.uid.as_str())),
        ("b", "Pod", (mine.name.as_str(), other.uid.as_str())),
        ("c", "Secret", (mine.name.as_str(), mine.uid.as_str())),
    ] {
        let (code, answer) = post(&event(name, kind, about));
        assert_eq!(code, 403, "{answer}");
        assert!(
            answer["message"].as_str().unwrap().contains(own_alone),
            "{answer}"
        );
    }
    cluster.apply(&{
        let mut theirs = event("theirs", "Pod", (&other.name, &other.uid));
        theirs["metadata"]["namespace"] = json!(NAMESPACE);
        theirs.to_string()
    });
    refused(&format!("{events}/theirs"), MERGE, &series, own_alone);

    // Of the named owner, the stamps.
    allowed(
        &owner(OWNER),
        MERGE,
        &template(&json!({"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}})),
    );
    allowed(
        &owner(OWNER),
        MERGE,
        &annotations(&json!({"execpool.dev/last-restart": "now"})),
    );
    let stamps = "restartedAt alone";
    refused(
        &owner(OWNER),
        MERGE,
        &template(&json!({"annotations": {"x": "1"}})),
        stamps,
    );
    refused(
        &owner(OWNER),
        MERGE,
        &template(&json!({"labels": {"x": "1"}})),
        "annotations alone",
    );
    refused(
        &owner(OWNER),
        MERGE,
        &annotations(&json!({"x": "1"})),
        alone,
    );
    refused(
        &owner(OWNER),
        MERGE,
        &json!({"spec": {"replicas": 0}}),
        "annotations alone",
    );
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "evil"}]}}}});
    refused(&owner(OWNER), STRATEGIC, &image, "annotations alone");

    // Of a DaemonSet the API server itself counts the templates, in an annotation.
    cluster.apply(&daemon_set("keeper"));
    let keeper = format!("/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/keeper");
    let restarted = json!({"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}});
    allowed(&keeper, MERGE, &template(&restarted));
    refused(&keeper, MERGE, &annotations(&json!({"x": "1"})), alone);
    let count = annotations(&json!({"deprecated.daemonset.template.generation": "7"}));
    refused(&owner(OWNER), MERGE, &count, alone);

    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": mine.name}});
    let (status, _) = ask(
        &cluster,
        &mine.token,
        ("POST", &format!("{pod}/eviction"), "json"),
        &eviction,
    );
    assert_eq!(status, 403, "eviction was not chosen");
}

#[test]
fn a_sidecars_token_opens_nothing_else_of_the_cluster() {
    let Some(cluster) = Cluster::api() else {
        return;
    };
    let [mine, _] = installed(&cluster, &rollout());
    wait_for_the_policy(&cluster, &mine);
    let (core, own) = (format!("/api/v1/namespaces/{NAMESPACE}"), pods(&mine.name));
    let apps = format!("/apis/apps/v1/namespaces/{NAMESPACE}");
    let stranger = "/api/v1/namespaces/kube-system";
    let none = Value::Null;
    let new = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new"}, "spec": {
        "containers": [{"name": "a", "image": "a"}],
    }});
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "d"}]}});
    let token =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    for (method, path, kind, body) in [
        ("GET", format!("{core}/secrets"), "json", &none),
        ("GET", format!("{core}/configmaps"), "json", &none),
        ("GET", format!("{core}/pods"), "json", &none),
        ("GET", format!("{own}/log"), "json", &none),
        ("GET", "/api/v1/nodes".into(), "json", &none),
        ("GET", "/api/v1/namespaces".into(), "json", &none),
        ("GET", format!("{stranger}/pods/any"), "json", &none),
        ("GET", format!("{stranger}/secrets"), "json", &none),
        ("GET", format!("{apps}/deployments"), "json", &none),
        ("GET", format!("{apps}/deployments/other"), "json", &none),
        ("GET", format!("{apps}/replicasets"), "json", &none),
        ("POST", format!("{core}/pods"), "json", &new),
        ("POST", format!("{own}/exec?command=a"), "json", &none),
        (
            "PATCH",
            format!("{own}/ephemeralcontainers"),
            STRATEGIC,
            &debug,
        ),
        (
            "POST",
            format!("{core}/serviceaccounts/execpool-example/token"),
            "json",
            &token,
        ),
        ("DELETE", own.clone(), "json", &none),
        ("DELETE", format!("{core}/pods"), "json", &none),
        (
            "PATCH",
            format!("{}/scale", owner(OWNER)),
            MERGE,
            &json!({"spec": {"replicas": 9}}),
        ),
        ("DELETE", owner(OWNER), "json", &none),
    ] {
        let (status, answer) = ask(&cluster, &mine.token, (method, &path, kind), body);
        assert_eq!(status, 403, "{method} {path}: {answer}");
    }
    // What it may.
    let (status, _) = ask(&cluster, &mine.token, ("GET", &own, "json"), &none);
    assert_eq!(status, 200);
}

#[test]
fn the_policy_and_not_the_role_is_what_refuses_and_it_is_for_bound_tokens_alone() {
    let Some(cluster) = Cluster::api() else {
        return;
    };
    let values = json!({
        "execpool": {"reactor": {"restart": "evict"}}, "platform": {"reactor": {"restart": "evict"}},
    });
    let [mine, other] = installed(&cluster, &values);
    wait_for_the_policy(&cluster, &mine);
    let mark = annotations(&json!({"execpool.dev/state": "exhausted"}));
    let patch = |token: &str, pod: &str| ask(&cluster, token, ("PATCH", &pods(pod), MERGE), &mark);

    // A token that was made for the account, not for a pod.
    let unbound = cluster.kubectl(&[
        "--namespace",
        NAMESPACE,
        "create",
        "token",
        "execpool-example",
    ]);
    let (status, answer) = patch(unbound.trim(), &mine.name);
    assert_eq!(status, 403);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("belongs to no pod"),
        "{answer}"
    );

    // Its own eviction, and no other's.
    let evict = |name: &str| {
        let eviction =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        let path = format!("{}/eviction", pods(name));
        ask(&cluster, &mine.token, ("POST", &path, "json"), &eviction)
    };
    let (status, answer) = evict(&other.name);
    assert_eq!(status, 403, "{answer}");
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("may not touch pod"),
        "{answer}"
    );

    // Somebody else's account is no affair of the policy: the administrator does as before.
    cluster.kubectl(&["--namespace", NAMESPACE, "label", "pod", &other.name, "a=b"]);

    // Without the policy the Role lets it: it is what the policy is for.
    assert_eq!(patch(&mine.token, &other.name).0, 403);
    let policies = cluster.get(&["validatingadmissionpolicybindings"]);
    let name = policies["items"][0]["metadata"]["name"].as_str().unwrap();
    cluster.kubectl(&["delete", "validatingadmissionpolicybinding", name]);
    cluster.eventually(SOON, "the other pod can be patched", |_| {
        match patch(&mine.token, &other.name) {
            (200, _) => Ok(()),
            other => Err(other),
        }
    });
    let (status, answer) = evict(&mine.name);
    assert_eq!(status, 201, "{answer}");
}
