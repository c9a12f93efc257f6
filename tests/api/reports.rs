//! Annotations and condition: as reported, in the pod of our uid alone.

use std::time::Duration;

use execpool::budget::State;
use execpool::metrics::words::{Action, Outcome};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::front::Fault;
use crate::ground::{Ground, SOON, pod, report, report_where};
use crate::support::eventually;

/// Long enough for something that must not happen to happen.
const WHILE: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn a_pod_tells_how_it_stands_and_that_it_is_well_again() {
    let Some(ground) = Ground::new("tells").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    pod.is_ready().await;
    let theirs = json!({"metadata": {"annotations": {"team": "agents"}}});
    ground.admin.merge(&pod.path(), &theirs).await;
    let kubernetes = pod.start();

    let sustained = report(State::Sustained, 30);
    kubernetes.publish(sustained.clone(), true);
    pod.comes_to("state", "sustained").await;
    let known = pod.read().await["metadata"]["annotations"].clone();
    for (key, value) in sustained.annotations() {
        assert_eq!(known[&key], value, "{key}: {known}");
    }
    assert_eq!(known["execpool.dev/holder-caller"], "agent.py:12 run");
    assert_eq!(known["team"], "agents");
    let stands = pod.condition_is("False", "PoolSustained").await;
    assert_eq!(stands["message"], sustained.condition().message);

    // Another report of the same status: the moment of the change stays.
    sleep(Duration::from_millis(1100)).await;
    kubernetes.publish(report(State::Sustained, 29), true);
    pod.comes_to("used", "29").await;
    let changed = |known: Value| known["lastTransitionTime"].as_str().map(str::to_owned);
    let since = changed(stands);
    eventually(SOON, "the message is the newest", async || {
        let known = pod.condition().await;
        let is_new = known["message"]
            .as_str()
            .is_some_and(|it| it.contains("29 of 30"));
        if is_new { Ok(()) } else { Err(known) }
    })
    .await;
    assert_eq!(changed(pod.condition().await), since);

    kubernetes.publish(report(State::Healthy, 1), true);
    pod.comes_to("state", "healthy").await;
    let stands = pod.condition_is("True", "PoolAvailable").await;
    assert!(changed(stands) > since);
    let known = pod.read().await;
    let annotations = &known["metadata"]["annotations"];
    assert_eq!(
        annotations["execpool.dev/holder"],
        Value::Null,
        "{annotations}"
    );
    assert_eq!(
        (&annotations["execpool.dev/used"], &annotations["team"]),
        (&"1".into(), &"agents".into())
    );
    let ready = known["status"]["conditions"].as_array().unwrap().iter();
    assert!(
        ready
            .clone()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    );
    let managers = known["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter();
    let ours = managers.filter(|one| one["manager"] == "execpool" && one["operation"] == "Apply");
    assert_eq!(ours.count(), 2, "of the pod, and of its status");
    eventually(SOON, "each write is counted", async || {
        match [Action::Annotate, Action::Condition].map(|it| pod.acted(it, Outcome::Ok)) {
            [one, other] if one.min(other) >= 3 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(ground.log.lines(), Vec::<Value>::new(), "nothing is wrong");
}

#[tokio::test]
async fn a_database_that_does_not_answer_leaves_the_condition_true() {
    let Some(ground) = Ground::new("away").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    let of_database =
        |snapshot: &mut execpool::reactor::Snapshot| snapshot.database_unreachable = true;
    kubernetes.publish(report_where(State::Sustained, 30, of_database), true);
    pod.condition_is("True", "DatabaseUnreachable").await;
}

#[tokio::test]
async fn nothing_is_asked_before_there_is_something_to_tell() {
    let Some(ground) = Ground::new("silent").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (kubernetes, front) = pod.start_behind().await;
    sleep(WHILE).await;
    assert!(front.seen().is_empty(), "{:?}", front.seen());
    let standing = kubernetes.standing();
    assert!(!standing.is_away && standing.age.is_none(), "{standing:?}");

    // What was withdrawn is not told either.
    front.set(Fault::status(500));
    kubernetes.publish(report(State::Warning, 28), true);
    eventually(SOON, "it is tried", async || {
        match kubernetes.standing().is_away {
            true => Ok(()),
            false => Err(front.seen()),
        }
    })
    .await;
    kubernetes.withdraw();
    front.mend();
    sleep(WHILE * 2).await;
    assert!(front.seen_of("PATCH").is_empty(), "{:?}", front.seen());
}

#[tokio::test]
async fn the_condition_can_be_off_and_then_never_stays_false() {
    let Some(ground) = Ground::new("conditionless").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    kubernetes.publish(report(State::Sustained, 30), false);
    pod.comes_to("state", "sustained").await;
    sleep(WHILE).await;
    assert_eq!(pod.condition().await, Value::Null);

    kubernetes.publish(report(State::Sustained, 30), true);
    pod.condition_is("False", "PoolSustained").await;
    // Also by the next process: it begins with what is there.
    drop(kubernetes);
    let kubernetes = pod.start();
    kubernetes.publish(report(State::Sustained, 30), false);
    pod.condition_is("True", "NotWatched").await;
}

#[tokio::test]
async fn restarts_are_remembered_by_the_pod_and_not_forgotten_by_the_next_process() {
    let Some(ground) = Ground::new("remembers").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let told = json!({"metadata": {"annotations": {
        "execpool.dev/restarts": "3",
        "execpool.dev/last-restart": "2026-01-02T03:04:05Z",
    }}});
    ground.admin.merge(&pod.path(), &told).await;
    let kubernetes = pod.start();
    // A report from before it was read.
    kubernetes.publish(report(State::Warning, 28), false);
    pod.comes_to("state", "warning").await;
    assert_eq!(pod.annotation("restarts").await, "3");
    assert_eq!(pod.annotation("last-restart").await, "2026-01-02T03:04:05Z");
    let restarts = kubernetes.remembered().await.expect("the pod is there");
    assert_eq!(restarts.total(), 3);
    // That is told by another machine's clock, and not believed.
    assert_eq!(restarts.pod_since(), None);
}

async fn is_known_to_be_gone(kubernetes: &execpool::reactor::Kubernetes, ground: &Ground) {
    eventually(SOON, "it is known to be gone", async || {
        match kubernetes.is_gone() {
            true => Ok(()),
            false => Err(ground.log.lines()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_deleted_pod_is_not_made_again() {
    let Some(ground) = Ground::new("deleted").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    // The token of a deleted pod is not taken any more; this one is.
    pod.renew(&ground.token(None).await);
    let (kubernetes, front) = pod.start_behind().await;
    kubernetes.publish(report(State::Warning, 28), true);
    pod.comes_to("state", "warning").await;
    ground.admin.delete(&pod.path()).await;
    kubernetes.publish(report(State::Exhausted, 30), true);
    is_known_to_be_gone(&kubernetes, &ground).await;
    // The other of the two may have been on its way.
    sleep(WHILE).await;
    let seen = front.seen_of("PATCH").len();
    kubernetes.publish(report(State::Sustained, 30), true);
    sleep(WHILE * 2).await;
    assert_eq!(
        front.seen_of("PATCH").len(),
        seen,
        "nothing is written any more"
    );
    assert!(ground.pods().await.is_empty(), "{:?}", ground.pods().await);
    assert_eq!(
        ground.log.of("kubernetes.gone").len(),
        1,
        "{:?}",
        ground.log.lines()
    );
    assert_eq!(ground.log.causes(), Vec::<String>::new());
    assert!(!kubernetes.standing().is_away);
}

#[tokio::test]
async fn a_deleted_pod_is_not_made_again_whatever_the_rights() {
    let Some(ground) = Ground::new("mighty").await else {
        return;
    };
    ground.allow(&[("", "*", &["*"])]).await;
    let pod = ground.pod("agent").await;
    pod.renew(&ground.token(None).await);
    let kubernetes = pod.start();
    kubernetes.publish(report(State::Warning, 28), true);
    pod.comes_to("state", "warning").await;
    ground.admin.delete(&pod.path()).await;
    kubernetes.publish(report(State::Exhausted, 30), true);
    is_known_to_be_gone(&kubernetes, &ground).await;
    assert!(ground.pods().await.is_empty());
}

#[tokio::test]
async fn another_pod_of_the_same_name_is_not_touched() {
    let Some(ground) = Ground::new("namesake").await else {
        return;
    };
    let first = ground.pod("agent").await;
    first.renew(&ground.token(None).await);
    let kubernetes = first.start();
    kubernetes.publish(report(State::Warning, 28), true);
    first.comes_to("state", "warning").await;
    ground.admin.delete(&first.path()).await;
    let other = ground
        .admin
        .create(&ground.core("pods"), &pod("agent"))
        .await;
    kubernetes.publish(report(State::Sustained, 30), true);
    is_known_to_be_gone(&kubernetes, &ground).await;
    let evicted = kubernetes
        .restart(
            execpool::config::Restart::Evict,
            crate::ground::LIMITS,
            crate::ground::is_due,
        )
        .await;
    let why = evicted.unwrap_err().to_string();
    assert!(why.contains("uid") || why.contains("UID"), "{why}");
    sleep(WHILE).await;
    let known = first.read().await;
    assert_eq!(
        known["metadata"]["uid"], other["metadata"]["uid"],
        "{known}"
    );
    assert_eq!(known["metadata"]["annotations"], Value::Null);
    assert_eq!(first.condition().await, Value::Null);

    // A process that begins with a wrong uid finds that out at once.
    let late = first.start();
    assert_eq!(late.remembered().await, None);
    assert!(late.is_gone());
}

#[tokio::test]
async fn what_another_manager_owns_of_ours_is_taken_and_told_once() {
    let Some(ground) = Ground::new("managers").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "agent", "annotations": {
            "execpool.dev/state": "theirs", "other.dev/state": "theirs",
        }},
    });
    let path = pod.path() + "?fieldManager=somebody&force=true";
    ground
        .admin
        .patch(&path, "application/apply-patch+yaml", &theirs)
        .await;
    let kubernetes = pod.start();
    kubernetes.publish(report(State::Warning, 28), false);
    pod.comes_to("state", "warning").await;
    ground
        .admin
        .patch(&path, "application/apply-patch+yaml", &theirs)
        .await;
    kubernetes.publish(report(State::Exhausted, 30), false);
    pod.comes_to("state", "exhausted").await;
    let told = ground.log.of("kubernetes.taken");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0]["reason"].as_str().unwrap().contains("somebody"),
        "{told:?}"
    );
    let known = pod.read().await;
    assert_eq!(
        known["metadata"]["annotations"]["other.dev/state"],
        "theirs"
    );
    assert_eq!(
        ground.log.causes(),
        Vec::<String>::new(),
        "that is no failure"
    );
}

#[tokio::test]
async fn telling_never_waits_for_the_api() {
    let Some(ground) = Ground::new("waits").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (kubernetes, front) = pod.start_behind().await;
    front.set(Fault::Hold);
    let reports = [0, 1].map(|fewer| report(State::Exhausted, 30 - fewer));
    let start = Instant::now();
    for exhausted in reports.iter().cycle().take(1000) {
        kubernetes.publish(exhausted.clone(), true);
        kubernetes.announce(&execpool::reactor::Notice::of_state(
            execpool::reactor::Reason::PoolExhausted,
            exhausted,
        ));
    }
    // Each of them would wait for ten seconds.
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}
