//! Events about the pod.

use std::time::Duration;

use execpool::budget::State;
use execpool::metrics::words::{Action, Outcome};
use execpool::reactor::Reason;
use serde_json::Value;
use tokio::time::sleep;

use crate::front::Fault;
use crate::ground::{Ground, Pod, SOON, report};
use crate::support::eventually;

async fn counted(ground: &Ground, pod: &Pod<'_>, reason: &str, count: u64) -> Value {
    let claim = format!("{reason} was seen {count} times");
    eventually(SOON, &claim, async || {
        let posted = ground.events(pod, reason).await;
        sleep(Duration::from_millis(20)).await;
        let of = |one: &Value| one["series"]["count"].as_u64().unwrap_or(1);
        match posted.as_slice() {
            [one] if of(one) == count => Ok(one.clone()),
            _ => Err(posted),
        }
    })
    .await
}

#[tokio::test]
async fn an_event_says_how_it_stands_who_holds_most_and_where_to_look() {
    let Some(ground) = Ground::new("events").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    kubernetes.announce(Reason::PoolExhausted, &report(State::Exhausted, 30));
    let event = counted(&ground, &pod, "PoolExhausted", 1).await;
    let note = event["note"].as_str().unwrap();
    for part in [
        "30 of 30",
        "5 waiting",
        "run-7",
        "agent.py:12 run",
        "kubectl exec",
        "-c execpool",
    ] {
        assert!(note.contains(part), "{part}: {note}");
    }
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reportingController"], "execpool.dev/execpool");
    assert_eq!(event["reportingInstance"], "agent");
    assert_eq!(event["regarding"]["kind"], "Pod");
    kubernetes.announce(Reason::PoolRecovered, &report(State::Healthy, 1));
    let event = counted(&ground, &pod, "PoolRecovered", 1).await;
    assert_eq!(event["type"], "Normal");
    // As a person sees it.
    let seen = ground
        .cluster
        .kubectl(&["describe", "pod", "agent", "--namespace=events"]);
    assert!(
        seen.contains("PoolExhausted") && seen.contains("execpool.dev/execpool"),
        "{seen}"
    );
    assert_eq!(pod.acted(Action::Event, Outcome::Ok), 2);
    assert_eq!(ground.log.lines(), Vec::<Value>::new());
}

#[tokio::test]
async fn what_is_repeated_is_a_series() {
    let Some(ground) = Ground::new("series").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    for count in 1..=3 {
        kubernetes.announce(Reason::PoolWarning, &report(State::Warning, 28));
        let event = counted(&ground, &pod, "PoolWarning", count).await;
        let last = event["series"]["lastObservedTime"].as_str();
        assert_eq!(last.is_some(), count > 1, "{event}");
    }
}

#[tokio::test]
async fn events_of_an_outage_are_posted_afterwards_with_their_times() {
    let Some(ground) = Ground::new("afterwards").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (kubernetes, front) = pod.start_behind().await;
    front.set(Fault::status(503));
    let before = std::time::SystemTime::now();
    for _ in 0..3 {
        kubernetes.announce(Reason::PoolWarning, &report(State::Warning, 28));
    }
    kubernetes.announce(Reason::PoolExhausted, &report(State::Exhausted, 30));
    eventually(SOON, "it is tried", async || {
        match pod.acted(Action::Event, Outcome::Error) {
            2.. => Ok(()),
            tries => Err(tries),
        }
    })
    .await;
    front.mend();
    let warning = counted(&ground, &pod, "PoolWarning", 3).await;
    counted(&ground, &pod, "PoolExhausted", 1).await;
    let at: k8s_openapi::jiff::Timestamp = warning["eventTime"].as_str().unwrap().parse().unwrap();
    let late = std::time::SystemTime::from(at)
        .duration_since(before)
        .unwrap();
    assert!(
        late < Duration::from_secs(1),
        "when it happened, not when it was posted: {late:?}"
    );
    assert_eq!(ground.log.causes(), ["server_error"]);
}

#[tokio::test]
async fn an_event_that_was_created_and_not_answered_is_not_created_again() {
    let Some(ground) = Ground::new("unanswered").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (kubernetes, front) = pod.start_behind().await;
    front.set_for("POST", Fault::status(500));
    kubernetes.announce(Reason::PoolWarning, &report(State::Warning, 28));
    let tried = eventually(SOON, "it is tried", async || {
        front.seen_of("POST").first().cloned().ok_or(())
    })
    .await;
    // What the server had done all the same.
    let body = serde_json::from_str(&tried.body).unwrap();
    let path = "/apis/events.k8s.io/v1/namespaces/unanswered/events";
    ground.admin.create(path, &body).await;
    front.mend();
    eventually(SOON, "it is well", async || {
        match pod.acted(Action::Event, Outcome::Ok) {
            1 => Ok(()),
            _ => Err(ground.log.lines()),
        }
    })
    .await;
    counted(&ground, &pod, "PoolWarning", 1).await;
}

#[tokio::test]
async fn a_series_whose_event_was_deleted_begins_anew() {
    let Some(ground) = Ground::new("anew").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    kubernetes.announce(Reason::PoolWarning, &report(State::Warning, 28));
    let event = counted(&ground, &pod, "PoolWarning", 1).await;
    let name = event["metadata"]["name"].as_str().unwrap();
    ground
        .admin
        .delete(&format!(
            "/apis/events.k8s.io/v1/namespaces/anew/events/{name}"
        ))
        .await;
    kubernetes.announce(Reason::PoolWarning, &report(State::Warning, 28));
    counted(&ground, &pod, "PoolWarning", 2).await;
    assert_eq!(ground.log.causes(), Vec::<String>::new());
}
