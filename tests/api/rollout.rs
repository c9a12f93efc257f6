//! The stamp on the pod's owner.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use execpool::config::Restart;
use execpool::reactor::{Guard, Limits, NotDone};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::ground::{Ground, LIMITS, SOON, is_due, pod};
use crate::support::eventually;

const STAMP: &str = "kubectl.kubernetes.io/restartedAt";

async fn owner(ground: &Ground, plural: &str, more: Value) -> String {
    let mut owner = json!({
        "metadata": {"name": "agent"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": pod("any")},
    });
    for (key, value) in more.as_object().unwrap() {
        owner["spec"][key] = value.clone();
    }
    ground.admin.create(&ground.apps(plural), &owner).await;
    ground.apps(&format!("{plural}/agent"))
}

fn guard(result: &Result<(), NotDone>) -> Option<Guard> {
    match result {
        Err(NotDone::Refused { guard, .. }) => Some(*guard),
        _ => None,
    }
}

fn stamp(owner: &Value) -> &Value {
    &owner["spec"]["template"]["metadata"]["annotations"][STAMP]
}

/// The owner is stamped once; within the cool-down it is not again, nor over the limit.
async fn is_rolled_out(plural: &str, more: Value) {
    let Some(ground) = Ground::new(&format!("rolls-{plural}")).await else {
        return;
    };
    let path = owner(&ground, plural, more).await;
    let pod = ground.pod_by("agent").await;
    let kubernetes = pod.start();
    kubernetes
        .restart(Restart::Rollout, LIMITS, is_due)
        .await
        .unwrap();
    let stamped = ground.admin.get(&path).await;
    let at = stamp(&stamped).clone();
    assert!(at.is_string(), "{stamped}");
    let told = &stamped["metadata"]["annotations"];
    assert_eq!(
        (
            &told["execpool.dev/restarts"],
            &told["execpool.dev/last-restart"]
        ),
        (&"1".into(), &at)
    );

    let again = by_any_pod(&ground, LIMITS).await;
    let Some(Guard::OwnerStamped { left }) = guard(&again) else {
        panic!("{again:?}")
    };
    assert!(
        left > LIMITS.cooldown / 2 && left <= LIMITS.cooldown,
        "{left:?}"
    );
    let why = again.unwrap_err().to_string();
    assert!(why.contains("agent"), "{why}");
    assert_eq!(stamp(&ground.admin.get(&path).await), &at);

    // Pods that take its place know of it by the owner alone.
    sleep(Duration::from_millis(1100)).await;
    let short = Limits {
        cooldown: Duration::ZERO,
        per_hour: 2,
    };
    by_any_pod(&ground, short).await.unwrap();
    let over = by_any_pod(&ground, short).await;
    let Some(Guard::TooMany { restarts: 2, .. }) = guard(&over) else {
        panic!("{over:?}")
    };
}

/// By a pod that there is then.
async fn by_any_pod(ground: &Ground, limits: Limits) -> Result<(), NotDone> {
    eventually(SOON, "there is a pod that can ask", async || {
        let result = ground
            .pod_by("agent")
            .await
            .start()
            .restart(Restart::Rollout, limits, is_due)
            .await;
        match guard(&result) {
            Some(Guard::NotFound) => Err(result),
            _ => Ok(result),
        }
    })
    .await
}

#[tokio::test]
async fn a_deployment_is_rolled_out_and_its_pods_replaced() {
    is_rolled_out("deployments", json!({"replicas": 1})).await;
}

#[tokio::test]
async fn a_stateful_set_is_rolled_out() {
    is_rolled_out(
        "statefulsets",
        json!({"replicas": 1, "serviceName": "agent"}),
    )
    .await;
}

#[tokio::test]
async fn a_daemon_set_is_rolled_out() {
    let Some(ground) = Ground::new("node").await else {
        return;
    };
    let node = json!({"metadata": {"name": "one"}});
    ground.admin.create("/api/v1/nodes", &node).await;
    drop(ground);
    is_rolled_out("daemonsets", json!({})).await;
}

#[tokio::test]
async fn of_two_pods_that_decide_at_once_one_stamps() {
    let Some(ground) = Ground::new("twice").await else {
        return;
    };
    let path = owner(&ground, "deployments", json!({"replicas": 2})).await;
    let two = eventually(SOON, "there are two pods", async || {
        let all = ground.pods().await;
        sleep(Duration::from_millis(50)).await;
        if all.len() == 2 {
            Ok(all)
        } else {
            Err(all.len())
        }
    })
    .await;
    let pods = [ground.pod_of(&two[0]).await, ground.pod_of(&two[1]).await];
    for pod in &pods {
        pod.is_ready().await;
    }
    let hands = pods.each_ref().map(|pod| pod.start());
    for _ in 0..5 {
        let tries = hands
            .each_ref()
            .map(|hand| hand.restart(Restart::Rollout, LIMITS, is_due));
        let [first, second] = tries;
        let (first, second) = tokio::join!(first, second);
        let done = [&first, &second].into_iter().filter(|one| one.is_ok());
        assert_eq!(done.count(), 1, "{first:?} {second:?}");
        let refused = [&first, &second].into_iter().find_map(guard);
        assert!(
            matches!(refused, Some(Guard::OwnerStamped { .. })),
            "{refused:?}"
        );
        let known = ground.admin.get(&path).await;
        let count = &known["metadata"]["annotations"]["execpool.dev/restarts"];
        assert_eq!(count, "1");
        // Forgotten, for the next round.
        let forget = json!({
            "metadata": {"annotations": {
                "execpool.dev/restarts": null,
                "execpool.dev/last-restart": null,
                "execpool.dev/recent-restarts": null,
            }},
            "spec": {"template": {"metadata": {"annotations": {(STAMP): null}}}},
        });
        ground.admin.merge(&path, &forget).await;
        eventually(SOON, "nothing is rolled out any more", async || {
            let known = ground.admin.get(&path).await;
            let (status, wanted) = (&known["status"], &known["metadata"]["generation"]);
            let is_over = status["observedGeneration"] == *wanted
                && status["updatedReplicas"] == status["replicas"];
            sleep(Duration::from_millis(50)).await;
            if is_over { Ok(()) } else { Err(known) }
        })
        .await;
    }
}

#[tokio::test]
async fn somebody_elses_rollout_counts_and_changes_of_the_owner_do_not_matter() {
    let Some(ground) = Ground::new("others").await else {
        return;
    };
    let path = owner(&ground, "deployments", json!({"replicas": 1})).await;
    let pod = ground.pod_by("agent").await;
    let kubernetes = pod.start();
    let namespace = format!("--namespace={}", ground.namespace);
    ground
        .cluster
        .kubectl(&["rollout", "restart", "deployment/agent", &namespace]);
    let refused = kubernetes.restart(Restart::Rollout, LIMITS, is_due).await;
    assert!(
        matches!(guard(&refused), Some(Guard::OwnerStamped { .. })),
        "{refused:?}"
    );
    ground
        .admin
        .merge(&path, &json!({"spec": {"paused": true}}))
        .await;
    let why = kubernetes
        .restart(Restart::Rollout, LIMITS, is_due)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        why.contains("kubectl rollout resume deployment/agent"),
        "{why}"
    );
}

