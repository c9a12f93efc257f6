//! Evictions, and the rule for exit code 88.

use std::time::Duration;

use execpool::config::Restart;
use execpool::reactor::{Guard, NotDone};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::front::Fault;
use crate::ground::{Ground, LIMITS, Pod, SOON, is_due, pod};
use crate::support::eventually;

fn guard(result: Result<(), NotDone>) -> Option<Guard> {
    match result {
        Err(NotDone::Refused { guard, .. }) => Some(guard),
        _ => None,
    }
}

/// A pod that a ReplicaSet has made.
async fn of_a_set(ground: &Ground) -> Pod<'_> {
    let set = json!({
        "metadata": {"name": "agent"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "agent"}},
            "template": pod("any"),
        },
    });
    ground.admin.create(&ground.apps("replicasets"), &set).await;
    ground.pod_by("agent").await
}

async fn budget(ground: &Ground, most_away: u64) -> String {
    let budgets = format!(
        "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
        ground.namespace
    );
    let budget = json!({
        "metadata": {"name": "agent"},
        "spec": {"maxUnavailable": most_away, "selector": {"matchLabels": {"app": "agent"}}},
    });
    ground.admin.create(&budgets, &budget).await;
    format!("{budgets}/agent")
}

async fn allows(ground: &Ground, path: &str, disruptions: u64) {
    eventually(SOON, "the controller has counted", async || {
        let known = ground.admin.get(path).await["status"].clone();
        sleep(Duration::from_millis(50)).await;
        let is_so = known["disruptionsAllowed"] == disruptions && known["currentHealthy"] != 0;
        if is_so { Ok(()) } else { Err(known) }
    })
    .await;
}

#[tokio::test]
async fn an_eviction_waits_for_no_disruption_budget_and_is_done_when_it_allows_for_it() {
    let Some(ground) = Ground::new("evicts").await else {
        return;
    };
    // A budget in percents or by maxUnavailable asks for a controller.
    let pod = of_a_set(&ground).await;
    pod.is_ready().await;
    let path = budget(&ground, 0).await;
    allows(&ground, &path, 0).await;
    let (kubernetes, front) = pod.start_behind().await;
    for tries in 1..=2 {
        let restart = kubernetes.restart(Restart::Evict, LIMITS, is_due);
        let refused = timeout(SOON, restart).await.expect("it waits for nothing");
        assert_eq!(front.seen_of("POST").len(), tries, "it is asked once");
        assert_eq!(
            guard(refused.clone()),
            Some(Guard::Disrupted),
            "{refused:?}"
        );
        let why = refused.unwrap_err().to_string();
        assert!(
            why.contains("PodDisruptionBudget") && why.contains("agent"),
            "{why}"
        );
    }
    assert_eq!(pod.read().await["metadata"]["uid"], pod.uid);
    ground
        .admin
        .merge(&path, &json!({"spec": {"maxUnavailable": 1}}))
        .await;
    allows(&ground, &path, 1).await;
    kubernetes
        .restart(Restart::Evict, LIMITS, is_due)
        .await
        .unwrap();
    eventually(SOON, "the pod is gone", async || {
        is_there(&ground, &pod).await
    })
    .await;
}

