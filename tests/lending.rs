//! Lending over real connections: never more than the budget by the server's own log,
//! first come first served, nothing lost when a waiter goes, nothing left of an ended
//! execution.
//!
//! | module | holds |
//! |---|---|
//! | [`dialling`] | where a connection comes from, and when a pool is empty |
//! | [`parking`] | connections that are kept for a session |
//! | [`pausing`] | nothing is lent for a while, and all is replaced |
//! | [`upkeep`] | connections that are too old or were idle for too long |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "lending/dialling.rs"]
mod dialling;
#[path = "lending/parking.rs"]
mod parking;
#[path = "lending/pausing.rs"]
mod pausing;
#[path = "lending/retiring.rs"]
mod retiring;
mod support;
#[path = "lending/upkeep.rs"]
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use execpool::budget::Budget;
use execpool::config::{PasswordSource, SessionAttrs};
use execpool::pool::{
    Cancelled, Checkout, ExecutionNumber, Key, KeySpec, Lender, Limit, PoolId, PoolLimits, Refused,
    Target, Upkeep, UpstreamNumber, WaiterId,
};
use execpool::protocol::startup::Parameters;
use execpool::server::{Address, Password};
use support::postgres::PASSWORD;
use support::{Database, Fault, Postgres, PostgresOptions, Proxy, SOON, eventually};
use tokio::runtime::Handle;

const UPKEEP: Upkeep = Upkeep {
    recycle: Duration::from_secs(1800),
    idle_timeout: Duration::from_secs(300),
    ping_after: None,
};

fn pool(execution: u64) -> PoolId {
    PoolId {
        execution: ExecutionNumber(execution),
        upstream: UpstreamNumber(0),
    }
}

fn target(postgres: &Postgres, database: &Database) -> Target {
    let name = ("application_name".to_owned(), b"lending".to_vec());
    Target {
        addresses: vec![Address::Unix {
            dir: postgres.directory().to_owned(),
            port: postgres.port(),
        }],
        session_attrs: SessionAttrs::Any,
        user: "app".to_owned(),
        database: database.name.clone(),
        password: Password::new(PasswordSource::None),
        parameters: Parameters::new(vec![name]),
        tls: Arc::default(),
        connect_timeout: SOON,
        keepalive: SOON,
        reset: Some("DISCARD ALL".to_owned()),
        checks_client: true,
        upkeep: UPKEEP,
    }
}

/// A lender to one database, and the sessions that ask it.
#[derive(Clone)]
struct Pools {
    lender: Arc<Lender>,
    key: Arc<Key>,
    sessions: Arc<AtomicU64>,
}

impl Pools {
    /// With `executions` pools of 2 + 3.
    fn over(target: Target, budget: Budget, executions: u64) -> Self {
        let lender = Lender::new(budget, Handle::current(), Arc::default());
        for execution in 0..executions {
            let limits = PoolLimits {
                size: 2,
                overflow: 3,
            };
            lender.admit(pool(execution), Some(limits));
        }
        Self {
            key: key(&lender, target),
            lender,
            sessions: Arc::default(),
        }
    }

    fn session(&self) -> WaiterId {
        WaiterId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// What a new session gets within `patience`; `None` where that is nothing.
    async fn within(
        &self,
        execution: u64,
        patience: Duration,
    ) -> Option<Result<Checkout, Refused>> {
        let session = self.session();
        let checkout = self.lender.checkout(pool(execution), &self.key, session);
        tokio::time::timeout(patience, checkout).await.ok()
    }

    async fn lent(&self, execution: u64) -> Checkout {
        let checkout = self.within(execution, SOON).await;
        let checkout = checkout.expect("there is room, or soon will be");
        checkout.expect("the database answers")
    }

    fn open(&self) -> usize {
        self.lender.budget().0.open()
    }
}

fn key(lender: &Lender, target: Target) -> Arc<Key> {
    let spec = KeySpec {
        upstream: UpstreamNumber(0),
        database: target.database.clone(),
        parameters: target.parameters.clone(),
    };
    lender.key(spec, || target)
}

/// Pools over a fresh database, with `executions` pools of 2 + 3.
async fn pools(name: &str, budget: Budget, executions: u64) -> (Pools, Database) {
    let postgres = Postgres::shared();
    let database = postgres.database(name).await;
    let target = target(postgres, &database);
    (Pools::over(target, budget, executions), database)
}

/// Uses a checkout for one statement.
async fn run(checkout: &mut Checkout, sql: &str) {
    let connection = checkout.connection().expect("it is held");
    let _ = connection.clean(sql).await;
}

#[tokio::test]
async fn fifty_executions_never_open_more_than_the_budget() {
    let (pools, database) = pools("fifty", Budget::new(4, 3), 50).await;
    let mut running = tokio::task::JoinSet::new();
    for session in 0..200 {
        let pools = pools.clone();
        running.spawn(async move {
            let mut checkout = pools.lent(session % 50).await;
            run(&mut checkout, "SET work_mem = '1MB'").await;
            checkout.give_back().await;
        });
    }
    while let Some(served) = running.join_next().await {
        served.expect("every session is served");
    }
    let log = Postgres::shared()
        .connection_log()
        .of_database(&database.name);
    assert!(log.peak() <= 7, "{} at once", log.peak());
    assert!(log.connected() >= 7, "the budget was used");
    eventually(SOON, "what is above the size is closed", async || {
        let open = pools.open();
        (open <= 4).then_some(()).ok_or(open)
    })
    .await;
}

#[tokio::test]
async fn an_execution_never_has_more_than_its_pool_allows() {
    let (pools, _database) = pools("limit", Budget::new(20, 10), 2).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(pools.lent(0).await);
    }
    let patience = Duration::from_millis(500);
    let sixth = pools.within(0, patience).await;
    assert!(sixth.is_none(), "2 + 3 are lent");
    assert_eq!(pools.open(), 5, "nor was a sixth dialled");
    // The budget has room: another execution's pool is let through.
    pools.lent(1).await.give_back().await;
}

