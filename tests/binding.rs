//! Which server connection a session gets, and when: a session that has not queried holds
//! nothing, the first one is told its real backend, and what changes in between is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::Duration;

use postgres_protocol::message::frontend;
use support::session::{assert_in, batch, error, kinds, place, rows, told_pid};
use support::sidecar::upstream;
use support::{Fault, Message, Postgres, PostgresOptions, Proxy, Raw, SOON, Sidecar, eventually};

/// Above every process id that a server gives.
const SYNTHETIC: i32 = 4_194_304;
const BUDGET_OF_ONE: &str = "budget: {size: 1, overflow: 0}\npool: {timeout: 10m}\n";

/// A session of an execution, and what it was told.
async fn started(sidecar: &Sidecar, execution: &str) -> (Raw, Vec<Message>) {
    let named = [("execpool.execution_id", execution)];
    let (raw, told) = sidecar.started("app", &named).await;
    assert_in(&told);
    (raw, told)
}

/// The value of a parameter that is told.
fn parameter(told: &[Message], name: &str) -> Option<String> {
    let mut parameters = told.iter().filter_map(Message::parameter);
    Some(parameters.find(|(known, _)| known == name)?.1)
}

async fn used(sidecar: &Sidecar) -> (u64, u64) {
    let status = sidecar.get("/v1/status").await;
    let count = |name: &str| status["budget"][name].as_u64().unwrap();
    (count("used"), count("open"))
}

#[tokio::test]
async fn the_first_session_is_told_its_real_backend_and_uses_it() {
    let (_database, sidecar) = place("first", "").await;
    let (mut raw, told) = started(&sidecar, "a").await;
    assert!(told_pid(&told) < SYNTHETIC);
    assert_eq!(
        used(&sidecar).await,
        (0, 1),
        "it holds nothing before it queries"
    );
    assert_eq!(raw.backend().await, told_pid(&told));
    // So does the next one, while there is room.
    let (mut next, told_next) = started(&sidecar, "a").await;
    assert_ne!(told_pid(&told_next), told_pid(&told));
    assert_eq!(next.backend().await, told_pid(&told_next));
}

#[tokio::test]
async fn each_of_several_unbound_sessions_finds_the_backend_it_was_told() {
    let (_database, sidecar) = place("marked", "").await;
    let (mut one, told_one) = started(&sidecar, "a").await;
    one.backend().await;
    let (mut two, told_two) = started(&sidecar, "a").await;
    let (mut other, told_other) = started(&sidecar, "b").await;
    assert_eq!(other.backend().await, told_pid(&told_other));
    assert_eq!(two.backend().await, told_pid(&told_two));
    assert_eq!(one.backend().await, told_pid(&told_one));
}

#[tokio::test]
async fn sessions_that_have_not_asked_anything_are_each_told_a_backend_of_their_own() {
    let (_database, sidecar) = place("own_backends", "").await;
    // Its key is known from here on.
    let (mut first, _) = started(&sidecar, "z").await;
    first.backend().await;
    let (mut one, told_one) = started(&sidecar, "a").await;
    let (mut two, told_two) = started(&sidecar, "a").await;
    let (_three, told_three) = started(&sidecar, "a").await;
    assert_ne!(told_pid(&told_one), told_pid(&told_two));
    // Three of a pool of two could not all stay open idle.
    assert!(told_pid(&told_three) > SYNTHETIC, "{told_three:?}");
    assert_eq!(two.backend().await, told_pid(&told_two));
    assert_eq!(one.backend().await, told_pid(&told_one));
}

#[tokio::test]
async fn sessions_that_come_at_the_same_time_are_each_told_a_backend_of_their_own() {
    let postgres = Postgres::shared();
    let database = postgres.database("same_time").await;
    let proxy = Proxy::unix(postgres).await;
    let sidecar = Sidecar::start(upstream("app", &proxy.url(&database))).await;
    // Its key is known from here on.
    let (mut first, _) = started(&sidecar, "z").await;
    first.backend().await;
    // Each dial takes a while, so that the second comes amid the first one's.
    proxy.set(Fault::Delay(Duration::from_millis(50)));
    let (one, two) = tokio::join!(started(&sidecar, "a"), started(&sidecar, "a"));
    for (mut session, told) in [one, two] {
        assert_eq!(session.backend().await, told_pid(&told), "{told:?}");
    }
}

