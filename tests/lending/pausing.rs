//! A pause: nothing is lent, not even what was on its way; and all is replaced by a reconnect.

use std::task::{Context, Poll, Waker};

use super::*;

#[tokio::test]
async fn a_pause_overtakes_what_is_lent_and_not_yet_taken() {
    let (pools, _) = pools("overtakes", Budget::new(1, 0), 1).await;
    let first = pools.lent(0).await;
    let backend = first.pid();
    let waiter = pools.session();
    let mut waits = Box::pin(pools.lender.checkout(pool(0), &pools.key, waiter));
    let mut behind = Box::pin(pools.lender.checkout(pool(0), &pools.key, pools.session()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    assert!(behind.as_mut().poll(&mut context).is_pending());
    first.give_back().await;
    // It was lent to the waiter, who has not looked yet.
    assert_eq!(pools.lender.totals().lent, 1);
    pools.lender.pause(None);
    assert!(waits.as_mut().poll(&mut context).is_pending());
    assert_eq!(
        (pools.lender.totals().lent, pools.lender.totals().idle),
        (0, 1)
    );
    let shortage = pools.lender.shortage(pool(0), waiter);
    assert_eq!(
        (shortage.limit, shortage.position),
        (Limit::Paused, Some(1))
    );

    assert!(pools.lender.resume() && !pools.lender.resume());
    assert!(
        behind.as_mut().poll(&mut context).is_pending(),
        "it keeps its turn"
    );
    let checkout = match waits.as_mut().poll(&mut context) {
        Poll::Ready(Ok(checkout)) => checkout,
        other => panic!("{other:?}"),
    };
    assert_eq!(checkout.pid(), backend);
}

#[tokio::test]
async fn a_dial_that_a_pause_finds_under_way_comes_to_its_end_and_is_not_lent() {
    let (pools, _) = pools("under_way", Budget::new(2, 0), 1).await;
    let mut waits = Box::pin(pools.lender.checkout(pool(0), &pools.key, pools.session()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    assert_eq!(pools.lender.totals().connecting, 1);
    pools.lender.pause(None);
    eventually(SOON, "it is idle", async || match pools.lender.totals() {
        totals if totals.idle == 1 && totals.connecting == 0 => Ok(()),
        totals => Err(totals),
    })
    .await;
    assert!(waits.as_mut().poll(&mut context).is_pending());
    assert!(!pools.lender.has_at_once(pool(0), &pools.key));
    pools.lender.resume();
    waits.await.unwrap().give_back().await;
}

#[tokio::test]
async fn a_pause_ends_by_itself_at_the_end_that_was_said_last() {
    let (pools, _) = pools("said_last", Budget::new(1, 0), 1).await;
    let soon = std::time::Instant::now() + Duration::from_secs(60);
    pools.lender.pause(Some(Duration::from_secs(30)));
    pools.lender.pause(None);
    pools.lender.watch_pause(soon);
    assert!(
        pools
            .lender
            .paused()
            .is_some_and(|paused| paused.left.is_none())
    );
    pools.lender.pause(Some(Duration::from_secs(30)));
    pools.lender.watch_pause(std::time::Instant::now());
    assert!(pools.lender.paused().is_some());
    pools.lender.watch_pause(soon);
    assert!(pools.lender.paused().is_none());
    pools.lent(0).await.give_back().await;
}

#[tokio::test]
async fn who_watches_a_pause_is_told_when_to_look_again() {
    let (pools, _) = pools("look_again", Budget::new(1, 0), 1).await;
    let lender = &pools.lender;
    let now = std::time::Instant::now();
    let minute = Duration::from_secs(60);
    assert_eq!(lender.watch_pause(now), None);
    lender.pause(Some(Duration::from_secs(30)));
    lender.pause_moves().await;
    let ends = lender.watch_pause(now).expect("it ends");
    assert!(ends >= now + Duration::from_secs(30) && ends < now + minute);
    lender.pause(None);
    lender.pause_moves().await;
    let reminds = lender.watch_pause(now).expect("it is to be said again");
    assert!(reminds >= now + minute);
    assert_eq!(lender.watch_pause(reminds), Some(reminds + minute));
    assert!(lender.resume());
    assert_eq!(lender.watch_pause(now), None);
}

#[tokio::test]
async fn a_connection_of_an_earlier_epoch_is_never_lent_again() {
    let (pools, _) = pools("epoch", Budget::new(3, 0), 1).await;
    let lent = pools.lent(0).await;
    let old = [lent.pid(), {
        let idle = pools.lent(0).await;
        let pid = idle.pid();
        idle.give_back().await;
        pid
    }];
    // One more is on its way when all are replaced.
    let mut context = Context::from_waker(Waker::noop());
    let busy = pools.lent(0).await;
    let mut dials = Box::pin(pools.lender.checkout(pool(0), &pools.key, pools.session()));
    assert!(dials.as_mut().poll(&mut context).is_pending());
    pools.lender.reconnect();
    let dialled = dials.await.unwrap();
    assert!(dialled.is_current());
    lent.give_back().await;
    busy.give_back().await;
    let next = pools.lent(0).await;
    assert!(next.is_current() && !old.contains(&next.pid()));
    let none = pools.lender.reconnect();
    assert_eq!(none.lent, 2);
}
