//! What goes through TLS: much of it in little memory, cancel requests, and connections that are
//! idle meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "tls/certificates.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod certificates;
#[path = "tls/relay.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod relay;
mod support;

use std::time::Duration;

use certificates::{Authority, Files, params};
use postgres_protocol::message::frontend;
use relay::{Behind, Opening, Order, Purpose, Relay};
use support::guard::Stopped;
use support::session::{rows, told_pid};
use support::sidecar::upstream;
use support::{Database, Message, Postgres, PostgresOptions, Raw, SOON, Sidecar, eventually};

const MIB: u64 = 1 << 20;
/// Each value has so many bytes.
const WIDTH: usize = 4000;
/// So many values are 187 MiB.
const MANY: usize = 49_000;
/// By how much the process may have grown at most while they passed, in bytes: buffers that were
/// never as full before, and no part of what passed.
const GROWTH: u64 = 3 * MIB;
const SQL: &str = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
/// An empty table for them, in which they are not compressed.
const TABLE: &str = "DROP TABLE IF EXISTS bulk; CREATE TEMP TABLE bulk (v text); \
    ALTER TABLE bulk ALTER COLUMN v SET STORAGE PLAIN";

/// A server that lets nobody in without TLS, and a sidecar before it.
struct Place {
    _files: Files,
    postgres: Postgres,
    database: Database,
    sidecar: Sidecar,
}

async fn place(name: &str) -> Place {
    let files = Files::new();
    let own = Authority::root("an authority").signed(&params("server", &["localhost"]));
    let alone = PostgresOptions {
        hba: vec!["hostnossl all all 127.0.0.1/32 reject".to_owned()],
        ..PostgresOptions::default()
    };
    let (postgres, database) = files.server(name, &own, alone).await;
    let url = format!("{}?sslmode=require", database.tcp_url_as("app"));
    let sidecar = Sidecar::start(upstream(name, &url) + "    connect_timeout: 60s\n").await;
    Place {
        _files: files,
        postgres,
        database,
        sidecar,
    }
}

impl Place {
    async fn session(&self, execution: &str) -> Raw {
        self.sidecar.session(&self.database.name, execution).await
    }

    /// Waits until a backend is in this wait, which is one for its client.
    async fn waits(&self, pid: i32, event: &str) {
        eventually(SOON, &format!("{pid} is in {event}"), async || {
            let found = self.postgres.activity(&format!("pid = {pid}")).await;
            match found.iter().any(|backend| backend.wait_event == event) {
                true => Ok(()),
                false => Err(found),
            }
        })
        .await;
    }
}

/// The value of a row: its number, again and again.
fn value(row: usize) -> String {
    format!("{row:016}").repeat(WIDTH / 16)
}

/// The same in SQL, of rows 1 to `many`.
fn values(many: usize) -> String {
    let times = WIDTH / 16;
    format!("SELECT repeat(lpad(i::text, 16, '0'), {times}) FROM generate_series(1, {many}) i")
}

/// Reads an answer to its end; each value must be the next one. Answers how many there were.
async fn count_values(raw: &mut Raw) -> usize {
    let mut count = 0;
    loop {
        let message = raw.read().await.expect("it ends with ReadyForQuery");
        match message.kind {
            // One column, and its length; or a line.
            b'D' => {
                count += 1;
                assert!(message.body[6..] == *value(count).as_bytes(), "row {count}");
            }
            b'd' => {
                count += 1;
                let line = message.body.strip_suffix(b"\n").unwrap();
                assert!(line == value(count).as_bytes(), "line {count}");
            }
            b'T' | b'C' | b'H' | b'c' => {}
            b'Z' => return count,
            _ => panic!("{message:?}"),
        }
    }
}

async fn send_query(raw: &mut Raw, sql: &str) {
    raw.send_with(|out| frontend::query(sql, out).unwrap())
        .await;
}

/// Copies rows 1 to `many` into the table `bulk`; answers how many of them are there and right.
async fn copy_in(raw: &mut Raw, many: usize) -> String {
    raw.query(TABLE).await;
    send_query(raw, "COPY bulk FROM STDIN").await;
    assert_eq!(raw.read().await.unwrap().kind, b'G');
    for from in (1..=many).step_by(16) {
        raw.send(&lines(from..(from + 16).min(many + 1))).await;
    }
    end_copy(raw).await;
    let times = WIDTH / 16;
    raw.ask(&format!(
        "SELECT count(*) FILTER (WHERE v = repeat(left(v, 16), {times})) || ' ' || \
                sum(left(v, 16)::bigint) FROM bulk"
    ))
    .await
}

