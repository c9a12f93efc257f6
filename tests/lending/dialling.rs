//! Where a server connection comes from, and when a pool has none left.

use super::*;

const A_SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_pool_is_emptied_when_its_last_connection_is_closed() {
    let (pools, _database) = pools("emptied", Budget::new(20, 10), 1).await;
    let (first, second) = (pools.lent(0).await, pools.lent(0).await);
    first.give_back().await;
    pools.lender.shut(pool(0));
    let emptied = pools.lender.emptied(pool(0));
    let mut emptied = std::pin::pin!(emptied);
    let early = tokio::time::timeout(A_SECOND / 2, &mut emptied).await;
    assert!(early.is_err(), "one is still lent");
    assert_eq!(pools.lender.pids(pool(0)), [second.pid().unwrap()]);
    second.give_back().await;
    tokio::time::timeout(SOON, emptied).await.expect("soon");
    assert_eq!((pools.open(), pools.lender.pids(pool(0)).len()), (0, 0));
    // Of one that is not there, nothing is waited for.
    pools.lender.emptied(pool(7)).await;
}

#[tokio::test]
async fn several_addresses_are_tried_in_their_order() {
    let postgres = Postgres::shared();
    let database = postgres.database("addresses").await;
    let (first, second) = (Proxy::tcp(postgres).await, Proxy::tcp(postgres).await);
    let address = |proxy: &Proxy| Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port: port(&proxy.url(&database)),
    };
    let target = Target {
        addresses: vec![address(&first), address(&second)],
        ..target(postgres, &database)
    };
    let pools = Pools::over(target.clone(), Budget::new(20, 10), 1);
    let one = pools.lent(0).await;
    assert_eq!((first.connections(), second.connections()), (1, 0));
    first.set(Fault::Refuse);
    eventually(SOON, "nobody listens", async || {
        let address = ("127.0.0.1", port(&first.url(&database)));
        let reached = tokio::net::TcpStream::connect(address).await;
        reached.err().ok_or("it is still accepted")
    })
    .await;
    let two = pools.lent(0).await;
    assert_eq!(second.connections(), 1);
    first.set(Fault::None);
    drop((one, two));

    // A server that answers with a refusal is asked, and no other.
    let wrong = Target {
        database: "no such database".to_owned(),
        ..target
    };
    let mut misled = pools.clone();
    misled.key = key(&pools.lender, wrong);
    let refused = misled.within(0, SOON).await.expect("in time").unwrap_err();
    assert!(refused.to_string().contains("does not exist"), "{refused}");
}

fn port(url: &str) -> u16 {
    let (_, rest) = url.rsplit_once(':').expect("a port");
    let (port, _) = rest.split_once('/').expect("a database");
    port.parse().expect("a number")
}

#[tokio::test]
async fn more_waiters_than_the_budget_over_several_keys_of_one_pool_are_all_served() {
    let (pools, database) = pools("keys", Budget::new(2, 1), 1).await;
    let names = ["one", "two", "three", "four"];
    let keys = names.map(|name| {
        let name = ("application_name".to_owned(), name.as_bytes().to_vec());
        let parameters = Parameters::new(vec![name]);
        let target = target(Postgres::shared(), &database);
        key(
            &pools.lender,
            Target {
                parameters,
                ..target
            },
        )
    });
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..120 {
        let mut pools = pools.clone();
        let at = number % keys.len();
        pools.key = Arc::clone(&keys[at]);
        waiting.spawn(async move {
            let mut checkout = pools.lent(0).await;
            let told = checkout
                .reported()
                .find(|(name, _)| *name == "application_name");
            assert_eq!(told.map(|(_, value)| value), Some(names[at].as_bytes()));
            run(&mut checkout, "SET work_mem = '1MB'").await;
            checkout.give_back().await;
        });
    }
    while let Some(served) = waiting.join_next().await {
        served.expect("every session gets a connection of its own key");
    }
    let log = Postgres::shared()
        .connection_log()
        .of_database(&database.name);
    assert!(log.peak() <= 3, "{} at once", log.peak());
}
