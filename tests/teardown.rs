//! Whatever an execution is in the middle of, its end leaves nothing of it: no backend, no permit,
//! no session; and it touches nobody else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

mod support;

use std::time::{Duration, Instant};

use postgres_protocol::message::frontend;
use serde_json::{Value, json};
use support::guard::Stopped;
use support::session::{assert_in, error};
use support::sidecar::upstream;
use support::{Database, Fault, Postgres, Proxy, Raw, SOON, Sidecar, eventually};

/// Much less than what else would end these sessions, and more than a machine stands still.
const IN_TIME: Duration = Duration::from_secs(30);

/// What `work` answers, and the longest time for which this program stood still meanwhile, and with it
/// most likely the machine.
async fn watched<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    let watch = async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
    };
    let answer = tokio::select! {
        answer = work => answer,
        () = watch => unreachable!("it goes on for ever"),
    };
    (answer, longest.max(last.elapsed()))
}

/// Asserts that an end was whole when it was answered. Whether it was: no end is waited for for over
/// 4.5 s, and a machine that stands still for as long sees none.
#[track_caller]
fn is_whole((status, ended): &(u16, Value), stood_still: Duration) -> bool {
    let is_whole = ended["complete"] == true;
    assert!(
        *status == 200 && (is_whole || stood_still > Duration::from_secs(1)),
        "{status} {ended}"
    );
    is_whole
}

/// A sidecar with pools of 1 + 1, and a session of another execution that must not notice.
struct Place {
    database: Database,
    sidecar: Sidecar,
    neighbour: Raw,
}

impl Place {
    async fn new(name: &str) -> Self {
        Self::with(name, "").await
    }

    async fn with(name: &str, more: &str) -> Self {
        let database = Postgres::shared().database(name).await;
        // Nor does a machine that stands still amid a connect harm anybody.
        let own = "    connect_timeout: 1m\npool: {size: 1, overflow: 1, timeout: 10m}\n";
        let yaml = upstream("app", &database.url()) + own + more;
        let sidecar = Sidecar::start(yaml).await;
        let mut neighbour = sidecar.session("app", "neighbour").await;
        assert_eq!(neighbour.ask("SELECT 'unharmed'").await, "unharmed");
        Self {
            database,
            sidecar,
            neighbour,
        }
    }

    /// A session of the execution that is to end, known to the server by the name `doomed`.
    async fn doomed(&self) -> Raw {
        let named = [
            ("execpool.execution_id", "doomed"),
            ("application_name", "doomed"),
        ];
        let (raw, told) = self.sidecar.started("app", &named).await;
        assert_in(&told);
        raw
    }

    /// Backends of the execution, as the server sees them.
    async fn left(&self) -> usize {
        let filter = format!(
            "datname = '{}' AND application_name = 'doomed'",
            self.database.name
        );
        Postgres::shared().activity(&filter).await.len()
    }

    async fn server_waits_for(&self, event: &str) {
        let filter = format!(
            "datname = '{}' AND application_name = 'doomed' AND wait_event = '{event}'",
            self.database.name
        );
        eventually(SOON, event, async || {
            let found = Postgres::shared().activity(&filter).await;
            if found.is_empty() { Err(()) } else { Ok(()) }
        })
        .await;
    }

    /// Ends the execution; asserts that nothing of it is left when that is answered, that all
    /// permits but the neighbour's are back, and that it can't be brought back by a straggler.
    async fn ends_whole(&mut self) -> Value {
        let path = "/v1/executions/doomed?reason=test";
        let (answer, stood_still) = watched(self.sidecar.control("DELETE", path, None)).await;
        if !is_whole(&answer, stood_still) {
            self.settles().await;
        }
        let (_, ended) = answer;
        assert_eq!(self.left().await, 0, "{ended}");
        assert_eq!(ended["reason"], "deleted", "{ended}");
        self.has_one_open().await.expect("the neighbour's alone");
        let named = [("execpool.execution_id", "doomed")];
        let (_, told) = self.sidecar.started("app", &named).await;
        assert_eq!(error(&told)[&'C'], "55000");
        assert_eq!(self.neighbour.ask("SELECT 'unharmed'").await, "unharmed");
        ended
    }