#[tokio::test]
async fn a_session_that_cannot_be_bound_at_once_is_told_a_synthetic_process_id_and_works() {
    let (_database, sidecar) = place("synthetic", BUDGET_OF_ONE).await;
    let (mut holder, _) = started(&sidecar, "a").await;
    let held = holder.backend().await;
    let mut pids = Vec::new();
    for execution in ["a", "b", "c"] {
        let (mut late, told) = started(&sidecar, execution).await;
        let pid = told_pid(&told);
        assert!(pid > SYNTHETIC, "{told:?}");
        assert!(!pids.contains(&pid), "each is told another");
        pids.push(pid);
        assert_eq!(parameter(&told, "client_encoding").as_deref(), Some("UTF8"));
        assert_eq!(used(&sidecar).await, (1, 1));
        late.send(b"Q\0\0\0\x0dSELECT 7\0").await;
        sidecar.session_is(execution, "waiting").await;
        drop(holder);
        let told = late.read_until(b'Z').await;
        assert_eq!(rows(&told), ["7"], "{told:?}");
        assert_ne!(late.backend().await, pid);
        holder = late;
    }
    assert!(held < SYNTHETIC);
}

#[tokio::test]
async fn a_session_with_a_synthetic_process_id_can_be_cancelled() {
    let (database, sidecar) = place("synthetic_cancel", BUDGET_OF_ONE).await;
    let (mut holder, _) = started(&sidecar, "a").await;
    holder.backend().await;
    let (mut late, told) = started(&sidecar, "b").await;
    let key = told.iter().find(|message| message.kind == b'K').unwrap();
    drop(holder);
    late.send(b"Q\0\0\0\x19SELECT pg_sleep(600)\0").await;
    Postgres::shared().waits_in(&database, "PgSleep").await;
    let mut request = vec![0, 0, 0, 16, 4, 210, 22, 46];
    request.extend_from_slice(&key.body);
    let mut cancel = sidecar.raw().await;
    cancel.send(&request).await;
    cancel.expect_closed().await;
    let told = late.read_until(b'Z').await;
    assert_eq!(error(&told)[&'C'], "57014");
    assert_eq!(late.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_parameter_that_changed_until_the_binding_is_told_before_the_first_answer() {
    let (database, sidecar) = place("changed", BUDGET_OF_ONE).await;
    let (mut holder, told) = started(&sidecar, "a").await;
    holder.backend().await;
    let before = parameter(&told, "TimeZone").unwrap();
    assert_ne!(before, "Asia/Tokyo");
    let (mut late, told) = started(&sidecar, "b").await;
    assert_eq!(parameter(&told, "TimeZone"), Some(before));
    let change = format!(
        "ALTER DATABASE \"{}\" SET TimeZone TO 'Asia/Tokyo'",
        database.name
    );
    Postgres::shared()
        .admin()
        .await
        .batch_execute(&change)
        .await
        .unwrap();
    drop(holder);
    let told = late.query("SHOW TimeZone").await;
    assert_eq!(kinds(&told), "STDCZ", "{told:?}");
    assert_eq!(parameter(&told, "TimeZone").as_deref(), Some("Asia/Tokyo"));
    assert_eq!(rows(&told), ["Asia/Tokyo"]);
    // Once is enough.
    assert_eq!(kinds(&late.query("SHOW TimeZone").await), "TDCZ");
}

#[tokio::test]
async fn a_reload_that_an_idle_connection_reports_is_told_to_whom_it_is_lent() {
    let postgres = Postgres::start(PostgresOptions::default());
    let database = postgres.database("reloaded").await;
    let yaml = upstream("app", &database.url()) + "pool: {size: 1, overflow: 0}\n";
    let sidecar = Sidecar::start(yaml).await;
    let (mut first, _) = started(&sidecar, "a").await;
    first.backend().await;
    let (mut late, _) = started(&sidecar, "a").await;
    let admin = postgres.admin().await;
    admin
        .batch_execute("ALTER SYSTEM SET TimeZone TO 'Asia/Tokyo'")
        .await
        .unwrap();
    admin
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    // The holder is told by its server, as without execpool.
    let zone = eventually(SOON, "the holder learns of it", async || {
        let told = first.query("SELECT 1").await;
        parameter(&told, "TimeZone").ok_or(told)
    })
    .await;
    assert_eq!(zone, "Asia/Tokyo");
    drop(first);
    let told = late.query("SHOW TimeZone").await;
    assert_eq!(
        parameter(&told, "TimeZone").as_deref(),
        Some("Asia/Tokyo"),
        "{told:?}"
    );
    assert_eq!(kinds(&told), "STDCZ");
    assert_eq!(rows(&told), ["Asia/Tokyo"]);
}

#[tokio::test]
async fn what_a_session_sets_is_not_told_to_the_next() {
    let (_database, sidecar) = place("set", "pool: {size: 1, overflow: 0}\n").await;
    let (mut first, _) = started(&sidecar, "a").await;
    let told = first.query("SET TimeZone = 'Asia/Tokyo'").await;
    assert_eq!(parameter(&told, "TimeZone").as_deref(), Some("Asia/Tokyo"));
    let backend = first.backend().await;
    drop(first);
    let (mut next, told) = started(&sidecar, "a").await;
    assert_ne!(parameter(&told, "TimeZone").as_deref(), Some("Asia/Tokyo"));
    let told = next.query("SELECT pg_backend_pid()").await;
    assert_eq!(kinds(&told), "TDCZ", "nothing has changed for it");
    assert_eq!(
        rows(&told),
        [backend.to_string()],
        "and it has the same backend"
    );
}

#[tokio::test]
async fn sessions_that_have_not_queried_are_in_nobodys_way() {
    let (_database, sidecar) = place("unbound", BUDGET_OF_ONE).await;
    let mut sessions = Vec::new();
    for number in 0..5 {
        sessions.push(started(&sidecar, &format!("e{number}")).await.0);
        let (used, open) = used(&sidecar).await;
        assert!(used == 0 && open <= 1, "{used} used, {open} open");
    }
    // The last first: what is kept for the others is taken.
    for mut session in sessions.into_iter().rev() {
        assert_eq!(session.ask("SELECT 1").await, "1");
        assert_eq!(used(&sidecar).await, (1, 1));
    }
    sidecar.settles().await;
}

#[tokio::test]
async fn a_backend_that_ended_in_the_pool_is_replaced_unseen() {
    let (database, sidecar) = place("ended", "").await;
    let (mut first, _) = started(&sidecar, "a").await;
    let backend = first.backend().await;
    drop(first);
    sidecar.settles().await;
    let (mut unbound, told) = started(&sidecar, "a").await;
    assert_eq!(told_pid(&told), backend, "what is idle is lent again");
    let end = format!("SELECT pg_terminate_backend({backend}, 60000)");
    Postgres::shared()
        .admin()
        .await
        .batch_execute(&end)
        .await
        .unwrap();
    let (mut next, told) = started(&sidecar, "a").await;
    assert_ne!(told_pid(&told), backend);
    assert_ne!(next.backend().await, backend);
    assert_ne!(unbound.backend().await, backend);
    assert_eq!(Postgres::shared().pooled(&database).await.len(), 2);
}

#[tokio::test]
async fn a_restart_of_the_server_is_not_seen_by_who_does_not_query() {
    let mut postgres = Postgres::start(PostgresOptions::default());
    let database = postgres.database("restarted").await;
    let waiting = |timeout: &str| {
        upstream("app", &database.url()) + &format!("pool: {{timeout: {timeout}}}\n")
    };
    let sidecar = Sidecar::start(waiting("1m")).await;
    let (mut idle, _) = started(&sidecar, "a").await;
    let (mut holder, _) = started(&sidecar, "b").await;
    holder.query("BEGIN").await;
    let (mut gone, _) = started(&sidecar, "c").await;
    gone.backend().await;
    drop(gone);
    postgres.stop();
    let told = holder.expect_error().await;
    assert!(
        ["57P02", "08006"].contains(&told[&'C'].as_str()),
        "{told:?}"
    );
    holder.expect_closed().await;

    // While it is away, who queries waits, is told, and lives on.
    sidecar.reload(&waiting("5s")).await;
    let told = idle.query("SELECT 1").await;
    assert_eq!(kinds(&told), "EZ");
    assert_eq!(error(&told)[&'C'], "08001");
    sidecar.reload(&waiting("1m")).await;
    postgres.start_again();
    assert_eq!(idle.ask("SELECT 1").await, "1");
    let (mut next, told) = started(&sidecar, "c").await;
    assert!(told_pid(&told) < SYNTHETIC);
    assert_eq!(next.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_client_that_goes_amid_a_ping_leaves_no_answer_behind() {
    let postgres = Postgres::shared();
    let proxy = Proxy::unix(postgres).await;
    let database = postgres.database("pings").await;
    let yaml = upstream("app", &proxy.url(&database))
        + "    connect_timeout: 1m\npool: {size: 1, overflow: 0, ping_after: 0s, timeout: 10m}\n";
    let sidecar = Sidecar::start(yaml).await;
    let (mut first, _) = started(&sidecar, "a").await;
    first.backend().await;
    let (mut late, _) = started(&sidecar, "a").await;
    drop(first);
    eventually(SOON, "its connection is back", async || {
        let budget = sidecar.get("/v1/status").await["budget"].take();
        if budget["idle"] == 1 {
            Ok(())
        } else {
            Err(budget)
        }
    })
    .await;

    proxy.set(Fault::Freeze);
    let mut hasty = sidecar.raw().await;
    hasty
        .send_with(|buffer| {
            let named = [
                ("user", "app"),
                ("database", "app"),
                ("execpool.execution_id", "a"),
            ];
            frontend::startup_message(named, buffer).unwrap();
        })
        .await;
    sidecar.session_is("a", "startup").await;
    drop(hasty);
    proxy.set(Fault::None);
    eventually(SOON, "it has gone while the server is asked", async || {
        let sessions = sidecar.sessions_of("a").await;
        if sessions.len() == 1 {
            Ok(())
        } else {
            Err(sessions)
        }
    })
    .await;
    let told = late.query("SELECT 7").await;
    assert!(
        kinds(&told).ends_with("TDCZ"),
        "an answer that is not its own: {told:?}"
    );
    assert_eq!(rows(&told), ["7"]);
}

const REFUSED: [&str; 12] = [
    "SET execpool.execution_id = 'other'",
    "set ExecPool.Label to x",
    "SET LOCAL execpool.caller = 'x'",
    "SET SESSION execpool.caller TO 'x'",
    "  /* a comment */ SET execpool.traceparent = 'x'; -- more",
    "SET \"execpool\".\"label\" = 'x'",
    "SET \"execpool.label\" = 'x'",
    "SELECT set_config('execpool.label', 'x', false)",
    "select pg_catalog.set_config(E'execpool.label', 'x', true)",
    "SET execpool.no_such_setting = 1",
    "SELECT 1; SET execpool.label = 'x'; SELECT 2",
    "SELECT 1; SELECT set_config('execpool.label', 'x', false); SELECT 2",
];

fn assert_refused(told: &[Message]) {
    let fields = error(told);
    assert_eq!(fields[&'C'], "55P02", "{told:?}");
    assert_eq!(
        (fields[&'S'].as_str(), fields[&'V'].as_str()),
        ("ERROR", "ERROR")
    );
    assert!(fields[&'M'].starts_with("execpool: "), "{fields:?}");
    assert!(fields[&'H'].contains("execpool.execution_id"), "{fields:?}");
    assert!(
        !format!("{told:?}").contains("execpool_refused"),
        "{told:?}"
    );
}

#[tokio::test]
async fn setting_ours_in_a_session_is_refused_and_the_session_goes_on() {
    let (_database, sidecar) = place("refused", "").await;
    let mut raw = sidecar.session("app", "mine").await;
    for sql in REFUSED {
        let told = raw.query(sql).await;
        assert_eq!(kinds(&told), "EZ", "{sql}: {told:?}");
        assert_refused(&told);
        assert_eq!(told[1].transaction_status(), 'I');

        raw.send_with(|buffer| {
            batch(sql, buffer);
            frontend::sync(buffer);
        })
        .await;
        let told = raw.read_until(b'Z').await;
        assert_eq!(kinds(&told), "EZ", "{sql}: {told:?}");
        assert_refused(&told);
    }
    assert_eq!(raw.ask("SELECT 1").await, "1");
    assert_eq!(sidecar.sessions_of("mine").await.len(), 1);
}

#[tokio::test]
async fn what_only_speaks_of_our_settings_is_let_through() {
    let (_database, sidecar) = place("spoken", "").await;
    let mut raw = sidecar.session("app", "mine").await;
    for sql in [
        "SELECT 'SET execpool.label = 1'",
        "SELECT 1 -- SET execpool.label = 1",
        "SELECT set_config('myapp.label', 'execpool', false)",
        "SET myapp.name = 'execpool.label'",
        "CREATE TYPE pair AS (x int); CREATE TABLE t (execpool pair); UPDATE t SET execpool.x = 1",
        "SET application_name = 'execpool:x'",
    ] {
        let told = raw.query(sql).await;
        assert!(!kinds(&told).contains('E'), "{sql}: {told:?}");
    }
}

#[tokio::test]
async fn setting_ours_fails_a_transaction_as_the_server_would() {
    let (_database, sidecar) = place("refused_transaction", "").await;
    let mut raw = sidecar.session("app", "mine").await;
    raw.query("CREATE TABLE t (x int)").await;
    for sql in REFUSED {
        raw.query("BEGIN").await;
        raw.query("INSERT INTO t VALUES (1)").await;
        let told = raw.query(sql).await;
        assert_refused(&told);
        assert_eq!(told.last().unwrap().transaction_status(), 'E');
        assert_eq!(error(&raw.query("SELECT 1").await)[&'C'], "25P02");
        let told = raw.query("COMMIT").await;
        assert_eq!(told.last().unwrap().transaction_status(), 'I');
        assert_eq!(
            raw.ask("SELECT count(*) FROM t").await,
            "0",
            "it was rolled back"
        );
    }
    // Within one Query, nothing of it is done.
    let told = raw
        .query("INSERT INTO t VALUES (1); SET execpool.label = 'x'; SELECT 1")
        .await;
    assert_refused(&told);
    assert_eq!(raw.ask("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn a_pipeline_with_our_settings_keeps_the_order_of_its_answers() {
    let (_database, sidecar) = place("refused_pipeline", "").await;
    let mut raw = sidecar.session("app", "mine").await;
    raw.send_with(|buffer| {
        batch("SELECT 1", buffer);
        batch("SET execpool.label = 'x'", buffer);
        batch("SELECT 2", buffer);
        frontend::sync(buffer);
        batch("SELECT 3", buffer);
        frontend::sync(buffer);
        frontend::query("SELECT set_config('execpool.label', 'x', false)", buffer).unwrap();
        frontend::query("SELECT 4", buffer).unwrap();
        frontend::parse("named", "SET execpool.caller = 'x'", [], buffer).unwrap();
        frontend::sync(buffer);
        batch("SELECT 5", buffer);
        frontend::sync(buffer);
    })
    .await;
    let mut segments = Vec::new();
    for _ in 0..6 {
        segments.push(raw.read_until(b'Z').await);
    }
    let seen: Vec<String> = segments.iter().map(|told| kinds(told)).collect();
    assert_eq!(seen, ["12DCEZ", "12DCZ", "EZ", "TDCZ", "EZ", "12DCZ"]);
    for refused in [0, 2, 4] {
        assert_refused(&segments[refused]);
    }
    let answers: Vec<String> = segments.iter().flat_map(|told| rows(told)).collect();
    assert_eq!(answers, ["1", "3", "4", "5"]);
}

#[tokio::test]
async fn a_setting_of_ours_amid_a_long_text_is_refused_all_the_same() {
    let (_database, sidecar) = place("refused_long", "").await;
    let mut raw = sidecar.session("app", "mine").await;
    // Of a message, the first 16 KiB are looked into.
    let before = "x".repeat(16_000);
    for behind in [0, 1000, 100_000, 1_000_000] {
        let behind = "x".repeat(behind);
        let sql = format!("/* {before} */ SET execpool.label = 'x' /* {behind} */");
        let told = raw.query(&sql).await;
        assert_eq!(kinds(&told), "EZ", "{told:?}");
        assert_refused(&told);
        assert_eq!(raw.ask("SELECT 1").await, "1");
    }
}