#[tokio::test]
async fn within_a_pool_first_come_is_first_served() {
    let (pools, _database) = pools("fifo", Budget::new(20, 10), 1).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(pools.lent(0).await);
    }
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (waiter, served) = (pools.clone(), served.clone());
        waiting.spawn(async move {
            let checkout = waiter.lent(0).await;
            served.send(number).expect("the test listens");
            checkout.give_back().await;
        });
        tokio::task::yield_now().await;
    }
    drop((served, held));
    let mut seen = Vec::new();
    while let Some(number) = order.recv().await {
        seen.push(number);
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    waiting.join_all().await;
}

#[tokio::test]
async fn a_returned_connection_is_lent_again_and_has_forgotten_its_session() {
    let (pools, _database) = pools("forgotten", Budget::new(20, 10), 1).await;
    let mut first = pools.lent(0).await;
    let pid = first.pid();
    run(&mut first, "CREATE TEMP TABLE secret ()").await;
    run(&mut first, "BEGIN").await;
    first.give_back().await;
    let mut second = pools.lent(0).await;
    assert_eq!(second.pid(), pid, "the same server connection");
    let connection = second.connection().expect("held");
    let gone = connection.clean("DROP TABLE secret").await.unwrap_err();
    assert!(gone.to_string().contains("42P01"), "{gone}");
}

#[tokio::test]
async fn a_used_connection_that_is_dropped_is_never_lent_again() {
    let (pools, _database) = pools("dropped", Budget::new(20, 10), 1).await;
    let mut first = pools.lent(0).await;
    let pid = first.pid();
    run(&mut first, "BEGIN").await;
    drop(first);
    let second = pools.lent(0).await;
    assert_ne!(second.pid(), pid);
}

#[tokio::test]
async fn a_waiter_that_goes_takes_nothing_with_it() {
    let (pools, _database) = pools("gone", Budget::new(1, 0), 2).await;
    let held = pools.lent(0).await;
    for _ in 0..50 {
        let refused = pools.within(1, Duration::from_millis(2)).await;
        assert!(refused.is_none(), "the budget is used up");
        let shortage = pools.lender.shortage(pool(1), WaiterId(0));
        assert_eq!((shortage.limit, shortage.queue.waiting), (Limit::Budget, 0));
    }
    drop(held);
    pools.lent(1).await.give_back().await;
    assert_eq!(pools.open(), 1, "one permit, and it is back");
}

#[tokio::test]
async fn a_dead_idle_connection_is_replaced_unseen() {
    let (pools, database) = pools("dead", Budget::new(20, 10), 1).await;
    let first = pools.lent(0).await;
    let pid = first.pid().expect("held");
    first.give_back().await;
    let kill = format!("SELECT pg_terminate_backend({pid}, 60000)");
    let admin = Postgres::shared().admin().await;
    admin.simple_query(&kill).await.expect("killed");
    let second = pools.lent(0).await;
    assert_ne!(second.pid(), Some(pid));
    let filter = format!(
        "datname = '{}' AND application_name = 'lending'",
        database.name
    );
    assert_eq!(Postgres::shared().activity(&filter).await.len(), 1);
}

