//! Keys whose upstream leads elsewhere: their connections are not kept, and they are forgotten.

use std::time::Instant;

use super::*;

/// Waits until so many are open and none is closing.
async fn opens(pools: &Pools, open: usize) {
    eventually(SOON, "closings have ended", async || {
        let budget = pools.lender.budget().0;
        let settled = budget.open() == open && budget.closing() == 0;
        settled.then_some(()).ok_or(budget)
    })
    .await;
}

#[tokio::test]
async fn what_is_stored_or_parked_is_closed_at_once_and_what_is_lent_when_it_comes_back() {
    let (pools, _database) = pools("retired", Budget::new(20, 10), 1).await;
    let (lent, parked, stored) = (
        pools.lent(0).await,
        pools.lent(0).await,
        pools.lent(0).await,
    );
    parked.park(pools.session());
    stored.give_back().await;
    pools.lender.retire(UpstreamNumber(1), |_| None);
    assert_eq!(pools.open(), 3, "of another upstream");
    pools.lender.retire(UpstreamNumber(0), |_| None);
    opens(&pools, 1).await;
    lent.give_back().await;
    opens(&pools, 0).await;
}

#[tokio::test]
async fn a_retired_key_is_forgotten_with_its_last_connection() {
    let (mut pools, database) = pools("retired_key", Budget::new(20, 10), 1).await;
    let lent = pools.lent(0).await;
    pools.lent(0).await.give_back().await;
    let old = Arc::downgrade(&pools.key);
    pools.lender.retire(UpstreamNumber(0), |_| None);
    pools.key = key(&pools.lender, target(Postgres::shared(), &database));
    pools.lender.sweep(Instant::now());
    assert!(old.upgrade().is_some(), "its connection is lent");
    lent.give_back().await;
    opens(&pools, 0).await;
    eventually(SOON, "nobody has it", async || {
        pools.lender.sweep(Instant::now());
        match old.strong_count() {
            0 => Ok(()),
            count => Err(count),
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_through_two_changes_is_led_to_the_last_place() {
    let (pools, _database) = pools("two_changes", Budget::new(1, 0), 2).await;
    let held = pools.lent(0).await;
    let waits = pools.clone();
    let waiting = tokio::spawn(async move { waits.lent(1).await });
    eventually(SOON, "it waits", async || {
        let waiting = pools.lender.budget().1.waiting;
        if waiting == 1 { Ok(()) } else { Err(waiting) }
    })
    .await;
    let last = Postgres::shared().database("last_place").await;
    // Nobody listens at the first new place.
    let nowhere = Target {
        addresses: vec![Address::Unix {
            dir: "/nowhere".into(),
            port: 1,
        }],
        ..target(Postgres::shared(), &last)
    };
    pools
        .lender
        .retire(UpstreamNumber(0), |_| Some(nowhere.clone()));
    let there = target(Postgres::shared(), &last);
    pools
        .lender
        .retire(UpstreamNumber(0), |_| Some(there.clone()));
    held.give_back().await;
    let served = waiting.await.expect("it gets one");
    let filter = format!("datname = '{}'", last.name);
    let backends = Postgres::shared().activity(&filter).await;
    let pids: Vec<i32> = backends.iter().map(|backend| backend.pid).collect();
    assert_eq!(served.pid().into_iter().collect::<Vec<_>>(), pids);
}