async fn is_there(ground: &Ground, pod: &Pod<'_>) -> Result<(), Value> {
    let all = ground.pods().await;
    let one = all
        .into_iter()
        .find(|one| one["metadata"]["uid"] == pod.uid);
    match one {
        Some(one) if one["metadata"]["deletionTimestamp"].is_null() => Err(one),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn an_eviction_is_asked_for_once_and_its_failure_is_told() {
    let Some(ground) = Ground::new("asked-once").await else {
        return;
    };
    let pod = of_a_set(&ground).await;
    let (kubernetes, front) = pod.start_behind().await;
    for (fault, part) in [
        (Fault::status(429), "429"),
        (Fault::status(500), "5xx"),
        (Fault::status(503), "5xx"),
        (Fault::Cut, "not reached"),
    ] {
        front.set_for("POST", fault);
        let before = front.seen_of("POST").len();
        let failed = kubernetes
            .restart(Restart::Evict, LIMITS, is_due)
            .await
            .unwrap_err();
        assert!(matches!(failed, NotDone::Failed(_)), "{failed:?}");
        assert!(failed.to_string().contains(part), "{failed}");
        assert_eq!(front.seen_of("POST").len(), before + 1);
    }
    front.set(Fault::Hold);
    let before = front.seen().len();
    let restart = kubernetes.restart(Restart::Evict, LIMITS, is_due);
    let held = timeout(SOON, restart).await.expect("it gives up");
    held.unwrap_err();
    assert_eq!(front.seen().len(), before + 1, "{:?}", front.seen());
    assert!(
        !kubernetes.standing().is_away,
        "who has decided on it tells of it"
    );
}

#[tokio::test]
async fn a_pod_is_not_evicted_where_that_is_due_no_more_once_it_was_looked_at() {
    let Some(ground) = Ground::new("passed").await else {
        return;
    };
    let pod = of_a_set(&ground).await;
    let (kubernetes, front) = pod.start_behind().await;
    let passed = async || {
        // All was read by then that is to be read.
        assert_eq!(front.seen_of("GET").len(), 1);
        Err(NotDone::Refused {
            guard: Guard::Passed,
            more: None,
        })
    };
    let refused = kubernetes.restart(Restart::Evict, LIMITS, passed).await;
    assert_eq!(guard(refused), Some(Guard::Passed));
    assert!(front.seen_of("POST").is_empty());
    is_there(&ground, &pod).await.unwrap_err();
}

#[tokio::test]
async fn a_pod_that_nobody_replaces_is_not_evicted() {
    let Some(ground) = Ground::new("alone").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let refused = pod.start().restart(Restart::Evict, LIMITS, is_due).await;
    assert_eq!(guard(refused.clone()), Some(Guard::NoOwner), "{refused:?}");
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("would be its end"), "{why}");
    is_there(&ground, &pod).await.unwrap_err();
}

#[tokio::test]
async fn an_exit_with_88_needs_a_rule_in_our_container() {
    let Some(ground) = Ground::new("exits").await else {
        return;
    };
    let bare = ground.pod("bare").await;
    let refused = bare
        .start()
        .restart(Restart::ExitCode, LIMITS, is_due)
        .await;
    assert_eq!(guard(refused), Some(Guard::NoRuleFor88));

    let rule = json!([{
        "action": "RestartAllContainers",
        "exitCodes": {"operator": "In", "values": [88]},
    }]);
    let mut ruled = pod("ruled");
    ruled["spec"]["initContainers"][0]["restartPolicyRules"] = rule.clone();
    let made = ground.admin.create(&ground.core("pods"), &ruled).await;
    let ruled = ground.pod_of(&made).await;
    let (kubernetes, front) = ruled.start_behind().await;
    kubernetes
        .restart(Restart::ExitCode, LIMITS, is_due)
        .await
        .unwrap();
    // Where the API can't say, nothing is against it.
    front.set(Fault::status(500));
    kubernetes
        .restart(Restart::ExitCode, LIMITS, is_due)
        .await
        .unwrap();

    let mut other = pod("other");
    other["spec"]["containers"][0]["restartPolicy"] = "Never".into();
    other["spec"]["containers"][0]["restartPolicyRules"] = rule;
    let made = ground.admin.create(&ground.core("pods"), &other).await;
    let other = ground
        .pod_of(&made)
        .await
        .start()
        .restart(Restart::ExitCode, LIMITS, is_due)
        .await;
    assert_eq!(
        guard(other),
        Some(Guard::NoRuleFor88),
        "it is the app's rule"
    );
}

#[tokio::test]
async fn a_restart_by_liveness_asks_nothing() {
    let Some(ground) = Ground::new("asks-nothing").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (kubernetes, front) = pod.start_behind().await;
    kubernetes
        .restart(Restart::Liveness, LIMITS, is_due)
        .await
        .unwrap();
    assert!(front.seen().is_empty());
}
