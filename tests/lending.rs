//! Lending over real connections: never more than the budget by the server's own log,
//! first come first served, nothing lost when a waiter goes, nothing left of an ended
//! execution.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use execpool::budget::Budget;
use execpool::pool::{
    Cancelled, Checkout, ExecutionNumber, KeyId, Lender, PoolId, PoolLimits, Refused, Target,
    UpstreamNumber,
};
use execpool::protocol::startup::Parameters;
use execpool::server::Address;
use support::{Database, Postgres, PostgresOptions, eventually};
use tokio::runtime::Handle;

const SOON: Duration = Duration::from_secs(20);
const KEY: KeyId = KeyId(0);

fn pool(execution: u64) -> PoolId {
    PoolId {
        execution: ExecutionNumber(execution),
        upstream: UpstreamNumber(0),
    }
}

fn target(postgres: &Postgres, database: &Database) -> Target {
    let name = ("application_name".to_owned(), b"lending".to_vec());
    Target {
        address: Address::Unix {
            dir: postgres.directory().to_owned(),
            port: postgres.port(),
        },
        user: "app".to_owned(),
        database: database.name.clone(),
        password: None,
        parameters: Parameters::new(vec![name]),
        connect_timeout: SOON,
        reset: "DISCARD ALL".to_owned(),
    }
}

/// A lender to a fresh database, with `executions` pools of 2 + 3.
async fn lender(name: &str, budget: Budget, executions: u64) -> (Arc<Lender>, Database) {
    let postgres = Postgres::shared();
    let database = postgres.database(name).await;
    let lender = Lender::new(budget, Handle::current());
    lender.define(KEY, target(postgres, &database));
    for execution in 0..executions {
        let limits = PoolLimits {
            size: 2,
            overflow: 3,
        };
        lender.admit(pool(execution), Some(limits));
    }
    (lender, database)
}

async fn lent(lender: &Arc<Lender>, execution: u64) -> Checkout {
    let checkout = lender.checkout(pool(execution), KEY, SOON).await;
    checkout.expect("there is room, or soon will be")
}

/// Uses a checkout for one statement.
async fn run(checkout: &mut Checkout, sql: &str) {
    let connection = checkout.connection().expect("it is held");
    let _ = connection.clean(sql).await;
}

#[tokio::test]
async fn fifty_executions_never_open_more_than_the_budget() {
    let (lender, database) = lender("fifty", Budget::new(4, 3), 50).await;
    let mut running = tokio::task::JoinSet::new();
    for session in 0..200 {
        let lender = Arc::clone(&lender);
        running.spawn(async move {
            let mut checkout = lent(&lender, session % 50).await;
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
        let (open, _) = lender.open_and_effective();
        (open <= 4).then_some(()).ok_or(open)
    })
    .await;
}

#[tokio::test]
async fn an_execution_never_has_more_than_its_pool_allows() {
    let (lender, _database) = lender("limit", Budget::new(20, 10), 2).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(lent(&lender, 0).await);
    }
    let patience = Duration::from_millis(500);
    let sixth = lender.checkout(pool(0), KEY, patience).await;
    assert!(
        matches!(sixth, Err(Refused::TimedOut { .. })),
        "2 + 3 are lent"
    );
    assert_eq!(lender.open_and_effective().0, 5, "nor was a sixth dialled");
    // The budget has room: another execution's pool is let through.
    lent(&lender, 1).await.give_back().await;
}

