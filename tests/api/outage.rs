//! The API server itself goes away.

use std::time::Duration;

use execpool::budget::State;
use execpool::reactor::{Notice, Reason};

use crate::ground::{Ground, SOON, report};
use crate::support::cluster::Part;
use crate::support::eventually;

#[tokio::test]
async fn an_api_server_that_was_killed_is_caught_up_with_when_it_is_back() {
    let Some(ground) = Ground::alone("killed").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    kubernetes.publish(report(State::Warning, 28), true);
    pod.comes_to("state", "warning").await;
    ground.cluster.stop(Part::ApiServer);
    let exhausted = report(State::Exhausted, 30);
    kubernetes.publish(exhausted.clone(), true);
    kubernetes.announce(&Notice::of_state(Reason::PoolExhausted, &exhausted));
    eventually(SOON, "it is told", async || {
        match ground.log.causes().len() {
            1.. => Ok(()),
            _ => Err(ground.log.lines()),
        }
    })
    .await;
    kubernetes.publish(report(State::Sustained, 30), true);
    kubernetes.announce(&Notice::of_state(Reason::PoolExhausted, &exhausted));
    tokio::time::sleep(Duration::from_secs(3)).await;
    ground.cluster.start_again(Part::ApiServer);
    pod.comes_to_within("state", "sustained", SOON * 3).await;
    pod.condition_is("False", "PoolSustained").await;
    let posted = eventually(SOON * 3, "one event is posted, seen twice", async || {
        let posted = ground.events(&pod, "PoolExhausted").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        match posted.as_slice() {
            [one] if one["series"]["count"] == 2 => Ok(()),
            _ => Err((posted, ground.log.lines())),
        }
    });
    posted.await;
    let causes = ground.log.causes();
    assert!(causes.contains(&"away".to_owned()), "{causes:?}");
    let mut once = causes.clone();
    once.dedup();
    assert_eq!(once, causes, "each once");
    eventually(SOON, "it is over", async || {
        match ground.log.of("kubernetes.recovered").len() {
            1.. => Ok(()),
            _ => Err(ground.log.lines()),
        }
    })
    .await;
}

#[tokio::test]
async fn an_api_server_that_hangs_is_slow_and_then_caught_up_with() {
    let Some(ground) = Ground::alone("hangs").await else {
        return;
    };
    let pod = ground.pod("agent").await;
    let kubernetes = pod.start();
    kubernetes.publish(report(State::Warning, 28), true);
    pod.comes_to("state", "warning").await;
    ground.cluster.freeze(Part::ApiServer);
    kubernetes.publish(report(State::Sustained, 30), true);
    let told = eventually(SOON, "it is told", async || match ground.log.causes() {
        causes if causes.is_empty() => Err(ground.log.lines()),
        causes => Ok(causes),
    })
    .await;
    ground.cluster.thaw(Part::ApiServer);
    assert_eq!(told, ["slow"]);
    pod.comes_to_within("state", "sustained", SOON * 2).await;
    pod.condition_is("False", "PoolSustained").await;
}
