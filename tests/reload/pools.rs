//! Budget, pools and waits, changed under those who use them.

use std::time::{Duration, Instant};

use super::support::session::{error, rows};
use super::support::{Raw, Sidecar, eventually};
use super::{SOON, place};

async fn opens(sidecar: &Sidecar, open: u64) {
    eventually(SOON, &format!("{open} are open"), async || {
        let budget = sidecar.get("/v1/status").await["budget"].clone();
        let settled = budget["open"] == open && budget["connecting"] == 0;
        if settled { Ok(()) } else { Err(budget) }
    })
    .await;
}

/// A session that holds a server connection.
async fn holder(sidecar: &Sidecar, execution: &str) -> Raw {
    let mut raw = sidecar.session("app", execution).await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    raw
}

/// A session whose query waits.
async fn waiter(sidecar: &Sidecar, execution: &str) -> Raw {
    let mut raw = sidecar.session("app", execution).await;
    raw.send(b"Q\0\0\0\x0dSELECT 1\0").await;
    sidecar.session_is(execution, "waiting").await;
    raw
}

async fn gets(raw: &mut Raw) {
    let messages = raw.read_until(b'Z').await;
    assert_eq!(rows(&messages), ["1"], "{messages:?}");
}

#[tokio::test]
async fn a_larger_budget_lets_in_who_waits_at_once() {
    let (_database, sidecar, yaml) = place("grown", "budget: {size: 1, overflow: 0}\n").await;
    let _holder = holder(&sidecar, "a").await;
    let mut waiter = waiter(&sidecar, "b").await;
    sidecar
        .reload(&format!("{yaml}budget: {{size: 1, overflow: 1}}\n"))
        .await;
    gets(&mut waiter).await;
}

#[tokio::test]
async fn a_smaller_budget_ends_no_session_and_closes_what_comes_back_until_it_fits() {
    let (_database, sidecar, yaml) = place("shrunk", "budget: {size: 4, overflow: 0}\n").await;
    let mut holders = Vec::new();
    for number in 0..4 {
        holders.push(holder(&sidecar, &format!("h{number}")).await);
    }
    let changes = format!("{yaml}budget: {{size: 2, overflow: 0}}\n");
    sidecar.reload(&changes).await;
    let mut waiter = waiter(&sidecar, "w").await;
    for holder in &mut holders {
        assert_eq!(holder.ask("SELECT 'served'").await, "served");
    }
    for left in [3, 2] {
        holders.pop();
        opens(&sidecar, left).await;
        let budget = sidecar.get("/v1/status").await["budget"].clone();
        assert_eq!(budget["waiting"], 1, "{budget}");
    }
    holders.pop();
    gets(&mut waiter).await;
    opens(&sidecar, 2).await;
}

#[tokio::test]
async fn what_is_idle_above_a_smaller_budget_is_closed_at_once() {
    let (_database, sidecar, yaml) = place("idle_above", "").await;
    for number in 0..2 {
        let execution = format!("e{number}");
        let sessions = [
            holder(&sidecar, &execution).await,
            holder(&sidecar, &execution).await,
        ];
        drop(sessions);
    }
    sidecar.settles().await;
    opens(&sidecar, 4).await;
    sidecar
        .reload(&format!("{yaml}budget: {{size: 1, overflow: 9}}\n"))
        .await;
    opens(&sidecar, 1).await;
}

#[tokio::test]
async fn pools_that_are_there_take_other_limits_unless_they_have_their_own() {
    let (_database, sidecar, yaml) = place("limits", "pool: {size: 1, overflow: 0}\n").await;
    let own = serde_json::json!({"id": "own", "pool": {"size": 1, "overflow": 0}});
    sidecar.control("POST", "/v1/executions", Some(own)).await;
    let mut holders = vec![holder(&sidecar, "a").await, holder(&sidecar, "own").await];
    let mut first = waiter(&sidecar, "a").await;
    let mut second = waiter(&sidecar, "own").await;
    sidecar
        .reload(&format!("{yaml}pool: {{size: 1, overflow: 1}}\n"))
        .await;
    gets(&mut first).await;
    second.expect_silence(Duration::from_millis(200)).await;
    // And back: one of the two is closed when it comes back, though somebody waits.
    sidecar
        .reload(&format!("{yaml}pool: {{size: 1, overflow: 0}}\n"))
        .await;
    let mut third = waiter(&sidecar, "a").await;
    drop(first);
    third.expect_silence(Duration::from_millis(300)).await;
    assert_eq!(holders[0].ask("SELECT 1").await, "1");
    holders.clear();
    gets(&mut third).await;
    gets(&mut second).await;
}

#[tokio::test]
async fn the_next_wait_has_the_new_timeout_and_the_new_notice() {
    let long = "budget: {size: 1, overflow: 0}\npool: {timeout: 5m}\n";
    let (_database, sidecar, yaml) = place("timeout", long).await;
    let _holder = holder(&sidecar, "a").await;
    let more = "budget: {size: 1, overflow: 0}\npool: {timeout: 400ms, notice_after: 100ms}\n";
    sidecar.reload(&format!("{yaml}{more}")).await;
    let begun = Instant::now();
    let mut raw = sidecar.session("app", "b").await;
    let messages = raw.query("SELECT 1").await;
    assert_eq!(error(&messages)[&'C'], "53300");
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(messages.iter().any(|message| message.kind == b'N'));
}

#[tokio::test]
async fn a_reserve_that_is_allowed_later_is_kept_from_pools_that_were_there() {
    let (database, sidecar, yaml) = place("reserve_later", "").await;
    // Nobody has looked at what this session leaves behind.
    let mut old = holder(&sidecar, "old").await;
    old.query("SET my.tenant = '7'").await;
    sidecar
        .reload(&format!("{yaml}budget: {{warm: 2}}\n"))
        .await;
    let old_backend = old.backend().await;
    drop(old);
    let mut young = holder(&sidecar, "young").await;
    let young_backend = young.backend().await;
    drop(young);
    sidecar.settles().await;
    for id in ["old", "young"] {
        let path = format!("/v1/executions/{id}");
        assert_eq!(sidecar.control("DELETE", &path, None).await.0, 200);
    }
    eventually(SOON, "only the younger one is kept", async || {
        let filter = format!(
            "datname = '{}' AND application_name <> 'execpool monitor'",
            database.name
        );
        let left = super::Postgres::shared().activity(&filter).await;
        let pids: Vec<i32> = left.iter().map(|backend| backend.pid).collect();
        if pids == [young_backend] {
            Ok(())
        } else {
            Err((pids, old_backend))
        }
    })
    .await;
    sidecar.reload(&yaml).await;
    opens(&sidecar, 0).await;
}