    /// Whether the neighbour's permit is the only one that is not free.
    async fn has_one_open(&self) -> Result<(), Value> {
        let budget = self.sidecar.get("/v1/status").await["budget"].take();
        let counts = ["open", "reserve", "waiting"].map(|name| budget[name].as_u64());
        match counts == [Some(1), Some(0), Some(0)] {
            true => Ok(()),
            false => Err(budget),
        }
    }

    /// Waits until an end that was not waited for is over.
    async fn settles(&self) {
        eventually(SOON, "all has ended", async || {
            self.has_one_open().await?;
            match self.left().await {
                0 => Ok(()),
                left => Err(json!({"left": left})),
            }
        })
        .await;
    }
}

/// The session is told why, and then closed.
async fn is_told(raw: &mut Raw) {
    let fields = raw.expect_error().await;
    assert_eq!(
        (fields[&'S'].as_str(), fields[&'C'].as_str()),
        ("FATAL", "57P01")
    );
    let message = &fields[&'M'];
    assert!(
        message.contains("execution doomed has ended") && message.contains("control API"),
        "{message}"
    );
    raw.expect_closed().await;
}

async fn send_query(raw: &mut Raw, sql: &str) {
    raw.send_with(|out| frontend::query(sql, out).unwrap())
        .await;
}

#[tokio::test]
async fn ended_in_a_query_that_sleeps() {
    let mut place = Place::new("sleeps").await;
    let mut raw = place.doomed().await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    send_query(&mut raw, "SELECT pg_sleep(600)").await;
    place.server_waits_for("PgSleep").await;
    let ended = place.ends_whole().await;
    is_told(&mut raw).await;
    assert_eq!(
        (&ended["queries"], &ended["sessions_joined"]),
        (&json!(2), &json!(1)),
        "{ended}"
    );
    assert_eq!(ended["peak_connections"], 1, "{ended}");
    let (held, active) = (&ended["held_seconds"], &ended["active_seconds"]);
    assert!(
        held.as_f64() > Some(0.0) && held.as_f64() >= active.as_f64(),
        "{ended}"
    );
}

#[tokio::test]
async fn ended_in_a_transaction() {
    let mut place = Place::new("in_transaction").await;
    let mut raw = place.doomed().await;
    raw.query("CREATE TABLE kept ()").await;
    raw.query("BEGIN").await;
    raw.query("DROP TABLE kept").await;
    place.ends_whole().await;
    is_told(&mut raw).await;
    assert_eq!(place.neighbour.ask("SELECT count(*) FROM kept").await, "0");
}

#[tokio::test]
async fn ended_while_it_copies_in() {
    let mut place = Place::new("copies_in").await;
    let mut raw = place.doomed().await;
    raw.query("CREATE TABLE copied (x text)").await;
    send_query(&mut raw, "COPY copied FROM STDIN").await;
    assert_eq!(raw.read().await.unwrap().kind, b'G');
    raw.send_with(|out| {
        frontend::CopyData::new(bytes::Bytes::from_static(b"row\n"))
            .unwrap()
            .write(out);
    })
    .await;
    place.ends_whole().await;
    is_told(&mut raw).await;
    assert_eq!(
        place.neighbour.ask("SELECT count(*) FROM copied").await,
        "0"
    );
}

#[tokio::test]
async fn ended_while_it_copies_out_to_a_client_that_reads_nothing() {
    let mut place = Place::new("copies_out").await;
    let mut raw = place.doomed().await;
    let sql = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT";
    send_query(&mut raw, sql).await;
    place.server_waits_for("ClientWrite").await;
    place.ends_whole().await;
    // In the middle of a message nothing can be said: it is cut off.
    while raw.read().await.is_some() {}
}

#[tokio::test]
async fn ended_in_the_middle_of_an_upload() {
    let mut place = Place::new("uploads").await;
    let mut raw = place.doomed().await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    let head = [&b"Q"[..], &50_000_000u32.to_be_bytes(), b"SELECT '"].concat();
    raw.send(&head).await;
    raw.send(&vec![b'x'; 3_000_000]).await;
    place.ends_whole().await;
    is_told(&mut raw).await;
}