#[tokio::test]
async fn nothing_is_left_of_a_pool_that_is_shut() {
    let (pools, database) = pools("shut", Budget::new(6, 0), 2).await;
    let idle = pools.lent(0).await;
    let used = pools.lent(0).await;
    idle.give_back().await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(pools.lent(1).await);
    }
    let waiter = pools.clone();
    let waiting = tokio::spawn(async move {
        let _first = waiter.lent(0).await;
        waiter.within(0, SOON).await.map(|answer| answer.map(drop))
    });
    eventually(SOON, "it has one and waits for another", async || {
        let waiting = pools.lender.budget().1.waiting;
        if waiting == 1 { Ok(()) } else { Err(waiting) }
    })
    .await;
    pools.lender.shut(pool(0));
    let answer = waiting.await.expect("it ends");
    let refused = answer.expect("in time").unwrap_err();
    assert!(matches!(refused, Refused::Ended), "{refused}");
    used.give_back().await;
    eventually(SOON, "the pool is forgotten", async || {
        let counts = pools.lender.counts(pool(0));
        counts.is_none().then_some(()).ok_or(counts)
    })
    .await;
    pools.lender.emptied(pool(0)).await;
    let filter = format!(
        "datname = '{}' AND application_name = 'lending'",
        database.name
    );
    assert_eq!(
        Postgres::shared().activity(&filter).await.len(),
        4,
        "the others' alone"
    );
    assert_eq!(pools.open(), 4);
}

#[tokio::test]
async fn a_failed_dial_tells_the_servers_reason_and_keeps_no_permit() {
    let (pools, database) = pools("failed", Budget::new(1, 0), 1).await;
    let mut wrong = target(Postgres::shared(), &database);
    wrong.database = "no such database".to_owned();
    let mut misled = pools.clone();
    misled.key = key(&pools.lender, wrong);
    for _ in 0..3 {
        let answer = misled.within(0, SOON).await.expect("in time");
        let refused = answer.unwrap_err();
        assert!(refused.to_string().contains("does not exist"), "{refused}");
    }
    pools.lent(0).await.give_back().await;
}

