//! Faults of the API: each is told once with what to do, and afterwards the newest is there.

use std::time::Duration;

use execpool::budget::State;
use execpool::metrics::words::{Action, Outcome};
use tokio::time::sleep;

use crate::front::Fault;
use crate::ground::{Ground, SOON, report};
use crate::support::eventually;

/// A fault, the cause that is told, and a word of what to do.
async fn is_told_once_and_caught_up_with(name: &str, fault: Fault, cause: &str, word: &str) {
    let Some(ground) = Ground::new(&format!("fault-{name}")).await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (kubernetes, front) = pod.start_behind().await;
    kubernetes.publish(report(State::Healthy, 1), true);
    pod.comes_to("state", "healthy").await;
    pod.condition_is("True", "PoolAvailable").await;
    front.set_for("PATCH", fault);
    kubernetes.publish(report(State::Warning, 28), true);
    // It is tried more than once, by both.
    eventually(SOON * 3, "it is tried again", async || {
        let [first, second] =
            [Action::Annotate, Action::Condition].map(|it| pod.acted(it, Outcome::Error));
        sleep(Duration::from_millis(20)).await;
        if first >= 2 && second >= 2 {
            Ok(())
        } else {
            Err((first, second))
        }
    })
    .await;
    let standing = kubernetes.standing();
    let failure = standing.failure.expect("it fails");
    assert!(
        standing.is_away && failure.cause.as_str() == cause,
        "{failure}"
    );
    assert!(failure.to_string().contains(word), "{failure}");
    kubernetes.publish(report(State::Exhausted, 30), true);
    // A try that was on its way is seen before the rest is looked at.
    for _ in 0..20 {
        sleep(Duration::from_millis(10)).await;
    }
    front.mend();
    let patches = front.seen_of("PATCH").len();
    pod.comes_to_within("state", "exhausted", SOON * 2).await;
    pod.condition_is("True", "PoolExhausted").await;
    for seen in &front.seen_of("PATCH")[patches..] {
        assert!(
            !seen.body.contains("PoolWarning"),
            "old news: {}",
            seen.body
        );
        assert!(
            !seen.body.contains(r#""warning""#),
            "old news: {}",
            seen.body
        );
    }
    assert_eq!(
        ground.log.causes().len(),
        expected_lines(cause),
        "{:?}",
        ground.log.lines()
    );
    assert!(ground.log.causes().iter().all(|known| known == cause));
    eventually(SOON, "it is told that it is over", async || {
        match ground.log.of("kubernetes.recovered").len() {
            1 => Ok(()),
            _ => Err(ground.log.lines()),
        }
    })
    .await;
    assert!(!kubernetes.standing().is_away);
}

/// What is of one object or right is told for each of the two.
fn expected_lines(cause: &str) -> usize {
    match cause {
        "forbidden" | "not_found" | "conflict" | "refused" => 2,
        _ => 1,
    }
}

/// What happens to writes; the cause that is told, and words of what to do.
const FAULTS: [(&str, Fault, &str, &str); 13] = [
    (
        "401",
        Fault::status(401),
        "unauthorized",
        "look at the token",
    ),
    (
        "403",
        Fault::status(403),
        "forbidden",
        "right to patch pods",
    ),
    ("404", Fault::status(404), "not_found", "404"),
    ("409", Fault::status(409), "conflict", "who else writes it"),
    ("422", Fault::status(422), "refused", "admission"),
    ("429", Fault::status(429), "too_many_requests", "overloaded"),
    (
        "500",
        Fault::status(500),
        "server_error",
        "API server's log",
    ),
    ("503", Fault::status(503), "server_error", "made up"),
    ("redirect", Fault::status(302), "odd_answer", "proxies"),
    ("page", Fault::PAGE, "odd_answer", "no Kubernetes API"),
    ("cut", Fault::Cut, "away", "NetworkPolicies"),
    ("hold", Fault::Hold, "slow", "no answer for 10 s"),
    ("trickle", Fault::Trickle, "slow", "no answer for 10 s"),
];

/// All at once, each in a thread of its own, as its log is.
#[test]
fn each_fault_is_told_once_with_what_to_do_and_the_newest_is_there_afterwards() {
    let one = |(name, fault, cause, word): (&'static str, Fault, &'static str, &'static str)| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(is_told_once_and_caught_up_with(name, fault, cause, word));
    };
    let threads = FAULTS.map(|case| (case.0, std::thread::spawn(move || one(case))));
    let failed = threads.map(|(name, thread)| (name, thread.join().is_err()));
    assert!(failed.iter().all(|(_, is_failed)| !is_failed), "{failed:?}");
}

/// A proxy that knows nothing yet, at the first look.
#[tokio::test]
async fn what_is_not_the_api_can_not_say_that_the_pod_is_no_more() {
    let Some(ground) = Ground::new("knows-nothing").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (kubernetes, front) = pod.start_behind().await;
    let empty = Fault::Answer {
        status: 200,
        header: ("x-by", "the relay"),
        body: "{}",
    };
    front.set(Fault::status(404));
    kubernetes.publish(report(State::Warning, 28), true);
    for (fault, causes) in [
        (empty, &["not_found"][..]),
        (Fault::status(404), &["not_found", "odd_answer"]),
    ] {
        eventually(SOON, "it is told", async || match ground.log.causes() {
            told if told == causes => Ok(()),
            told => Err(told),
        })
        .await;
        front.set(fault);
    }
    assert!(!kubernetes.is_gone());
    front.mend();
    pod.comes_to("state", "warning").await;
}

#[tokio::test]
async fn neither_annotations_nor_condition_are_in_the_others_way() {
    let Some(ground) = Ground::new("ways").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (kubernetes, front) = pod.start_behind().await;
    front.set_for("/agent?", Fault::Hold);
    kubernetes.publish(report(State::Sustained, 30), true);
    pod.condition_is("False", "PoolSustained").await;
    // An answer is waited for for ten seconds.
    let [held, free] = ["/agent?", "/status"].map(|part| front.seen_of(part)[0].at);
    let apart = free.saturating_duration_since(held);
    assert!(apart < Duration::from_secs(8), "{apart:?}");
    front.set_for("/status", Fault::Hold);
    kubernetes.publish(report(State::Healthy, 1), true);
    pod.comes_to("state", "healthy").await;
    assert_eq!(pod.condition().await["status"], "False");
}

#[tokio::test]
async fn the_servers_wish_when_to_be_asked_again_is_heeded() {
    let Some(ground) = Ground::new("wish").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (kubernetes, front) = pod.start_behind().await;
    kubernetes.publish(report(State::Healthy, 1), false);
    pod.comes_to("state", "healthy").await;
    let busy = Fault::Answer {
        status: 429,
        header: ("retry-after", "5"),
        body: "busy",
    };
    front.set_for("PATCH", busy);
    kubernetes.publish(report(State::Warning, 28), false);
    let before = front.seen_of("PATCH").len();
    eventually(SOON, "it is tried again", async || {
        let seen = front.seen_of("PATCH").len() - before;
        if seen >= 2 { Ok(()) } else { Err(seen) }
    })
    .await;
    let seen = front.seen_of("PATCH");
    let pause = seen[before + 1].at - seen[before].at;
    assert!(pause >= Duration::from_millis(4900), "{pause:?}");
}

#[tokio::test]
async fn a_failure_is_tried_again_later_and_later() {
    let Some(ground) = Ground::new("later").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (kubernetes, front) = pod.start_behind().await;
    front.set(Fault::status(500));
    kubernetes.publish(report(State::Warning, 28), true);
    // New reports make it no sooner.
    let reports = [0, 1].map(|fewer| report(State::Exhausted, 30 - fewer));
    let mut news = reports.iter().cycle();
    let tries = |part: &str| {
        let seen = front.seen_of(part);
        seen.iter().map(|one| one.at).collect::<Vec<_>>()
    };
    eventually(SOON, "it is tried three times and once more", async || {
        kubernetes.publish(news.next().expect("without end").clone(), true);
        sleep(Duration::from_millis(100)).await;
        match tries("").len() {
            4.. => Ok(()),
            few => Err(few),
        }
    })
    .await;
    // A second, two, four, each spread by up to a quarter.
    let tries = tries("");
    for (between, least) in tries.windows(2).zip([750, 1500, 3000]) {
        let pause = between[1] - between[0];
        assert!(pause >= Duration::from_millis(least), "{tries:?}");
    }
    assert_eq!(ground.log.causes(), ["server_error"]);
}

#[tokio::test]
async fn a_token_that_was_replaced_is_read_at_once() {
    let Some(ground) = Ground::new("rotates").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    kubernetes.publish(report(State::Warning, 28), true);
    pod.comes_to("state", "warning").await;
    // All tokens so far are void: the account is another one of the same name.
    let account = ground.core("serviceaccounts/agent");
    ground.admin.delete(&account).await;
    let named = serde_json::json!({"metadata": {"name": "agent"}});
    ground
        .admin
        .create(&ground.core("serviceaccounts"), &named)
        .await;
    pod.renew(&ground.token(Some((&pod.name, &pod.uid))).await);
    kubernetes.publish(report(State::Exhausted, 30), true);
    pod.comes_to("state", "exhausted").await;
    // Authenticated tokens are remembered for some seconds.
    sleep(Duration::from_secs(11)).await;
    kubernetes.publish(report(State::Sustained, 30), true);
    pod.comes_to("state", "sustained").await;
    assert_eq!(
        ground.log.lines(),
        Vec::<serde_json::Value>::new(),
        "nothing was wrong"
    );
}

/// Waits until this cause was told, and no other.
async fn is_told(ground: &Ground, wanted: &str) {
    eventually(SOON, "it is told", async || {
        match ground.log.causes().as_slice() {
            [cause] if cause == wanted => Ok(()),
            _ => Err(ground.log.lines()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_void_is_told_and_a_new_one_is_taken() {
    let Some(ground) = Ground::new("void").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    pod.renew("no-token");
    let kubernetes = pod.start();
    kubernetes.publish(report(State::Warning, 28), true);
    is_told(&ground, "unauthorized").await;
    let line = &ground.log.of("kubernetes.failing")[0];
    assert!(line["reason"].as_str().unwrap().contains("401"), "{line}");
    pod.renew(&ground.token(Some((&pod.name, &pod.uid))).await);
    pod.comes_to("state", "warning").await;
    pod.renew("no-token\n\n\x01");
    assert!(
        !ground
            .log
            .lines()
            .iter()
            .any(|line| line.to_string().contains("no-token"))
    );
}

#[tokio::test]
async fn a_token_and_an_authority_that_go_away_are_no_end() {
    let Some(ground) = Ground::new("unmounted").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let place = pod.place();
    let token = std::fs::read_to_string(pod.mount().join("token")).unwrap();
    std::fs::remove_file(pod.mount().join("token")).unwrap();
    let kubernetes = execpool::reactor::Kubernetes::start(place, pod.counters.clone());
    kubernetes.publish(report(State::Warning, 28), true);
    is_told(&ground, "unauthorized").await;
    pod.renew(&token);
    pod.comes_to("state", "warning").await;
}

#[tokio::test]
async fn a_server_of_another_authority_gets_no_token() {
    let Some(ground) = Ground::new("impostor").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let (_, front) = pod.start_behind().await;
    // The cluster's own authority alone.
    let authority = ground.cluster.state().join("pki/ca.crt");
    std::fs::copy(authority, pod.mount().join("ca.crt")).unwrap();
    let place = pod.place_at(("127.0.0.1", front.port()));
    let kubernetes = execpool::reactor::Kubernetes::start(place, pod.counters.clone());
    kubernetes.publish(report(State::Warning, 28), true);
    is_told(&ground, "away").await;
    let line = ground.log.of("kubernetes.failing")[0]["reason"].to_string();
    assert!(
        line.contains("certificate") && line.contains("ca.crt"),
        "{line}"
    );
    assert!(front.seen().is_empty());
}