/// CopyData of some rows.
fn lines(rows: std::ops::Range<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        let line = value(row) + "\n";
        out.push(b'd');
        out.extend(u32::try_from(line.len() + 4).unwrap().to_be_bytes());
        out.extend(line.as_bytes());
    }
    out
}

async fn end_copy(raw: &mut Raw) {
    raw.send(b"c\0\0\0\x04").await;
    let told: Vec<Message> = raw.read_until(b'Z').await;
    let kinds: String = told.iter().map(|one| char::from(one.kind)).collect();
    assert_eq!(kinds, "CZ", "{told:?}");
}

/// What [`copy_in`] answers where all came as it was sent.
fn all_of(many: usize) -> String {
    format!("{many} {}", many * (many + 1) / 2)
}

#[tokio::test]
async fn much_passes_whole_and_none_of_it_stays_in_memory() {
    let place = place("much").await;
    let mut raw = place.session("a").await;
    assert_eq!(raw.ask(SQL).await, "true");
    let (select, copy) = (values(MANY), format!("COPY ({}) TO STDOUT", values(MANY)));
    // Once as a warm-up: what is kept of buffers is then there.
    send_query(&mut raw, &values(500)).await;
    assert_eq!(count_values(&mut raw).await, 500);
    assert_eq!(copy_in(&mut raw, 500).await, all_of(500));
    let before = place.sidecar.peak();
    for (what, sql) in [("rows", &select), ("COPY TO", &copy)] {
        send_query(&mut raw, sql).await;
        assert_eq!(count_values(&mut raw).await, MANY, "{what}");
        let grown = place.sidecar.peak() - before;
        assert!(grown <= GROWTH, "{what}: {grown} of {before} bytes more");
    }
    assert_eq!(copy_in(&mut raw, MANY).await, all_of(MANY));
    let grown = place.sidecar.peak() - before;
    println!("peak: {before} bytes before, {grown} more after");
    assert!(grown <= GROWTH, "COPY FROM: {grown} of {before} bytes more");
}

