//! Events about the pod.

use std::time::Duration;

use execpool::budget::State;
use execpool::config::Restart;
use execpool::metrics::words::{Action, Outcome};
use execpool::reactor::{Guard, Notice, Reason};
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
    kubernetes.announce(&Notice::of_state(
        Reason::PoolExhausted,
        &report(State::Exhausted, 30),
    ));
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
    kubernetes.announce(&Notice::of_state(
        Reason::PoolRecovered,
        &report(State::Healthy, 1),
    ));
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
    eventually(SOON, "both are counted", async || {
        match pod.acted(Action::Event, Outcome::Ok) {
            2 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(ground.log.lines(), Vec::<Value>::new());
}

#[tokio::test]
async fn what_is_done_and_what_is_not_are_events_of_their_own() {
    let Some(ground) = Ground::new("done").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    let sustained = report(State::Sustained, 30);
    let what = "/livez/app answers 503 until session 7 is gone";
    for notice in [
        Notice::of_cleanup(2, 1, "sessions 3 (leak_suspect), 4 (leak_suspect)"),
        Notice::of_refusal(&Guard::Draining, &Guard::Draining.to_string(), &sustained),
        Notice::of_refusal(&Guard::NoOwner, &Guard::NoOwner.to_string(), &sustained),
        Notice::of_restart(Restart::Liveness, what, (1, 2), &sustained),
    ] {
        kubernetes.announce(&notice);
    }
    let posted = tokio::time::timeout(SOON, kubernetes.posted());
    posted.await.expect("all of them are posted");
    let told = async |reason: &str| {
        let events = ground.events(&pod, reason).await;
        let told = events.iter().map(|event| {
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            (text("type"), text("action"), text("note"))
        });
        told.collect::<Vec<_>>()
    };
    let cleanup = told("PoolCleanup").await;
    assert_eq!(cleanup.len(), 1, "{cleanup:?}");
    assert_eq!((&*cleanup[0].0, &*cleanup[0].1), ("Warning", "CleaningUp"));
    assert!(
        cleanup[0].2.contains("2 sessions were ended"),
        "{cleanup:?}"
    );
    let restart = told("PoolRestart").await;
    assert_eq!(restart.len(), 1, "{restart:?}");
    assert_eq!((&*restart[0].0, &*restart[0].1), ("Warning", "Restarting"));
    for part in [
        "by liveness",
        what,
        "30 of 30",
        "run-7",
        "agent.py:12 run",
        "1 of at most 2",
    ] {
        assert!(restart[0].2.contains(part), "{part}: {restart:?}");
    }
    let mut refused = told("PoolRestartRefused").await;
    refused.sort_by_key(|(_, _, note)| !note.contains("on its way out"));
    assert_eq!(refused.len(), 2, "one for each reason: {refused:?}");
    assert_eq!(
        (&*refused[0].0, &*refused[0].1),
        ("Normal", "RefusingRestart")
    );
    assert!(refused[1].2.contains("no owner"), "{refused:?}");
    assert!(refused[1].2.ends_with("/execpool status"), "{refused:?}");
}

#[tokio::test]
async fn that_it_does_not_pass_is_an_event_of_its_own() {
    let Some(ground) = Ground::new("sustained").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    for state in [State::Exhausted, State::Sustained, State::Sustained] {
        kubernetes.announce(&Notice::of_state(Reason::PoolExhausted, &report(state, 30)));
    }
    let posted = tokio::time::timeout(SOON, kubernetes.posted());
    posted.await.expect("all of them are posted");
    let posted = ground.events(&pod, "PoolExhausted").await;
    let told = posted.iter().map(|event| {
        let is_sustained = event["note"].as_str().unwrap().contains("it does not pass");
        (is_sustained, event["series"]["count"].as_u64())
    });
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    assert_eq!(told, [(false, None), (true, Some(2))], "{posted:?}");
}

#[tokio::test]
async fn what_is_repeated_is_a_series() {
    let Some(ground) = Ground::new("series").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    for count in 1..=3 {
        kubernetes.announce(&Notice::of_state(
            Reason::PoolWarning,
            &report(State::Warning, 28),
        ));
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
    for _ in 0..3 {
        kubernetes.announce(&Notice::of_state(
            Reason::PoolWarning,
            &report(State::Warning, 28),
        ));
    }
    kubernetes.announce(&Notice::of_state(
        Reason::PoolExhausted,
        &report(State::Exhausted, 30),
    ));
    let announced = std::time::SystemTime::now();
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
    assert!(
        std::time::SystemTime::from(at) <= announced,
        "when it happened, not when it was posted: {at}"
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
    kubernetes.announce(&Notice::of_state(
        Reason::PoolWarning,
        &report(State::Warning, 28),
    ));
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
    kubernetes.announce(&Notice::of_state(
        Reason::PoolWarning,
        &report(State::Warning, 28),
    ));
    let event = counted(&ground, &pod, "PoolWarning", 1).await;
    let name = event["metadata"]["name"].as_str().unwrap();
    ground
        .admin
        .delete(&format!(
            "/apis/events.k8s.io/v1/namespaces/anew/events/{name}"
        ))
        .await;
    kubernetes.announce(&Notice::of_state(
        Reason::PoolWarning,
        &report(State::Warning, 28),
    ));
    counted(&ground, &pod, "PoolWarning", 2).await;
    assert_eq!(ground.log.causes(), Vec::<String>::new());
}
