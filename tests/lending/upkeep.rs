//! Idle connections are looked after: the old ones and those that nobody used for long are closed.

use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Pools of one execution whose connections are looked after like this.
async fn pools(name: &str, upkeep: Upkeep) -> (Pools, Database) {
    let postgres = Postgres::shared();
    let database = postgres.database(name).await;
    let target = Target {
        upkeep,
        ..target(postgres, &database)
    };
    (Pools::over(target, Budget::new(20, 10), 1), database)
}

impl Pools {
    /// Three connections: lent, parked and stored.
    async fn of_each_kind(&self) -> Checkout {
        self.lender.admit(pool(0), None);
        let (lent, parked, stored) = (self.lent(0).await, self.lent(0).await, self.lent(0).await);
        parked.park(self.session());
        stored.give_back().await;
        lent
    }

    /// How many are open once a sweep so much later has ended.
    async fn open_after_sweep(&self, later: Duration) -> usize {
        self.lender.sweep(Instant::now() + later);
        eventually(SOON, "closings have ended", async || {
            let budget = self.lender.budget().0;
            (budget.closing() == 0).then(|| budget.open()).ok_or(budget)
        })
        .await
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_its_age_give_or_take_a_tenth() {
    let upkeep = Upkeep {
        recycle: 10_000 * SECOND,
        idle_timeout: 99_999 * SECOND,
        ping_after: None,
    };
    let (pools, _database) = pools("recycle", upkeep).await;
    let lent = pools.of_each_kind().await;
    assert_eq!(pools.open_after_sweep(8900 * SECOND).await, 3);
    assert_eq!(
        pools.open_after_sweep(11_100 * SECOND).await,
        1,
        "the lent one"
    );
    drop(lent);
}

#[tokio::test]
async fn a_connection_that_comes_back_too_old_is_not_lent_again() {
    for (name, recycle, is_too_old) in [
        ("too_old", SECOND / 2, true),
        ("young_enough", 1000 * SECOND, false),
    ] {
        let upkeep = Upkeep { recycle, ..UPKEEP };
        let (pools, _database) = pools(name, upkeep).await;
        let lent = pools.lent(0).await;
        let pid = lent.pid();
        tokio::time::sleep(SECOND).await;
        lent.give_back().await;
        assert_eq!(pools.lent(0).await.pid() != pid, is_too_old, "{name}");
    }
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_closed() {
    let upkeep = Upkeep {
        recycle: 99_999 * SECOND,
        idle_timeout: 3000 * SECOND,
        ping_after: None,
    };
    let (pools, _database) = pools("idle_timeout", upkeep).await;
    let lent = pools.of_each_kind().await;
    assert_eq!(pools.open_after_sweep(2900 * SECOND).await, 3);
    assert_eq!(
        pools.open_after_sweep(3001 * SECOND).await,
        1,
        "the lent one"
    );
    drop(lent);
}

/// Lends a connection whose backend was stopped after it came back: its pid, and that of what is
/// lent.
async fn lent_after_a_stop(pools: &Pools) -> (Option<i32>, Option<i32>) {
    let first = pools.lent(0).await;
    let pid = first.pid();
    first.give_back().await;
    tokio::time::sleep(SECOND / 5).await;
    let backend = Pid::from_raw(pid.expect("it was held"));
    kill(backend, Signal::SIGSTOP).expect("it is the tests' own server");
    let second = pools.lent(0).await.pid();
    kill(backend, Signal::SIGCONT).expect("it is still there");
    (pid, second)
}

#[tokio::test]
async fn a_connection_that_was_not_idle_for_long_is_not_asked() {
    let upkeep = Upkeep {
        ping_after: Some(60 * SECOND),
        ..UPKEEP
    };
    let (pools, _database) = pools("not_asked", upkeep).await;
    let (stopped, lent) = lent_after_a_stop(&pools).await;
    assert_eq!(lent, stopped);
}