#[tokio::test]
async fn who_does_not_read_holds_up_the_server_and_nobody_else() {
    let place = place("slow_reader").await;
    let mut slow = place.session("slow").await;
    let mut other = place.session("other").await;
    let backend = slow.backend().await;
    other.ask(SQL).await;
    let before = place.sidecar.peak();
    send_query(&mut slow, &values(MANY)).await;
    place.waits(backend, "ClientWrite").await;
    for turn in 0..200 {
        assert_eq!(other.ask(&format!("SELECT {turn}")).await, turn.to_string());
    }
    place.waits(backend, "ClientWrite").await;
    let grown = place.sidecar.peak() - before;
    assert!(grown <= GROWTH, "{grown} of {before} bytes more");
    assert_eq!(count_values(&mut slow).await, MANY);
    assert_eq!(slow.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_server_that_does_not_read_holds_up_its_client_and_nobody_else() {
    let place = place("slow_server").await;
    let mut slow = place.session("slow").await;
    let mut other = place.session("other").await;
    let backend = slow.backend().await;
    other.ask(SQL).await;
    slow.query(TABLE).await;
    send_query(&mut slow, "COPY bulk FROM STDIN").await;
    assert_eq!(slow.read().await.unwrap().kind, b'G');
    let before = place.sidecar.peak();
    let stopped = Stopped::new(backend);
    let packet = lines(1..MANY + 1);
    let mut sent = 0;
    // Until nothing more is taken.
    let patience = Duration::from_millis(500);
    while sent < packet.len()
        && let Ok(some) = tokio::time::timeout(patience, slow.send_some(&packet[sent..])).await
    {
        sent += some;
    }
    assert!(
        sent < packet.len() / 2,
        "{sent} bytes were taken of a server that reads none"
    );
    for turn in 0..200 {
        assert_eq!(other.ask(&format!("SELECT {turn}")).await, turn.to_string());
    }
    let grown = place.sidecar.peak() - before;
    assert!(grown <= GROWTH, "{grown} of {before} bytes more");
    drop(stopped);
    slow.send(&packet[sent..]).await;
    end_copy(&mut slow).await;
    let sum = slow.ask("SELECT count(*) || ' ' || sum(left(v, 16)::bigint) FROM bulk");
    assert_eq!(sum.await, all_of(MANY));
}

#[tokio::test]
async fn a_cancel_request_goes_in_tls_as_its_connection_does() {
    let files = Files::new();
    let own = Authority::root("an authority").signed(&params("relay", &["localhost"]));
    let (postgres, database) = files
        .server("cancel", &own, PostgresOptions::default())
        .await;
    for (mode, direct, opening) in [
        ("require", "", Opening::Asked),
        ("prefer", "", Opening::Asked),
        ("require", "&sslnegotiation=direct", Opening::Direct),
    ] {
        let relay = Relay::start(&own, &["postgresql"], Behind::Tls(postgres.port())).await;
        let (port, name) = (relay.port(), &database.name);
        let url = format!("postgresql://app@127.0.0.1:{port}/{name}?sslmode={mode}{direct}");
        let sidecar = Sidecar::start(upstream(name, &url) + "    connect_timeout: 60s\n").await;
        let named = [("execpool.execution_id", "a")];
        let (mut raw, told) = sidecar.started(name, &named).await;
        send_query(&mut raw, "SELECT pg_sleep(600)").await;
        postgres.waits_in(&database, "PgSleep").await;
        let (pid, key) = told.iter().find(|one| one.kind == b'K').unwrap().key();
        assert_eq!(pid, told_pid(&told));
        let mut cancel = sidecar.raw().await;
        cancel
            .send_with(|out| frontend::cancel_request(pid, key, out))
            .await;
        assert_eq!(raw.expect_error().await[&'C'], "57014", "{mode}");
        cancel.expect_closed().await;
        let seen = relay.seen();
        let cancels = seen.iter().filter(|one| one.purpose == Purpose::Cancel);
        assert_eq!(cancels.count(), 1, "{seen:?}");
        assert!(seen.iter().all(|one| one.opening == opening), "{seen:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_lent_again_and_one_that_was_ended_is_replaced_unseen() {
    let place = place("idle").await;
    let backend = place.session("a").await.backend().await;
    for _ in 0..5 {
        place.sidecar.settles().await;
        let mut next = place.session("a").await;
        assert_eq!(next.backend().await, backend);
        assert_eq!(next.ask(SQL).await, "true");
    }
    place.sidecar.settles().await;
    let admin = place.postgres.admin().await;
    let end = format!("SELECT pg_terminate_backend({backend}, 60000)");
    let ended = admin.query_one(&end, &[]).await.unwrap();
    assert!(ended.get::<_, bool>(0));
    let mut next = place.session("a").await;
    let told = next.query("SELECT pg_backend_pid()").await;
    let kinds: String = told.iter().map(|one| char::from(one.kind)).collect();
    assert_eq!(kinds, "TDCZ", "{told:?}");
    assert_ne!(rows(&told), [backend.to_string()]);
}

#[tokio::test]
async fn what_tls_says_for_itself_is_no_reason_to_close_an_idle_connection_but_its_goodbye_is() {
    let own = Authority::root("an authority").signed(&params("relay", &["localhost"]));
    let postgres = Postgres::shared();
    let database = postgres.database("goodbye").await;
    let relay = Relay::start(&own, &["postgresql"], Behind::Socket(postgres.socket())).await;
    let (port, name) = (relay.port(), &database.name);
    let url = format!("postgresql://app@127.0.0.1:{port}/{name}?sslmode=require");
    let sidecar = Sidecar::start(upstream(name, &url) + "    connect_timeout: 60s\n").await;
    let backend = sidecar.session(name, "a").await.backend().await;
    sidecar.settles().await;
    for _ in 0..3 {
        relay.order(Order::NewKeys).await;
        assert_eq!(sidecar.session(name, "a").await.backend().await, backend);
        sidecar.settles().await;
    }
    relay.order(Order::Goodbye).await;
    let filter = format!("pid = {backend}");
    let mut next = sidecar.session(name, "a").await;
    assert_ne!(next.backend().await, backend);
    eventually(SOON, "the old backend has ended", async || {
        let left = postgres.activity(&filter).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}