#[tokio::test]
async fn ended_while_it_waits() {
    let mut place = Place::new("waits").await;
    let mut holders = Vec::new();
    for _ in 0..2 {
        let mut raw = place.doomed().await;
        raw.query("BEGIN").await;
        holders.push(raw);
    }
    let mut waiting = place.doomed().await;
    send_query(&mut waiting, "SELECT 1").await;
    place.sidecar.session_is("doomed", "waiting").await;
    place.ends_whole().await;
    is_told(&mut waiting).await;
    for mut holder in holders {
        is_told(&mut holder).await;
    }
}

#[tokio::test]
async fn ended_while_it_has_not_queried() {
    let mut place = Place::new("unbound").await;
    let mut raw = place.doomed().await;
    place.sidecar.session_is("doomed", "unbound").await;
    place.ends_whole().await;
    is_told(&mut raw).await;
}

#[tokio::test]
async fn ended_while_it_connects() {
    let postgres = Postgres::shared();
    let database = postgres.database("connects").await;
    let proxy = Proxy::unix(postgres).await;
    let yaml = upstream("app", &proxy.url(&database)) + "pool: {size: 1, overflow: 1}\n";
    let sidecar = Sidecar::start(yaml).await;
    let mut first = sidecar.session("app", "doomed").await;
    assert_eq!(first.ask("SELECT 1").await, "1");
    proxy.set(Fault::Freeze);
    let mut connecting = sidecar.session("app", "doomed").await;
    send_query(&mut connecting, "SELECT 1").await;
    sidecar.session_is("doomed", "waiting").await;
    let ended = async {
        let path = "/v1/executions/doomed";
        sidecar.control("DELETE", path, None).await
    };
    let (thawed, (status, ended)) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_millis(800)).await;
            proxy.set(Fault::None);
        },
        ended
    );
    let () = thawed;
    assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
    is_told(&mut connecting).await;
    is_told(&mut first).await;
    let budget = &sidecar.get("/v1/status").await["budget"];
    assert_eq!(budget["open"], 0, "{budget}");
    eventually(SOON, "no backend is left", async || {
        let filter = "datname = 'connects' AND application_name <> 'execpool monitor'";
        let left = postgres.activity(filter).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test]
async fn what_can_not_be_ended_is_told_in_bounded_time_and_keeps_its_permit() {
    let place = Place::new("stopped").await;
    let mut raw = place.doomed().await;
    let pid = raw.backend().await;
    let stopped = Stopped::new(pid);
    let started = Instant::now();
    let (status, ended) = place
        .sidecar
        .control("DELETE", "/v1/executions/doomed", None)
        .await;
    assert_eq!(
        (status, &ended["complete"]),
        (200, &json!(false)),
        "{ended}"
    );
    assert_eq!(ended["remaining_pids"], json!([pid]), "{ended}");
    assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    is_told(&mut raw).await;
    drop(stopped);
    eventually(SOON, "it is gone once it can be", async || {
        match place.left().await {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
}

#[tokio::test]
async fn a_grace_lets_a_running_query_finish_and_no_other_begin() {
    let place = Place::new("graceful").await;
    let mut running = place.doomed().await;
    assert_eq!(running.ask("SELECT 1").await, "1");
    send_query(&mut running, "SELECT 'done' FROM pg_sleep(1)").await;
    place.server_waits_for("PgSleep").await;
    let mut idle = place.doomed().await;
    let path = "/v1/executions/doomed?grace=1h";
    let started = Instant::now();
    let (answer, ()) = tokio::join!(place.sidecar.control("DELETE", path, None), async {
        is_told(&mut idle).await;
        let row = running.read_until(b'D').await;
        assert_eq!(row.last().unwrap().columns(), [Some("done".to_owned())]);
        is_told(&mut running).await;
    });
    assert_eq!(
        (answer.0, &answer.1["complete"]),
        (200, &json!(true)),
        "{}",
        answer.1
    );
    let took = started.elapsed();
    assert!(took < IN_TIME, "the grace is not waited out: {took:?}");
}

#[tokio::test]
async fn shared_is_emptied_and_lives_on() {
    let place = Place::new("shared").await;
    let (mut raw, told) = place.sidecar.started("app", &[]).await;
    assert_in(&told);
    assert_eq!(raw.ask("SELECT 1").await, "1");
    let (status, ended) = place
        .sidecar
        .control("DELETE", "/v1/executions/shared", None)
        .await;
    assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
    assert_eq!(raw.expect_error().await[&'C'], "57P01");
    let (mut raw, told) = place.sidecar.started("app", &[]).await;
    assert_in(&told);
    assert_eq!(raw.ask("SELECT 2").await, "2");
}

#[tokio::test]
async fn a_hundred_ends_at_once_are_all_complete() {
    let more = "budget: {size: 60, overflow: 50}\n";
    let mut place = Place::with("hundred", more).await;
    let mut sessions = Vec::new();
    for number in 0..100 {
        let mut raw = place.sidecar.session("app", &format!("e{number}")).await;
        assert_eq!(raw.ask("SELECT 1").await, "1");
        if number % 2 == 0 {
            send_query(&mut raw, "SELECT pg_sleep(600)").await;
        }
        sessions.push(raw);
    }
    let ends = (0..100).map(|number| {
        let (sidecar, path) = (&place.sidecar, format!("/v1/executions/e{number}"));
        async move { sidecar.control("DELETE", &path, None).await }
    });
    let (answers, stood_still) = watched(futures_util::future::join_all(ends)).await;
    let whole = answers.iter().filter(|one| is_whole(one, stood_still));
    if whole.count() < answers.len() {
        place.settles().await;
    }
    place.has_one_open().await.expect("the neighbour's alone");
    assert_eq!(place.neighbour.ask("SELECT 'unharmed'").await, "unharmed");
}

#[tokio::test]
async fn ended_while_its_client_has_left_a_query_behind() {
    let mut place = Place::new("left_behind").await;
    let mut raw = place.doomed().await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    send_query(&mut raw, "SELECT pg_sleep(600)").await;
    place.server_waits_for("PgSleep").await;
    raw.send_with(frontend::terminate).await;
    drop(raw);
    eventually(SOON, "the goodbye is read", async || {
        let sessions = place.sidecar.sessions_of("doomed").await;
        let says = sessions.iter().all(|one| one["state"] == "closing");
        says.then_some(()).ok_or(sessions)
    })
    .await;
    place.ends_whole().await;
    // Before force would end it after a second: the server tells whether it was cancelled.
    eventually(SOON, "it was cancelled", async || {
        let log = Postgres::shared().log();
        let lines = log.lines().filter(|line| line.contains("|left_behind|"));
        let said: Vec<String> = lines.map(str::to_owned).collect();
        let cancelled = "canceling statement due to user request";
        let is_told = said.iter().any(|line| line.contains(cancelled));
        is_told.then_some(()).ok_or(said)
    })
    .await;
}

#[tokio::test]
async fn ended_in_a_query_that_ignores_its_cancel() {
    let mut place = Place::new("ignores").await;
    let mut raw = place.doomed().await;
    let sql = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); \
               EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    send_query(&mut raw, sql).await;
    place.server_waits_for("PgSleep").await;
    place.ends_whole().await;
    is_told(&mut raw).await;
}

#[tokio::test]
async fn ended_in_the_middle_of_a_long_pipeline_whose_answers_nobody_reads() {
    let mut place = Place::new("pipelines").await;
    let mut raw = place.doomed().await;
    raw.query("CREATE TABLE t (x text)").await;
    let mut batch = bytes::BytesMut::new();
    for _ in 0..200 {
        let sql = "INSERT INTO t SELECT repeat('x', 10000) RETURNING x";
        frontend::parse("", sql, [], &mut batch).unwrap();
        batch.extend_from_slice(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0");
        frontend::execute("", 0, &mut batch).unwrap();
        frontend::sync(&mut batch);
    }
    // More than all buffers on the way hold, so that it is cut off in the middle.
    let batches = async { while raw.try_send(&batch).await.is_ok() {} };
    let stuck = tokio::time::timeout(Duration::from_secs(1), batches).await;
    assert!(stuck.is_err(), "nobody takes all of that");
    place.ends_whole().await;
    while raw.read().await.is_some() {}
}

#[tokio::test]
async fn ended_while_it_waits_to_come_in() {
    let mut place = Place::with("in_vain", "").await;
    let mut holders = Vec::new();
    for _ in 0..2 {
        let mut raw = place.doomed().await;
        raw.query("BEGIN").await;
        holders.push(raw);
    }
    // A session whose startup waits, as its key has never connected.
    let mut other = place.sidecar.raw().await;
    other
        .send_with(|out| {
            let parameters = [
                ("user", "app"),
                ("database", "app"),
                ("execpool.execution_id", "doomed"),
                ("application_name", "another key"),
            ];
            frontend::startup_message(parameters, out).unwrap();
        })
        .await;
    place.sidecar.session_is("doomed", "startup").await;
    place.ends_whole().await;
    is_told(&mut other).await;
}

#[tokio::test]
async fn a_grace_that_is_over_ends_what_runs() {
    let place = Place::new("grace_over").await;
    let mut raw = place.doomed().await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    send_query(&mut raw, "SELECT pg_sleep(600)").await;
    place.server_waits_for("PgSleep").await;
    let started = Instant::now();
    let path = "/v1/executions/doomed?grace=700ms";
    let (status, ended) = place.sidecar.control("DELETE", path, None).await;
    assert_eq!(place.left().await, 0, "{ended}");
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(700) && took < IN_TIME,
        "{took:?}"
    );
    assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
    is_told(&mut raw).await;
}

#[tokio::test]
async fn a_copy_that_has_begun_is_finished_within_the_grace() {
    let mut place = Place::new("grace_copy").await;
    let mut raw = place.doomed().await;
    raw.query("CREATE TABLE t (x text)").await;
    send_query(&mut raw, "COPY t FROM STDIN").await;
    assert_eq!(raw.read().await.unwrap().kind, b'G');
    let path = "/v1/executions/doomed?grace=1h";
    let (answer, ()) = tokio::join!(place.sidecar.control("DELETE", path, None), async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            raw.send(b"d\0\0\0\x061\n").await;
        }
        raw.send(b"c\0\0\0\x04").await;
        let told = raw.read_until(b'Z').await;
        assert_eq!(support::session::kinds(&told), "CZ");
        is_told(&mut raw).await;
    });
    assert_eq!(
        (answer.0, &answer.1["complete"]),
        (200, &json!(true)),
        "{}",
        answer.1
    );
    assert_eq!(place.neighbour.ask("SELECT count(*) FROM t").await, "5");
}

#[tokio::test]
async fn a_frozen_network_holds_no_end_back_for_long() {
    let postgres = Postgres::shared();
    let database = postgres.database("frozen").await;
    let proxy = Proxy::unix(postgres).await;
    let sidecar = Sidecar::start(upstream("app", &proxy.url(&database))).await;
    let mut idle = sidecar.session("app", "doomed").await;
    let pid = idle.backend().await;
    let mut busy = sidecar.session("app", "doomed").await;
    let busy_pid = busy.backend().await;
    send_query(&mut busy, "SELECT pg_sleep(600)").await;
    proxy.set(Fault::Freeze);
    let started = Instant::now();
    let (status, ended) = sidecar
        .control("DELETE", "/v1/executions/doomed", None)
        .await;
    let took = started.elapsed();
    assert!(took < IN_TIME, "{took:?}");
    let mut expected = vec![pid, busy_pid];
    expected.sort_unstable();
    assert_eq!(
        (status, &ended["remaining_pids"]),
        (200, &json!(expected)),
        "{ended}"
    );
    is_told(&mut idle).await;
    is_told(&mut busy).await;
}

#[tokio::test]
async fn a_grace_is_cut_short_by_an_end_without_one() {
    let place = Place::new("hurried").await;
    let mut raw = place.doomed().await;
    assert_eq!(raw.ask("SELECT 1").await, "1");
    send_query(&mut raw, "SELECT pg_sleep(600)").await;
    place.server_waits_for("PgSleep").await;
    let patient = place
        .sidecar
        .control("DELETE", "/v1/executions/doomed?grace=1h", None);
    let hurried = async {
        raw.expect_silence(Duration::from_millis(500)).await;
        let started = Instant::now();
        let answer = place
            .sidecar
            .control("DELETE", "/v1/executions/doomed", None)
            .await;
        assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
        answer
    };
    let (patient, hurried) = tokio::join!(patient, hurried);
    for (status, ended) in [patient, hurried] {
        assert_eq!((status, &ended["complete"]), (200, &json!(true)), "{ended}");
    }
    is_told(&mut raw).await;
}
