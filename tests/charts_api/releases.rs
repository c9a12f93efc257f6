//! Releases as Helm keeps them on an API server, and workloads of every kind with the library's lines.

use std::fs;

use serde_json::{Value, json};

use super::restricted;
use super::support::cluster::Cluster;
use super::support::helm::{Charts, Helm, NAMESPACE};

/// All that the charts make, and all of it that is the cluster's.
const KINDS: &str = "deployments,services,serviceaccounts,roles,rolebindings,\
                     validatingadmissionpolicies,validatingadmissionpolicybindings";

/// Runs a Helm against the cluster.
fn run(cluster: &Cluster, helm: Helm, charts: &Charts, args: &[&str]) -> Result<String, String> {
    let kubeconfig = cluster.kubeconfig();
    let mut all = args.to_vec();
    all.extend(["--namespace", NAMESPACE, "--kubeconfig"]);
    all.push(kubeconfig.to_str().unwrap());
    helm.run(&charts.path(""), &all)
}

/// The kinds and names of what the charts have made.
fn made(cluster: &Cluster) -> Vec<String> {
    let label = "app.kubernetes.io/part-of=execpool";
    let found = cluster.get(&["--all-namespaces", "--selector", label, KINDS]);
    let found = found["items"].as_array().unwrap().iter();
    found
        .map(|one| format!("{} {}", one["kind"], one["metadata"]["name"]))
        .collect()
}

/// The containers of a release's pods by name: those that come first, then those beside the app.
fn containers(cluster: &Cluster, release: &str) -> [Vec<String>; 2] {
    let name = format!("{release}-example");
    let found = cluster.get(&["--namespace", NAMESPACE, "deployment", &name]);
    ["initContainers", "containers"].map(|place| {
        let all = found["spec"]["template"]["spec"][place].as_array();
        let names = all.into_iter().flatten().map(|one| one["name"].as_str());
        names.map(|name| name.unwrap().to_owned()).collect()
    })
}

#[test]
fn a_release_changes_from_mode_to_mode_beside_another_one_and_leaves_nothing_behind() {
    let Some(cluster) = Cluster::api() else {
        return;
    };
    restricted(&cluster, NAMESPACE);
    let charts = Charts::new();
    // The longest name that Helm takes.
    let long = "a".repeat(53);
    for helm in Helm::BOTH {
        let helm = |args: &[&str]| run(&cluster, helm, &charts, args).unwrap();
        helm(&["install", &long, "example", "--set", "job.enabled=true"]);
        let other = "execpool.serviceAccountName=two,platform.serviceAccount.name=two";
        helm(&["install", "two", "example", "--set", other]);
        assert_eq!(containers(&cluster, "two"), [vec!["execpool"], vec!["app"]]);
        let both =
            |mode: &str| format!("execpool.reactor.restart={mode},platform.reactor.restart={mode}");
        let owners = r#"platform.reactor.owners=[{"kind":"Deployment","name":"two-example"}]"#;
        let upgrade = |set: &str, owners: &str| {
            let words = ["upgrade", "two", "example", "--reuse-values", "--set", set];
            helm(&[&words[..], &["--set-json", owners]].concat());
            containers(&cluster, "two")
        };
        let none = "platform.reactor.owners=[]";
        let first = [vec!["execpool".to_owned()], vec!["app".to_owned()]];
        for mode in ["liveness", "evict", "exit-code"] {
            assert_eq!(upgrade(&both(mode), none), first, "{mode}");
        }
        assert_eq!(upgrade(&both("rollout"), owners), first);
        assert_eq!(upgrade(&both("off"), none), first);
        let beside = [vec![], vec!["execpool".to_owned(), "app".to_owned()]];
        assert_eq!(upgrade("execpool.shutdown.mode=plain", none), beside);
        assert_eq!(upgrade("execpool.shutdown.mode=sidecar", none), first);
        // The rights of the other release stay, and those of this one go.
        let off = "execpool.serviceAccountName=,platform.reactor.kubernetes=off";
        assert_eq!(upgrade(off, none), first);
        let left = made(&cluster);
        let of = |name: &str| left.iter().filter(|one| one.contains(name)).count();
        assert_eq!((of(&long), of("\"two-execpool")), (6, 0), "{left:?}");
        helm(&["uninstall", "two"]);
        helm(&["uninstall", &long]);
        assert_eq!(made(&cluster), Vec::<String>::new());
    }
}

