//! A connection that is opened before its session needs it is parked: its session's as long as
//! nobody needs it more.

use super::*;

const BRIEFLY: Duration = Duration::from_millis(200);

impl Pools {
    async fn lent_to(&self, execution: u64, session: WaiterId) -> Checkout {
        let checkout = self.lender.checkout(pool(execution), &self.key, session);
        let checkout = tokio::time::timeout(SOON, checkout).await;
        checkout.expect("in time").expect("the database answers")
    }

    /// A connection that is parked for a new session, and one that came back behind it.
    async fn parked_and_stored(&self) -> (WaiterId, Option<i32>, Option<i32>) {
        let (first, second) = (self.lent(0).await, self.lent(0).await);
        let (parked, stored) = (first.pid(), second.pid());
        let session = self.session();
        first.park(session);
        second.give_back().await;
        (session, parked, stored)
    }
}

#[tokio::test]
async fn a_parked_connection_is_kept_for_its_session() {
    let (pools, _database) = pools("parked_kept", Budget::new(20, 10), 1).await;
    let (session, parked, stored) = pools.parked_and_stored().await;
    let other = pools.lent(0).await;
    assert_eq!(other.pid(), stored, "others get what nobody was told of");
    other.give_back().await;
    // The other one is the most recently used, and would be lent first.
    assert_eq!(pools.lent_to(0, session).await.pid(), parked);
}

#[tokio::test]
async fn a_parked_connection_is_idle_and_not_used() {
    let (pools, _database) = pools("parked_idle", Budget::new(20, 10), 1).await;
    pools.lent(0).await.park(pools.session());
    let counts = pools.lender.counts(pool(0)).unwrap();
    assert_eq!((counts.idle, counts.lent), (1, 0));
}

#[tokio::test]
async fn a_parked_connection_goes_to_others_before_they_would_wait() {
    let (pools, _database) = pools("parked_for_others", Budget::new(1, 0), 2).await;
    let (session, first) = (pools.session(), pools.lent(0).await);
    let pid = first.pid();
    first.park(session);
    let other = pools.lent(0).await;
    assert_eq!(other.pid(), pid);
    // Its session is a waiter like any other then.
    let waiter = pools.clone();
    let late = tokio::spawn(async move { waiter.lent_to(0, session).await.pid() });
    tokio::time::sleep(BRIEFLY).await;
    assert!(!late.is_finished(), "there is only one");
    other.give_back().await;
    assert_eq!(late.await.unwrap(), pid);

    pools.lent(0).await.park(session);
    let elsewhere = pools.lent(1).await;
    assert_ne!(elsewhere.pid(), pid, "closed to make room for another pool");
    assert_eq!(pools.open(), 1);
}

#[tokio::test]
async fn an_unparked_connection_is_anybodys() {
    let (pools, _database) = pools("unparked", Budget::new(20, 10), 1).await;
    let (session, parked, _) = pools.parked_and_stored().await;
    pools.lender.unpark(pool(0), &pools.key, session);
    let other = pools.lent(0).await;
    assert_eq!(other.pid(), parked, "what came back last is lent first");
}

#[tokio::test]
async fn a_shut_pool_closes_what_is_parked() {
    let (pools, _database) = pools("parked_shut", Budget::new(20, 10), 1).await;
    pools.lent(0).await.park(pools.session());
    pools.lender.shut(pool(0));
    let emptied = tokio::time::timeout(SOON, pools.lender.emptied(pool(0)));
    emptied.await.expect("the parked one is closed");
    assert_eq!(pools.open(), 0);
}

#[tokio::test]
async fn a_connection_is_at_once_where_one_is_idle_or_could_stay_and_nobody_waits() {
    let (pools, _database) = pools("at_once", Budget::new(3, 1), 3).await;
    let at_once = |execution| pools.lender.has_at_once(pool(execution), &pools.key);
    assert!(at_once(0), "there is room");
    let (first, second) = (pools.lent(0).await, pools.lent(0).await);
    assert!(!at_once(0), "a third could not stay in the pool");
    assert!(at_once(1), "but in another");
    first.give_back().await;
    assert!(at_once(0), "one is idle");
    pools.lent(0).await.park(pools.session());
    assert!(!at_once(0), "the idle one is somebody's");
    let third = pools.lent(1).await;
    assert!(!at_once(1), "a fourth could not stay in the budget");
    let fourth = pools.lent(1).await;
    let fifth = pools.lent(1).await;
    let waiter = pools.clone();
    let waiting = tokio::spawn(async move { waiter.lent(2).await });
    tokio::time::sleep(BRIEFLY).await;
    assert!(!waiting.is_finished(), "the budget is used up");
    assert!(!at_once(0) && !at_once(2), "somebody waits");
    drop((second, third, fourth, fifth));
    drop(waiting.await.unwrap());
}
