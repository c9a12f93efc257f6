//! Each right in the Role is needed, for what its name says, and one that is missing is named.

use execpool::budget::State;
use execpool::config::Restart;
use execpool::reactor::{Guard, NotDone, Notice, Reason};
use serde_json::json;

use crate::ground::{Ground, LIMITS, SOON, is_due, pod, report};
use crate::support::eventually;

/// Without this right that is told, and the rest goes on; with it, it is caught up with.
async fn is_needed(name: &str, resource: &str, verb: &str, right: &str) {
    let Some(ground) = Ground::new(name).await else {
        return;
    };
    let pod = ground.pod("agent").await;
    ground.forbid(resource, verb).await;
    let kubernetes = pod.start();
    let sustained = report(State::Sustained, 30);
    kubernetes.announce(&Notice::of_state(Reason::PoolExhausted, &sustained));
    if resource == "events" {
        // The first creates it, the second continues it.
        eventually(SOON, "it is there, or is not", async || {
            let posted = ground.events(&pod, "PoolExhausted").await;
            let is_told = !ground.log.causes().is_empty();
            if is_told || !posted.is_empty() {
                Ok(())
            } else {
                Err(ground.log.lines())
            }
        })
        .await;
        kubernetes.announce(&Notice::of_state(Reason::PoolExhausted, &sustained));
    }
    kubernetes.publish(sustained, true);
    let lines = eventually(SOON, "it is told", async || {
        match ground.log.of("kubernetes.failing") {
            lines if lines.is_empty() => Err(ground.log.lines()),
            lines => Ok(lines),
        }
    })
    .await;
    let reason = lines[0]["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("right to {right}")), "{reason}");
    assert_eq!(lines[0]["cause"], "forbidden");
    if verb != "get" {
        // What does not need it is there.
        if resource != "pods" {
            pod.comes_to("state", "sustained").await;
        }
        if resource != "pods/status" {
            pod.condition_is("False", "PoolSustained").await;
        }
    }
    ground.allow(&crate::ground::RIGHTS).await;
    pod.comes_to("state", "sustained").await;
    pod.condition_is("False", "PoolSustained").await;
    eventually(SOON, "it is over", async || {
        match kubernetes.standing().is_away {
            false => Ok(()),
            true => Err(ground.log.lines()),
        }
    })
    .await;
    assert_eq!(
        ground.log.of("kubernetes.failing").len(),
        1,
        "{:?}",
        ground.log.lines()
    );
}

#[tokio::test]
async fn the_right_to_get_pods_is_needed() {
    is_needed("get-pods", "pods", "get", "get pods").await;
}

#[tokio::test]
async fn the_right_to_patch_pods_is_needed() {
    is_needed("patch-pods", "pods", "patch", "patch pods").await;
}

#[tokio::test]
async fn the_right_to_patch_their_status_is_needed() {
    is_needed("patch-status", "pods/status", "patch", "patch pods/status").await;
}

#[tokio::test]
async fn the_right_to_create_events_is_needed() {
    is_needed(
        "create-events",
        "events",
        "create",
        "create and patch events",
    )
    .await;
}

#[tokio::test]
async fn the_right_to_patch_events_is_needed() {
    is_needed("patch-events", "events", "patch", "create and patch events").await;
}

#[tokio::test]
async fn rights_to_restart_are_needed_and_named() {
    let Some(ground) = Ground::new("restart-rights").await else {
        return;
    };
    let deployment = json!({
        "metadata": {"name": "agent"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "agent"}},
            "template": pod("any"),
        },
    });
    ground
        .admin
        .create(&ground.apps("deployments"), &deployment)
        .await;
    let pod = ground.pod_by("agent").await;
    let kubernetes = pod.start();
    for (restart, resource, verb, right) in [
        (
            Restart::Evict,
            "pods/eviction",
            "create",
            "create pods/eviction",
        ),
        (
            Restart::Rollout,
            "deployments",
            "get",
            "get the pod's owner",
        ),
        (
            Restart::Rollout,
            "deployments",
            "patch",
            "patch the pod's owner",
        ),
    ] {
        ground.forbid(resource, verb).await;
        let refused = eventually(SOON, "it is refused", async || {
            match kubernetes.restart(restart, LIMITS, is_due).await {
                Err(NotDone::Refused {
                    guard: Guard::NotAllowed,
                    more,
                }) => Ok(more),
                other => Err(other),
            }
        })
        .await;
        let more = refused.unwrap();
        assert!(more.contains(right) && more.contains("forbidden"), "{more}");
    }
    ground.allow(&crate::ground::RIGHTS).await;
    eventually(SOON, "it is allowed", async || {
        kubernetes.restart(Restart::Rollout, LIMITS, is_due).await
    })
    .await;
}