/// A pod's template with the library's lines, and a workload of each kind that has one.
const WORKLOADS: &str = r#"
{{- define "own.pod" }}
metadata: {labels: {app: own}}
spec:
  restartPolicy: {{ last . }}
  {{- with first . }}
  {{- include "execpool.podSpec" . | nindent 2 }}
  {{- include "execpool.readinessGates" . | nindent 2 }}
  initContainers:
    {{- include "execpool.sidecar" . | nindent 4 }}
  containers:
    {{- include "execpool.container" . | nindent 4 }}
    - name: app
      image: app
      securityContext:
        {runAsNonRoot: true, runAsUser: 1000, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]},
        seccompProfile: {type: RuntimeDefault}}
      env:
        {{- include "execpool.env" . | nindent 8 }}
      volumeMounts:
        {{- include "execpool.volumeMount" . | nindent 8 }}
      {{- include "execpool.livenessProbe" . | nindent 6 }}
  volumes:
    {{- include "execpool.volumes" . | nindent 4 }}
  {{- end }}
{{- end }}
{{- $always := list . "Always" }}
{{- $never := list . "Never" }}
{{- range list "Deployment one" "Deployment two" "StatefulSet own" "DaemonSet own" }}
---
apiVersion: apps/v1
kind: {{ splitList " " . | first }}
metadata: {name: {{ $.Release.Name }}-{{ splitList " " . | last }}, namespace: {{ $.Release.Namespace }}}
spec:
  selector: {matchLabels: {app: own}}
  template: {{- include "own.pod" $always | nindent 4 }}
{{- end }}
---
apiVersion: batch/v1
kind: Job
metadata: {name: {{ .Release.Name }}, namespace: {{ .Release.Namespace }}}
spec:
  template: {{- include "own.pod" $never | nindent 4 }}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: {{ .Release.Name }}, namespace: {{ .Release.Namespace }}}
spec:
  schedule: "0 * * * *"
  jobTemplate:
    spec:
      template: {{- include "own.pod" $never | nindent 8 }}
---
apiVersion: v1
kind: Pod
{{- include "own.pod" $never | replace "{labels: {app: own}}" (printf "{name: %s, namespace: %s}" .Release.Name .Release.Namespace) }}
"#;

#[test]
fn a_workload_of_any_kind_takes_the_lines_in_every_mode() {
    let Some(cluster) = Cluster::api() else {
        return;
    };
    restricted(&cluster, NAMESPACE);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
        "name": "own", "namespace": NAMESPACE,
    }});
    cluster.apply(&account.to_string());
    let charts = Charts::new();
    charts.consumer("own", &["execpool"], WORKLOADS);
    let mut all = Vec::new();
    for mode in ["sidecar", "plain"] {
        for restart in ["off", "liveness", "exit-code", "evict", "rollout"] {
            let values = json!({"execpool": {
                "upstreams": [{"url": "postgresql://app@db/app", "passwordSecret": {"name": "db"}}],
                "serviceAccountName": "own", "shutdown": {"mode": mode},
                "reactor": {"restart": restart}, "readinessGate": {"enabled": restart == "evict"},
            }});
            let release = format!("{mode}-{restart}");
            let render = charts.chart("own").release(&release).values(values);
            all.extend(render.objects().0);
        }
    }
    assert_eq!(all.len(), 2 * 5 * 7);
    let said = dry_run(&cluster, &all);
    assert_eq!(said, Ok(String::new()));
    has_no_token_where_the_reactor_is_off(&cluster, &charts);
    // It does look.
    all[0]["spec"]["unheard"] = json!(1);
    assert!(dry_run(&cluster, &all).unwrap_err().contains("unheard"));
}

/// The account was made by somebody else, and says nothing of tokens: a pod would get one.
fn has_no_token_where_the_reactor_is_off(cluster: &Cluster, charts: &Charts) {
    let values = json!({"execpool": {
        "upstreams": [{"url": "postgresql://app@db/app"}],
        "serviceAccountName": "own", "reactor": {"kubernetes": "off"},
    }});
    let objects = charts
        .chart("own")
        .release("silent")
        .values(values)
        .objects();
    let mut pod = objects.one("Pod").clone();
    let tokens = |name: &str| {
        let pod = cluster.get(&["--namespace", NAMESPACE, "pod", name]);
        let text = pod["spec"].to_string();
        text.matches("/var/run/secrets/kubernetes.io").count()
    };
    cluster.apply(&pod.to_string());
    assert_eq!(tokens("silent"), 0);
    pod["metadata"]["name"] = json!("on");
    pod["spec"]["automountServiceAccountToken"] = Value::Null;
    cluster.apply(&pod.to_string());
    assert_eq!(tokens("on"), 2);
}

/// What the API server warns of, or why it refuses one of them.
fn dry_run(cluster: &Cluster, objects: &[Value]) -> Result<String, String> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), list.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let options = ["--server-side", "--dry-run=server", "--validate=strict"];
    let said = cluster.try_kubectl(&[&["apply"], &options[..], &["--filename", path]].concat());
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    if said.status.success() {
        Ok(words)
    } else {
        Err(words)
    }
}