#[tokio::test]
async fn who_has_no_owner_to_be_rolled_out_is_refused_with_a_reason() {
    let Some(ground) = Ground::new("ownerless").await else {
        return;
    };
    let alone = ground.pod("alone").await;
    let refused = alone
        .start()
        .restart(Restart::Rollout, LIMITS, is_due)
        .await;
    assert_eq!(guard(&refused), Some(Guard::NoOwner));
    assert!(refused.unwrap_err().to_string().contains("no owner"));

    owner(&ground, "replicasets", json!({"replicas": 1})).await;
    let of_set = ground.pod_by("agent").await;
    let refused = of_set
        .start()
        .restart(Restart::Rollout, LIMITS, is_due)
        .await;
    assert_eq!(guard(&refused), Some(Guard::NoOwner));
    assert!(refused.unwrap_err().to_string().contains("no Deployment"));
}

#[tokio::test]
async fn an_owner_that_replaces_nothing_by_itself_is_refused() {
    let Some(ground) = Ground::new("on-delete").await else {
        return;
    };
    let more = json!({"replicas": 1, "serviceName": "a", "updateStrategy": {"type": "OnDelete"}});
    owner(&ground, "statefulsets", more).await;
    let pod = ground.pod_by("agent").await;
    let refused = pod.start().restart(Restart::Rollout, LIMITS, is_due).await;
    assert!(refused.unwrap_err().to_string().contains("OnDelete"));
}

#[tokio::test]
async fn it_is_asked_before_each_stamp_whether_that_is_still_due() {
    let Some(ground) = Ground::new("due-no-more").await else {
        return;
    };
    let path = owner(&ground, "deployments", json!({})).await;
    let pod = ground.pod_by("agent").await;
    let asked = AtomicUsize::new(0);
    let passes = || async {
        if asked.fetch_add(1, Relaxed) > 0 {
            return Err(NotDone::Refused {
                guard: Guard::Passed,
                more: None,
            });
        }
        // Somebody else changes the owner, so that the first stamp is in vain.
        let other = json!({"metadata": {"labels": {"changed": "by-hand"}}});
        ground.admin.merge(&path, &other).await;
        Ok(())
    };
    let hand = pod.start();
    let refused = hand.restart(Restart::Rollout, LIMITS, passes).await;
    assert_eq!(guard(&refused), Some(Guard::Passed), "{refused:?}");
    assert_eq!(asked.load(Relaxed), 2);
    let known = ground.admin.get(&path).await;
    assert!(stamp(&known).is_null(), "{known}");
}