#[tokio::test]
async fn within_a_pool_first_come_is_first_served() {
    let (lender, _database) = lender("fifo", Budget::new(20, 10), 1).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(lent(&lender, 0).await);
    }
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (waiter, served) = (Arc::clone(&lender), served.clone());
        waiting.spawn(async move {
            let checkout = lent(&waiter, 0).await;
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
    let (lender, _database) = lender("forgotten", Budget::new(20, 10), 1).await;
    let mut first = lent(&lender, 0).await;
    let pid = first.pid();
    run(&mut first, "CREATE TEMP TABLE secret ()").await;
    run(&mut first, "BEGIN").await;
    first.give_back().await;
    let mut second = lent(&lender, 0).await;
    assert_eq!(second.pid(), pid, "the same server connection");
    let connection = second.connection().expect("held");
    let gone = connection.clean("DROP TABLE secret").await.unwrap_err();
    assert!(gone.to_string().contains("42P01"), "{gone}");
}

#[tokio::test]
async fn a_used_connection_that_is_dropped_is_never_lent_again() {
    let (lender, _database) = lender("dropped", Budget::new(20, 10), 1).await;
    let mut first = lent(&lender, 0).await;
    let pid = first.pid();
    run(&mut first, "BEGIN").await;
    drop(first);
    let second = lent(&lender, 0).await;
    assert_ne!(second.pid(), pid);
}

#[tokio::test]
async fn a_waiter_that_goes_takes_nothing_with_it() {
    let (lender, _database) = lender("gone", Budget::new(1, 0), 2).await;
    let held = lent(&lender, 0).await;
    for _ in 0..50 {
        let impatient = lender.checkout(pool(1), KEY, Duration::from_millis(2));
        let refused = impatient.await.unwrap_err();
        assert!(matches!(
            refused,
            Refused::TimedOut {
                limited_by_database: false,
                ..
            }
        ));
    }
    drop(held);
    lent(&lender, 1).await.give_back().await;
    let (open, _) = lender.open_and_effective();
    assert_eq!(open, 1, "one permit, and it is back");
}

#[tokio::test]
async fn a_dead_idle_connection_is_replaced_unseen() {
    let (lender, database) = lender("dead", Budget::new(20, 10), 1).await;
    let first = lent(&lender, 0).await;
    let pid = first.pid().expect("held");
    first.give_back().await;
    let kill = format!("SELECT pg_terminate_backend({pid}, 5000)");
    let admin = Postgres::shared().admin().await;
    admin.simple_query(&kill).await.expect("killed");
    let second = lent(&lender, 0).await;
    assert_ne!(second.pid(), Some(pid));
    let filter = format!(
        "datname = '{}' AND application_name = 'lending'",
        database.name
    );
    assert_eq!(Postgres::shared().activity(&filter).await.len(), 1);
}

#[tokio::test]
async fn nothing_is_left_of_a_pool_that_is_shut() {
    let (lender, database) = lender("shut", Budget::new(6, 0), 2).await;
    let idle = lent(&lender, 0).await;
    let used = lent(&lender, 0).await;
    idle.give_back().await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(lent(&lender, 1).await);
    }
    let waiter = Arc::clone(&lender);
    let waiting = tokio::spawn(async move {
        let _first = lent(&waiter, 0).await;
        waiter.checkout(pool(0), KEY, SOON).await.map(drop)
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    lender.shut(pool(0));
    let refused = waiting.await.expect("it ends").unwrap_err();
    assert!(matches!(refused, Refused::Ended), "{refused}");
    used.give_back().await;
    eventually(SOON, "the pool is forgotten", async || {
        lender
            .counts(pool(0))
            .is_none()
            .then_some(())
            .ok_or("still known")
    })
    .await;
    let filter = format!(
        "datname = '{}' AND application_name = 'lending'",
        database.name
    );
    assert_eq!(
        Postgres::shared().activity(&filter).await.len(),
        4,
        "the others' alone"
    );
    assert_eq!(lender.open_and_effective().0, 4);
}

#[tokio::test]
async fn a_failed_dial_tells_the_servers_reason_and_keeps_no_permit() {
    let (lender, database) = lender("failed", Budget::new(1, 0), 1).await;
    let mut wrong = target(Postgres::shared(), &database);
    wrong.database = "no such database".to_owned();
    lender.define(KeyId(1), wrong);
    for _ in 0..3 {
        let refused = lender.checkout(pool(0), KeyId(1), SOON).await.unwrap_err();
        assert!(refused.to_string().contains("does not exist"), "{refused}");
    }
    lent(&lender, 0).await.give_back().await;
}

#[tokio::test]
async fn a_full_database_lowers_the_budget_and_a_probe_raises_it_again() {
    let options = PostgresOptions {
        max_connections: 8,
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start(options);
    let database = postgres.database("full").await;
    let lender = Lender::new(Budget::new(20, 0), Handle::current());
    lender.define(KEY, target(&postgres, &database));
    lender.admit(pool(0), None);
    let patience = Duration::from_secs(1);
    let mut held = Vec::new();
    let refused = loop {
        match lender.checkout(pool(0), KEY, patience).await {
            Ok(checkout) => held.push(checkout),
            Err(refused) => break refused,
        }
    };
    let full = matches!(
        refused,
        Refused::TimedOut {
            limited_by_database: true,
            ..
        }
    );
    assert!(full, "{refused}");
    assert_eq!(lender.open_and_effective().1, held.len());
    for checkout in held.drain(1..) {
        checkout.discard();
    }
    for _ in 0..3 {
        held.push(
            lender
                .checkout(pool(0), KEY, SOON)
                .await
                .expect("room again"),
        );
    }
}

#[tokio::test]
async fn a_cancel_request_never_reaches_the_next_session() {
    let (lender, _database) = lender("cancels", Budget::new(1, 0), 1).await;
    let mut requests = tokio::task::JoinSet::new();
    let mut pid = None;
    for turn in 0..300 {
        let mut checkout = lent(&lender, 0).await;
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