#[tokio::test]
async fn a_full_database_lowers_the_budget_and_a_probe_raises_it_again() {
    let options = PostgresOptions {
        max_connections: 8,
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start(options);
    let database = postgres.database("full").await;
    let pools = Pools::over(target(&postgres, &database), Budget::new(20, 0), 0);
    pools.lender.admit(pool(0), None);
    let mut held = Vec::new();
    eventually(SOON, "the database takes no more", async || {
        // Whoever gets nothing for a while may only have been slow.
        while let Some(checkout) = pools.within(0, Duration::from_secs(1)).await {
            held.push(checkout.expect("a full database keeps us waiting"));
        }
        let shortage = pools.lender.shortage(pool(0), WaiterId(0));
        let is_full =
            shortage.limit == Limit::Database && shortage.budget.effective() == held.len();
        is_full.then_some(()).ok_or(shortage)
    })
    .await;
    for checkout in held.drain(1..) {
        checkout.discard();
    }
    for _ in 0..3 {
        held.push(pools.lent(0).await);
    }
    pools.lender.probe();
}

#[tokio::test]
async fn a_cancel_request_never_reaches_the_next_session() {
    let (pools, _database) = pools("cancels", Budget::new(1, 0), 1).await;
    let mut requests = tokio::task::JoinSet::new();
    let mut pid = None;
    for turn in 0..300 {
        let mut checkout = pools.lent(0).await;
        let first = *pid.get_or_insert(checkout.pid());
        assert_eq!(checkout.pid(), first, "no reset was cancelled either");
        let connection = checkout.connection().expect("held");
        let work = connection.clean("DO $$ BEGIN PERFORM pg_sleep(0.003); END $$");
        work.await.expect("nobody cancels this session");
        let canceller = checkout.canceller().expect("held");
        requests.spawn(async move { canceller.cancel().await });
        if turn % 3 > 0 {
            tokio::task::yield_now().await;
        }
        checkout.give_back().await;
    }
    let outcomes = requests.join_all().await.into_iter();
    let sent = outcomes.filter(|outcome| matches!(outcome, Ok(Cancelled::Sent)));
    assert!(
        sent.count() >= 100,
        "too few arrive while the connection changes hands"
    );
}

#[tokio::test]
async fn a_connection_that_was_idle_for_long_is_asked_before_it_is_lent() {
    let postgres = Postgres::shared();
    let database = postgres.database("asked").await;
    let proxy = Proxy::unix(postgres).await;
    let mut target = target(postgres, &database);
    target.addresses = vec![proxy.address()];
    target.upkeep.ping_after = Some(Duration::ZERO);
    let pools = Pools::over(target.clone(), Budget::new(1, 0), 1);
    let first = pools.lent(0).await;
    let pid = first.pid();
    first.give_back().await;
    let again = pools.lent(0).await;
    assert_eq!(again.pid(), pid, "one that answers is lent");
    drop(again);
    // The answer is waited for as long as a connect.
    target.connect_timeout = Duration::from_secs(5);
    let pools = Pools::over(target, Budget::new(1, 0), 1);
    let first = pools.lent(0).await;
    let pid = first.pid();
    first.give_back().await;
    // Silent, as behind a firewall that has forgotten it: only asking tells.
    proxy.set(Fault::FreezeOld);
    let second = pools.lent(0).await;
    assert_ne!(second.pid(), pid, "one that does not is replaced unseen");
    assert!(pools.open() <= 1, "within the budget");
}

#[tokio::test]
async fn what_is_parked_goes_to_its_session_first_and_to_others_before_they_would_wait() {
    let (pools, _database) = pools("parked", Budget::new(2, 0), 1).await;
    let (one, two) = (pools.session(), pools.session());
    let checkout = async |session| {
        let checkout = pools.lender.checkout(pool(0), &pools.key, session);
        tokio::time::timeout(SOON, checkout)
            .await
            .expect("in time")
            .expect("lent")
    };
    let (first, second) = (checkout(one).await, checkout(two).await);
    let (pid_one, pid_two) = (first.pid(), second.pid());
    first.park(one);
    second.park(two);
    assert_eq!(checkout(one).await.pid(), pid_one);
    assert_eq!(checkout(two).await.pid(), pid_two);
    // Both of somebody who has not come back: a third gets what was parked longest.
    let (first, second) = (checkout(one).await, checkout(two).await);
    first.park(one);
    second.park(two);
    let third = pools.lent(0).await;
    let parked_longest = third.pid();
    assert!([pid_one, pid_two].contains(&parked_longest));
    assert_eq!(pools.open(), 2, "nothing was dialled for it");
}

#[tokio::test]
async fn hosts_are_tried_in_their_order() {
    let postgres = Postgres::shared();
    let database = postgres.database("hosts").await;
    let mut target = target(postgres, &database);
    let nobody = Address::Unix {
        dir: "/nonexistent".into(),
        port: 1,
    };
    target.addresses.insert(0, nobody.clone());
    let pools = Pools::over(target.clone(), Budget::new(1, 0), 1);
    assert!(pools.lent(0).await.is_alive());
    target.addresses = vec![nobody];
    let pools = Pools::over(target, Budget::new(1, 0), 1);
    let refused = pools.within(0, SOON).await.expect("in time").unwrap_err();
    assert!(refused.to_string().contains("/nonexistent"), "{refused}");
}

#[tokio::test]
async fn a_rotated_password_is_used_at_the_next_dial() {
    let postgres = Postgres::shared();
    let database = postgres.database("rotated").await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut target = target(postgres, &database);
    target.user = "scram_user".to_owned();
    target.password = Password::new(PasswordSource::File(file.path().to_owned()));
    let pools = Pools::over(target, Budget::new(1, 0), 1);
    for (password, fits) in [("wrong", false), (PASSWORD, true)] {
        std::fs::write(file.path(), format!("{password}\n")).expect("written");
        let answer = pools.within(0, SOON).await.expect("in time");
        assert_eq!(answer.is_ok(), fits, "{:?}", answer.err());
    }
}

#[tokio::test]
async fn a_dial_for_a_pool_that_is_shut_is_given_up_and_its_permit_comes_back() {
    let postgres = Postgres::shared();
    let database = postgres.database("given_up").await;
    let proxy = Proxy::unix(postgres).await;
    let mut target = target(postgres, &database);
    target.addresses = vec![proxy.address()];
    let pools = Pools::over(target, Budget::new(1, 0), 2);
    proxy.set(Fault::Freeze);
    let waiting = pools.clone();
    let waiting =
        tokio::spawn(async move { waiting.within(0, SOON).await.map(|answer| answer.map(drop)) });
    eventually(SOON, "it dials", async || match pools.open() {
        1 => Ok(()),
        open => Err(open),
    })
    .await;
    pools.lender.shut(pool(0));
    let refused = waiting
        .await
        .expect("no panic")
        .expect("in time")
        .unwrap_err();
    assert!(matches!(refused, Refused::Ended), "{refused}");
    let emptied = pools.lender.emptied(pool(0));
    // It would go on for a minute.
    tokio::time::timeout(SOON / 2, emptied)
        .await
        .expect("given up");
    assert_eq!(pools.open(), 0);
    proxy.set(Fault::None);
    assert!(pools.lent(1).await.is_alive(), "the permit serves another");
}
