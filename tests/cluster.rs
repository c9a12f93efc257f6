//! The clusters that other tests use: they start, parts of them can be taken away, several run
//! side by side, and nothing of them is left.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::SOON;
use support::cluster::{Cluster, Part};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: NAMESPACE}
spec:
  containers: [{name: app, image: localhost/none, imagePullPolicy: Never}]
";

/// Processes that name a directory in their command line.
fn processes_of(state: &Path) -> Vec<String> {
    let needle = state.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&needle)).collect()
}

/// The link and the cgroups that a node of this number has on this machine.
fn traces_of(number: &str) -> Vec<PathBuf> {
    let link = Path::new("/sys/class/net").join(format!("execpool{number}"));
    let group = format!("execpool-node-{number}");
    let controllers = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let mut places = vec![link, Path::new("/sys/fs/cgroup").join(&group)];
    places.extend(controllers.map(|controller| controller.path().join(&group)));
    places.into_iter().filter(|place| place.exists()).collect()
}

fn phase(cluster: &Cluster, pod: &str) -> Value {
    cluster.get(&["pod", pod])["status"]["phase"].clone()
}

#[test]
fn an_api_has_controllers_service_accounts_and_admission() {
    let Some(cluster) = Cluster::api() else {
        return;
    };
    let token = cluster.kubectl(&["create", "token", "default"]);
    assert_eq!(token.split('.').count(), 3, "{token}");

    cluster.apply(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: strict, labels: \
         {pod-security.kubernetes.io/enforce: restricted}}",
    );
    cluster.eventually(SOON, "an account", |cluster| {
        let account = cluster.try_kubectl(&["get", "sa", "default", "-n", "strict"]);
        if account.status.success() {
            Ok(())
        } else {
            Err(account)
        }
    });
    let refused = cluster.try_apply(&POD.replace("NAMESPACE", "strict"));
    let why = refused.expect_err("Pod Security restricted refuses a pod that asks for nothing");
    assert!(why.contains("violates PodSecurity"), "{why}");
    cluster.apply(&POD.replace("NAMESPACE", "default"));
    assert_eq!(phase(&cluster, "plain"), "Pending");

    cluster.kubectl(&["create", "deployment", "some", "--image=x", "--replicas=2"]);
    cluster.eventually(SOON, "the owner's pods", |cluster| {
        let pods = cluster.get(&["pods", "--selector=app=some"]);
        match pods["items"].as_array().map(Vec::len) {
            Some(2) => Ok(()),
            other => Err(other),
        }
    });
    let policies = cluster.kubectl(&["api-resources", "--api-group=admissionregistration.k8s.io"]);
    assert!(
        policies.contains("validatingadmissionpolicies"),
        "{policies}"
    );
}

#[test]
fn an_api_server_is_killed_frozen_and_comes_back_with_what_it_had() {
    let Some(cluster) = Cluster::api() else {
        return;
    };
    cluster.apply(&POD.replace("NAMESPACE", "default"));

    cluster.stop(Part::ApiServer);
    let away = cluster.try_kubectl(&["get", "pods", "--request-timeout=2s"]);
    assert!(!away.status.success(), "{away:?}");
    cluster.start_again(Part::ApiServer);
    assert_eq!(phase(&cluster, "plain"), "Pending");

    cluster.freeze(Part::ApiServer);
    let hangs = cluster.try_kubectl(&["get", "pods", "--request-timeout=2s"]);
    assert!(!hangs.status.success(), "{hangs:?}");
    cluster.thaw(Part::ApiServer);
    cluster.eventually(SOON, "it goes on", |cluster| {
        let answer = cluster.try_kubectl(&["get", "pods", "--request-timeout=20s"]);
        if answer.status.success() {
            Ok(())
        } else {
            Err(answer)
        }
    });
}

#[test]
fn two_apis_run_side_by_side_and_leave_nothing() {
    let (Some(one), Some(other)) = (Cluster::api(), Cluster::api()) else {
        return;
    };
    assert_ne!(one.api_address(), other.api_address());
    one.apply(&POD.replace("NAMESPACE", "default"));
    let pods = other.get(&["pods"]);
    assert_eq!(pods["items"], Value::Array(Vec::new()));

    let states = [one.state().to_owned(), other.state().to_owned()];
    assert!(processes_of(&states[0]).len() >= 4, "not all runs");
    drop((one, other));
    for state in states {
        assert!(!state.exists(), "{} is left", state.display());
        assert_eq!(processes_of(&state), Vec::<String>::new());
    }
}

#[test]
fn a_node_is_ready_runs_pods_and_leaves_nothing() {
    let Some(cluster) = Cluster::node(&[]) else {
        return;
    };
    let number = cluster.node_address().split('.').nth(2).unwrap().to_owned();
    assert!(traces_of(&number).len() > 1, "{:?}", traces_of(&number));
    let sleep = "localhost/execpool/pause:1";
    cluster.kubectl(&["run", "some", "--image", sleep, "--image-pull-policy=Never"]);
    cluster.eventually(SOON * 2, "the pod runs", |cluster| {
        match phase(cluster, "some") {
            Value::String(phase) if phase == "Running" => Ok(()),
            _ => Err(cluster.kubectl(&["describe", "pod", "some"])),
        }
    });
    // Who is outside reaches the API server.
    let outside = Command::new(support::tools::kubernetes().join("kubectl"))
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .args(["get", "--raw", "/readyz"])
        .output()
        .expect("kubectl runs");
    assert!(outside.status.success(), "{outside:?}");

    let state = cluster.state().to_owned();
    drop(cluster);
    assert!(!state.exists(), "{} is left", state.display());
    assert_eq!(processes_of(&state), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mounts").expect("there is /proc");
    assert!(!mounts.contains(&*state.to_string_lossy()), "{mounts}");
    assert_eq!(traces_of(&number), Vec::<PathBuf>::new());
}

/// What [`nothing_of_a_cluster_outlives_a_killed_test_program`] runs and kills.
#[test]
#[ignore = "a part of another test"]
fn start_a_cluster_and_hang() {
    let cluster = Cluster::node(&[]).or_else(Cluster::api);
    let cluster = cluster.expect("an API can be had everywhere");
    println!("\ncluster {}", cluster.state().display());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn nothing_of_a_cluster_outlives_a_killed_test_program() {
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("start_a_cluster_and_hang")
        .env_remove("CI") // where a node can't be had, an API is
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let state = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("cluster ").map(PathBuf::from))
        .expect("the program starts a cluster");
    let settings = fs::read_to_string(state.join("settings")).unwrap();
    let number = settings
        .lines()
        .find_map(|line| line.strip_prefix("NUMBER="))
        .unwrap();
    assert!(!processes_of(&state).is_empty());

    program.kill().unwrap();
    program.wait().unwrap();
    let start = Instant::now();
    loop {
        let mut left = processes_of(&state);
        let traces = traces_of(number).into_iter();
        left.extend(traces.map(|trace| trace.display().to_string()));
        if left.is_empty() && !state.exists() {
            break;
        }
        assert!(start.elapsed() < SOON * 2, "left: {left:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
